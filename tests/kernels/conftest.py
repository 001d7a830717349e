"""Triton's interpreter, without what it does again and again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from triton import language
from triton.runtime import interpreter


@pytest.fixture(autouse=True)
def no_idle_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the checks of integers for overflow, which report nothing unless Triton's debug mode is on.

    They and the table of types, which is made anew for every array, are half of the interpreter's time.
    """
    assert not interpreter.interpreter_builder.options.debug
    options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
    monkeypatch.setattr(interpreter.interpreter_builder, "options", options)
    numpy_type, by_name = interpreter._get_np_dtype, dict[str, Any]()

    def look_up(dtype: Any) -> Any:
        name = dtype.scalar.name
        if name not in by_name:
            by_name[name] = numpy_type(dtype)
        return by_name[name]

    monkeypatch.setattr(interpreter, "_get_np_dtype", look_up)


@pytest.fixture(autouse=True)
def language_patched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patch Triton's language once a launch.

    The interpreter does it at every call of a function within a kernel, of ``tl.sum`` too, for a third of its time.
    """
    patch = interpreter._patch_lang

    @cache
    def seen(fn: Callable[..., Any]) -> list[Any]:
        modules = [value for value in fn.__globals__.values() if inspect.ismodule(value)]
        return [module for module in modules if module in (language, language.core)]

    def patch_once(fn: Callable[..., Any]) -> Any:
        known = seen(fn)
        patched = known and not any(language.core.is_builtin(module.load) for module in known)
        return interpreter._LangPatchScope() if patched else patch(fn)

    monkeypatch.setattr(interpreter, "_patch_lang", patch_once)


@pytest.fixture(autouse=True)
def shapes_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Describe a type, and the shape of its arrays, once: the language makes a dozen objects for each of a million."""
    types, arrays = dict[Any, dict[str, Any]](), dict[str, dict[str, Any]]()
    make_type, make_array = language.core.block_type.__init__, language.core.tensor.__init__

    def type_of(self: Any, element: Any, shape: Any) -> None:
        key = (element.name, *(n.value if isinstance(n, language.constexpr) else n for n in shape))
        if key not in types:
            make_type(self, element, shape)
            types[key] = dict(vars(self))
        self.__dict__.update(types[key])

    def array(self: Any, handle: Any, kind: Any) -> None:
        if kind.name not in arrays:
            make_array(self, handle, kind)
            arrays[kind.name] = {name: vars(self)[name] for name in ("shape", "numel")}
        self.__dict__.update(arrays[kind.name], handle=handle, type=kind, dtype=kind.scalar)

    monkeypatch.setattr(language.core.block_type, "__init__", type_of)
    monkeypatch.setattr(language.core.tensor, "__init__", array)
