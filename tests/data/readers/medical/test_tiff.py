"""TIFF files with channels, slices, 16 bits and floats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from instahide.data import open_images
from instahide.data.readers.any_image import read_image
from instahide.data.readers.medical.tiff import is_plain_tiff
from instahide.errors import InstaHideError

tifffile = pytest.importorskip("tifffile")

TYPES = ["uint8", "uint16", "int16", "float32"]
OTHER_TYPES = ["bool", "int8", "int32", "uint32", "float16", "float64"]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    axes=st.sampled_from(["YX", "CYX", "ZYX", "ZCYX", "CZYX"]),
    dtype=st.sampled_from(TYPES),
    ome=st.booleans(),
    compression=st.sampled_from([None, "zlib", "lzw"]),
    seed=st.integers(0, 9),
)
def test_every_axis_and_type_is_kept(tmp_path, axes, dtype, ome, compression, seed):
    sizes = {"C": 5, "Z": 4, "Y": 9, "X": 7}
    values = np.random.default_rng(seed).normal(60, 9, [sizes[a] for a in axes]).astype(dtype)
    path = tmp_path / ("a.ome.tif" if ome else "a.tif")
    tifffile.imwrite(
        path, values, ome=ome, photometric="minisblack", metadata={"axes": axes},
        compression=compression,
    )  # fmt: skip
    pixels = read_image(path).pixels
    order = [axes.index(a) for a in "CZYX" if a in axes]
    expected = tifffile.imread(path).transpose(order)
    expected = expected if "C" in axes else expected[None]
    assert pixels.dtype == dtype
    np.testing.assert_array_equal(pixels, expected)


def test_sixteen_bit_color(tmp_path):
    values = np.random.default_rng(0).integers(0, 60000, (9, 7, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    decoded = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(decoded.pixels, values.transpose(2, 0, 1))


@pytest.mark.parametrize("metadata", [None, {}])
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("dtype", TYPES + OTHER_TYPES)
def test_one_grey_page_has_the_values_of_the_file(tmp_path, dtype, byteorder, metadata):
    values = np.random.default_rng(0).integers(-100, 100, (9, 7))
    values = (abs(values) if dtype[0] in "bu" else values).astype(dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", values, byteorder=byteorder, metadata=metadata, photometric="minisblack"
    )
    pixels = read_image(tmp_path / "a.tif").pixels
    # Pillow reads one bit as black and white in 8 bits.
    expected = values * np.uint8(255) if dtype == "bool" and pixels.max() == 255 else values
    np.testing.assert_array_equal(pixels, expected[None])


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("further", range(4))
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16"])
def test_every_band_is_kept(tmp_path, dtype, photometric, further, planarconfig):
    bands = further + (3 if photometric == "rgb" else 1)
    values = np.random.default_rng(0).integers(0, 100, (bands, 9, 7)).astype(dtype)
    stored = values if planarconfig == "separate" else values.transpose(1, 2, 0)
    layout = {"planarconfig": planarconfig, "extrasamples": ["unspecified"] * further}
    tifffile.imwrite(
        tmp_path / "a.tif", stored if bands > 1 else values[0], metadata=None,
        photometric=photometric, **(layout if bands > 1 else {}),
    )  # fmt: skip
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, values)


@pytest.mark.parametrize("alpha", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("opacity", [0, 255])
def test_transparency_of_eight_bits_is_blended_with_white(tmp_path, alpha, opacity):
    values = np.full((9, 7, 4), min(opacity, 60), np.uint8)
    values[..., 3] = opacity
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="rgb", extrasamples=[alpha], metadata=None
    )
    pixels = read_image(tmp_path / "a.tif").pixels
    np.testing.assert_array_equal(pixels, np.full((3, 9, 7), 60 if opacity else 255))


def test_a_band_beside_transparency_is_not_dropped(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((9, 7, 5), np.uint8), photometric="rgb", metadata=None,
        extrasamples=["unassalpha", "unspecified"],
    )  # fmt: skip
    with pytest.raises(InstaHideError, match="transparency"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_pillow_reads_the_plain_modes_that_it_writes(tmp_path, mode):
    compression = "jpeg" if mode == "YCbCr" else None
    Image.new(mode, (8, 8)).save(tmp_path / "a.tif", compression=compression)
    assert is_plain_tiff(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").pixels.shape[1:] == (8, 8)


def test_five_channels_make_a_table(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "cells" / name).mkdir(parents=True)
        values = np.random.default_rng(ord(name)).integers(0, 4096, (5, 9, 7)).astype(np.uint16)
        tifffile.imwrite(
            tmp_path / "cells" / name / "0.tif", values, metadata={"axes": "CYX"},
            photometric="minisblack",
        )  # fmt: skip
    assert open_images(tmp_path / "cells", progress=False).shape == (5, 9, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metadata": None}, "its axes are IYX"),
        ({"metadata": {"axes": "TYX"}}, "its axes are TYX"),
        ({"metadata": {"axes": "CYX"}, "photometric": "miniswhite"}, "0 is white"),
        (
            {"metadata": {"axes": "CYX"}, "extratags": [(274, 3, 1, 6, False)]},
            "turned or mirrored",
        ),
    ],
)
def test_what_could_be_read_wrongly_is_refused(tmp_path, options, message):
    values = np.zeros((5, 9, 7), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, **{"photometric": "minisblack", **options})
    with pytest.raises(InstaHideError, match=message):
        read_image(tmp_path / "a.tif")


def test_transparency_of_sixteen_bits_is_refused(tmp_path):
    values = np.zeros((9, 7, 4), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(InstaHideError, match="transparency"):
        read_image(tmp_path / "a.tif")


def test_a_large_declared_size_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.zeros((5, 4000, 4000), np.uint16), compression="zlib",
        metadata={"axes": "CYX"}, photometric="minisblack",
    )  # fmt: skip
    with pytest.raises(InstaHideError, match="bomb"):
        read_image(path)


def test_other_files_that_ome_names_are_not_opened(tmp_path, monkeypatch):
    values = np.arange(2 * 9 * 7, dtype=np.uint16).reshape(2, 9, 7)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path, values, metadata={"axes": "CYX"}, photometric="minisblack",
        description=_names_another_file(),
    )  # fmt: skip
    tifffile.imwrite(tmp_path / "secret.tif", values + 1000)
    try:
        pixels = read_image(path).pixels
    except InstaHideError:
        return
    assert pixels.max() < 1000


def _names_another_file() -> str:
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:1"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        'Type="uint16" SizeX="7" SizeY="9" SizeC="2" SizeZ="1" SizeT="1">'
        '<TiffData IFD="0" FirstC="1"><UUID FileName="secret.tif">urn:uuid:2</UUID></TiffData>'
        '<TiffData IFD="0" FirstC="0"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )


def test_scikit_image_ships_pages_without_axes():
    skimage = pytest.importorskip("skimage")
    from pathlib import Path

    path = Path(skimage.__file__).parent / "data" / "multipage.tif"
    with pytest.raises(InstaHideError, match="its axes are"):
        read_image(path)
