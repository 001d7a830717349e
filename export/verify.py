"""Does an engine answer what the reference answers?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.ct_slice import slice_from_array
from lsms_rt.data import DATA
from lsms_rt.engine import open_backend, open_directory
from lsms_rt.errors import EngineError, InputError
from lsms_rt.preprocess import to_tensor
from lsms_rt.reading.load import load_slice
from lsms_rt.tokenizer import Tokenizer, Tokens

if TYPE_CHECKING:
    from lsms_rt.model import LSMS


@dataclass(frozen=True)
class Limits:
    """What an engine may differ from the reference: its logits, the share of pixels with the same mask, and Dice of all
    masks together, which an engine that paints nothing does not pass."""

    logit_difference: float
    mask_agreement: float
    mask_dice: float = 0.0


LIMITS = {
    # fp32 against fp32: sums in another order, through 13 blocks (measured: about 1e-5); and the same, seen by a user.
    "fp32": Limits(1e-4, 0.9999),
    # A logit of 16 alone is rounded to 0.008 (measured on the demo weights: 0.011).  A user's weights may be less tame;
    # a mask is what counts, and its edge is a percent of a slice's pixels.
    "fp16": Limits(0.2, 0.999),
    # Eight bits are another network, and the gate says how much worse it is.  This shows only what is broken.
    "int8": Limits(50.0, 0.97, 0.7),
}
SEED = 7_000_000  # cases that neither training, validation nor any RefHL-Phantom has


@dataclass(frozen=True)
class Parity:
    """Engine against reference: the largest difference of a logit, the share of pixels with the same mask, and Dice of
    all masks together (1 where neither paints anything)."""

    slices: int
    max_logit_difference: float
    mask_agreement: float
    mask_dice: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def phantom_examples(slices: int, matrix: int, seed: int = SEED) -> Iterator[tuple[np.ndarray, str]]:
    """``slices`` pairs of an image in HU (H, W) and a sentence, from cases of four slices."""
    from lsms_rt.datasets.phantom.case import generate_case
    from lsms_rt.datasets.phantom.sentences import false_sentence, true_sentence

    rng, given = np.random.default_rng(seed), 0
    while given < slices:
        case = generate_case(seed + given, 4, matrix)
        for item in case.slices[: slices - given]:
            sentence = true_sentence(item.lesions, case.phase, rng) or false_sentence(item.lesions, case.phase, rng)
            yield item.hu.astype(np.float32), sentence.text
            given += 1


def bundled_examples() -> Iterator[tuple[np.ndarray, str]]:
    """The slices and sentences that come with the package: for a device without the build side."""
    folder = DATA / "examples"
    for row in json.loads((folder / "examples.json").read_text()):
        yield load_slice(folder / row["image"]).hu, row["text"]


Reference = Callable[[np.ndarray, Tokens], np.ndarray]  # image (1, 1, S, S) and tokens -> logits (S, S)


def compare(
    reference: Reference, engine: Path, examples: Iterable[tuple[np.ndarray, str]], answer: Reference | None = None
) -> Parity:
    """Run the engine at ``engine`` and the ``reference`` on pairs of an image in HU and a sentence.

    ``answer`` answers instead of the engine, whose sizes and tokenizer are taken all the same.
    """
    directory = open_directory(engine)
    manifest = directory.manifest
    answer = answer or of_engine(engine)
    tokenizer = Tokenizer(directory.read("tokenizer.json"), manifest.max_tokens)
    slices, worst, equal, total, both, painted = 0, 0.0, 0, 0, 0, 0
    limit = np.log(manifest.threshold / (1 - manifest.threshold))
    asked = []
    for hu, text in examples:
        image, _ = to_tensor(slice_from_array(hu), manifest.image_size, manifest.hu_window)
        try:
            tokens = tokenizer(text)
        except InputError:  # another vocabulary may not know the phantom's words; any token will do
            count = manifest.max_tokens
            tokens = Tokens(np.eye(1, count, 1, dtype=np.int64), np.eye(1, count, dtype=np.float32))
        asked.append((image, tokens))
    # First the one, then the other: each has threads that spin on after an answer, on the cores that the other needs.
    expected = [reference(*pair) for pair in asked]
    for pair, wanted in zip(asked, expected, strict=True):
        logits = answer(*pair)
        difference = float(np.abs(logits - wanted).max())
        worst = difference if difference != difference else max(worst, difference)  # NaN stays
        ours, theirs = logits > limit, wanted > limit
        equal += int((ours == theirs).sum())
        both += int((ours & theirs).sum())
        painted += int(ours.sum()) + int(theirs.sum())
        total += logits.size
        slices += 1
    return Parity(slices, worst, equal / total, 2 * both / painted if painted else 1.0)


def judge(parity: Parity, precision: str) -> None:
    """Raise :class:`EngineError` where an engine differs from its reference by more than its precision explains."""
    limits = LIMITS[precision]
    near = parity.max_logit_difference <= limits.logit_difference and parity.mask_agreement >= limits.mask_agreement
    if not (near and parity.mask_dice >= limits.mask_dice):
        raise EngineError(
            f"the engine differs from its reference: logits by {parity.max_logit_difference:.1e} (at most "
            f"{limits.logit_difference:.0e}), masks equal on {parity.mask_agreement:.4%} of pixels (at least "
            f"{limits.mask_agreement:.2%}), Dice of all masks {parity.mask_dice:.3f} (at least {limits.mask_dice}); "
            "nothing was written"
        )


def of_model(model: LSMS) -> Reference:
    """A PyTorch model, best with ``kernels="reference"``, as what an engine is compared with."""
    import torch

    dtype = next(model.parameters()).dtype

    def answer(image: np.ndarray, tokens: Tokens) -> np.ndarray:
        pixels, ids, mask = (torch.from_numpy(array) for array in (image, tokens.ids, tokens.mask))
        with torch.no_grad():
            logits = model(pixels.to(dtype), ids, mask.to(dtype))
        return np.asarray(logits[0, 0].float().numpy())

    return answer


def of_engine(path: Path) -> Reference:
    """An engine: graphs on the CPU, where fp32 is fp32, and plans on the GPU.  Freed with the function."""
    directory = open_directory(path)
    on_cpu = directory.manifest.backend == "onnxruntime"
    backend = open_backend(directory, device="cpu" if on_cpu else None)
    return lambda image, tokens: backend.segment(image, backend.encode_text(tokens.ids, tokens.mask))[0]
