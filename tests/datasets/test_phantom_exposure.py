"""The image of a phantom slice: what is not visible enough to be a lesion is not in it either."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lsms_rt.datasets.phantom import case, exposure


def test_a_lesion_that_is_removed_late_is_not_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(case, "expose", lambda *given: calls.append(given) or exposure.expose(*given))
    case.generate_case(0, 5, 64)
    planes, bulge, masks, grid, look = next(given for given in calls if len(given[2]) >= 3)
    three = dict(list(masks.items())[:3])
    bare, _ = exposure.expose(planes, bulge, {}, grid, look)
    # The needed contrasts in the order of the requests: every attempt removes one lesion.
    needed = iter([0.0, 0.0, np.inf, 0.0, np.inf, np.inf])
    monkeypatch.setattr(exposure, "contrast_needed", lambda scanner, diameter: next(needed))
    image, seen = exposure.expose(planes, bulge, three, grid, look)
    assert seen == {} and next(needed, None) is None
    np.testing.assert_array_equal(image, bare)
