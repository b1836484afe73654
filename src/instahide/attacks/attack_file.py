"""Files in which an attack keeps what it has found, so that an interrupted attack can be resumed.

They hold what the attacker knows, including recovered private images, and nothing else: no attack
knows the defender's keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from instahide.errors import InstaHideError
from instahide.utils.tensor_file import read_tensors, write_tensors

#: What to do about a file that cannot be used.
REMEDY = "Delete it, or name another folder."


def write_attack_file(
    path: Path, tensors: Mapping[str, Tensor | None], of: str, **facts: Any
) -> None:
    """Write ``tensors``, except those that are None, and JSON ``facts`` to ``path``, atomically.

    Args:
        path: the file.
        tensors: what was found.
        of: an identifier of what is attacked, and of the attack's settings.
        facts: other facts.
    """
    known = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    write_tensors(path, known, {"of": of, **facts})


def read_attack_file(path: Path, of: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and facts that `write_attack_file` stored in ``path`` for the same ``of``.

    Raises:
        InstaHideError: the file is damaged, or of another attack.
    """
    tensors, facts = read_tensors(path, REMEDY)
    if facts.get("of") != of:
        raise InstaHideError(
            f"{path} is of another attack: on other data, or with other settings.",
            "Name a folder for each attack.",
        )
    return tensors, facts
