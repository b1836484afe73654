"""Reads files of settings: YAML, TOML or JSON, of limited size."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from instahide.errors import InstaHideError, failure_reason
from instahide.utils.atomic_write import read_regular

if TYPE_CHECKING:
    from instahide.training.settings import TrainSettings

#: Bytes of a settings file, at most.
MOST_BYTES = 1 << 16


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, with which a few lines could expand to more than the memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has aliases (*name), which settings do not need")
        return super().compose_node(parent, index)


def _yaml(text: str) -> object:
    return yaml.load(text, _PlainLoader)  # noqa: S506  a SafeLoader


_PARSERS: Mapping[str, Callable[[str], object]] = {
    ".yaml": _yaml,
    ".yml": _yaml,
    ".toml": tomllib.loads,
    ".json": json.loads,
}


def read_settings_file(path: Path) -> dict[str, object]:
    """The settings in a YAML, TOML or JSON file, which were not checked yet.

    Raises:
        InstaHideError: the file cannot be read.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise InstaHideError(
            f"{path} is not a settings file.", f"Name one that ends in {', '.join(_PARSERS)}."
        )
    try:
        values = parse(read_regular(path, MOST_BYTES).decode("utf-8"))
    except Exception as error:  # PyYAML raises many kinds on values that it cannot make
        raise InstaHideError(
            f"{path} cannot be read ({failure_reason(error)}).",
            f"Check that it exists and is valid {path.suffix[1:].upper()}.",
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InstaHideError(
            f"{path} holds no settings.", "Write one `name: value` a line, such as `epochs: 30`."
        )
    return values


def require_named(settings: TrainSettings, given: Mapping[str, object], source: object) -> None:
    """Check that the network and the encoder run no code that a file alone names.

    Args:
        settings: of the file.
        given: values by the user, by name of the setting.
        source: the file.

    Raises:
        InstaHideError: one is of another package, and the user did not name it.
    """
    from instahide.encryption.encoders.registry import is_builtin
    from instahide.training.models.imported import is_imported

    named = {"model": settings.model if is_imported(settings.model) else None}
    if settings.encoder is not None and not is_builtin(settings.encoder):
        named["encoder"] = settings.encoder
    for setting, name in named.items():
        if name is not None and setting not in given:
            what = "network" if setting == "model" else setting
            raise InstaHideError(
                f"{source} names the {what} `{name}`, whose package would be imported.",
                f"If you trust the file and the package, name it yourself: `{setting}='{name}'`.",
            )
