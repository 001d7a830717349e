"""Triton's interpreter, without what it does again and again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
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

    def patch_once(fn: Callable[..., Any]) -> Any:
        seen = [value for value in fn.__globals__.values() if inspect.ismodule(value)]
        known = [module for module in seen if module in (language, language.core)]
        patched = known and not any(language.core.is_builtin(module.load) for module in known)
        return interpreter._LangPatchScope() if patched else patch(fn)

    monkeypatch.setattr(interpreter, "_patch_lang", patch_once)
