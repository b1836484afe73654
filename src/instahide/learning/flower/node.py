"""What a node brings to a federation: its own images, and the count of how often they went out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from instahide.encodings.ledger import Account, Ledger, default_ledger
from instahide.encryption.exposure import Exposure
from instahide.images import ImageTable, open_images, open_test
from instahide.learning.flower.partition import shares
from instahide.learning.flower.refusal import RefusalError
from instahide.learning.flower.settings import FederatedSettings

#: Settings in which a node has the last word.
OWN = ("data", "test", "public", "size", "skip_bad", "ledger", "max_exposure", "device")
#: Settings of the run without which a node may refuse to take part.
TERMS = ("scheme", "k", "private_k", "c1", "c2", "labels", "law", "noise")


@dataclass(frozen=True)
class Node:
    """One participant. Use `open`.

    Attributes:
        settings: of the run, and over them the node's own.
        partition: which part of a data set that all nodes share, and of how many; None at a node
            with images of its own.
    """

    settings: FederatedSettings
    partition: tuple[int, int] | None

    @classmethod
    def open(cls, run_config: Mapping[str, Any], node_config: Mapping[str, Any]) -> Self:
        """From Flower's configs.

        A node of the simulation engine has a ``partition-id`` and takes ``data``, ``test`` and
        ``ledger`` from the run config. Any other node has to name its own: whoever starts a run
        decides neither what it reads nor where it counts. How its images are encrypted the run
        does decide, in the bounds of the `TERMS` that the node names.

        Raises:
            RefusalError: the node config has no `data`, or what is no setting of a node; or the
                run is not on its terms.
            InstaHideError: a setting that does not fit.
        """
        own = {name.replace("-", "_"): value for name, value in node_config.items()}
        part, parts = own.pop("partition_id", None), own.pop("num_partitions", None)
        terms = {name: own.pop(name) for name in TERMS if name in own}
        strange = sorted(set(own) - set(OWN))
        if strange:
            raise RefusalError(
                f"The node config says `{strange[0]}`, which is no setting of a node.",
                f"It may say {', '.join(OWN)}; and its terms: {', '.join(TERMS)}.",
            )
        settings = FederatedSettings.from_config(run_config)
        _require_terms(settings, terms)
        if part is not None and parts is not None:
            return cls(settings.merged(own), (int(part), int(parts)))
        if "data" not in own:
            raise RefusalError(
                "This node does not say which images are its own.",
                'Name them in its node config, as in `data="/path/of/images"`.',
            )
        alone = {"test": None, "ledger": None, **own}
        return cls(settings.merged(alone), None)

    def images(self) -> ImageTable:
        """Its training images, under their own normalisation.

        Raises:
            InstaHideError: they cannot be read, or are too few.
        """
        settings = self.settings
        size, skip_bad = settings.size, settings.skip_bad
        return self._share(
            open_images(str(settings.data), size=size, skip_bad=skip_bad, progress=False)
        )

    def test_images(self) -> ImageTable:
        """Its test images.

        Raises:
            RefusalError: it has none.
            InstaHideError: they cannot be read.
        """
        settings = self.settings
        if settings.test is None:
            raise RefusalError(
                "This node has no test images.", "Name some by `test` in its config."
            )
        size, skip_bad = settings.size, settings.skip_bad
        return self._share(open_test(settings.test, size=size, skip_bad=skip_bad, progress=False))

    @contextmanager
    def counting(self, images: ImageTable) -> Iterator[Exposure]:
        """What counts the rows of ``images``: an account of this node's ledger, open for the block.

        Plain images go into no encoding, so that there is nothing to count.

        Raises:
            InstaHideError: a ledger that cannot be used.
        """
        scheme = self.settings.encryption()
        if scheme.is_plain:
            yield Exposure(len(images))
            return
        with Ledger.open(self._ledger()) as ledger:
            yield ledger.account(images, limit=self.settings.max_exposure, scheme=scheme)

    def _ledger(self) -> Path:
        """The node's ledger; nodes that share a machine and a run config have one each."""
        path = Path(self.settings.ledger) if self.settings.ledger else default_ledger()
        if self.partition is None:
            return path
        return path.with_name(f"{path.stem}-{self.partition[0]}{path.suffix}")

    def _share(self, images: ImageTable) -> ImageTable:
        if self.partition is None:
            return images
        part, parts = self.partition
        alpha = self.settings.alpha if self.settings.partition == "dirichlet" else None
        rows = shares(images.labels, parts, alpha=alpha)[part]
        # Made anew: the mean and deviation of a part are its own.
        return images.subset(rows).measured()


def _require_terms(settings: FederatedSettings, terms: Mapping[str, Any]) -> None:
    offers = {"scheme": settings.scheme, **vars(settings.encryption())}
    for name, value in terms.items():
        offered = offers[name]
        if offered != value:
            raise RefusalError(
                f"This node takes part if {name} is {value!r}; in this run it is {offered!r}.",
                "Start the run on its terms.",
            )


def spread(exposure: Exposure) -> dict[str, float]:
    """Least, mean and most encodings that an image has gone into, over all rounds and runs."""
    if not isinstance(exposure, Account):
        return {"exposure-least": 0, "exposure-mean": 0.0, "exposure-most": 0}
    counts = exposure.counts
    return {
        "exposure-least": int(counts.min()),
        "exposure-mean": float(np.mean(counts)),
        "exposure-most": int(counts.max()),
    }
