"""Dimensions by scikit-dimension 0.5.0 of the same points: seconds as JSON."""

from __future__ import annotations

import json
from typing import Any

import scaling
import skdim
import timing


def main() -> None:
    """Prints one JSON list."""
    points = scaling.points()
    estimators: dict[str, Any] = {
        "scikit-dimension MLE, 5 neighbours": lambda: skdim.id.MLE(K=5).fit(points).dimension_,
        "scikit-dimension TwoNN": lambda: skdim.id.TwoNN().fit(points).dimension_,
    }
    rows = [
        {"group": scaling.DIMENSION, "name": name, "seconds": timing.median(estimate), "info": {"dimension": float(estimate())}}
        for name, estimate in estimators.items()
    ]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
