"""The client app: it learns from encodings of its own images, made anew in every round.

What leaves a client is in `train`, `evaluate` and `query`, and nowhere else: weights or a
gradient, a few numbers, or a sentence that says why it takes no part.
"""

from __future__ import annotations

from typing import Any, cast

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from instahide.data import ImageTable
from instahide.encodings.ledger.account import LedgerAccount
from instahide.integrations.flower.arrays import load
from instahide.integrations.flower.client import local_training
from instahide.integrations.flower.client.normalization_check import require_near, require_signs
from instahide.integrations.flower.client.participant import Participant, spread
from instahide.integrations.flower.errors import RefusalError, error_replies
from instahide.integrations.flower.federation_spec import moments
from instahide.integrations.flower.messages import Instructions, read
from instahide.training.device import pick_device, pick_precision
from instahide.training.evaluate import accuracy, table_batches

client_app = ClientApp()


@client_app.train()
@error_replies
def train(message: Message, context: Context) -> RecordDict:
    """One round on the client's own images: new weights, or a gradient, with a few numbers.

    Answers with an error, and sends nothing of the round, where an image would pass its limit.
    """
    node, sent = _node(context), read(message, arrays=True)
    images = _conforming(node, sent)
    network = load(sent.agreement.network(node.settings), sent.arrays)
    if node.settings.dp:
        from instahide.integrations.flower.client.dp_sgd import train_with_dp_sgd

        numbers = train_with_dp_sgd(network, images, node, sent.number)
    else:
        numbers = _learn(network, images, node, sent, _participant(node, context))
    answer = _gradients(network) if node.settings.strategy == "FedSGD" else network.state_dict()
    metrics = {"num-examples": len(images), **numbers}
    return RecordDict(
        {"arrays": ArrayRecord(answer), "metrics": MetricRecord(cast(dict[str, Any], metrics))}
    )


@client_app.evaluate()
@error_replies
def evaluate(message: Message, context: Context) -> RecordDict:
    """The accuracy of the server's network on the client's own plain test images."""
    node, sent = _node(context), read(message, arrays=True)
    settings, agreement = node.settings, sent.agreement
    local_training.require_precision(settings)
    images = agreement.conform(node.test_images())
    device = pick_device(settings.device)
    network = load(agreement.network(settings), sent.arrays).to(device)
    precision = pick_precision(settings.precision, device)
    share = accuracy(network, table_batches(images), precision=precision).overall
    return RecordDict({"metrics": MetricRecord({"num-examples": len(images), "accuracy": share})})


@client_app.query()
@error_replies
def query(message: Message, context: Context) -> RecordDict:
    """Mean and deviation of the client's images, where no normalization was agreed upon."""
    node, sent = _node(context), read(message, arrays=False)
    images = node.images()
    sent.agreement.conform(images)
    return RecordDict({"metrics": moments(images)})


def _conforming(node: Participant, sent: Instructions) -> ImageTable:
    """The node's images under what was agreed upon, if that suits them and hides them."""
    settings, agreement = node.settings, sent.agreement
    if not 1 <= sent.number <= settings.rounds:
        raise RefusalError(
            f"Round {sent.number} is not one of the {settings.rounds} rounds of this run.",
            "Count rounds from 1.",
        )
    local_training.require_precision(settings)
    images = node.images()
    node.require_crop(images.shape)
    conforming = agreement.conform(images)
    if agreement.mean:
        require_near(images, agreement.mean, agreement.std)
    if settings.encryption().mask:
        require_signs(conforming)
    return conforming


def _learn(
    network: nn.Module, images: ImageTable, node: Participant, sent: Instructions, participant: str
) -> dict[str, float]:
    """Change ``network``, or give it a gradient, in the bounds of the node's exposure limit."""
    settings = node.settings
    by_gradient = settings.strategy == "FedSGD"
    with node.counting(images) as exposure:
        one_batch = by_gradient and settings.gradient == "batch"
        if not one_batch:
            passes = 1 if by_gradient else settings.local_epochs
            local_training.require_room(exposure, settings.encryption(), passes)
        encoder = local_training.encoder_of(settings, images, exposure, participant)
        if by_gradient:
            loss = local_training.compute_gradient(network, encoder, settings)
        else:
            loss = local_training.train_locally(network, encoder, settings, sent.number, sent.pull)
        if isinstance(exposure, LedgerAccount):
            # What was learned from encodings may leave now: their count must outlast a power cut.
            exposure.sync()
        return {"loss": loss, **spread(exposure)}


def _gradients(network: nn.Module) -> dict[str, Any]:
    """By name: the gradients of parameters, and running statistics as they are."""
    gradients = {
        name: parameter.grad
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }
    return network.state_dict() | gradients


def _participant(node: Participant, context: Context) -> str:
    """A name that no other node of the federation has."""
    if node.partition is not None:
        return f"partition {node.partition[0]}"
    return f"node {context.node_id}"


def _node(context: Context) -> Participant:
    return Participant.open(context.run_config, context.node_config)
