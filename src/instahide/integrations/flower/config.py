"""The run config of a federation: training settings, and settings of the federation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field

from instahide.data.labels import Task
from instahide.data.pixels import EIGHT_BIT
from instahide.data.readers.tables.label_table import LabelTable, column_names
from instahide.errors import DataError, InstaHideError
from instahide.integrations.flower.untrusted_values import printable
from instahide.training.models import NETWORKS
from instahide.training.settings import Number, Positive, TrainSettings, Weights, Whole
from instahide.utils.number_text import plain_float, plain_int

#: Most characters of a value: enough for the names of thousands of classes.
MOST_TEXT = 100_000
#: Training settings that do not apply to a federation.
MEANINGLESS = (
    "epochs", "ema", "patience", "test_share", "queries", "query_coefficient", "weights",
    "calibration_share", "copies", "encoder", "encoder_settings",
)  # fmt: skip

#: Strategies that DP-SGD cannot be used with, and why.
WITHOUT_DP = {
    "FedSGD": "makes one step with the gradients at the server's weights, but DP-SGD makes many",
    "FedProx": "adds a penalty to the loss, whose gradient DP-SGD would clip and count",
    "QFedAvg": "weighs participants by their losses, which are not sent with DP-SGD",
}


def _words(value: object) -> object:
    """Split a text such as ``"cat, dog"``; Flower's configs cannot hold lists."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(","))
    return tuple(value) if isinstance(value, list) else value


def _numbers(value: object) -> object:
    return (value,) if isinstance(value, int | float) else _words(value)


def _weights(value: object) -> object:
    numbers = _numbers(value)
    try:
        return [plain_float(str(number)) for number in numbers]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return value


def _sizes(value: object) -> object:
    try:
        return tuple(plain_int(str(word)) for word in _words(value))  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return value


def _named(items: Iterable[tuple[object, object]]) -> dict[str, object]:
    """The values of a config by Python names, without empty texts.

    Raises:
        InstaHideError: a name is not printable text or occurs twice, or a text is not printable or
            longer than `MOST_TEXT`.
    """
    values: dict[str, object] = {}
    for key, value in items:
        name = str(key).replace("-", "_")
        if not isinstance(key, str) or printable(name) != name:
            raise InstaHideError(
                f"The run config: there is no setting `{printable(key)}`.",
                "Settings have short names of letters and hyphens.",
            )
        if name in values:
            raise InstaHideError(
                f"The run config: `{name}` occurs twice, with a hyphen and with an underscore.",
                "Name it once.",
            )
        if isinstance(value, str) and not (value.isprintable() and len(value) <= MOST_TEXT):
            raise InstaHideError(
                f"The run config: the text of `{name}` has control characters or is longer than "
                f"{MOST_TEXT:,} characters.",
                "Use printable text.",
            )
        if value != "":
            values[name] = value
    return values


Moments = Annotated[tuple[Number, ...], BeforeValidator(_numbers)]
Spreads = Annotated[tuple[Positive, ...], BeforeValidator(_numbers)]


class FederatedSettings(TrainSettings):
    """The settings of a federation; none of them is secret.

    Use `from_config` for a run config. It raises for the settings in `MEANINGLESS`.
    """

    rounds: Whole = Field(3, ge=1, description="rounds of training")
    local_epochs: Whole = Field(
        1, ge=1, description="passes of a client over its images in a round, each newly encrypted"
    )
    clients: Whole = Field(2, ge=1, description="participants to wait for before a round")
    timeout: Positive = Field(
        3600.0,
        description="seconds after which a round ends without the missing answers",
    )
    strategy: str = Field(
        "FedAvg", description="how answers are aggregated: FedSGD, or a strategy of Flower's"
    )
    strategy_arguments: str = Field(
        "", description="arguments of the strategy, as in `eta=0.01 tau=0.001`"
    )
    gradient: Literal["pass", "batch"] = Field(
        "pass", description="with FedSGD: the gradient of a whole pass, or of one batch"
    )
    client_test: bool = Field(
        False, description="have clients test every round's network on `test` images of their own"
    )

    partition: Literal["iid", "dirichlet"] = Field(
        "iid", description="how participants that share one data set split it"
    )
    alpha: Positive = Field(
        0.3,
        description="Dirichlet parameter of the split; smaller: fewer classes for each participant",
    )

    test_labels: str | None = Field(
        None, description="table with the labels of the `test` images, if they are in a folder"
    )
    test_image_column: str = Field(
        "file", description="column of `test_labels` that names the image file"
    )
    test_label_columns: str = Field(
        "label", description="columns of `test_labels` with labels: class, or mass,nodule"
    )
    test_split_column: str | None = Field(
        None, description="column of `test_labels` that says train, test or validation"
    )

    federation_task: Task | None = Field(
        None,
        description="what the labels of all participants are; none: those of the test images, or "
        "single-label",
    )
    shape: Annotated[
        Annotated[tuple[int, ...], Field(min_length=3, max_length=4)] | None,
        BeforeValidator(_sizes),
    ] = Field(
        None,
        description="channels, height, width of the images, or channels, depth, height, width of "
        "volumes; none: those of the test images",
    )
    classes: Annotated[tuple[str, ...] | None, BeforeValidator(_words)] = Field(
        None,
        description="names of the classes, findings or values in order; none: those of the test "
        "images",
    )
    value_range: Annotated[tuple[Number, Number], BeforeValidator(_numbers)] = Field(
        EIGHT_BIT,
        description="lowest and highest value of a pixel at every participant, as in 0,4095",
    )
    mean: Moments | None = Field(
        None, description="of pixels in the unit range; none: the clients are asked for theirs"
    )
    std: Moments | None = Field(
        None, description="of pixels in the unit range; none: the clients are asked for theirs"
    )
    target_mean: Moments | None = Field(
        None, description="of each value of a regression; none: the clients are asked for theirs"
    )
    target_std: Spreads | None = Field(
        None, description="of each value of a regression; none: the clients are asked for theirs"
    )
    class_weights: Annotated[Weights | None, BeforeValidator(_weights)] = Field(
        None, description="weight of each class or finding in the loss; none: equal weights"
    )
    positive_weights: Annotated[Weights | None, BeforeValidator(_weights)] = Field(
        None, description="weight of a present finding in the loss, where an absent one has 1"
    )

    dp: bool = Field(
        False, description="train on plain images by DP-SGD, to compare with; `scheme` is plain"
    )
    noise_multiplier: Positive = Field(
        1.0, description="DP-SGD: deviation of the noise over the clipping norm"
    )
    # Of a much smaller one, gradients and noise are rounded so coarsely that epsilon is too low.
    max_grad_norm: Annotated[Number, Field(ge=1e-6, le=1e6)] = Field(
        1.0, description="DP-SGD: norm that an image's gradient is clipped to"
    )
    delta: Annotated[Number, Field(gt=0, lt=1)] = Field(
        1e-5, description="DP-SGD: epsilon is reported at this delta"
    )

    out: str | None = Field(None, description="folder for the results and the network")

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """Read a run config, whose names have hyphens; empty texts count as not set.

        Raises:
            InstaHideError: a setting is unknown, does not apply to a federation, or has an invalid
                value. The message names it and is safe to print.
        """
        values = _named(config.items())
        unused = [name for name in MEANINGLESS if name in values]
        if unused:
            raise InstaHideError(
                f"The run config: `{unused[0]}` means nothing in a federation.",
                "Leave it out. A participant trains on its images for `rounds` times "
                "`local-epochs` epochs.",
            )
        settings = cls.from_values(values, "The run config")
        # A server must not name a package that its clients import.
        if settings.model not in NETWORKS:
            raise InstaHideError(
                f"The run config: `model` is {settings.model!r:.80}, not a built-in network.",
                f"Choose one of {', '.join(NETWORKS)}.",
            )
        if settings.dp and settings.scheme != "plain":
            raise InstaHideError(
                f"DP-SGD is a baseline on plain images, but the scheme is {settings.scheme}.",
                'Set `scheme = "plain"`, or leave `dp` out.',
            )
        if settings.dp and settings.strategy in WITHOUT_DP:
            raise InstaHideError(
                f"{settings.strategy} {WITHOUT_DP[settings.strategy]}.",
                'Set `strategy = "FedAvg"` or another one, or leave `dp` out.',
            )
        return settings

    @property
    def labels_task(self) -> Task:
        """The task of the images of `data`, which follows from the table of labels."""
        table = self.label_table()
        return "single-label" if table is None else table.labels_task

    def test_table(self, task: Task | None) -> LabelTable | None:
        """The table with the labels of the images of `test`, if there is one.

        Without `test_labels` it is the table of the training images, for a `test` in one folder
        with them.

        Args:
            task: what the labels of `test_labels` are; None: by the number of columns.

        Raises:
            DataError: test and training images have one table, but are in two folders, or the
                table has no split column.
        """
        if self.test_labels is not None:
            return LabelTable(
                self.test_labels,
                self.test_image_column,
                column_names(self.test_label_columns),
                split_column=self.test_split_column,
                task=task,
            )
        if self.labels is not None and self.test != self.data:
            raise DataError(
                "`labels` is the table of one folder of images, but `test` is another folder.",
                "Name the table of the test images by `test-labels`, or name one folder for both.",
            )
        if self.labels is not None and self.split_column is None:
            raise DataError(
                "`test` is the folder of the training images, and their table has no split column.",
                "Name a `split-column`, or test images in another folder with `test-labels`.",
            )
        return self.label_table()

    @property
    def local(self) -> Self:
        """Settings of local training: a schedule over all rounds, and no moving average."""
        return self.model_copy(update={"epochs": self.rounds * self.local_epochs, "ema": 0.0})

    def to_json_dict(self) -> dict[str, object]:
        """The settings for JSON, without those in `MEANINGLESS`."""
        return self.model_dump(mode="json", exclude=set(MEANINGLESS))
