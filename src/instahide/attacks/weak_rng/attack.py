"""Recovers keys of general-purpose generators: the seed by search, or the state by linear algebra.

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
    Budget,
    EncodingObservation,
    Finding,
    PredictedMasks,
    Progress,
    RecoveredImages,
    require,
)
from instahide.attacks.weak_rng.mt19937 import ENOUGH, GeneratorState, recover_state
from instahide.attacks.weak_rng.seed_search import Generator, candidates, normals

SEEDS = 1 << 32
#: Seeds that a thread tries before it looks at the clock.
_CHUNK, _THREADS = 1 << 19, 2
#: Mixes that a seed has to explain, and the share of them: some were drawn again to meet bounds.
#: By chance it explains about one in a hundred of them.
_MIXES, _EXPLAINED = 32, 0.5
#: Below this a value is too near to zero for its sign to be sure.
_LEAST_VALUE = 1e-4


class SeedSearch:
    """The 32-bit seed of coefficients that NumPy or PyTorch drew, k normal values a mix.

    The first mix must not have been drawn again, and its two private images must differ in class.

    Args:
        seeds: to try; all by default.
    """

    name = "seed-search"
    title = "Trying every seed of a general-purpose generator"
    paper = "After Carlini et al., arXiv:2011.05315: the challenge's generator"
    observes = EncodingObservation
    volumes = True

    def __init__(self, seeds: range = range(SEEDS)) -> None:
        self.seeds = seeds

    def applies(self, observation: EncodingObservation) -> str | None:
        """It needs the two private coefficients of the first mix."""
        if observation.labels is None or observation.threat.labels != "soft":
            return "The attacker sees no soft labels."
        if observation.scheme.private_k != 2:
            return "Only the order of two private coefficients is tried."
        if int((observation.labels[0] > 0).sum()) != 2:
            return "The label of the first encoding does not show two coefficients."
        return None

    def run(self, observation: EncodingObservation, budget: Budget, progress: Progress) -> Finding:
        """Statistics alone: the seed, where there is one, gives every later coefficient."""
        ratios = _ratios(observation)
        tried, seconds = 0, 1e-9
        step = _CHUNK * _THREADS
        for start in range(self.seeds.start, self.seeds.stop, step):
            if not budget.left:
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
    """The state of a Mersenne Twister, from masks of encodings whose mix is known.

    Signs are taken to be drawn one after the other, in the order of the encodings and of their
    values, by the lowest bit of each output: `torch.randint(0, 2, ...)`, `RandomState.randint`.
    """

    name = "mersenne-twister"
    title = "Rebuilding the generator of the masks from known mixes"
    paper = "After Carlini et al., arXiv:2011.05315: the challenge's generator"
    observes = EncodingObservation
    volumes = True

    def applies(self, observation: EncodingObservation) -> str | None:
        """It needs about 20,000 signs."""
        if not observation.scheme.mask:
            return "The scheme has no mask."
        known = 0 if observation.known_mixes is None else observation.known_mixes.numel()
        if known < ENOUGH:
            return f"{known:,} signs are known; {ENOUGH:,} are needed."
        return None

    def run(self, observation: EncodingObservation, budget: Budget, progress: Progress) -> Finding:
        """Masks of all encodings that were not known, and what lies under them."""
        mixes = require(observation.known_mixes)
        rest = observation.encodings[len(mixes) :]
        turned = observation.encodings[: len(mixes)].sign() != mixes.sign()
        sure = mixes.abs() > _LEAST_VALUE
        found = _generator(turned[sure].numpy(), np.flatnonzero(sure.reshape(-1).numpy()))
        progress("generator", 1.0)
        if found is None:
            return Finding(statistics={"found": 0.0, "known_signs": float(sure.sum())})
        generator, set_bit_turns = found
        low = generator.outputs(observation.encodings.numel())[mixes.numel() :] & 1
        masks = torch.from_numpy(low == int(set_bit_turns)).reshape(rest.shape)
        unmasked = RecoveredImages(torch.where(masks, -rest, rest), observation.owners(len(mixes)))
        statistics = {"found": 1.0, "known_signs": float(sure.sum())}
        return PredictedMasks(masks, unmasked, statistics=statistics)


def _generator(
    turned: NDArray[np.bool], positions: NDArray[np.int64]
) -> tuple[GeneratorState, bool] | None:
    """The generator of the signs, and whether a set bit turns one; None if there is no such."""
    for set_bit_turns in (True, False):
        bits = (turned == set_bit_turns)[:ENOUGH]
        state = recover_state(bits, positions[:ENOUGH])
        if state is not None:
            return state, set_bit_turns
    return None


def _ratios(observation: EncodingObservation) -> NDArray[np.float64]:
    """(m,) smaller over larger private coefficient of the first mixes; nan for a shared class."""
    two = require(observation.labels)[:_MIXES].double().topk(2, dim=1).values.numpy()
    return np.where(two[:, 1] > 0, two[:, 1] / two[:, 0], np.nan)


def _seed_among(
    seeds: range, generator: Generator, ratios: NDArray[np.float64], k: int
) -> int | None:
    """The seed that explains ``ratios``, if one of ``seeds`` does."""
    half = seeds.start + len(seeds) // _THREADS
    parts = (range(seeds.start, half), range(half, seeds.stop))
    with ThreadPoolExecutor(_THREADS) as threads:
        found = threads.map(partial(candidates, float(ratios[0]), generator), parts)
        for seed in np.concatenate(list(found)):
            if _explains(int(seed), generator, ratios, k):
                return int(seed)
    return None


def _explains(seed: int, generator: Generator, ratios: NDArray[np.float64], k: int) -> bool:
    """Whether the ratios are among the first that ``seed`` draws.

    In which place is left open: a mix that is drawn again moves all that come after it, or none.
    """
    drawn = np.abs(normals(seed, generator, (2 * _MIXES, k)))[:, :2]
    expected = drawn.min(axis=1) / drawn.max(axis=1)
    known = ratios[~np.isnan(ratios), None]
    matched = np.isclose(expected, known, rtol=1e-4, atol=0).any(axis=1)
    return bool(matched.mean() >= _EXPLAINED)
