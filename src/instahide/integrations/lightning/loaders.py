"""Replaces the training loaders of a Lightning `Trainer` by encrypting ones, and back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

from pytorch_lightning import Trainer
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader, Dataset

from instahide.encryption.exposure import limit_error
from instahide.errors import ExposureLimitError, IntegrationError
from instahide.integrations.dataloader.loader_view import Hidden, HiddenIterator, LoaderView, reveal
from instahide.integrations.dataloader.supported_loaders import require_wrappable
from instahide.integrations.dataloader.wrap import EncodingLoader

#: Makes the encrypting loader that belongs to a training loader.
Encode = Callable[["TrainingLoader"], EncodingLoader]


def give_encrypted(trainer: Trainer, encode: Encode) -> None:
    """Have ``trainer`` encrypt its training loaders.

    The loaders are wrapped in the strategy's `process_dataloader`, after Lightning has inserted a
    distributed sampler, which works only on a `DataLoader`.

    Raises:
        IntegrationError: two processes would compute on the same batch.
    """
    shards = trainer.distributed_sampler_kwargs
    if shards is not None and shards["num_replicas"] != trainer.world_size:
        raise IntegrationError(
            f"{trainer.world_size} processes share {shards['num_replicas']} shards of the data, "
            "but each process encrypts under its own keys.",
            "Split the data among all processes, not the work on a batch among some.",
        )
    process = trainer.strategy.process_dataloader
    stop = LimitStop()

    def encrypting(loader: object) -> object:
        # A data module may return the same loaders, already wrapped, in the next epoch.
        if trainer.training and not isinstance(loader, TrainingLoader):
            loader = TrainingLoader(loader, trainer, encode, stop)
        return process(loader)

    vars(trainer.strategy)["process_dataloader"] = encrypting


def give_plain(trainer: Trainer) -> None:
    """Undo `give_encrypted`, also for the loaders in use."""
    vars(trainer.strategy).pop("process_dataloader", None)
    combined = _combined(trainer)
    if combined is not None:
        combined.flattened = [
            loader.unwrapped if isinstance(loader, TrainingLoader) else loader
            for loader in combined.flattened
        ]


def training_data(trainer: Trainer) -> list[Dataset[object]]:
    """The data sets of the training loaders of ``trainer``, in order."""
    combined = _combined(trainer)
    loaders = combined.flattened if combined is not None else []
    return [getattr(loader, "unwrapped", loader).dataset for loader in loaders]


class LimitStop:
    """The end of a run at the limit, which is one for all of its training loaders.

    Attributes:
        epoch: the epoch in which a loader reached the limit; None before.
    """

    def __init__(self) -> None:
        self.epoch: int | None = None


class TrainingLoader(LoaderView):
    """A loader of encrypted batches, which Lightning iterates over in place of a training loader.

    Each batch is fetched before the previous one is returned. Lightning therefore knows which batch
    is the last one within the limit, and validates and saves after it.

    Args:
        loader: the user's loader, or Lightning's copy of it.
        trainer: the trainer that iterates over it.
        encode: makes the encrypting loader. It is called for the first batch, after Lightning has
            set the seeding of workers and a resumed run has loaded its counts.
        stop: when the loaders of this run reached the limit.

    Raises:
        IntegrationError: the loader cannot be wrapped.
        ExposureLimitError: during iteration, if an image has reached its limit and the run cannot
            end there.
    """

    def __init__(self, loader: object, trainer: Trainer, encode: Encode, stop: LimitStop) -> None:
        super().__init__(require_wrappable(loader))
        # Both lead to the user's data module.
        self._trainer = Hidden(trainer)
        self._encode = Hidden(encode)
        self._run_stop = stop
        self._encoded: EncodingLoader | None = None

    @property
    def unwrapped(self) -> DataLoader[object]:
        """The plain loader, unchanged."""
        return reveal(self._plain)

    def place(self) -> int:
        """Its index among the training loaders.

        Raises:
            IntegrationError: the trainer does not iterate over it.
        """
        combined = _combined(reveal(self._trainer))
        for place, loader in enumerate(combined.flattened if combined is not None else []):
            if loader is self:
                return place
        raise IntegrationError(
            "The strategy of this trainer replaces training loaders by its own wrappers.",
            "Use a strategy for CPUs or GPUs.",
        )

    def __len__(self) -> int:
        return len(self.unwrapped)

    def __iter__(self) -> Iterator[object]:
        return HiddenIterator(self._batches())

    def _batches(self) -> Iterator[object]:
        # Nothing runs before the first batch: Lightning starts the iteration during its setup, and
        # could not clean up after an error there.
        if self._encoded is None:
            self._encoded = reveal(self._encode)(self)
        encoded = self._encoded
        batches = iter(encoded)
        batch = self._next(batches, encoded)
        while batch is not None:
            coming = self._next(batches, encoded)
            yield batch
            batch = coming

    def _next(self, batches: Iterator[object], encoded: EncodingLoader) -> object:
        """The next batch; None at the end, or in all processes once one reached its limit."""
        batch, reached = None, None
        try:
            batch = next(batches, None)
        except ExposureLimitError as error:
            reached = error
        if encoded.exposure.limited and self._anywhere(reached is not None):
            self._stop(reached or limit_error(encoded.exposure))
            return None
        return batch

    def _anywhere(self, decision: bool) -> bool:
        """Whether ``decision`` is true in any process."""
        strategy = reveal(self._trainer).strategy
        return bool(strategy.reduce_boolean_decision(decision, all=False))

    def _stop(self, reached: ExposureLimitError) -> None:
        trainer = reveal(self._trainer)
        if trainer.should_stop and self._run_stop.epoch == trainer.current_epoch:
            # Another loader ends the epoch already, or Lightning has begun this one anew in it.
            return
        # A run that continues after should_stop has a minimum number of epochs or steps.
        if trainer.should_stop or trainer.global_step == 0:
            raise reached
        trainer.should_stop = True
        self._run_stop.epoch = trainer.current_epoch
        if trainer.is_global_zero:
            warnings.warn(f"{reached.problem} Training ends early.", stacklevel=2)


def _combined(trainer: Trainer) -> CombinedLoader | None:
    # Lightning shows the collection in which the loaders came, but not the loaders in order.
    return trainer.fit_loop._combined_loader
