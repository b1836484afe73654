"""Simulates a participant's training over many rounds, as the server of a federation sees it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from instahide.attacks.base import (
    EncodingObservation,
    LocalTraining,
    ThreatModel,
    Update,
    UpdateObservation,
)
from instahide.attacks.federated.observation import FederatedObservation
from instahide.audit.client_update import client_update
from instahide.audit.ground_truth import GroundTruth, ground_truth_of
from instahide.data import ImageTable
from instahide.encryption.encoder import random_permutation
from instahide.encryption.known_keys import encode_with_known_keys
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError


def observe_federation(
    images: ImageTable,
    public: ImageTable | None,
    scheme: Scheme,
    network: nn.Module,
    training: LocalTraining,
    *,
    epochs: int,
) -> tuple[FederatedObservation, GroundTruth]:
    """Train ``network`` on a participant's encodings, and return the updates that it sends.

    In every epoch each image is encrypted once, in a new random order. The encodings are trained on
    in this order, ``training.images`` for each update; those left over at the end are not sent. The
    server applies each update before the next: it adds a change of weights, and takes a step along
    a gradient at ``training.learning_rate``. The attacker does not know the labels.

    Args:
        images: all private images of the participant.
        public: the public pool, if the scheme uses one.
        scheme: how to encrypt.
        network: the network before the first update. It is copied, not changed.
        training: the local training for each update: with ``steps=0`` it is a gradient (FedSGD),
            and otherwise the change of the weights (FedAvg).
        epochs: encodings of each image.

    Raises:
        InstaHideError: there are fewer encodings than one update needs, or as for `Encoder`.
    """
    count = len(images) * epochs // training.images
    if count < 1:
        raise InstaHideError(
            f"{len(images)} images in {epochs} epochs are too few for an update on "
            f"{training.images}.",
            "Use more epochs, or fewer images for an update.",
        )
    rows = np.concatenate([random_permutation(len(images)) for _ in range(epochs)])
    rows = rows[: count * training.images]
    made = encode_with_known_keys(scheme, images, public if scheme.public_k else None, rows)
    threat = ThreatModel(labels="none", public="none", update=True)
    updates = []
    for mine in torch.arange(len(rows)).reshape(count, training.images):
        encodings, labels = made.encoded.images[mine], made.encoded.labels[mine]
        update = client_update(network, encodings, labels, training, buffers=False)
        updates.append(
            UpdateObservation(
                scheme, images.mean, images.std, threat, tuple(encodings.shape[1:]), network, update
            )
        )
        network = _moved(network, update)
    observation = FederatedObservation(
        scheme,
        images.mean,
        images.std,
        replace(threat, encodings_per_image=epochs),
        tuple(updates),
    )
    truth = ground_truth_of(images, scheme, made, torch.arange(len(images)))
    return observation, replace(truth, encodings=made.encoded.images)


def exact_encodings(
    observation: FederatedObservation, truth: GroundTruth, *, labels: bool
) -> EncodingObservation:
    """The encodings behind all updates, as if the inversion of every update were exact.

    The reconstruction attack on them tells whether a failure is that of the inversion or that of
    the reconstruction.

    Args:
        observation: the updates.
        truth: their ground truth.
        labels: whether the attacker has the soft labels of the encodings.
    """
    threat = ThreatModel(
        labels="soft" if labels else "none",
        public="none",
        encodings_per_image=observation.threat.encodings_per_image,
    )
    return EncodingObservation(
        observation.scheme,
        observation.mean,
        observation.std,
        threat,
        torch.as_tensor(truth.encodings),
        soft_labels(truth, observation.scheme) if labels else None,
    )


def soft_labels(truth: GroundTruth, scheme: Scheme) -> Tensor:
    """(n, classes) float32 soft labels of the encodings."""
    private = slice(0, truth.private_k)
    weights = truth.coefficients[:, private].float()
    if scheme.label_mode == "renormalised":
        weights = weights / weights.sum(dim=1, keepdim=True)
    classes = truth.classes[truth.partners[:, private]]
    labels = torch.zeros(len(classes), int(truth.classes.max()) + 1)
    return labels.scatter_add_(1, classes, weights)


def _moved(network: nn.Module, update: Update) -> nn.Module:
    """A copy of the ``network`` after the server has applied the ``update``."""
    moved = deepcopy(network)
    rate = 1.0 if update.training.steps else -update.training.learning_rate
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if name in update.values:
                parameter.add_(rate * update.values[name])
    return moved
