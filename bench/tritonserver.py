"""The tritonserver that nvidia-pytriton's wheel carries, in an environment of its own: for tests and measurements.

``tests/services/triton.sh`` makes the environment.  The wheel has the python backend only, and no GPU is used.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lsms_rt.errors import MachineError

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = "LSMS_RT_TRITON"
SHARED_MEMORY = Path("/dev/shm")
START_LIMIT, STOP_LIMIT = 120.0, 45.0
CRASHED = "tritonserver 2.51 ended by a fault of its own (SIGSEGV)"
# What the environment's interpreter tells of itself: its version, where its packages and its library are.
ASK = """
import json, sys, sysconfig
print(json.dumps([sys.version_info[:2], sysconfig.get_path("purelib"), sysconfig.get_config_var("LIBDIR")]))
"""


def environment() -> Path:
    """Return the environment's folder: ``LSMS_RT_TRITON``, or ``.venv-triton`` in the repository.

    Raises:
        MachineError: there is none.
    """
    folder = Path(os.environ.get(VARIABLE, ROOT / ".venv-triton"))
    if not (folder / "ready").is_file():
        raise MachineError("no environment with tritonserver; make it: tests/services/triton.sh")
    return folder


class TritonServer:
    """A server that runs; a context manager that stops it.

    Args:
        models: the model repository.
        folder: a folder for the server's own files.
        more: further options of tritonserver.

    Attributes:
        http: "127.0.0.1:PORT"; ``grpc`` likewise.
        python: the environment's interpreter.
    """

    def __init__(self, models: Path, folder: Path, more: Sequence[str] = ()) -> None:
        self._models, self._folder, self._more = models, folder, list(more)
        venv = environment()
        self.python = venv / "bin" / "python"
        version, self._site, self._libraries = json.loads(subprocess.check_output([self.python, "-c", ASK]))
        self._home = Path(self._site, "pytriton", "tritonserver")
        self._backends = folder / "backends"
        if not self._backends.exists():
            shutil.copytree(self._home / "backends", self._backends)
            stub = self._home / "python_backend_stubs" / ".".join(map(str, version)) / "triton_python_backend_stub"
            shutil.copy(stub, self._backends / "python")
        self._log = folder / "log"
        # of this server's regions in shared memory, which hold images
        self._prefix = f"lsms-rt-{secrets.token_hex(8)}-"
        self._process: subprocess.Popen[bytes] | None = None
        self.http = self.grpc = ""
        self._code: int | None = None

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What the server wrote."""
        return self._log.read_text(errors="replace")

    @property
    def crashed(self) -> bool:
        """Whether the server ended by a fault in memory, as Triton 2.51 does now and then when it starts."""
        return self._ended() == -signal.SIGSEGV

    @property
    def aborted(self) -> bool:
        """Whether the server ended by SIGABRT, as Triton 2.51 may do when one of its stubs is killed."""
        return self._ended() == -signal.SIGABRT

    def _ended(self) -> int | None:
        """Return the exit code of a server that ended or was stopped; None while it runs."""
        if self._process is None:
            return self._code
        if not self.get("/v2/health/live"):
            # It refuses connections a little before the system tells how it ended.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        return self._process.poll()

    def variables(self) -> dict[str, str]:
        """Return the environment variables of the server, and of programs that use its interpreter."""
        return os.environ | {
            # The stub takes the packages of the first python3.
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            # Debian's libpython has the name of the interpreter's own, and other modules.
            "LD_LIBRARY_PATH": f"{self._libraries}:{Path(self._site, 'nvidia_pytriton.libs')}",
            "TMPDIR": str(self._folder),
        }

    def start(self) -> None:
        """Start the server, and wait until its models are ready.

        Raises:
            MachineError: it ended, or is not ready in time.
        """
        ports = _free_ports(2)
        self.http, self.grpc = (f"127.0.0.1:{port}" for port in ports)
        command = [str(self._home / "bin" / "tritonserver"), "--model-repository", str(self._models)]
        command += ["--backend-directory", str(self._backends), "--cache-directory", str(self._home / "caches")]
        command += ["--http-address", "127.0.0.1", "--http-port", str(ports[0])]
        command += ["--grpc-address", "127.0.0.1", "--grpc-port", str(ports[1]), "--allow-metrics", "false"]
        command += ["--disable-auto-complete-config"]
        command += ["--backend-config", f"python,shm-region-prefix-name={self._prefix}", *self._more]
        with self._log.open("wb") as log:
            # lsms-rt itself is the checkout's: the stub looks for modules in the working directory, too.
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self.variables(), cwd=ROOT)
        end = time.monotonic() + START_LIMIT
        while not self.get("/v2/health/ready"):
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise MachineError(f"tritonserver did not start; {self._log} says why")
            time.sleep(0.05)

    def get(self, path: str) -> bool:
        """Whether a path is answered with 200."""
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://{self.http}{path}", timeout=10):
                return True
        except OSError:
            return False

    def stubs(self) -> list[int]:
        """Return the processes of the models' instances; Linux lists them."""
        assert self._process is not None
        children: list[str] = []
        for one in Path(f"/proc/{self._process.pid}/task").glob("*/children"):
            children += one.read_text().split()
        return sorted(int(pid) for pid in children if b"backend_stub" in Path(f"/proc/{pid}/cmdline").read_bytes())

    def pids(self) -> list[int]:
        """Return the server's process and those of the instances."""
        assert self._process is not None
        return [self._process.pid, *self.stubs()]

    def regions(self) -> list[Path]:
        """Return the server's regions in shared memory."""
        return list(SHARED_MEMORY.glob(f"{self._prefix}*"))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop the server; return its exit code."""
        if self._process is None:
            return 0
        stubs = self.stubs() if self._process.poll() is None else []
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            code = process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        self._code = code
        for pid in stubs:
            # A stub whose server was killed ends by itself, but not at once.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # A server that was killed leaves them.
        for region in self.regions():
            region.unlink()
        return code


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
