"""The Medical Segmentation Decathlon, and raw folders of nnU-Net.

SOURCE/dataset.json                       labels, modality or channel_names, licence
SOURCE/imagesTr/liver_12.nii.gz           Decathlon; in nnU-Net liver_12_0000.nii.gz, one file per channel
SOURCE/labelsTr/liver_12.nii.gz
SOURCE/imagesTs, labelsTs                 the test split, where there are labels for it
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.errors import InputError

from .labels import LESION, LOBE, ORGAN, UNLABELED, Role, need_lesions, role_of
from .license import citation_file, license_file, stated
from .nifti import read_image, read_labels
from .options import ConvertOptions
from .source import LesionMask, Source, SourceCase, Volume, source_name

ENDINGS = (".nii.gz", ".nii")
# Values of a label, in the order of dataset.json, and what it is taken for.
Labels = dict[str, tuple[tuple[int, ...], Role]]


def find_cases(folder: Path, options: ConvertOptions) -> Source:
    """List the labeled cases of a folder; nothing but dataset.json is read.

    Raises:
        InputError: the folder has another layout, or no label of a lesion.
    """
    facts = _read_facts(folder)
    labels = _labels(facts, options)
    place = "dataset.json"
    need_lesions(labels, [role for _, role in labels.values()], place)
    channel = _ct_channel(facts)
    official = (folder / "labelsTs").is_dir()
    cases: list[SourceCase] = []
    for part, split in (("Tr", "train" if official else ""), ("Ts", "test")):
        for label in _files(folder / f"labels{part}"):
            name = _stem(label)
            read = partial(_read, folder, f"images{part}", label, channel, labels)
            cases.append(SourceCase(case_id=name, patient=name, read=read, split=split))
    if not cases:
        raise InputError(f"{folder / 'labelsTr'}: no .nii.gz or .nii file of labels; give the folder of one task")
    return Source(
        cases=cases,
        license=stated(facts, "licence", "license") or license_file(folder),
        citation=stated(facts, "citation", "reference") or citation_file(folder),
        labels={name: str(role) for name, (_, role) in labels.items()},
    )


def _read(folder: Path, images: str, label_path: Path, channel: int, labels: Labels) -> Volume:
    name = _stem(label_path)
    slices = read_image(_image_of(folder / images, name, channel), f"{images}/{name}")
    values = read_labels(label_path, f"{label_path.parent.name}/{label_path.name}", slices)
    unknown = sorted(set(np.unique(values)) - {0} - {value for some, _ in labels.values() for value in some})
    if unknown:
        listed = ", ".join(map(str, unknown[:5]))
        raise InputError(f"{label_path.parent.name}/{label_path.name}: values {listed} are not labels of dataset.json")
    masks = {kind: [(np.isin(values, some), role) for some, role in labels.values() if role.kind == kind]
             for kind in (LESION, ORGAN, LOBE, UNLABELED)}  # fmt: skip
    organs: dict[str, np.ndarray] = {}
    for mask, role in masks[ORGAN]:
        organs[role.name] = organs.get(role.name, False) | mask
    return Volume(
        slices=slices,
        lesions=[LesionMask(mask, role.name) for mask, role in masks[LESION]],
        organs=organs,
        lobes={role.name: mask for mask, role in masks[LOBE]},
        unlabeled=masks[UNLABELED][0][0] if masks[UNLABELED] else None,
        types=tuple(sorted({role.name for _, role in masks[LESION] if role.name})),
    )


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    if not path.is_file() or not (folder / "labelsTr").is_dir():
        raise InputError(
            f"{source_name(folder)}: no dataset.json or no labelsTr; give the folder of one task, e.g. Task03_Liver"
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path.name}: not JSON ({error}); get it again from the source") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("labels"), dict):
        raise InputError(f"{path.name}: no 'labels' table; it maps names to numbers, or numbers to names")
    return facts


def _labels(facts: dict[str, Any], options: ConvertOptions) -> Labels:
    """Read the labels: {"1": "liver"} in the Decathlon, {"liver": 1} or {"whole": [1, 2]} in nnU-Net."""
    labels: Labels = {}
    for left, right in facts["labels"].items():
        name, value = (right, left) if str(left).isdecimal() else (left, right)
        try:
            values = tuple(int(one) for one in (value if isinstance(value, list) else [value]))
        except (TypeError, ValueError) as error:
            raise InputError(f"dataset.json: label {left!r} is {right!r}; give a number and a name") from error
        if values != (0,):
            labels[str(name)] = values, role_of(str(name), options.lesion_labels, options.organ_labels)
    return labels


def _ct_channel(facts: dict[str, Any]) -> int:
    """Return the number of the CT channel."""
    channels = facts.get("channel_names") or facts.get("modality") or {"0": "CT"}
    if not isinstance(channels, dict):
        raise InputError("dataset.json: channel_names is not a table of numbers and names")
    found = [int(number) for number, name in channels.items() if "CT" in str(name).upper().replace("-", " ").split()]
    if not found:
        raise InputError(
            f"dataset.json: no channel is CT ({', '.join(map(str, channels.values()))}); give a CT data set"
        )
    return found[0]


def _image_of(folder: Path, name: str, channel: int) -> Path:
    """Find the image of a case, with nnU-Net's name or the Decathlon's."""
    for stem in (f"{name}_{channel:04d}", name):
        for ending in ENDINGS:
            if (path := folder / f"{stem}{ending}").is_file():
                return path
    raise InputError(f"{folder.name}/{name}_{channel:04d}.nii.gz: no such file, and no {name}.nii.gz; add the image")


def _files(folder: Path) -> list[Path]:
    """List NIfTI files; names that begin with a dot are leftovers of macOS, which the Decathlon's archives hold."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.endswith(ENDINGS) and not path.name.startswith("."))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
