"""The documentation site: built without a warning, nothing from elsewhere, no link into nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml

from experiments import settings_tables
from instahide.encryption.scheme import Scheme
from tests.waiting import LIMIT

ROOT = Path(__file__).resolve().parents[1]
#: Never asked for: it only has to be linked to.
REPOSITORY = "https://example.org/instahide"


class Page(HTMLParser):
    """What a page loads, where its links go, which anchors it has, and pictures without a text.

    Numbered lists are counted by their items.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.untold: list[str] = []
        self.numbered: list[int] = []
        self._lists: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") != "canonical":
            self.loads.append(found.get("href", ""))
        elif "src" in found:
            self.loads.append(found["src"])
        if tag == "img" and not found.get("alt"):
            self.untold.append(found.get("src", ""))
        if tag in ("ol", "ul"):
            self._lists.append(tag)
            self.numbered += [0] * (tag == "ol")
        elif tag == "li" and self._lists[-1:] == ["ol"]:
            self.numbered[-1] += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in ("ol", "ul"):
            self._lists.pop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "REPOSITORY_URL": REPOSITORY},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_page_is_there(pages: dict[Path, Page], site: Path) -> None:
    sources = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    sources |= {Path("notebooks", path.name) for path in (ROOT / "notebooks").glob("*.ipynb")}
    homes = {
        site / (path.parent if path.stem == "index" else path.with_suffix("")) for path in sources
    }
    assert homes == {path.parent for path in pages}


def test_nothing_comes_from_elsewhere(pages: dict[Path, Page], site: Path) -> None:
    for path, page in pages.items():
        assert [source for source in page.loads if urlsplit(source).netloc] == [], path
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", styles)


def test_pages_have_six_groups_a_logo_and_links_to_the_repository_and_their_neighbors(
    pages: dict[Path, Page], site: Path
) -> None:
    path = site / "quickstart" / "index.html"
    text = path.read_text(encoding="utf-8")
    assert len(re.findall(r'<li class="md-tabs__item', text)) == 6
    assert "../assets/logo.svg" in pages[path].loads
    assert REPOSITORY in pages[path].links
    # The theme's script would ask the host for its stars.
    assert 'data-md-component="source"' not in text
    for side in ("prev", "next"):
        assert f"md-footer__link--{side}" in text


def test_no_link_goes_nowhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            target, anchor = urldefrag(link)
            if urlsplit(link).scheme or link in ("", "."):
                continue
            file = (path.parent / unquote(target)).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            assert file.is_file(), f"{path}: {link}"
            if anchor and file in pages:
                assert unquote(anchor) in pages[file].anchors, f"{path}: {link}"


def test_the_reference_has_the_whole_table_of_symbols(site: Path) -> None:
    """It is taken from the source by the numbers of its lines."""
    text = (site / "reference" / "index.html").read_text(encoding="utf-8")
    (table,) = re.findall(r"<code>(=====.*?)</code>", text, re.S)
    assert set(re.findall(r"^``(\w+)``", table, re.M)) == {field.name for field in fields(Scheme)}
    assert table.rstrip().endswith("=====")


def test_pictures_say_what_they_show(pages: dict[Path, Page]) -> None:
    assert [page.untold for page in pages.values() if page.untold] == []


def test_numbered_lists_are_whole(pages: dict[Path, Page], site: Path) -> None:
    """A line that is not indented far enough ends a list, and what follows runs into the text."""
    for path in (ROOT / "docs").rglob("*.md"):
        prose = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        numbers = [int(found) for found in re.findall(r"^(\d+)\. ", prose, re.M)]
        # A list begins at 1: its length is the number before the next one.
        lengths = [one for one, other in pairwise([*numbers, 1]) if other == 1]
        name = path.relative_to(ROOT / "docs")
        home = name.parent if name.stem == "index" else name.with_suffix("")
        # The theme's list of what a search found is still empty.
        found = [length for length in pages[site / home / "index.html"].numbered if length]
        assert found == lengths, name


def test_what_is_wrong_with_a_page_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text('<p id="a"><img src="https://x.org/y.png"><a href="../none/#b">z</a>')
    page = Page(path)
    assert page.untold == page.loads == ["https://x.org/y.png"]
    assert (page.links, page.anchors) == (["../none/#b"], {"a"})
    path.write_text("<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol><ul><li>d</li></ul>")
    assert Page(path).numbered == [2]


def test_the_settings_show_what_was_measured() -> None:
    page = settings_tables.PAGE.read_text(encoding="utf-8")
    assert settings_tables.rewritten(page) == page


def test_the_page_cites_what_the_citation_file_says() -> None:
    file = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    page = (
        (ROOT / "docs" / "cite.md").read_text(encoding="utf-8").replace("{InstaHide}", "InstaHide")
    )
    (paper,) = file["references"]
    authors = " and ".join(
        f"{person['family-names']}, {person['given-names']}" for person in paper["authors"]
    )
    cited = [file["title"], file["version"], paper["title"], paper["collection-title"], authors]
    for words in [*cited, paper["identifiers"][0]["value"], f"{{{paper['year']}}}"]:
        assert words in page
