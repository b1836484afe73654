"""`TableEncoder`: encodes a table with any instance encoder, and counts the exposure."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instahide.data import ImageTable
from instahide.encryption.encoder import Encoded, Encoder
from instahide.encryption.encoders.base import EncoderInput, Encodings, InstanceEncoder, Published
from instahide.encryption.encoders.checked_calls import (
    encode_checked,
    epsilon_of_encoder,
    naming_failures,
    network_input_checked,
)
from instahide.encryption.encoders.registry import require_own_name
from instahide.encryption.encoders.secret_random import SecretRandom
from instahide.encryption.exposure import Exposure, limit_error
from instahide.encryption.privacy import DELTA
from instahide.encryption.sampling.partner_pools import PartnerPools, pools_of_tables
from instahide.encryption.scheme import Scheme
from instahide.errors import SchemeError
from instahide.utils.row_indices import row_indices


class TableEncoder:
    """Encodes private images with an instance encoder, under one key of the data set.

    It has the methods of `Encoder` that loaders and publications use. It cannot be pickled or
    copied, because a copy would have another key of the data set.

    Args:
        method: the instance encoder.
        images: the private images.
        public: the public pool, if the encoder uses one.
        exposure: counts the encodings that each private image goes into, and may limit them; by
            default a new one without a limit.
        participant: a name in the keys, as for `Encoder`.

    Raises:
        InstaHideError: the encoder cannot encode images of this shape, the public pool is missing
            or has private images in it, or ``exposure`` accounts for noise, which only schemes
            have.
        SchemeError: a method of the encoder fails, or its epsilon is no bound, see
            `checked_calls.epsilon_of_encoder`.

    Examples:
        >>> import numpy as np
        >>> from instahide import open_split
        >>> from instahide.encryption.encoders.registry import encoder_named
        >>> from instahide.encryption.encoders.table_encoder import TableEncoder
        >>> method = encoder_named("block-scrambling", {"block": 2})
        >>> encoder = TableEncoder(method, open_split("digits").train)
        >>> tuple(encoder.encode(np.arange(8)).images.shape)
        (8, 1, 8, 8)
    """

    def __init__(
        self,
        method: InstanceEncoder,
        images: ImageTable,
        public: ImageTable | None = None,
        *,
        exposure: Exposure | None = None,
        participant: str = "",
    ) -> None:
        require_own_name(method)
        self.method = method
        self.images = images
        self.exposure = exposure or Exposure(len(images))
        # An account that was opened for a scheme would count this encoder's noise as that scheme's.
        self.exposure.require_rate(math.inf)
        self.exposure.group(images.content_ids)
        with naming_failures(method, "output_shape"):
            self.shape = tuple(method.output_shape(images.shape))
        # Refused here, before a run that would end with this epsilon.
        once = Published(len(images), images.shape, images.std, copies=1)
        epsilon_of_encoder(method, once, DELTA)
        self._source = EncoderInput(images, _pool(method, images, public))
        self._draws = SecretRandom(participant)
        with naming_failures(method, "draw_key"):
            self._key: Any = method.draw_key(images.shape, self._draws)
        if (self._key is not None) != method.has_data_set_key:
            raise SchemeError(
                f"The encoder {method.name} says has_data_set_key = {method.has_data_set_key}, but "
                f"its `draw_key` returned {'no key' if self._key is None else 'a key'}.",
                "Make both agree: a key is shared by all encodings of a data set.",
            )

    def permutation(self) -> NDArray[np.int64]:
        """A fresh random order of the private images."""
        return self._draws.permutation(len(self.images))

    def next_epoch(self) -> None:
        """Start an epoch. The key of the data set stays."""
        self._draws.next_epoch()

    def encode(
        self, indices: NDArray[np.int64] | NDArray[np.bool], *, pin_memory: bool = False
    ) -> Encoded:
        """Encode the private images ``indices``; arguments and errors as for `Encoder.encode`.

        Raises:
            SchemeError: the encoder failed, returned encodings of another shape than it stated or
                labels that no mix has, or named other images than it was asked to encode.
        """
        encodings = self.encode_with_rows(indices)
        images = encodings.images.pin_memory() if pin_memory else encodings.images
        return Encoded(images, encodings.labels)

    def encode_with_rows(self, indices: NDArray[np.int64] | NDArray[np.bool]) -> Encodings:
        """SECRET: like `encode`, with the private images in each encoding, to score attacks."""
        indices = row_indices(indices, len(self.images))
        made = encode_checked(self.method, self._source, indices, self._key, self._draws)
        self._require_valid(made, indices)
        # Counted before any of them leaves this method.
        taken = self.exposure.record(made.rows, made.coefficients)
        if not taken and len(indices):
            raise limit_error(self.exposure)
        return Encodings(
            made.images[:taken], made.labels[:taken], made.rows[:taken], made.coefficients[:taken]
        )

    def stream(
        self, rows: Iterable[NDArray[np.int64] | NDArray[np.bool]], *, pin_memory: bool = False
    ) -> Generator[Encoded, None, None]:
        """Encode blocks of images in order; arguments and errors as for `encode`."""
        for indices in rows:
            yield self.encode(indices, pin_memory=pin_memory)

    def network_inputs(
        self, images: ImageTable, indices: NDArray[np.int64] | None = None
    ) -> Tensor:
        """What a network is given to classify the rows ``indices`` of ``images``; all by default.

        They are not counted: they are for a network's owner, who has the key of the data set.

        Raises:
            SchemeError: the encoder failed, or returned no tensor.
        """
        values = torch.from_numpy(images.normalized(indices))
        return network_input_checked(self.method, values, self._key, self._draws)

    def _require_valid(self, made: Encodings, indices: NDArray[np.int64]) -> None:
        count = len(indices)
        right = (
            tuple(made.images.shape) == (count, *self.shape)
            and made.images.dtype == torch.float32
            and made.rows.shape == made.coefficients.shape
            and made.rows.shape == (count, self.method.private_k)
            and np.array_equal(made.rows[:, 0], indices)
            and self._can_be_counted(made)
        )
        if not (right and bool(made.images.isfinite().all())):
            raise SchemeError(
                f"The encoder {self.method.name} returned something else than {count} float32 "
                f"encodings of shape {self.shape} of the images that it was asked to encode.",
                "Correct its `encode` or `output_shape`.",
            )

    def _can_be_counted(self, made: Encodings) -> bool:
        """Whether rows are distinct images in each encoding, and coefficients from 0 to 1."""
        rows, coefficients = made.rows, made.coefficients
        return (
            rows.dtype == np.int64
            and coefficients.dtype == np.float32
            and bool(((rows >= 0) & (rows < len(self.images))).all())
            and bool((np.diff(np.sort(rows, axis=1), axis=1) > 0).all())
            and bool(((coefficients >= 0) & (coefficients <= 1)).all())
        )

    def __repr__(self) -> str:
        return f"TableEncoder({self.method.name}, {len(self.images)} images)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A TableEncoder cannot be copied: the copy would have another key.")


def open_encoder(
    method: InstanceEncoder,
    images: ImageTable,
    public: ImageTable | None = None,
    *,
    exposure: Exposure | None = None,
    participant: str = "",
) -> Encoder | TableEncoder:
    """The encoder of ``images``: an `Encoder` for a `Scheme`, else a `TableEncoder`.

    Arguments and errors are those of `TableEncoder`.

    Examples:
        >>> from instahide import Scheme, open_split
        >>> from instahide.encryption.encoders.table_encoder import open_encoder
        >>> type(open_encoder(Scheme.inside(4), open_split("digits").train)).__name__
        'Encoder'
    """
    if isinstance(method, Scheme):
        return Encoder(method, images, public, exposure=exposure, participant=participant)
    return TableEncoder(method, images, public, exposure=exposure, participant=participant)


def pools_of(encoder: Encoder | TableEncoder) -> PartnerPools | None:
    """The pools of an encoder's images and public images; None if all pictures are distinct."""
    if isinstance(encoder, Encoder):
        return encoder.pools
    return pools_of_tables(encoder.images, encoder._source.public)


def _pool(
    method: InstanceEncoder, images: ImageTable, public: ImageTable | None
) -> ImageTable | None:
    if not method.uses_public:
        return None
    if public is None or public.shape != images.shape:
        raise SchemeError(
            f"The encoder {method.name} mixes public images of shape {images.shape} in, and there "
            "are none.",
            "Give a public pool of images of this shape.",
        )
    pools = pools_of_tables(images, public)
    if pools is not None and pools.private_in_public:
        raise SchemeError(
            f"The public pool also has {pools.private_in_public} of the private images. How often "
            f"the encoder {method.name} draws a public image is not known, so that its encodings "
            "of these images would not be counted.",
            "Remove them from the pool.",
        )
    return public.with_pixels_like(images).normalized_like(images)
