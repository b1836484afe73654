"""What a client tells the server when it takes no part in a round."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps

from flwr.app import Context, Error, Message, RecordDict

from instahide.errors import ExposureLimitError, IntegrationError

#: Flower's code for an app that answers with an error.
REFUSED = 2
SILENCE = "This node cannot take part; its own log says why."

_log = logging.getLogger(__name__)


class RefusalError(IntegrationError):
    """Why a client takes no part, in words that may leave it: no path and no file name."""


def error_replies(
    work: Callable[[Message, Context], RecordDict],
) -> Callable[[Message, Context], Message]:
    """Make ``work`` a function of a Flower app that answers with records or with an error.

    Left alone, Flower sends the text of any exception to the server, and with it the path of an
    image or a line of somebody's library. Here only a `RefusalError` and an exposure limit speak
    for themselves; whatever else goes wrong is told to the node's own log.
    """

    @wraps(work)
    def answer(message: Message, context: Context) -> Message:
        try:
            return Message(work(message, context), reply_to=message)
        except (RefusalError, ExposureLimitError) as refusal:
            reason = str(refusal)
            _log.warning("This node takes no part: %s", reason, exc_info=refusal.__cause__)
        except Exception:  # anything, or its text would leave this machine
            _log.exception("This node takes no part in the round.")
            reason = SILENCE
        return Message(Error(REFUSED, reason), reply_to=message)

    return answer
