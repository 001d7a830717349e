"""The client and ``predict --server``: the same answers as without a server, and errors that say what to do."""

from __future__ import annotations

import json
import logging
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsms_rt import Segmenter
from lsms_rt.cli.main import main
from lsms_rt.client import Client, ServerError
from lsms_rt.errors import InputError
from lsms_rt.reading.load import load_slice

TEXT = "the cyst in the liver"


def test_predict_is_predict(demo: Any, example: Path) -> None:
    with Segmenter(demo.core.settings.models[0].path) as segmenter, Client(demo.url) as client:
        expected = segmenter.predict(example, [TEXT, "the lesion"])
        found = client.predict(example, [TEXT, "the lesion"])
        assert isinstance(found, list)
        for here, there in zip(expected, found, strict=True):
            np.testing.assert_array_equal(here.mask, there.mask)
            assert (there.found, there.read_as) == (here.found, here.read_as)
            assert there.score == pytest.approx(here.score, abs=1e-5)
        hu = load_slice(example).hu
        one = client.predict(hu, TEXT, spacing=(1.5, 1.5))
        assert not isinstance(one, list)
        assert one.mask.shape == hu.shape
        assert client.predict(hu[None], TEXT).mask.shape == (1, *hu.shape)  # type: ignore[union-attr]


def test_what_is_wrong_is_an_input_error(demo: Any, example: Path, tmp_path: Path) -> None:
    with Client(demo.url) as client:
        with pytest.raises(InputError, match="not understood"):
            client.predict(example, "no cyst")
        (tmp_path / "x").write_bytes(b"nothing")
        with pytest.raises(InputError, match="unknown format"):
            client.send(tmp_path / "x")
        with pytest.raises(InputError, match="cannot be read"):
            client.send(tmp_path / "none")
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="no DICOM file in 0 files"):
            client.send(tmp_path / "empty")
    assert not demo.core.uploads._kept


def test_a_server_that_is_not_there() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServerError, match="does not answer"):
        client.predict(np.zeros((32, 32), np.float32), TEXT)
    for url in ("", "127.0.0.1:80", "ftp://x"):
        with pytest.raises(InputError, match="URL"):
            Client(url)


def test_a_full_queue_is_asked_again(fakes: Callable[..., Any]) -> None:
    from threading import Thread

    live = fakes(queue=1)
    image, found = np.zeros((32, 32), np.float32), []
    with Client(live.url) as client:
        threads = [Thread(target=lambda: found.append(client.predict(image, "slow 10"))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4


def test_the_key(fakes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    key = "k" * 20
    live = fakes(api_key=key)
    image = np.zeros((32, 32), np.float32)
    with Client(live.url) as client, pytest.raises(ServerError, match="LSMS_RT_API_KEY"):
        client.predict(image, "slow 1")
    monkeypatch.setenv("LSMS_RT_API_KEY", key)
    with Client(live.url) as client:
        client.predict(image, "slow 1")


def test_the_client_needs_no_engine_library() -> None:
    heavy = "onnxruntime torch openvino tensorrt pydicom fastapi PIL"
    code = (
        "import sys, pathlib, lsms_rt.client as c; from lsms_rt.errors import InputError\n"
        "try: c._slices(pathlib.Path('/proc/self/fdinfo'))\nexcept InputError: pass\n"
        f"print([m for m in {heavy.split()!r} if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_predict_with_a_server(demo: Any, example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "demo", str(example), "--text", TEXT]) == 0
    here = capsys.readouterr().out
    output = tmp_path / "out"
    command = ["predict", "demo", str(example), "--text", TEXT, "--server", demo.url]
    assert main([*command, "-o", str(output), "--seg", "--nifti"]) == 0
    assert capsys.readouterr().out == here
    assert stat.S_IMODE(output.stat().st_mode) == 0o700
    names = {path.name for path in output.iterdir()}
    assert {"results.json", "segmentation.dcm", "mask.nii.gz", "0000_mask.png"} <= names
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["found"] is True
    assert main([*command, "-o", str(output)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert not demo.core.uploads._kept


def test_predict_with_a_server_of_several_inputs(
    demo: Any, example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(b"\0" * 128 + b"DICM" + b"x" * 100)
    command = ["predict", "demo", str(example), str(bad), "--text", TEXT, "--server", demo.url]
    assert main([*command, "-o", str(tmp_path / "out")]) == 5
    said = capsys.readouterr()
    assert said.out.startswith("input 1: ")
    assert "input 2" in said.err
    assert (tmp_path / "out" / "input1" / "results.json").is_file()
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_how_a_sentence_is_read_is_said(demo: Any, example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", "demo", str(example), "--text", "the large cyst in the livr"]
    code = main(command)
    here = capsys.readouterr().err
    assert main([*command, "--server", demo.url]) == code
    assert "warning" in here
    assert capsys.readouterr().err == here


def test_a_folder_with_other_files(
    demo: Any, example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(example, folder / "1.dcm")
    (folder / "README.txt").write_text("these are slices")
    (folder / ".hidden.dcm").write_bytes(b"x")
    command = ["predict", "demo", str(folder), "--text", TEXT]
    assert main(command) == 0
    # The server calls it "the file", as it has no other.
    here = capsys.readouterr().out.partition(": ")[2]
    with caplog.at_level(logging.WARNING):
        assert main([*command, "--server", demo.url]) == 0
    assert capsys.readouterr().out.partition(": ")[2] == here
    assert "skipped 1 files" in caplog.text
    with Client(demo.url) as client:
        for name, content in (("2.dcm", b"x" * 200), ("2", bytes(200))):
            (folder / name).write_bytes(content)
            with pytest.raises(InputError, match="damaged"):
                client.send(folder)
            (folder / name).unlink()
    assert not demo.core.uploads._kept


def test_an_interrupt_stays_one_and_leaves_nothing(
    demo: Any, example: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted(self: Client, job: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "_events", interrupted)
    command = ["predict", "demo", str(example), "--text", TEXT, "--server", demo.url]
    interrupted_code = main(command)
    assert interrupted_code == 130
    assert not demo.core.uploads._kept
    # The server is gone when the client wants to delete.
    ask = Client._ask

    def gone(self: Client, method: str, path: str, **options: Any) -> Any:
        if method == "DELETE" or path.endswith("/cancel"):
            raise ServerError("gone")
        return ask(self, method, path, **options)

    monkeypatch.setattr(Client, "_ask", gone)
    with caplog.at_level(logging.WARNING):
        assert main(command) == interrupted_code
    assert "could not be deleted" in caplog.text
    for image in list(demo.core.uploads._kept):
        demo.http.delete(f"/images/{image}")


def test_a_key_over_http_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for url in ("https://example.org", "http://localhost:1"):
            Client(url, api_key="k" * 20).close()
        Client("http://example.org").close()
        assert not caplog.records
        Client("http://example.org", api_key="k" * 20).close()
    assert "others can read it" in caplog.text


@pytest.mark.parametrize("option", [["--threads", "2"], ["--lenient"], ["--seg"]])
def test_options_without_meaning_are_refused(demo: Any, example: Path, option: list[str]) -> None:
    assert main(["predict", "demo", str(example), "--text", TEXT, "--server", demo.url, *option]) == 2
