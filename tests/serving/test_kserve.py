"""KServe v2: tensors as JSON and as bytes; the answer is what ``predict`` finds."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsms_rt import Segmenter
from lsms_rt.errors import InputError
from lsms_rt.reading.load import load_slice
from lsms_rt.serving import kserve, routes_kserve, tensors
from lsms_rt.serving.kserve import answer, parse, wanted
from lsms_rt.serving.replies import RequestError

TEXT = "the cyst in the liver"
pytestmark = pytest.mark.usefixtures("bundled_engine_opened_once")


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


@pytest.mark.parametrize("length", ["-1", "x", "999", "9" * 5000, "\u00b2", ""])
def test_a_wrong_length_of_the_json_is_refused(length: str) -> None:
    with pytest.raises(RequestError):
        parse(of_json(), length)


def test_bytes_that_belong_to_no_tensor_are_refused() -> None:
    with pytest.raises(RequestError):
        parse(of_json() + b"more", str(len(of_json())))


def test_outputs_are_chosen_and_their_form_too() -> None:
    outputs = {"A": np.array([1, 2], np.uint8), "T": ["x", "\u00e4"]}
    asked = wanted({"id": "7", "outputs": [{"name": "T", "parameters": {"binary_data": True}}]}, outputs)
    body, headers = answer("m", asked, outputs)
    length = int(headers["Inference-Header-Content-Length"])
    head = json.loads(body[:length])
    assert (head["id"], [one["name"] for one in head["outputs"]]) == ("7", ["T"])
    assert body[length:] == b"\x01\x00\x00\x00x\x02\x00\x00\x00\xc3\xa4"
    body, headers = answer("m", wanted({}, outputs), outputs)
    assert json.loads(body)["outputs"][0] == {"name": "A", "datatype": "UINT8", "shape": [2], "data": [1, 2]}


@pytest.mark.parametrize(
    "request_",
    [
        {"outputs": [{"name": "B"}]}, {"outputs": [{"name": "A"}] * 2}, {"outputs": 5}, {"outputs": [5]},
        {"outputs": [{"name": ["A"]}]}, {"outputs": [{}]}, {"outputs": [{"name": "A", "parameters": 5}]},
        {"outputs": [{"name": "A", "parameters": {"binary_data": "no"}}]}, {"parameters": [1]}, {"parameters": "x"},
        {"parameters": {"binary_data_output": 1}}, {"outputs": {"name": "A"}},
    ],
)  # fmt: skip
def test_what_is_wanted_must_be_clear(request_: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as error:
        wanted(request_, ["A", "T"])
    assert error.value.failed.status == 400


def test_what_is_wanted_is_asked_before_the_inference(demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.core, "submit", lambda task: pytest.fail("it was computed"))
    image = {"name": "IMAGE", "datatype": "INT16", "shape": [1, 32, 32], "data": [0] * 1024}
    for more in ({"outputs": [{"name": "MASK"}] * 400}, {"outputs": 5}, {"parameters": [1]}):
        assert infer(demo, [image, text(TEXT)], **more).status_code == 400
    monkeypatch.setattr(kserve, "MAX_VALUES", 1000)
    response = infer(demo, [image, text(TEXT)])
    assert (response.status_code, "binary_data_output" in response.text) == (413, True)
    monkeypatch.setattr(tensors, "MAX_MASK_VOXELS", 2000)
    response = infer(demo, [image, text(TEXT, TEXT)], parameters={"binary_data_output": True})
    assert (response.status_code, "2048 voxels" in response.text) == (413, True)


def test_masks_of_a_file_are_bounded_by_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    from lsms_rt.serving import work

    monkeypatch.setattr(work, "MAX_MASK_VOXELS", 2000)
    with pytest.raises(InputError, match="2048 voxels"):
        work._check_masks(2048)


def test_json_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    body = of_json({"name": "A", "datatype": "INT16", "shape": [100], "data": [0] * 100})
    for name, length in (("MAX_JSON", None), ("MAX_HEAD", str(len(body)))):
        monkeypatch.setattr(kserve, name, 100)
        with pytest.raises(RequestError, match="binary_data_size") as error:
            parse(body, length)
        assert error.value.failed.status == 413


def test_values_for_json_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kserve, "MAX_VALUES", 10)
    outputs = {"A": np.zeros(11, np.uint8)}
    with pytest.raises(RequestError) as error:
        answer("m", wanted({}, outputs), outputs)
    assert error.value.failed.status == 413
    assert answer("m", wanted({"parameters": {"binary_data_output": True}}, outputs), outputs)[0].endswith(bytes(11))


def test_numpy_gets_nothing_but_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kserve.np, "array", lambda *args: pytest.fail("NumPy was called"))
    wrong: list[Any] = [
        ["1", "2"], [1, [2]], [[1], [2, 3]], [[1, 2], [3]], [True, 1], [None, 1], [1.0, 2], [{}, 1], "12", 1, None,
        [[[1]], [[2]]], ["x" * 10_000, 1],
    ]  # fmt: skip
    for data in wrong:
        for shape in ([2], [2, 1], [1, 2]):
            with pytest.raises(RequestError):
                parse(of_json({"name": "A", "datatype": "INT16", "shape": shape, "data": data}), None)
    with pytest.raises(RequestError):
        parse(of_json({"name": "A", "datatype": "INT16", "shape": [2**30, 2**30, 2**30], "data": [1]}), None)


def test_values_may_be_nested_as_the_shape() -> None:
    data = [[[1, 2]], [[3, 4]]]
    _, found = parse(of_json({"name": "A", "datatype": "FP32", "shape": [2, 1, 2], "data": data}), None)
    np.testing.assert_array_equal(found["A"], np.array(data, np.float32))


def test_one_text_for_each_place() -> None:
    blob = bytes(4 * 1000)
    for shape in ([1], [1000]):
        one = {"name": "T", "datatype": "BYTES", "shape": shape, "parameters": {"binary_data_size": len(blob)}}
        head = of_json(one)
        with pytest.raises(RequestError):
            parse(head + blob, str(len(head)))


def test_too_little_memory_is_503(demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(routes_kserve, "parse", full)
    response = infer(demo, [text(TEXT)])
    assert (response.status_code, response.json()["kind"]) == (503, "MemoryError")


@pytest.mark.parametrize("mm", [[-1, 1], [1, 1e39], [0, 0], [1, 1, 1], ["1", "1"], [1, 50]])
def test_a_spacing_that_no_image_has_is_refused(demo: Any, mm: list[Any]) -> None:
    image = {"name": "IMAGE", "datatype": "INT16", "shape": [1, 32, 32], "data": [0] * 1024}
    spacing = {"name": "SPACING", "datatype": "FP32", "shape": [len(mm)], "data": mm}
    assert infer(demo, [image, text(TEXT), spacing]).status_code == 400


def test_no_spacing_beside_a_file() -> None:
    inputs = {"TEXT": [b"a"], "DICOM": [b"x"], "SPACING": np.ones(2, np.float32)}
    with pytest.raises(RequestError, match="SPACING"):
        tensors.task_of("m", inputs)
    with pytest.raises(RequestError, match="4096 bytes"):
        tensors.task_of("m", {"TEXT": [b"a" * 5000], "DICOM": [b"x"]})


def test_mutated_requests_are_refused_or_understood() -> None:
    """JSON with values exchanged, removed or doubled: whatever is wrong is the sender's error."""
    chance = random.Random(189)
    blob = struct.pack("<I", 1) + b"x"
    plain = {
        "id": "1", "parameters": {"binary_data_output": True},
        "inputs": [
            {"name": "IMAGE", "datatype": "INT16", "shape": [1, 2, 2], "data": [[[1, 2], [3, 4]]]},
            {"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["the cyst"]},
            {"name": "SPACING", "datatype": "FP32", "shape": [2], "data": [1.0, 1.0]},
            {"name": "DICOM", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(blob)}},
        ],
        "outputs": [{"name": "MASK", "parameters": {"binary_data": True}}, {"name": "SCORE"}],
    }  # fmt: skip
    odd: list[Any] = [
        None, True, -1, 0, 1.5, 1e39, 1e999, float("nan"), 2**31, 10**400, "", "x", "\ud800", "BYTES", "FP32", "BOOL",
        "IMAGE", [], [1], [[1]], [None], {}, {"name": "MASK"}, [[1], [2, 3]], ["x", 1],
    ]  # fmt: skip
    refused = []
    for _ in range(600):
        request = copy.deepcopy(plain)
        if chance.random() < 0.5:
            del request["inputs"][chance.choice([0, 3])]  # type: ignore[attr-defined]
        for _ in range(chance.choice([1, 1, 2])):
            where, key = chance.choice(list(places(request)))
            if chance.random() < 0.2:
                del where[key]
            else:
                where[key] = copy.deepcopy(chance.choice(odd))
        head = json.dumps(request).encode()
        length = chance.choice([None, str(len(head)), str(len(head)), "9" * 5000, "-1"])
        try:
            routes_kserve._parsed("m", head + (blob if length else b""), length)
        except RequestError as error:
            refused.append(error.failed.status)
    assert len(refused) > 400
    assert set(refused) <= {400, 413}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every list or dict in a value with each of its keys."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


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
        ([{"name": "IMAGE", "datatype": "FP64", "shape": [1, 1, 1], "data": [1.0]}, text("a")], 400, "INT16"),
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


def test_what_takes_long_is_read_and_worded_beside_the_loop(
    demo: Any, example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: list[str] = []
    real = routes_kserve.run_in_threadpool

    async def noted(work: Any, *arguments: Any) -> Any:
        beside.append(work.__name__)
        return await real(work, *arguments)

    monkeypatch.setattr(routes_kserve, "run_in_threadpool", noted)
    image = {"name": "IMAGE", "datatype": "INT16", "shape": [1, 32, 32], "data": [0] * 1024}
    binary = {"parameters": {"binary_data_output": True}}
    for more, limit, expected in (
        ({}, 2**14, ["answer"]), (binary, 2**14, []), (binary, 2**8, ["_parsed"]),
    ):  # fmt: skip
        beside.clear()
        monkeypatch.setattr(routes_kserve, "AT_ONCE_JSON", limit)
        assert infer(demo, [image, text(TEXT)], **more).status_code == 200
        assert beside == expected
    beside.clear()
    monkeypatch.setattr(routes_kserve, "AT_ONCE_JSON", 2**14)
    monkeypatch.setattr(routes_kserve, "AT_ONCE_MASK", 1023)
    assert infer(demo, [image, text(TEXT)], **binary).status_code == 200
    assert beside == ["answer"]


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
