"""The network that attacks share keeps the size of images, and begins as the identity."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instahide.attacks.unet import UNet


def block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.SiLU())


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (13, 5), (28, 28)])
def test_it_begins_by_changing_nothing(size: tuple[int, int]) -> None:
    images = torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(0))
    for network in (UNet(2), UNet(2, 2, (8, 16)), UNet(2, block=block)):
        bias = network.out.bias
        torch.testing.assert_close(network(images), images + bias[:, None, None])


def test_other_outputs_begin_by_saying_nothing() -> None:
    network = UNet(4, 2, (3, 5, 7), block)
    found = network(torch.randn(3, 4, 9, 6))
    assert found.shape == (3, 2, 9, 6)
    torch.testing.assert_close(found, network.out.bias[:, None, None].expand_as(found))


def test_images_of_a_batch_do_not_interact() -> None:
    network = UNet(1)
    nn.init.normal_(network.out.weight)
    images = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), atol=1e-4, rtol=1e-4)
