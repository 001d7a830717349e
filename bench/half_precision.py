"""What fp16 costs the language branch, as it is defined and folded: ``python -m lsms_rt.bench.half_precision``.

Storage and every operation in fp16, beside fp64 from the same inputs.  Runs on a CPU; a GPU rounds the same, and adds
in another order.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lsms_rt.kernels.test_data import random_inputs, random_weights
from lsms_rt.model import folded, functional

from .provenance import provenance

CASES = {  # offset of a in units of its deviation, factor of the keys
    "normal": (0.0, 1.0),
    "large mean": (30.0, 1.0),
    "flat attention": (0.0, 0.02),
    "sharp attention": (0.0, 8.0),
}


def half_errors(name: str) -> dict[str, float]:
    """Relative errors of gated context in fp16, conventional and folded, from the same fp16 ``a``."""
    mean, sharpness = CASES[name]
    w = random_weights(64, seed=3)
    _, keys, values, mask = random_inputs(1, 64, 32, 32, 24, [20])
    g = torch.Generator().manual_seed(5)
    a = torch.randn(1, 64, 32, 32, generator=g, dtype=torch.float64)
    a = (a + mean * torch.randn(64, 1, 1, generator=g, dtype=torch.float64)).half()
    keys = keys * sharpness

    def conventional(dtype: torch.dtype) -> Tensor:
        k, v, m, z = (t.to(dtype) for t in (keys, values, mask, a))
        query, output = ((f[0].to(dtype), f[1].to(dtype)) for f in (w.query, w.output))
        context = functional.text_attention(z, k, v, m, query, output)
        return functional.language_gate(context, w.hidden.to(dtype), w.gate.to(dtype))

    def short(dtype: torch.dtype) -> Tensor:
        k, v = folded.fold_sentence(keys, values, mask, w.output)  # once a sentence, in the text graph
        k, v, m, z = (t.to(dtype) for t in (k, v, mask, a))
        query, hidden, second = (t.to(dtype) for t in (w.query[0], w.hidden, w.gate))
        p = folded.text_weights(folded.centered(z), k, m, query)
        v, first = folded.fold_values(p, v, hidden)
        context = torch.matmul(v.transpose(1, 2), p.transpose(1, 2))
        layer = torch.matmul(first.transpose(1, 2), p.transpose(1, 2))
        return torch.tanh(torch.matmul(second.flatten(1), layer.relu())) * context

    truth = conventional(torch.float64).flatten(2)
    norm = truth.norm()
    return {
        "conventional": float((conventional(torch.float16).flatten(2).double() - truth).norm() / norm),
        "folded": float((short(torch.float16).double() - truth).norm() / norm),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the record as JSON (default: no file)")
    parser.add_argument("--json", action="store_true", help="print the record as JSON, not the table")
    options = parser.parse_args(argv)
    rows = {name: half_errors(name) for name in CASES}
    record = {"what": "relative error of the gated context in fp16, against fp64", "rows": rows} | provenance("torch")
    text = json.dumps(record, indent=1)
    if options.json:
        print(text)
    else:
        for name, errors in rows.items():
            print(f"{name:16} conventional {errors['conventional']:.1e}  folded {errors['folded']:.1e}")
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
