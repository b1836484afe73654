"""The public settings of a training run: one frozen model, checked in one place."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic.fields import FieldInfo

from instahide.data.read_settings import ReadSettings
from instahide.errors import InstaHideError
from instahide.training.settings_file import read_settings_file

if TYPE_CHECKING:
    from instahide.data.labels import Task
    from instahide.encryption.encoders.base import InstanceEncoder
    from instahide.encryption.scheme import Scheme


def _from_text(value: object) -> object:
    """Convert text such as ``1e-3``, which YAML does not read as a number."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _positive(values: list[float]) -> list[float]:
    if not all(0 < value <= 1e9 for value in values):
        raise ValueError("weights must be positive numbers")
    return values


def _masked(values: Mapping[str, object]) -> bool:
    # An invalid value is missing, in older releases of pydantic.
    if values.get("encoder") is not None:
        return values["encoder"] == "instahide"
    return values.get("scheme") in ("inside", "cross")


#: Settings of schemes, their guarantees, queries and calibration; not of other encoders.
OF_SCHEMES = (
    "fresh_crops", "scheme", "k", "private_k", "c1", "c2", "label_mode", "coefficient_distribution",
    "noise", "crop_padding", "flip", "min_mse", "queries", "query_coefficient", "calibration_share",
)  # fmt: skip
#: Settings of the encryption, which do not apply to folders of encodings.
ENCRYPTION = (
    "public", "fresh_crops", "test_share", "encoder", "encoder_settings", "scheme", "k",
    "private_k", "c1", "c2", "label_mode", "coefficient_distribution", "noise", "copies",
    "crop_padding", "flip", "ledger", "max_exposure", "min_mse", "queries", "query_coefficient",
    "calibration_share",
)  # fmt: skip

#: Numbers in a range that all computations support.
Number = Annotated[float, BeforeValidator(_from_text), Field(allow_inf_nan=False), Field(le=1e9)]
Positive = Annotated[Number, Field(gt=0)]
Weights = Annotated[list[float], Field(min_length=1), AfterValidator(_positive)]
Whole = Annotated[int, Field(le=10**9)]
#: The default of the highest learning rate for measured values.
REGRESSION_LR = 0.01
#: Characters of a value that an error message shows.
_SHOWN = 80


class TrainSettings(ReadSettings):
    """The settings of a training run; none of them is secret.

    The description of a field is also the help text of its command-line option. The bounds of the
    scheme (k, c1, c2) depend on each other and are checked by `encryption`. For values from users,
    call `from_values`, `load` or `merged`, whose errors name the setting and the remedy.

    Raises:
        pydantic.ValidationError: a setting is unknown, or has the wrong type or an invalid value.

    Examples:
        >>> from instahide.training.settings import TrainSettings
        >>> settings = TrainSettings(data="digits", scheme="inside", k=6, epochs=10)
        >>> settings.encryption().k
        6
        >>> settings.merged({"epochs": 20}).epochs
        20
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    data: str | Annotated[list[str], Field(min_length=1)] = Field(
        "mnist-5k",
        description="images to train on: a built-in set, folder, file or URL; or a list of folders "
        "of encodings, to train on their union; `{rank}` in a name: a source for each process",
    )
    test: str | None = Field(
        None,
        description="images to test on: the test images of a source that has any, or all of it; a "
        "folder of encodings tests folders of encodings; if omitted, a part of the data",
    )
    public: str = Field("photos", description="public pool: a folder, or the built-in `photos`")
    fresh_crops: bool = Field(
        False, description="draw new crops of the public photographs every epoch, flat ones too"
    )
    test_share: Annotated[Number, Field(gt=0, lt=1)] = Field(
        0.2, description="share of every class to test on, where the data has no test part"
    )

    encoder: Annotated[str, Field(max_length=200)] | None = Field(
        None,
        description="encoder other than InstaHide: noisy-mixup, dp-instahide, neuracrypt, "
        "block-scrambling, one of an installed package, or package.module:Name, whose code is then "
        "run; if omitted, the scheme below",
    )
    encoder_settings: list[str] | None = Field(
        None, description="settings of the encoder, each as k=6"
    )
    scheme: Literal["inside", "cross", "mixup", "plain"] = Field(
        "cross", description="how images are mixed"
    )
    k: int = Field(4, description="images in a mix; a plain scheme has none")
    private_k: int | None = Field(
        None, description="private images in a mix; if omitted, the scheme's"
    )
    c1: Number | None = Field(
        None, description="bound of every coefficient; if omitted, the scheme's"
    )
    c2: Number | None = Field(
        None, description="least sum of the private coefficients; if omitted, the scheme's"
    )
    label_mode: Literal["soft", "renormalised"] | None = Field(
        None,
        description="labels of a mix: soft as in the paper, or renormalised: divided by the "
        "private images' share of the mix; if omitted, soft for classes, renormalised for findings "
        "and measured values",
    )
    coefficient_distribution: Literal["half-normal", "dirichlet"] | None = Field(
        None,
        description="distribution of the coefficients; if omitted, half-normal as in the paper",
    )
    noise: Annotated[Number, Field(ge=0)] = Field(
        0.0,
        description="standard deviation of Gaussian noise on every value of an encoding, in units "
        "of normalized images",
    )
    copies: Annotated[Whole, Field(ge=1)] | None = Field(
        None,
        description="encodings of each image: later epochs train on those of earlier ones again; "
        "if omitted, every epoch makes new ones",
    )
    crop_padding: Whole = Field(0, ge=0, description="zero padding of the random crop, in pixels")
    flip: bool = Field(False, description="random horizontal flips")

    ledger: str | None = Field(
        None,
        description="file that counts how often each image has gone into an encoding; if omitted, "
        "$INSTAHIDE_LEDGER, or the user's own",
    )
    max_exposure: Annotated[Whole, Field(ge=1)] | None = Field(
        None, description="stop before an image, or a group, has gone into more encodings than this"
    )
    min_mse: Annotated[Number, Field(gt=0)] | None = Field(
        None,
        description="stop before the error floor of an image, or a group, is below this mean "
        "squared error of unbiased reconstructions, with pixels from 0 to 1; needs noise",
    )

    class_weights: Weights | None = Field(
        None,
        description="weight of each class or finding in the loss, in the order of the classes; if "
        "omitted, equal weights",
    )
    positive_weights: Weights | None = Field(
        None,
        description="weight of a present finding in the loss, where an absent one has 1, for each "
        "finding",
    )

    model: str = Field(
        "small",
        max_length=200,
        description="network: small, small-group without batch statistics, or resnet18 as in the "
        "paper; small-3d for volumes; timm:NAME, monai:NAME, or your own package.module:factory",
    )
    weights: str | None = Field(
        None, description="file of pretrained weights to begin with, of the same network"
    )
    sign_invariant: bool = Field(
        default_factory=_masked, description="feed the network |x|; on where a scheme masks signs"
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="seed of the initial weights, and of nothing else: no key"
    )

    epochs: Whole = Field(
        30,
        ge=1,
        description="passes over the private images; of encoded folders, over all their encodings, "
        "so that T copies make an epoch T times as long",
    )
    batch_size: Whole = Field(
        256, ge=2, description="encodings in a step, of all processes together"
    )
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="optimiser")
    lr: Positive = Field(
        0.2, description=f"highest learning rate; if omitted, {REGRESSION_LR} for measured values"
    )
    weight_decay: Annotated[Number, Field(ge=0)] = Field(5e-4, description="weight decay")
    momentum: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.9, description="Nesterov momentum of SGD, first beta of AdamW"
    )
    schedule: Literal["one-cycle", "step", "constant"] = Field(
        "one-cycle", description="course of the learning rate"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="arithmetic of the network; auto: bfloat16 where hardware has it"
    )
    ema: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.999, description="decay of the moving average of the weights; 0: no average"
    )
    patience: Annotated[Whole, Field(ge=1)] | None = Field(
        None,
        description="epochs without a better accuracy (macro AUROC of findings, R2 of measured "
        "values) before stopping; if omitted, training never stops early",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps ...")

    queries: Whole = Field(
        10, ge=0, description="encodings of each encrypted test query; 0: plain queries only"
    )
    query_coefficient: Annotated[Number, Field(ge=0, le=1)] = Field(
        0.5, description="least coefficient of an encrypted query"
    )
    calibration_share: Annotated[Number, Field(ge=0, lt=1)] | None = Field(
        None,
        description="share of the private images that are not trained on, but used to calibrate "
        "probabilities; if omitted, 0.1 (at most 1,000 images) for findings of 500 or more images "
        "under a scheme that mixes without noise, else 0",
    )

    @classmethod
    def from_values(cls, values: Mapping[str, object], source: str = "The settings") -> Self:
        """Make settings from ``values``; error messages name their ``source``.

        Raises:
            InstaHideError: a setting is unknown, has a wrong type or an invalid value, or concerns
                encryption although the data is encoded already.
        """
        try:
            settings = cls.model_validate(dict(values))
        except ValidationError as error:
            raise _refused(error, source, cls.model_fields) from None
        of_schemes = [name for name in OF_SCHEMES if name in settings.model_fields_set]
        if settings.encoder is not None and of_schemes:
            raise InstaHideError(
                f"{source}: `{of_schemes[0]}` is for schemes, and `encoder` names another encoder.",
                "Leave it out, and give settings of the encoder in `encoder_settings`.",
            )
        if settings.encoder is None and settings.encoder_settings:
            raise InstaHideError(
                f"{source}: `encoder_settings` are there, and no `encoder`.",
                "Name the encoder, or leave them out.",
            )
        unused = [name for name in ENCRYPTION if name in settings.model_fields_set]
        if settings.pooled and unused:
            raise InstaHideError(
                f"{source}: `{unused[0]}` is for images that are still to be encrypted; "
                "these sources are folders of encodings, which say how they were made.",
                f"Leave out {', '.join(f'`{name}`' for name in unused)}.",
            )
        return settings

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a ``.yaml``, ``.yml``, ``.toml`` or ``.json`` file; other settings have defaults.

        The file may name a ``model`` or ``encoder`` of another package, whose code a run with
        these settings executes. Check the name before you run settings of a stranger.

        Raises:
            InstaHideError: the file cannot be read, or as for `from_values`.
        """
        return cls.from_values(read_settings_file(path), str(path))

    def merged(self, values: Mapping[str, object]) -> Self:
        """These settings, replaced by ``values`` where these have any.

        Raises:
            InstaHideError: as for `from_values`.
        """
        return self.from_values({**self.model_dump(exclude_unset=True), **values})

    @property
    def pooled(self) -> bool:
        """Whether the data is a list of encoded folders; `ENCRYPTION` does not apply then."""
        return isinstance(self.data, list)

    @model_serializer(mode="wrap")
    def _without_what_does_not_apply(
        self, dump: SerializerFunctionWrapHandler
    ) -> dict[str, object]:
        values: dict[str, object] = dump(self)
        return {
            name: value
            for name, value in values.items()
            if not (self.pooled and name in ENCRYPTION)
            and not (self.encoder is not None and name in OF_SCHEMES)
        }

    def encryption(self, task: Task = "single-label") -> Scheme:
        """The scheme that these settings ask for, for labels of ``task``.

        Raises:
            InstaHideError: its bounds do not fit each other, or another encoder is asked for.
        """
        from instahide.encryption.scheme import Scheme, label_mode_for

        if self.encoder is not None:
            raise InstaHideError(
                f"The encoder {self.encoder} is asked for, and this is for schemes only.",
                "Leave out `encoder`.",
            )
        return Scheme.preset(
            self.scheme,
            self.k,
            private_k=self.private_k,
            c1=self.c1,
            c2=self.c2,
            label_mode=label_mode_for(task, self.label_mode),
            coefficient_distribution=self.coefficient_distribution,
            noise=self.noise,
        )

    def instance_encoder(self, task: Task = "single-label") -> InstanceEncoder:
        """The encoder that these settings ask for: `encryption`, unless ``encoder`` is set.

        It may import the package that ``encoder`` names.

        Raises:
            InstaHideError: there is no such encoder, or it cannot be made with these settings.
        """
        from instahide.encryption.encoders.registry import encoder_named, parse_settings

        if self.encoder is None:
            return self.encryption(task)
        return encoder_named(self.encoder, parse_settings(self.encoder_settings or ()))

    def completed(self, task: Task) -> Self:
        """These settings for labels of ``task``: the learning rate follows it, unless it is set.

        The gradient of a squared error is not bounded, as that of a cross-entropy is.
        """
        if task != "regression" or "lr" in self.model_fields_set:
            return self
        return self.merged({"lr": REGRESSION_LR})

    def differences(self, other: TrainSettings) -> list[str]:
        """The differences from ``other``, each as ``epochs: 30 here, 40 there``."""
        here, there = self.model_dump(), other.model_dump()
        return [
            f"{name}: {value!r} here, {there[name]!r} there"
            for name, value in here.items()
            if name in there and value != there[name]
        ]


def _refused(error: ValidationError, source: str, known: Mapping[str, FieldInfo]) -> InstaHideError:
    # A default that waits for a refused field is reported too, and says nothing of its own.
    details = [item for item in error.errors() if item["type"] != "default_factory_not_called"]
    first = details[0]
    # A name that is no text at all has no place.
    name = str(first["loc"][0])[:_SHOWN] if first["loc"] else "?"
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, known, n=1)
        remedy = f"Did you mean `{close[0]}`?" if close else f"Use one of: {', '.join(known)}."
        return InstaHideError(f"{source}: there is no setting `{name}`.", remedy)
    field = known.get(name)
    reason = first["msg"][0].lower() + first["msg"][1:]
    shown = reprlib.repr(first["input"])[:_SHOWN]
    return InstaHideError(
        f"{source}: `{name}` is {shown}: {reason}.",
        f"`{name}` means: {field.description}." if field else "Setting names are plain words.",
    )
