"""Networks of other packages: what a factory must do, and what a name may not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instahide.errors import InstaHideError
from instahide.training.models import SignInvariant, build
from instahide.training.models.imported import is_imported

FACTORIES = "tests.training.models.factories"


@pytest.mark.parametrize("name", ["linear", "pooled"])
def test_a_factory_makes_a_network_behind_the_stem(name: str) -> None:
    network = build(f"{FACTORIES}:{name}", 5, 3, sign_invariant=True, seed=0, size=(6, 4))
    x = torch.randn(2, 5, 6, 4)
    assert isinstance(network, SignInvariant)
    assert network(x).shape == (2, 3)
    assert torch.equal(network(x), network(-x))
    again = build(f"{FACTORIES}:{name}", 5, 3, sign_invariant=True, seed=0, size=(6, 4))
    assert torch.equal(network(x), again(x))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{FACTORIES}:one_output_too_many", r"outputs of shape \(2, 4\), not \(2, 3\)"),
        (f"{FACTORIES}:segmentation", r"\(2, 3, 8, 8\)"),
        (f"{FACTORIES}:no_weights", "no weights to train"),
        (f"{FACTORIES}:no_module", "returns str"),
        (f"{FACTORIES}:raising", "no licence.*Write a function of your own"),
        (f"{FACTORIES}:only_evaluated", "does not take images.*other entry point for training"),
        (f"{FACTORIES}:NOT_CALLABLE", "no callable NOT_CALLABLE"),
        (f"{FACTORIES}:missing", "no callable missing"),
        ("no.such.module:make", "cannot be imported.*PYTHONPATH"),
        ("timm_networks", "no network `timm_networks`.*monai:NAME"),
        ("a b:c", "names no network"),
        (":", "names no network"),
        ("os:system:x", "names no network"),
        ("../x:y", "names no network"),
    ],
)
def test_what_is_no_network_is_refused(name: str, message: str) -> None:
    with pytest.raises(InstaHideError, match=message):
        build(name, 1, 3, sign_invariant=True, size=(8, 8))


def test_a_network_is_tried_in_the_memory_layout_of_training() -> None:
    with pytest.raises(InstaHideError, match=r"does not take images.*view"):
        build(f"{FACTORIES}:of_contiguous_images", 2, 3, sign_invariant=True, size=(8, 8))


def test_a_network_that_does_not_take_the_size_is_refused() -> None:
    with pytest.raises(InstaHideError, match=r"does not take images of shape \(1, 8, 8, 8\)"):
        build(f"{FACTORIES}:pooled", 1, 3, sign_invariant=True, size=(8, 8, 8))


@settings(max_examples=200, deadline=None)
@given(name=st.text(max_size=30))
def test_no_name_raises_anything_else(name: str) -> None:
    try:
        build(name, 1, 3, sign_invariant=True)
    except InstaHideError:
        return
    assert not is_imported(name)


class TestMonai:
    """Networks of MONAI, which name channels and outputs in three ways."""

    @pytest.fixture(autouse=True)
    def _monai(self) -> None:
        pytest.importorskip("monai")

    @pytest.mark.parametrize("name", ["DenseNet121", "resnet10"])
    @pytest.mark.parametrize("size", [(32, 32), (32, 32, 32)])
    def test_they_take_images_and_volumes(self, name: str, size: tuple[int, ...]) -> None:
        network = build(f"monai:{name}", 2, 3, sign_invariant=True, seed=0, size=size)
        x = torch.randn(2, 2, *size)
        network.eval()
        assert network(x).shape == (2, 3)
        assert torch.equal(network(x), network(-x))

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("NoNet", "MONAI has no network `NoNet`"),
            ("_x", "MONAI has no network"),
            ("torch", "MONAI has no network"),
            ("nn", "MONAI has no network"),
            ("Tensor.x", "MONAI has no network"),
            ("ViT", "cannot be made from the images' shape"),
            ("BasicUNet", r"to outputs of shape \(2, 3, 32, 32\)|returns"),
        ],
    )
    def test_what_cannot_classify_is_refused(self, name: str, message: str) -> None:
        with pytest.raises(InstaHideError, match=message):
            build(f"monai:{name}", 2, 3, sign_invariant=True, size=(32, 32))


def test_timm_is_refused_for_volumes_without_an_import() -> None:
    with pytest.raises(InstaHideError, match=r"volumes.*small-3d"):
        build("timm:resnet18", 1, 3, sign_invariant=True, size=(8, 8, 8))


def test_a_module_that_fails_to_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_networks.py").write_text("raise OSError('no such library')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InstaHideError, match=r"failing_networks.*OSError: no such library"):
        build("failing_networks:make", 1, 3, sign_invariant=True)
    assert "failing_networks" not in sys.modules
