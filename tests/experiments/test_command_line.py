"""Threads of PyTorch, as the command line asks for them."""

from __future__ import annotations

import argparse
import sys

import pytest
import torch

from experiments.command_line import parsed


@pytest.mark.parametrize(
    ("words", "default", "used"),
    [([], None, []), ([], 1, [1]), (["--threads", "3"], None, [3]), (["--threads", "3"], 1, [3])],
)
def test_so_many_threads_are_used(
    words: list[str], default: int | None, used: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(sys, "argv", ["measure", "--seeds", "2", *words])
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds")
    assert parsed(parser, default).seeds == "2"
    assert asked == used
