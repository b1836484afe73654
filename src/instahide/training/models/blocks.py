"""Residual blocks of two or three dimensions, and networks made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

#: Groups of channels in group normalization; all widths of the built-in networks are multiples of
#: it.
GROUPS = 8
#: Makes a normalization layer for a number of channels.
Norm = Callable[[int], nn.Module]

_CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


class _ShrinkVolume(nn.Module):
    """The mean of 2x2x2 neighbours, or of fewer where a side is 1: volumes may have few slices."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, D, H, W) -> half of each side, rounded up."""
        kernel = [min(2, side) for side in x.shape[2:]]
        return F.avg_pool3d(x, kernel, ceil_mode=True)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., "Deep Residual Learning", 2015, fig. 2).

    Args:
        inputs: input channels.
        outputs: output channels.
        stride: stride of the first convolution, 1 or 2.
        pooled: whether a shortcut with a stride averages neighbours, instead of dropping three
            values of four (He et al., "Bag of Tricks", 2018, ResNet-D).
        norm: makes a normalization layer for a number of channels.
        dimensions: 2 for images, 3 for volumes, whose convolutions are 3x3x3.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from instahide.training.models import Block
        >>> block = Block(8, 16, stride=2, pooled=True, norm=nn.BatchNorm2d)
        >>> tuple(block(torch.zeros(2, 8, 4, 4)).shape)
        (2, 16, 2, 2)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        pooled: bool,
        norm: Norm,
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        convolution = _CONVOLUTIONS[dimensions]
        self.conv1 = convolution(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = norm(outputs)
        self.conv2 = convolution(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = norm(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shrink: nn.Module = nn.Identity()
            if pooled and stride != 1:
                shrink = (
                    _ShrinkVolume() if dimensions == 3 else nn.AvgPool2d(stride, ceil_mode=True)
                )
            self.shortcut = nn.Sequential(
                shrink,
                convolution(inputs, outputs, 1, 1 if pooled else stride, bias=False),
                norm(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, H, W) -> (n, outputs, H / stride, W / stride); volumes likewise."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y)) + self.shortcut(x)
        return F.relu(y)


def residual_network(
    classes: int,
    *,
    stem: nn.Conv2d | nn.Conv3d,
    widths: Sequence[int],
    blocks: Sequence[int],
    pooled: bool = False,
    norm: Norm = nn.BatchNorm2d,
) -> nn.Sequential:
    """A residual network: a stem, one stage for each width, the mean over pixels, a linear layer.

    Args:
        classes: number of outputs.
        stem: the first convolution; its output has ``widths[0]`` channels. The network is for
            volumes if it is an ``nn.Conv3d``.
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
    dimensions = 3 if isinstance(stem, nn.Conv3d) else 2
    layers: list[nn.Module] = [
        stem,
        norm(widths[0]),
        nn.ReLU(),
    ]
    inputs = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, blocks, strict=True)):
        for number in range(depth):
            stride = 2 if stage > 0 and number == 0 else 1
            layers.append(
                Block(inputs, width, stride, pooled=pooled, norm=norm, dimensions=dimensions)
            )
            inputs = width
    mean = nn.AdaptiveAvgPool3d(1) if dimensions == 3 else nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, mean, nn.Flatten(), nn.Linear(inputs, classes))


class SignInvariant(nn.Module):
    """A network applied to the absolute values of its input, scaled to root mean square 1.

    The signs of an encoding are uniformly random, so the absolute values hold all its information.
    A mix has less contrast than a plain image; after scaling, a network that was trained on mixes
    also works on plain images.

    Args:
        network: maps (n, C, H, W), or volumes (n, C, D, H, W), to logits.

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
        """(n, C, H, W) or (n, C, D, H, W) -> logits, which do not depend on the signs of ``x``."""
        places = tuple(range(1, x.ndim))
        power = x.float().square().mean(dim=places, keepdim=True)
        logits: Tensor = self.network(x.abs() / (power + 1e-6).sqrt())
        return logits
