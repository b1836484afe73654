"""Local training of a round: epochs over encodings, or a gradient on them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instahide.data import ImageTable
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoder
from instahide.encryption.exposure import Exposure, limit_error
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import RefusalError
from instahide.training.data.encoded_loader import EncodedLoader
from instahide.training.data.private import public_images
from instahide.training.device import autocast, pick_device, pick_precision
from instahide.training.distributed.processes import none_usable
from instahide.training.losses import Loss
from instahide.training.progress import Progress
from instahide.training.training_loop import one_epoch
from instahide.training.training_state import TrainingState


def encoder_of(
    settings: FederatedSettings, images: ImageTable, exposure: Exposure, participant: str
) -> Encoder:
    """The encoder of ``images`` for one round, with a new key stream.

    Args:
        settings: settings of the run.
        images: images of the client.
        exposure: counts their encodings.
        participant: name of the participant, which is mixed into the keys.

    Raises:
        InstaHideError: the images do not fit the scheme.
    """
    return Encoder(
        settings.encryption(images.task),
        images,
        public_images(settings, images.shape),
        augmentation=Augmentation(settings.crop_padding, settings.flip),
        exposure=exposure,
        device=pick_device(settings.device),
        participant=participant,
    )


def require_room(
    exposure: Exposure, scheme: Scheme, passes: int, pictures: NDArray[np.int64]
) -> None:
    """Raise, before anything is encrypted, if a round cannot stay within the exposure limit.

    In each of the ``passes`` every image is encrypted once, and is also a partner of others.

    Args:
        exposure: the account of the images.
        scheme: the scheme of the round.
        passes: epochs of the round.
        pictures: (N,) numbers, equal for images that share a count, such as those of a group.

    Raises:
        ExposureLimitError: no choice of partners keeps every image within the limit.
    """
    further = exposure.further()
    if further is None:
        return
    _, first, images = np.unique(pictures, return_index=True, return_counts=True)
    left = further[first]
    if (left < passes * images).any() or left.sum() < passes * images.sum() * scheme.private_k:
        raise limit_error(exposure)


def require_known(images: ImageTable, scheme: Scheme) -> None:
    """Check that mixes of ``images`` have findings to learn.

    A finding of a mix is known only if it is known for all its private images. Without this check,
    a participant could send a network that has learned nothing, with a loss of 0.

    Raises:
        RefusalError: less than one known finding is expected in all mixes of an epoch.
    """
    if images.task != "multi-label":
        return
    shares = (~np.isnan(images.labels)).mean(axis=0)
    if len(images) * (shares**scheme.private_k).sum() < 1:
        raise RefusalError(
            "This participant knows so few findings that hardly any mix has one that is known for "
            "all its images.",
            "State more findings in its table of labels, or leave out images without any.",
        )


def train_locally(
    network: nn.Module,
    encoder: Encoder,
    settings: FederatedSettings,
    number: int,
    loss: Loss,
    pull: float = 0.0,
) -> float:
    """Train ``network`` in place for the local epochs of round ``number``, counted from 1.

    The learning rate follows the schedule of the whole federation. Momentum starts at zero.

    Args:
        network: the network with the weights that the server sent.
        encoder: encrypts the client's images.
        settings: settings of the run.
        number: number of the round.
        loss: the loss on mixed labels.
        pull: FedProx's mu, the weight of the penalty on the distance to the server's weights (Li et
            al., arXiv:1812.06127).

    Returns:
        Mean loss of the last local epoch.

    Raises:
        InstaHideError: the exposure limit was reached, there is a single image, or the loss is no
            longer finite.
    """
    local = settings.local
    batches = EncodedLoader(encoder, settings.batch_size, pin_memory=encoder.device.type == "cuda")
    state = TrainingState.start(network, local, loss=loss)
    state.step = (number - 1) * settings.local_epochs * len(batches)
    if pull:
        _pull_back(state, pull)
    try:
        epochs = range(settings.local_epochs)
        return [one_epoch(state, batches, local, Progress()) for _ in epochs][-1].loss
    except InstaHideError as error:
        if all(parameter.isfinite().all() for parameter in network.parameters()):
            raise
        raise RefusalError(
            "The network's weights are no longer finite numbers.", "Lower the learning rate `lr`."
        ) from error


def require_precision(settings: FederatedSettings) -> None:
    """Check that this participant can calculate in the precision of the run.

    Raises:
        RefusalError: it cannot.
    """
    try:
        pick_precision(settings.precision, pick_device(settings.device))
    except InstaHideError as error:
        raise RefusalError(
            f"This participant cannot calculate in {settings.precision}.", "Leave `precision` out."
        ) from error


def _pull_back(state: TrainingState, mu: float) -> None:
    """Add the gradient of mu / 2 times the squared distance to the weights as they are now."""
    for parameter in state.model.parameters():
        start = parameter.detach().clone()

        def pulled(gradient: Tensor, here: Tensor = parameter, start: Tensor = start) -> Tensor:
            # All gradients are divided by the scale before the step.
            return gradient + state.gradient_scale * mu * (here.detach() - start)

        parameter.register_hook(pulled)  # type: ignore[no-untyped-call]


def compute_gradient(
    network: nn.Module, encoder: Encoder, settings: FederatedSettings, loss: Loss
) -> float:
    """Leave the mean gradient of encodings at the weights of ``network`` in its ``.grad``.

    Weights stay as they are; running statistics of batch normalization go on. The gradient of
    findings or values is that of the sum of their losses, divided by the number of encodings times
    columns, unknown ones included: in a mean over participants, weighted by images, every known
    finding then counts alike.

    Args:
        network: with the weights that the server sent.
        encoder: of the client's images.
        settings: whose `gradient` says how many images take part.
        loss: the loss on mixed labels.

    Returns:
        Mean loss of the known targets.

    Raises:
        InstaHideError: the exposure limit was reached, there is a single image, or no finding is
            known in any mix.
    """
    loss = loss
    device = pick_device(settings.device)
    precision = pick_precision(settings.precision, device)
    network.to(device).train()
    total, targets, known = torch.zeros((), device=device), 0, 0
    for encodings, labels in _batches(encoder, settings):
        with autocast(device, precision):
            outputs = network(encodings.to(device))
        part, count = loss(outputs, labels.to(device))
        part.backward()  # type: ignore[no-untyped-call]
        total += part.detach()
        targets += len(labels) if loss.counts_images else labels.numel()
        known += int(count)
    if targets == 0:
        raise none_usable()
    if known == 0:
        raise RefusalError(
            "No finding is known in any mix of this participant.", "Use fewer private images."
        )
    if not torch.isfinite(total):
        raise RefusalError(
            "The loss at the server's weights is not a finite number.", "Send other weights."
        )
    for parameter in network.parameters():
        if parameter.grad is not None:
            parameter.grad /= targets
    return total.item() / known


def _batches(encoder: Encoder, settings: FederatedSettings) -> Iterable[tuple[Tensor, Tensor]]:
    if settings.gradient == "pass":
        # A single image is left out: batch normalization has nothing to compare it with.
        loader = EncodedLoader(encoder, settings.batch_size)
        return (batch for batch in loader if len(batch.images) > 1)
    rows: np.ndarray[tuple[int], np.dtype[np.int64]] = encoder.permutation()[: settings.batch_size]
    batch = encoder.encode(rows)
    if len(batch.images) < len(rows):
        raise limit_error(encoder.exposure)
    return [batch]
