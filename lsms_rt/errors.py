"""Every error this package raises on purpose. Each is one line: what happened, the actual value, the fix.

    LsmsError
    ├── InputError            2  the image or the sentence cannot be used: not DICOM, not CT, NaN, empty
    │   └── DatasetInvalid       rows of a data set cannot be used; all of them are named
    ├── EnvironmentProblem    3  this machine lacks something: a library, a pixel decoder, a GPU
    │   ├── NoGpu                a GPU is asked for, and no NVIDIA driver or GPU is to be found
    │   ├── DriverTooOld         the NVIDIA driver is older than the library needs
    │   └── OutOfDeviceMemory    the GPU's memory does not hold the engine and its buffers
    └── EngineError           4  the engine was refused, or did something an engine must not do
        ├── EngineMissingFile    a file named in the manifest is not there
        ├── EngineChanged        a file's digest is not the one in the manifest (or not the one you trust)
        ├── EngineTooNew         the engine's format is newer than this package
        ├── EngineOtherVersion   a plan is for another version of TensorRT than this machine's
        ├── EngineOtherGpu       a plan is for another GPU than this machine's
        ├── ProfileExceeded      an input's shape is outside of the shapes the engine was built for
        ├── GateRefused          a built engine's answers are worse than its reference's by more than is allowed
        └── EngineInvalid        the manifest or a graph does not say what it must say

The number is `exit_code`, the command line's exit status.
"""

from __future__ import annotations


def brief(text: object, most: int = 300) -> str:
    """What a file or a library says, for a message: printable, and cut where it is long."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return plain if len(plain) <= most else f"{plain[:most]}..."


class LsmsError(Exception):
    """Base of all errors of this package; catch it to catch them all."""

    exit_code: int = 1

    def __init__(self, message: str) -> None:
        # A file name or a library's text may hold line breaks; an error is one line all the same.
        super().__init__(" ".join(message.split()))


class InputError(LsmsError):
    """The image or the sentence cannot be used."""

    exit_code = 2


class DatasetInvalid(InputError):
    """Rows of a data set cannot be used.  ``problems`` are all that was found, a line each."""

    def __init__(self, table: str, problems: list[str], rows: int) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{table}: the data set cannot be used, of its {rows} rows {problems[0]}{more}")
        self.problems = [" ".join(problem.split()) for problem in problems]


class EnvironmentProblem(LsmsError):
    """A library, a decoder or a device is missing on this machine."""

    exit_code = 3


class NoGpu(EnvironmentProblem):
    """A GPU is asked for, and none is to be found."""


class DriverTooOld(EnvironmentProblem):
    """The NVIDIA driver is older than what the library needs."""


class OutOfDeviceMemory(EnvironmentProblem):
    """The GPU's memory does not hold what was asked for."""


class EngineError(LsmsError):
    """The engine was refused."""

    exit_code = 4


class EngineMissingFile(EngineError):
    """A file that the manifest names is not in the engine's folder."""


class EngineChanged(EngineError):
    """A file differs from the digest that was recorded or given for it."""


class EngineTooNew(EngineError):
    """The engine was written by a newer version of this package."""


class EngineOtherVersion(EngineError):
    """A plan was built with another version of TensorRT than this machine has."""


class EngineOtherGpu(EngineError):
    """A plan was built for another GPU than this machine has."""


class ProfileExceeded(EngineError):
    """An input's shape is outside of the optimization profile that the engine was built with."""


class GateRefused(EngineError):
    """A built engine's answers are worse than its reference's by more than is allowed; nothing was written."""


class EngineInvalid(EngineError):
    """The manifest or a graph is malformed, or made for something else."""
