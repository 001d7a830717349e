"""Compare an engine with its reference on the same slices and sentences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.ct_slice import slice_from_array
from lsms_rt.data import DATA
from lsms_rt.engine import EngineDirectory, open_directory
from lsms_rt.errors import EngineError, InputError
from lsms_rt.preprocess import to_tensor
from lsms_rt.reading.load import load_slice
from lsms_rt.tokenizer import Tokenizer

from .directory import measured_with
from .references import Inputs, Reference, any_tokens, of_engine, of_model

if TYPE_CHECKING:
    from lsms_rt.model import LSMS

# Slices that are also computed in half precision on the CPU, which has no fast way to do it.
HALF_SLICES = 2
# Of the phantom: cases that neither training, validation nor any RefHL-Phantom has.
SEED = 7_000_000


@dataclass(frozen=True)
class Limits:
    """By how much an engine may differ from its reference.

    Attributes:
        logit_difference: the largest difference of a logit.
        mask_agreement: the minimum share of pixels with the same mask.
        mask_dice: the minimum Dice of all masks together, which an engine with empty masks does not reach.
    """

    logit_difference: float
    mask_agreement: float
    mask_dice: float = 0.0


LIMITS = {
    # fp32 against fp32: sums in another order, through 13 blocks (measured on the demo weights, whose logits reach -30:
    # 9e-5; another processor's order of sums may double it).
    "fp32": Limits(3e-4, 0.9999),
    # A logit of 16 alone is rounded to 0.008, and every layer adds some (measured: 0.07 on the demo weights, 0.2 on a
    # checkpoint that continued them).  A user's weights may have larger logits; a mask is what counts, its edge is a
    # percent of a slice's pixels, and the gate measures what is lost.
    "fp16": Limits(1.0, 0.999),
    # Seven bits of a logit of 30 are 0.12, and every layer adds some (measured on the demo weights: 0.32).  The gate
    # measures what that costs; this detects broken engines.
    "bf16": Limits(2.0, 0.997, 0.9),
    # INT8 behaves like a different network, and the gate measures how much worse it is.  This detects broken engines.
    "int8": Limits(50.0, 0.97, 0.7),
}


@dataclass(frozen=True)
class Parity:
    """The measured difference of an engine and its reference.

    Attributes:
        slices: number of slices that were compared.
        max_logit_difference: the largest difference of a logit.
        mask_agreement: share of pixels with the same mask.
        mask_dice: Dice of all masks together; 1 if all are empty.
    """

    slices: int
    max_logit_difference: float
    mask_agreement: float
    mask_dice: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, as a manifest records them."""
        return asdict(self)


def phantom_examples(slices: int, matrix: int, seed: int = SEED) -> Iterator[tuple[np.ndarray, str]]:
    """Yield ``slices`` pairs of an image in HU, float32 (matrix, matrix), and a sentence, from cases of four slices."""
    from lsms_rt.datasets.phantom.case import generate_case
    from lsms_rt.datasets.phantom.sentences import false_sentence, true_sentence

    rng, count = np.random.default_rng(seed), 0
    while count < slices:
        case = generate_case(seed + count, 4, matrix)
        for item in case.slices[: slices - count]:
            sentence = true_sentence(item.lesions, case.phase, rng) or false_sentence(item.lesions, case.phase, rng)
            # A phantom has too few lesions for that.
            assert sentence is not None
            yield item.hu.astype(np.float32), sentence.text
            count += 1


def bundled_examples() -> Iterator[tuple[np.ndarray, str]]:
    """Yield the slices and sentences that come with the package: for a device without the build side."""
    folder = DATA / "examples"
    for row in json.loads((folder / "examples.json").read_text()):
        yield load_slice(folder / row["image"]).hu, row["text"]


def compare(
    reference: Reference,
    engine: Path | EngineDirectory,
    examples: Iterable[tuple[np.ndarray, str]],
    stand_in: Reference | None = None,
) -> Parity:
    """Compare an engine with its reference.

    Args:
        reference: what the engine must agree with.
        engine: the engine, or its directory.
        examples: pairs of an image in HU and a sentence.
        stand_in: runs in place of the engine, with the engine's sizes and tokenizer; None for the engine itself.
    """
    directory = engine if isinstance(engine, EngineDirectory) else open_directory(engine)
    inputs = _inputs(directory, examples)
    # One after the other: each uses all cores.
    expected = reference.all(inputs)
    computed = (stand_in or of_engine(directory)).all(inputs)
    limit = np.log(directory.manifest.threshold / (1 - directory.manifest.threshold))
    max_difference, equal, total, both, either = 0.0, 0, 0, 0, 0
    for ours, theirs in zip(computed, expected, strict=True):
        difference = float(np.abs(ours - theirs).max())
        # NaN stays.
        max_difference = difference if difference != difference else max(max_difference, difference)
        mask, reference_mask = ours > limit, theirs > limit
        equal += int((mask == reference_mask).sum())
        both += int((mask & reference_mask).sum())
        either += int(mask.sum()) + int(reference_mask.sum())
        total += mask.size
    return Parity(len(inputs), max_difference, equal / total, 2 * both / either if either else 1.0)


def _inputs(engine: EngineDirectory, examples: Iterable[tuple[np.ndarray, str]]) -> list[Inputs]:
    manifest = engine.manifest
    tokenizer = Tokenizer(engine.read("tokenizer.json"), manifest.max_tokens)
    inputs = []
    for hu, text in examples:
        image, _ = to_tensor(slice_from_array(hu), manifest.image_size, manifest.hu_window, manifest.crop)
        try:
            tokens = tokenizer(text)
        except InputError:
            # Another vocabulary may not know the phantom's words; any token will do.
            tokens = any_tokens(manifest.max_tokens)
        inputs.append((image, tokens))
    return inputs


def judge(parity: Parity, precision: str) -> None:
    """Raise :class:`EngineError` if an engine differs from its reference by more than its precision explains."""
    limits = LIMITS[precision]
    near = parity.max_logit_difference <= limits.logit_difference and parity.mask_agreement >= limits.mask_agreement
    if not (near and parity.mask_dice >= limits.mask_dice):
        raise EngineError(
            f"the {precision} engine differs from its reference: logits by {parity.max_logit_difference:.1e} (at most "
            f"{limits.logit_difference:.0e}), masks equal on {parity.mask_agreement:.4%} of pixels (at least "
            f"{limits.mask_agreement:.2%}), Dice of all masks {parity.mask_dice:.3f} (at least {limits.mask_dice}); "
            "nothing was written. Try --precision fp32; if that fails too, please report it"
        )


def verify(engine: EngineDirectory, reference: Reference, slices: int) -> dict[str, Any]:
    """Compare an engine with its reference on phantom slices; return what its manifest records as ``accuracy``.

    Raises:
        EngineError: the difference is too large for the engine's precision.
    """
    manifest = engine.manifest
    parity = compare(reference, engine, phantom_examples(slices, manifest.image_size))
    judge(parity, manifest.precision)
    return parity.to_dict() | {"measured_with": measured_with(manifest)}


def verify_in_half(engine: EngineDirectory, reference: Reference, half: LSMS, slices: int) -> dict[str, Any]:
    """Compare with every operation in float16: ONNX Runtime's CPU computes an fp16 graph in fp32 inside.

    PyTorch's CPU rounds after every operation, so that an overflow is an overflow.

    Args:
        engine: the engine, verified before.
        reference: what it was compared with.
        half: the exported model, in float16.
        slices: at most ``HALF_SLICES`` of them are compared.

    Returns:
        The engine's ``accuracy`` with this comparison in it.

    Raises:
        EngineError: the difference is too large for fp16.
    """
    manifest = engine.manifest
    examples = phantom_examples(min(slices, HALF_SLICES), manifest.image_size)
    parity = compare(reference, engine, examples, of_model(half))
    # The layers of an INT8 engine that are not INT8 are judged as fp16, too.
    judge(parity, "fp16")
    accuracy = parity.to_dict() | {"measured_with": "PyTorch on a CPU, every operation in float16"}
    if manifest.calibration is not None:
        # The main figures of an INT8 engine are those of its graphs, INT8 layers included.
        return manifest.accuracy | {"rest_in_float16": accuracy}
    return accuracy | {"graphs": manifest.accuracy}
