"""What a participant's own config decides, and what a run's config may decide for it.

A run config comes from the user who starts a run, so nothing in it may weaken a participant's
privacy. Every
setting belongs to exactly one of the groups below; docs/federated.md has the same table.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from instahide.data.labels import Task
from instahide.data.readers.window import read_window
from instahide.errors import DataError, InstaHideError
from instahide.integrations.flower.config import MEANINGLESS, FederatedSettings
from instahide.integrations.flower.errors import RefusalError
from instahide.integrations.flower.untrusted_values import in_range, printable

#: What a participant must name to take part.
REQUIRED = ("data", "scheme", "k", "max_exposure")
#: Only the participant's config counts; what it does not name has the library's default.
NODE_ONLY = (
    "data", "test", "test_labels", "test_image_column", "test_label_columns", "test_split_column",
    "public", "fresh_crops", "size", "skip_bad", "ledger", "max_exposure", "min_mse", "device",
    "partition", "alpha",
)  # fmt: skip
#: The same, and a run that names one is refused: it would choose what is read of the participant's.
REFUSED = (
    "labels", "image_column", "label_columns", "group_column", "split_column", "task", "window",
    "rescale",
)  # fmt: skip
#: Settings of `REFUSED` that say something about a table of labels.
OF_TABLES = tuple(name for name in REFUSED if name not in ("labels", "window", "rescale"))
OF_TEST_TABLES = ("test_image_column", "test_label_columns", "test_split_column")
#: The run must have the participant's value, which is the library's default if it names none.
EXACT = (
    "scheme",
    "k",
    "private_k",
    "c1",
    "c2",
    "label_mode",
    "coefficient_distribution",
    "gradient",
)
#: The run must have the participant's value where it names one.
EXACT_IF_NAMED = ("model", "precision", "dp", "crop_padding", "flip")
#: The run's value must be at least, or at most, the participant's or else the bound here.
AT_LEAST = {"noise": 0.0, "batch_size": 8, "noise_multiplier": 1.0}
AT_MOST = {"local_epochs": 100}
#: Nothing here concerns a participant's privacy.
RUN_ONLY = (
    "sign_invariant", "seed", "optimizer", "lr", "weight_decay", "momentum", "schedule", "rounds",
    "clients", "timeout", "strategy", "strategy_arguments", "client_test", "federation_task",
    "shape", "classes", "value_range", "mean", "std", "target_mean", "target_std", "class_weights",
    "positive_weights", "max_grad_norm", "delta", "out",
)  # fmt: skip
#: Keys of Flower's simulation engine, or of participants that split one data set.
PARTITION = ("partition_id", "num_partitions")
#: Settings of a node config that are not in a run config.
OF_NODES = ("max_epsilon", *PARTITION)
_log = logging.getLogger(__name__)
MOST_EPSILON, _MOST_PARTITIONS = 1e6, 1_000_000


@dataclass(frozen=True)
class NodeConfig:
    """A participant's own config. Use `read`.

    Attributes:
        own: the settings that it names, with the library's defaults for all others.
        named: the names of the settings that it names.
        max_epsilon: largest epsilon of an image, at ``own.delta``; None for no limit.
        partition: number of this part and number of parts of a shared data set; None without one.
    """

    own: FederatedSettings
    named: frozenset[str]
    max_epsilon: float | None = None
    partition: tuple[int, int] | None = None

    @classmethod
    def read(cls, config: Mapping[str, object]) -> Self:
        """Check Flower's node config. Messages hold names of settings, never their values.

        Raises:
            RefusalError: a setting is missing, unknown, or does not fit.
        """
        values = {name.replace("-", "_"): value for name, value in config.items() if value != ""}
        if len(values) < sum(value != "" for value in config.values()):
            raise RefusalError(
                "The node config names a setting twice, with a hyphen and with an underscore.",
                "Name it once.",
            )
        decided = {*NODE_ONLY, *REFUSED, *EXACT, *EXACT_IF_NAMED, *AT_LEAST, *AT_MOST}
        allowed = {*decided, "delta", *OF_NODES}
        if strange := sorted(set(values) - allowed):
            raise RefusalError(
                f"The node config has an unknown setting `{printable(strange[0])}`.",
                f"Use only {', '.join(sorted(map(_shown, allowed)))}.",
            )
        if missing := [name for name in REQUIRED if name not in values]:
            raise RefusalError(
                "This participant takes no part: its own node config does not name "
                f"{', '.join(f'`{_shown(name)}`' for name in missing)}.",
                "Set these in the node config; the run config cannot set them.",
            )
        _require_table(values)
        partition = read_partition(values)
        max_epsilon = _read_epsilon(values.pop("max_epsilon", None))
        named = frozenset(values) - set(PARTITION)
        return cls(_checked({name: values[name] for name in named}), named, max_epsilon, partition)

    def settings(self, run: FederatedSettings) -> FederatedSettings:
        """The settings of ``run``, with those that this participant decides replaced.

        Raises:
            RefusalError: the run does not meet this participant's terms.
        """
        _require_own(run)
        self._require_terms(run)
        for name in ("size", "public"):
            if name in run.model_fields_set and getattr(run, name) != getattr(self.own, name):
                _log.info("The run's `%s` is ignored: this participant's own config decides.", name)
        values = run.model_dump(exclude_unset=True, exclude=set(NODE_ONLY))
        decided = (*NODE_ONLY, *REFUSED)
        mine = {name: getattr(self.own, name) for name in decided if name in self.named}
        return FederatedSettings.from_values({**values, **mine})

    def _require_terms(self, run: FederatedSettings) -> None:
        # The label mode that is meant by none follows from the labels that the participant has.
        task = self.own.labels_task
        offers, terms = _encryption(run, task), _encryption(self.own, task)
        exact = [*EXACT, *(name for name in EXACT_IF_NAMED if name in self.named)]
        for name in exact:
            if offers[name] != terms[name]:
                raise _refused(name, f"is {terms[name]!r}", offers[name])
        for name, default in AT_LEAST.items():
            least = terms[name] if name in self.named else default
            # The noise multiplier counts only if the participant requires DP-SGD.
            if name == "noise_multiplier" and not self.own.dp:
                continue
            if offers[name] < least:
                raise _refused(name, f"is at least {least}", offers[name])
        for name, default in AT_MOST.items():
            most = terms[name] if name in self.named else default
            if offers[name] > most:
                raise _refused(name, f"is at most {most}", offers[name])


def _read_epsilon(value: object) -> float | None:
    if value is None or in_range(value, 1e-9, MOST_EPSILON):
        return value
    raise RefusalError("The node config's `max-epsilon` is out of range.", "Use 8.0, for example.")


def read_partition(values: dict[str, object]) -> tuple[int, int] | None:
    """Remove the two keys of `PARTITION` from ``values``, and return their values.

    Raises:
        RefusalError: only one of them is present, or they are not valid whole numbers.
    """
    part, parts = (values.pop(name, None) for name in PARTITION)
    if part is None and parts is None:
        return None
    if type(part) is not int or type(parts) is not int:
        raise RefusalError(
            "The node config's `partition-id` and `num-partitions` are not both whole numbers.",
            "Name both, or neither.",
        )
    if not 0 <= part < parts <= _MOST_PARTITIONS:
        raise RefusalError(
            "The node config's `partition-id` is not below `num-partitions`.", "Count from 0."
        )
    return part, parts


def _require_table(values: Mapping[str, object]) -> None:
    """Check that columns are named together with the table that they are of."""
    for table, columns in (("labels", OF_TABLES), ("test_labels", OF_TEST_TABLES)):
        for name in () if table in values else columns:
            if name in values:
                raise RefusalError(
                    f"The node config names `{_shown(name)}`, but no table of labels for it.",
                    f"Name the table by `{_shown(table)}` in the node config.",
                )


def _require_own(run: FederatedSettings) -> None:
    """Check that a run leaves to the participant what only the participant decides."""
    for name in REFUSED:
        if name in run.model_fields_set:
            raise RefusalError(
                f"The run config names `{_shown(name)}`, which only the node config of a "
                "participant may name.",
                "Leave it out of the run config; `federation-task` and `value-range` say what "
                "labels and pixels are, and `test-labels` is the table of the server's test "
                "images.",
            )


def _encryption(settings: FederatedSettings, task: Task) -> dict[str, Any]:
    """All settings by name; those of the scheme have the values that the encoder uses."""
    return {**vars(settings), **vars(settings.encryption(task)), "scheme": settings.scheme}


def _checked(values: dict[str, object]) -> FederatedSettings:
    try:
        settings = FederatedSettings.from_config(values)
        settings.encryption(settings.labels_task)
        _require_window(settings)
    except InstaHideError as error:
        for name in values:
            if any(form in error.problem for form in (f"`{name}`", f"{name} = ", f"{name} is ")):
                problem = f"The node config's `{_shown(name)}` does not fit."
                raise RefusalError(problem, "This participant's own log says why.") from error
        raise RefusalError(
            "The node config's settings do not fit each other.",
            "This participant's own log says why.",
        ) from error
    return settings


def _require_window(settings: FederatedSettings) -> None:
    try:
        read_window(settings.window)
    except DataError as error:
        raise InstaHideError("`window` cannot be read.", error.remedy) from error


def _refused(name: str, wanted: str, offered: object) -> RefusalError:
    return RefusalError(
        f"This participant takes part if {_shown(name)} {wanted}; in this run it is {offered!r}.",
        "Start the run on this participant's terms.",
    )


def _shown(name: str) -> str:
    return name.replace("_", "-")


def groups() -> dict[str, tuple[str, ...]]:
    """Every setting of a run by who decides it."""
    return {
        "node": NODE_ONLY,
        "node, refused in a run": REFUSED,
        "equal": EXACT,
        "equal if named": EXACT_IF_NAMED,
        "bounded": (*AT_LEAST, *AT_MOST),
        "run": RUN_ONLY,
        "unused": MEANINGLESS,
    }
