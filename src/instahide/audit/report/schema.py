"""What an audit writes down, and what a report says, as it stands in JSON.

docs/report.schema.json is the schema of `Report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from instahide._version import __version__
from instahide.audit.schedule import On

#: The version of ``report.json``.
FORMAT: Literal[1] = 1

Number = Annotated[float, Field(allow_inf_nan=False)]


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Picture(_Plain):
    """A recovered image beside its original."""

    which: Literal["best", "median", "worst"] = Field(description="among all recovered images")
    ssim: Number = Field(description="likeness of the two, 1 for equal ones")
    original: str = Field(description="PNG file in the folder `pictures`")
    recovered: str = Field(description="PNG file in the folder `pictures`")


class AttackResult(_Plain):
    """What came of one attack on one observation."""

    attack: str = Field(description="name of the attack")
    title: str = Field(description="what it does, in a line")
    paper: str = Field(description="who published it")
    on: On = Field(
        description="rehearsal: the user's images, encrypted anew under keys that the scorer "
        "knows; published: the encodings that went out; update: the gradient of one encoding made "
        "anew, as a participant of a federation would send it; plain update: the gradient of its "
        "image, unencrypted, to compare with"
    )
    point: bool = Field(False, description="whether it is there for the curve alone")
    images: int = Field(description="private images behind the encodings")
    encodings_per_image: int = Field(description="that the attacker saw")
    grants: list[str] = Field(description="what the attacker had besides encodings and scheme")
    state: Literal["done", "failed", "not tried"] = Field(
        description="whether the attack ended, failed, or could not be begun"
    )
    reason: str = Field("", description="of what was not done")
    seconds: Number = Field(0.0, description="of wall time")
    out_of_time: bool = Field(
        False, description="whether its time ended before the attack did; what it found by then"
    )
    absolute: bool = Field(False, description="whether absolute values were recovered")
    figures: dict[str, Number | None] = Field(
        default_factory=dict, description="by name; null where a number is not finite"
    )
    pictures: list[Picture] = Field(default_factory=list, description="some recovered images")


class Threshold(_Plain):
    """A bound that the user set."""

    expression: str = Field(description="as it was typed")
    value: Number | None = Field(description="what was measured; null if nothing was")
    violated: bool = Field(
        description="whether the check failed: the expression holds, or could not be checked"
    )
    unchecked: list[str] = Field(
        default_factory=list,
        description="attacks that failed or were not begun, and might have raised the value",
    )


class Facts(_Plain):
    """What was audited."""

    name: str = Field(description="folder of the run or the encodings")
    kind: Literal["run", "encodings"] = Field(description="what the folder holds")
    source: str = Field(description="where the private images came from")
    images: int = Field(description="private images in all")
    shape: tuple[int, ...] = Field(description="channels, height and width of an image")
    classes: list[str] = Field(description="names of the classes")
    public: int = Field(description="images of the public pool; 0 without one")
    scheme: dict[str, object] = Field(description="fields of the scheme")
    copies: int = Field(description="encodings of each image that went out")
    exposures: Number = Field(description="encodings that an image went into, on average")
    epsilon: Number | None = Field(
        description="of differential privacy by the scheme's noise, at most, for the pixels of an "
        "image whose label and partners are known; null without noise, and where an exposure limit "
        "was set"
    )
    delta: Number = Field(description="that epsilon is given at")
    rehearsed_images: int = Field(description="private images of the rehearsal")
    rehearsed_copies: int = Field(description="encodings of each in the rehearsal")
    settings: dict[str, str] = Field(description="what else is known")


class Report(_Plain):
    """All of a report but its pictures."""

    format: Literal[1] = FORMAT
    library: str = Field(default=f"instahide {__version__}", description="what wrote it")
    created: str = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        description="when, in UTC",
    )
    complete: bool = Field(description="whether everything that was to be tried has been")
    budget_seconds: Number = Field(description="that the attacks were given, together")
    surroundings: dict[str, str] = Field(description="versions, machine and threads")
    verdict: list[str] = Field(description="in plain words, the most important sentence first")
    subject: Facts = Field(description="what was audited")
    summary: dict[str, Number | None] = Field(description="figures that a threshold may name")
    thresholds: list[Threshold] = Field(description="bounds that the user set")
    results: list[AttackResult] = Field(description="attacks, in the order in which they were run")
    untried: dict[str, str] = Field(description="what was not tried, and why")
    hardness: Mapping[str, object] = Field(description="as `instahide hardness` reports it")
    command: str = Field(description="that made the report")
