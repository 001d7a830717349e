"""An engine of plans: checked, loaded, and run in lanes.  Not run on a GPU yet."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...gpu import Driver, look
from ..backend import FEATURES, TEXT_INPUTS, SentenceFeatures
from ..manifest import EngineDirectory
from .cuda import Device
from .flavour import FLAVOURS, load
from .header import read_header
from .lane import Lane, Lanes
from .plan import Plan
from .refuse import check_gpu, check_header, check_version
from .tensors import check_names

TEXT_PLAN, IMAGE_PLAN = "text.plan", "image.plan"
STICKY = frozenset(("mask", *FEATURES))
UNDER_WAY = 2  # batches of a series: the next one is copied while this one computes
CACHE = "LSMS_RT_CACHE"  # environment variable: folder for what RTX compiled; empty for none
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
        flavour = FLAVOURS[manifest.backend]
        library = library or load(flavour)
        self.version: str = library.__version__
        check_version(manifest, self.version, flavour)
        data = {name: engine.read(name) for name in (TEXT_PLAN, IMAGE_PLAN)}
        for name, raw in data.items():
            check_header(manifest, read_header(raw, str(engine.path / name)), flavour, str(engine.path / name))
        gpu = check_gpu(manifest, driver(), index, flavour)
        self._device = device(index, gpu.integrated)
        self._cache_folder = _cache_folder(engine.digest) if flavour.own_graphs else None
        wanted = ((TEXT_PLAN, TEXT_INPUTS, FEATURES), (IMAGE_PLAN, ("image", "mask", *FEATURES), ("logits",)))
        self._plans: dict[str, Plan] = {}
        self._lanes: dict[str, Lanes] = {}
        with self._device.current():
            for name, inputs, outputs in wanted:
                what = str(engine.path / name)
                plan = self._plans[name] = Plan(flavour, library, data[name], what, graphs, self._cached(name))
                check_names(plan.specs, inputs, outputs, what)
                self._lanes[name] = Lanes(self._maker(plan, graphs and not flavour.own_graphs))

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        (found,) = self._run(TEXT_PLAN, [{"tokens": tokens, "mask": mask}], len(tokens))
        return SentenceFeatures({name: found[name] for name in FEATURES}, mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        (logits,) = self.segment_many([images], text)
        return logits

    def segment_many(self, batches: Iterable[np.ndarray], text: SentenceFeatures) -> Iterator[np.ndarray]:
        """Batch by batch, in order; while one computes, the next is prepared by the caller's iterator and copied."""
        sentence = text.arrays | {"mask": text.mask}
        inputs = ({"image": images} | sentence for images in batches)
        return (found["logits"][:, 0] for found in self._run(IMAGE_PLAN, inputs))

    def close(self) -> None:
        """Free lanes and plans, and keep what RTX compiled for the next process."""
        with self._device.current():
            for lanes in self._lanes.values():
                lanes.close()
        for name, plan in self._plans.items():
            if self._cache_folder is not None:
                _write_cache(self._cache_folder / f"{name}.cache", plan.compiled())
        self._plans = {}

    def _run(
        self, name: str, inputs: Iterable[dict[str, np.ndarray]], batch: int | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Results in order, with ``UNDER_WAY`` batches on the GPU at a time.  A lane that failed is not used again."""
        lanes, waiting = self._lanes[name], deque[Lane]()
        try:
            for arrays in inputs:
                with self._device.current():
                    lane = lanes.take(batch or len(arrays["image"]))
                    waiting.append(lane)
                    lane.submit(arrays)
                if len(waiting) == UNDER_WAY:
                    yield self._finish(lanes, waiting)
            while waiting:
                yield self._finish(lanes, waiting)
        finally:
            with self._device.current():
                for lane in waiting:  # an error, or a caller who wants no more
                    lane.free()

    def _finish(self, lanes: Lanes, waiting: deque[Lane]) -> dict[str, np.ndarray]:
        with self._device.current():
            result = waiting[0].result()
            lanes.give(waiting.popleft())
        return result

    def _maker(self, plan: Plan, graphs: bool) -> Callable[[int], Lane]:
        return lambda batch: Lane(plan, self._device, batch, graphs, STICKY)

    def _cached(self, name: str) -> bytes:
        file = None if self._cache_folder is None else self._cache_folder / f"{name}.cache"
        return file.read_bytes() if file is not None and file.is_file() else b""


def _cache_folder(digest: str) -> Path | None:
    """A folder of the user's own for one engine: it holds compiled code, which nobody else may have written."""
    set_by_user = os.environ.get(CACHE)
    if set_by_user == "":
        return None
    base = (
        Path(set_by_user)
        if set_by_user
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lsms-rt"
    )
    return base / digest.removeprefix("sha256:")[:32]


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
