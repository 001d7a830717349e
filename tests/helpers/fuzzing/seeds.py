"""Valid inputs of every format, small, made of synthetic data in memory. The mutations start from them."""

from __future__ import annotations

import functools
import io
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fake_codecs import by_gdcm, jpeg
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from fuzzing.case import MARKER, Case

CT = "1.2.840.10008.5.1.4.1.1.2"
DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
# Pixels; 16 is the least that is read, and JPEG 2000 wants 32.
SIDE = 32
STEM = f"{MARKER}_1"


def raw_pixels(seed: int = 0, frames: int = 1) -> np.ndarray:
    """uint16 (frames, SIDE, SIDE): a disc in air and some noise, so that encoders have something to do."""
    y, x = np.mgrid[:SIDE, :SIDE]
    disc = np.where((x - 16) ** 2 + (y - 16) ** 2 < 144, 1100, 24)
    noise = np.random.default_rng(seed).integers(0, 40, (frames, SIDE, SIDE))
    return (disc + noise).astype(np.uint16)


def ct_dataset(position: float = 0.0, frames: int = 1) -> Dataset:
    """A plain CT image; texts hold MARKER, as if it were the patient."""
    raw, ds = raw_pixels(int(position), frames), Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID(CT)
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.4.{int(position) + 1}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3.5", "1.2.3.6", "1.2.3.7"
    ds.PatientName, ds.PatientID, ds.StudyID = f"{MARKER}^Ann", f"{MARKER}", f"{MARKER}"
    ds.SeriesDescription, ds.AccessionNumber = f"{MARKER} abdomen", MARKER
    ds.Modality, ds.SeriesNumber, ds.ImageType = "CT", 3, ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceNumber, ds.AcquisitionNumber, ds.SliceThickness = int(position) + 1, 1, 5
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.NumberOfFrames = SIDE, SIDE, frames
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.add_new("PixelPaddingValue", "US", 0)
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, position]
    ds.PixelSpacing = [0.8, 0.7]
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-62000", "SRT", "Liver"
    # A nested data set to break.
    ds.AnatomicRegionSequence = [code]
    ds.PixelData = raw.tobytes()
    return ds


def enhanced_dataset(frames: int = 3) -> Dataset:
    """An Enhanced CT: rescale, orientation and positions stand in the functional groups."""
    ds = ct_dataset(frames=frames)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(CT + ".1")
    for name in ("RescaleSlope", "RescaleIntercept", "RescaleType", "ImageOrientationPatient", "ImagePositionPatient"):
        del ds[name]
    shared, value, plane, measures = Dataset(), Dataset(), Dataset(), Dataset()
    value.RescaleSlope, value.RescaleIntercept, value.RescaleType = 1, -1024, "HU"
    plane.ImageOrientationPatient, measures.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.8, 0.7]
    shared.PixelValueTransformationSequence = [value]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [_frame_group(n) for n in range(frames)]
    return ds


def _frame_group(n: int) -> Dataset:
    group, position, kind = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient, kind.FrameType = [0, 0, 5 * n], ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    group.PlanePositionSequence, group.CTImageFrameTypeSequence = [position], [kind]
    return group


def bytes_of(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A DICOM file; uncompressed pixels are turned for big endian."""
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _compressed(syntax: str, plugin: str) -> bytes:
    ds = ct_dataset()
    ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    return bytes_of(ds, syntax)


def _jpeg_baseline() -> bytes:
    """8-bit pixels, by Pillow: pydicom has no encoder of it."""
    ds = ct_dataset()
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = encapsulate([jpeg((raw_pixels()[0] // 8).astype(np.uint8))])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return bytes_of(ds, JPEGBaseline8Bit)


def _jpeg_lossless() -> bytes:
    """The stream by GDCM's own writer, since pydicom has no encoder of it; the tags are ours, GDCM's hold the time."""
    ds = ct_dataset()
    ds.PixelData = encapsulate([_lossless_stream(bytes_of(ds))])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return bytes_of(ds, JPEGLosslessSV1)


def _lossless_stream(plain: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "a.dcm"), Path(folder, "b.dcm")
        before.write_bytes(plain)
        by_gdcm(before, JPEGLosslessSV1, after)
        return next(generate_frames(dcmread(after).PixelData, number_of_frames=1))


def _bare() -> bytes:
    """Without preamble and file meta, as old exports are."""
    ds = ct_dataset()
    buffer = io.BytesIO()
    del ds.file_meta
    ds.save_as(buffer, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return buffer.getvalue()


def _series_files(folder: str = "") -> dict[str, bytes]:
    files = {f"{folder}{STEM}{n}.dcm": bytes_of(ct_dataset(5.0 * n)) for n in range(3)}
    return files | {f"{folder}notes.txt": b"no image"}


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, compress_type=method)
    return buffer.getvalue()


def _dicomdir() -> Case:
    names = [f"IM{n}" for n in range(3)]
    ds = FileDataset("DICOMDIR", {}, preamble=b"\0" * 128)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = DICOMDIR_CLASS, "1.2.3.9"
    ds.FileSetID = MARKER
    records = []
    for name in names:
        record = Dataset()
        record.OffsetOfTheNextDirectoryRecord, record.RecordInUseFlag = 0, 0xFFFF
        record.OffsetOfReferencedLowerLevelDirectoryEntity, record.DirectoryRecordType = 0, "IMAGE"
        record.ReferencedFileID = ["DATA", name]
        record.ReferencedSOPClassUIDInFile, record.ReferencedTransferSyntaxUIDInFile = CT, ExplicitVRLittleEndian
        records.append(record)
    ds.DirectoryRecordSequence = records
    images = {f"DATA/{name}": bytes_of(ct_dataset(5.0 * n)) for n, name in enumerate(names)}
    return Case("dicomdir", "DICOMDIR", {"DICOMDIR": bytes_of(ds), **images})


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, raw_pixels()[0].astype(np.float32) - 1024)
    return buffer.getvalue()


def _picture(bits: int, kind: str) -> bytes:
    from PIL import Image

    raw, buffer = raw_pixels()[0], io.BytesIO()
    Image.fromarray((raw // 8).astype(np.uint8) if bits == 8 else raw).save(buffer, kind)
    return buffer.getvalue()


def nifti_bytes() -> bytes:
    """Two slices of int16; nibabel reads it, nothing is needed to write it."""
    raw = raw_pixels(frames=2).astype(np.int16) - 1024
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, SIDE, SIDE, 2, 1, 1, 1, 1)
    # Datatype, bits.
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1, 0.7, 0.8, 5, 1, 1, 1, 1)
    # Where the voxels are, slope, intercept.
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    # Only the sform is used.
    struct.pack_into("<2h", header, 252, 0, 1)
    struct.pack_into("<12f", header, 280, 0.7, 0, 0, 0, 0, 0.8, 0, 0, 0, 0, 5, 0)
    header[344:348] = b"n+1\0"
    return bytes(header) + raw.tobytes()


def gzip_of(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def _one(form: str, suffix: str, make: Callable[[], bytes]) -> Callable[[], Case]:
    def case() -> Case:
        name = f"{STEM}{suffix}"
        return Case(form, name, {name: make()})

    return case


def _folder() -> Case:
    return Case("folder", MARKER, _series_files(f"{MARKER}/"))


def _zip_case() -> Case:
    return Case("zip", f"{STEM}.zip", {f"{STEM}.zip": zip_of(_series_files("series/"))})


_MAKERS: dict[str, Callable[[], Case]] = {
    "dicom": _one("dicom", ".dcm", lambda: bytes_of(ct_dataset())),
    "dicom_implicit": _one("dicom_implicit", ".dcm", lambda: bytes_of(ct_dataset(), ImplicitVRLittleEndian)),
    "dicom_big_endian": _one("dicom_big_endian", "", lambda: bytes_of(ct_dataset(), ExplicitVRBigEndian)),
    "dicom_deflated": _one("dicom_deflated", ".dcm", lambda: bytes_of(ct_dataset(), DeflatedExplicitVRLittleEndian)),
    "dicom_bare": _one("dicom_bare", ".dcm", _bare),
    "dicom_enhanced": _one("dicom_enhanced", ".dcm", lambda: bytes_of(enhanced_dataset())),
    "dicom_rle": _one("dicom_rle", ".dcm", lambda: _compressed(RLELossless, "pydicom")),
    "dicom_jpeg": _one("dicom_jpeg", ".dcm", _jpeg_baseline),
    "dicom_jpeg2000": _one("dicom_jpeg2000", ".dcm", lambda: _compressed(JPEG2000Lossless, "pylibjpeg")),
    "dicom_jpegls": _one("dicom_jpegls", ".dcm", lambda: _compressed(JPEGLSLossless, "pyjpegls")),
    "dicom_jpeg_lossless": _one("dicom_jpeg_lossless", ".dcm", _jpeg_lossless),
    "folder": _folder,
    "zip": _zip_case,
    "dicomdir": _dicomdir,
    "npy": _one("npy", ".npy", _npy),
    "png8": _one("png8", ".png", lambda: _picture(8, "PNG")),
    "png16": _one("png16", ".png", lambda: _picture(16, "PNG")),
    "tiff": _one("tiff", ".tif", lambda: _picture(16, "TIFF")),
    "nifti": _one("nifti", ".nii", nifti_bytes),
    "nifti_gz": _one("nifti_gz", ".nii.gz", lambda: gzip_of(nifti_bytes())),
}
FORMATS = tuple(_MAKERS)
# Their decoders are compiled code: a hostile stream may end the process, so they are tried in one of their own.
NATIVE = ("dicom_jpeg", "dicom_jpeg2000", "dicom_jpegls", "dicom_jpeg_lossless", "tiff")


@functools.cache
def seed(form: str) -> Case:
    """The valid input of a format; the same bytes every time."""
    return _MAKERS[form]()


def engine_seed() -> Case:
    """A tiny engine: a few operators in place of the network, so that its bytes are graph and not weights."""
    return _engine()


@functools.cache
def _engine() -> Case:
    import json

    from lsms_rt import demo_engine
    from lsms_rt.digest import sha256
    from lsms_rt.engine.manifest import fields_digest

    demo = demo_engine()
    values: dict[str, Any] = json.loads((demo / "manifest.json").read_bytes())
    files = {"tokenizer.json": (demo / "tokenizer.json").read_bytes()}
    files |= {"text.onnx": _text_graph(), "image.onnx": _image_graph()}
    values |= {"image_size": 32, "files": {name: sha256(data) for name, data in files.items()}}
    values["manifest_digest"] = fields_digest(values)
    files["manifest.json"] = json.dumps(values, indent=2).encode()
    return Case("engine", "a.engine", {f"a.engine/{name}": data for name, data in files.items()})


FEATURES = tuple(f"{kind}{stage}" for kind in ("keys", "values") for stage in range(1, 5))


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> bytes:
    from onnx import helper

    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def _text_graph() -> bytes:
    """tokens, mask -> eight arrays (1, 1, T, 4) that depend on both."""
    from onnx import TensorProto, helper, numpy_helper

    table = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "one")]
    constants.append(numpy_helper.from_array(np.array([-1]), "last"))
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["rows"]),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["masked"]),
        helper.make_node("Unsqueeze", ["masked", "one"], ["feature"]),
        *(helper.make_node("Identity", ["feature"], [name]) for name in FEATURES),
    ]
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["b", 32])]
    inputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["b", 32]))
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 1, 32, 4]) for n in FEATURES]
    return _model(nodes, inputs, outputs, constants)


def _image_graph() -> bytes:
    """image (B, 1, 32, 32), mask, features -> logits: a convolution plus the mean of every other input."""
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.random.default_rng(1).normal(size=(1, 1, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["image", "kernel"], ["sum0"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])]
    for n, name in enumerate((*FEATURES, "mask")):
        nodes.append(helper.make_node("ReduceMean", [name], [f"mean_{name}"], keepdims=0))
        nodes.append(helper.make_node("Add", [f"sum{n}", f"mean_{name}"], [f"sum{n + 1}"]))
    nodes.append(helper.make_node("Identity", [f"sum{len(FEATURES) + 1}"], ["logits"]))
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 1, 32, 32])]
    inputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["b", 32]))
    inputs += [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 1, 32, 4]) for n in FEATURES]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 1, 32, 32])]
    return _model(nodes, inputs, outputs, [numpy_helper.from_array(kernel, "kernel")])
