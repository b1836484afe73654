"""Files of strangers: every reader refuses them by one kind of error, at once, in little memory."""

from __future__ import annotations

import pytest

from tests.fuzz.readers import READERS
from tests.fuzz.watching import fuzz

#: Inputs of each reader. Others have been tried in long runs of `tests.fuzz.run`.
FEW, MANY = 40, 4000


@pytest.mark.filterwarnings("ignore::instahide.data.readers.skipped.SkippedWarning")
@pytest.mark.parametrize("name", READERS)
def test_every_seed_is_accepted(name, tmp_path):
    reader = READERS[name]
    for seed in reader.seeds():
        for other, content in seed.beside.items():
            (tmp_path / other).write_bytes(content)
        (tmp_path / reader.file).write_bytes(seed.pack(seed.parts))
        reader.read(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_readers_refuse_changed_files_by_one_kind_of_error(name, tmp_path):
    assert fuzz(name, range(FEW), tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_readers_refuse_many_changed_files(name, tmp_path):
    assert fuzz(name, range(FEW, FEW + MANY), tmp_path) == []
