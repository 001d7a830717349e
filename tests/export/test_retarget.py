"""Engines for another backend of the graphs that an engine has, and ``--backend auto``, which chooses one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lsms_rt.cli.main import main
from lsms_rt.engine import open_backend, open_directory
from lsms_rt.engine import openvino as module
from lsms_rt.engine.manifest import Manifest, write_manifest
from lsms_rt.errors import CpuFeatureError, EngineInvalidError, InputError, MachineError, MissingDependencyError
from lsms_rt.export import auto, options
from lsms_rt.export.auto import Choice
from lsms_rt.export.options import BuildOptions, GateOptions
from lsms_rt.export.retarget import RetargetOptions, _verdict, retarget_engine

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not HAS_OPENVINO, reason="needs lsms-rt[openvino]")
needs_bf16 = pytest.mark.skipif(
    not HAS_OPENVINO or "BF16" not in module.capabilities(module.open_core()), reason="needs a CPU with bfloat16"
)


def as_int8(source: Path, folder: Path, rest: str) -> Path:
    """An engine that says it is INT8: what is made of it does not depend on its layers."""
    engine = Path(shutil.copytree(source, folder / f"int8-{rest}.engine"))
    calibration = {
        "rest": rest, "int8_layers": {"image": 1}, "macs_share": 0.5, "method": "minmax", "recipe_digest": "0" * 64,
    }  # fmt: skip
    gate = {"passed": True, "max_dice_drop": 0.01, "cases": 90, "sentences": 500, "failures": [], "accepted": False}
    manifest = open_directory(engine).manifest
    write_manifest(engine, replace(manifest, precision="int8", calibration=calibration, gate=gate))
    return engine


@pytest.mark.slow
@needs_openvino
def test_an_engine_of_openvino_from_the_bundled_one(
    demo_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a.engine"
    assert main(["build-engine", "--from", "demo", "--backend", "openvino", "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    assert f"{output}: openvino fp32, tiny, 256x256" in printed
    assert "engine vs. the one it was made of on 9 bundled slices" in printed
    made, source = open_directory(output), open_directory(demo_engine)
    assert (made.manifest.backend, made.manifest.precision, made.manifest.gate) == ("openvino", "fp32", {})
    assert made.manifest.files == source.manifest.files
    assert made.manifest.format == source.manifest.format
    assert made.manifest.backend_version == module.library_version("openvino")
    assert made.manifest.accuracy["max_logit_difference"] < 3e-4
    assert made.manifest.accuracy["against"].startswith("ONNX Runtime")
    assert "--backend openvino" in made.manifest.rebuild
    assert made.manifest.gate_verdict == "not needed"
    # And back.
    options = RetargetOptions(backend="onnxruntime")
    assert retarget_engine(output, tmp_path / "b.engine", options).backend == "onnxruntime"


@pytest.mark.slow
@needs_bf16
def test_bf16_is_asked_the_gates_sentences(demo_engine: Path, tmp_path: Path) -> None:
    # Four sentences prove nothing, whatever one of them loses.
    gate = GateOptions(sentences=4, max_dice_drop=0.2)
    options = RetargetOptions(backend="openvino", precision="bf16", gate=gate)
    manifest = retarget_engine(demo_engine, tmp_path / "a.engine", options)
    assert (manifest.precision, manifest.format) == ("bf16", 3)
    assert manifest.gate["sentences"] == 4
    assert manifest.gate["reference"].startswith("ONNX Runtime")
    assert manifest.gate_verdict == "no verdict"
    page = (tmp_path / "a.report.html").read_text()
    assert "ONNX Runtime" in page
    skipped = replace(options, gate=GateOptions(sentences=0))
    assert retarget_engine(demo_engine, tmp_path / "b.engine", skipped).gate_verdict == "skipped"


@pytest.mark.slow
@needs_bf16
def test_int8_keeps_its_layers_and_is_asked_again(demo_engine: Path, tmp_path: Path) -> None:
    source = as_int8(demo_engine, tmp_path, "fp32")
    options = RetargetOptions(backend="openvino", rest="bf16")
    with pytest.raises(InputError, match="--gate-sentences 0 leaves an INT8 engine unjudged"):
        retarget_engine(source, tmp_path / "a.engine", replace(options, gate=GateOptions(sentences=0)))
    accepted = replace(options, gate=GateOptions(sentences=4, accept=True))
    manifest = retarget_engine(source, tmp_path / "a.engine", accepted)
    assert manifest.precision == "int8"
    assert (manifest.calibration or {})["rest"] == "bf16"
    assert (manifest.calibration or {})["int8_layers"] == {"image": 1}
    assert manifest.gate_verdict == "accepted"
    assert "INT8 graphs passed against PyTorch" in manifest.gate["of"]


def test_what_was_not_judged_before_is_not_judged_by_a_second_gate(demo_engine: Path, tmp_path: Path) -> None:
    passed, record = open_directory(as_int8(demo_engine, tmp_path, "fp32")).manifest, {"passed": True}
    assert _verdict(passed, record) == record | {"of": _verdict(passed, record)["of"]}
    skipped = replace(passed, gate={"skipped": True, "passed": False})
    assert _verdict(skipped, record) == skipped.gate
    assert _verdict(open_directory(demo_engine).manifest, record) == record


@pytest.mark.slow
@needs_bf16
def test_a_bf16_engine_is_float32_graphs(demo_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is compared with float32, never with itself, and becomes a float32 engine where no CPU has bfloat16."""
    half = Path(shutil.copytree(demo_engine, tmp_path / "half.engine"))
    write_manifest(half, replace(open_directory(half).manifest, backend="openvino", precision="bf16"))
    unjudged = GateOptions(sentences=0)
    again = retarget_engine(half, tmp_path / "a.engine", RetargetOptions(backend="openvino", gate=unjudged))
    assert again.precision == "bf16"
    assert again.accuracy["against"].startswith("ONNX Runtime")
    assert again.accuracy["max_logit_difference"] > 1e-2
    monkeypatch.setattr(module, "capabilities", lambda core: ("FP32",))
    exact = retarget_engine(half, tmp_path / "b.engine", RetargetOptions(backend="openvino", precision="fp32"))
    assert (exact.precision, exact.format) == ("fp32", 2)
    assert retarget_engine(half, tmp_path / "c.engine", RetargetOptions(backend="onnxruntime")).precision == "fp32"


@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize("options", [["--backend", "openvino"], ["--backend", "auto", "--precision", "fp32"]])
def test_it_needs_no_build_side(tmp_path: Path, options: list[str]) -> None:
    """With ``auto``, what this machine runs fastest; a series of two slices tells it here."""
    output = tmp_path / "a.engine"
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript', 'transformers', 'scipy', 'matplotlib'): sys.modules[name] = None\n"
        "from lsms_rt.cli.main import main\n"
        "from lsms_rt.export import auto\n"
        "auto.SLICES = 2\n"
        f"sys.exit(main(['build-engine', '--from', 'demo', *{options!r}, '-o', {str(output)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    made = open_directory(output).manifest
    assert made.precision == "fp32"
    *chosen, said = done.stdout.splitlines()[: 1 + ("auto" in options)]
    assert said.startswith(f"{output}: {made.backend} fp32")
    assert [line.startswith(f"auto: {made.backend} in fp32: ") for line in chosen] == [True] * ("auto" in options)
    open_backend(open_directory(output), device="cpu").close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "openvino", "precision": "fp16"}, "fp16 is for --backend onnxruntime"),
        ({"backend": "onnxruntime", "precision": "bf16"}, "bf16 is for --backend openvino"),
        ({"backend": "openvino", "precision": "int8"}, "--from does not quantize"),
        ({"backend": "openvino", "rest": "bf16"}, "--rest is for --precision int8"),
    ],
)
def test_what_cannot_be_made_of_an_fp32_engine(
    demo_engine: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        retarget_engine(demo_engine, tmp_path / "a.engine", RetargetOptions(**options))
    assert not (tmp_path / "a.engine").exists()


def test_graphs_in_float16_are_refused_with_the_precision_to_take(demo_engine: Path, tmp_path: Path) -> None:
    half = Path(shutil.copytree(demo_engine, tmp_path / "half.engine"))
    write_manifest(half, replace(open_directory(half).manifest, precision="fp16"))
    for source, fix in ((half, "--precision fp32"), (as_int8(demo_engine, tmp_path, "fp16"), "int8 --rest fp32")):
        with pytest.raises(InputError, match=fix):
            retarget_engine(source, tmp_path / "a.engine", RetargetOptions(backend="openvino"))
    with pytest.raises(InputError, match="is the engine that --from reads"):
        retarget_engine(half, half, RetargetOptions(backend="openvino"))
    with pytest.raises(InputError, match="--backend tensorrt; choose from onnxruntime, openvino"):
        RetargetOptions(backend="tensorrt")


@needs_openvino
def test_a_cpu_without_bf16_is_refused_before_the_work(
    demo_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "capabilities", lambda core: ("FP32",))
    with pytest.raises(CpuFeatureError, match="with --precision fp32"):
        retarget_engine(demo_engine, tmp_path / "a.engine", RetargetOptions(backend="openvino", precision="bf16"))
    from lsms_rt.export.build import build_engine

    with pytest.raises(CpuFeatureError, match="bfloat16"):
        build_engine(BuildOptions(backend="openvino", precision="bf16"), tmp_path / "b.engine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "demo", "--backend", "openvino", "--image-size", "128"], "remove --checkpoint"),
        (["--from", "demo", "--backend", "openvino", "--opt-batch", "2"], "options of a plan"),
        (["--from", "demo", "--backend", "openvino", "--max-batch", "2"], "remove --max-batch"),
        (["--from", "demo", "--backend", "openvino", "--accept"], "are for the accuracy gate"),
        (["--backend", "auto", "--precision", "fp16"], "no CPU gains from --precision fp16"),
        (["--backend", "auto", "--precision", "int8"], "go together"),
        (["--from", "demo", "--backend", "tensorrt-rtx", "--precision", "bf16"], "in the engine's precision"),
        (["--backend", "openvino", "--precision", "fp16"], "openvino has fp32, bf16, int8"),
        (["--precision", "fp32", "--rest", "fp32"], "--rest is for --precision int8"),
    ],
)
def test_the_command_line_refuses(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build-engine", *words, "-o", str(tmp_path / "a.engine")]) == 2
    assert message in capsys.readouterr().err


def test_a_gate_says_what_it_needs_before_it_works(
    demo_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"needs scipy and matplotlib; .*--gate-sentences 0"):
        options.check_gate_packages(GateOptions())
    with pytest.raises(MissingDependencyError, match="needs matplotlib;"):
        options.check_gate_packages(GateOptions(dataset=tmp_path))
    options.check_gate_packages(GateOptions(sentences=0))


def test_int8_beside_the_default_of_its_backend() -> None:
    recipe = Path("recipe")
    for backend, rest in (("onnxruntime", "fp16"), ("openvino", "fp32"), ("tensorrt", "fp16")):
        options = BuildOptions(backend=backend, precision="int8", calibration=recipe)
        assert (options.floating, options.half) == (rest, rest == "fp16")
    with pytest.raises(InputError, match="openvino have fp32 or bf16"):
        BuildOptions(backend="openvino", precision="int8", calibration=recipe, rest="fp16")


# ------------------------------------------------------------------------------------------------ --backend auto


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock by which a backend takes as long as is said."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("lsms_rt.export.auto.time.perf_counter", lambda: clock.now)
    return clock


class Slow:
    """A backend that takes a while; its slices are counted."""

    def __init__(self, clock: SimpleNamespace, seconds: float) -> None:
        self.clock, self.seconds, self.slices = clock, seconds, 0

    def encode_text(self, tokens: np.ndarray, mask: np.ndarray) -> None:
        return None

    def segment(self, images: np.ndarray, text: object) -> np.ndarray:
        self.clock.now += self.seconds
        self.slices += len(images)
        return images[:, 0]

    def close(self) -> None:
        self.slices = -1


def opener(clock: SimpleNamespace, seconds: dict[tuple[str, str, Any], float | Exception], seen: list[Manifest]) -> Any:
    def open_fake(engine: Any, device: str) -> Slow:
        manifest = engine.manifest
        seen.append(manifest)
        value = seconds[manifest.backend, manifest.precision, (manifest.calibration or {}).get("rest")]
        if isinstance(value, Exception):
            raise value
        return Slow(clock, value)

    return open_fake


def test_the_fastest_is_taken_and_said(
    demo_engine: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    seen: list[Manifest] = []
    seconds: dict[Any, Any] = {
        ("onnxruntime", "fp32", None): 0.05, ("openvino", "fp32", None): 0.02, ("openvino", "bf16", None): 0.002,
    }  # fmt: skip
    monkeypatch.setattr(auto, "open_backend", opener(clock, seconds, seen))
    choice = auto.choose_for(open_directory(demo_engine), None, None)
    assert (choice.backend, choice.precision, choice.rest) == ("openvino", "bf16", None)
    assert choice.why.startswith("openvino in bf16: ")
    assert choice.why.index("openvino in fp32") < choice.why.index("onnxruntime in fp32")
    # Only what was asked for.
    assert auto.choose_for(open_directory(demo_engine), "fp32", None).precision == "fp32"
    assert [manifest.precision for manifest in seen] == ["fp32", "fp32", "bf16", "fp32", "fp32"]


def test_a_lower_precision_must_be_worth_it(
    demo_engine: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    seconds: dict[Any, Any] = {
        ("onnxruntime", "fp32", None): 0.06, ("openvino", "fp32", None): 0.03, ("openvino", "bf16", None): 0.0295,
    }  # fmt: skip
    monkeypatch.setattr(auto, "open_backend", opener(clock, seconds, []))
    assert auto.choose_for(open_directory(demo_engine), None, None).precision == "fp32"
    # One that cannot be opened is left out, with its reason.
    seconds["openvino", "fp32", None] = EngineInvalidError("a strange graph")
    choice = auto.choose_for(open_directory(demo_engine), None, None)
    assert choice.precision == "bf16"
    assert "openvino in fp32: a strange graph" in choice.why


def test_int8_is_tried_beside_every_other_precision(
    demo_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    seconds: dict[Any, Any] = {
        ("onnxruntime", "int8", "fp32"): 0.01, ("openvino", "int8", "fp32"): 0.001, ("openvino", "int8", "bf16"): 0.01,
    }  # fmt: skip
    monkeypatch.setattr(auto, "open_backend", opener(clock, seconds, []))
    choice = auto.choose_for(open_directory(as_int8(demo_engine, tmp_path, "fp32")), None, None)
    assert (choice.backend, choice.precision, choice.rest) == ("openvino", "int8", "fp32")


def test_what_is_missing_is_left_out_and_said(
    demo_engine: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    missing = MissingDependencyError("OpenVINO is not installed")
    seconds: dict[Any, Any] = {
        ("onnxruntime", "fp32", None): 0.001, ("openvino", "fp32", None): missing, ("openvino", "bf16", None): missing,
    }  # fmt: skip
    monkeypatch.setattr(auto, "open_backend", opener(clock, seconds, []))
    why = auto.choose_for(open_directory(demo_engine), None, None).why
    assert why.startswith("onnxruntime in fp32")
    assert "the only one here; not installed: pip install 'lsms-rt[openvino]'" in why
    seconds["openvino", "bf16", None] = CpuFeatureError("no bfloat16")
    with pytest.raises(MachineError, match="no bfloat16"):
        auto.choose_for(open_directory(demo_engine), "bf16", None)


def test_a_gpu_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    from lsms_rt.engine.registry import BACKENDS
    from lsms_rt.machine.gpu import Driver, Gpu

    gpu = Gpu(name="NVIDIA L4", capability=(8, 9), memory=24 << 30, integrated=False)
    monkeypatch.setattr(auto, "query_driver", lambda: Driver(cuda=(13, 0), gpus=(gpu,)))

    class Runs:
        @staticmethod
        def diagnose(name: str, driver: object, board: object) -> dict[str, Any]:
            return {"builds": True, "runs": name == "tensorrt"}

    for spec in BACKENDS.values():
        monkeypatch.setattr(type(spec), "load", lambda self: Runs)
    choice = auto.choose(None, None, None, None, None)
    assert (choice.backend, choice.precision) == ("tensorrt", "fp16")
    assert "NVIDIA L4" in choice.why
    assert auto.choose(None, None, "fp32", None, None).precision == "fp32"
    assert auto.choose(None, None, "int8", Path("recipe"), "fp32").rest == "fp32"


def test_a_choice_in_words() -> None:
    assert str(Choice(backend="openvino", precision="int8", rest="bf16")) == "openvino in int8 and bf16"
