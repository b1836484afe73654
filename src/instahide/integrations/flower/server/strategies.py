"""The server's strategies by name: Flower's own, and FedSGD."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import flwr.serverapp.strategy as flower
import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    MetricRecordValues,
    RecordDict,
)
from flwr.common.config import parse_config_args
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from torch import nn

from instahide.data.labels import Task
from instahide.errors import InstaHideError
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.server.checked_strategy import CheckedStrategy, check_replies
from instahide.integrations.flower.server.reply_checks import EXPOSURES, SPENT, ReplyChecks
from instahide.integrations.flower.task_metrics import SENT
from instahide.training.schedule import learning_rate

#: Flower's strategies that aggregate networks, without those that wrap other strategies.
NAMES = (
    "FedAvg", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi", "FedProx", "FedMedian",
    "FedTrimmedAvg", "Krum", "MultiKrum", "Bulyan", "QFedAvg",
)  # fmt: skip
#: Strategies that extrapolate all arrays, and so also running statistics.
STEPPING = ("FedAvgM", "FedAdagrad", "FedAdam", "FedYogi", "QFedAvg")


class FedSGD(FedAvg):
    """Clients send gradients at the server's weights, and the server makes a step.

    Source: McMahan et al., "Communication-Efficient Learning" (arXiv:1602.05629), section 2.

    Args:
        parameters: names of the arrays that have a gradient. Others, such as running statistics,
            are averaged.
        rate: learning rate of round ``number``, counted from 1.
        momentum: of the server's steps.
        more: as for `FedAvg`.
    """

    def __init__(
        self,
        parameters: Iterable[str],
        rate: Callable[[int], float],
        momentum: float = 0.0,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.parameters = frozenset(parameters)
        self.rate = rate
        self.momentum = momentum
        self._arrays = ArrayRecord()
        self._velocity: dict[str, NDArray[np.floating]] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As `FedAvg`; the weights that gradients will belong to are kept."""
        self._arrays = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The weights after a step along the mean gradient."""
        sent, metrics = super().aggregate_train(server_round, replies)
        if sent is None:
            return None, metrics
        rate = self.rate(server_round)
        return ArrayRecord(
            {name: Array(self._stepped(name, array.numpy(), rate)) for name, array in sent.items()}
        ), metrics

    def _stepped(self, name: str, mean: NDArray[np.floating], rate: float) -> NDArray[np.floating]:
        if name not in self.parameters:
            return mean
        before = self._velocity.get(name, np.zeros_like(mean))
        self._velocity[name] = self.momentum * before + mean
        return np.asarray(self._arrays[name].numpy() - rate * self._velocity[name], mean.dtype)


def make_strategy(
    settings: FederatedSettings, network: nn.Module, task: Task = "single-label"
) -> CheckedStrategy:
    """The strategy that ``settings`` name, with their arguments; it checks clients' answers.

    Args:
        settings: of the run.
        network: with the initial weights.
        task: what the labels are, on which the metrics of clients' tests depend.

    Raises:
        InstaHideError: there is no such strategy or argument, or it would harm the network.
    """
    _require_strategy(settings, network)
    name = settings.strategy
    arguments: dict[str, Any] = {
        "fraction_evaluate": float(settings.client_test),
        "min_train_nodes": 1,
        "min_evaluate_nodes": int(settings.client_test),
        "min_available_nodes": settings.clients,
        "train_metrics_aggr_fn": together,
        **_given(settings),
    }
    if name == "FedSGD":
        arguments["parameters"] = dict(network.named_parameters())
        arguments["rate"] = lambda number: learning_rate(
            settings.local, number - 1, settings.rounds
        )
    if name == "QFedAvg":
        arguments.setdefault("train_loss_key", "loss")
    kind = check_replies(FedSGD if name == "FedSGD" else getattr(flower, name))
    try:
        strategy = kind(**arguments)
    except TypeError as error:
        raise InstaHideError(
            f"{name} does not take `{settings.strategy_arguments}` ({error}).",
            "Its arguments are in Flower's documentation; FedSGD takes `momentum`.",
        ) from error
    strategy.checks = ReplyChecks(
        network.state_dict(),
        SPENT if settings.dp else EXPOSURES,
        frozenset({SENT[task]}) if task in SENT else frozenset(),
        dict(network.named_parameters()) if name == "FedSGD" else (),
    )
    return strategy


def _require_strategy(settings: FederatedSettings, network: nn.Module) -> None:
    name = settings.strategy
    if name != "FedSGD" and name not in NAMES:
        raise InstaHideError(
            f"There is no strategy `{name}`.", f"Choose one of FedSGD, {', '.join(NAMES)}."
        )
    if name in STEPPING and list(network.buffers()):
        raise InstaHideError(
            f"{name} would step along running variances too, and make some of them negative.",
            f'Say `model = "small-group"`, which has none; `{settings.model}` does.',
        )


def together(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
    """Aggregate the metrics of all clients: means weighted by images, and least and most values."""
    records = [next(iter(reply.metric_records.values())) for reply in replies]
    images = np.asarray([record[weighted_by] for record in records], np.float64)
    found: dict[str, MetricRecordValues] = {weighted_by: int(images.sum())}
    for key in set(records[0]) - {weighted_by}:
        values = [cast(float, record[key]) for record in records]
        if key.endswith("-least"):
            found[key] = min(values)
        elif key.endswith("-most") or key == "epsilon":
            found[key] = max(values)
        else:
            found[key] = float(np.average(values, weights=images))
    return MetricRecord(found)


def _given(settings: FederatedSettings) -> dict[str, object]:
    try:
        given = parse_config_args([settings.strategy_arguments])
    except Exception as error:  # Flower says it in a way of its own
        raise InstaHideError(
            f"The strategy's arguments `{settings.strategy_arguments}` cannot be read.",
            "Write them as in `eta=0.01 tau=0.001`.",
        ) from error
    return {name.replace("-", "_"): value for name, value in given.items()}
