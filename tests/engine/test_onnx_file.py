"""A graph must be complete in itself: files that the onnx package makes, with what may not be in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lsms_rt import Segmenter, demo_engine
from lsms_rt.digest import sha256
from lsms_rt.engine import onnx_file, open_directory
from lsms_rt.engine.manifest import MANIFEST, fields_digest
from lsms_rt.engine.onnx_file import check_graph
from lsms_rt.errors import EngineInvalidError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def external(location: str = "/etc/hostname") -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def plain() -> TensorProto:
    return numpy_helper.from_array(np.zeros(4, np.float32), "w")


def model(*nodes: onnx.NodeProto, **parts: object) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", [], [], **parts)
    return helper.make_model(graph)


def constant(**attribute: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["w"], **attribute)


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[4])


def subgraph(tensor: TensorProto) -> onnx.GraphProto:
    inner = helper.make_graph([constant(value=tensor)], "inner", [], [])
    return helper.make_graph([helper.make_node("If", ["c"], ["x"], then_branch=inner)], "outer", [], [])


def function(tensor: TensorProto) -> onnx.ModelProto:
    made = helper.make_function("lsms", "F", ["x"], ["w"], [constant(value=tensor)], [helper.make_opsetid("", 18)])
    default = helper.make_function(
        "lsms", "G", ["x"], ["w"], [constant()], [helper.make_opsetid("", 18)],
        attribute_protos=[helper.make_attribute("t", tensor)],
    )  # fmt: skip
    whole = model()
    whole.functions.extend([made, default])
    return whole


def training(tensor: TensorProto) -> onnx.ModelProto:
    whole = model()
    whole.training_info.add().algorithm.CopyFrom(subgraph(tensor))
    return whole


PLACES: dict[str, Callable[[TensorProto], onnx.ModelProto]] = {
    "initializer": lambda t: model(initializer=[plain(), t]),
    "constant": lambda t: model(constant(value=t)),
    "list of tensors": lambda t: model(helper.make_node("X", [], ["w"], many=[plain(), t])),
    "sparse initializer": lambda t: model(sparse_initializer=[sparse(plain(), t)]),
    "sparse constant": lambda t: model(constant(sparse_value=sparse(t, plain()))),
    "subgraph": lambda t: model(helper.make_node("Loop", [], ["w"], body=subgraph(t))),
    "list of subgraphs": lambda t: model(helper.make_node("X", [], ["w"], bodies=[subgraph(plain()), subgraph(t)])),
    "function": function,
    "training": training,
}


@pytest.mark.parametrize("place", PLACES)
def test_weights_in_other_files_are_refused_wherever_they_are(place: str) -> None:
    check_graph(PLACES[place](plain()).SerializeToString(), "a.onnx")
    with pytest.raises(EngineInvalidError, match=r"a\.onnx keeps weights in another file; build the engine again"):
        check_graph(PLACES[place](external()).SerializeToString(), "a.onnx")
    # Either of the two fields alone.
    for part in ("data_location", "external_data"):
        half = external()
        half.ClearField(part)
        with pytest.raises(EngineInvalidError, match="another file"):
            check_graph(PLACES[place](half).SerializeToString(), "a.onnx")


def test_a_graph_in_pieces_is_read_as_libraries_read_it() -> None:
    """Fields that come twice are merged, in any order."""
    hidden = model(initializer=[external()]).SerializeToString()
    for data in (model().SerializeToString() + hidden, hidden + model().SerializeToString()):
        assert onnx.load_from_string(data).graph.initializer[0].external_data
        with pytest.raises(EngineInvalidError, match="another file"):
            check_graph(data, "a.onnx")
    # A tag in more bytes than it needs, the location as a number of ten bytes.
    tensor = b"\xf0\x80\x00" + b"\x81\x80\x80\x80\x80\x80\x80\x80\x80\x00"
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    data = b"\x3a" + bytes([len(graph)]) + graph
    with pytest.raises(EngineInvalidError):
        check_graph(data, "a.onnx")


def test_compiled_engines_and_other_formats_are_refused() -> None:
    node = helper.make_node("EPContext", [], ["w"], domain="com.microsoft", ep_cache_context="/tmp/a.engine")
    with pytest.raises(EngineInvalidError, match="compiled engine"):
        check_graph(model(node).SerializeToString(), "a.onnx")
    with pytest.raises(EngineInvalidError, match="ONNX Runtime's own format"):
        check_graph(b"\x18\x00\x00\x00ORTM" + bytes(100), "a.onnx")


@pytest.mark.parametrize(
    "data", [b"\xff" * 50, b"\x3a\x7f", b"\x3a\xff\xff\xff\xff\x7f", b"\x0b", b"not an onnx file", b"\x08"]
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(EngineInvalidError, match="not an ONNX file"):
        check_graph(data, "a.onnx")


def test_hostile_numbers_of_fields_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MAX_FIELDS", 1000)
    check_graph(b"\x08\x01" * 900, "a.onnx")
    for field in (b"\x08\x01", b"\x0d1234"):
        with pytest.raises(EngineInvalidError, match="over 1000 fields"):
            check_graph(field * 1100, "a.onnx")


def test_an_engine_with_such_a_graph_is_refused_by_every_reader(tmp_path: Path) -> None:
    engine = Path(shutil.copytree(demo_engine(), tmp_path / "a.engine"))
    graph = onnx.load_from_string((engine / "image.onnx").read_bytes())
    (engine / "weights.bin").write_bytes(graph.graph.initializer[0].raw_data)
    graph.graph.initializer[0].CopyFrom(external("weights.bin"))
    data = graph.SerializeToString()
    (engine / "image.onnx").write_bytes(data)
    values = json.loads((engine / MANIFEST).read_text())
    values["files"]["image.onnx"] = sha256(data)
    (engine / MANIFEST).write_text(json.dumps(values | {"manifest_digest": fields_digest(values)}))
    with pytest.raises(EngineInvalidError, match="another file"):
        Segmenter(engine)
    # --from and calibrate read by it.
    with pytest.raises(EngineInvalidError, match="another file"):
        open_directory(engine).read("image.onnx")
