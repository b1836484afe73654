"""A run config is read as it was meant, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from instahide.errors import InstaHideError
from instahide.integrations.flower.config import FederatedSettings


def settings(**config: Any) -> FederatedSettings:
    return FederatedSettings.from_config(
        {name.replace("_", "-"): value for name, value in config.items()}
    )


def test_names_have_hyphens_and_empty_texts_say_nothing() -> None:
    found = settings(local_epochs=3, max_exposure="", batch_size=16, scheme="plain", c1="")
    assert (found.local_epochs, found.max_exposure, found.batch_size) == (3, None, 16)
    assert found.encryption().k == 1


def test_lists_are_texts() -> None:
    found = settings(shape="3, 32, 32", classes="cat, dog", mean=0.5, std="0.2,0.25,1e-1")
    assert found.shape == (3, 32, 32)
    assert found.classes == ("cat", "dog")
    assert found.mean == (0.5,)
    assert found.std == (0.2, 0.25, 0.1)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"epochs": 3}, "`epochs` means nothing in a federation"),
        ({"ema": 0.9}, "`ema` means nothing"),
        ({"max_grad_norm": 1e-44}, "`max_grad_norm` is 1e-44"),
        ({"max_grad_norm": 1e30}, "`max_grad_norm` is 1e\\+30"),
        ({"local_epoch": 3}, "Did you mean `local_epochs`"),
        ({"rounds": 0}, "`rounds` is 0"),
        ({"shape": "3,32"}, "`shape`"),
        ({"shape": "3,3_2,32"}, "`shape`"),
        ({"class_weights": "1,1_0"}, "`class_weights`"),
        ({"mean": "high"}, "`mean`"),
        ({"dp": True, "scheme": "cross"}, "DP-SGD is a baseline on plain images"),
        ({"dp": True, "scheme": "plain", "strategy": "FedSGD"}, "FedSGD makes one step"),
        ({"dp": True, "scheme": "plain", "strategy": "FedProx"}, "FedProx adds a penalty"),
        ({"dp": True, "scheme": "plain", "strategy": "QFedAvg"}, "QFedAvg weighs participants"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(InstaHideError, match=problem):
        settings(**config)


def test_a_client_s_schedule_runs_over_all_rounds() -> None:
    found = settings(rounds=5, local_epochs=2)
    assert (found.local.epochs, found.local.ema) == (10, 0)
    assert "epochs" not in found.to_json_dict()
