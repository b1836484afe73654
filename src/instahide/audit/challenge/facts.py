"""The JSON files of challenges, their ground truth and submissions; and the hash of a challenge.

``challenge.json`` has a field ``sha256``, the hash of the challenge. It is the SHA-256 of the other
fields, as ASCII JSON with sorted names and without spaces. They include the SHA-256 of both arrays,
so the hash covers everything that attackers get, except for the README. ``truth.json`` has such a
field too, and states the hash of its challenge.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from instahide.data.readers.arrays.npy_file import map_npy
from instahide.encryption.scheme import Scheme
from instahide.errors import DamagedFileError, failure_reason, first_validation_error
from instahide.utils.atomic_write import open_regular, read_regular, write_json

ENCODINGS, LABELS, FACTS = "encryption.npy", "label.npy", "challenge.json"
TRUTH = "truth.json"
#: Files of the ground truth.
ORIGINALS, PARTNERS, COEFFICIENTS = "private.npy", "partners.npy", "coefficients.npy"
#: The authors' challenge: 100 images, 50 encodings each.
IMAGES, COPIES = 100, 50
SCHEME = Scheme.cross(6)
#: The id under which the two files of the authors' challenge are opened.
AUTHORS = "instahide-2020"

#: Largest size of a JSON file in bytes.
MOST_FACTS = 1 << 16
#: The remedy for a damaged file.
NEW_COPY = "Ask the author of the challenge for a new copy of the folder."

#: Bytes of a file that are hashed at a time.
_BLOCK = 1 << 20

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: Lower-case words with hyphens between them.
Id = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
Version = Annotated[int, Field(ge=1, le=1_000_000)]
#: Practice: made again by everybody from a public seed, and its truth is public. Competition: made
#: under secret keys, and its truth is with whoever runs it.
Kind = Literal["practice", "competition"]


class Recipe(BaseModel):
    """What a practice set is made of.

    Attributes:
        data: name of the built-in images.
        images: number of private images.
        seed: public seed of the keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    data: Annotated[str, Field(min_length=1, max_length=60)]
    images: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Facts(BaseModel):
    """The metadata of a challenge or of its ground truth.

    Attributes:
        format: version of the format of the folder.
        id: name of the challenge.
        version: version of the challenge.
        kind: how it was made, and who has the truth.
        mean: mean of the normalization, per channel.
        std: standard deviation of the normalization, per channel.
        files: SHA-256 of each array file by name.
        sha256: SHA-256 of the other fields; see the module.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    #: The array files, which have a hash each.
    FILES: ClassVar[tuple[str, ...]]

    format: Literal[1]
    id: Id
    version: Version
    kind: Kind
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    files: dict[str, Sha256]
    sha256: Sha256


class PublicFacts(Facts):
    """``challenge.json``: besides `Facts` the encoder, and the recipe of a practice set."""

    FILES: ClassVar[tuple[str, ...]] = (ENCODINGS, LABELS)

    encoder: Annotated[str, Field(min_length=1, max_length=200)]
    scheme: dict[str, bool | int | float | str]
    copies: Annotated[int, Field(ge=1)]
    recipe: Recipe | None


class SecretFacts(Facts):
    """``truth.json``: besides `Facts` the hash of its challenge, and private images in a mix."""

    FILES: ClassVar[tuple[str, ...]] = (ORIGINALS, PARTNERS, COEFFICIENTS)

    challenge: Sha256
    private_k: Annotated[int, Field(ge=1)]


AnyFacts = TypeVar("AnyFacts", bound=Facts)
Model = TypeVar("Model", bound=BaseModel)


def seal(model: type[AnyFacts], folder: Path, /, **values: object) -> AnyFacts:
    """The facts ``values`` with the hashes of the array files in ``folder``, and their own hash."""
    files = {name: file_hash(folder / name) for name in model.FILES}
    unsealed = model.model_validate({"format": 1, "files": files, **values, "sha256": "0" * 64})
    return unsealed.model_copy(update={"sha256": digest(unsealed.model_dump(mode="json"))})


def write_facts(path: Path, facts: Facts) -> None:
    """Write ``facts`` as JSON."""
    write_json(path, facts.model_dump(mode="json"))


def read_facts(kind: type[AnyFacts], path: Path) -> AnyFacts:
    """Read the facts in ``path``, and check their hash and those of the files beside them.

    Raises:
        DamagedFileError: the file cannot be read, or a hash is another.
    """
    facts, plain = read_model(kind, path)
    if facts.sha256 != digest(plain):
        raise DamagedFileError(f"{path} was changed: its SHA-256 is another.", NEW_COPY)
    require_channels(facts, len(facts.mean), path)
    if set(facts.files) != set(kind.FILES):
        raise DamagedFileError(f"{path} lists other files than {', '.join(kind.FILES)}.", NEW_COPY)
    for name, expected in facts.files.items():
        try:
            found = file_hash(path.with_name(name))
        except OSError as error:
            raise DamagedFileError(
                f"{path.with_name(name)} cannot be read ({failure_reason(error)}).", NEW_COPY
            ) from None
        if found != expected:
            raise DamagedFileError(
                f"{path.with_name(name)} is not the file that {path.name} describes: its SHA-256 "
                "is another.",
                NEW_COPY,
            )
    return facts


def read_model(
    kind: type[Model], path: Path, remedy: str = NEW_COPY
) -> tuple[Model, dict[str, Any]]:
    """The model in a JSON file, and its plain values.

    Raises:
        DamagedFileError: the file cannot be read, or is not of this ``kind``.
    """
    try:
        text = read_regular(path, MOST_FACTS)
        return kind.model_validate_json(text), json.loads(text)
    except (OSError, ValueError) as error:
        reason = failure_reason(error)
        if isinstance(error, ValidationError):
            reason = first_validation_error(error)
        raise DamagedFileError(f"{path} is damaged ({reason}).", remedy) from None


def digest(plain: Mapping[str, object]) -> str:
    """SHA-256 of the JSON values ``plain`` without ``sha256``, as the module says.

    Examples:
        >>> from instahide.audit.challenge.facts import digest
        >>> digest({"b": 1, "a": [0.5]}) == digest({"sha256": "", "a": [0.5], "b": 1})
        True
    """
    rest = {name: value for name, value in plain.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def authors_facts(folder: Path, channels: int) -> PublicFacts:
    """The facts of the authors' challenge, which states neither itself nor its normalization."""
    return seal(
        PublicFacts, folder, id=AUTHORS, version=1, kind="competition",
        mean=(0.0,) * channels, std=(1.0,) * channels, encoder=SCHEME.name, scheme=asdict(SCHEME),
        copies=COPIES, recipe=None,
    )  # fmt: skip


def read_array(path: Path, dimensions: int, remedy: str = NEW_COPY) -> NDArray[Any]:
    """The array in ``path``, memory-mapped.

    Raises:
        DamagedFileError: it cannot be read, holds values that are not finite numbers, or has
            another number of dimensions.
    """
    try:
        values = map_npy(path)
    except Exception as error:  # NumPy raises several kinds on damaged headers
        reason = failure_reason(error)
        raise DamagedFileError(f"{path} is not a readable array ({reason}).", remedy) from error
    if values.ndim != dimensions:
        raise DamagedFileError(
            f"{path} has the shape {values.shape}.", f"It must have {dimensions} dimensions."
        )
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise DamagedFileError(f"{path} does not hold finite numbers alone.", remedy)
    return np.asanyarray(values)


def require_channels(facts: Facts, channels: int, path: Path) -> None:
    """Check that the normalization is of ``channels``.

    Raises:
        DamagedFileError: it is not.
    """
    if not len(facts.mean) == len(facts.std) == channels:
        raise DamagedFileError(f"{path} is of images with other channels.", NEW_COPY)


def file_hash(path: Path) -> str:
    """SHA-256 of the bytes of a file.

    Raises:
        OSError: it cannot be read.
    """
    found = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
