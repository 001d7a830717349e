"""Puts a worker together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from lsms_rt import __version__
from lsms_rt.errors import InputError, located
from lsms_rt.runs.jobs import jobs_of, read_sentences
from lsms_rt.segmenter import Segmenter

from .audit import Audit
from .dicomweb import DicomWeb
from .feed import Feed
from .http import Http, Login
from .ledger import Ledger
from .loop import Loop, stopped_by_signals
from .metrics import Metrics
from .orthanc import Orthanc
from .rules import Rules
from .work import Work


@contextmanager
def started(segmenter: Segmenter, rules: Rules, metrics_port: int | None) -> Iterator[Loop]:
    """Yield a worker that signals stop.

    Args:
        segmenter: the engine.
        rules: what to do.
        metrics_port: where to tell metrics; None for nowhere.

    Raises:
        InputError: a sentence of the rules cannot be used with this engine.
    """
    _check_sentences(segmenter, rules)
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(Ledger(rules.state)))
        ledger.begin(rules.dicomweb, rules.fingerprint)
        audit = stack.enter_context(closing(Audit(rules.state)))
        metrics = stack.enter_context(closing(Metrics(metrics_port, ledger.counts)))
        archive = DicomWeb(stack.enter_context(closing(Http(rules.dicomweb, Login.of_environment(), rules.ca))))
        orthanc = None
        if rules.orthanc is not None:
            orthanc = Orthanc(stack.enter_context(closing(Http(rules.orthanc, Login.of_environment(), rules.ca))))
        feed = Feed(rules, archive, orthanc, ledger)
        work = Work(segmenter, rules, archive, orthanc if rules.replace else None, ledger, metrics)
        loop = Loop(rules, feed, ledger, work, audit, metrics)
        audit.write("started", engine=segmenter.digest, version=__version__)
        stack.enter_context(stopped_by_signals(loop))
        yield loop
        audit.write("stopped")


def _check_sentences(segmenter: Segmenter, rules: Rules) -> None:
    """Read all sentences of the rules before the first series."""
    for number, rule in enumerate(rules.rules, 1):
        try:
            read_sentences(segmenter, dict(enumerate(jobs_of([rules.state], rule.sentences), 1)))
        except InputError as error:
            raise located(error, f"rule {number}: ") from error
