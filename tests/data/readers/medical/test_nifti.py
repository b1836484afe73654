"""NIfTI volumes: orientation, values and sizes."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instahide.data import open_images
from instahide.data.readers.any_image import read_image
from instahide.errors import InstaHideError

nibabel = pytest.importorskip("nibabel")

FILES = Path(nibabel.__file__).parent / "tests" / "data"


def expected_of(path: Path) -> np.ndarray:
    """(Z, Y, X) or (C, Z, Y, X) of the closest canonical image."""
    return nibabel.as_closest_canonical(nibabel.load(path)).get_fdata().T


@pytest.mark.parametrize(
    "name",
    ["anatomical.nii", "functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz",
     "reoriented_anat_moved.nii", "standard.nii.gz"],
)  # fmt: skip
def test_files_of_nibabel_have_its_values(name):
    pixels = read_image(FILES / name).pixels
    expected = expected_of(FILES / name)
    expected = expected if expected.ndim == 4 else expected[None]
    np.testing.assert_array_equal(pixels, expected.astype(pixels.dtype))
    assert pixels.dtype in (np.uint8, np.uint16, np.int16, np.float32)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    order=st.permutations([0, 1, 2]),
    signs=st.tuples(*[st.sampled_from([-2.0, 1.5])] * 3),
    dtype=st.sampled_from(["u1", "i1", "u2", "i2", "f4", "f8"]),
    scaling=st.sampled_from([(1, 0), (2, -5), (0.5, 3)]),
    channels=st.sampled_from([0, 3]),
    second=st.booleans(),
)
def test_every_orientation_comes_to_one(tmp_path, order, signs, dtype, scaling, channels, second):
    shape = (3, 4, 5, channels) if channels else (3, 4, 5)
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    affine = np.zeros((4, 4))
    affine[order, range(3)] = signs
    affine[3, 3] = 1
    image = (nibabel.Nifti2Image if second else nibabel.Nifti1Image)(values, affine)
    image.header.set_data_dtype(dtype)
    path = tmp_path / "a.nii.gz"
    content = bytearray(image.to_bytes())
    at = 176 if second else 112
    kind = "<f8" if second else "<f4"
    scale = np.asarray(scaling, kind).tobytes()
    content[at : at + len(scale)] = scale
    path.write_bytes(gzip.compress(bytes(content)))
    pixels = read_image(path).pixels
    expected = expected_of(path)
    expected = expected if channels else expected[None]
    np.testing.assert_array_equal(pixels, expected.astype(np.float32))
    if scaling == (1, 0) and dtype in ("u1", "u2", "i2", "f4"):
        assert pixels.dtype == np.dtype(dtype)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (3, 4, 5, 2)])
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize(("qform", "sform"), [(0, 0), (-1, 0), (1, 0), (0, 1), (2, 4)])
def test_only_a_stated_orientation_is_read(tmp_path, qform, sform, second, shape):
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    image = kind(values, np.diag([-2, 2, 2, 1]))
    image.set_qform(image.affine, 1)
    content = image.to_bytes()
    # An image corrects its header when it is saved.
    header = kind.header_class.from_fileobj(io.BytesIO(content))
    header["qform_code"], header["sform_code"] = qform, sform
    path = tmp_path / "a.nii"
    path.write_bytes(header.binaryblock + content[len(header.binaryblock) :])
    if max(qform, sform) <= 0:
        with pytest.raises(InstaHideError, match=r"orientation is not stated.*set_sform"):
            read_image(path)
        return
    first = read_image(path).pixels[0].reshape(-1)[: shape[0]]
    # X was stored from right to left.
    np.testing.assert_array_equal(first, values.reshape(shape[0], shape[1], -1)[::-1, 0, 0])


def test_volumes_make_a_table(tmp_path):
    for number, name in enumerate(("healthy", "ill")):
        (tmp_path / "ct" / name).mkdir(parents=True)
        values = np.random.default_rng(number).integers(-1000, 2000, (6, 7, 8)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "ct" / name / "a.nii.gz")
    table = open_images(tmp_path / "ct", window=(-500, 1000), progress=False)
    assert (table.shape, table.pixels.dtype) == ((1, 8, 7, 6), np.int16)
    assert table.value_range == (-500, 1000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:400], "damaged"),
        (lambda c: c[:40] + np.asarray([3, 9999, 9999, 9], "<i2").tobytes() + c[48:], "ends befor"),
        (lambda c: c[:70] + np.asarray([32], "<i2").tobytes() + c[72:], "no plain numbers"),
        (lambda c: c[:40] + np.asarray([5, 2, 2, 2, 2, 2], "<i2").tobytes() + c[52:], "dimensions"),
    ],
)
def test_damaged_and_unknown_files(tmp_path, change, message):
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    (tmp_path / "a.nii").write_bytes(change(image.to_bytes()))
    with pytest.raises(InstaHideError, match=message):
        read_image(tmp_path / "a.nii")


def test_a_packed_bomb_is_not_unpacked(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((400, 400, 400), np.int16), np.eye(4))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(image.to_bytes()))
    with pytest.raises(InstaHideError, match="bomb"):
        read_image(tmp_path / "a.nii.gz")
