"""DICOM files: values, windows, and that nobody's name is read."""

from __future__ import annotations

import csv
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from instahide import LabelTable
from instahide.cli.main import app
from instahide.data import open_images, open_split, open_test
from instahide.data.readers.medical.dicom import decode_dicom
from instahide.data.readers.medical.dicom_series import decode_series
from instahide.data.readers.skipped import SkippedWarning
from instahide.errors import InstaHideError

pydicom = pytest.importorskip("pydicom")

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
#: Files of the wheel whose pixels are grey, by what is odd about them.
GREY = [
    "CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm",
    "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm", "JPEG2000.dcm", "693_J2KI.dcm", "JPGExtended.dcm",
    "J2K_pixelrep_mismatch.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm",
]  # fmt: skip
COLOR = [
    "SC_rgb_rle.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm", "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_jls_lossy_line.dcm", "examples_rgb_color.dcm", "examples_ybr_color.dcm",
    "GDCMJ2K_TextGBR.dcm",
]  # fmt: skip
#: What identifies the patient of `private_file`.
SECRETS = ("ZEBRAFISH", "QUAGGA", "19010203", "XENOPUS", "OKAPI", "1.2.3.987654321")


def expected_of(path: Path) -> np.ndarray:
    from pydicom.pixels import apply_rescale, pixel_array

    dataset = pydicom.dcmread(path)
    return apply_rescale(pixel_array(dataset), dataset)


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", GREY)
def test_grey_files_have_the_values_of_pydicom(name):
    pixels = decode_dicom(FILES / name).pixels
    np.testing.assert_array_equal(pixels[0], expected_of(FILES / name).astype(pixels.dtype))
    assert pixels.dtype in (np.uint8, np.uint16, np.int16, np.float32)


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", COLOR)
def test_color_files_have_the_values_of_pydicom(name):
    pixels = decode_dicom(FILES / name).pixels
    np.testing.assert_array_equal(np.moveaxis(pixels, 0, -1), expected_of(FILES / name))


@pytest.mark.filterwarnings("ignore:.*")
def test_palettes_become_colors():
    from pydicom.pixels import apply_color_lut

    path = FILES / "examples_palette.dcm"
    dataset = pydicom.dcmread(path)
    pixels = decode_dicom(path).pixels
    expected = apply_color_lut(dataset.pixel_array, dataset)
    np.testing.assert_array_equal(np.moveaxis(pixels, 0, -1), expected)


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image_dfl.dcm", "deflated"),
        ("rtplan.dcm", "holds no image"),
        ("dicomdirtests/DICOMDIR", "holds no image"),
        ("no_meta.dcm", "does not begin"),
        ("MR_truncated.dcm", "damaged"),
    ],
)
def test_what_is_refused(name, message):
    with pytest.raises(InstaHideError, match=message):
        decode_dicom(FILES / name)


@pytest.mark.filterwarnings("ignore:.*")
def test_every_file_of_pydicom_is_read_or_refused():
    from pydicom.data import get_testdata_files

    read = 0
    for name in get_testdata_files():
        path = Path(name)
        if not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        try:
            decode_dicom(path)
            read += 1
        except InstaHideError:
            pass
    assert read >= 60


def made(values: np.ndarray, **elements: object) -> bytes:
    """A DICOM file of grey ``values``, with the name of a patient and other elements."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = SECRETS[5]
    dataset.SOPInstanceUID = dataset.StudyInstanceUID = dataset.SeriesInstanceUID = SECRETS[5]
    dataset.PatientName, dataset.PatientID = f"{SECRETS[0]}^X", SECRETS[1]
    dataset.PatientBirthDate, dataset.InstitutionName = SECRETS[2], SECRETS[3]
    dataset.PatientComments = SECRETS[4]
    dataset.Rows, dataset.Columns = values.shape[-2:]
    if values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = values.dtype.itemsize * 8
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.HighBit = dataset.BitsStored - 1
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    bits=st.integers(2, 16),
    signed=st.booleans(),
    slope=st.sampled_from([1, 2, -1, 0.5]),
    intercept=st.sampled_from([0, -1024, 10, 0.25]),
    inverted=st.booleans(),
    frames=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_values_are_rescaled_and_inverted(
    tmp_path, bits, signed, slope, intercept, inverted, frames, seed
):
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    kind = np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    shape = (frames, 4, 6) if frames > 1 else (4, 6)
    values = np.random.default_rng(seed).integers(low, high, shape, endpoint=True).astype(kind)
    elements: dict[str, object] = {"BitsStored": bits, "RescaleSlope": slope}
    elements |= {"RescaleIntercept": intercept, "WindowCenter": 40, "WindowWidth": 80}
    if inverted:
        elements["PhotometricInterpretation"] = "MONOCHROME1"
    (tmp_path / "a.dcm").write_bytes(made(values, **elements))
    decoded = decode_dicom(tmp_path / "a.dcm")
    exact = values.astype(np.float64)
    exact = (low + high - exact if inverted else exact) * slope + intercept
    np.testing.assert_array_equal(decoded.pixels[0], exact.astype(np.float32))
    plain = (slope, intercept) == (1, 0)
    whole = slope in (1, 2, -1) and intercept != 0.25
    ends = sorted((low * slope + intercept, high * slope + intercept))
    fits = ends[0] >= -32768 and ends[1] <= 32767
    if not plain:
        assert decoded.pixels.dtype == (np.int16 if whole and fits else np.float32)
    assert decoded.window is not None
    if not inverted:
        assert decoded.window == (0.0, 79.0)
        return
    # What the window shows is what it shows of the image before it was inverted.
    before = values.astype(np.float64) * slope + intercept
    inside = (decoded.pixels[0] >= decoded.window[0]) & (decoded.pixels[0] <= decoded.window[1])
    np.testing.assert_array_equal(inside, (before >= 0) & (before <= 79))


@pytest.mark.parametrize(
    ("frames", "elements"),
    [
        (1, {"RescaleSlope": "1_0", "RescaleIntercept": 0}),
        (1, {"RescaleSlope": 1, "RescaleIntercept": "1_0"}),
        (1, {"WindowCenter": "1_0", "WindowWidth": 20}),
        (1, {"WindowCenter": ["10", "1_0"], "WindowWidth": ["20", "20"]}),
        (1, {"ImagePositionPatient": ["0", "0", "1_0"]}),
        (10, {"NumberOfFrames": "1_0"}),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_number_that_only_python_reads_is_refused(tmp_path, frames, elements):
    values = np.zeros((frames, 4, 6), np.uint8)
    plain = {
        name: [str(text).replace("_", "") for text in value]
        if isinstance(value, list)
        else str(value).replace("_", "")
        for name, value in elements.items()
    }
    (tmp_path / "a.dcm").write_bytes(made(values if frames > 1 else values[0], **plain))
    decode_dicom(tmp_path / "a.dcm")
    (tmp_path / "a.dcm").write_bytes(made(values if frames > 1 else values[0], **elements))
    with pytest.raises(InstaHideError, match="not written in the digits 0 to 9"):
        decode_dicom(tmp_path / "a.dcm")


def study(root: Path, **elements: object) -> Path:
    """Two classes of two scans in files without suffix, with an index beside them."""
    for number in range(4):
        folder = root / ("healthy", "ill")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 4096, (8, 8)).astype(np.uint16)
        content = made(values, **{"BitsStored": 12, **elements})
        (folder / f"IM{number:06}").write_bytes(content)
        (folder / "DICOMDIR").write_bytes(b"index")
    return root


def test_a_folder_of_files_without_suffix(tmp_path):
    with pytest.warns(SkippedWarning, match="DICOMDIR"):
        table = open_images(study(tmp_path / "study"), progress=False)
    assert (table.shape, table.pixels.dtype) == ((1, 8, 8), np.uint16)
    first = np.random.default_rng(0).integers(0, 4096, (8, 8))
    np.testing.assert_array_equal(table.pixels[0, 0], first)


@pytest.mark.filterwarnings("ignore::instahide.data.readers.skipped.SkippedWarning")
def test_the_window_of_the_files(tmp_path):
    folder = study(tmp_path / "study", WindowCenter=1000, WindowWidth=400)
    table = open_images(folder, window="file", progress=False)
    assert table.value_range == (800, 1199)
    assert (table.pixels.min(), table.pixels.max()) == (800, 1199)
    odd = made(np.zeros((8, 8), np.uint16), BitsStored=12, WindowCenter=900, WindowWidth=400)
    (folder / "ill" / "other.dcm").write_bytes(odd)
    with pytest.raises(InstaHideError, match=r"states another window of values than .*other\.dcm"):
        open_images(folder, window="file", progress=False)


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"WindowCenter": 1000, "WindowWidth": 400},
        {"PhotometricInterpretation": "HSV"},
        {"NumberOfFrames": 1000},
        {"Rows": 9000, "Columns": 9000},
        {"BitsStored": 4},
        {"RescaleSlope": 0, "RescaleIntercept": 0},
        {"PixelData": b"short"},
    ],
)
def test_nobody_s_name_is_in_the_cache_the_output_or_a_message(
    tmp_path, cache, elements, capfd, caplog, monkeypatch
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("INSTAHIDE_LEDGER", str(tmp_path / "ledger"))
    folder = study(tmp_path / "study", **elements)
    labels = folder / "labels.csv"
    with labels.open("w", newline="") as file:
        rows = [(f"{name}/IM{n:06}", name, f"{SECRETS[1]}{n}")
                for n, name in enumerate(("healthy", "ill") * 2)]  # fmt: skip
        csv.writer(file).writerows([("file", "label", "patient"), *rows])
    told = []
    table = LabelTable(labels, group_column="patient")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for opening in (open_images, open_split, open_test):
            for how in ({}, {"window": "file"}, {"labels": table}, {"skip_bad": True}):
                try:
                    told.append(repr(opening(folder, progress=False, **how)))
                except InstaHideError as error:
                    told.append(f"{error!r} {error} {error.__cause__!r}")
        for more in ([], ["--labels", str(labels), "--group-column", "patient"]):
            out = tmp_path / f"out{len(more)}"
            command = ["encrypt", str(folder), "--out", str(out), "--scheme", "inside", "--k", "2"]
            done = CliRunner().invoke(app, [*command, *more])
            assert done.exit_code in (0, 2), done.output
            # Of the scans that can be read, encodings are made.
            assert done.exit_code == 2 or set(elements) <= {
                "WindowCenter",
                "WindowWidth",
                "BitsStored",
            }
            told.append(done.output)
    told += [str(each.message) for each in said]
    told += [*capfd.readouterr(), caplog.text]
    stored = [*cache.rglob("*"), *tmp_path.glob("out*/**/*"), *tmp_path.glob("ledger*")]
    told += [str(path) + path.read_bytes().decode("latin-1") for path in stored if path.is_file()]
    found = [secret for secret in SECRETS for text in told if secret in text]
    # The files themselves hold them, or the search would find nothing whatever happened.
    content = (folder / "ill" / "IM000001").read_bytes()
    assert content.count(SECRETS[0].encode())
    assert not found


def test_a_compressed_frame_of_another_size_is_not_decoded(tmp_path):
    path = FILES / "MR_small_jp2klossless.dcm"
    dataset = pydicom.dcmread(path)
    content = dataset.PixelData
    at = content.index(b"\xff\x4f\xff\x51")
    bomb = content[: at + 8] + (60000).to_bytes(4, "big") * 2 + content[at + 16 :]
    dataset.PixelData = bomb
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(InstaHideError, match="another size"):
        decode_dicom(tmp_path / "a.dcm")


@pytest.mark.filterwarnings("ignore::instahide.data.readers.skipped.SkippedWarning")
def test_a_library_that_logs_every_element_logs_no_name(tmp_path, caplog):
    folder = study(tmp_path / "study")
    pydicom.config.debug(True, default_handler=False)
    try:
        pydicom.dcmread(folder / "ill" / "IM000001")
        assert SECRETS[0] in caplog.text
        caplog.clear()
        open_images(folder, progress=False)
        assert not caplog.text
    finally:
        pydicom.config.debug(False, default_handler=False)


def series(folder: Path, order: object, **elements: object) -> np.ndarray:
    """Slices of a volume, in files whose names tell nothing of their order.

    An element may be a function of the number of the slice.
    """
    volume = np.random.default_rng(1).integers(0, 4096, (5, 8, 8)).astype(np.uint16)
    folder.mkdir(parents=True)
    for name, number in enumerate(order):
        place = {"ImagePositionPatient": [1.0, -2.0, 30 - 2.5 * number]}
        place |= {"ImageOrientationPatient": [1, 0, 0, 0, -1, 0], "BitsStored": 12}
        own = {key: each(number) if callable(each) else each for key, each in elements.items()}
        content = made(volume[number], **{**place, **own})
        (folder / f"IM{name}").write_bytes(content)
    (folder / "DICOMDIR").write_bytes(b"index")
    return volume


def labelled(root: Path) -> LabelTable:
    rows = [f"{path.name},{n},p" for n, path in enumerate(sorted(root.iterdir()))]
    table = root.parent / "series.csv"
    table.write_text("\n".join(["file,label,patient", *rows]))
    return LabelTable(table, group_column="patient")


def test_a_folder_of_slices_becomes_a_volume(tmp_path):
    root = tmp_path / "ct"
    volume = series(root / "one", [3, 0, 4, 1, 2])
    series(root / "two", [0, 1, 2, 3, 4])
    # What lies beside the slices and is no DICOM file by name and content.
    (root / "one" / "notes.txt").write_text("of the radiographer")
    Image.new("L", (8, 8)).save(root / "one" / "thumbnail.png")
    (root / "one" / "reports").mkdir()
    table = open_images(root, labels=labelled(root), progress=False)
    assert table.shape == (1, 5, 8, 8)
    # The normal points to the feet.
    np.testing.assert_array_equal(table.pixels[:, 0], [volume, volume])
    content = made(np.full((8, 8), 7, np.uint16), BitsStored=12,
                   ImagePositionPatient=[1, -2, 30],
                   ImageOrientationPatient=[1, 0, 0, 0, -1, 0])  # fmt: skip
    (root / "two" / "IM0").write_bytes(content)
    again = open_images(root, labels=labelled(root), progress=False)
    assert (again.pixels[1, 0, 0] == 7).all()


@pytest.mark.parametrize(
    ("order", "elements", "message"),
    [
        ([0, 1, 3, 4], {}, "not evenly spaced"),
        ([0, 1, 1, 2], {}, "not evenly spaced"),
        ([0], {}, "2 to 10000 files"),
        ([0, 1, 2], {"ImagePositionPatient": None}, "do not state their places"),
        ([0, 1, 2], {"ImageOrientationPatient": [0] * 6}, "do not state their places"),
        ([0, 1, 2], {"PixelSpacing": lambda n: [1 + n, 1 + n]}, "PixelSpacing"),
        ([0, 1, 2], {"PixelSpacing": lambda n: [1, 1] if n else None}, "PixelSpacing"),
        ([0, 1, 2], {"SeriesInstanceUID": lambda n: f"{SECRETS[5]}.{n}"}, "SeriesInstanceUID"),
        # Two series that interleave, and slices that lie beside each other.
        ([0, 1, 2, 3], {"ImagePositionPatient": lambda n: [n % 2, 0, n]}, "shifted sideways, as"),
        ([0, 1, 2, 3], {"ImagePositionPatient": lambda n: [n * n, 0, n]}, "shifted sideways, as"),
        ([0, 1, 2, 3], {"ImagePositionPatient": lambda n: [n * 20, 0, n]}, "by more than"),
        ([0, 1], {"ImagePositionPatient": lambda n: [0, n * 1.1, n]}, "by more than"),
    ],
)
def test_slices_that_are_no_volume(tmp_path, order, elements, message):
    root = tmp_path / "ct"
    series(root / "one", order, **elements)
    with pytest.raises(InstaHideError, match=f"The image of row 1 of .*{message}") as error:
        open_images(root, labels=labelled(root), progress=False)
    assert SECRETS[5] not in f"{error.value!r} {error.value}"


def tilted(number: int) -> list[float]:
    """A place of a slice whose gantry is tilted by 30 degrees, rounded as files are."""
    return [1.0, round(-2 + 2.5 * number * np.tan(np.pi / 6), 3), 30 - 2.5 * number]


@pytest.mark.parametrize(
    "elements",
    [
        {"ImagePositionPatient": tilted},
        {"PixelSpacing": ["0.5", "0.7"], "SeriesInstanceUID": "1.2.3"},
        {"SeriesInstanceUID": lambda n: "1.2.3" if n else None},
        {"ImageOrientationPatient": [0.8, 0, -0.6, 0, -1, 0],
         "ImagePositionPatient": lambda n: [7 - 1.2 * n, 4, 9 - 1.6 * n]},
    ],
)  # fmt: skip
def test_slices_that_are_a_volume(tmp_path, elements):
    volume = series(tmp_path / "one", [3, 0, 4, 1, 2], **elements)
    np.testing.assert_array_equal(decode_series(tmp_path / "one").pixels[0], volume)


def test_the_distance_of_pixels_does_not_matter_for_one_image(tmp_path):
    content = made(np.ones((8, 8), np.uint16), PixelSpacing=["0.5", "0.7"])
    path = tmp_path / "a.dcm"
    path.write_bytes(content.replace(b"0.5\\0.7", b"0,5\\0,7"))
    assert b"0,5" in path.read_bytes()
    assert decode_dicom(path).pixels.all()


def enhanced(order: object, places: object = None, *, shared: bool = True) -> bytes:
    """An enhanced image with frame ``n`` of value ``n``, in the given order and places."""
    from pydicom.dataset import Dataset

    def group(name: str, **elements: object) -> Dataset:
        item, inner = Dataset(), Dataset()
        for key, value in elements.items():
            setattr(inner, key, value)
        setattr(item, name, [inner])
        return item

    values = np.repeat(np.asarray(order, np.uint16), 64).reshape(-1, 8, 8)
    places = [[1, n, 30 - 2.5 * n] for n in order] if places is None else places
    frames = [group("PlanePositionSequence", ImagePositionPatient=each) for each in places]
    direction = group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, -1, 0])
    for frame in [] if shared else frames:
        frame.update(direction)
    groups = {"SharedFunctionalGroupsSequence": [direction]} if shared else {}
    return made(values, PerFrameFunctionalGroupsSequence=frames, **groups)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("order", [range(5), [4, 3, 2, 1, 0], [3, 0, 4, 1, 2], [1, 0]])
def test_frames_are_in_the_order_of_their_places(tmp_path, order, shared):
    (tmp_path / "a.dcm").write_bytes(enhanced(order, shared=shared))
    pixels = decode_dicom(tmp_path / "a.dcm").pixels
    assert pixels.shape == (1, len(order), 8, 8)
    np.testing.assert_array_equal(pixels[0, :, 0, 0], range(len(order)))


@pytest.mark.parametrize("places", [[None] * 3, [[0, 0, 5]]])
def test_frames_without_places_are_in_the_order_of_the_file(tmp_path, places):
    order = [2, 0, 1][: len(places)]
    (tmp_path / "a.dcm").write_bytes(enhanced(order, places))
    pixels = decode_dicom(tmp_path / "a.dcm").pixels
    np.testing.assert_array_equal(pixels[0, ..., 0, 0], order)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([[0, 0, z] for z in (0, 1, 2, 10)], "its frames are not evenly spaced"),
        ([[0, 0, z] for z in (0, 0, 1, 1)], "its frames are not evenly spaced"),
        ([[0, 0, 0]] * 4, "its frames are not evenly spaced"),
        ([[z % 2, 0, z] for z in range(4)], "its frames are shifted sideways"),
        ([[0, 0, 0], [0, 0, 1], [0, 0, 2], None], "its frames do not state their places"),
        ([[0, 0, z] for z in range(3)], "it has 4 frames and states places of 3"),
        ([[0, 0, z] for z in range(9)], "it has 4 frames and states places of 9"),
        ([["0", "0", f"{z}_0"] for z in range(4)], "not written in the digits 0 to 9"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_frames_that_are_no_volume(tmp_path, places, message):
    (tmp_path / "a.dcm").write_bytes(enhanced(range(4), places))
    with pytest.raises(InstaHideError, match=message):
        decode_dicom(tmp_path / "a.dcm")
