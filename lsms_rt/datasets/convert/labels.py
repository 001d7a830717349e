"""What a label means: a lesion, the organ around it, a lobe, or something else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lsms_rt.errors import InputError

LESION, ORGAN, LOBE, UNLABELED, OTHER = "lesion", "organ", "lobe", "unlabeled", "other"

# Parts of words, since labels run words together: "LiverTumor".
_LESION_PARTS = (
    "tumor", "tumour", "lesion", "metasta", "cancer", "carcinoma", "neoplas", "malignan", "nodule", "hemangioma",
    "haemangioma", "abscess", "hepatocellular", "calcifi",
)  # fmt: skip
# Whole words: "mass" is a part of "massive".
_LESION_WORDS = {"mass", "masses", "hcc", "mets", "met", "cyst", "cysts", "crlm"}
# Part of a label -> the type that it names.
_TYPE_PARTS = {
    "metasta": "metastasis", "hepatocellular": "hcc", "hemangioma": "hemangioma", "haemangioma": "hemangioma",
    "abscess": "abscess", "calcifi": "calcification",
}  # fmt: skip
_TYPE_WORDS = {"mets": "metastasis", "met": "metastasis", "hcc": "hcc", "cyst": "cyst", "cysts": "cyst"}
_ORGANS = ("liver", "kidney", "pancreas", "spleen", "lung", "prostate", "bladder", "stomach", "brain")
# Words that may stand beside the name of an organ; "liver remnant" is not the whole liver.
_BESIDE_ORGAN = {"whole", "left", "right", "the", "parenchyma"}
_LOBE_WORDS = {"left", "right", "lobe", "liver", "hepatic", "of", "the"}


@dataclass(frozen=True)
class Role:
    """What a label is taken for: ``kind``, and the ``name`` of the lesion's type, the organ or the lobe, or ""."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} ({self.name})" if self.name else self.kind


def role_of(label: str, lesion_labels: Sequence[str] = (), organ_labels: Sequence[str] = ()) -> Role:
    """Return what ``label`` is taken for.

    Args:
        label: the source's text.
        lesion_labels: the user's patterns; where there are any, no other label is a lesion.
        organ_labels: the user's patterns; where there are any, no other label is an organ.
    """
    text = label.strip().lower()
    words = set(re.findall(r"[a-z]+", text))
    if lesion_labels and _matches(text, lesion_labels):
        return Role(LESION, _type_of(text, words))
    if organ_labels and _matches(text, organ_labels):
        return Role(ORGAN, _organ_of(words) or text)
    if words == {"ignore"}:
        return Role(UNLABELED)
    if "lobe" in words and words <= _LOBE_WORDS and len(words & {"left", "right"}) == 1:
        return Role(LOBE, "left" if "left" in words else "right")
    if not lesion_labels and (words & _LESION_WORDS or any(part in text for part in _LESION_PARTS)):
        return Role(LESION, _type_of(text, words))
    organ = _organ_of(words)
    return Role(ORGAN, organ) if organ and not organ_labels else Role(OTHER)


def need_lesions(labels: Iterable[str], roles: Iterable[Role], place: str) -> None:
    """Raise InputError if none of the ``labels``, found in ``place``, is a lesion."""
    if not any(role.kind == LESION for role in roles):
        listed = ", ".join(repr(label) for label in labels) or "none"
        raise InputError(
            f"{place}: none of its labels is known to be a lesion ({listed}); name those that are with --lesion-label"
        )


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(text, pattern.strip().lower()) for pattern in patterns)


def _type_of(text: str, words: set[str]) -> str:
    named = {kind for part, kind in _TYPE_PARTS.items() if part in text}
    named |= {kind for word, kind in _TYPE_WORDS.items() if word in words}
    # "cyst or metastasis" names neither.
    return named.pop() if len(named) == 1 else ""


def _organ_of(words: set[str]) -> str:
    for organ in _ORGANS:
        if organ in words and words <= _BESIDE_ORGAN | {organ}:
            return organ
    return ""
