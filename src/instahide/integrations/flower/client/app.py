"""The client app: it trains on encodings of its own images, under new keys in every round.

Only `train`, `evaluate` and `query` send anything to the server: weights or a gradient, a few
metrics, or the reason why the client takes no part.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from instahide.data import ImageTable
from instahide.encodings.ledger.account import LedgerAccount
from instahide.integrations.flower.arrays import load
from instahide.integrations.flower.client import local_training
from instahide.integrations.flower.client.normalization_check import require_near, require_signs
from instahide.integrations.flower.client.participant import Participant, spread
from instahide.integrations.flower.errors import RefusalError, error_replies
from instahide.integrations.flower.messages import Instructions, read
from instahide.integrations.flower.moments import moments, require_near_targets
from instahide.integrations.flower.task_metrics import client_metric, require_client_test
from instahide.training.device import pick_device

client_app = ClientApp()


@client_app.train()
@error_replies
def train(message: Message, context: Context) -> RecordDict:
    """Train for one round on the client's images; reply with weights or a gradient, and metrics.

    If an image would exceed its exposure limit, the reply is an error and holds no result.
    """
    participant, sent = _participant(context), read(message, arrays=True)
    images = _conforming(participant, sent)
    participant = replace(participant, settings=sent.agreement.complete(participant.settings))
    network = load(sent.agreement.network(participant.settings), sent.arrays)
    if participant.settings.dp:
        from instahide.integrations.flower.client.dp_sgd import train_with_dp_sgd

        if sent.pull:
            raise RefusalError("DP-SGD takes no `proximal-mu`.", "Use FedAvg instead of FedProx.")
        loss = sent.agreement.loss(participant.settings)
        numbers = train_with_dp_sgd(network, images, participant, sent.number, loss)
    else:
        numbers = _learn(network, images, participant, sent, _key_name(participant, context))
    by_gradient = participant.settings.strategy == "FedSGD"
    answer = _gradients(network) if by_gradient else network.state_dict()
    metrics = {"num-examples": len(images), **numbers}
    return RecordDict(
        {"arrays": ArrayRecord(answer), "metrics": MetricRecord(cast(dict[str, Any], metrics))}
    )


@client_app.evaluate()
@error_replies
def evaluate(message: Message, context: Context) -> RecordDict:
    """A metric of the server's network on the client's own plain test images."""
    participant, sent = _participant(context), read(message, arrays=True)
    settings, agreement = participant.settings, sent.agreement
    require_client_test(agreement.task)
    local_training.require_precision(settings)
    images = agreement.conform(participant.test_images())
    network = load(agreement.network(settings), sent.arrays).to(pick_device(settings.device))
    metrics: dict[str, Any] = client_metric(network, images, agreement, settings)
    return RecordDict({"metrics": MetricRecord({"num-examples": len(images), **metrics})})


@client_app.query()
@error_replies
def query(message: Message, context: Context) -> RecordDict:
    """Reply with means and standard deviations that the federation has not agreed on yet."""
    participant, sent = _participant(context), read(message, arrays=False)
    images = sent.agreement.conform(participant.images())
    return RecordDict({"metrics": moments(images, sent.agreement)})


def _conforming(participant: Participant, sent: Instructions) -> ImageTable:
    """The participant's images in the federation's normalization, after all checks of it."""
    settings, agreement = participant.settings, sent.agreement
    if not 1 <= sent.number <= settings.rounds:
        raise RefusalError(
            f"Round {sent.number} is not one of the {settings.rounds} rounds of this run.",
            "Count rounds from 1.",
        )
    local_training.require_precision(settings)
    images = participant.images()
    participant.require_crop(images.shape)
    conforming = agreement.conform(images)
    if agreement.normalization is not None:
        require_near(images, agreement.normalization.mean, agreement.normalization.std)
    if agreement.task == "regression":
        require_near_targets(conforming, agreement.target)
    scheme = settings.encryption(images.task)
    local_training.require_known(conforming, scheme)
    if scheme.mask:
        require_signs(conforming)
    return conforming


def _learn(
    network: nn.Module,
    images: ImageTable,
    participant: Participant,
    sent: Instructions,
    key_name: str,
) -> dict[str, float]:
    """Train ``network``, or compute its gradient, within the participant's exposure limit."""
    settings, task_loss = participant.settings, sent.agreement.loss(participant.settings)
    by_gradient = settings.strategy == "FedSGD"
    with participant.counting(images) as exposure:
        one_batch = by_gradient and settings.gradient == "batch"
        if not one_batch:
            passes = 1 if by_gradient else settings.local_epochs
            pictures = exposure.group(images.content_ids)
            scheme = settings.encryption(images.task)
            local_training.require_room(exposure, scheme, passes, pictures)
        encoder = local_training.encoder_of(settings, images, exposure, key_name)
        if by_gradient:
            loss = local_training.compute_gradient(network, encoder, settings, task_loss)
        else:
            loss = local_training.train_locally(
                network, encoder, settings, sent.number, task_loss, sent.pull
            )
        if isinstance(exposure, LedgerAccount):
            # The result may be sent from here on, so the counts must survive a power cut.
            exposure.sync()
        return {"loss": loss, **spread(exposure)}


def _gradients(network: nn.Module) -> dict[str, Tensor]:
    """Gradients of the parameters, and the running statistics, by name."""
    gradients = {
        name: parameter.grad
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }
    return network.state_dict() | gradients


def _key_name(participant: Participant, context: Context) -> str:
    """A name, unique in the federation, that is mixed into the keys."""
    if participant.partition is not None:
        return f"partition {participant.partition[0]}"
    return f"node {context.node_id}"


def _participant(context: Context) -> Participant:
    return Participant.open(context.run_config, context.node_config)
