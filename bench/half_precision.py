"""Rounding errors of the language branch in fp16, as defined and as folded: ``python -m lsms_rt.bench.half_precision``.

Storage and every operation are in fp16, and are compared with fp64 from the same inputs.  It runs on a CPU; a GPU
rounds the same way, but adds in another order.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from lsms_rt.kernels.test_data import random_inputs, random_weights
from lsms_rt.model import folded, functional

from .records import HALF_PRECISION, add_output_options, put, record_of

# Name -> mean of ``a`` in units of its standard deviation, factor of the keys.
CASES = {
    "normal": (0.0, 1.0),
    "large mean": (30.0, 1.0),
    "flat attention": (0.0, 0.02),
    "sharp attention": (0.0, 8.0),
}


def half_errors(name: str) -> dict[str, float]:
    """Return the relative errors of the gated context in fp16, conventional and folded, from the same fp16 ``a``."""
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

    def folded_form(dtype: torch.dtype) -> Tensor:
        # Once per sentence, in the text graph.
        k, v = folded.fold_sentence(keys, values, mask, w.output)
        k, v, m, z = (t.to(dtype) for t in (k, v, mask, a))
        query, hidden, second = (t.to(dtype) for t in (w.query[0], w.hidden, w.gate))
        p = folded.text_weights(folded.centered(z), k, m, query)
        v, first = folded.fold_values(p, v, hidden)
        context = torch.matmul(v.transpose(1, 2), p.transpose(1, 2))
        layer = torch.matmul(first.transpose(1, 2), p.transpose(1, 2))
        return torch.tanh(torch.matmul(second.flatten(1), layer.relu())) * context

    exact = conventional(torch.float64).flatten(2)
    norm = exact.norm()
    return {
        "conventional": float((conventional(torch.float16).flatten(2).double() - exact).norm() / norm),
        "folded": float((folded_form(torch.float16).double() - exact).norm() / norm),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output_options(parser)
    options = parser.parse_args(argv)
    rows = {name: half_errors(name) for name in CASES}
    lines = [
        f"{name:16} conventional {row['conventional']:.1e}  folded {row['folded']:.1e}" for name, row in rows.items()
    ]
    what = "relative error of the gated context in fp16, against fp64"
    put(record_of(HALF_PRECISION, ("torch",), what=what, rows=rows), "\n".join(lines), options)


if __name__ == "__main__":
    main()
