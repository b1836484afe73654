"""A normalization is what a step is, not what attributes it has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset

from instahide import ImageTable, InstaHideError, Scheme, encode_loader
from instahide.data.normalization.inference import infer_normalization
from instahide.data.normalization.normalization import Normalization

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def step(kind: str, **attributes: Any) -> Any:
    """A transform by the name that its library gives it."""
    made = type(kind, (), {})()
    vars(made).update(attributes)
    return made


def compose(*steps: Any) -> Any:
    return step("Compose", transforms=list(steps))


def data(transform: Any, **more: Any) -> Any:
    return SimpleNamespace(transform=transform, **more)


class Module(nn.Module):
    """Kornia's transforms are modules with tensors."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


class Normalize(Module):
    """By name."""


TORCHVISION = step("Normalize", mean=list(MEAN), std=list(STD), inplace=False)
NORMALISATIONS: dict[str, Any] = {
    "torchvision": TORCHVISION,
    "torchvision to 255": step(
        "Normalize", mean=[255 * each for each in MEAN], std=[255 * each for each in STD]
    ),
    "albumentations": step(
        "Normalize", mean=MEAN, std=STD, max_pixel_value=255.0, normalization="standard", p=1.0
    ),
    "kornia": Normalize(mean=torch.tensor(MEAN), std=torch.tensor(STD)),
    "kornia augmentation": step("Normalize", flags={"mean": torch.tensor([MEAN]), "std": STD}),
    "MONAI": step(
        "NormalizeIntensity", subtrahend=np.array(MEAN), divisor=np.array(STD), nonzero=False
    ),
    "MONAI of a mapping": step(
        "NormalizeIntensityd",
        normalizer=step("NormalizeIntensity", subtrahend=MEAN, divisor=STD, nonzero=False),
    ),
    "Hugging Face": step(
        "ViTImageProcessor", image_mean=MEAN, image_std=STD, do_normalize=True, do_rescale=True,
        rescale_factor=1 / 255,
    ),
    "Hugging Face, factor in the mean": step(
        "ViTImageProcessor", do_normalize=True, do_rescale=True, rescale_factor=2 / 255,
        image_mean=[2 * each for each in MEAN], image_std=[2 * each for each in STD],
    ),
    "Hugging Face processor": step(
        "CLIPProcessor", image_processor=step("X", image_mean=MEAN, image_std=STD)
    ),
    "timm's settings": {"mean": MEAN, "std": STD, "input_size": (3, 8, 8)},
    "of a sequence": nn.Sequential(Normalize(mean=torch.tensor(MEAN), std=torch.tensor(STD))),
}  # fmt: skip

HARMLESS = [
    "RandomHorizontalFlip", "RandFlipd", "RandomCrop", "ToTensorV2", "EnsureTyped", "Resize",
    "RandomErasing", "RandAffined", "CastToTyped", "ToDtype", "CenterCrop", "HorizontalFlip",
]  # fmt: skip
CHANGING = [
    "RandGaussianNoise", "ColorJitter", "ScaleIntensity", "ScaleIntensityRanged", "Lambda",
    "RandAdjustContrast", "RandScaleIntensity", "GaussianBlur", "MixUp", "Mystery", "Denormalize",
]  # fmt: skip


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_every_library_s_normalization_is_recognised(kind: str) -> None:
    known = NORMALISATIONS[kind]
    noise = step("RandGaussianNoise", mean=0.0, std=0.1)
    for transform in (known, compose(noise, known), compose(compose(known), step("ToTensorV2"))):
        found = infer_normalization(Subset(data(transform), [0]))
        assert found is not None
        np.testing.assert_allclose(found.mean, MEAN)
        np.testing.assert_allclose(found.std, STD)


@given(
    before=st.lists(st.sampled_from(HARMLESS + CHANGING), max_size=4),
    after=st.lists(st.sampled_from(HARMLESS), max_size=4),
    last=st.none() | st.sampled_from(CHANGING),
)
def test_steps_after_it_may_move_values_but_not_change_them(
    before: list[str], after: list[str], last: str | None
) -> None:
    names = [*before, "Normalize", *after, *([last] if last else [])]
    attributes = {"mean": list(MEAN), "std": list(STD)}
    transform = compose(*(step(name, **attributes) for name in names))
    if last is None:
        assert infer_normalization(data(transform)) == Normalization(MEAN, STD)
        return
    with pytest.raises(InstaHideError, match=rf"has a {last}, which may change values"):
        infer_normalization(data(transform))


@pytest.mark.parametrize("kind", [*CHANGING, *HARMLESS, "Augmentation"])
def test_a_mean_and_a_std_alone_are_no_normalization(kind: str) -> None:
    assert infer_normalization(data(compose(step(kind, mean=0.0, std=0.1)))) is None


@pytest.mark.parametrize(
    "unknown",
    [
        step("NormalizeIntensity", subtrahend=None, divisor=None, nonzero=False),
        step("NormalizeIntensity", subtrahend=MEAN, divisor=STD, nonzero=True),
        step("Normalize", mean=MEAN, std=STD, normalization="image"),
        step("Normalize", mean=MEAN, std=STD, p=0.5),
        step("RandomApply", transforms=[TORCHVISION], p=0.5),
        step("OneOf", transforms=[TORCHVISION, step("Identity")], p=1),
        step("EfficientNetImageProcessor", image_mean=MEAN, image_std=STD, rescale_offset=True),
        step("Normalize", mean="imagenet", std="imagenet"),
        lambda image: image,
    ],
)
def test_what_is_not_one_affine_map_for_all_images_is_unknown(unknown: Any) -> None:
    assert infer_normalization(data(compose(unknown))) is None
    with pytest.raises(InstaHideError, match="may change values"):
        infer_normalization(data(compose(TORCHVISION, unknown)))


def test_two_normalizations_are_composed_from_the_inside_out() -> None:
    inner = data(step("Normalize", mean=[0.2], std=[0.5]))
    outer = data(TORCHVISION, dataset=Subset(inner, [0]))
    found = infer_normalization(outer)
    assert found is not None
    values = np.linspace(0, 1, 5)[:, None]
    expected = ((values - 0.2) / 0.5 - MEAN) / STD
    np.testing.assert_allclose((values - found.mean) / found.std, expected)
    twice = data(compose(step("Normalize", mean=[0.1, 0.2], std=[1, 1]), TORCHVISION))
    with pytest.raises(InstaHideError, match="normalized twice"):
        infer_normalization(twice)


def test_parts_of_a_whole_must_agree() -> None:
    class Part(Subset[Any]):
        transform: Any = None

    parts = [Part([0], [0]), Part([0], [0])]  # type: ignore[arg-type]
    parts[0].transform = parts[1].transform = TORCHVISION
    assert infer_normalization(ConcatDataset(parts)) == Normalization(MEAN, STD)
    parts[1].transform = step("Normalize", mean=[0.1], std=[0.2])
    with pytest.raises(InstaHideError, match="parts of the data set are normalized differently"):
        infer_normalization(ConcatDataset(parts))


class Scans:
    """Grey images, normalized by ``mean`` and ``std``, that say ``transform``."""

    classes = ("a", "b")

    def __init__(self, transform: Any, mean: float = 0.5, std: float = 0.25) -> None:
        self.transform, self.mean, self.std = transform, mean, std
        self.images = torch.rand(64, 1, 8, 8)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        return (self.images[index] - self.mean) / self.std, index % 2


POOL = ImageTable.from_arrays(np.random.default_rng(0).integers(0, 256, (99, 8, 8), dtype=np.uint8))
GREY = step("Normalize", mean=[0.5], std=[0.25])


def batches(scans: Scans, **more: Any) -> list[Any]:
    return list(encode_loader(DataLoader(scans, 16), Scheme.cross(4), public=POOL, **more))  # type: ignore[arg-type]


def test_a_loader_takes_what_its_transforms_say_and_the_values_confirm() -> None:
    assert len(batches(Scans(GREY))) == 4
    assert len(batches(Scans(compose(step("RandGaussianNoise", mean=0.0, std=0.1), GREY)))) == 4
    assert len(batches(Scans(None, 0.5, 0.25), mean=[127.5], std=[63.75])) == 4


@pytest.mark.parametrize(
    "scans",
    [
        Scans(compose(GREY, step("RandGaussianNoise", mean=0.0, std=0.1))),
        Scans(step("RandGaussianNoise", mean=0.0, std=0.1)),
        Scans(step("Normalize", mean=[0.1307], std=[0.02])),
        Scans(GREY, 0.5, 0.1),
        Scans(GREY, 0.0, 1.0),
        Scans(GREY, 0.0, 1 / 255),
        Scans(compose(GREY, GREY, GREY)),
        Scans(compose(GREY, step("ScaleIntensity"))),
    ],
)
def test_what_transforms_say_is_refused_where_values_say_otherwise(scans: Scans) -> None:
    with pytest.raises(InstaHideError):
        batches(scans)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.0, 0.1), (0.002, 0.25), (0.5, 0.025), (0.5, 2.5), (0.9, 0.25), (0.5, 0.5), (127.5, 0.25)],
)
def test_what_is_given_by_hand_is_refused_where_values_say_otherwise(
    mean: float, std: float
) -> None:
    with pytest.raises(InstaHideError):
        batches(Scans(None), mean=[mean], std=[std])


def test_a_mask_that_hides_nothing_is_refused_in_whatever_batch_it_shows() -> None:
    scans = Scans(None, 0.002, 0.25)
    for size in (1, 8, 64):
        with pytest.raises(InstaHideError, match="mask would hide nothing"):
            list(encode_loader(DataLoader(scans, size), Scheme.inside(3)))  # type: ignore[arg-type]
    # An odd first batch is no reason to refuse a data set that is normalized.
    scans = Scans(None)
    scans.images[:4] = scans.images[:4] * 0.3 + 0.6
    assert list(encode_loader(DataLoader(scans, 4), Scheme.inside(3)))  # type: ignore[arg-type]
