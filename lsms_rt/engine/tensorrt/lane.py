"""Lanes: a lane is an execution context for one batch size, with its stream, its memory and its CUDA graph.

A graph contains addresses and shapes, so context, memory and graph are never shared.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lsms_rt.engine.manifest import REBUILD
from lsms_rt.errors import EngineInvalidError, OutOfDeviceMemoryError

from .cuda import CaptureFailed
from .messages import explain
from .plan import Plan
from .tensors import check_array, choose_profile

# Runs before the first answer: at most so many, until one takes at least this part of the time of the one before.
WARM_UP_RUNS, STEADY = 8, 0.8
STEPS = ("start", "uploaded", "computed", "downloaded")
# called with one of STEPS, and the stream
OnStep = Callable[[str, Any], None]
log = logging.getLogger("lsms_rt")


def _ignore_step(step: str, stream: Any) -> None:
    """No-op timing hook."""


class Lane:
    """Runs one plan at one batch size.  ``submit`` starts a run, ``result`` waits for it; they alternate.

    Args:
        plan: the plan.
        device: the GPU.
        batch: the batch size.
        graphs: run the plan as a CUDA graph, captured here or by the library.
        sticky: names of inputs that are copied only if the array is another one than in the last run: a sentence's
            features, which are the same for a whole series of slices.

    Attributes:
        captured: whether runs are CUDA graphs.
    """

    def __init__(self, plan: Plan, device: Any, batch: int, graphs: bool, sticky: frozenset[str]) -> None:
        self.batch, self._plan, self._device, self._sticky = batch, plan, device, sticky
        self.captured = False
        self._inputs = [spec for spec in plan.specs if spec.is_input]
        self._outputs = [spec for spec in plan.specs if not spec.is_input]
        self._loaded: dict[str, np.ndarray] = {}
        self._graph: Any = None
        self._buffers: dict[str, Any] = {}
        self._scratch: Any = None
        self._context: Any = None
        self._stream: Any = None
        self._done: Any = None
        try:
            with device.exclusive():
                self._stream, self._done = device.stream(), device.event()
                self._make_context()
                self._warm_up()
                if graphs:
                    self._capture()
        except BaseException:
            self.free()
            raise

    def _make_context(self) -> None:
        """Make the execution context and, the first time, its memory."""
        plan, batch = self._plan, self.batch
        profile = choose_profile(plan.profiles, {spec.name: spec.at(batch) for spec in self._inputs})
        self._context = plan.context()
        self._check(self._context.set_optimization_profile_async(profile, self._stream.handle), "rejected the profile")
        for spec in self._inputs:
            self._check(self._context.set_input_shape(spec.name, spec.at(batch)), f"rejected the shape of {spec.name}")
        mark = plan.mark()
        try:
            missing = self._context.infer_shapes()
        except RuntimeError as error:
            logged = [*plan.errors(mark), str(error)]
            raise explain(f"{plan.what} rejected the shapes of batch {batch}", logged) from error
        if missing:
            raise EngineInvalidError(f"{plan.what} needs shapes of {missing}; {REBUILD}")
        # 0 if the library does not know: then as for the largest batch.
        size = self._context.update_device_memory_size_for_shapes() or plan.scratch_bytes
        if not self._buffers:
            self._allocate(size)
        if self._scratch is not None:
            self._context.set_device_memory(self._scratch.address, size)
        for spec in plan.specs:
            address = self._buffers[spec.name].address
            self._check(self._context.set_tensor_address(spec.name, address), f"rejected the address of {spec.name}")
        self._stream.synchronize()

    def _allocate(self, scratch: int) -> None:
        plan, device = self._plan, self._device
        needed = scratch + sum(spec.bytes_at(self.batch) for spec in plan.specs)
        free, _ = device.memory()
        # A Jetson's driver counts memory that the system could free as used.
        if needed > free and not device.integrated:
            raise OutOfDeviceMemoryError(
                f"{plan.what} needs {needed >> 20} MiB for a batch of {self.batch}, the GPU has {free >> 20} MiB free; "
                "use smaller batches, or close other programs"
            )
        for spec in plan.specs:
            self._buffers[spec.name] = device.buffer(spec.at(self.batch), spec.dtype)
        if scratch:
            self._scratch = device.scratch(scratch)

    def _warm_up(self) -> None:
        """Run until the library is ready: in its first runs it allocates, loads code and, for RTX, compiles it.

        Two runs in turn must give the same bits, and the later one must not be much faster.
        """
        rng = np.random.default_rng(0)
        for spec in self._inputs:
            buffer = self._buffers[spec.name]
            # 0 is a valid token.
            buffer.host[...] = rng.random(buffer.host.shape, np.float32) if spec.dtype.kind == "f" else 0
            buffer.upload(self._stream)
        self._stream.synchronize()
        seconds, bits = float("inf"), list[bytes]()
        for _ in range(WARM_UP_RUNS):
            begin, before = time.perf_counter(), (seconds, bits)
            self._run()
            self._download()
            self._stream.synchronize()
            seconds = time.perf_counter() - begin
            bits = [self._buffers[spec.name].host.tobytes() for spec in self._outputs]
            if bits == before[1] and seconds >= STEADY * before[0]:
                return
        if bits != before[1]:
            log.warning("%s: %d runs with the same inputs differ in their last bits", self._plan.what, WARM_UP_RUNS)

    def submit(self, inputs: Mapping[str, np.ndarray], on_step: OnStep = _ignore_step) -> None:
        """Start a run; returns before the GPU has finished.

        Args:
            inputs: an array per input, with ``batch`` items, or one item for all of them.
            on_step: called when each of ``STEPS`` has been put on the stream, e.g. to record an event.
        """
        changed = []
        for spec in self._inputs:
            array = inputs[spec.name]
            if spec.name in self._sticky and self._loaded.get(spec.name) is array:
                continue
            check_array(spec, array, self.batch)
            buffer = self._buffers[spec.name]
            buffer.host[...] = array
            changed.append(buffer)
            if spec.name in self._sticky:
                # This also keeps the array alive, so that no other array gets its id.
                self._loaded[spec.name] = array
        on_step("start", self._stream)
        for buffer in changed:
            buffer.upload(self._stream)
        on_step("uploaded", self._stream)
        if self._graph is not None:
            self._graph.launch()
        else:
            self._run()
        on_step("computed", self._stream)
        self._download()
        on_step("downloaded", self._stream)
        self._done.record(self._stream)

    def result(self) -> dict[str, np.ndarray]:
        """Wait for the run, and return copies of its outputs."""
        self._done.synchronize()
        return {spec.name: self._buffers[spec.name].host.copy() for spec in self._outputs}

    def free(self) -> None:
        """Wait for a running computation, which uses the memory, and free it; the lane cannot be used any more."""
        with self._device.exclusive():
            try:
                if self._stream is not None:
                    self._stream.synchronize()
            finally:
                # Destructors need the device's context, which is current here; the context goes before its memory.
                self._context = None
                for resource in (self._graph, self._scratch, *self._buffers.values()):
                    if resource is not None:
                        try_to_free(resource)
                self._buffers, self._graph, self._scratch = {}, None, None
                self._stream = self._done = None

    def free_later(self) -> None:
        """Free the lane without waiting for other threads' lanes that are set up; an error is logged."""
        self._device.exclusive().later(lambda: try_to_free(self))

    def _run(self) -> None:
        mark = self._plan.mark()
        if not self._enqueue():
            raise explain(f"{self._plan.what} did not run", self._plan.errors(mark))

    def _enqueue(self) -> bool:
        return bool(self._context.execute_async_v3(self._stream.handle))

    def _download(self) -> None:
        for spec in self._outputs:
            self._buffers[spec.name].download(self._stream)

    def _capture(self) -> None:
        """Capture a graph, or ask the library if it can; log a failure and continue without."""
        try:
            if self._plan.own_graphs:
                if not self._context.is_stream_capturable(self._stream.handle):
                    raise CaptureFailed("the library cannot capture it")
            else:
                self._graph = self._device.capture(self._stream, self._enqueue)
            self.captured = True
        except CaptureFailed as error:
            log.warning("%s runs without a CUDA graph, which is slower: %s", self._plan.what, error)
            # The failed capture may have left its state in the context.
            self._context = None
            self._make_context()
            self._warm_up()

    def _check(self, answer: Any, what: str) -> None:
        if not answer:
            raise EngineInvalidError(f"{self._plan.what} {what} for batch {self.batch}; {REBUILD}")


def try_to_free(resource: Any) -> None:
    """Free a resource; an error, on a GPU that has failed, is logged, so that it does not hide the first error."""
    try:
        resource.free()
    # pycuda's errors are not this package's yet.
    except Exception as error:
        log.warning("a resource of the GPU could not be freed: %s", error)
