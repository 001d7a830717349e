"""The KServe v2 protocol's tensors in HTTP: JSON, or JSON followed by binary tensors.

Source: KServe "Open Inference Protocol" v2 and Triton's binary tensor data extension.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .request_error import bad
from .settings import MIB

TYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32,
    "INT64": np.int64, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}
# Header of a request whose body begins with that many bytes of JSON.
JSON_LENGTH = "inference-header-content-length"
MAX_INPUTS = 8
# of a BYTES tensor
MAX_TEXTS = 64
# bytes of JSON before binary tensors, and of JSON that holds its tensors; values of an answer in JSON, of which a
# mask's have 3 bytes each.  Python makes an object of each value, while nothing else runs.
MAX_HEAD, MAX_JSON, MAX_VALUES = MIB, 4 * MIB, MIB


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a request wants as its answer.

    Attributes:
        binary: whether each output comes as bytes, by its name.
        id: the request's own name; None: it has none.
    """

    binary: dict[str, bool]
    id: str | None = None


def parse(body: bytes, stated: str | None) -> tuple[dict[str, Any], dict[str, np.ndarray | list[bytes]]]:
    """Return a request's JSON, and its inputs by name: arrays, and lists of bytes for BYTES.

    Raises:
        RequestError: it is not of this protocol, or too large.
    """
    length = json_length(body, stated)
    try:
        request = json.loads(body[:length], parse_constant=_no_number)
        inputs = request["inputs"]
        if not isinstance(inputs, list) or len(inputs) > MAX_INPUTS:
            raise TypeError
        found: dict[str, np.ndarray | list[bytes]] = {}
        at, view = length, memoryview(body)
        for one in inputs:
            name, size = one["name"], _parameters(one).get("binary_data_size")
            if not isinstance(name, str) or name in found:
                raise TypeError
            if size is None:
                found[name] = _from_json(one)
                continue
            if type(size) is not int or not 0 <= size <= len(body) - at:
                raise bad("binary_data_size is more than the body holds; send all tensors after the JSON, in its order")
            found[name] = _from_bytes(one, view[at : at + size])
            at += size
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error, OverflowError):
        raise bad("the body is no inference request of KServe v2; see GET /v2/models/NAME for the tensors") from None
    if at != len(body):
        raise bad("the body holds more bytes than its tensors; state binary_data_size of each")
    return request, found


def json_length(body: bytes, stated: str | None) -> int:
    """Return how much of a body is JSON, of which ``stated`` is its header's word; None: all.

    Raises:
        RequestError: the header is none, or it is too much.
    """
    if stated is None:
        length, limit = len(body), MAX_JSON
    else:
        # Python refuses to convert thousands of digits.
        if not (stated.isascii() and stated.isdecimal() and len(stated) < 16 and int(stated) <= len(body)):
            raise bad(f"the header {JSON_LENGTH} is no number of bytes in the body")
        length, limit = int(stated), MAX_HEAD
    if length > limit:
        raise bad(f"the JSON is over the limit of {limit // MIB} MiB; send tensors as bytes (binary_data_size)", 413)
    return length


def _no_number(text: str) -> None:
    """Refuse NaN and Infinity, which are no JSON."""
    raise ValueError


def _parameters(one: dict[str, Any]) -> dict[str, Any]:
    found = one.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise TypeError
    return found


def _shape(one: dict[str, Any]) -> tuple[int, ...]:
    shape = one["shape"]
    if (
        not isinstance(shape, list)
        or len(shape) > 4
        or not all(type(side) is int and 0 <= side < 2**31 for side in shape)
    ):
        raise ValueError
    return tuple(shape)


def _from_json(one: dict[str, Any]) -> np.ndarray | list[bytes]:
    shape = _shape(one)
    values = _flat(one["data"], shape)
    if one["datatype"] == "BYTES":
        if len(values) > MAX_TEXTS or not all(type(text) is str for text in values):
            raise ValueError
        return [text.encode() for text in values]
    kind = np.dtype(TYPES[one["datatype"]])
    # NumPy is given nothing but numbers of the type: it would make 1 of "1", and -25536 of 40000 in INT16.
    allowed = {"b": (bool,), "f": (int, float)}.get(kind.kind, (int,))
    if not all(type(value) in allowed for value in values):
        raise ValueError
    if kind.kind in "iu" and values:
        limits = np.iinfo(kind.name)
        if min(values) < limits.min or max(values) > limits.max:
            raise ValueError
    with np.errstate(over="ignore"):
        return np.array(values, np.float64 if kind.kind == "f" else kind).astype(kind).reshape(shape)


def _flat(data: Any, shape: tuple[int, ...]) -> list[Any]:
    """Return the values of a tensor: a flat list, or lists in lists as the shape says."""
    if not isinstance(data, list):
        raise ValueError
    if len(shape) > 1 and any(isinstance(value, list) for value in data):
        parts: list[Any] = [data]
        for side in shape:
            if not all(isinstance(part, list) and len(part) == side for part in parts):
                raise ValueError
            parts = [value for part in parts for value in part]
        data = parts
    if len(data) != math.prod(shape):
        raise ValueError
    return list(data)


def _from_bytes(one: dict[str, Any], data: memoryview) -> np.ndarray | list[bytes]:
    shape = _shape(one)
    if one["datatype"] == "BYTES":
        count, texts, at = math.prod(shape), list[bytes](), 0
        while at < len(data):
            (size,) = struct.unpack_from("<I", data, at)
            if at + 4 + size > len(data) or len(texts) == min(count, MAX_TEXTS):
                raise ValueError
            texts.append(bytes(data[at + 4 : at + 4 + size]))
            at += 4 + size
        if len(texts) != count:
            raise ValueError
        return texts
    return np.frombuffer(data, TYPES[one["datatype"]]).reshape(shape)


def wanted(request: dict[str, Any], names: Collection[str]) -> Wanted:
    """Return what a request wants as its answer, to be asked before anything is computed.

    Args:
        request: the request's JSON.
        names: of all outputs.

    Raises:
        RequestError: it is not of this protocol, or an output is asked for that there is not, or twice.
    """
    try:
        every = _switch(request, "binary_data_output", False)
        outputs = request.get("outputs")
        if outputs is not None and not isinstance(outputs, list):
            raise TypeError
        binary: dict[str, bool] = {}
        for one in outputs or [{"name": name} for name in names]:
            name = one["name"]
            if not isinstance(name, str) or name not in names:
                raise bad(f"an output is asked for that there is not; there are {', '.join(names)}")
            if name in binary:
                raise bad("an output is asked for twice; name each once")
            binary[name] = _switch(one, "binary_data", every)
    except (KeyError, TypeError, AttributeError):
        raise bad("outputs or parameters are not of KServe v2; see GET /v2/models/NAME for the tensors") from None
    id = request.get("id")
    return Wanted(binary=binary, id=id if isinstance(id, str) else None)


def _switch(one: dict[str, Any], name: str, usual: bool) -> bool:
    value = _parameters(one).get(name, usual)
    if not isinstance(value, bool):
        raise TypeError
    return value


def check_values(count: int) -> None:
    """Raise RequestError for an answer of more values than are written as JSON."""
    if count > MAX_VALUES:
        raise bad(f"{count} values are over the limit of {MAX_VALUES} in JSON; ask for bytes (binary_data_output)", 413)


def answer(model: str, asked: Wanted, outputs: dict[str, Any], engine: str = "") -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of an answer.

    Args:
        model: its name.
        asked: which outputs are wanted, and which of them as bytes.
        outputs: all outputs by name: arrays, and lists of text for BYTES.
        engine: digest of the engine that answered.

    Raises:
        RequestError: it has too many values for JSON.
    """
    check_values(sum(np.size(outputs[name]) for name, as_bytes in asked.binary.items() if not as_bytes))
    described: list[dict[str, Any]] = []
    blobs: list[bytes | memoryview] = []
    for name, as_bytes in asked.binary.items():
        value = outputs[name]
        row: dict[str, Any] = {"name": name, "datatype": _datatype(value), "shape": _shape_of(value)}
        if as_bytes:
            blobs.append(_bytes_of(value))
            row["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            row["data"] = value if isinstance(value, list) else value.ravel().tolist()
        described.append(row)
    head = {"model_name": model, "model_version": "1", "outputs": described, "parameters": {"engine": engine}}
    if asked.id is not None:
        head["id"] = asked.id
    text = json.dumps(head).encode()
    headers = {"Content-Type": "application/octet-stream" if blobs else "application/json"}
    if blobs:
        headers["Inference-Header-Content-Length"] = str(len(text))
    return b"".join([text, *blobs]), headers


def _datatype(value: np.ndarray | Sequence[str]) -> str:
    return NAMES[value.dtype] if isinstance(value, np.ndarray) else "BYTES"


def _shape_of(value: np.ndarray | Sequence[str]) -> list[int]:
    return list(value.shape) if isinstance(value, np.ndarray) else [len(value)]


def _bytes_of(value: np.ndarray | Sequence[str]) -> bytes | memoryview:
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    texts = [text.encode() for text in value]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
