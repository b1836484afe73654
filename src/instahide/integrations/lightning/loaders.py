"""How a Lightning `Trainer` comes to iterate over encrypting loaders, and comes back from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from instahide.encryption.exposure import limit_error
from instahide.errors import ExposureLimitError, IntegrationError
from instahide.integrations.dataloader.hidden_items import Hidden, HiddenIterator, reveal
from instahide.integrations.dataloader.loader_view import LoaderView
from instahide.integrations.dataloader.validation import require_wrappable
from instahide.integrations.dataloader.wrap import EncodingLoader

#: Makes the encrypting loader that belongs to a training loader.
Encode = Callable[["TrainingLoader"], EncodingLoader]


def give_encrypted(trainer: Trainer, encode: Encode) -> None:
    """Have ``trainer`` encrypt its training loaders.

    Its strategy is asked for the loaders to iterate over after Lightning has put a distributed
    sampler into them, which it could not do to loaders that are no `DataLoader` any more.

    Raises:
        IntegrationError: two processes are to compute on the same batch.
    """
    shards = trainer.distributed_sampler_kwargs
    if shards is not None and shards["num_replicas"] != trainer.world_size:
        raise IntegrationError(
            f"{trainer.world_size} processes share {shards['num_replicas']} shards of the data, "
            "but each process encrypts under keys of its own.",
            "Split the data among all processes, not the work on a batch among some.",
        )
    process = trainer.strategy.process_dataloader

    def encrypting(loader: object) -> object:
        # Whoever gives the same collection in every epoch gives ours the second time.
        if trainer.training and not isinstance(loader, TrainingLoader):
            loader = TrainingLoader(loader, trainer, encode)
        return process(loader)

    vars(trainer.strategy)["process_dataloader"] = encrypting


def give_plain(trainer: Trainer) -> None:
    """Undo `give_encrypted`; the loaders in use go back to what they were."""
    vars(trainer.strategy).pop("process_dataloader", None)
    combined = _combined(trainer)
    if combined is not None:
        combined.flattened = [
            loader.unwrapped if isinstance(loader, TrainingLoader) else loader
            for loader in combined.flattened
        ]


class TrainingLoader(LoaderView):
    """What Lightning iterates over in place of a training loader, whose settings it shows.

    Each batch is asked for before the one ahead of it is given. So Lightning knows the last one
    that a limit allows for the last, and validates and saves after it.

    Args:
        loader: the user's own, or Lightning's copy of it.
        trainer: iterates over it.
        encode: called when the first batch is due: by then Lightning has said how workers are to
            be seeded, and a resumed run what was counted before.

    Raises:
        InstaHideError: a loader that cannot be wrapped.
        ExposureLimitError: while it is iterated over, an image that came to its limit in a run that
            cannot end there.
    """

    def __init__(self, loader: Any, trainer: Trainer, encode: Encode) -> None:
        require_wrappable(loader)
        super().__init__(loader)
        # Both lead to the user's data module.
        self._trainer = Hidden(trainer)
        self._encode = Hidden(encode)
        self._encoded: EncodingLoader | None = None

    @property
    def unwrapped(self) -> DataLoader[Any]:
        """The plain loader, untouched."""
        return reveal(self._plain)

    def place(self) -> int:
        """Which of the training loaders it is.

        Raises:
            IntegrationError: the trainer does not iterate over it.
        """
        combined = _combined(reveal(self._trainer))
        for place, loader in enumerate(combined.flattened if combined is not None else []):
            if loader is self:
                return place
        raise IntegrationError(
            "The strategy of this trainer puts training loaders into others of its own.",
            "Use one for CPUs or GPUs.",
        )

    def __len__(self) -> int:
        return len(self.unwrapped)

    def __iter__(self) -> Iterator[Any]:
        return HiddenIterator(self._batches())

    def _batches(self) -> Iterator[Any]:
        # Nothing is done before the first batch is asked for: Lightning gets into this as it sets
        # up, and could not clean up after an error.
        if self._encoded is None:
            self._encoded = reveal(self._encode)(self)
        encoded = self._encoded
        batches = iter(encoded)
        batch = self._next(batches, encoded)
        while batch is not None:
            coming = self._next(batches, encoded)
            yield batch
            batch = coming

    def _next(self, batches: Iterator[Any], encoded: EncodingLoader) -> Any:
        """The next batch; None at the end, and in all processes once one is at its limit."""
        batch, reached = None, None
        try:
            batch = next(batches, None)
        except ExposureLimitError as error:
            reached = error
        if encoded.exposure.limit is not None and self._anywhere(reached is not None):
            self._stop(reached or limit_error(encoded.exposure))
            return None
        return batch

    def _anywhere(self, decision: bool) -> bool:
        """Whether it was taken in any of the processes."""
        strategy = reveal(self._trainer).strategy
        return bool(strategy.reduce_boolean_decision(decision, all=False))

    def _stop(self, reached: ExposureLimitError) -> None:
        # A run that was told to end and goes on has a least number of epochs or steps to do.
        trainer = reveal(self._trainer)
        if trainer.should_stop or trainer.global_step == 0:
            raise reached
        trainer.should_stop = True
        if trainer.is_global_zero:
            warnings.warn(f"{reached.problem} Training ends early.", stacklevel=2)


def _combined(trainer: Trainer) -> Any:
    # Lightning shows the collection in which the loaders came, but not the loaders in order.
    return trainer.fit_loop._combined_loader
