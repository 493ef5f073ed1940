"""Newton's method, regularised by a power of the gradient's norm (Doikov, Mishchenko and Nesterov, arXiv:2208.05888)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from gradatim.numerics.checks import is_known

from .hessian_approximations import AbstractHessian, ExactHessian
from .model_descent import AbstractModelDescent, Model, Point, Proposal
from .regularized_solves import Scalar, Vector, solves_of


class SuperUniversalNewton(AbstractModelDescent):
    """Super-universal Newton's method, its constant H found by factors of four.

        λ = H ‖∇f(x)‖⁎^α,     x⁺ = x - (∇²f(x) + λ B)⁻¹ ∇f(x)
        accepted if ⟨∇f(x⁺), x - x⁺⟩ ≥ ‖∇f(x⁺)‖⁎² / (4 λ):   H ← H/4;     else H ← 4 H, again from x

    Attains the rates of convex f with a Hölder Hessian or third derivative, up to O(1/k³), without knowing which; a minimum with a
    definite Hessian is approached with the order 1 + α. A class asks for λ in proportion to ‖∇f‖⁎^β, with β from 0 for Hessians of
    bounded variation to ⅔ for Lipschitz third derivatives, and so for H in proportion to ‖∇f‖⁎^(β - α): from α = ⅔ on, for none of them
    must H fall with the gradient. For α = 1 this is
    [`GradientNormalizedNewton`][gradatim.optim.GradientNormalizedNewton] with `test="gradient"` and γ = 1/H, but for the factor.

    **Where it pays:** for convex f, of which each step takes ‖∇f(x⁺)‖⁎²/(4 λ) or more, and in single precision, as the test subtracts no
    values. Elsewhere a value may rise. Where ∇²f + λB cannot be factorised the trial counts as refused, and H grows.

    **Arguments:** as for [`GradientDescent`][gradatim.optim.GradientDescent], with the first H > 0 for `constant`; `hessian`: an
    approximation in the place of ∇²f, None for that itself (few rows are solved by Woodbury's identity); `alpha` in [2/3, 1]: α, by
    default 1, as in the authors' code. `num_failed_solves` of `stats` counts what could not be factorised.

    **Raises:** as that; `ValueError` for a Hessian of the wrong size, or not symmetric.

    >>> import optimistix as optx
    >>> solver = SuperUniversalNewton(rtol=1e-4, atol=1e-6)
    >>> solution = optx.minimise(lambda y, _: jnp.sum(jnp.cosh(y - 3.0)), solver, jnp.zeros(2))
    >>> print(solution.value.round(2))
    [3. 3.]

    From the authors' code it differs where a factorisation fails or the trials run out, where neither is accepted, and in that H may fall
    below 1e-5. Source: the paper's method with adaptive search.
    """

    hessian: AbstractHessian | None = eqx.field(default=None, kw_only=True)
    alpha: float | Float[Array, ""] = eqx.field(default=1.0, kw_only=True)

    def __check_init__(self) -> None:
        if is_known(self.alpha) and not 2 / 3 <= float(self.alpha) <= 1:
            raise ValueError(f"alpha must lie in [2/3, 1], got {self.alpha}")

    def momentum(self, x: Vector) -> PyTree:
        """None."""
        del x

    def model(self, fn: Any, y: PyTree, args: Any, at: Point) -> Model:
        """See the class."""
        operator = (ExactHessian() if self.hessian is None else self.hessian)(fn, y, args)
        solve, is_finite = solves_of(operator, at.gradient, self.metric, at.root)
        scale = at.gradient_norm**self.alpha

        def propose(constant: Scalar) -> Proposal:
            regularization = constant * scale
            step, is_solved, _ = solve(regularization)
            # ⟨(∇²f + λB)h, h⟩ = -⟨∇f, h⟩.
            return Proposal(step, at.gradient @ step / 2, regularization, is_solved)

        return Model(propose, is_finite, goes_on_falling, factor=4.0)


def goes_on_falling(proposal: Proposal, old: Point, new: Point) -> Bool[Array, ""]:
    """⟨∇f(x⁺), -h⟩ ≥ ‖∇f(x⁺)‖⁎²/(4 λ)."""
    del old
    return -jnp.vdot(new.gradient, proposal.step) >= new.gradient_norm**2 / (4 * proposal.regularization)
