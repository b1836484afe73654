"""Recovers keys from general-purpose generators: the seed by search, the state by linear algebra.

Carlini et al. (arXiv:2011.05315) recovered the masks of the authors' challenge, whose generator was
not cryptographic. These attacks do so for NumPy's and PyTorch's generators. Keys of this library
come from AES in counter mode, for which the attacks must find nothing; an audit verifies that.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from instahide.attacks.base import (
    EncodingObservation,
    Finding,
    PredictedMasks,
    Progress,
    RecoveredImages,
    require,
)
from instahide.attacks.budget import Budget
from instahide.attacks.weak_rng.mt19937 import ENOUGH, GeneratorState, recover_state
from instahide.attacks.weak_rng.seed_search import Generator, candidates, normals

SEEDS = 1 << 32
#: Number of seeds per thread between two checks of the budget, and number of threads.
_CHUNK, _THREADS = 1 << 19, 2
#: Number of mixes to compare with a seed, and the fraction that the right seed must explain; some
#: mixes were redrawn to satisfy the bounds. A wrong seed explains about one in a hundred.
_MIXES, _EXPLAINED = 32, 0.5
#: The sign of smaller absolute values is uncertain.
_LEAST_VALUE = 1e-4


class SeedSearch:
    """Searches the 32-bit seed of coefficients from NumPy or PyTorch, k normal values per mix.

    The first mix must not have been redrawn, and its two private images must differ in class.

    Args:
        seeds: seeds to try; all by default.
    """

    name = "seed-search"
    title = "Trying every seed of a general-purpose generator"
    paper = "After Carlini et al., arXiv:2011.05315: the challenge's generator"
    observes = EncodingObservation
    volumes = True
    augmented = True

    def __init__(self, seeds: range = range(SEEDS)) -> None:
        self.seeds = seeds

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies if soft labels show the two private coefficients of the first mix."""
        if observation.labels is None or observation.threat.labels != "soft":
            return "The attacker sees no soft labels."
        if observation.scheme.private_k != 2:
            return "The attack is for mixes of two private images."
        if int((observation.labels[0] > 0).sum()) != 2:
            return "The label of the first encoding does not show two coefficients."
        return None

    def run(self, observation: EncodingObservation, budget: Budget, progress: Progress) -> Finding:
        """Return statistics only; the seed, if found, determines all later coefficients."""
        ratios = _ratios(observation)
        tried, seconds = 0, 1e-9
        step = _CHUNK * _THREADS
        for start in range(self.seeds.start, self.seeds.stop, step):
            if budget.over:
                break
            chunk = range(start, min(start + step, self.seeds.stop))
            began = time.perf_counter()
            for generator in get_args(Generator):
                seed = _seed_among(chunk, generator, ratios, observation.scheme.k)
                if seed is not None:
                    return Finding(statistics={"found": 1.0, "seed": float(seed)})
            tried, seconds = tried + len(chunk), seconds + time.perf_counter() - began
            progress("seeds", tried / len(self.seeds))
        rate = tried / seconds
        return Finding(
            statistics={
                "found": 0.0,
                "seeds_tried": float(tried),
                "seeds_per_second": rate,
                "hours_for_all": SEEDS / max(rate, 1e-9) / 3600,
            }
        )


class MersenneTwisterAttack:
    """Recovers the state of a Mersenne Twister from masks of encodings with known mixes.

    The attack assumes that signs were drawn one by one, in the order of the encodings and of their
    values, as the lowest bit of each output: `torch.randint(0, 2, ...)`, `RandomState.randint`.
    """

    name = "mersenne-twister"
    title = "Rebuilding the generator of the masks from known mixes"
    paper = "After Carlini et al., arXiv:2011.05315: the challenge's generator"
    observes = EncodingObservation
    volumes = True
    augmented = True

    def applies(self, observation: EncodingObservation) -> str | None:
        """Applies if about 20,000 signs are known."""
        if not observation.scheme.mask:
            return "The scheme has no mask."
        known = 0 if observation.known_mixes is None else observation.known_mixes.numel()
        if known < ENOUGH:
            return f"{known:,} signs are known; {ENOUGH:,} are needed."
        return None

    def run(self, observation: EncodingObservation, budget: Budget, progress: Progress) -> Finding:
        """Predict the masks of all other encodings, and remove them."""
        mixes = require(observation.known_mixes)
        rest = observation.encodings[len(mixes) :]
        flipped = observation.encodings[: len(mixes)].sign() != mixes.sign()
        sure = mixes.abs() > _LEAST_VALUE
        found = _generator(flipped[sure].numpy(), np.flatnonzero(sure.reshape(-1).numpy()))
        progress("generator", 1.0)
        if found is None:
            return Finding(statistics={"found": 0.0, "known_signs": float(sure.sum())})
        generator, set_bit_flips = found
        low = generator.outputs(observation.encodings.numel())[mixes.numel() :] & 1
        masks = torch.from_numpy(low == int(set_bit_flips)).reshape(rest.shape)
        unmasked = RecoveredImages(torch.where(masks, -rest, rest), observation.owners(len(mixes)))
        statistics = {"found": 1.0, "known_signs": float(sure.sum())}
        return PredictedMasks(masks, unmasked, statistics=statistics)


def _generator(
    flipped: NDArray[np.bool], positions: NDArray[np.int64]
) -> tuple[GeneratorState, bool] | None:
    """The generator of the signs, and whether a set bit flips a sign; None if there is none."""
    for set_bit_flips in (True, False):
        bits = (flipped == set_bit_flips)[:ENOUGH]
        state = recover_state(bits, positions[:ENOUGH])
        if state is not None:
            return state, set_bit_flips
    return None


def _ratios(observation: EncodingObservation) -> NDArray[np.float64]:
    """(m,) ratios of the smaller to the larger private coefficient of the first mixes.

    The ratio is nan if both images have the same class.
    """
    two = require(observation.labels)[:_MIXES].double().topk(2, dim=1).values.numpy()
    return np.where(two[:, 1] > 0, two[:, 1] / two[:, 0], np.nan)


def _seed_among(
    seeds: range, generator: Generator, ratios: NDArray[np.float64], k: int
) -> int | None:
    """The seed among ``seeds`` that explains ``ratios``; None if there is none."""
    half = seeds.start + len(seeds) // _THREADS
    parts = (range(seeds.start, half), range(half, seeds.stop))
    with ThreadPoolExecutor(_THREADS) as threads:
        found = threads.map(partial(candidates, float(ratios[0]), generator), parts)
        for seed in np.concatenate(list(found)):
            if _explains(int(seed), generator, ratios, k):
                return int(seed)
    return None


def _explains(seed: int, generator: Generator, ratios: NDArray[np.float64], k: int) -> bool:
    """Whether enough of the ratios are among the first that ``seed`` draws.

    Their order is not compared, because a redrawn mix may shift all later ones.
    """
    drawn = np.abs(normals(seed, generator, (2 * _MIXES, k)))[:, :2]
    expected = drawn.min(axis=1) / drawn.max(axis=1)
    known = ratios[~np.isnan(ratios), None]
    matched = np.isclose(expected, known, rtol=1e-4, atol=0).any(axis=1)
    return bool(matched.mean() >= _EXPLAINED)
