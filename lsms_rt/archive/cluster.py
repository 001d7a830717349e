"""Ray: started on this machine, closed to all others, or found at an address; and a pass over series with Ray Data."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

from lsms_rt.errors import InputError, MachineError, MissingDependencyError
from lsms_rt.machine.cpu import cpu_count

from .worker import SeriesWorker, Settings

LOOPBACK = "127.0.0.1"
# The object store holds paths only; Ray allows no less.
STORE_BYTES = 100 * 2**20
# Of the path of the temporary folder: that of a socket has at most 107 bytes, and below it are 86.
MAX_TEMPORARY = 21


@dataclass(frozen=True, kw_only=True)
class Actors:
    """The processes that share the series.

    Attributes:
        count: of processes, each with an engine; None for as many as the machines allow.
        threads: CPU threads of each.
        gpus: GPUs of each: 0; 1; or a share, 0.25 for four processes on every GPU.
    """

    count: int | None
    threads: int
    gpus: float = 0


@contextmanager
def cluster(address: str | None, actors: Actors) -> Iterator[Actors]:
    """Connect to Ray, or start it on this machine; yield the actors with their number.

    On this machine Ray listens on the loopback interface only, and wants a token that no other user knows.  It sends
    nothing to its makers.

    Raises:
        InputError: the cluster at the address has no token authentication.
        MachineError: Ray cannot be started or reached, or has fewer CPUs or GPUs than are asked for.
        MissingDependencyError: it is not installed.
    """
    if address is not None and os.environ.get("RAY_AUTH_MODE") != "token":
        raise InputError(
            "whoever reaches a Ray cluster without authentication can run any code on it; start it with "
            "RAY_AUTH_MODE=token, and set that and RAY_AUTH_TOKEN here too"
        )
    length = len(os.fsencode(tempfile.gettempdir()))
    if address is None and length > MAX_TEMPORARY:
        raise MachineError(
            f"the temporary folder's path has {length} bytes, and Ray's sockets allow {MAX_TEMPORARY}; set TMPDIR to a "
            "shorter one, e.g. /tmp"
        )
    _environment(local=address is None)
    try:
        # Ray reads its environment when it is imported.
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError("archive needs ray; pip install 'lsms-rt[ray]'") from error
    folder = None if address is not None else tempfile.mkdtemp(prefix="lsms-ray-")
    try:
        sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**_arguments(address, actors, folder), logging_level=logging.ERROR, log_to_driver=False)
        except (OSError, RuntimeError, ValueError, TimeoutError) as error:
            kind = type(error).__name__
            raise MachineError(f"Ray cannot be used ({kind}); check --address and its token") from error
        if threading.current_thread() is threading.main_thread():
            # Ray replaced what SIGTERM does by an exit without a word.
            signal.signal(signal.SIGTERM, sigterm)
        if address is None and any(node["NodeManagerAddress"] != LOOPBACK for node in ray.nodes()):
            raise MachineError(f"Ray {ray.__version__} would listen to other machines; pip install 'ray[data]==2.60.*'")
        # Ray prints what died, and stdout is for results.
        with redirect_stdout(sys.stderr):
            yield _counted(actors, ray.cluster_resources())
    finally:
        ray.shutdown()
        if folder is not None:
            # Its logs tell paths.
            shutil.rmtree(folder, ignore_errors=True)


def processed(
    rows: Iterable[dict[str, Any]], settings: Settings, actors: Actors
) -> Generator[dict[str, Any], None, None]:
    """Pass rows to the actors; yield what :class:`SeriesWorker` returns, in any order.  At the end Ray is shut down.

    By default Ray starts an actor that died again, and gives it the same row again, without end: :class:`SeriesWorker`
    counts.  With an end of its own, Ray loses the row.

    Raises:
        MachineError: Ray failed.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    assert actors.count is not None
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    items = list(rows)
    # A block a row: what dies with an actor is one series.
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(
        SeriesWorker, fn_constructor_args=[settings], compute=ActorPoolStrategy(size=min(actors.count, len(items))),
        num_cpus=actors.threads, num_gpus=actors.gpus,
    )  # fmt: skip
    try:
        yield from dataset.iter_rows()
    except ray.exceptions.RayError as error:
        raise MachineError(f"Ray failed ({type(error).__name__}); see whether all machines of it are up") from error
    finally:
        # Of an interrupted pass, processes must not go on.
        ray.shutdown()


def _environment(*, local: bool) -> None:
    """Set how Ray runs, which it reads from the environment; its processes inherit it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    if local:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # By this name Ray says that a machine is no part of a cluster: then it listens on the loopback interface only.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def _arguments(address: str | None, actors: Actors, folder: str | None) -> dict[str, Any]:
    if address is not None:
        return {"address": address}
    count = actors.count or (1 if actors.gpus else max(1, cpu_count() // actors.threads))
    cpus = {} if actors.gpus and actors.count is None else {"num_cpus": count * actors.threads}
    # "local": never a cluster that happens to run here.
    return {
        "address": "local", "include_dashboard": False, "object_store_memory": STORE_BYTES,
        # Ray lets everybody read what it makes, so it is made inside of a folder that only its owner enters.
        "_temp_dir": f"{folder}/r", **cpus,
    }  # fmt: skip


def _counted(actors: Actors, resources: dict[str, float]) -> Actors:
    """Return actors with their number, as many as there is room for."""
    room = int(resources.get("CPU", 0)) // actors.threads
    if actors.gpus:
        room = min(room, int(resources.get("GPU", 0) / actors.gpus))
    if room < (actors.count or 1):
        needs = f"{actors.threads} CPUs{f' and {actors.gpus:g} GPUs' if actors.gpus else ''}"
        raise MachineError(f"Ray has room for {room} processes of {needs} each; give fewer --actors, or --threads")
    return replace(actors, count=actors.count or room)
