"""What was read goes on through predict and every writer; a refusal of a writer is judged as any message is."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fake_backend import FakeBackend

from fuzzing import seeds
from fuzzing.case import MARKER, Wrong

SENTENCE = "the low-density lesion in the left lobe of the liver"
# A file of thousands of frames takes no longer than a small one.
MOST_SLICES = 12


@functools.cache
def segmenter() -> Any:
    """The tiny engine, whose masks are what is bright in its window."""
    from lsms_rt.segmenter import Segmenter

    with tempfile.TemporaryDirectory() as folder:
        opened = Segmenter(seeds.engine_seed().write(Path(folder)), threads=1, device="cpu")
    opened._backend = FakeBackend()
    return opened


def answer_and_write(slices: list[Any], messages: list[str]) -> None:
    """Segment the slices, write all kinds of outputs, and look at them."""
    from lsms_rt.writing import write_nifti, write_rtstruct, write_sc, write_seg, write_sr

    engine = segmenter()
    asked = slices[:MOST_SLICES]
    results = list(engine.predict_series(asked, SENTENCE))
    if len(results) != len(asked):
        raise Wrong(f"{len(results)} results for {len(asked)} slices")
    for result in results:
        _check(result)
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        folder = Path(name)
        results[0].save_overlay(folder / "overlay.png", include_text=False)
        results[0].save_mask(folder / "mask.png")
        digest, seg = {"engine_digest": engine.digest}, folder / "seg.dcm"
        writers: dict[str, Callable[..., Any]] = {
            "seg.dcm": functools.partial(write_seg, write_empty=True, **digest),
            "sr.dcm": functools.partial(write_sr, seg=seg, **digest),
            "key.dcm": lambda results, path: write_sc(results, lambda number: path, **digest),
            "rtstruct.dcm": functools.partial(write_rtstruct, **digest),
            "mask.nii": write_nifti,
        }
        written = {"mask.png", "overlay.png"}
        written |= {name for name, write in writers.items() if _done(write, results, folder / name, messages)}
        _check_files(folder, written, results)


def _done(write: Callable[..., Any], results: list[Any], path: Path, messages: list[str]) -> bool:
    """Whether there is a file now; a refusal is a message."""
    from lsms_rt.errors import InputError

    try:
        write(results, path)
    except InputError as error:
        messages.append(str(error))
        return False
    return path.exists()


def _check(result: Any) -> None:
    ct = result.ct
    shape = ct.hu.shape[::-1] if ct.transposed else ct.hu.shape
    if result.mask.shape != shape or result.mask.dtype != bool:
        raise Wrong(f"a mask {result.mask.shape} {result.mask.dtype} for a slice of {shape}")
    if not np.isfinite(result.probability).all():
        raise Wrong("probabilities that are not finite")
    # JSON has no NaN and no infinity.
    text = json.dumps(result.to_dict(), allow_nan=False)
    if MARKER in text + repr(result):
        raise Wrong("a result shows a value of the file")


def _check_files(folder: Path, written: set[str], results: list[Any]) -> None:
    from pydicom import dcmread

    found = {path.name for path in folder.iterdir()}
    if found != written:
        raise Wrong(f"files {sorted(found)} instead of {sorted(written)}")
    for name in written:
        # DICOM objects are of a patient.
        if not name.endswith(".dcm") and MARKER.encode() in (folder / name).read_bytes():
            raise Wrong(f"{name} holds a value of the file")
    if "seg.dcm" in written:
        seg = dcmread(folder / "seg.dcm")
        if int(seg.NumberOfFrames) != max(1, sum(bool(r.mask.any()) for r in results)):
            raise Wrong(f"{seg.NumberOfFrames} frames in the Segmentation")
    if "mask.nii" in written:
        import nibabel

        volume = np.asarray(nibabel.load(folder / "mask.nii", mmap=False).dataobj)
        if int(volume.sum()) != sum(int(r.mask.sum()) for r in results):
            raise Wrong(f"{int(volume.sum())} voxels in the NIfTI mask")
