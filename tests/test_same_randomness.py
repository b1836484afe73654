"""A failed test can be repeated: each test, and what it shares with others, draws the same."""

from __future__ import annotations

import os
import random
import secrets

import numpy as np
import pytest
import torch

from tests.same_randomness import SAME, apart, begin

pytestmark = pytest.mark.skipif(not SAME, reason="This run draws new keys.")


def drawn() -> list[object]:
    of_system = [secrets.token_bytes(16), secrets.token_hex(8), np.random.default_rng().random()]
    return [*of_system, random.getrandbits(64), np.random.random(), torch.rand(1).item()]


def test_a_name_gives_the_same_numbers_and_another_name_gives_others() -> None:
    begin("a test")
    first, second = drawn(), drawn()
    begin("another test")
    other = drawn()
    begin("a test")
    assert [drawn(), drawn()] == [first, second]
    assert not set(first) & set(second)
    assert not set(first) & set(other)


def test_what_is_shared_leaves_the_numbers_of_its_first_test_alone() -> None:
    begin("a test")
    first, second = drawn(), drawn()
    begin("a test")
    assert drawn() == first
    with apart("a shared fixture"):
        shared = drawn()
    assert drawn() == second
    with apart("a shared fixture"):
        assert drawn() == shared


def test_a_seed_counts_as_always() -> None:
    begin("a test")
    assert np.random.default_rng(3).random() == np.random.Generator(np.random.PCG64(3)).random()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="This system has no fork.")
def test_a_forked_process_draws_its_own() -> None:
    begin("a test")
    read, write = os.pipe()
    if not os.fork():
        os.write(write, secrets.token_bytes(16))
        os._exit(0)
    os.wait()
    assert os.read(read, 16) != secrets.token_bytes(16)


@pytest.fixture(scope="module")
def of_module() -> bytes:
    return secrets.token_bytes(16)


@pytest.mark.parametrize("number", [0, 1])
def test_keys_of_a_shared_fixture_are_those_of_its_name(of_module: bytes, number: int) -> None:
    with apart("tests/test_same_randomness.py::of_module[0]"):
        assert secrets.token_bytes(16) == of_module
