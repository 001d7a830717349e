"""The bundled examples: held-out phantom slices with sentences, chosen by rule and not by result."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from lsms_rt.datasets.phantom.case import Case, generate_case
from lsms_rt.datasets.phantom.dicom import write_slice
from lsms_rt.datasets.phantom.sentences import Sentence, false_sentence, true_sentence

# Cases from SEED on; no other data set has them.
SEED, COUNT = 8_000_000, 3


def write_examples(folder: Path, matrix: int = 256) -> None:
    """Write the first slice of each case, from ``SEED`` on, that has two lesions of 10 mm or more to tell apart.

    Every slice is asked for one lesion, for another one, and for something that is not there.
    """
    from PIL import Image

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows: list[dict[str, str]] = []
    seed = SEED
    while len(rows) < 3 * COUNT:
        case = generate_case(seed, 8, matrix)
        found = _first(case, np.random.default_rng(seed))
        seed += 1
        if found is None:
            continue
        index, sentences = found
        name = f"phantom_{len(rows) // 3 + 1}"
        with tempfile.TemporaryDirectory() as place:
            write_slice(Path(place) / "slice.dcm", case, index, name)
            shutil.copyfile(Path(place) / "slice.dcm", folder / f"{name}.dcm")
        for number, sentence in enumerate(sentences):
            mask = np.zeros((matrix, matrix), bool)
            for lesion in sentence.targets:
                mask |= lesion.mask
            mask_name = f"{name}_{number}.png"
            Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(folder / mask_name)
            rows.append({"image": f"{name}.dcm", "text": sentence.text, "mask": mask_name})
    (folder / "examples.json").write_text(json.dumps(rows, indent=2) + "\n")


def _first(case: Case, rng: np.random.Generator) -> tuple[int, list[Sentence]] | None:
    for index, item in enumerate(case.slices):
        large = [lesion for lesion in item.lesions if lesion.diameter_mm >= 10]
        told: list[Sentence] = []
        for _ in range(20):
            sentence = true_sentence(item.lesions, case.phase, rng, single=True)
            if sentence and sentence.targets[0] in large and sentence.targets not in [s.targets for s in told]:
                told.append(sentence)
            if len(told) == 2:
                false = false_sentence(item.lesions, case.phase, rng)
                return (index, [*told, false]) if false else None
    return None
