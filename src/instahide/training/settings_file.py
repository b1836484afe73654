"""Reads files of settings: YAML, TOML or JSON, of limited size."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from instahide.errors import InstaHideError, failure_reason
from instahide.utils.atomic_write import read_regular

if TYPE_CHECKING:
    from instahide.training.settings import TrainSettings

#: Bytes of a settings file, at most.
MOST_BYTES = 1 << 16


class _PlainLoader(yaml.SafeLoader):
    """YAML without what a reader of a settings file does not expect.

    With aliases, a few lines could expand to more than the memory. Of a key that is there twice,
    the last one alone would count. And YAML 1.1 reads ``1:30`` as 90, in base 60.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has aliases (*name), which settings do not need")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            _require_distinct([self.construct_object(key, deep=True) for key, _ in node.value])
        return found

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        _require_base_ten(node)
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        _require_base_ten(node)
        return super().construct_yaml_float(node)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_yaml_int)
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader.construct_yaml_float)


def _require_base_ten(node: yaml.ScalarNode) -> None:
    if ":" in node.value:
        raise ValueError(
            f"{node.value} would be a number in base 60: write it in base 10, or text in quotes"
        )


def _require_distinct(keys: Iterable[object]) -> None:
    for key, count in Counter(keys).items():
        if count > 1:
            raise ValueError(f"it has the key {key} {count} times: keep one of them")


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    _require_distinct(key for key, _ in pairs)
    return dict(pairs)


def _yaml(text: str) -> object:
    return yaml.load(text, _PlainLoader)  # noqa: S506  a SafeLoader


def _json(text: str) -> object:
    return json.loads(text, object_pairs_hook=_distinct)


_PARSERS: Mapping[str, Callable[[str], object]] = {
    ".yaml": _yaml,
    ".yml": _yaml,
    ".toml": tomllib.loads,
    ".json": _json,
}


def read_settings_file(path: Path) -> dict[str, object]:
    """The settings in a YAML, TOML or JSON file, which were not checked yet.

    Raises:
        InstaHideError: the file cannot be read, has a key twice, or has a YAML number in base 60.
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
