"""A stand-in for ``triton_python_backend_utils``, the module that Triton's stub gives to models, and its requests."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np


class Tensor:
    def __init__(self, name: str, values: np.ndarray) -> None:
        self._name, self.values = name, values

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self.values


class TritonError:
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int) -> None:
        self.message, self.code = message, code


class InferenceResponse:
    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        self.outputs = {tensor.name(): tensor.values for tensor in output_tensors}
        self.error = error


class Request:
    """A request as a model gets it; ``cancelled_after`` checks it is cancelled."""

    def __init__(
        self, wanted: Sequence[str] = ("MASK", "SCORE", "FOUND", "READ_AS", "NOTES"),
        cancelled_after: int | None = None, **inputs: Any,
    ) -> None:  # fmt: skip
        self._inputs = [Tensor(name, _array(value)) for name, value in inputs.items()]
        self._wanted, self._left = wanted, cancelled_after

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def requested_output_names(self) -> Sequence[str]:
        return self._wanted

    def is_cancelled(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        return self._left < 0


def _array(value: Any) -> np.ndarray:
    return np.array(value, np.object_) if isinstance(value, list) else value


def install() -> None:
    """Let models import the stand-in."""
    fake = ModuleType("triton_python_backend_utils")
    for one in (Tensor, TritonError, InferenceResponse):
        setattr(fake, one.__name__, one)
    sys.modules[fake.__name__] = fake
