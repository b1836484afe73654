"""What a server may send, and what a node makes of it: a round on its terms, or a refusal."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from instahide.data import ImageTable, open_images
from instahide.encodings.ledger.ledger import Ledger
from instahide.encryption.privacy import epsilon_of
from instahide.integrations.flower.client import normalization_check
from instahide.integrations.flower.client.normalization_check import require_near
from instahide.integrations.flower.errors import SILENCE, RefusalError
from tests.integrations.flower.conftest import ALLOWED

Make = Callable[..., Any]
SOME = np.random.default_rng(1).integers(0, 256, (60, 3, 9, 9), dtype=np.uint8)


def test_an_honest_round_is_answered_and_counted(hospital: Make) -> None:
    node = hospital()
    answer = node.answer(node.message())
    assert not answer.has_error()
    assert answer.content["metrics"]["num-examples"] == 40
    assert node.exposure()[0] >= 1


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (0.002, 0.29), (0.999, 0.29), (0.0, 0.29), (1.0, 0.29), (0.1, 0.29), (-3.0, 0.29),
        (float("nan"), 0.29), (float("inf"), 0.29), (0.5, 1e-6), (0.5, 0.0), (0.5, -0.29),
        (0.5, 0.01), (0.5, 0.1), (0.5, 5.0), (0.5, 1e300), (0.5, float("nan")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("noise", [0.0, 100.0])
def test_a_normalization_that_hides_too_little_is_refused(
    hospital: Make, mean: float, std: float, noise: float
) -> None:
    node = hospital(noise=noise)
    reason = node.refusal(node.message(mean=[mean], std=[std]), noise=noise)
    assert "`mean`" in reason or "`std`" in reason
    assert node.exposure() == (0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": [], "std": [0.29]}, {"mean": [0.5] * 3, "std": [0.29] * 3}, {"mean": 0.5},
        {"mean": ["0.5"]}, {"mean": [True]}, {"shape": [1, 16]}, {"shape": [1, 16, 0]},
        {"shape": [1, 16, 10**9]}, {"shape": [1.0, 16.0, 16.0]}, {"shape": "1,16,16"},
        {"classes": []}, {"classes": ["0", "0"]}, {"classes": [0, 1]},
        {"classes": ["\x1b[2J", "1"]},
        {"classes": ["0"]}, {"shape": [1, 1, 1, 16, 16]},
        {"task": "detection"}, {"task": ""}, {"task": ["single-label"]}, {"task": 1},
        {"value_range": [0.0]}, {"value_range": [255.0, 0.0]}, {"value_range": [5.0, 5.0]},
        {"value_range": [0.0, float("inf")]}, {"value_range": [float("nan"), 255.0]},
        {"value_range": [-1e300, 1e300]}, {"value_range": ["0", "255"]}, {"value_range": "own"},
        {"value_range": []}, {"value_range": [0.0, 255.0, 300.0]}, {"value_range": 255.0},
        {"target_mean": [1.0]}, {"target_mean": "1"}, {"target_mean": [float("nan")]},
        {"target_std": [1.0]}, {"target_std": [0.0]}, {"target_std": [-1.0]},
        {"classes": ["0", "x" * 10_000]}, {"classes": [str(n) for n in range(20_000)]},
        {"server_round": 0}, {"server_round": -1}, {"server_round": 4}, {"server_round": 10**18},
        {"server_round": 1.0}, {"server_round": True}, {"server_round": "1"},
        {"proximal_mu": float("nan")}, {"proximal_mu": -1.0}, {"proximal_mu": 1e30},
        {"proximal_mu": "much"}, {"mask": False}, {"max_exposure": 10**6}, {"\x1b[2J": 1},
    ],
)  # fmt: skip
def test_a_value_that_nobody_may_send_is_refused_by_name(
    hospital: Make, changes: dict[str, Any]
) -> None:
    node = hospital()
    reason = node.refusal(node.message(**changes))
    assert reason != SILENCE
    assert reason.isprintable()
    name = next(iter(changes)).replace("_", "-")
    either = {"server-round": "ound", "target-std": "target-mean"}.get(name, name)
    assert name.replace("\x1b", "?") in reason or either in reason
    assert node.exposure() == (0, 0)


@pytest.mark.parametrize(
    "missing",
    ["shape", "classes", "task", "value-range", "mean", "std", "target-mean", "target-std"],
)
def test_a_value_that_is_missing_is_refused_by_name(hospital: Make, missing: str) -> None:
    node = hospital()
    message = node.message()
    del message.content["config"][missing]
    assert f"`{missing}`" in node.refusal(message)


def test_records_that_nobody_may_send_are_refused(hospital: Make) -> None:
    node = hospital()
    message = node.message()
    arrays = message.content["arrays"]
    wrong: list[dict[str, Any]] = [
        {}, {"arrays": arrays}, {"config": message.content["config"]},
        {"config": MetricRecord({"a": 1}), "arrays": arrays},
        {"config": message.content["config"], "arrays": MetricRecord({"a": 1})},
        {**dict(message.content), "\x1b[2J": ConfigRecord({"a": 1})},
    ]  # fmt: skip
    for records in wrong:
        changed = node.message()
        changed.content = RecordDict(records)
        reason = node.refusal(changed)
        assert reason != SILENCE
        assert reason.isprintable()


def saved(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, array)
    return file.getvalue()


def header(text: str) -> bytes:
    body = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x93NUMPY", b"\x80\x04K\x01.", b"\x93NUMPY\x09\x00" + bytes(200),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999,)}"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (32, 1, 4, 4)}"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (32, 1, 4, 4)}"),
        header("{'descr': '<V999', 'fortran_order': False, 'shape': (32, 1, 4, 4)}"),
        header("(" * 100), header("{'descr': "), header("__import__('os').getcwd()"),
        saved(np.zeros(1)), archive(np.zeros((32, 1, 4, 4), np.float32)),
        saved(np.full((32, 1, 4, 4), np.nan, np.float32)),
        saved(np.full((32, 1, 4, 4), 1e300)), saved(np.zeros((32, 1, 4, 4), np.complex64)),
        saved(np.zeros((32, 1, 4, 4), np.float32))[:-1],
        saved(np.zeros((32, 1, 4, 4), np.float32)) + b"more",
    ],
)  # fmt: skip
def test_arrays_that_are_not_the_network_s_are_refused_by_name(hospital: Make, data: bytes) -> None:
    node = hospital()
    message = node.message()
    name = "network.0.weight"
    assert message.content["arrays"][name].shape == (32, 1, 4, 4)
    message.content["arrays"][name] = Array("float32", (32, 1, 4, 4), "numpy.ndarray", data)
    assert name in node.refusal(message)
    assert node.exposure() == (0, 0)


def test_missing_and_further_arrays_are_refused_by_name(hospital: Make) -> None:
    node = hospital()
    message = node.message()
    message.content["arrays"]["\x1b[2J"] = Array(np.zeros(3))
    assert "no array `?[2J`" in node.refusal(message)
    message = node.message()
    del message.content["arrays"]["network.0.weight"]
    assert "`network.0.weight` is missing" in node.refusal(message)
    message.content["arrays"] = ArrayRecord()
    assert "is missing" in node.refusal(message)


def test_arrays_in_another_order_or_precision_are_the_same_arrays(hospital: Make) -> None:
    node = hospital()
    message = node.message()
    arrays = message.content["arrays"]
    for name, array in list(arrays.items()):
        values = array.numpy().astype(">f8")
        arrays[name] = Array(np.asfortranarray(values))
    assert not node.answer(message).has_error()


def test_six_sizes_do_not_pass_the_limit_six_times(hospital: Make) -> None:
    node = hospital()
    accepted = 0
    for size in (16, 16, 16, 16, 15, 14, 13, 8):
        answer = node.answer(node.message(shape=[1, size, size]), size=size)
        accepted += not answer.has_error()
        # Every image of the ledger: other sizes are not even entered.
        assert node.exposure()[1] <= ALLOWED
    assert accepted >= 1
    with Ledger.open(Path(node.own["ledger"])) as ledger:
        assert len(ledger.totals().counts) == 40


@pytest.mark.slow
def test_no_terms_of_a_run_and_no_restart_pass_the_limit(hospital: Make) -> None:
    """The server changes whatever it may from round to round, and every message is a new run."""
    node = hospital()
    runs: list[dict[str, Any]] = [
        {}, {"flip": True}, {"crop_padding": 4}, {"model": "small"}, {"noise": 0.1}, {"seed": 5},
        {"strategy": "FedSGD"}, {"sign_invariant": False}, {"max_exposure": 10**6},
        {"data": "digits"}, {"ledger": "elsewhere"}, {"out": "elsewhere"}, {"lr": 1e-6},
        {"batch_size": 40},
    ]  # fmt: skip
    for run in runs * 2:
        node.answer(node.message(mean=[0.45], std=[0.3]), **run)
        assert node.exposure()[1] <= ALLOWED
    assert node.refusal(node.message()).startswith(
        f"The next encoding would bring an image, or the group that it is of, above {ALLOWED}"
    )


@pytest.mark.parametrize("place", ["/etc/passwd", "http://127.0.0.1:9/pool", "s3://bucket/pool"])
def test_nothing_of_a_server_s_choice_is_opened(
    hospital: Make, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instahide.data import sources
    from instahide.integrations.flower.client import participant as node_module

    opened: list[str] = []

    def noting(source: Any, **more: Any) -> ImageTable:
        opened.append(str(source))
        return open_images(source, **more)

    monkeypatch.setattr(node_module, "open_images", noting)
    monkeypatch.setattr(sources, "local_copy", lambda source, **_: source)
    node = hospital()
    names = ("data", "test", "test-labels", "public", "ledger", "out")
    run = dict.fromkeys(names, place)
    assert not node.answer(node.message(), **run).has_error()
    assert opened == [node.own["data"]]
    assert "no test images" in node.refusal(node.message("evaluate"), **run)


def test_a_node_tests_on_images_of_its_own_only_where_it_names_some(hospital: Make) -> None:
    node = hospital()
    assert "no test images" in node.refusal(node.message("evaluate"), client_test=True)
    others = np.random.default_rng(1).integers(0, 256, (12, 1, 16, 16), dtype=np.uint8)
    willing = hospital(test=hospital(others).own["data"])
    answer = willing.answer(willing.message("evaluate"), client_test=True)
    assert set(answer.content["metrics"]) == {"num-examples", "accuracy"}
    assert answer.content["metrics"]["num-examples"] == 12


def test_a_network_is_not_tested_on_training_images(
    hospital: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A server with weights that know one image would see whether it is there, uncounted."""
    node = hospital()
    same = hospital(test=node.own["data"])
    assert "are also training images" in same.refusal(same.message("evaluate"), client_test=True)
    pixels = np.load(node.own["data"])["images"]
    others = np.random.default_rng(1).integers(0, 256, (12, 1, 16, 16), dtype=np.uint8)
    part = hospital(test=hospital(np.concatenate([pixels[:7], others])).own["data"])
    answer = part.answer(part.message("evaluate"), client_test=True)
    assert answer.content["metrics"]["num-examples"] == 12
    assert "7 test images are training images" in caplog.text


@pytest.mark.slow
def test_max_epsilon_holds_over_rounds_and_is_refused_without_noise(hospital: Make) -> None:
    node = hospital(max_epsilon=5.0, delta=1e-6, max_exposure=10**6)
    assert "Without noise" in node.refusal(node.message())
    accepted = 0
    for _ in range(30):
        accepted += not node.answer(node.message(), noise=150.0).has_error()
        with Ledger.open(Path(node.own["ledger"])) as ledger:
            spent = epsilon_of(float(ledger.totals().losses.max()), 1e-6)
        assert spent <= 5.0
    assert 1 <= accepted < 30
    assert "epsilon" in node.refusal(node.message(), noise=20.0)


@pytest.mark.slow
def test_min_mse_holds_over_rounds_and_is_refused_without_noise(hospital: Make) -> None:
    node = hospital(min_mse=0.01, max_exposure=10**6)
    assert "Without noise this participant's `min-mse`" in node.refusal(node.message())
    accepted = 0
    for _ in range(30):
        accepted += not node.answer(node.message(), noise=1.0).has_error()
        with Ledger.open(Path(node.own["ledger"])) as ledger:
            most = float(ledger.totals().losses.max())
        assert 256 / most >= 0.01
    assert 1 <= accepted < 30
    assert "min-mse" in node.refusal(node.message(), noise=0.1)
    # A run cannot choose it.
    assert "min-mse" in node.refusal(node.message(), noise=0.1, **{"min-mse": 1e-9})


def test_min_mse_is_refused_for_dp_sgd_and_plain_training(hospital: Make) -> None:
    node = hospital(scheme="plain", min_mse=0.05)
    assert "min-mse" in node.refusal(node.message(run={"scheme": "plain"}), scheme="plain")


def test_the_stricter_of_two_limits_holds(hospital: Make) -> None:
    strict, loose = (
        hospital(max_epsilon=epsilon, delta=1e-6, min_mse=0.01, max_exposure=10**6)
        for epsilon in (1e-3, 1e5)
    )
    assert "max-epsilon` and `min-mse" in strict.refusal(strict.message(), noise=1.0)
    assert not loose.answer(loose.message(), noise=1.0).has_error()


@pytest.mark.parametrize("strategy", ["fedavg", "fedsgd"])
def test_max_epsilon_is_never_kept_by_plain_training(hospital: Make, strategy: str) -> None:
    node = hospital(scheme="plain", max_epsilon=5.0)
    run = {"scheme": "plain", "strategy": strategy}
    assert "max-epsilon" in node.refusal(node.message(run=run), **run)


def test_encodings_without_noise_before_make_every_max_epsilon_a_refusal(hospital: Make) -> None:
    node = hospital(max_exposure=100)
    assert not node.answer(node.message()).has_error()
    node.own["max-epsilon"] = 100.0
    assert "max-epsilon" in node.refusal(node.message(), noise=1e6)


def test_signs_are_balanced_within_the_band_as_well(hospital: Make) -> None:
    """A mean above all values of the images, and less than one std away."""
    dark = np.random.default_rng(0).integers(120, 160, (40, 1, 16, 16), dtype=np.uint8)
    dark[:, :, 0, :] = 0
    own = ImageTable.from_arrays(dark)
    node = hospital(dark)
    assert not node.answer(node.message(mean=list(own.mean), std=list(own.std))).has_error()
    upper = own.mean[0] + 0.9 * own.std[0]
    assert "nearly all values" in node.refusal(node.message(mean=[upper], std=list(own.std)))


@pytest.mark.parametrize("shift", [0.0, 0.4, -0.4])
@pytest.mark.parametrize("ratio", [0.6, 1.0, 3.0])
def test_other_scanners_share_a_normalization(shift: float, ratio: float) -> None:
    table = ImageTable.from_arrays(SOME)
    mean = [own + shift * spread for own, spread in zip(table.mean, table.std, strict=True)]
    require_near(table, mean, [ratio * spread for spread in table.std])


def test_one_channel_outside_of_the_band_is_enough(hospital: Make) -> None:
    table = ImageTable.from_arrays(SOME)
    far = table.std[1] * normalization_check.MOST_MEAN_SHIFT * 1.01
    shifted = (table.mean[0], table.mean[1] + far, table.mean[2])
    with pytest.raises(RefusalError, match=r"mean .* in channel 1"):
        require_near(table, shifted, table.std)
    with pytest.raises(RefusalError, match=r"std .* in channel 2"):
        require_near(table, table.mean, (*table.std[:2], table.std[2] * 0.49))
    with pytest.raises(RefusalError, match="3 channels"):
        require_near(table, table.mean[:1], table.std[:1])


def test_a_constant_channel_has_nothing_to_hide() -> None:
    pixels = SOME.copy()
    pixels[:, 2] = 7
    table = ImageTable.from_arrays(pixels)
    require_near(table, (*table.mean[:2], 0.4), (*table.std[:2], 0.2))


def test_settings_that_a_node_cannot_work_with_are_named(hospital: Make) -> None:
    node = hospital()
    assert "float16" in node.refusal(node.message(), precision="float16")
    assert "finite" in node.refusal(node.message(), lr=1e9, schedule="constant")
    node = hospital()
    assert "finite" in node.refusal(node.message(proximal_mu=1e6), lr=1e6, schedule="constant")


def test_class_names_of_a_node_are_not_told(hospital: Make) -> None:
    node = hospital()
    reason = node.refusal(node.message(classes=["benign", "malignant"]))
    assert "2 of this participant's classes are not classes of the federation" in reason
