"""The folder of one training run: its settings, its last checkpoint, its results."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from instahide.errors import DamagedFileError, InstaHideError, failure_reason
from instahide.training.device import pick_device, pick_precision
from instahide.training.distributed.processes import Saved
from instahide.training.history import History
from instahide.training.settings import TrainSettings
from instahide.training.training_state import TrainingState
from instahide.utils.atomic_write import atomic_directory, read_regular, write_json
from instahide.utils.tensor_file import read_tensors, write_tensors

#: File with the number of encodings that were begun of each image, and its largest size in bytes.
_COPIES, _MOST_COPIES = "copies.json", 1 << 10
#: File with the fingerprints of the data, and its largest size in bytes.
_DATA, _MOST_DATA = "data.json", 1 << 20


class _Data(BaseModel):
    """The content of `_DATA`: a salt, and the fingerprints of each process's data."""

    model_config = ConfigDict(extra="forbid", strict=True)

    salt: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    fingerprints: Annotated[list[Annotated[list[str], Field(min_length=1)]], Field(min_length=1)]


class RunFolder:
    """The folder with the files of a training run. Use `open`.

    Files: ``settings.json`` and ``data.json`` from the start, ``copies.json`` before every epoch
    with new encodings, ``checkpoint.safetensors`` after every epoch, ``results.json`` at the end.
    Each is written atomically.
    """

    def __init__(self, path: Path, settings: TrainSettings) -> None:
        self.path = path
        self.settings = settings

    @classmethod
    def open(cls, path: Path, settings: TrainSettings, *, resume: bool = False) -> RunFolder:
        """Start a run in ``path``, or with ``resume`` continue the run in it.

        With ``resume``, a missing or empty folder starts a new run: the earlier one was killed
        before it wrote anything.

        Raises:
            InstaHideError: the folder is not empty and ``resume`` is False, or the run in it has
                other settings.
        """
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            with atomic_directory(path) as partial:
                write_json(partial / "settings.json", settings.model_dump())
        elif not resume:
            raise InstaHideError(
                f"{path} exists already.",
                "Continue the run in it with `resume=True`, or choose another `out=`.",
            )
        else:
            _require_same(path, settings)
            for torn in path.glob(".checkpoint-*"):
                torn.unlink(missing_ok=True)
        return cls(path, settings)

    @property
    def checkpoint(self) -> Path:
        """The file of the last completed epoch."""
        return self.path / "checkpoint.safetensors"

    def save(self, state: TrainingState) -> None:
        """Replace the checkpoint by ``state``."""
        write_tensors(self.checkpoint, state.tensors(), state.facts())

    def saved(self) -> Saved | None:
        """The checkpoint of the last completed epoch; None before the first one.

        Raises:
            DamagedFileError: the checkpoint is incomplete or was changed.
        """
        return read_tensors(self.checkpoint) if self.checkpoint.exists() else None

    def data(self) -> tuple[str, list[list[str]]]:
        """The salt of the run's fingerprints, and those of each process; none before it has begun.

        Raises:
            DamagedFileError: the run has begun, and its fingerprints cannot be read.
        """
        file = self.path / _DATA
        if not file.exists() and not (self.checkpoint.exists() or (self.path / _COPIES).exists()):
            return secrets.token_hex(16), []
        try:
            found = _Data.model_validate_json(read_regular(file, _MOST_DATA))
        except (OSError, ValueError) as error:
            raise DamagedFileError(
                f"{file} cannot be read ({failure_reason(error)}), so it is unknown on which "
                "images the run was started.",
                "Start a new run in another folder.",
            ) from error
        return found.salt, found.fingerprints

    def write_data(self, salt: str, fingerprints: list[list[str]]) -> None:
        """Store the ``fingerprints`` of the run's data, which were made with ``salt``."""
        write_json(self.path / _DATA, {"salt": salt, "fingerprints": fingerprints})

    def count_copy(self) -> None:
        """Count one more encoding of each image, before the first of them is made.

        An epoch that is interrupted and repeated counts each time, because its encodings differ.
        A resumed run whose count is missing stays without one: it would be too low.

        Raises:
            DamagedFileError: the earlier count cannot be read.
        """
        begun = begun_copies(self.path)
        if begun is None and self.checkpoint.exists():
            return
        write_json(self.path / _COPIES, {"copies": (begun or 0) + 1})

    def write_results(
        self,
        history: History,
        metrics: Mapping[str, float] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write ``results.json``: settings, surroundings, every epoch, and final ``metrics``.

        Args:
            history: the epochs.
            metrics: metrics of the trained network; they replace those of the last epoch.
            facts: further entries, ready for JSON.
        """
        seconds = sum(record.seconds for record in history)
        images = sum(record.seconds * record.images_per_second for record in history)
        last = history[-1].metrics if history else {}
        results = {
            "settings": self.settings.model_dump(),
            "surroundings": surroundings(self.settings),
            "metrics": {**last, **(metrics or {})},
            "training_seconds": seconds,
            "images_per_second": images / seconds if seconds else 0.0,
            "epochs": [asdict(record) for record in history],
            **(facts or {}),
        }
        write_json(self.path / "results.json", results)


def begun_copies(path: Path) -> int | None:
    """The encodings that the run in ``path`` has begun to make of each image.

    Interrupted and repeated epochs are counted too. None if the run never began an epoch with new
    encodings, or its count is missing.

    Raises:
        DamagedFileError: the count cannot be read.
    """
    file = path / _COPIES
    if not file.exists():
        return None
    try:
        copies = json.loads(read_regular(file, _MOST_COPIES))["copies"]
        if type(copies) is not int or copies < 1:
            raise ValueError("the count is not an integer of 1 or more")
        return copies
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedFileError(
            f"{file} is damaged ({failure_reason(error)}): the number of encodings is lost.",
            "Start a new run in another folder.",
        ) from error


def surroundings(settings: TrainSettings) -> dict[str, Any]:
    """Versions, hardware and precision, on which results depend besides the settings."""
    device = pick_device(settings.device)
    names = ("instahide", "torch", "numpy")
    versions = {name: _version(name) for name in names} | {"python": platform.python_version()}
    return {
        "versions": versions,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "precision": str(pick_precision(settings.precision, device)).removeprefix("torch."),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _require_same(path: Path, settings: TrainSettings) -> None:
    differences = settings.differences(TrainSettings.load(path / "settings.json"))
    if differences:
        raise InstaHideError(
            f"The run in {path} has other settings ({'; '.join(differences)}).",
            "Resume it with its own settings, or choose another `out=`.",
        )
