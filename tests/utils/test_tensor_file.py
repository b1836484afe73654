"""Files of tensors: exact, whole or refused, and read whole while another process writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instahide.errors import InstaHideError
from instahide.utils import tensor_file
from instahide.utils.atomic_write import read_regular
from instahide.utils.tensor_file import read_tensors, write_tensors


def _file(folder: Path) -> Path:
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
        write_tensors(path, tensors, {"step": 7, "history": [{"loss": 0.25}]})
    return path


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_flipped_bit_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In the header, the facts, the checksum or the tensors."""
    path = _file(tmp_path_factory.getbasetemp())
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << (bit % 8)
    changed = path.with_name("changed.safetensors")
    changed.write_bytes(content)
    with pytest.raises(InstaHideError, match=r"changed\.safetensors"):
        read_tensors(changed)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_torn_file_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut anywhere."""
    path = _file(tmp_path_factory.getbasetemp())
    content = path.read_bytes()
    torn = path.with_name("torn.safetensors")
    torn.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(InstaHideError, match=r"torn\.safetensors"):
        read_tensors(torn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_tensors_come_back_as_they_were(dtype: torch.dtype, tmp_path: Path) -> None:
    """Any type, no dimension, no element, channels last, and shared memory."""
    image = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).to(dtype)
    tensors = {
        "image": image.contiguous(memory_format=torch.channels_last),
        "again": image,
        "view": image[0],
        "none": image[:0],
        "one": image[0, 0, 0, 1],
    }
    write_tensors(tmp_path / "file", tensors, {"pi": 0.1 + 0.2})
    back, facts = read_tensors(tmp_path / "file")
    assert facts == {"pi": 0.1 + 0.2}
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == dtype
        assert torch.equal(back[name], tensor)


def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing half-written beside it."""
    path = _file(tmp_path)
    before = path.read_bytes()

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InstaHideError, match="No space left"):
        write_tensors(path, {"a": torch.zeros(1)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_replaced_is_read_before_or_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Header and tensors of one file, though another is put in its place in between."""
    path = tmp_path / "checkpoint.safetensors"
    write_tensors(path, {"a": torch.zeros(9)}, {"step": 0})

    def then_replaced(file: Path, most: int) -> bytes:
        content = read_regular(file, most)
        write_tensors(path, {"a": torch.ones(9)}, {"step": 1})
        return content

    monkeypatch.setattr(tensor_file, "read_regular", then_replaced)
    tensors, facts = read_tensors(path)
    assert (tensors["a"].sum(), facts["step"]) == (0, 0)
    monkeypatch.undo()
    tensors, facts = read_tensors(path)
    assert (tensors["a"].sum(), facts["step"]) == (9, 1)
