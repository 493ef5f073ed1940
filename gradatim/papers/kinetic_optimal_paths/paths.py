"""The four paths that are compared, and what is read off them."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gradatim.transport import (
    AbstractGaussianPath,
    CondOT,
    DataSeparation,
    EmpiricalVelocity,
    TabulatedPath,
    Trigonometric,
    VariancePreserving,
    conditional_kinetic_energy,
    empirical_kinetic_energy,
    kinetic_energy,
    kinetic_optimal_path,
)

LAST = 1 - 1e-3
"No time nearer to the data, on any path: the energy of the variance-preserving one grows without bound there."
NAMES = ("optimal", "straight", "trigonometric", "preserving")
WORDS = {"optimal": "optimal", "straight": "straight", "trigonometric": "trigonometric", "preserving": "variance preserving"}
NODES = 2049
"Of the tables."
DRAWN = 201
"Times at which the optimal path is kept."


def paths_of(separation: DataSeparation, *, floor: float | jax.Array = 1e-3) -> dict[str, AbstractGaussianPath]:
    """By name."""
    optimal = kinetic_optimal_path(separation, floor=floor)
    return {"optimal": optimal, "straight": CondOT(), "trigonometric": Trigonometric(), "preserving": VariancePreserving()}


def tables_of(separation: DataSeparation, *, floor: float = 1e-3) -> TabulatedPath:
    """All in one form, stacked, so that one program serves them together; true up to `LAST`."""
    return _tables(separation, jnp.asarray(floor))


def tables_of_each(separations: DataSeparation, *, floor: float = 1e-3) -> TabulatedPath:
    """The same of several, stacked along a first axis."""
    return jax.vmap(_tables, (0, None))(separations, jnp.asarray(floor))


@jax.jit
def _tables(separation: DataSeparation, floor: jax.Array) -> TabulatedPath:
    t = jnp.sin(jnp.pi / 2 * jnp.linspace(0, 1, NODES)) ** 2
    # Where the rate of the last one is infinite, that of a time just before.
    tables = [TabulatedPath(t, *path.coefficients(jnp.minimum(t, 1 - 1e-6))) for path in paths_of(separation, floor=floor).values()]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *tables)


@eqx.filter_jit
def _readings(separation: DataSeparation) -> dict[str, jax.Array]:
    optimal, tables = kinetic_optimal_path(separation), _tables(separation, jnp.asarray(1e-3))
    c = optimal.coefficients(jnp.linspace(0, 1, DRAWN))
    return {
        "energy": jax.vmap(lambda path: kinetic_energy(path, separation, end=LAST))(tables),
        "conditional": jax.vmap(lambda path: conditional_kinetic_energy(path, end=LAST))(tables),
        "whole_energy": kinetic_energy(optimal, separation),
        "least": separation.least_energy,
        "area": separation.area,
        "arc": separation.total_arc,
        "a": c.a,
        "m": c.m,
    }


def readings(separation: DataSeparation) -> dict[str, np.ndarray]:
    """Energies of all paths up to `LAST`, by formula; that of the optimal one to the end; b, area, Φ, and the optimal path."""
    return {name: np.asarray(value) for name, value in _readings(separation).items()}


def readings_of_each(separations: DataSeparation) -> dict[str, np.ndarray]:
    """The same of several, stacked along a first axis."""
    return {name: np.asarray(value) for name, value in jax.vmap(_readings)(separations).items()}


@eqx.filter_jit
def sampled_energies(tables: TabulatedPath, x: jax.Array, key: jax.Array, *, n_samples: int) -> tuple[jax.Array, jax.Array]:
    """By Monte Carlo over the exact velocity of a finite data set, for each path, with standard errors."""

    def of(path: TabulatedPath, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = empirical_kinetic_energy(EmpiricalVelocity(path, x), path, x, key=key, n_samples=n_samples, end=LAST, batch_size=256)
        return found.value, found.standard_error

    return jax.vmap(of)(tables, jax.random.split(key, len(NAMES)))
