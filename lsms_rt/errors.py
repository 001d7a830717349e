"""All errors that this package raises on purpose.  Each message is one line: what happened, the actual value, the fix.

    LsmsError
    ├── InputError                 2  the image or the sentence cannot be used: not DICOM, not CT, NaN, empty
    │   ├── SentenceNotUnderstoodError  the sentence negates, names another organ, is of unknown words ...
    │   ├── SeveralSeriesError        the input holds several series, of which one must be chosen
    │   └── DatasetError              rows of a data set cannot be used; the error lists all of them
    ├── MachineError               3  this machine cannot do what was asked for
    │   ├── MissingDependencyError    a library or a pixel decoder is not installed
    │   ├── CpuFeatureError           the processor lacks instructions that the engine's precision needs
    │   ├── GpuNotFoundError          a GPU was asked for, and no NVIDIA driver or GPU was found
    │   ├── DriverTooOldError         the NVIDIA driver is older than the library needs
    │   └── OutOfDeviceMemoryError    the engine and its buffers do not fit into the GPU's memory
    └── EngineError                4  the engine was refused, or did something an engine must not do
        ├── EngineFileMissingError    a file named in the manifest does not exist
        ├── EngineDigestError         a file's digest differs from the manifest's (or from the one you trust)
        ├── EngineFormatError         the engine's format is newer than this package
        ├── EngineTrustError          the engine brings code for the CPU, and nobody vouched for it
        ├── TensorRtVersionError      a plan was built with a TensorRT version other than this machine's
        ├── WrongGpuError             a plan was built for a GPU other than this machine's
        ├── BatchSizeError            an input's shape is outside the shapes the engine was built for
        ├── AccuracyGateError         a built engine loses more accuracy against its reference than allowed
        └── EngineInvalidError        the manifest or a graph is malformed or incomplete

The number is ``exit_code``, the command line's exit status.  The names of version 0.1 (``EnvironmentProblem``,
``NoGpu`` and so on) remain as aliases for one release.
"""

from __future__ import annotations

import copy
import copyreg
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

# For the callers' imports.
from .privacy import brief as brief
from .privacy import names_shown
from .privacy import one_line as one_line


class LsmsError(Exception):
    """Base class of all errors of this package.

    The error of another library that it was raised from may hold a patient's name, so ``__cause__`` and ``__context__``
    are None unless names are shown; ``logging.exception`` and ``traceback`` then print this error alone.
    """

    # What `chain_cut` took away; it is neither copied nor pickled.
    __slots__ = ("_cut",)
    _cut: BaseException | None
    exit_code: int = 1

    def __init__(self, message: str) -> None:
        # File names and texts of libraries may hold line breaks, and sequences that a terminal obeys.
        super().__init__(one_line(message))

    def __reduce__(self) -> tuple[Any, ...]:
        # Without `__init__`, whose arguments differ from class to class.
        return copyreg.__newobj__, (type(self), *self.args), vars(self).copy()  # type: ignore[attr-defined]

    @property
    def __cause__(self) -> BaseException | None:
        return raised_from(self) if names_shown() else None

    @__cause__.setter
    def __cause__(self, cause: BaseException | None) -> None:
        _CAUSE.__set__(self, cause)

    @property
    def __context__(self) -> BaseException | None:
        return _CONTEXT.__get__(self) if names_shown() else None

    @__context__.setter
    def __context__(self, context: BaseException | None) -> None:
        _CONTEXT.__set__(self, context)


# The descriptors that LsmsError hides.
_CAUSE, _CONTEXT = (vars(BaseException)[name] for name in ("__cause__", "__context__"))
_Function = TypeVar("_Function", bound=Callable[..., Any])
AnyError = TypeVar("AnyError", bound="LsmsError")


def raised_from(error: BaseException) -> BaseException | None:
    """Return what an error was raised from, for code that looks at types and places only: texts may hold names."""
    found: BaseException | None = _CAUSE.__get__(error) or _CONTEXT.__get__(error) or getattr(error, "_cut", None)
    return found


def chain_cut(function: _Function) -> _Function:
    """Decorate a public function or generator that reads or writes patients' files: its errors lose their causes.

    For Python before 3.13, where the interpreter prints an uncaught error without asking for ``__cause__``.
    """
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def cutting(*arguments: Any, **keywords: Any) -> Any:
            try:
                return (yield from function(*arguments, **keywords))
            except LsmsError as error:
                _cut(error)
                raise

    else:

        @functools.wraps(function)
        def cutting(*arguments: Any, **keywords: Any) -> Any:
            try:
                return function(*arguments, **keywords)
            except LsmsError as error:
                _cut(error)
                raise

    return cutting  # type: ignore[return-value]


def _cut(error: LsmsError) -> None:
    if not names_shown():
        error._cut = raised_from(error)
        error.__cause__ = error.__context__ = None


def located(error: AnyError, where: str) -> AnyError:
    """Return an error of the same kind and attributes, whose message begins with ``where``, e.g. "images[2]: "."""
    found = copy.copy(error)
    found.args = (one_line(f"{where}{error}"), *error.args[1:])
    return found


class InputError(LsmsError):
    """The image or the sentence cannot be used."""

    exit_code = 2


class SentenceNotUnderstoodError(InputError):
    """The sentence is not understood, and its answer would be a mask of something else.

    Attributes:
        reading: how it is read, a ``lsms_rt.sentences.Reading``: reasons, unknown words, and the nearest known ones.
    """

    def __init__(self, message: str, reading: Any = None) -> None:
        super().__init__(message)
        self.reading = reading


class SeveralSeriesError(InputError):
    """The input holds several series, or none like the one that was asked for; one must be chosen.

    Attributes:
        series: the choices, in the message's order: ``number``, the value of ``series`` that chooses it, as "3" or
            "3:2"; ``slices``, ``rows`` and ``columns``, whole numbers.  Nothing else of the files.
    """

    def __init__(self, message: str, series: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.series = [dict(one) for one in series]


class DatasetError(InputError):
    """Rows of a data set cannot be used.

    Attributes:
        problems: one line for every problem found, in the order of the rows.
    """

    def __init__(self, table: str, problems: list[str], rows: int, unit: str = "rows") -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{table}: the data set cannot be used, of its {rows} {unit} {problems[0]}{more}")
        self.problems = [one_line(problem) for problem in problems]


class MachineError(LsmsError):
    """This machine cannot do what was asked for: something is missing or too old."""

    exit_code = 3


class MissingDependencyError(MachineError):
    """A library or a pixel decoder is not installed; the message names the package to install."""


class CpuFeatureError(MachineError):
    """The processor lacks the instructions for an engine's precision; the message names one that it has."""


class GpuNotFoundError(MachineError):
    """A GPU was asked for, and none was found."""


class DriverTooOldError(MachineError):
    """The NVIDIA driver is older than the library needs."""


class OutOfDeviceMemoryError(MachineError):
    """The GPU's memory is too small for what was asked for."""


class EngineError(LsmsError):
    """The engine was refused."""

    exit_code = 4


class EngineFileMissingError(EngineError):
    """A file that the manifest names is not in the engine's folder."""


class EngineDigestError(EngineError):
    """A file's digest differs from the one that was recorded, or passed, for it."""


class EngineFormatError(EngineError):
    """The engine was written by a newer version of this package."""


class EngineTrustError(EngineError):
    """The engine brings code that runs on the CPU as this user; its digest was not given, nor was it trusted."""


class TensorRtVersionError(EngineError):
    """A plan was built with another version of TensorRT than this machine has."""


class WrongGpuError(EngineError):
    """A plan was built for another GPU than this machine has."""


class BatchSizeError(EngineError):
    """An input's shape is outside the optimization profile that the engine was built with."""


class AccuracyGateError(EngineError):
    """A built engine loses more accuracy against its reference than allowed; nothing was written."""


class EngineInvalidError(EngineError):
    """The manifest or a graph is malformed, or was made for something else."""


_ALIASES = {
    "DatasetInvalid": DatasetError,
    "EnvironmentProblem": MachineError,
    "NoGpu": GpuNotFoundError,
    "DriverTooOld": DriverTooOldError,
    "OutOfDeviceMemory": OutOfDeviceMemoryError,
    "EngineMissingFile": EngineFileMissingError,
    "EngineChanged": EngineDigestError,
    "EngineTooNew": EngineFormatError,
    "EngineOtherVersion": TensorRtVersionError,
    "EngineOtherGpu": WrongGpuError,
    "ProfileExceeded": BatchSizeError,
    "GateRefused": AccuracyGateError,
    "EngineInvalid": EngineInvalidError,
}


def __getattr__(name: str) -> type[LsmsError]:
    if name not in _ALIASES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{name} is now {_ALIASES[name].__name__}", DeprecationWarning, stacklevel=2)
    return _ALIASES[name]
