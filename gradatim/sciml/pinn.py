"""What networks that solve a convection problem have in common: the points they are held to, the parts of their loss, what is trained."""

from __future__ import annotations

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradatim.numerics.checks import is_known

from .convection import ConvectionDiffusion
from .periodic_network import Jet, PeriodicNetwork


class Points(eqx.Module):
    """Where a network is held to its equations: `x` (or labels ξ) and `t` of each point, and the places that start."""

    x: Float[Array, " points"]
    t: Float[Array, " points"]
    initial: Float[Array, " n"]


class LossWeights(NamedTuple):
    """Factors of the mean squares; the paper's code has them before norms that are not squared, which have no gradient at zero."""

    path: float = 10.0
    "Of the characteristics' equation."
    state: float = 1.0
    "Of the state's."
    initial: float = 100.0
    "Of the initial conditions, which the code weighs by 1000."


DEFAULT_WEIGHTS = LossWeights()


class Losses(NamedTuple):
    """What should be zero: mean squares, and a share."""

    path: Float[Array, ""]
    state: Float[Array, ""]
    initial: Float[Array, ""]
    crossed: Float[Array, ""]
    "Share of the points where ∂X/∂ξ ≤ 0, which has no gradient and no weight: to be counted while a network is trained."

    def weighted(self, weights: LossWeights) -> Float[Array, ""]:
        """The loss."""
        return weights.path * self.path + weights.state * self.state + weights.initial * self.initial


class AbstractPINN(eqx.Module):
    """A trial solution of a problem, made of networks."""

    problem: eqx.AbstractVar[ConvectionDiffusion]

    @abc.abstractmethod
    def losses(self, points: Points) -> Losses:
        """The parts of the loss."""

    @abc.abstractmethod
    def evaluate(self, x: Float[Array, " nx"], t: Float[Array, " nt"]) -> Float[Array, "nt nx"]:
        """The state on a grid of places and times."""

    @abc.abstractmethod
    def networks(self) -> tuple[PeriodicNetwork, ...]:
        """What is trained."""

    def loss(self, points: Points, weights: LossWeights = DEFAULT_WEIGHTS) -> Float[Array, ""]:
        """What training makes small. Small is not right: a state that obeys the equation from a wrong start on has a small loss too."""
        return self.losses(points).weighted(weights)

    def split(self) -> tuple[PyTree, PyTree]:
        """The arrays of the networks, which are trained, and the rest; `eqx.combine` joins them again."""
        trained = tuple(jax.tree.map(eqx.is_inexact_array, network) for network in self.networks())
        return eqx.partition(self, eqx.tree_at(lambda model: model.networks(), jax.tree.map(lambda _: False, self), trained))


def checked_offset(offset: float | Float[Array, ""], *, hard_initial: bool) -> Float[Array, ""]:
    """A constant beside the network of a state, which a state that starts from w₀ by construction must not have."""
    if hard_initial and is_known(offset) and offset != 0:
        raise ValueError(f"offset must be 0 with hard_initial, which begins at w₀, got {offset}")
    return jnp.asarray(offset, float)


def initial_jet(problem: ConvectionDiffusion, x: Float[Array, " points"]) -> Jet:
    """The initial state and its derivatives at points, by forward differentiation twice."""

    def once(x: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return jax.jvp(problem.initial, (x,), (jnp.ones_like(x),))

    def twice(x: Float[Array, ""]) -> Jet:
        (value, slope), (_, curvature) = jax.jvp(once, (x,), (jnp.ones_like(x),))
        return Jet(value, jnp.zeros_like(value), slope, curvature)

    return jax.vmap(twice)(x)


def collocation_grid(n_places: int, n_times: int, *, period: float, horizon: float) -> Points:
    """All pairs of `n_places` equally spaced places of a period and `n_times` times from 0 to `horizon`, both ends among them.

    A wave of period P that passes with speed c is only seen if the times are closer than P/c; 8 to a passage are few.

    **Raises:** `ValueError` for fewer than 2 of either, or a period or horizon that is not positive.

    >>> grid = collocation_grid(4, 3, period=1.0, horizon=2.0)
    >>> grid.x.shape, grid.t[:5].tolist()
    ((12,), [0.0, 0.0, 0.0, 0.0, 1.0])
    """
    for name, number in (("n_places", n_places), ("n_times", n_times)):
        if number < 2:
            raise ValueError(f"{name} must be at least 2, got {number}")
    for name, length in (("period", period), ("horizon", horizon)):
        if not length > 0:
            raise ValueError(f"{name} must be positive, got {length}")
    initial = period * jnp.arange(n_places) / n_places
    t = jnp.linspace(0, horizon, n_times)
    return Points(jnp.tile(initial, n_times), jnp.repeat(t, n_places), initial)
