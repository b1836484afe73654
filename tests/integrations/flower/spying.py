"""The client app, with notes of what it draws and sends in the folder that is Flower's home.

Copied into a Flower app by `test_deployment.py`; whatever it notes stays on the node.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from instahide.encryption.keys import OneTimeKeys
from instahide.encryption.sampling import sampler
from instahide.integrations.flower.client import app

HOME = Path(os.environ["FLWR_HOME"])
draw = sampler.one_time_keys


def noting_masks(*arguments: Any, **more: Any) -> OneTimeKeys:
    """A digest of every mask; then, where a node is to be killed, a long pause."""
    keys = draw(*arguments, **more)
    assert keys.masks is not None
    with (HOME / "masks").open("a", encoding="utf-8") as file:
        for mask in keys.masks:
            file.write(hashlib.sha256(mask.tobytes()).hexdigest() + "\n")
    if (HOME / "slow").exists():
        time.sleep(600)
    return keys


def noting_answers(
    message: Message, context: Context, answer: Callable[[Message, Context], Message]
) -> Message:
    """All bytes of the answer."""
    sent = answer(message, context)
    with (HOME / "sent").open("ab") as file:
        for part in get_all_nested_objects(sent).values():
            file.write(part.deflate())
    return sent


sampler.one_time_keys = noting_masks
client_app = ClientApp(mods=[noting_answers])
client_app.train()(app.train)
client_app.evaluate()(app.evaluate)
client_app.query()(app.query)
