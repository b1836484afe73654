"""Takes files apart and puts them together again with right checksums, for `mutation.Seed`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sqlite3
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.mutation import Seed


def png_seed(content: bytes) -> Seed:
    """A PNG, whose chunks are changed before their checksums are made; IDAT is unpacked."""
    kinds, parts, at = [], [], 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kinds.append(content[at + 4 : at + 8])
        body = content[at + 8 : at + 8 + length]
        parts.append(zlib.decompress(body) if kinds[-1] == b"IDAT" else body)
        at += 12 + length

    def pack(changed: tuple[bytes, ...]) -> bytes:
        out = content[:8]
        for kind, body in zip(kinds, changed, strict=True):
            data = zlib.compress(body, 1) if kind == b"IDAT" else body
            out += struct.pack(">I", len(data)) + kind + data
            out += struct.pack(">I", zlib.crc32(kind + data))
        return out

    return Seed(tuple(parts), pack, (b"IHDR", b"tRNS", b"acTL", b"fcTL", b"iCCP", b"eXIf"))


def zip_seed(members: dict[str, bytes], compression: int) -> Seed:
    """A zip of some members."""
    names = tuple(members)

    def pack(parts: tuple[bytes, ...]) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", compression, compresslevel=1) as archive:
            for name, part in zip(names, parts, strict=True):
                archive.writestr(name, part)
        return out.getvalue()

    return Seed(tuple(members.values()), pack, npy_tokens())


def npy_tokens() -> tuple[bytes, ...]:
    """Parts of the headers of NumPy's files."""
    return (
        b"'descr': '|O'", b"'descr': '<U0'", b"'descr': [('a', '<i4')]", b"'<f8'", b"'>i8'",
        b"'|u1'", b"'<U5'", b"'|S3'", b"'fortran_order': True", b"(1, 2)",
        b"(1099511627776,)", b"(-1, 8, 8)",
        b"(0, 4611686018427387904)", b"()", b"((1,),)", b"(True,)", b"2 ** 99", b"'|b1'",
        b"'<m8[s]'", b"'<c16'", b"'|V4'", b"\x93NUMPY\x03\x00", b"L", b"(((((", b"'''",
    )  # fmt: skip


def gzip_seed(content: bytes, tokens: tuple[bytes, ...] = ()) -> Seed:
    """A file that is changed before it is compressed."""
    return Seed((content,), lambda parts: gzip.compress(parts[0], 1), tokens)


def tar_seed(members: dict[str, bytes], mode: str, tokens: tuple[bytes, ...] = ()) -> Seed:
    """A tar of some members."""
    names = tuple(members)

    def pack(parts: tuple[bytes, ...]) -> bytes:
        out = io.BytesIO()
        options = {"compresslevel": 1} if mode == "w:gz" else {}
        with tarfile.open(fileobj=out, mode=mode, **options) as archive:
            for name, part in zip(names, parts, strict=True):
                member = tarfile.TarInfo(name)
                member.size = len(part)
                archive.addfile(member, io.BytesIO(part))
        return out.getvalue()

    return Seed(tuple(members.values()), pack, tokens)


def safetensors_seed(content: bytes) -> Seed:
    """A safetensors file, whose header has the length that it then has."""
    (length,) = struct.unpack_from("<Q", content)

    def pack(parts: tuple[bytes, ...]) -> bytes:
        return struct.pack("<Q", len(parts[0])) + parts[0] + parts[1]

    tokens = (b'"F8_E4M3"', b'"BOOL"', b'"I64"', b'"F64"', b'"F4"', b'"shape":[]', b"[0,0]",
              b'"__metadata__":{}', b'"U16"', b'"C64"')  # fmt: skip
    return Seed((content[8 : 8 + length], content[8 + length :]), pack, tokens)


def checkpoint_seed(path: Path) -> Seed:
    """A checkpoint, whose tensors and facts are changed before their checksum is made."""
    from safetensors.torch import save

    from instahide.utils.tensor_file import _digest, read_tensors

    tensors, facts = read_tensors(path)

    def pack(parts: tuple[bytes, ...]) -> bytes:
        text = parts[0].decode("utf-8")
        return save(tensors, {"facts": text, "sha256": _digest(tensors, text)})

    return Seed((json.dumps(facts).encode(),), pack)


def manifest_seed(content: bytes) -> Seed:
    """A manifest with a right checksum."""
    body = content.rpartition(b",")[0]

    def pack(parts: tuple[bytes, ...]) -> bytes:
        digest = hashlib.sha256(parts[0]).hexdigest()
        return parts[0] + f',\n "checksum": "{digest}"\n}}\n'.encode()

    return Seed((body,), pack)


def ledger_seed(path: Path, crc: Callable[[list[object]], int]) -> Seed:
    """A ledger, whose values are changed row by row, with the checksums of the forged rows."""
    content = path.read_bytes()
    with sqlite3.connect(path) as connection:
        tables = ("state", "hashes", "totals", "takes")
        rows = [(t, r) for t in tables for r in connection.execute(f"SELECT * FROM {t}")]  # noqa: S608
    connection.close()
    cells = [(t, list(r[:-1]), at) for t, r in rows for at in range(len(r) - 1)]

    def pack(parts: tuple[bytes, ...]) -> bytes:
        with tempfile.NamedTemporaryFile(dir=path.parent) as file:
            Path(file.name).write_bytes(content)
            with sqlite3.connect(file.name, isolation_level=None) as changed:
                changed.execute("PRAGMA journal_mode = DELETE")
                changed.execute("PRAGMA synchronous = OFF")
                for (table, values, at), part in zip(cells, parts, strict=True):
                    if part != _plain(values[at]):
                        _forge(changed, table, values, at, part, crc)
            changed.close()
            return Path(file.name).read_bytes()

    return Seed(tuple(_plain(values[at]) for _, values, at in cells), pack)


def _plain(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _forge(
    connection: sqlite3.Connection,
    table: str,
    values: list[object],
    at: int,
    part: bytes,
    crc: Callable[[list[object]], int],
) -> None:
    kinds: tuple[Callable[[bytes], object], ...] = (int, float, lambda text: text.decode("utf-8"))
    new: object = part
    if not isinstance(values[at], bytes):
        for kind in kinds:
            try:
                new = kind(part)
                break
            except ValueError:
                continue
    forged = [*values[:at], new, *values[at + 1 :]]
    marks = ", ".join("?" * (len(forged) + 1))
    connection.execute(f"DELETE FROM {table} WHERE rowid = (SELECT min(rowid) FROM {table})")  # noqa: S608
    try:
        row = [*forged, crc(forged)]
        connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)  # noqa: S608
    except (sqlite3.Error, OverflowError, TypeError, ValueError):
        return
