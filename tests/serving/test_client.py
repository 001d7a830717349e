"""The client and ``predict --server``: the same answers as without a server, and errors that say what to do."""

from __future__ import annotations

import dataclasses
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
import pydicom
import pytest

from lsms_rt import Segmenter
from lsms_rt.cli.main import main
from lsms_rt.cli.predict import remote
from lsms_rt.cli.predict.remote import RemoteSegmenter
from lsms_rt.client import Client, ServerError
from lsms_rt.client.connection import Connection
from lsms_rt.ct_slice import slice_from_array
from lsms_rt.datasets.phantom.dicom import write_slice
from lsms_rt.errors import InputError, SentenceNotUnderstoodError, SeveralSeriesError
from lsms_rt.reading.load import load_slice
from lsms_rt.serving import tensors

httpx = pytest.importorskip("httpx", reason="httpx is not installed; pip install 'lsms-rt[client]'")
TEXT = "the cyst in the liver"
pytestmark = pytest.mark.usefixtures("bundled_engine_opened_once")


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
        for said, told in (
            ("no cyst", '^the sentence is not understood: .*"no"; .*; GET /models/NAME/words lists what may be said$'),
            ("die Zyste", "^the sentence contains no word that this engine knows: it seems to be in German; .* said$"),
        ):
            with pytest.raises(SentenceNotUnderstoodError, match=told) as caught:
                client.predict(example, said)
            # Each once.
            assert str(caught.value).count("the sentence ") == str(caught.value).count("words not in") == 1
        with pytest.raises(SentenceNotUnderstoodError, match="^sentence 2: the sentence contains no word"):
            client.predict(example, [TEXT, "die Zyste"])
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


@pytest.mark.slow
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
        "import sys, pathlib, lsms_rt.client.files as c; from lsms_rt.errors import InputError\n"
        "try: c.slice_files(pathlib.Path('/proc/self/fdinfo'))\nexcept InputError: pass\n"
        f"print([m for m in {heavy.split()!r} if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def outcome(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of a run, with the content of those that hold no times, and its results.json without times."""
    files = {path.name: path.read_bytes() if path.suffix == ".png" else b"" for path in folder.iterdir()}
    return files, untimed(json.loads((folder / "results.json").read_text()))


def untimed(document: dict[str, Any]) -> dict[str, Any]:
    for record in document["results"]:
        del record["timings_ms"]
    for name in ("started", "seconds"):
        del document["run"][name]
    for row in document["files"]:
        # Derived from the time of the run, among others.
        for name in ("sop_instance_uid", "series_uid"):
            row.pop(name, None)
    return document


@pytest.fixture
def inputs(example: Path, phantom_case: Any, tmp_path: Path) -> list[str]:
    """A file; a folder with a damaged slice and a file that is none; and a file that is none."""
    folder = tmp_path / "in" / "series"
    folder.mkdir(parents=True)
    for n in range(3):
        write_slice(folder / f"{n}.dcm", phantom_case, n, "case")
    (folder / "1.dcm").write_bytes((folder / "1.dcm").read_bytes()[:300])
    (folder / "README.txt").write_text("these are slices")
    bad = tmp_path / "in" / "bad.dcm"
    bad.write_bytes(b"\0" * 128 + b"DICM" + b"x" * 100)
    return [str(example), str(folder), str(bad)]


@pytest.mark.slow
def test_predict_with_a_server_is_predict(
    demo: Any, inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several inputs, damaged ones among them, and several sentences: the same names, numbers, files and messages."""
    here, there = tmp_path / "here", tmp_path / "there"
    command = ["predict", "demo", *inputs, "--text", TEXT, "--text", "the large cyst in the livr"]
    assert main([*command, "-o", str(here), "--seg", "--nifti"]) == 5
    said = capsys.readouterr()
    assert main([*command, "-o", str(there), "--seg", "--nifti", "--server", demo.url]) == 5
    assert capsys.readouterr() == said
    assert "input 3" in said.err
    assert outcome(there) == outcome(here)
    assert {"input1_0000_1_mask.png", "input2_0002_1_mask.png"} <= {path.name for path in there.iterdir()}
    assert stat.S_IMODE(there.stat().st_mode) == 0o700
    assert main([*command, "--json"]) == 5
    printed = untimed(json.loads(capsys.readouterr().out))
    assert main([*command, "--json", "--server", demo.url]) == 5
    assert untimed(json.loads(capsys.readouterr().out)) == printed
    assert not demo.core.uploads._kept


@pytest.mark.slow
def test_shards_with_a_server_and_without_are_one_run(
    demo: Any, inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, out = ["predict", "demo", *sorted(inputs), "--text", TEXT], tmp_path / "out"
    assert main([*command, "-o", str(tmp_path / "whole")]) == 5
    assert main([*command, "-o", str(out), "--shard", "1/2", "--server", demo.url]) == 5
    assert main([*command, "-o", str(out), "--shard", "2/2"]) == 5
    assert main(["merge", str(out)]) == 5
    whole, merged = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "whole", out))
    sizes = [
        [(row["input"], row["found"], row["pixels"], row["mean_hu"]) for row in d["results"]] for d in (whole, merged)
    ]
    assert sizes[0] == sizes[1] and len(sizes[0]) == merged["run"]["slices"]
    assert merged["engine"] == whole["engine"] and sorted(merged["not_read"]) == whole["not_read"]


def test_a_run_goes_on_from_one_without_a_server(
    demo: Any, example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["predict", "demo", str(example), "--text", TEXT, "-o", str(tmp_path / "out")]
    assert main(command) == 0
    monkeypatch.setattr(Client, "predict", None)
    assert main([*command, "--server", demo.url]) == 0
    assert "1 slices already done" in capsys.readouterr().err


def test_nothing_but_pixels_and_sentences_is_sent(
    demo: Any, example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = pydicom.dcmread(example)
    marked.PatientName = "Miller^Marker"
    marked.save_as(tmp_path / "marker.dcm")
    sent: list[bytes] = []
    handle = httpx.Client.send

    def listening(self: Any, request: Any, **options: Any) -> Any:
        sent.append(repr((request.url, request.headers)).encode() + request.read())
        return handle(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", listening)
    assert main(["predict", "demo", str(tmp_path / "marker.dcm"), "--text", TEXT, "--server", demo.url]) == 0
    everything = b"".join(sent)
    assert TEXT.encode() in everything
    for text in ("Marker", "marker", "DICM", marked.SOPInstanceUID, str(marked.PatientID)):
        assert text.encode() not in everything


def test_a_request_has_no_more_sentences_than_a_server_takes() -> None:
    assert remote.MAX_SENTENCES <= tensors.MAX_SENTENCES


@pytest.mark.slow
def test_slices_that_differ_and_values_between_whole_numbers(demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go in requests of their own, as they are, and come back in order; and so do many sentences."""
    monkeypatch.setattr(remote, "MAX_SENTENCES", 2)
    rng = np.random.default_rng(0)
    slices = [
        slice_from_array(rng.normal(0, 40, shape).astype(np.float32), flips=(True, False), spacing_mm=mm)
        for shape, mm in (((64, 48), (1.5, 1.1)), ((64, 48), (1.5, 1.1)), ((48, 64), (1.5, 1.1)), ((48, 64), None))
    ]
    texts = [f"the {kind} in the liver" for kind in ("cyst", "lesion", "metastasis", "hemangioma", "abscess")]
    with Segmenter(demo.core.settings.models[0].path) as here, Client(demo.url, model="demo") as client:
        there = RemoteSegmenter(client, client.models()["demo"])
        for one, other in zip(here.predict_series(slices, texts), there.predict_series(slices, texts), strict=True):
            for expected, found in zip(one, other, strict=True):
                np.testing.assert_array_equal(found.mask, expected.mask)
                assert found.score == pytest.approx(expected.score, abs=1e-5)
                assert (found.index, found.reading) == (expected.index, expected.reading)


def test_a_server_that_is_gone_is_asked_once(
    demo: Any, inputs: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def gone(self: Client, *_: Any, **__: Any) -> Any:
        calls.append(1)
        raise ServerError("the server does not answer")

    monkeypatch.setattr(Client, "predict", gone)
    assert main(["predict", "demo", *inputs[:2], "--text", TEXT, "--server", demo.url]) == 3
    assert len(calls) == 1
    assert "does not answer" in capsys.readouterr().err


def test_an_engine_that_is_exchanged_meanwhile_is_noticed(
    demo: Any, inputs: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, calls = Client.predict, []

    def exchanged(self: Client, *given: Any, **more: Any) -> Any:
        calls.append(1)
        return [dataclasses.replace(answer, engine="sha256:0") for answer in predict(self, *given, **more)]

    monkeypatch.setattr(Client, "predict", exchanged)
    assert main(["predict", "demo", inputs[1], "--text", TEXT, "--server", demo.url]) == 3
    assert len(calls) == 1
    assert "another engine" in capsys.readouterr().err


def test_no_engine_is_opened_here(demo: Any, example: Path) -> None:
    code = (
        "import sys; from lsms_rt.cli.main import main\n"
        f"code = main(['predict', 'demo', {str(example)!r}, '--text', {TEXT!r}, '--server', {demo.url!r}])\n"
        "print(code, [m for m in ('onnxruntime', 'openvino', 'torch', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["0 []"], done.stderr


def test_an_engine_that_the_server_has_not(demo: Any, example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "liver.engine", str(example), "--text", TEXT, "--server", demo.url]) == 2
    assert "it has demo" in capsys.readouterr().err


def test_how_a_sentence_is_read_is_said(demo: Any, example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", "demo", str(example), "--text", "the large cyst in the livr"]
    code = main(command)
    here = capsys.readouterr().err
    assert main([*command, "--server", demo.url]) == code
    assert "warning" in here
    assert capsys.readouterr().err == here


def test_a_folder_with_other_files(demo: Any, example: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(example, folder / "1.dcm")
    (folder / "README.txt").write_text("these are slices")
    (folder / ".hidden.dcm").write_bytes(b"x")
    with Client(demo.url) as client:
        with caplog.at_level(logging.WARNING):
            image = client.send(folder)
        assert "skipped 1 files" in caplog.text
        names = client.save(client.ask(image, [TEXT], files=["seg"]), tmp_path / "out")
        assert {"results.json", "segmentation.dcm", "0000_mask.png"} <= set(names)
        assert {path.name for path in (tmp_path / "out").iterdir()} == set(names)
        client.delete(image)
        for name, content in (("2.dcm", b"x" * 200), ("2", bytes(200))):
            (folder / name).write_bytes(content)
            with pytest.raises(InputError, match="damaged"):
                client.send(folder)
            (folder / name).unlink()
    assert not demo.core.uploads._kept


def test_the_series_of_an_image_are_data(demo: Any, example: Path, tmp_path: Path) -> None:
    for n in range(4):
        image = pydicom.dcmread(example)
        image.SeriesNumber, image.SeriesInstanceUID, image.SOPInstanceUID = 1 + n // 2, f"1.2.{n}", f"1.2.3.{n}"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.SeriesDescription = "Miller"
        image.save_as(tmp_path / f"{n}.dcm")
    size = {"slices": 1, "rows": image.Rows, "columns": image.Columns}
    choices = [{"number": number} | size for number in ("1:1", "1:2", "2:1", "2:2")]
    with Client(demo.url) as client:
        with pytest.raises(SeveralSeriesError, match="4 series or stacks") as caught:
            client.send(tmp_path)
        assert caught.value.series == choices
        with pytest.raises(SeveralSeriesError, match="no such series") as caught:
            client.send(tmp_path, series="3")
        assert caught.value.series == choices
        client.delete(client.send(tmp_path, series="2:1"))
    assert not demo.core.uploads._kept


def test_an_interrupt_stays_one_and_leaves_nothing(
    demo: Any, example: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted(self: Client, job: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "_events", interrupted)

    def asked() -> None:
        with Client(demo.url) as client:
            image = client.send(example)
            try:
                client.ask(image, [TEXT])
            finally:
                client.discard(image)

    with pytest.raises(KeyboardInterrupt):
        asked()
    assert not demo.core.uploads._kept
    # The server is gone when the client wants to delete.
    request = Connection.request

    def gone(self: Connection, method: str, path: str, **options: Any) -> Any:
        if method == "DELETE" or path.endswith("/cancel"):
            raise ServerError("gone")
        return request(self, method, path, **options)

    monkeypatch.setattr(Connection, "request", gone)
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        asked()
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


@pytest.mark.parametrize("option", [["--threads", "2"], ["--lenient"], ["--no-cuda-graph"], ["--seg"]])
def test_options_without_meaning_are_refused(demo: Any, example: Path, option: list[str]) -> None:
    assert main(["predict", "demo", str(example), "--text", TEXT, "--server", demo.url, *option]) == 2


NOT_OURS = [
    (200, {}, "<html>a page</html>", "check the URL and proxies"),
    (200, {}, "[]", "check the URL and proxies"),
    (200, {}, '{"models": {}}', "check the URL and proxies"),
    (200, {}, '{"version": "1", "models": ["demo"]}', "another version"),
    (301, {"Location": "https://127.0.0.1:1/"}, "", "https:// in the place of http://"),
    (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "busy", "check the URL and proxies"),
]


@pytest.mark.parametrize(("status", "headers", "text", "says"), NOT_OURS)
def test_another_server_or_a_proxy_that_redirects(
    example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    status: int, headers: dict[str, str], text: str, says: str,
) -> None:  # fmt: skip
    """What answers is not the server: one line says so, and what to do."""
    monkeypatch.setattr(httpx.Client, "request", lambda *_, **__: httpx.Response(status, headers=headers, text=text))
    assert main(["predict", "demo", str(example), "--text", TEXT, "--server", "http://127.0.0.1:1"]) == 3
    said = capsys.readouterr().err
    assert says in said
    assert "unexpected" not in said


def test_an_answer_whose_header_a_proxy_removed(demo: Any, example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(demo.url, model="demo") as client:
        monkeypatch.setattr(httpx.Client, "request", lambda *_, **__: httpx.Response(200, content=b"{}"))
        with pytest.raises(ServerError, match="check the URL and proxies"):
            client.predict(example, TEXT)


def test_a_server_of_another_version_is_refused(
    demo: Any, example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may prepare slices in another way, and a run would mix its results with ours."""
    about = Client.about
    monkeypatch.setattr(Client, "about", lambda self: about(self) | {"version": "0.0.9"})
    assert main(["predict", "demo", str(example), "--text", TEXT, "--server", demo.url]) == 3
    assert "another version" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["no cyst in the liver", "the kidney"])
def test_a_refused_sentence_names_what_helps_with_a_server(
    demo: Any, example: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Neither an option that is refused with a server, nor a command that needs the engine here."""
    assert main(["predict", "demo", str(example), "--text", text, "--server", demo.url]) == 2
    said = capsys.readouterr().err
    assert "GET /models/NAME/words" in said
    assert "lenient" not in said
    assert "lsms-rt words" not in said


def test_a_certificate_that_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a hospital's own authority; firewalls have nothing to do with it."""

    def refused(*_: Any, **__: Any) -> Any:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")

    monkeypatch.setattr(httpx.Client, "request", refused)
    with Client("https://127.0.0.1:1") as client, pytest.raises(ServerError, match="SSL_CERT_FILE"):
        client.models()


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "https://10.0.0.1"])
def test_authorities_of_the_environment_count(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for this machine, where the environment's proxies do not."""
    asked: list[bool] = []
    create = httpx.create_ssl_context
    monkeypatch.setattr(httpx, "create_ssl_context", lambda: asked.append(True) or create())
    Client(url).close()
    assert asked


def test_certificates_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match="SSL_CERT_FILE"):
        Client("https://127.0.0.1:1")


def test_a_port_that_is_taken(demo: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """No address is told that another one answers at."""
    assert main(["serve", "demo", "--port", demo.url.rpartition(":")[2]]) == 3
    said = capsys.readouterr().err
    assert "another --port" in said
    assert "http://" not in said
