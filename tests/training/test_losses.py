"""The losses of each task, against PyTorch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from instahide.errors import InstaHideError
from instahide.training.losses import Loss
from instahide.training.outputs import Outputs
from instahide.training.settings import TrainSettings
from instahide.training.training_state import TrainingState

FINDINGS = Outputs("multi-label", 3)
VALUES = Outputs("regression", 3, mean=(1.0, -2.0, 50.0), std=(2.0, 0.5, 10.0))


def outputs_and_targets(rows: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 3, generator=generator), torch.rand(rows, 3, generator=generator)


def test_classes_have_the_cross_entropy_of_pytorch() -> None:
    logits, targets = outputs_and_targets()
    for weights in ((), (1.0, 2.0, 0.5)):
        total, count = Loss(Outputs(columns=3), weights)(logits, targets)
        weight = torch.tensor(weights) if weights else None
        torch.testing.assert_close(total / count, F.cross_entropy(logits, targets, weight))


def test_findings_have_the_binary_cross_entropy_of_pytorch() -> None:
    logits, targets = outputs_and_targets()
    loss = Loss(FINDINGS, (1.0, 2.0, 0.5), (3.0, 1.0, 0.1))
    total, count = loss(logits, targets)
    expected = nn.BCEWithLogitsLoss(
        torch.tensor([1.0, 2.0, 0.5]), pos_weight=torch.tensor([3.0, 1.0, 0.1])
    )(logits, targets)
    torch.testing.assert_close(total / count, expected)


def test_values_have_the_squared_error_in_units_of_their_deviation() -> None:
    outputs, targets = outputs_and_targets()
    values = VALUES.predictions(targets)
    total, count = Loss(VALUES)(outputs, values)
    torch.testing.assert_close(total / count, F.mse_loss(outputs, targets))


@given(st.lists(st.booleans(), min_size=18, max_size=18), st.sampled_from([FINDINGS, VALUES]))
def test_unknown_targets_change_neither_loss_nor_gradient(known: list[bool], of: Outputs) -> None:
    outputs, targets = outputs_and_targets()
    mask = torch.tensor(known).reshape(6, 3)
    outputs.requires_grad_()
    total, count = Loss(of)(outputs, torch.where(mask, targets, torch.nan))
    (gradient,) = torch.autograd.grad(total, outputs)
    assert int(count) == sum(known)
    assert bool((gradient[~mask] == 0).all())
    assert bool(gradient.isfinite().all())
    if of is FINDINGS:
        expected = F.binary_cross_entropy_with_logits(outputs[mask], targets[mask], reduction="sum")
    else:
        scaled = of.standardised(targets)
        expected = F.mse_loss(outputs[mask], scaled[mask], reduction="sum")
    torch.testing.assert_close(total, expected)


def test_a_step_follows_the_mean_over_known_targets() -> None:
    settings = TrainSettings(device="cpu", precision="float32", ema=0.0, momentum=0.0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 1, 2, 2, generator=generator)
    targets = torch.rand(8, 3, generator=generator)
    targets[:5, 1] = torch.nan
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    twin = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    twin.load_state_dict(network.state_dict())
    state = TrainingState.start(network, settings, loss=Loss(FINDINGS))
    found = state.learn(images, targets, 0.5)
    known = ~targets.isnan()
    loss = F.binary_cross_entropy_with_logits(twin(images)[known], targets[known])
    loss.backward()
    torch.testing.assert_close(found / len(images), loss.detach())
    with torch.no_grad():
        for weights in twin.parameters():
            decay = settings.weight_decay if weights.dim() > 1 else 0.0
            assert weights.grad is not None
            weights -= 0.5 * (weights.grad + decay * weights)
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_batch_without_any_known_target_teaches_nothing() -> None:
    settings = TrainSettings(device="cpu", precision="float32", ema=0.0, weight_decay=0.0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    before = [weights.clone() for weights in network.parameters()]
    state = TrainingState.start(network, settings, loss=Loss(FINDINGS))
    assert state.learn(torch.randn(4, 1, 2, 2), torch.full((4, 3), torch.nan), 0.5) == 0
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, new)


def test_a_single_output_is_the_logit_of_the_second_of_two_classes() -> None:
    logit, targets = torch.randn(5, 1), torch.rand(5, 1)
    total, _ = Loss(Outputs(columns=2))(logit, torch.cat([1 - targets, targets], 1))
    expected = F.binary_cross_entropy_with_logits(logit, targets, reduction="sum")
    torch.testing.assert_close(total, expected)


def test_weights_that_the_task_does_not_have_are_refused() -> None:
    with pytest.raises(InstaHideError, match="A regression has no class weights"):
        Loss(VALUES, (1.0, 1.0, 1.0))
    with pytest.raises(InstaHideError, match="Positive weights are for several findings"):
        Loss(Outputs(columns=2), (), (1.0, 1.0))
    with pytest.raises(InstaHideError, match="2 values in `class_weights`, but 3 classes"):
        Loss(FINDINGS, (1.0, 1.0))
    with pytest.raises(InstaHideError, match="weights must be positive numbers"):
        TrainSettings.from_values({"class_weights": [1.0, 0.0]})


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(InstaHideError, match=r"\(2, 4\) for a batch, not \(n, 3\)"):
        FINDINGS.predictions(torch.zeros(2, 4))
    assert Outputs("multi-label", 1).predictions(torch.zeros(4)).shape == (4, 1)
    np.testing.assert_allclose(VALUES.predictions(torch.zeros(1, 3)), [[1.0, -2.0, 50.0]])
