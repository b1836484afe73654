"""What commands share: arguments, options, and how options objects become options.

A command is a function under `command`. Its parameters are arguments and options as Typer has
them, or options objects: pydantic models, of which every field becomes an option.
"""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Union, get_args, get_origin

import click
import typer
from click.core import ParameterSource
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from typer.main import get_command
from typer.models import ParameterInfo

from instahide.cli.console import explained, output_modes
from instahide.data.labels import Task
from instahide.data.pixels import MOST_SIDE
from instahide.encryption.scheme import (
    CoefficientDistribution,
    LabelMode,
    Preset,
    Scheme,
    label_mode_for,
)
from instahide.errors import InstaHideError, first_validation_error
from instahide.utils.number_text import plain_float

if TYPE_CHECKING:
    from instahide.encryption.guarantees.prior import PixelPrior

#: Largest value of other counts.
MOST = 1_000_000

Source = Annotated[
    str,
    typer.Argument(help="Images: digits, mnist-5k, fashion-mnist, a folder, a file or a URL."),
]
EncodedSource = Annotated[str, typer.Argument(help="Folder of encodings, or its URL.")]
Pool = Annotated[str, typer.Option("--public", help="Folder of a public pool, or `photos`.")]
Size = Annotated[
    int | None,
    typer.Option(
        help="Resize the short side to this many pixels and crop the center.",
        min=1,
        max=MOST_SIDE,
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read.")]
Classes = Annotated[
    str | None,
    typer.Option(help="All classes of all participants: cat,dog or a file with one name per line."),
]
TrustedModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Network of the run: needed if it is of another package, whose code is then run.",
    ),
]
LedgerFile = Annotated[
    Path | None,
    typer.Option("--ledger", help="File of the ledger; if omitted, $INSTAHIDE_LEDGER or your own."),
]
GivenFolder = Annotated[Path, typer.Argument(help="Folder of the challenge.")]
TruthFolder = Annotated[Path, typer.Option("--truth", help="Folder of the truth, kept apart.")]
#: Help text of an option that names an encoder, and the option of its settings.
ENCODER = (
    "encoder other than InstaHide: noisy-mixup, dp-instahide, neuracrypt, block-scrambling, one of "
    "an installed package, or package.module:Name, whose code is then run"
)
EncoderSettings = Annotated[
    list[str],
    typer.Option(metavar="NAME=VALUE", help="Setting of the encoder, as k=6; repeatable."),
]
Delta = Annotated[float, typer.Option(help="Delta at which the epsilon of the noise is given.")]
Baseline = Annotated[
    float,
    typer.Option(help="Chance of success of an attack without encodings, for its bound with them."),
]
Prior = Annotated[
    str | None,
    typer.Option(
        "--prior",
        help="Public images like these, of the same size: estimates an error floor for biased "
        "reconstructions too.",
    ),
]
#: The formats of `instahide.encodings.convert`.
Format = Annotated[
    Literal["challenge", "webdataset", "huggingface", "parquet"],
    typer.Option("--format", help="Format of the files."),
]


class MixingOptions(BaseModel):
    """Changes to a preset of `Scheme`; None keeps the preset's value."""

    private_k: int | None = Field(None, description="private images in a mix")
    c1: float | None = Field(None, description="upper bound of every coefficient")
    c2: float | None = Field(None, description="lower bound of the sum of private coefficients")
    label_mode: LabelMode | None = Field(
        None,
        description="labels of a mix; if omitted, soft for classes, renormalised for findings and "
        "measured values",
    )
    coefficient_distribution: CoefficientDistribution | None = Field(
        None, description="distribution of the coefficients"
    )
    noise: float = Field(
        0.0, description="standard deviation of Gaussian noise, in units of normalized images"
    )

    def changed(self, preset: Preset, k: int, task: Task = "single-label") -> Scheme:
        """The scheme ``preset`` with these changes, for labels of ``task``.

        Raises:
            InstaHideError: as `Scheme`.
        """
        return Scheme.preset(
            preset,
            k,
            private_k=self.private_k,
            c1=self.c1,
            c2=self.c2,
            label_mode=label_mode_for(task, self.label_mode),
            coefficient_distribution=self.coefficient_distribution,
            noise=self.noise,
        )


#: Title of a group of options in the help text, and the fields in it.
Panels = Mapping[str, Iterable[str]]
LABEL_PANEL = (
    "labels", "image_column", "label_columns", "group_column", "split_column", "task",
)  # fmt: skip
MIXING_PANEL = ("scheme", "k", *MixingOptions.model_fields)


def _everywhere(
    *,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print nothing but results and errors.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as one JSON object.")
    ] = False,
) -> None:
    """The options of every command."""


def prior_of(source: str, shape: tuple[int, ...]) -> PixelPrior:
    """The prior of the public images ``source``, for private images of ``shape``.

    Raises:
        InstaHideError: the images cannot be read, are too few, or have another shape.
    """
    from instahide.data import open_images
    from instahide.encryption.guarantees.prior import estimate_prior

    *_, height, width = shape
    public = open_images(source, size=height if height == width else None)
    if public.shape != shape:
        raise InstaHideError(
            f"The images of the prior have shape {public.shape}, and the private ones {shape}.",
            "Name public images of the same size and number of channels.",
        )
    return estimate_prior(public)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make ``function`` a command.

    A parameter that is annotated with a pydantic model, or `Annotated` with one and `Panels`,
    becomes an option for each field: description, bounds and default are the field's. The model
    holds as set what was given on the command line. `--quiet` and `--json` are added, and errors
    that a user can correct become messages.
    """
    declared: list[inspect.Parameter] = []
    models: dict[str, type[BaseModel]] = {}
    for parameter in _parameters(function):
        model, *panels = get_args(parameter.annotation) or (parameter.annotation,)
        if isinstance(model, type) and issubclass(model, BaseModel):
            models[parameter.name] = model
            declared += _options(model, *panels)
        else:
            declared.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @explained
    def call(**values: object) -> None:
        objects = {name: _built(model, values) for name, model in models.items()}
        function(**objects, **values)

    def run(*, quiet: bool, as_json: bool, **values: object) -> None:
        with output_modes(quiet=quiet, as_json=as_json):
            call(**values)

    declared += _parameters(_everywhere)
    run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, __name__
    run.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]
    # Typer asks for the annotations apart from the signature.
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in declared}
    return run


def click_command(found: Callable[..., None] | typer.Typer) -> click.Command:
    """The Click command of a function under `command`, or of a group of them."""
    if isinstance(found, typer.Typer):
        made = get_command(found)
    else:
        single = typer.Typer(add_completion=False)
        single.command()(found)
        made = get_command(single)
    for each in [made, *getattr(made, "commands", {}).values()]:
        _restore_argument_help(each)
    return made


def _restore_argument_help(made: click.Command) -> None:
    """Since version 8.5 Click has a help text of arguments itself, and clears typer's."""
    for parameter in made.params:
        if isinstance(parameter, click.Argument) and made.callback is not None:
            annotation = inspect.signature(made.callback).parameters[str(parameter.name)].annotation
            info = _info(annotation.__metadata__)
            parameter.help = None if info is None else info.help


def _parameters(function: Callable[..., None]) -> list[inspect.Parameter]:
    return list(inspect.signature(function, eval_str=True).parameters.values())


def _built(model: type[BaseModel], values: dict[str, object]) -> BaseModel:
    """Build the model from its fields in ``values``, and remove them there."""
    context = click.get_current_context()
    fields = {name: values.pop(name) for name in model.model_fields}
    given = {
        name: value
        for name, value in fields.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise InstaHideError(
            f"An option has an unusable value: {first_validation_error(error)}.",
            f"See `{context.command_path} --help`.",
        ) from None


def _options(model: type[BaseModel], panels: Panels | None = None) -> list[inspect.Parameter]:
    titles = {name: title for title, names in (panels or {}).items() for name in names}
    fields = model.model_fields
    ordered = [*(name for name in fields if name not in titles), *titles]
    return [_option(name, fields[name], titles.get(name)) for name in ordered]


def _option(name: str, field: FieldInfo, panel: str | None) -> inspect.Parameter:
    kind, details = _plain_type(field.annotation)
    details = [*field.metadata, *details]
    many = get_origin(kind) is list
    # A list is what the command is about if it has a default, else an option to repeat.
    is_argument = many and (field.is_required() or field.default is not None)
    info = copy(_info(details) or (typer.Argument() if is_argument else typer.Option()))
    if field.description:
        info.help = f"{field.description[0].upper()}{field.description[1:].rstrip('.')}."
        info.min, info.max = _bounds(details)
    info.rich_help_panel = panel or info.rich_help_panel
    default = inspect.Parameter.empty if field.is_required() else field.default
    if field.default_factory is not None:
        default = None
    if many and isinstance(default, str):
        default = [default]
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind if field.is_required() else kind | None, info],
    )


def _plain_type(annotation: object) -> tuple[type, list[object]]:
    """What a user types of a field, without None; and what else `Annotated` says of it.

    A field that takes one value or a list of them takes a list.
    """
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_plain_type(part) for part in get_args(annotation) if part is not type(None)]
        return next((part for part in parts if get_origin(part[0]) is list), parts[0])
    if get_origin(annotation) is Annotated:
        inner, *details = get_args(annotation)
        plain, more = _plain_type(inner)
        return plain, [*details, *more]
    return annotation, []  # type: ignore[return-value]


def _info(details: Iterable[object]) -> ParameterInfo | None:
    return next((detail for detail in details if isinstance(detail, ParameterInfo)), None)


def _bounds(details: Iterable[object]) -> tuple[float | None, float | None]:
    """The smallest and largest value for the help text; the model checks further bounds."""

    def flat(parts: Iterable[object]) -> Iterator[object]:
        for part in parts:
            yield from flat(part.metadata) if isinstance(part, FieldInfo) else [part]

    found = list(flat(details))
    least = max((part.ge for part in found if hasattr(part, "ge")), default=None)
    most = [part.le for part in found if hasattr(part, "le")]
    return least, min((bound for bound in most if bound < 10**9), default=None)


def require_named_encoder(encoder: str | None, settings: Iterable[str]) -> None:
    """Check that there are no ``settings`` of an encoder without its name.

    Raises:
        InstaHideError: there are.
    """
    if encoder is None and list(settings):
        raise InstaHideError(
            "--encoder-settings are given, and no --encoder.",
            "Name the encoder, or leave them out.",
        )


def require_no_scheme(options: BaseModel, names: Iterable[str]) -> None:
    """Check that none of the options ``names`` of a scheme is set, as another encoder is named.

    Raises:
        InstaHideError: one is set.
    """
    for name in names:
        if name in options.model_fields_set:
            raise InstaHideError(
                f"--{name.replace('_', '-')} is an option of schemes, and --encoder names another "
                "encoder.",
                "Give settings of the encoder as --encoder-settings name=value.",
            )


def require_no_input(out: Path, *inputs: str | Path | None) -> None:
    """Check that the file ``out`` is not one of the ``inputs`` of a command, nor in one of them.

    A new file in a folder that is read is allowed. Names of built-in images are no files.

    Raises:
        InstaHideError: it is, so that the command would replace what it reads.
    """
    from instahide.data import BUILTIN
    from instahide.data.public.crops import PHOTOS

    target = Path(os.path.realpath(out))
    for source in inputs:
        if source is None or str(source) in {*BUILTIN, PHOTOS} or not target.exists():
            continue
        if target.is_relative_to(os.path.realpath(source)):
            raise InstaHideError(
                f"{out} exists already, and {source}, which is read, has it or is it.",
                "Choose another --out, or remove the file first if it is an earlier result.",
            )


def run_files(run: Path) -> list[Path]:
    """The files that a training wrote into the folder ``run``; others in it may be replaced."""
    return [path for path in run.glob("*") if path.suffix in {".json", ".safetensors"}]


def numbers(text: str) -> tuple[float, ...]:
    """One number per channel, as typed: ``0.49,0.48,0.45``.

    Raises:
        InstaHideError: something else was typed.
    """
    try:
        return tuple(plain_float(part) for part in text.split(","))
    except ValueError as error:
        raise InstaHideError(
            f"{text!r} is not one number per channel.", "Write 0.29, or 0.49,0.48,0.45 for color."
        ) from error
