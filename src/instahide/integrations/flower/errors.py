"""The error that a client sends to the server when it refuses a round."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

from flwr.app import Context, Error, Message, RecordDict

from instahide.errors import ExposureLimitError, InstaHideError, IntegrationError

#: The error code of a reply, which Flower reserves for errors of the app.
REFUSED = 2
SILENCE = "This participant cannot take part; its own log says why."

_log = logging.getLogger(__name__)


class RefusalError(IntegrationError):
    """The reason why a client takes no part; safe to send, with no path or file name."""


@contextmanager
def as_refusal() -> Iterator[None]:
    """Turn errors whose texts are only of what the server sent into refusals, which it may read."""
    try:
        yield
    except InstaHideError as error:
        raise RefusalError(error.problem, error.remedy) from error


def error_replies(
    work: Callable[[Message, Context], RecordDict],
) -> Callable[[Message, Context], Message]:
    """Make ``work`` a function of a Flower app that replies with records or with an error.

    By default Flower sends the text of any exception to the server, which may contain the path of
    an image. This decorator sends only the texts of `RefusalError` and `ExposureLimitError`; all
    other errors are written to the participant's own log.
    """

    @wraps(work)
    def answer(message: Message, context: Context) -> Message:
        try:
            return Message(work(message, context), reply_to=message)
        except (RefusalError, ExposureLimitError) as refusal:
            reason = str(refusal)
            _log.warning("This participant takes no part: %s", reason, exc_info=refusal.__cause__)
        except Exception:  # any kind: its text must not be sent to the server
            _log.exception("This participant takes no part in the round.")
            reason = SILENCE
        return Message(Error(REFUSED, reason), reply_to=message)

    return answer
