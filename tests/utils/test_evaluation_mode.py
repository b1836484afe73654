"""Measurements of a network leave the mode of each of its modules as it was."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instahide.attacks.membership import confidences
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.training.evaluate import accuracy, table_batches
from instahide.training.predict import predict_encrypted, probabilities

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 1, 4, 4), np.uint8)
IMAGES = ImageTable.from_arrays(PIXELS, np.arange(8) % 2)


class Partly(nn.Module):
    """A network in training whose batch normalization is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 2)
        )
        self.layers[1].eval()
        self.seen: set[bool] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.seen |= {module.training for module in self.modules()}
        if images.shape[-1] != 4:
            raise ValueError("another size")
        return self.layers(images)  # type: ignore[no-any-return]

    def modes(self) -> list[bool]:
        return [module.training for module in self.modules()]


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize(
    "measure",
    [
        lambda model: predict_encrypted(model, Scheme.inside(2), IMAGES, encodings=1),
        lambda model: probabilities(model, torch.from_numpy(IMAGES.normalized())),
        lambda model: accuracy(model, table_batches(IMAGES)),
        lambda model: confidences(model, IMAGES),
    ],
)
def test_frozen_modules_stay_frozen(measure: Callable[[nn.Module], object], root: bool) -> None:
    model = Partly()
    model.training = root
    before = model.modes()
    measure(model)
    assert model.seen == {False}
    assert model.modes() == before


def test_frozen_modules_stay_frozen_after_an_error() -> None:
    model = Partly()
    before = model.modes()
    with pytest.raises(ValueError, match="another size"):
        probabilities(model, torch.zeros(2, 1, 5, 5))
    assert model.modes() == before
