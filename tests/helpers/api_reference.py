"""Write the generated parts of docs/api.md from the code: ``python tests/helpers/api_reference.py``.

tests/house/test_api.py fails if the page and the code differ.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs/api.md"


def summary_of(thing: Any) -> str:
    """The first paragraph of a docstring in one line, without reStructuredText's markup."""
    text = (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("``", "`")
    return " ".join(re.sub(r":\w+:`([^`]*)`", r"`\1`", text).split())


def signature_of(name: str, function: Any) -> str:
    """``name(a, *, b=1)``, without annotations and ``self``."""
    found = inspect.signature(function)
    parameters = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name not in ("self", "cls")]
    text = name + str(found.replace(parameters=parameters, return_annotation=found.empty))
    # A function as a default shows its address.
    return re.sub(r"=<function [^@]*? at 0x\w+>", "=...", text)


def members_of(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class defines itself."""
    for name, member in vars(cls).items():
        if not name.startswith("_") and (callable(member) or isinstance(member, (property, classmethod, staticmethod))):
            yield name, member


def class_lines(cls: type, constructor: bool) -> Iterator[str]:
    yield f"### {cls.__name__}\n\n{summary_of(cls)}\n"
    lines = []
    if constructor:
        lines.append(f"- `{signature_of(cls.__name__, cls.__init__)}`")
    if dataclasses.is_dataclass(cls):
        fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(cls))
        lines.append(f"- fields: {fields}")
    properties = [
        name
        for name, member in members_of(cls)
        if isinstance(member, property) and not summary_of(member).startswith("Deprecated")
    ]
    if properties:
        lines.append(f"- properties: {', '.join(f'`{name}`' for name in properties)}")
    for name, member in members_of(cls):
        if not isinstance(member, property):
            lines.append(f"- `{signature_of(f'.{name}', getattr(cls, name))}`: {summary_of(member)}")
    yield from (wrapped(line) for line in lines)
    yield ""


def wrapped(line: str, width: int = 120) -> str:
    """A list item, broken between words; code in backticks is one word."""
    words = re.findall(r"^- (?:`[^`]*`\S*|\S+)|`[^`]*`\S*|\S+", line)
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) > width:
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def runtime() -> str:
    """The names that ``import lsms_rt`` offers, errors apart, and the records of how a sentence is read."""
    import lsms_rt
    from lsms_rt.errors import LsmsError
    from lsms_rt.sentences.reading import Reading, Reason, UnknownWord

    lines: list[str] = []
    for name in sorted(lsms_rt.__all__, key=lambda name: (name != "Segmenter", name.startswith("_"), name)):
        thing = getattr(lsms_rt, name)
        if isinstance(thing, type) and not issubclass(thing, LsmsError):
            lines += class_lines(thing, constructor=name == "Segmenter")
    for record in (Reading, Reason, UnknownWord):
        lines += class_lines(record, constructor=False)
    functions = [name for name in lsms_rt.__all__ if inspect.isfunction(getattr(lsms_rt, name))]
    lines += ["### Functions\n", *(function_line(name, getattr(lsms_rt, name)) for name in functions)]
    return "\n".join(lines)


def function_line(name: str, function: Any) -> str:
    return wrapped(f"- `{signature_of(name, function)}`: {summary_of(function)}")


def build_side() -> str:
    """The entry points of the build side."""
    from lsms_rt.calibration.calibrate import calibrate
    from lsms_rt.datasets.phantom.dataset import write_phantom
    from lsms_rt.datasets.refhl import read_annotations
    from lsms_rt.export.build import build_engine
    from lsms_rt.export.plans import convert_engine
    from lsms_rt.model import LSMS
    from lsms_rt.pytorch import open_checkpoint

    functions = (open_checkpoint, LSMS.from_pretrained, LSMS.save_pretrained, build_engine, convert_engine, calibrate,
                 read_annotations, write_phantom)  # fmt: skip
    return "\n".join(
        function_line(f"{function.__module__}.{function.__qualname__}", function) for function in functions
    )


def errors() -> str:
    """One line per error: its name, its base class, the exit code, what it means."""
    from lsms_rt import errors as module

    lines = ["| error | is a | exit code | raised if |", "|---|---|---|---|"]
    for cls in vars(module).values():
        if isinstance(cls, type) and issubclass(cls, module.LsmsError):
            base = "Exception" if cls is module.LsmsError else f"`{cls.__base__.__name__}`"
            lines.append(f"| `{cls.__name__}` | {base} | {cls.exit_code} | {summary_of(cls)} |")
    return "\n".join(lines)


PARTS = {"runtime": runtime, "build side": build_side, "errors": errors}


def filled(text: str) -> str:
    """The page with every part between ``<!-- api: PART -->`` and ``<!-- api end -->`` written anew."""
    for name, part in PARTS.items():
        begin, end = f"<!-- api: {name} -->\n", "<!-- api end -->"
        before, found, rest = text.partition(begin)
        if not found:
            raise ValueError(f"docs/api.md has no part {name!r}; add {begin.strip()} and {end}")
        text = f"{before}{begin}{part().rstrip()}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
