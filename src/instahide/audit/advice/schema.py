"""The measurements of a search, and the JSON of its result."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import fmean, stdev
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from instahide._version import __version__
from instahide.audit.advice.encoder_candidate import UNKNOWN_CEILING, AnyCandidate, is_scheme
from instahide.audit.advice.front import Point

#: Of ``advise.json`` and of the files of measurements.
FORMAT: Literal[1] = 1

Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
#: How far a measurement came: trained and attacked; stopped in training, or not attacked, because
#: another setting is better in both.
State = Literal["done", "stopped", "not attacked"]


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measurement(_Plain):
    """One training, and the attacks on as many encodings of each image."""

    candidate: AnyCandidate | None = Field(description="the setting; null: plain training")
    seed: int = Field(description="seed of the first weights and of the attacked images")
    thorough: bool = Field(
        default=False, description="whether the attack by a network had enough time"
    )
    state: State = Field(
        default="done", description="whether it was trained and attacked to the end"
    )
    early: Number | None = Field(default=None, description="accuracy after a part of the steps")
    accuracy: Number | None = Field(
        default=None,
        description="accuracy on plain test images, from 0 to 1; of findings, macro AUROC",
    )
    ceiling: Share | None = Field(
        default=None,
        description="the `ceiling` of `instahide audit`; null if there is none, or if the "
        "encodings have too many values to compute it",
    )
    recovered: Share | None = Field(
        default=None, description="the `recovered` of `instahide audit`"
    )
    attacks: dict[str, Share | None] = Field(
        default_factory=dict, description="share recovered by each attack; null: it did not apply"
    )
    missing: list[str] = Field(
        default_factory=list, description="attacks that failed or had too little time"
    )
    seconds: Number = Field(default=0.0, description="wall time in seconds")

    @property
    def exposure(self) -> float:
        """The larger of what the attacks recovered and the ceiling."""
        return max(self.recovered or 0.0, self.ceiling or 0.0)


class Setting(_Plain):
    """A candidate with all of its measurements. Drops are in points of plain training's accuracy.

    The worst values are those of the worst seed.
    """

    candidate: AnyCandidate = Field(description="the setting")
    seeds: int = Field(description="number of measurements in which every attack has a result")
    thorough: int = Field(
        default=0,
        description="number of those in which the attack by a network had enough time",
    )
    state: State = Field(description="whether it was trained and attacked to the end")
    accuracy: Number | None = Field(description="mean accuracy")
    drop: Number = Field(description="mean drop of the accuracy")
    drop_spread: Number | None = Field(description="standard deviation over the seeds")
    drop_worst: Number = Field(description="largest drop of a seed")
    recovered: Share | None = Field(description="mean share that the best attack recovered")
    ceiling: Share | None = Field(description="mean ceiling")
    exposure: Share = Field(description="mean of the larger of `recovered` and `ceiling`")
    exposure_worst: Share = Field(description="largest of a seed")
    attacks: dict[str, Share | None] = Field(description="largest share recovered by each attack")
    missing: list[str] = Field(
        description="attacks that failed or had too little time, if they did in each measurement"
    )
    epsilon: Number | None = Field(
        default=None,
        description="upper bound on the epsilon that the noise guarantees for an image's pixels; "
        "null if there is none",
    )
    never_recommended: str | None = Field(
        default=None,
        description="why it is not recommended, whatever was measured; null: it may be",
    )
    on_front: bool = Field(
        default=False,
        description="whether no other setting is better in both; settings without a ceiling are "
        "compared among themselves",
    )
    settings: dict[str, Any] = Field(description="the settings, as in a settings file")

    @property
    def point(self) -> Point:
        """The mean exposure and drop."""
        return Point(self.exposure, self.drop)

    @classmethod
    def of(
        cls,
        measured: Sequence[Measurement],
        reference: float,
        settings: dict[str, Any],
        epsilon: float | None = None,
        never_recommended: str | None = None,
    ) -> Setting:
        """The setting of ``measured``, all of one candidate.

        Args:
            measured: at least one measurement.
            reference: mean accuracy of plain training.
            settings: the settings, as in a settings file.
            epsilon: of the noise.
            never_recommended: why it is not recommended in any case. A scheme whose ceiling is
                unknown never is.
        """
        candidate = measured[0].candidate
        if candidate is None:
            raise ValueError("plain training is no setting")
        if is_scheme(candidate) and any(m.ceiling is None for m in measured):
            never_recommended = never_recommended or UNKNOWN_CEILING
        # One that was stopped early lost at least so much; it is on no front.
        scores = [m.accuracy if m.accuracy is not None else m.early or 0.0 for m in measured]
        drops = [100 * (reference - score) for score in scores]
        # Where an attack has no result, the exposure is at least what the others found.
        attacked = [m for m in measured if not m.missing]
        states: list[State] = [m.state for m in measured]
        return cls(
            candidate=candidate,
            seeds=len(attacked),
            thorough=sum(m.thorough for m in attacked),
            state=next((state for state in states if state != "done"), "done"),
            accuracy=fmean(scores),
            drop=fmean(drops),
            drop_spread=stdev(drops) if len(drops) > 1 else None,
            drop_worst=max(drops),
            recovered=_mean([m.recovered for m in attacked or measured]),
            ceiling=_mean([m.ceiling for m in attacked or measured]),
            exposure=fmean(m.exposure for m in attacked or measured),
            exposure_worst=max(m.exposure for m in measured),
            attacks=_largest([m.attacks for m in measured]),
            missing=[] if attacked else sorted({name for m in measured for name in m.missing}),
            epsilon=epsilon,
            never_recommended=never_recommended,
            on_front=False,
            settings=settings,
        )


class Targets(_Plain):
    """What the user asks for."""

    max_recovered: Share = Field(description="largest share of images that may be recovered")
    max_drop: Annotated[float, Field(ge=0, le=100)] = Field(description="largest drop in points")

    def share_used(self, exposure: float, drop: float) -> float:
        """The larger of both, each as a share of its target: at most 1 if both are met."""
        parts = (exposure, self.max_recovered), (drop, self.max_drop)
        return max(
            value / target if target else (0.0 if value <= 0 else float("inf"))
            for value, target in parts
        )


class Advice(_Plain):
    """The result of a search."""

    format: Literal[1] = FORMAT
    library: str = Field(default=f"instahide {__version__}", description="what wrote it")
    created: str = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        description="when, in UTC",
    )
    source: str = Field(description="the images, as they were named")
    images: int = Field(description="training images")
    attacked_images: int = Field(description="private images of each attack")
    targets: Targets
    verdict: Literal["recommended", "unconfirmed", "none"] = Field(
        description="recommended: a setting meets both targets in each of several seeds, also "
        "after a thorough attack; unconfirmed: in all measurements, but there are too few; none: "
        "no setting that was tried meets both"
    )
    answer: list[str] = Field(description="the answer in plain words")
    recommended: Setting | None = Field(description="the setting that meets both")
    nearest_private: Setting | None = Field(
        description="where none meets both: of those that meet `max_recovered`, the most accurate"
    )
    nearest_accurate: Setting | None = Field(
        description="where none meets both: of those that meet `max_drop`, the least exposed"
    )
    metric: str = Field(description="what is called accuracy")
    reference: list[Number] = Field(description="accuracy of plain training, of each seed")
    steps: int = Field(description="training steps of each network")
    budget_seconds: Number = Field(description="the time budget, in seconds")
    spent_seconds: Number = Field(description="time of all measurements, in seconds")
    settings: list[Setting] = Field(description="all that was tried, best first")
    untried: dict[str, str] = Field(description="what was not tried, and why")
    command: str = Field(description="the command that was typed")

    @property
    def front(self) -> list[Setting]:
        """The settings on the front, the least exposed first."""
        return sorted((s for s in self.settings if s.on_front), key=lambda s: s.point)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _largest(each: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    names = dict.fromkeys(name for attacks in each for name in attacks)
    found = {name: [a[name] for a in each if a.get(name) is not None] for name in names}
    return {name: max((v for v in values if v is not None), default=None)
            for name, values in found.items()}  # fmt: skip
