"""The contenders: each computes logits from images and the tokens of a sentence, in its own way.

All use the same weights, images and tokens.  Those that can encode a sentence separately do so once per series, as a
careful user would; a single graph has to encode it with every slice.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.engine.tensorrt.variant import VARIANTS, TensorRtVariant
from lsms_rt.machine.gpu import query_driver

Series = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""images (N, 1, S, S) float32, tokens (1, T) int64, mask (1, T) float32 -> logits (N, S, S) float32"""


@dataclass(frozen=True)
class Contender:
    """One way to run the model.

    Attributes:
        name: Short name.
        what: Description for the table.
        needs: Modules it needs; without them it is listed as absent.
        open: Opens it from the folder that ``prepare.prepare`` filled, with a number of threads (0: the library's
            choice).
        gpu: Whether it also needs an NVIDIA GPU.
        variant: The TensorRT variant whose plans ``prepare`` builds for it.
        graphs: The naive graphs that ``prepare`` exports for it.
    """

    name: str
    what: str
    needs: tuple[str, ...]
    open: Callable[[Path, int], Series]
    gpu: bool = False
    variant: str | None = None
    graphs: tuple[str, ...] = ()

    @property
    def absent(self) -> str | None:
        """The reason why it cannot run here, or None."""
        missing = [module for module in self.needs if importlib.util.find_spec(module) is None]
        if missing:
            return f"not installed: {', '.join(missing)}"
        return query_driver().problem if self.gpu else None


def _eager(form: str, once: bool, device: str = "cpu") -> Callable[[Path, int], Series]:
    def open_(folder: Path, threads: int) -> Series:
        model, torch = _model(folder, form, threads)
        # All are compared in float32.
        torch.backends.cudnn.allow_tf32 = False
        model = model.to(device)

        def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                ids, keep = torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)
                text = model.encode_text(ids, keep) if once else None
                slices = (torch.from_numpy(image[None]).to(device) for image in images)
                answers = [model.segment(x, text) if once else model(x, ids, keep) for x in slices]
                return _stacked([answer.cpu().numpy()[0] for answer in answers])

        return series

    return open_


def _compiled(folder: Path, threads: int) -> Series:
    model, torch = _model(folder, "reference", threads)
    segment = torch.compile(model.segment)

    def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            text = model.encode_text(torch.from_numpy(tokens), torch.from_numpy(mask))
            return _stacked([segment(torch.from_numpy(image[None]), text).numpy()[0] for image in images])

    return series


def _model(folder: Path, form: str, threads: int) -> tuple[Any, Any]:
    import torch

    from lsms_rt.model import LSMS

    if threads:
        torch.set_num_threads(threads)
    return LSMS.from_pretrained(folder / "checkpoint", form), torch


def _naive(folder: Path, threads: int) -> Series:
    """One graph from image and tokens to logits, as torch.onnx.export makes it from the model."""
    session = _session(folder / "naive.onnx", threads)

    def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        feeds = {"tokens": tokens, "mask": mask}
        return _stacked([session.run(None, feeds | {"image": image[None]})[0][0] for image in images])

    return series


def _session(path: Path, threads: int, spinning: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _openvino(hint: str) -> Callable[[Path, int], Series]:
    def open_(folder: Path, threads: int) -> Series:
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": hint}
        settings |= {"INFERENCE_NUM_THREADS": str(threads)} if threads else {}
        # Without spinning, so that its threads do not disturb OpenVINO's.
        text = _session(folder / "naive_text.onnx", threads, spinning=False)
        names = [value.name for value in text.get_outputs()]
        model = core.read_model(folder / "naive_image.onnx")
        shapes = {value.any_name: [1, *list(value.partial_shape)[1:]] for value in model.inputs}
        model.reshape(shapes)
        compiled = core.compile_model(model, "CPU", settings)
        queue = openvino.AsyncInferQueue(compiled)

        def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
            features = dict(zip(names, text.run(None, {"tokens": tokens, "mask": mask}), strict=True))
            logits = np.empty((len(images), *images.shape[2:]), np.float32)

            def keep(request: Any, index: int) -> None:
                logits[index] = request.get_output_tensor().data[0, 0]

            queue.set_callback(keep)
            for index, image in enumerate(images):
                queue.start_async({"image": image[None], "mask": mask} | features, index)
            queue.wait_all()
            return logits

        return series

    return open_


def _engine(name: str, device: str | None = None) -> Callable[[Path, int], Series]:
    def open_(folder: Path, threads: int) -> Series:
        from lsms_rt.engine import open_backend, open_directory

        backend = open_backend(open_directory(folder / name), threads or None, device)

        def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
            text = backend.encode_text(tokens, mask)
            batches = (images[start : start + 8] for start in range(0, len(images), 8))
            return np.concatenate(list(backend.segment_many(batches, text)))

        return series

    return open_


def _stacked(logits: list[np.ndarray]) -> np.ndarray:
    return np.stack([answer[0] for answer in logits])


def _plans(variant: TensorRtVariant) -> Contender:
    return Contender(
        variant.title,
        f"the graphs of our engine as plans of {variant.title}, float32, CUDA graphs",
        ("pycuda", variant.modules[0]),
        _engine(f"{variant.name}.engine", "cuda"),
        gpu=True,
        variant=variant.name,
    )


TORCH, ORT, OPENVINO = ("torch", "transformers"), ("onnxruntime",), ("openvino", "onnxruntime")
HALVES = ("naive_text", "naive_image")
CONTENDERS = (
    Contender(
        "ours",
        "lsms-rt's engine on ONNX Runtime, the sentence encoded once, one slice per core",
        ORT,
        _engine("ours.engine", "cpu"),
    ),
    Contender(
        "eager",
        "PyTorch eager, called as model(image, tokens, mask)",
        TORCH,
        _eager("reference", False),
    ),
    Contender("eager, text once", "PyTorch eager, the sentence encoded once", TORCH, _eager("reference", True)),
    Contender("torch.compile, text once", "the same through torch.compile (needs a C++ compiler)", TORCH, _compiled),
    Contender(
        "naive graph",
        "one graph of torch.onnx.export on ONNX Runtime, the sentence encoded with every slice",
        ORT,
        _naive,
        graphs=("naive",),
    ),
    Contender(
        "OpenVINO",
        "the naive image graph, float32, latency hint, the sentence encoded once",
        OPENVINO,
        _openvino("LATENCY"),
        graphs=HALVES,
    ),
    Contender(
        "OpenVINO, throughput",
        "the same with the throughput hint",
        OPENVINO,
        _openvino("THROUGHPUT"),
        graphs=HALVES,
    ),
    Contender(
        "eager on a GPU, text once",
        "PyTorch eager on a GPU, float32 without TF32, copies included",
        TORCH,
        _eager("reference", True, "cuda"),
        gpu=True,
    ),
    *map(_plans, VARIANTS.values()),
)
