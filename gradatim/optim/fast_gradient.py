"""Nesterov's fast gradient method with a search for its constant (Math. Program. 140, 125, 2013, section 4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from .model_descent import AbstractModelDescent, Model, Point, Proposal, steepest
from .regularized_solves import Scalar, Vector


class Momentum(NamedTuple):
    """What the fast gradient method takes along."""

    lead: Vector
    "v"
    weight: Scalar
    "A"


class FastGradient(AbstractModelDescent):
    """Nesterov's fast gradient method, its step 1/L found by doubling and halving.

        L a² = A + a,     y = (A x + a v)/(A + a),     x⁺ = y - B⁻¹∇f(y)/L,     first v = x, A = 0
        accepted if f(x⁺) ≤ f(y) - ‖∇f(y)‖⁎²/(2 L):   v ← x⁺ + (A/a)(x⁺ - x),   A ← A + a,   L ← L/2;     else L ← 2 L, again from x

    **Where it pays:** for convex f without a Hessian. With the largest L of a step, of at most twice the Lipschitz constant of ∇f or the
    first L,

        f(x) - f* ≤ ‖x₀ - x*‖²/(2 A) ≤ 2 L ‖x₀ - x*‖²/(k + 1)²     after k steps

    where [`GradientDescent`][gradatim.optim.GradientDescent] has 1/k. Values may rise in between. `restart` forgets v and A where a step
    goes up, ⟨∇f(y), x⁺ - x⟩ > 0 (O'Donoghue and Candès, Found. Comput. Math. 15, 715, 2015): linear convergence on strongly convex f
    without their constant, but no bound as above.

    Two gradients a trial: that at y, which leads, and that at x⁺, whose norm the `trace` has and `gradient_tol` looks at.
    The test compares values: norms below some √(L |f|) times the root of machine precision are lost in their rounding.

    **Arguments:** as for [`GradientDescent`][gradatim.optim.GradientDescent]; `restart`: whether the momentum may be forgotten.

    **Raises:** as that.

    >>> import optimistix as optx
    >>> solver = FastGradient(rtol=1e-4, atol=1e-5, restart=True)
    >>> solution = optx.minimise(lambda y, _: jnp.sum(jnp.array([1.0, 50.0]) * (y - 3.0) ** 2), solver, jnp.zeros(2))
    >>> print(solution.value.round(2))
    [3. 3.]

    Source of this form: the code beside arXiv:2208.05888, whose trace keeps the norm of the first gradient.
    """

    restart: bool = eqx.field(static=True, default=False, kw_only=True)

    def momentum(self, x: Vector) -> PyTree:
        """The starting point, of no weight."""
        return Momentum(x, jnp.zeros((), x.dtype))

    def model(self, fn: Any, y: PyTree, args: Any, at: Point) -> Model:
        """See the class."""
        x, unravel = ravel_pytree(y)
        v, A = at.momentum
        value_and_gradient = jax.value_and_grad(lambda x: fn(unravel(x), args))

        def propose(constant: Scalar) -> Proposal:
            a = (1 + jnp.sqrt(1 + 4 * A * constant)) / (2 * constant)
            ahead = a / (A + a) * (v - x)
            value, gradient = value_and_gradient(x + ahead)
            direction = steepest(gradient, at.root)
            step = ahead - direction / constant
            change = value - at.value - gradient @ direction / (2 * constant)
            momentum = Momentum(x + step + A / a * step, A + a)
            if self.restart:
                is_uphill = gradient @ step > 0
                momentum = Momentum(jnp.where(is_uphill, x + step, momentum.lead), jnp.where(is_uphill, 0.0, momentum.weight))
            return Proposal(step, change, constant, momentum=momentum)

        return Model(propose, jnp.array(True), n_gradients=2)
