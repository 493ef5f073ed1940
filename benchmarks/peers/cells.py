"""The periodic cell that solvers share: sixteen elements of eight nodes a side, a fibre of radius 0.3 by centres. NumPy only."""

from __future__ import annotations

import numpy as np

SIDE = 16
GROUP = "periodic cell 16², averaged stress and tangent"
BULK, A1, A2 = 4780.0, 50.0, 0.06
FIBRE_BULK, FIBRE_SHEAR = 43452.381, 29918.0328
STRAIN = np.array([0.02, -0.01, 0.03])
"(E₁₁, E₂₂, 2 E₁₂)."
STRESS = np.array([83.93876327, 50.91619172, 11.40445203])
"Its averaged stress, MPa."
TOLERANCE = 1e-10
"Of Newton's method."


def is_fibre(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of centres of elements."""
    return x**2 + y**2 < 0.3**2
