"""The run config of a federation: training settings, and settings of the federation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field

from instahide.errors import InstaHideError
from instahide.integrations.flower.untrusted_values import printable
from instahide.training.models import IMAGE_NETWORKS
from instahide.training.settings import Number, Positive, TrainSettings, Whole

#: Most characters of a value: enough for the names of thousands of classes.
MOST_TEXT = 100_000
#: Training settings that do not apply to a federation.
MEANINGLESS = (
    "epochs", "ema", "patience", "test_share", "queries", "query_coefficient", "weights",
    "class_weights", "positive_weights", "task", "window", "labels", "image_column",
    "label_columns", "group_column", "split_column",
)  # fmt: skip


def _words(value: object) -> object:
    """Split a text such as ``"cat, dog"``; Flower's configs cannot hold lists."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(","))
    return tuple(value) if isinstance(value, list) else value


def _numbers(value: object) -> object:
    return (value,) if isinstance(value, int | float) else _words(value)


def _sizes(value: object) -> object:
    try:
        return tuple(int(word) for word in _words(value))  # type: ignore[attr-defined]
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

    shape: Annotated[
        Annotated[tuple[int, ...], Field(min_length=3, max_length=3)] | None,
        BeforeValidator(_sizes),
    ] = Field(
        None, description="channels, height, width of the images; none: those of the test images"
    )
    classes: Annotated[tuple[str, ...] | None, BeforeValidator(_words)] = Field(
        None, description="names of the classes in order; none: those of the test images"
    )
    mean: Moments | None = Field(
        None, description="of pixel / 255, per channel; none: the clients are asked for theirs"
    )
    std: Moments | None = Field(
        None, description="of pixel / 255, per channel; none: the clients are asked for theirs"
    )

    dp: bool = Field(
        False, description="train on plain images by DP-SGD, to compare with; `scheme` is plain"
    )
    noise_multiplier: Positive = Field(
        1.0, description="DP-SGD: deviation of the noise over the clipping norm"
    )
    max_grad_norm: Positive = Field(
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
        if settings.model not in IMAGE_NETWORKS:
            raise InstaHideError(
                f"The run config: `model` is {settings.model!r:.80}, not a built-in network "
                "for images.",
                f"Choose one of {', '.join(IMAGE_NETWORKS)}.",
            )
        if settings.dp and settings.scheme != "plain":
            raise InstaHideError(
                f"DP-SGD is a baseline on plain images, but the scheme is {settings.scheme}.",
                'Set `scheme = "plain"`, or leave `dp` out.',
            )
        return settings

    @property
    def local(self) -> Self:
        """Settings of local training: a schedule over all rounds, and no moving average."""
        return self.model_copy(update={"epochs": self.rounds * self.local_epochs, "ema": 0.0})

    def to_json_dict(self) -> dict[str, object]:
        """The settings for JSON, without those in `MEANINGLESS`."""
        return self.model_dump(mode="json", exclude=set(MEANINGLESS))
