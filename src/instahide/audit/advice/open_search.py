"""Opens a search: reads and checks the images, and opens the folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instahide.attacks.registry import registered
from instahide.audit.advice.bench import Bench, is_masked
from instahide.audit.advice.candidate import SEARCHED, Searched, Space
from instahide.audit.advice.encoder_candidate import EncoderCandidate
from instahide.audit.advice.journal import AUDITS, Journal
from instahide.audit.advice.proposals import Proposals, import_optuna
from instahide.audit.advice.schema import Targets
from instahide.audit.advice.search import Search
from instahide.audit.fingerprints import of_table
from instahide.audit.session import LEAST_SECONDS
from instahide.data import ImageTable, Split, open_pool
from instahide.data.read_settings import ReadSettings
from instahide.encryption.encoders.base import InstanceEncoder
from instahide.encryption.encoders.table_encoder import open_encoder
from instahide.errors import DataError, InstaHideError
from instahide.training.data.private import open_private
from instahide.training.models import build
from instahide.training.settings import TrainSettings

#: Fewest training images: of fewer, a share says little.
LEAST_TRAINING_IMAGES = 50
#: Most training images; of more, a sample is tried, so that an epoch stays short.
MOST_TRAINING_IMAGES = 5000
#: Encodings in a training step.
BATCH_SIZE = 128
#: Seconds of the attack by a network on one setting, as a share of the budget, and at most; and
#: the same of a thorough attack. It ends by itself after 2,000 steps.
ATTACK_SHARE, MOST_ATTACK = 1 / 150, 300.0
THOROUGH_SHARE, MOST_THOROUGH = 1 / 15, 1200.0


@dataclass(frozen=True)
class Request:
    """What a search is about.

    Attributes:
        source: the images, as for `open_split`.
        reading: how they are read.
        targets: what the user asks for.
        seconds: the time budget.
        test: test images, if not a part of the source.
        public: the public pool: a folder, or the built-in ``photos``.
        schemes: schemes to search.
        encoders: candidates of other encoders, see `encoder_candidates`.
        model: the network that is trained.
        steps: steps of each training, about.
    """

    source: str
    reading: ReadSettings
    targets: Targets
    seconds: float
    test: str | None = None
    public: str = "photos"
    schemes: Sequence[Searched] = SEARCHED
    encoders: Sequence[EncoderCandidate] = ()
    model: str = "small"
    steps: int = 200

    @property
    def read_settings(self) -> dict[str, Any]:
        """How the images are read, where that is not the default."""
        fields = self.reading.model_fields_set & ReadSettings.model_fields.keys()
        return {name: getattr(self.reading, name) for name in sorted(fields)}


def open_search(request: Request, folder: Path) -> Search:
    """Open the images and the search in ``folder``.

    Raises:
        InstaHideError: the images cannot be read, are too few, are volumes or have measured values
            as labels; there are no public images; or the folder holds something else.
    """
    import_optuna()  # Refused before images are read.
    split = _split(request)
    proposals = Proposals(Space(request.schemes, split.train.task), request.encoders)
    methods = [each.encryption(split.train.task) for each in request.encoders]
    mixes_public = "cross" in request.schemes or any(method.uses_public for method in methods)
    public = _public(request, split.train) if mixes_public else None
    per_epoch = -(-len(split.train) // BATCH_SIZE)
    settings = TrainSettings.from_values(
        {
            "epochs": max(1, round(request.steps / per_epoch)),
            "batch_size": BATCH_SIZE,
            "model": request.model,
        }
    )
    _require_network(settings, split)
    for method in methods:
        _require_encodable(settings, split.train, method, public)
    identity = {
        "images": of_table(split.train),
        "test images": of_table(split.test),
        "public images": of_table(public),
        "schemes": list(proposals.space.schemes),
        "encoders": [candidate.settings() for candidate in request.encoders],
        "training": settings.model_dump(mode="json", include={"epochs", "batch_size", "model"}),
    }
    bench = Bench(
        request.source, split, public, settings, folder / AUDITS, registered().attacks,
        max(LEAST_SECONDS, min(MOST_ATTACK, ATTACK_SHARE * request.seconds)),
        max(LEAST_SECONDS, min(MOST_THOROUGH, THOROUGH_SHARE * request.seconds)),
    )  # fmt: skip
    journal = Journal.open(folder, identity)
    _require_named(journal, request.encoders)
    return Search(bench, journal, proposals, request.targets, request.seconds)


def common_settings(request: Request) -> dict[str, Any]:
    """The settings that all candidates share, by the names of `TrainSettings`."""
    optional = {
        "test": (request.test, None),
        "public": (request.public, "photos"),
        "model": (request.model, "small"),
    }
    changed = {name: value for name, (value, plain) in optional.items() if value != plain}
    return {"data": request.source, **request.read_settings, **changed}


def _split(request: Request) -> Split:
    """Training and test images, after checks; a sample of the training images if there are many."""
    values = {"data": request.source, "test": request.test, **request.read_settings}
    split = open_private(TrainSettings.from_values(values))
    train = split.train
    if len(train.shape) != 3:
        raise DataError(
            f"{request.source} holds volumes, which demixing, one of the attacks, does not take.",
            "Use images of two dimensions, such as slices.",
        )
    if train.task == "regression":
        raise DataError(
            f"The labels of {request.source} are measured values, which the attacks do not take.",
            "Use classes, such as one for each range of values.",
        )
    if len(train) < LEAST_TRAINING_IMAGES:
        raise DataError(
            f"{request.source} holds {len(train)} training images.",
            f"Use at least {LEAST_TRAINING_IMAGES}: of fewer images, a share that is recovered "
            "says little.",
        )
    if len(train) <= MOST_TRAINING_IMAGES:
        return split
    rows = np.random.default_rng(0).permutation(len(train))[:MOST_TRAINING_IMAGES]
    return Split(train.subset(np.sort(rows)), split.test)


def _require_network(settings: TrainSettings, split: Split) -> None:
    """Check that there is such a network for these images, before the folder is made."""
    shape, classes = split.train.shape, len(split.train.classes)
    build(settings.model, shape[0], classes, sign_invariant=True, size=shape[1:])


def _require_encodable(
    settings: TrainSettings, images: ImageTable, method: InstanceEncoder, public: ImageTable | None
) -> None:
    """Check that the encoder takes these images, and that the network takes its encodings."""
    open_encoder(method, images, public).encode(np.arange(2))
    shape, masked = method.output_shape(images.shape), is_masked(method)
    build(settings.model, shape[0], len(images.classes), sign_invariant=masked, size=shape[1:])


def _require_named(journal: Journal, named: Sequence[EncoderCandidate]) -> None:
    """Check that all encoders in the folder were named: the code of any other is not run."""
    for candidate in journal.by_candidate():
        if isinstance(candidate, EncoderCandidate) and candidate not in named:
            raise InstaHideError(
                f"{journal.folder} has a measurement of {candidate.name}, which was not named.",
                "Choose another folder with `out=`.",
            )


def _public(request: Request, images: ImageTable) -> ImageTable:
    try:
        return open_pool(request.public, images.shape)
    except InstaHideError as error:
        raise DataError(
            f"There are no public images for mixes: {error.problem}",
            f"{error.remedy} Or search schemes without public images: `scheme='inside'`.",
        ) from error
