"""The third tab: the audit reports in a folder, shown as untrusted HTML."""

from __future__ import annotations

from pathlib import Path

from instahide.app.html import framed
from instahide.audit.report.html import HTML
from instahide.errors import InstaHideError

#: A report with its pictures takes a few megabytes.
MOST_BYTES = 50_000_000


def list_reports(folder: Path) -> list[str]:
    """Relative paths of the reports in ``folder`` and below, the latest first.

    Links to other places are skipped.
    """
    root = folder.resolve()
    found = [
        path for path in root.rglob(HTML) if path.is_file() and path.resolve().is_relative_to(root)
    ]
    found.sort(key=lambda path: (-path.stat().st_mtime, path))
    return [str(path.relative_to(root)) for path in found]


def open_report(folder: Path, name: str) -> str:
    """HTML of the report ``name``, an item of `list_reports`, in a sandboxed frame.

    Raises:
        InstaHideError: there is no such report, or it is larger than `MOST_BYTES`.
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
