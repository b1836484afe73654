"""Makes a network from its name, and checks that it is for the images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call

from instahide.errors import InstaHideError
from instahide.training.device import channels_last
from instahide.training.models.blocks import SignInvariant
from instahide.training.models.builtin import IMAGE_NETWORKS, NETWORKS, VOLUME_NETWORKS
from instahide.training.models.imported import is_imported, make_imported
from instahide.training.models.pretrained import load_pretrained
from instahide.training.outputs import class_logits

#: Images of a trial batch: batch normalization needs two in training.
_TRIAL = 2
#: The built-in networks take images with sides of so many pixels or more; others are tried.
_SMALL = 8


def build(
    name: str,
    channels: int,
    classes: int,
    *,
    sign_invariant: bool,
    seed: int | None = None,
    size: tuple[int, ...] = (32, 32),
    weights: Path | None = None,
) -> nn.Module:
    """Make a network which maps (n, channels, *size) to outputs (n, classes).

    ``timm:NAME`` is a network of timm, and ``monai:NAME`` one of ``monai.networks.nets``, both with
    new weights: nothing is ever downloaded. ``package.module:factory`` is a callable of your own.
    It is called as ``factory(channels, classes)``, with ``size=size`` if it takes that, and returns
    a module with parameters. A network of another package is tried on a batch of zeros. Its package
    is imported, which runs code of it: never pass a name that comes from a file of a stranger.

    Args:
        name: one of `NETWORKS`, ``timm:NAME``, ``monai:NAME`` or ``package.module:factory``.
        channels: channels of the images, any number.
        classes: number of outputs.
        sign_invariant: apply it to absolute values (see `SignInvariant`).
        seed: seed of the initial weights; None for random ones. Keys never come from PyTorch's
            generator, and the state of that generator is restored.
        size: (H, W) of the images, or (D, H, W) of the volumes.
        weights: file of pretrained weights to begin with, of safetensors or `torch.save`. Those
            that do not fit keep their initial values, and a warning names them.

    Raises:
        InstaHideError: there is no such network, it is not for images of ``size``, it does not map
            them to ``classes`` outputs, or no weight of the file fits.

    Examples:
        >>> import torch
        >>> from instahide.training.models import build
        >>> model = build("small", channels=3, classes=10, sign_invariant=True, seed=0)
        >>> tuple(model(torch.zeros(2, 3, 32, 32)).shape)
        (2, 10)
        >>> volumes = build("small-3d", 1, 2, sign_invariant=True, size=(8, 16, 16))
        >>> tuple(volumes(torch.zeros(2, 1, 8, 16, 16)).shape)
        (2, 2)
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        if is_imported(name):
            network = make_imported(name, channels, classes, size)
            _try(network, name, channels, classes, size)
        else:
            _require_dimensions(name, size)
            network = NETWORKS[name](channels, classes)
            if min(size) < _SMALL:
                _try(network, name, channels, classes, size)
    if weights is not None:
        load_pretrained(network, weights)
    return SignInvariant(network) if sign_invariant else network


def _require_dimensions(name: str, size: tuple[int, ...]) -> None:
    """Check that ``name`` is a built-in network for images of ``size``."""
    known = VOLUME_NETWORKS if len(size) == 3 else IMAGE_NETWORKS
    if name in known:
        return
    what, shape = ("volumes", "D x H x W") if len(size) == 3 else ("images", "H x W")
    if name in NETWORKS:
        raise InstaHideError(
            f"The network `{name}` is not for {what} of {shape}.",
            f"Use `model='{next(iter(known))}'`, or another network for {what}.",
        )
    raise InstaHideError(
        f"There is no network `{name}`.",
        f"Choose one of: {', '.join(known)}, timm:NAME, monai:NAME or package.module:factory.",
    )


def _try(network: nn.Module, name: str, channels: int, classes: int, size: tuple[int, ...]) -> None:
    """Check that ``network`` maps images of ``size`` to ``classes`` outputs, on zeros.

    It is tried as it is used: in training and in evaluation, on images in the memory layout of a
    training step. Its buffers stay as they are.
    """
    images = channels_last(torch.zeros(_TRIAL, channels, *size))
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        with torch.no_grad():
            functional_call(network.train(), buffers, (images,))
            outputs = network.eval()(images)
    except Exception as error:  # from code of other packages
        reason = str(error).partition("\n")[0][:200]
        raise InstaHideError(
            f"The network `{name}` does not take images of shape {(channels, *size)} "
            f"({type(error).__name__}: {reason}).",
            "Use another network, or images of a size that it takes: `size=` resizes them.",
        ) from error
    finally:
        network.train()
    logits = class_logits(outputs)
    found = getattr(outputs, "logits", outputs)
    if len(logits) != _TRIAL or found.reshape(len(found), -1).shape[1] != classes:
        raise InstaHideError(
            f"The network `{name}` maps {_TRIAL} images to outputs of shape {tuple(found.shape)}, "
            f"not {(_TRIAL, classes)}.",
            "Use a network with one output for each class.",
        )
    if next(network.parameters(), None) is None:
        raise InstaHideError(
            f"The network `{name}` has no weights to train.", "Use a network with parameters."
        )
