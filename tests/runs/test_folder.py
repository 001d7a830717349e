"""The output folder: whose it is, who may write to it, and what happens to files that are there."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_segmenter import LEFT, RIGHT, fake_run, write_arrays
from PIL import Image

from lsms_rt.atomic import PART, part_of
from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError
from lsms_rt.runs import lock as lock_module
from lsms_rt.runs.folder import OutputFolder
from lsms_rt.runs.journal import NAME, Journal
from lsms_rt.runs.masks import read_mask

FOREIGN = {
    ".0a1b.parts": b"a download", ".movie.mkv.part": b"half", ".x.partial": b"y", ".NAME.part": b"z",
    ".0123456789abcdef.part": b"even this", "thesis.txt": b"mine", "123_mask.png": b"no picture",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("engines_are_fake")


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*")}


@pytest.mark.parametrize("journal", [None, b"", b"\x00 nonsense", b'{"request": "x", "format": 2}\n', b"[" * 100_000])
def test_a_folder_that_is_not_ours_is_left_as_it_is(tmp_path: Path, journal: bytes | None) -> None:
    paths, out = write_arrays(tmp_path / "in", 1), tmp_path / "out"
    out.mkdir()
    for name, data in FOREIGN.items():
        (out / name).write_bytes(data)
    if journal is not None:
        (out / NAME).write_bytes(journal)
    before = content(out), out.stat().st_mtime_ns
    with pytest.raises(InputError, match="choose an"):
        fake_run(paths, output=out)
    assert (content(out), out.stat().st_mtime_ns) == before


def test_a_journal_that_is_no_file_is_refused(tmp_path: Path) -> None:
    paths, out = write_arrays(tmp_path / "in", 1), tmp_path / "out"
    out.mkdir()
    (tmp_path / "diary").write_text("dear")
    (out / NAME).symlink_to(tmp_path / "diary")
    with pytest.raises(InputError, match="output"):
        fake_run(paths, output=out)
    assert (tmp_path / "diary").read_text() == "dear"
    (out / NAME).unlink()
    os.mkfifo(out / NAME)
    with pytest.raises(InputError, match="not empty"):
        fake_run(paths, output=out)


def test_only_our_own_temporary_files_are_removed(tmp_path: Path) -> None:
    paths, out = write_arrays(tmp_path / "in", 1), tmp_path / "out"
    fake_run(paths, output=out)
    ours = [part_of(out / name) for name in ("a.png", "mask.nii.gz", "results.json")]
    others = [out / name for name in (".0a1b.parts", ".x.part", ".0123456789abcdef.part~", ".notes")]
    for path in (*ours, *others):
        path.write_bytes(b"x")
    fake_run(paths, output=out)
    assert not any(path.exists() for path in ours) and all(path.exists() for path in others)
    assert not any(PART.fullmatch(path.name) for path in others)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    request = ["a request"]
    with OutputFolder(tmp_path / "out", request), pytest.raises(InputError, match="another run is writing"):
        OutputFolder(tmp_path / "out", request)
    with OutputFolder(tmp_path / "out", request):
        pass
    with pytest.raises(InputError, match="results of another"):
        OutputFolder(tmp_path / "out", ["another"])
    # The refusal ends the lock.
    with OutputFolder(tmp_path / "out", request):
        pass


def test_a_file_system_without_locks_is_told_and_a_file_is_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    out = tmp_path / "out"
    with OutputFolder(out, ["a"]):
        assert "has no locks" in caplog.text
        with pytest.raises(InputError, match=r"delete \.progress\.lock"):
            OutputFolder(out, ["a"])
    assert not (out / lock_module.LOCK_FILE).exists()
    with OutputFolder(out, ["a"]):
        pass


def test_lines_of_another_request_are_ignored(tmp_path: Path) -> None:
    """What two runs without a lock could have left: answers to one sentence under the head of another."""
    paths = write_arrays(tmp_path / "in", 2)
    left, right = tmp_path / "left", tmp_path / "right"
    fake_run(paths, LEFT, left)
    fake_run(paths, RIGHT, right)
    masks = [(right / f"input{n + 1}_{n:04d}_mask.png").read_bytes() for n in range(2)]
    _, *lines = (left / NAME).read_text().splitlines(keepends=True)
    (right / NAME).write_text((right / NAME).read_text().splitlines(keepends=True)[0] + "".join(lines))
    for path in left.glob("*.png"):
        (right / path.name).write_bytes(path.read_bytes())
    report = fake_run(paths, RIGHT, right)
    assert report.resumed == 0
    assert [(right / f"input{n + 1}_{n:04d}_mask.png").read_bytes() for n in range(2)] == masks


def test_digests_of_two_folders_differ(tmp_path: Path) -> None:
    """So that neither a sentence nor a path can be looked up, and equal slices are not seen to be equal."""
    paths = write_arrays(tmp_path / "in", 1)
    texts = []
    for name in "ab":
        fake_run(paths, LEFT, tmp_path / name)
        texts.append((tmp_path / name / NAME).read_text().splitlines())
    rows = [[json.loads(line) for line in text] for text in texts]
    assert rows[0][0]["request"] != rows[1][0]["request"] and rows[0][1]["key"] != rows[1][1]["key"]
    assert {row["request"] for row in rows[0]} == {rows[0][0]["request"]}


def test_a_mask_that_was_changed_by_hand_is_kept(tmp_path: Path) -> None:
    paths, out = write_arrays(tmp_path / "in", 1), tmp_path / "out"
    fake_run(paths, output=out)
    plain = (out / "0000_mask.png").read_bytes()
    for n, name in enumerate(("0000_mask.edited.png", "0000_mask.edited2.png")):
        Image.fromarray(np.full((64, 64), n, np.uint8)).save(out / "0000_mask.png")
        edited = (out / "0000_mask.png").read_bytes()
        report = fake_run(paths, output=out)
        assert report.kept == [f"0000_mask.png was changed by hand; it is kept as {name}"]
        assert (out / name).read_bytes() == edited and (out / "0000_mask.png").read_bytes() == plain


def test_a_users_own_files_are_never_deleted(tmp_path: Path) -> None:
    paths, out = write_arrays(tmp_path / "in", 3), tmp_path / "out"
    volume = tmp_path / "in"
    for n, path in enumerate(paths):
        path.rename(volume / f"{n}.bin")
    paths = [tmp_path / f"{n}.npy" for n in range(3)]
    for n, path in enumerate(paths):
        (volume / f"{n}.bin").rename(path)
    fake_run(paths[:1], output=out)
    mine = {"123_mask.png": b"a", "0007_overlay.png": b"b", "mask.nii.gz": b"c", "segmentation.dcm": b"d"}
    for name, data in mine.items():
        (out / name).write_bytes(data)
    fake_run(paths[:1], output=out)
    assert {name: (out / name).read_bytes() for name in mine} == mine


def test_the_results_before_stay_whole_until_the_new_ones_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, out = write_arrays(tmp_path / "in", 2), tmp_path / "out"
    fake_run(paths, output=out)
    before = content(out)
    before.pop(NAME)
    for path in paths:
        np.save(path, np.load(path)[::-1].copy())

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            fake_run(paths, output=out)
    after = content(out)
    assert {name: after[name] for name in before} == before
    # What waits is not computed again.
    assert fake_run(paths, output=out).resumed == 2
    fake_run(paths, output=tmp_path / "fresh")
    for path in (tmp_path / "fresh").glob("*.png"):
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    assert not list(out.glob(".*"))


def test_what_cannot_be_read_for_once_costs_no_picture(tmp_path: Path) -> None:
    paths, out = write_arrays(tmp_path / "in", 3), tmp_path / "out"
    fake_run(paths, output=out)
    names = {path.name for path in out.iterdir()}
    data = paths[2].read_bytes()
    paths[2].write_bytes(b"")
    report = fake_run(paths, output=out)
    assert len(report.not_read) == 1 and len(report.results) == 2
    assert names <= {path.name for path in out.iterdir()}
    paths[2].write_bytes(data)
    assert fake_run(paths, output=out).resumed == 3


def test_the_folder_is_for_its_owner(tmp_path: Path) -> None:
    paths = write_arrays(tmp_path / "in", 1)
    fake_run(paths, output=tmp_path / "new" / "out")
    assert stat.S_IMODE((tmp_path / "new" / "out").stat().st_mode) == 0o700
    (tmp_path / "shared").mkdir(mode=0o750)
    fake_run(paths, output=tmp_path / "shared")
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o750


def test_an_output_in_an_input_is_refused(tmp_path: Path) -> None:
    paths = write_arrays(tmp_path / "in", 1)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for out in (tmp_path / "in", tmp_path / "in" / "out", tmp_path / "link" / "a" / "b"):
        with pytest.raises(InputError, match="lies in input 2"):
            fake_run([paths[0], tmp_path / "in"], output=out)
    assert not (tmp_path / "in" / "out").exists()
    fake_run(paths, output=tmp_path / "in" / "out")


def test_a_mask_is_opened_as_png_only_and_of_its_size(tmp_path: Path) -> None:
    ct = CtSlice(np.zeros((20, 31), np.float32))

    def saved(shape: tuple[int, int], kind: str) -> bytes:
        path = tmp_path / f"a.{kind}"
        Image.fromarray(np.full(shape, 255, np.uint8)).save(path)
        return path.read_bytes()

    mask = read_mask(saved((20, 31), "png"), ct)
    assert mask is not None and mask.all()
    assert read_mask(saved((20, 31), "bmp"), ct) is None
    assert read_mask(saved((31, 20), "png"), ct) is None
    assert read_mask(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 31 20\n", ct) is None
    assert read_mask(saved((20, 31), "png")[:40], ct) is None


def test_records_of_nonsense_are_ignored(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with OutputFolder(out, ["a"]):
        pass
    digest: Any = json.loads((out / NAME).read_text())["request"]
    lines = ["[]", "null", '{"key": 3}', json.dumps({"request": digest, "files": {"../../x": "0"}, "record": {}})]
    with (out / NAME).open("a") as file:
        file.write("\n".join(lines))
    journal = Journal(out, ["a"])
    assert not journal and journal.digests == {}
    journal.close()
    # The line that was cut off does not merge with the next one.
    assert (out / NAME).read_text().endswith("}\n")
