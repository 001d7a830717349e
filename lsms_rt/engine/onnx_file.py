"""Check that an ONNX graph is complete in itself, before a library opens it.

A graph may name other files that hold its weights, and a node may name a compiled engine: no digest covers those, and
libraries resolve the names.  The runtime has no ONNX package, so this module walks the file's encoding (protobuf): a
message is a row of fields, each a number, a type and a value, and only the fields that lead to tensors are followed.
"""

from __future__ import annotations

from collections.abc import Iterator

from lsms_rt.errors import EngineInvalidError

# Far more than any graph has; a hostile file must not cost minutes.
MAX_FIELDS = 4_000_000
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
# Message of onnx.proto -> its fields that hold messages with tensors.
_CHILDREN = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_OP_TYPE, _EXTERNAL_DATA, _DATA_LOCATION = 4, 13, 14
# ONNX Runtime takes a file with these bytes at 4 for its own format, whatever its name.
_ORT_FORMAT = b"ORTM"
FIX = "build the engine again with lsms-rt build-engine, which writes whole graphs"


def check_graph(data: bytes, what: str) -> None:
    """Raise EngineInvalidError unless ``data`` is an ONNX file that needs no other file; ``what`` is its name."""
    if data[4:8] == _ORT_FORMAT:
        raise EngineInvalidError(f"{what} is in ONNX Runtime's own format, not ONNX; {FIX}")
    todo, left = [("Model", memoryview(data))], MAX_FIELDS
    while todo:
        message, body = todo.pop()
        children = _CHILDREN[message]
        try:
            for number, value in _fields(body):
                left -= 1
                if left < 0:
                    raise EngineInvalidError(f"{what} has over {MAX_FIELDS} fields, more than any graph; {FIX}")
                if isinstance(value, memoryview):
                    if number in children:
                        todo.append((children[number], value))
                    elif message == "Tensor" and number == _EXTERNAL_DATA:
                        raise EngineInvalidError(f"{what} keeps weights in another file; {FIX}")
                    elif message == "Node" and number == _OP_TYPE and bytes(value[:10]) == b"EPContext":
                        raise EngineInvalidError(f"{what} holds or names a compiled engine (EPContext); {FIX}")
                elif message == "Tensor" and number == _DATA_LOCATION and value:
                    raise EngineInvalidError(f"{what} keeps weights in another file; {FIX}")
        except (IndexError, ValueError) as error:
            raise EngineInvalidError(f"{what} is not an ONNX file; {FIX}") from error


def _fields(body: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and value of every field; ValueError or IndexError if the bytes are no message."""
    at, end = 0, len(body)
    while at < end:
        tag, at = _varint(body, at)
        # Libraries cut longer ones, each in its way.
        if tag >= 1 << 32:
            raise ValueError("a field's number is too large")
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(body, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(body, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {kind}")
        if size > end - at:
            raise ValueError("a field is cut off")
        yield number, body[at : at + size] if kind == _BYTES else 0
        at += size


def _varint(body: memoryview, at: int) -> tuple[int, int]:
    value = body[at]
    if value < 128:
        return value, at + 1
    value &= 127
    for shift in range(7, 70, 7):
        at += 1
        byte = body[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
    raise ValueError("a number has too many bytes")
