"""A backend that is in no release: it opens any engine and predicts the image itself as logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from lsms_rt.engine.backend import OneByOne, SentenceFeatures


class FakeBackend(OneByOne):
    version = "7.0"

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        return SentenceFeatures({}, mask)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        return 100 * images[:, 0]

    def close(self) -> None:
        pass


def open_engine(engine: Any, threads: int | None, kind: str | None, index: int, cuda_graph: bool) -> FakeBackend:
    return FakeBackend()


def library_version(name: str) -> str:
    return FakeBackend.version


def check_machine(precision: str, rest: str | None) -> None:
    pass


def gpu_index(kind: str | None, index: int) -> int | None:
    return None


def diagnose(name: str, driver: Any, board: Any) -> dict[str, Any]:
    return {"version": FakeBackend.version, "builds": True, "runs": True}
