"""Hounsfield units: tissue values by contrast phase, texture, blur and scanner noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from .lesion import PHASES
from .organs import AnatomySlice, Organ
from .shapes import Array, NoiseField

# (low, high) HU by phase, around published normal values.
_BY_PHASE: dict[Organ, tuple[tuple[float, float], ...]] = {
    Organ.AORTA: ((30, 48), (190, 380), (120, 185), (85, 125)),
    Organ.IVC: ((30, 45), (40, 120), (100, 175), (85, 125)),
    # Arterial: set from the liver.
    Organ.VESSEL: ((28, 46), (0, 0), (130, 200), (95, 135)),
    Organ.LIVER_LEFT: ((42, 66), (52, 85), (85, 130), (78, 108)),
    Organ.SPLEEN: ((40, 56), (85, 145), (100, 140), (82, 105)),
    Organ.KIDNEY: ((26, 40), (130, 230), (150, 220), (120, 170)),
    Organ.MEDULLA: ((26, 38), (45, 85), (100, 180), (120, 220)),
    Organ.MUSCLE: ((45, 62), (48, 66), (52, 72), (52, 70)),
    Organ.STOMACH: ((32, 45), (50, 100), (60, 110), (55, 85)),
    Organ.BOWEL: ((30, 45), (50, 110), (60, 115), (55, 85)),
    Organ.SOFT: ((30, 45), (70, 125), (70, 110), (60, 85)),
    Organ.HEART: ((35, 48), (120, 230), (110, 160), (85, 120)),
}
# Standard deviation (HU) of the coarse and the fine texture of each tissue.
_TEXTURE: dict[Organ, tuple[float, float]] = {
    Organ.BODY: (4, 7),
    Organ.MUSCLE: (4, 9),
    Organ.BONE: (50, 50),
    Organ.MARROW: (15, 35),
    Organ.LUNG: (20, 35),
    Organ.CONTENT: (10, 8),
    Organ.BOWEL: (8, 8),
    Organ.SOFT: (6, 14),
    Organ.SPLEEN: (2, 2),
    Organ.KIDNEY: (4, 6),
    Organ.MEDULLA: (4, 6),
    Organ.HEART: (8, 4),
}


# Brightness of iodine at a tube voltage in kV, 1 at 120.
_IODINE = {80: 1.5, 100: 1.22, 120: 1.0, 140: 0.88}


@dataclass(frozen=True)
class Tissue:
    """HU of one patient in one phase: tables over Organ, float32 (32,)."""

    mean: Array
    coarse: Array
    fine: Array
    # HU of the portal vein; mean[VESSEL] is the hepatic veins'.
    portal: float
    liver: float
    # The brightest blood a lesion can fill with.
    blood: float


@dataclass(frozen=True)
class Scanner:
    """Image formation of one case (sigma in HU after reconstruction, blur in pixels)."""

    blur_px: float
    sigma: float
    # The exponent of the noise spectrum at low frequencies: 1 is like filtered back projection.
    power: float
    # Where the noise spectrum ends, in cycles per pixel.
    cutoff: float
    # Of whole rows of the image relative to each other, in HU.
    streak: float
    # How much the kernel overshoots at edges; 0 for none.
    sharpen: float
    # Tube voltage: iodine is brighter at a lower one.
    kvp: int
    # HU: offset, left-right, front-back.
    bias: tuple[float, float, float]


def draw_tissue(rng: np.random.Generator, phase: str, kvp: int) -> Tissue:
    """Draw random tissue values for a phase and a tube voltage in kV."""
    p = PHASES.index(phase)
    mean, coarse, fine = (np.zeros(32, np.float32) for _ in range(3))
    for organ, ranges in _BY_PHASE.items():
        # A fifth wider than the table on both sides; what iodine adds to the plain scan is scaled by the voltage.
        low, high = ranges[p]
        plain = sum(ranges[0]) / 2
        value = rng.uniform(low - 0.2 * (high - low), high + 0.2 * (high - low))
        mean[organ] = plain + (value - plain) * _IODINE[kvp] if phase != "noncontrast" else value
    for organ, (c, f) in _TEXTURE.items():
        coarse[organ], fine[organ] = c * rng.uniform(0.3, 1.3), f * rng.uniform(0.3, 1.3)
    liver = mean[Organ.LIVER_LEFT]
    # Steatosis.
    if rng.random() < 0.25:
        liver = max(liver - rng.uniform(10, 50), 2.0)
    # Iron, amiodarone.
    elif rng.random() < 0.08:
        liver += rng.uniform(10, 25)
    portal = mean[Organ.VESSEL]
    if phase == "arterial":
        portal = liver + rng.uniform(5, 90)
        mean[Organ.VESSEL] = max(liver + rng.uniform(-12, 5), 38)
    elif phase != "noncontrast":
        portal = max(portal, liver + rng.uniform(15, 50))
        mean[Organ.VESSEL] = max(portal * rng.uniform(0.85, 1.03), liver + rng.uniform(5, 30))
        if phase == "portal" and rng.random() < 0.15:
            # Scanned early: the hepatic veins are not filled yet.
            mean[Organ.VESSEL] = liver - rng.uniform(0, 40)
    mean[Organ.LIVER_LEFT] = mean[Organ.LIVER_RIGHT] = liver
    tex = rng.uniform(0.5, 4.0), rng.uniform(0.5, 3.5)
    for lobe in (Organ.LIVER_LEFT, Organ.LIVER_RIGHT):
        coarse[lobe], fine[lobe] = tex
    mean[Organ.BACKGROUND], mean[Organ.LUNG] = -1000, rng.uniform(-900, -780)
    mean[Organ.GAS], mean[Organ.BODY] = rng.uniform(-980, -850), rng.uniform(-118, -88)
    mean[Organ.BONE], mean[Organ.MARROW] = rng.uniform(350, 800), rng.uniform(70, 280)
    mean[Organ.GALLBLADDER], mean[Organ.CANAL] = rng.uniform(0, 18), rng.uniform(10, 35)
    oral = rng.random()
    mean[Organ.CONTENT] = rng.uniform(0, 45) if oral < 0.8 else rng.uniform(100, 350)
    if oral > 0.9 or rng.random() < 0.25:
        # Feces and food: uneven.
        coarse[Organ.CONTENT], fine[Organ.CONTENT] = rng.uniform(5, 60), rng.uniform(10, 70)
    if phase == "arterial":
        # The spleen takes contrast medium up in bands.
        coarse[Organ.SPLEEN] = rng.uniform(2, 22)
    mean[Organ.TABLE] = rng.uniform(-500, 250)
    blood = mean[Organ.AORTA] if phase == "arterial" else max(portal, mean[Organ.AORTA])
    return Tissue(mean, coarse, fine, float(portal), float(liver), float(blood))


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Draw random image formation."""
    kvp = int(rng.choice((80, 100, 120, 140), p=(0.08, 0.3, 0.57, 0.05)))
    iterative = rng.random() < 0.5
    return Scanner(
        blur_px=rng.uniform(0.45, 0.95),
        sigma=float(np.exp(rng.uniform(np.log(4), np.log(25)))),
        power=rng.uniform(0.1, 0.5) if iterative else rng.uniform(0.5, 1.0),
        # Up to nearly white: the noise of a 512 x 512 image, averaged to this size, reaches the finest detail.
        cutoff=rng.uniform(0.12, 0.3) if iterative else rng.uniform(0.22, 0.8),
        streak=rng.uniform(3, 10) if rng.random() < 0.2 else 0.0,
        bias=(rng.normal(0, 2), rng.normal(0, 2), rng.normal(0, 2)),
        sharpen=rng.uniform(0.2, 0.9) if rng.random() < 0.25 else 0.0,
        kvp=kvp,
    )


class Textures:
    """The case's tissue texture fields, continuous over z."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.coarse, self.fine = (
            NoiseField(rng, int(rng.integers(14, 30))),
            NoiseField(rng, int(rng.integers(60, 120)), 24),
        )

    def compose(self, a: AnatomySlice, t: Tissue, s: float) -> Array:
        """Return the noise-free HU before blur, float32 (H, W)."""
        n = a.labels.shape[0]
        hu: Array = t.mean[a.labels]
        hu[a.portal] = t.portal
        for spot in a.spots:
            hu[spot.rows, spot.cols] += spot.share * (np.float32(spot.value.hu(t.mean)) - hu[spot.rows, spot.cols])
        hu = hu + t.coarse[a.labels] * self.coarse.at(s, n) + t.fine[a.labels] * self.fine.at(s, n)
        return hu


def blur(hu: Array, scanner: Scanner) -> Array:
    """Blur by the point spread of the scanner, float32 (H, W); sharp kernels overshoot at edges."""
    soft: Array = ndimage.gaussian_filter(hu, scanner.blur_px, mode="nearest", truncate=3.0)
    if scanner.sharpen:
        soft = soft + np.float32(scanner.sharpen) * (
            soft - ndimage.gaussian_filter(soft, 1.3, mode="nearest", truncate=2.0)
        )
    return soft


def scan_noise(rng: np.random.Generator, scanner: Scanner, body_r: Array) -> Array:
    """Draw correlated noise, strongest in the body's center, float32 (H, W) in HU."""
    n = body_r.shape[0]
    f = np.hypot(fft.fftfreq(n)[:, None], fft.rfftfreq(n)[None, :]).astype(np.float32)
    spectrum = (f + 0.01) ** np.float32(scanner.power) * np.exp(-((f / np.float32(scanner.cutoff)) ** 2))
    white = fft.rfft2(rng.standard_normal((n, n), dtype=np.float32)) * spectrum
    noise: Array = fft.irfft2(white, s=(n, n)).astype(np.float32)
    noise *= np.float32(scanner.sigma) / noise.std()
    r = np.minimum(body_r, 1.6)
    noise *= np.float32(0.5) + np.float32(0.55) * np.exp(-(r * r))
    # Photon starvation: rows share their error, most between the flanks.
    if scanner.streak:
        rows = ndimage.gaussian_filter1d(rng.standard_normal((n, 8)), 1.2, axis=0)
        shape = ndimage.zoom(rows, (1, n / 8), order=1) * np.exp(-((np.linspace(-1, 1, n)[:, None] * 2.2 - 0.3) ** 2))
        noise += (scanner.streak * 2.0 * shape).astype(np.float32)
    g = np.linspace(-1, 1, n, dtype=np.float32)
    b0, bx, by = (np.float32(b) for b in scanner.bias)
    noise = noise + b0 + bx * g[None, :] + by * g[:, None]
    return noise


def to_int16(hu: Array) -> Array:
    """Round, and clip to the 12-bit range of CT."""
    clipped: Array = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    return clipped
