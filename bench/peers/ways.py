"""How the contenders compute: each function opens one, and returns its forms.

All get images and the tokens of a sentence, and return logits.  Those that can encode a sentence separately do so once
per series, as a careful user would; a single graph has to encode it with every slice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Series = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""images (N, 1, S, S) float32, tokens (1, T) int64, mask (1, T) float32 -> logits (N, S, S) float32"""
# Forms of a contender: as fast as it can compute a series, and a slice after the other, as single requests arrive.
SERIES, SINGLE = "series", "one slice at a time"
# Slices under way on a GPU, for all that run in PyTorch: the host prepares one while the other is computed.
IN_FLIGHT = 2
Forms = dict[str, Series]
Open = Callable[[Path, int], Forms]
"""The folder that ``prepare.prepare`` filled, and a number of threads (0: the library's choice) -> the forms"""


def eager(form: str, once: bool, device: str = "cpu", dtype: str = "float32") -> Open:
    """PyTorch eager; ``form`` as in ``LSMS``, ``once`` whether the sentence is encoded once per series."""

    def open_(folder: Path, threads: int) -> Forms:
        model, torch = _model(folder, form, threads, device, dtype)

        def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                ids, keep = torch.from_numpy(tokens).to(device), _sent(mask, model)
                text = model.encode_text(ids, keep) if once else None
                return _queued(images, model, lambda x: model.segment(x, text) if once else model(x, ids, keep))

        return {SERIES: series}

    return open_


def compiled(device: str = "cpu", dtype: str = "float32") -> Open:
    """torch.compile, the sentence encoded once per series."""

    def open_(folder: Path, threads: int) -> Forms:
        model, torch = _model(folder, "reference", threads, device, dtype)
        segment = torch.compile(model.segment)

        def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                text = model.encode_text(torch.from_numpy(tokens).to(device), _sent(mask, model))
                return _queued(images, model, lambda x: segment(x, text))

        return {SERIES: series}

    return open_


def _queued(images: np.ndarray, model: Any, segment: Callable[[Any], Any]) -> np.ndarray:
    """Compute slice after slice, with our runner's copies; ``segment`` gets (1, 1, S, S) on the model's device."""
    from lsms_rt.model.transfer import bring, send

    like = next(model.parameters())
    return _in_flight(images, lambda image: send(segment(bring(image, like.device, like.dtype))[:, 0]))


def _in_flight(images: np.ndarray, start: Callable[[Any], Callable[[], Any]]) -> np.ndarray:
    """Start slices, at most IN_FLIGHT before the first of them is waited for; return (N, S, S)."""
    import torch

    answers, started = [], deque[Callable[[], Any]]()
    for image in images:
        started.append(start(torch.from_numpy(image[None])))
        if len(started) == IN_FLIGHT:
            answers.append(started.popleft()())
    answers += [wait() for wait in started]
    return np.concatenate([answer.numpy() for answer in answers])


def _sent(values: np.ndarray, model: Any) -> Any:
    """Return an array as a tensor on the model's device, in its type."""
    import torch

    like = next(model.parameters())
    return torch.from_numpy(values).to(like.device).to(like.dtype)


def _model(folder: Path, form: str, threads: int, device: str, dtype: str) -> tuple[Any, Any]:
    import torch

    from lsms_rt.model import LSMS

    if threads:
        torch.set_num_threads(threads)
    # float32 is compared in float32; float16 may have the fastest convolutions.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = dtype == "float16"
    return LSMS.from_pretrained(folder / "checkpoint", form).to(device, getattr(torch, dtype)), torch


def naive(folder: Path, threads: int) -> Forms:
    """One graph from image and tokens to logits, as torch.onnx.export makes it from the model, on ONNX Runtime."""
    session = _session(folder / "naive.onnx", threads)

    def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        feeds = {"tokens": tokens, "mask": mask}
        return _stacked([session.run(None, feeds | {"image": image[None]})[0][0] for image in images])

    return {SERIES: series}


def naive_halves(folder: Path, threads: int) -> Forms:
    """The same as two graphs, so that the sentence is encoded once."""
    encode = _text_encoder(folder, threads)
    session = _session(folder / "naive_image.onnx", threads)

    def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        feeds = {"mask": mask} | encode(tokens, mask)
        return _stacked([session.run(None, feeds | {"image": image[None]})[0][0] for image in images])

    return {SERIES: series}


def _text_encoder(folder: Path, threads: int) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    # Without spinning, so that its threads do not disturb those of the image graph.
    session = _session(folder / "naive_text.onnx", threads, spinning=False)
    names = [value.name for value in session.get_outputs()]

    def encode(tokens: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, {"tokens": tokens, "mask": mask}), strict=True))

    return encode


def _session(path: Path, threads: int, spinning: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def openvino_naive(folder: Path, threads: int) -> Forms:
    """The one naive graph in OpenVINO without any setting, called slice by slice: what a user tries first."""
    from lsms_rt.engine.openvino import load

    core = load().Core()
    settings = {"INFERENCE_NUM_THREADS": str(threads)} if threads else {}
    model = core.compile_model(core.read_model(folder / "naive.onnx"), "CPU", settings)

    def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        feeds = {"tokens": tokens, "mask": mask}
        return _stacked([model(feeds | {"image": image[None]})[0][0].copy() for image in images])

    return {SERIES: series}


def openvino_halves(**settings: str) -> Open:
    """The naive image graph in OpenVINO with some settings; the sentence is encoded once, by ONNX Runtime."""

    def open_(folder: Path, threads: int) -> Forms:
        from lsms_rt.engine.openvino import load

        openvino = load()
        core = openvino.Core()
        more = {"INFERENCE_NUM_THREADS": str(threads)} if threads else {}
        encode = _text_encoder(folder, threads)
        model = core.read_model(folder / "naive_image.onnx")
        model.reshape({value.any_name: [1, *list(value.partial_shape)[1:]] for value in model.inputs})
        queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", settings | more))

        def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
            feeds = {"mask": mask} | encode(tokens, mask)
            logits = np.empty((len(images), *images.shape[2:]), np.float32)

            def keep(request: Any, index: int) -> None:
                logits[index] = request.get_output_tensor().data[0, 0]

            queue.set_callback(keep)
            for index, image in enumerate(images):
                queue.start_async({"image": image[None]} | feeds, index)
            queue.wait_all()
            return logits

        return {SERIES: series}

    return open_


def runner(kernels: str = "triton", device: str = "cuda") -> Open:
    """Our own path through PyTorch: the Triton kernels in a CUDA graph, a slice a call."""

    def open_(folder: Path, threads: int) -> Forms:
        model, torch = _model(folder, kernels, threads, "cpu", "float32")
        from lsms_rt.model.runner import TorchRunner

        runs = TorchRunner(model, device)

        def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
            text = runs.encode_text(torch.from_numpy(tokens), torch.from_numpy(mask))
            return _in_flight(images, lambda image: runs.start(image, text))

        return {SERIES: series}

    return open_


def engine(name: str, device: str | None = None) -> Open:
    """An engine of ours, in both forms."""

    def open_(folder: Path, threads: int) -> Forms:
        from lsms_rt.engine import open_backend, open_directory

        backend = open_backend(open_directory(folder / name), threads or None, device)

        def series(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
            text = backend.encode_text(tokens, mask)
            batches = (images[start : start + 8] for start in range(0, len(images), 8))
            return np.concatenate(list(backend.segment_many(batches, text)))

        def single(images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
            text = backend.encode_text(tokens, mask)
            return np.concatenate([backend.segment(image[None], text) for image in images])

        return {SERIES: series, SINGLE: single}

    return open_


def _stacked(logits: list[np.ndarray]) -> np.ndarray:
    return np.stack([answer[0] for answer in logits])
