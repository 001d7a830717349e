"""Lanes: a lane is an execution context for one batch size, with its stream, its buffers and its CUDA graph.

A graph contains addresses and shapes, so context, buffers and graph are never shared.  A pool lends each lane to one
user at a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lsms_rt.engine.manifest import REBUILD
from lsms_rt.errors import EngineError, EngineInvalidError, LsmsError, OutOfDeviceMemoryError

from .cuda import CaptureFailed
from .messages import explain
from .plan import Plan
from .tensors import check_array, choose_profile

# idle lanes that are kept; a context needs memory for the largest batch of its plan, whatever its own batch is
MAX_IDLE = 3
# lanes per plan; further requests block
MAX_LANES = 8
# seconds to wait for a lane; a thread may hold all lanes itself
TIMEOUT = 60
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
        graphs: capture the plan as a CUDA graph after its first run.
        sticky: names of inputs that are copied only if the array is another one than in the last run: a sentence's
            features, which are the same for a whole series of slices.
    """

    def __init__(self, plan: Plan, device: Any, batch: int, graphs: bool, sticky: frozenset[str]) -> None:
        self.batch, self._plan, self._device, self._graphs, self._sticky = batch, plan, device, graphs, sticky
        self._inputs = [spec for spec in plan.specs if spec.is_input]
        self._outputs = [spec for spec in plan.specs if not spec.is_input]
        self._loaded: dict[str, np.ndarray] = {}
        self._used = False
        self._graph: Any = None
        self._buffers: dict[str, Any] = {}
        self._context: Any = None
        self._stream: Any = None
        self._done: Any = None
        try:
            self._set_up()
        except BaseException:
            self.free()
            raise

    def _set_up(self) -> None:
        plan, device, batch = self._plan, self._device, self.batch
        profile = choose_profile(plan.profiles, {spec.name: spec.at(batch) for spec in self._inputs})
        needed = plan.scratch_bytes + sum(spec.bytes_at(batch) for spec in plan.specs)
        free, _ = device.memory()
        # A Jetson's driver counts memory that the system could free as used.
        if needed > free and not device.integrated:
            raise OutOfDeviceMemoryError(
                f"{plan.what} needs {needed >> 20} MiB for a batch, the GPU has {free >> 20} MiB free; "
                "rebuild the engine with a smaller --max-batch, or close other programs"
            )
        self._context = plan.context()
        self._stream, self._done = device.stream(), device.event()
        self._check(self._context.set_optimization_profile_async(profile, self._stream.handle), "rejected the profile")
        for spec in plan.specs:
            self._buffers[spec.name] = device.buffer(spec.at(batch), spec.dtype)
        for spec in self._inputs:
            self._check(self._context.set_input_shape(spec.name, spec.at(batch)), f"rejected the shape of {spec.name}")
        for spec in plan.specs:
            address = self._buffers[spec.name].address
            self._check(self._context.set_tensor_address(spec.name, address), f"rejected the address of {spec.name}")
        mark = plan.mark()
        try:
            missing = self._context.infer_shapes()
        except RuntimeError as error:
            logged = [*plan.errors(mark), str(error)]
            raise explain(f"{plan.what} rejected the shapes of batch {batch}", logged) from error
        if missing:
            raise EngineInvalidError(f"{plan.what} needs shapes of {missing}; {REBUILD}")
        self._stream.synchronize()

    def submit(self, inputs: Mapping[str, np.ndarray], on_step: OnStep = _ignore_step) -> None:
        """Start a run; returns before the GPU has finished.

        Args:
            inputs: an array per input, with ``batch`` items, or one item for all of them.
            on_step: called when each of ``STEPS`` has been put on the stream, e.g. to record an event.
        """
        first, self._used = not self._used, True
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
            before = self._plan.mark()
            if not self._enqueue():
                raise explain(f"{self._plan.what} did not run", self._plan.errors(before))
        on_step("computed", self._stream)
        for spec in self._outputs:
            self._buffers[spec.name].download(self._stream)
        on_step("downloaded", self._stream)
        self._done.record(self._stream)
        if first and self._graphs:
            self._capture()

    @property
    def captured(self) -> bool:
        """Return whether the next run is a CUDA graph that was captured here."""
        return self._graph is not None

    def result(self) -> dict[str, np.ndarray]:
        """Wait for the run, and return copies of its outputs."""
        self._done.synchronize()
        return {spec.name: self._buffers[spec.name].host.copy() for spec in self._outputs}

    def free(self) -> None:
        """Wait for a running computation, which uses the buffers, and free them; the lane cannot be used any more."""
        try:
            if self._stream is not None:
                self._stream.synchronize()
        finally:
            for resource in (*self._buffers.values(), self._graph):
                if resource is not None:
                    _try_to_free(resource)
            self._buffers, self._graph = {}, None
            # Their destructors need the device's context, which is current here.
            self._context = self._stream = self._done = None

    def _enqueue(self) -> bool:
        return bool(self._context.execute_async_v3(self._stream.handle))

    def _capture(self) -> None:
        """Capture a graph after the first run, in which the library allocates; log a failure and continue without."""
        self._stream.synchronize()
        try:
            self._graph = self._device.capture(self._stream, self._enqueue)
        except CaptureFailed as error:
            self._graphs = False
            log.warning("%s runs without a CUDA graph, which is slower: %s", self._plan.what, error)

    def _check(self, answer: Any, what: str) -> None:
        if not answer:
            raise EngineInvalidError(f"{self._plan.what} {what} for batch {self.batch}; {REBUILD}")


def _try_to_free(resource: Any) -> None:
    """Free a resource; an error, on a GPU that has failed, is logged, so that it does not hide the first error."""
    try:
        resource.free()
    except LsmsError as error:
        log.warning("a resource of the GPU could not be freed: %s", error)


class Lanes:
    """A pool of lanes: they are created on demand, and up to ``MAX_IDLE`` of them are kept for their next use.

    Args:
        make: creates a lane for a batch size.
        max_lanes: maximum number of lanes.
    """

    def __init__(self, make: Callable[[int], Lane], max_lanes: int = MAX_LANES) -> None:
        self._make: Callable[[int], Lane] | None = make
        self._idle: list[Lane] = []
        self._in_use, self._max_lanes = 0, max_lanes
        self._changed = threading.Condition()

    def acquire(self, batch: int, wait: bool = True) -> Lane | None:
        """Return a lane for ``batch``, for exclusive use.

        Args:
            batch: the batch size.
            wait: block while all lanes are in use; otherwise None is returned then.

        Raises:
            EngineError: all lanes have been in use for ``TIMEOUT`` seconds.
            EngineInvalidError: the engine has been closed.
            OutOfDeviceMemoryError: there is too little memory for another lane.
        """
        with self._changed:
            while True:
                if self._make is None:
                    raise EngineInvalidError("this engine has been closed; open a new Segmenter")
                for lane in reversed(self._idle):
                    if lane.batch == batch:
                        self._idle.remove(lane)
                        self._in_use += 1
                        return lane
                if self._idle or self._in_use < self._max_lanes:
                    break
                if not wait:
                    return None
                if not self._changed.wait(TIMEOUT):
                    raise EngineError(
                        f"all {self._max_lanes} lanes of this engine have been in use for {TIMEOUT} s; exhaust or "
                        "close the iterators of predict_series"
                    )
            full = self._in_use + len(self._idle) >= self._max_lanes
            oldest, make = (self._idle.pop(0) if full else None), self._make
            self._in_use += 1
        # Outside of the lock, since it may take seconds.
        try:
            if oldest is not None:
                oldest.free()
            return self._made(make, batch)
        except BaseException:
            self._returned()
            raise

    def _made(self, make: Callable[[int], Lane], batch: int) -> Lane:
        try:
            return make(batch)
        except OutOfDeviceMemoryError:
            with self._changed:
                idle, self._idle = self._idle, []
            if not idle:
                raise
        # Memory is needed now more than idle lanes later.
        for lane in idle:
            lane.free()
        return make(batch)

    def release(self, lane: Lane) -> None:
        """Return a lane to the pool; if too many are idle, the oldest is freed."""
        with self._changed:
            surplus = [lane]
            if self._make is not None:
                self._idle.append(lane)
                surplus = [self._idle.pop(0)] if len(self._idle) > MAX_IDLE else []
        self._returned()
        for old in surplus:
            old.free()

    def discard(self, lane: Lane) -> None:
        """Free a lane whose state is unknown, after an error or an incomplete series."""
        self._returned()
        _try_to_free(lane)

    def close(self) -> None:
        """Free the idle lanes; those in use are freed when they are released."""
        with self._changed:
            idle, self._idle, self._make = self._idle, [], None
            self._changed.notify_all()
        for lane in idle:
            lane.free()

    def _returned(self) -> None:
        with self._changed:
            self._in_use -= 1
            self._changed.notify()
