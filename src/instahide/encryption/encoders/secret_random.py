"""SECRET: random values for instance encoders, from the key stream that cannot be repeated.

Each call uses a block of key bytes of its own, so that no two draws share bytes. A `SecretRandom`
cannot be printed, pickled or copied, as a key stream.
"""

from __future__ import annotations

import math
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from instahide.encryption.keys import KEY_BYTES, KeyStream, Purpose
from instahide.encryption.sampling import sampler
from instahide.encryption.scheme import Scheme

#: Bytes of a word of the key stream.
_WORD_BYTES = 8


class SecretRandom:
    """Cryptographic random values for one participant.

    Args:
        participant: a name in the keys, see `keys.KeyStream`.
        keys: a key stream to draw from; a new one by default.

    Examples:
        >>> from instahide.encryption.encoders.secret_random import SecretRandom
        >>> random = SecretRandom()
        >>> random.uniform((2, 3)).shape, sorted(random.permutations(1, 4)[0].tolist())
        ((2, 3), [0, 1, 2, 3])
        >>> random
        SecretRandom(hidden)
    """

    __slots__ = ("_keys",)

    def __init__(self, participant: str = "", *, keys: KeyStream | None = None) -> None:
        self._keys = keys or KeyStream(participant)

    def uniform(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Uniform on the multiples of 2^-53 in [0, 1)."""
        drawn = sampler.uniforms(self._keys.next_block(), Purpose.ENCODERS, math.prod(shape))
        return drawn.reshape(shape)

    def normal(self, shape: tuple[int, ...], deviation: float = 1.0) -> NDArray[np.float64]:
        """Normal with mean 0 and this standard ``deviation``."""
        return sampler.noise(self._keys.next_block(), shape, deviation)

    def laplace(self, shape: tuple[int, ...], scale: float = 1.0) -> NDArray[np.float64]:
        """Laplace with mean 0 and this ``scale``: the standard deviation is sqrt(2) times that."""
        one, other = (
            sampler.exponentials(self._keys.next_block(), Purpose.ENCODERS, math.prod(shape))
            for _ in range(2)
        )
        return scale * (one - other).reshape(shape)

    def integers(self, bound: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Integers, exactly uniform on 0 .. bound - 1."""
        block, count = self._keys.next_block(), math.prod(shape)
        return sampler.uniform_integers(block, Purpose.ENCODERS, count, bound).reshape(shape)

    def signs(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """-1 or 1, each with probability one half."""
        return (2 * self.integers(2, shape) - 1).astype(np.float32)

    def permutations(self, count: int, size: int) -> NDArray[np.int64]:
        """(count, size) independent permutations of 0 .. size - 1.

        Two of the random words that are sorted are equal with a probability below
        count * size^2 / 2^65; their places are then in order.
        """
        words = self._keys.next_block().words(Purpose.ENCODERS, count * size)
        return np.argsort(words.reshape(count, size), axis=1).astype(np.int64)

    def partners(self, rows: NDArray[np.int64], k: int, population: int) -> NDArray[np.int64]:
        """(n, k): each of ``rows`` (n,), then k - 1 others of a ``population``, all different."""
        scheme = Scheme.inside(k) if k > 1 else Scheme.plain()
        return sampler.partners(self._keys.next_block(), scheme, rows, private=population, public=0)

    def root(self) -> bytes:
        """32 bytes, for a key stream that is used for one call and then dropped."""
        words = self._keys.next_block().words(Purpose.ENCODERS, KEY_BYTES // _WORD_BYTES)
        return words.tobytes()

    def permutation(self, count: int) -> NDArray[np.int64]:
        """A permutation of 0 .. count - 1."""
        return sampler.permutation(self._keys.next_block(), count)

    def next_epoch(self) -> None:
        """Derive new keys for the draws from here on."""
        self._keys.next_epoch()

    def __repr__(self) -> str:
        return "SecretRandom(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "Secret random values cannot be copied or pickled: they would be drawn twice."
        )
