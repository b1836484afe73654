"""The third tab: reports of audits in a folder, shown as what they are: somebody's HTML."""

from __future__ import annotations

from pathlib import Path

from instahide.app.html import framed
from instahide.audit.report.html import HTML
from instahide.errors import InstaHideError

#: A report with its pictures takes a few megabytes.
MOST_BYTES = 50_000_000


def list_reports(folder: Path) -> list[str]:
    """The reports in ``folder`` or below, by their path from there; none that lies elsewhere."""
    home = folder.resolve()
    found = (path for path in home.rglob(HTML) if path.is_file())
    return sorted(
        str(path.relative_to(home)) for path in found if path.resolve().is_relative_to(home)
    )


def open_report(folder: Path, name: str) -> str:
    """HTML of the report ``name``, one of `listed`, in a frame that can do nothing.

    Raises:
        InstaHideError: it is not there, or no report's size.
    """
    if name not in list_reports(folder):
        raise InstaHideError(
            f"There is no report {name} in {folder}.",
            "Choose one from the list; `reports=` names another folder.",
        )
    path = folder.resolve() / name
    if path.stat().st_size > MOST_BYTES:
        raise InstaHideError(
            f"{name} is larger than any report.", "Open it in a browser, if you trust it."
        )
    return framed(path.read_text(encoding="utf-8", errors="replace"), f"Report {name}")
