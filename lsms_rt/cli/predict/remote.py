"""``lsms-rt predict --server URL``: the server computes; images are read, and files written, on this machine."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt import __version__
from lsms_rt.answers import slices_together
from lsms_rt.api_key import read_key
from lsms_rt.client import Answer, Client, ServerError
from lsms_rt.ct_slice import CtSlice
from lsms_rt.engine.gate import warn_of_gate
from lsms_rt.errors import InputError
from lsms_rt.segmentation import Segmentation
from lsms_rt.sentences import Reading
from lsms_rt.sentences.reader import refuse, refuse_unanswerable
from lsms_rt.tokenizer import check_count

# Options that say how an engine of this machine runs.
LOCAL, SWITCHES = ("threads", "device", "digest"), ("lenient", "trust", "no_cuda_graph")
# Of one request: sentences, and values of its image.
MAX_SENTENCES, MAX_VALUES = 16, 2**24
# Where the server lists the words that may be said.
WORDS = "GET /models/NAME/words of the server"
OTHER_VERSION = "the server is of another version of lsms-rt; install the same on both machines"


@dataclass(frozen=True, kw_only=True)
class About:
    """What the server tells of an engine, as its manifest would."""

    weights_note: str
    backend: str
    max_batch: int
    max_tokens: int
    confidence: float


class RemoteSegmenter:
    """An engine behind a server, which is asked as a ``Segmenter`` is; nothing but pixels and sentences is sent.

    Args:
        client: asks the server.
        about: what it tells of the engine.

    Raises:
        ServerError: the server is of another version.
    """

    def __init__(self, client: Client, about: Mapping[str, Any]) -> None:
        self._client = client
        self._readings: dict[str, Reading] = {}
        # Why nothing is asked any more.
        self._gone: ServerError | None = None
        try:
            self.manifest = About(
                weights_note=about["weights"], backend=about["backend"], max_batch=about["max_batch"],
                max_tokens=about["max_tokens"], confidence=about["confidence"],
            )  # fmt: skip
            self.digest, self.precision, self.gate = about["digest"], about["precision"], about["gate"]
            self.device, self.backend_version = about["device"], about["backend_version"]
        except KeyError:
            raise ServerError(OTHER_VERSION) from None
        warn_of_gate(self.precision, self.gate)

    def prepare_sentence(self, text: str) -> tuple[str, ...]:
        """Refuse a sentence that the engine would refuse; return its unknown words."""
        reading = self.read_sentence(text)
        refuse_unanswerable(reading, WORDS)
        refuse(reading, f"see {WORDS} for what may be said")
        check_count(reading.tokens, self.manifest.max_tokens)
        return reading.unknown_words

    def read_sentence(self, text: str) -> Reading:
        """Return how the engine reads a sentence."""
        if text not in self._readings:
            try:
                self._readings[text] = Reading.from_record(self._client.read(text))
            except (KeyError, TypeError):
                raise ServerError(OTHER_VERSION) from None
        return self._readings[text]

    def predict(self, img: CtSlice, text: str) -> Segmentation:
        """Return the answer for one slice."""
        ((result,),) = self.predict_series([img], [text])
        return result

    def predict_series(
        self, images: Sequence[CtSlice], text: Sequence[str], *, batch: int | None = None
    ) -> Iterator[list[Segmentation]]:
        """Yield a list per slice, of one answer per sentence; a request holds as many slices as a batch."""
        readings = [self.read_sentence(one) for one in text]
        done = 0
        while done < len(images):
            most = max(1, MAX_VALUES // images[done].hu.size)
            count = min(most, slices_together(len(text), batch or self.manifest.max_batch))
            # Of one request: slices that are alike.
            _, alike = next(groupby(images[done : done + count], lambda ct: (ct.hu.shape, ct.spacing_mm)))
            slices = list(alike)
            begin = time.perf_counter()
            answers = self._asked(slices, text)
            share = (time.perf_counter() - begin) * 1000 / (len(slices) * len(text))
            for n, ct in enumerate(slices):
                asked = zip(answers, text, readings, strict=True)
                yield [self._result(done + n, ct, n, answer, one, reading, share) for answer, one, reading in asked]
            done += len(slices)

    def _asked(self, slices: Sequence[CtSlice], texts: Sequence[str]) -> list[Answer]:
        """Return an answer per sentence, each for all slices."""
        image, answers = np.stack([ct.hu for ct in slices]), list[Answer]()
        for start in range(0, len(texts), MAX_SENTENCES):
            if self._gone is not None:
                raise self._gone
            try:
                found = self._client.predict(image, texts[start : start + MAX_SENTENCES], spacing=slices[0].spacing_mm)
            except ServerError as error:
                # Every other slice would wait for it, too; what is done is kept.
                self._gone = error if error.status is None else None
                raise
            answers += found if isinstance(found, list) else [found]
        if {answer.engine for answer in answers} != {self.digest}:
            # Results of two engines must not be told as one's.
            self._gone = ServerError("the server has another engine of this name by now; run it again with another -o")
            raise self._gone
        return answers

    def _result(
        self, index: int, ct: CtSlice, place: int, answer: Answer, text: str, reading: Reading, ms: float
    ) -> Segmentation:
        return Segmentation(
            mask=ct.to_input_grid(answer.mask[place]),
            # The server does not tell it, and no file holds it.
            probability=np.broadcast_to(np.float32(np.nan), answer.mask[place].shape),
            text=text, score=float(answer.score[place]), ct=ct, weights_note=self.manifest.weights_note,
            confidence=self.manifest.confidence, reading=reading, index=index, timings={"total": ms},
        )  # fmt: skip

    def __enter__(self) -> RemoteSegmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def open_remote(arguments: argparse.Namespace) -> RemoteSegmenter:
    """Return the engine that the arguments name, behind the server that they name.

    Raises:
        InputError: an option has no meaning with a server, or it has no such engine.
        ServerError: there is no answer.
    """
    given = [f"--{name}" for name in LOCAL if getattr(arguments, name) is not None]
    given += [f"--{name.replace('_', '-')}" for name in SWITCHES if getattr(arguments, name)]
    if given:
        raise InputError(f"for an engine on this machine only: {', '.join(given)}; leave out what is, with --server")
    name = _model(arguments.engine)
    client = Client(arguments.server, api_key=read_key(arguments.api_key_file, os.environ), model=name)
    try:
        if client.about()["version"] != __version__:
            # It may read sentences, and prepare slices, in another way.
            raise ServerError(OTHER_VERSION)
        models = client.models()
        if name not in models:
            raise InputError(f"the server has no engine of this name; it has {', '.join(models)}")
        return RemoteSegmenter(client, models[name])
    except BaseException:
        client.close()
        raise


def _model(engine: Path) -> str:
    """Return the name by which the server knows an engine: that of its folder."""
    return engine.name.removesuffix(".engine")
