"""PUBLIC: the manifest of a folder of encodings, which is validated before shards are read.

A manifest may come from an attacker. So every text, number and list in it is bounded, and a shard
cannot claim more encodings than its bytes can hold. docs/format.md describes the file.
"""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Literal

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    computed_field,
    model_validator,
)

from instahide._version import __version__
from instahide.data.labels import Task, least_columns
from instahide.data.pixels import MOST_CHANNELS, require_moments
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.encryption.encoders.registry import is_builtin, recorded_encoder
from instahide.encryption.scheme import Scheme
from instahide.encryption.validation import require_label_mode
from instahide.errors import (
    DamagedFileError,
    DataError,
    InstaHideError,
    SchemeError,
    first_validation_error,
)

#: The version of the format that this library writes, and the only one that it reads.
FORMAT: Literal[1] = 1
NAME = "manifest.json"
SHARD_NAME = r"^[0-9a-f]{16}\.safetensors$"
#: Largest size of a manifest in bytes; enough for ten thousand shards and as many classes.
MOST_BYTES = 1 << 22
#: Largest number of fields of a JSON object; each invalid field takes memory for its error.
MOST_FIELDS = 40
#: Standard deviations of noise beyond the mixes at which stored values are clipped. The format
#: fixes this number; fewer than one value in 10^16 is beyond.
NOISE_DEVIATIONS = 8.572
#: Largest number of bytes of a shard besides its encodings and labels.
MOST_OVERHEAD = 1024
#: The last but one line of the file; the hash is that of everything before the comma.
_CHECKSUM = ',\n "checksum": "{}"\n}}\n'

Values = Literal["float32", "float16", "uint8"]
#: The name of the encoder whose settings are those of a `Scheme`.
INSTAHIDE = Scheme.name
#: Text without control characters, because it is printed on terminals.
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Name = Annotated[Text, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1, le=1 << 48)]
Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=MOST_CHANNELS)]
#: The value of a field of the scheme; the scheme itself checks more.
Parameter = bool | Annotated[int, Field(ge=0, le=1 << 16)] | float | Name

#: How `Values` are stored.
STORED: dict[Values, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "uint8": torch.uint8,
}


class Shard(BaseModel):
    """The entry of one file of encodings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: Annotated[str, Field(pattern=SHARD_NAME)] = Field(description="file name, random")
    encodings: Count = Field(description="encodings in it")
    bytes: Count = Field(description="length of the file")
    sha256: Sha256 = Field(description="SHA-256 of the file, in hexadecimal digits")


class Manifest(BaseModel):
    """A folder of encodings. It names no image, and nothing in it is drawn from keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    format: Annotated[Literal[1], Field(description="version of this format")] = FORMAT
    library: Text = Field(
        default_factory=lambda: f"instahide {__version__}", description="what wrote the folder"
    )
    created: Text = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        description="when it was begun, in UTC",
    )
    publication: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] = Field(
        description="random number of this folder"
    )
    participant: Text = Field("", description="who published it, in their own words")
    encoder: Name = Field(
        INSTAHIDE,
        description="what made the encodings: instahide, or the name of another encoder. A name is "
        "never imported unless the reader names the encoder too",
    )
    data_set_key: bool = Field(
        default=False,
        description="whether all encodings share a key, so that a network of them classifies "
        "encodings under this key alone",
    )
    scheme: Annotated[dict[Name, Parameter], Field(max_length=20)] = Field(
        description="fields of the scheme that made the encodings; settings of another encoder"
    )
    shape: Annotated[tuple[Count, ...], Field(min_length=3, max_length=4)] = Field(
        description="channels, height and width of an encoding; channels, depth, height and width "
        "of that of a volume"
    )
    image_shape: Annotated[tuple[Count, ...], Field(min_length=3, max_length=4)] | None = Field(
        None, description="likewise of an image, if encodings have another shape; else null"
    )
    task: Task = Field(
        "single-label",
        description="what labels are: single-label: shares of classes; multi-label: shares of each "
        "finding; regression: measured values",
    )
    classes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1 << 17), FailFast()] = (
        Field(description="names of classes, findings or values, by place in a label")
    )
    mean: Channels = Field(description="per channel, of pixels in the unit range")
    std: Channels = Field(description="per channel, of pixels in the unit range")
    value_range: tuple[float, float] = Field(
        description="lowest and highest value of a pixel before encryption, which are 0 and 1 in "
        "the unit range",
    )
    private_images: Count = Field(description="private images that were encrypted")
    copies: Count = Field(description="encodings of each private image")
    values: Values = Field(description="how a value of an encoding is stored")
    max_quantization_error: Annotated[float, Field(ge=0)] = Field(
        description="how far a stored value may be from the encoding's own, rounding included"
    )
    limited: bool = Field(
        default=False,
        description="whether images may be drawn unevenly: an exposure limit was set, so that "
        "images at it were drawn no more; or some images are there more than once, which may be "
        "known to the publisher's ledger alone; or another program made the encodings",
    )
    ended: Annotated[
        Literal["all", "limit"] | None,
        Field(
            description="null while it is written; all: every copy is there; limit: it ended "
            "before an image passed its exposure limit"
        ),
    ] = None
    shards: Annotated[
        tuple[Shard, ...], Field(description="in order of writing, which is random"), FailFast()
    ] = ()

    @computed_field(  # type: ignore[prop-decorator]
        description="SHA-256 of all bytes of this file before its last comma"
    )
    @property
    def checksum(self) -> Sha256:
        """SHA-256 of the file up to this field, the last one."""
        return _digest(self._body())

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have one name")
        if len(self.classes) < least_columns(self.task):
            raise ValueError("there are fewer than two classes")
        if self.of_scheme:
            require_label_mode(self.encryption(), self.task)
            if self.image_shape or self.data_set_key:
                raise ValueError("a scheme has neither another shape nor a key of a data set")
        elif self.values != "float32":
            raise ValueError("encodings of other encoders are stored as float32")
        elif is_builtin(self.encoder):
            recorded_encoder(self.encoder, self.scheme)
        try:
            require_moments(self.mean, self.std, (self.image_shape or self.shape)[0])
        except DataError as error:
            raise ValueError(error.problem.removesuffix(".")) from None
        if not self.value_range[0] < self.value_range[1]:
            raise ValueError("the range of pixels is empty")
        if self.of_scheme and self.max_abs > torch.finfo(torch.float32).max:
            raise ValueError("normalized values are beyond float32")
        if self.max_quantization_error > self.max_abs:
            raise ValueError("the worst error is above every value")
        if len({shard.name for shard in self.shards}) < len(self.shards):
            raise ValueError("a shard is named twice")
        for shard in self.shards:
            if not 0 < shard.bytes - shard.encodings * self.bytes_each <= MOST_OVERHEAD:
                raise ValueError(f"{shard.encodings} encodings do not make {shard.bytes} bytes")
        wanted, found = self.private_images * self.copies, len(self)
        if found > wanted or (self.ended == "all" and found != wanted):
            raise ValueError(f"shards hold {found} encodings, not {wanted}")
        if self.ended and not found:
            raise ValueError("it is finished and holds nothing")
        return self

    def __len__(self) -> int:
        """The number of encodings in all shards."""
        return sum(shard.encodings for shard in self.shards)

    @property
    def total(self) -> int:
        """The requested number of encodings."""
        return self.private_images * self.copies

    @property
    def bytes_each(self) -> int:
        """Bytes of one encoding and its label on disk."""
        return math.prod(self.shape) * STORED[self.values].itemsize + 4 * len(self.classes)

    @property
    def of_scheme(self) -> bool:
        """Whether a `Scheme` made the encodings, instead of another encoder."""
        return self.encoder == INSTAHIDE

    @property
    def max_abs(self) -> float:
        """The largest magnitude of a stored value: that of a mix of pixels, and of noise.

        Infinite for other encoders than InstaHide, whose values have no known bound.
        """
        if not self.of_scheme:
            return math.inf
        return max_abs(self.mean, self.std, self.encryption().noise)

    def encryption(self) -> Scheme:
        """The scheme of the encodings.

        Raises:
            InstaHideError: another encoder made them, or the fields are not those of a valid
                scheme.
        """
        if not self.of_scheme:
            raise SchemeError(
                f"The encodings were made by the encoder {self.encoder}, which has no scheme.",
                "Use encodings of InstaHide for this.",
            )
        return _scheme(json.dumps(self.scheme))

    def instance_encoder(self, named: str | None = None) -> InstanceEncoder:
        """The encoder that made the encodings.

        A folder may come from an attacker. So an encoder of another package is imported only if the
        caller names it.

        Args:
            named: the encoder that the user typed, as for `registry.encoder_named`; None trusts
                the encoders of this library alone.

        Raises:
            InstaHideError: the encoder is of another package and was not named, it cannot be made
                with the settings in the manifest, or it is another than the folder's.
        """
        return recorded_encoder(self.encoder, self.scheme, named)

    def to_json(self) -> bytes:
        """The manifest as indented JSON, with its checksum.

        Raises:
            DataError: it would be larger than `MOST_BYTES`.
        """
        body = self._body()
        text = body + _CHECKSUM.format(_digest(body)).encode()
        if len(text) > MOST_BYTES:
            raise DataError(
                f"The names of {len(self.classes)} classes and {len(self.shards)} shards are more "
                f"than the {MOST_BYTES:,} bytes that a manifest may have.",
                "Shorten the names of the classes.",
            )
        return text

    def _body(self) -> bytes:
        text = self.model_dump_json(indent=1, exclude={"checksum"})
        return text.removesuffix("\n}").encode()

    @classmethod
    def from_json(cls, text: bytes, location: str) -> Manifest:
        """Read what `to_json` wrote; ``location`` is for messages.

        Raises:
            DamagedFileError: the text is not a manifest, has a newer version or a wrong checksum,
                or is inconsistent.
        """
        version = _version(text, location)
        if version > FORMAT:
            raise DamagedFileError(
                f"{location} was written by a newer version of this library (format {version}).",
                "Upgrade with `pip install --upgrade instahide`.",
            )
        body, _, _ = text.rpartition(b",")
        if text != body + _CHECKSUM.format(_digest(body)).encode():
            raise _damaged(location, "its checksum is another")
        try:
            manifest = cls.model_validate_json(body + b"\n}")
        except ValueError as error:
            raise _damaged(location, _reason(error)) from None
        return manifest


def max_abs(mean: tuple[float, ...], std: tuple[float, ...], noise: float) -> float:
    """The largest magnitude of a stored encoding under this normalization, with this noise."""
    mix = max(max(m, 1 - m) / s for m, s in zip(mean, std, strict=True))
    return mix + NOISE_DEVIATIONS * noise


@lru_cache
def _scheme(text: str) -> Scheme:
    # Cached, because validation simulates whether its bounds can be met.
    return Scheme.from_json(text)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _version(text: bytes, location: str) -> int:
    try:
        values = json.loads(text, object_pairs_hook=_fields)
    except (ValueError, RecursionError):
        raise _damaged(location, "it is no JSON, or has a field twice or too many") from None
    found = values.get("format") if isinstance(values, dict) else None
    if type(found) is not int or not 0 < found < 1 << 31:
        raise _damaged(location, "it has no version")
    return found


def _fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object, after a check for too many or duplicate fields."""
    fields = dict(pairs)
    if len(pairs) > MOST_FIELDS or len(fields) < len(pairs):
        raise ValueError
    return fields


def _damaged(location: str, reason: str) -> DamagedFileError:
    return DamagedFileError(
        f"The manifest of {location} is damaged, or was not written by this library ({reason}).",
        "Ask the publisher of the folder for a new copy.",
    )


def _reason(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return first_validation_error(error)
    return error.problem.rstrip(".") if isinstance(error, InstaHideError) else str(error)
