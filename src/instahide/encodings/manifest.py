"""PUBLIC: what a folder of encodings says of itself, checked before anything else is read."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from instahide._version import __version__
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

#: The version of the format that this library writes, and the only one that it reads.
FORMAT: Literal[1] = 1
NAME = "manifest.json"
#: A manifest above this size is not read: ten thousand shards stay far below it.
MOST_BYTES = 1 << 24

Values = Literal["float32", "float16", "uint8"]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=1, le=1 << 48)]
Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]

#: How `Values` are stored.
STORED: dict[Values, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "uint8": torch.uint8,
}


class Shard(BaseModel):
    """One file of encodings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[0-9a-f]{16}\.safetensors$")] = Field(
        description="file name, random"
    )
    encodings: Count = Field(description="encodings in it")
    bytes: Count = Field(description="length of the file")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="SHA-256 of the file, in hexadecimal digits"
    )


class Manifest(BaseModel):
    """A folder of encodings. It names no image, and holds nothing that is drawn from keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    format: Annotated[Literal[1], Field(description="version of this format")] = FORMAT
    library: Annotated[str, Field(max_length=200)] = Field(
        default_factory=lambda: f"instahide {__version__}", description="what wrote the folder"
    )
    created: Annotated[str, Field(max_length=40)] = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        description="when it was begun, in UTC",
    )
    publication: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] = Field(
        description="random number of this folder"
    )
    participant: Annotated[str, Field(max_length=200)] = Field(
        "", description="who published it, in their own words"
    )
    scheme: dict[str, Any] = Field(description="fields of the scheme that made the encodings")
    shape: tuple[Count, Count, Count] = Field(description="channels, height and width of an image")
    classes: Annotated[tuple[Name, ...], Field(min_length=2, max_length=1 << 17)] = Field(
        description="class names, by place in a label"
    )
    mean: Channels = Field(description="per channel, of pixel / 255, before encryption")
    std: Channels = Field(description="per channel, of pixel / 255, before encryption")
    private_images: Count = Field(description="private images that were encrypted")
    copies: Count = Field(description="encodings of each private image")
    values: Values = Field(description="how a value of an encoding is stored")
    worst_error: Annotated[float, Field(ge=0)] = Field(
        description="how far a stored value may be from the encoding's own, rounding included"
    )
    ended: Annotated[
        Literal["all", "limit"] | None,
        Field(
            description="null while it is written; all: every copy is there; limit: it ended "
            "before an image passed its exposure limit"
        ),
    ] = None
    shards: Annotated[
        tuple[Shard, ...], Field(description="in order of writing, which is random")
    ] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have one name")
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ValueError("mean and std need one value a channel")
        if min(self.std) <= 0:
            raise ValueError("a standard deviation is not positive")
        if len({shard.name for shard in self.shards}) < len(self.shards):
            raise ValueError("a shard is named twice")
        wanted, found = self.private_images * self.copies, len(self)
        if found > wanted or (self.ended == "all" and found != wanted):
            raise ValueError(f"shards hold {found} encodings, not {wanted}")
        return self

    def __len__(self) -> int:
        """Encodings in all shards."""
        return sum(shard.encodings for shard in self.shards)

    @property
    def total(self) -> int:
        """Encodings that were asked for."""
        return self.private_images * self.copies

    @property
    def bytes_each(self) -> int:
        """Bytes of an encoding and its label on disk."""
        return math.prod(self.shape) * STORED[self.values].itemsize + 4 * len(self.classes)

    @property
    def reach(self) -> float:
        """No value of an encoding is further from 0: a mix of pixels stays between the extremes."""
        bounds = zip(self.mean, self.std, strict=True)
        return max(max(mean, 1 - mean) / std for mean, std in bounds)

    def encryption(self) -> Scheme:
        """The scheme that made the encodings.

        Raises:
            InstaHideError: there is none with these fields.
        """
        return Scheme.from_json(json.dumps(self.scheme))

    def to_json(self) -> bytes:
        """As indented JSON."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes, location: str) -> Manifest:
        """Read what `to_json` wrote; ``location`` is for messages.

        Raises:
            InstaHideError: not a manifest, one of a newer version, or one that cannot be true.
        """
        _refuse_newer(text, location)
        try:
            manifest = cls.model_validate_json(text)
            manifest.encryption()
        except ValueError as error:
            raise InstaHideError(
                f"The manifest of {location} is damaged or not one of ours ({_reason(error)}).",
                "Get the folder anew from whoever published it.",
            ) from None
        return manifest


def _refuse_newer(text: bytes, location: str) -> None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return
    found = values.get("format") if isinstance(values, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise InstaHideError(
            f"{location} was written by a newer version of this library (format {found}).",
            "Upgrade with `pip install --upgrade instahide`.",
        )


def _reason(error: ValueError) -> str:
    if isinstance(error, InstaHideError):
        return error.problem.rstrip(".")
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][:3])
        return f"{place[:80]}: {first['msg']}" if place else str(first["msg"])
    return "it is no text"
