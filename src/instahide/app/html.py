"""HTML parts of the page. All texts are escaped, and images are embedded in the page.

Characters that could reorder or hide what a browser shows are written as escapes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape as escaped_html
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from instahide.errors import InstaHideError, printable


class Panel(NamedTuple):
    """A picture with its caption: (H, W) or (H, W, 3) values from 0 to 1."""

    title: str
    pixels: NDArray[np.floating]


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
    """The problem and the remedy of an error, announced by screen readers."""
    return (
        f'<div class="refusal" role="alert"><p><strong>{escape(error.problem)}</strong></p>'
        f"{paragraph(error.remedy)}</div>"
    )


def framed(page: str, title: str) -> str:
    """An untrusted HTML page in a frame that blocks scripts, forms and links to other pages.

    The sandbox gives it an opaque origin; the content security policy of the surrounding page
    decides what it may load.
    """
    return (
        f'<iframe class="report" sandbox="" title="{escape(title)}" '
        f'srcdoc="{escaped_html(page)}"></iframe>'
    )


def escape(text: str) -> str:
    """``text`` escaped for HTML."""
    return escaped_html(printable(text))


def _figure(panel: Panel) -> str:
    title = escape(panel.title)
    return (
        f'<figure><img alt="{title}" src="data:image/png;base64,{_png(panel.pixels)}">'
        f"<figcaption>{title}</figcaption></figure>"
    )


def _png(pixels: NDArray[np.floating]) -> str:
    from PIL import Image

    out = io.BytesIO()
    values = np.rint(255 * np.asarray(pixels, np.float32)).astype(np.uint8)
    # Masks are random and do not compress, so a higher level only costs time.
    Image.fromarray(values).save(out, "PNG", compress_level=1)
    return base64.b64encode(out.getvalue()).decode()
