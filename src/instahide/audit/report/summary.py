"""What an audit found, in plain words: what was recovered, and at what cost."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from instahide.audit.report.schema import AttackResult, Facts
from instahide.audit.report.thresholds import recovered_share
from instahide.audit.schedule import ENDLESS, SENT, On, Task
from instahide.encryption.privacy import privacy_statement

#: An encoding that is so near to the one trained on, in dB, counts as the same,
INVERTED = 25.0
#: if it is so many dB nearer than the best blank picture is: its squared error is half as large.
ABOVE_BLANK = 3.0
#: Corrected p-values below this are called telling.
_TELLING = 0.01
_WHERE = {
    "rehearsal": "Of {total:,} images, encrypted anew {copies} each,",
    "published": "Out of the encodings that went out, of {total:,} images,",
}
_NONE = "No attack that recovers images from encodings was run to its end."
LIMITS = (
    "What an attack failed at here it failed at as it stands, on these images, with this much "
    "time. That is no evidence that a better one would fail, and attacks only get better."
)


def summarize(
    results: Sequence[AttackResult],
    facts: Facts,
    waiting: Sequence[Task] = (),
    broken: Collection[str] = (),
) -> list[str]:
    """Paragraphs, the most important one first; `LIMITS` last.

    Where an attack failed or ran out of time, the first sentence of the first one says so.

    Args:
        results: of the attacks that were run.
        facts: what was audited.
        waiting: what was not begun, for want of time.
        broken: attacks of other packages that could not be loaded.
    """
    done = [result for result in results if result.state == "done" and not result.point]
    kinds: list[On] = ["published", "rehearsal"]
    kinds.sort(key=lambda on: -max((_rank(r) for r in done if r.on == on), default=(0.0, 0.0))[0])
    sentences = [_recovered(done, on) for on in kinds]
    sentences += [_labels(done), _public(done), _membership(done), _statistics(done)]
    sentences.append(_update(done))
    if any(result.figures.get("found") for result in done):
        sentences.insert(0, _generator(done))
    if facts.epsilon is None:
        sentences += [f"{_statement(facts)}.", _share(facts), LIMITS]
    else:
        sentences += [_share(facts), privacy_sentence(facts), LIMITS]
    first, *rest = [sentence for sentence in sentences if sentence]
    return [" ".join(filter(None, [_incomplete(results, waiting, broken), first])), *rest]


def _incomplete(
    results: Sequence[AttackResult], waiting: Sequence[Task], broken: Collection[str]
) -> str:
    """Which attacks failed, and which had too little time; nothing if none did."""
    failed = {r.attack for r in results if r.state == "failed" and not r.out_of_time}
    late = {r.attack for r in results if r.out_of_time and not r.point} - set(ENDLESS)
    late |= {task.attack for task in waiting if not task.point}
    kinds = {
        "could not be loaded": set(broken),
        "failed with an error": failed,
        "ran out of time": late,
    }
    said = [
        f"{len(names)} attack{'s' if len(names) > 1 else ''} {what} ({', '.join(sorted(names))})"
        for what, names in kinds.items()
        if names
    ]
    if not said:
        return ""
    return f"This audit is incomplete: {', '.join(said)}."


def finding(result: AttackResult) -> str:
    """What one attack found that is no image; nothing where its figures have to speak."""
    kinds = (_labels, _public, _membership, _statistics, _update, _generator)
    return next((said for kind in kinds if (said := kind([result]))), "")


def privacy_sentence(facts: Facts) -> str:
    """What noise guarantees of what went out, whatever the attack."""
    if facts.epsilon is None:
        return f"Nothing is guaranteed against attacks that were not tried. {_statement(facts)}."
    return (
        f"{_statement(facts)}, for the pixels of one image, whose label and partners count as "
        "known, whatever the attack. The smaller epsilon is, the more that promises; above 10 it "
        "is next to nothing."
    )


def _statement(facts: Facts) -> str:
    noise = bool(facts.scheme.get("noise"))
    scope = ", but to the ledger alone" if facts.epsilon is None else ", at most"
    return privacy_statement(facts.epsilon, facts.delta, noise=noise, scope=scope)


def duration(seconds: float) -> str:
    """As people say it."""
    if seconds < 1:
        return "less than a second"
    for unit, size in (("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}s"
    return f"{seconds:.0f} second{'s' if round(seconds) != 1 else ''}"


def _recovered(done: Sequence[AttackResult], on: On) -> str:
    seeking = [r for r in done if r.on == on and recovered_share(r) is not None]
    if not seeking:
        return "" if on == "published" else _NONE
    best = max(seeking, key=_rank)
    count, total = (int(best.figures[f"images_{name}"] or 0) for name in ("recognisable", "sought"))
    where = _WHERE[on].format(total=total, copies=_times(best.encodings_per_image))
    if not count:
        tried = ", ".join(r.attack for r in seeking)
        spent = duration(sum(r.seconds for r in seeking))
        return f"{where} none came back recognisably in what was tried ({tried}; {spent} in all)."
    once = " at least once" if (best.figures.get("images_recovered") or 0) > total else ""
    signs = ", up to signs" if best.absolute else ""
    return (
        f"{where} {count:,} came back recognisably{once}{signs}, by the attack “{best.attack}” in "
        f"{duration(best.seconds)}."
    )


def _rank(result: AttackResult) -> tuple[float, float]:
    return recovered_share(result) or 0.0, result.figures.get("ssim_mean") or 0.0


def _labels(done: Sequence[AttackResult]) -> str:
    share = _most([r for r in done if r.on not in SENT], "class_sets_right")
    if share is None:
        return ""
    return f"The labels alone say which classes are in a mix, in {_percent(share)} of the mixes."


def _public(done: Sequence[AttackResult]) -> str:
    share = _most(done, "public_found")
    if share is None:
        return ""
    return (
        f"Of the public images that count in a mix, {_percent(share)} were found by an attacker "
        "who has the public pool."
    )


def _membership(done: Sequence[AttackResult]) -> str:
    share = _most(done, "membership_auc")
    if share is None:
        return ""
    return (
        "Asked which of two images was trained on, the trained network gives it away "
        f"{_percent(share)} of the time; a coin does 50%."
    )


def _statistics(done: Sequence[AttackResult]) -> str:
    values = [
        value
        for r in done
        if r.attack == "statistics"
        for name, value in r.figures.items()
        if name.endswith("_p") and value is not None
    ]
    if not values:
        return ""
    if min(values) >= _TELLING:
        return "Statistical tests did not tell encodings of one image from those of others."
    return (
        "Statistical tests tell encodings of one image from those of others (p = "
        f"{min(values):.1g}, corrected)."
    )


def _update(done: Sequence[AttackResult]) -> str:
    """Of the encoding, then of its image, each by the attack that came nearest to it."""
    inverted = [r for r in done if r.figures.get("encoding_psnr_mean") is not None]
    best = {on: max((r for r in inverted if r.on == on), key=_psnr, default=None) for on in SENT}
    sentences = []
    if (sent := best["update"]) is not None:
        again = "came back" if _came_back(sent) else "did not come back"
        shown = "is" if recovered_share(sent) else "is not"
        sentences = [
            f"From its gradient, as a federation's server gets it, one encoding {again} "
            f"({_nearness(sent)}).",
            f"The image behind it {shown} recognisable in the result.",
        ]
    if (plain := best["plain update"]) is not None:
        shown = "is" if recovered_share(plain) else "is not"
        sentences.append(
            f"From the gradient of the plain image, the image {shown} recognisable "
            f"({_nearness(plain)})."
        )
    return " ".join(sentences)


def _nearness(inverted: AttackResult) -> str:
    return f"{_psnr(inverted):.0f} dB, by the attack “{inverted.attack}”"


def _came_back(inverted: AttackResult) -> bool:
    blank = inverted.figures.get("of_blank_psnr_mean") or 0.0
    return _psnr(inverted) >= max(INVERTED, blank + ABOVE_BLANK)


def _psnr(inverted: AttackResult) -> float:
    return inverted.figures["encoding_psnr_mean"] or 0.0


def _generator(done: Sequence[AttackResult]) -> str:
    found = _most(done, "found")
    if found is None:
        return ""
    if found:
        return "The keys come from a general-purpose generator: all of them can be worked out."
    return "No general-purpose generator was found behind the keys, of those that were tried."


def _share(facts: Facts) -> str:
    if (facts.rehearsed_images, facts.rehearsed_copies) == (facts.images, facts.copies):
        return ""
    fewer = f", {_times(facts.rehearsed_copies)} instead of {_times(facts.copies)} each"
    return (
        f"{facts.rehearsed_images:,} of {facts.images:,} images were encrypted anew"
        f"{fewer if facts.rehearsed_copies != facts.copies else ''}, and mixed with each other "
        "alone: an attacker of all has more to sort out, and more time."
    )


def _most(done: Sequence[AttackResult], figure: str) -> float | None:
    return max((v for r in done if (v := r.figures.get(figure)) is not None), default=None)


def _times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count:,} times"


def _percent(share: float) -> str:
    """Nothing that happened is 0%, nothing that was missed is in 100%."""
    if 0 < share < 0.005:
        return "less than 1%"
    if 0.995 <= share < 1:
        return "more than 99%"
    return f"{share:.0%}"
