"""The base class of `Encoder` and `BatchEncoder`: a scheme, a key stream and public images."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from instahide.data import ImageSource, PhotoCrops
from instahide.data.normalization.normalization import Normalization
from instahide.encryption.exposure import Exposure
from instahide.encryption.keys import KeyStream, OneTimeKeys
from instahide.encryption.mixing import Fetched, PublicImages, clip_to_range, mix
from instahide.encryption.scheme import Scheme


class BaseEncoder:
    """Draws one-time keys for a scheme and mixes images under them.

    A pickled or forked copy starts a key stream of its own.

    Args:
        scheme: how to encrypt.
        exposure: counts the encodings of each private image, and may limit them.
        public: the public images of a scheme that mixes some in.
        keys: a stream to draw from; a new one by default.
        participant: a name in the keys of a new stream.
        images: the private images, if they are known.
    """

    #: Attributes that are left out of copies.
    _uncopied: ClassVar[tuple[str, ...]] = ("_keys",)

    def __init__(
        self,
        scheme: Scheme,
        exposure: Exposure,
        public: ImageSource | PhotoCrops | None,
        keys: KeyStream | None,
        participant: str,
        images: ImageSource | None = None,
    ) -> None:
        self.scheme = scheme
        self.exposure = exposure
        self.participant = participant
        self._keys = keys or KeyStream(participant)
        self._public = PublicImages(public, images)
        self._public.resample(self._keys)

    def next_epoch(self) -> None:
        """Start an epoch: new keys, and new crops where the public images are photographs."""
        self._keys.next_epoch()
        if self._public.resample(self._keys):
            self._prepare()

    def __getstate__(self) -> dict[str, object]:
        """The state without the key stream; an unpickled copy starts a new one."""
        self._keys.require_copyable()
        return {name: value for name, value in vars(self).items() if name not in self._uncopied}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._keys = KeyStream(self.participant)

    def _prepare(self) -> None:
        """Called after the public images changed."""

    def _mix(
        self,
        keys: OneTimeKeys,
        private: Fetched,
        like: Normalization | None,
        normalization: tuple[NDArray[np.float32], NDArray[np.float32]],
        out: Tensor,
        black: float = 0,
    ) -> None:
        """Fill ``out`` with mixes, as `mix`, of ``private`` and of public images.

        Args:
            keys: of the n mixes.
            private: pixels, and (n, private_k) where each mix finds its own.
            like: how private images are normalized, and so public ones; None if unknown.
            normalization: of the fetched pixels, as for `mix`.
            out: what to fill.
            black: as for `mix`.
        """
        pixels, positions = private
        normalized = _is_identity(normalization)
        if self.scheme.noise and self._public.private is None:
            # Rows of a table were checked as a whole.
            pixels = clip_to_range(pixels, like, normalized=normalized)
        chosen = keys.partners[:, self.scheme.private_k :]
        public = self._public.rows(chosen, pixels, like, normalized=normalized)
        self._require_mixable((pixels, positions), public)
        mix(keys, (pixels, positions), public, normalization, out, black)

    def _require_mixable(self, private: Fetched, public: Fetched) -> None:
        """Check images that were not validated before, such as those of a batch."""


def _is_identity(normalization: tuple[NDArray[np.float32], NDArray[np.float32]]) -> bool:
    """Whether values stay as they are, because they are normalized already."""
    scale, bias = normalization
    return bool((scale == 1).all() and (bias == 0).all())
