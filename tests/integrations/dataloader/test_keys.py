"""A wrapped loader's keys: new for every epoch, process and copy, and nowhere to be seen."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from instahide import Exposure, InstaHideError, encode_loader
from instahide.integrations.dataloader.loader_view import reveal
from tests.integrations.dataloader.wrapped_loaders import ALONE, COUNT, INSIDE, loader, masks, mixed

SECONDS = 900
ROOT = Path(__file__).resolve().parents[3]


def all_differ(found: NDArray[np.bool]) -> bool:
    """Whether masks (n, 64) are as good as independent: no pair agrees in 60 places or more.

    By chance 1 pair in 10^13 does, and as many in 4 or fewer; there are some ten thousand.
    """
    agreeing = [(first == second).sum() for first, second in combinations(found, 2)]
    return max(agreeing) < 60 and min(agreeing) > 4


@pytest.mark.slow
def test_every_epoch_and_every_loader_has_masks_of_its_own() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        encoded = encode_loader(loader(shuffle=True, num_workers=2), ALONE)
        found += [masks(encoded), masks(encoded)]
    assert np.concatenate(found).shape == (160, 64)
    assert all_differ(np.concatenate(found))
    # 10,240 fair coins: 6 deviations leave 2 errors in 10^9.
    assert abs(np.concatenate(found).mean() - 0.5) < 6 * 0.5 / 101


def fetching(encoded: Any) -> Any:
    """The loader that fetches the plain items of ``encoded``."""
    return reveal(encoded._source).fetching


def send_masks(batches: Any, writer: Any) -> None:
    writer.send(masks(batches))


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_copy_in_another_process_has_masks_of_its_own(start: str) -> None:
    encoded = encode_loader(loader(), ALONE)
    found = [masks(encoded)]
    context: Any = multiprocessing.get_context(start)
    reader, writer = context.Pipe(duplex=False)
    processes = [context.Process(target=send_masks, args=(encoded, writer)) for _ in range(2)]
    for process in processes:
        process.start()
    found += [reader.recv() for _ in processes]
    for process in processes:
        process.join(SECONDS)
        assert process.exitcode == 0
    assert all_differ(np.concatenate([*found, masks(encoded)]))


def test_a_rank_has_a_key_domain_of_its_own(tmp_path: Path) -> None:
    assert encode_loader(loader(), ALONE)._encoder._keys.participant == ""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        encoded = encode_loader(loader(), ALONE)
        assert encoded._encoder._keys.participant == "rank-0"
        assert copy.deepcopy(encoded)._encoder._keys.participant == "rank-0"
        named = encode_loader(loader(), ALONE, participant="clinic")
        assert named._encoder._keys.participant == "clinic, rank-0"
    finally:
        dist.destroy_process_group()
    assert encode_loader(loader(), ALONE, participant="clinic")._encoder.participant == "clinic"


def test_a_limit_of_each_rank_for_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    exposure = Exposure(COUNT, limit=9)
    early = encode_loader(loader(), ALONE, exposure=exposure)
    next(iter(early))
    # Two processes, of which none needs to be there to see that this will not do.
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    with pytest.raises(InstaHideError, match="2 processes would each"):
        encode_loader(loader(), ALONE, exposure=exposure)
    encode_loader(loader(), ALONE, exposure=Exposure(COUNT))
    # Wrapped before the processes met; and launched together, whether they meet or not.
    with pytest.raises(InstaHideError, match="2 processes would each"):
        next(iter(early))
    monkeypatch.undo()
    next(iter(early))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InstaHideError, match="3 processes would each"):
        next(iter(early))


@pytest.mark.slow
def test_ranks_and_restarts_have_masks_of_their_own() -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "tests.integrations.dataloader.wrapped_rank",
    ]  # fmt: skip
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    found = []
    for _ in range(2):
        result = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
        )
        found += [json.loads(line) for line in result.stdout.splitlines()]
    assert [len(rank) for rank in found] == [COUNT] * 4
    assert all_differ(np.concatenate(found))


def test_two_iterations_at_a_time_do_not_meet() -> None:
    encoded = encode_loader(loader(num_workers=1), ALONE)
    pairs = list(zip(encoded, encoded, strict=True))
    assert all_differ(np.concatenate([masks(part) for part in zip(*pairs, strict=True)]))


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_persistent_workers_serve_epoch_after_epoch(start: str) -> None:
    options = {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": start}
    encoded = encode_loader(loader(**options), ALONE)
    found = [masks(encoded)]
    workers = list(fetching(encoded)._iterator._workers)
    # Left in the middle, with answers on their way.
    assert len(list(islice(encoded, 1))) == 1
    found.append(masks(encoded))
    assert list(fetching(encoded)._iterator._workers) == workers
    assert all_differ(np.concatenate(found))


def test_persistent_workers_do_not_serve_two_at_a_time() -> None:
    encoded = encode_loader(loader(num_workers=1, persistent_workers=True), ALONE)
    first = iter(encoded)
    next(first)
    iter(encoded)
    with pytest.raises(InstaHideError, match="support only one pass"):
        list(first)


def test_answers_that_come_out_of_order_find_their_keys() -> None:
    encoded = encode_loader(loader(num_workers=2, in_order=False), INSIDE)
    # An image that was mixed by the keys of another batch would not be in its own labels.
    mixes = mixed(encoded)
    assert len(mixes) == COUNT
    assert {len(mix) for mix in mixes} == {3}
    assert encoded.exposure.counts.sum() == 3 * COUNT


def test_nothing_secret_is_shown_or_sent() -> None:
    encoded = encode_loader(loader(), INSIDE)
    iterator = iter(encoded)
    next(iterator)
    stream = encoded._encoder._keys
    secrets = [stream._root, stream._cipher_key]
    parts = fetching(encoded)
    # What PyTorch sends to a worker, and what somebody may send anywhere.
    sent = [parts.dataset, parts.collate_fn, parts.worker_init_fn, encoded]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        for thing in sent:
            written = pickle.dumps(thing, protocol)
            assert not any(secret in written for secret in secrets)
            assert b"instahide.encryption.keys" not in written
    shown = f"{encoded} {encoded!r} {vars(encoded)}"
    assert not any(repr(secret)[2:-1] in shown for secret in secrets)
    for copied in (copy.copy(encoded), copy.deepcopy(encoded)):
        assert len(mixed(copied)) == COUNT
