"""Seeds and states of weak generators are found; the key stream gives nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments.attacks import authors_routine
from instahide.attacks.base import EncodingObservation, PredictedMasks, ThreatModel, no_progress
from instahide.attacks.budget import Budget
from instahide.attacks.weak_rng import seed_search
from instahide.attacks.weak_rng.attack import MersenneTwisterAttack, SeedSearch
from instahide.attacks.weak_rng.mt19937 import ENOUGH, recover_state
from instahide.audit.ground_truth import observe
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme

CROSS, KNOWN = Scheme.cross(4), 52


def weak_labels(seed: int, library: seed_search.Generator, count: int = 40) -> Tensor:
    """Soft labels of mixes whose coefficients a seeded generator drew, redrawn to meet bounds."""
    drawn = np.abs(seed_search.normals(seed, library, (count, 4)))
    shares = drawn / drawn.sum(axis=1, keepdims=True)
    again = np.random.default_rng(0)
    for row in np.flatnonzero(~CROSS.meets_bounds(shares)):
        while not CROSS.meets_bounds(shares[row : row + 1])[0]:
            raw = np.abs(again.standard_normal(4))
            shares[row] = raw / raw.sum()
    labels = torch.zeros(count, 5)
    labels[:, :2] = torch.from_numpy(shares[:, :2].astype(np.float32))
    labels[5, 0] += labels[5, 1]
    labels[5, 1] = 0  # two images of one class
    return labels


def labelled(labels: Tensor) -> EncodingObservation:
    encodings = torch.zeros(len(labels), 1, 2, 2)
    threat = ThreatModel(public="none")
    return EncodingObservation(CROSS, (0.0,), (1.0,), threat, encodings, labels)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_seed_is_found_from_published_coefficients(library: seed_search.Generator) -> None:
    secret = 1_002_003
    observation = labelled(weak_labels(secret, library))
    attack = SeedSearch(range(1_000_000, 1_010_000))
    assert attack.applies(observation) is None
    assert attack.run(observation, Budget(), no_progress).statistics["seed"] == secret


def test_a_seed_of_the_authors_routine_is_found(private: ImageTable, public: ImageTable) -> None:
    """It draws a mix again where it stands, so that all later ones move."""
    attack = SeedSearch(range(5000))
    for seed in range(4000, 4100):
        observation, _ = authors_routine(seed, private, public, ThreatModel())
        drawn = np.abs(seed_search.normals(seed, "numpy", (1, 4)))
        if attack.applies(observation) is None and CROSS.meets_bounds(drawn / drawn.sum())[0]:
            break
    assert attack.run(observation, Budget(), no_progress).statistics["seed"] == seed


def test_coefficients_of_the_key_stream_have_no_seed(
    private: ImageTable, public: ImageTable
) -> None:
    attack = SeedSearch(range(100_000))
    observation, _ = observe(private, public, CROSS, ThreatModel(encodings_per_image=2))
    while attack.applies(observation) is not None:
        observation, _ = observe(private, public, CROSS, ThreatModel(encodings_per_image=2))
    statistics = attack.run(observation, Budget(), no_progress).statistics
    assert statistics["found"] == 0
    assert statistics["seeds_tried"] == 100_000
    assert statistics["seeds_per_second"] > 0


def test_a_seed_search_ends_with_its_budget() -> None:
    observation = labelled(weak_labels(4_000_000_000, "numpy"))
    assert SeedSearch().run(observation, Budget(0), no_progress).statistics["seeds_tried"] == 0


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_first_ratio_of_every_seed_is_the_librarys_own(library: seed_search.Generator) -> None:
    """Thousands of seeds, so that refused pairs are among them."""
    for seed in range(0, 60_000, 997):
        first = np.abs(seed_search.normals(seed, library, (16, 4)))[0, :2]
        ratio = float(first.min() / first.max())
        assert seed in seed_search.candidates(ratio, library, range(seed, seed + 1))


def test_every_later_mask_of_a_seeded_generator_is_predicted(
    private: ImageTable, public: ImageTable
) -> None:
    threat = ThreatModel(known_mixes=KNOWN, encodings_per_image=6)
    observation, mixes = authors_routine(20, private, public, threat)
    attack = MersenneTwisterAttack()
    assert attack.applies(observation) is None
    found = attack.run(observation, Budget(), no_progress)
    assert found.statistics["found"] == 1
    assert isinstance(found, PredictedMasks)
    # What lies under the masks is the mix, to the bit.
    assert torch.equal(found.unmasked.images, mixes[KNOWN:])


@pytest.mark.slow
def test_masks_of_the_key_stream_fit_no_generator(private: ImageTable, public: ImageTable) -> None:
    observation, _ = observe(
        private, public, CROSS, ThreatModel(known_mixes=KNOWN, encodings_per_image=4)
    )
    found = MersenneTwisterAttack().run(observation, Budget(), no_progress)
    assert found.statistics["found"] == 0
    assert found.statistics["known_signs"] >= ENOUGH
    assert not isinstance(found, PredictedMasks)


@pytest.mark.slow
def test_a_state_is_found_from_anywhere_in_the_stream_and_with_gaps() -> None:
    generator = np.random.RandomState(9)
    generator.randint(0, 2, 1234)
    outputs = generator.randint(0, 1 << 32, 30_000, np.uint32)
    positions = np.flatnonzero(np.random.default_rng(0).random(30_000) < 0.7)[:ENOUGH]
    state = recover_state((outputs[positions] & 1).astype(bool), positions)
    assert state is not None
    assert np.array_equal(state.outputs(30_000), outputs)


@pytest.mark.slow
def test_one_wrong_bit_is_noticed() -> None:
    bits = np.random.RandomState(9).randint(0, 2, ENOUGH).astype(bool)
    bits[ENOUGH // 2] ^= True
    assert recover_state(bits, np.arange(ENOUGH)) is None


def test_what_does_not_apply(private: ImageTable, public: ImageTable) -> None:
    few, _ = observe(private, public, CROSS, ThreatModel(known_mixes=3, labels="coarse"))
    assert "are needed" in str(MersenneTwisterAttack().applies(few))
    assert "no soft labels" in str(SeedSearch().applies(few))
    inside, _ = observe(private, None, Scheme.mixup(4), ThreatModel(public="none"))
    assert "no mask" in str(MersenneTwisterAttack().applies(inside))
    assert "two private" in str(SeedSearch().applies(inside))
