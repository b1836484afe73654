"""The JSON schema of an audit's results and of its report.

docs/report.schema.json is the schema of `Report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from instahide._version import __version__
from instahide.audit.schedule import On, Task, gains_by_time

#: The version of ``report.json``.
FORMAT: Literal[1] = 1

Number = Annotated[float, Field(allow_inf_nan=False)]


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Picture(_Plain):
    """A recovered image and its original, both reduced if they are large."""

    ssim: Number = Field(description="SSIM of the recovered image and the original; 1 if equal")
    recognizable: bool = Field(
        description="whether the image counts as recognizable, in this or another picture that the "
        "attack recovered of it"
    )
    original: str = Field(description="PNG file in the folder `pictures`")
    recovered: str = Field(description="PNG file in the folder `pictures`")


class Ceiling(_Plain):
    """What the recovery of the attack reaches from a start at the truth.

    The scorer computes it with the true images, their true assignment to encodings and their true
    coefficients. It counts an image also if the attack recovered it.
    """

    images_recognizable: int = Field(
        description="number of private images that are recovered recognizably"
    )
    images_sought: int = Field(description="number of private images")
    ssim_mean: Number = Field(description="mean SSIM over all private images")
    not_found: int = Field(
        description="number of private images that are recovered from this start, but not by the "
        "attack: this attack did not find them"
    )
    not_enough_information: int = Field(
        description="number of private images that are not recovered from this start either: "
        "there is not enough information for this recovery"
    )


class AttackResult(_Plain):
    """The result of one attack on one observation."""

    attack: str = Field(description="name of the attack")
    title: str = Field(description="one-line description of the attack")
    paper: str = Field(description="publication of the attack")
    on: On = Field(
        description="what was attacked. rehearsal: the user's images, encrypted again under keys "
        "that the scorer knows; published: the published encodings; update: the gradient of one "
        "encoding under a new key, as a participant of a federation would send it; plain update: "
        "the gradient of the same image without encryption, for comparison; fedsgd, fedavg: all "
        "gradients, or changes of the weights, that a participant of a federation sends"
    )
    point: bool = Field(
        False, description="whether the attack was run only for a point of the exposure curve"
    )
    images: int = Field(description="number of private images in the attacked encodings")
    encodings_per_image: int = Field(
        description="number of encodings of each image that the attacker saw"
    )
    grants: list[str] = Field(
        description="what the attacker knew in addition to the encodings and the scheme"
    )
    state: Literal["done", "failed", "not tried"] = Field(
        description="whether the attack finished, failed, or could not be started"
    )
    reason: str = Field("", description="why the attack failed or was not started")
    seconds: Number = Field(0.0, description="wall time in seconds")
    seconds_given: Number = Field(
        0.0, description="its time limit in seconds; 0 if it was not started, or is unknown"
    )
    out_of_time: bool = Field(
        False,
        description="whether the time limit stopped the attack, or a part of it such as the "
        "training of its network; figures are of what it had recovered by then",
    )
    absolute: bool = Field(
        False, description="whether only the absolute values of pixels were recovered"
    )
    figures: dict[str, Number | None] = Field(
        default_factory=dict, description="metrics by name; null if a value is not finite"
    )
    ceiling: Ceiling | None = Field(
        None,
        description="result of the same recovery, started at the truth; null for attacks that do "
        "not assign images to encodings, and for published encodings, whose keys are unknown",
    )
    pictures: list[Picture] = Field(
        default_factory=list,
        description="recovered images, one of each private image, best first; at most 100",
    )

    @property
    def cut_short(self) -> bool:
        """Whether its time was over before it ended, so that with more it might find more."""
        task = Task(self.attack, self.encodings_per_image, self.on, self.point)
        return self.out_of_time and gains_by_time(task, self.limit)

    @property
    def limit(self) -> float:
        """The seconds that it was given, or if this is unknown, those that it took."""
        return max(self.seconds, self.seconds_given)


class Threshold(_Plain):
    """A threshold that the user set."""

    expression: str = Field(description="the expression as the user typed it")
    value: Number | None = Field(description="measured value; null if none was measured")
    violated: bool = Field(
        description="whether the check failed: the expression is true, or could not be evaluated"
    )
    unchecked: list[str] = Field(
        default_factory=list,
        description="attacks that could not be loaded, failed, were not started or ran out of "
        "time; they might have moved the value beyond the bound",
    )


class Facts(_Plain):
    """What was audited."""

    name: str = Field(description="folder of the run or of the encodings")
    kind: Literal["run", "encodings"] = Field(description="contents of the folder")
    source: str = Field(description="source of the private images")
    images: int = Field(description="total number of private images")
    groups: int = Field(0, description="number of groups of images, such as patients; 0 if none")
    shape: tuple[int, ...] = Field(description="channels, height and width of an image")
    classes: list[str] = Field(description="names of the classes")
    public: int = Field(description="number of images in the public pool; 0 if there is none")
    encoder: str = Field("instahide", description="name of the encoder")
    scheme: dict[str, object] = Field(
        description="fields of the scheme; of another encoder than instahide, its settings"
    )
    copies: int = Field(description="number of published encodings of each image")
    exposures: Number = Field(
        description="mean number of encodings that contain an image; an upper bound if the public "
        "pool holds private images"
    )
    epsilon: Number | None = Field(
        description="upper bound on the epsilon of differential privacy that the scheme's noise "
        "provides for the pixels of an image whose label and partners are known; null without "
        "noise, and where `uneven` says that it is not known. It counts the encodings of this "
        "folder or run alone; the ledger has the total"
    )
    uneven: str | None = Field(
        None,
        description="why some images may be in more encodings than the bounds assume, so that none "
        "is stated: an exposure limit, images that are there twice or of one group, or private "
        "images in the public pool; null if there is no reason",
    )
    delta: Number = Field(description="the delta for which epsilon is computed")
    loss: Number | None = Field(
        None,
        description="upper bound on mu^2, the Fisher information of all values of an image in its "
        "encodings, from which the error floor and the reconstruction robustness follow; null "
        "where epsilon is",
    )
    error_floor: Number | None = Field(
        None,
        description="least mean squared error of an unbiased reconstruction of any image, with "
        "pixels from 0 to 1; null where epsilon is",
    )
    prior_statement: str | None = Field(
        None,
        description="the error floor of any reconstruction that rests on a prior estimated from "
        "the public images; null where epsilon is, or without public images",
    )
    rehearsed_images: int = Field(description="number of private images in the rehearsal")
    rehearsed_copies: int = Field(description="number of encodings of each image in the rehearsal")
    settings: dict[str, str] = Field(description="other known settings")


class Report(_Plain):
    """A complete report, without the image files."""

    format: Literal[1] = FORMAT
    library: str = Field(
        default=f"instahide {__version__}", description="library and version that wrote the report"
    )
    created: str = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        description="time of creation, in UTC",
    )
    complete: bool = Field(
        description="whether no planned attack is left to run, and all could be loaded"
    )
    budget_seconds: Number = Field(description="total time limit of all attacks, in seconds")
    surroundings: dict[str, str] = Field(description="versions, machine and number of threads")
    verdict: list[str] = Field(
        description="the verdict in plain words, the most important sentence first"
    )
    subject: Facts = Field(description="what was audited")
    summary: dict[str, Number | None] = Field(description="metrics that a threshold can refer to")
    thresholds: list[Threshold] = Field(description="thresholds that the user set")
    results: list[AttackResult] = Field(description="results of the attacks, in order of execution")
    untried: dict[str, str] = Field(description="attacks that were not tried, and the reasons")
    hardness: Mapping[str, object] = Field(description="the output of `instahide hardness`")
    command: str = Field(description="command that created the report")
