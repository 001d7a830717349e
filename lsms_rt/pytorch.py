"""Run a checkpoint with PyTorch, on a GPU with our kernels: no engine and no TensorRT are needed.

    from lsms_rt.pytorch import open_checkpoint
    # kernels="auto": Triton on a GPU, stock operations elsewhere
    seg = open_checkpoint("my-checkpoint")
    result = seg.predict("slice.dcm", "the cyst in the left lobe of the liver")

Needs the build side (``pip install 'lsms-rt[build,triton]'``); a device that only runs engines never imports this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from .data import demo_checkpoint
from .engine.backend import FEATURES, STAGES, SentenceFeatures
from .engine.manifest import batch_profile
from .errors import InputError, MachineError
from .export.checkpoint import manifest_of
from .machine.cpu import find as find_cpu
from .model import LSMS
from .model.encoder import TextFeatures
from .model.forms import choose_kernels
from .model.lsms import TOKENIZER
from .model.runner import TorchRunner
from .segmenter import Segmenter
from .sentences.contract import contract_of, table_of
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class TorchFeatures(SentenceFeatures):
    """Sentence features whose arrays are tensors of a runner."""

    runner: TorchRunner

    @classmethod
    def joined(cls, parts: Sequence[SentenceFeatures]) -> SentenceFeatures:
        runner = cast(TorchFeatures, parts[0]).runner
        # Another thread's stream may still compute them.
        with runner.turn():
            arrays = {name: torch.cat([part.arrays[name] for part in parts]) for name in parts[0].arrays}
        return cls(arrays, np.concatenate([part.mask for part in parts]), runner)


class TorchBackend:
    """An engine backend (``engine.backend.Backend``) that runs a ``TorchRunner``; features stay on its device."""

    version = str(torch.__version__)

    def __init__(self, runner: TorchRunner) -> None:
        self.runner = runner

    @property
    def device(self) -> str:
        device = self.runner.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else find_cpu().name

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> SentenceFeatures:
        text = self.runner.encode_text(torch.from_numpy(tokens), torch.from_numpy(mask))
        arrays = dict(zip(FEATURES, (*text.keys, *text.values), strict=True)) | {"mask": text.mask}
        return TorchFeatures(arrays, mask, self.runner)

    def segment(self, images: np.ndarray, text: SentenceFeatures) -> np.ndarray:
        return _array(self._start(images, text))

    def segment_many(self, batches: Iterable[np.ndarray], text: SentenceFeatures) -> Iterator[np.ndarray]:
        before: Callable[[], torch.Tensor] | None = None
        for images in batches:
            started = self._start(images, text)
            if before is not None:
                yield _array(before)
            before = started
        if before is not None:
            yield _array(before)

    def _start(self, images: np.ndarray, text: SentenceFeatures) -> Callable[[], torch.Tensor]:
        arrays = [text.arrays[name] for name in FEATURES]
        mask, folded = text.arrays["mask"], self.runner.model.encoder.folds
        features = TextFeatures(tuple(arrays[:STAGES]), tuple(arrays[STAGES:]), mask, folded)
        return self.runner.start(torch.from_numpy(images), features)

    def close(self) -> None:
        self.runner.close()


def _array(wait: Callable[[], torch.Tensor]) -> np.ndarray:
    logits: np.ndarray = wait().numpy()
    return logits


def open_checkpoint(
    checkpoint: str | Path | None = None,
    *,
    kernels: str = "auto",
    device: str | None = None,
    image_size: int | None = None,
    max_batch: int = 8,
    on_unknown: str = "refuse",
) -> Segmenter:
    """Build a :class:`Segmenter` that runs a checkpoint with PyTorch.

    Args:
        checkpoint: the checkpoint folder; None for the bundled demo weights.
        kernels: as in ``LSMS``: "triton", "stock", "reference", or "auto": Triton on a GPU, stock operations elsewhere.
        device: PyTorch's name of the device; None uses a GPU if there is one.
        image_size: side of the network's input in pixels; None uses the checkpoint's.
        max_batch: largest batch of ``predict_series``.
        on_unknown: "refuse" or "warn", as for ``Segmenter``.

    Raises:
        InputError: the folder is not a checkpoint.
        MachineError: ``device`` or ``kernels`` is not available on this machine.
        ValueError: unknown ``kernels``.
    """
    folder = demo_checkpoint() if checkpoint is None else Path(checkpoint)
    on_gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise MachineError(f"device {device!r}: PyTorch finds no NVIDIA GPU; omit device, or use 'cpu'")
    kernels = choose_kernels("stock" if kernels == "auto" and not on_gpu else kernels)
    try:
        model = LSMS.from_pretrained(folder, kernels)
        model.config = replace(model.config, image_size=image_size or model.config.image_size)
        tokenizer = Tokenizer((folder / TOKENIZER).read_bytes(), model.config.text.max_tokens)
    except FileNotFoundError as error:
        raise InputError(str(error)) from error
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder} is not a checkpoint: {error}") from error
    runner = TorchRunner(model, device)
    manifest = manifest_of(
        model.config,
        folder,
        batch_profile(max_batch),
        backend="pytorch",
        backend_version=TorchBackend.version,
        precision=str(runner.dtype).removeprefix("torch."),
        kernels=model.kernels,
    )
    contract = contract_of(table_of(folder))
    return Segmenter.from_backend(TorchBackend(runner), manifest, tokenizer, contract=contract, on_unknown=on_unknown)
