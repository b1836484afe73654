"""Calls to encoders of other packages: failures are named, and results are checked."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from numbers import Real
from typing import Any

from instahide.encryption.encoders.base import InstanceEncoder, Published
from instahide.errors import InstaHideError, SchemeError, failure_reason


@contextmanager
def naming_failures(encoder: InstanceEncoder, method: str) -> Generator[None]:
    """Name the encoder and its ``method`` where this fails.

    Raises:
        SchemeError: the block raised an exception that is no `InstaHideError`.
    """
    try:
        yield
    except InstaHideError:
        raise
    except Exception as error:  # from code of other packages
        raise SchemeError(
            f"The encoder {encoder.name} failed in `{method}` ({failure_reason(error)}).",
            f"Correct its `{method}`, or check that its settings fit these images.",
        ) from error


def epsilon_of_encoder(encoder: InstanceEncoder, published: Published, delta: float) -> float:
    """The epsilon that ``encoder`` states for ``published``, infinite without a guarantee.

    Raises:
        SchemeError: its `epsilon` fails, or returns no number, NaN or a number below 0.

    Examples:
        >>> from instahide.encryption.encoders.base import Published
        >>> from instahide.encryption.encoders.checked_calls import epsilon_of_encoder
        >>> from instahide.encryption.encoders.registry import encoder_named
        >>> one_value = Published(images=100, shape=(1, 1, 1), std=(1.0,), copies=1)
        >>> epsilon_of_encoder(encoder_named("plain"), one_value, delta=1e-5)
        inf
    """
    with naming_failures(encoder, "epsilon"):
        stated: Any = encoder.epsilon(published, delta)
        if _is_bound(stated):
            return float(stated)
    raise SchemeError(
        f"The encoder {encoder.name} states epsilon = {str(stated)[:40]}, which is no bound.",
        "Let its `epsilon` return a number of 0 or more, or `math.inf` without a guarantee.",
    )


def _is_bound(stated: object) -> bool:
    return not isinstance(stated, bool) and isinstance(stated, Real) and float(stated) >= 0
