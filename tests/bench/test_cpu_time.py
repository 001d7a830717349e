"""CPU time beside wall time, and OpenVINO's profile of operators."""

from __future__ import annotations

import importlib.util
import json
import time
from datetime import timedelta
from enum import Enum
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from lsms_rt.bench.plots import draw
from lsms_rt.bench.records import SCALING, read
from lsms_rt.bench.scaling.operators_openvino import kind_of, profile_openvino, sum_up
from lsms_rt.bench.tables import markdown
from lsms_rt.bench.timing import cost
from lsms_rt.bench.values import values_of

RESULTS = Path(__file__).parents[2] / "bench/results/cpu"


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_cpu_time_is_that_of_all_threads_and_not_of_waiting() -> None:
    # The least of three: a thread that another test left may be computing meanwhile.
    waited = min((cost(lambda: time.sleep(0.05)) for _ in range(3)), key=lambda one: one.cpu_seconds)
    assert waited.seconds >= 0.05 > waited.cpu_seconds

    def two() -> None:
        threads = [Thread(target=spin, args=(0.03,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert cost(two).cpu_seconds >= 0.06


class Status(Enum):
    EXECUTED, NOT_RUN = range(2)


def node(name: str, node_type: str, exec_type: str, ms: float, status: Status = Status.EXECUTED) -> Any:
    return SimpleNamespace(
        node_name=name, node_type=node_type, exec_type=exec_type, status=status, Status=Status,
        real_time=timedelta(milliseconds=ms),
    )  # fmt: skip


def test_a_profile_is_summed_by_kind_and_precision() -> None:
    runs = [
        [
            node("a", "Convolution", "brgconv_avx512_1x1_bf16", ms),
            node("b", "Convolution", "brgconv_avx512_1x1_bf16", 1),
            node("c", "Convolution", "brgconv_avx512_1x1_i8", 2),
            node("d", "Reshape", "unknown_f32", 9, Status.NOT_RUN),
        ]
        for ms in (4, 5, 60)
    ]
    rows = [row.to_dict() for row in sum_up(runs)]
    assert rows == [
        {"kind": "1x1 convolution", "precision": "bf16", "count": 2, "ms": pytest.approx(6)},
        {"kind": "1x1 convolution", "precision": "i8", "count": 1, "ms": pytest.approx(2)},
    ]


@pytest.mark.parametrize(
    ("node_type", "exec_type", "kind"),
    [
        ("GroupConvolution", "brgconv_avx512_dw_f32", "depthwise convolution"),
        ("Convolution", "brgconv_avx512_f32", "dense convolution"),
        ("FullyConnected", "gemm_mlas_f32", "matrix product"),
        ("Subgraph", "jit_avx512_bf16", "fused sums, GELU"),
        ("Reorder", "jit_uni_bf16", "layout"),
        ("MVN", "jit_avx512_f32", "sums, norms, other"),
    ],
)
def test_kinds_of_openvino(node_type: str, exec_type: str, kind: str) -> None:
    assert kind_of(node_type, exec_type) == kind


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_openvino_profiles_a_real_graph(demo_engine: Path) -> None:
    rows = profile_openvino(demo_engine / "image.onnx", "f32", runs=1)
    kinds = {row.kind: row for row in rows}
    assert {"1x1 convolution", "depthwise convolution", "dense convolution", "matrix product"} <= set(kinds)
    assert {row.precision for row in rows} == {"f32"}
    assert 0 < sum(row.ms for row in rows) < 10_000


def test_a_scaling_record_of_another_backend(tmp_path: Path) -> None:
    """One of version 0.1 has neither a backend, nor CPU time, nor OpenVINO's operators."""
    old = read(RESULTS / "scaling_tiny_512.json")
    assert "CPU" not in markdown(old) and "in OpenVINO" not in markdown(old)
    new = json.loads(json.dumps(old)) | {"backend": "openvino", "precision": "bf16"}
    for point in new["axes"]["batch"]:
        point["cpu"] = {"unit": "CPU ms", "samples": [150.0, 152.0, 154.0], "p50": 152.0}
    new["operators_openvino"] = [{"kind": "softmax", "precision": "bf16", "count": 14, "ms": 0.5}]
    text = markdown(new)
    assert "(CPU 152.0)" in text and "random (tiny), openvino bf16, 512x512" in text
    assert "| softmax | bf16 | 14 | 0.5 | 100.0% |" in text
    (picture,) = draw(new, tmp_path / "scaling")
    assert picture.stat().st_size > 50_000
    assert new["kind"] == SCALING and "CPU of batch: 1" in dict(values_of(new))
