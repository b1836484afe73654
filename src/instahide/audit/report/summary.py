"""The sentences of an audit's verdict: what attacks recovered, and in how much time."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from instahide.audit.report.guarantees import guarantee_statements, privacy_sentence
from instahide.audit.report.schema import AttackResult, Facts
from instahide.audit.report.thresholds import identified_share, recovered_share
from instahide.audit.schedule import ENDLESS, FEDERATIONS, SENT, On, Task
from instahide.audit.scoring.ceiling import resists
from instahide.audit.scoring.gradient_inversion import ABOVE_BLANK, INVERTED
from instahide.audit.scoring.scores import LEAST_COEFFICIENT

#: If at least this share of the encodings was recovered, the inversion limits nothing.
NEARLY_ALL = 0.95
#: Corrected p-values below this count as significant.
_TELLING = 0.01
_WHERE = {
    "rehearsal": "Of {total:,} images, each encrypted {copies} for this audit,",
    "published": "Of the {total:,} images in the published encodings,",
}
_NONE = "No attack that recovers images from encodings ran to completion."
LIMITS = (
    "A failed attack is not evidence of safety. It failed in this implementation, on these images, "
    "within this time. A better attack may succeed, and attacks only get better."
)


def summarize(
    results: Sequence[AttackResult],
    facts: Facts,
    waiting: Sequence[Task] = (),
    broken: Collection[str] = (),
) -> list[str]:
    """Return the paragraphs of the verdict, the most important one first and `LIMITS` last.

    If an attack failed or ran out of time, the first sentence of the first paragraph says so.

    Args:
        results: results of the attacks that ran.
        facts: what was audited.
        waiting: attacks that did not start within the budget.
        broken: attacks of other packages that could not be loaded.
    """
    done = [result for result in results if result.state == "done" and not result.point]
    kinds: list[On] = ["published", "rehearsal"]
    kinds.sort(key=lambda on: -max((_rank(r) for r in done if r.on == on), default=(0.0, 0.0))[0])
    sentences = [_recovered(done, on) for on in kinds]
    sentences += [shortfall(r) for r in results if r.ceiling is not None and not r.point]
    sentences += [_groups(done), _labels(done), _public(done), _membership(done), _statistics(done)]
    sentences += [_linkage(done), _matched(done), _distinguished(done)]
    sentences += [_update(done), *(_federation(done, on) for on in FEDERATIONS)]
    if any(result.figures.get("found") for result in done):
        sentences.insert(0, _generator(done))
    if facts.epsilon is None:
        sentences += [guarantee_statements(facts), _share(facts), LIMITS]
    else:
        sentences += [_share(facts), privacy_sentence(facts), LIMITS]
    first, *rest = [sentence for sentence in sentences if sentence]
    return [" ".join(filter(None, [_incomplete(results, waiting, broken), first])), *rest]


def _incomplete(
    results: Sequence[AttackResult], waiting: Sequence[Task], broken: Collection[str]
) -> str:
    """Return a sentence on attacks that failed or ran out of time; empty if there are none."""
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
    """Return a sentence on what one attack found besides images; empty if there is none."""
    if result.on in FEDERATIONS:
        return _federation([result], result.on)
    kinds = (
        _labels, _public, _membership, _statistics, _linkage, _matched, _distinguished, _update,
        _generator,
    )  # fmt: skip
    return next((said for kind in kinds if (said := kind([result]))), "")


def duration(seconds: float) -> str:
    """Return ``seconds`` in words."""
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
    count, total = (int(best.figures[f"images_{name}"] or 0) for name in ("recognizable", "sought"))
    where = _WHERE[on].format(total=total, copies=_times(best.encodings_per_image))
    if not count:
        tried = ", ".join(r.attack for r in seeking)
        spent = duration(sum(r.seconds for r in seeking))
        return (
            f"{where} none was recovered recognizably by the attacks that ran "
            f"({tried}; {spent} in total)."
        )
    once = " at least once" if (best.figures.get("images_recovered") or 0) > total else ""
    signs = " as absolute values" if best.absolute else ""
    were = "was" if count == 1 else "were"
    return (
        f"{where} {count:,} {were} recovered recognizably{once}{signs}, by the attack "
        f"“{best.attack}” in {duration(best.seconds)}."
    )


def shortfall(result: AttackResult) -> str:
    """Return why an attack missed images, by its ceiling; empty if it missed none."""
    ceiling = result.ceiling
    if ceiling is None or not (ceiling.not_found or ceiling.not_enough_information):
        return ""
    total, missed = ceiling.images_sought, ceiling.not_found + ceiling.not_enough_information
    done = result.state == "done"
    what = "missed {:,} of {:,} images" if done else "gave no result on {:,} images"
    when = " when its time was over" if done and result.out_of_time else ""
    parts = [f"The attack “{result.attack}” {what.format(missed, total)}{when}."]
    if ceiling.not_found:
        whose = "This attack did not find {:,} of them, which its recovery reaches"
        whose = whose if done else "Its recovery reaches {:,} of them"
        parts.append(
            f"{whose.format(ceiling.not_found)} from a start at the true images: a better attack "
            "may recover them."
        )
    if ceiling.not_enough_information:
        parts.append(
            f"For {ceiling.not_enough_information:,} of them there is not enough information: its "
            "recovery loses them even from a start at the true images."
        )
    if (
        done
        and not result.out_of_time
        and resists(total - missed, ceiling.images_recognizable, total)
    ):
        parts.append("This setting resists this attack.")
    return " ".join(parts)


def _groups(done: Sequence[AttackResult]) -> str:
    """Return a sentence on the groups, such as patients, that attacks identified."""
    seeking = [
        r for r in done if r.on not in (*SENT, *FEDERATIONS) and identified_share(r) is not None
    ]
    if not seeking:
        return ""
    best = max(seeking, key=lambda result: identified_share(result) or 0.0)
    count, total = (int(best.figures[f"groups_{name}"] or 0) for name in ("identified", "sought"))
    if not count:
        return f"Of {total:,} groups of images, none was identified by the attacks that ran."
    return (
        f"Of {total:,} groups of images, {count:,} {'was' if count == 1 else 'were'} identified by "
        f"an image that was recovered, by the attack “{best.attack}”."
    )


def _rank(result: AttackResult) -> tuple[float, float]:
    return recovered_share(result) or 0.0, result.figures.get("ssim_mean") or 0.0


def _labels(done: Sequence[AttackResult]) -> str:
    share = _most([r for r in done if r.on not in (*SENT, *FEDERATIONS)], "class_sets_right")
    if share is None:
        return ""
    return f"The labels alone reveal the classes in {_percent(share)} of the mixes."


def _public(done: Sequence[AttackResult]) -> str:
    share = _most(done, "public_found")
    if share is None:
        return ""
    return (
        f"An attacker who has the public pool found {_percent(share)} of the public images with a "
        f"coefficient of at least {LEAST_COEFFICIENT}."
    )


def _membership(done: Sequence[AttackResult]) -> str:
    share = _most(done, "membership_auc")
    if share is None:
        return ""
    return (
        "Given a training image and another image, an attacker who has the trained network "
        f"identifies the training image {_percent(share)} of the time; guessing gives 50%."
    )


def _linkage(done: Sequence[AttackResult]) -> str:
    best = _best(done, "linkage_auc")
    if best is None:
        return ""
    return (
        "Given two encodings of one image and two of different images, the attacker tells which "
        f"are of one image {_percent(best['linkage_auc'])} of the time; guessing gives 50% "
        f"({_interval(best, 'linkage_auc')})."
    )


def _matched(done: Sequence[AttackResult]) -> str:
    best = _best(done, "matched")
    if best is None:
        return ""
    return (
        "An attacker who has the private images, but does not know which encodings are of which, "
        f"finds the image of an encoding for {_percent(best['matched'])} of the images; guessing "
        f"gives {_percent(best['matched_by_chance'])} ({_interval(best, 'matched')})."
    )


def _distinguished(done: Sequence[AttackResult]) -> str:
    best = _best(done, "distinguished")
    if best is None:
        return ""
    return (
        "Of two private images that the attacker has, it tells which one was encoded "
        f"{_percent(best['distinguished'])} of the time; guessing gives 50% "
        f"({_interval(best, 'distinguished')})."
    )


def _best(done: Sequence[AttackResult], figure: str) -> dict[str, float] | None:
    """Return the finite figures of the result with the largest ``figure``."""
    having = [r for r in done if r.figures.get(figure) is not None]
    if not having:
        return None
    best = max(having, key=lambda result: result.figures[figure] or 0.0)
    return {name: value for name, value in best.figures.items() if value is not None}


def _interval(figures: dict[str, float], name: str) -> str:
    low, high = (_percent(figures[f"{name}_{end}"]) for end in ("low", "high"))
    return f"95% interval: {low} to {high}"


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
        return "Statistical tests did not distinguish encodings of one image from those of others."
    return (
        "Statistical tests distinguish encodings of one image from those of others "
        f"(p = {min(values):.1g}, corrected for the number of tests)."
    )


def _update(done: Sequence[AttackResult]) -> str:
    """Return sentences on the encoding and its image, from the attack with the highest PSNR."""
    inverted = [r for r in done if r.figures.get("encoding_psnr_mean") is not None]
    best = {on: max((r for r in inverted if r.on == on), key=_psnr, default=None) for on in SENT}
    sentences = []
    if (sent := best["update"]) is not None:
        was = "was" if _inverted(sent) else "was not"
        shown = "is" if recovered_share(sent) else "is not"
        sentences = [
            f"One encoding {was} recovered from its gradient, which the server of a federation "
            f"receives ({_nearness(sent)}).",
            f"The private image {shown} recognizable in the result.",
        ]
    if (plain := best["plain update"]) is not None:
        shown = "is" if recovered_share(plain) else "is not"
        sentences.append(
            f"For comparison, the image {shown} recognizable in what was recovered from the "
            f"gradient of the plain image ({_nearness(plain)})."
        )
    return " ".join(sentences)


def _federation(done: Sequence[AttackResult], on: On) -> str:
    """Return sentences on what the updates of all rounds reveal, and what limits the attack."""
    seeking = [r for r in done if r.on == on and recovered_share(r) is not None]
    if not seeking:
        return ""
    best = max(seeking, key=_rank)
    encodings, sent, count, total = (
        int(best.figures.get(name) or 0)
        for name in (
            "encodings_recovered",
            "encodings_sent",
            "images_recognizable",
            "images_sought",
        )
    )
    method = "gradients (FedSGD)" if on == "fedsgd" else "changes of the weights (FedAvg)"
    limit = (
        "The reconstruction missed the others."
        if encodings >= NEARLY_ALL * sent
        else "The inversion of the updates limits this result."
    )
    return (
        f"From all {method} of one participant, whose network begins with a dense layer, the "
        f"attack “{best.attack}” recovered {encodings:,} of {sent:,} encodings, and from these "
        f"{count:,} of {total:,} private images recognizably."
        f"{'' if count == total else f' {limit}'}"
    )


def _nearness(inverted: AttackResult) -> str:
    return f"PSNR {_psnr(inverted):.0f} dB, by the attack “{inverted.attack}”"


def _inverted(inverted: AttackResult) -> bool:
    blank = inverted.figures.get("of_blank_psnr_mean") or 0.0
    return _psnr(inverted) >= max(INVERTED, blank + ABOVE_BLANK)


def _psnr(inverted: AttackResult) -> float:
    return inverted.figures["encoding_psnr_mean"] or 0.0


def _generator(done: Sequence[AttackResult]) -> str:
    found = _most(done, "found")
    if found is None:
        return ""
    if found:
        return "The keys come from a general-purpose random generator: all of them can be computed."
    return (
        "Of the general-purpose random generators and seeds that were tried, none produces the "
        "keys."
    )


def _share(facts: Facts) -> str:
    if (facts.rehearsed_images, facts.rehearsed_copies) == (facts.images, facts.copies):
        return ""
    fewer = f", {_times(facts.rehearsed_copies)} instead of {_times(facts.copies)} each"
    return (
        f"The audit encrypted {facts.rehearsed_images:,} of {facts.images:,} images"
        f"{fewer if facts.rehearsed_copies != facts.copies else ''}, and mixed them only with each "
        "other. With all images, an attacker has more to sort out, and more time."
    )


def _most(done: Sequence[AttackResult], figure: str) -> float | None:
    return max((v for r in done if (v := r.figures.get(figure)) is not None), default=None)


def _times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count:,} times"


def _percent(share: float) -> str:
    """Return ``share`` in percent, with 0% only for 0 and 100% only for 1."""
    if 0 < share < 0.005:
        return "less than 1%"
    if 0.995 <= share < 1:
        return "more than 99%"
    return f"{share:.0%}"
