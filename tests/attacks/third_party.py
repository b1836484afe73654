"""Attacks of a package that is not ours, put where an interpreter finds installed packages."""

from __future__ import annotations

from pathlib import Path

#: Of attacks and of texts that they bring: what a page must show as text.
HOSTILE = "<script>alert(1)</script>"

_MODULE = """
import gc, os, sys, time
import torch
from instahide.attacks.base import EncodingObservation, Finding, RecoveredImages

SECRET = {"GroundTruth", "KnownKeyEncodings", "KeyStream", "Encoder", "AuditTarget", "Scenario"}
ROOMS = ("instahide.audit", "instahide.encryption.known_keys")


class Foreign:
    title, paper = "Somebody else's", "unpublished"
    observes = EncodingObservation

    def applies(self, observation):
        return None


class Looks(Foreign):
    name = "foreign-looks"

    def run(self, observation, budget, progress):
        progress("looking", 0.5)
        objects = sum(type(thing).__name__ in SECRET for thing in gc.get_objects())
        rooms = sum(name.startswith(ROOMS) for name in sys.modules)
        found = {"reached": float(objects + rooms), "process": float(os.getpid())}
        return Finding(statistics=found)


class Raises(Foreign):
    name, title = "foreign-raises", "<script>alert(1)</script>"

    def run(self, observation, budget, progress):
        raise ValueError("<script>alert(1)</script>\\x1b[31m")


class Dies(Foreign):
    name = "foreign-dies"

    def run(self, observation, budget, progress):
        os._exit(7)


class Hangs(Foreign):
    name = "foreign-hangs"

    def run(self, observation, budget, progress):
        progress("hanging", 0.0)
        time.sleep(3600)


class Babbles(Foreign):
    name = "foreign-babbles"

    def run(self, observation, budget, progress):
        nothing = torch.full((2, 1, 3, 3), float("nan"))
        score = {"score": float("nan")}
        return RecoveredImages(nothing, torch.tensor([10**6, 0]), statistics=score)


class Refuses(Foreign):
    name = "foreign-refuses"

    def applies(self, observation):
        return "It never does."

    def run(self, observation, budget, progress):
        raise AssertionError("it was run")
"""


def install(folder: Path, *names: str) -> Path:
    """A folder for ``sys.path`` in which the attacks of these class names are declared."""
    facts = folder / "foreign-1.dist-info"
    facts.mkdir(parents=True)
    (folder / "foreign_attacks.py").write_text(_MODULE)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1\n")
    lines = [f"{name.lower()} = foreign_attacks:{name}" for name in names]
    (facts / "entry_points.txt").write_text("\n".join(["[instahide.attacks]", *lines, ""]))
    return folder
