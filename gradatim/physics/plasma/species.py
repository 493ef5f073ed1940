"""A kind of particle in a simulation, and the state of its particles."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .forces import AbstractForce
from .loading import check_temperature, maxwell_juttner, maxwellian
from .runaway import RunawayCap
from .vectors import Scalar, Vector

DISTRIBUTIONS = ("gaussian", "juttner")


class Particles(NamedTuple):
    """All particles of one species; the first axis of every array but `redrawn` counts them, and may be spread over devices."""

    position: tuple[Float[Array, " particles"], ...]  # in cells, half a step after the momenta
    momentum: Vector  # u = γ v / c
    fresh: Vector  # the pool from which runaways are replaced; empty without a cap
    redrawn: Int[Array, ""]  # how many times one was, so far


class Species(eqx.Module):
    """Electrons by default. Every species has the density one; a uniform background at rest neutralises what they leave.

    **Arguments:** `theta` θ = T / (m c²) > 0, with the species' own mass; `per_cell`: particles in each cell; `charge` in e; `mass` > 0 in
    mₑ; `force`: a thermodynamic force on these particles, with their own θ; `cap` of their runaways; `distribution` of the first momenta:
    `"gaussian"` in u or `"juttner"`.

    **Raises:** `ValueError`.

    >>> import jax
    >>> u = Species(0.1, 50, mass=1836.0, charge=1.0).draw(jax.random.key(0), 20_000)
    >>> print(f"{float((u.x**2).mean()):.2f}")
    0.10
    """

    theta: Scalar
    charge: Scalar
    mass: Scalar
    force: AbstractForce | None
    cap: RunawayCap | None
    per_cell: int = eqx.field(static=True)
    distribution: str = eqx.field(static=True)

    def __init__(
        self,
        theta: Scalar,
        per_cell: int,
        *,
        charge: Scalar = -1.0,
        mass: Scalar = 1.0,
        force: AbstractForce | None = None,
        cap: RunawayCap | None = None,
        distribution: str = "gaussian",
    ):
        check_temperature(theta)
        if per_cell < 1:
            raise ValueError(f"per_cell must be at least 1, got {per_cell}")
        if is_known(mass) and not float(mass) > 0:
            raise ValueError(f"mass must be positive, got {float(mass)}")
        if distribution not in DISTRIBUTIONS:
            raise ValueError(f"distribution must be one of {DISTRIBUTIONS}, got {distribution!r}")
        self.theta, self.per_cell, self.charge, self.mass = theta, per_cell, charge, mass
        self.force, self.cap, self.distribution = force, cap, distribution

    def draw(self, key: PRNGKeyArray, n: int) -> Vector:
        """`n` momenta from the distribution that it starts with."""
        return (maxwellian if self.distribution == "gaussian" else maxwell_juttner)(key, self.theta, n)
