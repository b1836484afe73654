"""What a manifest promises, whoever wrote it."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from instahide import InstaHideError, Scheme
from instahide.encodings.manifest import MOST_BYTES, Manifest, Shard
from instahide.encodings.storage import plain_name
from tests.encodings.conftest import manifest_of, private_images

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCHEMA = DOCS / "manifest.schema.json"
#: Fields of each version of the format; those of a released version never change.
FIELDS = {
    1: {
        "": {
            "checksum", "classes", "copies", "created", "data_set_key", "encoder", "ended",
            "format", "image_shape", "library", "limited", "max_quantization_error", "mean",
            "participant", "private_images", "publication", "scheme", "shape", "shards", "std",
            "task", "value_range", "values",
        },
        "shards": {"bytes", "encodings", "name", "sha256"},
        "scheme": {
            "c1", "c2", "coefficient_distribution", "k", "label_mode", "mask",
            "min_self_coefficient", "noise", "private_k",
        },
    },
}  # fmt: skip
#: Bytes of a manifest of no shards.
EACH = 36 * 2 + 3 * 4


def shard(number: int, encodings: int = 2) -> Shard:
    return Shard(
        name=f"{number:016x}.safetensors", encodings=encodings, bytes=encodings * EACH + 200,
        sha256=f"{number:064x}",
    )  # fmt: skip


def manifest(**facts: Any) -> Manifest:
    known = {"shards": (shard(1), shard(2)), "participant": "Ärzte & co", **facts}
    return manifest_of(private_images(12), Scheme.cross(4), **known)


def values(**changes: Any) -> dict[str, Any]:
    """The fields of a manifest without the checksum."""
    found: dict[str, Any] = json.loads(manifest().to_json())
    del found["checksum"]
    return found | changes


def sealed(text: str) -> bytes:
    """What an attacker makes of the JSON object ``text``: a manifest with a right checksum."""
    body = text.rstrip().removesuffix("}").rstrip().encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(body).hexdigest()
    return body + f',\n "checksum": "{digest}"\n}}\n'.encode()


def opened(text: bytes) -> Manifest:
    return Manifest.from_json(text, "a folder")


def test_what_is_written_is_read() -> None:
    written = manifest(ended="limit")
    assert opened(written.to_json()) == written
    found = values()
    assert opened(sealed(json.dumps(found))) == opened(sealed(json.dumps(found, indent=3)))


def test_the_checksum_is_that_of_everything_before_the_last_comma() -> None:
    text = manifest().to_json()
    digest = hashlib.sha256(text[: text.rindex(b",")]).hexdigest()
    assert json.loads(text)["checksum"] == digest == opened(text).checksum
    assert list(json.loads(text))[-1] == "checksum"


def test_every_flipped_bit_is_found() -> None:
    text = bytearray(manifest().to_json())
    for place in range(8 * len(text)):
        text[place // 8] ^= 1 << place % 8
        with pytest.raises(InstaHideError):
            opened(bytes(text))
        text[place // 8] ^= 1 << place % 8
    opened(bytes(text))


@pytest.mark.parametrize("changed", [b" %s", b"%s ", b"%s\n", b"\xef\xbb\xbf%s"])
def test_every_added_byte_is_found(changed: bytes) -> None:
    with pytest.raises(InstaHideError):
        opened(changed % manifest().to_json())


def test_every_cut_is_found() -> None:
    text = manifest().to_json()
    for length in range(len(text)):
        with pytest.raises(InstaHideError):
            opened(text[:length])


@pytest.mark.parametrize("more", [{}, {"scheme": "of another kind", "news": [1]}])
def test_a_newer_version_asks_for_an_upgrade(more: dict[str, Any]) -> None:
    with pytest.raises(InstaHideError, match=r"newer version.*format 2.*pip install --upgrade"):
        opened(sealed(json.dumps(values(format=2, **more))))


def test_a_new_field_needs_a_new_version() -> None:
    written = json.loads(manifest().to_json())
    assert FIELDS[written["format"]] == {
        "": written.keys(), "shards": written["shards"][0].keys(),
        "scheme": written["scheme"].keys(),
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"news": 1},
        {"shards": [{**values()["shards"][0], "news": 1}]},
        {"scheme": {**values()["scheme"], "news": 1}},
    ],
)
def test_an_unknown_field_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InstaHideError, match=r"\bnews\b|unknown fields"):
        opened(sealed(json.dumps(values(**changes))))


def test_a_field_with_a_default_may_be_missing() -> None:
    known = values()
    del known["encoder"], known["limited"]
    read = opened(sealed(json.dumps(known)))
    assert (read.encoder, read.limited) == ("instahide", False)
    del known["value_range"]
    with pytest.raises(InstaHideError, match="value_range"):
        opened(sealed(json.dumps(known)))


CLIMBING = [
    "../../etc/passwd", "/etc/passwd", "..", "a/b.safetensors", "0123456789abcdef.safetensors/..",
    "0123456789abcde\0.safetensors", "", "manifest.json", ".lock", "0123456789ABCDEF.safetensors",
    "0123456789abcdef.safetensors\n", "C:\\x.safetensors", "0123456789abcdef.SAFETENSORS",
]  # fmt: skip


@pytest.mark.parametrize("name", CLIMBING)
def test_a_shard_has_no_name_that_leads_elsewhere(name: str) -> None:
    climbing = {**values()["shards"][0], "name": name}
    with pytest.raises(InstaHideError, match=r"shards\.0\.name"):
        opened(sealed(json.dumps(values(shards=[climbing]))))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mean": [math.nan]}, "mean"),
        ({"std": [math.inf]}, "std"),
        ({"std": [-1.0]}, "not positive"),
        ({"std": [1e-300]}, "beyond float32"),
        ({"std": [1e300]}, "too large for pixels"),
        ({"mean": [5.0]}, "mean of 5 is impossible"),
        ({"mean": [-0.1]}, "mean of -0.1 is impossible"),
        ({"scheme": {"noise": 1e-300}}, "noise = 1e-300 is out of range"),
        ({"scheme": {"noise": 1e30}}, "noise = 1e+30 is out of range"),
        ({"mean": [0.5, 0.5]}, "one value a channel"),
        ({"max_quantization_error": -1.0}, "max_quantization_error"),
        ({"max_quantization_error": 1e9}, "above every value"),
        ({"shape": [1, 0, 6]}, "shape"),
        ({"shape": [1, 1 << 40, 1 << 40]}, "do not make"),
        ({"shape": [1, 10**40, 6]}, "shape"),
        ({"private_images": 0}, "private_images"),
        ({"private_images": True}, "private_images"),
        ({"private_images": "12"}, "private_images"),
        ({"private_images": 1}, "hold 4 encodings"),
        ({"ended": "all"}, "hold 4 encodings"),
        ({"ended": "limit", "shards": []}, "holds nothing"),
        ({"classes": ["cat", "cat"]}, "one name"),
        ({"classes": ["cat"]}, "classes"),
        ({"classes": ["cat", "\x1b[2J"]}, "classes"),
        ({"participant": "\x9b31m"}, "participant"),
        ({"participant": "x" * 201}, "participant"),
        ({"publication": "../x"}, "publication"),
        ({"values": "float64"}, "values"),
        ({"scheme": {"k": 10**9}}, "k = 1000000000.0"),
        ({"scheme": {"k": 10**400}}, "scheme"),
        ({"scheme": {"c1": math.nan}}, "scheme"),
        ({"scheme": {"c2": 1e308}}, "c2"),
        ({"scheme": {"k": [4]}}, "scheme"),
        ({"scheme": {"label_mode": "loud"}}, "not a label mode"),
        ({"scheme": {"k": 2, "c1": 0.5}}, "c1"),
        ({"scheme": {"seed": 7}}, "unknown fields"),
        ({"scheme": {"c1": "0.65"}}, "c1"),
        ({"scheme": None}, "scheme"),
        ({"seed": 7}, "seed"),
        ({"shards": {}}, "shards"),
        ({"shards": [{}]}, "shards"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InstaHideError, match=re.escape(said)):
        opened(sealed(json.dumps(values(**changes))))


@pytest.mark.parametrize("format_", [0, -1, True, None, 1.0, "1", 1 << 40, [1]])
def test_a_version_is_a_number(format_: object) -> None:
    with pytest.raises(InstaHideError):
        opened(sealed(json.dumps(values(format=format_))))


def test_what_two_readers_could_take_for_two_things_is_refused() -> None:
    text = json.dumps(values())
    for twice in ('{"copies": 1, ', '{"copies": 2, '):
        with pytest.raises(InstaHideError, match="twice"):
            opened(sealed(twice + text.removeprefix("{")))
    with pytest.raises(InstaHideError, match="checksum"):
        opened(manifest().to_json().replace(b'"checksum"', b'"Checksum"'))


@pytest.mark.parametrize("encodings", [0, 5, 1 << 47])
def test_a_shard_claims_no_more_than_its_bytes_hold(encodings: int) -> None:
    claim = {**values()["shards"][0], "encodings": encodings}
    with pytest.raises(InstaHideError):
        opened(sealed(json.dumps(values(shards=[claim], private_images=1 << 47))))


def test_a_shard_hides_nothing_beside_its_encodings() -> None:
    claim = values()["shards"][0]
    claim["bytes"] = claim["encodings"] * EACH + 1025
    with pytest.raises(InstaHideError, match="do not make"):
        opened(sealed(json.dumps(values(shards=[claim]))))


def test_no_shard_is_there_twice() -> None:
    with pytest.raises(InstaHideError, match="named twice"):
        opened(sealed(json.dumps(values(shards=2 * values()["shards"][:1]))))


FLOODS = {
    "no JSON": "[" * 100_000,
    "deep": json.dumps(values()).replace('"scheme": {', '"scheme": ' + '{"a":' * 50_000),
    "deep and closed": "[" * 50_000 + "]" * 50_000,
    "digits": json.dumps(values()).replace('"copies": 1', '"copies": ' + "9" * 100_000),
    "exponent": json.dumps(values()).replace('"copies": 1', '"copies": 1e999'),
    "fields": json.dumps(values() | {f"{number:x}": 1 for number in range(20_000)}),
    "classes": json.dumps(values(classes=[1] * 50_000)),
    "shards": json.dumps(values(shards=[{}] * 50_000)),
    "parameters": json.dumps(values(scheme={f"{number:x}": [] for number in range(20_000)})),
    "lists": json.dumps(values(scheme={"k": [[]] * 20_000})),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_refused_in_little_memory(flood: str) -> None:
    text = sealed(FLOODS[flood])
    tracemalloc.start()
    try:
        with pytest.raises(InstaHideError) as refused:
            opened(text)
        assert tracemalloc.get_traced_memory()[1] < 100 * len(text) + (1 << 20)
    finally:
        tracemalloc.stop()
    assert len(str(refused.value)) < 500


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from([*CLIMBING, 2**63, 10**400, "\x1b[31m", "a" * 300]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_is_read_is_bounded(data: st.DataObject) -> None:
    found = values()
    holders = (found, found["scheme"], found["shards"][0])
    places = st.sampled_from([(holder, name) for holder in holders for name in holder])
    for _ in range(data.draw(st.integers(1, 3))):
        holder, name = data.draw(places)
        holder[name] = data.draw(ANYTHING)
    try:
        read = opened(sealed(json.dumps(found)))
    except InstaHideError as error:
        said = str(error)
    else:
        said = ""
        require_bounded(read)
    assert said == "" or said.isprintable()


def require_bounded(read: Manifest) -> None:
    assert len(read) * read.bytes_each <= sum(each.bytes for each in read.shards)
    assert all(plain_name(each.name, "a folder") == each.name for each in read.shards)
    assert math.isfinite(read.max_abs)
    assert read.encryption().k <= 100
    assert opened(read.to_json()) == read


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(InstaHideError):
        opened(content)


def test_a_manifest_that_nobody_could_read_is_not_written() -> None:
    classes = tuple(f"{number:0200}" for number in range(MOST_BYTES // 200))
    large = manifest(shards=(), classes=classes)
    with pytest.raises(InstaHideError, match="Shorten the names"):
        large.to_json()


def test_the_schema_in_the_docs_is_that_of_the_manifest() -> None:
    assert json.loads(SCHEMA.read_text()) == schema(), (
        "Write it anew, as docs/format.md says at its end."
    )


def schema() -> dict[str, Any]:
    return Manifest.model_json_schema(mode="serialization")


def test_manifests_keep_to_the_schema() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    for ended in ("limit", None):
        validator.validate(json.loads(manifest(ended=ended).to_json()))
    for changes in ({"seed": 7}, {"publication": "../x"}, {"shape": [1, 6]}, {"shards": [{}]}):
        with pytest.raises(ValidationError):
            validator.validate({**json.loads(manifest().to_json()), **changes})


def test_the_page_names_every_field() -> None:
    page = (DOCS / "format.md").read_text()
    fields = schema()["properties"] | schema()["$defs"]["Shard"]["properties"]
    for name, facts in fields.items():
        assert f"| `{name}` | {facts['description']}" in page
