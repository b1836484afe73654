"""Checks that a message of the server holds the expected records and nothing else."""

from __future__ import annotations

from typing import NamedTuple

from flwr.app import ConfigRecord, Message

from instahide.integrations.flower.errors import RefusalError
from instahide.integrations.flower.federation_spec import KEYS, FederationSpec
from instahide.integrations.flower.untrusted_values import in_range, printable, whole_number

#: FedProx's coefficient. It multiplies gradients, so that a large one only spoils training.
MOST_PULL = 1e6
MOST_ROUNDS = 10**9
#: Keys of a server's config record.
_KEYS = KEYS | {"server-round", "proximal-mu"}


class Instructions(NamedTuple):
    """A server's message without its arrays.

    Attributes:
        agreement: shape, classes, task, normalization and scale of values.
        number: of the round, from 1; 0 before the first.
        pull: FedProx's mu.
        arrays: the network's weights, not checked yet; None if there are none.
    """

    agreement: FederationSpec
    number: int
    pull: float
    arrays: object


def read(message: Message, *, arrays: bool) -> Instructions:
    """Check the records of ``message``.

    Args:
        message: from the server, which may be hostile.
        arrays: whether weights come with it.

    Raises:
        RefusalError: a record or a value is missing, unknown, of another type or out of bounds.
    """
    wanted = {"config", "arrays"} if arrays else {"config"}
    content = dict(message.content) if message.has_content() else {}
    if set(content) != wanted:
        shown = ", ".join(sorted(map(printable, content))) or "none"
        raise RefusalError(
            f"The server's message has these records: {shown:.200}.",
            f"It must have {', '.join(sorted(wanted))}.",
        )
    config = content["config"]
    if not isinstance(config, ConfigRecord):
        raise RefusalError("The server's `config` is not a config record.", "Send a config record.")
    if strange := sorted(set(config) - _KEYS):
        raise RefusalError(
            f"The server's message has an unknown key `{printable(strange[0])}`.",
            f"Use only {', '.join(sorted(_KEYS))}.",
        )
    number, pull = config.get("server-round", 0), config.get("proximal-mu", 0.0)
    if not whole_number(number, 0, MOST_ROUNDS):
        raise RefusalError("The server's `server-round` is not a round number.", "Count from 1.")
    if not in_range(pull, 0, MOST_PULL):
        raise RefusalError(
            "The server's `proximal-mu` is out of range.", f"Use a number from 0 to {MOST_PULL:g}."
        )
    agreement = FederationSpec.from_record(config)
    return Instructions(agreement, number, float(pull), content.get("arrays"))
