"""How an equilibrium answers a nudge, and the true gradient that the answer stands for.

    response   ṙ = dφ(u*_β)/dβ at β = 0 = -J⁻¹ ∂L/∂r        adjoint   δ = -J⁻ᵀ ∂L/∂r        J = G'(r) - diag 1/φ'(u)

The true gradient of a cost at an equilibrium needs δ, a solve with the transpose; a network can show ṙ by itself. They differ by
ṙ - δ = 2 J⁻ᵀ A J⁻¹ ∂L/∂r with A = (J - Jᵀ)/2, nothing where J is symmetric in activities r (in states u it is not, even then).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from .differentiation import root_jvp, root_vjp
from .equilibrium_network import AbstractEquilibriumNetwork, activities, check_complex
from .holomorphic import _check as check_circle
from .holomorphic import cauchy_derivative
from .relaxation import Nudge, _check, cost_gradient, largest_move, relax, update


class EquilibriumResponse(NamedTuple):
    """What an [`AbstractResponse`][gradatim.implicit.AbstractResponse] gives."""

    value: PyTree[Array]
    "ṙ or δ, of the state's structure."
    residual: Float[Array, ""]
    "The largest move in the last step of what it rests on: where that is not small, the value means nothing. 0 without an iteration."


class AbstractResponse(eqx.Module):
    """What stands for the derivative of the cost in the drive of every unit: a response, or the adjoint itself.

    Called with a network, `network.drive(x)`, a target and the free equilibrium u*, for one input.
    """

    @abc.abstractmethod
    def __call__(
        self, network: AbstractEquilibriumNetwork, drive: PyTree[Array], target: Array, state: PyTree[Array]
    ) -> EquilibriumResponse:
        """For one input."""


class GivenResponse(AbstractResponse):
    """A response that is known already, such as that of an [`online_phase`][gradatim.implicit.online_phase].

    **Arguments:** `value`: of the state's structure.

    >>> from gradatim.implicit import LayeredNetwork, equilibrium_propagation
    >>> network = LayeredNetwork({"in": 1, "out": 1}, ("in->out",), key=jax.random.key(0))
    >>> known = GivenResponse({"out": jnp.array([0.5])})
    >>> print(equilibrium_propagation(network, jnp.ones(1), jnp.ones(1), response=known).response)
    {'out': Array([0.5], dtype=float32)}
    """

    value: PyTree[Array]

    def __call__(self, network, drive, target, state):  # noqa: D102
        return EquilibriumResponse(self.value, _nothing(state))


class ExactResponse(AbstractResponse):
    """The response ṙ = -J⁻¹ ∂L/∂r, by one linear solve.

    **Arguments:** `linear_solver`: of lineax; None takes a factorisation up to 500 units and GMRES beyond.

    >>> from gradatim.implicit import LayeredNetwork
    >>> network = LayeredNetwork({"in": 1, "out": 1}, ("in->out",), activation=lambda u: 1.0 * u, key=jax.random.key(0))
    >>> drive = state = {"out": jnp.array([3.0])}
    >>> print(ExactResponse()(network, drive, jnp.array([1.0]), state).value["out"])
    [2.]
    """

    linear_solver: lx.AbstractLinearSolver | None = None

    def __call__(self, network, drive, target, state):  # noqa: D102
        def conditions(u: PyTree[Array], strength: Array) -> PyTree[Array]:
            return jax.tree.map(jnp.subtract, update(network, drive, u, Nudge(strength, target)), u)

        zero = jnp.zeros((), jax.tree.leaves(state)[0].dtype)
        moved = root_jvp(conditions, state, (zero,), (jnp.ones_like(zero),), linear_solver=self.linear_solver)
        return EquilibriumResponse(jax.jvp(lambda u: activities(network, u), (state,), (moved,))[1], _nothing(state))


class ExactAdjoint(AbstractResponse):
    """The adjoint δ = -J⁻ᵀ ∂L/∂r, by one linear solve with the transpose: the true gradient.

    **Arguments:** as for [`ExactResponse`][gradatim.implicit.ExactResponse].

    >>> from gradatim.implicit import LayeredNetwork
    >>> network = LayeredNetwork({"in": 1, "out": 1}, ("in->out",), activation=lambda u: 1.0 * u, key=jax.random.key(0))
    >>> drive = state = {"out": jnp.array([3.0])}
    >>> print(ExactAdjoint()(network, drive, jnp.array([1.0]), state).value["out"])
    [2.]
    """

    linear_solver: lx.AbstractLinearSolver | None = None

    def __call__(self, network, drive, target, state):  # noqa: D102
        def conditions(u: PyTree[Array]) -> PyTree[Array]:
            return jax.tree.map(jnp.subtract, update(network, drive, u), u)

        cotangent = jax.grad(lambda u: network.cost(activities(network, u), target))(state)
        adjoint = root_vjp(conditions, state, (), cotangent, linear_solver=self.linear_solver).adjoint
        return EquilibriumResponse(adjoint, _nothing(state))


class ForwardResponse(AbstractResponse):
    """The response by a number of steps of the linearised dynamics, ṙ ← φ'(u) (G' ṙ + ∂L/∂r) from 0: forward mode through a relaxation.

    Exact only for many steps: what is left falls as the relaxation converges.

    **Arguments:** `steps` ≥ 1, the most that are made; `tolerance` ≥ 0 at which they end, relative to the largest entry of ∂L/∂r φ'.

    >>> from gradatim.implicit import LayeredNetwork
    >>> network = LayeredNetwork({"in": 1, "out": 1}, ("in->out",), activation=lambda u: 1.0 * u, key=jax.random.key(0))
    >>> drive = state = {"out": jnp.array([3.0])}
    >>> print(ForwardResponse(steps=5)(network, drive, jnp.array([1.0]), state).value["out"])
    [2.]
    """

    steps: int = eqx.field(static=True, default=20)
    tolerance: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        _check(self.steps, self.tolerance)

    def __call__(self, network, drive, target, state):  # noqa: D102
        activity = activities(network, state)
        push = jax.linearize(lambda r: network.field(r, drive), activity)[1]
        return _iterated(push, network, state, activity, target, self)


class RecurrentAdjoint(AbstractResponse):
    """Recurrent backpropagation, δ ← φ'(u) (G'ᵀ δ + ∂L/∂r) from 0 (Almeida 1987; Pineda 1987, Phys. Rev. Lett. 59, 2229).

    After T steps what backpropagation through T steps from the equilibrium gives; the true gradient for many.

    **Arguments:** as for [`ForwardResponse`][gradatim.implicit.ForwardResponse].

    >>> from gradatim.implicit import LayeredNetwork
    >>> network = LayeredNetwork({"in": 1, "out": 1}, ("in->out",), activation=lambda u: 1.0 * u, key=jax.random.key(0))
    >>> drive = state = {"out": jnp.array([3.0])}
    >>> print(RecurrentAdjoint(steps=5)(network, drive, jnp.array([1.0]), state).value["out"])
    [2.]
    """

    steps: int = eqx.field(static=True, default=20)
    tolerance: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        _check(self.steps, self.tolerance)

    def __call__(self, network, drive, target, state):  # noqa: D102
        activity = activities(network, state)
        pull = jax.linear_transpose(jax.linearize(lambda r: network.field(r, drive), activity)[1], activity)
        return _iterated(lambda v: pull(v)[0], network, state, activity, target, self)


class NudgedResponse(AbstractResponse):
    """The response from N nudged phases on a circle |β| = r: what a physical network can do.

    Its bias falls as rᴺ ([`cauchy_derivative`][gradatim.implicit.cauchy_derivative]) for radii below that of the nearest singularity, which
    is not known beforehand: beyond it, or where a phase lands on another equilibrium, the answer is wrong without any sign. Where a phase
    did not come to rest, the residual, the largest of all phases, tells.

    **Arguments:** `radius` r > 0; `points` N: 1 and 2 are real, more need a holomorphic activation; `steps` ≥ 1 of each phase, from the
    free equilibrium; `tolerance` ≥ 0 at which a phase ends.

    **Raises:** `ValueError` for numbers out of range and, with three points or more, an activation that is not holomorphic.

    >>> from gradatim.implicit import LayeredNetwork
    >>> network = LayeredNetwork({"in": 1, "out": 1}, ("in->out",), activation=lambda u: 1.0 * u, key=jax.random.key(0))
    >>> drive = state = {"out": jnp.array([3.0])}
    >>> print(NudgedResponse(radius=0.1, points=2)(network, drive, jnp.array([1.0]), state).value["out"].round(2))
    [2.02]
    """

    radius: Float[Array, ""] | float
    points: int = eqx.field(static=True)
    steps: int = eqx.field(static=True, default=20)
    tolerance: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        check_circle(self.radius, self.points)
        _check(self.steps, self.tolerance)

    def __call__(self, network, drive, target, state):  # noqa: D102
        if self.points > 2:
            check_complex(network)

        def nudged(strength: Array) -> tuple[PyTree[Array], Array]:
            phase = relax(network, drive, state, steps=self.steps, tolerance=self.tolerance, nudge=Nudge(strength, target))
            return activities(network, phase.state), phase.residual

        value = activities(network, state)
        response, residuals = cauchy_derivative(nudged, radius=self.radius, points=self.points, value=value, has_aux=True)
        return EquilibriumResponse(response, residuals.max())


class OnlineResponse(AbstractResponse):
    """The response of one phase in which the nudge turns, from the free equilibrium on: no phase has to be taken back.

    **Arguments:** as for [`online_phase`][gradatim.implicit.online_phase], which also does without the free phase.

    **Raises:** as that.

    >>> from gradatim.implicit import LayeredNetwork
    >>> network = LayeredNetwork({"in": 1, "out": 1}, ("in->out",), activation=lambda u: 1.0 * u, key=jax.random.key(0))
    >>> drive = state = {"out": jnp.array([3.0])}
    >>> print(OnlineResponse(radius=0.1, points=4)(network, drive, jnp.array([1.0]), state).value["out"].round(2))
    [2.]
    """

    radius: float
    points: int = eqx.field(static=True)
    segment: int = eqx.field(static=True, default=60)
    turns: int = eqx.field(static=True, default=1)
    settling: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        _check_online(self.radius, self.points, self.segment, self.turns, self.settling)

    def __call__(self, network, drive, target, state):  # noqa: D102
        numbers = {"points": self.points, "segment": self.segment, "turns": self.turns, "settling": self.settling}
        phase = online_phase(network, drive, target, state, radius=self.radius, **numbers)
        return EquilibriumResponse(phase.response, phase.residual)


class OnlinePhase(NamedTuple):
    """What a single phase with a rotating nudge shows."""

    activity: PyTree[Array]
    "Its mean, which stands for the free equilibrium's."
    response: PyTree[Array]
    "Its first Fourier coefficient over r, which stands for ṙ."
    state: PyTree[Array]
    "The last state, complex."
    residual: Float[Array, ""]
    "The largest move in the last step of a segment, of those that are averaged."


def online_phase(
    network: AbstractEquilibriumNetwork,
    drive: PyTree[Array],
    target: Array,
    start: PyTree[Array] | None = None,
    *,
    radius: float,
    points: int,
    segment: int,
    turns: int = 1,
    settling: int = 0,
) -> OnlinePhase:
    """Free activity and response from one phase, in which the nudge turns by 2π/N every `segment` steps.

    No free phase comes before. Exact as [`NudgedResponse`][gradatim.implicit.NudgedResponse] where a segment is long enough to come to rest
    in.

    **Arguments:** `start`: None for zeros; `radius`, `points` N ≥ 3; `segment` ≥ 1 steps; `turns` ≥ 1 that are averaged, after `settling`
    ≥ 0 that are not.

    **Raises:** `ValueError` for numbers out of range and an activation that is not holomorphic.

    >>> from gradatim.implicit import LayeredNetwork
    >>> network = LayeredNetwork({"in": 1, "out": 1}, ("in->out",), activation=lambda u: 1.0 * u, key=jax.random.key(0))
    >>> phase = online_phase(network, {"out": jnp.array([3.0])}, jnp.array([1.0]), radius=0.1, points=4, segment=20)
    >>> print(phase.activity["out"].round(2), phase.response["out"].round(2), phase.residual < 1e-5)
    [3.] [2.] True
    """
    _check_online(radius, points, segment, turns, settling)
    check_complex(network)
    state = jax.tree.map(jnp.zeros_like, drive) if start is None else start
    state = jax.tree.map(lambda u: u.astype(jnp.result_type(u.dtype, jnp.complex64)), state)
    dtype = jax.tree.leaves(state)[0].dtype
    strengths = (radius * jnp.exp(2j * jnp.pi * jnp.arange((settling + turns) * points) / points)).astype(dtype)

    def turn(state: PyTree[Array], strength: Array) -> tuple[PyTree[Array], tuple[PyTree[Array], Array]]:
        phase = relax(network, drive, state, steps=segment, nudge=Nudge(strength, target))
        return phase.state, (activities(network, phase.state), phase.residual)

    state, (seen, residuals) = jax.lax.scan(turn, state, strengths)
    kept = turns * points
    weights = 1 / strengths[-kept:]
    activity = jax.tree.map(lambda r: r[-kept:].real.mean(axis=0), seen)
    response = jax.tree.map(lambda r: (jnp.tensordot(weights, r[-kept:], 1) / kept).real, seen)
    return OnlinePhase(activity, response, state, residuals[-kept:].max())


def _check_online(radius: float, points: int, segment: int, turns: int, settling: int) -> None:
    check_circle(radius, points)
    if points < 3 or segment < 1 or turns < 1 or settling < 0:
        got = f"{points}, {segment}, {turns} and {settling}"
        raise ValueError(f"points must be at least 3, segment 1, turns 1 and settling 0, got {got}")


def _nothing(state: PyTree[Array]) -> Float[Array, ""]:
    return jnp.zeros((), jax.tree.leaves(state)[0].real.dtype)


def _iterated(
    product: Callable[[PyTree[Array]], PyTree[Array]],
    network: AbstractEquilibriumNetwork,
    state: PyTree[Array],
    activity: PyTree[Array],
    target: Array,
    settings: ForwardResponse | RecurrentAdjoint,
) -> EquilibriumResponse:
    """V = φ' (M v + c) by repetition from v = 0."""
    slopes = jax.jvp(lambda u: activities(network, u), (state,), (jax.tree.map(jnp.ones_like, state),))[1]
    gradient = cost_gradient(network, activity, target)
    first = jax.tree.map(jnp.multiply, slopes, gradient)

    def once(v: PyTree[Array]) -> PyTree[Array]:
        return jax.tree.map(lambda s, m, c: s * (m + c), slopes, product(v), gradient)

    size = largest_move(jax.tree.map(jnp.zeros_like, first), first)
    if settings.steps == 1:
        return EquilibriumResponse(first, size)
    if settings.tolerance == 0:
        before = jax.lax.fori_loop(1, settings.steps - 1, lambda _, v: once(v), first)
        after = once(before)
        return EquilibriumResponse(after, largest_move(before, after))
    bound = settings.tolerance * size

    def goes_on(carry: tuple[PyTree[Array], Array, Array]) -> Array:
        _, moved, count = carry
        return (count < settings.steps) & ~(moved <= bound)

    def step(carry: tuple[PyTree[Array], Array, Array]) -> tuple[PyTree[Array], Array, Array]:
        before, _, count = carry
        after = once(before)
        return after, largest_move(before, after), count + 1

    start = (first, jnp.asarray(jnp.inf, bound.dtype), jnp.asarray(1, jnp.int32))
    value, moved, _ = jax.lax.while_loop(goes_on, step, start)
    return EquilibriumResponse(value, moved)
