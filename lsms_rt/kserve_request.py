"""Requests of KServe v2 with binary tensors, as clients send them, and the tensors of an answer.

Source: KServe "Open Inference Protocol" v2 and Triton's binary tensor data extension.  The server's side is
``serving.kserve``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

JSON_LENGTH = "Inference-Header-Content-Length"
# Name, KServe's datatype, shape and bytes.
Tensor = tuple[str, str, list[int], bytes]
BINARY = {"binary_data_output": True}


def request_of(
    tensors: Sequence[Tensor], *, parameters: Mapping[str, Any] = BINARY, **head: Any
) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request.

    Args:
        tensors: the inputs.
        parameters: of the request; by default its answer is binary.
        head: what else the request's JSON holds, e.g. ``outputs``.
    """
    described = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, kind, shape, data in tensors
    ]
    text = json.dumps({"inputs": described, "parameters": parameters, **head}).encode()
    headers = {JSON_LENGTH: str(len(text)), "Content-Type": "application/octet-stream"}
    return b"".join([text, *(data for *_, data in tensors)]), headers


def bytes_tensor(name: str, values: Sequence[bytes]) -> Tensor:
    """Return a tensor of type BYTES: each value after its length."""
    return name, "BYTES", [len(values)], b"".join(len(value).to_bytes(4, "little") + value for value in values)


def image_tensor(slices: np.ndarray) -> Tensor:
    """Return slices (slices, rows, columns) in HU as IMAGE: int16 if that holds their values, else float32."""
    whole = np.rint(slices).clip(-(2**15), 2**15 - 1).astype("<i2")
    if np.array_equal(whole, slices):
        return "IMAGE", "INT16", list(slices.shape), whole.tobytes()
    return "IMAGE", "FP32", list(slices.shape), slices.astype("<f4").tobytes()


def value_of(output: Mapping[str, Any], data: bytes) -> Any:
    """Return an output of an answer, as it is described and sent: an array, or a list of texts."""
    if output["datatype"] != "BYTES":
        kind = np.dtype({"UINT8": "u1", "FP32": "<f4", "BOOL": "?"}[output["datatype"]])
        return np.frombuffer(data, kind).reshape(output["shape"])
    texts, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        texts.append(data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return texts
