"""Serves the page on the loopback interface, and deletes its temporary files at the end."""

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
#: Content security policy of the page and of the reports in it: nothing from other hosts.
POLICY = "; ".join(
    [
        "default-src 'self'",
        # Gradio compiles parts of its page in the browser.
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
    """Middleware that adds security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, and add the headers to the response."""

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
    """Serve the page until Ctrl-C.

    Args:
        port: port of the loopback interface.
        reports: folder of audit reports.
        announce: called with the address of the page.

    Raises:
        InstaHideError: Gradio or the built-in photographs are missing, or the port is in use.
    """
    # SIGTERM then deletes the temporary folder too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with serving(port, reports) as address:
        announce(address)
        threading.Event().wait()


@contextmanager
def serving(port: int, reports: Path) -> Iterator[str]:
    """Serve the page inside a ``with`` block, which gets its address.

    Args:
        port: port of the loopback interface.
        reports: folder of audit reports.

    Raises:
        InstaHideError: as for `serve`.
    """
    with tempfile.TemporaryDirectory(prefix="instahide-app-") as folder:
        _configure_gradio(Path(folder))
        with requires_extra("Gradio", "app"):
            import gradio  # noqa: F401
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from instahide.app.demo_images import DemoImages
        from instahide.app.page import CSS, THEME, build

        # Rejects requests by DNS rebinding, which carry another host name.
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


def _configure_gradio(folder: Path) -> None:
    """Set the environment variables that Gradio reads on import: no telemetry, no sharing."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ |= {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
