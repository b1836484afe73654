"""What pages ask of others: a server that answers nothing and remembers everything."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Whom Chromium itself calls: for updates, for an account, about forms of any page, and, after a
#: while, for push messages.
ITS_OWN = re.compile(
    r"(http://)?(update\.googleapis|accounts\.google|content-autofill\.googleapis"
    r"|android\.clients\.google|mtalk\.google)\.com[:/]"
)


@contextmanager
def counting() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine, or a proxy to all others, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not ITS_OWN.match(self.path):
                asked.append(self.path)
            self.send_error(404)

        do_CONNECT = do_POST = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
