"""The client: engines, sentences, images and jobs of a server."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from lsms_rt.errors import InputError
from lsms_rt.kserve_request import JSON_LENGTH, Tensor, bytes_tensor, image_tensor, request_of, value_of

from .connection import NOT_OURS, Connection, ServerError
from .files import read_file, slice_files

_log = logging.getLogger("lsms_rt")
# Called with the slices that are done, and their number.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """What was found for one sentence.

    Attributes:
        mask: bool (slices, rows, columns), in the image's own grid; of one slice (rows, columns).
        score: float32 (slices,), the highest probability in each.
        found: whether the mask is not empty.
        read_as: the sentence as the engine reads it.
        notes: what of it is not understood; "" for nothing.
        engine: digest of the engine that answered.
    """

    mask: np.ndarray = field(repr=False)
    score: np.ndarray
    found: bool
    read_as: str = field(repr=False)
    notes: str = field(repr=False)
    engine: str = ""


class Client:
    """Asks a server.  It may be used from several threads, and is a context manager.

    Args:
        url: of the server, e.g. "http://127.0.0.1:8765".
        api_key: its key; None: that of the environment variable LSMS_RT_API_KEY, if it is set.
        model: name of the engine; None: the only one.
        timeout: seconds to wait for an answer.

    Raises:
        InputError: the URL is none, or the certificates that the environment names cannot be read.
        MissingDependencyError: httpx is not installed.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, model: str | None = None, timeout: float = 600.0
    ) -> None:
        self._server = Connection(url, api_key, timeout)
        self.url = self._server.url
        self._model = model

    def predict(self, image: str | os.PathLike[str] | np.ndarray, text: str | Sequence[str], *,
                spacing: tuple[float, float] | None = None) -> Answer | list[Answer]:  # fmt: skip
        """Segment one DICOM file, or slices in HU.

        Args:
            image: path of a DICOM file; or an array (rows, columns) or (slices, rows, columns) in HU, in the usual
                axial view.  It is sent as int16 if that holds its values, else as float32.
            text: a sentence, or several.
            spacing: mm between rows and between columns of an array.

        Returns:
            The answer; for several sentences one for each.

        Raises:
            InputError: the server says that image or sentence cannot be used; SentenceNotUnderstoodError, whose
                ``reading`` is None: the sentence is not understood.
            ServerError: there is no answer.
        """
        texts = [text] if isinstance(text, str) else list(text)
        inputs: list[Tensor] = [bytes_tensor("TEXT", [text.encode() for text in texts])]
        flat = not isinstance(image, np.ndarray) or image.ndim == 2
        if isinstance(image, np.ndarray):
            inputs.append(image_tensor(image[None] if flat else image))
        else:
            inputs.append(bytes_tensor("DICOM", [read_file(Path(image))]))
        if spacing is not None:
            inputs.append(("SPACING", "FP64", [2], np.array(spacing, "<f8").tobytes()))
        outputs, engine = self._infer(inputs)
        rows = zip(*(outputs[name] for name in ("MASK", "SCORE", "FOUND", "READ_AS", "NOTES")), strict=True)
        answers = []
        for mask, score, found, read_as, notes in rows:
            mask = mask.astype(bool)
            mask = mask[0] if flat and len(mask) == 1 else mask
            answers.append(
                Answer(mask=mask, score=score, found=bool(found.any()), read_as=read_as, notes=notes, engine=engine)
            )
        return answers[0] if isinstance(text, str) else answers

    def models(self) -> dict[str, dict[str, Any]]:
        """Return the server's engines by name, with what it tells of each: digest, precision, device, max_batch ...

        Raises:
            ServerError: there is no answer, or no engine is open yet.
        """
        found = self.about()["models"]
        if not isinstance(found, dict):
            raise ServerError(NOT_OURS)
        if not found:
            raise ServerError("the server is opening its engines, or cannot; see GET /readyz, or ask again", 503)
        return found

    def about(self) -> dict[str, Any]:
        """Return what the server tells of itself: its version, engines and limits.

        Raises:
            ServerError: there is no answer, or not one of ``lsms-rt serve``.
        """
        found = self._server.request_json("GET", "/capabilities")
        if not {"version", "models"} <= set(found):
            raise ServerError(NOT_OURS)
        return found

    def read(self, text: str) -> dict[str, Any]:
        """Return how the engine reads a sentence, as ``Reading.to_record`` writes it; nothing is computed.

        Raises:
            InputError: it is empty or too long.
            ServerError: there is no answer.
        """
        return self._server.request_json("POST", f"/models/{self._name()}/read", json={"text": text})

    def send(self, path: str | os.PathLike[str], **facts: Any) -> str:
        """Send an image: a file, or a folder with the files of a series; return its id.

        Of a folder, files that are neither DICOM nor a damaged slice are skipped, and counted in the log.

        Args:
            path: the file or folder.
            **facts: what it does not hold, as for ``Segmenter.predict_series``: ``series``, ``window``,
                ``orientation``, ``rescale``, ``spacing``, ``as_one_series``.

        Raises:
            InputError: it cannot be read, here or there.
            ServerError: there is no answer.
        """
        path = Path(path)
        files = slice_files(path) if path.is_dir() else [path]
        first, *others = files
        image = str(
            self._server.request_json("POST", "/images", params={"more": "true"}, content=read_file(first))["image_id"]
        )
        try:
            for one in others:
                self._server.request("POST", f"/images/{image}/files", content=read_file(one))
            self._server.request("POST", f"/images/{image}/complete", json=facts)
        except BaseException:
            self.discard(image)
            raise
        return image

    def ask(self, image: str, sentences: Sequence[str], *, files: Sequence[str] = (), progress: Progress | None = None
            ) -> str:  # fmt: skip
        """Ask about an image that was sent, and wait; return the job's id.  Ending the wait cancels the job.

        Args:
            image: its id.
            sentences: one or more.
            files: what to write besides masks and pictures: "seg", "empty_seg", "sr", "sc", "rtstruct", "nifti".
            progress: called with the slices that are done, and their number.

        Raises:
            InputError: the server says that image or sentence cannot be used; SentenceNotUnderstoodError, whose
                ``reading`` is None: the sentence is not understood.
            ServerError: there is no answer.
        """
        body = {"image_id": image, "sentences": list(sentences), "model": self._model, "files": list(files)}
        job = str(self._server.request_json("POST", "/jobs", json=body)["job_id"])
        last: dict[str, Any] = {}
        try:
            for last in self._events(job):
                if progress is not None and "total" in last:
                    progress(last["done"], last["total"])
        except BaseException:
            self._server.succeeds("POST", f"/jobs/{job}/cancel")
            raise
        if last.get("status") != "done":
            # It says why.
            self._server.request("GET", f"/jobs/{job}/results.json")
        return job

    def results(self, job: str) -> dict[str, Any]:
        """Return what a job found, as ``lsms-rt predict --json`` prints it."""
        return self._server.request_json("GET", f"/jobs/{job}/results.json")

    def save(self, job: str, folder: Path) -> list[str]:
        """Write a job's files into a folder; return their names."""
        with tempfile.TemporaryFile() as file:
            self._download(f"/jobs/{job}/files.zip", file)
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                if any(Path(name).name != name for name in names):
                    raise ServerError("the server sent a file that lies outside of the folder; do not trust it")
                # For this user alone, as predict makes it.
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                archive.extractall(folder)
        return names

    def delete(self, image: str) -> None:
        """Delete an image, and the results of its jobs, on the server; jobs that run are cancelled."""
        self._server.request("DELETE", f"/images/{image}")

    def discard(self, image: str) -> None:
        """Delete an image as ``delete`` does, on the way out: what goes wrong is logged, and hides no other error."""
        if not self._server.succeeds("DELETE", f"/images/{image}"):
            _log.warning("the image could not be deleted on the server, which does so itself when it is unused")

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _events(self, job: str) -> Iterator[dict[str, Any]]:
        with self._server.stream(f"/jobs/{job}/events", timeout=None) as response:
            for line in response.iter_lines():
                if line:
                    yield json.loads(line)

    def _download(self, path: str, file: IO[bytes]) -> None:
        with self._server.stream(path) as response:
            for chunk in response.iter_bytes():
                file.write(chunk)

    def _infer(self, inputs: Sequence[Tensor]) -> tuple[dict[str, Any], str]:
        """Return the outputs by name, and the digest of the engine that answered."""
        body, headers = request_of(inputs)
        response = self._server.request("POST", f"/v2/models/{self._name()}/infer", content=body, headers=headers)
        outputs: dict[str, Any] = {}
        try:
            at = int(response.headers[JSON_LENGTH])
            head = json.loads(response.content[:at])
            for one in head["outputs"]:
                size = one["parameters"]["binary_data_size"]
                outputs[one["name"]] = value_of(one, response.content[at : at + size])
                at += size
            return outputs, str(head.get("parameters", {}).get("engine", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ServerError(NOT_OURS) from None

    def _name(self) -> str:
        if self._model is None:
            models = self.models()
            if len(models) != 1:
                raise InputError(f"the server has {len(models)} models; name one: {', '.join(models)}")
            (self._model,) = models
        return self._model
