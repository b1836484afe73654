"""Networks for encodings: the paper's ResNet-18, a small fast one, and a sign-invariant stem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instahide.errors import InstaHideError

#: Of channels, in group normalization; every width here is a multiple.
GROUPS = 8
#: A normalization of so many channels.
Norm = Callable[[int], nn.Module]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., "Deep Residual Learning", 2015, fig. 2).

    A pooled shortcut averages neighbours where a plain one drops three values of four (He et al.,
    "Bag of Tricks", 2018, ResNet-D).
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
    """``stem``, a stage of ``blocks`` for each of ``widths``, and the mean over pixels.

    Every stage but the first halves height and width.
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
    """ResNet-18 with the stem for small images (3x3, no pooling), the paper's network."""
    stem = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    widths, blocks = (64, 128, 256, 512), (2, 2, 2, 2)
    return residual_network(classes, stem=stem, widths=widths, blocks=blocks)


def small(channels: int, classes: int, *, norm: Norm = nn.BatchNorm2d) -> nn.Module:
    """A residual network that two CPU cores can train in minutes; for images from 8x8 up."""
    # Halving the image at once leaves a quarter of the values to normalize: the cost on a CPU.
    stem = nn.Conv2d(channels, 32, 4, stride=2, padding=1, bias=False)
    widths, blocks = (32, 64, 128), (1, 1, 2)
    return residual_network(
        classes, stem=stem, widths=widths, blocks=blocks, pooled=True, norm=norm
    )


def small_group(channels: int, classes: int) -> nn.Module:
    """`small` with group normalization (Wu and He, 2018), so that images do not meet in a batch.

    What an image adds to a gradient is then its own, as DP-SGD needs; and there are no running
    statistics, which clients with other classes would measure differently.
    """
    return small(channels, classes, norm=partial(nn.GroupNorm, GROUPS))


class SignInvariant(nn.Module):
    """Feeds ``network`` |x| at unit contrast.

    As the mask is uniform, |x| is all that an encoding says. A mix has less contrast than a plain
    image, so that each is divided by its root mean square: a network that learned from mixes then
    reads plain images as well.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The same output for x and for x under any mask."""
        power = x.float().square().mean(dim=(1, 2, 3), keepdim=True)
        logits: Tensor = self.network(x.abs() / (power + 1e-6).sqrt())
        return logits


NETWORKS: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {"small": small, "small-group": small_group, "resnet18": resnet18}
)


def build(
    name: str, channels: int, classes: int, *, sign_invariant: bool, seed: int | None = None
) -> nn.Module:
    """The network ``name`` with fresh weights; logits (n, classes) from (n, channels, H, W).

    Args:
        name: one of `NETWORKS`.
        channels: of the images.
        classes: outputs.
        sign_invariant: feed it |x| (see `SignInvariant`).
        seed: makes the initial weights repeatable. It seeds nothing else: keys never come from
            PyTorch's generator, and that generator is left as it was.

    Raises:
        InstaHideError: there is no such network.
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
