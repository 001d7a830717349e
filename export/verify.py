"""Does an engine answer what the reference answers?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.ct import slice_from_array
from lsms_rt.engine import open_backend, open_directory
from lsms_rt.errors import InputError
from lsms_rt.model import LSMS
from lsms_rt.tensor import to_tensor
from lsms_rt.text import Tokenizer, Tokens

SEED = 7_000_000  # cases that neither training, validation nor any RefHL-Phantom has


@dataclass(frozen=True)
class Parity:
    """Engine against reference: the largest difference of a logit, and the share of pixels with the same mask."""

    slices: int
    max_logit_difference: float
    mask_agreement: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def phantom_examples(slices: int, matrix: int, seed: int = SEED) -> Iterator[tuple[np.ndarray, str]]:
    """``slices`` pairs of an image in HU (H, W) and a sentence, from cases of four slices."""
    from lsms_rt.calibration.phantom.case import generate_case
    from lsms_rt.calibration.phantom.sentences import false_sentence, true_sentence

    rng, given = np.random.default_rng(seed), 0
    while given < slices:
        case = generate_case(seed + given, 4, matrix)
        for item in case.slices[: slices - given]:
            sentence = true_sentence(item.lesions, case.phase, rng) or false_sentence(item.lesions, case.phase, rng)
            yield item.hu.astype(np.float32), sentence.text
            given += 1


def compare(model: LSMS, engine: Path, slices: int) -> Parity:
    """Run the engine at ``engine`` and ``model`` (with ``kernels="reference"``, best) on ``slices`` phantom slices."""
    import torch

    directory = open_directory(engine)
    manifest = directory.manifest
    backend = open_backend(directory)
    tokenizer = Tokenizer(directory.read("tokenizer.json"), manifest.max_tokens)
    worst, equal, total = 0.0, 0, 0
    limit = np.log(manifest.threshold / (1 - manifest.threshold))
    for hu, text in phantom_examples(slices, manifest.image_size):
        image, _ = to_tensor(slice_from_array(hu), manifest.image_size, manifest.hu_window)
        try:
            tokens = tokenizer(text)
        except InputError:  # another vocabulary may not know the phantom's words; any token will do
            count = manifest.max_tokens
            tokens = Tokens(np.eye(1, count, 1, dtype=np.int64), np.eye(1, count, dtype=np.float32))
        logits = backend.segment(image, backend.encode_text(tokens.ids, tokens.mask))[0]
        with torch.no_grad():
            reference = model(*(torch.from_numpy(a) for a in (image, tokens.ids, tokens.mask)))[0, 0].numpy()
        worst = max(worst, float(np.abs(logits - reference).max()))
        equal += int(((logits > limit) == (reference > limit)).sum())
        total += logits.size
    backend.close()
    return Parity(slices, worst, equal / total)
