"""Equilibrium propagation for vector fields (Laborieux & Zenke, arXiv:2309.02214): gradients from the shift of an equilibrium.

The estimate dL/dθ ≈ (∂G/∂θ)ᵀ ṙ + ∂L/∂θ is taken at the free equilibrium, with ṙ its response to a nudge; with the adjoint δ in place of the
response it is exact.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .equilibrium_network import AbstractEquilibriumNetwork, activities
from .equilibrium_responses import AbstractResponse
from .relaxation import _check, relax, update


class EquilibriumLoss(NamedTuple):
    """What [`equilibrium_propagation`][gradatim.implicit.equilibrium_propagation] gives."""

    loss: Float[Array, ""]
    "The cost at the free equilibrium; its derivative is the estimate."
    state: PyTree[Array]
    "The free equilibrium u*, without derivative."
    activity: PyTree[Array]
    "Its activities φ(u*), without derivative."
    response: PyTree[Array]
    "ṙ or δ, without derivative."
    residual: Float[Array, ""]
    "The largest move in the last step of the free phase."
    response_residual: Float[Array, ""]
    "The largest move in the last step of what the response rests on, such as any nudged phase; 0 without an iteration."


def equilibrium_propagation(
    network: AbstractEquilibriumNetwork,
    x: Array,
    target: Array,
    *,
    response: AbstractResponse,
    steps: int = 150,
    tolerance: float = 0.0,
) -> EquilibriumLoss:
    """The cost of one input at the free equilibrium, a number whose gradient is that of equilibrium propagation.

    Differentiate it as any loss, in the network's parameters or the input, and hand the gradient to any optimiser; batch it with
    `jax.vmap`. A connection's gradient is local: the response where it leads times the activity where it comes from. Nothing is kept of
    the relaxation, and nothing is differentiated through it.

    Two biases: the response is read from a finite nudge ([`NudgedResponse`][gradatim.implicit.NudgedResponse]), and stands for the adjoint,
    which it is only where the Jacobian is symmetric ([`homeostatic_loss`][gradatim.implicit.homeostatic_loss] makes it more so). Both are
    meaningless where a residual is not small: nothing is raised, look at both.

    **Arguments:** `network`, `x`, `target`: one input and what is wanted of it; `response`: how the response is found;
    [`ExactAdjoint`][gradatim.implicit.ExactAdjoint] or [`RecurrentAdjoint`][gradatim.implicit.RecurrentAdjoint] give the true gradient;
    `steps` of the free phase from zeros (the paper's 150), or fewer once no unit moves by more than `tolerance`.

    **Raises:** `ValueError` for steps below 1 or a negative tolerance.

    >>> from gradatim.implicit import LayeredNetwork, NudgedResponse, chain_connections
    >>> sizes = {"in": 3, "l1": 4, "out": 2}
    >>> network = LayeredNetwork(sizes, chain_connections(sizes), classes=2, key=jax.random.key(0))
    >>> def loss(network):
    ...     response = NudgedResponse(radius=0.1, points=2)
    ...     return equilibrium_propagation(network, jnp.ones(3), jnp.array(1), response=response).loss
    >>> value, gradient = eqx.filter_jit(eqx.filter_value_and_grad(loss))(network)
    >>> value.shape, gradient.weights["in->l1"].shape
    ((), (4, 3))
    """
    _check(steps, tolerance)
    held = _held(network)
    drive = held.drive(jax.lax.stop_gradient(x))
    free = relax(held, drive, steps=steps, tolerance=tolerance)
    answer, answer_residual = jax.lax.stop_gradient(response(held, drive, target, free.state))
    state = jax.lax.stop_gradient(free.state)
    activity = activities(held, state)
    sent = network.field(activity, network.drive(x))
    pull = jnp.stack([jnp.vdot(v, g) for v, g in zip(*map(jax.tree.leaves, (answer, sent)), strict=True)]).sum()
    # Zero in value, with the derivative of what the units are sent.
    loss = network.cost(activity, target) + (pull - jax.lax.stop_gradient(pull))
    return EquilibriumLoss(loss, state, activity, answer, jax.lax.stop_gradient(free.residual), answer_residual)


def cost_through_time(
    network: AbstractEquilibriumNetwork, x: Array, target: Array, state: PyTree[Array], *, steps: int
) -> Float[Array, ""]:
    """The cost after more steps from a state, to be differentiated through all of them: backpropagation through time.

    What the local rules are compared with. The start has no derivative; the memory grows with the steps.

    **Arguments:** `state`: where the steps begin, such as the free equilibrium; `steps` ≥ 1.

    **Raises:** `ValueError` for steps below 1.

    >>> from gradatim.implicit import LayeredNetwork
    >>> network = LayeredNetwork({"in": 1, "out": 1}, ("in->out",), activation=lambda u: u, key=jax.random.key(0))
    >>> network = eqx.tree_at(lambda n: n.weights["in->out"], network, jnp.array([[3.0]]))
    >>> loss = lambda network: cost_through_time(network, jnp.ones(1), jnp.array([1.0]), {"out": jnp.zeros(1)}, steps=5)
    >>> print(loss(network), eqx.filter_grad(loss)(network).weights["in->out"])
    2.0 [[2.]]
    """
    _check(steps, 0.0)
    drive = network.drive(x)
    start = jax.lax.stop_gradient(state)
    end = jax.lax.scan(lambda u, _: (update(network, drive, u), None), start, length=steps)[0]
    return network.cost(activities(network, end), target)


def _held(network: AbstractEquilibriumNetwork) -> AbstractEquilibriumNetwork:
    arrays, rest = eqx.partition(network, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)
