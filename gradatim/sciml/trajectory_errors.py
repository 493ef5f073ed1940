"""How far a predicted trajectory is from the true one, as places and as energies (arXiv:2212.01168).

Errors grow from nothing to their largest along a trajectory: a geometric mean over time weighs all of it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from .hamiltonian import Energy


def relative_state_error(predicted: Float[Array, "*batch size"], true: Float[Array, "*batch size"]) -> Float[Array, "*batch"]:
    """‖x̂ - x‖ / (‖x̂‖ + ‖x‖), at most 1; 0 where both are zero.

    >>> relative_state_error(jnp.array([3.0, 0.0]), jnp.array([1.0, 0.0])).tolist()
    0.5
    """
    apart = jnp.linalg.norm(predicted - true, axis=-1)
    size = jnp.linalg.norm(predicted, axis=-1) + jnp.linalg.norm(true, axis=-1)
    return jnp.where(size > 0, apart / jnp.where(size > 0, size, 1), 0)


def relative_field_error(predicted: Float[Array, "points size"], true: Float[Array, "points size"]) -> Float[Array, ""]:
    """‖f̂ - f‖ / ‖f‖ over all points together.

    >>> relative_field_error(jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 4.0]])).tolist()
    0.75
    """
    return jnp.linalg.norm(predicted - true) / jnp.linalg.norm(true)


def relative_energy_error(energy: Energy, predicted: Float[Array, "times size"], start: Float[Array, " size"]) -> Float[Array, " times"]:
    """|H(x̂(t)) - H(x(0))| / |H(x(0))| along a predicted trajectory, with the energy of the true system.

    A learned energy is conserved along its own trajectories, however wrong it is. An energy is defined up to a constant: it must be one
    with which H(x(0)) is not zero.

    **Raises:** `ValueError` for a start without energy; traced, it gives NaN.

    >>> path = jnp.array([[1.0, 0.0], [0.0, 1.1]])
    >>> print(relative_energy_error(lambda x: x @ x / 2, path, path[0]).round(4))
    [0.   0.21]
    """
    first = energy(start)
    if is_known(first) and first == 0:
        raise ValueError("energy must not be zero at the start, to which errors are relative: add a constant to it")
    return jnp.abs(jax.vmap(energy)(predicted) - first) / jnp.abs(jnp.where(first == 0, jnp.nan, first))


def geometric_mean_over_time(errors: Float[Array, "*batch times"], *, floor: float = 1e-6) -> Float[Array, "*batch"]:
    """exp(mean of log errors), errors below the floor counted as the floor.

    **Raises:** `ValueError` for a floor that is not positive.

    >>> print(f"{geometric_mean_over_time(jnp.array([1e-4, 1e-2])):.4f}")
    0.0010
    """
    if not floor > 0:
        raise ValueError(f"floor must be positive, got {floor}")
    return jnp.exp(jnp.mean(jnp.log(jnp.maximum(errors, floor)), axis=-1))
