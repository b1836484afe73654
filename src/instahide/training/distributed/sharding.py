"""The images of each process of a distributed run, and their common classes and normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from instahide.data import ImageTable, Split
from instahide.data.group_counts import group_counts, largest_first, strata_of
from instahide.data.labels import require_one_task
from instahide.data.normalization.normalization import Normalization
from instahide.errors import DataError
from instahide.training.data.alignment import align_to_model
from instahide.training.data.compatibility import weighted
from instahide.training.distributed.processes import Processes

#: Placeholder for the rank of a process in the name of a source.
RANK = "{rank}"


def source_of(source: str, processes: Processes) -> str:
    """The name of ``source`` for this process."""
    return source.replace(RANK, str(processes.rank)) if processes.world_size > 1 else source


def shard(images: ImageTable, processes: Processes) -> ImageTable:
    """The rows of this process: every n-th one, starting at its rank; groups stay together."""
    groups = images.group_ids
    if groups is not None and processes.world_size > 1:
        counts = group_counts(strata_of(np.zeros(len(images), np.int64)), groups)
        part_of = np.zeros(len(counts), np.int64)
        part_of[largest_first(counts, 0)] = np.arange(len(counts)) % processes.world_size
        return images.subset(np.flatnonzero(part_of[groups] == processes.rank))
    rows = slice(processes.rank, None, processes.world_size)
    if processes.world_size == 1 or isinstance(images.pixels, np.memmap):
        # A table on disk is not copied, although strided rows are slower to encode.
        return images.subset(rows)
    return images.subset(np.arange(len(images))[rows])


def shard_split(split: Split, data: str, test: str | None, processes: Processes) -> Split:
    """The training and test images of this process.

    Args:
        split: the images that it read from ``data`` and ``test``.
        data: the source; each process has its own if the name holds `RANK`.
        test: the source of test images, likewise; None if they are a part of the data.
        processes: the processes.

    Raises:
        DataError: the processes' images differ where they must be equal, or there are too few.
    """
    if processes.world_size == 1:
        return split
    train, test_images = split
    outlines = processes.gather(_outline(train))
    if RANK in data:
        _require_one_kind(outlines)
        weights = [outline["images"] for outline in outlines]
        mean, std = (weighted([o[name] for o in outlines], weights) for name in ("mean", "std"))
        common = Normalization(mean, std, train.value_range)
        # Findings may differ: what a rank does not state is unknown there.
        classes = tuple(dict.fromkeys(name for o in outlines for name in o["classes"]))
        train, test_images = (
            align_to_model(images, train.shape, classes, common, train.task) for images in split
        )
    else:
        _require_same(outlines, data)
        train = shard(train, processes)
    if RANK not in (test or data):
        test_images = shard(test_images, processes)
    if len(train) < 2:
        raise DataError(
            f"There is nothing to compare with in {len(train)} training image.",
            "Start fewer processes, or give more images.",
        )
    return Split(train, test_images)


def _outline(images: ImageTable) -> dict[str, Any]:
    """Size, shape, classes and normalization of ``images``, to compare between processes."""
    return {
        "images": len(images),
        "shape": list(images.shape),
        "classes": list(images.classes),
        "task": images.task,
        "mean": list(images.mean),
        "std": list(images.std),
        "value_range": list(images.value_range),
    }


def _require_same(outlines: Sequence[dict[str, Any]], data: str) -> None:
    for rank, outline in enumerate(outlines):
        if outline != outlines[0]:
            raise DataError(
                f"{data} holds other images for rank {rank} than for rank 0.",
                f"Give all the same, of which each takes its share; or put {RANK} into the name, "
                "so that each opens its own.",
            )


def _require_one_kind(outlines: Sequence[dict[str, Any]]) -> None:
    first = outlines[0]
    for rank, outline in enumerate(outlines):
        if outline["shape"] != first["shape"]:
            raise DataError(
                f"Rank 0 has images of {tuple(first['shape'])}, rank {rank} of "
                f"{tuple(outline['shape'])} (channels, height, width).",
                "Bring them to one size with `size=`, and all of them to grey or to colour.",
            )
        if outline["value_range"] != first["value_range"]:
            raise DataError(
                f"Rank 0 has pixels from {first['value_range'][0]:g} to "
                f"{first['value_range'][1]:g}, rank {rank} from {outline['value_range'][0]:g} to "
                f"{outline['value_range'][1]:g}.",
                "Agree on one range of pixels for all, or state the `window=` of each and bring it "
                "to 0 to 1 by `rescale=True`.",
            )
        tasks = [first["task"], outline["task"]]
        require_one_task(tasks, ["rank 0", f"rank {rank}"])
        if tasks[0] == "multi-label":
            continue
        ours, theirs = (set(o["classes"]) for o in (first, outline))
        if ours != theirs:
            raise DataError(
                f"Rank 0 and rank {rank} have other classes: {_listed(ours - theirs)} only in "
                f"rank 0, {_listed(theirs - ours)} only in rank {rank}.",
                "Agree on the names of the classes, and let each have some images of all.",
            )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:10]) or "none"
