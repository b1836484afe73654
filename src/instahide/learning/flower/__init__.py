"""InstaHide in Flower: a client app that learns from encodings, and the server app beside it.

A Flower app adopts them with an import, and says the rest in its run config::

    from instahide.learning.flower import client_app, server_app
"""

from __future__ import annotations

from instahide.images.optional import needing

with needing("flwr", "flower"):
    from instahide.learning.flower.client import client_app
    from instahide.learning.flower.server import server_app

__all__ = ["client_app", "server_app"]
