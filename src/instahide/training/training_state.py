"""The state of a training run, and its conversion to and from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from instahide.errors import DamagedFileError
from instahide.training.device import channels_last, pick_device, pick_precision, place
from instahide.training.distributed.processes import ALONE, Processes
from instahide.training.history import History
from instahide.training.losses import Loss
from instahide.training.models.imported import is_imported
from instahide.training.settings import TrainSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_HISTORY = TypeAdapter(History)


@dataclass
class TrainingState:
    """A network with its optimiser, moving average and number of steps.

    It holds nothing secret and no key: after a resume, encodings are made under new keys.

    Attributes:
        model: the network that is trained.
        fabric: the device, the precision and the process group.
        processes: the processes that train together.
        loss: the loss on mixed labels.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    fabric: Fabric
    processes: Processes = ALONE
    average: AveragedModel | None = None
    step: int = 0
    history: History = field(default_factory=list)
    loss: Loss = field(default_factory=Loss)

    def __post_init__(self) -> None:
        # The originals are kept for those who read or replace weights and moments.
        self._replica, self._fabric_optimizer = self.fabric.setup(self.model, self.optimizer)

    @classmethod
    def start(
        cls,
        model: nn.Module,
        settings: TrainSettings,
        processes: Processes = ALONE,
        loss: Loss | None = None,
    ) -> TrainingState:
        """The state before the first step; ``model`` is moved to the device of the settings.

        Raises:
            InstaHideError: this machine lacks the device or the precision.
        """
        # Only here: its import takes seconds.
        from instahide.training.fabric import make_fabric

        device = pick_device(settings.device)
        precision = pick_precision(settings.precision, device)
        place(model, device)
        fabric = make_fabric(
            device,
            precision,
            distributed=processes.world_size > 1,
            unused_parameters=is_imported(settings.model),
        )
        state = cls(model, _optimizer(model, settings), fabric, processes, loss=loss or Loss())
        if settings.ema > 0:
            state.average = state._moving_average(settings.ema)
        return state

    @property
    def gradient_scale(self) -> float:
        """The factor of all gradients before the optimiser's step; not 1 only for float16."""
        from lightning_fabric.plugins.precision.amp import MixedPrecision

        precision = self.fabric.strategy.precision
        scaler = precision.scaler if isinstance(precision, MixedPrecision) else None
        return 1.0 if scaler is None else float(scaler.get_scale())

    @property
    def network(self) -> nn.Module:
        """The network to evaluate: the moving average if there is one, else `model`."""
        if self.average is None:
            return self.model
        module: nn.Module = self.average.module
        return module

    def learn(
        self, encodings: Tensor, labels: Tensor, rate: float, images: int | None = None
    ) -> Tensor:
        """One optimiser step at learning rate ``rate``.

        Args:
            encodings: (n, C, H, W) float; n is 0 if only other processes have encodings.
            labels: (n, columns) float mixed labels, as for `losses.Loss`.
            rate: the learning rate.
            images: encodings in this step of all processes together; None for one process.

        Returns:
            The loss before the step, a scalar on the device. Its sum over all processes is the
            mean loss of this step times ``images``.
        """
        images = images or len(encodings)
        encodings = encodings.to(self.fabric.device, non_blocking=True)
        logits = self._replica(channels_last(encodings))
        labels = labels.to(self.fabric.device, non_blocking=True)
        total, known = self.loss(logits, labels)
        targets = images if self.loss.counts_images else self._known_everywhere(known)
        # The mean of the gradients over processes is then the gradient of the mean over targets.
        loss = total * (self.processes.world_size / targets)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self._fabric_optimizer.step()
        average_buffers(self.fabric, self.model, len(encodings))
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1
        return total.detach() * (images / targets)

    def _known_everywhere(self, known: Tensor) -> Tensor:
        """The number of known targets of this step in all processes, at least 1."""
        if self.processes.world_size > 1:
            dist.all_reduce(known)
        return known.clamp(min=1)

    def settle(self) -> None:
        """Copy the averaged weights into the model, if there are any."""
        if self.average is not None:
            self.model.load_state_dict(self.network.state_dict())

    def tensors(self) -> dict[str, Tensor]:
        """Weights, averaged weights and optimiser moments, by name."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.average is not None:
            tensors |= {f"ema.{name}": value for name, value in self.average.state_dict().items()}
        moments = self.optimizer.state_dict()["state"]
        for index, name in enumerate(_optimised(self.model)):
            for slot, value in moments.get(index, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{slot}.{name}"] = value
        return tensors

    def facts(self) -> dict[str, Any]:
        """The counts and measurements that go with `tensors`, ready for JSON."""
        return {
            "step": self.step,
            "precision": self.fabric.strategy.precision.state_dict(),
            "history": [asdict(record) for record in self.history],
        }

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Restore the state of `tensors` and `facts`.

        Raises:
            DamagedFileError: they belong to another network or optimiser.
        """
        try:
            self.model.load_state_dict(_part(tensors, "model."))
            if self.average is not None:
                self.average.load_state_dict(_part(tensors, "ema."))
            self._restore_optimizer(_part(tensors, "optimizer."))
            self.fabric.strategy.precision.load_state_dict(facts["precision"])
            self.step = int(facts["step"])
            self.history = _HISTORY.validate_python(facts["history"])
        except Exception as error:  # PyTorch raises several kinds on what does not fit
            raise DamagedFileError(
                "The checkpoint does not fit this network and optimiser.",
                "Resume with the code and data of the run, or start one in another folder.",
            ) from error

    def _restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        index = {name: number for number, name in enumerate(_optimised(self.model))}
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            slot, name = key.split(".", 1)
            # With the memory layout of the parameter, or every step would be slower.
            moment = (
                torch.empty_like(parameters[name]).copy_(value) if value.dim() else value.clone()
            )
            moments.setdefault(index[name], {})[slot] = moment
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})

    def _moving_average(self, decay: float) -> AveragedModel:
        """An exponential average of weights and batch-norm statistics.

        The statistics are averaged like the weights, as they describe what those weights do. The
        decay starts low, so that a short run is not held back by its first weights. Buffers of
        whole numbers, such as tables of indices, and infinite values, as in masks of attention,
        are copied.
        """
        buffers = {buffer.data_ptr() for buffer in self.model.buffers()}

        def blend(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Any) -> None:
            if not current[0].is_floating_point():
                for mine, new in zip(averaged, current, strict=True):
                    mine.copy_(new)
                return
            warm = min(decay, (1 + self.step) / (10 + self.step))
            get_ema_multi_avg_fn(warm)(averaged, current, count)  # type: ignore[no-untyped-call]
            for mine, new in zip(averaged, current, strict=True):
                if new.data_ptr() in buffers:
                    mine.copy_(torch.where(new.isinf() | ~mine.isfinite(), new, mine))

        return AveragedModel(self.model, multi_avg_fn=blend, use_buffers=True)


def average_buffers(fabric: Fabric, model: nn.Module, images: int) -> None:
    """Average the buffers of ``model`` over processes, weighted by ``images`` of each.

    Counts stay whole numbers, and infinite values, as in masks of attention, stay as they are.
    """
    buffers = list(model.buffers())
    if fabric.world_size == 1 or not buffers:
        return
    weight = torch.full((1,), images, dtype=torch.float64, device=fabric.device)
    finite = (buffer.double().nan_to_num(torch.nan, 0.0, 0.0).flatten() for buffer in buffers)
    flat = torch.cat([weight, *(images * values for values in finite)])
    dist.all_reduce(flat)
    parts = torch.split(flat[1:] / flat[0], [buffer.numel() for buffer in buffers])
    for buffer, part in zip(buffers, parts, strict=True):
        buffer.copy_(torch.where(buffer.isinf(), buffer, part.view_as(buffer)))


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    parameters = _optimised(model).values()
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, settings.lr, betas=(settings.momentum, 0.999))
    nesterov = settings.momentum > 0
    return torch.optim.SGD(groups, settings.lr, settings.momentum, nesterov=nesterov)


def _optimised(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name, in the order of the optimiser's numbers.

    First come weights, with weight decay, then one-dimensional scales and biases, without (He et
    al., "Bag of Tricks", 2018).
    """
    parameters = model.named_parameters()
    return dict(sorted(parameters, key=lambda item: item[1].dim() <= 1))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
