"""The quadratic bilevel problem that ours and the peers descend on: 1000 rows, ten unknowns and ten parameters. NumPy only."""

from __future__ import annotations

import numpy as np

TARGET = 52.0
"Gap of the true loss to its least value at which a contestant is done; it starts at 4440."
GROUP = "quadratic bilevel problem, to a gap of 52"


def problem() -> dict[str, np.ndarray]:
    """A₁, b₁ of the upper loss; A₂, A₃, b₂ of the lower objective; the starts θ and x; M, m with f = ½‖Mθ + m‖²; the least f."""
    random = np.random.default_rng(29)
    A1, A2, A3 = (random.uniform(size=(1000, 10)) for _ in range(3))
    x1, x2, truth = (random.uniform(size=10) for _ in range(3))
    y1, y2 = (random.standard_normal(1000) for _ in range(2))
    b1, b2 = A1 @ x1 + 0.01 * y1, A2 @ x2 + A3 @ truth + 0.01 * y2
    pseudo = A1 @ np.linalg.pinv(A2)
    M, m = -pseudo @ A3, pseudo @ b2 - b1
    least = np.sum((M @ np.linalg.lstsq(M, -m)[0] + m) ** 2) / 2
    return {"A1": A1, "b1": b1, "A2": A2, "A3": A3, "b2": b2, "theta": np.ones(10), "x": x2, "M": M, "m": m, "least": np.asarray(least)}


def gap(given: dict[str, np.ndarray], theta: np.ndarray) -> float:
    """Of the true loss to its least value."""
    return float(np.sum((given["M"] @ np.asarray(theta) + given["m"]) ** 2) / 2 - given["least"])
