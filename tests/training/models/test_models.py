"""Networks: the published sizes, any image size, and blindness to the mask."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from instahide.errors import InstaHideError
from instahide.training.models import (
    IMAGE_NETWORKS,
    VOLUME_NETWORKS,
    SignInvariant,
    build,
    resnet18,
    small,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small batches are slower on many threads, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_resnet18_has_the_known_size() -> None:
    """11,173,962 parameters: ResNet-18 for CIFAR-10 as published in many places."""
    assert sum(parameter.numel() for parameter in resnet18(3, 10).parameters()) == 11_173_962


def test_resnet18_keeps_the_resolution_of_small_images() -> None:
    """32x32 reaches the mean as 4x4: a stem without stride or pooling, three halvings."""
    body = resnet18(3, 10)[:-3]
    assert body.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(8, 40), width=st.integers(8, 40), channels=st.sampled_from([1, 3]))
def test_the_small_network_takes_any_image_from_8x8(height: int, width: int, channels: int) -> None:
    """Odd sizes and oblong ones, too, in training mode."""
    logits = small(channels, 7)(torch.randn(2, channels, height, width))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@cache
def _sign_invariant(name: str) -> nn.Module:
    size = (8,) * _dimensions(name)
    return build(name, 1, 3, sign_invariant=True, seed=0, size=size).eval()


def _dimensions(name: str) -> int:
    return 3 if name in VOLUME_NETWORKS else 2


@settings(max_examples=20, deadline=None)
@given(
    sides=st.tuples(st.integers(2, 12), *[st.integers(4, 12)] * 2), channels=st.sampled_from([1, 5])
)
def test_the_network_for_volumes_takes_any_size(sides: tuple[int, int, int], channels: int) -> None:
    network = build("small-3d", channels, 7, sign_invariant=True, size=sides)
    logits = network(torch.randn(2, channels, *sides))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("name", "size"), [("small", (8, 8, 8)), ("small-3d", (8, 8))])
def test_a_network_of_other_dimensions_is_refused(name: str, size: tuple[int, ...]) -> None:
    remedy = "small-3d" if len(size) == 3 else "small"
    with pytest.raises(InstaHideError, match=rf"`{name}` is not for .* Use `model='{remedy}'`"):
        build(name, 1, 3, sign_invariant=True, size=size)


@pytest.mark.parametrize(("name", "size"), [("small", (1, 8)), ("small-3d", (1, 8, 8))])
def test_images_that_are_too_small_are_refused(name: str, size: tuple[int, ...]) -> None:
    with pytest.raises(InstaHideError, match=r"does not take images of shape \(1, 1, 8"):
        build(name, 1, 3, sign_invariant=True, size=size)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(sorted([*IMAGE_NETWORKS, *VOLUME_NETWORKS])),
)
def test_sign_invariant_networks_do_not_see_the_mask(seed: int, name: str) -> None:
    """Equal outputs, to the bit, for x and every sign-masked x."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 1, *(8,) * _dimensions(name), generator=generator)
    mask = torch.randint(0, 2, x.shape, generator=generator) * 2 - 1
    network = _sign_invariant(name)
    assert torch.equal(network(x), network(x * mask))


def test_sign_invariant_networks_do_not_see_contrast() -> None:
    """A mix has less of it than a plain image; the logits stay the same."""
    x, network = torch.randn(2, 1, 8, 8), _sign_invariant("small")
    torch.testing.assert_close(network(x), network(0.5 * x), rtol=1e-3, atol=1e-3)


def test_other_networks_see_the_mask() -> None:
    """Or the test above would show nothing."""
    x = torch.randn(2, 1, 8, 8)
    network = build("small", 1, 3, sign_invariant=False).eval()
    assert not torch.allclose(network(x), network(-x))


def test_the_seed_gives_the_weights_and_leaves_pytorch_alone() -> None:
    """Whoever draws from PyTorch's generator finds it where it was."""
    torch.manual_seed(7)
    undisturbed = torch.rand(1)
    torch.manual_seed(7)
    first, second, other = (
        build("small", 1, 3, sign_invariant=True, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(1), undisturbed)
    assert isinstance(first, SignInvariant)
    weights = [network.network[0].weight for network in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_unknown_network_is_refused_by_name() -> None:
    """The message lists what there is."""
    with pytest.raises(InstaHideError, match=r"`vgg`.*small, small-group, resnet18"):
        build("vgg", 3, 10, sign_invariant=False)


def test_images_do_not_meet_in_the_network_with_group_normalization() -> None:
    """In training mode as well: what comes of one is the same beside any other."""
    x = torch.randn(3, 1, 8, 8)
    for name, apart in {"small": False, "small-group": True}.items():
        network = build(name, 1, 3, sign_invariant=False, seed=0).train()
        alone = torch.cat([network(x[:2])[:1], network(x[::2])[:1]])
        assert torch.allclose(alone[0], alone[1], atol=1e-6) is apart
    assert not list(network.buffers())
