"""Every stage alone, on data in which the answer is planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.attacks.reconstruction import confidence
from instahide.attacks.reconstruction.assignment import (
    Classes,
    Templates,
    assign_by_features,
    assign_by_templates,
    classes_of,
    feature_scores,
    refined_scores,
)
from instahide.attacks.reconstruction.clustering import all_pairs, find_clusters, prototypes
from instahide.attacks.reconstruction.confidence import agreement
from instahide.attacks.reconstruction.pair_encoder import features
from instahide.attacks.reconstruction.pair_encoder.network import (
    PairEncoder,
    load_encoder,
    save_encoder,
    shipped_encoder,
)
from instahide.attacks.reconstruction.pair_encoder.training import train_pair_encoder
from instahide.attacks.reconstruction.recovery.coefficients import (
    CoefficientDistribution,
    from_features,
    from_images,
    from_labels,
    weights,
)
from instahide.attacks.reconstruction.recovery.phase_retrieval import ANNEALING, anneal, refine
from instahide.attacks.reconstruction.recovery.sign_sync import synchronize_signs
from instahide.attacks.reconstruction.recovery.sparse_mixing import SparseMixing
from instahide.attacks.reconstruction.recovery.spectral_init import better_start, power_iteration
from instahide.attacks.shadow_encodings import shadow_batches
from instahide.data import ImageTable, open_split
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from tests.attacks.conftest import Steps, natural

IMAGES, ENCODINGS = 12, 600
GROUPS = "instahide.attacks.reconstruction.clustering"


class Planted:
    """Encodings of two images each out of twelve, and a third of the energy of public ones."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        table = ImageTable.from_arrays(natural(IMAGES + 200, 0, 16))
        pixels = torch.from_numpy(table.normalized())
        # Photographs are alike in their channels.
        pixels = 0.3 * pixels + 0.7 * pixels.mean(dim=1, keepdim=True)
        self.images, public = pixels[:IMAGES], pixels[IMAGES:]
        first = np.arange(ENCODINGS) % IMAGES
        second = (first + generator.integers(1, IMAGES, ENCODINGS)) % IMAGES
        self.members = torch.from_numpy(np.stack([first, second], axis=1))
        self.coefficients = torch.from_numpy(
            generator.uniform(0.2, 0.6, (ENCODINGS, 2)).astype(np.float32)
        )
        self.weights = weights(self.members, self.coefficients, IMAGES)
        self.mixes = SparseMixing(self.weights)
        mix = torch.einsum("nm,mchw->nchw", self.weights, self.images)
        mix += 0.3 * public[torch.from_numpy(generator.integers(200, size=ENCODINGS))]
        self.encodings = mix * torch.from_numpy(generator.choice(np.float32([-1, 1]), mix.shape))
        self.sizes = features.magnitudes(self.encodings)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


def likeness(found: Tensor, images: Tensor) -> Tensor:
    return torch.cosine_similarity(found.flatten(1), images.flatten(1), dim=1).abs()


@pytest.mark.parametrize(
    "of", [features.edges_of_magnitude, features.edges_of_square], ids=["magnitude", "square"]
)
def test_features_of_encodings_that_share_an_image_are_more_alike(
    planted: Planted, of: object
) -> None:
    found = of(planted.encodings)  # type: ignore[operator]
    alike = found @ found.T
    share = (planted.weights > 0).float() @ (planted.weights > 0).float().T > 0
    others = ~torch.eye(ENCODINGS, dtype=torch.bool)
    gap = alike[share & others].mean() - alike[~share].mean()
    assert gap > 10 * alike[~share].std() / (~share).sum().sqrt()


def planted_features(planted: Planted, noise: float = 0.5) -> Tensor:
    """Features as an ideal encoder would give them: one direction an image, and noise."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(IMAGES, 200, generator=generator), dim=1)
    strange = torch.randn(ENCODINGS, 200, generator=generator) * noise / 200**0.5
    return features.standardised(planted.weights.square() @ directions * 4 + strange)


@pytest.mark.parametrize("count", [IMAGES, None])
def test_groups_are_of_one_image_each_and_all_images_have_one(
    planted: Planted, count: int | None
) -> None:
    groups = find_clusters(planted_features(planted), count, 2, torch.Generator().manual_seed(0))
    assert len(groups) == IMAGES
    share = (planted.weights > 0).float()[groups].mean(dim=1)
    assert share.amax(dim=1).min() > 0.9
    assert set(share.argmax(dim=1).tolist()) == set(range(IMAGES))


def test_all_pairs_in_blocks_and_in_half_precision_are_those_at_once(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = planted_features(planted)
    at_once = found @ found.T
    monkeypatch.setattr(f"{GROUPS}.ROWS", 7)
    in_blocks = all_pairs(found)
    # But for the few that are capped.
    capped = in_blocks == in_blocks.max()
    assert capped.float().mean() < 0.01
    torch.testing.assert_close(in_blocks[~capped], at_once[~capped], atol=1e-6, rtol=0)
    assert (at_once[capped] >= in_blocks.max() - 1e-6).all()
    monkeypatch.setattr(f"{GROUPS}.SINGLE", 100)
    half = all_pairs(found)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), in_blocks, atol=1e-3, rtol=0)


def test_groups_from_half_precision_are_of_the_same_images(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = planted_features(planted)

    def images() -> set[int]:
        groups = find_clusters(found, IMAGES, 2, torch.Generator().manual_seed(0))
        share = (planted.weights > 0).float()[groups].mean(dim=1)
        assert share.amax(dim=1).min() > 0.9
        return set(share.argmax(dim=1).tolist())

    whole = images()
    monkeypatch.setattr(f"{GROUPS}.SINGLE", 100)
    assert images() == whole


def test_assignment_finds_both_images_of_nearly_all(planted: Planted) -> None:
    found = planted_features(planted)
    scores = feature_scores(found, prototypes(found, planted_groups(planted)))
    members = assign_by_features(scores, 2)
    assert right(members, planted) > 0.9
    refined, centres = refined_scores(found, planted.weights)
    assert right(assign_by_features(refined, 2), planted) > 0.95
    assert centres.norm(dim=1) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("per_mix", [1, 3])
def test_assignment_of_one_or_three_images(planted: Planted, per_mix: int) -> None:
    generator = torch.Generator().manual_seed(1)
    chosen = torch.rand(ENCODINGS, IMAGES, generator=generator).topk(per_mix, dim=1).indices
    scores = weights(chosen, torch.full((ENCODINGS, per_mix), 3.0), IMAGES)
    scores += 0.3 * torch.randn(scores.shape, generator=generator)
    found = assign_by_features(scores, per_mix)
    assert (found.sort(dim=1).values == chosen.sort(dim=1).values).all(dim=1).float().mean() > 0.95


def test_an_image_that_all_encodings_claim_is_made_dearer() -> None:
    scores = torch.randn(400, 10, generator=torch.Generator().manual_seed(0))
    scores[:, 0] += 3
    counts = assign_by_features(scores, 2).flatten().bincount(minlength=10)
    assert counts.max() < 1.5 * 80
    assert counts.min() > 0.5 * 80


def test_classes_are_those_of_the_images_and_allow_only_their_pairs(planted: Planted) -> None:
    of = torch.arange(IMAGES) % 4
    labels = torch.zeros(ENCODINGS, 4).scatter_add(1, of[planted.members], planted.coefficients)
    scores = planted.weights + 0.05 * torch.randn(planted.weights.shape)
    classes = classes_of(scores, labels)
    assert classes.of.tolist() == of.tolist()
    rows, images = slice(5, 55), torch.randint(IMAGES, (50, 6))
    allowed = Classes(labels > 0, of).allow(rows, images)
    expected = [
        [[{int(a), int(b)} == set(of[own].tolist()) for b in of[some]] for a in of[some]]
        for own, some in zip(planted.members[rows], images, strict=True)
    ]
    assert allowed.tolist() == expected


def test_templates_tell_which_two_images_a_mix_holds(planted: Planted) -> None:
    templates = Templates(planted.sizes, planted.images)
    found = assign_by_templates(templates, torch.zeros(ENCODINGS, IMAGES))
    assert right(found, planted) > 0.9
    # The best of all pairs, whichever of its images comes first.
    everything = torch.arange(IMAGES).expand(ENCODINGS, -1)
    total = templates.of_pairs(slice(None), everything)
    total.diagonal(dim1=1, dim2=2).fill_(-1)
    best = total.flatten(1).argmax(dim=1)
    assert (
        found.sort(dim=1).values
        == torch.stack([best // IMAGES, best % IMAGES], 1).sort(dim=1).values
    ).all()


def test_few_candidates_are_nearly_as_good_as_all(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates, nothing = Templates(planted.sizes, planted.images), torch.zeros(ENCODINGS, IMAGES)
    everything = right(assign_by_templates(templates, nothing), planted)
    monkeypatch.setattr("instahide.attacks.reconstruction.assignment.CANDIDATES", IMAGES // 2)
    assert right(assign_by_templates(templates, nothing), planted) > everything - 0.05


def test_an_image_that_nothing_came_of_looks_like_no_encoding(planted: Planted) -> None:
    images = planted.images.clone()
    images[4] = 0
    assert (Templates(planted.sizes, images).alone()[:, 4] == 0).all()


def test_pairs_that_labels_rule_out_are_not_chosen(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instahide.attacks.reconstruction.assignment.BLOCK", 7)
    of = torch.arange(IMAGES) % 4
    # Wrong labels on purpose: the templates speak for other pairs.
    present = torch.zeros(ENCODINGS, 4, dtype=torch.bool)
    present[:, :2] = True
    templates = Templates(planted.sizes, planted.images)
    found = assign_by_templates(templates, torch.zeros(ENCODINGS, IMAGES), Classes(present, of))
    assert (of[found].sort(dim=1).values == torch.tensor([0, 1])).all()


def test_scores_of_images_are_added_to_templates(planted: Planted) -> None:
    scores = torch.zeros(ENCODINGS, IMAGES)
    scores[:, 3:5] = 10.0
    found = assign_by_templates(Templates(planted.sizes, planted.images), scores)
    assert (found.sort(dim=1).values == torch.tensor([3, 4])).all()


def test_a_template_is_what_it_says(planted: Planted) -> None:
    """Against the plain definition: the correlation with the high-pass of (l a + m b)^2."""
    from instahide.attacks.reconstruction.pair_encoder.filters import high_pass

    templates = Templates(planted.sizes, planted.images)
    degrees = 40.0
    angle = np.radians(degrees)
    squares = high_pass(planted.sizes.square()).flatten(1)
    spread = squares.std(dim=0) + 1e-6
    seen = torch.nn.functional.normalize((squares - squares.mean(dim=0)) / spread, dim=1)
    a, b = 2, 5
    mix = np.cos(angle) * planted.images[a] + np.sin(angle) * planted.images[b]
    template = high_pass(mix.square()).flatten() / spread
    expected = seen @ (template / template.norm())
    some = slice(3, 90)
    candidates = torch.tensor([1, a, b, 0]).expand(87, -1)
    found = templates.of_pairs(some, candidates, [degrees])[:, 1, 2]
    torch.testing.assert_close(found, expected[some], atol=1e-4, rtol=1e-3)


def test_labels_give_coefficients_and_share_those_of_one_class() -> None:
    labels = torch.tensor([[0.4, 0.2, 0.0], [0.0, 0.0, 0.6]])
    found = from_labels(
        labels,
        torch.tensor([0, 1, 2, 2]),
        torch.tensor([[0, 1], [2, 3]]),
        torch.tensor([[0.5, 0.5], [0.3, 0.1]]),
    )
    torch.testing.assert_close(found, torch.tensor([[0.4, 0.2], [0.45, 0.15]]))


def test_features_give_coefficients_that_go_with_the_real_ones(planted: Planted) -> None:
    found = planted_features(planted)
    centres = prototypes(found, planted_groups(planted))
    guess = from_features(
        found, centres, planted.members, CoefficientDistribution.of(Scheme.cross(4))
    )
    assert correlation(guess, planted.coefficients) > 0.6


def test_images_give_better_coefficients(planted: Planted) -> None:
    law = CoefficientDistribution.of(Scheme.cross(4))
    scale = planted.encodings.square().mean().sqrt()
    start = torch.full_like(planted.coefficients, law.mean)
    found = from_images(planted.sizes, planted.images / scale, planted.members, start, law, 0.65)
    assert correlation(found, planted.coefficients) > 0.9
    assert found.mean() == pytest.approx(law.mean, rel=1e-4)


def test_the_law_is_that_of_the_encoder(planted: Planted) -> None:
    law = CoefficientDistribution.of(Scheme.cross(6))
    assert law.total == pytest.approx(2 * law.mean, rel=1e-5)
    values = torch.tensor([[0.3, 0.1], [0.9, 0.5]])
    ranked = law.matched(values).flatten()
    assert ranked.argsort().tolist() == values.flatten().argsort().tolist()
    assert ranked.min() == law.sorted[0]
    assert ranked.max() == law.sorted[-1]


def test_alignment_undoes_any_turning_of_pixels(planted: Planted) -> None:
    generator = np.random.default_rng(0)
    signs = torch.from_numpy(generator.choice(np.float32([-1, 1]), planted.images.shape[1:]))
    found = synchronize_signs(planted.images * signs)
    turned = (found * planted.images).sum(dim=0).sign()
    assert turned.mean().abs() > 0.95


def test_recovery_from_a_start_that_is_nearly_right(planted: Planted) -> None:
    from instahide.attacks.reconstruction.pair_encoder.filters import blur

    scale = planted.encodings.square().mean().sqrt()
    start = blur(planted.images / scale, 2.0)
    annealed = anneal(planted.sizes, planted.mixes, start, ANNEALING)
    refined = refine(planted.sizes, planted.mixes, annealed, 5)
    before, between, after = (
        float(likeness(found, planted.images).mean()) for found in (start, annealed, refined)
    )
    assert before < between < after
    assert after > 0.85


def test_the_start_has_the_signs_of_whole_images(planted: Planted) -> None:
    """Many starts settle in patches of pixels; the one that explains most does not."""
    generator = torch.Generator().manual_seed(0)
    start = power_iteration(planted.sizes, planted.mixes, generator)
    pixels = torch.cosine_similarity(start.flatten(1), planted.images.flatten(1), dim=0)
    assert pixels.mean().abs() > 0.5 * pixels.abs().mean()


def test_images_in_patches_get_a_better_start_and_right_ones_do_not(planted: Planted) -> None:
    turned = planted.images.clone()
    turned[:6, ..., :8] *= -1
    fresh = better_start(planted.sizes, planted.mixes, turned, torch.Generator().manual_seed(0))
    assert fresh is not None
    pixels = torch.cosine_similarity(fresh.flatten(1), planted.images.flatten(1), dim=0)
    assert pixels.mean().abs() > 0.5 * pixels.abs().mean()
    generator = torch.Generator().manual_seed(0)
    assert better_start(planted.sizes, planted.mixes, planted.images, generator) is None


def test_an_image_is_right_if_both_halves_and_all_encodings_give_it(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = planted.images.clone()
    turned[..., ::2] *= -1
    halves = [planted.images.clone(), -planted.images]
    halves[1][2] = turned[2]
    monkeypatch.setattr(
        "instahide.attacks.reconstruction.confidence.recover", lambda *_, **__: halves.pop()
    )
    images = planted.images.clone()
    images[1] = turned[1]
    sure = agreement(planted.sizes, planted.weights, images, torch.Generator())
    # 1: the halves give another image than all encodings do; 2: they do not agree.
    assert sure[[0, *range(3, IMAGES)]] == pytest.approx(1, abs=1e-4)
    assert sure[1:3].max() < 0.5


def test_neither_brightness_nor_contrast_nor_sign_makes_an_image_another(planted: Planted) -> None:
    other = 3 - 0.1 * planted.images
    assert confidence.likeness(planted.images, other) == pytest.approx(1, abs=1e-4)


def test_images_that_share_no_more_than_a_dark_half_are_not_alike(planted: Planted) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = 0.3 * torch.randn((2, 20, *planted.images.shape[1:]), generator=generator)
    for images in (first, second):
        images[..., :16] -= 1
    assert likeness(first, second).min() > 0.7
    assert confidence.likeness(first, second).max() < 0.5


def test_two_images_with_errors_of_their_own_tell_how_near_they_are(planted: Planted) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((2, *planted.images.shape), generator=generator)
    first, second = (planted.images + 0.5 * planted.images.std() * one for one in noise)
    between = confidence.likeness(first, second)
    itself = confidence.likeness(first, planted.images).square()
    assert float(between.mean()) == pytest.approx(float(itself.mean()), abs=0.05)


def test_structure_is_the_root_of_ssim(planted: Planted) -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    generator = torch.Generator().manual_seed(0)
    centred = planted.images - planted.images.mean(dim=(2, 3), keepdim=True)
    one = centred / centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    other = (one + 0.3 * torch.randn(one.shape, generator=generator)) / 1.09**0.5
    known = structural_similarity_index_measure(one, other, data_range=4.0, reduction="none")
    # The library leaves out the edges of images.
    found = confidence.structure(one, other).square()
    assert found.numpy() == pytest.approx(torch.as_tensor(known).numpy(), abs=0.03)


def test_flat_images_are_like_nothing() -> None:
    flat, other = torch.ones(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    assert confidence.likeness(flat, other).tolist() == [0, 0]
    assert confidence.likeness(flat, flat).tolist() == [0, 0]


def test_the_encoder_learns_from_shadow_encodings_alone(tmp_path: Path) -> None:
    shadow = ImageTable.from_arrays(natural(100, 3, 16))
    batch = next(shadow_batches(shadow, Scheme.cross(6)))
    assert batch.encodings.shape == (192, 3, 16, 16)
    # 4 encodings an image, and a partner each: about one pair in twelve.
    assert 0.05 < batch.shares.float().mean() < 0.15
    assert batch.shares.diagonal().all()
    losses: list[float] = []
    encoder = train_pair_encoder(
        shadow, Scheme.cross(4), Steps(15), lambda what, _: losses.append(float(what.split()[-1]))
    )
    assert len(losses) == 15
    assert losses[-1] < losses[0]
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    again = load_encoder(tmp_path / "encoder.safetensors")
    torch.testing.assert_close(again.features(batch.encodings), encoder.features(batch.encodings))


def test_no_shadow_image_is_changed_by_training() -> None:
    shadow = ImageTable.from_arrays(natural(60, 3, 16))
    before = shadow.pixels.copy()
    next(shadow_batches(shadow, Scheme.cross(4)))
    assert (shadow.pixels == before).all()


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)], ids=str)
def test_shipped_encoders_are_small(shape: tuple[int, int, int]) -> None:
    encoder = shipped_encoder(shape)
    assert encoder is not None
    assert sum(weight.numel() for weight in encoder.parameters()) < 25_000
    assert encoder.features(torch.randn(4, *shape)).norm(dim=1) == pytest.approx(1, abs=1e-4)


def test_there_is_no_encoder_for_other_shapes() -> None:
    assert shipped_encoder((3, 17, 17)) is None


def test_digits_share_more_in_the_shipped_features_than_in_untrained_ones() -> None:
    """The encoder has learnt from photographs alone."""
    digits = open_split("mnist-5k").train.subset(slice(0, 40))
    public = ImageTable.from_arrays(natural(300, 4, 28)[:, :1])
    batch = next(shadow_batches(digits, Scheme.cross(4), public=public, encodings=400))
    encoder = shipped_encoder((1, 28, 28))
    assert encoder is not None
    others = ~torch.eye(len(batch.encodings), dtype=torch.bool)

    def apart(found: Tensor) -> float:
        """How far likeness is apart, in its own deviations."""
        likeness = found @ found.T
        strange = likeness[~batch.shares]
        return float((likeness[batch.shares & others].mean() - strange.mean()) / strange.std())

    assert apart(encoder.features(batch.encodings)) > apart(
        features.edges_of_square(batch.encodings)
    )


def test_a_damaged_encoder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, PairEncoder(1))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InstaHideError, match="does not hold a pair encoder"):
        load_encoder(path)


def planted_groups(planted: Planted) -> Tensor:
    """The 30 encodings that hold most of each image."""
    return planted.weights.topk(30, dim=0).indices.T


def right(members: Tensor, planted: Planted) -> float:
    """Share of the coefficients that were given to the right image."""
    hit = (members[:, :, None] == planted.members[:, None, :]).any(dim=1)
    return float((planted.coefficients * hit).sum() / planted.coefficients.sum())


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])
