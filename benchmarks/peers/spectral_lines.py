"""The spectrum of an SDSS galaxy around Hβ and around Hα, for all contestants. NumPy only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TABLE = Path(__file__).resolve().parents[2] / "gradatim" / "papers" / "metallicity_gradients" / "sdss_358_51818_504.csv"
REDSHIFT = 0.0472221521
RANGES = ((4820.0, 5050.0), (6500.0, 6630.0))
"Å at rest."
LINES = (
    ((4862.68, 0, 1.0), (5008.24, 1, 1.0), (4960.30, 1, 1 / 2.98)),
    ((6564.61, 0, 1.0), (6585.27, 1, 1.0), (6549.86, 1, 1 / 3.05)),
)
"Of each range: wavelength in vacuum, group of a fixed flux ratio, and share in it: Hβ, [O III]; Hα, [N II]."


def parts() -> list[tuple[Any, Any, Any]]:
    """Wavelength in vacuum, flux density and inverse variance of each range."""
    table = np.loadtxt(TABLE, delimiter=",")
    rest = 10 ** table[:, 0] / (1 + REDSHIFT)
    chosen = [table[(rest > low) & (rest < high)] for low, high in RANGES]
    return [(10 ** part[:, 0], part[:, 1], part[:, 2]) for part in chosen]
