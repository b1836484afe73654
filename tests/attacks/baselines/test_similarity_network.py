"""The network that sees both encodings: small ones of it, on mixes that are easy to tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from instahide.attacks.baselines.similarity_network import (
    SimilarityNetwork,
    all_similarities,
    load_similarity,
    save_similarity,
    similarities,
    train_similarity,
)
from instahide.attacks.budget import Budget
from instahide.attacks.reconstruction.pair_encoder.features import magnitudes
from instahide.attacks.reconstruction.pair_encoder.network import PairEncoder, save_encoder
from instahide.attacks.reconstruction.pair_encoder.training_loop import LearningRate
from instahide.attacks.shadow_encodings import ShadowBatch, shadow_batches
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.attacks.conftest import Steps, natural
from tests.waiting import ticks

SIMILARITY = "instahide.attacks.baselines.similarity_network"
#: Two images in a mix, and nothing that hides them.
SCHEME = Scheme.inside(2)


@pytest.fixture(scope="module")
def shadow() -> ImageTable:
    return ImageTable.from_arrays(natural(300, 3))


@pytest.fixture(scope="module")
def seen() -> ShadowBatch:
    """Encodings of images that no network here learns from."""
    images = ImageTable.from_arrays(natural(30, 4))
    return next(shadow_batches(images, SCHEME, encodings=60))


@pytest.fixture(scope="module")
def losses() -> list[float]:
    return []


@pytest.fixture(scope="module")
def network(shadow: ImageTable, losses: list[float]) -> SimilarityNetwork:
    """Trained for a few seconds."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(f"{SIMILARITY}.PAIRS", 64)
        patch.setattr(f"{SIMILARITY}.RATE", LearningRate(1e-2, warm_up=5))
        torch.manual_seed(0)
        return train_similarity(
            shadow, SCHEME, Steps(80), lambda what, _: losses.append(float(what.split()[-1])),
            network=SimilarityNetwork(3, depth=10, widening=1),
        )  # fmt: skip


def small(channels: int = 3, seed: int = 0) -> SimilarityNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SimilarityNetwork(channels, depth=10, widening=1).eval()


def pairs_of(count: int) -> Tensor:
    return torch.triu_indices(count, count, 1)


@pytest.mark.slow
def test_it_learns_to_tell_which_encodings_of_other_images_share_one(
    network: SimilarityNetwork, losses: list[float], seen: ShadowBatch
) -> None:
    assert len(losses) == 80
    assert losses[-1] < 0.6 < losses[0]
    first, second = pairs_of(len(seen.encodings))
    found = all_similarities(network, seen.encodings)[first, second]
    assert roc_auc_score(seen.shares[first, second], found) > 0.8


def test_all_pairs_are_alike_both_ways_and_what_the_network_says_of_each(
    network: SimilarityNetwork, seen: ShadowBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several batches, the last of which is not full.
    monkeypatch.setattr(f"{SIMILARITY}.BATCH", 40)
    encodings = seen.encodings[:14]
    found = all_similarities(network, encodings)
    assert found.shape == (14, 14)
    assert found.dtype == torch.float32
    assert (found == found.T).all()
    assert (found.diagonal() == found.max()).all()
    assert found.isfinite().all()
    sizes = magnitudes(encodings)
    with torch.no_grad():
        for one, other in ((0, 1), (13, 2), (5, 9)):
            alone = network(sizes[[one]], sizes[[other]])
            torch.testing.assert_close(found[[one], [other]], alone, atol=1e-4, rtol=0)


def test_the_order_of_a_pair_says_nothing_but_each_order_is_seen(
    network: SimilarityNetwork, seen: ShadowBatch
) -> None:
    first, second = torch.split(magnitudes(seen.encodings[:20]), 10)
    with torch.no_grad():
        one, other = network.ordered(first, second), network.ordered(second, first)
        assert not torch.allclose(one, other, atol=1e-3)
        torch.testing.assert_close(network(first, second), (one + other) / 2, atol=1e-4, rtol=0)
        torch.testing.assert_close(network(second, first), network(first, second))


def test_each_pair_is_compared_once(
    network: SimilarityNetwork, seen: ShadowBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{SIMILARITY}.BATCH", 40)
    compared: list[int] = []
    shares: list[float] = []
    hook = network.register_forward_pre_hook(lambda _, given: compared.append(len(given[0])))
    try:
        all_similarities(network, seen.encodings[:14], progress=lambda _, part: shares.append(part))
    finally:
        hook.remove()
    assert sum(compared) == 14 * 13 // 2
    assert max(compared) == 40
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_some_pairs_are_as_among_all(network: SimilarityNetwork, seen: ShadowBatch) -> None:
    encodings = seen.encodings[:10]
    some = torch.tensor([[3, 1, 9], [0, 8, 4]])
    expected = all_similarities(network, encodings)[some[0], some[1]]
    found = similarities(network, encodings, some)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_one_encoding_is_like_itself(network: SimilarityNetwork, seen: ShadowBatch) -> None:
    assert all_similarities(network, seen.encodings[:1]).tolist() == [[0]]


def test_it_sees_no_signs(network: SimilarityNetwork, seen: ShadowBatch) -> None:
    encodings = seen.encodings[:8]
    signs = torch.from_numpy(np.random.default_rng(0).choice(np.float32([-1, 1]), encodings.shape))
    found = all_similarities(network, encodings * signs)
    assert (found == all_similarities(network, encodings)).all()


def test_half_of_the_pairs_that_it_learns_from_share_an_image(
    shadow: ImageTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{SIMILARITY}.PAIRS", 40)
    batches: list[ShadowBatch] = []

    def kept(images: ImageTable, scheme: Scheme) -> Iterator[ShadowBatch]:
        for batch in shadow_batches(images, scheme):
            batches.append(batch)
            yield batch

    monkeypatch.setattr(f"{SIMILARITY}.shadow_batches", kept)
    ordered = SimilarityNetwork.ordered
    given: list[tuple[Tensor, Tensor]] = []

    def noted(network: SimilarityNetwork, first: Tensor, second: Tensor) -> Tensor:
        given.append((first, second))
        return ordered(network, first, second)

    monkeypatch.setattr(SimilarityNetwork, "ordered", noted)
    train_similarity(shadow, SCHEME, Steps(2), network=small())
    assert len(given) == 2
    # One more is made before time is up.
    for batch, (first, second) in zip(batches[:2], given, strict=True):
        sizes = magnitudes(batch.encodings).flatten(1)
        one, other = (torch.cdist(half.flatten(1), sizes).argmin(dim=1) for half in (first, second))
        assert len(one) == 40
        assert batch.shares[one, other].tolist() == 20 * [True] + 20 * [False]
        assert (one != other).all()


def test_training_keeps_to_its_budget_and_its_rate_comes_to_nothing(
    shadow: ImageTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{SIMILARITY}.PAIRS", 8)
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def noted(optimiser: torch.optim.AdamW) -> None:
        rates.append(optimiser.param_groups[0]["lr"])
        step(optimiser)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    monkeypatch.setattr(f"{SIMILARITY}.RATE", LearningRate(1e-3, warm_up=1))
    trained = train_similarity(shadow, SCHEME, Budget(12, clock=ticks()), network=small())
    assert len(rates) == 11
    assert not trained.training
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0] / 2


def test_without_time_nothing_is_learnt(shadow: ImageTable) -> None:
    before = small().state_dict()
    after = train_similarity(shadow, SCHEME, Budget(0), network=small()).state_dict()
    assert all((after[name] == before[name]).all() for name in before)


def test_no_shadow_image_is_changed(shadow: ImageTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{SIMILARITY}.PAIRS", 8)
    before = shadow.pixels.copy()
    train_similarity(shadow, SCHEME, Steps(2), network=small())
    assert (shadow.pixels == before).all()


def test_it_is_written_and_read_whatever_its_size(tmp_path: Path) -> None:
    path = tmp_path / "similarity.safetensors"
    for channels, side, depth, widening in ((3, 32, 10, 1), (1, 28, 16, 2)):
        network = SimilarityNetwork(channels, depth, widening).eval()
        save_similarity(path, network)
        again = load_similarity(path)
        assert not again.training
        encodings = torch.randn(3, channels, side, side)
        assert (all_similarities(again, encodings) == all_similarities(network, encodings)).all()


def test_it_is_of_the_published_size() -> None:
    network = SimilarityNetwork(3)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert network.stem.in_channels == 6
    # A stem, twelve blocks of two, and a shortcut where a stage begins.
    assert [conv.kernel_size for conv in convolutions].count((3, 3)) == 25
    assert len(convolutions) == 28
    assert network.head.in_features == 64 * 6


@pytest.mark.parametrize(("depth", "widening"), [(4, 1), (12, 1), (10, 0)])
def test_sizes_that_there_are_not(depth: int, widening: int) -> None:
    with pytest.raises(InstaHideError, match="no wide residual network"):
        SimilarityNetwork(1, depth, widening)


def test_a_damaged_network_and_another_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "similarity.safetensors"
    with pytest.raises(InstaHideError, match="does not hold a similarity network"):
        load_similarity(path)
    save_similarity(path, small())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InstaHideError, match="does not hold a similarity network"):
        load_similarity(path)
    save_encoder(path, PairEncoder(1))
    with pytest.raises(InstaHideError, match="does not hold a similarity network"):
        load_similarity(path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_says_what_a_cpu_says(network: SimilarityNetwork, seen: ShadowBatch) -> None:
    on_cpu = all_similarities(network, seen.encodings)
    on_gpu = all_similarities(network, seen.encodings, device="cuda")
    network.cpu()
    # bfloat16 has 8 bits: far less than what tells pairs apart.
    assert (on_gpu - on_cpu).abs().max() < 0.2 * on_cpu.std()
