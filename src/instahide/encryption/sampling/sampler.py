"""SECRET: samples one-time keys from the key stream.

Every function turns uniform 64-bit words into a draw from an exactly stated distribution. The
compiled loops are in `_sampler_numba`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from instahide.encryption.augmentation import Augmentation
from instahide.encryption.exposure import Exposure, limit_error
from instahide.encryption.keys import WORD_BITS, Block, OneTimeKeys, Purpose
from instahide.encryption.sampling import _sampler_numba
from instahide.encryption.sampling.partner_pools import PartnerPools
from instahide.encryption.scheme import Scheme

#: The largest word, and how far those below it reach that make a number below 2^-20.
_LAST, _SMALL = np.uint64(2**64 - 1), np.uint64(2**44)

#: Mixes in a row that an exposure may refuse. It refuses one if an image occurs twice and has one
#: encoding left; perhaps only such images are left.
MAX_REJECTIONS = 1000


def one_time_keys(
    block: Block,
    scheme: Scheme,
    indices: NDArray[np.int64],
    *,
    public: int,
    shape: tuple[int, ...],
    augmentation: Augmentation,
    exposure: Exposure,
    pools: PartnerPools | None = None,
) -> OneTimeKeys:
    """Draw the keys that encrypt the private images ``indices`` (n,) of ``shape`` (C, H, W).

    Args:
        block: fresh from `KeyStream.next_block`.
        scheme: bounds and distribution of the keys.
        indices: rows of the private images.
        public: number of public images that partners are drawn from.
        shape: of one image.
        augmentation: random crop and flip of every image of a mix.
        exposure: of the private images, in which the mixes are counted.
        pools: the pools from which partners are drawn, if some images show the same picture;
            None if all pictures are distinct.

    Returns:
        Keys for all ``indices``, or for those before the first image at its limit.

    Raises:
        ExposureLimitError: the first image is at its limit.
    """
    chosen, weights = mixes(block, scheme, indices, public=public, exposure=exposure, pools=pools)
    count = len(chosen)
    return OneTimeKeys(
        chosen,
        weights,
        masks(block, count, shape) if scheme.mask else None,
        augmentation_moves(block, (count, scheme.k), augmentation) if augmentation else None,
    )


def mixes(
    block: Block,
    scheme: Scheme,
    indices: NDArray[np.int64],
    *,
    public: int,
    exposure: Exposure,
    pools: PartnerPools | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The partners (n, k) and coefficients (n, k) of `one_time_keys`; same arguments."""
    weights = coefficients(block, scheme, len(indices))
    chosen = _partners_within_limit(block, scheme, indices, weights, public, exposure, pools)
    return chosen, weights[: len(chosen)]


def _partners_within_limit(
    block: Block,
    scheme: Scheme,
    indices: NDArray[np.int64],
    weights: NDArray[np.float32],
    public: int,
    exposure: Exposure,
    pools: PartnerPools | None,
) -> NDArray[np.int64]:
    """(n, k) rows as of `partners`, of images within their limit; ends before one at its limit."""
    parts = []
    done = refused = 0
    while done < len(indices):
        spent = exposure.exhausted()
        if spent is None:
            rest, private = indices[done:], exposure.images
            drawn = partners(block, scheme, rest, private=private, public=public, pools=pools)
        else:
            rest = indices[done : _first_true(spent[indices], done)]
            drawn = _partners_below_limit(block, scheme, rest, spent, public, pools)
        if len(drawn) == 0 or refused > MAX_REJECTIONS:
            if done:
                break
            raise limit_error(exposure)
        taken = exposure.record(
            *_counted(drawn, weights[done : done + len(drawn)], scheme.private_k, pools)
        )
        parts.append(drawn[:taken])
        done += taken
        refused = 0 if taken else refused + 1
    return np.concatenate(parts) if parts else np.empty((0, scheme.k), np.int64)


def _counted(
    drawn: NDArray[np.int64],
    weights: NDArray[np.float32],
    private_k: int,
    pools: PartnerPools | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The private images of mixes ``drawn`` (n, k), and their ``weights`` (n, k)."""
    if pools is not None:
        return pools.counted(drawn, weights, private_k)
    return drawn[:, :private_k], weights[:, :private_k]


def _partners_below_limit(
    block: Block,
    scheme: Scheme,
    indices: NDArray[np.int64],
    spent: NDArray[np.bool],
    public: int,
    pools: PartnerPools | None,
) -> NDArray[np.int64]:
    """(n, k) rows as of `partners`, of images not ``spent`` (N,); none if too few are left."""
    free = np.flatnonzero(~spent)
    left = None if pools is None else pools.only(free)
    if len(free) < scheme.private_k or not (left is None or left.has_enough_for(scheme)):
        return np.empty((0, scheme.k), np.int64)
    places = np.searchsorted(free, indices)
    drawn = partners(block, scheme, places, private=len(free), public=public, pools=left)
    private = slice(0, scheme.private_k)
    drawn[:, private] = free[drawn[:, private]]
    return drawn


def _first_true(spent: NDArray[np.bool], start: int) -> int:
    """The index of the first True from ``start`` on; the length if there is none."""
    found = np.flatnonzero(spent[start:])
    return start + int(found[0]) if len(found) else len(spent)


def partners(
    block: Block,
    scheme: Scheme,
    indices: NDArray[np.int64],
    *,
    private: int,
    public: int,
    pools: PartnerPools | None = None,
) -> NDArray[np.int64]:
    """(n, k) rows: the image itself, then partners, uniform over all choices without repetition.

    With ``pools``, each is uniform over the rows whose picture is not in the mix yet.
    """
    if pools is not None:
        return _distinct_partners(block, scheme, indices, pools)
    own, others = range(1, scheme.private_k), range(scheme.public_k)
    bounds = [*(private - taken for taken in own), *(public - taken for taken in others)]
    ranks = _uniform_integers_each(block, Purpose.PARTNERS, len(indices), bounds)
    return np.asarray(_sampler_numba.partners(indices, ranks, scheme.private_k), np.int64)


def _distinct_partners(
    block: Block, scheme: Scheme, indices: NDArray[np.int64], pools: PartnerPools
) -> NDArray[np.int64]:
    private, public = pools.private, pools.public
    words = block.words(Purpose.PARTNERS, (scheme.k - 1) * len(indices))
    while True:
        drawn, again = _sampler_numba.distinct_partners(
            indices,
            words.reshape(scheme.k - 1, len(indices)),
            private.spans,
            private.places,
            public.places,
            pools.shared,
            scheme.private_k,
        )
        if not len(again):
            return np.asarray(drawn, np.int64)
        words[again] = block.words(Purpose.PARTNERS, len(again))


def uniform_integers(block: Block, purpose: Purpose, count: int, bound: int) -> NDArray[np.int64]:
    """(count,) integers, exactly uniform on 0 .. bound - 1."""
    return np.asarray(_uniform_integers_each(block, purpose, count, [bound])[0], np.int64)


def _uniform_integers_each(
    block: Block, purpose: Purpose, count: int, bounds: Sequence[int]
) -> NDArray[np.int64]:
    """(b, count) integers, row by row exactly uniform below each of the b ``bounds``.

    Words that would make some integers likelier than others are drawn again.
    """
    words, limits = block.words(purpose, len(bounds) * count), np.array(bounds, np.uint64)
    while True:
        drawn, again = _sampler_numba.below(words, limits)
        if not len(again):
            return np.asarray(drawn, np.int64)
        words[again] = block.words(purpose, len(again))


def uniforms(block: Block, purpose: Purpose, count: int) -> NDArray[np.float64]:
    """(count,) uniform on the multiples of 2^-53 in [0, 1)."""
    return np.asarray(_sampler_numba.uniforms(block.words(purpose, count)), np.float64)


def coefficients(block: Block, scheme: Scheme, count: int) -> NDArray[np.float32]:
    """(count, k) non-negative, with sum 1, from the distribution of ``scheme`` given its bounds.

    Drawn by rejection; the bounds hold for the float32 values.
    """
    accepted = np.empty((count, scheme.k), dtype=np.float32)
    done = 0
    while done < count:
        # Nearly always enough for one round; otherwise another round follows.
        tries = int((count - done) / scheme.acceptance * 1.05) + 16
        kept = _coefficients_within_bounds(block, scheme, tries)[: count - done]
        accepted[done : done + len(kept)] = kept
        done += len(kept)
    return accepted


def _coefficients_within_bounds(block: Block, scheme: Scheme, tries: int) -> NDArray[np.float32]:
    """(m, k) those of ``tries`` draws that meet the bounds."""
    size = tries * scheme.k
    raw = (
        np.abs(_normals(block, Purpose.COEFFICIENTS, size))
        if scheme.coefficient_distribution == "half-normal"
        else exponentials(block, Purpose.COEFFICIENTS, size)
    )
    # With no public image the private sum is 1 but for rounding, and c2 says nothing.
    c2 = scheme.c2 if scheme.public_k else 0
    bounds = float(scheme.c1), float(c2), float(scheme.min_self_coefficient)
    return np.asarray(
        _sampler_numba.normalize_within_bounds(raw, scheme.k, scheme.private_k, *bounds), np.float32
    )


def _normals(block: Block, purpose: Purpose, count: int) -> NDArray[np.float64]:
    """Independent standard normals, drawn in pairs (Box and Muller, 1958)."""
    half = -(-count // 2)
    words = block.words(purpose, 2 * half)
    logarithms = _logarithms(block, purpose, words[:half])
    return np.asarray(_sampler_numba.normals(logarithms, words[half:])[:count], np.float64)


def exponentials(block: Block, purpose: Purpose, count: int) -> NDArray[np.float64]:
    """Independent standard exponentials; divided by their sum, they are uniform on the simplex."""
    return -_logarithms(block, purpose, block.words(purpose, count))


def _logarithms(block: Block, purpose: Purpose, words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Logarithms (n,) of uniform numbers in (0, 1], the first 64 bits of which ``words`` (n,) are.

    A number is 1 - word / 2^64, rounded to 53 bits. Below 2^-20 it is (left + v) / 2^64, where left
    is 2^64 - 1 - word, and v is another such number. So there is no smallest number, and noise has
    no largest value: whoever saw noise beyond it would know more than epsilon says.
    """
    chances = _sampler_numba.positive_uniforms(words)
    drawn = np.asarray(np.log(chances, out=chances), np.float64)
    small = np.asarray(_sampler_numba.above(words, _LAST - _SMALL))
    if len(small):
        rest = _logarithms(block, purpose, block.words(purpose, len(small)))
        with np.errstate(divide="ignore"):
            whole = np.log((_LAST - words[small]).astype(np.float64))
        drawn[small] = np.logaddexp(whole, rest) - 64 * math.log(2)
    return drawn


def noise(block: Block, shape: tuple[int, ...], deviation: float) -> NDArray[np.float64]:
    """Independent normals of ``shape`` with mean 0 and this standard ``deviation``."""
    values = _normals(block, Purpose.NOISE, math.prod(shape))
    return deviation * values.reshape(shape)


def masks(block: Block, count: int, shape: tuple[int, ...]) -> NDArray[np.uint32]:
    """(count, planes, ceil(H * W / 32)) words of uniform bits, for images of ``shape``.

    There are C planes of H x W values, or C * D of a volume.
    """
    *planes, height, width = shape
    words = -(-height * width // WORD_BITS)
    size = count * math.prod(planes) * words
    bits = block.words(Purpose.MASKS, -(-size // 2)).view("<u4")
    return bits[:size].reshape(count, math.prod(planes), words)


def augmentation_moves(
    block: Block, shape: tuple[int, int], augmentation: Augmentation
) -> NDArray[np.int8]:
    """(n, k, 3): shifts down and right, uniform on -padding .. padding; and 1 if mirrored."""
    side, flips = 2 * augmentation.padding + 1, 1 + augmentation.flip
    numbers = uniform_integers(
        block, Purpose.AUGMENTATION, shape[0] * shape[1], side * side * flips
    )
    return np.asarray(_sampler_numba.moves(numbers, augmentation.padding), np.int8).reshape(
        *shape, 3
    )


def permutation(block: Block, count: int) -> NDArray[np.int64]:
    """A uniform permutation of ``count`` rows, up to a bias below count^2 / 2^64.

    The bias comes from reducing 64-bit words modulo the number of places.
    """
    return np.asarray(_sampler_numba.permutation(block.words(Purpose.ORDER, count)), np.int64)
