"""The registered encoders: entry points of the group `instahide.encoders`, and imported ones.

A name of `BUILTIN` runs code of this library only, so that a folder of encodings may state it. Any
other name imports a package, and is for names that the user has typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points

from instahide.encryption.encoders.base import InstanceEncoder, Setting
from instahide.errors import InstaHideError, IntegrationError, SchemeError, failure_reason

GROUP = "instahide.encoders"
#: Encoders of this library. Each names a callable that takes settings and returns an encoder.
BUILTIN: Mapping[str, str] = {
    "instahide": "instahide.encryption.scheme:Scheme",
    "mixup": "instahide.encryption.scheme:Scheme.mixup",
    "plain": "instahide.encryption.scheme:Scheme.plain",
    "noisy-mixup": "instahide.encryption.encoders.rivals.noisy_mixup:noisy_mixup",
    "dp-instahide": "instahide.encryption.encoders.rivals.dp_instahide:DPInstaHide",
    "neuracrypt": "instahide.encryption.encoders.rivals.neuracrypt:NeuraCrypt",
    "block-scrambling": "instahide.encryption.encoders.rivals.block_scrambling:BlockScrambling",
}
#: ``package.module:Name`` or ``package.module:Class.method``.
_IMPORTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", re.ASCII)


def is_builtin(name: str) -> bool:
    """Whether ``name`` is an encoder of this library, so that using it imports no other package."""
    return name in BUILTIN


def encoder_named(name: str, settings: Mapping[str, Setting] | None = None) -> InstanceEncoder:
    """The encoder ``name`` with these ``settings``. It may import the package that the name states.

    Args:
        name: a name of `BUILTIN`, the name of an entry point of the group `instahide.encoders` of
            an installed package, or ``package.module:Name``. Of a stranger's file, pass it only if
            `is_builtin`.
        settings: values by name; the encoder's own defaults otherwise.

    Raises:
        InstaHideError: there is no such encoder, or a setting is unknown or out of range.
        IntegrationError: its package cannot be imported.

    Examples:
        >>> from instahide.encryption.encoders.registry import encoder_named
        >>> encoder_named("dp-instahide", {"k": 6}).settings["k"]
        6
    """
    make = _imported(BUILTIN[name] if is_builtin(name) else _target(name))
    try:
        encoder = make(**(settings or {}))
    except InstaHideError:
        raise
    except Exception as error:  # from code of other packages
        raise InstaHideError(
            f"The encoder {name} cannot be made with the settings "
            f"{', '.join(settings or {}) or '(none)'} ({failure_reason(error)}).",
            "Use the settings that it has, with values of their types.",
        ) from error
    if not isinstance(encoder, InstanceEncoder):
        raise InstaHideError(
            f"{name} returns {type(encoder).__name__}, which is not an instance encoder.",
            "Return an object with the attributes of "
            "`instahide.encryption.encoders.base.InstanceEncoder`.",
        )
    require_own_name(encoder)
    return encoder


def require_own_name(encoder: InstanceEncoder) -> None:
    """Check that no encoder of another package has the name of one of this library.

    Folders state the name alone, and readers trust what this library guarantees for its own names.

    Raises:
        SchemeError: it has.
    """
    own = type(encoder).__module__.partition(".")[0] == __name__.partition(".")[0]
    if is_builtin(encoder.name) and not own:
        raise SchemeError(
            f"{type(encoder).__name__} has the name of the built-in encoder {encoder.name}.",
            "Give it a `name` of its own, and an `epsilon` if its `encode` differs.",
        )


def recorded_encoder(
    name: str, settings: Mapping[str, Setting], named: str | None = None
) -> InstanceEncoder:
    """The encoder that a file states, which may come from an attacker.

    An encoder of another package is imported only if the user has named it.

    Args:
        name: ``name`` of the encoder, as the file states it.
        settings: its settings, likewise.
        named: the encoder that the user typed, as for `encoder_named`; None trusts the encoders of
            this library alone.

    Raises:
        InstaHideError: the encoder is of another package and was not named, it cannot be made with
            these settings, or it is another than the file's.
    """
    if named is None and not is_builtin(name):
        raise InstaHideError(
            f"The encodings were made by the encoder {name:.80}, whose package would be imported.",
            "If you trust the package, name the encoder with `encoder=`.",
        )
    encoder = encoder_named(named or name, settings)
    if encoder.name != name:
        raise InstaHideError(
            f"The encodings were made by the encoder {name:.80}, not {encoder.name}.",
            "Name the encoder that made them.",
        )
    return encoder


def registered() -> list[str]:
    """Names of all encoders that can be used by name, sorted; nothing is imported."""
    return sorted({*BUILTIN, *(point.name for point in entry_points(group=GROUP))})


def parse_settings(texts: Iterable[str]) -> dict[str, Setting]:
    """Settings as a user types them: ``k=4``, ``noise=0.5``, ``shuffle=false``, ``mode=soft``.

    Raises:
        InstaHideError: a text is not of this form, or a setting occurs twice.

    Examples:
        >>> from instahide.encryption.encoders.registry import parse_settings
        >>> parse_settings(["k=6", "noise=0.5", "rotate=false"])
        {'k': 6, 'noise': 0.5, 'rotate': False}
    """
    found: dict[str, Setting] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value) or name in found:
            raise InstaHideError(
                f"{text!r} is not a setting of an encoder, or is given twice.",
                "Write each setting once, as name=value: k=4, say.",
            )
        found[name] = _value(value)
    return found


def _value(text: str) -> Setting:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _target(name: str) -> str:
    """What to import for a name that is not built in."""
    if ":" in name:
        if not _IMPORTED.fullmatch(name):
            raise InstaHideError(f"{name!r:.80} names no encoder.", "Write package.module:Name.")
        return name
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        raise InstaHideError(
            f"There is no encoder {name!r:.80}.",
            f"Choose from {', '.join(registered())}, or write package.module:Name.",
        )
    return points[0].value


def _imported(target: str) -> Callable[..., object]:
    module, _, path = target.partition(":")
    try:
        found: object = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:  # from code of other packages
        raise IntegrationError(
            f"The encoder {target} cannot be imported ({failure_reason(error)}).",
            "Install its package, or add its folder to PYTHONPATH.",
        ) from error
    if not callable(found):
        raise InstaHideError(f"{target} is not callable.", "Name a class or a function.")
    return found
