"""A callback that makes a PyTorch Lightning `Trainer` train on encodings."""

from __future__ import annotations

import secrets
from collections.abc import Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer

from instahide.data import ImageSource, PhotoCrops
from instahide.data.duplicates.group_hash import Groups
from instahide.data.labels import Task
from instahide.encodings.ledger.account import LedgerAccount
from instahide.encodings.ledger.ledger import Ledger
from instahide.encryption.exposure import Exposure, require_limit
from instahide.encryption.guarantees.error_floor import require_min_mse
from instahide.encryption.guarantees.loss_limit import require_noise
from instahide.encryption.scheme import Scheme
from instahide.errors import IntegrationError, LedgerError, SchemeError
from instahide.integrations.dataloader.batch_fields import field_paths
from instahide.integrations.dataloader.item_contents import PositionExposure
from instahide.integrations.dataloader.supported_loaders import map_dataset
from instahide.integrations.dataloader.wrap import EncodingLoader, encode_loader
from instahide.integrations.lightning.loaders import (
    TrainingLoader,
    give_encrypted,
    give_plain,
    training_data,
)
from instahide.integrations.lightning.shared_items import first_places
from instahide.integrations.lightning.stored_counts import as_stored, read_counts


class InstaHideCallback(Callback):
    """Encrypts the training batches of a Lightning `Trainer`.

    The module and the data module need no change. In a distributed run every process has its own
    keys, and draws partners from the images that Lightning gives it. Images for validation, test
    and prediction are not encrypted.

    After every epoch it logs ``exposure/least``, ``exposure/mean`` and ``exposure/most``: the
    number of encodings that an item of the training set went into, summed over all processes and
    over the runs that this one resumes. Checkpoints hold these counts, the scheme and a digest of
    all counted images, and nothing secret.

    Args:
        scheme: how to encrypt.
        public: the public images, as for `encode_loader`.
        fields: the fields of a batch that hold the images and the labels, as for `encode_loader`.
        classes: the number of classes or their names, as for `encode_loader`.
        mean: mean that the transform subtracts, as for `encode_loader`.
        std: standard deviation that the transform divides by, as for `encode_loader`.
        max_exposure: largest number of encodings of an item; None for no limit. The run ends
            before the first batch that would exceed it, as after an early stop.
        min_mse: least mean squared error of unbiased reconstructions, as for `Ledger.account`; the
            run ends before the first batch that could break it. It needs ``ledger`` and noise.
        ledger: path of a ledger that counts the items of the training sets by their content, in
            place of the checkpoints. It also counts runs that were killed, other runs and other
            programs. All processes of a run must see the same file.
        task: what the labels are, as for `encode_loader`.
        groups: the group of each item of the training set, such as its patient: names in order, or
            a function from item number to name. Exposure and its limit then count groups.

    Raises:
        InstaHideError: ``max_exposure`` is below 1, ``min_mse`` cannot be kept, or ``fields`` are
            not two.

    Training loaders of one data set object share one exposure and its limit.

    `Trainer.fit` raises the errors of `encode_loader`, and an `IntegrationError` if a training set
    does not hold the items that were counted under the same numbers, as after another random split,
    or if two training sets are parts of one data set with some items in common, without a ledger.

    Examples:
        >>> from pytorch_lightning import Trainer
        >>> from instahide import Scheme
        >>> from instahide.integrations.lightning.callback import InstaHideCallback
        >>> callback = InstaHideCallback(Scheme.inside(4), max_exposure=100)
        >>> trainer = Trainer(max_epochs=30, callbacks=[callback], logger=False)
        >>> callback.exposures  # empty until `trainer.fit` has opened the training data
        ()
    """

    def __init__(
        self,
        scheme: Scheme,
        *,
        public: ImageSource | PhotoCrops | None = None,
        fields: tuple[Hashable, Hashable] = (None, None),
        classes: int | Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        max_exposure: int | None = None,
        min_mse: float | None = None,
        ledger: str | Path | None = None,
        task: Task = "single-label",
        groups: Groups | None = None,
    ) -> None:
        require_limit(max_exposure)
        _require_floor(min_mse, scheme, ledger)
        image, _ = field_paths(fields)
        self._ledger = None if ledger is None else Path(ledger)
        self._accounts: dict[int, LedgerAccount] = {}
        self.scheme = scheme
        self.max_exposure = max_exposure
        self._encode = partial(
            encode_loader, scheme=scheme, public=public, fields=fields, classes=classes,
            mean=mean, std=std, task=task,
        )  # fmt: skip
        self._groups = groups
        self._count = partial(
            Ledger.account, image=image, mean=mean, std=std, scheme=scheme, limit=max_exposure,
            min_mse=min_mse, groups=groups,
        )  # fmt: skip
        self._exposures: dict[int, PositionExposure] = {}
        self._trainer: Trainer | None = None
        # Tells a checkpoint of this run, whose counts are known, from one of another.
        self._run = secrets.token_hex(8)

    @property
    def exposures(self) -> tuple[Exposure, ...]:
        """The exposure of the items of each training loader, in order.

        Loaders of one data set have the same one.

        During an epoch, encodings of other processes are included up to the last log or checkpoint.
        """
        found: dict[int, Exposure] = {**self._exposures, **self._accounts}
        return tuple(exposure for _, exposure in sorted(found.items()))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the trainer train on encodings, until `teardown`.

        Raises:
            IntegrationError: two processes would compute on the same batch.
        """
        self._trainer = trainer
        if stage == "fit":
            self._run = trainer.strategy.broadcast(self._run)
            give_encrypted(trainer, self._encoded)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the trainer's plain loaders."""
        give_plain(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore the trainer's plain loaders."""
        give_plain(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the exposure."""
        self._settle()
        if not self.exposures or trainer.barebones:
            return
        distinct = {id(exposure): exposure for exposure in self.exposures}
        counts = np.concatenate([exposure.counts for exposure in distinct.values()])
        figures = {"least": counts.min(), "mean": counts.mean(), "most": counts.max()}
        pl_module.log_dict(
            {f"exposure/{name}": float(value) for name, value in figures.items()},
            batch_size=1,
            # The values are equal in all processes; without it Lightning warns.
            sync_dist=True,
        )

    def state_dict(self) -> dict[str, object]:
        """The scheme and the counts. All processes must call it together, as when they save."""
        if self._trainer is not None and not self._trainer.interrupted:
            self._settle()
        for account in self._accounts.values():
            # The result of training is about to be saved, so the counts must be on disk.
            account.sync()
        counted = {} if self._ledger is None else {"ledger": True}
        own, shared = self._own, self._shared
        return {
            "scheme": self.scheme.to_json(),
            "run": self._run,
            "counts": {
                place: torch.from_numpy(exposure.by_picture.copy())
                for place, exposure in own.items()
            },
            "items": {place: as_stored(exposure.contents) for place, exposure in own.items()},
            **counted,
            **({"shared": shared} if shared else {}),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the counts of a checkpoint; no count decreases.

        Raises:
            DamagedFileError: the state is incomplete, or a count is not an integer of 0 or more.
            SchemeError: the run of the checkpoint used another scheme.
            LedgerError: only one of the two runs counts in a ledger.
        """
        if self._trainer is not None and not self._trainer.training:
            return
        stored = read_counts(state_dict)
        if stored.scheme != self.scheme:
            raise SchemeError(
                f"The checkpoint's run encrypted by {stored.scheme}, this one would by "
                f"{self.scheme}.",
                "Resume with the scheme of the checkpoint, or start a new run.",
            )
        if stored.ledger != (self._ledger is not None):
            raise LedgerError(
                "The checkpoint's run counted in a ledger, and this one does not, or the other way "
                "round: encodings of one of them would not be counted.",
                "Resume with the same ledger=, or with none.",
            )
        for place, counts in stored.counts.items():
            exposure = self._exposure(place, len(counts))
            count = exposure.raise_to if stored.run == self._run else exposure.add
            count(counts)
            exposure.expect(stored.items[place])
        for place, first in stored.shared.items():
            self._share(place, first)

    def _encoded(self, loader: TrainingLoader) -> EncodingLoader:
        dataset = map_dataset(loader.unwrapped.dataset)
        exposure: Exposure
        if self._ledger is None:
            self._share_all()
            exposure = self._exposure(loader.place(), len(dataset))
        else:
            # Each process opens the ledger separately.
            account = self._count(Ledger.open(self._ledger), dataset)
            exposure = self._accounts[loader.place()] = account
        return self._encode(loader.unwrapped, exposure=exposure)

    def _exposure(self, place: int, items: int) -> PositionExposure:
        """The exposure of the training loader with index ``place``."""
        if place not in self._exposures:
            self._exposures[place] = PositionExposure(
                items, self._total, limit=self.max_exposure, groups=self._groups
            )
        exposure = self._exposures[place]
        if exposure.images != items:
            raise IntegrationError(
                f"Training loader {place} has {items} items now and had {exposure.images} before, "
                "so it is unknown which of them have been encrypted.",
                "Select items of one data set by a sampler; or start a new run with a new callback "
                "and a ledger=, which counts images by their content.",
            )
        return exposure

    def _share_all(self) -> None:
        """Have all training loaders of one data set share one exposure.

        Raises:
            IntegrationError: two of them have only some items in common.
        """
        datasets = [] if self._trainer is None else training_data(self._trainer)
        for place, first in enumerate(first_places(datasets)):
            if first != place:
                self._exposure(first, len(map_dataset(datasets[first])))
                self._share(place, first)

    def _share(self, place: int, first: int) -> None:
        """Count the items of the training loader ``place`` as those of ``first``, from now on."""
        shared, own = self._exposures[first], self._exposures.get(place)
        if own is not None and own is not shared:
            shared.join(own)
        shared.shared = True
        self._exposures[place] = shared

    @property
    def _shared(self) -> dict[int, int]:
        """The first place with the same exposure, of places that are not the first themselves."""
        firsts: dict[int, int] = {}
        places = sorted(self._exposures.items())
        found = {place: firsts.setdefault(id(exposure), place) for place, exposure in places}
        return {place: first for place, first in found.items() if place != first}

    @property
    def _own(self) -> dict[int, PositionExposure]:
        """Each exposure once, at its first place."""
        shared = self._shared
        return {p: exposure for p, exposure in self._exposures.items() if p not in shared}

    def _settle(self) -> None:
        for exposure in self._own.values():
            exposure.settle()

    def _total(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sum of ``counts`` over all processes."""
        if self._trainer is None or self._trainer.world_size == 1:
            return counts
        strategy = self._trainer.strategy
        own = torch.from_numpy(counts.copy()).to(strategy.root_device)
        total: NDArray[np.int64] = strategy.reduce(own, reduce_op="sum").cpu().numpy()
        return total


def _require_floor(min_mse: float | None, scheme: Scheme, ledger: str | Path | None) -> None:
    """Raise if ``min_mse`` cannot be kept, whatever the images are."""
    if min_mse is None:
        return
    require_min_mse(min_mse)
    require_noise(scheme)
    if ledger is None:
        raise LedgerError(
            "Checkpoints hold the number of encodings of each item, which is not enough to keep "
            "min_mse.",
            "Name a ledger=, which also counts squared coefficients.",
        )
