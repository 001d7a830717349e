"""KServe v2: tensors as JSON and as bytes; the answer is what ``predict`` finds."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsms_rt import Segmenter
from lsms_rt.reading.load import load_slice
from lsms_rt.serving.kserve import answer, parse
from lsms_rt.serving.replies import RequestError

TEXT = "the cyst in the liver"


def of_json(*inputs: dict[str, Any]) -> bytes:
    return json.dumps({"inputs": list(inputs)}).encode()


def test_tensors_in_json_and_as_bytes_are_the_same() -> None:
    values = np.array([[-1024, 3071], [0, 7]], np.int16)
    plain = of_json({"name": "A", "datatype": "INT16", "shape": [2, 2], "data": values.tolist()})
    _, found = parse(plain, None)
    np.testing.assert_array_equal(found["A"], values)
    described = {"name": "A", "datatype": "INT16", "shape": [2, 2], "parameters": {"binary_data_size": 8}}
    head = of_json(described)
    _, found = parse(head + values.tobytes(), str(len(head)))
    np.testing.assert_array_equal(found["A"], values)


def test_texts_as_bytes() -> None:
    texts = [b"one", "zw\u00f6lf".encode(), b""]
    blob = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    head = of_json({"name": "T", "datatype": "BYTES", "shape": [3], "parameters": {"binary_data_size": len(blob)}})
    _, found = parse(head + blob, str(len(head)))
    assert found["T"] == texts


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'{"inputs": 1}', of_json({"name": "A"}),
        of_json({"name": "A", "datatype": "INT16", "shape": [2], "data": [1]}),
        of_json({"name": "A", "datatype": "INT16", "shape": [1], "data": [40000]}),
        of_json({"name": "A", "datatype": "INT16", "shape": [1], "data": [1.5]}),
        of_json({"name": "A", "datatype": "INT16", "shape": [-1], "data": [1]}),
        of_json({"name": "A", "datatype": "OBJECT", "shape": [1], "data": [1]}),
        of_json({"name": "A", "datatype": "INT16", "shape": [1], "parameters": {"binary_data_size": 99}}),
        of_json({"name": "A", "datatype": "INT16", "shape": [1], "parameters": {"binary_data_size": -2}}),
        of_json({"name": "T", "datatype": "BYTES", "shape": [2], "data": ["one"]}),
        b'{"inputs": [' + b"[" * 5000 + b"]" * 5000 + b"]}",
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as error:
        parse(body, None)
    assert error.value.failed.status == 400


@pytest.mark.parametrize("length", ["-1", "x", "999"])
def test_a_wrong_length_of_the_json_is_refused(length: str) -> None:
    with pytest.raises(RequestError):
        parse(of_json(), length)


def test_bytes_that_belong_to_no_tensor_are_refused() -> None:
    with pytest.raises(RequestError):
        parse(of_json() + b"more", str(len(of_json())))


def test_outputs_are_chosen_and_their_form_too() -> None:
    outputs = {"A": np.array([1, 2], np.uint8), "T": ["x", "\u00e4"]}
    body, headers = answer("m", {"id": "7", "outputs": [{"name": "T", "parameters": {"binary_data": True}}]}, outputs)
    length = int(headers["Inference-Header-Content-Length"])
    head = json.loads(body[:length])
    assert (head["id"], [one["name"] for one in head["outputs"]]) == ("7", ["T"])
    assert body[length:] == b"\x01\x00\x00\x00x\x02\x00\x00\x00\xc3\xa4"
    body, headers = answer("m", {}, outputs)
    assert json.loads(body)["outputs"][0] == {"name": "A", "datatype": "UINT8", "shape": [2], "data": [1, 2]}
    with pytest.raises(RequestError):
        answer("m", {"outputs": [{"name": "B"}]}, outputs)


def infer(live: Any, inputs: list[dict[str, Any]], **more: Any) -> Any:
    return live.http.post("/v2/models/demo/infer", json={"inputs": inputs} | more)


def text(*sentences: str) -> dict[str, Any]:
    return {"name": "TEXT", "datatype": "BYTES", "shape": [len(sentences)], "data": list(sentences)}


def test_infer_finds_what_predict_finds(demo: Any, example: Path) -> None:
    ct = load_slice(example)
    hu = np.rint(ct.hu).astype(np.int16)
    image = {"name": "IMAGE", "datatype": "INT16", "shape": [1, *hu.shape], "data": hu.ravel().tolist()}
    response = infer(demo, [image, text(TEXT, "the lesion")])
    assert response.status_code == 200
    outputs = {one["name"]: one for one in response.json()["outputs"]}
    with Segmenter(demo.core.settings.models[0].path) as segmenter:
        expected = segmenter.predict(ct, [TEXT, "the lesion"])
    masks = np.array(outputs["MASK"]["data"], bool).reshape(outputs["MASK"]["shape"])
    assert masks.shape == (2, 1, *hu.shape)
    for mask, one in zip(masks[:, 0], expected, strict=True):
        # HU were rounded: a pixel at the outline may differ.
        assert np.count_nonzero(mask != in_frame(ct, one.mask)) <= 2
    assert outputs["FOUND"]["data"] == [one.found for one in expected]
    np.testing.assert_allclose(outputs["SCORE"]["data"], [one.score for one in expected], atol=1e-2)
    assert outputs["READ_AS"]["data"] == [one.read_as for one in expected]


def in_frame(ct: Any, mask: np.ndarray) -> np.ndarray:
    return ct.to_model_frame(mask, ct.flips, ct.transposed)


def test_infer_reads_the_bytes_of_a_file(demo: Any, example: Path) -> None:
    raw = example.read_bytes()
    blob = struct.pack("<I", len(raw)) + raw
    file = {"name": "DICOM", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(blob)}}
    head = of_json(text(TEXT), file)
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    response = demo.http.post("/v2/models/demo/infer", content=head + blob, headers=headers)
    with Segmenter(demo.core.settings.models[0].path) as segmenter:
        expected = segmenter.predict(example, TEXT)
    outputs = {one["name"]: one for one in response.json()["outputs"]}
    np.testing.assert_array_equal(np.array(outputs["MASK"]["data"]).reshape(expected.mask.shape), expected.mask)


@pytest.mark.parametrize(
    ("inputs", "status", "words"),
    [
        ([text("no cyst")], 400, "one of IMAGE and DICOM"),
        ([{"name": "IMAGE", "datatype": "FP32", "shape": [1, 1, 1], "data": [1.0]}, text("a")], 400, "INT16"),
        ([{"name": "IMAGE", "datatype": "INT16", "shape": [1, 2, 2], "data": [1] * 4}, text("the cyst")], 400,
         "supported are 16x16"),
        ([{"name": "IMAGE", "datatype": "INT16", "shape": [1, 32, 32], "data": [1] * 1024}, text("no cyst")], 422,
         "not understood"),
        ([{"name": "IMAGE", "datatype": "INT16", "shape": [1, 32, 32], "data": [1] * 1024}, text("")], 400, "empty"),
        ([{"name": "X", "datatype": "INT16", "shape": [1], "data": [1]}, text("a")], 400, "inputs are"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_says_why(demo: Any, inputs: list[Any], status: int, words: str) -> None:
    response = infer(demo, inputs)
    assert response.status_code == status
    assert words in response.json()["error"]


def test_errors_repeat_no_words_that_may_be_a_name(demo: Any) -> None:
    image = {"name": "IMAGE", "datatype": "INT16", "shape": [1, 32, 32], "data": [0] * 1024}
    response = infer(demo, [image, text("the mueller in the liver of mueller")])
    assert response.status_code == 422
    assert "mueller" not in response.text.lower()


def test_metadata_and_health(demo: Any) -> None:
    described = demo.http.get("/v2/models/demo").json()
    assert [one["name"] for one in described["inputs"]] == ["IMAGE", "TEXT", "SPACING", "DICOM"]
    assert described["parameters"]["digest"].startswith("sha256:")
    assert demo.http.get("/v2/models/demo/ready").json() == {"ready": True}
    assert demo.http.get("/v2/health/live").json() == {"live": True}
    assert demo.http.get("/v2/models/other").status_code == 404


def test_tritonclient(demo: Any, example: Path) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    ct = load_slice(example)
    hu = np.rint(ct.hu).astype(np.int16)[None]
    client = triton.InferenceServerClient(demo.url.removeprefix("http://"), network_timeout=60)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("demo")
    image, sentence = triton.InferInput("IMAGE", list(hu.shape), "INT16"), triton.InferInput("TEXT", [1], "BYTES")
    image.set_data_from_numpy(hu)
    sentence.set_data_from_numpy(np.array([TEXT], object))
    result = client.infer("demo", [image, sentence])
    assert result.as_numpy("MASK").shape == (1, *hu.shape)
    assert result.as_numpy("FOUND").tolist() == [[True]]
    assert result.as_numpy("READ_AS").tolist() == [TEXT.encode()]
    client.close()
