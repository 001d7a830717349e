"""A client of ``lsms-rt serve``: httpx and NumPy, no engine library.

from lsms_rt.client import Client

with Client("http://127.0.0.1:8765") as client:
    answer = client.predict("scan.dcm", "the cyst in the left lobe of the liver")
    print(answer.found, answer.mask.shape)
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from .api_key import VARIABLE
from .errors import InputError, LsmsError, MachineError, MissingDependencyError, SeveralSeriesError
from .kserve_request import JSON_LENGTH, Tensor, bytes_tensor, image_tensor, request_of, value_of

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger("lsms_rt")
# A full queue is asked again for so long, in seconds.
PATIENCE = 60.0
# What is deleted on the way out waits for so long, in seconds.
HURRY = 10.0
# Called with the slices that are done, and their number.
Progress = Callable[[int, int], None]
NOT_OURS = "the answer is not of lsms-rt serve; check the URL and proxies"


class ServerError(MachineError):
    """The server did not answer, or not with a result.

    Attributes:
        status: the HTTP status; None if there was no answer.
        kind: the kind of error that the server names; "" if it names none.
    """

    def __init__(self, message: str, status: int | None = None, kind: str = "") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


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
        try:
            import httpx
        except ImportError as error:
            raise MissingDependencyError("the client needs httpx; pip install 'lsms-rt[client]'") from error
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError("the server's URL is none; write e.g. http://127.0.0.1:8765")
        key = os.environ.get(VARIABLE) if api_key is None else api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # A proxy of the environment is for other machines.
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if key and parts.scheme == "http" and not local:
            _log.warning("the API key goes over http:// to another machine, where others can read it; use https://")
        self.url = url.rstrip("/")
        self._errors = httpx.HTTPError
        limits = httpx.Timeout(timeout, connect=10.0)
        # With the authorities of SSL_CERT_FILE, also where the environment's proxies are left out.
        try:
            known = httpx.create_ssl_context()
        except OSError as error:
            message = (
                f"SSL_CERT_FILE or SSL_CERT_DIR cannot be read ({error.strerror}); name a file of certificates in PEM"
            )
            raise InputError(message) from error
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=limits, trust_env=not local, verify=known)
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
            InputError: the server says that image or sentence cannot be used.
            ServerError: there is no answer.
        """
        texts = [text] if isinstance(text, str) else list(text)
        inputs: list[Tensor] = [bytes_tensor("TEXT", [text.encode() for text in texts])]
        flat = not isinstance(image, np.ndarray) or image.ndim == 2
        if isinstance(image, np.ndarray):
            inputs.append(image_tensor(image[None] if flat else image))
        else:
            inputs.append(bytes_tensor("DICOM", [_read(Path(image))]))
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
        found = self._asked("GET", "/capabilities")
        if not {"version", "models"} <= set(found):
            raise ServerError(NOT_OURS)
        return found

    def read(self, text: str) -> dict[str, Any]:
        """Return how the engine reads a sentence, as ``Reading.to_record`` writes it; nothing is computed.

        Raises:
            InputError: it is empty or too long.
            ServerError: there is no answer.
        """
        return self._asked("POST", f"/models/{self._name()}/read", json={"text": text})

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
        files = _slices(path) if path.is_dir() else [path]
        first, *others = files
        image = str(self._asked("POST", "/images", params={"more": "true"}, content=_read(first))["image_id"])
        try:
            for one in others:
                self._ask("POST", f"/images/{image}/files", content=_read(one))
            self._ask("POST", f"/images/{image}/complete", json=facts)
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
            InputError: the server says that image or sentence cannot be used.
            ServerError: there is no answer.
        """
        body = {"image_id": image, "sentences": list(sentences), "model": self._model, "files": list(files)}
        job = str(self._asked("POST", "/jobs", json=body)["job_id"])
        last: dict[str, Any] = {}
        try:
            for last in self._events(job):
                if progress is not None and "total" in last:
                    progress(last["done"], last["total"])
        except BaseException:
            self._try("POST", f"/jobs/{job}/cancel")
            raise
        if last.get("status") != "done":
            # It says why.
            self._ask("GET", f"/jobs/{job}/results.json")
        return job

    def results(self, job: str) -> dict[str, Any]:
        """Return what a job found, as ``lsms-rt predict --json`` prints it."""
        return self._asked("GET", f"/jobs/{job}/results.json")

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
        self._ask("DELETE", f"/images/{image}")

    def discard(self, image: str) -> None:
        """Delete an image as ``delete`` does, on the way out: what goes wrong is logged, and hides no other error."""
        if not self._try("DELETE", f"/images/{image}"):
            _log.warning("the image could not be deleted on the server, which does so itself when it is unused")

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _events(self, job: str) -> Iterator[dict[str, Any]]:
        with self._streamed(f"/jobs/{job}/events", timeout=None) as response:
            for line in response.iter_lines():
                if line:
                    yield json.loads(line)

    def _download(self, path: str, file: IO[bytes]) -> None:
        with self._streamed(path) as response:
            for chunk in response.iter_bytes():
                file.write(chunk)

    @contextmanager
    def _streamed(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """Yield an answer before its body has arrived."""
        try:
            with self._http.stream("GET", path, **options) as response:
                if response.status_code != 200:
                    response.read()
                    raise _error(response)
                yield response
        except self._errors as error:
            raise self._no_answer(error) from error

    def _infer(self, inputs: Sequence[Tensor]) -> tuple[dict[str, Any], str]:
        """Return the outputs by name, and the digest of the engine that answered."""
        body, headers = request_of(inputs)
        response = self._ask("POST", f"/v2/models/{self._name()}/infer", content=body, headers=headers)
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

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request; wait and send it again while the queue is full."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                response = self._http.request(method, path, **options)
            except self._errors as error:
                raise self._no_answer(error) from error
            wait = _wait(response)
            if response.status_code != 429 or not wait or time.monotonic() + wait > end:
                break
            time.sleep(wait)
        if response.status_code >= 300:
            raise _error(response)
        return response

    def _asked(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send a request whose answer is JSON."""
        try:
            found = self._ask(method, path, **options).json()
        except ValueError:
            raise ServerError(NOT_OURS) from None
        if not isinstance(found, dict):
            raise ServerError(NOT_OURS)
        return found

    def _try(self, method: str, path: str) -> bool:
        try:
            self._ask(method, path, timeout=HURRY)
        except LsmsError:
            return False
        return True

    def _no_answer(self, error: Exception) -> ServerError:
        hint = "start it with lsms-rt serve, and check the URL, proxies (HTTP_PROXY) and firewalls"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            hint = (
                "its certificate is not trusted here: check the host's name, and let SSL_CERT_FILE name the authority's"
            )
        return ServerError(f"the server does not answer ({type(error).__name__}); {hint}")


def _error(response: httpx.Response) -> LsmsError:
    """Return what the server says is wrong; of what the user sent, an InputError."""
    try:
        said = response.json()
        message, kind = str(said["error"]), str(said["kind"])
        series = [dict(one) for one in said.get("series", ())]
    except (ValueError, KeyError, TypeError, AttributeError):
        series, message, kind = [], NOT_OURS, ""
    status = response.status_code
    if response.is_redirect:
        message = "it has another address, perhaps https:// in the place of http://; give that one"
    if series:
        return SeveralSeriesError(message, series)
    if status in (400, 413, 415, 422):
        return InputError(message)
    if status == 401:
        message += f" (here: the environment variable {VARIABLE}, or --api-key-file)"
    return ServerError(f"the server answered {status}: {message}", status, kind)


def _wait(response: httpx.Response) -> float:
    """Return for how many seconds a server asks to wait; 0 where it does not say, or names a date as proxies may."""
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0


def _slices(folder: Path) -> list[Path]:
    """Return the DICOM files below a folder, as ``predict`` finds them; InputError if one may be a damaged slice."""
    # Our reader's own parts; none of them is an engine library.
    from .reading.dicom.broken import beginning_of, may_be_broken_dicom
    from .reading.dicom.parse import looks_like_dicom
    from .reading.dicom.source import sources_of_folder

    found: list[Path] = []
    others: list[tuple[str, bool, bytes]] = []
    beginnings: set[bytes] = set()
    for source in sources_of_folder(folder, "the folder"):
        try:
            head = source.head()
        except OSError as error:
            raise InputError(f"{source.label}: cannot be read ({error.strerror}); check its permissions") from error
        if looks_like_dicom(head):
            beginnings.add(beginning_of(head))
            found.append(source.path)
        else:
            others.append((source.label, source.named_dicom, head))
    for label, named, head in others:
        if not head.strip(b"\0") or may_be_broken_dicom(head, named, beginnings):
            raise InputError(f"{label}: empty, or a damaged DICOM file; copy it again, or remove it")
    if not found:
        raise InputError(f"no DICOM file in {len(others)} files; give a folder with a series")
    if others:
        _log.warning("skipped %d files that are not DICOM images", len(others))
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"the input cannot be read ({error.strerror}); check its path and permissions") from error
    except MemoryError:
        raise MachineError("the input is larger than this machine's memory") from None
