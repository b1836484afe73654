"""Images: tables, PyTorch data sets, readers of files, public patches and normalization."""

from __future__ import annotations

from instahide.data.builtin import BUILTIN
from instahide.data.cache import cache_folder
from instahide.data.dataset import ImageDataset
from instahide.data.image_source import ImageSource
from instahide.data.public.crops import PhotoCrops
from instahide.data.public.pool import make_pool, open_pool
from instahide.data.public.scan_plan import plan_scan_pool
from instahide.data.public.scan_pool import make_scan_pool
from instahide.data.readers.tables.label_table import LabelTable
from instahide.data.sources import open_images, open_split, open_test
from instahide.data.splits import Split
from instahide.data.table import GatheredRows, ImageTable

__all__ = [
    "BUILTIN",
    "GatheredRows",
    "ImageDataset",
    "ImageSource",
    "ImageTable",
    "LabelTable",
    "PhotoCrops",
    "Split",
    "cache_folder",
    "make_pool",
    "make_scan_pool",
    "open_images",
    "open_pool",
    "open_split",
    "open_test",
    "plan_scan_pool",
]
