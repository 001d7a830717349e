"""What the DICOM objects of a run share: UIDs, dates, equipment, descriptions, and how they are made and saved."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any

from lsms_rt import __version__
from lsms_rt.atomic import atomic_file
from lsms_rt.digest import sha256_of_json
from lsms_rt.errors import InputError, LsmsError, MissingDependencyError
from lsms_rt.reading.dicom.geometry import EXPORT_AGAIN
from lsms_rt.reading.quiet import quiet_pydicom

from .caption import NOT_FOR_DIAGNOSIS, incomplete_text
from .headers import IDENTITY, is_enhanced

if TYPE_CHECKING:
    from pydicom import Dataset

    from .result import Result
    from .sources import Sources

# Of the series that objects are put in; above the numbers that scanners use.
SERIES_NUMBERS = {"SEG": 1000, "SR": 1001, "OT": 1002, "RTSTRUCT": 1003}
# of the UIDs that are derived from content
NAMESPACE = uuid.UUID("6b6f3e0c-5f0e-4c0a-9a4e-0d5d9b6c7a21")
MAKER = "lsms-rt"
UTF8 = "ISO_IR 192"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Which run an object is of.

    Attributes:
        engine_digest: "sha256:HEX" of the engine; "" if unknown.
        missing: number of images of the series without a result, for any of the sentences.
        when: the start of the run, in the time zone whose clock the object shows.
    """

    engine_digest: str
    missing: int
    when: datetime

    @classmethod
    def of(cls, sources: Sources, engine_digest: str, when: datetime | None) -> Origin:
        """Return that of some results; without ``when`` the run starts now."""
        return cls(engine_digest=engine_digest, missing=sources.missing, when=when or datetime.now())

    @property
    def incomplete(self) -> str:
        """That the series is not complete; "" if it is."""
        return incomplete_text(self.missing)

    @property
    def series_description(self) -> str:
        """Who made the series, and that it is not for diagnosis; at most 64 characters."""
        return ", ".join((MAKER, *(("incomplete",) if self.incomplete else ()), NOT_FOR_DIAGNOSIS))

    @property
    def statement(self) -> str:
        """That the object is not for diagnosis, and what is missing; at most 64 characters."""
        # both together would be longer
        return f"{self.incomplete}; not for diagnosis" if self.incomplete else NOT_FOR_DIAGNOSIS

    @property
    def serial_number(self) -> str:
        """The engine's digest; 64 characters, which an LO holds."""
        return self.engine_digest.removeprefix("sha256:")[:64] or "unknown"

    @property
    def equipment(self) -> dict[str, str]:
        """Manufacturer, model, version and serial number: of this package, and the engine.

        They are named as the arguments of highdicom's objects.
        """
        return {
            "manufacturer": MAKER,
            "manufacturer_model_name": MAKER,
            "software_versions": __version__,
            "device_serial_number": self.serial_number,
        }

    def date(self, ds: Dataset) -> None:
        """Set when the object, its series and its content were made: at the start of the run."""
        for name in ("InstanceCreation", "Content", "Series"):
            setattr(ds, f"{name}Date", self.when.strftime("%Y%m%d"))
            setattr(ds, f"{name}Time", self.when.strftime("%H%M%S"))
        # highdicom adds itself, and the current time.
        for item in ds.get("ContributingEquipmentSequence", ()):
            item.ContributionDateTime = self.when.strftime("%Y%m%d%H%M%S")


def derived_uid(kind: str, *content: Any) -> str:
    """Return a UID derived from a UUID, as the standard describes them (PS3.5, B.2).

    Args:
        kind: what has the UID.
        content: all that makes it differ from others of its kind, in plain types for JSON.
    """
    return f"2.25.{uuid.uuid5(NAMESPACE, f'{kind} {sha256_of_json([__version__, *content])}').int}"


def new_object(
    sources: Sources, origin: Origin, sop_class: str, modality: str, *, series: Any, instance: Any
) -> Dataset:  # fmt: skip
    """Return an object of the images' patient and study, in a series of its own, without anything else.

    Args:
        sources: the images.
        origin: the run.
        sop_class: UID of the object's class.
        modality: of its series.
        series: all that makes its series differ from others, in plain types for JSON; the UID is derived from it.
        instance: the same of the object.
    """
    from pydicom import Dataset

    image, ds = sources.images[0], Dataset()
    for name in (*IDENTITY, "StudyInstanceUID"):
        if name in image:
            setattr(ds, name, image[name].value)
    for name, value in origin.equipment.items():
        setattr(ds, name.title().replace("_", ""), value)
    ds.SOPClassUID, ds.Modality = sop_class, modality
    ds.SOPInstanceUID = derived_uid(f"{modality} instance", origin.engine_digest, instance)
    ds.SeriesInstanceUID = derived_uid(f"{modality} series", origin.engine_digest, series)
    ds.SeriesNumber, ds.InstanceNumber = SERIES_NUMBERS[modality], 1
    ds.SeriesDescription = origin.series_description
    origin.date(ds)
    return ds


def image_item(result: Result) -> Dataset:
    """Return an item that refers to the image of a slice, and in a multi-frame file to its frame."""
    from pydicom import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, frames = image_reference(result)
    if frames is not None:
        (item.ReferencedFrameNumber,) = frames
    return item


def image_reference(result: Result) -> tuple[str, str, list[int] | None]:
    """Return class and UID of a slice's image, and in a list the number of its frame; None for a single frame."""
    header = result.ct.header
    frames = [result.ct.frame + 1] if is_enhanced(header) else None
    return str(header.SOPClassUID), str(header.SOPInstanceUID), frames


@contextmanager
def making(what: str) -> Iterator[None]:
    """Silence libraries, and turn their errors, whose texts contain values of files, into InputError.

    Args:
        what: the object, e.g. "a DICOM SEG".
    """
    with quiet_pydicom("highdicom"):
        try:
            yield
        except (LsmsError, MemoryError):
            raise
        except Exception as error:
            # Headers were checked, so this is rare.
            kind = type(error).__name__
            message = f"{what} cannot be made from these headers ({kind}); {EXPORT_AGAIN}, or write NIfTI"
            raise InputError(message) from error


def save(ds: Dataset, path: str | PathLike[str]) -> None:
    """Write an object; InputError or MachineError if the file cannot be written."""
    with atomic_file(path, durable=True) as part:
        ds.save_as(part, enforce_file_format=True)


def highdicom_for(what: str) -> Any:
    """Import highdicom; MissingDependencyError, with the command that installs it, if it is not there."""
    try:
        return importlib.import_module("highdicom")
    except ImportError as error:
        message = f"writing {what} needs highdicom; pip install 'lsms-rt[seg]', or write NIfTI or PNG"
        raise MissingDependencyError(message) from error
