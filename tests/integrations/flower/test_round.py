"""Rounds of a federation: what is learned, what is counted, who takes no part and why."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from instahide.data import ImageTable
from instahide.data.normalization.normalization import Normalization
from instahide.encodings.ledger.ledger import Ledger
from instahide.encryption.encoder import Encoder
from instahide.encryption.exposure import Exposure
from instahide.encryption.keys import OneTimeKeys
from instahide.encryption.sampling import sampler
from instahide.errors import InstaHideError
from instahide.integrations.flower.client import local_training
from instahide.integrations.flower.errors import SILENCE, error_replies
from instahide.integrations.flower.federation_spec import FederationSpec
from instahide.integrations.flower.moments import averaged, moments
from instahide.training.data.alignment import align_to_model
from instahide.training.evaluate import accuracy, table_batches
from instahide.training.losses import Loss
from instahide.training.models.model_io import load_network
from tests.integrations.flower.conftest import write_images

Make = Callable[..., Any]
Digits = tuple[ImageTable, ImageTable]


def test_a_federation_learns_from_encodings_and_keeps_what_it_learned(
    federation: Make, digits: Digits, tmp_path: Path
) -> None:
    results = federation(rounds=3, local_epochs=5, lr=0.03, batch_size=16, client_test=True).run()
    assert results["accuracy"] > 0.5
    assert results["rounds"][-1]["accuracy"] == results["accuracy"]
    # The clients' own tests are of the same images, split between them.
    # In batches of other sizes, an image between two classes may get the other one.
    one = 1.5 / len(digits[1])
    assert results["rounds"][-1]["client-accuracy"] == pytest.approx(results["accuracy"], abs=one)
    assert results["refusals"] == {}
    assert "epochs" not in results["settings"]

    network, card = load_network(tmp_path / "out-1" / "model.safetensors")
    images = align_to_model(digits[1], card.shape, card.classes, card)
    found = accuracy(network, table_batches(images)).overall
    assert found == pytest.approx(results["accuracy"], abs=0.01)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Differential privacy: none (no noise added)"),
        (
            {"noise": 40.0},
            "Differential privacy: not known here, but to the ledgers of the participants",
        ),
    ],
)
def test_results_say_what_noise_guarantees(
    federation: Make, options: dict[str, Any], said: str
) -> None:
    results = federation(rounds=1, **options).run()
    assert results["differential_privacy"].startswith(said)


@pytest.mark.slow
def test_exposure_is_counted_over_rounds_and_runs(federation: Make, tmp_path: Path) -> None:
    for run in (1, 2):
        pages = federation(rounds=2, local_epochs=2).run()["rounds"]
        # Every pass encrypts each image once, and each mix holds two.
        means = [page["exposure-mean"] for page in pages]
        assert means == [8 * run - 4, 8 * run]
        assert pages[-1]["exposure-least"] >= 4 * run
    for part in range(2):
        with closing(sqlite3.connect(tmp_path / f"ledger-{part}.sqlite")) as file:
            # No trace is left of which images were counted together.
            assert file.execute("SELECT count(*) FROM takes").fetchone() == (0,)


@pytest.mark.slow
def test_plain_and_mixup_clients_are_one_option_away(federation: Make) -> None:
    plain = federation(scheme="plain").run()["rounds"][-1]
    assert plain["exposure-most"] == 0
    mixup = federation(scheme="mixup").run()["rounds"][-1]
    assert mixup["exposure-mean"] == 4


def test_keys_are_new_in_every_round_at_every_node_and_after_a_restart(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[bytes] = []
    draw = sampler.one_time_keys

    def noting(*arguments: Any, **more: Any) -> OneTimeKeys:
        keys = draw(*arguments, **more)
        assert keys.masks is not None
        masks.extend(mask.tobytes() for mask in keys.masks)
        return keys

    monkeypatch.setattr(sampler, "one_time_keys", noting)
    federation(rounds=2).run()
    federation(rounds=1).run()
    # 64 random bits each: that any two are the same happens once in 10^13 runs.
    assert len(masks) == len(set(masks)) == 3 * 240


@pytest.mark.parametrize("parts", [True, False])
def test_nodes_have_names_in_their_keys(
    federation: Make, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: bool
) -> None:
    names: list[str] = []
    make = local_training.Encoder

    def noting(*arguments: Any, **more: Any) -> Encoder:
        names.append(more["participant"])
        return make(*arguments, **more)

    monkeypatch.setattr(local_training, "Encoder", noting)
    data = write_images(tmp_path / "own.npz", digits[0])
    own = [{"data": str(data), "ledger": str(tmp_path / f"{n}.sqlite")} for n in range(2)]
    federation(None if parts else own, rounds=1).run()
    assert sorted(names) == (["partition 0", "partition 1"] if parts else ["node 100", "node 101"])


def test_a_node_at_its_limit_refuses_beforehand_and_the_others_go_on(
    federation: Make, digits: Digits, tmp_path: Path
) -> None:
    files = [str(tmp_path / name) for name in ("train.npz", "test.npz")]
    nodes = [
        {"data": file, "ledger": f"{file}.sqlite", **more}
        for file, more in zip(files, [{}, {"max-exposure": 1}], strict=True)
    ]
    run = federation(nodes, mean=0.3, std=0.38)
    results = run.run()
    assert [len(page["clients"]) for page in results["rounds"]] == [1, 1]
    (reason,) = results["refusals"].values()
    assert "above 1 encodings" in reason
    with Ledger.open(Path(nodes[1]["ledger"])) as ledger:
        # It was certain before anything was encrypted.
        assert ledger.account(digits[1]).counts.sum() == 0


def test_nothing_is_sent_of_a_round_that_meets_the_limit_in_the_middle(
    federation: Make, digits: Digits, tmp_path: Path
) -> None:
    # Two encodings of each image would be just enough, if no image were drawn as a partner twice.
    own = {"data": str(tmp_path / "train.npz"), "ledger": str(tmp_path / "l"), "max-exposure": 2}
    run = federation([own], mean=0.3, std=0.38, clients=1, rounds=1)
    with pytest.raises(InstaHideError, match="No round changed the network"):
        run.run()
    (answer,) = run.answers
    assert answer.has_error()
    assert not answer.has_content()
    with Ledger.open(tmp_path / "l") as ledger:
        counts = ledger.account(digits[0]).counts
        assert counts.sum() > 0
        assert counts.max() <= 2


def test_nodes_with_other_images_are_told_so_and_the_others_go_on(
    federation: Make, digits: Digits, tmp_path: Path
) -> None:
    train = digits[0]
    large = np.pad(train.pixels[:, 0], ((0, 0), (2, 2), (2, 2)))
    np.savez(tmp_path / "large.npz", images=large, labels=train.labels)
    np.savez(tmp_path / "letters.npz", images=train.pixels[:, 0], labels=train.labels + 10)
    names = ("train", "large", "letters")
    nodes = [{"data": str(tmp_path / f"{name}.npz")} for name in names]
    results = federation(nodes, rounds=1).run()
    assert len(results["rounds"][0]["clients"]) == 1
    reasons = " ".join(results["refusals"].values())
    assert "images are (1, 12, 12), the federation's (1, 8, 8)" in reasons
    assert "not classes of the federation" in reasons
    assert str(tmp_path) not in reasons


def test_what_else_goes_wrong_is_not_told_to_the_server(
    federation: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [{"data": str(tmp_path / "anna smith.npz")}, {"data": str(tmp_path / "train.npz")}]
    results = federation(nodes, rounds=1).run()
    assert list(results["refusals"].values()) == [SILENCE]
    assert "anna smith" in caplog.text


def test_not_even_the_text_of_an_unknown_error_leaves(caplog: pytest.LogCaptureFixture) -> None:
    @error_replies
    def failing(_: Message, __: Context) -> RecordDict:
        raise RuntimeError("a secret")

    asked = Message(RecordDict(), 1, "train")
    asked.metadata.__dict__["_message_id"] = "a message"
    with caplog.at_level(logging.ERROR):
        answer = failing(asked, Context(1, 1, {}, RecordDict(), {}))
    assert answer.error.reason == SILENCE
    assert "a secret" in caplog.text


def test_without_images_to_test_on_shape_and_classes_are_said(
    federation: Make, tmp_path: Path
) -> None:
    with pytest.raises(InstaHideError, match="The shape and the classes"):
        federation(test="").run()
    classes = ",".join(map(str, range(10)))
    results = federation(test="", shape="1,8,8", classes=classes).run()
    assert results["accuracy"] is None
    assert "accuracy" not in results["rounds"][-1]


def test_the_normalization_is_that_of_all_images_together(digits: Digits) -> None:
    train = digits[0]
    parts = [slice(0, 50), slice(50, None)]
    tables = [ImageTable.from_arrays(train.pixels[part], train.labels[part]) for part in parts]
    agreement = FederationSpec(train.shape, train.classes)
    found = averaged([moments(table, agreement) for table in tables])
    whole = ImageTable.from_arrays(train.pixels, train.labels)
    assert found.mean == pytest.approx(whole.mean)
    assert found.std == pytest.approx(whole.std)


def test_an_agreement_travels_as_it_is() -> None:
    agreement = FederationSpec(
        (3, 32, 32), ("cat", "dog"), Normalization((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    )
    assert FederationSpec.from_record(agreement.to_record()) == agreement


def test_results_are_not_overwritten(federation: Make) -> None:
    run = federation(rounds=1)
    run.run()
    with pytest.raises(InstaHideError, match="holds results already"):
        run.run()
    (Path(run.config["out"]) / "results.json").unlink()
    with pytest.raises(InstaHideError, match="holds results already"):
        run.run()


def test_two_runs_do_not_write_to_one_folder(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[bool] = []
    run = federation(rounds=1, mean=0.3, std=0.38)
    other = federation(rounds=1, mean=0.3, std=0.38, out=run.config["out"])
    ask = run.ask

    def slow(message: Message) -> Message:
        with pytest.raises(InstaHideError, match="is being written by another process"):
            other.run()
        refused.append(True)
        answer: Message = ask(message)
        return answer

    monkeypatch.setattr(run, "ask", slow)
    run.run()
    assert refused
    assert not other.answers


def test_fedsgd_is_gradient_descent_on_all_images_together(
    federation: Make, digits: Digits, tmp_path: Path
) -> None:
    """One step on plain images in two parts is the step on their union (an exact oracle)."""
    config = {
        "scheme": "plain", "strategy": "FedSGD", "rounds": 1, "lr": 0.5, "mean": 0.3, "std": 0.38,
        "schedule": "constant", "precision": "float32", "device": "cpu",
    }  # fmt: skip
    federation(**config).run()
    found, card = load_network(tmp_path / "out-1" / "model.safetensors")

    images = align_to_model(digits[0], card.shape, card.classes, card)
    network = FederationSpec(card.shape, card.classes).network(_settings(config))
    loss = torch.nn.functional.cross_entropy(
        network(torch.from_numpy(images.normalized())), torch.from_numpy(images.labels)
    )
    loss.backward()
    for after, before in zip(found.parameters(), network.parameters(), strict=True):
        assert before.grad is not None
        torch.testing.assert_close(after, before - 0.5 * before.grad, rtol=1e-3, atol=1e-5)


def _settings(config: dict[str, Any]) -> Any:
    from instahide.integrations.flower.config import FederatedSettings

    return FederatedSettings.from_config({"model": "small-group", **config})


def test_fedsgd_with_one_batch_encrypts_one_batch(federation: Make) -> None:
    page = federation(strategy="FedSGD", gradient="batch", rounds=1).run()["rounds"][0]
    assert page["exposure-mean"] == pytest.approx(2 * 2 * 32 / 240)


@pytest.mark.parametrize(
    "step",
    [
        lambda *given: local_training.compute_gradient(*given, Loss()),
        lambda *given: local_training.train_locally(*given, 1, Loss()),
    ],
)
def test_a_single_image_is_nothing_to_learn_from(
    digits: Digits, step: Callable[..., float]
) -> None:
    settings = _settings({"scheme": "plain", "device": "cpu"})
    one = digits[0].subset(slice(0, 1))
    encoder = local_training.encoder_of(settings, one, Exposure(1), "node 1")
    network = FederationSpec(one.shape, one.classes).network(settings)
    with pytest.raises(InstaHideError, match="single encoding"):
        step(network, encoder, settings)


@pytest.mark.slow
def test_fedprox_pulls_clients_back(federation: Make) -> None:
    def moved(mu: float) -> float:
        run = federation(
            strategy="FedProx", strategy_arguments=f"proximal-mu={mu}", scheme="plain",
            rounds=1, local_epochs=3, lr=0.02, momentum=0.0, weight_decay=0.0,
        )  # fmt: skip
        run.run()
        start = FederationSpec((1, 8, 8), tuple(map(str, range(10)))).network(
            _settings({"scheme": "plain"})
        )
        weights = next(iter(run.answers[-1].content.array_records.values()))
        assert isinstance(weights, ArrayRecord)
        end = weights.to_torch_state_dict()
        return sum(
            float((end[name] - value).square().sum()) for name, value in start.state_dict().items()
        )

    assert moved(20.0) < 0.5 * moved(1e-6)


def test_numbers_of_clients_are_summed_up_by_what_they_mean() -> None:
    from instahide.integrations.flower.server.strategies import together

    def answer(images: int, loss: float, least: int, most: int) -> RecordDict:
        numbers = {"num-examples": images, "loss": loss}
        extremes = {"exposure-least": least, "exposure-most": most}
        return RecordDict({"metrics": MetricRecord({**numbers, **extremes})})

    found = together([answer(10, 1.0, 3, 9), answer(30, 2.0, 5, 7)], "num-examples")
    assert dict(found) == {
        "num-examples": 40, "loss": 1.75, "exposure-least": 3, "exposure-most": 9
    }  # fmt: skip
