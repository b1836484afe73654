"""The moving average is of what is learned: tables of indices and masks of a network stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instahide.training.settings import TrainSettings
from instahide.training.training_state import TrainingState

ORDER = torch.randperm(64, generator=torch.Generator().manual_seed(1))


class Attending(nn.Module):
    """A network with buffers as of attention: indices, a mask with infinities, running values."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", ORDER.clone())
        self.register_buffer("kept", torch.arange(64) % 3 > 0)
        self.register_buffer(
            "mask", torch.full((10,), -torch.inf).index_fill(0, torch.arange(8), 0)
        )
        self.norm = nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        values = self.norm(images.flatten(1)[:, self.order] * self.kept)
        scores: Tensor = self.head(values)
        return scores + self.mask.clamp(min=-10)


@pytest.mark.parametrize("ema", [0.0, 0.9, 0.999])
def test_indices_and_infinite_values_stay(ema: float) -> None:
    torch.manual_seed(0)
    network = Attending()
    settings = TrainSettings(device="cpu", precision="float32", ema=ema)
    state = TrainingState.start(network, settings)
    for _ in range(20):
        state.learn(torch.randn(16, 1, 8, 8), torch.rand(16, 10).softmax(1), 0.1)
    fresh = Attending()
    for averaged in (state.network, network):
        for name in ("order", "kept", "mask"):
            assert torch.equal(averaged.get_buffer(name), fresh.get_buffer(name))
        assert averaged.get_buffer("norm.num_batches_tracked") == 20
        assert all(bool(weights.isfinite().all()) for weights in averaged.parameters())
    if ema:
        assert not torch.equal(
            state.network.get_buffer("norm.running_var"), network.norm.running_var
        )
    state.settle()
    assert torch.equal(network.order, ORDER)
