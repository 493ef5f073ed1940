"""Networks trained on a checkerboard along each path, and what few Euler steps make of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.lab import Session
from gradatim.transport import (
    TabulatedPath,
    empirical_kinetic_energy,
    flow_matching_loss,
    normalise,
    sample_flow,
    sliced_distance,
)

from .config import Config
from .estimates import estimated
from .paths import LAST, NAMES, readings_of_each, tables_of_each

DRAWN_POINTS = 2000
WATCHED = 1024
ENERGY_BATCH = 8192


class VelocityField(eqx.Module):
    """A multi-layer perceptron of time and place with He's initialisation, in single precision."""

    weights: list[Float[Array, "n_in n_out"]]
    biases: list[Float[Array, " n_out"]]

    def __init__(self, dim: int, width: int, depth: int, *, key: PRNGKeyArray) -> None:
        sizes = (dim + 1, *(width for _ in range(depth)), dim)
        keys = jax.random.split(key, depth + 1)
        shapes = zip(keys, pairwise(sizes), strict=True)
        self.weights = [jax.random.normal(key, (m * n,), jnp.float32).reshape(m, n) * (2 / m) ** 0.5 for key, (m, n) in shapes]
        self.biases = [jnp.zeros(n, jnp.float32) for n in sizes[1:]]

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The velocity."""
        h = jnp.concatenate([x, t[None]])
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = jax.nn.silu(h @ weight + bias)
        return h @ self.weights[-1] + self.biases[-1]


def checkerboard(uniform: Float[Array, "n 3"]) -> Float[Array, "n 2"]:
    """Points of the dark cells of a board of 4 × 4, normalised, from uniform numbers."""
    cell = jnp.minimum(jnp.floor(8 * uniform[:, 0]), 7)
    column = jnp.floor(cell / 2)
    row = 2 * (cell % 2) + column % 2
    return (jnp.stack([column, row], axis=1) - 2 + uniform[:, 1:]) * (3 / 4) ** 0.5


def points_of(key: PRNGKeyArray, n: int) -> Float[Array, "{n} 2"]:
    """Points of the board."""
    return checkerboard(jax.random.uniform(key, (3 * n,), jnp.float32).reshape(n, 3))


def batch_of(key: PRNGKeyArray, n: int) -> tuple[Float[Array, "n 2"], Float[Array, "n 2"], Float[Array, " n"]]:
    """Noise, data and times."""
    key_noise, key_data = jax.random.split(key)
    noise = jax.random.normal(key_noise, (2 * n,), jnp.float32).reshape(n, 2)
    uniform = jax.random.uniform(key_data, (4 * n,), jnp.float32).reshape(n, 4)
    return noise, checkerboard(uniform[:, :3]), LAST * uniform[:, 3]


def run_checkerboard(config: Config, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Training of all networks at once, seeds and paths along two axes, then samples and energies."""
    settings = config.checkerboard
    each_key = jax.vmap(lambda key: jax.random.split(key, settings.seeds))(jax.random.split(key, 7))
    key_points, key_noise, key_init, key_steps, key_ends, key_other, key_energy = each_key
    sets = (normalise(points_of(key, settings.points))[0] for key in key_points)
    label = "separations of the checkerboard"
    separations = estimated(session, label, sets, key_noise, n_noise=settings.noise, n_nodes=settings.nodes)
    tables = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tables_of_each(separations, floor=settings.floor))
    fields, losses = _train(config, session, tables, key_init, key_steps)

    n = settings.samples
    x0, held_out, _ = jax.jit(jax.vmap(lambda key: batch_of(key, n)))(key_ends)
    ends = {
        steps: session.once(f"{steps} Euler steps", lambda steps=steps: np.asarray(_ends(fields, x0, jnp.asarray(steps))))
        for steps in settings.euler
    }
    distances = np.stack([_distances(found, np.asarray(held_out), settings.directions) for found in ends.values()], axis=-1)
    others = np.asarray(jax.jit(jax.vmap(lambda key: points_of(key, n)))(key_other))
    floor = _distances(others[:, None], np.asarray(held_out), settings.directions)
    energies = session.once(
        "kinetic energy of the networks",
        lambda: np.asarray(_energies(fields, tables, held_out, key_energy, n_samples=settings.energy_samples)),
    )
    formula = readings_of_each(separations)
    session.note(
        f"Checkerboard, mean over seeds: area {formula['area'].mean():.4f}, b {formula['least'].mean():.4f}; energies by formula "
        + ", ".join(f"{name} {value:.4f}" for name, value in zip(NAMES, formula["energy"].mean(axis=0), strict=True))
        + f"; sliced distance between two samples of the data {floor.mean():.4f}"
    )
    shown = np.stack([found[0, :, :DRAWN_POINTS] for found in ends.values()], axis=1)
    data = xr.Dataset(
        {
            "loss": (("row", "seed", "path"), losses["loss"], {"units": "1"}),
            "distance": (("seed", "path", "steps"), distances, {"units": "1"}),
            "data_distance": ("seed", floor[:, 0], {"units": "1"}),
            "energy": (("seed", "path"), energies, {"units": "1"}),
            "area": ("seed", formula["area"], {"units": "1"}),
            "formula": (("seed", "path"), formula["energy"], {"units": "1"}),
            "ends": (("path", "steps", "point", "axis"), shown, {"units": "1"}),
            "data": (("point", "axis"), np.asarray(held_out)[0, :DRAWN_POINTS], {"units": "1"}),
        },
        coords={"path": list(NAMES), "steps": list(settings.euler), "row": losses["step"]},
    )
    return {"checkerboard": data}


def _train(config: Config, session: Session, tables: TabulatedPath, key_init: jax.Array, keys: jax.Array) -> tuple[Any, Any]:
    settings = config.checkerboard
    optimizer = optax.adam(settings.learning_rate)

    @jax.jit
    def initial(keys: Array) -> Any:
        fields = jax.vmap(lambda key: VelocityField(2, settings.width, settings.depth, key=key))(keys)
        # The same weights for every path.
        fields = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], len(NAMES), axis=1), fields)
        return fields, jax.vmap(jax.vmap(optimizer.init))(fields)

    def step(state: Any, i: Array, args: Any) -> Any:
        tables, keys = args
        all_fields, all_memories = state

        def of_seed(fields: Any, memories: Any, tables: TabulatedPath, key: Array) -> Any:
            x0, x1, t = batch_of(jax.random.fold_in(key, i), settings.batch_size)

            def of_path(field: Any, memory: Any, path: TabulatedPath) -> Any:
                gradient = jax.grad(flow_matching_loss)(field, path, x0, x1, t)
                updates, memory = optimizer.update(gradient, memory)
                return eqx.apply_updates(field, updates), memory

            return jax.vmap(of_path)(fields, memories, tables)

        return jax.vmap(of_seed)(all_fields, all_memories, tables, keys)

    def watch(state: Any, args: Any) -> dict[str, Array]:
        tables, keys = args
        x0, x1, t = batch_of(keys[0], WATCHED)
        loss = jax.vmap(lambda field, path: flow_matching_loss(field, path, x0, x1, t))
        return {"loss": jax.vmap(loss)(state[0], tables)}

    loop = session.loop(
        step, initial(key_init), steps=settings.steps, args=(tables, keys), watch=watch, label="flow matching on a checkerboard"
    )
    return loop.state[0], loop.history


@jax.jit
def _ends(fields: VelocityField, x0: Array, n_steps: Array) -> Array:
    """(seed, path, point, axis)."""

    def of_seed(given: tuple[VelocityField, Array]) -> Array:
        fields, x0 = given
        return jax.vmap(lambda field: jax.vmap(lambda x: sample_flow(field, x, n_steps=n_steps))(x0))(fields)

    # One seed at a time: activations of all points for all networks would fill the memory.
    return jax.lax.map(of_seed, (fields, x0))


@eqx.filter_jit
def _energies(fields: VelocityField, tables: TabulatedPath, x1: Array, keys: Array, *, n_samples: int) -> Array:
    """(seed, path), the same times and noise for all paths."""

    def of(field: Any, path: TabulatedPath, x1: Array, key: Array) -> Array:
        return empirical_kinetic_energy(field, path, x1, key=key, n_samples=n_samples, end=LAST, batch_size=ENERGY_BATCH).value

    return jax.vmap(jax.vmap(of, (0, 0, None, None)))(fields, tables, x1, keys)


def _distances(found: np.ndarray, data: np.ndarray, n_directions: int) -> np.ndarray:
    """Sliced Wasserstein distances of order two, (seed, path), along evenly spread directions."""
    angles = np.pi * np.arange(n_directions) / n_directions
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
    return sliced_distance(found, data[:, None], directions)
