"""The folder of a search: one file for each measurement, from which a killed search continues."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from instahide.audit.advice.encoder_candidate import AnyCandidate
from instahide.audit.advice.schema import FORMAT, Measurement
from instahide.audit.fingerprints import measuring_version
from instahide.errors import DamagedFileError, InstaHideError
from instahide.utils.atomic_write import atomic_directory, read_regular, write_json

#: Files and folders of a search.
NAME, MEASUREMENTS, AUDITS = "search.json", "measurements", "audits"
#: Largest size of a file in bytes.
MOST_BYTES = 1 << 20
#: Digits of the number of a measurement, and the names of their files.
_DIGITS = 5
_FILES = "[0-9]" * _DIGITS + "-*.json"


@dataclass(frozen=True, eq=False)
class Journal:
    """The measurements of a search, in a folder. Use `open`.

    Each measurement is a file of its own, which is written atomically. No file contains an image, a
    key, a coefficient or the partners of an encoding.

    Attributes:
        folder: the folder.
        measurements: all measurements so far, in order.
    """

    folder: Path
    measurements: list[Measurement] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, identity: Mapping[str, object]) -> Self:
        """Start a search in ``folder``, or continue the one there.

        Args:
            folder: the folder.
            identity: JSON values on which all measurements depend.

        Raises:
            InstaHideError: the folder holds another search or something else.
            DamagedFileError: a measurement is damaged.
        """
        own = {"format": FORMAT, "version of instahide": measuring_version(), **identity}
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            with atomic_directory(folder) as partial:
                write_json(partial / NAME, own)
                for name in (MEASUREMENTS, AUDITS):
                    (partial / name).mkdir(mode=0o700)
            return cls(folder)
        if (kept := _identity_in(folder)) != json.loads(json.dumps(own)):
            differing = sorted(name for name in own if kept.get(name) != own[name])
            what = f" ({', '.join(differing)} differ)" if kept else ""
            raise InstaHideError(
                f"{folder} holds something else than this search{what}.",
                "Choose another folder with `out=`, or repeat the search as it was started.",
            )
        opened = cls(folder)
        opened.read()
        return opened

    def read(self) -> None:
        """Read all measurements again; another process may have added some.

        Raises:
            DamagedFileError: a measurement is damaged.
        """
        files = sorted((self.folder / MEASUREMENTS).glob(_FILES))
        self.measurements[:] = [_read(file) for file in files]

    def add(self, measurement: Measurement) -> None:
        """Write a measurement.

        Raises:
            InstaHideError: the folder cannot be written.
        """
        of = "plain" if measurement.candidate is None else measurement.candidate.name
        folder = self.folder / MEASUREMENTS
        # A file may have been deleted, so the number of files may be the number of one of them.
        number = max((int(file.name[:_DIGITS]) for file in folder.glob(_FILES)), default=-1) + 1
        name = f"{number:0{_DIGITS}}-{of}-seed{measurement.seed}.json"
        write_json(folder / name, measurement.model_dump(mode="json"))
        self.measurements.append(measurement)

    @property
    def seconds(self) -> float:
        """The time of all measurements."""
        return sum(measurement.seconds for measurement in self.measurements)

    @property
    def reference(self) -> dict[int, float]:
        """The accuracy of plain training by seed."""
        return {
            m.seed: m.accuracy
            for m in self.measurements
            if m.candidate is None and m.accuracy is not None
        }

    def by_candidate(self) -> dict[AnyCandidate, list[Measurement]]:
        """The measurements of each candidate, in order."""
        found: dict[AnyCandidate, list[Measurement]] = {}
        for measurement in self.measurements:
            if measurement.candidate is not None:
                found.setdefault(measurement.candidate, []).append(measurement)
        return found


def _identity_in(folder: Path) -> dict[str, object]:
    try:
        values = json.loads(read_regular(folder / NAME, MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _read(path: Path) -> Measurement:
    try:
        return Measurement.model_validate_json(read_regular(path, MOST_BYTES))
    except (OSError, ValidationError, ValueError):
        raise DamagedFileError(
            f"{path} is damaged.", "Delete it, and run the same command again."
        ) from None
