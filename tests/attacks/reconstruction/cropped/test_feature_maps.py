"""Feature maps move with the images, and tell which encodings share one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instahide.attacks.base import ThreatModel
from instahide.attacks.reconstruction.cropped.feature_maps import feature_maps, whitened
from instahide.attacks.reconstruction.cropped.moves import best_moves
from instahide.attacks.reconstruction.pair_encoder.features import magnitudes
from instahide.attacks.reconstruction.pair_encoder.network import PairEncoder, shipped_encoder
from instahide.audit.ground_truth import observe
from instahide.data import ImageTable
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.scheme import Scheme
from tests.attacks.conftest import natural


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 32, 32), (5, 24, 24)])
def test_maps_of_a_moved_encoding_are_moved(shape: tuple[int, ...]) -> None:
    encoder = shipped_encoder(shape)
    assert encoder is not None
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(4, shape[0], shape[1] + 5, shape[2] + 3, generator=generator)
    sizes = magnitudes(large)
    with torch.no_grad():
        one = encoder.maps(sizes[:, :, 5:, 3:].contiguous())
        other = encoder.maps(sizes[:, :, :-5, :-3].contiguous())
    # Far from the borders, whose neighborhoods differ. Maps have a mean of 0 over their own pixels.
    one, other = one[:, :, 7:-12, 7:-10], other[:, :, 12:-7, 10:-7]
    centred = [part - part.mean(dim=(2, 3), keepdim=True) for part in (one, other)]
    alike = torch.cosine_similarity(*(part.flatten(1) for part in centred), dim=1)
    assert alike.min() > 0.99


def test_maps_at_rest_are_as_alike_as_features() -> None:
    encoder = PairEncoder(3)
    generator = torch.Generator().manual_seed(0)
    sizes = magnitudes(torch.randn(60, 3, 16, 16, generator=generator))
    encoder.calibrate(sizes)
    with torch.no_grad():
        flat, maps = encoder(sizes), encoder.maps(sizes).flatten(1)
    assert (
        torch.corrcoef(torch.stack([(flat @ flat.T).flatten(), (maps @ maps.T).flatten()]))[0, 1]
        > 0.9
    )


@pytest.mark.slow
@pytest.mark.usefixtures("same_keys")
@pytest.mark.parametrize("known", [True, False])
def test_encodings_that_share_an_image_are_alike_where_it_is(known: bool) -> None:
    images = 20
    private = ImageTable.from_arrays(natural(images, 1), np.arange(images) % 5)
    public, scheme = ImageTable.from_arrays(natural(500, 2)), Scheme.cross(6)
    threat = ThreatModel(labels="none", public="none", encodings_per_image=10)
    crop = Augmentation(padding=2)
    observation, truth = observe(private, public, scheme, threat, augmentation=crop)
    assert truth.moves is not None
    shape = observation.encodings.shape[1:]
    encoder = shipped_encoder(tuple(shape)) if known else None
    maps = feature_maps(observation.encodings, encoder, 2)
    torch.testing.assert_close(maps.flatten(1).norm(dim=1), torch.ones(len(maps)))
    fits = best_moves(maps, maps, 4)
    owners, moves = truth.partners[:, 0], truth.moves[:, 0, :2]
    same = (owners[:, None] == owners) & ~torch.eye(len(maps), dtype=torch.bool)
    right = (fits.moves == moves[:, None] - moves[None]).all(dim=2)
    # By chance one of 81 moves is the right one.
    assert right[same].float().mean() > 4 / 81
    assert fits.values[same].mean() > fits.values[~same & (fits.values < 0.99)].mean()


def test_whitened_noise_has_an_even_spectrum() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(400, 2, 16, 16, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(maps, 3, stride=1, padding=1)

    def spread(of: torch.Tensor) -> float:
        energy = torch.fft.rfft2(of).abs().square().mean(dim=(0, 1))
        return float(energy.max() / energy.mean())

    assert spread(whitened(smooth)) < 0.6 * spread(smooth)
