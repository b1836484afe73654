"""The page in a browser: what a person does with it, and what it asks of others, which is nothing.

Run where Gradio and Chromium are installed; `pip install 'instahide[app]'` brings the first.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from benchmarks.app import BROWSING, CHROMIUM, FLAGS, served
from tests.counting import counting
from tests.waiting import LIMIT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

in_browser = pytest.mark.skipif(not BROWSING, reason="Gradio or Chromium is not installed")
#: In milliseconds: the machine may be busy.
PATIENCE = 1000 * LIMIT


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*FLAGS, *flags], timeout=PATIENCE
        )
        try:
            yield browser
        finally:
            browser.close()


def opened(browser: Browser, address: str, **options: Any) -> Page:
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.wait_for_selector("#steps img")
    return page


def pictures(page: Page) -> dict[str, str]:
    """What is drawn, by caption without its coefficient; of equal captions the last."""
    found = page.locator("#steps img").evaluate_all("all => all.map(one => [one.alt, one.src])")
    return {alt.split(" ×")[0]: source for alt, source in found}


def redrawn(page: Page, act: Any, caption: str = "the encoding") -> dict[str, str]:
    """The pictures after ``act``, which changes the one with this caption."""
    before = pictures(page)[caption]
    act()
    page.wait_for_function(
        "([caption, before]) => { const drawn = [...document.querySelectorAll('#steps img')];"
        " return drawn.find(one => one.alt.startsWith(caption)).src != before; }",
        arg=[caption, before],
    )
    return pictures(page)


def put_in(page: Page, path: Path) -> str:
    """The image as it is shown after ``path`` was uploaded."""
    upload = page.locator("input[type=file]")
    return redrawn(page, lambda: upload.set_input_files(path), "the image")["the image"]


def photograph(path: Path, colour: tuple[int, int, int]) -> Path:
    Image.new("RGB", (640, 480), colour).save(path)
    return path


@pytest.mark.slow
@in_browser
def test_it_opens_on_a_phone_and_asks_nothing_of_anybody(tmp_path: Path) -> None:
    """The one quick look: the rest is slow."""
    with (
        counting() as (proxy, asked),
        served("--reports", str(tmp_path)) as address,
        chromium(f"--proxy-server={proxy}") as browser,
    ):
        page = opened(browser, address, viewport={"width": 390, "height": 844})
        assert set(pictures(page)) >= {"the image", "the mix", "the mask", "the encoding"}
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.get_by_role("tab").all_inner_texts() == ["Encryption", "Attack", "Reports"]
        for tab in ("Attack", "Reports"):
            page.get_by_role("tab", name=tab).click()
        page.get_by_text("There is no report in").wait_for()
        # Nor could it ask: what came past the escaping is stopped by the browser.
        ask = "fetch('http://elsewhere.test/').then(() => true, () => false)"
        assert page.evaluate(ask) is False
        assert asked == []
        # The proxy would have seen it.
        free = opened(browser, address, bypass_csp=True)
        free.evaluate("fetch('http://elsewhere.test/', {mode: 'no-cors'})")
        assert asked == ["http://elsewhere.test/"]


@in_browser
@pytest.mark.slow
def test_sliders_move_by_keyboard_and_pictures_follow() -> None:
    with served() as address, chromium() as browser:
        page = opened(browser, address)
        for name in ("k: images in a mix", "c1: upper bound of every coefficient"):
            slider = page.get_by_label(f"range slider for {name}")
            slider.focus()
            redrawn(page, lambda: page.keyboard.press("ArrowRight"))
        assert page.locator("#steps img").count() == 9
        for choice in ("renormalised", "inside", "mixup"):
            option = page.get_by_label(choice, exact=True)
            option.focus()
            redrawn(page, lambda: page.keyboard.press("Space"))
        assert "the mask" not in pictures(page)
        assert "renormalised" in page.locator("#steps").inner_text()
        # All images of a mix are private now, and both label modes are the same.
        page.get_by_label("renormalised", exact=True).wait_for(state="hidden")
        redrawn(page, page.get_by_role("button", name="New keys").click)
        page.get_by_label("range slider for c1: upper bound of every coefficient").press("Home")
        refused = page.locator("#steps").get_by_role("alert")
        refused.wait_for()
        assert "cannot be met" in refused.inner_text()
        assert "Raise c1" in refused.inner_text()


@in_browser
@pytest.mark.slow
def test_a_file_is_taken_or_refused_and_neither_stays_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    (tmp_path / "wrong.jpg").write_bytes(b"this is no image")
    with served(TMPDIR=str(folder)) as address, chromium() as browser:
        page = opened(browser, address)
        upload = page.locator("input[type=file]")
        was = pictures(page)["the image"]
        upload.set_input_files(tmp_path / "wrong.jpg")
        refused = page.locator("#said").get_by_role("alert")
        refused.wait_for()
        assert "wrong.jpg is not an image that can be read." in refused.inner_text()
        assert "Choose a JPEG" in refused.inner_text()
        assert pictures(page)["the image"] == was
        own = photograph(tmp_path / "mine.png", (200, 30, 90))
        assert put_in(page, own) != was
        left = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
        assert left == []
    # Ended by a signal, it takes its folder along.
    assert list(folder.iterdir()) == []


@in_browser
@pytest.mark.slow
def test_two_users_at_once_see_their_own_images(tmp_path: Path) -> None:
    red, blue = (
        photograph(tmp_path / f"{n}.png", (c, 40, 255 - c)) for n, c in enumerate([0, 255])
    )
    with served() as address, chromium() as browser:
        pages = [opened(browser, address) for _ in range(2)]
        was = pictures(pages[0])["the image"]
        assert pictures(pages[1])["the image"] == was
        first = put_in(pages[0], red)
        again = [page.get_by_role("button", name="New keys").click for page in pages]
        assert redrawn(pages[1], again[1])["the image"] == was
        second = put_in(pages[1], blue)
        assert len({first, second, was}) == 3
        assert redrawn(pages[0], again[0])["the image"] == first


@in_browser
@pytest.mark.slow
def test_an_attack_and_a_report_are_shown(tmp_path: Path) -> None:
    hostile = (
        "<h1>Somebody's report</h1><script>document.body.textContent = 'ran'</script>"
        "<img src='http://elsewhere.test/seen'>"
        "<meta http-equiv=refresh content='0;url=http://elsewhere.test/led'>"
    )
    (tmp_path / "report.html").write_text(hostile, encoding="utf-8")
    with (
        counting() as (proxy, asked),
        served("--reports", str(tmp_path)) as address,
        chromium(f"--proxy-server={proxy}") as browser,
    ):
        page = opened(browser, address)
        page.get_by_role("tab", name="Attack").click()
        page.get_by_role("button", name="Run it").click()
        page.wait_for_selector("#trial img")
        assert page.locator("#trial h3").count() == 4
        assert "A better attack may succeed" in page.locator("#trial").inner_text()
        page.get_by_role("tab", name="Reports").click()
        frame = page.frame_locator("iframe.report")
        frame.locator("body").wait_for()
        page.wait_for_timeout(1000)
        assert frame.locator("h1").inner_text() == "Somebody's report"
        assert asked == []
        # Neither the image nor a choice of reports is of use here.
        for label in ("Image", "Report"):
            page.get_by_label(label, exact=True).wait_for(state="hidden")
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "report.html").write_text("<h1>Another</h1>", encoding="utf-8")
        page.get_by_role("tab", name="Attack").click()
        page.get_by_label("Image", exact=True).wait_for()
        page.get_by_role("tab", name="Reports").click()
        frame.get_by_text("Another").wait_for()
        page.get_by_label("Report", exact=True).wait_for()


@in_browser
@pytest.mark.slow
def test_a_port_that_is_taken_is_told() -> None:
    with served() as address:
        command = ["-m", "instahide", "app", "--port", address.rpartition(":")[2]]
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False, timeout=LIMIT
        )
    assert done.returncode == 2
    assert re.search(r"cannot be served on port \d+", done.stderr)


@pytest.mark.skipif(find_spec("gradio") is not None, reason="Gradio is installed")
def test_without_gradio_it_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "instahide", "app"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'instahide[app]'" in done.stderr
