"""A publication has no more encodings than can be made."""

from __future__ import annotations

import numpy as np
import pytest

from instahide import ImageTable, InstaHideError, Scheme
from instahide.encodings.publication_size import MOST_ENCODINGS, require_few
from instahide.encodings.publish import Publication

IMAGES = 24


def publication(copies: int) -> Publication:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 1, 4, 4), np.uint8)
    images = ImageTable.from_arrays(pixels, np.arange(IMAGES) % 2)
    return Publication(images, None, Scheme.inside(2), copies)


def test_the_largest_number_is_taken_and_one_more_copy_refused() -> None:
    most = MOST_ENCODINGS // IMAGES
    assert publication(most).manifest().total <= MOST_ENCODINGS
    for copies in (most + 1, 1 << 60):
        with pytest.raises(InstaHideError, match=f"at most {MOST_ENCODINGS:,}.*copies={most}`"):
            publication(copies)


def test_too_many_images_for_one_encoding_each_are_to_be_divided() -> None:
    require_few(MOST_ENCODINGS, 1)
    with pytest.raises(InstaHideError, match="in several parts"):
        require_few(MOST_ENCODINGS + 1, 1)
