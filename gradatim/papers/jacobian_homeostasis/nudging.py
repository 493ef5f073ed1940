"""The two biases apart, on trained networks in double precision: what a nudge of some size adds, and what the asymmetry leaves."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.implicit import (
    AbstractResponse,
    ExactAdjoint,
    ExactResponse,
    LayeredNetwork,
    Nudge,
    NudgedResponse,
    RecurrentAdjoint,
    activities,
    cost_through_time,
    equilibrium_propagation,
    homeostatic_loss,
    relax,
    set_weight_angle,
)
from gradatim.lab import Session
from gradatim.numerics import jacobian_asymmetry

from .config import Nudging
from .training import ANGLES, Images

AT_REST = 1e-15
"Move of a unit at which a phase ends."
CIRCLE, ON_CIRCLE, ORDERS = 0.05, 32, (4, 10)
"Radius and points from which the radius of convergence is found, and the orders of the two coefficients whose ratio tells it."


class Readings(eqx.Module):
    """What is measured on the networks of a seed, one for each angle."""

    config: Nudging = eqx.field(static=True)
    x: Float[Array, "examples features"]
    y: Array

    def __call__(self, networks: LayeredNetwork, key: PRNGKeyArray) -> dict[str, Any]:
        """Of networks stacked over the angles 0 (made symmetric again), 45 and 90."""
        straight, _, wide = (jax.tree.map(lambda w, k=k: w[k], networks) for k in range(len(ANGLES)))
        networks = jax.tree.map(lambda all_of_them, first: all_of_them.at[0].set(first), networks, set_weight_angle(straight, 0.0))
        straight, middle, _ = (jax.tree.map(lambda w, k=k: w[k], networks) for k in range(len(ANGLES)))
        radii = jnp.asarray(self.config.radii)

        def one_sided(network: LayeredNetwork) -> tuple[Array, Array]:
            true = _flat(self.gradient(network, ExactAdjoint()))

            def error(radius: Array) -> Array:
                found = _flat(self.gradient(network, self.nudged(radius, 1)))
                return jnp.linalg.norm(found - true) / jnp.linalg.norm(true)

            return jax.lax.map(error, radii), self.free(network)[1].max()

        errors, residuals = jax.lax.map(one_sided, networks)
        recurrent, through_time = self.agreement(straight)
        return {
            "residual": residuals,
            "gradient_error": errors,
            "response_error": self.response_errors(middle, radii),
            "convergence": jax.lax.map(self.convergence_radius, networks),
            "recurrent": recurrent,
            "through_time": through_time,
            "identity": self.identity(wide),
            "estimator": jax.lax.map(lambda network: self.estimator(network, key), jax.tree.map(lambda w: w[1:], networks)),
        }

    def nudged(self, radius: Array, points: int) -> NudgedResponse:
        """Phases that come to rest."""
        return NudgedResponse(radius, points, self.config.steps, AT_REST)

    def free(self, network: LayeredNetwork) -> tuple[Any, Array]:
        """Free equilibria and residuals of all examples."""
        found = jax.vmap(lambda x: relax(network, network.drive(x), steps=self.config.steps, tolerance=AT_REST))(self.x)
        return found.state, found.residual

    def gradient(self, network: LayeredNetwork, response: AbstractResponse) -> LayeredNetwork:
        """Of the mean cost of the examples."""

        def loss(network: LayeredNetwork) -> Array:
            return jax.vmap(
                lambda x, y: equilibrium_propagation(network, x, y, response=response, steps=self.config.steps, tolerance=AT_REST).loss
            )(self.x, self.y).mean()

        return jax.grad(loss)(network)

    def response_errors(self, network: LayeredNetwork, radii: Array) -> Float[Array, "points radii"]:
        """Of the nudged responses, over the exact one, all examples together."""
        states, _ = self.free(network)

        def answers(response: AbstractResponse) -> Array:
            each = jax.vmap(lambda x, y, state: response(network, network.drive(x), y, state))
            return _flat(each(self.x, self.y, states))

        exact = answers(ExactResponse())

        def errors(points: int) -> Array:
            return jax.lax.map(lambda r: jnp.linalg.norm(answers(self.nudged(r, points)) - exact) / jnp.linalg.norm(exact), radii)

        return jnp.stack([errors(points) for points in self.config.points])

    def convergence_radius(self, network: LayeredNetwork) -> Array:
        """Where the power series of the activities in the nudge ends: from the norms of its coefficients, found on a small circle."""
        states, _ = self.free(network)
        circle = CIRCLE * jnp.exp(2j * jnp.pi * jnp.arange(ON_CIRCLE) / ON_CIRCLE)

        def activity(strength: Array, x: Array, y: Array, state: Any) -> Any:
            phase = relax(network, network.drive(x), state, steps=self.config.steps, tolerance=AT_REST, nudge=Nudge(strength, y))
            return activities(network, phase.state)

        values = jax.vmap(lambda b: _flat(jax.vmap(lambda x, y, u: activity(b, x, y, u))(self.x, self.y, states)))(circle)
        # Discrete Fourier sums for the two coefficients, aₖ rᵏ.
        turns = jnp.exp(-2j * jnp.pi * jnp.outer(jnp.asarray(ORDERS), jnp.arange(ON_CIRCLE)) / ON_CIRCLE)
        low, high = jnp.linalg.norm(turns @ values, axis=1)
        return CIRCLE * (low / high) ** (1 / (ORDERS[1] - ORDERS[0]))

    def agreement(self, network: LayeredNetwork) -> tuple[Array, Array]:
        """The exact response's gradient against recurrent backpropagation and backpropagation through time: worst parameter, relative."""
        states, _ = self.free(network)

        def through_time(network: LayeredNetwork) -> Array:
            return jax.vmap(lambda x, y, u: cost_through_time(network, x, y, u, steps=self.config.steps))(self.x, self.y, states).mean()

        exact = self.gradient(network, ExactResponse())
        rivals = (self.gradient(network, RecurrentAdjoint(self.config.steps, AT_REST)), jax.grad(through_time)(network))

        def worst(rival: LayeredNetwork) -> Array:
            both = zip(jax.tree.leaves(exact), jax.tree.leaves(rival), strict=True)
            return jnp.stack([jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(b.ravel()) for a, b in both]).max()

        first, second = map(worst, rivals)
        return first, second

    def identity(self, network: LayeredNetwork) -> Array:
        """The difference ṙ - δ against 2 J⁻ᵀ A J⁻¹ ∂L/∂r from the dense Jacobian, relative, worst example."""
        states, _ = self.free(network)

        def one(x: Array, y: Array, state: Any) -> Array:
            drive, activity = network.drive(x), activities(network, state)
            bias = _flat(ExactResponse()(network, drive, y, state)) - _flat(ExactAdjoint()(network, drive, y, state))
            flat, unravel = jax.flatten_util.ravel_pytree(activity)
            slopes = jax.jvp(lambda u: activities(network, u), (state,), (jax.tree.map(jnp.ones_like, state),))[1]
            inside = jax.jacfwd(lambda r: _flat(network.field(unravel(r), drive)))(flat)
            jacobian = inside - jnp.diag(1 / _flat(slopes))
            cost = _flat(jax.grad(lambda r: network.cost(r, y))(activity))
            exact = jnp.linalg.solve(jacobian.T, (jacobian - jacobian.T) @ jnp.linalg.solve(jacobian, cost))
            return jnp.linalg.norm(bias - exact) / jnp.linalg.norm(exact)

        return jax.vmap(one)(self.x, self.y, states).max()

    def estimator(self, network: LayeredNetwork, key: PRNGKeyArray) -> Array:
        """The homeostatic loss of many probes over its value from the dense Jacobian, less one."""
        x = self.x[0]
        drive = network.drive(x)
        activity = activities(network, jax.tree.map(jnp.zeros_like, drive))
        n_units = sum(r.size for r in jax.tree.leaves(activity))
        exact = 2 * jacobian_asymmetry(lambda r: network.field(r, drive), activity) / n_units
        return homeostatic_loss(network, x, activity, key, n_probes=self.config.n_probes) / exact - 1


@eqx.filter_jit
def _readings(readings: Readings, networks: LayeredNetwork, keys: Array) -> dict[str, Any]:
    return jax.lax.map(lambda inputs: readings(*inputs), (networks, keys))


def measure_nudging(config: Nudging, images: Images, networks: LayeredNetwork, session: Session, key: PRNGKeyArray) -> xr.Dataset:
    """Readings for every seed, of networks with the axes (seed, angle)."""
    double = jax.tree.map(lambda w: w.astype(jnp.float64), networks)
    readings = Readings(config, images.test_inputs[: config.examples].astype(jnp.float64), images.test_labels[: config.examples])
    keys = jax.random.split(key, len(jax.tree.leaves(networks)[0]))
    found = session.once("nudging", lambda: {k: np.asarray(v) for k, v in _readings(readings, double, keys).items()})
    dims = {
        "residual": ("angle",), "convergence": ("angle",), "gradient_error": ("angle", "radius"),
        "response_error": ("points", "radius"), "recurrent": (), "through_time": (), "identity": (), "estimator": ("wide_angle",),
    }  # fmt: skip
    return xr.Dataset(
        {name: (("seed", *dims[name]), value, {"units": "1"}) for name, value in found.items()},
        {"angle": list(ANGLES), "wide_angle": list(ANGLES[1:]), "points": list(config.points), "radius": list(config.radii)},
    )


def _flat(tree: Any) -> Array:
    return jax.flatten_util.ravel_pytree(tree)[0]
