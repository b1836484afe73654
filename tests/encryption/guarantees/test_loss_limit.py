"""`min_mse` holds wherever exposure is counted: over runs, kills, processes and groups."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from instahide.data import ImageTable
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.publish import Publication, publish, threads
from instahide.encodings.ray.exposure import Counter, RemoteExposure
from instahide.encryption.encoder import Encoder
from instahide.encryption.exposure import Exposure, ExposureView
from instahide.encryption.guarantees.error_floor import unbiased_floor
from instahide.encryption.guarantees.loss_limit import LossLimit
from instahide.encryption.privacy import mu_squared_rate
from instahide.encryption.scheme import Scheme
from instahide.errors import ExposureLimitError, InstaHideError

SCHEME = Scheme.inside(2, noise=1.5)
MIN_MSE = 0.04
VALUES = 64


def table(count: int = 24) -> ImageTable:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8), np.uint8)
    return ImageTable.from_arrays(pixels, np.arange(count) % 3)


def limit(images: ImageTable, min_mse: float = MIN_MSE, scheme: Scheme = SCHEME) -> LossLimit:
    return LossLimit.for_min_mse(min_mse, scheme, images.shape, images.std)


def encode_to_the_end(encoder: Encoder) -> int:
    """Encrypt all images again and again until nothing is left; returns the encodings."""
    made, left = 0, list(range(len(encoder.images)))
    while left:
        for row in tuple(left):
            try:
                made += len(encoder.encode(np.array([row])).images)
            except ExposureLimitError:
                left.remove(row)
    return made


def test_mixes_are_taken_up_to_the_definition() -> None:
    """Against a loop that adds one mix after the other."""
    generator = np.random.default_rng(1)
    most = LossLimit(most=3.0, rate=2.0, c1=0.65)
    for _ in range(200):
        rows = np.stack([generator.permutation(6)[:3] for _ in range(8)])
        rows[generator.random(rows.shape) < 0.1] = -1
        weights = generator.uniform(0, 0.65, rows.shape).astype(np.float32)
        losses = generator.uniform(0, 3, 6)
        expected, totals = 0, losses.copy()
        for row, weight in zip(rows, weights, strict=True):
            if (totals[row[row >= 0]] + most.step > most.most).any():
                break
            np.add.at(totals, row[row >= 0], 2.0 * weight[row >= 0].astype(np.float64) ** 2)
            expected += 1
        assert most.within(rows, weights, losses) == expected


def test_no_image_falls_below_its_floor_and_all_that_fits_is_encoded() -> None:
    images = table()
    exposure = Exposure(len(images), loss_limit=limit(images))
    encode_to_the_end(Encoder(SCHEME, images, exposure=exposure))
    losses = exposure.squares * mu_squared_rate(SCHEME, images.shape, images.std)
    assert unbiased_floor(losses.max(), VALUES) >= MIN_MSE
    # What is left would not hold another encoding at the largest coefficient.
    spent = exposure.exhausted()
    assert spent is not None
    assert spent.sum() >= len(images) - 1
    assert unbiased_floor(losses[spent].min() + limit(images).step, VALUES) < MIN_MSE


def test_coefficients_of_images_near_their_limit_have_the_usual_distribution() -> None:
    """The limit decides before a coefficient is drawn: none is redrawn because it is large."""
    images = table(12)
    exposure = Exposure(len(images), loss_limit=limit(images, 0.004))
    made = encode_to_the_end(Encoder(SCHEME, images, exposure=exposure))
    mean = exposure.squares.sum() / made
    expected = np.square(SCHEME.simulated_coefficients()).sum(axis=1).mean()
    assert mean == pytest.approx(expected, rel=0.1)


def test_without_noise_it_is_refused_with_a_remedy() -> None:
    images = table()
    for scheme in (Scheme.inside(2), Scheme.plain()):
        with pytest.raises(InstaHideError, match=r"Without noise there is no floor.*Add noise"):
            limit(images, scheme=scheme)
    with pytest.raises(InstaHideError, match=r"one encoding of an image.*Use a noise of"):
        limit(images, 10.0)
    with pytest.raises(InstaHideError, match="mean and std"):
        LossLimit.for_min_mse(MIN_MSE, SCHEME, images.shape, None)


def test_the_noise_of_the_remedy_is_enough() -> None:
    images = table()
    with pytest.raises(InstaHideError) as refused:
        limit(images, 1.0)
    noise = float(refused.value.remedy.split("noise of ")[1].split(" ")[0])
    assert limit(images, 1.0, Scheme.inside(2, noise=noise)).most > 0


def test_a_limit_for_other_noise_is_refused_by_the_encoder() -> None:
    images = table()
    exposure = Exposure(len(images), loss_limit=limit(images))
    with pytest.raises(InstaHideError, match="more noise"):
        Encoder(Scheme.inside(2, noise=1.0), images, exposure=exposure)


def test_a_limited_exposure_counts_in_one_process_and_a_view_keeps_the_limit() -> None:
    images = table()
    exposure = Exposure(len(images), loss_limit=limit(images))
    with pytest.raises(InstaHideError, match="one process"):
        pickle.dumps(exposure)
    view = ExposureView(exposure, np.array([3, 5]))
    assert view.limited
    before = view.further()
    assert before is not None
    exposure.record(np.array([[3, 4]]), np.array([[0.6, 0.4]], np.float32))
    after = view.further()
    assert after is not None
    assert after[0] < before[0]
    assert after[1] == before[1]


def test_the_ledger_keeps_it_over_runs_and_schemes(tmp_path: Path) -> None:
    images = table()
    loud = Scheme.inside(2, noise=3.0)
    for scheme in (SCHEME, loud):
        with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
            account = ledger.account(images, min_mse=MIN_MSE, scheme=scheme)
            encode_to_the_end(Encoder(scheme, images, exposure=account))
            assert unbiased_floor(float(account.losses.max()), VALUES) >= MIN_MSE
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        # Nothing more fits, not even after a pickle.
        account = pickle.loads(  # noqa: S301
            pickle.dumps(ledger.account(images, min_mse=MIN_MSE, scheme=loud))
        )
        with pytest.raises(ExposureLimitError, match="privacy loss"):
            Encoder(loud, images, exposure=account).encode(np.arange(4))
        further = ledger.account(images, min_mse=MIN_MSE / 2, scheme=loud).further()
        assert further is not None
        assert further.max() > 0


def test_encodings_without_noise_before_leave_nothing_to_encode(tmp_path: Path) -> None:
    images = table()
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        plain = ledger.account(images, scheme=Scheme.inside(2))
        Encoder(Scheme.inside(2), images, exposure=plain).encode(np.arange(len(images)))
        account = ledger.account(images, min_mse=MIN_MSE, scheme=SCHEME)
        with pytest.raises(ExposureLimitError):
            Encoder(SCHEME, images, exposure=account).encode(np.arange(4))
        with pytest.raises(InstaHideError, match="Without noise"):
            ledger.account(images, min_mse=MIN_MSE)


def test_groups_share_it(tmp_path: Path) -> None:
    """Three images of each patient: the floor is that of all of their encodings together."""
    images = table().grouped([f"patient {row // 3}" for row in range(24)])
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        account = ledger.account(images, min_mse=MIN_MSE, scheme=SCHEME)
        made = encode_to_the_end(Encoder(SCHEME, images, exposure=account))
        assert unbiased_floor(float(ledger.totals().losses.max()), VALUES) >= MIN_MSE
        assert len(np.unique(account.losses)) <= 8
    single = Exposure(24, loss_limit=limit(table()))
    assert encode_to_the_end(Encoder(SCHEME, table(), exposure=single)) > 2 * made


def test_publishing_ends_before_it(tmp_path: Path) -> None:
    publication = Publication(table(), None, SCHEME, 1000)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        folder = publish(publication, tmp_path / "out", ledger, engine=threads, min_mse=MIN_MSE)
        totals = ledger.totals(publication.images)
    assert folder.manifest.ended == "limit"
    assert folder.manifest.limited
    assert 0 < len(folder) < folder.manifest.total
    assert unbiased_floor(float(totals.losses.max()), VALUES) >= MIN_MSE


def test_encoders_on_other_machines_keep_it_together(tmp_path: Path) -> None:
    images = table()
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        account = ledger.account(images, min_mse=MIN_MSE, scheme=SCHEME)
        remotes = [
            RemoteExposure(Counter(account), len(images), None, account.loss_limit)
            for _ in range(2)
        ]
        made = sum(encode_to_the_end(Encoder(SCHEME, images, exposure=each)) for each in remotes)
        assert unbiased_floor(float(account.losses.max()), VALUES) >= MIN_MSE
    alone = Exposure(len(images), loss_limit=limit(images))
    assert made > 0.7 * encode_to_the_end(Encoder(SCHEME, images, exposure=alone))


#: Encrypts one block after the other under a limit and prints each block's coefficients.
KILLED = """
import sys
from pathlib import Path
import numpy as np
from instahide.encodings.ledger.ledger import Ledger
from tests.encryption.guarantees.test_loss_limit import MIN_MSE, SCHEME, encode_to_the_end, table
from instahide.encryption.encoder import Encoder
images = table()
ledger = Ledger.open(Path(sys.argv[1]))
encoder = Encoder(SCHEME, images, exposure=ledger.account(images, min_mse=MIN_MSE, scheme=SCHEME))
while True:
    encoder.encode(np.arange(2))
    print("encoded", flush=True)
"""


@pytest.mark.slow
def test_it_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline().strip() == b"encoded"
        run.send_signal(signal.SIGKILL)
    images = table()
    with Ledger.open(path) as ledger:
        account = ledger.account(images, min_mse=MIN_MSE, scheme=SCHEME)
        assert account.losses[:2].min() > 0
        encode_to_the_end(Encoder(SCHEME, images, exposure=account))
        assert unbiased_floor(float(account.losses.max()), VALUES) >= MIN_MSE
