"""What a run asks for answers: an engine on this machine, or one behind a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from lsms_rt.ct_slice import CtSlice
from lsms_rt.segmentation import Segmentation
from lsms_rt.sentences import Reading


class About(Protocol):
    """What a run needs to know of an engine; ``Manifest`` has it."""

    @property
    def weights_note(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def max_batch(self) -> int: ...


class Predictor(Protocol):
    """Answers sentences about slices; ``Segmenter`` is one, and its methods say what these do."""

    @property
    def manifest(self) -> About: ...
    @property
    def digest(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def gate(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def backend_version(self) -> str: ...
    def prepare_sentence(self, text: str) -> tuple[str, ...]: ...
    def read_sentence(self, text: str) -> Reading: ...
    def predict(self, img: CtSlice, text: str) -> Segmentation: ...
    def predict_series(
        self, images: Sequence[CtSlice], text: Sequence[str], *, batch: int | None = None
    ) -> Iterator[list[Segmentation]]: ...
