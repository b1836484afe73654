"""Reports come from others: none outside the folder is opened, and none gets out of its frame."""

from __future__ import annotations

import os
from pathlib import Path

import html5lib
import pytest

from instahide.app import reports_tab
from instahide.app.html import Panel, paragraph, pictures, refusal
from instahide.errors import InstaHideError
from tests.audit.examples import HOSTILE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "report.html").write_text("secret")
    home = tmp_path / "home"
    for name in ("report.html", "a/report.html", "a/other.html"):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<p>{name}</p>")
    (home / "link").mkdir()
    (home / "link" / "report.html").symlink_to(tmp_path / "secret" / "report.html")
    return home


def test_only_reports_that_lie_in_the_folder_are_listed_the_latest_first(folder: Path) -> None:
    for latest, other in (("a/report.html", "report.html"), ("report.html", "a/report.html")):
        os.utime(folder / other, (1e9, 1e9))
        os.utime(folder / latest, (2e9, 2e9))
        assert reports_tab.list_reports(folder) == [latest, other]
    assert reports_tab.list_reports(folder / "missing") == []


@pytest.mark.parametrize(
    "name", ["../secret/report.html", "link/report.html", "a/other.html", "", None]
)
def test_nothing_else_is_opened(folder: Path, name: str) -> None:
    with pytest.raises(InstaHideError, match="no report"):
        reports_tab.open_report(folder, name)


def test_a_report_is_framed_whole_and_cannot_leave_its_frame(folder: Path) -> None:
    hostile = f'"></iframe><script>alert(1)</script>{HOSTILE}&quot; ä'
    (folder / "report.html").write_text(hostile, encoding="utf-8")
    tree = html5lib.parseFragment(
        reports_tab.open_report(folder, "report.html"), namespaceHTMLElements=False
    )
    (frame,) = tree
    assert frame.tag == "iframe"
    assert frame.get("sandbox") == ""
    assert frame.get("srcdoc") == hostile


def test_a_huge_file_is_no_report(folder: Path) -> None:
    with (folder / "report.html").open("r+b") as file:
        file.truncate(reports_tab.MOST_BYTES + 1)
    with pytest.raises(InstaHideError, match="larger"):
        reports_tab.open_report(folder, "report.html")


def test_every_text_on_the_page_is_only_text() -> None:
    html = paragraph(HOSTILE) + refusal(InstaHideError(HOSTILE, HOSTILE))
    html += pictures([Panel(HOSTILE, [[0.0, 1.0]])])
    tree = html5lib.parseFragment(html, namespaceHTMLElements=False)
    assert not list(tree.iter("script"))
    assert "".join(tree.itertext()).count(HOSTILE) == 4
