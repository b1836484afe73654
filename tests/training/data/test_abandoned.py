"""A script may end in the middle of an epoch: its process ends, and says nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.waiting import LIMIT

#: Blocks are small, so that the next ones wait for memory when the script ends.
LOADER = """
from instahide import EncodedLoader, Encoder, Scheme, open_split
from instahide.training.data import encoded_loader

encoded_loader.BLOCK = 64
encoder = Encoder(Scheme.inside(4), open_split("digits").train)
batches = iter(EncodedLoader(encoder, batch_size=32))
"""
WRAPPED = """
import torch
from torch.utils.data import DataLoader, TensorDataset
from instahide import Scheme, encode_loader

items = TensorDataset(torch.randn(640, 3, 8, 8), torch.arange(640) % 10)
batches = iter(encode_loader(DataLoader(items, batch_size=16), Scheme.inside(4), classes=10))
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [LOADER, WRAPPED], ids=["EncodedLoader", "encode_loader"])
def test_a_half_read_epoch_does_not_keep_a_process(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nfor _ in range(7):\n    next(batches)\n"],
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
