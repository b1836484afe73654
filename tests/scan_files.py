"""Real scans as files: DICOM series and slices, NIfTI, OME-TIFF and PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: What identifies the patient of `ct_series`.
PATIENT = "ZEBRAFISH^QUAGGA"


def ct() -> NDArray[np.int16]:
    """(512, 512) a slice of a CT in Hounsfield units, within a window."""
    import pydicom
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(get_testdata_file("693_J2KI.dcm", download=False))
    stored = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    return np.clip(stored, -1000, 1500).astype(np.int16)


def ct_series(
    folder: Path, slices: int = 16, side: int = 64, start: int = 120
) -> NDArray[np.int16]:
    """Write a series whose slices are neighbouring crops of `ct`; returns the volume (D, H, W)."""
    picture = ct()
    folder.mkdir(parents=True)
    crops = [
        picture[start + 2 * n : start + 2 * n + side, start + n : start + n + side]
        for n in range(slices)
    ]
    for number, crop in enumerate(crops):
        write_slice(folder / f"{number:03}.dcm", crop, number)
    return np.stack(crops)


def write_slice(path: Path, pixels: NDArray[np.int16], place: int) -> None:
    """Write one slice of a series, with a patient's name."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    dataset.PatientName = PATIENT
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, 2.5 * place]
    dataset.PixelData = pixels.astype("<i2").tobytes()
    dataset.save_as(path)


def brain() -> Path:
    """A NIfTI file with a brain scan in two channels: (2, 24, 96, 128) int16."""
    import nibabel

    return Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"


def ome_tiff(path: Path) -> NDArray[np.uint16]:
    """Write stained tissue as a multi-channel OME-TIFF; returns it as (C, H, W)."""
    import tifffile
    from skimage import data

    tissue = data.immunohistochemistry().transpose(2, 0, 1).astype(np.uint16) * 16
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, tissue, ome=True, photometric="minisblack", metadata={"axes": "CYX"})
    return tissue


def deep_png(path: Path, name: str = "camera") -> NDArray[np.uint16]:
    """Write a photograph of scikit-image as a 16-bit PNG of 12-bit values; returns it as (H, W)."""
    from skimage import data

    pixels = getattr(data, name)().astype(np.uint16) * 16
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels
