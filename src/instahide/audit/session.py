"""An audit while it goes on: attacks in turn, each result on disk before the next one begins."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from instahide.attacks.base import Attack, Observation, RecoveredImages
from instahide.attacks.sandbox import Answer, IsolatedRunner
from instahide.audit.report.images import save_images
from instahide.audit.report.schema import AttackResult, Facts
from instahide.audit.scenarios import Scenario, scenarios
from instahide.audit.schedule import Task, seconds_for
from instahide.audit.target import AuditTarget
from instahide.encryption.privacy import DELTA
from instahide.errors import DamagedFileError, InstaHideError
from instahide.utils.atomic_write import atomic_directory, read_regular, write_json

NAME, RESULTS, PICTURES = "audit.json", "results", "pictures"
#: Of ``audit.json`` and the results. 2: an image is recognizable if it beats a blank picture.
FORMAT = 2
#: An attack is not begun with fewer seconds than this.
LEAST_SECONDS = 1.0
#: Bytes of a file in the folder, at most.
MOST_BYTES = 1 << 24
#: Said of what the budget did not reach.
NO_TIME = "The time that the audit was given was over."


class Watcher(Protocol):
    """Who is told how an audit gets on."""

    def begins(self, number: int, task: Task, seconds: float) -> None:
        """The ``task`` of this ``number``, from 0, begins, and has so many seconds."""
        ...

    def goes_on(self, what: str, share: float) -> None:
        """It does ``what``, and is done with this share of its work."""
        ...


@dataclass(frozen=True)
class Session:
    """The folder of an audit. Use `open`.

    Files: ``audit.json`` says of what; ``results`` has one file a finished attack, ``pictures``
    what they recovered. Each appears whole or not at all, so that an audit that was killed goes on
    with what is missing. None holds a key, a coefficient or who is in which encoding; the pictures
    are private images.

    Attributes:
        folder: where it is.
        subject: what is audited.
    """

    folder: Path
    subject: AuditTarget

    @classmethod
    def open(cls, folder: Path, subject: AuditTarget) -> Self:
        """Begin an audit in ``folder``, or go on with the one there.

        Raises:
            InstaHideError: the folder holds something else, or cannot be written.
        """
        own = _identity(subject)
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            with atomic_directory(folder) as partial:
                write_json(partial / NAME, own)
                for name in (RESULTS, PICTURES):
                    (partial / name).mkdir(mode=0o700)
        elif (kept := _read_json(folder / NAME)) != own:
            if isinstance(kept, dict) and kept.get("format") != FORMAT:
                raise InstaHideError(
                    f"{folder} holds an audit of another version of instahide, whose figures mean "
                    "something else.",
                    "Choose another folder with `out=`.",
                )
            raise InstaHideError(
                f"{folder} holds something else than the audit of {subject.name} with these "
                "images.",
                "Choose another folder with `out=`.",
            )
        return cls(folder, subject)

    def done(self, wanted: Sequence[Task]) -> dict[Task, AttackResult]:
        """What has been run before, here or by an audit that was stopped."""
        return {task: found for task in wanted if (found := self._read(task)) is not None}

    def run(
        self,
        wanted: Sequence[Task],
        attacks: Mapping[str, Attack[Observation]],
        seconds: float,
        watcher: Watcher,
    ) -> Iterator[AttackResult]:
        """Run what has not been run, while ``seconds`` last, and give each result once it is kept.

        What was run before has used up its part of the seconds.
        """
        done = self.done(wanted)
        left = seconds - sum(result.seconds for result in done.values())
        missing = [task for task in wanted if task not in done]
        with IsolatedRunner() as attacker:
            for number, task in enumerate(missing):
                share = seconds_for(task, missing[number + 1 :], left)
                if share < LEAST_SECONDS:
                    continue
                watcher.begins(len(wanted) - len(missing) + number, task, share)
                began = time.monotonic()
                yield self._run(task, attacks[task.attack], attacker, share, watcher)
                left -= time.monotonic() - began

    def _read(self, task: Task) -> AttackResult | None:
        path = self.folder / RESULTS / f"{task.file}.json"
        return read_result(path) if path.exists() else None

    def _run(
        self,
        task: Task,
        attack: Attack[Observation],
        attacker: IsolatedRunner,
        seconds: float,
        watcher: Watcher,
    ) -> AttackResult:
        answer, scene = Answer("refused", reason=attack.observes.absent), None
        refusals = []
        for scene in scenarios(self.subject, task):
            if not isinstance(scene.observation, attack.observes):
                continue
            answer = attacker.run(task.attack, scene.observation, seconds, watcher.goes_on)
            if answer.state != "refused":
                break
            refusals.append(answer)
        else:
            answer = _decisive(refusals) if refusals else answer
        result = self._result(task, attack, answer, scene)
        write_json(self.folder / RESULTS / f"{task.file}.json", result.model_dump())
        return result

    def _result(
        self, task: Task, attack: Attack[Observation], answer: Answer, scene: Scenario | None
    ) -> AttackResult:
        return AttackResult(
            attack=task.attack,
            title=attack.title,
            paper=attack.paper,
            on=task.on,
            point=task.point,
            images=0 if scene is None else scene.images,
            encodings_per_image=task.copies,
            grants=[] if scene is None else scene.grants,
            seconds=answer.seconds,
            out_of_time=answer.out_of_time,
            **self._outcome(task, answer, scene),
        )

    def _outcome(self, task: Task, answer: Answer, scene: Scenario | None) -> dict[str, Any]:
        """State, figures and pictures; or why there are none."""
        if answer.found is None or scene is None:
            state = "failed" if answer.state == "failed" else "not tried"
            return {"state": state, "reason": answer.reason}
        try:
            figures, beside = scene.score(answer.found)
            shown = beside if not task.point else None
            return {
                "state": "done",
                "figures": {name: _finite(value) for name, value in figures.items()},
                "absolute": isinstance(answer.found, RecoveredImages) and answer.found.absolute,
                "pictures": []
                if shown is None
                else save_images(self.folder / PICTURES, task.file, shown),
            }
        except InstaHideError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            # An attack of others may hand back what fits nothing.
            reason = f"What it handed back cannot be scored ({type(error).__name__})."
            return {"state": "failed", "reason": reason}


def _decisive(refusals: Sequence[Answer]) -> Answer:
    """The refusal that says what is missing, of those in scenes with ever more granted.

    Not what an attack misses in most scenes and is granted in one, but what it misses there.
    """
    others = [answer for answer in refusals if answer.reason != refusals[0].reason]
    return (others or refusals)[-1]


def facts(subject: AuditTarget) -> Facts:
    """What is audited, in plain values."""
    images, copies = subject.known_key_target()
    return Facts(
        name=subject.name,
        kind=subject.kind,
        source=subject.source,
        images=len(subject.images),
        shape=subject.images.shape,
        classes=list(subject.images.classes),
        public=0 if subject.public is None else len(subject.public),
        scheme=asdict(subject.scheme),
        copies=subject.copies,
        exposures=subject.exposures,
        epsilon=_finite(subject.epsilon),
        delta=DELTA,
        rehearsed_images=len(images),
        rehearsed_copies=copies,
        settings=dict(subject.settings),
    )


def _identity(subject: AuditTarget) -> dict[str, object]:
    """What makes two audits the same, as JSON has it."""
    pixels = hashlib.sha256(np.ascontiguousarray(subject.images.pixels).data).hexdigest()
    plain = facts(subject).model_dump(mode="json", exclude={"name", "source", "settings"})
    return {"format": FORMAT, "pixels": pixels, **plain}


def read_result(path: Path) -> AttackResult:
    """The result of one attack, as an audit keeps it in ``path``.

    Raises:
        DamagedFileError: the file is damaged.
    """
    try:
        return AttackResult.model_validate_json(read_regular(path, MOST_BYTES))
    except (OSError, ValueError):
        raise DamagedFileError(
            f"{path} is damaged.", "Delete it, and run the same command again."
        ) from None


def _read_json(path: Path) -> object:
    try:
        return json.loads(read_regular(path, MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def pending(wanted: Collection[Task], results: Collection[AttackResult]) -> list[Task]:
    """What has not been run, for want of time."""
    run = {(r.attack, r.on, r.encodings_per_image, r.point) for r in results}
    return [task for task in wanted if (task.attack, task.on, task.copies, task.point) not in run]
