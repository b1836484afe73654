"""Calls to encoders of other packages: failures are named, and results are checked."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.encryption.encoders.base import EncoderInput, Encodings, InstanceEncoder, Published
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.encryption.mixed_labels import are_possible_labels
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


def encode_checked(
    encoder: InstanceEncoder,
    source: EncoderInput,
    rows: NDArray[np.int64],
    key: Any,
    random: SecretRandom,
) -> Encodings:
    """The encodings that ``encoder`` makes of the private images ``rows`` (n,), without gradients.

    Whether their exposure can be counted is not checked: only types and labels are.

    Raises:
        SchemeError: its `encode` fails, or returns no `Encodings`, or labels that no mix has.
    """
    with naming_failures(encoder, "encode"), torch.no_grad():
        # A copy, because an encoder may sort it or write to it.
        made: object = encoder.encode(source, rows.copy(), key, random)
    if not (isinstance(made, Encodings) and _has_types(made)):
        raise SchemeError(
            f"The encoder {encoder.name} returned no `Encodings` of two tensors and two arrays.",
            "Let its `encode` return `instahide.encryption.encoders.base.Encodings`.",
        )
    made = made._replace(images=made.images.detach(), labels=made.labels.detach())
    columns = len(source.private.classes)
    if not (
        made.labels.dtype == torch.float32
        and tuple(made.labels.shape) == (len(rows), columns)
        and are_possible_labels(made.labels, source.private.task)
    ):
        raise SchemeError(
            f"The encoder {encoder.name} returned labels that are not those of mixes of images.",
            f"Let its `encode` return float32 labels ({len(rows)}, {columns}): shares of classes "
            "that sum to at most 1, findings from 0 to 1, or finite values.",
        )
    return made


def network_input_checked(
    encoder: InstanceEncoder, images: Tensor, key: Any, random: SecretRandom
) -> Tensor:
    """What ``encoder`` gives a network to classify ``images``, without gradients.

    Raises:
        SchemeError: its `network_input` fails, or returns no tensor.
    """
    with naming_failures(encoder, "network_input"), torch.no_grad():
        made: object = encoder.network_input(images, key, random)
    if not isinstance(made, Tensor):
        raise SchemeError(
            f"The encoder {encoder.name} returned {type(made).__name__} as the input of a network.",
            "Let its `network_input` return a tensor.",
        )
    return made.detach()


def _has_types(made: Encodings) -> bool:
    tensors, arrays = (made.images, made.labels), (made.rows, made.coefficients)
    return all(isinstance(part, Tensor) for part in tensors) and all(
        isinstance(part, np.ndarray) for part in arrays
    )
