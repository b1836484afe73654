"""Calibration: two numbers, fitted to images that were held out, that change no order."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_auroc
from typer.testing import CliRunner

from instahide.cli.main import app
from instahide.data import ImageTable
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.training.calibration import (
    LEAST_OF_QUERIES,
    calibrated,
    fit_calibration,
    is_at_limit,
    log_odds,
)
from instahide.training.data.held_out import LEAST, hold_out
from instahide.training.models import build
from instahide.training.models.deployment import Deployment
from instahide.training.models.model_io import NetworkCard, load_network, save_network
from instahide.training.outputs import Outputs
from instahide.training.predict import predict_encrypted
from instahide.training.run_folder import RunFolder
from instahide.training.settings import TrainSettings
from tests.training.digit_pairs import digit_pairs, trainer_of


def drawn(scale: float, bias: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (n, 3), and findings drawn from those of scaled and shifted logits."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 3, generator=generator)
    true = (scale * logits + bias).sigmoid()
    return logits.sigmoid(), torch.bernoulli(true, generator=generator)


def test_the_fit_finds_the_scale_and_bias_of_findings() -> None:
    probabilities, findings = drawn(1.7, -0.8)
    findings[::5, 1] = torch.nan
    scale, bias = fit_calibration(probabilities, findings, "multi-label")
    assert scale == pytest.approx(1.7, rel=0.03)
    assert bias == pytest.approx(-0.8, abs=0.05)


def test_the_fit_finds_the_temperature_of_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=generator)
    classes = torch.multinomial((2.5 * logits).softmax(1), 1, generator=generator)[:, 0]
    scale, bias = fit_calibration(logits.softmax(1), classes, "single-label")
    assert scale == pytest.approx(2.5, rel=0.03)
    assert bias == 0


def narrow(rows: int, centre: float, gap: float, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (n, 1) in a band around ``centre``, in logits, and findings in a quarter."""
    generator = torch.Generator().manual_seed(rows)
    present = (torch.rand(rows, 1, generator=generator) < 0.25).float()
    present[0], present[1] = 1, 0
    wobble = noise * torch.randn(rows, 1, generator=generator)
    return (centre + gap * (present - 0.5 + wobble)).sigmoid(), present


def best_of(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """The oracle: the loss of the best allowed scale, and the mean probability there."""

    def shares(log_scale: float) -> np.ndarray:
        scaled = np.exp(log_scale) * (logits - logits.mean())
        bias = brentq(lambda bias: (expit(scaled + bias) - targets).mean(), -2000, 2000)
        return np.clip(expit(scaled + bias), 1e-300, 1 - 1e-16)

    def loss(log_scale: float) -> float:
        found = shares(log_scale)
        return -(targets * np.log(found) + (1 - targets) * np.log1p(-found)).mean()

    best = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9})
    least = min((best.x, -5.0, 5.0), key=loss)
    return loss(least), shares(least).mean()


@pytest.mark.parametrize("noise", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("gap", [-0.5, 0.0, 0.003, 0.02, 0.1, 1.0, 5.0])
@pytest.mark.parametrize("centre", [-5.0, -1.0, 0.0, 2.0, 5.0])
@pytest.mark.parametrize("rows", [20, 300])
def test_the_mean_probability_is_the_prevalence(
    rows: int, centre: float, gap: float, noise: float
) -> None:
    """Also where the best scale of a narrow band is above the limit, or all logits are equal."""
    probabilities, present = narrow(rows, centre, gap, noise)
    calibration = fit_calibration(probabilities, present, "multi-label")
    logits = log_odds(probabilities, "multi-label")
    found = calibrated(logits, calibration, "multi-label").double()
    positives = float(present.sum())
    high, low = (positives + 1) / (positives + 2), 1 / (rows - positives + 2)
    targets = torch.where(present > 0, high, low).double()
    # Platt's targets move the mean by this much.
    assert (
        abs(float(found.mean() - present.mean())) <= abs(float((targets - present).mean())) + 1e-4
    )
    assert math.exp(-5) * (1 - 1e-9) <= calibration[0] <= math.exp(5) * (1 + 1e-9)
    scale, bias = calibration
    loss = F.binary_cross_entropy_with_logits(scale * logits + bias, targets)
    least, mean = best_of(logits.numpy(), targets.numpy())
    assert float(loss) <= least + 1e-6
    assert float(found.mean()) == pytest.approx(mean, abs=1e-3)


def test_the_scale_of_classes_stays_within_its_limits() -> None:
    classes = torch.arange(60) % 3
    right = torch.eye(3)[classes]
    for shown, least, most in ((right, 0.02, 1.0), (right.roll(1, 1), 0, 0.0068)):
        scale, bias = fit_calibration(shown, classes, "single-label")
        assert least <= scale <= most
        assert bias == 0


def test_the_order_never_changes() -> None:
    probabilities, findings = drawn(1.0, 0.0)
    logits = log_odds(probabilities, "multi-label")
    after = calibrated(logits, (0.3, -2.0), "multi-label")
    for before, now, present in zip(probabilities.T, after.T, findings.long().T, strict=True):
        assert (now[before.argsort()].diff() >= 0).all()
        torch.testing.assert_close(binary_auroc(before, present), binary_auroc(now, present))
    shares = probabilities.softmax(1)
    after = calibrated(log_odds(shares, "single-label"), (3.0, 1.0), "single-label")
    assert (after.gather(1, shares.argsort(1)).diff(dim=1) >= 0).all()
    torch.testing.assert_close(after.sum(1), torch.ones(len(after)))


def test_a_network_that_errs_nowhere_stays_uncertain() -> None:
    sure = torch.tensor([[0.999], [0.001]]).repeat(30, 1)
    scale, bias = fit_calibration(sure, sure.round(), "multi-label")
    found = calibrated(log_odds(sure, "multi-label"), (scale, bias), "multi-label")
    # Platt's targets: of 30 images there is always one more that could be different.
    torch.testing.assert_close(found[0, 0], torch.tensor(31 / 32), rtol=1e-3, atol=0)


def test_what_cannot_be_calibrated_is_refused() -> None:
    values = torch.zeros(3, 1)
    with pytest.raises(InstaHideError, match="Measured values"):
        fit_calibration(values, values, "regression")
    with pytest.raises(InstaHideError, match="No image has a known label"):
        fit_calibration(values, torch.full((3, 1), torch.nan), "multi-label")
    pairs = digit_pairs().train
    noisy = TrainSettings(scheme="cross", noise=0.5, calibration_share=0.2)
    with pytest.raises(InstaHideError, match="With noise"):
        hold_out(noisy, pairs)
    ages = replace(pairs, labels=pairs.labels[:, :1], classes=("age",), task="regression")
    with pytest.raises(InstaHideError, match="Measured values"):
        hold_out(TrainSettings(scheme="cross", calibration_share=0.2), ages)


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"scheme": "cross"}, 0.1),
        ({"scheme": "inside"}, 0.1),
        ({"scheme": "plain"}, 0.0),
        ({"scheme": "plain", "calibration_share": 0.25}, 0.25),
        ({"scheme": "cross", "noise": 0.5}, 0.0),
        ({"scheme": "cross", "calibration_share": 0.0}, 0.0),
    ],
)
def test_a_part_is_held_out_where_it_helps(settings: dict[str, object], share: float) -> None:
    pairs = digit_pairs().train
    kept, held = hold_out(TrainSettings.from_values(settings), pairs)
    assert len(kept) + len(held) == len(pairs)
    assert len(held) == pytest.approx(share * len(pairs), abs=1)
    assert not set(map(bytes, held.content_hashes)) & set(map(bytes, kept.content_hashes))
    again = hold_out(TrainSettings.from_values(settings), pairs)[1]
    np.testing.assert_array_equal(held.labels, again.labels)


def test_few_images_and_classes_are_not_held_out_by_default() -> None:
    pairs = digit_pairs().train
    settings = TrainSettings(scheme="cross")
    few = pairs.subset(slice(0, 10 * LEAST - 10))
    assert len(hold_out(settings, few)[1]) == 0
    classes = replace(pairs, labels=pairs.labels.argmax(1), task="single-label")
    assert len(hold_out(settings, classes)[1]) == 0
    assert len(hold_out(settings.merged({"calibration_share": 0.1}), classes)[1]) > LEAST


def test_groups_are_not_divided() -> None:
    pairs = digit_pairs().train
    names = [f"patient {number // 3}" for number in range(len(pairs))]
    kept, held = hold_out(TrainSettings(scheme="cross"), pairs.grouped(names))
    assert len(held) > LEAST
    assert kept.groups is not None
    assert held.groups is not None
    assert not set(map(bytes, kept.groups)) & set(map(bytes, held.groups))


@pytest.mark.slow
def test_a_run_stores_its_calibration_and_every_use_applies_it(tmp_path: Path) -> None:
    split = digit_pairs()
    trainer = trainer_of(split, "inside", k=2, epochs=4, queries=3)
    trainer.run(RunFolder.open(tmp_path / "run", trainer.settings))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    network, card = load_network(tmp_path / "run" / "model.safetensors")
    fitted = results["calibration"]
    assert fitted["images"] == round(0.1 * len(split.train))
    assert list(card.calibration) == fitted["plain"]
    assert card.query_calibration is not None
    assert list(card.query_calibration) == fitted["queries"]
    # Held-out images went into no encoding.
    assert len(trainer.material.encoder.exposure.counts) == len(split.train) - fitted["images"]
    pixels = torch.from_numpy(split.test.pixels.astype(np.float32))
    logits = network(torch.from_numpy(split.test.normalized()))
    scale, bias = card.calibration
    wanted = (scale * logits + bias).sigmoid()
    torch.testing.assert_close(Deployment(network, card)(pixels), wanted, rtol=1e-3, atol=1e-4)
    assert results["metrics"]["calibration_error"] == pytest.approx(
        trainer.metrics["calibration_error"]
    )


def test_queries_have_a_calibration_of_their_own() -> None:
    logits = torch.tensor([[1.0], [-2.0]])
    outputs = Outputs("multi-label", 1, calibration=(2.0, 1.0), query_calibration=(3.0, 0.5))
    torch.testing.assert_close(outputs.predictions(logits), (2 * logits + 1).sigmoid())
    averaged = logits.sigmoid()
    inner = log_odds(averaged, "multi-label", LEAST_OF_QUERIES).float()
    torch.testing.assert_close(inner, logits, atol=0.02, rtol=0)
    torch.testing.assert_close(outputs.of_queries(averaged), (3 * inner + 0.5).sigmoid())
    alone = replace(outputs, query_calibration=None)
    torch.testing.assert_close(alone.of_queries(averaged), (2 * inner + 1).sigmoid())
    assert torch.equal(outputs.uncalibrated.of_queries(averaged), averaged)
    values = Outputs("regression", 1, (40.0,), (10.0,))
    assert torch.equal(values.of_queries(averaged), averaged)


def test_the_command_calibrates_a_network_for_whoever_has_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = digit_pairs().test
    classes = ImageTable.from_arrays(
        pairs.pixels, pairs.labels.argmax(1), pairs.classes, value_range=pairs.value_range
    )
    np.savez("further.npz", images=classes.pixels, labels=classes.labels)
    network = build("small", 1, 10, sign_invariant=True, seed=0).eval()
    card = NetworkCard(
        "small", True, classes.shape, tuple(map(str, range(10))), (0.5,), (0.2,),
        Scheme.inside(2).to_json(),
    )  # fmt: skip
    save_network(tmp_path / "run" / "model.safetensors", network, card)
    done = CliRunner().invoke(app, ["calibrate", "run", "further.npz", "--queries", "2"])
    assert done.exit_code == 0, done.output
    found, after = load_network(tmp_path / "run" / "model.safetensors")
    assert after.calibration[0] > 0
    assert after.calibration != card.calibration
    assert after.query_calibration is not None
    assert replace(after, calibration=(1.0, 0.0), query_calibration=None) == card
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)
    queried = predict_encrypted(
        found, Scheme.inside(2), classes, encodings=1, outputs=after.outputs
    )
    torch.testing.assert_close(queried.sum(1), torch.ones(len(classes)))


def test_a_card_with_a_bad_calibration_is_refused(tmp_path: Path) -> None:
    network = build("small", 1, 2, sign_invariant=True, seed=0)
    card = NetworkCard(
        "small", True, (1, 8, 8), ("a", "b"), (0.5,), (0.2,), Scheme.inside(2).to_json()
    )
    for bad in ((0.0, 0.0), (-1.0, 0.0)):
        path = tmp_path / "model.safetensors"
        save_network(path, network, replace(card, calibration=bad))
        with pytest.raises(InstaHideError, match="does not hold a network"):
            load_network(path)


def test_clipped_predictions_of_queries_do_not_decide_the_fit() -> None:
    """The correction for partners clips some present findings to 0, and some absent ones to 1."""
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(4000, 1, generator=generator)
    present = (torch.rand(4000, 1, generator=generator) < true.sigmoid()).float()
    shown = true.sigmoid().double()
    some = torch.rand(4000, 1, generator=generator)
    shown[some < 0.05], shown[some > 0.95] = 0.0, 1.0
    scale, _ = fit_calibration(shown, present, "multi-label", LEAST_OF_QUERIES)
    alone, _ = fit_calibration(shown, present, "multi-label")
    assert scale > 2 * alone
    outputs = Outputs("multi-label", 1, query_calibration=(scale, 0.0))
    order = torch.linspace(0, 1, 1001)[:, None]
    assert (outputs.of_queries(order).diff(dim=0) > 0).all()
    assert len(outputs.of_queries(torch.zeros(5, 1)).unique()) == 1


def test_the_page_states_the_range_of_the_probabilities_of_queries() -> None:
    page = (Path(__file__).parents[2] / "docs/labels.md").read_text(encoding="utf-8")
    assert f"into {LEAST_OF_QUERIES:g} to {1 - LEAST_OF_QUERIES:g}, in" in page


def test_few_images_without_an_error_do_not_make_a_network_certain() -> None:
    classes = torch.arange(100) % 10
    shown = torch.full((100, 10), 0.6 / 9)
    shown[torch.arange(100), classes] = 0.4
    scale, _ = fit_calibration(shown, classes, "single-label")
    certain = Outputs("single-label", 10, calibration=(scale, 0.0)).predictions(shown.log())
    assert 0.85 < certain.amax(dim=1).mean() < 0.95
    nothing, _ = fit_calibration(shown, classes.roll(1), "single-label")
    assert nothing > 0.005


def test_a_picture_that_is_there_twice_is_not_learned_and_held_out_at_once() -> None:
    pixels = np.repeat(np.random.default_rng(0).integers(0, 256, (400, 1, 4, 4), np.uint8), 2, 0)
    findings = (pixels[:, 0, 0, :2] > 127).astype(np.float32)
    images = ImageTable.from_arrays(pixels, findings, ("a", "b"), task="multi-label")
    kept, held = hold_out(TrainSettings(data="digits", scheme="inside", k=4), images)
    assert len(held) > 0
    pictures = [{image.tobytes() for image in part.pixels} for part in (kept, held)]
    assert not pictures[0] & pictures[1]


def test_a_scale_at_its_limit_is_known() -> None:
    """Where labels contradict the probabilities, or agree with all of many."""
    sure = torch.tensor([[0.9, 0.1]]).repeat(100, 1)
    right, wrong = torch.zeros(100, dtype=torch.int64), torch.ones(100, dtype=torch.int64)
    mixed = torch.cat([right[:90], wrong[:10]])
    assert is_at_limit(fit_calibration(sure, wrong, "single-label"))
    assert not is_at_limit(fit_calibration(sure, mixed, "single-label"))
