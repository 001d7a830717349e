"""A worker process without engines: what it does is what the sentence says."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import numpy as np

from lsms_rt.errors import InputError
from lsms_rt.serving.tasks import Cancelled, Describe, Done, Opened, Progress, Segment, failed
from lsms_rt.serving.volume import IMAGE
from lsms_rt.serving.wire import Pipe

STEP = 0.02


def main(pipe: Pipe, models: Any, device: Any, threads: Any, runtime: Any) -> None:
    """Answer "slow N" after N steps, "die" never, "deaf" without hearing a cancellation, "raise" with an error.

    A reading does what its series says.
    """
    if runtime.get("broken"):
        pipe.send(failed(InputError("the engine cannot be opened")))
        return
    about = {"digest": "sha256:0", "backend": "fake", "precision": "fp32", "image_size": 32}
    pipe.send(Opened({model.name: about | {"pid": os.getpid()} for model in models}))
    try:
        while True:
            task = pipe.recv()
            if not isinstance(task, str):
                pipe.send(_reply(task, pipe))
    except (EOFError, BrokenPipeError):
        return


def _reply(task: Any, pipe: Pipe) -> Any:
    said = task.series or "slow 1" if isinstance(task, Describe) else getattr(task, "sentences", ("slow 1",))[0]
    word, _, number = said.partition(" ")
    if isinstance(task, Describe):
        # The former volume stays whole, whatever comes of this one.
        task.output.mkdir()
        (task.output / IMAGE).write_bytes(said.encode())
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "raise":
        return failed(ValueError("Mr. Miller"))
    for n in range(int(number or 1)):
        time.sleep(STEP)
        if word != "deaf" and pipe.poll() and pipe.recv() == "cancel":
            return Cancelled()
        pipe.send(Progress(n + 1, int(number or 1)))
    if isinstance(task, Describe):
        return Done({"shape": [1, 2, 2], "spacing": [1.0, 1.0, 1.0], "read": said})
    if isinstance(task, Segment):
        task.output.mkdir()
        (task.output / "results.json").write_text(json.dumps({"grid": task.grid.read_text()}))
        return Done({"results": []})
    count = len(getattr(task, "sentences", [0]))
    value = {
        "mask": np.zeros((count, 1, 32, 32), np.uint8), "score": np.zeros((count, 1), np.float32),
        "found": np.zeros((count, 1), bool), "read_as": ["x"] * count, "notes": [""] * count,
        "engine": "sha256:0",
    }  # fmt: skip
    return Done(value, {"image": 0.1})
