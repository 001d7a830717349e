"""A real tritonserver with two instances: answers to the byte, faults, a full queue, a stub that is killed, restart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsms_rt import Segmenter
from lsms_rt.data import demo_engine
from lsms_rt.errors import MachineError
from lsms_rt.reading.load import load_slice
from lsms_rt.triton_server.config import TritonOptions
from lsms_rt.triton_server.export import export_model
from lsms_rt.triton_server.probe import ANSWERED, BUSY, probe

triton_client = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("tritonserver")]
TEXT, OTHER = "the cyst in the liver", "the lesion"
NAMES = ("MASK", "SCORE", "FOUND", "READ_AS", "NOTES")
HELPERS = Path(__file__).parents[1] / "helpers"


def ask(server: Any, texts: list[str], timeout: int | None = None, patience: float = 120, **images: Any) -> Any:
    """Ask by HTTP; return the answer's arrays, or the error.

    Args:
        server: whom.
        texts: the sentences.
        timeout: microseconds that the request may wait.
        patience: seconds after which the client gives up.
        images: IMAGE or DICOM.
    """
    inputs = []
    for name, value in {"TEXT": texts, **images}.items():
        values = np.array([one if isinstance(one, bytes) else one.encode() for one in value], object) \
            if isinstance(value, list) else value  # fmt: skip
        kind = {"O": "BYTES", "i": "INT16", "f": "FP32"}[values.dtype.kind]
        inputs.append(triton_client.InferInput(name, list(values.shape), kind))
        inputs[-1].set_data_from_numpy(values)
    # The client is not for several threads.
    with triton_client.InferenceServerClient(server.http, network_timeout=patience) as client:
        try:
            answer = client.infer("demo", inputs, timeout=timeout)
        except triton_client.InferenceServerException as error:
            return error
        return {name: answer.as_numpy(name) for name in NAMES}


def status(answer: Any) -> str:
    return "200" if isinstance(answer, dict) else str(answer.status())


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """What the Segmenter finds in the example, as the contract's tensors."""
    with Segmenter(demo_engine(), threads=1) as segmenter:
        found = segmenter.predict(demo_engine().parent / "examples" / "phantom_1.dcm", [TEXT, OTHER])
        notes = ["; ".join(segmenter.read_sentence(text).notes(names=True)) for text in (TEXT, OTHER)]
    return {
        "MASK": np.array([[one.mask] for one in found], np.uint8),
        "SCORE": np.array([[one.score] for one in found], np.float32),
        "FOUND": np.array([[one.found] for one in found]),
        "READ_AS": np.array([one.read_as.encode() for one in found], object),
        "NOTES": np.array([note.encode() for note in notes], object),
    }


def assert_same(answer: Any, expected: dict[str, np.ndarray]) -> None:
    assert isinstance(answer, dict), answer
    for name, values in expected.items():
        assert (answer[name].dtype, answer[name].shape) == (values.dtype, values.shape)
        np.testing.assert_array_equal(answer[name], values)


def test_answers_are_the_segmenters(triton: Any, example: Path, expected: dict[str, np.ndarray]) -> None:
    assert_same(ask(triton, [TEXT, OTHER], DICOM=[example.read_bytes()]), expected)
    ct = load_slice(example)
    hu = np.rint(ct.hu).astype(np.int16)
    # The file's slice is in the usual view, and its HU are whole numbers.
    assert np.array_equal(hu, ct.hu)
    assert_same(ask(triton, [TEXT, OTHER], IMAGE=hu[None], SPACING=np.float32(ct.spacing_mm)), expected)


def grpc(server: Any, example: Path, *arguments: str) -> Any:
    command = [str(server.python), str(HELPERS / "triton_grpc.py"), server.grpc, str(example), *arguments]
    done = subprocess.run(command, env=server.variables(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_grpc(triton: Any, example: Path, expected: dict[str, np.ndarray]) -> None:
    for name, (kind, shape, values) in grpc(triton, example, "answer", TEXT).items():
        # of the first sentence
        one = expected[name][:1]
        assert (kind, shape) == (str(one.dtype), list(one.shape))
        np.testing.assert_array_equal(np.array(values, one.dtype), one.astype("U") if kind == "object" else one)
    refused = grpc(triton, example, "answer", "no cyst")
    assert refused["status"] == "StatusCode.INVALID_ARGUMENT"
    assert "not understood" in refused["message"]


def test_shared_memory(triton: Any, example: Path, expected: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.save(tmp_path / "slice.npy", np.rint(load_slice(example).hu).astype(np.int16)[None])
    np.testing.assert_array_equal(grpc(triton, tmp_path / "slice.npy", "shared", TEXT), expected["MASK"][0])


def test_grpc_cancellation_frees_the_instances(triton: Any, example: Path) -> None:
    """400 slices would take many times as long."""
    begin = time.monotonic()
    ask(triton, [TEXT], IMAGE=np.zeros((8, 256, 256), np.int16))
    eight = time.monotonic() - begin
    found = grpc(triton, example, "cancel", TEXT)
    assert found["status"] == "StatusCode.CANCELLED"
    assert found["seconds"] < 2 + 8 * eight


def test_bad_requests_fail_alone(triton: Any, example: Path, expected: dict[str, np.ndarray]) -> None:
    air = np.full((1, 32, 32), -1000, np.int16)
    bad: list[dict[str, Any]] = [
        {"texts": ["no cyst"], "IMAGE": air}, {"texts": [TEXT], "IMAGE": air[:, :8]}, {"texts": [TEXT]},
        {"texts": [""], "IMAGE": air}, {"texts": [TEXT], "DICOM": [b"no file"]}, {"texts": [b"\xff"], "IMAGE": air},
        {"texts": [TEXT], "IMAGE": air, "DICOM": [b"x"]}, {"texts": [TEXT] * 17, "IMAGE": air},
        {"texts": [TEXT], "IMAGE": air, "SPACING": np.float32([0, 1])}, {"texts": ["the mueller"], "IMAGE": air},
    ]  # fmt: skip
    good = {"texts": [TEXT, OTHER], "DICOM": [example.read_bytes()]}
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda one: ask(triton, **one), [each for one in bad for each in (one, good)]))
    for wrong, right in zip(found[::2], found[1::2], strict=True):
        assert status(wrong) == "400"
        assert "mueller" not in wrong.message()
        assert_same(right, expected)


def test_a_full_queue_is_unavailable(triton: Any) -> None:
    image = np.zeros((16, 256, 256), np.int16)
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(ask, triton, [TEXT], IMAGE=image) for _ in range(2)]
        # Until the instances have taken them, they have the places in the queue.
        time.sleep(0.3)
        asked += [pool.submit(ask, triton, [TEXT], IMAGE=image) for _ in range(10)]
        found = Counter(status(one.result()) for one in asked)
    assert set(found) == {"200", "503"}
    # Those that found a place in the queue of two; how many more are computed meanwhile is a question of time.
    assert found["200"] >= 2


def test_a_request_that_waits_too_long_is_unavailable(triton: Any) -> None:
    image = np.zeros((16, 256, 256), np.int16)
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(ask, triton, [TEXT], IMAGE=image) for _ in range(2)]
        time.sleep(0.3)
        late = ask(triton, [TEXT], timeout=100_000, IMAGE=image)
        assert status(late) == "503"
        assert "timeout" in late.message()
        assert [status(one.result()) for one in busy] == ["200", "200"]


def test_the_probe_sees_a_killed_stub_and_a_restart_helps(
    triton: Any, example: Path, expected: dict[str, np.ndarray]
) -> None:
    url = f"http://{triton.http}"
    assert probe(url, "demo", 60) == [ANSWERED, ANSWERED]
    assert len(triton.regions()) == 2
    stubs = triton.stubs()
    assert len(stubs) == 2
    # One that hangs.
    os.kill(stubs[0], signal.SIGSTOP)
    assert sorted(one == ANSWERED for one in probe(url, "demo", 20)) == [False, True]
    os.kill(stubs[0], signal.SIGCONT)
    os.kill(stubs[0], signal.SIGKILL)
    # It answers 500, or cuts the connection; or Triton 2.51 ends by SIGABRT, now or at a later request.
    found = probe(url, "demo", 60)
    assert sorted(one == ANSWERED for one in found) == [False, True] or (triton.aborted and ANSWERED not in found)
    # Also while the other instance computes.  With more users than instances it may take a minute and longer.
    many = np.zeros((2, 256, 256), np.int16)
    over = threading.Event()

    def user() -> None:
        # A request that the dead instance had taken may never be answered.
        while not over.wait(0.01):
            with suppress(OSError, HTTPException):
                ask(triton, [TEXT], patience=5, IMAGE=many)

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(user)
        try:
            assert set(probe(url, "demo", 60)) - {ANSWERED, BUSY}
        finally:
            over.set()
        asked.result()
    file = [example.read_bytes()]
    try:
        # The other instance answers, and Triton 2.51 still calls itself ready.
        assert {status(ask(triton, [TEXT], patience=30, DICOM=file)) for _ in range(4)} == {"200", "500"}
        assert triton.get("/v2/health/ready")
    except (OSError, HTTPException, AssertionError):
        if not triton.aborted:
            raise
    triton.stop(signal.SIGKILL)
    assert not triton.regions()
    triton.start()
    assert probe(f"http://{triton.http}", "demo", 60) == [ANSWERED, ANSWERED]
    assert_same(ask(triton, [TEXT, OTHER], DICOM=file), expected)
    # SIGTERM lets it end by itself.
    assert triton.stop() == 0


def test_a_model_that_cannot_warm_up_is_not_loaded(triton_environment: Path, tmp_path: Path) -> None:
    from lsms_rt.bench.tritonserver import CRASHED, TritonServer

    models = tmp_path / "models"
    export_model(demo_engine(), models, TritonOptions(name="demo", threads=1))
    sentence = b"no cyst"
    (models / "demo" / "warmup" / "text").write_bytes(len(sentence).to_bytes(4, "little") + sentence)
    server = TritonServer(models, tmp_path)
    with pytest.raises(MachineError):
        server.start()
    if server.crashed and "not understood" not in server.log:
        pytest.skip(CRASHED)
    assert "not understood" in server.log


def test_an_environment_of_its_own(triton_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment as EXECUTION_ENV_PATH, where the server's own Python lacks lsms-rt's libraries."""
    from lsms_rt.bench.tritonserver import TritonServer

    path = os.environ["PATH"]
    variables = TritonServer.variables
    monkeypatch.setattr(TritonServer, "variables", lambda self: variables(self) | {"PATH": path})
    options = TritonOptions(name="demo", threads=1, environment=str(triton_environment))
    export_model(demo_engine(), tmp_path / "models", options)
    with TritonServer(tmp_path / "models", tmp_path) as server:
        assert probe(f"http://{server.http}", "demo", 60) == [ANSWERED]
