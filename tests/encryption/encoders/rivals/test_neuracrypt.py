"""NeuraCrypt-style networks, compared with the same network of PyTorch's layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instahide.encryption.encoders.rivals.neuracrypt import NeuraCrypt, RandomNetwork
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.errors import SchemeError


def pictures(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def by_layers(images: Tensor, key: RandomNetwork, patch: int) -> Tensor:
    """(n, patches, width): convolutions, batch normalization and ReLU, as the authors build it."""
    width = len(key.last.bias)
    first = nn.Conv2d(images.shape[1], width, patch, stride=patch)
    first.weight.data = key.patches.weight.reshape(first.weight.shape)
    first.bias.data = key.patches.bias
    maps = first(images).relu()
    for layer in key.hidden:
        hidden = nn.Conv2d(width, width, 1)
        hidden.weight.data = layer.weight[:, :, None, None]
        hidden.bias.data = layer.bias
        maps = nn.BatchNorm2d(width, track_running_stats=False)(hidden(maps)).relu()
    vectors = maps.flatten(2).transpose(1, 2) + key.positions
    last = nn.Linear(width, width)
    last.weight.data, last.bias.data = key.last
    return last(vectors.relu()).detach()


def test_it_is_the_network_of_the_paper() -> None:
    method, random = NeuraCrypt(patch=4, width=8, depth=2, shuffle=False), SecretRandom()
    key = method.draw_key((3, 8, 8), random)
    found = method.transform(pictures(), key, random)
    assert found.shape == (6, 8, 2, 2)
    wanted = by_layers(pictures(), key, 4)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), wanted, rtol=1e-4, atol=1e-4)


def test_it_shuffles_the_patches_of_each_encoding_and_nothing_else() -> None:
    method, random = NeuraCrypt(patch=2, width=8, depth=1), SecretRandom()
    key = method.draw_key((3, 8, 8), random)
    found = method.transform(pictures(), key, random).flatten(2).transpose(1, 2)
    whole = by_layers(pictures(), key, 2)
    moved = 0
    for image, wanted in zip(found, whole, strict=True):
        distances = torch.cdist(image, wanted)
        order = distances.argmin(dim=1)
        assert sorted(order.tolist()) == list(range(16))
        assert distances.amin(dim=1).max() < 1e-3
        moved += not torch.equal(order, torch.arange(16))
    assert moved == 6
    assert not torch.equal(found, method.transform(pictures(), key, random).flatten(2))


def test_two_keys_make_different_networks() -> None:
    method, random = NeuraCrypt(patch=4, width=8, shuffle=False), SecretRandom()
    keys = [method.draw_key((3, 8, 8), random) for _ in range(2)]
    one, other = (method.transform(pictures(), key, random) for key in keys)
    assert (one - other).abs().mean() > 0.1


def test_a_key_is_never_shown() -> None:
    key = NeuraCrypt(width=8).draw_key((1, 8, 8), SecretRandom())
    assert repr(key) == "RandomNetwork(hidden)"
    assert repr(key.last) == "Layer(hidden)"


@pytest.mark.parametrize("shape", [(1, 10, 8), (1, 8, 8, 8)])
def test_images_that_patches_do_not_divide_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SchemeError, match="not divided by patches"):
        NeuraCrypt(patch=4).output_shape(shape)
