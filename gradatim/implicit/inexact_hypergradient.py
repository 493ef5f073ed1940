"""The gradient of a bilevel loss at an approximate lower solution, and a bound of its error (theorem 2.1 of arXiv:2308.10098)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradatim.numerics.singular_values import top_singular_value_of_map

from .bilevel_problem import AbstractBilevel, Scalar, lower_gradient
from .conditions import condition_operator, linear_rule

SAFETY = 1.05
"Times a norm measured by power iteration, which is low."


class InexactHypergradient(NamedTuple):
    """What [`inexact_hypergradient`][gradatim.implicit.inexact_hypergradient] gives."""

    gradient: PyTree
    "z = -Jᵀq, of theta's structure"
    adjoint: PyTree
    "q with H q ≈ ∇g: the start of the next, similar solve"
    residual: Float[Array, ""]
    "‖H q - ∇g‖, measured"
    products: Int[Array, ""]
    "Products with H, that of the measured residual included"
    certified: Bool[Array, ""]
    "Whether the residual is at most the tolerance asked for"


def inexact_hypergradient(
    problem: AbstractBilevel, theta: PyTree, x: PyTree, tolerance: Float[Array, ""] | float, *, adjoint: PyTree | None = None
) -> InexactHypergradient:
    """Z = -J(x̄)ᵀq with ‖H(x̄) q - ∇g(x̄)‖ ≤ δ: the implicit derivative of [`root_vjp`][gradatim.implicit.root_vjp], as exact as asked.

    Conjugate gradients end at an absolute residual, whatever the size of ∇g, and start from an earlier `adjoint`; a solve that cannot
    reach δ does not raise but is not `certified`.

    **Arguments:** `x`: x̄, near the lower solution; `tolerance` δ > 0; `adjoint`: q of an earlier call, None for zeros.

    >>> from gradatim.implicit import Bilevel
    >>> problem = Bilevel(
    ...     lambda x: (x - 1.0) ** 2 / 2, lambda x, theta: x**2 - theta * x,
    ...     strong_convexity=2.0, smoothness=2.0, upper_smoothness=1.0, hessian_lipschitz=0.0, cross_lipschitz=0.0,
    ... )
    >>> print(inexact_hypergradient(problem, jnp.array(4.0), jnp.array(2.0), 1e-3).gradient)
    0.5
    """
    slope = jax.grad(problem.upper)(x)
    mu = problem.strong_convexity(theta)
    # Both sides over μ: lineax also asks that q changes by less than the tolerance, which then is the distance δ/μ that δ certifies.
    rule = linear_rule(None, None, lx.positive_semidefinite_tag, 0.0)

    def conditions(x: PyTree, theta: PyTree) -> PyTree:
        return jax.tree.map(lambda d: d / mu, lower_gradient(problem, x, theta))

    operator: Any = lx.linearise(condition_operator(conditions, x, ((theta,), {}), rule))
    scaled = jax.tree.map(lambda g: g / mu, slope)
    start = jax.tree.map(jnp.zeros_like, x) if adjoint is None else adjoint
    absolute: Any = tolerance / mu
    solver = lx.CG(rtol=0.0, atol=absolute, norm=optx.two_norm, stabilise_every=None)
    solved = lx.linear_solve(operator, scaled, solver, options={"y0": start}, throw=False)
    q, steps = solved.value, jnp.asarray(solved.stats["num_steps"])
    residual = mu * optx.two_norm(jax.tree.map(lambda a, b: a - b, operator.mv(q), scaled))
    pulled = jax.jvp(lambda x: jax.grad(problem.lower, argnums=1)(x, theta), (x,), (q,))[1]
    z = jax.tree.map(jnp.negative, pulled)
    # Its first residual, its steps, and ours.
    return InexactHypergradient(z, q, residual, 2 + steps, residual <= tolerance)


def hypergradient_error_bound(
    problem: AbstractBilevel,
    theta: PyTree,
    x: PyTree,
    *,
    accuracy: Float[Array, ""] | float,
    tolerance: Float[Array, ""] | float,
    cross_norm: Float[Array, ""] | float,
) -> Scalar:
    """The bound ω ≥ ‖z - ∇f(θ)‖ of an inexact hypergradient, of quantities known at x̄ (theorem 2.1).

        ω = c ε + (‖J‖/μ) δ + (L_J L_g/μ) ε²,     c = L_g ‖J‖/μ + (L_H/μ²) ‖∇g(x̄)‖ ‖J‖ + L_J ‖∇g(x̄)‖/μ

    The inverse Hessian is Lipschitz with L_H/μ².

    **Arguments:** `x`: x̄; `accuracy` ε ≥ ‖x̄ - x̂(θ)‖; `tolerance` δ ≥ ‖H q - ∇g‖; `cross_norm` ≥ ‖J(x̄)‖, from
    [`measured_cross_norm`][gradatim.implicit.measured_cross_norm] or in closed form.

    >>> from gradatim.implicit import Bilevel
    >>> problem = Bilevel(
    ...     lambda x: (x - 1.0) ** 2 / 2, lambda x, theta: (x - theta) ** 2 / 2,
    ...     strong_convexity=1.0, smoothness=1.0, upper_smoothness=1.0, hessian_lipschitz=0.0, cross_lipschitz=0.0,
    ... )
    >>> x = jnp.array(3.0)
    >>> print(f"{hypergradient_error_bound(problem, x, x, accuracy=0.25, tolerance=0.5, cross_norm=1.0):.2f}")
    0.75
    """
    mu, L_g, L_J = problem.strong_convexity(theta), problem.upper_smoothness(), problem.cross_lipschitz(theta)
    slope = optx.two_norm(jax.grad(problem.upper)(x))
    c = L_g * cross_norm / mu + problem.hessian_lipschitz(theta) / mu**2 * slope * cross_norm + L_J * slope / mu
    return c * accuracy + cross_norm / mu * tolerance + L_J * L_g / mu * accuracy**2


class CrossNorm(NamedTuple):
    """What [`measured_cross_norm`][gradatim.implicit.measured_cross_norm] gives."""

    value: Float[Array, ""]
    "‖J‖, by a safety factor above what was measured, or the problem's own bound"
    vector: Float[Array, " d"]
    "The start of the next measurement"
    products: Int[Array, ""]
    "Products with J and Jᵀ, 0 for a bound in closed form"


def measured_cross_norm(
    problem: AbstractBilevel, theta: PyTree, x: PyTree, vector: Float[Array, " d"] | None = None, *, iterations: int | Int[Array, ""] = 20
) -> CrossNorm:
    """‖J(x, θ)‖ by power iteration, times 1.05; or the problem's own bound, where it has one.

    **Arguments:** `vector`: of an earlier call, then few `iterations` do.

    >>> from gradatim.implicit import Bilevel
    >>> problem = Bilevel(
    ...     lambda x: x @ x, lambda x, theta: jnp.sum((x - jnp.array([3.0, 4.0]) * theta) ** 2) / 2,
    ...     strong_convexity=1.0, smoothness=1.0, upper_smoothness=2.0, hessian_lipschitz=0.0, cross_lipschitz=0.0,
    ... )
    >>> print(f"{measured_cross_norm(problem, jnp.array(1.0), jnp.zeros(2)).value:.2f}")
    5.25
    """
    flat, unravel = ravel_pytree(theta)
    start = jnp.zeros_like(flat) if vector is None else vector
    known = problem.cross_norm(x, theta)
    if known is not None:
        return CrossNorm(known, start, jnp.zeros((), jnp.int32))
    _, unravel_x = ravel_pytree(x)
    push = jax.linearize(lambda theta: lower_gradient(problem, x, theta), theta)[1]
    pull = jax.linearize(lambda x: jax.grad(problem.lower, argnums=1)(x, theta), x)[1]
    found = top_singular_value_of_map(
        lambda v: ravel_pytree(push(unravel(v)))[0], lambda u: ravel_pytree(pull(unravel_x(u)))[0], start, iterations=iterations
    )
    return CrossNorm(SAFETY * found.value, found.vector, jnp.asarray(2 * iterations + 1))
