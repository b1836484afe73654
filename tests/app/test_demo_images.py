"""What is put in: read, made square, and off the disk again whatever it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instahide.app.demo_images import OTHERS, SIDE, SMALL, DemoImages, received
from instahide.errors import InstaHideError


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_an_image_of_any_kind_becomes_a_colour_square_and_its_file_goes(
    tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "mine.png"
    Image.new("RGB", (300, 100), (204, 102, 51)).convert(mode).save(path)
    pixels = received(path)
    assert (pixels.shape, pixels.dtype) == ((3, SIDE, SIDE), np.uint8)
    assert (pixels == pixels[:, :1, :1]).all()
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_what_is_no_image_is_told_so_and_goes_too(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.jpg"
    path.write_bytes(content)
    with pytest.raises(InstaHideError) as caught:
        received(path)
    # Where it lay is nobody's concern.
    assert caught.value.problem == "wrong.jpg is not an image that can be read."
    assert "JPEG" in caught.value.remedy
    assert not path.exists()


def test_the_chosen_image_is_the_first_of_the_private_ones_at_either_size(
    stage: DemoImages,
) -> None:
    chosen = np.full((3, SIDE, SIDE), 77, np.uint8)
    for side in (SIDE, SMALL):
        images = stage.private(chosen, side)
        assert images.shape == (3, side, side)
        assert len(images.classes) == len(images) == OTHERS + 1
        assert (images.pixels[0] == 77).all()
    assert stage.pool.shape == (3, SMALL, SMALL)
    assert stage.public.shape == (3, SIDE, SIDE)
