"""A model repository, an instance as Triton's stub makes it, and a real tritonserver where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lsms_rt.bench.tritonserver import CRASHED
from lsms_rt.data import demo_engine
from lsms_rt.triton_server.config import TritonOptions
from lsms_rt.triton_server.export import export_model


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the bundled engine: two instances, two places in the queue.  Read it only."""
    folder = tmp_path_factory.mktemp("triton") / "models"
    export_model(demo_engine(), folder, TritonOptions(name="demo", instances=2, threads=1, queue=2))
    return folder


@pytest.fixture(scope="module")
def triton_environment() -> Path:
    """The environment with a real tritonserver."""
    from lsms_rt.bench.tritonserver import environment
    from lsms_rt.errors import MachineError

    try:
        return environment()
    except MachineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def triton(triton_environment: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real tritonserver with that repository."""
    from lsms_rt.bench.tritonserver import TritonServer
    from lsms_rt.errors import MachineError

    server = TritonServer(repository, tmp_path_factory.mktemp("server"))
    try:
        try:
            server.start()
        except MachineError:
            if server.crashed:
                pytest.skip(CRASHED)
            raise
        yield server
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def _alive(request: pytest.FixtureRequest) -> None:
    """Start the server again that ended by itself in the test before, or was stopped there."""
    server = request.getfixturevalue("triton") if "triton" in request.fixturenames else None
    if server is not None and not server.get("/v2/health/live"):
        server.stop()
        server.start()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A test whose server crashed by itself shows nothing: it is skipped, and says so."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    server = getattr(item, "funcargs", {}).get("triton")
    if report.failed and server is not None and server.crashed:
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: {CRASHED}")


@pytest.fixture
def example() -> Path:
    return demo_engine().parent / "examples" / "phantom_1.dcm"
