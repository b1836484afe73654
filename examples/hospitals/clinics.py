"""Scans of three clinics: crops of a real retina, from scanners that differ, with findings.

The photograph (scikit-image, public domain, by Häggström) is divided into blocks. A block stands
for a patient, and its overlapping crops for the images of this patient. Findings are facts of the
photograph: they come from a ridge filter over all of it, in full resolution.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom import FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from scipy.ndimage import convolve, distance_transform_edt
from skimage.filters import sato
from skimage.morphology import skeletonize

#: Findings, and how many pixels of the middle lines of vessels show each.
LEAST = {"vessel": 8, "wide vessel": 8, "branching": 1}
FINDINGS = tuple(LEAST)
#: Sides of a block and of a crop, and steps between crops, in pixels of the photograph.
BLOCK, CROP, STEP = 96, 64, 8
#: Response of the ridge filter in a vessel; half the width of a wide one in pixels.
RIDGE, WIDE = 4.0, 5.0
#: Every fourth patient is kept for tests.
TESTED = 4

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Clinic:
    """A clinic.

    Attributes:
        name: its name.
        side: height and width of its scans in pixels.
        window: the pixel values that its scanner uses.
        findings: what its doctors looked for.
        suffix: of its files.
        write: writes a scan, of values from 0 to 1, to a file.
    """

    name: str
    side: int
    window: str
    findings: tuple[str, ...]
    suffix: str
    write: Callable[[Path, Values], None]


def write_dicom(path: Path, values: Values) -> None:
    """A DICOM file of 12-bit pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    scan = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    scan.SOPClassUID, scan.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    scan.PatientName = "Nobody^reads^this"
    pixels = np.rint(4095 * values).astype(np.uint16)
    scan.set_pixel_data(pixels, "MONOCHROME2", bits_stored=12)
    scan.save_as(path)


def write_tiff(path: Path, values: Values) -> None:
    """A TIFF file of 16-bit pixels, from a scanner with another response to light."""
    tifffile.imwrite(path, np.rint(3000 + 50000 * values**1.1).astype(np.uint16))


def write_png(path: Path, values: Values) -> None:
    """A PNG file of 8-bit pixels."""
    Image.fromarray(np.rint(255 * values).astype(np.uint8)).save(path)


CLINICS = (
    Clinic("north", 64, "0,4095", FINDINGS, ".dcm", write_dicom),
    Clinic("south", 48, "3000,53000", FINDINGS, ".tif", write_tiff),
    # Its doctors do not look for branching.
    Clinic("west", 32, "full", FINDINGS[:2], ".png", write_png),
)


def write_clinics(folder: Path) -> None:
    """Write ``NAME/scans`` and ``NAME/labels.csv`` of every clinic; patients go to them in turn."""
    image, found = photograph()
    for clinic in CLINICS:
        (folder / clinic.name / "scans").mkdir(parents=True)
    rows: dict[str, list[list[object]]] = {clinic.name: [] for clinic in CLINICS}
    for number, block in enumerate(blocks(image)):
        clinic = CLINICS[number % len(CLINICS)]
        part = "test" if number // len(CLINICS) % TESTED == 0 else "train"
        for view, crop in enumerate(crops(block)):
            name = f"patient-{number}-{view}{clinic.suffix}"
            clinic.write(folder / clinic.name / "scans" / name, scaled(image[crop], clinic.side))
            findings = [int(found[each][crop].sum() >= LEAST[each]) for each in clinic.findings]
            rows[clinic.name].append([name, f"{clinic.name} {number}", part, *findings])
    for clinic in CLINICS:
        path = folder / clinic.name / "labels.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "patient", "part", *clinic.findings])
            writer.writerows(rows[clinic.name])


def photograph() -> tuple[Values, dict[str, NDArray[np.bool_]]]:
    """The green channel of the retina from 0 to 1, and where each finding is."""
    path = Path(skimage.data.__file__).parent / "retina.jpg"
    green = np.asarray(Image.open(path))[..., 1].astype(np.float64)
    vessels = sato(green, sigmas=(2, 3, 5, 7), black_ridges=True) > RIDGE
    skeleton = skeletonize(vessels)
    wide = skeleton & (distance_transform_edt(vessels) >= WIDE)
    neighbours = convolve(skeleton.astype(np.uint8), np.ones((3, 3), np.uint8)) - 1
    places = {"vessel": skeleton, "wide vessel": wide, "branching": skeleton & (neighbours >= 3)}
    return green / 255, places


def blocks(image: Values) -> Iterator[tuple[int, int]]:
    """The upper left corners of the blocks that lie in the eye, which the black rim does not."""
    height, width = image.shape
    for top in range(0, height - BLOCK + 1, BLOCK):
        for left in range(0, width - BLOCK + 1, BLOCK):
            if (image[top : top + BLOCK, left : left + BLOCK] > 0.12).all():
                yield top, left


def crops(block: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """The crops of a block."""
    top, left = block
    for down in range(0, BLOCK - CROP + 1, STEP):
        for right in range(0, BLOCK - CROP + 1, STEP):
            y, x = top + down, left + right
            yield slice(y, y + CROP), slice(x, x + CROP)


def scaled(values: Values, side: int) -> Values:
    """``values`` as an image of ``side`` x ``side`` pixels."""
    image = Image.fromarray(values.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(image, np.float64)
