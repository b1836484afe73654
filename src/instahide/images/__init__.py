"""Where pixels come from: private images, public patches, and anybody's own data set."""

from __future__ import annotations

from instahide.images.builtin import BUILTIN
from instahide.images.cache import cache_folder
from instahide.images.dataset import ImageDataset
from instahide.images.photos import PhotoCrops
from instahide.images.protocol import Images
from instahide.images.public import make_pool, open_pool
from instahide.images.sources import open_images, open_split, open_test
from instahide.images.splits import Split
from instahide.images.table import ImageTable, Rows

__all__ = [
    "BUILTIN",
    "ImageDataset",
    "ImageTable",
    "Images",
    "PhotoCrops",
    "Rows",
    "Split",
    "cache_folder",
    "make_pool",
    "open_images",
    "open_pool",
    "open_split",
    "open_test",
]
