"""The KServe v2 protocol's tensors in HTTP: JSON, or JSON followed by binary tensors.

Source: KServe "Open Inference Protocol" v2 and Triton's binary tensor data extension.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from .replies import bad

TYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32,
    "INT64": np.int64, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}
# Header of a request whose body begins with that many bytes of JSON.
JSON_LENGTH = "inference-header-content-length"
MAX_INPUTS = 8
MAX_JSON = 2**20


def parse(body: bytes, json_length: str | None) -> tuple[dict[str, Any], dict[str, np.ndarray | list[bytes]]]:
    """Return a request's JSON, and its inputs by name: arrays, and lists of bytes for BYTES.

    Raises:
        RequestError: it is not of this protocol.
    """
    if json_length is not None and not (json_length.isdecimal() and int(json_length) <= len(body)):
        raise bad(f"the header {JSON_LENGTH} is no number of bytes in the body")
    length = len(body) if json_length is None else int(json_length)
    try:
        request = json.loads(body[:length])
        inputs = request["inputs"]
        if not isinstance(inputs, list) or len(inputs) > MAX_INPUTS:
            raise TypeError
        found, at = {}, length
        for one in inputs:
            size = (one.get("parameters") or {}).get("binary_data_size")
            if size is None:
                found[str(one["name"])] = _from_json(one)
                continue
            if not isinstance(size, int) or not 0 <= size <= len(body) - at:
                raise bad("binary_data_size is more than the body holds; send all tensors after the JSON, in its order")
            found[str(one["name"])] = _from_bytes(one, body[at : at + size])
            at += size
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error, OverflowError):
        raise bad("the body is no inference request of KServe v2; see GET /v2/models/NAME for the tensors") from None
    if at != len(body):
        raise bad("the body holds more bytes than its tensors; state binary_data_size of each")
    return request, found


def _shape(one: dict[str, Any]) -> tuple[int, ...]:
    shape = tuple(one["shape"])
    if len(shape) > 4 or not all(type(side) is int and 0 <= side < 2**31 for side in shape):
        raise ValueError
    return shape


def _from_json(one: dict[str, Any]) -> np.ndarray | list[bytes]:
    shape = _shape(one)
    if one["datatype"] == "BYTES":
        texts = [text.encode() for text in np.ravel(np.array(one["data"], object)).tolist()]
        if len(texts) != math.prod(shape):
            raise ValueError
        return texts
    kind = TYPES[one["datatype"]]
    values = np.array(one["data"])
    # So that 40000 is an error in INT16, not -25536.
    if np.issubdtype(kind, np.integer) and values.size:
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError
        limits = np.iinfo(kind)
        if values.min() < limits.min or values.max() > limits.max:
            raise ValueError
    return values.astype(kind).reshape(shape)


def _from_bytes(one: dict[str, Any], data: bytes) -> np.ndarray | list[bytes]:
    shape = _shape(one)
    if one["datatype"] == "BYTES":
        texts, at = [], 0
        while at < len(data):
            (size,) = struct.unpack_from("<I", data, at)
            if at + 4 + size > len(data):
                raise ValueError
            texts.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        if len(texts) != math.prod(shape):
            raise ValueError
        return texts
    return np.frombuffer(data, TYPES[one["datatype"]]).reshape(shape)


def answer(model: str, request: dict[str, Any], outputs: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of an answer.

    Args:
        model: its name.
        request: the request's JSON, which says which outputs are wanted, and which of them as bytes.
        outputs: all outputs by name: arrays, and lists of text for BYTES.

    Raises:
        RequestError: an output is asked for that there is not.
    """
    every = bool((request.get("parameters") or {}).get("binary_data_output", False))
    wanted = request.get("outputs") or [{"name": name} for name in outputs]
    described: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for one in wanted:
        name = one.get("name") if isinstance(one, dict) else None
        if name not in outputs:
            raise bad(f"an output is asked for that there is not; there are {', '.join(outputs)}")
        value = outputs[name]
        row: dict[str, Any] = {"name": name, "datatype": _datatype(value), "shape": _shape_of(value)}
        if (one.get("parameters") or {}).get("binary_data", every):
            blobs.append(_bytes_of(value))
            row["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            row["data"] = value if isinstance(value, list) else value.ravel().tolist()
        described.append(row)
    head = {"model_name": model, "model_version": "1", "outputs": described}
    if isinstance(request.get("id"), str):
        head["id"] = request["id"]
    text = json.dumps(head).encode()
    headers = {"Content-Type": "application/octet-stream" if blobs else "application/json"}
    if blobs:
        headers["Inference-Header-Content-Length"] = str(len(text))
    return b"".join([text, *blobs]), headers


def _datatype(value: np.ndarray | Sequence[str]) -> str:
    return NAMES[value.dtype] if isinstance(value, np.ndarray) else "BYTES"


def _shape_of(value: np.ndarray | Sequence[str]) -> list[int]:
    return list(value.shape) if isinstance(value, np.ndarray) else [len(value)]


def _bytes_of(value: np.ndarray | Sequence[str]) -> bytes:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    texts = [text.encode() for text in value]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
