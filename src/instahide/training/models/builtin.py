"""The built-in networks: the paper's ResNet-18, small fast ones, and one for volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import nn

from instahide.training.models.blocks import GROUPS, Norm, residual_network


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


def small_3d(channels: int, classes: int) -> nn.Module:
    """`small` for volumes of 2 slices or more, with convolutions in three dimensions.

    Args:
        channels: channels of the volumes.
        classes: number of outputs.

    Examples:
        >>> import torch
        >>> from instahide.training.models import small_3d
        >>> tuple(small_3d(2, 10)(torch.zeros(2, 2, 8, 8, 8)).shape)
        (2, 10)
    """
    stem = nn.Conv3d(channels, 32, 4, stride=2, padding=1, bias=False)
    widths, blocks = (32, 64, 128), (1, 1, 2)
    return residual_network(
        classes, stem=stem, widths=widths, blocks=blocks, pooled=True, norm=nn.BatchNorm3d
    )


#: Networks for images (n, C, H, W), by name.
IMAGE_NETWORKS: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {"small": small, "small-group": small_group, "resnet18": resnet18}
)
#: Networks for volumes (n, C, D, H, W), by name.
VOLUME_NETWORKS: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {"small-3d": small_3d}
)
#: All built-in networks, by name.
NETWORKS: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {**IMAGE_NETWORKS, **VOLUME_NETWORKS}
)
