"""The normalizations of real libraries, where they are installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from instahide import InstaHideError
from instahide.data.normalization.inference import infer_normalization

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def require(transform: Any, mean: Any = MEAN, std: Any = STD) -> None:
    found = infer_normalization(SimpleNamespace(transform=transform))
    assert found is not None
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(found.std, std, rtol=1e-6)


def test_monai() -> None:
    monai: Any = pytest.importorskip("monai.transforms")
    values = {"subtrahend": np.asarray(MEAN), "divisor": np.asarray(STD)}
    by_name = monai.NormalizeIntensityd("image", **values)
    require(monai.Compose([by_name, monai.RandFlipd("image"), monai.EnsureTyped("image")]))
    noise = monai.RandGaussianNoise(mean=0.0, std=0.1)
    require(monai.Compose([noise, monai.NormalizeIntensity(**values)]))
    for after in (noise, monai.ScaleIntensity(), monai.RandAdjustContrast()):
        with pytest.raises(InstaHideError, match="may change values"):
            require(monai.Compose([monai.NormalizeIntensity(**values), after]))
    for unknown in (noise, monai.NormalizeIntensity(), monai.ScaleIntensity()):
        assert infer_normalization(SimpleNamespace(transform=unknown)) is None


def test_image_processors() -> None:
    transformers: Any = pytest.importorskip("transformers")
    # The processors import torchvision where they can.
    processor = transformers.CLIPImageProcessor
    try:
        made = processor(image_mean=list(MEAN), image_std=list(STD))
    except ImportError:
        pytest.skip("this version of transformers has no processors without torchvision")
    require(made)


def test_torchvision() -> None:
    pytest.importorskip("torchvision.ops", exc_type=Exception)
    from torchvision.models import ResNet18_Weights
    from torchvision.transforms import v2

    normalize = v2.Normalize(MEAN, STD)
    require(v2.Compose([v2.ColorJitter(), normalize, v2.RandomErasing(), v2.ToPureTensor()]))
    require(ResNet18_Weights.DEFAULT.transforms())
    with pytest.raises(InstaHideError, match="GaussianNoise"):
        require(v2.Compose([normalize, v2.GaussianNoise()]))


def test_kornia() -> None:
    kornia: Any = pytest.importorskip("kornia")
    values = {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}
    require(kornia.augmentation.Normalize(**values))
    require(torch.nn.Sequential(kornia.enhance.Normalize(**values)))
