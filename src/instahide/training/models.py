"""Networks for encodings: the paper's ResNet-18, a small fast one, and a sign-invariant stem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instahide.errors import InstaHideError

#: Groups of channels in group normalization; all widths in this module are multiples of it.
GROUPS = 8
#: Makes a normalization layer for a number of channels.
Norm = Callable[[int], nn.Module]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., "Deep Residual Learning", 2015, fig. 2).

    Args:
        inputs: input channels.
        outputs: output channels.
        stride: stride of the first convolution.
        pooled: whether a shortcut with a stride averages neighbours, instead of dropping three
            values of four (He et al., "Bag of Tricks", 2018, ResNet-D).
        norm: makes a normalization layer for a number of channels.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from instahide.training.models import Block
        >>> block = Block(8, 16, stride=2, pooled=True, norm=nn.BatchNorm2d)
        >>> tuple(block(torch.zeros(2, 8, 4, 4)).shape)
        (2, 16, 2, 2)
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, pooled: bool, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = norm(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shrink = nn.AvgPool2d(stride, ceil_mode=True) if pooled else nn.Identity()
            self.shortcut = nn.Sequential(
                shrink,
                nn.Conv2d(inputs, outputs, 1, 1 if pooled else stride, bias=False),
                norm(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, H, W) -> (n, outputs, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y)) + self.shortcut(x)
        return F.relu(y)


def residual_network(
    classes: int,
    *,
    stem: nn.Conv2d,
    widths: Sequence[int],
    blocks: Sequence[int],
    pooled: bool = False,
    norm: Norm = nn.BatchNorm2d,
) -> nn.Sequential:
    """A residual network: a stem, one stage for each width, the mean over pixels, a linear layer.

    Args:
        classes: number of outputs.
        stem: the first convolution; its output has ``widths[0]`` channels.
        widths: channels of each stage. Every stage but the first halves height and width.
        blocks: blocks in each stage.
        pooled: as for `Block`.
        norm: makes a normalization layer for a number of channels.

    Raises:
        ValueError: ``widths`` and ``blocks`` differ in length.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from instahide.training.models import residual_network
        >>> stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        >>> network = residual_network(10, stem=stem, widths=(8, 16), blocks=(1, 1))
        >>> tuple(network(torch.zeros(2, 1, 8, 8)).shape)
        (2, 10)
    """
    layers: list[nn.Module] = [
        stem,
        norm(widths[0]),
        nn.ReLU(),
    ]
    inputs = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, blocks, strict=True)):
        for number in range(depth):
            stride = 2 if stage > 0 and number == 0 else 1
            layers.append(Block(inputs, width, stride, pooled=pooled, norm=norm))
            inputs = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(*layers, *head)


def resnet18(channels: int, classes: int) -> nn.Module:
    """ResNet-18 with the stem for small images (3x3, no pooling), the paper's network.

    Args:
        channels: channels of the images.
        classes: number of outputs.

    Examples:
        >>> from instahide.training.models import resnet18
        >>> sum(weights.numel() for weights in resnet18(3, 10).parameters())
        11173962
    """
    stem = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    widths, blocks = (64, 128, 256, 512), (2, 2, 2, 2)
    return residual_network(classes, stem=stem, widths=widths, blocks=blocks)


def small(channels: int, classes: int, *, norm: Norm = nn.BatchNorm2d) -> nn.Module:
    """A residual network that two CPU cores train in minutes, for images of 8x8 pixels or more.

    Args:
        channels: channels of the images.
        classes: number of outputs.
        norm: makes a normalization layer for a number of channels.

    Examples:
        >>> import torch
        >>> from instahide.training.models import small
        >>> tuple(small(1, 10)(torch.zeros(2, 1, 8, 8)).shape)
        (2, 10)
    """
    # The stride leaves a quarter of the values to normalize, which is most of the cost on a CPU.
    stem = nn.Conv2d(channels, 32, 4, stride=2, padding=1, bias=False)
    widths, blocks = (32, 64, 128), (1, 1, 2)
    return residual_network(
        classes, stem=stem, widths=widths, blocks=blocks, pooled=True, norm=norm
    )


def small_group(channels: int, classes: int) -> nn.Module:
    """`small` with group normalization (Wu and He, 2018) in place of batch normalization.

    The gradient of an image then does not depend on the other images of the batch, as DP-SGD
    requires. There are also no running statistics, which would differ between participants with
    different classes.

    Args:
        channels: channels of the images.
        classes: number of outputs.

    Examples:
        >>> from instahide.training.models import small_group
        >>> list(small_group(1, 10).buffers())
        []
    """
    return small(channels, classes, norm=partial(nn.GroupNorm, GROUPS))


class SignInvariant(nn.Module):
    """A network applied to the absolute values of its input, scaled to root mean square 1.

    The signs of an encoding are uniformly random, so the absolute values hold all its information.
    A mix has less contrast than a plain image; after scaling, a network that was trained on mixes
    also works on plain images.

    Args:
        network: maps (n, C, H, W) to logits.

    Examples:
        >>> import torch
        >>> from instahide.training.models import SignInvariant, small
        >>> model = SignInvariant(small(1, 10)).eval()
        >>> x = torch.randn(2, 1, 8, 8)
        >>> torch.equal(model(x), model(-x))
        True
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> logits, which do not depend on the signs of ``x``."""
        power = x.float().square().mean(dim=(1, 2, 3), keepdim=True)
        logits: Tensor = self.network(x.abs() / (power + 1e-6).sqrt())
        return logits


NETWORKS: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {"small": small, "small-group": small_group, "resnet18": resnet18}
)


def build(
    name: str, channels: int, classes: int, *, sign_invariant: bool, seed: int | None = None
) -> nn.Module:
    """Make a network with new weights, which maps (n, channels, H, W) to logits (n, classes).

    Args:
        name: one of `NETWORKS`.
        channels: channels of the images.
        classes: number of outputs.
        sign_invariant: apply it to absolute values (see `SignInvariant`).
        seed: seed of the initial weights; None for random ones. Keys never come from PyTorch's
            generator, and the state of that generator is restored.

    Raises:
        InstaHideError: ``name`` is not in `NETWORKS`.

    Examples:
        >>> import torch
        >>> from instahide.training.models import build
        >>> model = build("small", channels=3, classes=10, sign_invariant=True, seed=0)
        >>> tuple(model(torch.zeros(2, 3, 32, 32)).shape)
        (2, 10)
    """
    if name not in NETWORKS:
        raise InstaHideError(
            f"There is no network `{name}`.", f"Choose one of: {', '.join(NETWORKS)}."
        )
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        network = NETWORKS[name](channels, classes)
    return SignInvariant(network) if sign_invariant else network
