"""A task in color at 3 x 32 x 32: from which of 22 photographs a patch is.

Each photograph is divided into square cells, and a fifth of the cells is for testing: a patch lies
within one cell, so that no test patch has a pixel in common with a training patch. Patches of the
same cell may overlap. Patches without detail are left out, and so are photographs with too little
of it. No photograph was chosen by how a network does on it; the size and the contrast of patches
and the batch size were chosen in runs with a seed that is not reported, on the same photographs.
The public pool of this task is the built-in one, of scikit-image's and scikit-learn's photographs,
none of which is here.

The photographs come with the Debian packages lomiri-wallpapers-16.04, mate-backgrounds and
plasma-workspace-wallpapers: all that are photographs in color. What else these packages hold, and
gnome-backgrounds and ukui-wallpapers as well, is drawn, rendered, or black and white.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.photographs import BACKGROUNDS, WALLPAPERS
from instahide.data.cache import cache_folder
from instahide.data.readers.image_file import decode
from instahide.utils.atomic_write import atomic_write

NAME = "color-patches"
#: Changes with everything that the patches depend on.
VERSION = 2
#: All photographs in color that the packages hold.
PHOTOGRAPHS = (
    "Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Picture_0B_by_freespace",
    "Picture_1A_by_freespace", "Wine_by_Jakkub_Mede", "aitzgorri_by_Aitzol_Berasategi",
    "free_by_Peter_Nerlich", "friends_by_Aitzol_Berasategi", "greentock_by_Peter_Nerlich",
    "life_by_Aitzol_Berasategi", "picosdeeuropa_by_Aitzol_Berasategi",
    "seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi",
    "mate/nature/Aqua", "mate/nature/Blinds", "mate/nature/Dune", "mate/nature/FreshFlower",
    "mate/nature/Garden", "mate/nature/GreenMeadow", "mate/nature/LadyBird",
    "mate/nature/RainDrops", "mate/nature/Storm", "mate/nature/TwoWings", "mate/nature/Wood",
    "mate/nature/YellowFlower",
    "BytheWater", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Kite",
    "OneStandsOut", "Path", "summer_1am",
)  # fmt: skip
#: Side of a patch in the task; sides of a patch and of a cell as shares of the shorter side of the
#: photograph, which is larger by so many times.
SIDE, PATCH_SHARE, CELL_SHARE = 32, 8, 5
#: Least standard deviation of the gray levels of a patch, from 0 to 1.
LEAST_CONTRAST = 0.08
#: Crops that a cell is judged by, of which half must have contrast; least number of such cells.
TRIES, LEAST_CELLS = 16, 10
#: Crops that are tried for one patch.
MOST_CROPS = 10_000
#: One in so many cells is for testing.
TEST_CELLS = 5
#: Patches of each photograph for training and for testing.
TRAIN, TEST = 1_480, 370
#: Of training runs: smaller than usual, for as many steps as in an epoch of a larger set.
BATCH_SIZE = 64


class Cell(NamedTuple):
    """A square of a photograph: the place of its upper left pixel, and its side."""

    top: int
    left: int
    side: int


class Cut(NamedTuple):
    """Patches (n, 32, 32, 3) of a photograph, and the square (n, 3) that each was cut from."""

    patches: NDArray[np.uint8]
    squares: NDArray[np.int64]


def source() -> str:
    """Return the path of a file with the task, which is written to the cache if it is missing."""
    path = cache_folder() / f"{NAME}-{VERSION}.npz"
    if not path.exists():
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays(TRAIN, TEST))
    return str(path)


def arrays(train: int, test: int) -> dict[str, NDArray[np.generic]]:
    """Return the images (n, 32, 32, 3) and labels of both parts, named as in files of Keras."""
    parts: dict[str, list[NDArray[np.uint8]]] = {"train": [], "test": []}
    for number, photo in enumerate(map(_read, PHOTOGRAPHS)):
        found = cells_of(photo, np.random.default_rng(number))
        if len(found) < LEAST_CELLS:
            continue
        for (part, patches), cells, count in zip(
            parts.items(), divided(found), (train, test), strict=True
        ):
            generator = np.random.default_rng([number, part == "test"])
            patches.append(cut(photo, cells, count, generator).patches)
    return {
        name: values
        for part, patches in parts.items()
        for name, values in (
            (f"x_{part}", np.concatenate(patches)),
            (f"y_{part}", np.repeat(np.arange(len(patches)), [len(of) for of in patches])),
        )
    }


def cells_of(photo: NDArray[np.uint8], generator: np.random.Generator) -> list[Cell]:
    """Return the cells of a photograph (h, w, 3) with enough detail, in random order."""
    height, width = photo.shape[:2]
    side = min(height, width) // CELL_SHARE
    cells = [
        Cell(row * side, column * side, side)
        for row in range(height // side)
        for column in range(width // side)
    ]
    detailed = [
        cell
        for cell in cells
        if np.mean([_contrast(_crop(photo, cell, generator)[0]) for _ in range(TRIES)]) >= 0.5
    ]
    return [detailed[place] for place in generator.permutation(len(detailed))]


def divided(cells: list[Cell]) -> tuple[list[Cell], list[Cell]]:
    """Return the cells for training and those for testing."""
    held_out = len(cells) // TEST_CELLS
    return cells[held_out:], cells[:held_out]


def cut(
    photo: NDArray[np.uint8], cells: list[Cell], count: int, generator: np.random.Generator
) -> Cut:
    """Return ``count`` different patches with contrast, equally many of each cell."""
    found: dict[tuple[int, int, int], NDArray[np.uint8]] = {}
    for cell in islice(cycle(cells), count):
        for _ in range(MOST_CROPS):
            patch, square = _crop(photo, cell, generator)
            if square not in found and _contrast(patch):
                found[square] = patch
                break
        else:
            raise ValueError(f"{cell} has too few different patches with contrast.")
    return Cut(np.stack(list(found.values())), np.array(list(found)))


def _crop(
    photo: NDArray[np.uint8], cell: Cell, generator: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    """Return a random patch (32, 32, 3) of a cell, and the place and side of its square."""
    side = min(photo.shape[:2]) // PATCH_SHARE
    down, right = generator.integers(cell.side - side + 1, size=2)
    top, left = int(cell.top + down), int(cell.left + right)
    square = photo[top : top + side, left : left + side]
    return cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA), (top, left, side)


def _contrast(patch: NDArray[np.uint8]) -> bool:
    return bool(patch.mean(axis=2).std() / 255 >= LEAST_CONTRAST)


def _read(name: str) -> NDArray[np.uint8]:
    """Return a photograph (h, w, 3)."""
    for path in (BACKGROUNDS / f"{name}.jpg", WALLPAPERS / name / "contents/images/2560x1600.jpg"):
        if path.exists():
            return decode(path)
    raise SystemExit(
        f"The photograph {name} is missing: apt-get install lomiri-wallpapers-16.04 "
        "mate-backgrounds plasma-workspace-wallpapers"
    )
