"""The Monge gap of ott-jax 0.6.0, by the authors of the article: seconds of a value with its gradient as JSON.

`--values` instead prints values and gradients, in double precision and solved to 1e-9.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import jax
import jax.numpy as jnp
import pairs
import timing
from ott.neural.methods.monge_gap import monge_gap_from_samples


def gap(epsilon: float, **settings: Any) -> Any:
    """The gap and its gradient in the images."""
    return jax.jit(jax.value_and_grad(lambda y, x: monge_gap_from_samples(x, y, epsilon=epsilon, **settings)))


def main() -> None:
    """Prints one JSON list, or the values."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", action="store_true")
    if parser.parse_args().values:
        jax.config.update("jax_enable_x64", True)
        x, y = map(jnp.asarray, pairs.pairs())
        exact = [gap(epsilon, threshold=1e-9, max_iterations=100_000)(y, x) for epsilon in pairs.EPSILONS]
        print(json.dumps([[float(value), gradient.tolist()] for value, gradient in exact]))
        return
    x, y = (jnp.asarray(points, jnp.float32) for points in pairs.pairs())
    rows = []
    for epsilon in pairs.EPSILONS:
        compiled = gap(epsilon, threshold=1e-3, max_iterations=10_000).lower(y, x).compile()
        jax.block_until_ready(compiled(y, x))
        seconds = timing.median(lambda compiled=compiled: jax.block_until_ready(compiled(y, x)))
        rows.append({"group": pairs.group(epsilon), "name": "ott-jax 0.6.0", "seconds": seconds, "info": {"jax": jax.__version__}})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
