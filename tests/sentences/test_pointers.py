"""Small words, numbers and tenses that say which lesion is meant; judged by hand before any was read."""

from __future__ import annotations

import pytest

from lsms_rt.sentences import Reader

REFUSED = (
    # Comparisons and positions by a small word.
    "the cyst as large as the hemangioma",
    "the lesion as dark as the cyst",
    "a metastasis as big as the largest hemangioma",
    "the lesion by the cyst",
    "the lesion from the cyst",
    "the lesion for the cyst",
    "the cyst or the hemangioma",
    "the lesion at the small cyst",
    "the nodule on the hemangioma",
    "the lesion in the left lobe by the dark cyst",
    "the lesion than the cyst",
    "hemangioma versus metastasis",
    "small or large lesion",
    "metastasis-sized cyst",
    "the lesion about the size of the cyst",
    # Distances.
    "the lesion 3 cm from the cyst",
    "the lesion within 2 cm of the cyst",
    "lesion within 5 mm of capsule",
    "cyst 12mm from the liver",
    "lesion 2 cm to the hemangioma",
    "the lesion over the cyst",
    "the lesion over the liver",
    "lesion at -120 mm",
    "lesion at 35 mm",
    "lesion @ 35 mm",
    # Punctuation.
    "the lesion, dominant",
    "the lesion (treated)",
    "the lesion: dominant",
    "the lesion; biopsied",
    "cyst, ablated, left lobe",
    "hypodense lesion in the left lobe, biopsied",
    "the cyst, 2 cm, infected",
    "the lesion [target]",
    "the lesion. dominant",
    "the lesion visible, dominant",
    "the lesion, in CT, dominant",
    # Tenses.
    "was a cyst in left lobe",
    "there was a cyst",
    "there were cysts in the right lobe",
    "the lesion that was in the left lobe",
    "the lesion that would have been a cyst",
    "the has-been cyst",
    "the lesion which used to be a cyst",
    "the would-be metastasis",
    "the patient had a cyst in the left lobe",
    "a lesion that had been in the right lobe",
    # Numbers.
    "lesion #2",
    "lesion 2",
    "lesion A",
    "lesion 2 measuring 3 cm",
    "lesion number 5",
    "cyst 1 of 3",
    "cyst (2 of 3) in the left lobe",
    "lesion on slice 35",
    "the cyst on image 12",
    "cyst, series 3",
    "series 3, image 40: cyst in the left lobe",
    "metastasis two",
    "the next lesion",
    "the next-largest lesion",
    "the next to largest lesion",
    "show the next cyst in the left lobe",
)
# -> what is read
ANSWERED = {
    "hypodense lesion, 2 cm, in the left lobe": "hypodense lesion in the left lobe",
    "cyst, 12 x 8 mm, right lobe": "cyst right lobe",
    "Hypodense lesion (12 x 8 mm) in the right lobe.": "Hypodense lesion in the right lobe",
    "a lesion with a diameter of 3 cm": "a lesion with a of",
    "lesion measuring 2 to 3 cm in the left lobe": "lesion in the left lobe",
    "a cyst over 2 cm in the right lobe": "a cyst in the right lobe",
    "at most 2 cm lesion": "lesion",
    "at most two lesions": "lesions",
    "the lesion of at least 15 mm": "the lesion of",
    "a lesion above 3 cm in the left lobe": "a lesion in the left lobe",
    "lesion, up to 4 cm, right lobe": "lesion right lobe",
    "hypodense lesion, less than 2 cm, left lobe": "hypodense lesion left lobe",
    "lesion of -10 HU in the left lobe": "lesion of in the left lobe",
    "lesion 12x8 mm in the right lobe": "lesion in the right lobe",
    "cyst 21mm in the left lobe": "cyst in the left lobe",
    "lesion, about 3 cm, in the liver": "lesion in the liver",
    "A cyst was seen in the left lobe.": "A cyst in the left lobe",
    "Two cysts were noted in the right lobe": "cysts in the right lobe",
    "a lesion is seen in the left lobe": "a lesion is in the left lobe",
    "A metastasis has been identified in the right lobe": "A metastasis in the right lobe",
    "A hemangioma was again noted in the right lobe": "A hemangioma in the right lobe",
    "there is a lesion described in the left lobe": "there is a lesion in the left lobe",
    "could you find the cyst for me": "find the cyst",
    "the cyst on this slice": "the cyst this slice",
    "lesion in the right lobe, suspicious for metastasis": "lesion in the right lobe metastasis",
    "mass in the left lobe, concerning for hcc": "mass in the left lobe hcc",
    "HCC in segment 8 measuring 3 cm": "HCC in the right lobe",
    "look for the cyst": "the cyst",
    "the cyst next to the hemangioma": "the cyst next to the hemangioma",
    "the lesion nearest the cyst": "the lesion nearest the cyst",
    "the lesion, hypodense": "the lesion, hypodense",
    "cyst, likely simple, left lobe": "cyst simple left lobe",
    "the lesion (ill-defined) in the right lobe": "the lesion in the right lobe",
    "cyst, stable, left lobe": "cyst left lobe",
    "two cysts in the left lobe": "cysts in the left lobe",
    "3 metastases in the liver": "metastases in the liver",
    "the most anterior 2 cm lesion": "the most anterior lesion",
    "the two largest lesions": "the largest lesions",
    "cyst in the left lobe, 1.4 cm, well-defined": "cyst in the left lobe",
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_points_at_a_lesion_is_not_lost(reader: Reader, sentence: str) -> None:
    reading = reader.read(sentence)
    assert reading.understood == "no", reading.read_as


@pytest.mark.parametrize("sentence", ANSWERED)
def test_reports_are_answered(reader: Reader, sentence: str) -> None:
    reading = reader.read(sentence)
    assert (reading.understood != "no", reading.read_as) == (True, ANSWERED[sentence]), reading.notes(names=True)
