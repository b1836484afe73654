"""When an image counts as recovered: a blank picture never does, whatever the image is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.attacks.base import (
    AssignedImages,
    RecoveredImages,
    ThreatModel,
)
from instahide.audit.ground_truth import observe
from instahide.audit.scoring import metrics
from instahide.audit.scoring.blank_baseline import (
    MARGIN,
    best_blank,
    counts_as_recovered,
)
from instahide.audit.scoring.matching import Matches, match_to_nearest, match_to_truth
from instahide.data import ImageTable, open_split
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError

C1, C2 = 0.01**2, 0.03**2


def digits(count: int = 24) -> Tensor:
    """MNIST digits, on a background that is black."""
    table = open_split("mnist-5k").train
    rows = np.linspace(0, len(table) - 1, count).astype(np.int64)
    return torch.from_numpy(np.array(table.pixels[rows])).float() / 255


def nearly_flat(count: int, spread: float = 0.01) -> Tensor:
    """Grey images in which something faint is drawn, each something else."""
    generator = torch.Generator().manual_seed(3)
    faint = torch.randn(count, 3, 16, 16, generator=generator)
    return (0.5 + spread * torch.nn.functional.avg_pool2d(faint, 3, 1, 1)).clamp(0, 1)


def searched(original: Tensor, steps: int = 400) -> Tensor:
    """(m,) by trying constants, most of them dark, with the metric itself, channel by channel."""
    best = []
    for channel in original.split(1, dim=1):
        tried = [
            metrics.ssim(torch.full_like(channel, float(value)), channel)
            for value in torch.linspace(0, 1, steps).square()
        ]
        best.append(torch.stack(tried).amax(dim=0))
    return torch.stack(best).mean(dim=0)


def test_a_single_window_is_worked_out_by_hand() -> None:
    # One window of 3 x 3: a column of 1 beside two of 0. Its local mean and variance follow from
    # the Gaussian weights, and the best constant is that mean, where the luminance term is 1.
    original = torch.tensor([0.0, 0.0, 1.0]).expand(1, 1, 3, 3)
    side = math.exp(-1 / (2 * (1 / 3.5) ** 2))
    mean = side / (1 + 2 * side)
    expected = C2 / (mean - mean**2 + C2)
    assert float(best_blank(original)) == pytest.approx(expected, rel=1e-3)


def test_a_flat_image_is_its_own_best_blank() -> None:
    for value in (0.0, 0.003, 0.3, 1.0):
        flat = torch.full((2, 3, 12, 12), value)
        assert best_blank(flat).tolist() == pytest.approx([1, 1], abs=1e-4)
    # Each channel has a constant of its own.
    coloured = torch.tensor([0.1, 0.5, 0.9])[:, None, None].expand(1, 3, 12, 12)
    assert float(best_blank(coloured)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", ["digits", "colour", "small", "nearly flat"])
def test_no_constant_is_better_than_the_best(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    original = {
        "digits": digits(6),
        "colour": torch.rand(3, 3, 20, 14, generator=generator).pow(3),
        "small": torch.rand(4, 1, 5, 5, generator=generator),
        "nearly flat": nearly_flat(3),
    }[kind]
    torch.testing.assert_close(best_blank(original), searched(original), rtol=0, atol=5e-4)


def test_equal_rows_are_computed_once_and_stand_where_they_belong() -> None:
    images = digits(5)
    rows = torch.tensor([3, 1, 1, 4, 3])
    found = Matches(
        rows, images[rows], images[rows], torch.ones(5), torch.ones(5) > 0, torch.arange(5)
    )
    torch.testing.assert_close(found.blank, best_blank(images)[rows])


def test_the_best_blank_of_digits_is_black_and_not_their_mean() -> None:
    images = digits()
    mean_colour = metrics.best_affine(torch.zeros_like(images), images)
    assert float(best_blank(images).mean()) > 5 * float(metrics.ssim(mean_colour, images).mean())


def test_the_margin_is_a_share_of_what_is_left_above_the_blank() -> None:
    blank = torch.tensor([0.0, 0.4, 0.4, 0.6, 0.6, 0.97, 0.97, 1.0])
    ssim = torch.tensor([0.51, 0.51, 0.53, 0.67, 0.69, 0.974, 0.98, 1.0])
    assert MARGIN == 0.2
    assert counts_as_recovered(ssim, blank).tolist() == [
        True, False, True, False, True, False, True, False,
    ]  # fmt: skip
    assert not counts_as_recovered(torch.tensor([0.5]), torch.tensor([0.0])).any()


def beside(found: Tensor, original: Tensor) -> Matches:
    """What was ``found`` of each ``original``, which an attack told from all others."""
    mapped, rows = metrics.best_affine(found, original), torch.arange(len(original))
    told = torch.ones(len(original), dtype=torch.bool)
    return Matches(
        rows, mapped, original, metrics.ssim(mapped, original), told, torch.arange(len(original))
    )


BLANKS = {
    "grey": lambda like: torch.full_like(like, 0.5),
    "black": torch.zeros_like,
    "mean colour": lambda like: like.mean(dim=(2, 3), keepdim=True).expand_as(like),
    "noise": lambda like: torch.randn(like.shape, generator=torch.Generator().manual_seed(5)),
    "a grey with faint noise": lambda like: (
        0.5 + 1e-3 * torch.randn(like.shape, generator=torch.Generator().manual_seed(6))
    ),
}


@pytest.mark.parametrize("blank", BLANKS.values(), ids=BLANKS.keys())
@pytest.mark.parametrize(
    "original",
    [nearly_flat(12), torch.full((3, 1, 16, 16), 0.4), digits()],
    ids=["nearly flat", "flat", "digits"],
)  # fmt: skip
def test_a_blank_picture_is_never_recovered(original: Tensor, blank: object) -> None:
    found = beside(blank(original), original)  # type: ignore[operator]
    if original.shape[1] == 3:
        # By SSIM alone, all of these nearly flat images would count.
        assert float(found.ssim.min()) > 0.5
    assert found.recognizable == 0


@pytest.mark.parametrize("original", [nearly_flat(12), digits()], ids=["nearly flat", "digits"])
def test_a_perfect_recovery_of_a_nearly_flat_image_counts(original: Tensor) -> None:
    found = beside(-3 * original + 0.2, original)
    assert found.recognizable == len(original)


def flat_table() -> ImageTable:
    """Twelve grey images of which every one is faintly something else."""
    pixels = (nearly_flat(12, spread=0.02) * 255).round().to(torch.uint8).numpy()
    return ImageTable.from_arrays(pixels, np.arange(12) % 3)


def test_an_attack_that_hands_back_flat_squares_recovers_none_of_a_flat_data_set() -> None:
    table = flat_table()
    seen, truth = observe(table, None, Scheme.inside(2), ThreatModel(public="none"))
    square = torch.zeros_like(seen.encodings)
    found = match_to_truth(RecoveredImages(images=square, target_ids=seen.owners()), seen, truth)
    assert found is not None
    assert found.recognizable == 0
    pixels = torch.from_numpy(table.pixels / 255).float()
    normalized = torch.from_numpy(table.normalized())
    published = match_to_nearest(RecoveredImages(square[:12], torch.arange(12)), normalized, pixels)
    assert published is not None
    assert published.recognizable == 0
    members = torch.arange(len(seen))[:, None] % 12
    solved = match_to_truth(
        AssignedImages(square[:12], members, torch.ones(members.shape)), seen, truth
    )
    assert solved is not None
    assert solved.recognizable == 0
    # The images themselves, by the same three ways.
    whole = RecoveredImages(images=truth.images[truth.partners[:, 0]], target_ids=seen.owners())
    exact = match_to_truth(whole, seen, truth)
    assert exact is not None
    assert exact.recognizable == 12


def test_images_too_small_for_a_window_are_refused() -> None:
    with pytest.raises(InstaHideError, match="2 x 2 pixels"):
        metrics.ssim(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    with pytest.raises(InstaHideError, match="2 x 9 pixels"):
        best_blank(torch.zeros(1, 1, 2, 9))
