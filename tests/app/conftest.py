"""The images of the page, cut once."""

from __future__ import annotations

import pytest

from instahide.app.demo_images import Stage


@pytest.fixture(scope="session")
def stage() -> Stage:
    return Stage.open()
