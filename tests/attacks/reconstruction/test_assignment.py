"""Compression, clusters and assignment, on data in which the answer is planted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from instahide.attacks.baselines import all_pairs
from instahide.attacks.reconstruction.assignment import (
    Classes,
    Pairs,
    assign_by_features,
    assign_by_similarity,
    auction,
    classes_of,
    most_likely_pairs,
    prices_of,
    reassigned,
)
from instahide.attacks.reconstruction.clustering import (
    LIKENESS,
    SAME,
    SUPPORT,
    UNSUPPORTED,
    Clusters,
    choose_clusters,
    find_clusters,
    grow_clusters,
    prototypes,
)
from instahide.attacks.reconstruction.feature_model import fit_features
from instahide.attacks.reconstruction.neighbours import NEIGHBOURS as NEAREST
from instahide.attacks.reconstruction.neighbours import nearest_neighbours
from instahide.attacks.reconstruction.pair_encoder import compression, features
from instahide.attacks.reconstruction.pair_encoder.compression import compressed
from instahide.attacks.reconstruction.recovery.coefficients import weights
from tests.attacks.reconstruction.planted import (
    ENCODINGS,
    IMAGES,
    Planted,
    correlation,
    planted_features,
    planted_groups,
    right,
)
from tests.attacks.tensor_sizes import largest_tensor

NEIGHBOURS = "instahide.attacks.reconstruction.neighbours"
CLUSTERING = "instahide.attacks.reconstruction.clustering"
COMPRESSION = "instahide.attacks.reconstruction.pair_encoder.compression"


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.mark.parametrize("count", [IMAGES, None])
def test_groups_are_of_one_image_each_and_all_images_have_one(
    planted: Planted, count: int | None
) -> None:
    groups = find_clusters(planted_features(planted), count, 2, torch.Generator().manual_seed(0))
    assert len(groups) == IMAGES
    share = (planted.weights > 0).float()[groups].mean(dim=1)
    assert share.amax(dim=1).min() > 0.9
    assert set(share.argmax(dim=1).tolist()) == set(range(IMAGES))


def test_neighbours_are_the_most_similar_of_all_others(planted: Planted) -> None:
    found = planted_features(planted)
    rows = torch.tensor([5, 0, ENCODINGS - 1])
    alike = found @ found.T
    alike.fill_diagonal_(-1)
    near = nearest_neighbours(found, rows, 20)
    assert near.shape == (3, 20)
    torch.testing.assert_close(alike[rows].gather(1, near), alike[rows].topk(20, dim=1).values)


def test_groups_among_neighbours_are_of_the_same_images_as_among_all_pairs(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = planted_features(planted)
    starts = torch.randperm(ENCODINGS, generator=torch.Generator().manual_seed(0))
    dense = all_pairs.grow_clusters(
        all_pairs.all_pairs(found), 30, ENCODINGS, torch.Generator().manual_seed(0)
    )
    sparse = grow_clusters(found, 30, starts)
    held = (planted.weights > 0).float()
    one, other = (held[groups.members].mean(dim=1) for groups in (dense, sparse))
    assert other.amax(dim=1).mean() > one.amax(dim=1).mean() - 0.02
    assert (one.argmax(dim=1) == other.argmax(dim=1)).float().mean() > 0.9
    monkeypatch.setattr(f"{NEIGHBOURS}.BLOCK_VALUES", 7 * NEAREST * NEAREST)
    in_blocks = grow_clusters(found, 30, starts)
    assert (in_blocks.members == sparse.members).float().mean() > 0.99


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 3, 12]), st.integers(1, 40))
def test_selected_clusters_are_those_of_the_rule_one_by_one(
    seed: int, count: int | None, at_once: int
) -> None:
    """An oracle: clusters by density; each differs from all kept, and several are the same."""
    generator = torch.Generator().manual_seed(seed)
    images = F.normalize(torch.randn(8, 6, generator=generator), dim=1)
    found = images[torch.randint(8, (60,), generator=generator)]
    found = F.normalize(found + 0.2 * torch.randn(60, 6, generator=generator), dim=1)
    grown = Clusters(torch.arange(60)[:, None], torch.rand(60, generator=generator))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{CLUSTERING}.AT_ONCE", at_once)
        chosen = choose_clusters(found, grown, count)[:, 0].tolist()
    centres = prototypes(found, grown.members)
    alike = centres @ centres.T
    # Blocks of other sizes may round a similarity to the other side of a limit.
    assume(all(float((alike - limit).abs().min()) > 1e-5 for limit in (*LIKENESS, SAME)))
    kept: list[int] = []
    for limit in LIKENESS:
        for row in grown.densities.argsort(descending=True).tolist():
            known = limit >= UNSUPPORTED or int((alike[row] > SAME).sum()) >= SUPPORT
            if count is None and limit >= UNSUPPORTED:
                known = False
            if known and len(kept) != count and all(alike[row, kept] < limit):
                kept.append(row)
    assert chosen == (kept or [int(grown.densities.argmax())])
    if kept and count is None:
        assert choose_clusters(found, grown, most=2)[:, 0].tolist() == kept[:2]


def test_principal_components_keep_similarities_and_ignore_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(10, 500, generator=generator)
    noise = 0.02 * torch.randn(300, 500, generator=generator)
    data = torch.randn(300, 10, generator=generator) @ directions + noise
    whole = features.standardised(data)
    found = compressed(data, lambda block: block, 10)
    assert found.shape == (300, 10)
    torch.testing.assert_close(found @ found.T, whole @ whole.T, atol=2e-3, rtol=0)
    monkeypatch.setattr(f"{COMPRESSION}.BATCH", 7)
    torch.testing.assert_close(compressed(data, lambda block: block, 10).abs(), found.abs())
    # From a sample of the encodings, of which half have each direction many times.
    monkeypatch.setattr(f"{COMPRESSION}.SAMPLE", 150)
    part = compressed(data, lambda block: block, 10)
    torch.testing.assert_close(part @ part.T, whole @ whole.T, atol=0.1, rtol=0)


def test_features_are_computed_in_blocks_and_never_all_at_once() -> None:
    """The largest tensor is the sample or a block, not (n, D)."""
    values = 5000
    sizes, seen = torch.randn(6000, 1, 2, 2), 0

    def wide(block: Tensor) -> Tensor:
        nonlocal seen
        seen = max(seen, len(block))
        return block.flatten(1).repeat(1, values // 4)

    found, largest = largest_tensor(lambda: compressed(sizes, wide))
    assert found.shape == (6000, 128)
    assert seen <= compression.BATCH
    assert largest <= compression.SAMPLE * values < len(sizes) * values


@pytest.mark.slow
def test_memory_of_clusters_and_assignment_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the encodings need no tensor that is more than twice as large."""
    monkeypatch.setattr(f"{NEIGHBOURS}.BLOCK_VALUES", 1 << 14)

    def largest(copies: int) -> int:
        found = planted_pairs(20, copies)[0]

        def run() -> object:
            groups = find_clusters(found, 20, 2, torch.Generator().manual_seed(0))
            return assign_by_features(found, groups, 2, 0.3, count=20)

        return largest_tensor(run)[1]

    assert largest(30) <= 2 * largest(15)


def test_assignment_finds_both_images_of_nearly_all(planted: Planted) -> None:
    found = planted_features(planted)
    groups = planted_groups(planted)
    members = assign_by_similarity(found, prototypes(found, groups), 2)
    assert right(members, planted) > 0.9
    refined, centres = assign_by_features(found, groups, 2, 0.3, count=IMAGES)
    assert right(refined.members, planted) > 0.95
    assert centres.norm(dim=1) == pytest.approx(1, abs=1e-4)
    # Strengths are squared coefficients, as far as the right images were assigned.
    hit = refined.members[:, :, None] == planted.members[:, None, :]
    row, one, other = hit.nonzero(as_tuple=True)
    squares = planted.coefficients[row, other].square()
    assert correlation(refined.strengths[row, one], squares) > 0.8


@pytest.mark.parametrize("count", [IMAGES, None])
def test_images_without_a_cluster_are_found_and_false_ones_dropped(
    planted: Planted, count: int | None
) -> None:
    found, groups = planted_features(planted), planted_groups(planted)
    strange = torch.randperm(ENCODINGS, generator=torch.Generator().manual_seed(0))[:30]
    groups = torch.cat([groups[:-2], strange[None]])
    assigned, centres = assign_by_features(found, groups, 2, 0.3, count=count)
    # If their number is unknown, it may be off by one.
    assert abs(len(centres) - IMAGES) <= int(count is None)
    # Images are in another order: pairs of encodings share an image if they are said to.
    said, true = (
        (held[:, None, :, None] == held[None, :, None, :]).flatten(2).any(dim=2)
        for held in (assigned.members, planted.members)
    )
    assert (said == true).float().mean() > (0.9 if count is None else 0.97)


def test_each_image_is_first_in_as_many_encodings() -> None:
    """Features that speak for a few images do not make all encodings theirs."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(400, 20, generator=generator).topk(2, dim=1).indices.T
    others = torch.stack([first, second], dim=1)
    left = torch.rand(400, 20, generator=generator).argsort(dim=1)[:, :12]
    pairs = Pairs(
        torch.cat([others[:, :1], left[:, ::2]], dim=1).int(),
        torch.cat([others[:, 1:], left[:, 1::2]], dim=1).int(),
        torch.zeros(400, 7),
    )
    pairs.evidence.copy_(1.5 * ((pairs.first < 3) | (pairs.second < 3)))
    due = 400 / 20
    prices = prices_of(pairs, 20)
    free, fair = expected_first(pairs, torch.zeros(20)), expected_first(pairs, prices)
    assert free.max() > 2 * due
    assert fair.max() < 1.3 * due
    assert fair.min() > 0.7 * due
    dear, cheap = (
        most_likely_pairs(pairs, prices).flatten().bincount(minlength=20)
        for prices in (prices, torch.zeros(20))
    )
    assert dear[:3].sum() < cheap[:3].sum()


def test_labels_restrict_images_to_their_classes(planted: Planted) -> None:
    of = torch.arange(IMAGES) % 4
    labels = torch.zeros(ENCODINGS, 4).scatter_add(1, of[planted.members], planted.coefficients)
    found, groups = planted_features(planted, noise=1.5), planted_groups(planted)
    plain, _ = assign_by_features(found, groups, 2, 0.3, count=IMAGES)
    known, centres = assign_by_features(found, groups, 2, 0.3, count=IMAGES, labels=labels)
    assert right(known.members, planted) > right(plain.members, planted)
    classes = classes_of(found, centres, labels)
    assert classes.present.gather(1, classes.of[known.members]).float().mean() > 0.99


def test_an_encoding_is_not_compared_with_its_own_part_of_a_center() -> None:
    """Evidence is that of a regression without the encoding."""
    found, members = planted_pairs(10, 4, noise=1.0)
    strengths = torch.ones(members.shape)
    model = fit_features(found, members, strengths, 10, 1.0)
    others = torch.arange(len(found)) != 7
    without = fit_features(found[others], members[others], strengths[others], 10, 1.0)
    one = model.without_own_part(slice(7, 8), members[7:8])[0] @ torch.linalg.inv(model.white)
    expected = without.centres[members[7]] @ torch.linalg.inv(without.white)
    far = (model.centres[members[7]] @ torch.linalg.inv(model.white) - expected).norm(dim=1)
    close = (one - expected).norm(dim=1)
    assert (close < 0.5 * far).all()


@pytest.mark.parametrize("per_mix", [1, 3])
def test_assignment_of_one_or_three_images(planted: Planted, per_mix: int) -> None:
    generator = torch.Generator().manual_seed(1)
    chosen = torch.rand(ENCODINGS, IMAGES, generator=generator).topk(per_mix, dim=1).indices
    scores = weights(chosen, torch.full((ENCODINGS, per_mix), 3.0), IMAGES)
    scores += 0.3 * torch.randn(scores.shape, generator=generator)
    found = auction(torch.arange(IMAGES).expand(ENCODINGS, -1), scores, IMAGES, per_mix)
    assert (found.sort(dim=1).values == chosen.sort(dim=1).values).all(dim=1).float().mean() > 0.95


def test_an_image_that_all_encodings_claim_is_made_dearer() -> None:
    scores = torch.randn(400, 10, generator=torch.Generator().manual_seed(0))
    scores[:, 0] += 3
    found = auction(torch.arange(10).expand(400, -1), scores, 10, 2)
    counts = found.flatten().bincount(minlength=10)
    assert counts.max() < 1.5 * 80
    assert counts.min() > 0.5 * 80


def test_classes_are_those_of_the_images_and_allow_only_their_pairs(planted: Planted) -> None:
    of = torch.arange(IMAGES) % 4
    labels = torch.zeros(ENCODINGS, 4).scatter_add(1, of[planted.members], planted.coefficients)
    classes = classes_of(planted.weights, torch.eye(IMAGES), labels)
    assert classes.of.tolist() == of.tolist()
    rows, images = slice(5, 55), torch.randint(IMAGES, (50, 6))
    allowed = Classes(labels > 0, of).allow(rows, images)
    expected = [
        [[{int(a), int(b)} == set(of[own].tolist()) for b in of[some]] for a in of[some]]
        for own, some in zip(planted.members[rows], images, strict=True)
    ]
    assert allowed.tolist() == expected


def test_pairs_that_labels_rule_out_are_not_chosen(planted: Planted) -> None:
    of = torch.arange(IMAGES) % 4
    # Wrong labels on purpose: the features speak for other pairs.
    present = torch.zeros(ENCODINGS, 4, dtype=torch.bool)
    present[:, :2] = True
    model = fit_features(
        planted_features(planted), planted.members, torch.ones(ENCODINGS, 2), IMAGES, 0.3
    )
    found = reassigned(model, Classes(present, of)).members
    assert (of[found].sort(dim=1).values == torch.tensor([0, 1])).all()


def planted_pairs(images: int, copies: int, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Features of encodings of two images each, and (n, 2) these images."""
    generator = torch.Generator().manual_seed(0)
    first = torch.arange(images * copies) % images
    second = (first + torch.randint(1, images, first.shape, generator=generator)) % images
    directions = torch.nn.functional.normalize(torch.randn(images, 64, generator=generator), dim=1)
    strange = noise / 8 * torch.randn(len(first), 64, generator=generator)
    return directions[first] + directions[second] + strange, torch.stack([first, second], dim=1)


def expected_first(pairs: Pairs, prices: Tensor) -> Tensor:
    """(m,) expected number of encodings whose first image is each image."""
    either = torch.cat([pairs.first, pairs.second], dim=1).long()
    likely = (torch.cat([pairs.evidence] * 2, dim=1) - prices[either]).softmax(dim=1)
    return torch.zeros(len(prices)).index_add_(0, either.flatten(), likely.flatten())
