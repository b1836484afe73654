"""The loop: it learns, it says what goes wrong, and what it shows is true."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from rich.console import Console
from sklearn.datasets import load_digits
from torch import Tensor, nn

from instahide.errors import InstaHideError
from instahide.training.device import pick_precision
from instahide.training.evaluate import accuracy
from instahide.training.history import EpochRecord, patience_exhausted
from instahide.training.models import residual_network
from instahide.training.progress import Bars, Progress, progress_reporter
from instahide.training.schedule import learning_rate
from instahide.training.settings import TrainSettings
from instahide.training.training_loop import train
from instahide.training.training_state import TrainingState

Batch = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are slower on many, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def digits() -> tuple[list[Batch], list[Batch]]:
    """1,500 real digits with soft labels to learn from, 297 with class numbers to test on."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor((images - images.mean()) / images.std(), dtype=torch.float32)
    x, y = x.reshape(-1, 1, 8, 8), torch.tensor(labels)
    soft = 0.9 * nn.functional.one_hot(y, 10) + 0.01
    batches = list(zip(x[:1500].split(100), soft[:1500].split(100), strict=True))
    return batches, [(x[1500:], y[1500:])]


def _accuracy(model: nn.Module) -> dict[str, float]:
    return {"accuracy": accuracy(model, digits()[1]).overall}


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
    return residual_network(10, stem=stem, widths=(16, 32), blocks=(1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"precision": "float32"},
        {"precision": "bfloat16", "ema": 0.9, "schedule": "step"},
        {"optimizer": "adamw", "lr": 0.005, "schedule": "constant", "precision": "float32"},
    ],
)
def test_it_learns_digits(values: dict[str, object]) -> None:
    """Over 90% of unseen digits after eight epochs, by every optimiser and schedule."""
    settings = TrainSettings.from_values({"epochs": 8, "lr": 0.1, "device": "cpu", **values})
    model = _network()
    history = train(model, digits()[0], settings, evaluate=_accuracy)
    assert [record.epoch for record in history] == list(range(1, 9))
    assert history[-1].loss < history[0].loss
    assert history[-1].metrics["accuracy"] > 0.9
    assert all(record.images_per_second > 0 < record.seconds for record in history)
    # What was measured last is what the caller now holds, the average included.
    measured = accuracy(model, digits()[1]).overall
    assert abs(measured - history[-1].metrics["accuracy"]) < 0.02


def test_the_loss_is_the_soft_label_cross_entropy() -> None:
    """Also where labels sum to less than 1, as the paper's cross-dataset labels do."""
    batch = digits()[0][0][0], 0.5 * digits()[0][0][1]
    settings = TrainSettings(epochs=1, device="cpu", precision="float32")
    logits = _network().train()(batch[0])
    expected = -(batch[1] * logits.log_softmax(1)).sum(1).mean()
    history = train(_network(), [batch], settings)
    assert history[0].loss == pytest.approx(expected.item(), rel=1e-5)


def test_the_average_follows_weights_and_statistics() -> None:
    """An oracle in three lines: avg += (1 - decay) * (now - avg), from a warm start."""
    settings = TrainSettings(epochs=1, ema=0.5, device="cpu", precision="float32")
    state = TrainingState.start(_network(), settings)
    expected: dict[str, Tensor] = {}
    for step, (x, y) in enumerate(digits()[0][:6]):
        state.learn(x, y, 0.01)
        now = {name: value.clone() for name, value in state.model.state_dict().items()}
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
        expected = {
            name: value.float() * (1 - decay) + expected.get(name, value).float() * decay
            for name, value in now.items()
        }
    for name, value in state.network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("schedule", ["one-cycle", "step", "constant"])
def test_the_rate_stays_in_bounds_and_reaches_its_height(schedule: str) -> None:
    settings = TrainSettings.from_values({"schedule": schedule, "lr": 0.3})
    rates = [learning_rate(settings, step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(0.3)
    assert min(rates) > 0
    ends = {"one-cycle": (0.012, 0.0), "step": (0.3, 0.003), "constant": (0.3, 0.3)}[schedule]
    assert (rates[0], rates[-1]) == pytest.approx(ends, abs=5e-4)


def test_a_loss_that_is_not_finite_is_refused_with_a_remedy() -> None:
    batches = [(torch.full((4, 1, 8, 8), float("nan")), torch.full((4, 10), 0.1))]
    with pytest.raises(InstaHideError, match=r"finite.*Lower the learning rate"):
        train(_network(), batches, TrainSettings(epochs=1, device="cpu"))


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InstaHideError, match="nothing to learn from"):
        train(_network(), [], TrainSettings(epochs=1))


def test_single_encodings_alone_are_refused_and_among_others_passed_over() -> None:
    x, y = digits()[0][0]
    settings = TrainSettings(epochs=1, lr=0.01, device="cpu", precision="float32")
    singles = list(zip(x[:3].split(1), y[:3].split(1), strict=True))
    with pytest.raises(InstaHideError, match=r"single encoding.*batch size of 2 or more"):
        train(_network(), singles, settings)
    among_others = train(_network(), [singles[0], (x, y), singles[1]], settings)
    assert among_others[0].loss == train(_network(), [(x, y)], settings)[0].loss


def test_patience_stops_the_run_and_needs_an_accuracy() -> None:
    settings = TrainSettings(epochs=9, patience=2, device="cpu", precision="float32")
    scores = iter([0.5, 0.6, 0.6, 0.4])
    history = train(
        _network(), digits()[0][:1], settings, evaluate=lambda _: {"accuracy": next(scores)}
    )
    assert len(history) == 4
    with pytest.raises(InstaHideError, match="Patience"):
        train(_network(), digits()[0][:1], settings)


@pytest.mark.parametrize(
    ("scores", "patience", "stops"),
    [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.5], 1, True),
        ([0.5, 0.6], 1, False),
        ([0.5, 0.4, 0.6], 2, False),
        ([0.6, 0.5, 0.6], 2, True),
        ([0.6, 0.5], None, False),
    ],
)
def test_stalled(scores: list[float], patience: int | None, stops: bool) -> None:
    history = [EpochRecord(1, 0.0, 0.0, 1.0, 1.0, {"accuracy": score}) for score in scores]
    assert patience_exhausted(history, patience) is stops


def test_accuracy_counts_every_class_and_keeps_the_mode() -> None:
    """Three classes, of which the last has no images."""

    class Echo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            return x.flatten(1)

    logits = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 9, 0], [0, 0, 9]])[..., None, None]
    model = Echo().train()
    result = accuracy(
        model, [(logits[:3], torch.tensor([0, 0, 1])), (logits[3:], torch.tensor([1]))]
    )
    assert result == (0.5, (0.5, 0.5, None))
    assert model.training


def test_float16_needs_a_gpu_and_devices_must_exist() -> None:
    with pytest.raises(InstaHideError, match="float16 needs a CUDA GPU"):
        pick_precision("float16", torch.device("cpu"))
    with pytest.raises(InstaHideError, match="`abacus`"):
        train(_network(), digits()[0], TrainSettings(device="abacus"))


def test_a_pipe_gets_one_plain_line_an_epoch() -> None:
    text = io.StringIO()
    settings = TrainSettings(epochs=2, device="cpu")
    with progress_reporter(Console(file=text, force_terminal=False, width=40)) as progress:
        train(_network(), digits()[0], settings, evaluate=_accuracy, progress=progress)
    lines = text.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("loss" in line and "accuracy" in line and "images/s" in line for line in lines)
    assert "\x1b" not in text.getvalue()


def test_a_terminal_gets_bars() -> None:
    text = io.StringIO()
    with progress_reporter(Console(file=text, force_terminal=True, width=120)) as progress:
        assert isinstance(progress, Bars)
        train(_network(), digits()[0], TrainSettings(epochs=2, device="cpu"), progress=progress)
    assert "epoch 2/2" in text.getvalue()
    assert "100%" in text.getvalue()


def test_ctrl_c_leaves_one_line_and_goes_on_up() -> None:
    text = io.StringIO()

    def interrupt(_: nn.Module) -> dict[str, float]:
        raise KeyboardInterrupt

    def run() -> None:
        settings = TrainSettings(epochs=5, device="cpu")
        with progress_reporter(Console(file=text, force_terminal=False)) as progress:
            train(_network(), digits()[0][:1], settings, evaluate=interrupt, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert text.getvalue() == "Stopped after epoch 0 of 5.\n"


def test_progress_hears_of_batches_and_epochs() -> None:
    heard: list[object] = []

    class Ear(Progress):
        def batch(self, number: int, loss: float, images_per_second: float) -> None:
            heard.append(number)

        def epoch(self, record: EpochRecord) -> None:
            heard.append(f"epoch {record.epoch}")

    train(_network(), digits()[0], TrainSettings(epochs=2, device="cpu"), progress=Ear())
    assert heard == [10, "epoch 1", 10, "epoch 2"]
