"""Factories of networks, as users write them, and as they should not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: How often one of them was called.
calls: list[str] = []


def linear(channels: int, outputs: int, size: tuple[int, ...]) -> nn.Module:
    """A linear network that must know the size of its images."""
    calls.append("linear")
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * int(torch.Size(size).numel()), outputs))


def pooled(channels: int, outputs: int) -> nn.Module:
    """A network for images of any size."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))


def local(channels: int, outputs: int) -> nn.Module:
    """A network whose class no other process can import."""

    class Local(nn.Sequential):
        pass

    return Local(pooled(channels, outputs))


def one_output_too_many(channels: int, outputs: int) -> nn.Module:
    return pooled(channels, outputs + 1)


def segmentation(channels: int, outputs: int) -> nn.Module:
    return nn.Conv2d(channels, outputs, 1)


def no_weights(channels: int, outputs: int) -> nn.Module:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_zeros(len(x), outputs)

    return Constant()


def no_module(channels: int, outputs: int) -> str:
    return "a network"


def raising(channels: int, outputs: int) -> nn.Module:
    raise RuntimeError("no licence")


def only_evaluated(channels: int, outputs: int) -> nn.Module:
    """A network that cannot be trained as it is evaluated."""

    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = pooled(channels, outputs)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("use the other entry point for training")
            found: Tensor = self.inner(x)
            return found

    return Trained()


def of_contiguous_images(channels: int, outputs: int) -> nn.Module:
    """A network that takes no channels-last images."""

    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(channels * 64, outputs)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.inner(x.view(len(x), -1))
            return found

    return Viewed()


def second_head(channels: int, outputs: int) -> nn.Module:
    """A network with parameters that its outputs do not depend on."""

    class OneHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = pooled(channels, outputs), pooled(channels, outputs)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.first(x)
            return found

    return OneHead()


NOT_CALLABLE = 1
