"""The encoder: images, keys and labels meet as the definition says, or are refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from instahide.data import ImageDataset, ImageSource, ImageTable, PhotoCrops
from instahide.encryption import mixing
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoded, Encoder
from instahide.encryption.kernels import reference
from instahide.encryption.keys import KeyStream, OneTimeKeys
from instahide.encryption.scheme import LabelMode, Scheme
from instahide.errors import InstaHideError

KEY = bytes(range(32))
SHAPE = (3, 8, 8)


def pixels(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def table(count: int = 30, classes: int = 3, seed: int = 0) -> ImageTable:
    return ImageTable.from_arrays(pixels(count, seed=seed), np.arange(count) % classes)


def pool(count: int = 12) -> ImageTable:
    # Darker than the private images, with a mean and a deviation of its own.
    return ImageTable.from_arrays(pixels(count, seed=1) // 2)


def fixed() -> KeyStream:
    return KeyStream(fixed_key=KEY)


def keys_and_encoding(
    indices: NDArray[np.int64], *arguments: Any, **more: Any
) -> tuple[OneTimeKeys, Encoded]:
    """One encoding, and the keys that it was made with."""
    twins = [Encoder(*arguments, keys=fixed(), **more) for _ in range(2)]
    return twins[0]._draw(twins[0]._keys.next_block(), indices), twins[1].encode(indices)


class Items:
    """Somebody's data set: items of a table, as they are or normalized."""

    def __init__(self, source: ImageTable, *, floats: bool) -> None:
        self.source, self.floats = source, floats
        self.classes = source.classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], int]:
        image = (
            self.source.normalized(slice(index, index + 1))[0]
            if self.floats
            else self.source.pixels[index].transpose(1, 2, 0)
        )
        return image, int(self.source.labels[index])


def dataset(source: ImageTable, *, floats: bool) -> ImageDataset:
    return ImageDataset(Items(source, floats=floats), mean=source.mean, std=source.std, workers=1)


@pytest.mark.parametrize("labels", ["soft", "renormalised"])
@pytest.mark.parametrize("scheme", [Scheme.inside(4), Scheme.cross(4), Scheme.mixup(3)])
def test_an_encoding_is_the_definition(scheme: Scheme, labels: LabelMode) -> None:
    scheme = replace(scheme, label_mode=labels)
    # Three classes for four images of a mix: some share a class.
    images, public = table(), pool() if scheme.public_k else None
    indices = np.arange(25)[::-1].copy()
    augmentation = Augmentation(2, flip=True)
    keys, encoded = keys_and_encoding(indices, scheme, images, public, augmentation=augmentation)
    expected = reference.encode(
        images.pixels, pool().pixels, keys, scheme.private_k, images.scale, images.bias
    )
    np.testing.assert_allclose(encoded.images, expected, atol=1e-5)
    assert encoded.images.dtype == encoded.labels.dtype == torch.float32
    soft = np.zeros((25, 3))
    for mix in range(25):
        total = keys.coefficients[mix, : scheme.private_k].sum(dtype=float)
        for slot in range(scheme.private_k):
            share = float(keys.coefficients[mix, slot])
            share /= total if labels == "renormalised" else 1
            soft[mix, images.labels[keys.partners[mix, slot]]] += share
    np.testing.assert_allclose(encoded.labels, soft, atol=1e-6)
    if labels == "renormalised" or not scheme.public_k:
        np.testing.assert_allclose(encoded.labels.sum(1), 1, atol=1e-6)
    else:
        assert encoded.labels.sum(1).max() < 0.9999


def test_a_plain_scheme_changes_nothing() -> None:
    images = table()
    encoded = Encoder(Scheme.plain(), images).encode(np.arange(30))
    np.testing.assert_allclose(encoded.images, images.normalized(), atol=1e-6)
    np.testing.assert_array_equal(encoded.labels.argmax(1), images.labels)
    np.testing.assert_array_equal(encoded.labels.sum(1), 1)


@pytest.mark.parametrize("scheme", [Scheme.inside(4), Scheme.inside(3, c1=0.4), Scheme.cross(4)])
def test_no_image_of_a_mix_has_more_than_c1_nor_all_less_than_c2(scheme: Scheme) -> None:
    # Every image is a class of its own, so that labels show the coefficients after any merge.
    images = table(30, classes=30)
    encoder = Encoder(scheme, images, pool() if scheme.public_k else None)
    labels = encoder.encode(np.tile(np.arange(30), 100)).labels.double()
    assert labels.max() <= scheme.c1
    assert ((labels > 0).sum(1) <= scheme.private_k).all()
    if scheme.public_k:
        assert labels.sum(1).min() >= scheme.c2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_type_of_encodings(dtype: torch.dtype) -> None:
    encoded = Encoder(Scheme.inside(4), table(), keys=fixed(), dtype=dtype).encode(np.arange(9))
    exact = Encoder(Scheme.inside(4), table(), keys=fixed()).encode(np.arange(9))
    assert encoded.images.dtype is dtype
    assert encoded.labels.dtype is torch.float32
    assert torch.equal(encoded.images, exact.images.to(dtype))


def test_exposure_counts_every_encoding_that_an_image_went_into() -> None:
    twins = [Encoder(Scheme.cross(4), table(), pool(), keys=fixed()) for _ in range(2)]
    assert twins[0].exposure.counts.tolist() == [0] * 30
    expected = np.zeros(30, np.int64)
    for indices in (np.arange(30), np.array([3, 3, 5]), np.array([], np.int64)):
        partners = twins[0]._draw(twins[0]._keys.next_block(), indices).partners[:, :2]
        for row in partners.ravel():
            expected[row] += 1
        twins[1].encode(indices)
        np.testing.assert_array_equal(twins[1].exposure.counts, expected)
    assert expected.sum() == 2 * 33


def test_exposure_is_right_with_many_threads() -> None:
    encoder = Encoder(Scheme.inside(4), table())
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: encoder.encode(np.arange(30)), range(100)))
    assert encoder.exposure.counts.sum() == 100 * 30 * 4


def test_no_indices_give_no_encodings() -> None:
    encoded = Encoder(Scheme.cross(4), table(), pool()).encode(np.array([], np.int64))
    assert encoded.images.shape == (0, *SHAPE)
    assert encoded.labels.shape == (0, 3)


def test_two_encodings_of_an_image_share_nothing() -> None:
    encoder = Encoder(Scheme.inside(4), table(200, classes=200))
    first, second = (encoder.encode(np.zeros(50, np.int64)) for _ in range(2))
    everything = torch.cat([first.images, second.images])
    magnitudes = {image.abs().numpy().tobytes() for image in everything}
    signs = {(image > 0).numpy().tobytes() for image in everything}
    assert len(magnitudes) == len(signs) == 100
    labels = torch.cat([first.labels, second.labels])
    assert len({label.numpy().tobytes() for label in labels}) == 100


@pytest.mark.parametrize("floats", [True, False])
@pytest.mark.parametrize("scheme", [Scheme.inside(4), Scheme.cross(4)])
def test_a_data_set_is_encoded_as_its_table(scheme: Scheme, floats: bool) -> None:
    images = table()
    public = pool() if scheme.public_k else None
    items, indices = dataset(images, floats=floats), np.arange(25)
    from_table = Encoder(scheme, images, public, keys=fixed()).encode(indices)
    from_items = Encoder(scheme, items, public, keys=fixed()).encode(indices)
    np.testing.assert_allclose(from_items.images, from_table.images, atol=1e-5)
    assert torch.equal(from_items.labels, from_table.labels)
    if public is not None:
        like = public.normalized_like(images)
        # Public images as a data set, too; their labels are never asked for.
        others = dataset(replace(like, classes=("none",)), floats=True)
        both = Encoder(scheme, items, others, keys=fixed()).encode(indices)
        np.testing.assert_allclose(both.images, from_table.images, atol=1e-5)


def test_a_pool_in_memory_and_one_mapped_are_the_same(tmp_path: Any) -> None:
    pool().save(tmp_path / "pool")
    mapped = ImageTable.load(tmp_path / "pool")
    ours, theirs = (
        Encoder(Scheme.cross(4), table(), public, keys=fixed()).encode(np.arange(20))
        for public in (pool(), mapped)
    )
    assert torch.equal(ours.images, theirs.images)


def test_a_subset_is_encoded_as_its_images() -> None:
    whole = table(60)
    spaced = whole.subset(slice(None, None, 2))
    copied = whole.subset(np.arange(0, 60, 2))
    ours, theirs = (
        Encoder(
            Scheme.inside(4), images, keys=fixed(), augmentation=Augmentation(2, flip=True)
        ).encode(np.arange(30))
        for images in (spaced, copied)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.fixture
def crops(monkeypatch: pytest.MonkeyPatch) -> PhotoCrops:
    monkeypatch.setattr(mixing, "CROPS_PER_EPOCH", 40)
    return PhotoCrops((pixels(1, (60, 70, 3))[0],), 8, 8)


def test_photographs_give_new_crops_every_epoch(crops: PhotoCrops) -> None:
    encoder = Encoder(Scheme.cross(4), table(), crops)
    epochs = []
    for _ in range(3):
        encoder.next_epoch()
        public = encoder._public.images
        assert isinstance(public, ImageTable)
        epochs.append(public.pixels)
        assert encoder.encode(np.arange(30)).images.isfinite().all()
    patches = {patch.tobytes() for epoch in epochs for patch in epoch}
    # Of the crops that the photograph has, a few are drawn twice by chance; 40 would be an epoch.
    assert len(patches) > 100


def test_crops_come_from_the_key_stream(crops: PhotoCrops) -> None:
    first, second = (Encoder(Scheme.cross(4), table(), crops, keys=fixed()) for _ in range(2))
    for encoder in (first, second):
        encoder.next_epoch()
    ours, theirs = (encoder.encode(np.arange(9)).images for encoder in (first, second))
    assert torch.equal(ours, theirs)


def test_a_new_epoch_is_a_new_key() -> None:
    # The first encoding of epoch 1 is that of a stream which went there by itself.
    encoder = Encoder(Scheme.inside(4), table(), keys=fixed())
    encoder.next_epoch()
    stream = fixed()
    stream.next_epoch()
    expected = Encoder(Scheme.inside(4), table(), keys=stream).encode(np.arange(9))
    assert torch.equal(encoder.encode(np.arange(9)).images, expected.images)


SPREAD: list[Callable[[Encoder], Encoder]] = [
    lambda encoder: pickle.loads(pickle.dumps(encoder)),  # noqa: S301
    copy.copy,
    copy.deepcopy,
]


@pytest.mark.parametrize("spread", SPREAD)
def test_a_copy_draws_keys_of_its_own(spread: Callable[[Encoder], Encoder]) -> None:
    encoder = Encoder(Scheme.cross(4), table(), pool(), dtype=torch.float16)
    encoder.encode(np.arange(9))
    copies = [encoder, spread(encoder), spread(encoder)]
    assert np.array_equal(copies[1].exposure.counts, encoder.exposure.counts)
    assert copies[1].scheme == encoder.scheme
    encodings = [each.encode(np.arange(9)).images for each in copies]
    assert len({encoding.abs().numpy().tobytes() for encoding in encodings}) == 3
    # Copies in one process count together; one from elsewhere goes on for itself.
    encoded = 4 if copies[1].exposure is encoder.exposure else 2
    assert encoder.exposure.counts.sum() == encoded * 9 * 2


@pytest.mark.parametrize("spread", SPREAD)
def test_an_encoder_with_a_fixed_key_is_not_copied(spread: Callable[[Encoder], Encoder]) -> None:
    encoder = Encoder(Scheme.inside(4), table(), keys=fixed())
    with pytest.raises(TypeError, match="cannot be copied"):
        spread(encoder)


@pytest.mark.parametrize("indices", [[30], [-1], [0, 5, 31], [-(2**40)]])
def test_an_index_out_of_range_is_refused(indices: list[int]) -> None:
    encoder = Encoder(Scheme.inside(4), table())
    with pytest.raises(InstaHideError, match="Use 0 to 29"):
        encoder.encode(np.array(indices))
    assert encoder.exposure.counts.sum() == 0


def bright(channels: list[int]) -> ImageTable:
    """Images of which the named channels are not negative after normalization."""
    images = table()
    mean = [0.0 if channel in channels else images.mean[channel] for channel in range(3)]
    return replace(images, mean=tuple(mean))


REFUSED: dict[str, tuple[Scheme, ImageSource, ImageSource | None, str, str]] = {
    "one class": (Scheme.inside(4), table(classes=1), None, "1 class", "two classes"),
    "no class": (Scheme.inside(4), pool(), None, "0 class", "two classes"),
    "few images": (Scheme.inside(4), table(3), None, "there are 3", "Lower k"),
    "no pool": (Scheme.cross(4), table(), None, "2 public images, but there are none", "public="),
    "small pool": (Scheme.cross(6), table(), pool(3), "needs 4 public", "larger pool"),
    "shape": (
        Scheme.cross(4),
        table(),
        ImageTable.from_arrays(pixels(9, (3, 8, 9))),
        r"Public images are (3, 8, 9), private ones (3, 8, 8)",
        "private images' shape",
    ),
    "channels": (
        Scheme.cross(4),
        table(),
        ImageTable.from_arrays(pixels(9, (1, 8, 8))),
        "(1, 8, 8)",
        "private images' shape",
    ),
    "pool for inside": (Scheme.inside(4), table(), pool(), "scheme uses none", "Leave them out"),
    "table and data set": (
        Scheme.cross(4),
        table(),
        dataset(table(), floats=True),
        "its own transforms",
        "Wrap both in `ImageDataset`",
    ),
    "unknown moments": (
        Scheme.cross(4),
        ImageDataset(Items(table(), floats=True), workers=1),
        pool(),
        "transform are unknown",
        "Pass the mean and std of the transform",
    ),
    "one sign": (Scheme.inside(4), bright([0, 1, 2]), None, "one sign", "Normalize to mean 0"),
    "one sign in a channel": (Scheme.inside(4), bright([1]), None, "one sign", "mean 0"),
    "one sign with a pool": (Scheme.cross(4), bright([2]), pool(), "one sign", "mean 0"),
    "all negative": (
        Scheme.inside(4),
        replace(table(), mean=(1.0, 1.0, 1.0)),
        None,
        "one sign",
        "Normalize to mean 0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_refused(case: str) -> None:
    scheme, images, public, problem, remedy = REFUSED[case]
    with pytest.raises(InstaHideError) as caught:
        Encoder(scheme, images, public)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_signs_do_not_matter_without_a_mask() -> None:
    Encoder(Scheme.mixup(4), bright([0, 1, 2]))
    Encoder(Scheme.plain(), bright([0, 1, 2]))


def test_an_even_channel_has_nothing_to_hide() -> None:
    even = pixels(30)
    even[:, 1] = 128
    Encoder(Scheme.inside(4), ImageTable.from_arrays(even, np.arange(30) % 2))


def test_a_query_of_one_sign_is_hidden_by_varied_public_images() -> None:
    # One bright query: under the training normalization all of its values are positive.
    private = table()
    queries = replace(private.subset(slice(0, 1)), pixels=np.full((1, *SHAPE), 255, np.uint8))
    queries.pixels[0, :, 0] = 250
    encoder = Encoder(Scheme.cross(4).query(), queries, pool())
    assert encoder.encode(np.array([0])).images.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("least", [1, 4])
def test_as_many_images_as_a_mix_holds_are_enough(least: int) -> None:
    scheme = Scheme.inside(4, private_k=4) if least == 4 else Scheme.cross(3, private_k=1)
    images = table(max(least, 2), classes=2)
    encoder = Encoder(scheme, images, pool(2) if scheme.public_k else None)
    assert encoder.encode(np.array([1])).images.shape == (1, *SHAPE)


def test_its_repr_shows_what_is_public() -> None:
    assert repr(Encoder(Scheme.inside(4), table())) == f"Encoder({Scheme.inside(4)}, 30 images)"


def test_a_data_set_is_not_augmented_by_the_encoder() -> None:
    items = [
        (np.float32(image), number % 2)
        for number, image in enumerate(np.random.default_rng(0).normal(size=(8, 1, 4, 4)))
    ]
    images = ImageDataset(items, classes=("a", "b"))
    with pytest.raises(InstaHideError, match="into its transform"):
        Encoder(Scheme.inside(2), images, augmentation=Augmentation(1))


def test_a_stream_is_what_encode_gives() -> None:
    """The same blocks under the same keys, whichever thread is faster."""
    images = ImageTable.from_arrays(
        np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8), np.uint8), np.arange(64) % 4
    )
    streamed, one_by_one = (
        Encoder(Scheme.inside(4), images, keys=KeyStream(fixed_key=bytes(32))) for _ in range(2)
    )
    rows = [np.arange(start, start + 8) for start in range(0, 64, 8)]
    for ours, expected in zip(streamed.stream(rows), map(one_by_one.encode, rows), strict=True):
        assert torch.equal(ours.images, expected.images)
        assert torch.equal(ours.labels, expected.labels)
    np.testing.assert_array_equal(streamed.exposure.counts, one_by_one.exposure.counts)


class Raw:
    """Somebody's own source of images, which gives raw pixels of a table."""

    def __init__(self, images: ImageTable) -> None:
        self.images = images
        self.shape, self.classes, self.normalization = (
            images.shape,
            images.classes,
            images.normalization,
        )
        self.scale, self.bias = images.scale, images.bias
        self.content_hashes, self.rows = images.content_hashes, images.rows

    def __len__(self) -> int:
        return len(self.images)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 1e-5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_a_source_of_raw_pixels_is_encoded_as_its_table(dtype: Any, noise: float) -> None:
    """With a pool of its own type: pixels that are not 8-bit are no normalized values."""
    low = 0 if np.dtype(dtype).kind == "u" else -100
    values = pixels(30).astype(dtype) + np.dtype(dtype).type(low)
    private = ImageTable.from_arrays(values, np.arange(30) % 3, value_range=(low, low + 255))
    public = pool().with_pixels_like(private)
    scheme = Scheme.cross(4, noise=noise)
    found, expected = (
        Encoder(scheme, source, public, keys=fixed()).encode(np.arange(8)).images
        for source in (Raw(private), private)
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_values_that_are_not_finite_are_refused(value: float, noise: float) -> None:
    private = ImageTable.from_arrays(pixels(30).astype(np.float32), np.arange(30) % 3)
    broken = private.pixels.astype(np.float32)
    broken[3, 1, 2, 2] = value
    with pytest.raises(InstaHideError, match="run from"):
        Encoder(Scheme.inside(4, noise=noise), replace(private, pixels=broken))


def test_pixels_beyond_the_range_of_their_table_are_refused() -> None:
    private = ImageTable.from_arrays(pixels(30).astype(np.uint16), np.arange(30) % 3)
    with pytest.raises(InstaHideError, match="value range is 100 to 200"):
        Encoder(Scheme.inside(4), replace(private, value_range=(100, 200)))
