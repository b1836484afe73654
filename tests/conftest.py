"""Small networks are slower on many threads, and much slower on a busy machine: use one.

Tests that need an object store share one S3 server on the loopback interface.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest

from tests import same_randomness
from tests.waiting import LIMIT

#: torchvision is tested in an environment of its own, `make test-torchvision`.
collect_ignore = ["torchvision"] if importlib.util.find_spec("torchvision") is None else []

# No example is too slow: how long it takes depends on what else the machine does.
if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "instahide",
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=same_randomness.SAME,
    )
    settings.load_profile("instahide")

# Before PyTorch is imported, and for the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
# Without a GPU, its kernel is interpreted; Triton decides so when it is imported.
if shutil.which("nvidia-smi") is None:
    os.environ["TRITON_INTERPRET"] = "1"
# A shell makes what it starts in the background deaf to Ctrl-C, and all that comes of it.
signal.signal(signal.SIGINT, signal.default_int_handler)

if same_randomness.SAME:
    same_randomness.install()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(item: pytest.Item) -> None:
        same_randomness.begin(item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        # Shared by several tests: the same whichever of them comes first.
        name = f"{request.node.nodeid}::{fixturedef.argname}[{request.param_index}]"
        with same_randomness.apart(name):
            return (yield)


@pytest.fixture(scope="session", autouse=True)
def _ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test encrypts is counted in the user's own ledger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTAHIDE_LEDGER", str(tmp_path_factory.mktemp("ledger") / "ledger.sqlite"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _cache(pytestconfig: pytest.Config) -> Iterator[None]:
    """Nothing that a test decodes lies in the user's own cache; what is built in is made once."""
    assert pytestconfig.cache is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTAHIDE_CACHE", str(pytestconfig.cache.mkdir("instahide")))
        yield


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    if os.geteuid():
        inside = [folder, *folder.rglob("*")]
        modes = {path: path.stat().st_mode for path in inside}
        for path in reversed(inside):
            path.chmod(0o500 if path.is_dir() else 0o400)
        try:
            yield
        finally:
            for path, mode in modes.items():
                path.chmod(mode)
        return
    # Permissions do not keep root from writing; a read-only mount does.
    bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], check=False)
    if bound.returncode:
        pytest.skip("Neither permissions nor a mount can make a folder read-only for this user.")
    try:
        command = ["mount", "-o", "remount,ro,bind", str(folder)]
        subprocess.run(command, check=True)
        yield
    finally:
        # Lazily: an exception that a test looks at may still hold a file open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def read_only() -> Callable[[Path], AbstractContextManager[None]]:
    """Makes a folder, with all in it, one that this user cannot write to; until the block ends."""
    return _read_only


#: Part of the name of a bucket whose conditions are ignored, as by servers that do not know them.
UNCONDITIONAL = "unconditional"


def _like_s3(app: Callable[..., Any]) -> Callable[..., Any]:
    """An S3 server that takes one request at a time: moto lets two "create" the same object."""
    lock = Lock()

    def serve(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if UNCONDITIONAL in environ["PATH_INFO"]:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with lock:
            return app(environ, start)

    return serve


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server, which this process and those that it starts know and trust."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from s3fs import S3FileSystem
    from werkzeug.serving import make_server

    server = make_server(
        "127.0.0.1",
        0,
        _like_s3(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=MotoRequestHandler,
    )
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    with pytest.MonkeyPatch.context() as environment:
        # A request that is repeated because the machine is busy may find its own first try.
        environment.setattr(S3FileSystem, "read_timeout", LIMIT)
        environment.setattr(S3FileSystem, "connect_timeout", LIMIT)
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }.items():
            environment.setenv(name, value)
        yield address
    server.shutdown()
    thread.join()


@pytest.fixture
def bucket(s3_server: str) -> str:
    """The URL of an empty bucket."""
    from s3fs import S3FileSystem

    name = f"bucket-{secrets.token_hex(8)}"
    S3FileSystem().mkdir(name)
    return f"s3://{name}"
