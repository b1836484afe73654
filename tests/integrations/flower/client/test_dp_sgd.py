"""The DP-SGD baseline: what it spends, what it remembers, what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from opacus.accountants import RDPAccountant
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer

from instahide import open_split
from instahide.data import ImageTable
from instahide.encodings.ledger.dp_sgd_history import history_file, read_history
from instahide.encodings.ledger.ledger import Ledger
from instahide.encryption.privacy import epsilon_of
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.integrations.flower.client import dp_sgd
from instahide.integrations.flower.client.loss_limits import LossLimits
from instahide.integrations.flower.client.participant import Participant
from instahide.integrations.flower.config import FederatedSettings
from instahide.integrations.flower.errors import RefusalError
from instahide.training.losses import Loss
from instahide.training.models import build
from instahide.training.outputs import Outputs

# PyTorch's, of hooks that Opacus puts on the first layer.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")
Make = Callable[..., Any]
PART = {"partition-id": 0, "num-partitions": 2}
MOMENTS = {"mean": 0.3, "std": 0.38}
DP = {"dp": True, "scheme": "plain", "batch_size": 25, "noise_multiplier": 2.0, "delta": 1e-4}


@pytest.mark.slow
def test_epsilon_grows_over_rounds_and_runs_as_one_accountant_over_all_of_them(
    federation: Make, tmp_path: Path
) -> None:
    node = {"partition-id": 0, "num-partitions": 6}
    spent = [
        page["epsilon"]
        for _ in range(2)
        for page in federation([node], clients=1, **DP).run()["rounds"]
    ]
    # About 40 images, 25 to a batch: two steps a round, each of half the images.
    for steps, epsilon in zip((2, 4, 6, 8), spent, strict=True):
        oracle = RDPAccountant()
        oracle.history = [(2.0, 0.5, steps)]
        assert epsilon == pytest.approx(oracle.get_epsilon(1e-4))
    file = history_file(tmp_path / "ledger-0.sqlite")
    assert read_history(file) == [(2.0, 0.5, 8)]


@pytest.mark.slow
def test_a_round_that_would_pass_the_node_s_max_epsilon_is_refused_beforehand(
    federation: Make, tmp_path: Path
) -> None:
    oracle = RDPAccountant()
    oracle.history = [(2.0, 0.5, 4)]
    most = oracle.get_epsilon(1e-5)
    node = {"partition-id": 0, "num-partitions": 6, "max-epsilon": most * 1.001, "delta": 1e-5}
    run = federation([node], clients=1, **{**DP, "rounds": 4})
    pages = run.run()["rounds"]
    assert [len(page["clients"]) for page in pages] == [1, 1, 0, 0]
    assert "above its `max-epsilon`" in pages[2]["failures"][0]["reason"]
    file = history_file(tmp_path / "ledger-0.sqlite")
    assert read_history(file) == [(2.0, 0.5, 4)]


def test_a_node_that_insists_on_noise_takes_no_less(federation: Make) -> None:
    run = federation([PART | {"dp": True, "noise-multiplier": 3.0}], clients=1, **DP, **MOMENTS)
    with pytest.raises(InstaHideError, match="No round changed the network"):
        run.run()
    assert "noise-multiplier is at least 3.0" in run.answers[0].error.reason
    run = federation([PART | {"dp": True}], clients=1, scheme="plain", **MOMENTS)
    with pytest.raises(InstaHideError, match="No round changed the network"):
        run.run()
    assert "dp is True" in run.answers[0].error.reason


def test_generators_of_two_processes_do_not_begin_alike() -> None:
    """PyTorch's own do, and so would everybody's noise."""
    seeds = {dp_sgd._generator().initial_seed() for _ in range(10)}
    assert len(seeds) == 10


@pytest.mark.parametrize("norm", [1e-6, 1e6])
def test_what_an_image_adds_is_not_rounded_above_the_norm(norm: float) -> None:
    """Below 1e-40 it would be: a million equal values would each be rounded up."""
    assert FederatedSettings(max_grad_norm=norm).max_grad_norm == norm
    values = 1 << 20
    network = GradSampleModule(torch.nn.Linear(values, 1, bias=False), loss_reduction="mean")
    optimizer: Any = DPOptimizer(
        torch.optim.SGD(network.parameters()), noise_multiplier=0.0, max_grad_norm=norm,
        expected_batch_size=1,
    )  # fmt: skip
    network(torch.full((1, values), 1e4)).mean().backward()
    optimizer.clip_and_accumulate()
    (added,) = optimizer.params
    assert float(added.summed_grad.double().norm()) <= norm * 1.001


def test_images_must_not_meet_in_a_batch(federation: Make) -> None:
    run = federation(**DP, model="small", mean=0.3, std=0.38)
    with pytest.raises(ValueError, match="No round changed the network"):
        run.run()
    assert "without batch normalization" in run.answers[0].error.reason


#: Runs that a node with `scheme="plain"` and `k=1` takes part in: by DP-SGD, and with noise.
RUNS: dict[str, dict[str, Any]] = {
    "dp-sgd": {"scheme": "plain", "k": 1, "dp": True},
    "noise": {"scheme": "plain", "k": 1, "noise": 150.0},
}


def plain_node(hospital: Make, **own: Any) -> Any:
    return hospital(scheme="plain", k=1, max_exposure=10**6, **own)


def accepts(node: Any, kind: str) -> bool:
    run = RUNS[kind]
    return not node.answer(node.message(run=run), **run).has_error()


def kinds_spent(node: Any) -> set[str]:
    """Which kinds of training have used the images of ``node``, by what is on its disk."""
    ledger = Path(node.own["ledger"])
    with Ledger.open(ledger) as opened:
        noise = float(opened.totals().losses.max(initial=0)) > 0
    history = read_history(history_file(ledger))
    return {kind for kind, used in (("noise", noise), ("dp-sgd", bool(history))) if used}


@pytest.mark.slow
@pytest.mark.parametrize("first", RUNS)
def test_the_limit_of_a_node_is_kept_by_one_account_alone(hospital: Make, first: str) -> None:
    """DP-SGD and noise, each within the limit, would together be beyond it."""
    node = plain_node(hospital, max_epsilon=50.0)
    (second,) = set(RUNS) - {first}
    assert accepts(node, first)
    for kind in (second, first, second):
        assert accepts(node, kind) == (kind == first)
    assert "max-epsilon" in node.refusal(node.message(run=RUNS[second]), **RUNS[second])
    assert kinds_spent(node) == {first}


@pytest.mark.slow
@pytest.mark.parametrize("first", RUNS)
def test_a_limit_that_is_named_later_counts_what_was_done_before(
    hospital: Make, first: str
) -> None:
    node = plain_node(hospital)
    assert accepts(node, first)
    node.own["max-epsilon"] = 50.0
    assert [kind for kind in RUNS if accepts(node, kind)] == [first]


def test_no_floor_is_kept_after_dp_sgd(hospital: Make) -> None:
    node = plain_node(hospital)
    assert accepts(node, "dp-sgd")
    node.own["min-mse"] = 1e-9
    run = RUNS["noise"]
    assert "min-mse" in node.refusal(node.message(run=run), **run)


def test_links_to_one_ledger_have_one_history(hospital: Make, tmp_path: Path) -> None:
    node = plain_node(hospital, max_epsilon=50.0)
    assert accepts(node, "dp-sgd")
    (tmp_path / "link").symlink_to(node.own["ledger"])
    node.own["ledger"] = str(tmp_path / "link")
    assert not accepts(node, "noise")


def open_participant(own: dict[str, Any], kind: str) -> Participant:
    return Participant.open({"model": "small-group", "batch-size": 8, **RUNS[kind]}, own)


def test_of_two_at_the_same_time_dp_sgd_waits_and_is_refused(hospital: Make) -> None:
    """A noisy round has begun and counted nothing yet when DP-SGD is to begin.

    Each opens the files itself, so that two threads lock each other out as two processes do.
    """
    own = plain_node(hospital, max_epsilon=50.0).own
    noisy, private = (open_participant(own, kind) for kind in ("noise", "dp-sgd"))
    images = noisy.images()
    with ThreadPoolExecutor(1) as other:
        with noisy.counting(images) as account:
            spent = other.submit(dp_sgd._spend, private, images, (2.0, 0.5, 2))
            assert not wait([spent], timeout=1).done
            rows = np.arange(len(images))[:, None]
            account.record(rows, np.ones(rows.shape, np.float32))
            assert epsilon_of(float(account.losses.max())) <= 50.0
        with pytest.raises(RefusalError, match="in encodings"):
            spent.result()
    assert not history_file(noisy.ledger()).exists()


@pytest.mark.slow
def test_without_a_limit_both_are_accepted_and_dp_sgd_says_what_it_does_not_count(
    hospital: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = plain_node(hospital)
    with caplog.at_level(logging.WARNING):
        assert accepts(node, "dp-sgd")
        assert "also in encodings" not in caplog.text
        assert accepts(node, "noise")
        assert accepts(node, "dp-sgd")
        assert "also in encodings" in caplog.text


def repeated() -> Iterator[ImageTable]:
    """Tables in which a picture is in several rows: all of them, and one of many."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 16, 16), dtype=np.uint8)
    yield ImageTable.from_arrays(np.repeat(pixels[:6], 10, 0), np.repeat(np.arange(6) % 2, 10))
    yield ImageTable.from_arrays(np.concatenate([pixels, pixels[:1]]), np.arange(41) % 2)


@pytest.mark.parametrize("images", repeated(), ids=["all", "one"])
@pytest.mark.parametrize("max_epsilon", [None, 8.0])
def test_a_picture_in_several_rows_is_not_passed_off_as_one(
    images: ImageTable, max_epsilon: float | None, tmp_path: Path
) -> None:
    node = participant_of(tmp_path, max_epsilon)
    with pytest.raises(RefusalError, match="the same picture"):
        dp_sgd._spend(node, images, (2.0, 0.5, 2))
    assert not history_file(node.ledger()).exists()
    kept = images.subset(np.unique(images.content_ids, return_index=True)[1])
    assert dp_sgd._spend(node, kept, (2.0, 0.5, 2)) == [(2.0, 0.5, 2)]


def test_a_node_with_duplicates_refuses_dp_sgd(hospital: Make) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1, 16, 16), dtype=np.uint8)
    node = plain_node(lambda **own: hospital(np.concatenate([pixels, pixels]), **own))
    run = RUNS["dp-sgd"]
    assert "the same picture" in node.refusal(node.message(run=run), **run)


def test_rows_that_only_the_ledger_knows_to_be_of_one_image_are_refused(tmp_path: Path) -> None:
    """Two renditions of one photograph, counted with their source in an earlier run."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 1, 16, 16), dtype=np.uint8)
    images = ImageTable.from_arrays(pixels, np.arange(8) % 2)
    node = participant_of(tmp_path)
    with Ledger.open(node.ledger()) as ledger:
        ledger.account(images.grouped(["one", "one", *"abcdef"]), scheme=Scheme.inside(2))
    with pytest.raises(RefusalError, match="the same image by its ledger"):
        dp_sgd._spend(node, images, (2.0, 0.5, 2))
    assert dp_sgd._spend(node, images.subset(slice(1, 8)), (2.0, 0.5, 2))


def participant_of(folder: Path, max_epsilon: float | None = None) -> Participant:
    config = {**RUNS["dp-sgd"], "ledger": str(folder / "ledger.sqlite")}
    settings = FederatedSettings.from_config(config)
    return Participant(settings, limits=LossLimits(max_epsilon, 1e-5))


@pytest.mark.parametrize("present", [False, True])
def test_weights_that_overflow_for_one_image_do_not_show_whether_it_is_there(
    tmp_path: Path, present: bool
) -> None:
    """Its gradient is not finite: the round ends as without it, with finite weights."""
    images = open_split("digits").train.subset(np.arange(40))
    network = build("small-group", 1, 10, sign_invariant=False, seed=0, size=(8, 8))
    with torch.no_grad():
        features = network[:-1](torch.from_numpy(images.normalized()))
        # The feature and the image in which it is furthest above the same feature of all others.
        two = features.topk(2, dim=0)
        feature = int((two.values[0] - two.values[1]).argmax())
        image, most = int(two.indices[0, feature]), float(two.values[0, feature])
        overflows = torch.finfo(torch.float32).max / (most + float(two.values[1, feature])) * 2
        network[-1].weight.zero_()
        network[-1].bias.zero_()
        network[-1].weight[9, feature] = overflows
        infinite = ~network(torch.from_numpy(images.normalized())).isfinite().all(1)
    assert infinite.nonzero().flatten().tolist() == [image]
    if not present:
        images = images.subset(np.delete(np.arange(40), image)).normalized_like(images)
    settings = FederatedSettings.from_config(
        {"dp": True, "scheme": "plain", "model": "small-group", "batch-size": 40, "lr": 1e-3,
         "noise-multiplier": 5.0, "ledger": str(tmp_path / "ledger.sqlite"), "device": "cpu"}
    )  # fmt: skip
    participant = Participant(settings, None, LossLimits(max_epsilon=9.0))
    loss = Loss(Outputs("single-label", 10))
    assert dp_sgd.train_with_dp_sgd(network, images, participant, 1, loss)["epsilon"] < 9
    assert all(bool(weights.isfinite().all()) for weights in network.parameters())


def test_gradients_that_are_not_finite_are_dropped_image_by_image() -> None:
    def per_image(*shape: int) -> torch.Tensor:
        return torch.ones(5, *shape)

    gradients = [per_image(3, 2), per_image(3), per_image()]
    gradients[0][1, 2, 0] = torch.nan
    gradients[2][3] = -torch.inf
    dp_sgd._drop_infinite(SimpleNamespace(grad_samples=gradients))  # type: ignore[arg-type]
    for gradient in gradients:
        kept = gradient.reshape(5, -1)
        assert kept.sum(1).tolist() == [(row not in (1, 3)) * kept.shape[1] for row in range(5)]
    dp_sgd._drop_infinite(SimpleNamespace(grad_samples=[torch.zeros(0, 3)]))  # type: ignore[arg-type]
