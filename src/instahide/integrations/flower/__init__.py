"""InstaHide in Flower: a client app that trains on encodings, and a server app.

Import both in a Flower app; all settings are in its run config::

    from instahide.integrations.flower import client_app, server_app
"""

from __future__ import annotations

from instahide.utils.optional_deps import requires_extra

with requires_extra("flwr", "flower"):
    from instahide.integrations.flower.client.app import client_app
    from instahide.integrations.flower.server.app import server_app

__all__ = ["client_app", "server_app"]
