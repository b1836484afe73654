"""Private images of five kinds, on which no network was trained and no setting tuned.

    photographs  foolbox's CIFAR and ImageNet images
    objects      drawings and photographs of objects on white: the stamps of Tux Paint in the
                 categories food, plants and vehicles
    animals      the stamps of Tux Paint in the category animals, on plain light backgrounds
    medical      crops of the medical images in `MEDICAL`: a retina and ultrasound in color, and in
                 gray microscopy, computed tomography, magnetic resonance and a bone scan
    text         crops of the printed page and of the handwriting that scikit-image has, in gray

`pip install --no-deps foolbox` for photographs, Debian's tuxpaint-stamps-default for stamps,
and the extra "medical" for medical images. Stamps of other categories were used for tuning, and the
photographs of draw 1 for an earlier version of the attack.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.photographs import LONGEST, crops, patches, victim
from instahide.data import ImageTable
from instahide.data.readers.image_file import decode

STAMPS = Path("/usr/share/tuxpaint/stamps")
OBJECTS, ANIMALS = ("food", "plants", "vehicles"), ("animals",)
#: Side of an image, margin of a stamp relative to its longer side, and least level of a color of a
#: light background.
SIDE, MARGIN, LIGHT = 32, 0.12, 150
#: Files of packages. Of volumes the slices at a third, a half and two thirds of the last axis.
MEDICAL = {
    "skimage/data": ("retina.jpg", "microaneurysms.png", "cell.png"),
    "pydicom/data/test_files": (
        "CT_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "JPGExtended.dcm",
        "MR_small.dcm", "examples_overlay.dcm", "examples_jpeg2k.dcm", "examples_ybr_color.dcm",
    ),
    "nibabel/tests/data": ("example4d.nii.gz", "anatomical.nii", "scaled+tlrc.BRIK"),
}  # fmt: skip
#: Scans of text, in scikit-image.
TEXT = ("page.png", "text.png")
#: Percentiles of the values of a medical image that are shown as black and as white.
BLACK, WHITE = 1, 99.5
#: Largest correlation of two crops, up to so many crops; there are not more so different ones.
LIKENESS, DIFFERENT = 0.6, 1000


def private_images(kind: str, draw: int, count: int = 100) -> ImageTable:
    """Return ``count`` private images of a kind, with ten arbitrary classes.

    Args:
        kind: one of `KINDS`.
        draw: number of the choice of images, from 1; photographs have three choices of 100.
        count: number of images. There are 100 different ones of each kind, and more of
            photographs, as crops.
    """
    pixels = KINDS[kind](draw, count)
    if len(pixels) < count:
        raise SystemExit(f"There are only {len(pixels)} images of the kind {kind}.")
    classes = np.random.default_rng(draw).permutation(np.arange(count) % 10)
    return ImageTable.from_arrays(pixels, classes)


def photograph_crops(draw: int, count: int) -> NDArray[np.uint8]:
    """Return the victim of this number, or as many crops of its photographs as are wanted."""
    if count == 100:
        return victim(draw).pixels
    return patches("private", count, draw, likeness=LIKENESS if count <= DIFFERENT else 1.0)


def objects(draw: int, count: int) -> NDArray[np.uint8]:
    """Return (n, 3, 32, 32) objects on white."""
    return stamps(OBJECTS, draw, count, lambda _: np.full(3, 255))


def animals(draw: int, count: int) -> NDArray[np.uint8]:
    """Return (n, 3, 32, 32) animals, each in front of a light color."""
    return stamps(ANIMALS, draw, count, lambda generator: generator.integers(LIGHT, 256, 3))


def medical(draw: int, count: int) -> NDArray[np.uint8]:
    """Return (n, 3, 32, 32) crops of `medical_images`."""
    return crops(medical_images(), 2 * count, draw, likeness=LIKENESS)[:count]


def text(draw: int, count: int) -> NDArray[np.uint8]:
    """Return (n, 3, 32, 32) crops of scans, as large as photographs, with a few words in a crop."""
    pages = []
    for name in TEXT:
        page = _in_color(decode(_installed("skimage/data") / name))
        scale = LONGEST / max(page.shape)
        pages.append(cv2.resize(page, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))
    return crops(tuple(pages), 2 * count, draw, likeness=LIKENESS)[:count]


KINDS: dict[str, Callable[[int, int], NDArray[np.uint8]]] = {
    "photographs": photograph_crops,
    "objects": objects,
    "animals": animals,
    "medical": medical,
    "text": text,
}


def stamps(
    categories: tuple[str, ...],
    draw: int,
    count: int,
    background: Callable[[np.random.Generator], NDArray[np.int64]],
) -> NDArray[np.uint8]:
    """Return (n, 3, 32, 32) at most ``count`` different stamps.

    Args:
        categories: folders of stamps.
        draw: of the random choice of stamps.
        count: largest number of stamps.
        background: draws the color (3,) in front of which a stamp is shown, from 0 to 255.
    """
    files = sorted(
        path
        for category in categories
        for path in (STAMPS / category).rglob("*.png")
        if not path.stem.endswith("_mirror")
    )
    if not files:
        raise SystemExit("The stamps are missing: apt-get install tuxpaint-stamps-default")
    generator = np.random.default_rng(draw)
    shown: list[NDArray[np.uint8]] = []
    for place in generator.permutation(len(files)):
        stamp = cv2.imread(str(files[place]), cv2.IMREAD_UNCHANGED)
        if stamp is not None and stamp.ndim == 3 and stamp.shape[2] == 4 and len(shown) < count:
            shown.append(pasted(stamp, background(generator)))
    return np.stack(shown).transpose(0, 3, 1, 2).copy()


def pasted(stamp: NDArray[np.uint8], color: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return a picture (32, 32, 3) of a ``stamp`` (h, w, BGR and opacity) in front of a color."""
    rows, columns = np.nonzero(stamp[:, :, 3])
    stamp = stamp[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = stamp.shape[:2]
    side = round((1 + 2 * MARGIN) * max(height, width))
    top, left = (side - height) // 2, (side - width) // 2
    canvas = np.zeros((side, side, 4), np.float32)
    canvas[top : top + height, left : left + width] = stamp
    opacity = canvas[:, :, 3:] / 255
    picture = canvas[:, :, 2::-1] * opacity + color.astype(np.float32) * (1 - opacity)
    small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return small.round().clip(0, 255).astype(np.uint8)


def medical_images() -> tuple[NDArray[np.uint8], ...]:
    """Return medical images (h, w, 3); gray ones have three equal channels."""
    return tuple(
        _in_color(image)
        for folder, names in MEDICAL.items()
        for name in names
        for image in _read(_installed(folder) / name)
    )


def _installed(folder: str) -> Path:
    package, _, inside = folder.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is missing: pip install 'instahide[medical]'")
    return Path(spec.submodule_search_locations[0], inside)


def _read(path: Path) -> list[NDArray[np.generic]]:
    """Return the image in a file, or three slices of a volume, or the first frame of a film."""
    if path.suffix == ".dcm":
        import pydicom

        pixels = pydicom.dcmread(path).pixel_array
        return [pixels[0] if pixels.ndim == 4 else pixels]
    if path.suffix in (".jpg", ".png"):
        return [decode(path)]
    import nibabel

    volume = np.asarray(nibabel.load(path).dataobj)
    volume = volume[..., 0] if volume.ndim == 4 else volume
    return [volume[:, :, volume.shape[2] * part // 6] for part in (2, 3, 4)]


def _in_color(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    if image.dtype != np.uint8:
        low, high = np.percentile(image, (BLACK, WHITE))
        image = ((image - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
    return np.stack([image] * 3, axis=2) if image.ndim == 2 else image[:, :, :3]
