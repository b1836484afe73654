"""A wrapped loader with labels of several findings and of measured values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from instahide import ImageTable, Scheme, encode_loader, open_images, open_pool
from instahide.data.labels import Task
from instahide.errors import InstaHideError, SchemeError

COUNT = 32
IMAGES = open_images("digits").normalized(slice(0, COUNT))


def loader_of(labels: Tensor) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(torch.from_numpy(IMAGES), labels), batch_size=8)


def labels_of(labels: Tensor, task: Task, scheme: Scheme | None = None) -> Tensor:
    wrapped = encode_loader(loader_of(labels), scheme or Scheme.plain(), task=task)
    return torch.cat([found for _, found in wrapped])


MULTI_HOT = torch.randint(0, 2, (COUNT, 3), generator=torch.Generator().manual_seed(0))
NUMBERS = torch.arange(COUNT)


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (MULTI_HOT, "multi-label"),
        (MULTI_HOT.bool(), "multi-label"),
        (MULTI_HOT.float(), "multi-label"),
        (MULTI_HOT[:, 0], "multi-label"),
        (MULTI_HOT[:, :1], "multi-label"),
        (NUMBERS.float() - 5, "regression"),
        (NUMBERS[:, None].double(), "regression"),
        (NUMBERS, "regression"),
        (MULTI_HOT * 1.5 - 7, "regression"),
    ],
)
def test_targets_of_any_shape_become_floats_with_a_column_for_each(
    labels: Tensor, task: Task
) -> None:
    found = labels_of(labels, task)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, labels.reshape(COUNT, -1).float())


def test_mixed_targets_are_means_and_unknown_findings_stay_unknown() -> None:
    labels = MULTI_HOT.float()
    labels[:, 1] = torch.nan
    found = labels_of(labels, "multi-label", Scheme.inside(4))
    assert bool(found[:, 1].isnan().all())
    assert bool(((found[:, ::2] >= 0) & (found[:, ::2] <= 1 + 1e-6)).all())
    assert bool(((found[:, 0] > 0) & (found[:, 0] < 1)).any())


@pytest.mark.parametrize(
    ("labels", "task", "said"),
    [
        (MULTI_HOT, "single-label", "task='multi-label'"),
        (NUMBERS.float(), "single-label", "task='regression'"),
        (NUMBERS[:, None].float(), "single-label", "task='regression'"),
        (MULTI_HOT.float(), "single-label", "task='multi-label'"),
        (2 * MULTI_HOT, "multi-label", "values that a multi-label task does not have"),
        (NUMBERS.long() + (1 << 24), "regression", "would be rounded"),
        (NUMBERS.float() / 0, "regression", "values that a regression task does not have"),
        (torch.zeros(COUNT, 8, 8, dtype=torch.int64), "multi-label", "its targets, numbers"),
    ],
)
def test_labels_that_are_not_of_the_task_are_refused(labels: Tensor, task: Task, said: str) -> None:
    with pytest.raises(InstaHideError, match=said):
        labels_of(labels, task)


def test_soft_labels_may_be_rounded_to_float16() -> None:
    shares = torch.rand(COUNT, 1000, generator=torch.Generator().manual_seed(0)).softmax(1)
    found = labels_of(shares.half(), "single-label")
    torch.testing.assert_close(found, shares, atol=1e-3, rtol=0)


@pytest.mark.parametrize("views", [(2, 3), (5, 3), (10, 1)])
def test_several_views_of_an_item_are_no_volumes(views: tuple[int, int]) -> None:
    """Each view would be one more encoding, all of one mix under masks of their own."""
    crops = torch.randn(COUNT, *views, 8, 8, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(crops, NUMBERS % 4), batch_size=8)
    with pytest.raises(InstaHideError, match="several views or crops"):
        next(iter(encode_loader(data, Scheme.inside(2), classes=4)))


def test_masks_of_segmentation_are_refused() -> None:
    masks = torch.zeros(COUNT, 5, 7, dtype=torch.int64)
    wrapped = encode_loader(loader_of(masks), Scheme.plain(), fields=(None, 1), task="multi-label")
    with pytest.raises(InstaHideError, match="Segmentation masks are not supported"):
        next(iter(wrapped))


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (torch.from_numpy(IMAGES).flatten(1), "regression"),
        (torch.from_numpy(IMAGES > 0).flatten(1), "multi-label"),
        (torch.from_numpy(IMAGES > 0).flatten(1).repeat(1, 2), "multi-label"),
    ],
)
def test_flattened_images_and_masks_are_no_targets(labels: Tensor, task: Task) -> None:
    with pytest.raises(InstaHideError, match="flattened images or segmentation masks"):
        labels_of(labels, task)
    pixels = np.zeros((COUNT, 1, 8, 8), np.uint8)
    with pytest.raises(InstaHideError, match="flattened images or segmentation masks"):
        ImageTable.from_arrays(pixels, labels.float().abs().clamp(max=1).numpy(), task=task)
    assert labels_of(labels[:, :63], task).shape == (COUNT, 63)


def test_class_numbers_may_be_a_column() -> None:
    numbers = (NUMBERS % 4)[:, None]
    wrapped = encode_loader(loader_of(numbers), Scheme.plain(), classes=4)
    found = torch.cat([labels for _, labels in wrapped])
    np.testing.assert_array_equal(found.argmax(1), numbers[:, 0])


@pytest.mark.slow
def test_soft_targets_with_public_images_are_refused() -> None:
    table = open_images("digits")
    moments = {"mean": table.mean, "std": table.std}
    pool = open_pool("photos", table.shape)
    with pytest.raises(SchemeError, match="label_mode='renormalised'"):
        encode_loader(
            loader_of(MULTI_HOT), Scheme.cross(4), public=pool, task="multi-label", **moments
        )
    scheme = Scheme.cross(4, label_mode="renormalised")
    constant = torch.full((COUNT,), 40.0)
    wrapped = encode_loader(loader_of(constant), scheme, public=pool, task="regression", **moments)
    for _, labels in wrapped:
        torch.testing.assert_close(labels, torch.full((8, 1), 40.0))
