"""Image files of strangers: which are opened at all, and what their pixels become."""

from __future__ import annotations

import io
import os
import shutil
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from instahide.data.readers.image_file import FORMATS, decode, decode_file, open_image_file
from instahide.errors import InstaHideError

RNG = np.random.default_rng(5)


def picture(height: int = 20, width: int = 24) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(values: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow writes for grey images only."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    height, width = values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "PPM"])
def test_formats_are_known_by_their_content(tmp_path, kind):
    assert kind in FORMATS
    path = tmp_path / "picture.png"
    picture().save(path, format=kind)
    assert decode(path).shape == (20, 24, 3)


@pytest.mark.parametrize("kind", ["EPS", "ICO", "TGA", "PCX", "PDF", "IM", "SGI", "JPEG2000"])
def test_other_formats_are_refused_whatever_they_are_called(tmp_path, kind):
    content = io.BytesIO()
    picture().save(content, format=kind)
    path = tmp_path / "picture.png"
    path.write_bytes(content.getvalue())
    with pytest.raises(InstaHideError, match="none of PNG"):
        decode(path)


def test_a_postscript_file_called_png_starts_no_program(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    folder = tmp_path / "bin"
    folder.mkdir()
    ghost = folder / "gs"
    ghost.write_text(f"#!/bin/sh\ntouch {ran}\n", encoding="utf-8")
    ghost.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert shutil.which("gs")
    path = tmp_path / "picture.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(InstaHideError):
        decode(path)
    assert not ran.exists()


def test_pipes_sockets_devices_and_folders_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.png"))
        for path in (*tmp_path.iterdir(), Path("/dev/zero")):
            with pytest.raises(InstaHideError, match=r"regular|directory"):
                decode(path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True, "quality": 0, "method": 0}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("JPEG", {}),
    ],
)
def test_what_would_become_far_larger_than_its_file_is_never_decoded(
    tmp_path, monkeypatch, kind, options
):
    path = tmp_path / "bomb.png"
    Image.new("RGB", (3400, 3400)).save(path, format=kind, **options)

    def fail(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(InstaHideError, match="bomb"):
        decode(path)


def test_a_webp_canvas_is_judged_before_memory_is_taken_for_it(tmp_path, monkeypatch):
    head = b"VP8X" + struct.pack("<I", 10) + bytes(4) + 2 * (16_382).to_bytes(3, "little")
    path = tmp_path / "canvas.webp"
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(head)) + b"WEBP" + head)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(InstaHideError, match="bomb"):
        decode(path)


def test_tiles_of_a_tiff_are_no_larger_than_the_image_needs(tmp_path):
    side = 1 << 14
    data = zlib.compress(bytes(side))
    fields = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8,
              325: len(data)}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    directory = struct.pack("<H", len(fields)) + entries + bytes(4)
    path = tmp_path / "tiled.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)
    with pytest.raises(InstaHideError, match="tiles"):
        decode(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF"])
def test_a_truncated_file_is_refused_not_half_grey(tmp_path, monkeypatch, kind):
    path = tmp_path / "cut.png"
    picture(200, 200).save(path, format=kind)
    content = path.read_bytes()
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InstaHideError, match=r"cut\.png"):
            decode(path)
    path.write_bytes(content)
    # Training scripts set it for the whole process.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(InstaHideError, match="LOAD_TRUNCATED_IMAGES"):
        decode(path)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_keeps_its_high_byte_where_all_bits_are_used(tmp_path, kind):
    values = RNG.integers(0, 1 << 16, (20, 24)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png", format=kind)
    np.testing.assert_array_equal(decode(tmp_path / "deep.png"), values >> 8)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("maximum", [256, 1023, 4095, 9999, 65534, 65535])
def test_values_of_a_pgm_file_are_those_that_it_states(tmp_path, maximum, plain):
    """Pillow stretches them to 16 bits: a window of 0 to 4095 would cut nearly all of them off."""
    values = np.resize(np.arange(maximum + 1), (256, -(-(maximum + 1) // 256)))
    texts = " ".join(map(str, values.ravel())).encode()
    content = texts if plain else values.astype(">u2").tobytes()
    height, width = values.shape
    head = b"%s %d %d %d\n" % (b"P2" if plain else b"P5", width, height, maximum)
    (tmp_path / "scan.pgm").write_bytes(head + content)
    found = decode_file(tmp_path / "scan.pgm").pixels
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[0], values)


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_sixteen_bit_colour_is_refused_as_its_low_bytes_would_be_lost(tmp_path, colour):
    values = RNG.integers(0, 4096, (20, 24, {2: 3, 4: 2, 6: 4}[colour]))
    (tmp_path / "deep.png").write_bytes(png(values, colour))
    with pytest.raises(InstaHideError, match="16 bits a channel"):
        decode(tmp_path / "deep.png")


@pytest.mark.parametrize("text", ["P3 2 1 65535 ", "P6 2 1 4095 "])
def test_sixteen_bit_colour_of_a_ppm_is_refused(tmp_path, text):
    body = b"1 2 3 4 5 6 " if text[:2] == "P3" else bytes(12)
    (tmp_path / "deep.ppm").write_bytes(text.encode() + body)
    with pytest.raises(InstaHideError, match="16 bits a channel"):
        decode(tmp_path / "deep.ppm")


@pytest.mark.parametrize("planes", [1, 2])
def test_sixteen_bit_colour_of_a_tiff_is_refused(tmp_path, planes):
    """With planes of their own, Pillow reads such pixels as if they had 8 bits."""
    side, strips = 8, 3 if planes == 2 else 1
    data = RNG.integers(0, 4096, (3, side, side)).astype("<u2").tobytes()
    length = len(data) // strips
    starts = struct.pack(f"<{strips}I", *(8 + n * length for n in range(strips)))
    lengths = struct.pack(f"<{strips}I", *[length] * strips)
    bits = struct.pack("<4H", 16, 16, 16, 0)
    at = 8 + len(data)
    pointers = [at, at + len(bits), at + len(bits) + len(starts)]
    fields = [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, pointers[0]), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, strips, pointers[1] if strips > 1 else 8), (277, 3, 1, 3),
        (278, 4, 1, side), (279, 4, strips, pointers[2] if strips > 1 else length),
        (284, 3, 1, planes),
    ]  # fmt: skip
    directory = struct.pack("<H", len(fields)) + b"".join(
        struct.pack("<HHII", *each) for each in fields
    )
    tables = data + bits + starts + lengths
    begin = b"II*\0" + struct.pack("<I", 8 + len(tables))
    path = tmp_path / "deep.tif"
    path.write_bytes(begin + tables + directory + bytes(4))
    with pytest.raises(InstaHideError, match="16 bits a channel"):
        decode(path)


def test_a_bitmap_of_sixteen_bits_a_pixel_is_read(tmp_path):
    pixels = struct.pack("<4H", 0xF800, 0x07E0, 0x001F, 0xFFFF)
    head = struct.pack("<IiiHHIIiiII", 40, 4, -1, 1, 16, 3, len(pixels), 0, 0, 0, 0)
    masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    offset = 14 + len(head) + len(masks)
    begin = b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset)
    path = tmp_path / "few.bmp"
    path.write_bytes(begin + head + masks + pixels)
    assert decode(path).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3]]


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(mode, "PNG") for mode in ("RGBA", "LA", "P", "RGB", "L")] + [("RGBA", "WEBP")],
)
def test_transparency_is_laid_upon_white(tmp_path, mode, kind):
    image = Image.new("RGBA", (24, 20), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 12, 20))
    options = {}
    if mode in ("RGB", "L"):
        grey = Image.new("L", (24, 20), 9)
        grey.paste(0, (0, 0, 12, 20))
        image, options = grey.convert(mode), {"transparency": 0 if mode == "L" else (0, 0, 0)}
    else:
        image = image.convert(mode)
    image.save(tmp_path / "clear.png", format=kind, **options)
    pixels = decode(tmp_path / "clear.png")
    assert (pixels[:, :12] == 255).all()
    assert (pixels[:, 12:] < 10).all()
    assert pixels.ndim == (2 if mode in ("L", "LA") else 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    picture().save(path, format=kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    right = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    np.testing.assert_array_equal(decode(path), np.asarray(right))


def test_an_opened_image_is_closed(tmp_path):
    picture().save(tmp_path / "a.png")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with open_image_file(tmp_path / "a.png") as image:
        assert image.size == (24, 20)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
