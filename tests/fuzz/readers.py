"""Every reader of files that others wrote, with files that it accepts."""

from __future__ import annotations

import functools
import io
import json
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from instahide import open_images
from instahide.attacks.reconstruction.beliefs import FILE, Beliefs, load_beliefs, save_beliefs
from instahide.attacks.reconstruction.encoder import PairEncoder, load_encoder, save_encoder
from instahide.audit.challenge import Challenge, ChallengeTruth, make_challenge
from instahide.audit.result import Result
from instahide.encodings.exchange.importing import Foreign, Origin, _blocks
from instahide.encodings.format import EncodedFolder
from instahide.encodings.ledger import Ledger
from instahide.encodings.ledger_schema import _crc
from instahide.encodings.manifest import Manifest
from instahide.encodings.publish import Publication, publish, threads
from instahide.encryption.scheme import Scheme
from instahide.images import ImageTable
from instahide.images.classes import read_class_list
from instahide.images.decode import decode_file
from instahide.learning import checkpoint
from instahide.learning.models import build
from instahide.learning.network_file import NetworkCard, load_network, save_network
from instahide.learning.settings import TrainSettings
from tests.fuzz.mutation import Seed
from tests.fuzz.packing import (
    checkpoint_seed,
    gzip_seed,
    ledger_seed,
    manifest_seed,
    npy_tokens,
    png_seed,
    safetensors_seed,
    tar_seed,
    zip_seed,
)

Read = Callable[[Path], object]


class Reader(NamedTuple):
    """What is read: the file that is changed, the seeds of it, and how it is read.

    Attributes:
        file: its name; others of a seed lie beside it.
        seeds: files that are accepted.
        read: reads it in a folder.
        leaves: files and folders that reading may leave behind.
    """

    file: str
    seeds: Callable[[], list[Seed]]
    read: Read
    leaves: tuple[str, ...] = ()


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="seeds-"))


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def _table(count: int = 6, side: int = 8) -> ImageTable:
    return ImageTable.from_arrays(_random(count, side, side, 3), np.arange(count) % 2)


def _bytes(save: Callable[[io.BytesIO], object]) -> bytes:
    out = io.BytesIO()
    save(out)
    return out.getvalue()


def _npy(values: np.ndarray) -> bytes:
    return _bytes(lambda out: np.save(out, values, allow_pickle=False))


@functools.cache
def image_seeds() -> list[Seed]:
    colour = Image.fromarray(_random(20, 24, 3))
    grey, deep = colour.convert("L"), Image.fromarray(_random(20, 24).astype(np.uint16) * 257)
    alpha, palette = colour.convert("RGBA"), colour.convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"save_all": True, "append_images": [colour.rotate(90, expand=False)] * 2}
    png = [
        (colour, {}), (grey, {"transparency": 3}), (palette, {"transparency": 0}), (alpha, more),
        (deep, {}), (colour, {"exif": exif}), (colour.convert("1"), {}),
    ]  # fmt: skip
    seeds = [png_seed(_saved(image, "PNG", **options)) for image, options in png]
    others = [
        ("JPEG", colour, {}), ("JPEG", grey, {"progressive": True, "exif": exif}),
        ("JPEG", colour.convert("CMYK"), {}), ("GIF", palette, {}), ("GIF", palette, more),
        ("WEBP", colour, {}), ("WEBP", alpha, {"lossless": True}), ("WEBP", alpha, more),
        ("BMP", colour, {}), ("BMP", palette, {}), ("DIB", colour, {}), ("PPM", grey, {}),
        ("PPM", colour, {}), ("TIFF", colour, {}), ("TIFF", deep, {"compression": "tiff_lzw"}),
        ("TIFF", colour, {"compression": "jpeg"}), ("TIFF", colour.convert("1"),
        {"compression": "group4"}), ("TIFF", colour, more), ("TIFF", colour,
        {"compression": "tiff_adobe_deflate", "exif": exif}), ("TIFF", colour,
        {"compression": "packbits"}),
    ]  # fmt: skip
    seeds += [Seed((_saved(image, kind, **options),)) for kind, image, options in others]
    return [*seeds, Seed((b"P3 4 2 255 " + b"1 2 3 " * 8,)), Seed((b"P2 2 2 4095 1 2 3 4000",))]


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    return _bytes(lambda out: image.save(out, kind, **options))


@functools.cache
def npz_seeds() -> list[Seed]:
    images, labels = _random(6, 8, 8), np.arange(6) % 2
    sets = [
        {"images.npy": images, "labels.npy": labels},
        {"x_train.npy": images, "y_train.npy": labels, "x_test.npy": images, "y_test.npy": labels},
        {"images.npy": images, "labels.npy": np.array(["cat", "dog"] * 3)},
        {"data.npy": np.asfortranarray(images), "labels.npy": labels.astype(">i2")[:, None]},
    ]
    return [
        zip_seed({name: _npy(values) for name, values in members.items()}, compression)
        for members in sets
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ]


@functools.cache
def npy_seeds() -> list[Seed]:
    images = Seed((_npy(_random(6, 8, 8)),), tokens=npy_tokens())
    labels = {"labels.npy": _npy(np.arange(6) % 2)}
    return [Seed(images.parts, images.pack, images.tokens, labels)]


@functools.cache
def npy_label_seeds() -> list[Seed]:
    images = {"images.npy": _npy(_random(6, 8, 8))}
    values = (np.arange(6) % 2, np.array(["a", "b"] * 3), np.array([b"a", b"b"] * 3))
    return [Seed((_npy(each),), tokens=npy_tokens(), beside=images) for each in values]


def _idx(values: np.ndarray) -> bytes:
    shape = b"".join(int(n).to_bytes(4, "big") for n in values.shape)
    return bytes([0, 0, 8, values.ndim]) + shape + values.astype(np.uint8).tobytes()


@functools.cache
def idx_seeds() -> list[Seed]:
    labels = {"labels-idx1-ubyte": _idx(np.arange(6) % 2)}
    return [Seed((_idx(_random(6, 8, 8)),), beside=labels)]


@functools.cache
def idx_gz_seeds() -> list[Seed]:
    labels = {
        "labels-idx1-ubyte.gz": gzip_seed(_idx(np.arange(6) % 2)).pack((_idx(np.arange(6) % 2),))
    }
    packed = gzip_seed(_idx(_random(6, 8, 8)))
    return [Seed(packed.parts, packed.pack, beside=labels)]


def _cifar() -> dict[str, bytes]:
    data = _random(3, 3072)

    def dumped(value: object, protocol: int = 2) -> bytes:
        return pickle.dumps(value, protocol=protocol)

    from tests.images.test_cifar import python2

    batch = python2({b"data": data, b"labels": [0, 1, 1], b"filenames": [b"a", b"b", b"c"]})
    files = {f"data_batch_{number}": batch for number in (1, 2)}
    meta = {b"label_names": [b"cat", b"dog"], b"n": 3, b"x": (1, 2.5, None, True)}
    return {**files, "test_batch": batch, "batches.meta": dumped(meta, 4)}


_PICKLE = (
    b"\x80\x04", b"(", b")", b"]", b"}", b"2", b"0", b"\x85", b"\x86", b"\x87", b"q\x00", b"h\x00",
    b"r\xff\xff\xff\x7f", b"\x94", b"\x93", b"R", b"b", b"cos\nsystem\n", b"s", b"u", b"a", b"e",
    b"N", b".", b"\x8b\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 8, b"I1\n",
    b"L99999L\n", b"P1\n", b"\x81", b"\x8f", b"\x97", b"Q", b"i", b"o",
)  # fmt: skip


@functools.cache
def cifar_seeds() -> list[Seed]:
    files = _cifar()
    texts = b"(dp0\nS'label_names'\np1\n(lp2\nS'cat'\naS'dog'\nas."
    metas = [files.pop("batches.meta"), texts, pickle.dumps({b"label_names": [b"a", b"b"]}, 3)]
    return [Seed((meta,), tokens=_PICKLE, beside=files) for meta in metas]


@functools.cache
def cifar_batch_seeds() -> list[Seed]:
    files = _cifar()
    batch = files.pop("test_batch")
    head, tail = batch[:120], batch[120:]
    return [Seed((head, tail), tokens=_PICKLE, beside=files)]


@functools.cache
def cifar_tar_seeds() -> list[Seed]:
    return [tar_seed(_cifar(), mode, _PICKLE) for mode in ("w:gz", "w")]


def _table_files() -> dict[str, bytes]:
    folder = _folder() / "table"
    _table().save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def table_seeds(name: str) -> list[Seed]:
    files = _table_files()
    return [
        Seed((files.pop(name),), tokens=npy_tokens() if name.endswith("npy") else (), beside=files)
    ]


@functools.cache
def _encoded() -> dict[str, bytes]:
    root = _folder()
    with Ledger.open(root / "ledger.sqlite") as ledger:
        scheme = Scheme.inside(2)
        publish(Publication(_table(), None, scheme, 1), str(root / "out"), ledger, engine=threads)
    return {p.name: p.read_bytes() for p in (root / "out").iterdir() if p.name[0] != "."}


@functools.cache
def manifest_seeds() -> list[Seed]:
    files = dict(_encoded())
    manifest = files.pop("manifest.json")
    return [manifest_seed(manifest), Seed((manifest,))]


@functools.cache
def shard_seeds() -> list[Seed]:
    name = next(name for name in _encoded() if name.endswith(".safetensors"))
    return [safetensors_seed(_encoded()[name])]


def _read_shard(folder: Path) -> object:
    # The length that the manifest says is right, as a forger would make it.
    (path,) = folder.glob("shard")
    text = json.loads(_encoded()["manifest.json"])
    text["shards"][0]["bytes"] = path.stat().st_size
    body = json.dumps({k: v for k, v in text.items() if k != "checksum"}).removesuffix("}").encode()
    (folder / "manifest.json").write_bytes(manifest_seed(body + b",").pack((body,)))
    path.replace(folder / text["shards"][0]["name"])
    opened = EncodedFolder.open(folder)
    opened.shard(0)
    return opened.verify()


@functools.cache
def checkpoint_seeds() -> list[Seed]:
    path = _folder() / "c.safetensors"
    checkpoint.write(
        path, {"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.int64)}, {"n": 1}
    )
    return [checkpoint_seed(path), safetensors_seed(path.read_bytes())]


@functools.cache
def network_seeds() -> list[Seed]:
    path = _folder() / "n.safetensors"
    model = build("small", 1, 2, sign_invariant=True)
    card = NetworkCard(
        "small", True, (1, 8, 8), ("a", "b"), (0.5,), (0.2,), Scheme.inside(2).to_json()
    )
    save_network(path, model, card)
    return [checkpoint_seed(path)]


@functools.cache
def weights_seeds() -> list[Seed]:
    path = _folder() / "w.safetensors"
    save_encoder(path, PairEncoder(1))
    return [safetensors_seed(path.read_bytes())]


@functools.cache
def beliefs_seeds() -> list[Seed]:
    folder = _folder()
    beliefs = Beliefs(
        torch.ones(2, 3), torch.ones(4, 2), torch.zeros(4, 2, dtype=torch.int64), torch.ones(4, 2)
    )
    save_beliefs(folder, beliefs, "x")
    return [safetensors_seed((folder / FILE).read_bytes())]


@functools.cache
def ledger_seeds() -> list[Seed]:
    path = _folder() / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        publish(
            Publication(_table(), None, Scheme.inside(2), 1),
            str(path.parent / "o"),
            ledger,
            engine=threads,
        )
        account = ledger.account(_table(), limit=None, scheme=Scheme.inside(2))
        del account
    return [ledger_seed(path, _crc), Seed((path.read_bytes(),))]


def _read_ledger(folder: Path) -> object:
    with Ledger.open(folder / "l.sqlite") as ledger:
        ledger.totals()
        return ledger.totals(_table())


_YAML = (
    b"&a ", b"*a", b"<<: *a\n", b"!!int ", b"!!float ", b"!!bool x", b"!!timestamp x",
    b"!!binary x", b"!!set {a}", b"!!omap [a]",
    b"!!python/object/apply:os.system [a]", b"? ", b"- ", b"|\n",     b"%YAML 9\n",
    b"1:60:60:60", b"2001-99-99", b"'", b"=", b"{a: [", b"---\n", b"...\n", b"!<x> ", b"0x", b"0b",
)  # fmt: skip
_SETTINGS = b"data: mnist-5k\nscheme: inside\nk: 4\nlr: 1e-3\nepochs: 30\nledger: null\n"


def yaml_seeds() -> list[Seed]:
    return [
        Seed((_SETTINGS,), tokens=_YAML),
        Seed((b"data: [a, b]\nmodel: small\n",), tokens=_YAML),
    ]


def toml_seeds() -> list[Seed]:
    return [Seed((b'data = "digits"\nk = 4\nlr = 1e-3\n',))]


def json_seeds() -> list[Seed]:
    return [Seed((json.dumps({"data": "digits", "k": 4, "lr": 0.1, "flip": True}).encode(),))]


@functools.cache
def _challenge() -> tuple[dict[str, bytes], dict[str, bytes]]:
    root = _folder()
    make_challenge(_table(), None, root / "c", root / "t", scheme=Scheme.inside(2), copies=2)
    c, t = ({p.name: p.read_bytes() for p in (root / name).iterdir()} for name in "ct")
    return c, t


def challenge_seeds(name: str, part: int = 0) -> list[Seed]:
    files = dict(_challenge()[part])
    return [
        Seed((files.pop(name),), tokens=npy_tokens() if name.endswith("npy") else (), beside=files)
    ]


def _origin() -> Origin:
    return Origin(Scheme.inside(2), 6, 2, (0.5,) * 3, (0.3,) * 3)


def _imported(form: str, most: int = 4) -> Read:
    def read(folder: Path) -> object:
        Foreign.open(folder, form, _origin())
        return [images.shape for images, _ in _blocks(folder, form, most)]

    return read


@functools.cache
def tar_seeds() -> list[Seed]:
    image, label = _npy(np.ones((3, 8, 8), np.float32)), _npy(np.ones(2, np.float32) / 2)
    members = {}
    for number in range(3):
        members |= {f"{number:012d}.image.npy": image, f"{number:012d}.label.npy": label}
    return [tar_seed(members, "w", npy_tokens())]


@functools.cache
def arrow_seeds() -> list[Seed]:
    from datasets import Array3D, Dataset, Features, List, Value

    folder = _folder()
    features = Features(image=Array3D((3, 8, 8), "float32"), label=List(Value("float32"), length=2))
    values = {"image": np.ones((4, 3, 8, 8), np.float32), "label": np.ones((4, 2), np.float32) / 2}
    Dataset.from_dict(values, features).save_to_disk(folder / "d")
    return [Seed(((path).read_bytes(),)) for path in sorted((folder / "d").glob("*.arrow"))]


@functools.cache
def parquet_seeds() -> list[Seed]:
    import pyarrow
    from pyarrow import parquet

    rows = [[[[1.0] * 8] * 8] * 3] * 4
    table = pyarrow.table({"image": rows, "label": [[0.5, 0.5]] * 4})
    seeds = []
    for compression in ("none", "snappy", "gzip"):
        out = io.BytesIO()
        parquet.write_table(table, out, compression=compression)
        seeds.append(Seed((out.getvalue(),)))
    return seeds


def result_seeds() -> list[Seed]:
    result = Result(
        attack="a", title="t", paper="p", on="rehearsal", point=False, images=1,
        encodings_per_image=1, grants=[], state="done",
    )  # fmt: skip
    return [Seed((result.model_dump_json().encode(),))]


def scheme_seeds() -> list[Seed]:
    return [Seed((scheme.to_json().encode(),)) for scheme in (Scheme.inside(2), Scheme.cross(4))]


def _result(folder: Path) -> object:
    from instahide.audit.session import read_result

    return read_result(folder / "r.json")


READERS: dict[str, Reader] = {
    "image": Reader("i.png", image_seeds, lambda f: decode_file(f / "i.png")),
    "image, resized": Reader("i.png", image_seeds, lambda f: decode_file(f / "i.png", 8)),
    "npz": Reader("a.npz", npz_seeds, lambda f: open_images(f / "a.npz")),
    "npy": Reader("images.npy", npy_seeds, lambda f: open_images(f / "images.npy")),
    "npy labels": Reader("labels.npy", npy_label_seeds, lambda f: open_images(f / "images.npy")),
    "idx": Reader("images-idx3-ubyte", idx_seeds, lambda f: open_images(f / "images-idx3-ubyte")),
    "idx, packed": Reader(
        "images-idx3-ubyte.gz", idx_gz_seeds, lambda f: open_images(f / "images-idx3-ubyte.gz")
    ),
    "cifar names": Reader("batches.meta", cifar_seeds, open_images),
    "cifar batch": Reader("test_batch", cifar_batch_seeds, open_images),
    "cifar archive": Reader("c.tar.gz", cifar_tar_seeds, lambda f: open_images(f / "c.tar.gz")),
    "pool pixels": Reader("pixels.npy", lambda: table_seeds("pixels.npy"), ImageTable.load),
    "pool labels": Reader("labels.npy", lambda: table_seeds("labels.npy"), ImageTable.load),
    "pool facts": Reader("table.json", lambda: table_seeds("table.json"), ImageTable.load),
    "manifest": Reader(
        "m.json", manifest_seeds, lambda f: Manifest.from_json((f / "m.json").read_bytes(), "it")
    ),
    "shard": Reader("shard", shard_seeds, _read_shard),
    "checkpoint": Reader("c", checkpoint_seeds, lambda f: checkpoint.read(f / "c")),
    "network": Reader("n", network_seeds, lambda f: load_network(f / "n")),
    "attack's network": Reader("w", weights_seeds, lambda f: load_encoder(f / "w")),
    "attack's state": Reader(FILE, beliefs_seeds, lambda f: load_beliefs(f, "x")),
    "ledger": Reader("l.sqlite", ledger_seeds, _read_ledger, ("l.sqlite-wal", "l.sqlite-shm")),
    "settings, YAML": Reader("s.yaml", yaml_seeds, lambda f: TrainSettings.load(f / "s.yaml")),
    "settings, TOML": Reader("s.toml", toml_seeds, lambda f: TrainSettings.load(f / "s.toml")),
    "settings, JSON": Reader("s.json", json_seeds, lambda f: TrainSettings.load(f / "s.json")),
    "scheme": Reader(
        "s", scheme_seeds, lambda f: Scheme.from_json((f / "s").read_text("utf-8", "replace"))
    ),
    "challenge": Reader(
        "encryption.npy", lambda: challenge_seeds("encryption.npy"), Challenge.open
    ),
    "challenge labels": Reader("label.npy", lambda: challenge_seeds("label.npy"), Challenge.open),
    "challenge facts": Reader(
        "challenge.json", lambda: challenge_seeds("challenge.json"), Challenge.open
    ),
    "truth": Reader("private.npy", lambda: challenge_seeds("private.npy", 1), ChallengeTruth.open),
    "truth partners": Reader(
        "partners.npy", lambda: challenge_seeds("partners.npy", 1), ChallengeTruth.open
    ),
    "truth facts": Reader(
        "truth.json", lambda: challenge_seeds("truth.json", 1), ChallengeTruth.open
    ),
    "import npy": Reader(
        "encryption.npy", lambda: challenge_seeds("encryption.npy"), _imported("challenge")
    ),
    "import tar": Reader("a.tar", tar_seeds, _imported("webdataset")),
    "import Arrow": Reader("a.arrow", arrow_seeds, _imported("huggingface")),
    "import Parquet": Reader("a.parquet", parquet_seeds, _imported("parquet")),
    "audit result": Reader("r.json", result_seeds, _result),
    "class names": Reader(
        "n.txt",
        lambda: [Seed((b"cat\ndog\nb\xc3\xa4r\n",))],
        lambda f: read_class_list(str(f / "n.txt")),
    ),
}
