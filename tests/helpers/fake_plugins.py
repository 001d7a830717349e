"""A stand-in for ``tensorrt.plugin`` that checks what the real module checks, and a stand-in for the compiler."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

from lsms_rt.kernels.shape import Shape


class TensorDesc:
    def __init__(self, shape: tuple[Any, ...], dtype: Any = None) -> None:
        self.shape_expr, self.dtype = shape, dtype


class Batch(str):
    """A symbolic size."""

    def __mul__(self, number: Any) -> str:
        return f"{self}*{number}"


class SymIntExprs(list[Any]):
    def __init__(self, count: int) -> None:
        super().__init__([None] * count)


class FakePlugins:
    """Stands in for ``tensorrt.plugin``: keeps what is registered, and checks signatures as it does."""

    TensorDesc, SymIntExprs = TensorDesc, SymIntExprs
    KernelLaunchParams = type("KernelLaunchParams", (), {})

    def __init__(self) -> None:
        self.op = SimpleNamespace(lsms_rt=SimpleNamespace())
        self.implementations: dict[str, Any] = {}

    def register(self, identity: str) -> Any:
        domain, _, name = identity.partition("::")
        assert domain == "lsms_rt" and "." not in name

        def decorate(function: Any) -> Any:
            signature = inspect.signature(function)
            assert all(p.annotation is TensorDesc and p.default is p.empty for p in signature.parameters.values())
            assert signature.return_annotation is not inspect.Signature.empty
            setattr(self.op.lsms_rt, name, function)
            return function

        return decorate

    def aot_impl(self, identity: str) -> Any:
        def decorate(function: Any) -> Any:
            described = inspect.signature(getattr(self.op.lsms_rt, identity.partition("::")[2])).parameters
            assert list(inspect.signature(function).parameters) == [*described, "outputs", "tactic"]
            self.implementations[identity.partition("::")[2]] = function
            return function

        return decorate

    def from_shape_expr(self, shape: tuple[Any, ...], dtype: Any) -> TensorDesc:
        return TensorDesc(shape, dtype)


DTYPES = SimpleNamespace(HALF="half", FLOAT="float")


def compiled(spills: int = 0) -> Any:
    def compile_one(launch: Any, shape: Shape, arch: str) -> Any:
        row = {"kernel": "k", "shape": shape.key, "arch": arch, "spills": spills, "stack": 0, "shared": 1024}
        block = launch.warps * 32
        return SimpleNamespace(entry="k", ptx="ptx", block=block, shared=1024, row=lambda: row)

    return compile_one
