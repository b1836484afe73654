"""Simulates the update that a participant of a federation sends, with its ground truth."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from instahide.attacks.base import LocalTraining, ThreatModel, Update, UpdateObservation
from instahide.audit.ground_truth import GroundTruth, ground_truth_of
from instahide.data import ImageTable
from instahide.encryption.known_keys import encode_with_known_keys
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError


def observe_update(
    images: ImageTable,
    public: ImageTable | None,
    scheme: Scheme,
    network: nn.Module,
    rows: NDArray[np.int64],
    training: LocalTraining,
    *,
    labels: Literal["soft", "none"] = "soft",
    buffers: bool = False,
) -> tuple[UpdateObservation, GroundTruth]:
    """Train ``network`` on encodings of some images, as the server of a federation sees it.

    Args:
        images: all private images of the participant, from which private partners are drawn.
        public: the public pool, if the scheme uses one.
        scheme: how to encrypt; under `Scheme.plain` the participant trains on its images.
        network: the network before the update. It is copied, not changed.
        rows: (training.images,) rows of the images that are encrypted, in the order of training.
        training: the local training of the participant.
        labels: whether the attacker gets the labels of the encodings.
        buffers: whether the participant also sends its batch norm statistics.

    Raises:
        InstaHideError: the number of ``rows`` is not ``training.images``, or as for `Encoder`.
    """
    if len(rows) != training.images:
        raise InstaHideError(
            f"There are {len(rows)} rows for a training on {training.images} images.",
            "Give as many rows as the training has images.",
        )
    made = encode_with_known_keys(scheme, images, public if scheme.public_k else None, rows)
    encodings = made.encoded.images
    observation = UpdateObservation(
        scheme,
        images.mean,
        images.std,
        ThreatModel(labels=labels, public="none", update=True),
        tuple(encodings.shape[1:]),
        network,
        client_update(network, encodings, made.encoded.labels, training, buffers=buffers),
        made.encoded.labels if labels == "soft" else None,
    )
    nobody = torch.arange(len(images))
    return observation, replace(ground_truth_of(images, scheme, made, nobody), encodings=encodings)


def client_update(
    network: nn.Module, images: Tensor, labels: Tensor, training: LocalTraining, *, buffers: bool
) -> Update:
    """The update after ``training`` on images (n, C, H, W) with labels (n, classes)."""
    local = deepcopy(network).train(training.train_mode)
    optimizer = torch.optim.SGD(local.parameters(), lr=training.learning_rate)
    for places in training.batches():
        optimizer.zero_grad()
        loss = F.cross_entropy(local(images[places]), labels[places])
        loss.backward()  # type: ignore[no-untyped-call]
        if training.steps:
            optimizer.step()
    return Update(
        _changes(network, local) if training.steps else _gradients(local),
        training,
        _moved(network, local) if buffers else {},
    )


def _gradients(local: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.grad.clone()
        for name, value in local.named_parameters()
        if value.grad is not None
    }


def _changes(network: nn.Module, local: nn.Module) -> dict[str, Tensor]:
    before = dict(network.named_parameters())
    return {
        name: (value - before[name]).detach()
        for name, value in local.named_parameters()
        if value.requires_grad
    }


def _moved(network: nn.Module, local: nn.Module) -> dict[str, Tensor]:
    before = dict(network.named_buffers())
    return {name: value - before[name] for name, value in local.named_buffers()}
