"""Packages that only some sources need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from instahide.errors import IntegrationError


@contextmanager
def requires_extra(package: str, extra: str) -> Iterator[None]:
    """Import ``package`` inside the block; it comes with ``extra`` of this project.

    Raises:
        IntegrationError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise IntegrationError(
            f"This needs {package}, which cannot be imported ({error}).",
            f"Install it with `pip install 'instahide[{extra}]'`.",
        ) from error
