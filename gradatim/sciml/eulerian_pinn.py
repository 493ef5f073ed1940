"""The usual network for a convection problem, in fixed coordinates: what moving coordinates are measured against."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .convection import ConvectionDiffusion
from .periodic_network import Jet, PeriodicNetwork, started_at
from .pinn import AbstractPINN, Losses, Points, checked_offset, initial_jet


class EulerianPINN(AbstractPINN):
    """A network w(x, t), periodic by construction, held to a convection problem by its residual (Raissi, Perdikaris and Karniadakis 2019).

        R = wₜ + f(x, t, w) wₓ - g(x, t, w) wₓₓ,     loss = γ ⟨R²⟩ + γ₀ ⟨(w(x, 0) - w₀(x))²⟩

    Where the speed is large it tends to a state that has died out: the residual of that is small everywhere, and only the points near
    t = 0 speak against it.

    **Arguments:** `problem`; `width`, `depth`: of the network, by default those of arXiv:2205.02902; `hard_initial`: w = w₀ + t · network,
    which fulfils the initial condition, and leaves no loss of it; `offset`: a constant in w beside its network, which is not trained, as of
    [`LagrangianPINN`][gradatim.sciml.LagrangianPINN]: the mean of w₀, where that is far from 0; `key`.

    **Raises:** `ValueError` for an offset beside `hard_initial`, where w₀ has it already.

    >>> problem = ConvectionDiffusion(30.0, 0.01, jnp.sin, 6.283185307179586)
    >>> model = EulerianPINN(problem, width=8, depth=2, hard_initial=True, key=jax.random.key(0))
    >>> print(f"{model.evaluate(jnp.array([1.0]), jnp.array([0.0]))[0, 0]:.3f}")  # sin 1
    0.841
    """

    problem: ConvectionDiffusion
    state: PeriodicNetwork
    offset: Float[Array, "*batch"]
    hard_initial: bool = eqx.field(static=True)

    def __init__(
        self,
        problem: ConvectionDiffusion,
        *,
        width: int = 50,
        depth: int = 5,
        hard_initial: bool = False,
        offset: float | Float[Array, ""] = 0.0,
        key: PRNGKeyArray,
    ):
        self.offset = checked_offset(offset, hard_initial=hard_initial)
        self.problem, self.hard_initial = problem, hard_initial
        self.state = PeriodicNetwork(width, depth, period=problem.period, key=key)

    def jet(self, x: Float[Array, " points"], t: Float[Array, " points"]) -> Jet:
        """State and derivatives at points."""
        jet = self.state.jet(x, t)
        if self.hard_initial:
            return started_at(jet, t, initial_jet(self.problem, x))
        return jet._replace(value=jet.value + self.offset.astype(x.dtype))

    def residuals(self, points: Points) -> Float[Array, " points"]:
        """R at points."""
        w = self.jet(points.x, points.t)
        speed = jax.vmap(self.problem.speed)(points.x, points.t, w.value)
        diffusivity = jax.vmap(self.problem.diffusivity)(points.x, points.t, w.value)
        return w.t + speed * w.x - diffusivity * w.xx

    def losses(self, points: Points) -> Losses:
        """Mean squares of the residual and of the error at the start; there is no path."""
        zero = jnp.zeros((), points.x.dtype)
        initial = zero
        if not self.hard_initial:
            start = self.state(points.initial, jnp.zeros_like(points.initial))
            initial = jnp.mean((start + self.offset.astype(zero.dtype) - jax.vmap(self.problem.initial)(points.initial)) ** 2)
        return Losses(zero, jnp.mean(self.residuals(points) ** 2), initial, zero)

    def evaluate(self, x: Float[Array, " nx"], t: Float[Array, " nt"]) -> Float[Array, "nt nx"]:
        """The state on a grid of places and times."""
        xs, ts = (grid.ravel() for grid in jnp.meshgrid(x, t))
        values = self.state(xs, ts)
        raised = jax.vmap(self.problem.initial)(xs) + ts * values if self.hard_initial else values + self.offset.astype(x.dtype)
        return raised.reshape(t.size, x.size)

    def networks(self) -> tuple[PeriodicNetwork, ...]:
        """The one network."""
        return (self.state,)
