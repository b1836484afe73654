"""Copies sources at URLs to the cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from instahide.data.cache import cache_folder, digest
from instahide.data.remote.urls import Entry, Remote, is_url, local_path, not_found_error
from instahide.errors import InstaHideError
from instahide.utils.atomic_write import write_json
from instahide.utils.parallel import parallel_map
from instahide.utils.progress import progress_hidden

if TYPE_CHECKING:
    from fsspec.callbacks import Callback

#: Number of parallel downloads.
CONNECTIONS = 16
#: Smallest download in bytes that shows a progress bar.
LARGE = 1 << 24
#: File with the versions of the copied files.
_STATE = ".fetched.json"


def local_copy(
    source: str | Path,
    *,
    companions: Callable[[str], tuple[str, ...]] = lambda _: (),
    progress: bool = True,
) -> str | Path:
    """``source`` itself, or the path of its local copy if it is a URL.

    Changed files are copied again. Files that were deleted at the URL are deleted from the copy, so
    that removed images do not stay in the cache.

    Args:
        source: a name, a path, or the URL of a file or a folder.
        companions: returns the names of other files in the same folder that a file needs, if they
            exist.
        progress: show a progress bar for large downloads.

    Raises:
        InstaHideError: there is nothing at the URL, it cannot be reached, it holds hostile names,
            or the disk has no room for it.
    """
    if not is_url(source):
        return source
    path = local_path(source)
    if path is not None:
        return path
    remote = Remote.open(str(source))
    root = cache_folder() / "remote" / digest(remote.url)
    _mirror(remote, _files_to_download(remote, companions), root, progress)
    return root / remote.name


def require_disk_space(size: int, folder: Path) -> None:
    """Check that the disk of the cache's ``folder`` has ``size`` free bytes.

    Raises:
        InstaHideError: there is not enough space.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InstaHideError(
            f"The cache {folder} has room for {free:,} bytes, not for {size:,}.",
            "Free some space, or set INSTAHIDE_CACHE to a folder on a larger disk.",
        )


def _files_to_download(
    remote: Remote, companions: Callable[[str], tuple[str, ...]]
) -> dict[str, Entry]:
    """The files to download, by path below the root of the copy."""
    found = {f"{remote.name}/{name}": entry for name, entry in remote.tree().items()}
    if found:
        return found
    whole = remote.entry()
    if whole is None:
        raise not_found_error(remote.url)
    others = {name: remote.sibling(name) for name in companions(remote.name)}
    return {name: entry for name, entry in others.items() if entry} | {remote.name: whole}


def _mirror(remote: Remote, wanted: Mapping[str, Entry], root: Path, progress: bool) -> None:
    """Make ``root`` hold exactly the ``wanted`` files."""
    states = _states(root)
    kept = {
        name: entry.state
        for name, entry in wanted.items()
        if states.get(name) == entry.state and (root / name).is_file()
    }
    missing = [name for name in wanted if name not in kept]
    total = sum(wanted[name].size for name in missing)
    require_disk_space(total, cache_folder())
    _remove_others(root, wanted)
    # Forget the version of a file before it is replaced, so that an interruption is harmless.
    write_json(root / _STATE, kept)
    with _bar(total, progress) as callback:

        def fetch(name: str) -> str:
            remote.download(wanted[name], root / name, callback)
            return name

        try:
            for name in parallel_map(fetch, missing, CONNECTIONS):
                kept[name] = wanted[name].state
        finally:
            write_json(root / _STATE, kept)


def _states(root: Path) -> dict[str, str]:
    try:
        found = json.loads((root / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _remove_others(root: Path, wanted: Mapping[str, Entry]) -> None:
    # Deepest first, so that folders are empty when they are removed.
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            with suppress(OSError):  # The folder is not empty.
                path.rmdir()
        elif path.relative_to(root).as_posix() not in wanted and path.name[0] != ".":
            path.unlink(missing_ok=True)


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callback]:
    """A callback that shows a transient progress bar on standard error."""
    from fsspec.callbacks import Callback
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    if not shown or total < LARGE or progress_hidden():
        yield Callback()
        return
    columns = ("Fetching", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield Callback(hooks={"bar": lambda _, value, **__: progress.update(task, completed=value)})
