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

from lsms_rt.errors import EngineError, EngineInvalidError, LsmsError, OutOfDeviceMemoryError

from .cuda import CaptureFailed
from .messages import explain
from .plan import Plan
from .tensors import check_array, choose_profile

IDLE = 3  # lanes that wait for later; a context holds memory for the largest batch of its plan, whatever its own is
MOST = 8  # lanes of a plan in all; who wants another one waits
PATIENCE = 60  # seconds that one waits for another's lane; a thread may hold all of them itself
MOMENTS = ("start", "uploaded", "computed", "downloaded")
Mark = Callable[[str, Any], None]  # takes one of MOMENTS, and the stream
log = logging.getLogger("lsms_rt")


def _no_mark(moment: str, stream: Any) -> None:
    """Nobody measures."""


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
        if needed > free and not device.integrated:  # a Jetson's driver counts what the system could give up as taken
            raise OutOfDeviceMemoryError(
                f"{plan.what} needs {needed >> 20} MiB for a batch, the GPU has {free >> 20} MiB free; "
                "build-engine with a smaller --max-batch, or close other programs"
            )
        self._context = plan.context()
        self._stream, self._done = device.stream(), device.event()
        self._check(self._context.set_optimization_profile_async(profile, self._stream.handle), "takes no profile")
        for spec in plan.specs:
            self._buffers[spec.name] = device.buffer(spec.at(batch), spec.dtype)
        for spec in self._inputs:
            self._check(self._context.set_input_shape(spec.name, spec.at(batch)), f"takes no shape of {spec.name}")
        for spec in plan.specs:
            address = self._buffers[spec.name].address
            self._check(self._context.set_tensor_address(spec.name, address), f"takes no address of {spec.name}")
        mark = plan.mark()
        try:
            missing = self._context.infer_shapes()
        except RuntimeError as error:
            raise explain(f"{plan.what} takes no shapes of batch {batch}", [*plan.said(mark), str(error)]) from error
        if missing:
            raise EngineInvalidError(f"{plan.what} wants shapes of {missing}; build the engine again")
        self._stream.synchronize()

    def submit(self, inputs: Mapping[str, np.ndarray], mark: Mark = _no_mark) -> None:
        """Start: ``inputs`` are arrays of the batch, or of one item for all of it.  Returns before the GPU is done.

        ``mark`` is told of ``MOMENTS`` as they are put on the stream: it may put an event there.
        """
        first, self._used = not self._used, True
        fresh = []
        for spec in self._inputs:
            array = inputs[spec.name]
            if spec.name in self._sticky and self._loaded.get(spec.name) is array:
                continue
            check_array(spec, array, self.batch)
            buffer = self._buffers[spec.name]
            buffer.host[...] = array
            fresh.append(buffer)
            if spec.name in self._sticky:
                self._loaded[spec.name] = array  # keeps it alive too: no other array gets its identity
        mark("start", self._stream)
        for buffer in fresh:
            buffer.upload(self._stream)
        mark("uploaded", self._stream)
        if self._graph is not None:
            self._graph.launch()
        else:
            before = self._plan.mark()
            if not self._enqueue():
                raise explain(f"{self._plan.what} did not run", self._plan.said(before))
        mark("computed", self._stream)
        for spec in self._outputs:
            self._buffers[spec.name].download(self._stream)
        mark("downloaded", self._stream)
        self._done.record(self._stream)
        if first and self._graphs:
            self._capture()

    @property
    def captured(self) -> bool:
        """Whether it runs as a CUDA graph of ours by now."""
        return self._graph is not None

    def result(self) -> dict[str, np.ndarray]:
        """Wait; the outputs, in memory of their own."""
        self._done.synchronize()
        return {spec.name: self._buffers[spec.name].host.copy() for spec in self._outputs}

    def free(self) -> None:
        """Wait for what is under way, which reads and writes the buffers, and free them; once and for all."""
        try:
            if self._stream is not None:
                self._stream.synchronize()
        finally:
            for thing in (*self._buffers.values(), self._graph):
                if thing is not None:
                    _try_to_free(thing)
            self._buffers, self._graph = {}, None
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
            raise EngineInvalidError(f"{self._plan.what} {what} for batch {self.batch}; build the engine again")


def _try_to_free(thing: Any) -> None:
    """One that cannot be freed, on a GPU that has failed, must not keep the others, nor hide what failed first."""
    try:
        thing.free()
    except LsmsError as error:
        log.warning("not freed: %s", error)


class Lanes:
    """The pool: lanes are made when they are asked for, up to ``most``, and up to ``IDLE`` wait for their next use."""

    def __init__(self, make: Callable[[int], Lane], most: int = MOST) -> None:
        self._make: Callable[[int], Lane] | None = make
        self._idle: list[Lane] = []
        self._out, self._most = 0, most
        self._changed = threading.Condition()

    def take(self, batch: int, wait: bool = True) -> Lane | None:
        """A lane for ``batch`` that nobody else has; None where all are out and the caller does not ``wait``."""
        with self._changed:
            while True:
                if self._make is None:
                    raise EngineInvalidError("this engine has been closed; open a new Segmenter")
                for lane in reversed(self._idle):
                    if lane.batch == batch:
                        self._idle.remove(lane)
                        self._out += 1
                        return lane
                if self._idle or self._out < self._most:
                    break
                if not wait:
                    return None
                if not self._changed.wait(PATIENCE):
                    raise EngineError(
                        f"all {self._most} lanes of this engine have been in use for {PATIENCE} s; run series to their "
                        "end, or close their iterators"
                    )
            full = self._out + len(self._idle) >= self._most
            oldest, make = (self._idle.pop(0) if full else None), self._make
            self._out += 1
        try:  # outside of the lock: it may take seconds
            if oldest is not None:
                oldest.free()
            return self._made(make, batch)
        except BaseException:
            self._back()
            raise

    def _made(self, make: Callable[[int], Lane], batch: int) -> Lane:
        try:
            return make(batch)
        except OutOfDeviceMemoryError:
            with self._changed:
                idle, self._idle = self._idle, []
            if not idle:
                raise
        for lane in idle:  # what others may need later is worth less than what is needed now
            lane.free()
        return make(batch)

    def give(self, lane: Lane) -> None:
        """Back from its user, for the next one; the oldest of too many idle ones is freed."""
        with self._changed:
            surplus = [lane]
            if self._make is not None:
                self._idle.append(lane)
                surplus = [self._idle.pop(0)] if len(self._idle) > IDLE else []
        self._back()
        for other in surplus:
            other.free()

    def drop(self, lane: Lane) -> None:
        """Back from a user who failed, or wants no more: its state is unknown, so it is freed."""
        self._back()
        _try_to_free(lane)

    def close(self) -> None:
        """Free the idle ones; those that are out are freed when they come back."""
        with self._changed:
            idle, self._idle, self._make = self._idle, [], None
            self._changed.notify_all()
        for lane in idle:
            lane.free()

    def _back(self) -> None:
        with self._changed:
            self._out -= 1
            self._changed.notify()
