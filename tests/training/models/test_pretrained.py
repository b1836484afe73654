"""Pretrained weights from a file: what fits is used, what does not is said, and no code is run."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from instahide.errors import DamagedFileError, InstaHideError
from instahide.training.models import build


def _weights(classes: int, channels: int = 1) -> dict[str, Tensor]:
    return build("small", channels, classes, sign_invariant=False, seed=5).state_dict()


def _write(path: Path, weights: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save({"state_dict": weights, "epoch": 3}, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("prefix", ["", "module.", "network."])
def test_weights_that_fit_are_loaded_without_a_word(tmp_path: Path, name: str, prefix: str) -> None:
    weights = _weights(3)
    path = _write(tmp_path / name, {prefix + key: value for key, value in weights.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = build("small", 1, 3, sign_invariant=False, seed=0, weights=path)
    loaded = network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in weights.items())


def test_what_does_not_fit_is_said_and_stays_new(tmp_path: Path) -> None:
    path = _write(tmp_path / "w.pt", {**_weights(7), "extra": torch.zeros(1)})
    with pytest.warns(UserWarning, match=r"new ones instead of .*weight.*not used: extra"):
        network = build("small", 1, 3, sign_invariant=True, seed=0, weights=path)
    new = build("small", 1, 3, sign_invariant=True, seed=0).state_dict()
    found = network.state_dict()
    same = [key for key, value in new.items() if torch.equal(found[key], value)]
    last = [key for key, value in new.items() if value.ndim and value.shape[0] == 3]
    assert set(last) <= set(same)
    assert len(same) < len(found)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "w.pt", {"layer.weight": torch.zeros(3)})
    with pytest.raises(InstaHideError, match=r"No weight in .* fits the network"):
        build("small", 1, 3, sign_invariant=True, weights=path)


class _Code:
    """A pickle that would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"state_dict": {"a": _Code(mark)}}, tmp_path / "w.pt")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": _Code(mark)}))
    for name in ("w.pt", "w.pkl"):
        with pytest.raises(DamagedFileError, match="holds no weights that can be loaded"):
            build("small", 1, 3, sign_invariant=True, weights=tmp_path / name)
    assert not mark.exists()


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "w.pt", _weights(3))
    whole = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "torn.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "torn.safetensors").write_bytes(whole[:100])
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": 1}, tmp_path / "numbers.pt")
    with (
        zipfile.ZipFile(tmp_path / "w.pt") as archive,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out,
    ):
        for entry in archive.namelist():
            out.writestr(entry, archive.read(entry))
        out.writestr("archive/zeros", bytes(1 << 24))
    for name in ("missing.pt", ".", "torn.pt", "torn.safetensors", "list.pt", "numbers.pt",
                 "packed.pt"):  # fmt: skip
        with pytest.raises(DamagedFileError, match="holds no weights"):
            build("small", 1, 3, sign_invariant=True, weights=tmp_path / name)
