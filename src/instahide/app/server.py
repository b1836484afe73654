"""Serves the page to this machine alone, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from instahide.errors import InstaHideError
from instahide.utils.optional_deps import requires_extra

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
MOST_UPLOAD = "50mb"
#: What a browser may load for the page, and for the reports in it: nothing from anywhere else.
POLICY = "; ".join(
    [
        "default-src 'self'",
        # Gradio compiles parts of its page as it goes.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


class Confined:
    """Says with every answer what the browser may load, and tells nobody where it came from."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the page does, with headers added."""

        async def confined(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self.app(scope, receive, confined)


def serve(port: int, reports: Path, announce: Callable[[str], None]) -> None:
    """Show the page until Ctrl-C; ``announce`` is told its address.

    Raises:
        InstaHideError: Gradio or an image set is missing, or the port is taken.
    """
    # Ended by a signal, it still deletes its folder.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with serving(port, reports) as address:
        announce(address)
        threading.Event().wait()


@contextmanager
def serving(port: int, reports: Path) -> Iterator[str]:
    """Serve the page inside the block; gives its address.

    Args:
        port: to listen on, on the loopback interface.
        reports: folder of audit reports.

    Raises:
        InstaHideError: as `serve`.
    """
    with tempfile.TemporaryDirectory(prefix="instahide-app-") as folder:
        _settle(Path(folder))
        with requires_extra("Gradio", "app"):
            import gradio  # noqa: F401
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from instahide.app.demo_images import DemoImages
        from instahide.app.page import CSS, THEME, build

        # A page elsewhere whose name is made to mean this machine is turned away.
        named = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
        page = build(DemoImages.open(), reports)
        try:
            _, address, _ = page.launch(
                server_name=HOST, server_port=port, share=False, prevent_thread_lock=True,
                quiet=True, footer_links=[], run_history=False, max_file_size=MOST_UPLOAD,
                enable_monitoring=False, ssr_mode=False, pwa=False, mcp_server=False,
                app_kwargs={"middleware": [named, Middleware(Confined)], "openapi_url": None},
                theme=THEME, css=CSS,
            )  # fmt: skip
        except OSError as error:
            raise InstaHideError(
                f"The page cannot be served on port {port}.", "Name one that is free with `port=`."
            ) from error
        try:
            yield address
        finally:
            page.close(verbose=False)


def _settle(folder: Path) -> None:
    """Gradio reads these when it is imported; what would send or share anything is off."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ |= {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
