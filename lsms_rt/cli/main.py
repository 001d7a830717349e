"""The command line: ``lsms-rt COMMAND``.

Exit codes: 0 done, 2 bad usage or input, 3 environment, 4 engine refused, 5 done but for what could not be read
or written.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lsms_rt.data import demo_calibration, demo_engine
from lsms_rt.errors import DatasetError, LsmsError, MachineError
from lsms_rt.privacy import label, show_names

from .bench import RUNS as BENCH_RUNS
from .build import build_engine, calibrate, say
from .parser import NOT_FOR_DIAGNOSIS, Run, joined, make_parser

# what "demo" means to an argument, unless there is a folder of that name with this file
BUNDLED = dict.fromkeys(("engine", "engines", "from_engine", "source"), ("manifest.json", demo_engine)) | {
    "calibration": ("recipe.json", demo_calibration)
}
PROBLEMS = 50  # of a data set that are printed
IN_PART = 5  # exit code: the rest is done
EXTRAS = {  # a missing module -> what to install
    **dict.fromkeys(("torch", "transformers", "onnx", "onnxscript", "safetensors", "matplotlib"), "lsms-rt[build]"),
    **dict.fromkeys(("scipy", "tqdm"), "lsms-rt[phantom]"),
}


def predict(options: argparse.Namespace) -> int:
    from lsms_rt.segmentation import UNKNOWN_WORDS
    from lsms_rt.segmenter import Segmenter

    from .predict.outputs import Request
    from .predict.run import run
    from .predict.words import lines

    request = Request(
        options.text, options.output, options.series, None if options.window is None else tuple(options.window),
        options.batch, options.seg, options.empty_seg, options.nifti,
    )  # fmt: skip
    where = {"device": options.device, "cuda_graph": not options.no_cuda_graph}
    with Segmenter(options.engine, digest=options.digest, threads=options.threads, **where) as segmenter:
        report = run(segmenter, options.input, request, _bar)
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        for line in lines(report):
            print(line)
    notes = dict.fromkeys(note for record in report.results for note in record["notes"])
    for note in notes:
        if note.startswith(UNKNOWN_WORDS):
            say(f"warning: {note}; the answer is to the rest of the sentence")
    for reason in report.not_read:
        say(f"not read: {reason}")
    for reason in report.not_written:
        say(f"not written: {reason}")
    if report.resumed:
        say(f"{report.resumed} slices were done by a run before")
    if options.output is not None and not options.json:
        print(f"overlays, masks and results.json are in {options.output if options.names else 'the output folder'}")
    return IN_PART if report.not_read or report.not_written else 0


def _bar(answers: Iterator[Any], total: int) -> Iterator[Any]:
    """A progress bar on a terminal, nothing in a pipe."""
    from tqdm import tqdm

    yield from tqdm(answers, total=total, unit="slice", leave=False, disable=None if total > 1 else True)


def inspect(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from lsms_rt.engine import open_directory

    engine = open_directory(options.engine)
    sizes = {name: len(engine.read(name)) for name in engine.manifest.files}
    if options.json:
        print(json.dumps({"digest": engine.digest, "bytes": sizes, "manifest": asdict(engine.manifest)}, indent=2))
        return
    print(f"{engine.path}: all files are as they were built\ndigest {engine.digest}")
    for name, value in asdict(engine.manifest).items():
        if name == "files":
            value = ", ".join(f"{file} ({size / 1e6:.1f} MB)" for file, size in sizes.items())
        if name != "manifest_digest":
            _print_value(name.replace("_", " "), value)


def _print_value(name: str, value: Any) -> None:
    """A field in a line; of a nested one every part, what is empty not at all."""
    if isinstance(value, dict):
        for part, of_it in value.items():
            _print_value(f"{name}: {part.replace('_', ' ')}", of_it)
    elif isinstance(value, (list, tuple)) and value:
        print(f"{name:34} {', '.join(map(str, value))}")
    elif value not in (None, "", [], ()):
        print(f"{name:34} {value}")


def doctor(options: argparse.Namespace) -> None:
    from .doctor import examine

    report = examine()
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        for section, lines in report.items():
            for name, value in lines.items():
                print(f"{section:9} {name:20} {_state(value) if isinstance(value, dict) else value}")
    if not report["runtime"]["works"]:
        raise MachineError("the bundled engine does not run on this machine; see the lines above")


def _state(backend: dict[str, Any]) -> str:
    """What doctor says of a backend, in a line."""
    if backend["version"] is None:
        return "; ".join(filter(None, (f"absent: {backend['missing']}", backend.get("fix"))))
    can = ", ".join(f"{what} here: {'yes' if backend[what] else 'no'}" for what in ("builds", "runs"))
    devices = f" on {', '.join(backend['devices'])}" if "devices" in backend else ""
    more = devices + (f" with {backend['kernels']} operations" if "kernels" in backend else "")
    why = f"; {backend['missing']}: {backend['fix']}" if "missing" in backend else ""
    return f"{backend['version']}, {can}{more}{why}"


def demo(options: argparse.Namespace) -> None:
    from .demo import run_demo

    rows = run_demo(options.output)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("Three synthetic slices and one real one, weights trained on synthetic CT:\n")
    for row in rows:
        answer = f"{row['pixels']} pixels" if row["found"] else "nothing found"
        print(f'{row["source"]:18} "{row["text"]}"\n{"":18}   {answer}; {row["verdict"]}; {row["milliseconds"]:.0f} ms')
    print(f"\nPictures are in {options.output}: look at {options.output / 'demo.png'}. {NOT_FOR_DIAGNOSIS}")


def phantom(options: argparse.Namespace) -> None:
    from lsms_rt.datasets.phantom.dataset import PhantomSpec, write_phantom

    spec = PhantomSpec(options.cases, options.seed, options.matrix)
    count = write_phantom(options.output, spec, options.workers)
    print(f"{options.output}: {options.cases} cases, {count} slices; look at {options.output / 'contact_sheet.png'}")


def evaluate(options: argparse.Namespace) -> None:
    from lsms_rt.bench.accuracy import evaluate, save_answers
    from lsms_rt.datasets.refhl import read_annotations
    from lsms_rt.segmenter import Segmenter

    rows = read_annotations(options.dataset, options.split)
    where = {"device": options.device, "cuda_graph": not options.no_cuda_graph}
    with Segmenter(options.engine, threads=options.threads, **where) as segmenter:
        accuracy, answers = evaluate(segmenter, rows[: options.limit])
        digest = segmenter.digest
    if options.answers is not None:
        save_answers(options.answers, answers)
    figures = accuracy.to_dict()
    if options.json:
        print(json.dumps({"engine": digest, "split": options.split} | figures, indent=2))
        return
    for name, value in figures.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {mean:.3f}" for key, mean in value.items())
        text = "-" if value is None else f"{value:.3f}" if isinstance(value, float) else value
        print(f"{name.replace('_', ' '):20} {text}")


COMMANDS: dict[str, Run] = {
    "build-engine": build_engine,
    "calibrate": calibrate,
    "predict": predict,
    "inspect": inspect,
    "doctor": doctor,
    "demo": demo,
    "phantom": phantom,
    "evaluate": evaluate,
    **BENCH_RUNS,
}


class _Once(logging.Filter):
    """A series has the same remark on every slice; once is enough."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in self.seen
        self.seen.add(text)
        return new


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = make_parser(COMMANDS).parse_args(joined(sys.argv[1:] if argv is None else argv))
    for stream in (sys.stdout, sys.stderr):  # a file's name may not fit the terminal's encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    handler.addFilter(_Once())
    logger = logging.getLogger("lsms_rt")
    logger.addHandler(handler)
    logger.setLevel(options.log_level.upper())
    names = getattr(options, "names", True)  # other commands are for engineers' files
    show_names(names)
    for name, (file, bundled) in BUNDLED.items():
        given = getattr(options, name, None)
        if Path("demo", file).exists():
            continue
        if isinstance(given, list):
            setattr(options, name, [bundled() if str(path) == "demo" else path for path in given])
        elif str(given) == "demo":
            setattr(options, name, bundled())
    try:
        code = options.run(options) or 0
        sys.stdout.flush()
    except Exception as error:
        if options.debug:
            _show_where(error, names)
        return _explain(error, names)
    except KeyboardInterrupt:
        say("error: interrupted")
        return 130
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        show_names(False)
    return int(code)


def _show_where(error: BaseException, names: bool) -> None:
    """A traceback; without ``names`` one of places and types only, since other libraries' messages hold values."""
    if names:
        traceback.print_exception(error)
        return
    under: BaseException | None = error
    while under is not None:
        say(f"{type(under).__name__}, at")
        for frame in traceback.extract_tb(under.__traceback__):
            say(f"  {'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno} {frame.name}")
        under = under.__cause__ or under.__context__


def _explain(error: Exception, names: bool) -> int:
    if isinstance(error, LsmsError):
        say(f"error: {error}")
        if isinstance(error, DatasetError) and len(error.problems) > 1:
            for problem in error.problems[:PROBLEMS]:
                say(f"  {problem}")
            if len(error.problems) > PROBLEMS:
                say(f"  ... and {len(error.problems) - PROBLEMS} more")
        return error.exit_code
    if isinstance(error, BrokenPipeError):  # the reader of our output went away; not our error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.partition(".")[0]
        wanted = EXTRAS.get(package, package)
        clone = f", in a clone: pip install '{wanted.replace('lsms-rt', '.')}'" if package in EXTRAS else ""
        say(f"error: this command needs {package}; pip install '{wanted}'{clone}")
        return MachineError.exit_code
    if isinstance(error, OSError):
        name = label(error.filename, "a file") if error.filename else "a file"
        say(f"error: {name}: {error.strerror or type(error).__name__}")
        return 2
    what = f": {' '.join(str(error).split())}" if names else ""
    say(f"error: unexpected {type(error).__name__}{what} (--debug shows where, --names what)")
    return 1


if __name__ == "__main__":
    sys.exit(main())
