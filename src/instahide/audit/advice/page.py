"""Writes the result of a search: ``advise.json``, ``advise.html`` and ``settings.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from instahide.audit.advice.bench import LEARNED, LEARNED_ANY, QUICK
from instahide.audit.advice.chart import front_chart
from instahide.audit.advice.decision import CONFIRMED, answer, decide, described, percent
from instahide.audit.advice.schema import Advice
from instahide.audit.advice.search import Search
from instahide.audit.report import charts
from instahide.audit.report.html import by_reason, page_environment, write_page
from instahide.utils.atomic_write import atomic_write

JSON, HTML, SETTINGS = "advise.json", "advise.html", "settings.yaml"
#: What is called accuracy, for each kind of labels.
METRICS = {"single-label": "accuracy", "multi-label": "macro AUROC"}
#: Reasons why something was not tried.
_NO_TIME = "The time budget did not reach them."
_STOPPED = (
    "Another setting was clearly more accurate and at most as exposed, so training was stopped "
    "early or no attack was run. The margins are in the documentation."
)
_ONCE = "On the front, but measured with one seed only."
_OTHER_ATTACKS = (
    "These attacks do not decide, take longer, or are on something else than encodings. Run "
    "`instahide audit` with the recommended settings."
)
_FIXED = {
    "longer training, other networks": "All networks were trained for the same few steps. A longer "
    "training usually loses less accuracy.",
    "random crops and flips": "The audit does not attack them, and folders of encodings are made "
    "without them.",
}


def make_advice(search: Search, common: Mapping[str, Any], command: str) -> Advice:
    """The result of ``search`` so far.

    Args:
        search: the search.
        common: settings that all candidates share, by the names of `TrainSettings`.
        command: the command that was typed.
    """
    bench, journal = search.bench, search.journal
    settings = [
        setting.model_copy(update={"settings": {**common, **setting.settings}})
        for setting in search.settings()
    ]
    decision = decide(settings, search.targets)
    return Advice(
        source=bench.source,
        images=len(bench.split.train),
        attacked_images=bench.attacked_images,
        targets=search.targets,
        verdict=decision.verdict,
        answer=answer(decision, search.targets, bench.attacked_images),
        recommended=decision.recommended,
        nearest_private=decision.nearest_private,
        nearest_accurate=decision.nearest_accurate,
        metric=METRICS[bench.split.train.task],
        reference=list(journal.reference.values()),
        steps=bench.steps,
        budget_seconds=search.budget,
        spent_seconds=journal.seconds,
        settings=settings,
        untried=_untried(search, [s.candidate.name for s in settings if s.state != "done"],
                         [s.candidate.name for s in settings if s.on_front and s.seeds == 1]),
        command=command,
    )  # fmt: skip


def write_advice(advice: Advice, folder: Path) -> None:
    """Write ``advice`` to ``folder``: as JSON, as a page, and the settings if any are recommended.

    Raises:
        InstaHideError: Jinja2 is missing, or the folder cannot be written.
    """
    page = render(advice)
    write_page(folder / HTML, page, folder / JSON, advice)
    if advice.verdict != "recommended" or advice.recommended is None:
        (folder / SETTINGS).unlink(missing_ok=True)
        return
    with atomic_write(folder / SETTINGS) as partial:
        partial.write_text(settings_file(advice.recommended.settings), encoding="utf-8")


def settings_file(settings: Mapping[str, Any]) -> str:
    """The settings in YAML, for `encrypt` and `train`."""
    head = "# Settings for `instahide encrypt` and `instahide train`, which take this file.\n"
    return head + yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)


def render(advice: Advice) -> str:
    """The page, with every text escaped."""
    chosen = advice.recommended
    environment = page_environment()
    environment.filters |= {"percent": percent, "described": described, "yaml": settings_file}
    return environment.get_template("advise.html").render(
        advice=advice,
        chosen=None if chosen is None else chosen.candidate,
        chart=front_chart(advice.settings, advice.targets, chosen),
        drawing=charts,
        untried=by_reason(advice.untried),
        confirmed=CONFIRMED,
    )


def _untried(search: Search, stopped: list[str], once: list[str]) -> dict[str, str]:
    candidates = search.proposals.candidates
    tried = search.journal.by_candidate()
    left = sum(candidate not in tried for candidate in candidates)
    used = {*QUICK, LEARNED, *([LEARNED_ANY] if search.proposals.others else [])}
    others = sorted(set(search.bench.attacks) - used)
    return {
        **({f"{left:,} of {len(candidates):,} settings of the grid": _NO_TIME} if left else {}),
        **dict.fromkeys(stopped, _STOPPED),
        **dict.fromkeys(once, _ONCE),
        **dict.fromkeys(others, _OTHER_ATTACKS),
        **_FIXED,
    }
