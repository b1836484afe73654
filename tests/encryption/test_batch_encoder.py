"""Batches fetched by somebody else: planned, then mixed as the definition says."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from instahide.data import ImageDataset, ImageTable, PhotoCrops
from instahide.data.image_source import normalized_as
from instahide.encryption import mixing
from instahide.encryption.batch_encoder import BatchEncoder, Normalization, PendingBatch
from instahide.encryption.encoder import Encoded
from instahide.encryption.exposure import Exposure
from instahide.encryption.kernels import reference
from instahide.encryption.keys import KeyStream, OneTimeKeys
from instahide.encryption.sampling.sampler import masks
from instahide.encryption.scheme import LabelMode, Scheme
from instahide.errors import ExposureLimitError, InstaHideError

KEY = bytes(range(32))
SHAPE = (3, 5, 7)
COUNT, CLASSES = 40, 4
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.normal(size=(COUNT, *SHAPE)).astype(np.float32)
NUMBERS = np.arange(COUNT) % CLASSES
SOFT = GENERATOR.dirichlet(np.ones(CLASSES), COUNT).astype(np.float32)
EVERYTHING = np.arange(COUNT)
POOL = ImageTable.from_arrays(GENERATOR.integers(0, 256, (12, *SHAPE), np.uint8))
MOMENTS = Normalization((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def encoder(scheme: Scheme, exposure: Exposure | None = None, **more: Any) -> BatchEncoder:
    public = POOL if scheme.public_k else None
    values = {"public": public, "moments": MOMENTS, "keys": KeyStream(fixed_key=KEY)}
    return BatchEncoder(scheme, exposure or Exposure(COUNT), **{**values, **more})


def finished(
    encoder: BatchEncoder, plan: PendingBatch, labels: NDArray[Any] = NUMBERS, **more: Any
) -> Encoded:
    fetched = np.concatenate([plan.targets, plan.extra_partners])
    return encoder.encode(plan, IMAGES[fetched], labels[fetched], CLASSES, **more)


def defined(plan: PendingBatch, scheme: Scheme) -> NDArray[np.float64]:
    """By the reference, from all images and the keys of a plan that was not finished yet."""
    signs = masks(plan.block, len(plan.targets), SHAPE) if scheme.mask else None
    keys = OneTimeKeys(plan.partners, plan.coefficients, signs, None)
    public = POOL.normalized_like(MOMENTS).normalized()
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    return reference.encode(IMAGES, public, keys, scheme.private_k, ones, zeros)


schemes = st.sampled_from(
    [
        Scheme.inside(4),
        Scheme.cross(4),
        Scheme.mixup(3),
        Scheme.plain(),
        Scheme.cross(6, private_k=3),
    ]
)


@pytest.mark.slow
@given(
    scheme=schemes,
    pool=st.sets(st.integers(0, COUNT - 1), min_size=4),
    data=st.data(),
    labels=st.sampled_from(["soft", "renormalised"]),
    given_soft=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_an_encoding_is_the_definition(
    scheme: Scheme, pool: set[int], data: st.DataObject, labels: LabelMode, given_soft: bool
) -> None:
    scheme = replace(scheme, label_mode=labels)
    # Some images twice, as a sampler with replacement gives them.
    indices = np.asarray(data.draw(st.lists(st.sampled_from(sorted(pool)), min_size=1)))
    ours, twin = encoder(scheme), encoder(scheme)
    plan, same = (each.draw(indices, np.asarray(sorted(pool))) for each in (ours, twin))
    encoded = finished(ours, plan, SOFT if given_soft else NUMBERS)
    np.testing.assert_allclose(encoded.images, defined(same, scheme), atol=1e-5)

    weights = plan.coefficients[:, : scheme.private_k].astype(float)
    if labels == "renormalised":
        weights /= weights.sum(1, keepdims=True)
    onehot = SOFT if given_soft else np.eye(CLASSES)[NUMBERS]
    soft = np.einsum("np,npc->nc", weights, onehot[plan.partners[:, : scheme.private_k]])
    np.testing.assert_allclose(encoded.labels, soft, atol=1e-6)
    assert encoded.labels.dtype == torch.float32


@given(
    pool=st.sets(st.integers(0, COUNT - 1), min_size=4),
    data=st.data(),
    private_k=st.integers(1, 4),
)
def test_a_plan_asks_for_what_its_mixes_need_and_no_more(
    pool: set[int], data: st.DataObject, private_k: int
) -> None:
    indices = np.asarray(data.draw(st.lists(st.sampled_from(sorted(pool)), min_size=1)))
    scheme = Scheme.inside(private_k) if private_k > 1 else Scheme.plain()
    exposure = Exposure(COUNT)
    plan = encoder(scheme, exposure).draw(indices, np.asarray(sorted(pool)))
    np.testing.assert_array_equal(plan.targets, indices)
    np.testing.assert_array_equal(plan.partners[:, 0], indices)
    for mix in plan.partners:
        assert len(set(mix)) == private_k, "none twice, itself included"
        assert set(mix) <= pool
    assert not set(plan.extra_partners) & set(indices)
    assert set(plan.extra_partners) | set(indices) == set(plan.partners.ravel())
    np.testing.assert_array_equal(plan.extra_partners, np.unique(plan.extra_partners))
    fetched = np.concatenate([plan.targets, plan.extra_partners])
    np.testing.assert_array_equal(fetched[plan.positions], plan.partners)
    # An image that is there twice was fetched twice, perhaps moved otherwise by a transform.
    np.testing.assert_array_equal(plan.positions[:, 0], np.arange(len(indices)))
    np.testing.assert_array_equal(
        exposure.counts, np.bincount(plan.partners.ravel(), minlength=COUNT)
    )


def test_partners_are_uniform_over_the_pool() -> None:
    pool = np.asarray([3, 7, 8, 20, 39])
    ours = BatchEncoder(Scheme.inside(2), Exposure(COUNT))
    partners = ours.draw(np.repeat(pool, 4000), pool).partners[:, 1].reshape(5, 4000)
    for own, drawn in zip(pool, partners, strict=True):
        counts = [(drawn == other).sum() for other in pool if other != own]
        assert sum(counts) == 4000
        # 20 binomial counts of mean 1000 and deviation 27: 6 deviations leave 1 error in 10^7.
        assert max(abs(count - 1000) for count in counts) < 6 * 27.4


def test_a_limit_ends_a_plan_before_the_image_that_would_pass_it() -> None:
    exposure = Exposure(COUNT, limit=3)
    ours = BatchEncoder(Scheme.inside(2), exposure)
    pool = np.arange(10, 20)
    plans: list[PendingBatch] = []
    with pytest.raises(ExposureLimitError, match="above 3 encodings"):
        plans.extend(ours.draw(pool, pool) for _ in range(100))
    counted = np.bincount(
        np.concatenate([plan.partners.ravel() for plan in plans]), minlength=COUNT
    )
    np.testing.assert_array_equal(exposure.counts, counted)
    assert exposure.counts.max() == 3
    assert not exposure.counts[:10].any()
    short = [plan for plan in plans if len(plan.targets) < 10]
    for plan in short:
        assert len(finished(ours, plan).images) == len(plan.targets)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_type_of_encodings(dtype: torch.dtype) -> None:
    scheme = Scheme.cross(4)
    ours, twin = encoder(scheme), encoder(scheme)
    exact = finished(ours, ours.draw(EVERYTHING, EVERYTHING)).images
    cast = finished(twin, twin.draw(EVERYTHING, EVERYTHING), dtype=dtype).images
    assert cast.dtype is dtype
    torch.testing.assert_close(cast, exact.to(dtype))


def test_public_images_are_normalized_as_the_private_ones_are() -> None:
    # A pool in two forms: pixels, and floats that a transform of its own has normalized.
    class Floats:
        classes = ("a", "b")

        def __len__(self) -> int:
            return len(POOL)

        def __getitem__(self, index: int) -> tuple[NDArray[np.float32], int]:
            return POOL.normalized_like(MOMENTS).normalized(np.asarray([index]))[0], 0

    scheme = Scheme.cross(4)
    pools = encoder(scheme), encoder(scheme, public=ImageDataset(Floats()), moments=None)
    first, second = (finished(each, each.draw(EVERYTHING, EVERYTHING)).images for each in pools)
    torch.testing.assert_close(first, second)


def test_photographs_give_new_crops_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "CROPS_PER_EPOCH", 20)
    photo = GENERATOR.integers(0, 256, (60, 70, 3), np.uint8)
    ours = encoder(Scheme.cross(4), public=PhotoCrops((photo,), *SHAPE[1:]))
    crops = []
    for _ in range(2):
        ours.next_epoch()
        assert finished(ours, ours.draw(EVERYTHING, EVERYTHING)).images.isfinite().all()
        assert isinstance(ours._public.images, ImageTable)
        crops.append(ours._public.images.pixels)
    assert not np.array_equal(*crops)


@pytest.mark.parametrize(
    ("scheme", "changes", "message"),
    [
        (Scheme.cross(4), {"public": None}, "2 public images, but there are none"),
        (Scheme.inside(4), {"public": POOL}, "scheme uses none"),
        (Scheme.cross(20), {}, "needs 18 public images; the pool has 12"),
        (Scheme.cross(4), {"moments": None}, "mean and std .* are unknown"),
        (
            Scheme.cross(4),
            {"moments": Normalization((0.5,), (0.2,))},
            "3 channels, but there are 1",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    scheme: Scheme, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InstaHideError, match=message):
        encoder(scheme, **changes)


def test_public_images_of_another_shape_are_refused() -> None:
    public = ImageTable.from_arrays(GENERATOR.integers(0, 256, (12, 3, 5, 5), np.uint8))
    ours = encoder(Scheme.cross(4), public=public)
    plan = ours.draw(EVERYTHING, EVERYTHING)
    with pytest.raises(InstaHideError, match=r"Public images are \(3, 5, 5\), private ones"):
        finished(ours, plan)


def test_no_copy_of_a_plan_or_of_a_fixed_key() -> None:
    ours = encoder(Scheme.inside(4))
    plan = ours.draw(EVERYTHING, EVERYTHING)
    for secret in (plan, ours):
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be copied"):
                copied(secret)
    assert repr(plan) == "PendingBatch(40 hidden)"


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))  # noqa: S301


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_draws_keys_of_its_own(copied: Any) -> None:
    ours = BatchEncoder(Scheme.cross(4), Exposure(COUNT), POOL, moments=MOMENTS)
    ours.draw(EVERYTHING, EVERYTHING)
    twin = copied(ours)
    assert ours.exposure.counts.sum() > 0
    assert np.array_equal(twin.exposure.counts, ours.exposure.counts)
    first, second = (each.draw(EVERYTHING, EVERYTHING) for each in (ours, twin))
    assert not np.array_equal(first.coefficients, second.coefficients)
    assert finished(twin, second).images.isfinite().all()


def wide_pool() -> ImageTable:
    """`POOL` with pixels of 16 bits."""
    pixels = np.array([0, 65535], np.uint16).reshape(2, 1, 1, 1)
    return POOL.with_pixels_like(ImageTable.from_arrays(pixels, value_range=(0, 65535)))


def test_a_pool_of_16_bits_is_normalized_in_its_own_range() -> None:
    found, expected = (normalized_as(pool, MOMENTS).normalized() for pool in (wide_pool(), POOL))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_pool_of_another_type_than_the_images_of_a_data_set_is_refused() -> None:
    chosen, private = np.zeros((1, 1), np.int64), np.zeros((1, *SHAPE), np.uint8)
    with pytest.raises(InstaHideError, match=r"type uint16.*type uint8"):
        mixing.PublicImages(wide_pool()).rows(chosen, private, MOMENTS, normalized=False)
