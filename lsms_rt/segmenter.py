"""Segmenter: takes an engine, an image and a sentence; returns a mask in the image's own grid."""

from __future__ import annotations

import threading
import time
import warnings
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .ct_slice import CtSlice
from .engine import Backend, Manifest, SentenceFeatures, open_backend, open_directory
from .engine.gate import warn_of_gate
from .engine.process import Home
from .errors import InputError, brief, chain_cut
from .postprocess import highest_probability, probability_in_grid
from .preprocess import Placement, to_tensor
from .reading.load import load_series, load_slice
from .reading.stated import Stated
from .segmentation import Segmentation as Segmentation
from .sentences import Contract, Reader, Reading, open_reader
from .sentences.reader import refuse, refuse_unanswerable
from .tokenizer import Tokenizer, clean_sentence

# A sentence's features are about half a megabyte (tiny) to two (large).
CACHED_SENTENCES = 64
REFUSE, WARN = ON_UNKNOWN = ("refuse", "warn")


@dataclass(frozen=True)
class _Sentence:
    """The encoded sentence: computed once, used for every slice."""

    features: SentenceFeatures
    reading: Reading


class Segmenter:
    """Segments lesions that a sentence describes: load an engine once, then predict many times.

    It may be used from several threads, and is a context manager that frees the engine.

    Args:
        engine: the engine directory.
        digest: "sha256:HEX" of the engine from a trusted source, as ``lsms-rt inspect`` prints it; another engine is
            rejected, since engines are code.  None: no check.
        trust_host_code: let a version-compatible TensorRT engine run the code that it brings for the CPU, as this user;
            with a ``digest`` it may anyway.
        threads: number of CPU threads per slice; None lets the library choose.
        device: "cpu", "cuda", "cuda:1", and for ONNX Runtime also "tensorrt"; None uses a GPU if the engine's backend
            supports it.
        cuda_graph: run TensorRT engines as CUDA graphs.
        on_unknown: "refuse" raises SentenceNotUnderstoodError for a sentence that is not understood (it negates, names
            another organ, is in another language, ...); "warn" answers it all the same, and its ``notes`` say why that
            answer means little.

    Attributes:
        manifest: the engine's manifest.
        digest: "sha256:HEX" of the engine; empty if it was built by ``from_backend``.
        precision: arithmetic of the engine, e.g. "fp32" or "int8".
        gate: what the accuracy gate of the build said, see ``Manifest.gate_verdict``; a warning is logged unless the
            engine passed it or needed none.

    Raises:
        EngineError: a subclass says whether the engine is missing, changed, too new, malformed, or built for another
            GPU or TensorRT version.
        MachineError: a subclass says whether a library, driver, GPU or memory is missing.
    """

    @chain_cut
    def __init__(
        self,
        engine: str | PathLike[str],
        *,
        digest: str | None = None,
        trust_host_code: bool = False,
        threads: int | None = None,
        device: str | None = None,
        cuda_graph: bool = True,
        on_unknown: str = REFUSE,
    ) -> None:
        _check_on_unknown(on_unknown)
        directory = open_directory(Path(engine), digest, trust_host_code=trust_host_code)
        reader = open_reader(directory)
        self._open(open_backend(directory, threads, device, cuda_graph), directory.manifest, reader, on_unknown)
        self.digest = directory.digest
        warn_of_gate(self.precision, self.gate)

    @classmethod
    def from_backend(
        cls, backend: Backend, manifest: Manifest, tokenizer: Tokenizer, *, contract: Contract | None = None,
        on_unknown: str = REFUSE,
    ) -> Segmenter:  # fmt: skip
        """Build a Segmenter from an opened backend.

        Args:
            backend: runs the two graphs.
            manifest: sizes and thresholds.
            tokenizer: of the text encoder's vocabulary.
            contract: the table of words that sentences are read by; None for the package's own.
            on_unknown: as for the class.
        """
        _check_on_unknown(on_unknown)
        segmenter = cls.__new__(cls)
        segmenter._open(backend, manifest, Reader(tokenizer, contract), on_unknown)
        return segmenter

    # alias of version 0.1
    @classmethod
    def over(cls, backend: Backend, manifest: Manifest, tokenizer: Tokenizer) -> Segmenter:
        """Deprecated: use ``from_backend``."""
        warnings.warn("Segmenter.over is now Segmenter.from_backend", DeprecationWarning, stacklevel=2)
        return cls.from_backend(backend, manifest, tokenizer)

    def _open(self, backend: Backend, manifest: Manifest, reader: Reader, on_unknown: str) -> None:
        self.manifest = manifest
        self.precision, self.gate = manifest.precision, manifest.gate_verdict
        self.digest = ""
        self._home = Home(self)
        self._backend, self._reader, self._on_unknown = backend, reader, on_unknown
        self._cache: OrderedDict[str, _Sentence] = OrderedDict()
        self._lock = threading.Lock()

    @chain_cut
    def predict(
        self, img: Any, text: str, *, window: tuple[float, float] | None = None, orientation: str | None = None,
        rescale: tuple[float, float] | None = None,
    ) -> Segmentation:  # fmt: skip
        """Segment the lesion that a sentence describes in one slice.

        Args:
            img: a path (DICOM, NPY, PNG, NIfTI), a pydicom Dataset, an array (H, W) in HU, or a ``CtSlice``.  An array
                must be in the usual axial view, the patient's right at the left edge; it does not show whether it is,
                so its result's ``ct.side_known`` is False, unless ``orientation`` states it.
            text: the sentence, in English.
            window: (level, width) in HU that an 8-bit image shows; required for one.
            orientation: "axial" states that an image which does not hold its orientation is in the usual axial view.
            rescale: (slope, intercept) from stored values to HU, for a DICOM image that lacks them.

        Returns:
            The result.  If nothing matches the sentence, its ``found`` is False; this is not an error.

        Raises:
            SentenceNotUnderstoodError: the sentence is not understood, and ``on_unknown`` is "refuse".
            InputError: the image or the sentence cannot be used.
        """
        stated = Stated(window=window, orientation=orientation, rescale=rescale)
        timings: dict[str, float] = {}
        with _timed(timings, "total"):
            # First, so that a wrong sentence is reported before a large file is read.
            with _timed(timings, "text"):
                sentence = self._sentence(text)
            with _timed(timings, "read"):
                ct = load_slice(img, stated=stated)
            images, placements = self._prepare([ct], timings)
            with _timed(timings, "image"):
                logits = self._backend.segment(images, sentence.features)
            result = self._results([ct], placements, logits, text, sentence, timings)[0]
        result.timings.update(timings)
        return result

    @chain_cut
    def predict_series(
        self, images: Any, text: str, *, batch: int | None = None, series: str | int | None = None,
        window: tuple[float, float] | None = None, orientation: str | None = None,
        rescale: tuple[float, float] | None = None, as_one_series: bool = False,
    ) -> Iterator[Segmentation]:  # fmt: skip
        """Segment every slice of a series.

        Args:
            images: a folder, DICOMDIR or ZIP archive with a DICOM series, a multi-frame or NIfTI file, or an iterable
                of inputs as for ``predict``.
            text: the sentence, in English.
            batch: slices per batch; None uses the engine's maximum.
            series: which one of several DICOM series, as listed in the error message without it.
            window: as for ``predict``.
            orientation: as for ``predict``.
            rescale: as for ``predict``.
            as_one_series: take DICOM files without a SeriesInstanceUID as one series.

        Returns:
            An iterator over the results: those of an iterable in its order, one for each of its inputs; those of one
            input from feet to head.  ``index`` of each counts from 0.

        Raises:
            SentenceNotUnderstoodError: the sentence is not understood, and ``on_unknown`` is "refuse".
            InputError: the images, the sentence or the batch size cannot be used.
        """
        stated = Stated(window=window, orientation=orientation, rescale=rescale, as_one_series=as_one_series)
        given: Any = batch
        if given is not None and not isinstance(given, Integral):
            raise InputError(f"batch is a {type(given).__name__}; give a number from 1 to {self.manifest.max_batch}")
        size = self.manifest.max_batch if given is None else int(given)
        if not 1 <= size <= self.manifest.max_batch:
            raise InputError(f"batch is {size}; this engine supports 1 to {self.manifest.max_batch}")
        sentence = self._sentence(text)
        return self._series(load_series(images, series=series, stated=stated), text, sentence, size)

    @chain_cut
    def prepare_sentence(self, text: str) -> tuple[str, ...]:
        """Encode a sentence before images are read: errors are raised early, and predictions reuse the result.

        Args:
            text: the sentence.

        Returns:
            Its words that are not in the engine's vocabulary.

        Raises:
            SentenceNotUnderstoodError: it is not understood, and ``on_unknown`` is "refuse".
            InputError: it cannot be used with this engine: it is empty or too long.
        """
        return self._sentence(text).reading.unknown_words

    @chain_cut
    def read_sentence(self, text: str) -> Reading:
        """Return how this engine reads a sentence; nothing is computed, and nothing refused.

        Args:
            text: the sentence.

        Raises:
            InputError: it is empty, or has more than 1000 characters.
        """
        return self._reader.read(text)

    # alias of version 0.1
    def check_sentence(self, text: str) -> None:
        """Deprecated: use ``prepare_sentence``."""
        warnings.warn("Segmenter.check_sentence is now Segmenter.prepare_sentence", DeprecationWarning, stacklevel=2)
        self.prepare_sentence(text)

    def close(self) -> None:
        """Free the engine; later calls raise EngineInvalidError."""
        self._backend.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @chain_cut
    def _series(self, slices: Sequence[CtSlice], text: str, sentence: _Sentence, size: int) -> Iterator[Segmentation]:
        """Segment batches; they are preprocessed lazily, one batch ahead of the GPU."""
        pending: deque[tuple[int, list[Placement], dict[str, float]]] = deque()

        def tensors() -> Iterator[np.ndarray]:
            for start in range(0, len(slices), size):
                part, timings = slices[start : start + size], dict[str, float]()
                images, placements = self._prepare(part, timings)
                prepared.append(timings["prepare"])
                pending.append((start, placements, timings))
                yield images

        # ms of all preprocessing since the last result, which is not part of the wait for the next one
        prepared: list[float] = []
        with _closed(self._backend.segment_many(tensors(), sentence.features)) as batches:
            begin = time.perf_counter()
            for logits in batches:
                start, placements, timings = pending.popleft()
                timings["image"] = (time.perf_counter() - begin) * 1000 - sum(prepared)
                prepared.clear()
                part = slices[start : start + size]
                for result in self._results(part, placements, logits, text, sentence, timings, start):
                    result.timings["total"] = sum(result.timings.values())
                    yield result
                    # The caller may have forked in the meantime.
                    self._home.check()
                begin = time.perf_counter()

    def _prepare(self, slices: Sequence[CtSlice], timings: dict[str, float]) -> tuple[np.ndarray, list[Placement]]:
        with _timed(timings, "prepare"):
            manifest = self.manifest
            placed = [to_tensor(ct, manifest.image_size, manifest.hu_window, manifest.crop) for ct in slices]
            return np.concatenate([tensor for tensor, _ in placed]), [placement for _, placement in placed]

    def _results(
        self,
        slices: Sequence[CtSlice],
        placements: list[Placement],
        logits: np.ndarray,
        text: str,
        sentence: _Sentence,
        timings: dict[str, float],
        first: int = 0,
    ) -> list[Segmentation]:
        """Return the results of a batch, whose first slice has the index ``first``."""
        with _timed(timings, "mask"):
            results = [
                self._result(index, ct, placement, values, text, sentence.reading)
                for index, (ct, placement, values) in enumerate(zip(slices, placements, logits, strict=True), first)
            ]
        for result in results:
            result.timings.update({name: value / len(slices) for name, value in timings.items()})
        return results

    def _result(
        self, index: int, ct: CtSlice, placement: Placement, logits: np.ndarray, text: str, reading: Reading
    ) -> Segmentation:
        probability = probability_in_grid(logits, placement, ct)
        score = highest_probability(logits, placement)
        mask = probability > self.manifest.threshold
        if score < self.manifest.confidence:
            mask = np.zeros_like(mask)
        return Segmentation(
            mask=mask,
            probability=probability,
            text=text,
            score=score,
            ct=ct,
            weights_note=self.manifest.weights_note,
            confidence=self.manifest.confidence,
            reading=reading,
            index=index,
        )

    def _sentence(self, text: str) -> _Sentence:
        """Read and encode a sentence, or take it from the cache."""
        # First: in another process the lock may be held by a thread that is not there.
        self._home.check()
        key = clean_sentence(text)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        reading = self._reader.read(key)
        refuse_unanswerable(reading)
        if self._on_unknown == REFUSE:
            refuse(reading)
        tokens = self._reader.tokenizer(reading.read_as)
        sentence = _Sentence(self._backend.encode_text(tokens.ids, tokens.mask), reading)
        with self._lock:
            self._cache[key] = sentence
            while len(self._cache) > CACHED_SENTENCES:
                self._cache.popitem(last=False)
        return sentence


def _check_on_unknown(on_unknown: str) -> None:
    if on_unknown not in ON_UNKNOWN:
        raise InputError(f'on_unknown is {brief(on_unknown, 20)!r}; give "refuse" or "warn"')


@contextmanager
def _closed(batches: Iterator[np.ndarray]) -> Iterator[Iterator[np.ndarray]]:
    """Close a backend's generator at the end: it holds a lane of the GPU, also where nothing collects garbage soon."""
    try:
        yield batches
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    timings[name] = (time.perf_counter() - begin) * 1000
