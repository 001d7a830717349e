"""Counters for Prometheus.  Labels are engines, stages and outcomes: never a sentence, an identifier or a name."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from .jobs import Job
from .pool import Pool
from .tasks import Cancelled, Done, Failed, Infer, Segment

# of a slice on a GPU to a large series on a CPU
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
FOUND, NOTHING, NOT_UNDERSTOOD, REFUSED, ERROR, CANCELLED = OUTCOMES = (
    "found", "nothing", "not_understood", "refused", "error", "cancelled",
)  # fmt: skip


class Metrics:
    """All metrics of a server."""

    def __init__(self, pool: Pool) -> None:
        self.registry = CollectorRegistry()
        keep: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter(
            "lsms_requests",
            "Questions by outcome; a question is a sentence about an image.",
            ["model", "outcome"],
            **keep,
        )
        self._rejected = Counter("lsms_rejected", "Requests that found the queue full.", **keep)
        self._slices = Counter("lsms_slices", "Slices that were computed, once per sentence.", ["model"], **keep)
        self._seconds = Histogram(
            "lsms_stage_seconds", "Time by stage of a request.", ["stage"], buckets=SECONDS, **keep
        )
        self._scores = Counter(
            "lsms_score_sum", "Sum of the highest score of each answered question; over lsms_answered, the mean score.",
            ["model"], **keep,
        )  # fmt: skip
        self._answered = Counter("lsms_answered", "Questions that were answered.", ["model"], **keep)
        self._empty = Counter(
            "lsms_nothing_found", "Answered questions for which nothing was found; over lsms_answered, their share.",
            ["model"], **keep,
        )  # fmt: skip
        gauges = (
            ("lsms_queue_waiting", "Tasks that wait.", lambda: pool.waiting),
            ("lsms_running", "Tasks that workers are doing.", lambda: pool.running),
            ("lsms_workers_ready", "Worker processes with open engines.", lambda: pool.ready),
        )
        for name, text, value in gauges:
            Gauge(name, text, **keep).set_function(value)
        self._engines = Gauge(
            "lsms_engine_info", "Always 1; the labels say which engine it is.",
            ["model", "digest", "precision", "backend", "version"], **keep,
        )  # fmt: skip
        self._pool = pool

    def rejected(self) -> None:
        self._rejected.inc()

    def count(self, job: Job) -> None:
        """Count a job that is over."""
        if job.started is not None and job.ended is not None:
            self._seconds.labels("queue").observe(job.started - job.created)
            self._seconds.labels("task").observe(job.ended - job.started)
        if isinstance(job.reply, Done):
            for stage, seconds in job.reply.seconds.items():
                self._seconds.labels(stage).observe(seconds)
        if isinstance(job.task, (Infer, Segment)):
            self._count_questions(job, job.task)

    def _count_questions(self, job: Job, task: Infer | Segment) -> None:
        if not isinstance(job.reply, Done):
            self._requests.labels(task.model, _outcome(job.reply)).inc(len(task.sentences))
            return
        for found, score, slices in _answers(task, job.reply.value):
            self._requests.labels(task.model, FOUND if found else NOTHING).inc()
            self._answered.labels(task.model).inc()
            self._empty.labels(task.model).inc(not found)
            self._scores.labels(task.model).inc(score)
            self._slices.labels(task.model).inc(slices)

    def note_engines(self) -> None:
        """Tell of the engines that workers have opened."""
        version = importlib.metadata.version("lsms-rt")
        for name, about in self._pool.models.items():
            self._engines.labels(name, about["digest"], about["precision"], about["backend"], version).set(1)


def _outcome(reply: Failed | Cancelled | Any) -> str:
    if isinstance(reply, Failed):
        return NOT_UNDERSTOOD if reply.status == 422 else REFUSED if reply.status < 500 else ERROR
    return CANCELLED


def _answers(task: Infer | Segment, value: dict[str, Any]) -> list[tuple[bool, float, int]]:
    """Return for each sentence whether something was found, the highest score, and the number of slices."""
    if isinstance(task, Infer):
        rows = zip(value["found"], value["score"], strict=True)
        return [(bool(found.any()), float(score.max()), len(found)) for found, score in rows]
    records = [[r for r in value["results"] if r["sentence"] == n] for n in range(1, len(task.sentences) + 1)]
    return [(any(r["found"] for r in row), max(r["score"] for r in row), len(row)) for row in records if row]
