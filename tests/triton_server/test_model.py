"""What an instance answers: one request after the other, typed errors, readiness.  Triton's module is a stand-in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_triton
import numpy as np
import pytest
from fake_triton import Request, TritonError

from lsms_rt import Segmenter, __version__
from lsms_rt.data import demo_engine
from lsms_rt.engine import open_directory
from lsms_rt.errors import EngineDigestError, EngineFormatError, MachineError

fake_triton.install()
from lsms_rt.triton_server import model as stub  # noqa: E402

TEXT = [b"the cyst in the liver"]
AIR = np.full((1, 32, 32), -1000, np.int16)


def arguments(repository: Path, kind: str = "CPU", **changed: str) -> dict[str, str]:
    """What Triton tells an instance."""
    parameters = {
        "digest": open_directory(demo_engine()).digest, "threads": "1", "instances": "1",
        "lsms_rt_version": __version__,
    } | changed  # fmt: skip
    config = {"parameters": {name: {"string_value": value} for name, value in parameters.items()}}
    return {
        "model_config": json.dumps(config), "model_repository": str(repository / "demo"), "model_version": "1",
        "model_name": "demo", "model_instance_kind": kind, "model_instance_device_id": "3",
    }  # fmt: skip


@pytest.fixture(scope="module")
def instance(repository: Path) -> Iterator[Any]:
    made = stub.TritonPythonModel()
    made.initialize(arguments(repository))
    yield made
    made.finalize()
    assert not made._folder.path.exists()


def code_of(instance: Any, request: Request) -> int | None:
    (response,) = instance.execute([request])
    return None if response.error is None else response.error.code


def test_bad_requests_fail_alone(instance: Any, example: Path) -> None:
    """Of one batch: good, not understood, not DICOM, no HU, good."""
    file = [example.read_bytes()]
    asked = [
        Request(TEXT=[*TEXT, b"the lesion"], DICOM=file), Request(TEXT=[b"no cyst"], IMAGE=AIR),
        Request(TEXT=TEXT, DICOM=[b"no file"]), Request(TEXT=TEXT, IMAGE=AIR.astype(np.float64)),
        Request(TEXT=TEXT, IMAGE=AIR, SPACING=np.ones(2, np.float32)),
    ]  # fmt: skip
    answers = instance.execute(asked)
    assert [one.error and one.error.code for one in answers] == [None, *[TritonError.INVALID_ARG] * 3, None]
    with Segmenter(demo_engine(), threads=1) as segmenter:
        expected = segmenter.predict(example, ["the cyst in the liver", "the lesion"])
    found = answers[0].outputs
    np.testing.assert_array_equal(found["MASK"][:, 0], [one.mask for one in expected])
    np.testing.assert_array_equal(found["SCORE"][:, 0], np.float32([one.score for one in expected]))
    np.testing.assert_array_equal(found["FOUND"][:, 0], [one.found for one in expected])
    assert list(found["READ_AS"]) == [one.read_as.encode() for one in expected]
    assert (found["MASK"].dtype, found["MASK"].flags.c_contiguous) == (np.uint8, True)


def test_errors_say_what_to_do_and_repeat_no_name(instance: Any) -> None:
    (response,) = instance.execute([Request(TEXT=[b"the mueller in the liver of mueller"], IMAGE=AIR)])
    assert "mueller" not in response.error.message
    assert "lsms-rt words ENGINE" in response.error.message


def test_only_what_is_wanted_is_sent(instance: Any) -> None:
    (response,) = instance.execute([Request(TEXT=TEXT, IMAGE=AIR, wanted=["FOUND"])])
    assert list(response.outputs) == ["FOUND"]
    # The probe tells instances by it.
    (response,) = instance.execute([Request(TEXT=TEXT, IMAGE=AIR, wanted=["INSTANCE"])])
    assert (response.outputs["INSTANCE"].dtype, list(response.outputs["INSTANCE"])) == (np.int32, [os.getpid()])


@pytest.mark.parametrize("checks", [0, 3])
def test_a_cancelled_request_ends_between_slices(instance: Any, checks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    do = instance._worker.do

    def watched(task: Any, progress: Any) -> Any:
        return do(task, lambda n, total: (done.append(n), progress(n, total)))

    monkeypatch.setattr(instance._worker, "do", watched)
    many = np.repeat(AIR, 40, axis=0)
    assert code_of(instance, Request(TEXT=TEXT, IMAGE=many, cancelled_after=checks)) == TritonError.CANCELLED
    assert done == list(range(1, checks + 1))
    assert code_of(instance, Request(TEXT=TEXT, IMAGE=AIR)) is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), TritonError.UNAVAILABLE), (MachineError("no memory"), TritonError.UNAVAILABLE),
        (EngineDigestError("changed"), TritonError.INTERNAL), (RuntimeError("Anna Muster"), TritonError.INTERNAL),
    ],
)  # fmt: skip
def test_kinds_of_errors(instance: Any, error: Exception, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any) -> None:
        raise error

    monkeypatch.setattr(instance._worker, "do", fails)
    (response,) = instance.execute([Request(TEXT=TEXT, IMAGE=AIR)])
    assert response.error.code == code
    assert "Muster" not in response.error.message


def test_nothing_of_a_file_is_left(instance: Any, example: Path) -> None:
    for content in (example.read_bytes(), b"no file"):
        instance.execute([Request(TEXT=TEXT, DICOM=[content])])
        assert not list(instance._folder.path.iterdir())


def test_readiness_is_an_inference(instance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(instance._worker, "do", lambda task, progress: asked.append(task))
    monkeypatch.setattr(instance, "_answered", stub.time.monotonic())
    assert instance.is_ready()
    # A request was answered a moment ago.
    assert not asked
    monkeypatch.setattr(instance, "_answered", stub.time.monotonic() - 60)
    assert instance.is_ready()
    assert len(asked) == 1

    def fails(*given: Any) -> None:
        raise MachineError("the GPU is gone")

    monkeypatch.setattr(instance, "_answered", stub.time.monotonic() - 60)
    monkeypatch.setattr(instance._worker, "do", fails)
    assert not instance.is_ready()
    # A slice takes longer than Triton waits.
    monkeypatch.setattr(instance, "_probes", False)
    assert instance.is_ready()


def test_an_engine_that_was_changed_is_not_opened(repository: Path) -> None:
    with pytest.raises(EngineDigestError):
        stub.TritonPythonModel().initialize(arguments(repository, digest="sha256:" + "0" * 64))
    with pytest.raises(EngineFormatError, match="export-triton"):
        stub.TritonPythonModel().initialize(arguments(repository, lsms_rt_version="0.0.1"))


@pytest.mark.parametrize(("kind", "device"), [("CPU", "cpu"), ("GPU", "cuda:3")])
def test_each_instance_has_its_device(
    repository: Path, kind: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    class Worker:
        def __init__(self, models: Any, device: str, threads: int, runtime: Any) -> None:
            opened.append((device, threads))

        def opened(self) -> None: ...

        def do(self, task: Any, progress: Any) -> None: ...

    monkeypatch.setattr(stub, "Worker", Worker)
    # Of the container, not of the machine.
    monkeypatch.setattr(stub, "cpu_count", lambda: 16)
    instance = stub.TritonPythonModel()
    instance.initialize(arguments(repository, kind, threads="0", instances="4"))
    instance.finalize()
    assert opened == [(device, 4)]
