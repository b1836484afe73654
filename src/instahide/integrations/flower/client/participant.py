"""A participant of a federation: its settings, its images, and their exposure."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from instahide.data import ImageTable, open_images, open_test
from instahide.data.labels import strata
from instahide.data.readers.window import is_stated, read_window
from instahide.data.sources import rescaled
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.dp_sgd_history import locked_history, read_history
from instahide.encodings.ledger.ledger import Ledger, default_ledger
from instahide.encryption.exposure import Exposure
from instahide.encryption.privacy import DELTA, mu_squared_rate
from instahide.encryption.scheme import Scheme
from instahide.integrations.flower.client.loss_limits import NO_LIMITS, LossLimits
from instahide.integrations.flower.client.participant_config import (
    PARTITION,
    NodeConfig,
    read_partition,
)
from instahide.integrations.flower.client.partition import partition
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import RefusalError, as_refusal
from instahide.training.data.unused_images import are_among

_log = logging.getLogger(__name__)
#: Largest shift of a run's random crop, as a share of an image's shorter side.
MOST_CROP = 0.25
#: The keys of the node config that the simulation engine makes.
SIMULATED = {name.replace("_", "-") for name in PARTITION}


@dataclass(frozen=True)
class Participant:
    """A participant of a federation. Use `open`.

    Attributes:
        settings: settings of the run, with those that the participant decides replaced.
        partition: number of this part and number of parts of a shared data set; None for a
            participant with its own images.
        limits: limits of the loss of an image.
        crop_padding_named: whether the node config names `crop-padding`.
    """

    settings: FederatedSettings
    partition: tuple[int, int] | None = None
    limits: LossLimits = NO_LIMITS
    crop_padding_named: bool = False

    @classmethod
    def open(cls, run_config: Mapping[str, object], node_config: Mapping[str, object]) -> Self:
        """Read Flower's configs.

        `NodeConfig` describes the settings that the node config decides. In Flower's simulation
        engine participants have no node config: there the user who starts the run owns all images,
        and the run config decides everything.

        Raises:
            RefusalError: the node config lacks a required setting, or the run does not meet the
                participant's terms.
        """
        if set(node_config) == SIMULATED and is_simulated():
            names = {name.replace("-", "_"): value for name, value in node_config.items()}
            settings = read_run_config(run_config)
            limits = LossLimits(min_mse=settings.min_mse)
            return cls(settings, read_partition(names), limits)
        config = NodeConfig.read(node_config)
        settings = config.settings(read_run_config(run_config))
        delta = config.own.delta if "delta" in config.named else DELTA
        limits = LossLimits(config.max_epsilon, delta, settings.min_mse)
        return cls(settings, config.partition, limits, "crop_padding" in config.named)

    def images(self) -> ImageTable:
        """The training images, under their own normalization.

        Raises:
            RefusalError: their range of pixels depends on the images.
            InstaHideError: they cannot be read, or there are too few.
        """
        options = self.settings.read_options(progress=False) | {"rescale": False}
        return self._share(self._in_range(open_images(str(self.settings.data), **options)))

    def test_images(self) -> ImageTable:
        """The test images, without those that are also training images, or of a group of these.

        A test shows the server something about plain images, which neither the exposure nor an
        epsilon of the training images counts.

        Raises:
            RefusalError: the participant has none, all are also training images, or as `images`.
            InstaHideError: they cannot be read.
        """
        settings = self.settings
        if settings.test is None:
            raise RefusalError(
                "This participant has no test images.", "Name some by `test` in its config."
            )
        options = settings.read_options(progress=False) | {"rescale": False}
        options["labels"] = settings.test_table(settings.labels_task)
        found = self._share(self._in_range(open_test(settings.test, **options)))
        known = are_among(found, [self.images()])
        if known.all():
            raise RefusalError(
                "All test images of this participant are also training images, or of the same "
                "groups.",
                "Name others by `test` in its config.",
            )
        if known.any():
            _log.warning("%d test images are training images, and left out.", int(known.sum()))
        return found.subset(~known) if known.any() else found

    def require_crop(self, shape: tuple[int, ...]) -> None:
        """Check the run's random crop: a large shift leaves mostly black pixels, which hide little.

        Raises:
            RefusalError: the padding is above `MOST_CROP` of the shorter side, and the node config
                does not name it.
        """
        # Slices of a volume are not moved among each other.
        most = int(MOST_CROP * min(shape[-2:]))
        if not self.crop_padding_named and self.settings.crop_padding > most:
            raise RefusalError(
                f"The run's crop-padding of {self.settings.crop_padding} is above {most}, "
                "a quarter of the side of this participant's images.",
                "Lower it, or name it in the node config.",
            )

    @contextmanager
    def counting(self, images: ImageTable) -> Iterator[Exposure]:
        """An account of ``images`` in this participant's ledger, open inside a ``with`` block.

        It has the limit `max_exposure`, and keeps `limits`. A plain scheme makes no encodings, so
        nothing is counted.

        Raises:
            RefusalError: `limits` cannot be kept.
            LedgerError: the ledger cannot be read or written.
        """
        scheme = self.settings.encryption(images.task)
        if scheme.is_plain:
            if self.limits.names:
                raise RefusalError(
                    "Plain training without DP-SGD cannot keep this participant's "
                    f"{self.limits.names}.",
                    "Start a run with DP-SGD, or take this participant out.",
                )
            yield Exposure(len(images))
            return
        self.limits.require_noise(scheme.noise)
        with self._apart_from_dp_sgd(), Ledger.open(self.ledger()) as ledger:
            account = self._account(ledger, images, scheme)
            yield account
            self.limits.require_kept(account)

    @contextmanager
    def _apart_from_dp_sgd(self) -> Iterator[None]:
        """If there are limits, no DP-SGD comes before a ``with`` block or begins inside it."""
        if not self.limits.names:
            yield
            return
        with locked_history(self.ledger(), shared=True) as file:
            self.limits.require_no_dp_sgd(read_history(file))
            yield

    def _account(self, ledger: Ledger, images: ImageTable, scheme: Scheme) -> LedgerAccount:
        values = math.prod(images.shape)
        min_mse = self.limits.as_min_mse(values)
        if min_mse is not None:
            step = scheme.c1**2 * mu_squared_rate(scheme, images.shape, images.std)
            self.limits.require_next(step, values / min_mse)
        limit = self.settings.max_exposure
        account = ledger.account(images, limit=limit, min_mse=min_mse, scheme=scheme)
        if account.loss_limit is not None:
            so_far = float(account.losses.max())
            self.limits.require_next(account.loss_limit.step, account.loss_limit.most, so_far)
        return account

    def ledger(self) -> Path:
        """Path of the participant's ledger; the parts of a shared data set have separate ones."""
        path = Path(self.settings.ledger) if self.settings.ledger else default_ledger()
        if self.partition is None:
            return path
        return path.with_name(f"{path.stem}-{self.partition[0]}{path.suffix}")

    def _in_range(self, images: ImageTable) -> ImageTable:
        """``images`` rescaled if the participant wants that, after a check of their window.

        Participants can agree on a range of pixels only if each states its own. A range that was
        measured would also say something about the images.
        """
        window = read_window(self.settings.window)
        if not is_stated(window, images.pixels):
            raise RefusalError(
                "The node config does not state the range of this participant's pixels: it would "
                "be measured, and the images are not of 8 bits, or cut to percentiles.",
                'Set `window` in the node config to two values, as in `window="0,4095"`.',
            )
        return rescaled(images, window) if self.settings.rescale else images

    def _share(self, images: ImageTable) -> ImageTable:
        if self.partition is None:
            return images
        part, parts = self.partition
        alpha = self.settings.alpha if self.settings.partition == "dirichlet" else None
        labels, groups = strata(images.labels), images.group_ids
        rows = partition(labels, parts, alpha=alpha, groups=groups)[part]
        # A part has its own mean and standard deviation.
        return images.subset(rows).measured()


def is_simulated() -> bool:
    """Whether this process is a worker of Flower's simulation engine, which is an actor of Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    return ray.get_runtime_context().get_actor_id() is not None


def read_run_config(run_config: Mapping[str, object]) -> FederatedSettings:
    """Read the settings of a run. Errors may be sent to the server, where the settings come from.

    Raises:
        RefusalError: a setting is unknown or has an invalid value.
    """
    with as_refusal():
        settings = FederatedSettings.from_config(run_config)
        settings.encryption()
    return settings


def spread(exposure: Exposure) -> dict[str, float]:
    """Least, mean and most encodings of a picture or a group, over all rounds and runs."""
    if not isinstance(exposure, LedgerAccount):
        return {"exposure-least": 0, "exposure-mean": 0.0, "exposure-most": 0}
    _, first = np.unique(exposure.pictures(), return_index=True)
    counts = exposure.counts[first]
    return {
        "exposure-least": int(counts.min()),
        "exposure-mean": float(np.mean(counts)),
        "exposure-most": int(counts.max()),
    }
