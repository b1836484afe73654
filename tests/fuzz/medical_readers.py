"""Readers of DICOM, NIfTI and TIFF files and of tables of labels, with files that they accept."""

from __future__ import annotations

import functools
import gzip
import io
from pathlib import Path

import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import tifffile
from PIL import Image

from instahide import LabelTable, open_images
from instahide.data.readers.medical.dicom import decode_dicom
from instahide.data.readers.medical.nifti import decode_nifti
from instahide.data.readers.medical.tiff import decode_tiff
from tests.fuzz.making import Reader, some_bytes, written
from tests.fuzz.mutation import Seed

_DICOM = (
    b"\x28\x00\x10\x00US\x02\x00\xff\xff", b"\x28\x00\x08\x00IS\x06\x0099999 ", b"SQ\x00\x00",
    b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.5\x00", b"1.2.840.10008.1.2.4.90", b"MONOCHROME1 ", b"PALETTE COLOR ",
)  # fmt: skip
_TIFF = (
    b"\x01\x01\x04\x00",
    b"\x44\x01\x04\x00",
    b"\x03\x01\x03\x00",
    b"\xff\xff\xff\xff",
    b"<OME",
)


@functools.cache
def dicom_seeds() -> list[Seed]:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    names = (
        "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
        "SC_rgb_small_odd.dcm", "SC_rgb_small_odd_jpeg.dcm", "MR_small.dcm",
    )  # fmt: skip
    found = [folder / name for name in names]
    return [Seed((path.read_bytes(),), tokens=_DICOM) for path in found if path.exists()]


@functools.cache
def nifti_seeds() -> list[Seed]:
    values = some_bytes(4, 5, 6).astype(np.int16)
    kinds = (nibabel.Nifti1Image, nibabel.Nifti2Image)
    return [Seed((kind(values, np.eye(4)).to_bytes(),)) for kind in kinds]


@functools.cache
def packed_nifti_seeds() -> list[Seed]:
    def pack(parts: tuple[bytes, ...]) -> bytes:
        return gzip.compress(parts[0])

    return [Seed(seed.parts, pack) for seed in nifti_seeds()]


@functools.cache
def tiff_seeds() -> list[Seed]:
    values = some_bytes(5, 20, 24).astype(np.uint16)
    seeds = []
    for how in (
        {}, {"compression": "zlib"}, {"compression": "lzw", "tile": (16, 16)}, {"bigtiff": True},
        {"ome": True}, {"compression": "zstd"}, {"predictor": True, "compression": "zlib"},
    ):  # fmt: skip
        save = functools.partial(
            tifffile.imwrite, data=values, photometric="minisblack", metadata={"axes": "CYX"}, **how
        )
        seeds.append(Seed((written(save),), tokens=_TIFF))
    return seeds


def _picture() -> dict[str, bytes]:
    image = Image.fromarray(some_bytes(8, 8))
    content = written(lambda out: image.save(out, "PNG"))
    return {"a.png": content, "b.png": content}


@functools.cache
def csv_seeds() -> list[Seed]:
    text = b"file,mass,nodule,patient,split\na.png,1,0,x,train\nb.png,,0.5,y,val\n"
    tokens = (b'"', b";", b"\t", b"\x00", b"\r", b"../", b"nan", b"1e999", b"\xff", b"," * 50)
    return [Seed((text,), tokens=tokens, beside=_picture())]


@functools.cache
def parquet_seeds() -> list[Seed]:
    columns = {"file": ["a.png", "b.png"], "mass": [1.0, None], "nodule": [0, 1]}
    table = pa.table({**columns, "patient": ["x", "y"], "split": ["train", "test"]})
    out = io.BytesIO()
    pq.write_table(table, out)
    return [Seed((out.getvalue(),), beside=_picture())]


def _read_labelled(folder: Path, name: str) -> object:
    labels = LabelTable(
        folder / name,
        label_columns=("mass", "nodule"),
        group_column="patient",
        split_column="split",
    )
    return open_images(folder, labels=labels, progress=False)


MEDICAL_READERS: dict[str, Reader] = {
    "dicom": Reader("a.dcm", dicom_seeds, lambda f: decode_dicom(f / "a.dcm")),
    "nifti": Reader("a.nii", nifti_seeds, lambda f: decode_nifti(f / "a.nii")),
    "nifti, packed": Reader(
        "a.nii.gz", packed_nifti_seeds, lambda f: decode_nifti(f / "a.nii.gz", 8)
    ),
    "tiff": Reader("a.tif", tiff_seeds, lambda f: decode_tiff(f / "a.tif")),
    "labels, csv": Reader("l.csv", csv_seeds, lambda f: _read_labelled(f, "l.csv")),
    "labels, parquet": Reader("l.parquet", parquet_seeds, lambda f: _read_labelled(f, "l.parquet")),
}
