"""Segmenter: takes an engine, an image and a sentence; returns a mask in the image's own grid."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from numbers import Integral
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, overload

from .answers import answers, timed
from .ct_slice import CtSlice
from .encoded import Encoded, EncodedSentences
from .engine import Backend, Manifest, open_backend, open_directory
from .engine.gate import warn_of_gate
from .engine.process import Home
from .errors import InputError, brief, chain_cut, located
from .reading.load import load_series, load_slice
from .reading.stated import Stated
from .segmentation import Segmentation as Segmentation
from .sentences import Contract, Reader, Reading, open_reader
from .tokenizer import Tokenizer

REFUSE, WARN = ON_UNKNOWN = ("refuse", "warn")


class Segmenter:
    """Segments lesions that a sentence describes: load an engine once, then predict many times.

    It may be used from several threads, and is a context manager that frees the engine.

    Args:
        engine: the engine directory.
        digest: "sha256:HEX" of the engine from a trusted source, as ``lsms-rt inspect`` prints it; another engine is
            rejected, since engines are code.  None: no check.
        trust_host_code: let a version-compatible TensorRT engine run the code that it brings for the CPU, as this user;
            with a ``digest`` it may anyway.
        threads: number of CPU threads per slice; None lets the library choose, or gives it
            the CPUs that this process may use, where that is not all.
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
        return cls.from_reader(backend, manifest, Reader(tokenizer, contract), on_unknown=on_unknown)

    @classmethod
    def from_reader(
        cls, backend: Backend, manifest: Manifest, reader: Reader, *, on_unknown: str = REFUSE
    ) -> Segmenter:
        """Build a Segmenter from an opened backend and a reader of sentences, which others may use as well.

        Args:
            backend: runs the two graphs.
            manifest: sizes and thresholds.
            reader: reads sentences by the engine's vocabulary and table of words.
            on_unknown: as for the class.
        """
        _check_on_unknown(on_unknown)
        segmenter = cls.__new__(cls)
        segmenter._open(backend, manifest, reader, on_unknown)
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
        self._backend, self._reader = backend, reader
        self._sentences = EncodedSentences(backend, reader, refuses=on_unknown == REFUSE, home=self._home)

    @overload
    def predict(
        self, img: Any, text: str, *, window: tuple[float, float] | None = None, orientation: str | None = None,
        rescale: tuple[float, float] | None = None, spacing: tuple[float, float] | None = None,
    ) -> Segmentation: ...  # fmt: skip

    @overload
    def predict(
        self, img: Any, text: Sequence[str], *, window: tuple[float, float] | None = None,
        orientation: str | None = None, rescale: tuple[float, float] | None = None,
        spacing: tuple[float, float] | None = None,
    ) -> list[Segmentation]: ...  # fmt: skip

    @chain_cut
    def predict(
        self, img: Any, text: str | Sequence[str], *, window: tuple[float, float] | None = None,
        orientation: str | None = None, rescale: tuple[float, float] | None = None,
        spacing: tuple[float, float] | None = None,
    ) -> Segmentation | list[Segmentation]:  # fmt: skip
        """Segment the lesion that a sentence describes in one slice, or those of several sentences.

        Args:
            img: a path (DICOM, NPY, PNG, NIfTI), a pydicom Dataset, an array (H, W) in HU, or a ``CtSlice``.  An array
                must be in the usual axial view, the patient's right at the left edge; it does not show whether it is,
                so its result's ``ct.side_known`` is False, unless ``orientation`` states it.
            text: the sentence, in English; or several, for which the image is read once.
            window: (level, width) in HU that an 8-bit image shows; required for one.
            orientation: "axial" states that an image which does not hold its orientation is in the usual axial view.
            rescale: (slope, intercept) from stored values to HU, for a DICOM image that lacks them.
            spacing: (between rows, between columns) in mm, for an image that does not hold it.  Without it areas in mm2
                are unknown, and pixels are taken as square.

        Returns:
            The result; for several sentences one for each, in their order.  If nothing matches a sentence, the
            result's ``found`` is False; this is not an error.

        Raises:
            SentenceNotUnderstoodError: a sentence is not understood, and ``on_unknown`` is "refuse".
            InputError: the image or a sentence cannot be used.
        """
        stated = Stated(window=window, orientation=orientation, rescale=rescale, spacing=spacing)
        timings: dict[str, float] = {}
        with timed(timings, "total"):
            # First, so that a wrong sentence is reported before a large file is read.
            with timed(timings, "text"):
                sentences = self._encoded(text)
            with timed(timings, "read"):
                ct = load_slice(img, stated=stated)
            (results,) = self._asked([ct], sentences, self.manifest.max_batch)
        shares = {name: value / len(sentences) for name, value in timings.items()}
        for result in results:
            result.timings.update(shares)
        return results if _is_list(text) else results[0]

    @overload
    def predict_series(
        self, images: Any, text: str, *, batch: int | None = None, series: str | int | None = None,
        window: tuple[float, float] | None = None, orientation: str | None = None,
        rescale: tuple[float, float] | None = None, spacing: tuple[float, float] | None = None,
        as_one_series: bool = False,
    ) -> Iterator[Segmentation]: ...  # fmt: skip

    @overload
    def predict_series(
        self, images: Any, text: Sequence[str], *, batch: int | None = None, series: str | int | None = None,
        window: tuple[float, float] | None = None, orientation: str | None = None,
        rescale: tuple[float, float] | None = None, spacing: tuple[float, float] | None = None,
        as_one_series: bool = False,
    ) -> Iterator[list[Segmentation]]: ...  # fmt: skip

    @chain_cut
    def predict_series(
        self, images: Any, text: str | Sequence[str], *, batch: int | None = None, series: str | int | None = None,
        window: tuple[float, float] | None = None, orientation: str | None = None,
        rescale: tuple[float, float] | None = None, spacing: tuple[float, float] | None = None,
        as_one_series: bool = False,
    ) -> Iterator[Segmentation] | Iterator[list[Segmentation]]:  # fmt: skip
        """Segment every slice of a series.

        The image graph computes a slice once per sentence: language enters every block, so sentences share reading and
        preprocessing, not the network.

        Args:
            images: a folder, DICOMDIR or ZIP archive with a DICOM series, a multi-frame or NIfTI file, or an iterable
                of inputs as for ``predict``.
            text: the sentence, in English; or several.
            batch: images per call of the engine, where a slice counts once per sentence; None uses the engine's
                maximum.
            series: which one of several DICOM series, as listed in the error message without it.
            window: as for ``predict``.
            orientation: as for ``predict``.
            rescale: as for ``predict``.
            spacing: as for ``predict``.
            as_one_series: take DICOM files without a SeriesInstanceUID as one series.

        Returns:
            An iterator over the results: those of an iterable in its order, one for each of its inputs; those of one
            input from feet to head.  ``index`` of each counts slices from 0.  For several sentences, an iterator over
            lists: a slice's results, in the order of the sentences.

        Raises:
            SentenceNotUnderstoodError: a sentence is not understood, and ``on_unknown`` is "refuse".
            InputError: the images, a sentence or the batch size cannot be used.
        """
        stated = Stated(
            window=window, orientation=orientation, rescale=rescale, spacing=spacing, as_one_series=as_one_series
        )
        size = self._batch_size(batch)
        sentences = self._encoded(text)
        asked = self._asked(load_series(images, series=series, stated=stated), sentences, size)
        return asked if _is_list(text) else (results[0] for results in asked)

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
        return self._sentences.get(text).reading.unknown_words

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

    @property
    def device(self) -> str:
        """The processor that the engine runs on, in words."""
        return self._backend.device

    @property
    def backend_version(self) -> str:
        """The version of the library that runs the engine."""
        return self._backend.version

    def close(self) -> None:
        """Free the engine; later calls raise EngineInvalidError."""
        self._backend.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encoded(self, text: Any) -> list[Encoded]:
        if not _is_list(text):
            return [self._sentences.get(text)]
        if not text:
            raise InputError("text is an empty list; give a sentence, or a list of sentences")
        sentences = []
        for n, one in enumerate(text):
            try:
                sentences.append(self._sentences.get(one))
            except InputError as error:
                raise located(error, f"text[{n}]: ") from error
        return sentences

    def _batch_size(self, batch: Any) -> int:
        largest = self.manifest.max_batch
        if batch is None:
            return largest
        if not isinstance(batch, Integral):
            raise InputError(f"batch is a {type(batch).__name__}; give a number from 1 to {largest}")
        size = int(batch)
        if not 1 <= size <= largest:
            raise InputError(f"batch is {size}; this engine supports 1 to {largest}")
        return size

    @chain_cut
    def _asked(self, slices: Sequence[CtSlice], sentences: list[Encoded], size: int) -> Iterator[list[Segmentation]]:
        """Yield a list per slice: its results, one per sentence."""
        for results in answers(self._backend, self.manifest, slices, sentences, size):
            yield results
            # The caller may have forked in the meantime.
            self._home.check()


def _is_list(text: object) -> bool:
    """Whether several sentences are asked; anything else that is not a string is reported as a wrong sentence."""
    return isinstance(text, (list, tuple))


def _check_on_unknown(on_unknown: str) -> None:
    if on_unknown not in ON_UNKNOWN:
        raise InputError(f'on_unknown is {brief(on_unknown, 20)!r}; give "refuse" or "warn"')
