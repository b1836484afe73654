"""Every reader of files that others wrote, with files that it accepts."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import torch

from instahide.attacks.reconstruction.pair_encoder.network import (
    PairEncoder,
    load_encoder,
    save_encoder,
)
from instahide.attacks.reconstruction.state import FILE, AttackState, load_state, save_state
from instahide.audit.challenge.challenge import Challenge, ChallengeTruth
from instahide.audit.challenge.facts import digest
from instahide.audit.challenge.leaderboard import enter, entry, read_leaderboard
from instahide.audit.challenge.making import make_challenge
from instahide.audit.challenge.score import ChallengeScore
from instahide.audit.challenge.submission import Submission, SubmissionFacts, write_submission
from instahide.audit.report.schema import AttackResult
from instahide.data.class_names import read_class_list
from instahide.encodings.convert.importer import ExternalEncodings, Provenance, _blocks
from instahide.encodings.folder import EncodedFolder
from instahide.encodings.ledger.ledger import Ledger
from instahide.encodings.ledger.schema import _crc
from instahide.encodings.manifest import Manifest
from instahide.encodings.publish import Publication, publish, threads
from instahide.encryption.scheme import Scheme
from instahide.training.models import build
from instahide.training.models.model_io import NetworkCard, load_network, save_network
from instahide.training.settings import TrainSettings
from instahide.utils.atomic_write import read_regular
from instahide.utils.tensor_file import read_tensors, write_tensors
from tests.fuzz.image_readers import IMAGE_READERS
from tests.fuzz.making import Read, Reader, new_folder, npy_bytes, small_table
from tests.fuzz.medical_readers import MEDICAL_READERS
from tests.fuzz.mutation import Seed
from tests.fuzz.packing import (
    checkpoint_seed,
    ledger_seed,
    manifest_seed,
    npy_tokens,
    safetensors_seed,
    tar_seed,
)


@functools.cache
def _encoded() -> dict[str, bytes]:
    root = new_folder()
    with Ledger.open(root / "ledger.sqlite") as ledger:
        scheme = Scheme.inside(2)
        publish(
            Publication(small_table(), None, scheme, 1), str(root / "out"), ledger, engine=threads
        )
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
    # Length and checksum in the manifest are right, as a forger would make them.
    (path,) = folder.glob("shard")
    text = json.loads(_encoded()["manifest.json"])
    text["shards"][0]["bytes"] = path.stat().st_size
    text["shards"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    body = json.dumps({k: v for k, v in text.items() if k != "checksum"}).removesuffix("}").encode()
    (folder / "manifest.json").write_bytes(manifest_seed(body + b",").pack((body,)))
    path.replace(folder / text["shards"][0]["name"])
    opened = EncodedFolder.open(folder)
    opened.shard(0)
    return opened.verify()


@functools.cache
def checkpoint_seeds() -> list[Seed]:
    path = new_folder() / "c.safetensors"
    write_tensors(path, {"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.int64)}, {"n": 1})
    return [checkpoint_seed(path), safetensors_seed(path.read_bytes())]


@functools.cache
def network_seeds() -> list[Seed]:
    path = new_folder() / "n.safetensors"
    model = build("small", 1, 2, sign_invariant=True)
    card = NetworkCard(
        "small", True, (1, 8, 8), ("a", "b"), (0.5,), (0.2,), Scheme.inside(2).to_json()
    )
    save_network(path, model, card)
    return [checkpoint_seed(path)]


@functools.cache
def weights_seeds() -> list[Seed]:
    path = new_folder() / "w.safetensors"
    save_encoder(path, PairEncoder(1))
    return [safetensors_seed(path.read_bytes())]


@functools.cache
def state_seeds() -> list[Seed]:
    folder = new_folder()
    state = AttackState(
        torch.ones(2, 3), torch.ones(4, 2), torch.zeros(4, 2, dtype=torch.int64), torch.ones(4, 2)
    )
    save_state(folder, state, "x")
    return [checkpoint_seed(folder / FILE), safetensors_seed((folder / FILE).read_bytes())]


@functools.cache
def ledger_seeds() -> list[Seed]:
    path = new_folder() / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        publish(
            Publication(small_table(), None, Scheme.inside(2), 1),
            str(path.parent / "o"),
            ledger,
            engine=threads,
        )
        account = ledger.account(small_table(), limit=None, scheme=Scheme.inside(2))
        del account
    return [ledger_seed(path, _crc), Seed((path.read_bytes(),))]


def _read_ledger(folder: Path) -> object:
    with Ledger.open(folder / "l.sqlite") as ledger:
        ledger.totals()
        return ledger.totals(small_table())


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
    root = new_folder()
    make_challenge(small_table(), None, root / "c", root / "t", encoder=Scheme.inside(2), copies=2)
    c, t = ({p.name: p.read_bytes() for p in (root / name).iterdir()} for name in "ct")
    return c, t


def challenge_seeds(name: str, part: int = 0) -> list[Seed]:
    """The file ``name`` of a challenge, or of its truth, beside the others."""
    files = dict(_challenge()[part])
    changed, tokens = files.pop(name), npy_tokens() if name.endswith("npy") else ()
    return [Seed((changed,), tokens=tokens, beside=files)]


#: Largest file that is forged, in bytes.
MOST_FORGED = 1 << 24


def _as_forged(facts: str, read: Read) -> Read:
    """Reads a folder after all hashes were made to fit what is there, as a forger would."""

    def forged(folder: Path) -> object:
        try:
            plain = json.loads(read_regular(folder / facts, MOST_FORGED))
            for name in plain["files"]:
                data = read_regular(folder / name, MOST_FORGED)
                plain["files"][name] = hashlib.sha256(data).hexdigest()
            (folder / facts).write_text(json.dumps({**plain, "sha256": digest(plain)}))
        except (ValueError, TypeError, KeyError, OSError, RecursionError):
            pass  # It is read as it is.
        return read(folder)

    return forged


@functools.cache
def submission_seeds(name: str) -> list[Seed]:
    facts = SubmissionFacts(challenge="0" * 64, attack="a", version="1")
    folder = new_folder() / "s"
    write_submission(folder, facts, np.zeros((4, 8, 8, 3), np.float32))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed, tokens = files.pop(name), npy_tokens() if name.endswith("npy") else ()
    return [Seed((changed,), tokens=tokens, beside=files)]


@functools.cache
def leaderboard_seeds() -> list[Seed]:
    path = new_folder() / "board.csv"
    score = ChallengeScore(*[0.5] * 9, images_recovered=3)
    for attack in ("a", "=b"):
        enter(path, entry(SubmissionFacts(challenge="0" * 64, attack=attack, version="1"), score))
    enter(path, entry(SubmissionFacts(challenge="0" * 64, attack="c", version="1"), None, "why"))
    return [Seed((path.read_bytes(),))]


def _origin() -> Provenance:
    return Provenance(Scheme.inside(2), 6, 2, (0.5,) * 3, (0.3,) * 3)


def _imported(form: str, most: int = 4) -> Read:
    def read(folder: Path) -> object:
        ExternalEncodings.open(folder, form, _origin())
        return [images.shape for images, _ in _blocks(folder, form, most)]

    return read


@functools.cache
def tar_seeds() -> list[Seed]:
    image, label = npy_bytes(np.ones((3, 8, 8), np.float32)), npy_bytes(np.ones(2, np.float32) / 2)
    members = {}
    for number in range(3):
        members |= {f"{number:012d}.image.npy": image, f"{number:012d}.label.npy": label}
    return [tar_seed(members, "w", npy_tokens())]


@functools.cache
def arrow_seeds() -> list[Seed]:
    from datasets import Array3D, Dataset, Features, List, Value

    folder = new_folder()
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
    result = AttackResult(
        attack="a", title="t", paper="p", on="rehearsal", point=False, images=1,
        encodings_per_image=1, grants=[], state="done",
    )  # fmt: skip
    return [Seed((result.model_dump_json().encode(),))]


def scheme_seeds() -> list[Seed]:
    return [Seed((scheme.to_json().encode(),)) for scheme in (Scheme.inside(2), Scheme.cross(4))]


def _result(folder: Path) -> object:
    from instahide.audit.session import read_result

    return read_result(folder / "r.json")


_FORGED_CHALLENGE = _as_forged("challenge.json", Challenge.open)
_FORGED_TRUTH = _as_forged("truth.json", ChallengeTruth.open)

READERS: dict[str, Reader] = {
    **IMAGE_READERS,
    **MEDICAL_READERS,
    "manifest": Reader(
        "m.json", manifest_seeds, lambda f: Manifest.from_json((f / "m.json").read_bytes(), "it")
    ),
    "shard": Reader("shard", shard_seeds, _read_shard),
    "checkpoint": Reader("c", checkpoint_seeds, lambda f: read_tensors(f / "c")),
    "network": Reader("n", network_seeds, lambda f: load_network(f / "n")),
    "attack's network": Reader("w", weights_seeds, lambda f: load_encoder(f / "w")),
    "attack's state": Reader(FILE, state_seeds, lambda f: load_state(f, "x")),
    "ledger": Reader("l.sqlite", ledger_seeds, _read_ledger, ("l.sqlite-wal", "l.sqlite-shm")),
    "settings, YAML": Reader("s.yaml", yaml_seeds, lambda f: TrainSettings.load(f / "s.yaml")),
    "settings, TOML": Reader("s.toml", toml_seeds, lambda f: TrainSettings.load(f / "s.toml")),
    "settings, JSON": Reader("s.json", json_seeds, lambda f: TrainSettings.load(f / "s.json")),
    "scheme": Reader(
        "s", scheme_seeds, lambda f: Scheme.from_json((f / "s").read_text("utf-8", "replace"))
    ),
    "challenge": Reader(
        "encryption.npy", lambda: challenge_seeds("encryption.npy"), _FORGED_CHALLENGE
    ),
    "challenge labels": Reader(
        "label.npy", lambda: challenge_seeds("label.npy"), _FORGED_CHALLENGE
    ),
    "challenge facts": Reader(
        "challenge.json", lambda: challenge_seeds("challenge.json"), Challenge.open
    ),
    "challenge facts, forged": Reader(
        "challenge.json", lambda: challenge_seeds("challenge.json"), _FORGED_CHALLENGE
    ),
    "truth": Reader("private.npy", lambda: challenge_seeds("private.npy", 1), _FORGED_TRUTH),
    "truth partners": Reader(
        "partners.npy", lambda: challenge_seeds("partners.npy", 1), _FORGED_TRUTH
    ),
    "truth facts": Reader(
        "truth.json", lambda: challenge_seeds("truth.json", 1), ChallengeTruth.open
    ),
    "truth facts, forged": Reader(
        "truth.json", lambda: challenge_seeds("truth.json", 1), _FORGED_TRUTH
    ),
    "submission": Reader(
        "decryption.npy", lambda: submission_seeds("decryption.npy"), Submission.open
    ),
    "submission facts": Reader(
        "submission.json", lambda: submission_seeds("submission.json"), Submission.open
    ),
    "leaderboard": Reader("b.csv", leaderboard_seeds, lambda f: read_leaderboard(f / "b.csv")),
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
