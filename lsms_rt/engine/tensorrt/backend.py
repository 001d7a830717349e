"""An engine of plans: checked, loaded, and run in lanes.  Not run on a GPU yet."""

from __future__ import annotations

import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.engine.backend import FEATURES, TEXT_INPUTS, SentenceFeatures
from lsms_rt.engine.manifest import EngineDirectory
from lsms_rt.errors import OutOfDeviceMemoryError
from lsms_rt.machine.cache import cache_folder
from lsms_rt.machine.gpu import Driver, Gpu, look

from .compatibility import check_gpu, check_header, check_version
from .cuda import Device
from .header import read_header
from .lane import Lane, Lanes
from .plan import Plan
from .tensors import check_names
from .timing import Marks
from .variant import VARIANTS, load

TEXT_PLAN, IMAGE_PLAN = "text.plan", "image.plan"
STICKY = frozenset(("mask", *FEATURES))
UNDER_WAY = 2  # batches of a series: the next one is copied while this one computes
log = logging.getLogger("lsms_rt")


class TensorRtBackend:
    """Runs the two plans of an engine on one GPU.

    ``index`` counts GPUs as CUDA does; ``graphs`` runs plans as CUDA graphs.  Raises the refusals of ``refuse`` and
    ``plan``, all typed, before anything runs.
    """

    def __init__(
        self, engine: EngineDirectory, index: int = 0, graphs: bool = True, *,
        driver: Callable[[], Driver] = look, device: Callable[[int, bool], Any] = Device,
        library: Any = None,
    ) -> None:  # fmt: skip
        manifest = engine.manifest
        variant = VARIANTS[manifest.backend]
        self._own_graphs = variant.own_graphs and graphs
        library = library or load(variant)
        self.version: str = library.__version__
        check_version(manifest, self.version, variant)
        data = {name: engine.read(name) for name in (TEXT_PLAN, IMAGE_PLAN)}
        for name, raw in data.items():
            check_header(manifest, read_header(raw, str(engine.path / name)), variant, str(engine.path / name))
        gpu = check_gpu(manifest, driver(), index, variant)
        self._device = device(index, gpu.integrated)
        self._cache_folder = _cache_folder(engine.digest, gpu, self.version) if variant.own_graphs else None
        wanted = (
            (TEXT_PLAN, TEXT_INPUTS, FEATURES, frozenset[str]()),
            (IMAGE_PLAN, ("image", "mask", *FEATURES), ("logits",), STICKY),
        )
        self._plans: dict[str, Plan] = {}
        self._lanes: dict[str, Lanes] = {}
        host_code = bool(manifest.plan_options.get("version_compatible"))
        with self._device.current():
            for name, inputs, outputs, sticky in wanted:
                what, cache = str(engine.path / name), self._cached(name)
                plan = Plan(variant, library, data[name], what, host_code=host_code, graphs=graphs, cache=cache)
                check_names(plan.specs, inputs, outputs, what)
                self._plans[name] = plan
                self._lanes[name] = Lanes(_maker(plan, self._device, graphs and not variant.own_graphs, sticky))

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        (found,) = self._run(TEXT_PLAN, [{"tokens": tokens, "mask": mask}], len(tokens))
        features = {name: found[name] for name in FEATURES}
        for array in (*features.values(), mask := mask.copy()):
            array.setflags(write=False)  # lanes know a sentence's arrays by identity
        return SentenceFeatures(features, mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        (logits,) = self.segment_many([images], text)
        return logits

    def segment_many(self, batches: Iterable[np.ndarray], text: SentenceFeatures) -> Iterator[np.ndarray]:
        """Batch by batch, in order; while one computes, the next is prepared by the caller's iterator and copied.

        A smaller last batch is filled up: that costs less than a lane of its own.
        """
        sentence, sizes, largest = text.arrays | {"mask": text.mask}, deque[int](), 0

        def inputs() -> Iterator[dict[str, np.ndarray]]:
            nonlocal largest
            for images in batches:
                sizes.append(len(images))
                largest = max(largest, len(images))
                more = np.repeat(images[-1:], largest - len(images), 0)
                yield {"image": np.concatenate([images, more]) if len(more) else images} | sentence

        return (found["logits"][: sizes.popleft(), 0] for found in self._run(IMAGE_PLAN, inputs()))

    def times(self, images: np.ndarray, text: SentenceFeatures) -> dict[str, float]:
        """Run ``segment`` once for its times in ms, as ``Marks.times`` has them; for benchmarks.

        "captured" is 1 where the next run is a CUDA graph, ours or the library's own.
        """
        lanes = self._lanes[IMAGE_PLAN]
        with self._device.current():
            marks = Marks(self._device)
            lane = lanes.take(len(images))
            assert lane is not None  # it waits
            try:
                lane.submit({"image": images, "mask": text.mask} | text.arrays, marks)
                lane.result()
            except BaseException:
                lanes.drop(lane)
                raise
            captured = lane.captured or self._own_graphs
            lanes.give(lane)
            return marks.times() | {"captured": float(captured)}

    def close(self) -> None:
        """Free lanes and plans, and keep what RTX compiled for the next process."""
        with self._device.current():
            for name, plan in self._plans.items():
                self._lanes[name].close()
                if self._cache_folder is not None:
                    _write_cache(self._cache_folder / f"{name}.cache", plan.compiled())
            self._plans.clear()

    def _run(
        self, name: str, inputs: Iterable[dict[str, np.ndarray]], batch: int | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Results in order, with up to ``UNDER_WAY`` batches on the GPU at a time, or as many as its memory holds."""
        lanes, waiting = self._lanes[name], deque[Lane]()
        try:
            for arrays in inputs:
                size = batch or len(arrays["image"])
                while (lane := self._take(lanes, size, waiting)) is None:
                    yield self._finish(lanes, waiting)
                waiting.append(lane)
                with self._device.current():
                    lane.submit(arrays)
                if len(waiting) == UNDER_WAY:
                    yield self._finish(lanes, waiting)
            while waiting:
                yield self._finish(lanes, waiting)
        finally:
            if waiting:  # an error, or a caller who wants no more
                with self._device.current():
                    for lane in waiting:
                        lanes.drop(lane)

    def _take(self, lanes: Lanes, batch: int, waiting: deque[Lane]) -> Lane | None:
        """A lane; None where there is no second one to be had, and the first must be finished."""
        with self._device.current():
            try:
                return lanes.take(batch, wait=not waiting)
            except OutOfDeviceMemoryError:
                if not waiting:
                    raise
        return None

    def _finish(self, lanes: Lanes, waiting: deque[Lane]) -> dict[str, np.ndarray]:
        with self._device.current():
            result = waiting[0].result()
            lanes.give(waiting.popleft())
        return result

    def _cached(self, name: str) -> bytes:
        if self._cache_folder is None:
            return b""
        try:
            return (self._cache_folder / f"{name}.cache").read_bytes()
        except OSError:  # none yet, or not readable: it is compiled again
            return b""


def _maker(plan: Plan, device: Any, graphs: bool, sticky: frozenset[str]) -> Callable[[int], Lane]:
    return lambda batch: Lane(plan, device, batch, graphs, sticky)


def _cache_folder(digest: str, gpu: Gpu, version: str) -> Path | None:
    """A folder of the user's own for one engine on one kind of GPU; None where none is wanted or there is no home."""
    base = cache_folder()
    if base is None:
        return None
    device = re.sub("[^a-z0-9]+", "-", f"{gpu.name} {version}".lower())
    return base / digest.removeprefix("sha256:")[:32] / device


def _write_cache(file: Path, data: bytes) -> None:
    if not data:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_bytes(data)
        part.replace(file)
    except OSError as error:  # a read-only device starts a little slower, and runs
        log.warning("what was compiled for this GPU is not kept: %s", error.strerror)
