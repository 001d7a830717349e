"""Counters for Prometheus, on this machine only.  Labels are outcomes, states and stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lsms_rt.errors import InputError

OUTCOMES = ("stored", "unchanged", "skipped", "put_back", "dead")
SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """Metrics of a worker; without a port, nothing is counted.

    Args:
        port: where they are told; 0 for any free port, None for nowhere.
        states: returns the number of series in each state of the ledger.
    """

    def __init__(self, port: int | None, states: Callable[[], Mapping[str, int]] = dict) -> None:
        self.port: int | None = None
        if port is None:
            return
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

        self._registry, self._states = CollectorRegistry(), states
        keep: dict[str, Any] = {"registry": self._registry}
        self._series = Counter("lsms_worker_series", "Series by outcome of an attempt.", ["outcome"], **keep)
        self._faults = Counter("lsms_worker_archive_faults", "Looks at the archive that failed.", **keep)
        self._seconds = Histogram("lsms_worker_seconds", "Time by stage.", ["stage"], buckets=SECONDS, **keep)
        self._queue = Gauge("lsms_worker_ledger", "Series by state.", ["state"], **keep)
        self._last = Gauge("lsms_worker_last_look", "When the archive last answered, in seconds since 1970.", **keep)
        for outcome in OUTCOMES:
            self._series.labels(outcome)
        try:
            self._server, self._thread = start_http_server(port, addr="127.0.0.1", registry=self._registry)
        except OSError as error:
            raise InputError(f"nobody can listen at 127.0.0.1:{port} ({error.strerror}); give another port") from error
        self.port = int(self._server.server_port)

    def count(self, outcome: str) -> None:
        if self.port is not None:
            self._series.labels(outcome).inc()

    def looked(self, *, failed: bool) -> None:
        """Note that the archive was asked for new series, and tell the states of the ledger."""
        if self.port is None:
            return
        if failed:
            self._faults.inc()
        else:
            self._last.set(time.time())
        for state, number in self._states().items():
            self._queue.labels(state).set(number)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            if self.port is not None:
                self._seconds.labels(stage).observe(time.perf_counter() - begin)

    def close(self) -> None:
        if self.port is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
