"""Photographs that need no download, in four groups without common photographs.

    shadow   the attacker's own: Debian's wallpapers, and scikit-image's photographs
    public   the public pool: Debian's wallpapers
    tuning   private images for tuning: Debian's wallpapers
    private  private images on which nothing was tuned: foolbox's CIFAR and ImageNet images

Debian packages: gnome-backgrounds, lomiri-wallpapers-16.04, mate-backgrounds,
plasma-workspace-wallpapers, ukui-wallpapers. `pip install --no-deps foolbox` for the private ones.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from instahide.data import ImageTable
from instahide.data.public.crops import PHOTOS, photo_files
from instahide.data.readers.image_file import decode

BACKGROUNDS, WALLPAPERS = Path("/usr/share/backgrounds"), Path("/usr/share/wallpapers")
#: Longest side that a photograph is brought to, and least side of a crop.
LONGEST, LEAST = 1200, 96

PUBLIC = (
    "Picture_0B_by_freespace", "analogpattern_by_Peter_Nerlich", "umang_by_Abhishek_Mudgal",
    "picosdeeuropa_by_Aitzol_Berasategi", "Dune", "GreenMeadow", "Blinds", "OneStandsOut",
    "life_by_Aitzol_Berasategi", "TwoWings", "pixels-l", "Flow", "Cascade", "2004default",
)  # fmt: skip
TUNING = (
    "Dragonfly_by_Bolly", "Wine_by_Jakkub_Mede", "LadyBird", "BytheWater", "EveningGlow",
    "Grey", "Kite", "Picture_1A_by_freespace", "Kleiber_by_Lukas_Baubkus", "FreshFlower",
    "ColorfulCups", "sunset_by_Aitzol_Berasategi", "RainDrops", "SafeLanding",
)  # fmt: skip
#: Other sizes and colourings of what is there already, and drawings with next to no detail.
LEFT_OUT = (
    "Elephants_3840x2160", "Elephants_5640x3172", "Arc-Colors-Transparent-Wallpaper", "Silk",
    "Spring", "Waves", "MATE-Stripes-Dark", "MATE-Stripes-Light", "GreenTraditional", "Flow.png",
    "symbolic-d", "symbolic-l", "Ubuntu-Mate-Dark-no-logo", "Ubuntu-Mate-Cold-no-logo",
    "Ubuntu-Mate-Radioactive-no-logo", "Stripes", "Gulp", "adwaita-d", "truchet-d", "wood-d",
    "grid-d", "licorice-d", "pixels-d", "desert", "city", "rollpaper", "warty-final-ubuntu",
)  # fmt: skip


@cache
def photographs(group: str) -> tuple[NDArray[np.uint8], ...]:
    """Return the photographs of a group, each (h, w, 3)."""
    if group == "private":
        return tuple(map(_read, _foolbox("imagenet")))
    ours = {path for path in _debian() if not _is(path, LEFT_OUT)}
    named = {"public": PUBLIC, "tuning": TUNING}
    if group in named:
        return tuple(_read(path) for path in sorted(ours) if _is(path, named[group]))
    free = [path for path in sorted(ours) if not _is(path, (*PUBLIC, *TUNING))]
    return tuple(map(_read, [*free, *photo_files(PHOTOS, 3)]))


def patches(
    group: str, count: int, seed: int, likeness: float = 1.0, side: int = 32
) -> NDArray[np.uint8]:
    """Return `crops` of a group of photographs."""
    return crops(photographs(group), count, seed, side=side, likeness=likeness)


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luminance (ITU-R BT.601), (n, 3, H, W) -> (n, 1, H, W)."""
    luminance = np.einsum("nchw,c->nhw", pixels.astype(np.float32), (0.299, 0.587, 0.114))
    return luminance.round().astype(np.uint8)[:, None]


def scikit_image(count: int) -> NDArray[np.uint8]:
    """Return `crops` of scikit-image's photographs, which may be published."""
    photos = tuple(_read(path) for path in photo_files(PHOTOS, 3) if "skimage" in path.parts)
    return crops(photos, count, 3, likeness=0.7)


def scikit_image_classes(count: int) -> dict[str, NDArray[np.uint8]]:
    """Return ``count`` `crops` of each of scikit-image's photographs, by the word for it."""
    paths = [path for path in photo_files(PHOTOS, 3) if "skimage" in path.parts]
    return {
        path.stem.split("_")[0]: crops((_read(path),), count, 3, likeness=0.7) for path in paths
    }


def crops(
    photos: tuple[NDArray[np.uint8], ...],
    count: int,
    seed: int,
    *,
    side: int = 32,
    likeness: float = 1.0,
) -> NDArray[np.uint8]:
    """Return (n, 3, side, side) crops that are not flat, equally many of each photograph.

    Args:
        photos: each (h, w, 3).
        count: largest number of crops.
        seed: of the random choice of crops.
        side: of a crop.
        likeness: largest correlation that two crops may have.
    """
    generator = np.random.default_rng(seed)
    found: list[NDArray[np.uint8]] = []
    seen: list[NDArray[np.float32]] = []
    for photo in photos:
        taken, quota = 0, -(-count // len(photos))
        for _ in range(20 * quota):
            patch = _crop(photo, generator, side)
            shape = _shape(patch)
            if _flat(patch) or (likeness < 1 and seen and max(np.stack(seen) @ shape) > likeness):
                continue
            found.append(patch)
            if likeness < 1:
                seen.append(shape)
            taken += 1
            if taken == quota:
                break
    order = generator.permutation(len(found))[:count]
    return np.stack(found)[order].transpose(0, 3, 1, 2).copy()


def victim(number: int) -> ImageTable:
    """Return 100 private images with ten arbitrary classes.

    Victim 0 is for tuning. Victim 1 is 20 CIFAR-10 images and 80 crops of 20 ImageNet photographs,
    victims 2 and 3 are 20 CIFAR-100 images and 80 other crops.
    """
    if number == 0:
        pixels = patches("tuning", 100, 0, likeness=0.6)
    else:
        small = np.stack([decode(p) for p in _foolbox("cifar10_" if number == 1 else "cifar100_")])
        large = patches("private", 80, number, likeness=0.6)
        pixels = np.concatenate([small.transpose(0, 3, 1, 2), large])
    classes = np.random.default_rng(number).permutation(np.arange(len(pixels)) % 10)
    return ImageTable.from_arrays(pixels, classes)


def _debian() -> list[Path]:
    """Return one file for each wallpaper: the largest of its sizes."""
    files = [
        path
        for path in sorted(BACKGROUNDS.rglob("*"))
        if path.suffix.lower() in (".jpg", ".png", ".webp")
    ]
    for folder in sorted(WALLPAPERS.glob("*/contents/images")):
        files.append(max(folder.iterdir(), key=lambda path: path.stat().st_size))
    return [path for path in files if path.is_file() and not path.is_symlink()]


def _is(path: Path, names: tuple[str, ...]) -> bool:
    """Return whether a file, or the wallpaper that it belongs to, has one of ``names``."""
    name = path.parents[2].name if path.is_relative_to(WALLPAPERS) else path.stem
    return name in names or path.name in names


def _foolbox(start: str) -> list[Path]:
    spec = find_spec("foolbox")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The private images come with foolbox: pip install --no-deps foolbox")
    return sorted(Path(spec.submodule_search_locations[0], "data").glob(f"{start}*"))


def _read(path: Path) -> NDArray[np.uint8]:
    pixels = decode(path)
    pixels = np.stack([pixels] * 3, axis=2) if pixels.ndim == 2 else pixels[:, :, :3]
    scale = LONGEST / max(pixels.shape)
    return (
        cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if (scale < 1)
        else pixels
    )


def _crop(photo: NDArray[np.uint8], generator: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Return a random square with a log-uniform side, resized to ``side``; half are mirrored."""
    height, width = photo.shape[:2]
    largest = min(height, width, 600)
    size = int(np.exp(generator.uniform(np.log(min(LEAST, largest / 2)), np.log(largest))))
    top, left = generator.integers(height - size + 1), generator.integers(width - size + 1)
    square = photo[top : top + size, left : left + size]
    patch = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA)
    return patch[:, ::-1] if generator.random() < 0.5 else patch


def _flat(patch: NDArray[np.uint8]) -> bool:
    grey = patch.mean(axis=2) / 255
    steps = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    return bool(grey.std() < 0.1 or steps < 0.04)


def _shape(patch: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = patch.astype(np.float32).ravel()
    flat -= flat.mean()
    return flat / max(float(np.linalg.norm(flat)), 1e-6)
