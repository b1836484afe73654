"""Two processes train one network: the same as one process would, with keys of their own."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from instahide.encryption.encoder import Encoder
from instahide.encryption.keys import KeyStream
from instahide.utils.tensor_file import read_tensors
from tests.training.distributed.launch import SECONDS, ended, started, torchrun
from tests.training.distributed.ranks import (
    FINDINGS,
    MASKED,
    SIDE,
    learnt,
    masks,
    settings_of,
    table,
    together,
    unknown,
)

#: Two random masks differ in half of their signs. That one of two thousand pairs is 8 deviations
#: away from it happens once in 10^11 runs.
BITS = SIDE * SIDE
MOST = 8 * BITS**0.5 / 2


class Rank(NamedTuple):
    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        prefix = f"{name}."
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Rank]:
    """What two processes have written, which `ranks.main` says more of."""
    folder = tmp_path_factory.mktemp("ranks")
    with started(2, "tests.training.distributed.ranks", str(folder)) as processes:
        assert ended(processes) == [(0, ""), (0, "")]
    return written(folder)


def written(folder: Path) -> list[Rank]:
    return [
        Rank(
            json.loads((folder / f"rank-{number}.json").read_text()),
            read_tensors(folder / f"rank-{number}.safetensors")[0],
        )
        for number in (0, 1)
    ]


@pytest.mark.parametrize("name", ["group", "batch", "resumed", "unused"])
def test_both_hold_the_same_network_to_the_bit(ranks: list[Rank], name: str) -> None:
    """Though one of them has more batches, and the other's last is a single encoding."""
    ours, theirs = (rank.part(name) for rank in ranks)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


def test_steps_are_those_of_one_process_with_the_batches_of_both(ranks: list[Rank]) -> None:
    # Group normalization sees no batch, so that all of it is the same but for rounding.
    alone = learnt(together(), settings_of("small-group", 2))
    for key, value in ranks[0].part("group").items():
        torch.testing.assert_close(value, alone[key].to(value.dtype), rtol=1e-4, atol=1e-5)


def test_known_findings_weigh_the_same_in_whichever_process_they_are(ranks: list[Rank]) -> None:
    alone = learnt(unknown(together()), settings_of("small-group", 2), loss=FINDINGS)
    for key, value in ranks[0].part("findings").items():
        torch.testing.assert_close(value, alone[key].to(value.dtype), rtol=1e-4, atol=1e-5)


def test_rows_of_all_processes_come_together(ranks: list[Rank]) -> None:
    for rank in ranks:
        assert rank.facts["concatenated"] == [[1.0] * 3] * 2


def test_a_resumed_run_ends_as_one_that_was_not_stopped(ranks: list[Rank]) -> None:
    straight = ranks[1].part("batch")
    for key, value in ranks[1].part("resumed").items():
        assert torch.equal(value, straight[key]), key


def test_batch_statistics_are_weighted_by_images_and_counts_stay_whole(ranks: list[Rank]) -> None:
    # (3 * 0 + 1 * 1) / 4, and (3 * 7 + 1 * 11) / 4.
    assert [rank.facts["averaged"] for rank in ranks] == [[0.25, 8, "-inf"]] * 2


def test_each_hears_all_facts_in_order_however_long(ranks: list[Rank]) -> None:
    expected = [[0, "", 0.1], [1, "x" * 1000, 0.1]]
    assert [rank.facts["gathered"] for rank in ranks] == [expected, expected]
    assert ranks[0].facts["share"] + ranks[1].facts["share"] == list(range(7))
    assert ranks[0].facts["world"] == {"size": 2, "backend": "gloo"}


def test_what_one_cannot_do_is_raised_in_both(ranks: list[Rank]) -> None:
    expected = ["Rank 1: It cannot. Try another.", "Rank 0: It cannot. Try another."]
    assert [rank.facts["failed"] for rank in ranks] == [expected, expected]


def test_they_compute_alike_or_not_at_all(ranks: list[Rank]) -> None:
    expected = {
        "cpu": "nothing",
        "others": "The processes compute on mps in torch.float32.",
        "different": "The processes compute on cpu in torch.float32 and cuda in torch.float32.",
        "one GPU": "Two processes cannot share a GPU.",
    }
    assert [rank.facts["refused"] for rank in ranks] == [expected, expected]


def masks_differ(*found: Tensor) -> bool:
    """Whether no two masks have more in common than chance brings."""
    signs = torch.cat(found).flatten(1).float() * 2 - 1
    different = (BITS - signs @ signs.T) / 2
    others = ~torch.eye(len(signs), dtype=torch.bool)
    return bool(((different - BITS / 2).abs()[others] < MOST).all())


def test_masks_of_ranks_epochs_and_restarts_have_nothing_in_common(ranks: list[Rank]) -> None:
    """All seeds are equal in the processes; those made here stand for a restart of each."""
    again = [Encoder(MASKED, table(), participant=f"rank-{number}") for number in (0, 1)]
    assert masks_differ(*(rank.tensors["masks"] for rank in ranks), *map(masks, again))


@pytest.mark.slow
def test_masks_of_ranks_under_torchrun_have_nothing_in_common(tmp_path: Path) -> None:
    found = []
    for folder in (tmp_path / "first", tmp_path / "again"):
        folder.mkdir()
        with torchrun("tests.training.distributed.ranks", str(folder)) as run:
            _, complained = run.communicate(timeout=SECONDS)
            assert run.returncode == 0, complained
        found += [rank.tensors["masks"] for rank in written(folder)]
    assert masks_differ(*found)


def test_ranks_that_get_the_same_entropy_have_other_keys(ranks: list[Rank]) -> None:
    assert masks_differ(*(rank.tensors["masks of equal entropy"] for rank in ranks))


def test_equal_keys_would_be_noticed() -> None:
    streams = [KeyStream("rank-0", fixed_key=bytes(32)) for _ in range(2)]
    assert not masks_differ(*(masks(Encoder(MASKED, table(), keys=keys)) for keys in streams))


def encode(encoder: Encoder, out: Any) -> None:
    out.put(masks(encoder).numpy())


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_masks_of_copied_encoders_have_nothing_in_common(method: Any) -> None:
    encoder = Encoder(MASKED, table(), participant="rank-0")
    context = multiprocessing.get_context(method)
    out = context.Queue()
    children = [context.Process(target=encode, args=(encoder, out)) for _ in range(2)]
    for child in children:
        child.start()
    found = [torch.from_numpy(out.get(timeout=SECONDS)) for _ in children]
    for child in children:
        child.join()
    assert masks_differ(*found, masks(encoder))
