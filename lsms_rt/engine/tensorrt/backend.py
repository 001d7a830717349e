"""The TensorRT backend: an engine of plans is checked, loaded, and run in lanes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from lsms_rt.engine.backend import FEATURES, TEXT_INPUTS, SentenceFeatures
from lsms_rt.engine.compiled_cache import CompiledCache
from lsms_rt.engine.manifest import EngineDirectory
from lsms_rt.engine.process import Home
from lsms_rt.errors import OutOfDeviceMemoryError
from lsms_rt.machine.gpu import Driver, query_driver

from .compatibility import check_gpu, check_header, check_trust, check_version
from .cuda import Device
from .header import read_header
from .lane import Lane
from .plan import Plan
from .pool import Lanes
from .tensors import check_names
from .timing import StepTimes
from .variant import VARIANTS, load

TEXT_PLAN, IMAGE_PLAN = "text.plan", "image.plan"
STICKY = frozenset(("mask", *FEATURES))
# batches of a series on the GPU at a time: the next one is copied while this one computes
MAX_PENDING = 2


class TensorRtBackend:
    """Runs the two plans of an engine on one GPU.

    Args:
        engine: the engine directory.
        index: number of the GPU, in CUDA's order.
        graphs: run plans as CUDA graphs.
        driver: queries the driver; another function in tests.
        device: opens the GPU; another class in tests.
        library: TensorRT's module; another one in tests.

    Raises:
        EngineError: a subclass says why the engine cannot run here; nothing has run on the GPU then.
        MachineError: something is missing on this machine; the subclass says what.
    """

    def __init__(
        self, engine: EngineDirectory, index: int = 0, graphs: bool = True, *,
        driver: Callable[[], Driver] = query_driver, device: Callable[[int, bool], Any] = Device,
        library: Any = None,
    ) -> None:  # fmt: skip
        self._home = Home(self)
        manifest = engine.manifest
        variant = VARIANTS[manifest.backend]
        library = library or load(variant)
        self.version: str = library.__version__
        check_version(manifest, self.version, variant)
        check_trust(engine)
        data = {name: engine.read(name) for name in (TEXT_PLAN, IMAGE_PLAN)}
        for name, raw in data.items():
            check_header(manifest, read_header(raw, str(engine.path / name)), variant, str(engine.path / name))
        gpu = check_gpu(manifest, driver(), index, variant)
        self._device = device(index, gpu.integrated)
        self._gpu_name = str(gpu.name)
        self._compiled: CompiledCache | None = None
        if variant.own_graphs:
            self._compiled = CompiledCache(engine.digest, f"{gpu.name} {self.version}", "code compiled for this GPU")
        tensors = (
            (TEXT_PLAN, TEXT_INPUTS, FEATURES, frozenset[str]()),
            (IMAGE_PLAN, ("image", "mask", *FEATURES), ("logits",), STICKY),
        )
        self._plans: dict[str, Plan] = {}
        self._lanes: dict[str, Lanes] = {}
        with self._device.current(), self._device.exclusive():
            for name, inputs, outputs, sticky in tensors:
                what, cache = str(engine.path / name), self._compiled.read(name) if self._compiled else b""
                plan = Plan(
                    variant, library, data[name], what, host_code=manifest.holds_host_code, graphs=graphs, cache=cache
                )
                check_names(plan.specs, inputs, outputs, what)
                self._plans[name] = plan
                self._lanes[name] = Lanes(_maker(plan, self._device, graphs, sticky))

    @property
    def device(self) -> str:
        return self._gpu_name

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        (outputs,) = self._run(TEXT_PLAN, [{"tokens": tokens, "mask": mask}], len(tokens))
        features = {name: outputs[name] for name in FEATURES}
        # Read-only, since lanes recognize a sentence's arrays by their id.
        for array in (*features.values(), mask := mask.copy()):
            array.setflags(write=False)
        return SentenceFeatures(features, mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        (logits,) = self.segment_many([images], text)
        return logits

    def segment_many(self, batches: Iterable[np.ndarray], text: SentenceFeatures) -> Iterator[np.ndarray]:
        """Segment batches in order; while one is computed, the next is prepared by the caller's iterator and copied.

        A smaller last batch is padded, which costs less than another lane.
        """
        sizes, largest = deque[int](), 0
        # of the largest size: lanes recognize arrays by their id
        rows = text

        def inputs() -> Iterator[dict[str, np.ndarray]]:
            nonlocal largest, rows
            for images in batches:
                sizes.append(len(images))
                if len(images) > largest:
                    largest = len(images)
                    # A lane repeats a single one.
                    rows = text if len(text) == 1 else text.repeated(largest)
                named = rows.arrays | {"mask": rows.mask}
                padding = np.repeat(images[-1:], largest - len(images), 0)
                yield {"image": np.concatenate([images, padding]) if len(padding) else images} | named

        return (outputs["logits"][: sizes.popleft(), 0] for outputs in self._run(IMAGE_PLAN, inputs()))

    def times(self, images: np.ndarray, text: SentenceFeatures) -> dict[str, float]:
        """Run ``segment`` once and return its times in ms, see ``StepTimes.times``; for benchmarks.

        "captured" is 1 if runs are CUDA graphs, captured here or, as it says itself, by the library.
        """
        lanes = self._lanes[IMAGE_PLAN]
        with self._device.current():
            steps = StepTimes(self._device)
            try:
                lane = lanes.acquire(len(images))
                assert lane is not None
                try:
                    lane.submit({"image": images, "mask": text.mask} | text.arrays, steps)
                    lane.result()
                except BaseException:
                    lanes.discard(lane)
                    raise
                found = steps.times() | {"captured": float(lane.captured)}
                lanes.release(lane)
            finally:
                steps.close()
        return found

    def close(self) -> None:
        """Free lanes and plans, and store the code that RTX compiled for the next process."""
        if not self._home.here:
            return
        with self._device.current(), self._device.exclusive():
            for name in list(self._plans):
                self._lanes[name].close()
                if self._compiled is not None:
                    self._compiled.write(name, self._plans[name].compiled())
                # No variable holds it: its destructor needs the device's context.
                del self._plans[name]

    def _run(
        self, name: str, inputs: Iterable[dict[str, np.ndarray]], batch: int | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield results in order, with up to ``MAX_PENDING`` batches on the GPU at a time, if its memory suffices."""
        self._home.check()
        lanes, pending = self._lanes[name], deque[Lane]()
        try:
            for arrays in inputs:
                size = batch or len(arrays["image"])
                while (lane := self._acquire(lanes, size, pending)) is None:
                    yield self._finish(lanes, pending)
                pending.append(lane)
                with self._device.current():
                    lane.submit(arrays)
                if len(pending) == MAX_PENDING:
                    yield self._finish(lanes, pending)
            while pending:
                yield self._finish(lanes, pending)
        finally:
            # After an error, or if the caller stops early, lanes are left.
            if pending and self._home.here:
                with self._device.current():
                    for lane in pending:
                        lanes.discard(lane)

    def _acquire(self, lanes: Lanes, batch: int, pending: deque[Lane]) -> Lane | None:
        """Return a lane; None if there is no second one, so that the pending one must be finished first."""
        with self._device.current():
            try:
                return lanes.acquire(batch, wait=not pending)
            except OutOfDeviceMemoryError:
                if not pending:
                    raise
        return None

    def _finish(self, lanes: Lanes, pending: deque[Lane]) -> dict[str, np.ndarray]:
        with self._device.current():
            result = pending[0].result()
            lanes.release(pending.popleft())
        return result


def _maker(plan: Plan, device: Any, graphs: bool, sticky: frozenset[str]) -> Callable[[int], Lane]:
    return lambda batch: Lane(plan, device, batch, graphs, sticky)
