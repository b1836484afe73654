"""The page of advice: valid, escaped, without requests; and the files beside it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import html5lib
import pytest
import yaml

from instahide.audit.advice.chart import front_chart
from instahide.audit.advice.decision import answer, decide
from instahide.audit.advice.page import HTML, JSON, SETTINGS, render, write_advice
from instahide.audit.advice.schema import Advice, Setting, Targets
from instahide.training.settings import TrainSettings
from tests.audit.advice.examples import candidate, measurement, other, setting
from tests.audit.examples import HOSTILE

TARGETS = Targets(max_recovered=0.25, max_drop=3.0)


def settings() -> list[Setting]:
    """Three on the front, one that another beats, one that was stopped."""
    private = setting(of=candidate(noise=2.0), recovered=0.0, ceiling=0.0, accuracy=0.8, front=True)
    accurate = setting(
        of=candidate(noise=0.0), recovered=0.7, ceiling=0.9, accuracy=0.96, front=True
    )
    stopped = measurement(candidate(k=6), state="stopped", accuracy=None, recovered=None)
    beaten = setting(of=candidate(copies=20), recovered=0.9, missing=["reconstruction"])
    return [private, setting(front=True), accurate, beaten, setting(stopped)]


def advice(*found: Setting, **changes: Any) -> Advice:
    found = found or tuple(settings())
    decision = decide(found, TARGETS)
    plain: dict[str, Any] = {
        "source": HOSTILE, "images": 4000, "attacked_images": 100, "targets": TARGETS,
        "verdict": decision.verdict, "answer": answer(decision, TARGETS, 100),
        "recommended": decision.recommended, "nearest_private": decision.nearest_private,
        "nearest_accurate": decision.nearest_accurate, "metric": "accuracy", "reference": [0.95],
        "steps": 250, "budget_seconds": 1800.0, "spent_seconds": 1790.0, "settings": found,
        "untried": {HOSTILE: HOSTILE}, "command": f"instahide advise {HOSTILE}",
    }  # fmt: skip
    return Advice.model_validate(plain | changes)


def test_it_is_valid_html_and_every_text_is_only_text() -> None:
    page = render(advice())
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    assert list(tree.iter("script")) == []
    texts = " ".join(" ".join(tree.itertext()).split())
    assert texts.count(HOSTILE) >= 4
    assert "a failed attack is not evidence of safety" in texts.lower()
    assert "without a result: reconstruction" in texts
    headings = [int(tag.tag[1]) for tag in tree.iter() if str(tag.tag) in {"h1", "h2", "h3"}]
    assert headings[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(headings))
    for element in tree.iter():
        assert not {"src", "href"} & element.attrib.keys()
    assert "default-src 'none'" in page
    assert "url(" not in page


def test_other_encoders_are_in_the_tables_and_are_not_mistaken_for_safe() -> None:
    encoders = other("dp-instahide", "noise=2.0"), other("neuracrypt")
    kinds: list[dict[str, Any]] = [{"front": True}, {}]
    found = [
        setting(of=each, recovered=0.0, ceiling=None, accuracy=0.94, **kind)
        for each, kind in zip(encoders, kinds, strict=True)
    ]
    page = render(advice(*settings(), *found))
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    texts = " ".join(" ".join(tree.itertext()).split())
    assert "neuracrypt-T1: All encodings share one key." in texts
    assert "compared among themselves only" in texts
    chart = front_chart([*settings(), *found], TARGETS, None)
    assert chart is not None
    named = " ".join(dot.title for dot in chart.dots)
    assert (encoders[0].name in named, encoders[1].name in named) == (True, False)
    # The line is of settings with a ceiling.
    assert chart.path == getattr(front_chart(settings(), TARGETS, None), "path", None)


def test_the_tables_have_every_setting_and_the_chart_those_that_were_attacked() -> None:
    found = settings()
    tree = html5lib.parse(render(advice()), namespaceHTMLElements=False)
    rows = [row.find("th/code").text for row in tree.iter("tr") if row.find("th/code") is not None]
    assert sorted(rows) == sorted(s.candidate.name for s in found)
    drawn = [dot for dot in tree.iter("{http://www.w3.org/2000/svg}circle")
             if dot.find("{http://www.w3.org/2000/svg}title") is not None]  # fmt: skip
    assert len(drawn) == 4
    (chosen,) = [dot for dot in drawn if dot.get("class") == "dot chosen"]
    assert "cross-k4-noise0.5-T2" in "".join(chosen.itertext())


def test_the_files_are_json_and_settings_that_a_run_takes(tmp_path: Path) -> None:
    made = advice(source="digits")
    write_advice(made, tmp_path)
    kept = json.loads((tmp_path / JSON).read_text(encoding="utf-8"))
    assert Advice.model_validate(kept) == made
    assert kept["recommended"]["candidate"]["copies"] == 2
    loaded = TrainSettings.load(tmp_path / SETTINGS)
    assert made.recommended is not None
    assert loaded.encryption() == made.recommended.candidate.encryption("single-label")
    assert (loaded.data, loaded.copies) == ("digits", 2)
    assert yaml.safe_load((tmp_path / SETTINGS).read_text()) == made.recommended.settings
    assert (tmp_path / HTML).read_text(encoding="utf-8") == render(made)


def test_settings_of_earlier_targets_do_not_stay(tmp_path: Path) -> None:
    write_advice(advice(), tmp_path)
    assert (tmp_path / SETTINGS).exists()
    write_advice(advice(settings()[0]), tmp_path)
    assert not (tmp_path / SETTINGS).exists()


def test_a_search_without_a_setting_has_a_page() -> None:
    page = render(advice(settings()[-1]))
    html5lib.HTMLParser(strict=True).parse(page)
    assert '<svg viewBox="0 0 640' not in page


@pytest.mark.parametrize("drops", [(0.95, 0.95), (0.1, 0.99), (0.9499, 0.9501)])
def test_the_chart_stays_within_its_frame(drops: tuple[float, float]) -> None:
    found = [setting(of=candidate(k=k), accuracy=score) for k, score in zip((4, 6), drops,
             strict=True)]  # fmt: skip
    chart = front_chart(found, TARGETS, None)
    assert chart is not None
    assert all(0 <= dot.x <= 640 and 0 <= dot.y <= 300 for dot in chart.dots)
    assert 2 <= len(chart.up) <= 12
    heights = [y for y, _ in chart.up]
    assert heights == sorted(heights, reverse=True)
