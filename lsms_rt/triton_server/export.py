"""``lsms-rt export-triton``: a folder that Triton loads as a model, with the engine in it."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lsms_rt import __version__
from lsms_rt.atomic import unwritable, work_folder
from lsms_rt.data import PROBE_IMAGE, PROBE_TEXT
from lsms_rt.digest import sha256
from lsms_rt.engine import EngineDirectory, open_directory
from lsms_rt.engine.files import read_file
from lsms_rt.engine.manifest import MANIFEST, MAX_MANIFEST_BYTES
from lsms_rt.engine.registry import BACKENDS
from lsms_rt.engine.tensorrt.compatibility import check_trust
from lsms_rt.errors import EngineDigestError, InputError
from lsms_rt.kserve_request import bytes_tensor
from lsms_rt.reading.load import load_slice

from .config import ENGINE, WARMUP_TEXT, Sample, TritonOptions, config_text

MODEL = f'''"""Made by lsms-rt export-triton {__version__}; needs that version of lsms-rt in Triton's Python."""

from lsms_rt.triton_server.model import TritonPythonModel as TritonPythonModel
'''


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        folder: of the model.
        digest: of the engine.
        files: sizes in bytes by path below the folder.
    """

    folder: Path
    digest: str
    files: dict[str, int]


def export_model(
    engine: Path, output: Path, options: TritonOptions, *, digest: str | None = None, trust_host_code: bool = False
) -> Exported:
    """Write a model into a model repository, which may hold others.

    Args:
        engine: the engine directory.
        output: the model repository; created if there is none.  The model is made in the folder that holds it.
        options: how Triton runs the model.
        digest: the engine's digest from a trusted source; None: no check.
        trust_host_code: export a version-compatible TensorRT engine without its digest: the server runs its code.

    Raises:
        InputError: the repository has a model of this name, it or the folder that holds it cannot be written, or the
            engine does not run there.
        EngineError: a subclass says what is wrong with the engine.
    """
    directory = open_directory(engine, digest, trust_host_code=trust_host_code)
    # The server is given the digest, which is as good as trust.
    check_trust(directory)
    _check_device(directory, options)
    target = output / options.name
    _check_free(target)
    try:
        # Beside the repository: a server does not start with a model in it that is half written.
        with work_folder(output.resolve()) as work:
            files = _write(work / options.name, directory, options)
            output.mkdir(exist_ok=True)
            _move(work / options.name, target)
    except OSError as error:
        raise unwritable(error) from error
    return Exported(folder=target, digest=directory.digest, files=files)


def _check_free(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise InputError(
            f"the repository has a model of the name {target.name}; delete that folder, or give another --name or -o"
        )


def _move(finished: Path, target: Path) -> None:
    try:
        finished.rename(target)
    except OSError as error:
        # Another export was faster; its model stays.
        _check_free(target)
        if error.errno == errno.EXDEV:
            raise InputError(
                "the repository is a mount, and models are made beside it, on the same disk; give a folder below it"
            ) from error
        raise


def _check_device(directory: EngineDirectory, options: TritonOptions) -> None:
    spec = BACKENDS[directory.manifest.backend]
    if options.gpus is None and spec.needs_gpu:
        raise InputError(f"an engine for {spec.title} runs on GPUs only; give --gpus")
    if options.gpus is not None and "cuda" not in spec.devices:
        raise InputError(f"an engine for {spec.title} runs on CPUs only; leave out --gpus")


def _write(folder: Path, directory: EngineDirectory, options: TritonOptions) -> dict[str, int]:
    manifest = read_file(directory.path / MANIFEST, MAX_MANIFEST_BYTES)
    if f"sha256:{sha256(manifest)}" != directory.digest:
        raise EngineDigestError(f"{directory.path / MANIFEST} has changed while it was copied; copy it again")
    hu = np.rint(load_slice(PROBE_IMAGE).hu).astype(np.int16)
    samples = [
        Sample(name=f"slices: {n}", image=f"slices_{n}", shape=(n, *hu.shape))
        for n in sorted({1, directory.manifest.max_batch})
    ]
    *_, text = bytes_tensor("TEXT", [PROBE_TEXT.encode()])
    files = {
        "config.pbtxt": config_text(options, directory.digest, samples).encode(),
        "1/model.py": MODEL.encode(),
        f"1/{ENGINE}/{MANIFEST}": manifest,
        f"warmup/{WARMUP_TEXT}": text,
        **{f"warmup/{one.image}": np.broadcast_to(hu, one.shape).tobytes() for one in samples},
    }
    for name, data in files.items():
        _put(folder / name, data)
    # One at a time: they may be large.
    sizes = {name: len(data) for name, data in files.items()}
    for name in directory.manifest.files:
        data = directory.read(name)
        _put(folder / "1" / ENGINE / name, data)
        sizes[f"1/{ENGINE}/{name}"] = len(data)
    return sizes


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
