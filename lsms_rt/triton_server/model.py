"""What Triton's python backend calls, in a stub process per instance: requests in, masks or typed errors out."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb

from lsms_rt import __version__
from lsms_rt.errors import EngineFormatError, brief
from lsms_rt.machine.cpu import cpu_count
from lsms_rt.serving.private_folder import PrivateFolder, sweep
from lsms_rt.serving.request_error import RequestError
from lsms_rt.serving.settings import Model
from lsms_rt.serving.tasks import Failed, Probe
from lsms_rt.serving.tensors import outputs_of, task_of
from lsms_rt.serving.work import Worker
from lsms_rt.serving.worker import CancelledError, logged_failure

from .config import DIGEST, ENGINE, INSTANCE, INSTANCES, THREADS, VERSION

# seconds: how long an answer shows that the instance works, and how long a probe may take; Triton waits 5 s for it
ANSWERED, PROBE = 15.0, 2.0
WORDS = "lsms-rt words ENGINE"
# HTTP statuses that say: send it again later
UNAVAILABLE = (429, 503, 504)


class TritonPythonModel:
    """One instance of a model: an engine on one device.  Triton calls one method at a time."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the engine, whose digest must be the exported one, and segment a slice.

        Raises:
            LsmsError: the engine was changed, or does not run here; the model is then not loaded.
        """
        config = json.loads(args["model_config"])
        given = {name: one["string_value"] for name, one in config["parameters"].items()}
        _check(given[VERSION])
        # What a stub that was killed left of requests.
        sweep()
        self._folder = PrivateFolder()
        self._name = args["model_name"]
        path = Path(args["model_repository"], args["model_version"], ENGINE)
        device = _device(args["model_instance_kind"], args["model_instance_device_id"])
        threads = int(given[THREADS]) or max(1, cpu_count() // int(given[INSTANCES]))
        self._worker = Worker([Model(name=self._name, path=path, digest=given[DIGEST])], device, threads, {})
        self._worker.opened()
        begin = time.monotonic()
        self._worker.do(Probe(), _ignore)
        self._answered = time.monotonic()
        self._probes = self._answered - begin < PROBE

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests; one that fails leaves the others alone."""
        return [self._response(request) for request in requests]

    def is_ready(self) -> bool:
        """Whether this instance works; Triton asks from 2026 on.  Without a recent answer a slice is segmented.

        An engine that needs long for a slice is not asked: Triton would take its silence for a failure.
        """
        if not self._probes or time.monotonic() - self._answered < ANSWERED:
            return True
        try:
            self._worker.do(Probe(), _ignore)
        except Exception as error:
            logged_failure(error)
            return False
        self._answered = time.monotonic()
        return True

    def finalize(self) -> None:
        """Delete what was kept of requests."""
        self._folder.close()

    def _response(self, request: Any) -> Any:
        try:
            outputs = outputs_of(self._value(request)) | {INSTANCE: np.array([os.getpid()], np.int32)}
            wanted = set(request.requested_output_names())
            return pb.InferenceResponse([pb.Tensor(name, _array(outputs[name])) for name in outputs if name in wanted])
        except CancelledError:
            error = pb.TritonError("the request was cancelled", pb.TritonError.CANCELLED)
        except RequestError as refused:
            error = _error(refused.failed)
        except Exception as failed:
            error = _error(logged_failure(failed, WORDS))
        return pb.InferenceResponse(error=error)

    def _value(self, request: Any) -> dict[str, Any]:
        def progress(done: int, total: int) -> None:
            if request.is_cancelled():
                raise CancelledError

        # It may have waited for long.
        progress(0, 0)
        task = task_of(self._name, {tensor.name(): _given(tensor) for tensor in request.inputs()})
        scratch = self._folder.path / "scratch"
        try:
            value: dict[str, Any] = self._worker.do(replace(task, scratch=scratch), progress).value
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        self._answered = time.monotonic()
        return value


def _ignore(done: int, total: int) -> None:
    """Take no notice of a probe's progress."""


def _check(exported_by: str) -> None:
    if exported_by != __version__:
        raise EngineFormatError(
            f"the model was exported by lsms-rt {brief(exported_by, 20)}, Triton's Python has {__version__}; install "
            "that version, or export it again: lsms-rt export-triton"
        )


def _device(kind: str, number: str) -> str:
    return f"cuda:{number}" if kind == "GPU" else "cpu"


def _given(tensor: Any) -> np.ndarray | list[bytes]:
    """Return an input as the contract has it."""
    values: np.ndarray = tensor.as_numpy()
    return list(values.ravel()) if values.dtype == np.object_ else values


def _array(value: np.ndarray | list[str]) -> np.ndarray:
    """Return an output as Triton takes it."""
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value)
    return np.array([text.encode() for text in value], np.object_)


def _error(failed: Failed) -> Any:
    """Return an error of Triton's that says the same as an HTTP status."""
    if failed.status in UNAVAILABLE:
        return pb.TritonError(failed.message, pb.TritonError.UNAVAILABLE)
    return pb.TritonError(
        failed.message, pb.TritonError.INVALID_ARG if failed.status < 500 else pb.TritonError.INTERNAL
    )
