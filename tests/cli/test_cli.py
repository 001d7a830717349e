"""The command line as a user meets it: exit codes, one-line errors, JSON that is only JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lsms_rt.cli import doctor
from lsms_rt.cli.main import COMMANDS, main
from lsms_rt.cli.parser import make_parser
from lsms_rt.data import DATA

SLICE = str(DATA / "examples" / "phantom_1.dcm")
TEXT = "the lesion in the right lobe of the liver"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], code: int, words: str, *arguments: str) -> None:
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err


def test_predict_prints_a_line_and_writes_pictures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "predict", "demo", SLICE, "--text", TEXT, "-o", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    assert out.startswith("   0  the file: ")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "0000_mask.png", "0000_overlay.png", "progress.jsonl", "results.json",
    ]  # fmt: skip


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "predict", "demo", SLICE, SLICE, "--text", TEXT, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["engine"].startswith("sha256:")
    assert len(document["results"]) == 2
    assert {"found", "score", "area_mm2", "bbox", "mean_hu", "timings_ms", "weights"} <= set(document["results"][0])


def test_not_found_is_no_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    np.save(tmp_path / "air.npy", np.full((64, 64), -1000, np.int16))
    code, out, _ = run(capsys, "predict", "demo", str(tmp_path / "air.npy"), "--text", "the cyst")
    assert code == 0
    assert "nothing found" in out


def test_words_that_the_engine_does_not_know_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "predict", "demo", SLICE, "--text", "the lesion in the spleen")
    assert (code, out[:14]) == (0, "   0  the file")
    assert err == "warning: words not in this engine's vocabulary: 1; the answer is to the rest of the sentence\n"
    code, out, err = run(capsys, "predict", "demo", SLICE, "--text", "the lesion in the spleen", "--names")
    assert (code, out[:19]) == (0, "   0  phantom_1.dcm")
    assert err == "warning: words not in this engine's vocabulary: spleen; the answer is to the rest of the sentence\n"


def test_a_folder_is_a_series(capsys: pytest.CaptureFixture[str], tmp_path: Path, phantom_case) -> None:
    from lsms_rt.datasets.phantom.dicom import write_slice

    for index in range(3):
        write_slice(tmp_path / f"{index}.dcm", phantom_case, index, "case")
    code, out, _ = run(capsys, "predict", "demo", str(tmp_path), "--text", TEXT)
    assert code == 0
    assert "of 3 slices" in out


def test_bad_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("dear diary")
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "cut.dcm").write_bytes(Path(SLICE).read_bytes()[:50_000])
    (tmp_path / "folder").mkdir()
    for name, words in (
        ("none.dcm", "no such file"),
        ("text.dcm", "not DICOM"),
        ("empty.dcm", "empty"),
        ("cut.dcm", "the file: damaged or truncated"),
        ("folder", "folder"),
    ):
        refused(capsys, 2, words, "predict", "demo", str(tmp_path / name), "--text", TEXT)
    refused(capsys, 2, "empty", "predict", "demo", SLICE, "--text", "")
    refused(capsys, 2, "characters", "predict", "demo", SLICE, "--text", "lesion " * 200)
    refused(capsys, 2, "tokens", "predict", "demo", SLICE, "--text", "big lesion " * 40)
    refused(capsys, 2, "annotations.csv", "evaluate", "demo", str(tmp_path))
    refused(capsys, 2, "not empty", "phantom", "-o", str(tmp_path))
    refused(capsys, 2, "exists", "build-engine", "-o", str(tmp_path / "folder"))


def test_refused_engines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    engine = Path(shutil.copytree(DATA / "demo.engine", tmp_path / "mine.engine"))
    refused(capsys, 4, "no such engine", "predict", str(tmp_path / "none"), SLICE, "--text", TEXT)
    refused(capsys, 4, "not the expected", "predict", str(engine), SLICE, "--text", TEXT, "--digest", "sha256:00")
    data = bytearray((engine / "image.onnx").read_bytes())
    data[1000] ^= 255
    (engine / "image.onnx").write_bytes(data)
    refused(capsys, 4, "has changed", "predict", str(engine), SLICE, "--text", TEXT)
    refused(capsys, 4, "has changed", "inspect", str(engine))
    (engine / "image.onnx").unlink()
    refused(capsys, 4, "image.onnx is missing in", "predict", str(engine), SLICE, "--text", TEXT)
    manifest = json.loads((engine / "manifest.json").read_text())
    (engine / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    refused(capsys, 4, "format 99", "predict", str(engine), SLICE, "--text", TEXT)


@pytest.mark.parametrize(
    "arguments",
    [[], ["dance"], ["predict"], ["predict", "demo", "x"], ["build-engine"], ["phantom", "-o", "x", "--cases", "many"]],
)
def test_bad_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("phantom", "--seed", "5000"),
        ("phantom", "--cases", "0"),
        ("phantom", "--workers", "-2"),
        ("phantom", "--matrix", "1e9"),
        ("build-engine", "--image-size", "x"),
        ("build-engine", "--max-batch", "0"),
        ("build-engine", "--verify-slices", "-1"),
    ],
)
def test_numbers_out_of_bounds(capsys: pytest.CaptureFixture[str], command: str, option: str, value: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "-o", "never-written", option, value])
    assert caught.value.code == 2
    shown = "that" if value == "x" else repr(value)
    assert f"argument {option}: {shown} is not a whole number" in capsys.readouterr().err
    assert not Path("never-written").exists()


def test_a_result_is_saved_before_a_later_input_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bad.dcm").write_text("dear diary")
    out = tmp_path / "out"
    code, _, err = run(capsys, "predict", "demo", SLICE, str(tmp_path / "bad.dcm"), "--text", TEXT, "-o", str(out))
    assert code == 5
    assert "not read: input 2: the file: not DICOM" in err
    assert (out / "0000_mask.png").is_file()
    assert len(json.loads((out / "results.json").read_text())["results"]) == 1


def test_a_picture_says_what_it_is_taken_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((64, 64), 128, np.uint8)).save(tmp_path / "grey.png")
    arguments = ("predict", "demo", str(tmp_path / "grey.png"), "--text", TEXT, "--json")
    refused(capsys, 2, "--window", *arguments)
    code, out, err = run(capsys, *arguments, "--window", "40", "400")
    assert code == 0
    assert "level 40, width 400" in err
    assert "level 40, width 400" in json.loads(out)["results"][0]["notes"][0]


def test_a_name_that_is_no_text_is_written_all_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"odd\xff.dcm")
    try:
        shutil.copyfile(SLICE, name)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    code, _, _ = run(capsys, "predict", "demo", str(name), "--text", TEXT, "-o", str(tmp_path / "out"))
    assert code == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["results"][0]["source"]


def test_a_folder_called_demo_does_not_hide_the_bundled_engine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert run(capsys, "inspect", "demo")[0] == 0


def test_inspect_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", "demo")
    assert code == 0
    assert "synthetic CT" in out
    code, out, _ = run(capsys, "inspect", "demo", "--json")
    assert json.loads(out)["manifest"]["preset"] == "tiny"
    code, out, _ = run(capsys, "doctor", "--json")
    assert code == 0
    assert json.loads(out)["runtime"]["works"] is True
    code, out, _ = run(capsys, "doctor")
    assert "onnxruntime" in out


def test_demo(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "demo", "-o", str(tmp_path / "d"))
    assert (code, err) == (0, "")
    assert "Dice" in out
    assert (tmp_path / "d" / "demo.png").stat().st_size > 10_000
    rows = json.loads((tmp_path / "d" / "demo.json").read_text())
    assert len(rows) == 10
    assert rows[-1]["dice"] is None  # the real slice has no true mask


def test_phantom_then_evaluate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    code, out, err = run(capsys, "phantom", "-o", str(data), "--cases", "2", "--matrix", "96", "--workers", "1")
    assert (code, err) == (0, "")  # no progress bar in a pipe
    assert "2 cases, 20 slices" in out
    answers = tmp_path / "answers.csv"
    code, out, err = run(capsys, "evaluate", "demo", str(data), "--limit", "6", "--json", "--answers", str(answers))
    assert (code, err) == (0, "")
    assert json.loads(out)["sentences"] == 6
    assert len(answers.read_text().splitlines()) == 7
    refused(capsys, 2, "'none'", "evaluate", "demo", str(data), "--split", "none")


def test_every_option_with_a_default_shows_it() -> None:
    parser = make_parser(COMMANDS)
    for sub in parser._subparsers._group_actions[0].choices.values():
        text = " ".join(sub.format_help().split())
        for action in sub._actions:
            if action.option_strings and action.default not in (None, False, "==SUPPRESS=="):
                assert f"(default: {action.default})" in text, action.option_strings
            if action.option_strings and action.default is None and not action.required:
                assert "(default:" in (action.help or ""), action.option_strings


def test_an_unexpected_error_is_one_line_and_debug_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr(doctor, "examine", broken)
    refused(capsys, 1, "unexpected ZeroDivisionError: oh no", "doctor")
    code, _, err = run(capsys, "doctor", "--debug")
    assert code == 1
    assert "in broken" in err
    assert "ZeroDivisionError: oh" in err


def test_a_missing_extra_names_its_install_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in [n for n in sys.modules if n.startswith("lsms_rt.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = run(capsys, "build-engine", "-o", str(tmp_path / "x.engine"))
    assert code == 3
    assert err.splitlines()[-1].startswith("error: this command needs ")
    assert "pip install 'lsms-rt[build]'" in err


def test_the_installed_command_answers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lsms_rt.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("lsms-rt 0.")
