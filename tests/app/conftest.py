"""The images of the page, cut once."""

from __future__ import annotations

import pytest

from instahide.app.demo_images import DemoImages


@pytest.fixture(scope="session")
def stage() -> DemoImages:
    return DemoImages.open()
