"""evosax 0.3.2: a generation of OpenAI's evolution strategy, 256 points in 1,000 dimensions, called and in a scan: seconds as JSON.

`--population FILE` instead reads a mean, its points and their fitness (`.npz`), and prints the mean after one update.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import generation
import jax
import jax.numpy as jnp
import numpy as np
import optax
from evosax.algorithms import Open_ES

strategy = Open_ES(
    population_size=generation.POPULATION,
    solution=jnp.zeros(generation.DIMENSION),
    optimizer=optax.adam(generation.RATE),
    std_schedule=optax.constant_schedule(generation.RADIUS),
    use_antithetic_sampling=True,
)
settings = strategy.default_params


def one(state: Any, key: Any) -> Any:
    """One generation."""
    ask, tell = jax.random.split(key)
    points, state = strategy.ask(ask, state, settings)
    fitness = generation.fitness(points)
    state, _ = strategy.tell(tell, points, fitness, state, settings)
    return state, fitness.mean()


def begin(mean: Any) -> Any:
    """The state about a mean."""
    return strategy.init(jax.random.key(0), mean, settings)


def seconds(step: Callable[..., Any], n: int) -> float:
    """The median of a call."""
    state = begin(jnp.full(generation.DIMENSION, generation.START))
    times = []
    for i in range(generation.ROUNDS + 2):
        key = jax.random.fold_in(jax.random.key(1), i)
        keys = jax.block_until_ready(key if n == 1 else jax.random.split(key, n))
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, keys))
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main() -> None:
    """Prints the timings, or the updated mean, as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--population", help="a .npz file with mean, points and fitness")
    given = parser.parse_args().population
    if given:
        arrays = np.load(given)
        state, _ = strategy.tell(jax.random.key(0), arrays["points"], arrays["fitness"], begin(jnp.asarray(arrays["mean"])), settings)
        print(json.dumps({"mean": np.asarray(state.mean).tolist()}))
        return
    scan = jax.jit(lambda state, keys: jax.lax.scan(one, state, keys))
    start = begin(jnp.full(generation.DIMENSION, generation.START))
    _, values = scan(start, jax.random.split(jax.random.key(0), 300))
    info = {"fitness after 300 generations": float(values[-1])}
    rows = [
        {"group": group, "name": "evosax Open_ES", "seconds": seconds(step, n), "info": info}
        for group, step, n in ((generation.CALLED, jax.jit(one), 1), (generation.SCANNED, scan, generation.LENGTH))
    ]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
