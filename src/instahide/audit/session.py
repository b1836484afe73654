"""A running audit: attacks run in turn, and each result is stored before the next one starts."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from instahide.attacks.base import (
    AssignedImages,
    Attack,
    Finding,
    Observation,
    RecoveredImages,
)
from instahide.attacks.refusal import planar_only, schemes_only
from instahide.attacks.sandbox import Answer, IsolatedRunner
from instahide.audit.fingerprints import (
    measuring_version,
    of_network,
    of_table,
    of_tensors,
)
from instahide.audit.report.images import save_images
from instahide.audit.report.schema import AttackResult, Ceiling, Facts
from instahide.audit.scenarios import Scenario, scenarios
from instahide.audit.schedule import CEILINGS, Task, seconds_for
from instahide.audit.scoring.matching import Matches
from instahide.audit.target import AuditTarget
from instahide.errors import DamagedFileError, InstaHideError
from instahide.utils.atomic_write import atomic_directory, read_regular, write_json
from instahide.utils.folder_lock import only_process

NAME, RESULTS, PICTURES = "audit.json", "results", "pictures"
#: Of ``audit.json`` and the results. 2: an image is recognizable if it beats a blank picture.
#: 3: all recovered images have pictures, and the SSIM of a reconstruction is the best of its
#: renderings. 4: the encoder is named, and attacks on any encoder are run. 5: all that results
#: depend on is compared when an audit is resumed.
FORMAT = 5
#: Of the identity of an audit, what stands for the meaning of its figures.
_VERSIONS = ("format", "version of instahide")
#: An attack does not start with fewer seconds than this.
LEAST_SECONDS = 1.0
#: Largest size of a file in the folder in bytes.
MOST_BYTES = 1 << 24
#: Reason for tasks that the budget did not reach.
NO_TIME = "The time budget of the audit was used up."


class Watcher(Protocol):
    """Receives the progress of an audit."""

    def begins(self, number: int, task: Task, seconds: float) -> None:
        """The ``task`` with this ``number``, from 0, starts and may take so many ``seconds``."""
        ...

    def goes_on(self, what: str, share: float) -> None:
        """The task is at the step ``what``, and has done this share of its work."""
        ...


@dataclass(frozen=True)
class Session:
    """The folder of an audit. Use `open`.

    Files: ``audit.json`` describes the target; ``results`` has one file per finished attack;
    ``pictures`` has the recovered images. Each is written atomically, so that a killed audit can be
    resumed. No file contains a key, a coefficient or the partners of an encoding. The pictures are
    private images.

    Attributes:
        folder: the folder.
        subject: the audit's target.
        pictures: whether recovered images are kept as pictures.
    """

    folder: Path
    subject: AuditTarget
    pictures: bool = True

    @classmethod
    def open(cls, folder: Path, subject: AuditTarget, *, pictures: bool = True) -> Self:
        """Start an audit in ``folder``, or resume the one there.

        Raises:
            InstaHideError: the folder holds something else, or is not writable.
        """
        own = _identity(subject)
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            with atomic_directory(folder) as partial:
                write_json(partial / NAME, own)
                for name in (RESULTS, PICTURES):
                    (partial / name).mkdir(mode=0o700)
        elif (kept := _read_json(folder / NAME)) != own:
            if isinstance(kept, dict) and any(kept.get(name) != own[name] for name in _VERSIONS):
                raise InstaHideError(
                    f"{folder} holds an audit of another version of instahide, whose figures mean "
                    "something else.",
                    "Choose another folder with `out=`.",
                )
            raise InstaHideError(
                f"{folder} holds something else than this audit of {subject.name}"
                f"{_differing(kept, own)}.",
                "Choose another folder with `out=`.",
            )
        return cls(folder, subject, pictures)

    def done(self, wanted: Sequence[Task]) -> dict[Task, AttackResult]:
        """The results so far, also of an earlier audit that was stopped."""
        return {task: found for task in wanted if (found := self._read(task)) is not None}

    def discard(self, task: Task) -> None:
        """Delete the result of ``task``, so that it runs again."""
        self._file(task).unlink(missing_ok=True)

    def run(
        self,
        wanted: Sequence[Task],
        attacks: Mapping[str, Attack[Observation]],
        seconds: float,
        watcher: Watcher,
        runner: IsolatedRunner | None = None,
    ) -> Iterator[AttackResult]:
        """Run the missing tasks within ``seconds``, and yield each result once it is stored.

        Tasks that ran before have used their part of the seconds. One whose time was over before
        it ended runs again if there is now more time for it. The attacks run in the process of
        ``runner``, or in a new one.

        Raises:
            InstaHideError: another process runs attacks in this folder.
        """
        done = self.done(wanted)
        left = seconds - sum(result.seconds for result in done.values())
        cut = {task: result.limit for task, result in done.items() if result.cut_short}
        missing = [task for task in wanted if task not in done or task in cut]
        isolated = IsolatedRunner() if runner is None else nullcontext(runner)
        with only_process(self.folder), isolated as attacker:
            for number, task in enumerate(missing):
                share = seconds_for(task, missing[number + 1 :], left)
                if share < max(LEAST_SECONDS, 1.1 * cut.get(task, 0.0)):
                    continue
                watcher.begins(len(wanted) - len(missing) + number, task, share)
                began = time.monotonic()
                yield self._run(task, attacks[task.attack], attacker, share, watcher)
                left -= time.monotonic() - began

    def _read(self, task: Task) -> AttackResult | None:
        path = self._file(task)
        return read_result(path) if path.exists() else None

    def _run(
        self,
        task: Task,
        attack: Attack[Observation],
        attacker: IsolatedRunner,
        seconds: float,
        watcher: Watcher,
    ) -> AttackResult:
        reason = schemes_only(attack, self.subject.encoder)
        reason = reason or planar_only(attack, self.subject.images.shape)
        answer = Answer("refused", reason=reason or attack.observes.absent)
        scene: Scenario | None = None
        refusals = []
        for each in () if reason else scenarios(self.subject, task):
            if not isinstance(each.observation, attack.observes):
                continue
            scene = each
            answer = attacker.run(task.attack, scene.observation, seconds, watcher.goes_on)
            if answer.state != "refused":
                break
            refusals.append(answer)
        else:
            answer = _decisive(refusals) if refusals else answer
        result = self._result(task, attack, answer, scene, seconds)
        write_json(self._file(task), result.model_dump())
        return result

    def _file(self, task: Task) -> Path:
        return self.folder / RESULTS / f"{task.file}.json"

    def _result(
        self,
        task: Task,
        attack: Attack[Observation],
        answer: Answer,
        scene: Scenario | None,
        seconds: float,
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
            seconds_given=0.0 if answer.state == "refused" else seconds,
            out_of_time=answer.out_of_time,
            **self._outcome(task, answer, scene),
        )

    def _outcome(self, task: Task, answer: Answer, scene: Scenario | None) -> dict[str, Any]:
        """State, figures and pictures of a task; or the reason why there are none."""
        if answer.found is None or scene is None:
            state = "failed" if answer.state == "failed" else "not tried"
            return {"state": state, "reason": answer.reason, "ceiling": _ceiling(task, scene)}
        try:
            figures, beside = scene.score(answer.found)
            shown = beside if self.pictures and not task.point else None
            return {
                "state": "done",
                "figures": {name: _finite(value) for name, value in figures.items()},
                "ceiling": _ceiling(task, scene, answer.found, beside),
                "absolute": isinstance(answer.found, RecoveredImages) and answer.found.absolute,
                "pictures": []
                if shown is None
                else save_images(self.folder / PICTURES, task.file, shown),
            }
        except InstaHideError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            # A third-party attack may return an invalid finding.
            reason = f"Its result cannot be scored ({type(error).__name__})."
            return {"state": "failed", "reason": reason}


def _decisive(refusals: Sequence[Answer]) -> Answer:
    """The most informative of the ``refusals``, which are ordered from the weakest threat model.

    If the first reason disappears under a stronger threat model, the later reason is decisive.
    """
    others = [answer for answer in refusals if answer.reason != refusals[0].reason]
    return (others or refusals)[-1]


def _ceiling(
    task: Task,
    scene: Scenario | None,
    found: Finding | None = None,
    matches: Matches | None = None,
) -> Ceiling | None:
    """The ceiling of an attack that recovers images with their assignment to encodings."""
    if scene is None or not (task.attack in CEILINGS or isinstance(found, AssignedImages)):
        return None
    ceiling = scene.ceiling(matches)
    if ceiling is None:
        return None
    reached = ceiling.recognizable
    return Ceiling(
        images_recognizable=reached,
        images_sought=ceiling.total,
        ssim_mean=float(ceiling.ssim.mean()),
        not_found=reached - (0 if matches is None else matches.recognizable),
        not_enough_information=ceiling.total - reached,
    )


def facts(subject: AuditTarget) -> Facts:
    """The target in plain values."""
    images, copies = subject.known_key_target()
    guarantees = subject.guarantees
    return Facts(
        name=subject.name,
        kind=subject.kind,
        source=subject.source,
        images=len(subject.images),
        groups=subject.groups,
        shape=subject.images.shape,
        classes=list(subject.images.classes),
        public=0 if subject.public is None else len(subject.public),
        encoder=subject.encoder.name,
        scheme=dict(subject.encoder.settings),
        copies=subject.copies,
        exposures=subject.exposures,
        epsilon=_finite(guarantees.epsilon),
        uneven=subject.uneven,
        delta=guarantees.delta,
        loss=_finite(guarantees.loss),
        error_floor=guarantees.floor or None,
        prior_statement=subject.prior_statement,
        rehearsed_images=len(images),
        rehearsed_copies=copies,
        settings=dict(subject.settings),
    )


def _identity(subject: AuditTarget) -> dict[str, object]:
    """JSON values that are equal if two audits have the same target, and so the same results."""
    plain = facts(subject).model_dump(mode="json", exclude={"name", "source", "settings"})
    published = subject.published
    attacked = {} if published is None else vars(published)
    return {
        "format": FORMAT,
        "version of instahide": measuring_version(),
        "private images": of_table(subject.images),
        "public images": of_table(subject.public),
        "other images": of_table(subject.others),
        "trained network": of_network(subject.network),
        "published encodings": of_tensors(attacked) if attacked else "",
        **plain,
    }


def _differing(kept: object, own: Mapping[str, object]) -> str:
    """What of an audit's identity differs, in words; empty if ``kept`` is of no audit."""
    if not isinstance(kept, dict):
        return ""
    return f" ({', '.join(name for name in own if kept.get(name) != own[name])} differ)"


def read_result(path: Path) -> AttackResult:
    """Read the result of one attack from ``path``.

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
    """The tasks that did not run within the budget."""
    run = {(r.attack, r.on, r.encodings_per_image, r.point) for r in results}
    return [task for task in wanted if (task.attack, task.on, task.copies, task.point) not in run]
