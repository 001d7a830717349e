"""Results of an input's slices, where one bad slice does not end the others."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence

from lsms_rt.answers import slices_together
from lsms_rt.atomic import MACHINE_FAILURES
from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError, LsmsError, MachineError
from lsms_rt.segmentation import Segmentation

from .predictor import Predictor

_log = logging.getLogger("lsms_rt")
OUT_OF_MEMORY = "it needs more memory than this machine has free; give fewer slices at once"


def own_error(error: LsmsError | MemoryError | OSError) -> LsmsError:
    """Return the error as one of this package; an OSError is one of reading."""
    if isinstance(error, LsmsError):
        return error
    if isinstance(error, MemoryError):
        return MachineError(OUT_OF_MEMORY)
    kind = MachineError if error.errno in MACHINE_FAILURES else InputError
    return kind(f"the input cannot be read ({error.strerror or type(error).__name__}); check its permissions and disk")


def results_of(
    segmenter: Predictor, slices: Sequence[CtSlice], texts: Sequence[str], batch: int | None
) -> Generator[list[Segmentation | LsmsError], None, None]:
    """Yield the results of each slice, one per sentence, or why there is none.

    A batch that fails is computed again, slice by slice and sentence by sentence, which a warning tells.

    Args:
        segmenter: the engine.
        slices: the slices.
        texts: the sentences.
        batch: images per call of the engine, see ``Segmenter.predict_series``; None for the engine's largest batch.
    """
    done, size = 0, batch or segmenter.manifest.max_batch
    while done < len(slices):
        try:
            for results in segmenter.predict_series(slices[done:], texts, batch=batch):
                yield list(results)
                done += 1
            return
        except (LsmsError, MemoryError) as error:
            _log.warning("a batch failed, its slices are computed one by one: %s", own_error(error))
        for ct in slices[done : done + slices_together(len(texts), size)]:
            done += 1
            yield [_result_or_error(segmenter, ct, text) for text in texts]


def _result_or_error(segmenter: Predictor, ct: CtSlice, text: str) -> Segmentation | LsmsError:
    try:
        return segmenter.predict(ct, text)
    except (LsmsError, MemoryError) as error:
        return own_error(error)
