"""An engine directory from a checkpoint."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from lsms_rt.data import demo_checkpoint
from lsms_rt.engine.manifest import Manifest, open_directory, sha256, write_manifest
from lsms_rt.errors import EngineError, InputError
from lsms_rt.model import LSMS
from lsms_rt.model.lsms import TOKENIZER

from .compact import store_as_fp16, strip_metadata
from .describe import manifest_of
from .graphs import export_graphs
from .verify import Parity, compare

MAX_LOGIT_DIFFERENCE = 1e-4  # fp32 against fp32: sums in another order, through 13 blocks (measured: about 1e-5)
MIN_MASK_AGREEMENT = 0.9999  # the same, seen by a user


@dataclass(frozen=True)
class BuildOptions:
    """What ``lsms-rt build-engine`` is asked for.  ``image_size`` None takes the checkpoint's own."""

    checkpoint: Path | None = None
    backend: str = "onnxruntime"
    precision: str = "fp32"
    image_size: int | None = None
    max_batch: int = 8
    verify_slices: int = 8
    force: bool = False


def build_engine(options: BuildOptions, output: Path, say: Callable[[str], None] = lambda _: None) -> Manifest:
    """Export, check against the reference, and write the engine directory ``output``; returns its manifest.

    ``say`` is told of every step.  The directory appears only when it is complete and verified.
    Raises :class:`InputError` for a checkpoint or output that cannot be used, :class:`EngineError` where the engine
    does not answer what the reference answers.
    """
    checkpoint = options.checkpoint or demo_checkpoint()
    if output.exists() and not options.force:
        raise InputError(f"{output} exists; choose another -o, or --force to replace it")
    if output.exists():
        try:
            open_directory(output)
        except EngineError as error:
            raise InputError(f"{output} exists and is no engine; it is not replaced, choose another -o") from error
    if not 1 <= options.max_batch <= 1024:
        raise InputError(f"--max-batch {options.max_batch}; give 1 to 1024")
    if not 0 <= options.verify_slices <= 10_000:
        raise InputError(f"--verify-slices {options.verify_slices}; give 0 to 10000")
    model = _load(checkpoint, options.image_size)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".building-") as place:
        folder = Path(place) / "engine"
        folder.mkdir()
        say("exporting the text and the image graph (half a minute)")
        for path in export_graphs(model, folder):
            graph = onnx.load(path)
            store_as_fp16(graph)
            strip_metadata(graph)
            onnx.save(graph, path)
        shutil.copyfile(checkpoint / TOKENIZER, folder / TOKENIZER)
        manifest = _manifest(model, checkpoint, options, folder)
        write_manifest(folder, manifest)
        if options.verify_slices:
            say(f"comparing with PyTorch on {options.verify_slices} phantom slices")
            parity = compare(_load(checkpoint, options.image_size, "reference"), folder, options.verify_slices)
            _judge(parity)
            manifest = replace(manifest, accuracy=parity.to_dict())
            write_manifest(folder, manifest)
        if output.exists():
            output.rename(Path(place) / "replaced")  # deleted with the temporary folder
        folder.rename(output)
    return manifest


def _load(checkpoint: Path, image_size: int | None, kernels: str = "stock") -> LSMS:
    try:
        model = LSMS.from_pretrained(checkpoint, kernels)
        if image_size is not None:
            model.config = replace(model.config, image_size=image_size)
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise InputError(str(error)) from error
    if not (checkpoint / TOKENIZER).is_file():
        raise InputError(f"{checkpoint} is not a checkpoint: it has no {TOKENIZER}")
    return model


def _judge(parity: Parity) -> None:
    if parity.max_logit_difference > MAX_LOGIT_DIFFERENCE or parity.mask_agreement < MIN_MASK_AGREEMENT:
        raise EngineError(
            f"the engine differs from PyTorch: logits by {parity.max_logit_difference:.1e} (at most "
            f"{MAX_LOGIT_DIFFERENCE:.0e}), masks equal on {parity.mask_agreement:.4%} of pixels (at least "
            f"{MIN_MASK_AGREEMENT:.2%}); nothing was written"
        )


def _manifest(model: LSMS, checkpoint: Path, options: BuildOptions, folder: Path) -> Manifest:
    import onnxruntime

    return manifest_of(
        model.config,
        checkpoint,
        options.max_batch,
        backend=options.backend,
        backend_version=onnxruntime.__version__,
        precision=options.precision,
        kernels=model.kernels,
        files={path.name: sha256(path.read_bytes()) for path in sorted(folder.iterdir())},
    )
