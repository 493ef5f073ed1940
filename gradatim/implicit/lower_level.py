"""The lower problem of a bilevel one: accelerated gradient descent until the distance to the solution is certified."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int, PyTree

from .bilevel_problem import AbstractBilevel, lower_gradient

ROUND_OFFS = 8
"Units of round-off of the gradient's terms below which its norm says nothing."


class LowerSolution(NamedTuple):
    """What [`solve_lower`][gradatim.implicit.solve_lower] gives."""

    x: PyTree
    distance: Float[Array, ""]
    "‖∂ₓh‖/μ, which bounds ‖x - x̂‖"
    gradients: Int[Array, ""]
    "Gradients of h that were evaluated"
    certified: Bool[Array, ""]
    "Whether `distance` is at most the accuracy asked for, in this precision"
    finest: Float[Array, ""]
    "The least accuracy that this precision can certify here"


def solve_lower(
    problem: AbstractBilevel, theta: PyTree, x: PyTree, accuracy: Float[Array, ""] | float, *, max_gradients: int = 100_000
) -> LowerSolution:
    """x̄ with ‖x̄ - x̂(θ)‖ ≤ ε, by Nesterov's method for strongly convex functions (Chambolle and Pock, Acta Numerica 25, algorithm 5).

        x₊ = y - ∂ₓh(y)/L,   y₊ = x₊ + β (x₊ - x),     β = (t - 1)(1 - t₊q) / (t₊ (1 - q)),   q = μ/L,   t₊² - (1 - q t²) t₊ = t²

    It ends at the first y with ‖∂ₓh(y, θ)‖ ≤ ε μ, an absolute test at the point whose gradient the method needs anyway: a start that
    is good enough costs one gradient. Not differentiable: see [`inexact_hypergradient`][gradatim.implicit.inexact_hypergradient].

    **Arguments:** `problem`, with μ and L at this `theta`; `x`: the start; `accuracy` ε > 0; `max_gradients`.

    **Returns:** the point and its certificate. Accuracies that round-off would forge are not certified.

    >>> from gradatim.implicit import Bilevel
    >>> problem = Bilevel(
    ...     lambda x: x @ x, lambda x, theta: x @ (theta * x) / 2 - x.sum(),
    ...     strong_convexity=jnp.min, smoothness=jnp.max, upper_smoothness=2.0, hessian_lipschitz=0.0, cross_lipschitz=1.0,
    ... )
    >>> found = solve_lower(problem, jnp.array([1.0, 50.0]), jnp.zeros(2), 1e-3)
    >>> print(f"{found.x[0]:.2f} {found.x[1]:.2f} {found.certified}")
    1.00 0.02 True
    """
    mu, L = problem.strong_convexity(theta), problem.smoothness(theta)
    q = jnp.minimum(mu / L, 1)

    def gradient(y: PyTree) -> tuple[PyTree, Array]:
        slope = lower_gradient(problem, y, theta)
        return slope, optx.two_norm(slope)

    slope, norm = gradient(x)
    round_off = ROUND_OFFS * float(jnp.finfo(norm.dtype).eps)
    finest = round_off * jnp.maximum(norm, L * optx.two_norm(x)) / mu
    target = jnp.maximum(accuracy, finest) * mu

    def goes_on(state: Any) -> Array:
        *_, norm, count = state
        return (norm > target) & (count < max_gradients) & (mu > 0)

    def step(state: Any) -> Any:
        x, y, t, slope, norm, count = state
        moved = jax.tree.map(lambda y, d: y - d / L, y, slope)
        reach = 1 - q * t**2
        t_next = (reach + jnp.sqrt(reach**2 + 4 * t**2)) / 2
        # With q = 1 a step solves the problem, and t stays 1: 0 over a safe number.
        momentum = (t - 1) * (1 - t_next * q) / (t_next * jnp.maximum(1 - q, float(jnp.finfo(norm.dtype).tiny)))
        y = jax.tree.map(lambda new, old: new + momentum * (new - old), moved, x)
        slope, norm = gradient(y)
        return moved, y, t_next, slope, norm, count + 1

    start = (x, x, jnp.ones_like(norm), slope, norm, jnp.ones((), jnp.int32))
    _, y, _, _, norm, count = jax.lax.while_loop(goes_on, step, start)
    return LowerSolution(y, norm / mu, count, (norm <= accuracy * mu) & (finest <= accuracy), finest)
