"""Networks of other packages: timm's, MONAI's, or those of a factory named by the user.

To make one imports its package, and so runs code of it. `is_imported` tells such a name without
importing anything, so that a name in a stranger's file can be refused.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module

from torch import nn

from instahide.errors import InstaHideError, IntegrationError
from instahide.utils.optional_deps import requires_extra

#: ``package.module:factory``.
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
#: What MONAI's networks call channels and outputs.
_MONAI_NAMES = (
    ("in_channels", "num_classes"),
    ("in_channels", "out_channels"),
    ("n_input_channels", "num_classes"),
)
#: Arguments with which networks of other packages would download weights.
_PRETRAINED = ("pretrained", "pretrained_backbone")


def is_imported(name: str) -> bool:
    """Whether ``name`` is a network of another package, which would be imported."""
    return ":" in name


def make_imported(name: str, channels: int, outputs: int, size: tuple[int, ...]) -> nn.Module:
    """Make the network ``name`` of another package, with new weights.

    Args:
        name: ``timm:NAME``, ``monai:NAME`` or ``package.module:factory``.
        channels: channels of the images.
        outputs: outputs of the network.
        size: (H, W) of the images, or (D, H, W) of the volumes.

    Raises:
        InstaHideError: there is no such network, or it cannot be made for such images.
        IntegrationError: its package cannot be imported.
    """
    package, _, rest = name.partition(":")
    if package == "timm":
        network: object = _of_timm(rest, channels, outputs, size)
    elif package == "monai":
        network = _of_monai(rest, channels, outputs, size)
    else:
        network = _of_factory(name, channels, outputs, size)
    if not isinstance(network, nn.Module):
        raise InstaHideError(
            f"`{name}` returns {type(network).__name__}, not a torch.nn.Module.",
            "Return a module that maps a batch of images to outputs.",
        )
    return network


def _of_timm(name: str, channels: int, outputs: int, size: tuple[int, ...]) -> object:
    if len(size) != 2:
        raise InstaHideError(
            "The networks of timm are for images, and these are volumes.",
            "Use `model='small-3d'`, or a network of MONAI such as `monai:DenseNet121`.",
        )
    try:
        import timm
    except Exception as error:  # a torchvision that does not fit raises RuntimeError
        raise IntegrationError(
            f"This needs timm, which cannot be imported ({error}).",
            "Install it with `pip install timm`, and the torchvision of your version of torch.",
        ) from error
    # Other names, such as hf_hub:NAME, would be downloaded.
    if not re.fullmatch(r"[\w.]+", name, re.ASCII) or not timm.is_model(name):
        raise _unknown("timm", name, "timm.list_models()")
    make = _without_downloads(timm.create_model)
    given = {"num_classes": outputs, "in_chans": channels}
    attempts: list[dict[str, object]] = [{**given, "img_size": size}, {**given}]
    return _first_accepted(make, (name,), attempts, f"timm:{name}")


def _of_monai(name: str, channels: int, outputs: int, size: tuple[int, ...]) -> object:
    with requires_extra("MONAI", "integrations"):
        nets = import_module("monai.networks.nets")
    make = getattr(nets, name, None) if name.isidentifier() and name[0] != "_" else None
    if not callable(make) or not str(make.__module__).startswith("monai.networks.nets."):
        raise _unknown("MONAI", name, "the documentation of monai.networks.nets")
    dimensions = {"spatial_dims": len(size)}
    attempts = (dimensions | {ins: channels, outs: outputs} for ins, outs in _MONAI_NAMES)
    return _first_accepted(_without_downloads(make), (), attempts, f"monai:{name}")


def _of_factory(name: str, channels: int, outputs: int, size: tuple[int, ...]) -> object:
    if not _FACTORY.fullmatch(name):
        raise InstaHideError(
            f"`{name}` names no network.",
            "Write timm:NAME, monai:NAME, or package.module:factory.",
        )
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(import_module(module), attribute, None)
    except Exception as error:  # from the user's code
        raise IntegrationError(
            f"The module {module} of `model='{name}'` cannot be imported "
            f"({type(error).__name__}: {error}).",
            "Install its package, or add its folder to PYTHONPATH.",
        ) from error
    if not callable(factory):
        raise InstaHideError(
            f"The module {module} has no callable {attribute}.",
            "Name a callable that takes the numbers of channels and of outputs.",
        )
    given: dict[str, object] = {"size": size} if _takes(factory, "size") else {}
    return _first_accepted(factory, (channels, outputs), [given], name)


def _first_accepted(
    make: Callable[..., object],
    arguments: tuple[object, ...],
    attempts: Iterable[Mapping[str, object]],
    name: str,
) -> object:
    """The network that ``make`` returns for the first of ``attempts`` whose names it takes."""
    reason = ""
    for given in attempts:
        try:
            return make(*arguments, **given)
        except Exception as error:  # from code of other packages
            # The last reason but that an argument has another name.
            if not reason or "unexpected keyword" not in str(error):
                reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
    raise InstaHideError(
        f"The network `{name}` cannot be made from the images' shape and number of outputs alone "
        f"({reason}).",
        "Write a function of your own that makes it, and name it as package.module:factory.",
    )


def _without_downloads(make: Callable[..., object]) -> Callable[..., object]:
    """``make``, told not to load pretrained weights, which it would download."""
    never = {name: False for name in _PRETRAINED if name in inspect.signature(make).parameters}
    return lambda *arguments, **given: make(*arguments, **never, **given)


def _takes(factory: Callable[..., object], name: str) -> bool:
    try:
        return name in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # of a callable without a signature
        return False


def _unknown(package: str, name: str, where: str) -> InstaHideError:
    return InstaHideError(
        f"{package} has no network `{name[:80]}`.", f"Choose one; {where} lists them."
    )
