"""Training data from encodings that several participants published."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from instahide.data import BUILTIN, ImageTable, open_test
from instahide.data.labels import output_columns, require_one_task
from instahide.data.normalization.normalization import Normalization
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.manifest import NAME
from instahide.encodings.storage import open_store
from instahide.encryption.scheme import Scheme
from instahide.errors import DataError
from instahide.training.data.alignment import align_to_model
from instahide.training.data.compatibility import (
    class_union,
    is_masked,
    normalization,
    require_poolable,
    require_same_masking,
    warn_of_differences,
)
from instahide.training.data.fingerprint import fingerprint
from instahide.training.data.pooled_loader import PooledLoader, folder_batches, own_encodings
from instahide.training.data.target_scale import UNSCALED, TargetScale, scale_of_parts
from instahide.training.distributed.processes import ALONE, Processes
from instahide.training.distributed.sharding import shard
from instahide.training.evaluate import table_batches
from instahide.training.models.model_io import NetworkCard
from instahide.training.outputs import Outputs
from instahide.training.settings import TrainSettings


def holds_encodings(source: str) -> bool:
    """Whether ``source`` is a folder of encodings, rather than a source of images."""
    if source in BUILTIN or Path(source).is_file():
        return False
    return NAME in open_store(source).names()


@dataclass(frozen=True)
class PooledData:
    """Folders of encodings with test data. Use `open`.

    Attributes:
        settings: settings of the run.
        folders: the folders to train on.
        classes: names of the classes: the union over the folders.
        mean: mean of pixel / 255, per channel, averaged over all encodings.
        std: standard deviation, likewise.
        test: plain test images or test encodings, if any; with several processes, each has its own
            part of the images.
        scale: mean and standard deviation of the mixed values of a regression.
        processes: the processes that train together, each on its own part of the encodings.
    """

    settings: TrainSettings
    folders: tuple[EncodedFolder, ...]
    classes: tuple[str, ...]
    normalization: Normalization
    test: ImageTable | EncodedFolder | None
    scale: TargetScale = UNSCALED
    processes: Processes = ALONE

    @classmethod
    def open(cls, settings: TrainSettings, processes: Processes = ALONE) -> PooledData:
        """Open the folders and check that one network can train on all of them.

        If ``settings`` do not set `sign_invariant`, it is set to whether the encodings are masked.

        Raises:
            InstaHideError: the folders cannot be pooled, or the test images do not fit them.
        """
        folders = tuple(EncodedFolder.open(source) for source in _sources(settings))
        require_poolable(folders)
        _require_same(folders, processes)
        is_set = "sign_invariant" in settings.model_fields_set
        if not (is_set and settings.sign_invariant):
            require_same_masking(folders)
        if not is_set:
            settings = settings.merged({"sign_invariant": is_masked(folders[0].manifest)})
        warn_of_differences(folders)
        classes, moments = class_union(folders), normalization(folders)
        task = folders[0].manifest.task
        settings = settings.completed(task)
        test = _open_test(settings, folders, classes, moments)
        keyed = [folder.manifest.encoder for folder in folders if folder.manifest.data_set_key]
        if test is not None and keyed:
            raise DataError(
                f"Encodings of {keyed[0]} share a key that their publisher has "
                "alone, and a network of them classifies encodings under this key alone.",
                "Leave out `test=`.",
            )
        if isinstance(test, ImageTable):
            test = shard(test, processes)
        scale = UNSCALED
        if task == "regression":
            scale = scale_of_parts(
                folder.shard(number).labels.numpy()
                for folder in folders
                for number in range(len(folder.manifest.shards))
            )
        return cls(settings, folders, classes, moments, test, scale, processes)

    @property
    def scheme(self) -> Scheme | None:
        """The scheme of the first folder; None for another encoder."""
        manifest = self.folders[0].manifest
        return manifest.encryption() if manifest.of_scheme else None

    @property
    def card(self) -> NetworkCard:
        """The metadata of a network for these encodings."""
        return NetworkCard(
            self.settings.model,
            self.settings.sign_invariant,
            self.folders[0].manifest.shape,
            self.classes,
            self.normalization.mean,
            self.normalization.std,
            (self.scheme or Scheme.plain()).to_json(),
            self.normalization.value_range,
            self.folders[0].manifest.task,
            *self.scale,
            data_set_key=any(folder.manifest.data_set_key for folder in self.folders),
        )

    def batches(self, *, pin_memory: bool) -> PooledLoader:
        """A loader that returns every encoding once in each epoch."""
        share = len(self.processes.share(self.settings.batch_size))
        return PooledLoader(self.folders, share, pin_memory=pin_memory, processes=self.processes)

    @property
    def test_images(self) -> int:
        """Number of test images or test encodings of this process."""
        if isinstance(self.test, EncodedFolder):
            return own_encodings(self.test, self.processes)
        return 0 if self.test is None else len(self.test)

    def test_batches(self) -> Iterable[tuple[Tensor, Tensor]] | None:
        """Test images with labels, or test encodings with the class of largest weight."""
        if isinstance(self.test, EncodedFolder):
            return folder_batches(self.test, self.classes, processes=self.processes)
        return None if self.test is None else table_batches(self.test)

    def encrypted_predictions(
        self, network: nn.Module, precision: torch.dtype, outputs: Outputs
    ) -> None:
        """Nothing: there is no public pool here to encrypt queries with."""

    @property
    def calibration_images(self) -> int:
        """No images: encodings have no single images with labels of their own."""
        return 0

    def calibration_predictions(self, network: nn.Module, precision: torch.dtype) -> None:
        """Nothing: there are no images to calibrate with."""

    def fingerprints(self, salt: str) -> list[str]:
        """A hash of the encodings, and of the test images or test encodings."""
        if isinstance(self.test, EncodedFolder):
            tested = _fingerprint(salt, [self.test])
        else:
            tested = fingerprint(salt, [] if self.test is None else [self.test])
        return [_fingerprint(salt, self.folders), tested]

    def close(self) -> None:
        """Do nothing: folders need no cleanup."""

    def facts(self) -> dict[str, object]:
        """The participant and the number of encodings of each folder."""
        return {
            "folders": [
                {"participant": folder.manifest.participant, "encodings": len(folder)}
                for folder in self.folders
            ]
        }


def _fingerprint(salt: str, folders: Iterable[EncodedFolder]) -> str:
    """As `fingerprint`, of folders of encodings."""
    digest = hashlib.blake2b(key=bytes.fromhex(salt), digest_size=32)
    for folder in folders:
        digest.update(folder.manifest.to_json())
    return digest.hexdigest()


def _sources(settings: TrainSettings) -> list[str]:
    sources = [settings.data] if isinstance(settings.data, str) else settings.data
    plain = [source for source in sources if not holds_encodings(source)]
    if plain:
        raise DataError(
            f"{plain[0]} holds no encodings, and only encodings can be pooled.",
            "Encrypt it with `instahide encrypt`, or train on it alone.",
        )
    return sources


def _require_same(folders: Sequence[EncodedFolder], processes: Processes) -> None:
    named = processes.gather([folder.manifest.publication for folder in folders])
    if any(publications != named[0] for publications in named):
        raise DataError(
            "The processes of this run have other encodings under the same names.",
            "Give all of them the same folders: each reads its own part of every one.",
        )


def _open_test(
    settings: TrainSettings,
    folders: Sequence[EncodedFolder],
    classes: tuple[str, ...],
    normalization: Normalization,
) -> ImageTable | EncodedFolder | None:
    if settings.test is None:
        return None
    shape, task = folders[0].manifest.shape, folders[0].manifest.task
    if not holds_encodings(settings.test):
        images = open_test(settings.test, **settings.read_options())
        return align_to_model(images, shape, classes, normalization, task)
    folder = EncodedFolder.open(settings.test)
    require_one_task(
        [task, folder.manifest.task], ["the encodings to train on", str(folder.location)]
    )
    if task != "single-label":
        raise DataError(
            f"{folder.location} holds encodings, whose labels are mixed: a mix has no true "
            "findings or values to compare with.",
            "Test on plain images.",
        )
    if folder.manifest.shape != shape:
        raise DataError(
            f"{folder.location} cannot be tested on: shape {folder.manifest.shape}, but {shape} "
            "in the encodings to train on.",
            "Encrypt test images of the same size and channels.",
        )
    if not len(folder):
        raise DataError(f"{folder.location} is empty.", "Give at least one test encoding.")
    output_columns(folder.manifest.classes, classes)
    _require_comparable(folder, folders, settings)
    return folder


def _require_comparable(
    test: EncodedFolder, folders: Sequence[EncodedFolder], settings: TrainSettings
) -> None:
    """Check that ``test`` holds other encodings than ``folders``, and of the same kind."""
    publications = [folder.manifest.publication for folder in folders]
    if test.manifest.publication in publications:
        raise DataError(
            f"{test.location} holds encodings that are trained on, so they would test nothing.",
            "Encrypt test images into another folder.",
        )
    require_poolable([*folders, test])
    if not settings.sign_invariant:
        require_same_masking([folders[0], test])
    warn_of_differences([folders[0], test])
