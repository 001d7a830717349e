"""The tensors of KServe v2 requests and answers, and what is checked of them: our server and Triton's speak it."""

from __future__ import annotations

from typing import Any

import numpy as np

from lsms_rt.ct_slice import HU_MAX, HU_MIN
from lsms_rt.errors import InputError
from lsms_rt.reading.limits import check_spacing

from .request_error import bad
from .settings import MAX_MASK_VOXELS
from .tasks import Infer

MAX_SENTENCES = 16
# bytes of a sentence
MAX_SENTENCE = 4096
INPUTS: list[dict[str, Any]] = [
    {"name": "IMAGE", "datatype": "INT16", "shape": [-1, -1, -1]},
    {"name": "TEXT", "datatype": "BYTES", "shape": [-1]},
    {"name": "SPACING", "datatype": "FP32", "shape": [2]},
    {"name": "DICOM", "datatype": "BYTES", "shape": [1]},
]
OUTPUTS: list[dict[str, Any]] = [
    {"name": "MASK", "datatype": "UINT8", "shape": [-1, -1, -1, -1]},
    {"name": "SCORE", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "FOUND", "datatype": "BOOL", "shape": [-1, -1]},
    {"name": "READ_AS", "datatype": "BYTES", "shape": [-1]},
    {"name": "NOTES", "datatype": "BYTES", "shape": [-1]},
]
# The input that every request has.
TEXT = "TEXT"
# Types that a configuration names in another way.
TYPES = {"BYTES": "STRING"}


def task_of(model: str, inputs: dict[str, np.ndarray | list[bytes]]) -> Infer:
    """Return what a request asks for; whatever can be known to be wrong without computing is told here.

    Args:
        model: name of the engine.
        inputs: by name: arrays, and lists of bytes for BYTES.

    Raises:
        RequestError: the tensors are not those of the contract, or too large.
    """
    unknown = set(inputs) - {one["name"] for one in INPUTS}
    if unknown or TEXT not in inputs or ("IMAGE" in inputs) == ("DICOM" in inputs):
        raise bad("the inputs are TEXT, one of IMAGE and DICOM, and optionally SPACING")
    texts = inputs[TEXT]
    if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_SENTENCES:
        raise bad(f"TEXT is BYTES: 1 to {MAX_SENTENCES} sentences")
    if any(len(text) > MAX_SENTENCE for text in texts):
        raise bad(f"a sentence in TEXT is over the limit of {MAX_SENTENCE} bytes; describe one lesion in each")
    try:
        sentences = tuple(text.decode() for text in texts)
    except UnicodeDecodeError:
        raise bad("TEXT is not in UTF-8") from None
    mm = _spacing(inputs["SPACING"]) if "SPACING" in inputs else None
    if "DICOM" in inputs:
        if mm is not None:
            raise bad("SPACING is for IMAGE; leave it out with DICOM, whose own is used")
        files = inputs["DICOM"]
        if not isinstance(files, list) or len(files) != 1:
            raise bad("DICOM is BYTES [1]: the content of one file")
        return Infer(model=model, image=files[0], sentences=sentences)
    image = inputs["IMAGE"]
    if (
        not isinstance(image, np.ndarray)
        or image.dtype not in (np.int16, np.float32)
        or image.ndim != 3
        or not image.size
    ):
        raise bad(f"IMAGE is INT16 or FP32 (slices, rows, columns), HU from {HU_MIN:g} to {HU_MAX:g}")
    voxels = len(sentences) * image.size
    if voxels > MAX_MASK_VOXELS:
        raise bad(
            f"masks of {voxels} voxels are over the limit of {MAX_MASK_VOXELS}; send fewer slices or sentences", 413
        )
    return Infer(model=model, image=image, sentences=sentences, spacing=mm)


def config_of() -> dict[str, list[dict[str, Any]]]:
    """Return the tensors as a model's configuration describes them to Triton and its clients."""

    def described(tensor: dict[str, Any]) -> dict[str, Any]:
        kind = tensor["datatype"]
        return {"name": tensor["name"], "data_type": f"TYPE_{TYPES.get(kind, kind)}", "dims": tensor["shape"]}

    return {
        "input": [described(one) | {"optional": one["name"] != TEXT} for one in INPUTS],
        "output": [described(one) for one in OUTPUTS],
    }


def _spacing(given: Any) -> tuple[float, float]:
    if not isinstance(given, np.ndarray) or given.shape != (2,) or given.dtype not in (np.float32, np.float64):
        raise bad("SPACING is FP32 or FP64 [2]: mm between rows, and between columns")
    mm = float(given[0]), float(given[1])
    try:
        check_spacing(mm, "SPACING", "the request", "give mm between rows and between columns")
    except InputError as error:
        raise bad(str(error)) from None
    return mm


def outputs_of(value: dict[str, Any]) -> dict[str, np.ndarray | list[str]]:
    """Return an answer's tensors by name, from a worker's value: arrays, and lists of text for BYTES."""
    return {
        "MASK": value["mask"], "SCORE": value["score"], "FOUND": value["found"], "READ_AS": value["read_as"],
        "NOTES": value["notes"],
    }  # fmt: skip
