"""The arguments of a training run, one for each field of `TrainSettings`, with its help text."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from instahide.training.settings import TrainSettings

#: Title of these options in the help text.
PANEL = "Settings of the run"


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command``, which takes ``given``, one option for each training setting.

    What to train on is no option: every argument without a name is a source. ``given`` holds the
    settings that were named on the command line, and only those.
    """
    parameters = inspect.signature(command, eval_str=True).parameters
    own = [parameter for name, parameter in parameters.items() if name != "given"]

    def run(**arguments: Any) -> None:
        fields = {name: arguments.pop(name) for name in TrainSettings.model_fields}
        command(given={k: _typed(v) for k, v in fields.items() if v not in (None, [])}, **arguments)

    options = [_parameter(name, field) for name, field in TrainSettings.model_fields.items()]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    # Typer asks for the annotations apart from the signature.
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *options]}
    return run


def _typed(value: Any) -> Any:
    """A single source is no list of sources."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    text = field.description or ""
    text = text[:1].upper() + text[1:]
    if field.default_factory is None and field.default is not None:
        text = f"{text} (default: {field.default})"
    if name == "data":
        declared = typer.Argument(None, help=f"{text}.", metavar="SOURCE", show_default=False)
        annotation: Any = list[str] | None
    else:
        declared = typer.Option(None, help=f"{text}.", show_default=False, rich_help_panel=PANEL)
        annotation = _plain_type(field.annotation) | None
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=declared, annotation=annotation)


def _plain_type(annotation: Any) -> Any:
    """The type a user types: without None, bounds and validators."""
    if get_origin(annotation) in (Union, types.UnionType):
        return _plain_type(next(part for part in get_args(annotation) if part is not type(None)))
    if get_origin(annotation) is Annotated:
        return _plain_type(get_args(annotation)[0])
    return annotation
