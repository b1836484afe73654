"""The algorithm with a proof: exact where its conditions hold, and it says where they do not."""

from __future__ import annotations

import networkx
import pytest
import torch
from torch import Tensor

from experiments.theory.provable import EXACT, Planted, Setting
from experiments.theory.provable_recovery import (
    folded,
    pairs_of,
    public_members,
    recover_provably,
    shared_counts,
    signed_values,
)
from instahide.errors import InstaHideError
from tests.attacks.conftest import natural

ALONE, MIXED = Setting(8, 40, 3072), Setting(8, 40, 30_000, 12, 2)


@pytest.mark.slow
@pytest.mark.parametrize("setting", [ALONE, MIXED], ids=["private", "public"])
def test_all_images_come_back_exactly(setting: Setting) -> None:
    planted = Planted(setting, seed=0)
    found = recover_provably(planted.sizes, planted.public, setting.public_k)
    assert found.images.shape == planted.images.shape
    assert planted.errors(found).max() < EXACT
    assert (found.public == planted.chosen.sort(dim=1).values).all()
    # The same encodings hold the same image, whatever it is called.
    assert (sharing(found.members) == sharing(planted.members)).all()


def test_covariance_of_absolute_values_is_that_of_folded_normal_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    for r in (0.0, 0.25, 0.5, 0.9):
        u, v = torch.randn(2, 1_000_000, generator=generator)
        sizes = torch.stack([u, r * u + (1 - r * r) ** 0.5 * v]).abs()
        # One deviation is below 0.0006.
        assert torch.cov(sizes)[0, 1] == pytest.approx(float(folded(torch.tensor(r))), abs=0.003)


def test_shared_images_are_counted_beside_public_ones() -> None:
    planted = Planted(MIXED, seed=1)
    chosen = public_members(planted.sizes, planted.public, MIXED.public_k)
    public = torch.zeros(MIXED.encodings, MIXED.public).scatter(1, chosen, 0.5**0.5)
    assert (shared_counts(planted.sizes, public @ public.T) == sharing(planted.members)).all()


@pytest.mark.parametrize("seed", range(20))
def test_pairs_come_back_from_what_they_share(seed: int) -> None:
    members = Planted(Setting(9, 45, 1), seed).members
    found = pairs_of(sharing(members))
    assert found.unique().tolist() == list(range(9))
    assert (sharing(found) == sharing(members)).all()


def test_values_are_those_of_the_plain_definition() -> None:
    """Against all signs of all encodings, one pixel at a time."""
    private = torch.tensor([[1.0, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1], [2, 1, 0]])
    values = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    offset = torch.randn(5, 20, generator=torch.Generator().manual_seed(1))
    found = signed_values((private @ values + offset).abs(), private, offset)
    torch.testing.assert_close(found, values, atol=1e-4, rtol=0)
    signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0])] * 5)
    for pixel in range(20):
        wanted = signs * (private @ values + offset)[:, pixel].abs() - offset[:, pixel]
        fits = torch.linalg.lstsq(private, wanted.T).solution
        best = (private @ fits - wanted.T).square().sum(dim=0).argmin()
        torch.testing.assert_close(found[:, pixel], fits[:, best], atol=1e-3, rtol=0)


def refused(sizes: Tensor) -> str:
    with pytest.raises(InstaHideError) as error:
        recover_provably(sizes, torch.zeros(0, sizes.shape[1]))
    return str(error.value)


def test_too_few_pixels_are_said() -> None:
    assert "500 pixels are too few" in refused(Planted(Setting(8, 40, 500), 0).sizes)


def test_too_few_encodings_are_said() -> None:
    assert "too few" in refused(Planted(Setting(8, 5, 3072), 0).sizes)


def test_an_image_in_a_single_pair_may_have_either_sign() -> None:
    planted = Planted(ALONE, 0)
    rest = planted.sizes[(planted.members != 7).all(dim=1)]
    alone = ((planted.images[7] + planted.images[0]) / 2**0.5).abs()
    assert "More than one choice of signs" in refused(torch.cat([rest, alone[None]]))


def test_pairs_between_two_halves_are_said() -> None:
    images = Planted(ALONE, 0).images
    sizes = [(images[a] + images[b]).abs() / 2**0.5 for a in range(4) for b in range(4, 8)]
    assert "two halves" in refused(torch.stack(sizes))


def test_three_private_images_and_photographs_and_other_coefficients_are_refused() -> None:
    planted = Planted(Setting(8, 40, 30_000), 0)
    members = planted.members
    coefficients = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) + 0.2
    coefficients /= coefficients.norm(dim=1, keepdim=True)
    unequal = (planted.images[members] * coefficients[:, :, None]).sum(dim=1)
    assert "equal coefficients" in refused(unequal.abs())
    third = members.roll(1, dims=0)[:, :1]
    three = planted.images[torch.cat([members, third], dim=1)].sum(dim=1) / 3**0.5
    refused(three.abs())
    pixels = torch.from_numpy(natural(8, 0, 32)).float().flatten(1)
    pixels = (pixels - pixels.mean()) / pixels.std()
    refused((pixels[members].sum(dim=1) / 2**0.5).abs())


def test_the_signs_of_many_images_are_not_tried() -> None:
    private = torch.eye(17)
    with pytest.raises(InstaHideError, match="17 private images"):
        signed_values(torch.ones(17, 2), private, torch.zeros(17, 2))


def test_what_encodings_share_must_be_what_pairs_would() -> None:
    # A star with three rays is no line graph; and all its edges share an image with one another.
    star = torch.from_numpy(networkx.to_numpy_array(networkx.star_graph(7))).long()
    with pytest.raises(InstaHideError, match="not what pairs"):
        pairs_of(star.fill_diagonal_(2))


def sharing(members: Tensor) -> Tensor:
    """(m, m) how many images encodings share."""
    held = torch.zeros(len(members), int(members.max()) + 1).scatter(1, members, 1.0)
    return (held @ held.T).long()
