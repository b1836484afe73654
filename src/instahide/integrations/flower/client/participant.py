"""What a node brings to a federation: its own images, and the count of how often they went out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from instahide.data import ImageTable, open_images, open_test
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.ledger import Ledger, default_ledger
from instahide.encryption.exposure import Exposure
from instahide.encryption.privacy import DELTA, mu_squared_rate
from instahide.errors import InstaHideError
from instahide.integrations.flower.client.epsilon_limit import (
    largest_loss,
    limit_of,
    require_epsilon,
)
from instahide.integrations.flower.client.participant_config import (
    PARTITION,
    NodeConfig,
    read_partition,
)
from instahide.integrations.flower.client.partition import partition
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import RefusalError

#: How far a run may move an image, as a share of its shorter side.
MOST_CROP = 0.25
#: All that the simulation engine says to a node.
SIMULATED = {name.replace("_", "-") for name in PARTITION}


@dataclass(frozen=True)
class Participant:
    """One participant. Use `open`.

    Attributes:
        settings: of the run, and those of the node in their place.
        partition: which part of a data set that all nodes share, and of how many; None at a node
            with images of its own.
        max_epsilon: the epsilon that none of its images may pass; None: no such limit.
        delta: at which that epsilon is meant.
        crop_padding_named: whether the node itself allows the run's random crops.
    """

    settings: FederatedSettings
    partition: tuple[int, int] | None = None
    max_epsilon: float | None = None
    delta: float = DELTA
    crop_padding_named: bool = False

    @classmethod
    def open(cls, run_config: Mapping[str, Any], node_config: Mapping[str, Any]) -> Self:
        """From Flower's configs.

        The node config decides what `NodeConfig` says. Nodes of Flower's simulation engine have no
        config of their own: there, whoever starts the run owns the machine and all images on it,
        and the run config decides everything.

        Raises:
            RefusalError: the node config lacks a setting that a node must name, or the run is not
                on the node's terms.
        """
        if set(node_config) == SIMULATED and is_simulated():
            names = {name.replace("-", "_"): value for name, value in node_config.items()}
            return cls(read_run_config(run_config), read_partition(names))
        config = NodeConfig.read(node_config)
        settings = config.settings(read_run_config(run_config))
        return cls(
            settings,
            config.partition,
            config.max_epsilon,
            config.own.delta if "delta" in config.named else DELTA,
            "crop_padding" in config.named,
        )

    def images(self) -> ImageTable:
        """Its training images, under their own normalization.

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

    def require_crop(self, shape: tuple[int, int, int]) -> None:
        """Check the run's random crop: an image that is moved far shows, and hides, little.

        Raises:
            RefusalError: it may move an image by more than `MOST_CROP` of its shorter side.
        """
        most = int(MOST_CROP * min(shape[1:]))
        if not self.crop_padding_named and self.settings.crop_padding > most:
            raise RefusalError(
                f"The run's crop-padding of {self.settings.crop_padding} is above {most}, "
                "a quarter of the side of this node's images.",
                "Lower it, or name it in the node config.",
            )

    @contextmanager
    def counting(self, images: ImageTable) -> Iterator[Exposure]:
        """What counts the rows of ``images``: an account of this node's ledger, open for the block.

        Its limit is `max_exposure`, or less where `max_epsilon` allows less. Plain images go into
        no encoding, so that there is nothing to count.

        Raises:
            RefusalError: `max_epsilon` cannot be kept.
            InstaHideError: a ledger that cannot be used.
        """
        scheme = self.settings.encryption()
        if scheme.is_plain:
            if self.max_epsilon is not None:
                raise RefusalError(
                    "Plain training without DP-SGD keeps no `max-epsilon` of this node.",
                    "Start a run with DP-SGD, or take this node out.",
                )
            yield Exposure(len(images))
            return
        with Ledger.open(self.ledger()) as ledger:
            account = ledger.account(images, limit=self.settings.max_exposure, scheme=scheme)
            if self.max_epsilon is not None:
                rate = mu_squared_rate(scheme, images.shape, images.std)
                most = largest_loss(self.max_epsilon, self.delta)
                account.limit = limit_of(account, scheme.c1**2 * rate, most)
            yield account
            if self.max_epsilon is not None:
                require_epsilon(account, self.max_epsilon, self.delta)

    def ledger(self) -> Path:
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
        rows = partition(images.labels, parts, alpha=alpha)[part]
        # Made anew: the mean and deviation of a part are its own.
        return images.subset(rows).measured()


def is_simulated() -> bool:
    """Whether this process is a worker of Flower's simulation engine, which is an actor of Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    return ray.get_runtime_context().get_actor_id() is not None


def read_run_config(run_config: Mapping[str, Any]) -> FederatedSettings:
    """The settings of a run. What is wrong with them may be told to the server: it sent them.

    Raises:
        RefusalError: an unknown setting, or one that does not fit.
    """
    try:
        settings = FederatedSettings.from_config(run_config)
        settings.encryption()
    except InstaHideError as error:
        raise RefusalError(error.problem, error.remedy) from error
    return settings


def spread(exposure: Exposure) -> dict[str, float]:
    """Least, mean and most encodings that an image has gone into, over all rounds and runs."""
    if not isinstance(exposure, LedgerAccount):
        return {"exposure-least": 0, "exposure-mean": 0.0, "exposure-most": 0}
    counts = exposure.counts
    return {
        "exposure-least": int(counts.min()),
        "exposure-mean": float(np.mean(counts)),
        "exposure-most": int(counts.max()),
    }
