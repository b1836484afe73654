"""InstaHide as an instance encoder: the base class of `Scheme`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, cast

from instahide.errors import SchemeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from instahide.encryption.encoders.base import (
        EncoderInput,
        Encodings,
        InstanceEncoder,
        Published,
        Setting,
    )
    from instahide.encryption.encoders.secret_random import SecretRandom
    from instahide.encryption.scheme import Scheme


def scheme_of(encoder: InstanceEncoder) -> Scheme:
    """``encoder``, if it is a scheme.

    Raises:
        SchemeError: it is another encoder.
    """
    from instahide.encryption.scheme import Scheme

    if not isinstance(encoder, Scheme):
        raise SchemeError(
            f"The encodings are of the encoder {encoder.name}, which has no scheme.",
            "Use what applies to any encoder.",
        )
    return encoder


class InstaHideEncoder:
    """The methods of `encoders.base.InstanceEncoder`, for a scheme.

    `encryption.encoder.Encoder` encrypts whole tables faster, and checks limits of exposure before
    it encrypts; `encode` is for blocks whose partners the caller must know.
    """

    name: ClassVar[str] = "instahide"
    title: ClassVar[str] = "InstaHide: mixes of images under one-time masks"
    paper: ClassVar[str] = "Huang et al., InstaHide, ICML 2020 (arXiv:2010.02772)"
    has_data_set_key: ClassVar[bool] = False

    @property
    def settings(self) -> Mapping[str, Setting]:
        """The fields of the scheme."""
        from dataclasses import asdict

        return asdict(self._scheme)

    @property
    def uses_public(self) -> bool:
        """Whether public images are mixed in."""
        return self._scheme.public_k > 0

    @property
    def _scheme(self) -> Scheme:
        return cast("Scheme", self)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the image."""
        return shape

    def draw_key(self, shape: tuple[int, ...], random: SecretRandom) -> None:
        """None: each encoding has a key of its own."""

    def encode(
        self, source: EncoderInput, rows: NDArray[np.int64], key: None, random: SecretRandom
    ) -> Encodings:
        """Encrypt the private images ``rows`` (n,) under new one-time keys.

        Raises:
            InstaHideError: as for `encryption.encoder.Encoder`.
        """
        from instahide.encryption.encoders.base import Encodings
        from instahide.encryption.known_keys import encode_with_known_keys

        made = encode_with_known_keys(
            self._scheme, source.private, source.public, rows, root=random.root()
        )
        private = slice(0, self._scheme.private_k)
        return Encodings(*made.encoded, made.partners[:, private], made.coefficients[:, private])

    def network_input(self, images: Tensor, key: None, random: SecretRandom) -> Tensor:
        """The images themselves: networks also classify plain images."""
        return images

    def epsilon(self, published: Published, delta: float) -> float:
        """See `privacy.epsilon_upper_bound`."""
        from instahide.encryption.privacy import epsilon_upper_bound

        return epsilon_upper_bound(
            self._scheme, published.shape, published.std, copies=published.copies, delta=delta
        )
