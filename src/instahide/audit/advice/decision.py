"""The answer of a search: the recommended setting, or the nearest ones, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from instahide.audit.advice.encoder_candidate import EncoderCandidate
from instahide.audit.advice.schema import Setting, Targets
from instahide.audit.report.summary import LIMITS

Verdict = Literal["recommended", "unconfirmed", "none"]
#: Measurements with different seeds, at least, of a setting that is recommended.
CONFIRMED = 2


class Decision(NamedTuple):
    """The decision; fields are as in `schema.Advice`."""

    verdict: Verdict
    recommended: Setting | None = None
    nearest_private: Setting | None = None
    nearest_accurate: Setting | None = None


def decide(settings: Sequence[Setting], targets: Targets) -> Decision:
    """Choose a setting that meets both ``targets`` in every seed, also after a thorough attack."""
    good = meeting(settings, targets)
    confirmed = [s for s in good if s.seeds >= CONFIRMED and s.thorough]
    if confirmed:
        return Decision("recommended", confirmed[0])
    if good:
        return Decision("unconfirmed", good[0])
    known = _known(settings)
    private = [s for s in known if s.exposure_worst <= targets.max_recovered]
    accurate = [s for s in known if s.drop_worst <= targets.max_drop]
    return Decision(
        "none",
        nearest_private=min(private, key=lambda s: (s.drop_worst, s.point), default=None),
        nearest_accurate=min(accurate, key=lambda s: (s.exposure_worst, s.point), default=None),
    )


def meeting(settings: Sequence[Setting], targets: Targets) -> list[Setting]:
    """The settings that meet both targets in every seed, the furthest below the targets first.

    Both values are divided by their targets, and the larger quotient decides. The exposure is the
    larger of what attacks recovered and the ceiling. Settings without a ceiling come last, because
    less is known of them. A setting with a missing attack does not meet a target.
    """
    good = [setting for setting in _known(settings) if share_of_targets(setting, targets) <= 1]
    return sorted(good, key=lambda s: (s.ceiling is None, share_of_targets(s, targets), s.point))


def _known(settings: Sequence[Setting]) -> list[Setting]:
    return [
        setting
        for setting in settings
        if setting.state == "done" and not setting.missing and not setting.never_recommended
    ]


def share_of_targets(setting: Setting, targets: Targets) -> float:
    """`Targets.share_used` of the worst seed: at most 1 if it meets both targets."""
    return targets.share_used(setting.exposure_worst, setting.drop_worst)


def answer(decision: Decision, targets: Targets, attacked: int) -> list[str]:
    """The decision in sentences, the most important one first.

    Args:
        decision: what was decided.
        targets: what the user asked for.
        attacked: number of images in each attack.
    """
    asked = (
        f"at most {percent(targets.max_recovered)} of the images recovered and at most "
        f"{targets.max_drop:g} points of accuracy lost"
    )
    chosen = decision.recommended
    if chosen is None:
        sentences = [f"No setting that was tried meets both targets: {asked}.", *_nearest(decision)]
    elif decision.verdict == "recommended":
        sentences = [f"Recommended: {described(chosen)}.", measured(chosen)]
    else:
        sentences = [
            f"Not confirmed: {described(chosen)} met both targets ({asked}), but the time was too "
            "short to repeat this with a thorough attack. Run the same command with a larger "
            "budget.",
            measured(chosen),
        ]
    named = (decision.recommended, decision.nearest_private, decision.nearest_accurate)
    if any(setting is not None and setting.ceiling is None for setting in named):
        sentences.append(NO_CEILING)
    return [*sentences, _resolution(targets, attacked), BASIS, LIMITS]


#: What the shares are, and what they are not.
BASIS = (
    "Exposed is the larger of two shares: of the images that the best attack recovered, and of "
    "those that recovery reaches from a start at the truth (the ceiling), which the encodings may "
    "determine, so that a better attack may find them. These are attacks of today, on a sample of "
    "the images."
)


#: What is unknown of encoders without a ceiling.
NO_CEILING = (
    "There is no ceiling for encoders that are no scheme of InstaHide: only what an attack "
    "recovered counts as exposed, and this attack uses nothing of the encoder. An attack that uses "
    "its structure may recover more. Do not compare this share with those of schemes."
)


def described(setting: Setting) -> str:
    """The setting in words."""
    candidate = setting.candidate
    if isinstance(candidate, EncoderCandidate):
        parts = [f"encoder {candidate.encoder}", *candidate.encoder_settings]
        return ", ".join([*parts, "1 encoding of each image"])
    parts = [f"scheme {candidate.scheme}", f"k = {candidate.k}"]
    if candidate.private_k is not None:
        parts.append(f"{candidate.private_k} private image{'s' if candidate.private_k > 1 else ''}")
    if candidate.c1 is not None:
        parts.append(f"c1 = {candidate.c1:g}")
    if candidate.label_mode is not None:
        parts.append(f"{candidate.label_mode} labels")
    parts.append(f"noise {candidate.noise:g}" if candidate.noise else "no noise")
    copies = candidate.copies
    parts.append(f"{copies} encoding{'s' if copies > 1 else ''} of each image")
    return ", ".join(parts)


def measured(setting: Setting) -> str:
    """What was measured of the setting, in a sentence."""
    seeds = "In one measurement" if setting.seeds == 1 else f"In the worst of {setting.seeds} seeds"
    recovered, ceiling = (
        "unknown" if share is None else percent(share)
        for share in (setting.recovered, setting.ceiling)
    )
    return (
        f"{seeds}, {percent(setting.exposure_worst)} of the attacked images are exposed (mean: "
        f"attacks {recovered}, ceiling {ceiling}), and training lost {setting.drop_worst:.1f} "
        f"points (mean {setting.drop:.1f}) against plain training with the same steps."
    )


def percent(share: float) -> str:
    """A share in percent, with 0% only for 0 and 100% only for 1."""
    if 0 < share < 0.001:
        return "less than 0.1%"
    return "more than 99.9%" if 0.999 < share < 1 else f"{100 * share:.3g}%"


def _nearest(decision: Decision) -> list[str]:
    private, accurate = decision.nearest_private, decision.nearest_accurate
    sides = (
        ("private enough", "most accurate", private),
        ("accurate enough", "least exposed", accurate),
    )
    return [
        f"No setting that was tried is {enough}."
        if setting is None
        else f"The {best} of those that are {enough}: {described(setting)}. {measured(setting)}"
        for enough, best, setting in sides
    ]


def _resolution(targets: Targets, attacked: int) -> str:
    if targets.max_recovered * attacked >= 1:
        return f"Each attack was on {attacked} images."
    return (
        f"Each attack was on {attacked} images, so a target of {percent(targets.max_recovered)} "
        "allows none of them, and a smaller share in all images cannot be told from it."
    )
