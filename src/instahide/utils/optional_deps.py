"""Packages that only some sources need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from instahide.errors import InstaHideError


@contextmanager
def requires_extra(package: str, extra: str) -> Iterator[None]:
    """Import ``package`` inside the block; it comes with ``extra`` of this project.

    Raises:
        InstaHideError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise InstaHideError(
            f"This needs {package}, which cannot be imported ({error}).",
            f"Install it with `pip install 'instahide[{extra}]'`.",
        ) from error
