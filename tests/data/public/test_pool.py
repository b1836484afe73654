"""The public pool: what is kept, what is dropped, and what it says when it does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from instahide.data import ImageTable, PhotoCrops, make_pool, open_pool
from instahide.data.public import pool
from instahide.data.public.crops import SIFT_SIDE, keypoints, photo_files
from instahide.data.readers.skipped import SkippedWarning
from instahide.errors import InstaHideError


@pytest.fixture
def photographs(tmp_path: Path, photo: NDArray[np.uint8]) -> Path:
    """The photograph twice, once in a folder below, and a flat picture."""
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(photo).save(folder / "one.png")
    Image.fromarray(photo[:, ::-1]).save(folder / "more" / "two.jpg")
    Image.new("RGB", (400, 300), (90, 120, 60)).save(folder / "flat.png")
    return folder


def test_keypoints_are_those_that_opencv_counts(photo):
    crop = photo[40:168, 100:228]
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    expected = len(cv2.SIFT_create().detectAndCompute(grey, None)[0])
    assert keypoints(crop) == expected > 40
    assert keypoints(grey[:, :, None]) == expected
    assert keypoints(np.full((128, 128, 3), 90, np.uint8)) == 0


def test_a_crop_of_the_sift_size_is_counted_as_it_is(photo):
    piece = photo[40 : 40 + SIFT_SIDE, 100 : 100 + SIFT_SIDE]
    crops = PhotoCrops((piece,), SIFT_SIDE, SIFT_SIDE)
    assert crops.keypoints(np.zeros((1, 4))).tolist() == [keypoints(piece)]


def test_the_pool_holds_textured_patches_of_every_photograph_but_the_flat_one(
    photographs, tmp_path
):
    pool = make_pool(photographs, tmp_path / "pool", patch=16, per_image=3, progress=False)
    assert pool.shape == (3, 16, 16)
    # At 50% a photograph gives 3 of 32 crops but once in 8 million pools.
    assert len(pool) == 6
    assert pool.classes == ()
    spread = pool.pixels.reshape(6, -1).std(axis=1)
    assert spread.min() > 0
    again = ImageTable.load(tmp_path / "pool")
    np.testing.assert_array_equal(again.pixels, pool.pixels)
    assert isinstance(again.pixels, np.memmap)


def test_the_threshold_is_kept_crop_by_crop(photo, monkeypatch, photographs):
    seen: list[NDArray[np.int64]] = []
    count = PhotoCrops.keypoints

    def spy(self: PhotoCrops, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        seen.append(count(self, uniforms))
        return seen[-1]

    monkeypatch.setattr(PhotoCrops, "keypoints", spy)
    patches = pool._patches(photographs / "one.png", shape=(3, 16, 16), quota=60, least=40)
    counts = np.concatenate(seen)
    assert (counts < 40).sum() > 0
    assert len(patches) == min((counts >= 40).sum(), 60)


def test_pools_are_drawn_anew_every_time(photographs, tmp_path):
    first, second = (
        make_pool(photographs, tmp_path / name, per_image=5, grey=True, progress=False)
        for name in ("a", "b")
    )
    assert first.shape == (1, 32, 32)
    assert not np.array_equal(first.pixels, second.pixels)


def test_no_threshold_takes_flat_patches_too(photographs, tmp_path):
    pool = make_pool(
        photographs, tmp_path / "pool", per_image=5, min_keypoints=0, progress=False, workers=1
    )
    assert len(pool) == 15


def test_nothing_passes_with_the_remedy_and_nothing_written(photographs, tmp_path):
    with pytest.raises(InstaHideError, match=r"3 photographs has 100000 .*min_keypoints="):
        make_pool(
            photographs, tmp_path / "x" / "p", per_image=2, min_keypoints=10**5, progress=False
        )
    assert not (tmp_path / "x").exists()


def test_an_output_that_holds_something_is_refused(photographs, tmp_path):
    out = tmp_path / "pool"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for taken in (out, out / "thesis.txt"):
        with pytest.raises(InstaHideError, match="already exists"):
            make_pool(photographs, taken, progress=False)
    assert (out / "thesis.txt").read_text() == "mine"


def test_an_output_that_cannot_be_written_is_refused(photographs):
    with pytest.raises(InstaHideError, match="Cannot write"):
        make_pool(photographs, Path("/proc/pool"), per_image=1, progress=False)


def test_no_photographs(tmp_path):
    with pytest.raises(InstaHideError, match="no image files"):
        make_pool(tmp_path, tmp_path / "pool", progress=False)
    with pytest.raises(InstaHideError, match="Cannot read"):
        make_pool(tmp_path / "absent", tmp_path / "pool", progress=False)


@pytest.mark.parametrize("bad", ["small", "truncated"])
def test_a_bad_photograph_is_named_or_skipped_and_counted(photographs, tmp_path, bad):
    path = photographs / "one.png"
    if bad == "small":
        Image.new("RGB", (31, 400)).save(path)
    else:
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InstaHideError, match=r"one\.png.*skip_bad=True"):
        make_pool(photographs, tmp_path / "pool", per_image=2, progress=False)
    with pytest.warns(UserWarning, match="Skipped 1 of 3"):
        pool = make_pool(photographs, tmp_path / "pool", per_image=2, skip_bad=True, progress=False)
    assert len(pool) == 2


def test_a_pool_of_another_shape_is_refused_with_the_command_that_makes_one(photographs, tmp_path):
    make_pool(photographs, tmp_path / "pool", patch=16, per_image=2, progress=False)
    assert open_pool(tmp_path / "pool", (3, 16, 16)).shape == (3, 16, 16)
    with pytest.raises(InstaHideError, match=r"\(3, 16, 16\).*\(1, 28, 28\).*patch=28.*grey=True"):
        open_pool(tmp_path / "pool", (1, 28, 28))
    with pytest.raises(InstaHideError, match="instahide public"):
        open_pool(photographs, (3, 16, 16))


@pytest.mark.parametrize(
    ("made", "different"),
    [
        (lambda random: np.full((600, 3, 8, 8), 128), 0),
        (lambda random: random.integers(0, 256, (600, 3, 1, 1)).repeat(8, 2).repeat(8, 3), 0),
        (lambda random: random.integers(0, 256, (7, 3, 8, 8))[np.arange(600) % 7], 7),
        (lambda random: random.integers(0, 256, (600, 3, 8, 8)), 600),
    ],
)
def test_a_pool_of_few_different_pictures_is_warned_of(
    tmp_path: Path, made: Callable[[np.random.Generator], NDArray[np.int64]], different: int
) -> None:
    pixels = made(np.random.default_rng(0)).astype(np.uint8)
    ImageTable.from_arrays(pixels).save(tmp_path / "pool")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(open_pool(tmp_path / "pool", (3, 8, 8))) == 600
    said = [str(warning.message) for warning in caught]
    if different == 600:
        assert not said
    else:
        assert len(said) == 1
        assert f"Of 600 patches of the pool {tmp_path / 'pool'}" in said[0]
        assert f"only {different} are different" in said[0]


@pytest.mark.slow
def test_the_built_in_pool_fits_any_shape_and_is_made_once(monkeypatch):
    monkeypatch.setattr(pool, "BUILTIN_PATCHES", 60)
    patches = open_pool("photos", (1, 12, 20))
    assert patches.shape == (1, 12, 20)
    assert 40 <= len(patches) <= 60
    again = open_pool("photos", (1, 12, 20))
    np.testing.assert_array_equal(again.pixels, patches.pixels)
    assert open_pool("photos", (3, 12, 20)).shape == (3, 12, 20)


def test_images_that_no_photograph_can_serve(monkeypatch):
    with pytest.raises(InstaHideError, match="4 channels"):
        PhotoCrops.open("photos", (4, 32, 32))
    with pytest.warns(UserWarning, match="Skipped"), pytest.raises(InstaHideError, match="small"):
        open_pool("photos", (3, 5000, 5000))


def test_colour_pools_have_no_grey_photographs():
    for path in photo_files("photos", 3):
        channels = np.asarray(Image.open(path).convert("RGB"), np.int16)
        assert np.abs(channels[..., 0] - channels[..., 2]).max() > 20
    assert set(photo_files("photos", 3)) < set(photo_files("photos", 1))


UNIT = st.floats(0, 1, exclude_max=True)


@given(
    sides=st.tuples(st.integers(5, 60), st.integers(5, 60)),
    patch=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    uniforms=st.tuples(UNIT, UNIT, UNIT, UNIT),
    channels=st.sampled_from([1, 3]),
)
def test_any_uniforms_name_a_crop_inside_the_photograph(sides, patch, uniforms, channels):
    ramp = np.arange(sides[0] * sides[1] * channels, dtype=np.uint64) % 251
    crops = PhotoCrops((ramp.astype(np.uint8).reshape(*sides, channels),), *patch)
    (crop,) = crops._crops(np.asarray([uniforms]))
    assert patch[0] <= crop.shape[0] <= sides[0]
    assert patch[1] <= crop.shape[1] <= sides[1]
    assert crops.draw(np.asarray([uniforms])).shape == (1, channels, *patch)


def test_uniforms_alone_decide_and_reach_every_photograph_and_corner():
    flat = [np.full((10, 10, 3), value, np.uint8) for value in (0, 100, 200)]
    crops = PhotoCrops(tuple(flat), 4, 4)
    uniforms = np.asarray([[w, 0.3, 0.9, 0.1] for w in (0.0, 0.34, 0.67, 0.999)])
    assert crops.draw(uniforms)[:, 0, 0, 0].tolist() == [0, 100, 200, 200]
    picture = np.arange(100, dtype=np.uint8).reshape(10, 10, 1)
    corners = PhotoCrops((picture,), 4, 4).draw(
        np.asarray([[0, 0, y, x] for y in (0, 0.999) for x in (0, 0.999)])
    )
    np.testing.assert_array_equal(corners[0, 0], picture[:4, :4, 0])
    np.testing.assert_array_equal(corners[3, 0], picture[6:, 6:, 0])


def test_photo_crops_open_the_built_in_photographs():
    crops = PhotoCrops.open("photos", (3, 32, 32))
    assert len(crops.photos) == len(photo_files("photos", 3)) >= 10
    assert crops.draw(np.random.default_rng(0).random((5, 4))).shape == (5, 3, 32, 32)
    with pytest.raises(InstaHideError, match="smaller than a patch"):
        PhotoCrops.open("photos", (3, 900, 900))


@pytest.mark.slow
def test_more_channels_repeat_the_colours(isolated: None) -> None:
    pixels = open_pool("photos", (5, 12, 20)).pixels
    assert pixels.shape[1:] == (5, 12, 20)
    np.testing.assert_array_equal(pixels[:, 3:], pixels[:, :2])
    assert (pixels[:, 0] != pixels[:, 1]).any()


def test_planes_of_a_volume_are_neighbouring_crops(isolated: None) -> None:
    pixels = open_pool("photos", (2, 6, 12, 20)).pixels
    assert pixels.shape[1:] == (2, 6, 12, 20)
    np.testing.assert_array_equal(pixels[:, :, 1:, :-1, :-1], pixels[:, :, :-1, 1:, 1:])


def test_a_pool_of_large_images_has_fewer(isolated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LEAST_PATCHES", 20)
    monkeypatch.setattr(pool, "MOST_BYTES", 30 * 3 * 40 * 40)
    assert 20 <= len(open_pool("photos", (3, 40, 40))) <= 40


@pytest.mark.parametrize(("more", "crops"), [(0, 1), (1, 4), (2, 13)])
def test_a_photograph_scarcely_larger_than_a_patch_gives_each_crop_once(
    tmp_path: Path, photo: NDArray[np.uint8], more: int, crops: int
) -> None:
    (tmp_path / "photographs").mkdir()
    piece = photo[40 : 168 + more, 100 : 228 + more]
    Image.fromarray(piece).save(tmp_path / "photographs" / "one.png")
    assert PhotoCrops((piece,), 128, 128).count == crops
    made = make_pool(
        tmp_path / "photographs", tmp_path / "pool", patch=128, per_image=60, progress=False
    )
    assert len(made) <= crops
    assert len(np.unique(made.content_ids)) == len(made) >= min(crops, 4)


@pytest.mark.slow
@given(
    sides=st.tuples(st.integers(6, 14), st.integers(6, 14)),
    patch=st.integers(4, 6),
    seed=st.integers(0, 1000),
)
def test_there_are_no_more_places_than_counted_crops(
    sides: tuple[int, int], patch: int, seed: int
) -> None:
    crops = PhotoCrops((np.zeros((*sides, 1), np.uint8),), patch, patch)
    places = crops.places(np.random.default_rng(seed).random((4000, 4)))
    assert len(set(places)) <= crops.count


def test_the_large_built_in_pool_is_of_different_patches_and_says_how_few(
    isolated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "BUILTIN_PATCHES", 400)
    monkeypatch.setattr(pool, "LEAST_PATCHES", 20)
    monkeypatch.setattr(pool, "MOST_BYTES", 140 * 512 * 512)
    few = r"different patches of 512 x 512, from the 7 photo"
    with pytest.warns(SkippedWarning), pytest.warns(UserWarning, match=few):
        patches = open_pool("photos", (1, 512, 512))
    assert len(np.unique(patches.content_ids)) == len(patches) <= 6 + 20


def test_a_built_in_pool_of_very_few_patches_is_refused(isolated: None) -> None:
    with (
        pytest.warns(UserWarning, match="Skipped"),
        pytest.raises(InstaHideError, match=r"too small .* only \d+ different.*instahide public"),
    ):
        open_pool("photos", (3, 512, 512))


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of one's own, and few patches."""
    monkeypatch.setenv("INSTAHIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pool, "BUILTIN_PATCHES", 60)
