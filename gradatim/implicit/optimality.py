"""Conditions of optimality, made from a problem's own functions (Blondel et al., arXiv:2105.15183, section 2 and table 1).

Roots F(x, θ) = 0 are for [`custom_root`][gradatim.implicit.custom_root], fixed points x = T(x, θ) for
[`custom_fixed_point`][gradatim.implicit.custom_fixed_point]; constrained problems with multipliers stand in `constrained.py`. In a fixed
point the objective takes one pytree `theta`, and what follows it goes to the projection or prox, so that those of
`optax.projections` serve as they are. The step size changes no derivative at a solution, only how well the linear system is conditioned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

Objective = Callable[..., Float[Array, ""]]
"f(x, theta), a scalar."
Map = Callable[..., PyTree]
"A function of x and of theta that gives something of the structure of x."
Scalar = Float[Array, ""] | float


def stationary(objective: Objective) -> Map:
    """F = ∂₁f: a minimum, maximum or saddle without constraints. `objective(x, *theta)` may take any number of arguments.

    ∂₁F is the Hessian: at a minimum give `tags=lineax.positive_semidefinite_tag`.

    >>> print(stationary(lambda x, theta: theta * x**2 / 2 - x)(jnp.array(0.5), 2.0))
    0.0
    """
    return jax.grad(objective)


def gradient_step(objective: Objective, *, stepsize: Scalar = 1.0) -> Map:
    """T = x - η ∂₁f, the fixed point of gradient descent: the same derivatives as [`stationary`][gradatim.implicit.stationary].

    >>> print(gradient_step(lambda x, theta: (x - theta) ** 2 / 2, stepsize=0.5)(jnp.array(0.0), 4.0))
    2.0
    """
    return projected_gradient(objective, lambda y: y, stepsize=stepsize)


def projected_gradient(objective: Objective, projection: Map, *, stepsize: Scalar = 1.0) -> Map:
    """T = P(x - η ∂₁f(x, θ), c): a minimum within a convex set, of which P is the Euclidean projection.

    Where the set of active constraints changes with θ the derivative jumps; there it is that of the constraints which P takes as active.

    **Arguments:** `objective(x, theta)`; `projection(y, *constraint)`, such as `optax.projections.projection_simplex`; `stepsize` η > 0.

    **Returns:** `T(x, theta, *constraint)`.

    >>> from optax.projections import projection_non_negative
    >>> step = projected_gradient(lambda x, theta: jnp.sum((x - theta) ** 2) / 2, projection_non_negative)
    >>> step(jnp.zeros(2), jnp.array([3.0, -1.0])).tolist()
    [3.0, 0.0]
    """
    return proximal_gradient(objective, lambda y, _, *constraint: projection(y, *constraint), stepsize=stepsize)


def proximal_gradient(objective: Objective, prox: Map, *, stepsize: Scalar = 1.0) -> Map:
    """T = prox_ηg(x - η ∂₁f(x, θ), λ): a minimum of f(x, θ) + g(x, λ), where g need not be smooth.

    **Arguments:** `objective(x, theta)`: f alone; `prox(y, stepsize, *penalty)`: argmin_x ‖x - y‖²/2 + η g(x, λ), such as
    [`prox_l1`][gradatim.implicit.prox_l1]; `stepsize` η > 0.

    **Returns:** `T(x, theta, *penalty)`.

    >>> from gradatim.implicit import prox_l1
    >>> step = proximal_gradient(lambda x, theta: jnp.sum((x - theta) ** 2) / 2, prox_l1)
    >>> step(jnp.zeros(2), jnp.array([3.0, -1.0]), 2.0).tolist()
    [1.0, 0.0]
    """
    _check_positive("stepsize", stepsize)
    gradient = jax.grad(objective)

    def step(x: PyTree, theta: PyTree, *penalty: PyTree) -> PyTree:
        moved = jax.tree.map(lambda x, g: x - stepsize * g, x, gradient(x, theta))
        return prox(moved, stepsize, *penalty)

    return step


def block_proximal_gradient(objective: Objective, proxes: Sequence[Map], stepsizes: Sequence[Scalar]) -> Map:
    """T_j = prox_{η_j g_j}(x_j - η_j [∂₁f]_j): the fixed point of block coordinate descent, each block with a step of its own.

    **Arguments:** `objective(x, theta)` for x a tuple of blocks; `proxes`: `prox_j(y_j, stepsize_j, *penalties_j)`; `stepsizes`.

    **Returns:** `T(x, theta, penalties)`, where `penalties` holds a tuple of arguments for each block and may be left out.

    **Raises:** `ValueError` if proxes, step sizes and blocks differ in number.
    """
    if len(proxes) != len(stepsizes):
        raise ValueError(f"proxes and stepsizes must be one for each block, got {len(proxes)} and {len(stepsizes)}")
    for stepsize in stepsizes:
        _check_positive("stepsizes", stepsize)
    gradient = jax.grad(objective)

    def step(x: PyTree, theta: PyTree, penalties: Sequence[tuple] | None = None) -> PyTree:
        if len(x) != len(proxes):
            raise ValueError(f"x must be a tuple of {len(proxes)} blocks, one for each prox, got {len(x)}")
        blocks = zip(proxes, stepsizes, x, gradient(x, theta), penalties or [()] * len(proxes), strict=True)
        moved = [
            prox(jax.tree.map(lambda x, g, eta=eta: x - eta * g, block, slope), eta, *penalty)
            for prox, eta, block, slope, penalty in blocks
        ]
        return tuple(moved)

    return step


def mirror_descent(objective: Objective, mirror: Map, projection: Map, *, stepsize: Scalar = 1.0) -> Map:
    """T = P_φ(∇φ(x) - η ∂₁f(x, θ), c): the fixed point of mirror descent, P_φ(y) the point of the set nearest to y in the geometry of φ.

    **Arguments:** `objective(x, theta)`; `mirror`: ∇φ; `projection(y, *constraint)`: from the dual space into the set; `stepsize` η > 0.
    On the simplex with the entropy take [`entropic_descent`][gradatim.implicit.entropic_descent]: the logarithm of a zero has no
    derivative.

    **Returns:** `T(x, theta, *constraint)`.

    >>> step = mirror_descent(lambda x, theta: x @ theta, jnp.log, jax.nn.softmax)
    >>> x = step(jnp.array([0.5, 0.5]), jnp.array([0.0, jnp.log(3.0)]))
    >>> print(f"{x[0]:.2f} {x[1]:.2f}")
    0.75 0.25
    """
    _check_positive("stepsize", stepsize)
    gradient = jax.grad(objective)

    def step(x: PyTree, theta: PyTree, *constraint: PyTree) -> PyTree:
        return projection(jax.tree.map(lambda y, g: y - stepsize * g, mirror(x), gradient(x, theta)), *constraint)

    return step


def entropic_descent(objective: Objective, *, stepsize: Scalar = 1.0) -> Map:
    """T = x e^(-η g) / Σ x e^(-η g) along the last axis, g = ∂₁f: mirror descent on the simplex in the Kullback–Leibler geometry.

    It is softmax(log x - η g) without the logarithm: entries that are exactly zero stay so, with finite derivatives.

    **Arguments:** `objective(x, theta)`, for an array whose rows lie in the simplex; `stepsize` η > 0.

    >>> x = entropic_descent(lambda x, theta: x @ theta)(jnp.array([0.5, 0.5, 0.0]), jnp.array([0.0, jnp.log(3.0), -1.0]))
    >>> print(f"{x[0]:.2f} {x[1]:.2f} {x[2]:.2f}")
    0.75 0.25 0.00
    """
    _check_positive("stepsize", stepsize)
    gradient = jax.grad(objective)

    def step(x: Float[Array, "... k"], theta: PyTree) -> Float[Array, "... k"]:
        exponent = -stepsize * gradient(x, theta)
        # Any shift cancels; this one keeps the largest weight that counts at 1.
        shift = jax.lax.stop_gradient(jnp.max(jnp.where(x > 0, exponent, -jnp.inf), axis=-1, keepdims=True))
        # Bounded, so that an entry of zero is not multiplied by an infinity.
        weights = x * jnp.exp(jnp.minimum(exponent - shift, 60.0))
        return weights / jnp.sum(weights, axis=-1, keepdims=True)

    return step


def newton_step(conditions: Map, *, stepsize: Scalar = 1.0, linear_solver: lx.AbstractLinearSolver | None = None) -> Map:
    """T = x - η (∂₁G)⁻¹ G: the fixed point of Newton's method for a root of G(x, *theta), or of ∂₁f.

    **Arguments:** `conditions`: G; `stepsize` η > 0; `linear_solver`: of lineax, None for a factorisation.

    >>> print(newton_step(lambda x, theta: x**2 - theta)(jnp.array(1.0), 4.0))
    2.5
    """
    _check_positive("stepsize", stepsize)
    solver = lx.AutoLinearSolver(well_posed=None) if linear_solver is None else linear_solver

    def step(x: PyTree, *theta: PyTree) -> PyTree:
        operator = lx.JacobianLinearOperator(lambda x, theta: conditions(x, *theta), x, theta)
        move = lx.linear_solve(operator, conditions(x, *theta), solver).value
        return jax.tree.map(lambda x, d: x - stepsize * d, x, move)

    return step


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, int | float) and not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
