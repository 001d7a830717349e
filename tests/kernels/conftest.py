"""Triton's interpreter, without what it does again and again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from triton import language
from triton.runtime import interpreter


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
