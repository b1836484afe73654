"""Networks for encodings: built-in ones, those of other packages, and a sign-invariant stem.

A network is named by a built-in name (`NETWORKS`), ``timm:NAME``, ``monai:NAME``, or
``package.module:factory``, a callable of your own; see `build`.
"""

from instahide.training.models.blocks import Block, SignInvariant, residual_network
from instahide.training.models.build import build
from instahide.training.models.builtin import (
    IMAGE_NETWORKS,
    NETWORKS,
    VOLUME_NETWORKS,
    resnet18,
    small,
    small_3d,
    small_group,
)

__all__ = [
    "IMAGE_NETWORKS",
    "NETWORKS",
    "VOLUME_NETWORKS",
    "Block",
    "SignInvariant",
    "build",
    "residual_network",
    "resnet18",
    "small",
    "small_3d",
    "small_group",
]
