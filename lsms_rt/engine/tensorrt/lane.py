"""A lane: one execution context for one batch size, with the stream, the buffers and the CUDA graph that belong to it.

A graph bakes addresses and shapes in, so context, buffers and graph are never shared; a pool hands lanes out, to one
user at a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...errors import EngineInvalid, OutOfDeviceMemory
from .cuda import CaptureFailed
from .messages import explain
from .plan import Plan
from .tensors import check_array, choose_profile

IDLE = 4  # lanes that are kept for later; each holds the activations of its batch
log = logging.getLogger("lsms_rt")


class Lane:
    """Runs one plan at one batch.  ``submit`` starts, ``result`` waits; they alternate.

    ``graphs`` captures the plan into a CUDA graph after its first run.  Inputs named in ``sticky`` are copied only when
    another array than last time is given: a sentence's features, of a whole series of slices.
    """

    def __init__(self, plan: Plan, device: Any, batch: int, graphs: bool, sticky: frozenset[str]) -> None:
        self.batch, self._plan, self._device, self._graphs, self._sticky = batch, plan, device, graphs, sticky
        self._inputs = [spec for spec in plan.specs if spec.is_input]
        self._outputs = [spec for spec in plan.specs if not spec.is_input]
        self._loaded: dict[str, np.ndarray] = {}
        self._graph: Any = None
        profile = choose_profile(plan.profiles, {spec.name: spec.at(batch) for spec in self._inputs})
        free, _ = device.memory()
        if plan.scratch_bytes > free:
            raise OutOfDeviceMemory(
                f"{plan.what} needs {plan.scratch_bytes >> 20} MiB for a batch, the GPU has {free >> 20} MiB free; "
                "build-engine with a smaller --max-batch, or close other programs"
            )
        self._context = plan.context()
        self._stream, self._done = device.stream(), device.event()
        self._check(self._context.set_optimization_profile_async(profile, self._stream.handle), "takes no profile")
        self._buffers = {spec.name: device.buffer(spec.at(batch), spec.dtype) for spec in plan.specs}
        for spec in self._inputs:
            self._check(self._context.set_input_shape(spec.name, spec.at(batch)), f"takes no shape of {spec.name}")
        for spec in plan.specs:
            address = self._buffers[spec.name].address
            self._check(self._context.set_tensor_address(spec.name, address), f"takes no address of {spec.name}")
        missing = self._context.infer_shapes()
        if missing:
            raise EngineInvalid(f"{plan.what} wants shapes of {missing}; build the engine again")
        self._stream.synchronize()

    def submit(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Start: ``inputs`` are arrays of the batch, or of one item for all of it.  Returns before the GPU is done."""
        first = not self._loaded
        for spec in self._inputs:
            array = inputs[spec.name]
            if spec.name in self._sticky and self._loaded.get(spec.name) is array:
                continue
            check_array(spec, array, self.batch)
            buffer = self._buffers[spec.name]
            buffer.host[...] = array
            buffer.upload(self._stream)
            self._loaded[spec.name] = array  # keeps it alive too: no other array gets its identity
        if self._graph is not None:
            self._graph.launch()
        else:
            mark = self._plan.mark()
            if not self._enqueue():
                raise explain(f"{self._plan.what} did not run", self._plan.said(mark))
        for spec in self._outputs:
            self._buffers[spec.name].download(self._stream)
        self._done.record(self._stream)
        if first and self._graphs:
            self._capture()

    def result(self) -> dict[str, np.ndarray]:
        """Wait; the outputs, in memory of their own."""
        self._done.synchronize()
        return {spec.name: self._buffers[spec.name].host.copy() for spec in self._outputs}

    def free(self) -> None:
        """Wait for what is under way, which reads and writes the buffers, and free them."""
        try:
            self._stream.synchronize()
        finally:
            for buffer in self._buffers.values():
                buffer.free()
            if self._graph is not None:
                self._graph.free()
                self._graph = None
            self._context = self._stream = self._done = None  # their ends need the device's context, which is current

    def _enqueue(self) -> bool:
        return bool(self._context.execute_async_v3(self._stream.handle))

    def _capture(self) -> None:
        """After a plain run, which lets the library allocate; without a graph the lane runs on, and says so."""
        self._stream.synchronize()
        try:
            self._graph = self._device.capture(self._stream, self._enqueue)
        except CaptureFailed as error:
            self._graphs = False
            log.warning("%s runs without a CUDA graph, which is slower: %s", self._plan.what, error)

    def _check(self, answer: Any, what: str) -> None:
        if not answer:
            raise EngineInvalid(f"{self._plan.what} {what} for batch {self.batch}; build the engine again")


class Lanes:
    """The pool: lanes are made when they are asked for, and up to ``IDLE`` wait for their next use."""

    def __init__(self, make: Callable[[int], Lane]) -> None:
        self._make, self._idle, self._closed = make, list[Lane](), False
        self._lock = threading.Lock()

    def take(self, batch: int) -> Lane:
        """A lane for ``batch`` that nobody else has."""
        with self._lock:
            if self._closed:
                raise EngineInvalid("this engine has been closed; open a new Segmenter")
            for lane in reversed(self._idle):
                if lane.batch == batch:
                    self._idle.remove(lane)
                    return lane
            if len(self._idle) >= IDLE:
                self._idle.pop(0).free()  # the one that has waited longest
            try:
                return self._make(batch)
            except OutOfDeviceMemory:
                if not self._idle:
                    raise
                self._free_idle()  # what others may need later is worth less than what is needed now
                return self._make(batch)

    def give(self, lane: Lane) -> None:
        """Back from its user; freed where the pool is closed."""
        with self._lock:
            if self._closed:
                lane.free()
            else:
                self._idle.append(lane)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._free_idle()

    def _free_idle(self) -> None:
        while self._idle:
            self._idle.pop().free()
