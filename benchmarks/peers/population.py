"""Points with errors in both variables about a line with a scatter of its own, for all contestants. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np


def sample() -> dict[str, Any]:
    """25 galaxies as a survey has them: log mass, gradient, and their standard errors."""
    random = np.random.default_rng(3)
    mass = random.uniform(-1, 1, 25)
    errors = random.uniform(0.003, 0.015, 25)
    gradient = -0.005 - 0.015 * mass + 0.015 * random.normal(size=25) + errors * random.normal(size=25)
    return {"x": mass + 0.1 * random.normal(size=25), "y": gradient, "x_errors": np.full(25, 0.1), "y_errors": errors}


def log_posterior(p: Any, x: Any, y: Any, x_errors: Any, y_errors: Any) -> float:
    """Flat priors on intercept, slope and scatter ≥ 0; the vertical likelihood."""
    a, b, s = p
    if s < 0:
        return -np.inf
    v = s**2 + y_errors**2 + b**2 * x_errors**2
    return float(-0.5 * np.sum(np.log(v) + (y - a - b * x) ** 2 / v))
