"""How long `instahide app` takes to answer a slider, for an image of 224 x 224 pixels.

In this process: keys, mix, mask, and all pictures as they go to the browser. Where Gradio,
Playwright and Chromium are there, also from the key that moves the slider to the new pictures on
the page of a real server (`browser_ms`); all of them, loaded.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from statistics import median

from benchmarks.measure import medians, quick, report
from instahide.app.demo_images import DemoImages
from instahide.app.encryption_tab import Wanted, encryption_panels

CHROMIUM = shutil.which("chromium")
#: Without a sandbox of its own: what it opens is ours, and containers have none to give.
FLAGS = ["--no-sandbox"]
#: What may be missing where this runs.
BROWSING = CHROMIUM is not None and all(map(find_spec, ("gradio", "playwright")))


@contextmanager
def served(*options: str, **environment: str) -> Iterator[str]:
    """The address of `instahide app` in a process of its own, which has ended after the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "instahide", "app", "--port", str(port), *options]
    own = {**os.environ, **environment}
    with subprocess.Popen(command, env=own, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "The page is at" in process.stdout.readline()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def in_browser(rounds: int) -> float:
    """Median milliseconds from a key press on the slider of k to the pictures of that k."""
    from playwright.sync_api import sync_playwright

    times = []
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#steps img")
        slider = page.get_by_label("range slider for k: images in a mix")
        for number in range(rounds + 1):
            # k = 4 has eight pictures, k = 5 one more.
            key, count = ("ArrowLeft", 8) if number % 2 else ("ArrowRight", 9)
            began = time.perf_counter()
            slider.press(key)
            page.wait_for_function(
                "n => { const all = [...document.querySelectorAll('#steps img')];"
                " return all.length == n && all.every(image => image.complete); }",
                arg=count,
            )
            times.append(time.perf_counter() - began)
        browser.close()
    return 1e3 * median(times[1:])


def main() -> None:
    tiny = quick(__doc__)
    stage, rounds = DemoImages.open(), 1 if tiny else 21
    chosen = next(iter(stage.choices.values()))
    works = {
        f"answer_k{k}_ms": partial(encryption_panels, stage, chosen, Wanted(k=k)) for k in (4, 8)
    }
    figures = {name: 1e3 * seconds for name, seconds in medians(works, rounds).items()}
    if BROWSING and not tiny:
        figures["browser_ms"] = in_browser(rounds)
    names = {"answer_k4_ms": "k = 4", "answer_k8_ms": "k = 8", "browser_ms": "in the browser"}
    rows = [(names[name], f"{value:,.0f} ms") for name, value in figures.items()]
    report("Answer to a slider, 224 x 224", rows, figures)


if __name__ == "__main__":
    main()
