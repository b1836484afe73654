"""Optional dependencies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from instahide.errors import IntegrationError


@contextmanager
def requires_extra(package: str, extra: str) -> Iterator[None]:
    """Convert an import error inside the block to an error that names the extra to install.

    Args:
        package: name of the package for the message.
        extra: extra of this project that installs the package.

    Raises:
        IntegrationError: an import inside the block fails.
    """
    try:
        yield
    except ImportError as error:
        raise IntegrationError(
            f"This needs {package}, which cannot be imported ({error}).",
            f"Install it with `pip install 'instahide[{extra}]'`.",
        ) from error
