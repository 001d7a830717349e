"""The check of a kernel against its plain twin, for several test files."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from lsms_rt.kernels.shape import Shape
from lsms_rt.kernels.verify import verify


def agree(module: ModuleType, shape: Shape, tensors: dict[str, Tensor]) -> None:
    """All outputs of a module's kernels are written, and within the tolerance of its twin's."""
    deviations = verify(module, shape, tensors)
    assert all(deviation.ok for deviation in deviations), deviations
