"""Conjugate gradients preconditioned by the algebraic multigrid of pyamg: seconds of a solve as JSON, set-up apart."""

from __future__ import annotations

import json
import time
from importlib.metadata import version

import poisson
import pyamg
import timing
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import cg


def main() -> None:
    """Prints one JSON list."""
    rows = []
    for side in poisson.SIDES:
        matrix, b = csr_matrix(poisson.matrix(side)), poisson.right_hand_side(side).ravel()
        for name, make in (("ruge_stuben", pyamg.ruge_stuben_solver), ("smoothed_aggregation", pyamg.smoothed_aggregation_solver)):
            began = time.perf_counter()
            preconditioner = make(matrix).aspreconditioner()
            setup = time.perf_counter() - began
            steps: list[int] = []
            x, info = cg(matrix, b, rtol=poisson.RTOL, atol=0.0, M=preconditioner, callback=lambda _, steps=steps: steps.append(0))
            if info or poisson.left(side, x) > 1.01 * poisson.RTOL:
                raise RuntimeError(f"{name} did not reach the tolerance")
            seconds = timing.median(lambda m=preconditioner, matrix=matrix, b=b: cg(matrix, b, rtol=poisson.RTOL, atol=0.0, M=m))
            info = {"iterations": len(steps), "setup seconds": round(setup, 4), "scipy": version("scipy")}
            rows.append({"group": poisson.group(side), "name": f"pyamg {version('pyamg')}, {name}", "seconds": seconds, "info": info})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
