"""Pieces of the page as HTML. Every text is escaped, and pictures are inside the page: no file.

Characters that could reorder or hide what a browser shows are written as escapes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape as escaped_html
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from instahide.errors import InstaHideError, printable


class Panel(NamedTuple):
    """A picture, (H, W) or (H, W, 3) from 0 to 1, and what is said under it."""

    title: str
    pixels: NDArray[Any]


def pictures(panels: Iterable[Panel]) -> str:
    """The ``panels`` side by side, as many as the width allows."""
    return f'<div class="panels">{"".join(_figure(panel) for panel in panels)}</div>'


def paragraph(text: str) -> str:
    """A paragraph of ``text``."""
    return f"<p>{escape(text)}</p>"


def heading(text: str) -> str:
    """A heading inside a tab."""
    return f"<h3>{escape(text)}</h3>"


def refusal(error: InstaHideError) -> str:
    """What is wrong and what to do, read out by screen readers at once."""
    return (
        f'<div class="refusal" role="alert"><p><strong>{escape(error.problem)}</strong></p>'
        f"{paragraph(error.remedy)}</div>"
    )


def framed(page: str, title: str) -> str:
    """Somebody's HTML ``page`` in a frame where no script runs, no form is sent, no link leads out.

    The sandbox gives it an origin of its own; what it may load is said by the page around it.
    """
    return (
        f'<iframe class="report" sandbox="" title="{escape(title)}" '
        f'srcdoc="{escaped_html(page)}"></iframe>'
    )


def escape(text: str) -> str:
    """``text`` as HTML that shows it as it is."""
    return escaped_html(printable(text))


def _figure(panel: Panel) -> str:
    title = escape(panel.title)
    return (
        f'<figure><img alt="{title}" src="data:image/png;base64,{_png(panel.pixels)}">'
        f"<figcaption>{title}</figcaption></figure>"
    )


def _png(pixels: NDArray[Any]) -> str:
    from PIL import Image

    out = io.BytesIO()
    values = np.rint(255 * np.asarray(pixels, np.float32)).astype(np.uint8)
    # Masks do not compress: more effort takes longer and saves nothing.
    Image.fromarray(values).save(out, "PNG", compress_level=1)
    return base64.b64encode(out.getvalue()).decode()
