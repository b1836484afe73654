"""A whole run leaves nothing secret anywhere: every byte that it wrote or said is searched."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from instahide.data import ImageTable, open_split
from instahide.encryption.augmentation import Augmentation
from instahide.encryption.encoder import Encoder
from instahide.encryption.keys import KeyStream, OneTimeKeys
from instahide.encryption.sampling import sampler
from instahide.encryption.scheme import Scheme
from instahide.errors import InstaHideError
from instahide.training.data.encoded_loader import EncodedLoader
from instahide.training.models import build
from instahide.training.models.model_io import NetworkCard, save_network
from instahide.training.progress import Lines
from instahide.training.run_folder import RunFolder
from instahide.training.settings import TrainSettings
from instahide.training.training_loop import train

KEY = hashlib.sha256(b"a key that no file holds by chance").digest()
PARTICIPANT = "hospital 7"
EPOCHS = 2


def epoch_keys() -> Iterator[bytes]:
    """The keys that the stream derives, by the definition (RFC 5869)."""
    name = PARTICIPANT.encode()
    for epoch in range(EPOCHS + 2):
        info = b"instahide/1/" + len(name).to_bytes(8, "big") + name + epoch.to_bytes(8, "big")
        yield hmac.new(KEY, info + b"\x01", hashlib.sha256).digest()


def forms(secret: bytes) -> Iterator[bytes]:
    """How bytes may be written down."""
    yield secret
    yield secret[::-1]
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")
    integers = int.from_bytes(secret, "big"), int.from_bytes(secret, "little")
    texts = [
        secret.hex(), secret.hex(" "), secret.hex(":"), secret.hex().upper(), repr(secret)[2:-1],
        repr(list(secret))[1:-1], ",".join(map(str, secret)),
        *map(str, integers), *map(hex, integers),
    ]  # fmt: skip
    for text in texts:
        yield text.encode()


def needles(one_time: list[OneTimeKeys]) -> set[bytes]:
    """Everything to search for: keys, and the start of whatever was drawn in each block."""
    secrets = [KEY, *epoch_keys()]
    for half in (slice(16), slice(16, None)):
        secrets += [key[half] for key in secrets if len(key) == 32]
    found = {form for secret in secrets for form in forms(secret)}
    for keys in one_time:
        assert keys.masks is not None
        assert keys.moves is not None
        arrays = [
            keys.coefficients[0], keys.coefficients[0].astype(np.float64), keys.masks.ravel()[:4],
            keys.partners[:2], keys.partners[:4].astype(np.int32), keys.moves.ravel()[:32],
        ]  # fmt: skip
        for array in arrays:
            found |= set(forms(array.tobytes()))
        for row in [*keys.partners[:2], *keys.coefficients[:2], keys.masks.ravel()[:4]]:
            found |= {str(row.tolist())[1:-1].encode(), str(row)[1:-1].encode()}
        for coefficient in keys.coefficients[:2].ravel():
            found |= {str(coefficient).encode(), repr(float(coefficient)).encode()}
    return {needle for needle in found if len(needle) >= 7}


def holds_any(text: bytes, secrets: set[bytes]) -> bool:
    return any(secret in text for secret in secrets)


@pytest.fixture
def one_time(monkeypatch: pytest.MonkeyPatch) -> list[OneTimeKeys]:
    """All one-time keys that are drawn."""
    noted: list[OneTimeKeys] = []
    draw = sampler.one_time_keys

    def noting(*arguments: object, **more: object) -> OneTimeKeys:
        noted.append(draw(*arguments, **more))  # type: ignore[arg-type]
        return noted[-1]

    monkeypatch.setattr(sampler, "one_time_keys", noting)
    return noted


def images() -> ImageTable:
    return open_split("digits").train.subset(slice(0, 300))


def train_in(folder: Path, screen: io.StringIO) -> tuple[object, ...]:
    """Two epochs of the whole machinery; returns everything that somebody may print."""
    stream = KeyStream(PARTICIPANT, fixed_key=KEY)
    private = images()
    encoder = Encoder(
        Scheme.cross(4), private, private.subset(slice(0, 50)),
        keys=stream, augmentation=Augmentation(2, flip=True),
    )  # fmt: skip
    loader = EncodedLoader(encoder, 64)
    values = {"data": "digits", "epochs": EPOCHS, "batch_size": 64, "lr": 0.01}
    settings = TrainSettings.from_values({**values, "device": "cpu", "precision": "float32"})
    model = build("small", 1, 10, sign_invariant=True, seed=0)
    run = RunFolder.open(folder / "run", settings)
    progress = Lines(Console(file=screen, width=300))
    history = train(model, loader, settings, run=run, progress=progress)
    run.write_results(history)
    card = NetworkCard(
        "small", True, private.shape, private.classes, private.mean, private.std,
        encoder.scheme.to_json(),
    )  # fmt: skip
    save_network(folder / "network.safetensors", model, card)
    with pytest.raises(InstaHideError) as refused:
        encoder.encode(np.array([10_000]))
    return (
        stream, stream.next_block(), encoder, loader, settings, model, run, history, refused.value,
        vars(encoder), vars(loader), encoder.scheme.to_json(),
    )  # fmt: skip


def test_no_byte_of_a_run_is_secret(
    tmp_path: Path,
    one_time: list[OneTimeKeys],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    screen = io.StringIO()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        printable = train_in(tmp_path, screen)
    said = "\n".join(
        [screen.getvalue(), *capfd.readouterr(), caplog.text, *(str(each) for each in warned)]
        + [shown(each) for each in (*printable, *one_time)]
    )
    assert f"epoch {EPOCHS}/{EPOCHS}" in said
    assert len(one_time) == EPOCHS

    secrets = needles(one_time)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"settings.json", "checkpoint.safetensors", "results.json"} < names
    for path in files:
        assert not holds_any(path.read_bytes(), secrets), path.name
        assert not holds_any(str(path).encode(), secrets)
    assert not holds_any(said.encode(), secrets)


def shown(thing: object) -> str:
    return f"{thing} {thing!r} {[thing]}"


@pytest.mark.parametrize(
    "leak",
    [
        KEY,
        KEY.hex().encode(),
        base64.b64encode(KEY),
        repr(KEY).encode(),
        list(epoch_keys())[1][:16].hex().encode(),
        str(list(KEY)).encode(),
    ],
)
def test_the_search_finds_what_it_looks_for(leak: bytes, one_time: list[OneTimeKeys]) -> None:
    Encoder(
        Scheme.inside(4), images(), keys=KeyStream(PARTICIPANT, fixed_key=KEY),
        augmentation=Augmentation(2, flip=True),
    ).encode(np.arange(20))  # fmt: skip
    secrets = needles(one_time)
    masks = one_time[0].masks
    assert masks is not None
    for found in (leak, masks.tobytes(), one_time[0].coefficients.tobytes()):
        assert holds_any(b"before " + found + b" after", secrets)
    assert holds_any(repr(one_time[0].coefficients.tolist()).encode(), secrets)
    assert holds_any(repr(one_time[0].partners.tolist()).encode(), secrets)
    assert not holds_any(b"nothing of the kind", secrets)
