"""Which recovered image stands for which private one, and how many can be told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instahide.attacks.base import (
    Finding,
    RecoveredImages,
    ThreatModel,
)
from instahide.audit.ground_truth import observe
from instahide.audit.scoring.matching import (
    Matches,
    likeness_of_others,
    match_to_nearest,
    match_to_truth,
)
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from tests.attacks.conftest import natural


@pytest.fixture(scope="module")
def images() -> ImageTable:
    return ImageTable.from_arrays(natural(12, 5), np.arange(12) % 3)


def private(images: ImageTable) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.normalized()), torch.from_numpy(images.pixels / 255).float()


def noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(0))


def test_the_image_itself_is_recognised_and_noise_is_not(images: ImageTable) -> None:
    observation, truth = observe(
        images, None, Scheme.inside(2), ThreatModel(public="none", encodings_per_image=3)
    )
    rows = truth.partners[:, 0]
    whole = RecoveredImages(images=-2 * truth.images[rows] + 1, target_ids=torch.arange(len(rows)))
    beside = match_to_truth(whole, observation, truth)
    assert beside is not None
    assert beside.summary()["images_recognizable"] == beside.summary()["images_sought"] == 12
    assert beside.summary()["ssim_mean"] > 0.99
    # Each private image once, though each came back three times.
    assert sorted(beside.rows[beside.best_of_each()].tolist()) == list(range(12))
    nothing = RecoveredImages(images=noise(truth.images[rows]), target_ids=torch.arange(len(rows)))
    beside = match_to_truth(nothing, observation, truth)
    assert beside is not None
    assert beside.recognizable == 0
    assert match_to_truth(Finding(), observation, truth) is None


def test_absolute_values_are_compared_with_absolute_values(images: ImageTable) -> None:
    observation, truth = observe(images, None, Scheme.inside(2), ThreatModel(public="none"))
    rows = truth.partners[:, 0]
    found = RecoveredImages(
        images=truth.images[rows].abs(), target_ids=torch.arange(len(rows)), absolute=True
    )
    beside = match_to_truth(found, observation, truth)
    assert beside is not None
    assert beside.recognizable == 12


def test_published_images_stand_beside_what_they_are_most_like(images: ImageTable) -> None:
    normalized, pixels = private(images)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    found = RecoveredImages(normalized[order] * 3 + 0.1 * noise(normalized), torch.arange(12))
    beside = match_to_nearest(found, normalized, pixels)
    assert beside is not None
    assert beside.rows.tolist() == order.tolist()
    assert beside.recognizable == 12


def test_another_private_image_is_not_recognised_as_the_published_one(images: ImageTable) -> None:
    """What stands beside its nearest by choice must be nearer than any other image is."""
    normalized, pixels = private(images)
    # Pairs of images that are alike: each is found where the other was sought.
    twins = torch.cat([pixels, (pixels + 0.02 * noise(pixels)).clamp(0, 1)])
    alike = torch.cat([normalized, normalized + 0.1 * noise(normalized)])
    assert likeness_of_others(alike, twins).min() > 0.5
    blurred = torch.nn.functional.avg_pool2d(normalized, 5, 1, 2, count_include_pad=False)
    beside = match_to_nearest(RecoveredImages(blurred, torch.arange(12)), alike, twins)
    assert beside is not None
    assert beside.recognizable == 0
    # Noise is nobody, although each noise stands beside some image.
    nobody = RecoveredImages(noise(normalized), torch.arange(12))
    beside = match_to_nearest(nobody, normalized, pixels)
    assert beside is not None
    assert len(beside.rows) == 12
    assert beside.recognizable == 0


def test_an_image_counts_once_however_often_it_came_back() -> None:
    pixels = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    told = torch.tensor([True, True, False, True])
    found = Matches(
        torch.tensor([0, 0, 1, 2]),
        pixels,
        pixels,
        torch.tensor([0.9, 0.8, 0.9, 0.4]),
        told,
        torch.arange(5),
    )
    assert found.recognizable == 1
    assert found.best_of_each().tolist() == [0, 2, 3]
    summary = found.summary()
    assert summary["ssim_mean"] == pytest.approx((0.9 + 0.8 + 0.9 + 0.4) / 4)
    assert summary["ssim_mean_of_best"] == pytest.approx((0.9 + 0.9 + 0.4) / 3)
    assert (summary["images_recovered"], summary["images_sought"]) == (4, 5)


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_images_that_show_the_same_are_all_recovered_with_one_of_them(
    images: ImageTable, repeats: int
) -> None:
    """A perfect attack recovers all, and one that finds every picture once does so too."""
    rows = np.arange(4).repeat(repeats)
    several = images.subset(rows)
    values, pixels = private(several)
    threat = ThreatModel(public="none", encodings_per_image=2)
    observation, truth = observe(several, None, Scheme.inside(2), threat)
    encoded = truth.partners[:, 0]
    whole = RecoveredImages(truth.images[encoded], torch.arange(len(encoded)))
    # Of the encodings, those of the first image that shows each picture.
    first = torch.isin(encoded, torch.from_numpy(np.arange(4) * repeats))
    once = RecoveredImages(truth.images[encoded[first]], first.nonzero().flatten())
    of_truth = [match_to_truth(found, observation, truth) for found in (whole, once)]
    published = [
        match_to_nearest(RecoveredImages(found, torch.arange(len(found))), values, pixels)
        for found in (values, values[::repeats])
    ]
    for found in (*of_truth, *published):
        assert found is not None
        assert (found.recognizable, found.total) == (4 * repeats, 4 * repeats)
    alone = likeness_of_others(*private(images.subset(np.arange(4))))
    torch.testing.assert_close(likeness_of_others(values, pixels), alone.repeat_interleave(repeats))
