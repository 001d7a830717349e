"""What build-engine prints about an INT8 engine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lsms_rt.cli.build_texts import print_int8
from lsms_rt.engine.registry import BACKENDS

CALIBRATION = {"int8_layers": {"text": 2, "image": 40}, "macs_share": 0.63, "rest": "fp16"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_speed_of_int8_is_claimed(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_int8(SimpleNamespace(backend=backend, calibration=CALIBRATION))  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert out.startswith("INT8: 42 layers, 63% of the dense multiply-accumulates; the rest in fp16\n")
    assert ("no speed is claimed here" in out) == (backend != "onnxruntime")
    assert ("did not run INT8 faster than fp32" in out) == (backend == "onnxruntime")
