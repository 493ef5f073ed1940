"""What needs no training: gaps by assignment of random, optimal and linear maps, of growing samples, of subsets and of midpoints."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Session, host_generator
from gradatim.transport import SQUARED_EUCLIDEAN, Euclidean, exact_monge_gap, monge_gap_from_samples

from .config import Exact
from .problems import PLANE_MAP, linear_gap, random_convex_map, turn

LINEAR = {"turn by 30°": turn(30), "turn by 90°": turn(90), "turn by 180°": turn(180), "shear": np.array([[1.0, 2.0], [0.0, 0.5]])}
EPSILONS = (0.0, 0.05, 1.0)
DIMENSIONS = (2, 8)
EUCLIDEAN = Euclidean()


def run_exact(config: Exact, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """All of it."""
    keys = jax.random.split(key, 4)
    found = session.once("gaps by assignment", lambda: _bounds(config, keys[0]))
    linear, by_size = session.once("linear maps", lambda: (_linear(config, keys[1]), _by_size(config, keys[2])))
    midpoints = session.once("convexity", lambda: _midpoints(config, keys[3]))
    units = {"units": "1"}
    return {
        "bounds": xr.Dataset({name: (f"{name}_map", values, units) for name, values in found.items()}),
        "linear": xr.Dataset(
            {
                "gap": (("repeat", "map"), linear, units),
                "formula": ("map", [linear_gap(matrix) for matrix in LINEAR.values()], units),
                "by_size": (("size", "sample"), by_size, units),
            },
            {"map": list(LINEAR), "size": list(config.sizes)},
        ),
        "convexity": xr.Dataset({"excess": (("epsilon", "pair"), midpoints, units)}, {"epsilon": list(EPSILONS)}),
    }


def _gap(x: np.ndarray, y: np.ndarray, cost: object = SQUARED_EUCLIDEAN) -> float:
    return exact_monge_gap(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), cost=cost).value  # pyright: ignore[reportArgumentType]


def _bounds(config: Exact, key: jax.Array) -> dict[str, np.ndarray]:
    """Gaps of random maps, of optimal ones, and of these on subsets."""
    random = host_generator(key)
    found: dict[str, list[float]] = {"random": [], "optimal": [], "subset": []}
    for dim in DIMENSIONS:
        x = random.normal(size=(config.points, dim))
        for _ in range(config.maps):
            bent = np.tanh(x @ random.normal(size=(dim, 16)) + random.normal(size=(1, 16))) @ random.normal(size=(16, dim))
            for cost in (SQUARED_EUCLIDEAN, EUCLIDEAN):
                found["random"].append(_gap(x, bent, cost))
        optimal = {"identity": x, "shift": x + random.normal(size=(1, dim)), "convex": random_convex_map(random, dim)(x)}
        if dim == 2:
            optimal["known"] = PLANE_MAP(x)
        for y in optimal.values():
            found["optimal"].append(_gap(x, y))
            # Of one size, for one program.
            subsets = [random.permutation(config.points)[: config.points // 4] for _ in range(config.maps)]
            found["subset"] += [_gap(x[rows], y[rows]) for rows in subsets]
    return {name: np.array(values) for name, values in found.items()}


def _linear(config: Exact, key: jax.Array) -> np.ndarray:
    """(repeat, map)."""
    random = host_generator(key)
    samples = [random.normal(size=(config.linear_points, 2)) for _ in range(config.repeats)]
    return np.array([[_gap(x, x @ matrix.T) for matrix in LINEAR.values()] for x in samples])


def _by_size(config: Exact, key: jax.Array) -> np.ndarray:
    """(size, repeat) of a quarter turn."""
    random = host_generator(key)
    quarter = turn(90)
    samples = [[random.normal(size=(n, 2)) for _ in range(config.size_repeats)] for n in config.sizes]
    return np.array([[_gap(x, x @ quarter.T) for x in row] for row in samples])


def _midpoints(config: Exact, key: jax.Array) -> np.ndarray:
    """The gap halfway between two images, less the mean of their gaps: (ε, pair). Half of the pairs are near each other."""
    random = host_generator(key)
    x = random.normal(size=(config.pair_points, 2))
    first, second = random.normal(size=(2, config.pairs, *x.shape))
    second[::2] = first[::2] + 0.05 * second[::2]
    images = jnp.asarray(np.concatenate([first, second, (first + second) / 2]), jnp.float32)

    # The error of a value is of second order in the marginal error.
    @jax.jit
    def entropic(x: jax.Array, images: jax.Array, epsilon: jax.Array) -> jax.Array:
        return jax.lax.map(lambda y: monge_gap_from_samples(x, y, epsilon=epsilon, tolerance=1e-4, max_iterations=10_000).value, images)

    rows = []
    for epsilon in EPSILONS:
        if epsilon > 0:
            values = np.asarray(entropic(jnp.asarray(x, jnp.float32), images, jnp.float32(epsilon)), np.float64)
        else:
            values = np.array([_gap(x, np.asarray(y)) for y in images])
        first_gap, second_gap, middle = values.reshape(3, -1)
        rows.append(middle - (first_gap + second_gap) / 2)
    return np.stack(rows)
