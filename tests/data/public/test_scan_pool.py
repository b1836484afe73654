"""Public pools of volumes, 16-bit images, floats and many channels: what they hold and refuse."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from instahide import Encoder, ImageTable, Scheme
from instahide.data import make_scan_pool, open_pool, plan_scan_pool
from instahide.data.public import scan_plan, scan_pool
from instahide.data.readers.skipped import SkippedWarning
from instahide.data.sources import rescaled
from instahide.errors import InstaHideError
from tests.scan_files import PATIENT, brain, ct, ct_series, deep_png, ome_tiff

for package in ("pydicom", "nibabel", "tifffile"):
    pytest.importorskip(package)


def made(source: Path, out: Path, shape: tuple[int, ...], **how: object) -> ImageTable:
    plan = plan_scan_pool(source, shape, progress=False, **how)
    return make_scan_pool(plan, out, progress=False)


def blocks(volume: NDArray[np.generic], shape: tuple[int, ...]) -> set[bytes]:
    """All blocks of a volume (C, ..., H, W)."""
    sides = volume.shape[1:]
    whole = (1,) * (len(sides) - len(shape)) + shape
    windows = np.lib.stride_tricks.sliding_window_view(volume, whole, tuple(range(1, volume.ndim)))
    channels_last = np.moveaxis(windows, 0, len(sides))
    return {block.tobytes() for block in channels_last.reshape(-1, len(volume), *shape)}


def test_a_dicom_series_is_one_volume(tmp_path: Path) -> None:
    volumes = [
        ct_series(tmp_path / "study" / name, start=s) for name, s in (("a", 120), ("b", 320))
    ]
    pool = made(tmp_path / "study", tmp_path / "pool", (8, 16, 16), per_image=20)
    assert pool.shape == (1, 8, 16, 16)
    assert pool.pixels.dtype == np.int16
    assert 20 < len(pool) <= 40
    assert pool.absolute
    assert isinstance(pool.pixels, np.memmap)
    known = blocks(volumes[0][None], pool.shape[1:]) | blocks(volumes[1][None], pool.shape[1:])
    assert {patch.tobytes() for patch in pool.pixels} <= known
    assert pool.value_range == (pool.pixels.min(), pool.pixels.max())
    for path in (tmp_path / "pool").iterdir():
        content = path.read_bytes()
        assert not [part for part in PATIENT.split("^") if part.encode() in content]


def test_patches_of_two_dimensions_of_volumes_and_slices(tmp_path: Path) -> None:
    volume = ct_series(tmp_path / "study")
    pool = made(tmp_path / "study", tmp_path / "pool", (32, 32), per_image=3)
    assert pool.shape == (1, 32, 32)
    assert len(pool) == 48  # Of 16 files.
    (tmp_path / "nifti").mkdir()
    shutil.copy(brain(), tmp_path / "nifti")
    planes = made(tmp_path / "nifti", tmp_path / "planes", (32, 32), per_image=30)
    assert planes.shape == (2, 32, 32)
    assert planes.pixels.dtype == np.int16
    assert {patch.tobytes() for patch in pool.pixels} <= blocks(volume[None], (32, 32))


@pytest.mark.parametrize("kind", ["nifti", "ome", "png", "float"])
def test_every_kind_keeps_its_type_and_channels(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    if kind == "nifti":
        shutil.copy(brain(), folder)
        expected, shape = ((2, 8, 16, 16), np.int16), (8, 16, 16)
    elif kind == "ome":
        ome_tiff(folder / "a.ome.tif")
        expected, shape = ((3, 24, 32), np.uint16), (24, 32)
    elif kind == "png":
        deep_png(folder / "a.png")
        expected, shape = ((1, 32, 32), np.uint16), (32, 32)
    else:
        shutil.copy(brain().with_name("functional.nii"), folder)
        expected, shape = ((20, 3, 8, 8), np.float32), (3, 8, 8)
    pool = made(folder, tmp_path / "pool", shape, per_image=12)
    assert (pool.shape, pool.pixels.dtype.type) == expected
    assert 1 <= len(pool) <= 12
    again = open_pool(tmp_path / "pool", pool.shape)
    np.testing.assert_array_equal(again.pixels, pool.pixels)


def test_flat_patches_are_left_out(tmp_path: Path) -> None:
    picture = deep_png(tmp_path / "images" / "a.png")
    pool = made(tmp_path / "images", tmp_path / "pool", (32, 32), per_image=1000)
    everything = made(
        tmp_path / "images", tmp_path / "all", (32, 32), per_image=1000, min_spread=0.0
    )
    least = scan_plan.MIN_SPREAD * picture.std()
    assert pool.pixels.std(axis=(1, 2, 3)).min() >= least
    spreads = everything.pixels.std(axis=(1, 2, 3))
    assert len(everything) >= 30**2
    # The origin of the grid differs, so that the numbers do, by a little.
    assert len(pool) / len(everything) == pytest.approx((spreads >= least).mean(), abs=0.1)
    assert 0.2 < len(pool) / len(everything) < 0.8


def test_a_flat_scan_gives_no_pool_and_writes_nothing(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((64, 64), 900, np.uint16)).save(tmp_path / "images" / "a.png")
    with pytest.raises(InstaHideError, match="min_spread="):
        made(tmp_path / "images", tmp_path / "x" / "pool", (16, 16))
    assert not (tmp_path / "x").exists()


def test_images_without_a_patch_are_said(tmp_path: Path) -> None:
    ct_series(tmp_path / "study" / "chest")
    ct_series(tmp_path / "study" / "tissue", start=200)
    with pytest.warns(SkippedWarning, match="not flat: .*tissue"):
        pool = made(tmp_path / "study", tmp_path / "pool", (8, 16, 16), per_image=5)
    assert len(pool) == 5


def test_the_spread_is_measured_in_the_window(tmp_path: Path) -> None:
    ct_series(tmp_path / "study")
    pool = made(
        tmp_path / "study", tmp_path / "pool", (16, 16), per_image=5, window=(-160.0, 240.0)
    )
    assert (pool.pixels.min(), pool.pixels.max()) == (-160, 240)
    assert pool.value_range == (-160, 240)
    with pytest.raises(InstaHideError, match="cannot range"):
        plan_scan_pool(tmp_path / "study", (16, 16), window=(-1e6, 0.0), progress=False)


def test_the_size_is_known_before_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("camera", "coins", "moon"):
        deep_png(tmp_path / "images" / f"{name}.png", name)
    plan = plan_scan_pool(tmp_path / "images", (64, 64), min_spread=0.0, progress=False)
    assert plan.patches == 300 - 12  # `coins` is smaller: 8 x 11 places.
    assert plan.bytes == plan.patches * 64 * 64 * 2
    pool = make_scan_pool(plan, tmp_path / "pool", progress=False)
    assert len(pool) == plan.patches
    assert "coins" not in repr(plan)
    with pytest.raises(InstaHideError, match=r"allowed.*per_image=40.*max_gigabytes="):
        plan_scan_pool(tmp_path / "images", (64, 64), max_gigabytes=0.001, progress=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(InstaHideError, match="are free in"):
        make_scan_pool(plan, tmp_path / "other", progress=False)
    assert not (tmp_path / "other").exists()


def test_a_pool_that_grows_beyond_its_limit_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate is of a few images; others may give more patches."""
    monkeypatch.setattr(scan_plan, "SAMPLED_IMAGES", 1)
    from PIL import Image

    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 4096, (256, 256)).astype(np.uint16)
    for number in range(4):
        part = pixels[:32, :32] if number == 0 else pixels
        Image.fromarray(part).save(tmp_path / "images" / f"{number}.png")
    plan = plan_scan_pool(tmp_path / "images", (32, 32), max_gigabytes=20 * 2048e-9, progress=False)
    assert plan.patches == 4
    with pytest.raises(InstaHideError, match="but 20 are allowed"):
        make_scan_pool(plan, tmp_path / "pool", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_an_interrupted_call_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep_png(tmp_path / "images" / "a.png")
    plan = plan_scan_pool(tmp_path / "images", (32, 32), progress=False)
    calls = []

    def stopped(*_: object) -> bool:
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(scan_pool, "_is_detailed", stopped)
    with pytest.raises(KeyboardInterrupt):
        make_scan_pool(plan, tmp_path / "pool", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_images_of_several_kinds_are_refused_or_left_out(tmp_path: Path) -> None:
    for name in ("camera", "moon"):
        deep_png(tmp_path / "images" / f"{name}.png", name)
    ome_tiff(tmp_path / "images" / "tissue.ome.tif")
    with pytest.raises(InstaHideError, match=r"tissue.* uint16 with 3 channels, .* uint16 with 1"):
        plan_scan_pool(tmp_path / "images", (32, 32), progress=False)
    with pytest.warns(SkippedWarning, match="Skipped 1 of 3"):
        pool = made(tmp_path / "images", tmp_path / "pool", (32, 32), per_image=4, skip_bad=True)
    assert (len(pool), pool.shape) == (8, (1, 32, 32))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "not a readable image"),
        (lambda path: deep_png(path)[:1] is None, "smaller than a patch: 512 x 512, not 513 x 513"),
    ],
)
def test_a_bad_image_is_named(spoil, told: str, tmp_path: Path) -> None:
    path = tmp_path / "images" / "a.png"
    deep_png(path)
    spoil(path)
    side = 513 if "513" in told else 16
    with pytest.raises(InstaHideError, match=f"a\\.png.*{told}"):
        plan_scan_pool(tmp_path / "images", (side, side), progress=False)
    with pytest.raises(InstaHideError, match=r"None of 1 images can be used.*a\.png"):
        plan_scan_pool(tmp_path / "images", (side, side), progress=False, skip_bad=True)


def test_pixels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(brain().with_name("resampled_anat_moved.nii"), tmp_path / "images")
    with pytest.raises(InstaHideError, match="not finite"):
        plan_scan_pool(tmp_path / "images", (3, 8, 8), progress=False)


def test_images_have_no_patches_with_slices(tmp_path: Path) -> None:
    deep_png(tmp_path / "images" / "a.png")
    with pytest.raises(InstaHideError, match="is an image, and patches have slices"):
        plan_scan_pool(tmp_path / "images", (4, 16, 16), progress=False)


def test_a_series_with_a_missing_slice_is_refused(tmp_path: Path) -> None:
    ct_series(tmp_path / "study" / "a")
    ct_series(tmp_path / "study" / "b")
    (tmp_path / "study" / "b" / "007.dcm").unlink()
    with pytest.raises(InstaHideError, match="not evenly spaced"):
        plan_scan_pool(tmp_path / "study", (8, 16, 16), progress=False)
    with pytest.warns(SkippedWarning, match="Skipped 1 of 2"):
        pool = made(tmp_path / "study", tmp_path / "pool", (8, 16, 16), per_image=3, skip_bad=True)
    assert len(pool) == 3


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((16,), {}), ((2, 2, 2, 2), {}), ((0, 16), {}), ((16, 1 << 20), {}),
        ((16, 16), {"per_image": 0}), ((16, 16), {"min_spread": -1.0}),
        ((16, 16), {"min_spread": float("nan")}), ((16, 16), {"max_gigabytes": 0.0}),
    ],
)  # fmt: skip
def test_arguments_out_of_range(shape: tuple[int, ...], how: dict[str, float]) -> None:
    with pytest.raises(InstaHideError, match=r"For example|Give"):
        plan_scan_pool("nowhere", shape, **how)


def test_sources_that_are_none(tmp_path: Path) -> None:
    for source, told in ((tmp_path, "no image files"), (tmp_path / "x", "Cannot read"),
                         ("photos", "photographs only")):  # fmt: skip
        with pytest.raises(InstaHideError, match=told):
            plan_scan_pool(source, (16, 16), progress=False)


def test_an_output_that_holds_something_is_refused(tmp_path: Path) -> None:
    deep_png(tmp_path / "images" / "a.png")
    plan = plan_scan_pool(tmp_path / "images", (16, 16), progress=False)
    with pytest.raises(InstaHideError, match="already exists"):
        make_scan_pool(plan, tmp_path / "images")


def test_large_patches_are_cut_on_fewer_threads(tmp_path: Path) -> None:
    deep_png(tmp_path / "images" / "a.png")
    for side, per_image in ((16, 1), (500, 10_000)):
        plan = plan_scan_pool(
            tmp_path / "images", (side, side), per_image=per_image, progress=False
        )
        waiting = scan_pool._workers(plan) * 9 * plan.per_image * plan.patch_bytes
        assert scan_pool._workers(plan) == 1 or waiting <= 1 << 30


def pool_of_ct(folder: Path, shape: tuple[int, ...], **how: object) -> ImageTable:
    ct_series(folder / "study", side=96)
    return made(folder / "study", folder / "pool", shape, **how)


def private(window: tuple[float, float], dtype: type = np.int16) -> ImageTable:
    """Patches of a CT, elsewhere than those of the pool."""
    picture = ct()[320:448, 200:328]
    pixels = np.stack([picture[y : y + 32, x : x + 32] for y in (0, 32, 64) for x in (0, 32, 64)])
    return ImageTable.from_arrays(
        pixels.astype(dtype)[:, None], np.arange(9) % 2, value_range=window
    )


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_values_stay_beside_images_of_another_range(tmp_path: Path, dtype: type) -> None:
    """A Hounsfield unit is one in both, whatever the ranges; it was stretched to the range."""
    pool = pool_of_ct(tmp_path, (32, 32))
    images = private((-1000, 400), dtype)
    assert pool.value_range != images.value_range
    encoder = Encoder(Scheme.cross(k=4), images, pool)
    mixed = encoder._public.images
    assert isinstance(mixed, ImageTable)
    assert mixed.pixels.dtype == dtype
    np.testing.assert_allclose(mixed.pixels, np.clip(pool.pixels, -1000, 400), atol=1e-4)
    encoder.encode(np.arange(9))


def test_a_pool_in_another_unit_is_refused(tmp_path: Path) -> None:
    pool = pool_of_ct(tmp_path, (32, 32))
    eight_bit = ImageTable.from_arrays(
        np.random.default_rng(0).integers(0, 256, (9, 1, 32, 32), np.uint8), np.arange(9) % 2
    )
    with pytest.raises(InstaHideError, match=r"public images.* in another unit than the private"):
        Encoder(Scheme.cross(k=4), eight_bit, pool)


def test_a_pool_of_the_same_window_is_used_as_it_is(tmp_path: Path) -> None:
    pool = pool_of_ct(tmp_path, (32, 32), window=(-1000.0, 400.0))
    assert pool.with_pixels_like(private((-1000, 400))) is pool


def test_a_pool_of_the_same_window_may_have_another_type(tmp_path: Path) -> None:
    """Also where the window is that of 8-bit pixels."""
    images = private((0, 255))
    floats = images.pixels[:4].astype(np.float32)
    pool = ImageTable.from_arrays(floats, value_range=(0, 255))
    pool = replace(pool, absolute=True)
    np.testing.assert_array_equal(pool.with_pixels_like(images).pixels, images.pixels[:4])


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ((400, -1000), "window"),
        (("1%", "99%"), "depend on the images"),
        ("file", "depend on the images"),
        ((-1000, 400, 5), "window"),
    ],
)
def test_a_window_that_cannot_be_is_refused_as_such(
    window: Any, message: str, tmp_path: Path
) -> None:
    """And not as images that cannot be read, which `skip_bad` would leave out."""
    ct_series(tmp_path / "study")
    with pytest.raises(InstaHideError, match=message):
        plan_scan_pool(tmp_path / "study", (16, 16), window=window, skip_bad=True)


def test_unreadable_images_do_not_count_in_the_estimate(tmp_path: Path) -> None:
    deep_png(tmp_path / "good.png")
    alone = plan_scan_pool(tmp_path, (16, 16), progress=False)
    for number in range(3):
        (tmp_path / f"bad-{number}.png").write_bytes(b"no image")
    plan = plan_scan_pool(tmp_path, (16, 16), skip_bad=True, progress=False)
    assert plan.patches <= alone.patches
    assert plan != alone


def test_a_pool_for_rescaled_images_is_rescaled(tmp_path: Path) -> None:
    images = rescaled(private((-1000, 400)), (-1000, 400))
    with pytest.raises(InstaHideError, match=r"another unit.*rescale=True"):
        Encoder(Scheme.cross(k=4), images, pool_of_ct(tmp_path / "a", (32, 32)))
    pool = pool_of_ct(
        tmp_path / "b", (32, 32), window=(-1000.0, 400.0), rescale=True, per_image=1000
    )
    assert (pool.value_range, pool.pixels.dtype) == ((0, 1), np.float32)
    values = np.rint(pool.pixels * 1400 - 1000).astype(np.int16)
    clipped = np.clip(ct_series(tmp_path / "c", side=96), -1000, 400)
    assert {patch.tobytes() for patch in values} <= blocks(clipped[None], (32, 32))
    assert pool.with_pixels_like(images) is pool
    Encoder(Scheme.cross(k=4), images, pool).encode(np.arange(9))


def test_another_shape_is_refused_with_the_option_that_makes_one(tmp_path: Path) -> None:
    pool_of_ct(tmp_path, (8, 32, 32), per_image=4)
    with pytest.raises(InstaHideError, match=r"size=8,16,16"):
        open_pool(tmp_path / "pool", (1, 8, 16, 16))
    with pytest.raises(InstaHideError, match=r"patch=32.*grey=True"):
        open_pool(tmp_path / "pool", (1, 32, 32))
