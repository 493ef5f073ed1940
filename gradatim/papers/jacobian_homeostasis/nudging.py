"""The two biases apart, on trained networks in double precision: what a nudge of some size adds, and what the asymmetry leaves."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.implicit import (
    AbstractResponse,
    ExactAdjoint,
    ExactResponse,
    GivenResponse,
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
        straight = set_weight_angle(jax.tree.map(lambda w: w[0], networks), 0.0)
        networks = jax.tree.map(lambda all_of_them, first: all_of_them.at[0].set(first), networks, straight)
        found, states, response, one_sided = jax.lax.map(self.of_network, networks)
        middle = jax.tree.map(lambda w: w[1], (networks, states, response, one_sided))
        return {
            **found,
            "response_error": self.response_errors(*middle),
            "estimator": jax.lax.map(lambda network: self.estimator(network, key), jax.tree.map(lambda w: w[1:], networks)),
        }

    def of_network(self, network: LayeredNetwork) -> tuple[dict[str, Array], Any, Any, Any]:
        """What is measured at every angle; then free equilibria, exact responses, and those of one nudged phase for every radius."""
        free = jax.vmap(lambda x: relax(network, network.drive(x), steps=self.config.steps, tolerance=AT_REST))(self.x)
        # One example after the other: two factorisations of whole batches at once can wait for each other's threads without end.
        response, adjoint = (
            jax.lax.map(lambda given, way=way: way(network, network.drive(given[0]), *given[1:]).value, (self.x, self.y, free.state))
            for way in (ExactResponse(), ExactAdjoint())
        )
        recurrent = self.answers(RecurrentAdjoint(self.config.steps, AT_REST), network, free.state)
        one_sided = jax.lax.map(lambda r: self.answers(self.nudged(r, 1), network, free.state), jnp.asarray(self.config.radii))
        # One program for the gradients of all.
        every = jax.tree.map(lambda *parts: jnp.concatenate([jnp.stack(parts[:-1]), parts[-1]]), response, adjoint, recurrent, one_sided)
        gradients = jax.lax.map(lambda answer: self.gradient(network, answer), every)
        rows = jax.vmap(_flat)(gradients)
        by_response, by_recurrence = (jax.tree.map(lambda g, k=k: g[k], gradients) for k in (0, 2))

        def cost(network: LayeredNetwork) -> Array:
            return jax.vmap(lambda x, y, u: cost_through_time(network, x, y, u, steps=self.config.steps))(self.x, self.y, free.state).mean()

        found = {
            "residual": free.residual.max(),
            "convergence": self.convergence_radius(network, free.state),
            "gradient_error": jnp.linalg.norm(rows[3:] - rows[1][None], axis=1) / jnp.linalg.norm(rows[1]),
            "recurrent": _worst(by_response, by_recurrence),
            "through_time": _worst(by_response, jax.grad(cost)(network)),
            "identity": self.identity(network, free.state, response, adjoint),
        }
        return found, free.state, response, one_sided

    def answers(self, response: AbstractResponse, network: LayeredNetwork, states: Any) -> Any:
        """Of all examples."""
        return jax.vmap(lambda x, y, state: response(network, network.drive(x), y, state).value)(self.x, self.y, states)

    def nudged(self, radius: Array, points: int) -> NudgedResponse:
        """Phases that come to rest."""
        return NudgedResponse(radius, points, self.config.steps, AT_REST)

    def gradient(self, network: LayeredNetwork, answers: Any) -> LayeredNetwork:
        """Of the mean cost of the examples, from responses or adjoints that are known."""

        def cost(network: LayeredNetwork, x: Array, y: Array, answer: Any) -> Array:
            return equilibrium_propagation(network, x, y, response=GivenResponse(answer), steps=self.config.steps, tolerance=AT_REST).loss

        def loss(network: LayeredNetwork) -> Array:
            return jax.vmap(lambda x, y, answer: cost(network, x, y, answer))(self.x, self.y, answers).mean()

        return jax.grad(loss)(network)

    def response_errors(self, network: LayeredNetwork, states: Any, response: Any, one_sided: Any) -> Float[Array, "points radii"]:
        """Of the nudged responses, over the exact one, all examples together."""
        exact = _flat(response)

        def error(found: Any) -> Array:
            return jnp.linalg.norm(_flat(found) - exact) / jnp.linalg.norm(exact)

        def errors(points: int) -> Array:
            if points == 1:
                return jax.vmap(error)(one_sided)
            return jax.lax.map(lambda r: error(self.answers(self.nudged(r, points), network, states)), jnp.asarray(self.config.radii))

        return jnp.stack([errors(points) for points in self.config.points])

    def convergence_radius(self, network: LayeredNetwork, states: Any) -> Array:
        """Where the power series of the activities in the nudge ends: from the norms of its coefficients, found on a small circle."""
        circle = CIRCLE * jnp.exp(2j * jnp.pi * jnp.arange(ON_CIRCLE) / ON_CIRCLE)

        def activity(strength: Array, x: Array, y: Array, state: Any) -> Any:
            phase = relax(network, network.drive(x), state, steps=self.config.steps, tolerance=AT_REST, nudge=Nudge(strength, y))
            return activities(network, phase.state)

        values = jax.vmap(lambda b: _flat(jax.vmap(lambda x, y, u: activity(b, x, y, u))(self.x, self.y, states)))(circle)
        # Discrete Fourier sums for the two coefficients, aₖ rᵏ.
        turns = jnp.exp(-2j * jnp.pi * jnp.outer(jnp.asarray(ORDERS), jnp.arange(ON_CIRCLE)) / ON_CIRCLE)
        low, high = jnp.linalg.norm(turns @ values, axis=1)
        return CIRCLE * (low / high) ** (1 / (ORDERS[1] - ORDERS[0]))

    def identity(self, network: LayeredNetwork, states: Any, response: Any, adjoint: Any) -> Array:
        """The difference ṙ - δ against 2 J⁻ᵀ A J⁻¹ ∂L/∂r from the dense Jacobian, relative to ṙ, worst example."""

        def one(given: Any) -> Array:
            x, y, state, response, adjoint = given
            drive, activity = network.drive(x), activities(network, state)
            bias = _flat(response) - _flat(adjoint)
            flat, unravel = ravel_pytree(activity)
            slopes = jax.jvp(lambda u: activities(network, u), (state,), (jax.tree.map(jnp.ones_like, state),))[1]
            inside = jax.jacfwd(lambda r: _flat(network.field(unravel(r), drive)))(flat)
            jacobian = inside - jnp.diag(1 / _flat(slopes))
            cost = _flat(jax.grad(lambda r: network.cost(r, y))(activity))
            exact = jnp.linalg.solve(jacobian.T, (jacobian - jacobian.T) @ jnp.linalg.solve(jacobian, cost))
            return jnp.linalg.norm(bias - exact) / jnp.linalg.norm(_flat(response))

        return jax.lax.map(one, (self.x, self.y, states, response, adjoint)).max()

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
    double = jax.tree.map(lambda w: jnp.asarray(w.astype(np.float64)), networks)
    x, y = (np.asarray(part)[: config.examples] for part in (images.test_inputs, images.test_labels))
    readings = Readings(config, jnp.asarray(x.astype(np.float64)), jnp.asarray(y))
    keys = jax.random.split(key, len(jax.tree.leaves(networks)[0]))
    found = session.once("nudging", lambda: {k: np.asarray(v) for k, v in _readings(readings, double, keys).items()})
    dims = {
        "residual": ("angle",), "convergence": ("angle",), "gradient_error": ("angle", "radius"),
        "response_error": ("points", "radius"), "recurrent": ("angle",), "through_time": ("angle",), "identity": ("angle",),
        "estimator": ("wide_angle",),
    }  # fmt: skip
    return xr.Dataset(
        {name: (("seed", *dims[name]), value, {"units": "1"}) for name, value in found.items()},
        {"angle": list(ANGLES), "wide_angle": list(ANGLES[1:]), "points": list(config.points), "radius": list(config.radii)},
    )


def _flat(tree: Any) -> Array:
    return ravel_pytree(tree)[0]


def _worst(found: LayeredNetwork, wanted: LayeredNetwork) -> Array:
    """The relative difference of the parameter that differs most."""
    both = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return jnp.stack([jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(b.ravel()) for a, b in both]).max()
