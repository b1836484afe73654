"""Practice sets: challenges that everybody makes again, with their truth, from a public seed.

Their keys are public and protect nothing. Therefore they are made of built-in images only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from instahide.attacks.base import EncodingObservation, ThreatModel
from instahide.audit.challenge.challenge import Challenge
from instahide.audit.challenge.facts import Recipe, Sha256
from instahide.audit.challenge.making import Made, Name, require_apart, write_challenge
from instahide.audit.ground_truth import ground_truth_of
from instahide.data import ImageTable, open_split
from instahide.data.normalization.normalization import Normalization
from instahide.data.pixels import EIGHT_BIT
from instahide.data.public.crops import read_photo, shipped_photos
from instahide.encryption.scheme import Scheme
from instahide.encryption.seeded_keys import encode_with_seeded_keys
from instahide.errors import DataError, InstaHideError, first_validation_error

#: Said to whoever makes a practice set.
WARNING = (
    "The keys of a practice set follow from its public seed. They protect nothing: everybody can "
    "decrypt it."
)
#: Gray photographs that private and public patches are cut from. Lossless files, which all versions
#: of an image library decode alike; the networks of this library were trained on others.
PRIVATE_PHOTOS = ("camera.png", "coins.png", "page.png")
PUBLIC_PHOTOS = ("brick.png", "grass.png", "gravel.png")
#: Side of a patch; least standard deviation of its values, because pictures of one color resemble a
#: patch with little contrast; distance of public patches.
SIDE, LEAST_DEVIATION, STRIDE = 32, 20, 8


class PracticeImages(NamedTuple):
    """Built-in private images, and a public pool of others."""

    private: ImageTable
    public: ImageTable


def _split(name: str, mean: float, std: float) -> PracticeImages:
    """Training images of a built-in set; its test images are public.

    Mean and standard deviation are stated, so that they do not depend on the order of a sum.
    """
    normalization = Normalization((mean,), (std,), EIGHT_BIT)
    split = open_split(name, progress=False)
    return PracticeImages(*(part.normalized_like(normalization) for part in split))


def _photographs() -> PracticeImages:
    """Gray patches, labelled with their photographs; public ones are of other photographs."""
    cut = [_patches(name, SIDE) for name in PRIVATE_PHOTOS]
    labels = np.repeat(np.arange(len(cut)), [len(part) for part in cut])
    normalization = Normalization((0.477,), (0.258,), EIGHT_BIT)
    names = [name.partition(".")[0] for name in PRIVATE_PHOTOS]
    private = ImageTable.from_arrays(np.concatenate(cut), labels, names)
    public = np.concatenate([_patches(name, STRIDE) for name in PUBLIC_PHOTOS])
    tables = (private, ImageTable.from_arrays(public))
    return PracticeImages(*(table.normalized_like(normalization) for table in tables))


#: Images of practice sets by name.
DATA: Mapping[str, Callable[[], PracticeImages]] = {
    "digits": partial(_split, "digits", 0.305, 0.376),
    "mnist-5k": partial(_split, "mnist-5k", 0.132, 0.309),
    "photographs": _photographs,
}


@dataclass(frozen=True)
class PracticeSet:
    """What determines a practice set.

    Attributes:
        recipe: images and seed.
        copies: encodings of each image.
        scheme: how they are encoded.
    """

    recipe: Recipe
    copies: int
    scheme: Scheme


class Official(NamedTuple):
    """An official practice set: its version, what determines it, and its hash."""

    version: int
    practice: PracticeSet
    sha256: Sha256


def _official(data: str, copies: int, k: int, sha256: str) -> Official:
    recipe = Recipe(data=data, images=100, seed=2020)
    return Official(1, PracticeSet(recipe, copies, Scheme.cross(k)), sha256)


#: The official practice sets by id. A set is never changed: another one gets another version.
OFFICIAL: Mapping[str, Official] = {
    "digits-k4": _official(
        "digits", 20, 4, "ae7c6ce2b7d515a94076fe24902ee19d864d3b362aa776f4c128458dc4068698"
    ),
    "mnist-k4": _official(
        "mnist-5k", 20, 4, "d453123d7361368cc7d51f44b2a08ca541b2da3ad9b221a1766b692c61ed4026"
    ),
    "photographs-k4": _official(
        "photographs", 20, 4, "26d349d3ae94d06bd61a8197d6234d62e250e750522eeed4d2ea868b3bdf681c"
    ),
    "photographs-k6": _official(
        "photographs", 50, 6, "b24a062fb998d7ece9af0391ce282520b8cbb142d7464ebb704d89ed5c935e41"
    ),
    "photographs-k6-few": _official(
        "photographs", 10, 6, "b2c212ef4fe10ea25a090c96c1ee4e0997459ac2ce1ae9446a39a53225a411e6"
    ),
}


def make_practice(
    practice: PracticeSet,
    folder: Path,
    truth_folder: Path,
    name: Name | None = None,
    sha256: Sha256 | None = None,
) -> Challenge:
    """Make a practice set with its truth: the same files whoever makes it, whenever and where.

    Args:
        practice: the set.
        folder: folder for attackers.
        truth_folder: folder of the truth, which is public.
        name: id and version.
        sha256: the hash that it must have, if that is known.

    Raises:
        DataError: there are no such images, or fewer than wanted.
        InstaHideError: one folder contains the other, or one is not empty; the scheme does not fit
            the images; or the hash is another.
    """
    require_apart(folder, truth_folder)
    recipe, scheme, name = practice.recipe, practice.scheme, name or Name()
    images, public = _images(recipe)
    made = encode_with_seeded_keys(
        scheme, images, public if scheme.uses_public else None, practice.copies, recipe.seed
    )
    truth = ground_truth_of(images, scheme, made, torch.arange(len(images)))
    observation = EncodingObservation(
        scheme,
        images.mean,
        images.std,
        ThreatModel(public="none", encodings_per_image=practice.copies),
        made.encoded.images,
        made.encoded.labels,
    )
    return write_challenge(Made(observation, truth, recipe, sha256), folder, truth_folder, name)


def make_official(name: str, folder: Path, truth_folder: Path) -> Challenge:
    """Make the official practice set ``name``, if it is the same here as everywhere.

    Raises:
        InstaHideError: there is no such set; or as for `make_practice`.
    """
    if name not in OFFICIAL:
        raise InstaHideError(
            f"There is no official practice set {name!r:.80}.",
            f"Choose from {', '.join(OFFICIAL)}.",
        )
    version, practice, sha256 = OFFICIAL[name]
    return make_practice(practice, folder, truth_folder, Name(name, version), sha256)


def practice_recipe(data: str, images: int, seed: int) -> Recipe:
    """The recipe of a practice set.

    Args:
        data: a name in `DATA`.
        images: number of private images.
        seed: public seed, from 0.

    Raises:
        DataError: the images are not built in, or a number is out of range.
    """
    if data not in DATA:
        raise DataError(
            f"{data!r:.80} is not built in, and the keys of a practice set are public: they would "
            "protect nothing of your images.",
            f"Use {' or '.join(DATA)}, or make a competition.",
        )
    try:
        return Recipe(data=data, images=images, seed=seed)
    except ValidationError as error:
        raise DataError(
            f"There is no practice set of these numbers ({first_validation_error(error)}).",
            "Use at least one image, and a seed from 0 to 2^63 - 1.",
        ) from None


def _images(recipe: Recipe) -> PracticeImages:
    practice_recipe(recipe.data, recipe.images, recipe.seed)
    images, public = DATA[recipe.data]()
    if recipe.images > len(images):
        raise DataError(
            f"There are {len(images)} {recipe.data}, not {recipe.images}.", "Use fewer `images=`."
        )
    chosen = np.arange(recipe.images) * len(images) // recipe.images
    return PracticeImages(images.subset(chosen), public)


def _patches(name: str, stride: int) -> NDArray[np.uint8]:
    """(n, 1, SIDE, SIDE) patches of a photograph, ``stride`` pixels apart, with contrast."""
    photo = read_photo(_photo(name), (1, SIDE, SIDE))[:, :, 0]
    windows = np.lib.stride_tricks.sliding_window_view(photo, (SIDE, SIDE))
    patches = windows[::stride, ::stride].reshape(-1, 1, SIDE, SIDE)
    values = patches.reshape(len(patches), -1).astype(np.int64)
    count = values.shape[1]
    # The squared deviation times the squared count, in integers.
    spread = count * (values**2).sum(axis=1) - values.sum(axis=1) ** 2
    return np.ascontiguousarray(patches[spread >= (LEAST_DEVIATION * count) ** 2])


def _photo(name: str) -> Path:
    found = shipped_photos("skimage", (name,))
    if not found:
        raise DataError(
            f"The photograph {name} of scikit-image is missing.",
            "Install it with `pip install 'instahide[data]'`.",
        )
    return found[0]
