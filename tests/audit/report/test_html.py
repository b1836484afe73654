"""The report: valid HTML, nothing but text where others wrote, no request, and its own schema."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pytest
from jsonschema import Draft202012Validator, ValidationError
from PIL import Image

from instahide.audit.report import html
from instahide.audit.report.html import HTML, JSON, render, write_report
from instahide.audit.report.overview import COLUMNS
from instahide.audit.report.schema import Report
from instahide.audit.report.summary import LIMITS, shortfall
from instahide.audit.report.thresholds import MEANINGS
from instahide.audit.target import AuditTarget
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from tests.audit.examples import HOSTILE, picture, recovered, report, result
from tests.counting import counting
from tests.waiting import LIMIT

DOCS = Path(__file__).resolve().parents[3] / "docs"
CHROMIUM = shutil.which("chromium")


def full(folder: Path, **changes: Any) -> Report:
    """One of everything, with hostile text wherever somebody else's text can come from."""
    pictures = [picture(folder, str(number), recognizable=number < 2) for number in range(3)]
    results = [
        recovered(92, pictures=pictures, title=HOSTILE, paper=HOSTILE, grants=[HOSTILE]),
        recovered(80, encodings_per_image=5, point=True, absolute=True),
        result("labels", figures={"class_sets_right": 1.0, HOSTILE: None}),
        result("foreign", state="failed", reason=HOSTILE),
    ]
    bounds = [{"expression": "ssim>0.4", "value": None, "violated": True}]
    return report(results=results, thresholds=bounds, **changes)


def test_it_is_valid_html_and_every_text_is_only_text(tmp_path: Path) -> None:
    page = render(full(tmp_path), tmp_path)
    # Strict: the parser raises at the first error.
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    assert list(tree.iter("script")) == []
    texts = " ".join(tree.itertext())
    assert texts.count(HOSTILE) >= 8
    assert "ssim>0.4 is violated" in " ".join(texts.split())
    assert all(image.get("alt") for image in tree.iter("img"))
    drawn = tree.iter("{http://www.w3.org/2000/svg}svg")
    drawings = [svg for svg in drawn if svg.get("aria-hidden") != "true"]
    assert drawings
    assert all("encodings" in svg.get("aria-label") for svg in drawings)
    headings = [int(tag.tag[1]) for tag in tree.iter() if re.fullmatch("h[1-6]", str(tag.tag))]
    assert headings[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(headings))


def test_nothing_in_it_asks_for_anything_outside(tmp_path: Path) -> None:
    page = render(full(tmp_path), tmp_path)
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    for element in tree.iter():
        for name, value in element.attrib.items():
            if name in {"src", "href", "data", "action", "poster", "srcset"}:
                assert value.startswith("data:image/png;base64,")
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_the_overview_has_a_row_for_each_attack_that_ran(tmp_path: Path) -> None:
    results = [
        recovered(92), recovered(1, on="plain update", grants=["an update"]),
        result("labels", figures={"class_sets_right": 0.5}),
        result("other", state="failed", out_of_time=True), result("refused", state="not tried"),
        recovered(80, encodings_per_image=5, point=True),
    ]  # fmt: skip
    page = render(report(results=results), tmp_path)
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    (table,) = (one for one in tree.iter("table") if one.get("class") == "overview")
    heads, *rows = ([" ".join(cell.itertext()) for cell in row] for row in table.iter("tr"))
    assert heads == ["attack", *(column.title for column in COLUMNS)]
    assert [row[0] for row in rows] == ["averaging", "labels", "other", "averaging"]
    assert rows[0][1:4] == [
        "rehearsal", "30 encodings of each image, soft labels", "92 of 100"
    ]  # fmt: skip
    assert rows[0][-1] == "2 seconds"
    assert "50%" in rows[1][3]
    assert rows[2][3] == "out of time"
    assert rows[3][2] == "an update"


def test_every_recovered_image_is_shown_and_the_recognizable_ones_first(tmp_path: Path) -> None:
    page = render(full(tmp_path), tmp_path)
    places = [page.index("2 recognizable"), page.index("1 not recognizable")]
    assert places == sorted(places)
    assert page.count("<figure><img") == 3


def test_what_was_not_tried_is_grouped_by_reason(tmp_path: Path) -> None:
    untried = {"one": "Rare.", "two": "Common.", "three": "Common."}
    page = render(report(untried=untried), tmp_path)
    assert "<dt>Common.</dt><dd>two, three</dd>" in page
    assert page.index("Common.") < page.index("Rare.")


def test_the_most_telling_attack_stands_first(tmp_path: Path) -> None:
    results = [
        recovered(100, title="To compare", on="plain update"), recovered(3, title="Little"),
        result(title="No images"), recovered(50, title="Much"),
    ]  # fmt: skip
    page = render(report(results=results), tmp_path)
    places = [
        page.index(f"{title}</h3>") for title in ("Much", "Little", "No images", "To compare")
    ]
    assert places == sorted(places)


def test_both_files_are_written_and_keep_to_the_schema(tmp_path: Path) -> None:
    schema = json.loads((DOCS / "report.schema.json").read_text(encoding="utf-8"))
    assert schema == Report.model_json_schema(mode="serialization"), (
        "Regenerate the file with the command at the end of docs/audit.md."
    )
    Draft202012Validator.check_schema(schema)
    write_report(full(tmp_path / "pictures"), tmp_path)
    found = json.loads((tmp_path / JSON).read_text(encoding="utf-8"))
    validator = Draft202012Validator(schema)
    validator.validate(found)
    assert Report.model_validate(found).results[0].figures["ssim_mean"] == 0.3
    for changes in ({"format": 2}, {"key": "00"}, {"results": [{}]}):
        with pytest.raises(ValidationError):
            validator.validate(found | changes)
    assert (tmp_path / HTML).stat().st_mode & 0o077 == 0


def test_the_guide_names_every_figure_that_a_bound_may_be_on() -> None:
    page = (DOCS / "audit.md").read_text(encoding="utf-8")
    for name, meaning in MEANINGS.items():
        assert f"| `{name}` | {meaning} |" in page


def test_the_ceiling_stands_beside_the_attack(tmp_path: Path) -> None:
    limits = {"images_recognizable": 90, "images_sought": 100, "ssim_mean": 0.81}
    limits |= {"not_found": 50, "not_enough_information": 10}
    result = recovered(40, attack="reconstruction", ceiling=limits)
    page = " ".join(render(report(results=[result]), tmp_path).split())
    assert "<strong>90 of 100</strong> images recognizable, mean SSIM 0.81." in page
    assert shortfall(result) in page
    assert "Ceiling" not in render(report(results=[recovered(40)]), tmp_path)


def test_it_never_says_secure() -> None:
    files = (DOCS.parent / "src/instahide/audit/report/templates").iterdir()
    assert not any("secure" in path.read_text(encoding="utf-8").lower() for path in files)
    assert "secure" not in LIMITS.lower()


def screenshot(page: Path, out: Path, width: int) -> Image.Image:
    assert CHROMIUM is not None
    subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={out.parent / 'profile'}", f"--screenshot={out}",
         f"--window-size={width},6000", page.as_uri()],
        check=True, capture_output=True, timeout=LIMIT,
    )  # fmt: skip
    return Image.open(out).convert("RGB")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_it_at_the_width_of_a_phone_and_asks_for_nothing(tmp_path: Path) -> None:
    with counting() as (address, asked):
        # Even what got past the escaping could fetch nothing.
        hostile = full(tmp_path / "pictures", command=f'<img src="{address}/text">')
        page = render(hostile, tmp_path / "pictures")
        page = page.replace("</main>", f'<img src="{address}/planted" alt=""></main>')
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        shown = np.asarray(screenshot(tmp_path / "page.html", tmp_path / "page.png", 390))
        assert asked == []
    assert shown.shape[:2] == (6000, 390)
    # Something is drawn over the whole length, and nothing runs out at the right edge.
    background = shown[-1, 0]
    marked = (np.abs(shown.astype(int) - background) > 40).any(axis=2)
    assert marked[:, 20:370].any(axis=1).mean() > 0.2
    assert not marked[:, -8:].any()


def test_hardness_counts_a_repeated_public_picture_once() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 1, 8, 8), np.uint8)
    images = ImageTable.from_arrays(pixels[:6], np.arange(6) % 2)
    pools = [
        ImageTable.from_arrays(pixels[rows]) for rows in (np.arange(6, 12), [*range(6, 12)] * 9)
    ]
    once, often = (
        AuditTarget("here", "encodings", "somewhere", images, pool, Scheme.cross(4), 2)
        for pool in pools
    )
    assert html._hardness(once) == html._hardness(often)
