"""Networks of timm behind the sign-invariant stem."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

from instahide.errors import InstaHideError
from instahide.training.models import build
from instahide.training.settings import TrainSettings
from instahide.training.trainer import Trainer

timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", (32, 32)), ("vit_tiny_patch16_224", (32, 48))]
)
def test_they_take_any_number_of_channels(name: str, size: tuple[int, int]) -> None:
    network = build(f"timm:{name}", 5, 3, sign_invariant=True, seed=0, size=size).eval()
    x = torch.randn(2, 5, *size)
    assert network(x).shape == (2, 3)
    assert torch.equal(network(x), network(-x))


@pytest.mark.parametrize(
    "name",
    ["no_such_net", "hf_hub:user/net", "hf-hub:user/net", "local-dir:folder", "", "../x"],
)
def test_names_that_timm_would_download_are_refused(name: str) -> None:
    with mock.patch.object(timm, "create_model") as create:
        with pytest.raises(InstaHideError, match="timm has no network"):
            build(f"timm:{name}", 3, 3, sign_invariant=True)
        create.assert_not_called()


def test_a_network_for_larger_images_is_refused() -> None:
    with pytest.raises(InstaHideError, match="does not take images of shape"):
        build("timm:vgg11", 3, 3, sign_invariant=True, size=(1, 1))


def test_a_run_trains_one_from_weights_on_disk(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet10t", in_chans=3).state_dict(), tmp_path / "w.pt")
    settings = TrainSettings(
        data="digits", scheme="inside", epochs=1, queries=0, model="timm:resnet10t",
        weights=str(tmp_path / "w.pt"), ledger=str(tmp_path / "ledger"),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="new ones instead of"):
        trainer = Trainer.open(settings)
    trainer.run()
    assert len(trainer.history) == 1
    assert "timm" in sys.modules
