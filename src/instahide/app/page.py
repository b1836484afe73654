"""The page: its controls, and the functions that they call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import gradio as gr

from instahide.app import reports_tab
from instahide.app.attack_tab import ATTACKS, run_attack
from instahide.app.demo_images import DemoImages, Pixels, received
from instahide.app.encryption_tab import Wanted, encryption_panels
from instahide.app.html import paragraph, refusal
from instahide.encryption.scheme import LabelMode, Preset
from instahide.errors import InstaHideError

#: Fonts that every system has, so that none is downloaded.
THEME = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
CSS = """
.panels {
  display: grid; gap: .75rem; margin-bottom: .75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(10rem, 45%), 1fr));
}
.panels figure { margin: 0; max-width: 22rem; }
.panels img { width: 100%; image-rendering: pixelated; display: block; }
.panels figcaption {
  font-size: .85rem; white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
}
@media (max-width: 30rem) { .panels figcaption { font-size: .75rem; } }
.refusal { border-left: 4px solid #b91c1c; padding-left: .75rem; }
iframe.report { width: 100%; height: 85vh; border: 1px solid #6b7280; background: white; }
"""
INTRODUCTION = (
    "InstaHide gives no privacy guarantee: published attacks recover images from its encodings. "
    "Images that you upload here stay in the memory of this process until it ends."
)
#: Seconds after which an unread uploaded file is deleted, and between two checks for such files.
FORGET = 60


def build(demo: DemoImages, folder: Path) -> gr.Blocks:
    """Build the page; its third tab shows the reports in ``folder``."""
    with gr.Blocks(
        title="InstaHide",
        analytics_enabled=False,
        delete_cache=(FORGET, FORGET),
        fill_width=True,
    ) as page:
        gr.HTML("<h1>InstaHide</h1>" + paragraph(INTRODUCTION))
        chosen = gr.State(next(iter(demo.choices.values())))
        with gr.Row(equal_height=True) as choice:
            name = gr.Dropdown(list(demo.choices), label="Image", filterable=False, scale=4)
            upload = gr.UploadButton("Upload your own image", elem_id="upload", min_width=200)
        message = gr.HTML(elem_id="said")
        with gr.Tab("Encryption") as encryption:
            draw = _steps(demo, chosen, page)
        with gr.Tab("Attack") as attack:
            _trial(demo, chosen)
        with gr.Tab("Reports") as reports:
            _reports(folder, reports)
        # A report is not about the chosen image.
        for tab in (encryption, attack, reports):
            tab.select(partial(_visible, tab is not reports), None, choice, show_progress="hidden")
        outputs: dict[str, object] = {"outputs": [chosen, name, message], "show_progress": "hidden"}
        for event in (
            upload.upload(_answer(_received, fails=_kept), upload, **outputs),
            name.input(lambda name: (demo.choices[name], name, ""), name, **outputs),
        ):
            event.success(**draw)
    return page


def _steps(demo: DemoImages, chosen: gr.State, page: gr.Blocks) -> dict[str, object]:
    """Fill the first tab; returns the arguments of the event that redraws it."""
    with gr.Row():
        scheme = gr.Radio(["cross", "inside", "mixup", "plain"], value="cross", label="Scheme")
        labels = gr.Radio(["soft", "renormalised"], value="soft", label="Label mode")
    with gr.Row() as bounds:
        k = gr.Slider(2, 8, 4, step=1, label="k: images in a mix")
        c1 = gr.Slider(0.15, 1, 0.65, step=0.05, label="c1: upper bound of every coefficient")
        again = gr.Button("New keys", scale=0, min_width=160)
    out = gr.HTML(elem_id="steps")

    def drawn(chosen: Pixels, scheme: Preset, k: float, c1: float, labels: LabelMode) -> str:
        return encryption_panels(demo, chosen, Wanted(scheme, int(k), c1, labels))

    draw: dict[str, object] = {
        "fn": _answer(drawn, fails=refusal),
        "inputs": [chosen, scheme, k, c1, labels],
        "outputs": out,
        "show_progress": "hidden",
        "trigger_mode": "always_last",
    }
    moved = [control.input for control in (scheme, k, c1, labels)]
    gr.on([*moved, again.click, page.load], **draw)
    scheme.input(_effective, scheme, [labels, bounds], show_progress="hidden")
    return draw


def _effective(scheme: Preset) -> tuple[object, object]:
    """Show the label mode, and the controls of the mix, only if the ``scheme`` depends on them.

    If all images of a mix are private, their coefficients sum to 1, and both modes are the same.
    """
    return _visible(scheme == "cross"), _visible(scheme != "plain")


def _visible(shown: bool) -> object:
    return gr.update(visible=shown)


def _trial(demo: DemoImages, chosen: gr.State) -> None:
    with gr.Row(equal_height=True):
        attack = gr.Radio(list(ATTACKS), value=next(iter(ATTACKS)), label="Attack")
        copies = gr.Slider(2, 50, 20, step=1, label="T: encodings of each image")
        run = gr.Button("Run it", variant="primary", scale=0, min_width=160)
    out = gr.HTML(elem_id="trial")

    def attacked(chosen: Pixels, attack: str, copies: float) -> str:
        return run_attack(demo, chosen, attack, int(copies))

    # One at a time: an attack uses all processors.
    run.click(_answer(attacked, fails=refusal), [chosen, attack, copies], out, concurrency_limit=1)


def _reports(folder: Path, tab: gr.Tab) -> None:
    name = gr.Dropdown([], label="Report", filterable=False, visible=False)
    out = gr.HTML(elem_id="report")
    opened = _answer(partial(reports_tab.open_report, folder), fails=refusal)

    def listed() -> tuple[object, object]:
        found = reports_tab.list_reports(folder)
        if not found:
            none = f"There is no report in {folder}. `instahide audit` writes one."
            return gr.update(visible=False), paragraph(none)
        # There is nothing to choose from one report.
        choices = gr.update(choices=found, value=found[0], visible=len(found) > 1)
        return choices, opened(found[0])

    tab.select(listed, None, [name, out], show_progress="hidden")
    name.input(opened, name, out, show_progress="hidden")


def _received(path: str) -> tuple[Pixels, None, str]:
    return received(Path(path)), None, paragraph("The image is loaded, and its file is deleted.")


def _kept(error: InstaHideError) -> tuple[object, object, str]:
    return gr.skip(), gr.skip(), refusal(error)


def _answer(
    act: Callable[..., object], fails: Callable[[InstaHideError], object]
) -> Callable[..., object]:
    """``act``, with an `InstaHideError` turned into the result of ``fails``."""

    def answered(*values: object) -> object:
        try:
            return act(*values)
        except InstaHideError as error:
            return fails(error)

    return answered
