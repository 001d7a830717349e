"""Segmenter: an engine, an image and a sentence in; a mask in the image's own grid out."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .atomic import unwritable
from .ct_slice import CtSlice
from .engine import Backend, Manifest, SentenceFeatures, open_backend, open_directory
from .errors import InputError
from .postprocess import area_mm2, bbox, highest_probability, probability_in_grid, verdict
from .preprocess import Placement, to_tensor
from .reading.load import load_slice, load_slices
from .tokenizer import Tokenizer, clean_sentence

UNKNOWN_WORDS = "words that this engine does not know"
CACHED_SENTENCES = 64  # a sentence's features are about half a megabyte (tiny) to two (large)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The answer for one slice; all arrays are in the input's own grid (its rows and columns).

    ``mask`` bool (H, W); ``probability`` float32 (H, W) in [0, 1]; ``score`` the highest probability that
    the network gave to any place of the slice, on its own grid; ``found`` whether anything matches the sentence: below
    the engine's ``confidence``, ``score`` is too low to answer and the mask is empty.
    ``area_mm2`` is None where the pixel spacing is unknown; ``bbox`` (row0, column0, row1, column1), half open, None if
    nothing was found; ``mean_hu`` over the mask, likewise; ``notes`` what had to be assumed about the image.
    ``timings`` in ms: "total" of ``predict`` includes reading; in a series they are a slice's share of its batch.
    """

    mask: np.ndarray
    probability: np.ndarray
    text: str
    score: float
    slice: CtSlice
    weights_note: str
    confidence: float
    unknown_words: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Segmentation {'found' if self.found else 'nothing found'}, score {self.score:.2f}, {self.mask.shape}>"

    @property
    def found(self) -> bool:
        return bool(self.mask.any())

    @property
    def hu(self) -> np.ndarray:
        """float32 (H, W), the image in HU and in the input's own grid."""
        return self.slice.to_input_grid(self.slice.hu)

    @property
    def area_mm2(self) -> float | None:
        return area_mm2(self.mask, self.slice.spacing_mm)

    @property
    def bbox(self) -> tuple[int, int, int, int] | None:
        return bbox(self.mask)

    @property
    def mean_hu(self) -> float | None:
        return float(self.hu[self.mask].mean()) if self.found else None

    @property
    def notes(self) -> tuple[str, ...]:
        if not self.unknown_words:
            return self.slice.notes
        return (*self.slice.notes, f"{UNKNOWN_WORDS}: {', '.join(self.unknown_words)}")

    def to_dict(self, *, include_text: bool = False) -> dict[str, Any]:
        """Everything but the arrays, in plain types, ready for JSON.

        A sentence may hold a patient's data: neither it nor its words are part of this without ``include_text``.
        """
        notes = list(self.notes if include_text else self.slice.notes)
        if self.unknown_words and not include_text:
            notes.append(f"{UNKNOWN_WORDS}: {len(self.unknown_words)}")
        return {
            "source": self.slice.source,
            "frame": self.slice.frame,
            **({"text": self.text} if include_text else {}),
            "found": self.found,
            "score": round(self.score, 4),
            "confidence": self.confidence,
            "pixels": int(self.mask.sum()),
            "shape": list(self.mask.shape),
            "area_mm2": None if self.area_mm2 is None else round(self.area_mm2, 2),
            "bbox": None if self.bbox is None else list(self.bbox),
            "mean_hu": None if self.mean_hu is None else round(self.mean_hu, 1),
            "notes": notes,
            "weights": self.weights_note,
            "timings_ms": {name: round(value, 2) for name, value in self.timings.items()},
        }

    def save_overlay(
        self, path: str | PathLike[str], truth: np.ndarray | None = None, note: str | None = None, *,
        include_text: bool = True,
    ) -> None:  # fmt: skip
        """Write a PNG: the slice, and the slice with the mask, in the usual view (the patient's right is left).

        ``truth``, where it is known, is a bool mask (H, W) in the input's grid; it is outlined in green.  ``note`` says
        what the slice is, below the picture; the sentence stands there with ``include_text``.
        """
        from .writing.overlay import save_overlay

        answer = "nothing found" if not self.found else f"{int(self.mask.sum())} pixels"
        if self.area_mm2 is not None and self.found:
            answer = f"{self.area_mm2:.0f} mm2, mean {self.mean_hu:.0f} HU"
        if truth is not None:
            answer += f", {verdict(self.mask, truth)}"
        colours = None if truth is None else "red: answer, green: truth"
        ct = self.slice
        save_overlay(
            path,
            ct.hu,
            ct.to_model_frame(self.mask, ct.flips, ct.transposed),
            truth=None if truth is None else ct.to_model_frame(truth, ct.flips, ct.transposed),
            spacing_mm=ct.spacing_mm,
            caption=f"{self.text}: {answer}" if include_text else answer,
            footer="; ".join(filter(None, (note, colours, f"{self.weights_note}, not for diagnosis"))),
        )

    def save_mask(self, path: str | PathLike[str]) -> None:
        """Write the mask as a PNG with 0 and 255, in the input's grid."""
        from PIL import Image as Picture

        try:
            Picture.fromarray(np.where(self.mask, 255, 0).astype(np.uint8)).save(Path(path), format="PNG")
        except OSError as error:
            raise unwritable(error) from error


@dataclass(frozen=True)
class _Sentence:
    """All that is kept of a sentence: computed once, used for every slice."""

    features: SentenceFeatures
    unknown_words: tuple[str, ...]


class Segmenter:
    """Loads an engine once, answers many times; safe to use from several threads, closes as a context manager.

    ``digest`` ("sha256:HEX", as ``lsms-rt inspect`` prints it), from a trusted place, must be the engine's: engines
    are code.  ``threads`` is the number of CPU threads of a slice's computation.  ``device`` ("cpu", "cuda", "cuda:1",
    and for ONNX Runtime "tensorrt") is where it runs, by default a GPU where the engine's backend has one;
    ``cuda_graph=False`` runs a TensorRT engine without one.
    Raises a subclass of ``EngineError`` for an engine that is missing, changed, too new, malformed, or for another GPU
    or version of TensorRT; of ``MachineError`` for a machine that lacks its library, driver, GPU or memory.
    """

    def __init__(
        self,
        engine: str | PathLike[str],
        *,
        digest: str | None = None,
        threads: int | None = None,
        device: str | None = None,
        cuda_graph: bool = True,
    ) -> None:
        directory = open_directory(Path(engine), digest)
        tokenizer = Tokenizer(directory.read("tokenizer.json"), directory.manifest.max_tokens)
        self._open(open_backend(directory, threads, device, cuda_graph), directory.manifest, tokenizer)
        self.digest = directory.digest

    @classmethod
    def over(cls, backend: Backend, manifest: Manifest, tokenizer: Tokenizer) -> Segmenter:
        """A Segmenter over a backend that is open already; ``digest`` is then empty, since no engine was read."""
        segmenter = cls.__new__(cls)
        segmenter._open(backend, manifest, tokenizer)
        return segmenter

    def _open(self, backend: Backend, manifest: Manifest, tokenizer: Tokenizer) -> None:
        self.manifest = manifest
        self.digest = ""
        self._backend, self._tokenizer = backend, tokenizer
        self._cache: OrderedDict[str, _Sentence] = OrderedDict()
        self._lock = threading.Lock()

    def predict(self, img: Any, text: str, *, window: tuple[float, float] | None = None) -> Segmentation:
        """Segment in one slice what the sentence ``text`` asks for.

        ``img``: a path (DICOM, NPY, PNG, NIfTI), a pydicom Dataset, an array (H, W) in HU in the usual axial view, or
        a ``CtSlice``.  ``window`` (level, width) in HU is what an 8-bit picture shows; without it one is refused.
        Nothing that matches is an answer (``found`` is False), not an error.
        Raises ``InputError`` for an image or a sentence that cannot be used.
        """
        timings: dict[str, float] = {}
        with _timed(timings, "total"):
            with _timed(timings, "text"):  # first: a wrong sentence is reported before a large file is read
                sentence = self._sentence(text)
            with _timed(timings, "read"):
                ct = load_slice(img, window=window)
            result = self._predict_batch([ct], text, sentence, timings)[0]
        result.timings.update(timings)
        return result

    def predict_series(
        self, images: Any, text: str, *, batch: int | None = None, series: str | int | None = None,
        window: tuple[float, float] | None = None,
    ) -> Iterator[Segmentation]:  # fmt: skip
        """Segment every slice of a series, in anatomical order from feet to head, ``batch`` slices at a time.

        ``images``: a folder, DICOMDIR or ZIP with a DICOM series (``series`` chooses one of several), a multi-frame or
        NIfTI file, or an iterable of what ``predict`` takes; the latter keeps its order unless every slice states its
        position.  ``window`` as for ``predict``.
        """
        size = self.manifest.max_batch if batch is None else batch
        if not 1 <= size <= self.manifest.max_batch:
            raise InputError(f"batch is {size}; this engine takes 1 to {self.manifest.max_batch}")
        sentence = self._sentence(text)
        slices = _in_order(images, series, window)
        return self._series(slices, text, sentence, size)

    def _series(self, slices: Sequence[CtSlice], text: str, sentence: _Sentence, size: int) -> Iterator[Segmentation]:
        """Tensors are made as the backend asks for them: on a GPU, while the batch before computes."""
        under_way: deque[tuple[Sequence[CtSlice], list[Placement], dict[str, float]]] = deque()

        def tensors() -> Iterator[np.ndarray]:
            for start in range(0, len(slices), size):
                part, timings = slices[start : start + size], dict[str, float]()
                images, placements = self._prepare(part, timings)
                prepared.append(timings["prepare"])
                under_way.append((part, placements, timings))
                yield images

        prepared: list[float] = []  # ms of all preparation since the last answer, which is no waiting for it
        answers, begin = self._backend.segment_many(tensors(), sentence.features), time.perf_counter()
        for logits in answers:
            part, placements, timings = under_way.popleft()
            timings["image"] = (time.perf_counter() - begin) * 1000 - sum(prepared)
            prepared.clear()
            for result in self._results(part, placements, logits, text, sentence, timings):
                result.timings["total"] = sum(result.timings.values())
                yield result
            begin = time.perf_counter()

    def _predict_batch(
        self, slices: Sequence[CtSlice], text: str, sentence: _Sentence, timings: dict[str, float]
    ) -> list[Segmentation]:
        images, placements = self._prepare(slices, timings)
        with _timed(timings, "image"):
            logits = self._backend.segment(images, sentence.features)
        return self._results(slices, placements, logits, text, sentence, timings)

    def _prepare(self, slices: Sequence[CtSlice], timings: dict[str, float]) -> tuple[np.ndarray, list[Placement]]:
        with _timed(timings, "prepare"):
            placed = [to_tensor(ct, self.manifest.image_size, self.manifest.hu_window) for ct in slices]
            return np.concatenate([tensor for tensor, _ in placed]), [placement for _, placement in placed]

    def _results(
        self,
        slices: Sequence[CtSlice],
        placements: list[Placement],
        logits: np.ndarray,
        text: str,
        sentence: _Sentence,
        timings: dict[str, float],
    ) -> list[Segmentation]:
        with _timed(timings, "mask"):
            results = [
                self._result(ct, placement, values, text, sentence.unknown_words)
                for ct, placement, values in zip(slices, placements, logits, strict=True)
            ]
        for result in results:
            result.timings.update({name: value / len(slices) for name, value in timings.items()})
        return results

    def _result(
        self, ct: CtSlice, placement: Placement, logits: np.ndarray, text: str, unknown: tuple[str, ...]
    ) -> Segmentation:
        probability = probability_in_grid(logits, placement, ct)
        score = highest_probability(logits, placement)
        mask = probability > self.manifest.threshold
        if score < self.manifest.confidence:
            mask = np.zeros_like(mask)
        return Segmentation(
            mask, probability, text, score, ct, self.manifest.weights_note, self.manifest.confidence, unknown
        )

    def _sentence(self, text: str) -> _Sentence:
        """What the sentence says to the engine, from the cache if it was asked before."""
        key = clean_sentence(text)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        tokens = self._tokenizer(key)
        sentence = _Sentence(self._backend.encode_text(tokens.ids, tokens.mask), tokens.unknown_words)
        with self._lock:
            self._cache[key] = sentence
            while len(self._cache) > CACHED_SENTENCES:
                self._cache.popitem(last=False)
        return sentence

    def check_sentence(self, text: str) -> None:
        """Raise ``InputError`` for a sentence that this engine cannot read; it is then encoded, and kept."""
        self._sentence(text)

    def close(self) -> None:
        """Free the engine; further calls are refused."""
        self._backend.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _in_order(images: Any, series: str | int | None, window: tuple[float, float] | None) -> list[CtSlice]:
    if (
        isinstance(images, Iterable)
        and not isinstance(images, (str, bytes, PathLike, np.ndarray))
        and not _is_dataset(images)
    ):
        slices = [load_slice(image, window=window) for image in images]
    else:
        slices = load_slices(images, series=series, window=window)
    if all(ct.position_mm is not None for ct in slices):
        slices.sort(key=lambda ct: ct.position_mm or 0.0)
    return slices


def _is_dataset(images: Any) -> bool:
    return hasattr(images, "file_meta") or hasattr(images, "PixelData")


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    timings[name] = (time.perf_counter() - begin) * 1000
