"""Diffusion with sorption in one dimension: the equation, its initial and boundary conditions, as rows that are zero where they hold."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .differences import first_difference

Stencil = Literal["compact", "wide"]


class SpaceTimeGrid(eqx.Module):
    """Equally spaced times from 0 to `horizon` and places from 0 to 1, both ends among them.

    **Raises:** `ValueError` for fewer than 4 of either, or a horizon that is not positive.

    >>> SpaceTimeGrid(6, 5, 500.0).dt
    100.0
    """

    n_times: int = eqx.field(static=True)
    n_places: int = eqx.field(static=True)
    horizon: float = eqx.field(static=True)
    "The last time, s."

    def __check_init__(self) -> None:
        for name, number in (("n_times", self.n_times), ("n_places", self.n_places)):
            if number < 4:
                raise ValueError(f"{name} must be at least 4, got {number}")
        if not 0 < self.horizon < math.inf:
            raise ValueError(f"horizon must be positive and finite, got {self.horizon}")

    @property
    def dt(self) -> float:
        """Between two times, s."""
        return self.horizon / (self.n_times - 1)

    @property
    def dx(self) -> float:
        """Between two places."""
        return 1 / (self.n_places - 1)

    @property
    def t(self) -> Float[Array, " times"]:
        """The times, s."""
        return jnp.asarray(np.linspace(0.0, self.horizon, self.n_times), float)

    @property
    def x(self) -> Float[Array, " places"]:
        """The places."""
        return jnp.asarray(np.linspace(0.0, 1.0, self.n_places), float)

    def interior(self, n_times: int | None = None) -> Float[Array, "times places"]:
        """1 where the equation holds: after the start, off both ends, and, of the first `n_times` only, with all neighbours among
        them; 0 elsewhere.
        """
        last = self.n_times if n_times is None or n_times == self.n_times else n_times - 1
        inside = np.zeros((self.n_times, self.n_places))
        inside[1:last, 1:-1] = 1
        return jnp.asarray(inside, float)


class SorptionTerms(NamedTuple):
    """What the equation needs of u, each linear in it."""

    value: Float[Array, "times places ..."]
    t: Float[Array, "times places ..."]  # ∂u/∂t
    xx: Float[Array, "times places ..."]  # ∂²u/∂x²


class SorptionEdges(NamedTuple):
    """What initial and boundary conditions need of u, each linear in it; boundaries after the start."""

    initial: Float[Array, "places ..."]
    left: Float[Array, "later ..."]
    right: Float[Array, "later ..."]
    right_slope: Float[Array, "later ..."]  # ∂u/∂x


class DiffusionSorption(eqx.Module):
    """Diffusion of a solute that the ground holds back, after Freundlich's isotherm (as in PDEBench, Takamoto et al., arXiv:2210.07182).

        R(u) ∂u/∂t = D ∂²u/∂x²,     R(u) = 1 + (1-φ)/φ ρ k n u^{n-1},     0 < x < 1
        u(x, 0) = u₀,     u(0, t) = 1,     u(1, t) = s D ∂u/∂x(1, t)

    R grows without bound as u → 0: `guard` is added to a positive u and stands for any other. Rows of the equation are multiplied by a
    time, the horizon as a rule: in physical units they are a thousand times smaller than those of the boundaries.

    The benchmark's own solver has s = -1 at the right end, which is the default. Articles print s = +1, with which the problem is
    ill-posed: a layer of width D grows at the right end, as fast as the grid lets it.

    Units: x in 1 (the domain), t in seconds, u a share of the concentration at the left.

    **Arguments:** `diffusivity` D; `porosity` φ in (0, 1); `density` ρ of the solid; `sorption` k; `exponent` n in (0, 1]; `guard`,
    positive; `right_sign` s: -1 or 1.

    **Raises:** `ValueError` for constants out of range.

    >>> problem = DiffusionSorption(guard=1e-15)
    >>> print(f"{problem.retardation(jnp.array(1.0)):.4f} {problem.retardation(jnp.array(0.1)):.4f}")
    3.1569 3.8829
    """

    diffusivity: float | Float[Array, ""] = 5e-4
    porosity: float = eqx.field(static=True, default=0.29)
    density: float = eqx.field(static=True, default=2880.0)
    sorption: float = eqx.field(static=True, default=3.5e-4)
    exponent: float = eqx.field(static=True, default=0.874)
    guard: float = eqx.field(static=True, default=1e-6)
    right_sign: int = eqx.field(static=True, default=-1)

    def __check_init__(self) -> None:
        for name, number, low, high in (
            ("porosity", self.porosity, 0, 1),
            ("density", self.density, 0, math.inf),
            ("sorption", self.sorption, 0, math.inf),
            ("guard", self.guard, 0, math.inf),
        ):
            if not low < number < high:
                raise ValueError(f"{name} must lie strictly between {low} and {high}, got {number}")
        if not 0 < self.exponent <= 1:
            raise ValueError(f"exponent must lie in (0, 1], got {self.exponent}")
        if self.right_sign not in (-1, 1):
            raise ValueError(f"right_sign must be -1 or 1, got {self.right_sign}")
        if isinstance(self.diffusivity, int | float) and not 0 < self.diffusivity < math.inf:
            raise ValueError(f"diffusivity must be positive and finite, got {self.diffusivity}")

    @property
    def strength(self) -> float:
        """(1-φ)/φ ρ k n."""
        return (1 - self.porosity) / self.porosity * self.density * self.sorption * self.exponent

    def retardation(self, u: Float[Array, "*points"]) -> Float[Array, "*points"]:
        """R(u), with a finite derivative everywhere."""
        # The power is never taken of a negative number, not even where its value is not used: its derivative would be NaN.
        held_back = jnp.where(u > 0, u, 0.0) + self.guard
        # A power, by its logarithm: several times faster, and its derivative needs no power of its own.
        return 1 + self.strength * jnp.exp((self.exponent - 1) * jnp.log(held_back))

    def terms(self, u: Float[Array, "times places *basis"], grid: SpaceTimeGrid, *, stencil: Stencil = "compact") -> SorptionTerms:
        """Central differences, one-sided ones at the ends; of fields, or of all basis functions along further axes.

        `stencil="wide"` takes the second derivative as the first one twice, as the authors of arXiv:2402.13412 do: it does not see a
        field that alternates from place to place.
        """
        if u.shape[:2] != (grid.n_times, grid.n_places):
            raise ValueError(f"u must have {grid.n_times} times and {grid.n_places} places first, got shape {u.shape}")
        if stencil not in ("compact", "wide"):
            raise ValueError(f"stencil must be 'compact' or 'wide', got {stencil!r}")
        if stencil == "wide":
            return SorptionTerms(
                u, first_difference(u, grid.dt, axis=0), first_difference(first_difference(u, grid.dx, axis=1), grid.dx, axis=1)
            )
        inner = (u[:, 2:] - 2 * u[:, 1:-1] + u[:, :-2]) / grid.dx**2
        return SorptionTerms(u, first_difference(u, grid.dt, axis=0), jnp.concatenate([inner[:, :1], inner, inner[:, -1:]], axis=1))

    def edges(self, u: Float[Array, "times places *basis"], grid: SpaceTimeGrid) -> SorptionEdges:
        """Of fields, or of all basis functions along further axes."""
        return SorptionEdges(u[0], u[1:, 0], u[1:, -1], (u[1:, -1] - u[1:, -2]) / grid.dx)

    def equation(self, fields: SorptionTerms, time: float) -> Float[Array, "*points"]:
        """`time` · (∂u/∂t - D/R(u) ∂²u/∂x²)."""
        return time * (fields.t - self.diffusivity / self.retardation(fields.value) * fields.xx)

    def conditions(self, fields: SorptionEdges, initial: Float[Array, ""], scale: Float[Array, ""] | float) -> SorptionConditions:
        """What initial and boundary conditions leave; the initial one over `scale`, for which the authors take u₀ itself."""
        return SorptionConditions(
            (fields.initial - initial) / scale, fields.left - 1, fields.right - self.right_sign * self.diffusivity * fields.right_slope
        )


class SorptionConditions(NamedTuple):
    """What is left of the conditions."""

    initial: Float[Array, " places"]
    left: Float[Array, " later"]
    right: Float[Array, " later"]
