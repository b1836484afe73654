"""Access to URLs through fsspec: S3, Google Cloud Storage, local files, memory."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from instahide.data.cache import digest
from instahide.errors import DataError, InstaHideError, IntegrationError
from instahide.utils.atomic_write import atomic_write

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from fsspec.callbacks import Callback

#: Largest length of a file name in bytes: file systems allow 255, and temporary names are longer.
LONGEST_NAME = 240

#: Names of the properties that change when a file is replaced.
_VERSION = ("size", "ETag", "etag", "generation", "LastModified", "last_modified", "mtime",
            "created")  # fmt: skip
#: Those that always change with the content, unlike size and modification time.
_CERTAIN = ("ETag", "etag", "generation", "created")


class Entry(NamedTuple):
    """A remote file: its path, its size, and its version."""

    path: str
    size: int
    state: str


def is_url(location: str | Path) -> bool:
    """Whether ``location`` is a URL rather than a name or a path."""
    return isinstance(location, str) and "://" in location


def local_path(location: str | Path) -> Path | None:
    """The local path of a path or ``file://`` URL; None for other URLs.

    Raises:
        InstaHideError: the ``file://`` URL names another machine.
    """
    if not is_url(location):
        return Path(location)
    parts = urlsplit(str(location))
    if parts.scheme != "file":
        return None
    if parts.netloc not in ("", "localhost"):
        raise InstaHideError(
            f"{location} names a file of the machine {parts.netloc!r}.",
            "Write three slashes before a path of this machine, as in file:///data.",
        )
    return Path(unquote(parts.path))


def plain_name(name: str, location: str) -> str:
    """``name``, if it is the plain name of a visible file in the folder ``location``.

    Raises:
        DataError: ``name`` is not a plain file name.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        length = 0
    if not 0 < length <= LONGEST_NAME or name[0] == "." or not {"/", "\\", "\0"}.isdisjoint(name):
        raise DataError(
            f"{location} names a file {name[:LONGEST_NAME]!r}, which is not a plain file name.",
            "Ask the author for a new copy. The name may try to write outside the folder.",
        )
    return name


@dataclass(frozen=True)
class Remote:
    """A file or folder at a URL. Use `open`.

    Attributes:
        url: the URL, without a slash at the end.
        filesystem: fsspec file system.
        path: path in ``filesystem``.
    """

    url: str
    filesystem: AbstractFileSystem
    path: str

    @classmethod
    def open(cls, url: str) -> Remote:
        """Prepare access to ``url``, which need not exist.

        Raises:
            InstaHideError: the kind of URL is unknown, its package is missing, or it has a
                password.
        """
        import fsspec

        if urlsplit(url).password is not None:
            raise InstaHideError(
                "The URL holds a password, which would end up in messages and settings.",
                "Give it in the environment, or in the configuration of the service.",
            )
        with connection_errors(url):
            filesystem, path = fsspec.core.url_to_fs(url)
            return cls(url.rstrip("/"), filesystem, path.rstrip("/"))

    @property
    def name(self) -> str:
        """The last part of the path.

        Raises:
            InstaHideError: it is not a valid file name.
        """
        return plain_name(self.path.rsplit("/", 1)[-1], self.url)

    def entry(self, name: str = "") -> Entry | None:
        """The file at the URL, or ``name`` in the folder there; None if there is no such file."""
        path = f"{self.path}/{name}" if name else self.path
        with connection_errors(self.url):
            try:
                facts = self.filesystem.info(path)
            except FileNotFoundError:
                return None
        if facts["type"] != "file" or (_is_web(self.url) and _is_page(facts)):
            return None
        return _entry(facts)

    def sibling(self, name: str) -> Entry | None:
        """The file ``name`` in the folder of this file; None if there is none."""
        folder = Remote(self.url, self.filesystem, self.path.rpartition("/")[0])
        return folder.entry(plain_name(name, self.url))

    def files(self) -> dict[str, Entry]:
        """Visible files directly inside, by name; none if there is no folder."""
        with connection_errors(self.url):
            self.filesystem.invalidate_cache()
            try:
                found = self.filesystem.ls(self.path, detail=True)
            except FileNotFoundError:
                return {}
        return {name: entry for name, entry in self._visible(found) if "/" not in name}

    def tree(self) -> dict[str, Entry]:
        """Visible files at any depth, by path below this folder; none if there is no folder.

        Raises:
            InstaHideError: a file has a name that leaves the folder or is invalid here.
        """
        if _is_web(self.url):
            # Links of a web page are no list of the files in a folder.
            return {}
        with connection_errors(self.url):
            self.filesystem.invalidate_cache()
            # For a path that is a file, some file systems return the file itself without
            # properties.
            found = filter(None, self.filesystem.find(self.path, detail=True).values())
        entries = dict(self._visible(found))
        for name in entries:
            for part in name.split("/"):
                plain_name(part, self.url)
        return entries

    def download(self, entry: Entry, target: Path, callback: Callback | None = None) -> None:
        """Copy a file to ``target`` atomically.

        Raises:
            DataError: the file cannot be reached, ``target`` cannot be written, or the length is
                not the stated one.
        """
        options = {} if callback is None else {"callback": callback}
        with atomic_write(target) as partial:
            with connection_errors(self.url):
                self.filesystem.get_file(entry.path, str(partial), **options)
            if partial.stat().st_size != entry.size:
                raise DataError(
                    f"{self.url} changed while it was read.",
                    "Try again while no other program writes to it.",
                )

    def _visible(self, found: Iterable[Mapping[str, object]]) -> Iterator[tuple[str, Entry]]:
        for facts in found:
            name = str(facts["name"]).removeprefix(f"{self.path}/")
            # `..` is not a hidden file: `plain_name` refuses it.
            hidden = any(part[:1] == "." and part != ".." for part in name.split("/"))
            # Some stores represent folders as empty objects whose names end in a slash.
            is_file = facts["type"] == "file" and name[-1:] != "/"
            if is_file and not hidden and name != facts["name"]:
                yield name, _entry(facts)


def _is_web(url: str) -> bool:
    return url.rpartition("::")[2].startswith(("http:", "https:"))


def _is_page(facts: Mapping[str, object]) -> bool:
    """Whether a web server answers with a page, as to the address of a folder."""
    return facts.get("mimetype") == "text/html" or facts.get("size") is None


def not_found_error(url: str) -> DataError:
    """The error of a ``url`` at which no file was found."""
    if _is_web(url):
        return DataError(
            f"There is no file at {url}, or it is a web page or has no stated length.",
            "Check the address and the network. Folders of images cannot be read from web servers: "
            "name one file, such as an .npz file, or copy the folder to this machine.",
        )
    return DataError(f"There is no {url}.", "Check the bucket and the path.")


@contextmanager
def connection_errors(url: str) -> Iterator[None]:
    """Convert errors of requests to ``url`` to `InstaHideError`.

    Raises:
        InstaHideError: any error other than a full local disk.
    """
    try:
        yield
    except ImportError as error:
        s3 = url.startswith(("s3:", "s3a:"))
        raise IntegrationError(
            f"{url} needs a package that is not installed ({error}).",
            "Install it with `pip install 'instahide[s3]'`." if s3 else "Install it with pip.",
        ) from error
    except FileNotFoundError as error:
        raise not_found_error(url) from error
    except InstaHideError:
        raise
    except Exception as error:  # every service has its own errors
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"Cannot use {url} ({type(error).__name__}: {error}).",
            "Check the address, the network and your credentials (S3: AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; AWS_ENDPOINT_URL for other servers).",
        ) from error


def _entry(facts: Mapping[str, object]) -> Entry:
    version = [(key, str(facts[key])) for key in _VERSION if key in facts]
    if not any(facts.get(key) for key in _CERTAIN):
        # A random version, so that the file is downloaded every time.
        version.append(("unknown", secrets.token_hex(16)))
    size = facts["size"]
    return Entry(str(facts["name"]), size if isinstance(size, int) else 0, digest(version))
