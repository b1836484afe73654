"""The training loop: a loss on encodings and their mixed labels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from instahide.errors import DataError, InstaHideError
from instahide.training.distributed.processes import ALONE, Batches, Processes, none_usable
from instahide.training.history import EpochRecord, History, patience_exhausted
from instahide.training.losses import Loss
from instahide.training.progress import Progress
from instahide.training.run_folder import RunFolder
from instahide.training.schedule import learning_rate
from instahide.training.settings import TrainSettings
from instahide.training.training_state import TrainingState

#: Batches between two reads of the loss; each read synchronises with the GPU.
LOOK_EVERY = 10

Evaluate = Callable[[nn.Module], Mapping[str, float]]


def train(
    model: nn.Module,
    batches: Batches,
    settings: TrainSettings,
    *,
    evaluate: Evaluate | None = None,
    run: RunFolder | None = None,
    progress: Progress | None = None,
    processes: Processes = ALONE,
    loss: Loss | None = None,
) -> History:
    """Train ``model`` in place, from the last completed epoch of ``run`` if it has one.

    The final weights are those of the last epoch (averaged with `TrainSettings.ema`), also after an
    early stop: to choose the epoch with the best test accuracy would bias the result.

    A resumed run continues with its weights, moments and schedule. It trains on new encodings,
    because keys are never stored.

    Args:
        model: returns logits (n, classes), or what the loss takes.
        batches: encodings and mixed labels; each pass is an epoch.
        settings: settings of the run, including its device.
        evaluate: called after every epoch with the network to use; returns metrics. With
            `TrainSettings.patience`, one of `history.WATCHED` must be among them.
        run: the folder that gets a checkpoint of every epoch; only in the main process.
        progress: is informed of the progress.
        processes: the processes that train together.
        loss: the loss on mixed labels; by default cross-entropy.

    Returns:
        The measurements of every epoch.

    Raises:
        InstaHideError: there are no batches, the loss is not finite, the checkpoint is of another
            run, or a checkpoint cannot be written.
    """
    progress = progress or Progress()
    state = TrainingState.start(model, settings, processes, loss)
    saved = processes.broadcast(run.saved() if run is not None else None)
    if saved is not None:
        state.restore(*saved)
    steps = processes.length(batches)
    _check(state, steps, settings, evaluate)
    progress.begin(settings.epochs, steps, len(state.history))
    while len(state.history) < settings.epochs and not patience_exhausted(
        state.history, settings.patience
    ):
        record = one_epoch(state, batches, settings, progress)
        if evaluate is not None:
            record = replace(record, metrics=dict(evaluate(state.network)))
        state.history.append(record)
        if run is not None:
            run.save(state)
        progress.epoch(record)
    state.settle()
    return state.history


def one_epoch(
    state: TrainingState, batches: Batches, settings: TrainSettings, progress: Progress
) -> EpochRecord:
    """Train for one pass over ``batches``, at the learning rates of the next epoch.

    Raises:
        InstaHideError: every batch holds a single encoding, or the loss is not finite.
    """
    steps = settings.epochs * state.processes.length(batches)
    total, images, rate = torch.zeros((), device=state.fabric.device), 0, 0.0
    started = time.perf_counter()
    state.model.train()
    for number, (encodings, labels, count) in enumerate(state.processes.steps(batches), start=1):
        if count == 0:
            # Skipped batches count as steps of the schedule.
            state.step += 1
            continue
        rate = learning_rate(settings, state.step, steps)
        total += state.learn(encodings, labels, rate, count)
        images += count
        if number % LOOK_EVERY == 0:
            speed = images / (time.perf_counter() - started)
            progress.batch(number, _mean(state.processes, total, images, settings), speed)
    if images == 0:
        raise none_usable()
    loss = _mean(state.processes, total, images, settings)
    seconds = time.perf_counter() - started
    return EpochRecord(len(state.history) + 1, loss, rate, seconds, images / seconds, {})


def _mean(processes: Processes, total: Tensor, images: int, settings: TrainSettings) -> float:
    """The sum of ``total`` over all processes, divided by ``images``."""
    mean: float = sum(processes.gather(total.item())) / images
    if not math.isfinite(mean):
        raise InstaHideError(
            "The loss is no longer a finite number.",
            f"Lower the learning rate (lr is {settings.lr}), or use precision float32.",
        )
    return mean


def _check(
    state: TrainingState, steps: int, settings: TrainSettings, evaluate: Evaluate | None
) -> None:
    if steps == 0:
        raise DataError("There is nothing to learn from.", "Give at least one image.")
    if settings.patience is not None and evaluate is None:
        raise InstaHideError(
            "Patience needs a metric to watch.", "Give test images, or leave patience out."
        )
    if state.step != len(state.history) * steps:
        raise InstaHideError(
            "The run was started on a data set of another size, or by more or fewer processes.",
            "Resume it as it was started, or choose another `out=`.",
        )
