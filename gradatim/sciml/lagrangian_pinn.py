"""Lagrangian PINN: characteristics and the state along them, each a small network
(Mojgani, Balajewicz and Hassanzadeh, arXiv:2205.02902).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .convection import ConvectionDiffusion
from .periodic_network import Jet, PeriodicNetwork, started_at
from .pinn import AbstractPINN, Losses, Points, checked_offset, initial_jet

Diffusion = Literal["physical", "label"]


class LagrangianResiduals(NamedTuple):
    """What the two equations leave at points, and where characteristics have crossed."""

    path: Float[Array, " points"]
    state: Float[Array, " points"]
    is_crossed: Bool[Array, " points"]
    "∂X/∂ξ ≤ 0: the state there has no place of its own."


class LagrangianPINN(AbstractPINN):
    """Two networks, periodic in the label ξ: a displacement D and a state W on the characteristics X = ξ + D that it makes.

        R_X = ∂X/∂t - f(X, t, W),     R_W = ∂W/∂t - g(X, t, W) w_xx,     w_xx = (1/J) ∂_ξ((1/J) ∂_ξ W),     J = ∂X/∂ξ
        loss = γ_X ⟨R_X²⟩ + γ_W ⟨R_W²⟩ + γ₀ (⟨(X(ξ, 0) - ξ)²⟩ + ⟨(W(ξ, 0) - w₀(ξ))²⟩)

    The speed leaves the equation of the state, which is smooth along the paths, and enters one that a straight line solves. Paths of
    viscous problems do not cross (J > 0); those of a network may while it learns: in the loss J is held at `jacobian_floor` or above,
    without a gradient below, and `residuals` say where it was.

    Deviations from the authors' code: D is periodic and not X, which is no periodic function of the label; the networks share no layer;
    norms are squared. The code differentiates W by the label (`diffusion="label"`, w_xx replaced by ∂²W/∂ξ²), which is the same thing only
    where J = 1: for Burgers from sin x it solves another equation, whose solution is off by 4 % at t = 1 with ν = 0.01, and by 14 % if
    every label counts alike, for they crowd at the front.

    **Arguments:** `problem`; `width`; `depth_path`, `depth_state`: hidden layers of D and W, by default the authors'; `diffusion`;
    `hard_initial`: D and W - w₀ are t times their networks, which fulfils the initial conditions, and leaves no loss of them;
    `jacobian_floor`: positive; `offset`: a constant in W beside its network, which is not trained. For Burgers whose states have a mean c
    far from 0 it should be c: the residuals are the same for X + ct and W + c as for X and W, but a network that must first find a large
    constant ends at it; `key`. D begins as zero, so that no paths cross at first.

    **Raises:** `ValueError` for a form of diffusion that does not exist, a floor that is not positive, or an offset beside `hard_initial`,
    where w₀ has it already.

    >>> problem = ConvectionDiffusion(30.0, 0.01, jnp.sin, 6.283185307179586)
    >>> model = LagrangianPINN(problem, width=8, depth_state=2, key=jax.random.key(0))
    >>> print(f"{model.jacobian(jnp.array([1.0]), jnp.array([0.5]))[0]:.1f}")
    1.0
    """

    problem: ConvectionDiffusion
    path: PeriodicNetwork
    state: PeriodicNetwork
    offset: Float[Array, "*batch"]
    diffusion: Diffusion = eqx.field(static=True)
    hard_initial: bool = eqx.field(static=True)
    jacobian_floor: float = eqx.field(static=True)

    def __init__(
        self,
        problem: ConvectionDiffusion,
        *,
        width: int = 50,
        depth_path: int = 2,
        depth_state: int = 5,
        diffusion: Diffusion = "physical",
        hard_initial: bool = False,
        jacobian_floor: float = 0.02,
        offset: float | Float[Array, ""] = 0.0,
        key: PRNGKeyArray,
    ):
        if diffusion not in ("physical", "label"):
            raise ValueError(f"diffusion must be 'physical' or 'label', got {diffusion!r}")
        if not jacobian_floor > 0:
            raise ValueError(f"jacobian_floor must be positive, got {jacobian_floor}")
        self.offset = checked_offset(offset, hard_initial=hard_initial)
        key_path, key_state = jax.random.split(key)
        self.problem, self.diffusion, self.hard_initial, self.jacobian_floor = problem, diffusion, hard_initial, jacobian_floor
        self.path = PeriodicNetwork(width, depth_path, period=problem.period, key=key_path, last_gain=0.0)
        self.state = PeriodicNetwork(width, depth_state, period=problem.period, key=key_state)

    def jets(self, xi: Float[Array, " points"], t: Float[Array, " points"]) -> tuple[Jet, Jet]:
        """X and W, and their derivatives by time and label."""
        path, state = self.path.jet(xi, t), self.state.jet(xi, t)
        if self.hard_initial:
            zero = jnp.zeros_like(xi)
            path, state = started_at(path, t, Jet(zero, zero, zero, zero)), started_at(state, t, initial_jet(self.problem, xi))
        else:
            state = state._replace(value=state.value + self.offset.astype(xi.dtype))
        return path._replace(value=xi + path.value, x=1 + path.x), state

    def residuals(self, points: Points) -> LagrangianResiduals:
        """R_X and R_W at labels and times."""
        X, W = self.jets(points.x, points.t)
        speed = jax.vmap(self.problem.speed)(X.value, points.t, W.value)
        diffusivity = jax.vmap(self.problem.diffusivity)(X.value, points.t, W.value)
        curvature = W.xx
        if self.diffusion == "physical":
            # (1/J) ∂_ξ((1/J) ∂_ξ W), multiplied out.
            J = jnp.maximum(X.x, self.jacobian_floor)
            curvature = (W.xx - W.x * X.xx / J) / J**2
        return LagrangianResiduals(X.t - speed, W.t - diffusivity * curvature, X.x <= 0)

    def losses(self, points: Points) -> Losses:
        """Mean squares of both residuals, and of both errors at the start; and the share of the points where paths have crossed."""
        residuals = self.residuals(points)
        initial = jnp.zeros((), points.x.dtype)
        if not self.hard_initial:
            xi, zero = points.initial, jnp.zeros_like(points.initial)
            start = self.state(xi, zero) + self.offset.astype(xi.dtype) - jax.vmap(self.problem.initial)(xi)
            initial = jnp.mean(self.path(xi, zero) ** 2) + jnp.mean(start**2)
        crossed = jnp.mean(residuals.is_crossed, dtype=points.x.dtype)
        return Losses(jnp.mean(residuals.path**2), jnp.mean(residuals.state**2), initial, crossed)

    def characteristics(self, xi: Float[Array, " nxi"], t: Float[Array, " nt"]) -> tuple[Float[Array, "nt nxi"], Float[Array, "nt nxi"]]:
        """X, not wrapped into one period, and W on a grid of labels and times."""
        labels, times = (grid.ravel() for grid in jnp.meshgrid(xi, t))
        displacement, state = self.path(labels, times), self.state(labels, times)
        if self.hard_initial:
            displacement, state = times * displacement, jax.vmap(self.problem.initial)(labels) + times * state
        else:
            state = state + self.offset.astype(xi.dtype)
        shape = (t.size, xi.size)
        return (labels + displacement).reshape(shape), state.reshape(shape)

    def jacobian(self, xi: Float[Array, " points"], t: Float[Array, " points"]) -> Float[Array, " points"]:
        """J = ∂X/∂ξ at points."""
        return self.jets(xi, t)[0].x

    def evaluate(self, x: Float[Array, " nx"], t: Float[Array, " nt"], *, n_labels: int = 256) -> Float[Array, "nt nx"]:
        """The state on a grid of places and times: characteristics of `n_labels` labels, wrapped into a period, sorted, interpolated
        linearly. Where they have crossed, whichever state comes next is taken.
        """
        period = self.problem.period
        X, W = self.characteristics(period * jnp.arange(n_labels, dtype=x.dtype) / n_labels, t)
        return jax.vmap(lambda places, values: jnp.interp(x, places, values, period=period))(X, W)

    def networks(self) -> tuple[PeriodicNetwork, ...]:
        """Of displacement and state."""
        return self.path, self.state
