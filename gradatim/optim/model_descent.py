"""Steps to the minimum of a model whose constant is searched for; gradient descent and cubic Newton's method.

What a method for many kinds of smoothness is compared with: each of these is made for one.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradatim.numerics.checks import is_known

from .hessian_approximations import AbstractHessian, ExactHessian
from .regularized_solves import Root, Scalar, Vector, dual_norm, primal_norm, root_of_metric
from .regularized_trace import Trace, empty_trace, recorded
from .stopping import evaluate, is_still, is_target_met

HALVINGS = 64
"Of the logarithm of λ: from sixteen digits of uncertainty down to round-off."


class AbstractModelDescent(optx.AbstractMinimiser):
    """Steps to the minimum of a model m(h; M) of f(x + h) - f(x).

        accepted if f(x + h) ≤ f(x) + m(h; M):   M ← M/2;     else M ← 2 M, again from x

    A `Model` may have another test and another factor than 2. Stops as
    [`GradientNormalizedNewton`][gradatim.optim.GradientNormalizedNewton] does, and has its `stats`.
    """

    rtol: float
    atol: float
    norm: Callable[[PyTree], Scalar] = optx.max_norm
    metric: Float[Array, "n n"] | None = eqx.field(default=None, kw_only=True)
    constant: float | Float[Array, ""] = eqx.field(default=1.0, kw_only=True)
    max_trials: int = eqx.field(static=True, default=41, kw_only=True)
    gradient_tol: float | Float[Array, ""] | None = eqx.field(default=None, kw_only=True)
    value_target: float | Float[Array, ""] | None = eqx.field(default=None, kw_only=True)
    record: int = eqx.field(static=True, default=0, kw_only=True)

    def __check_init__(self) -> None:
        if is_known(self.constant) and not 0 < float(self.constant) < math.inf:
            raise ValueError(f"constant must be positive and finite, got {self.constant}")
        for name, value, least in (
            ("rtol", self.rtol, 0),
            ("atol", self.atol, 0),
            ("max_trials", self.max_trials, 1),
            ("record", self.record, 0),
        ):
            if is_known(value) and not value >= least:
                raise ValueError(f"{name} must be at least {least}, got {value}")

    @abc.abstractmethod
    def momentum(self, x: Vector) -> PyTree:
        """What the method takes along from step to step, at its start; None for nothing."""

    @abc.abstractmethod
    def model(self, fn: Any, y: PyTree, args: Any, at: Point) -> Model:
        """The model at `y`, of which `at` is known; `fn(y, args)` gives the value alone."""

    def init(self, fn: Any, y: Any, args: Any, options: Any, f_struct: Any, aux_struct: Any, tags: Any) -> _State:
        """The state at `y`, evaluated there; part of optimistix's interface."""
        del options, f_struct, aux_struct, tags
        if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(y)):
            raise TypeError("y must be real, got a complex leaf: minimise over its real and imaginary parts")
        x, unravel = ravel_pytree(y)
        root = None if self.metric is None else root_of_metric(self.metric, x)
        (value, aux), gradient = evaluate(fn, unravel, args, x)
        norm = dual_norm(root, gradient)
        is_finite = jnp.isfinite(value) & jnp.isfinite(norm)
        return _State(
            Point(value, gradient, norm, root, self.momentum(x)),
            jnp.asarray(self.constant, x.dtype),
            aux,
            is_target_met(value, norm, self.gradient_tol, self.value_target),
            optx.RESULTS.where(is_finite, optx.RESULTS.successful, optx.RESULTS.nonfinite),
            _Counts(*(jnp.zeros((), jnp.int32) for _ in _Counts._fields)),
            empty_trace(self.record, value, norm),
        )

    def step(self, fn: Any, y: Any, args: Any, options: Any, state: _State, tags: Any) -> tuple[Any, _State, Any]:
        """One accepted step, or none and a result that says so; part of optimistix's interface."""
        del options, tags
        x, unravel = ravel_pytree(y)
        at = state.at
        model = self.model(lambda y, args: fn(y, args)[0], y, args, at)
        is_active = model.is_finite & ~state.terminate & (state.result == optx.RESULTS.successful)

        def goes_on(trial: _Trial) -> Bool[Array, ""]:
            return is_active & ~trial.is_accepted & (trial.trials < self.max_trials)

        def attempt(trial: _Trial) -> _Trial:
            proposal = model.propose(trial.next_constant)
            candidate = jnp.where(proposal.is_solved, x + proposal.step, x)
            (value, aux), gradient = evaluate(fn, unravel, args, candidate)
            reached = Point(value, gradient, dual_norm(at.root, gradient), None, proposal.momentum)
            passes = proposal.is_solved & jnp.isfinite(value) & jnp.isfinite(reached.gradient_norm)
            passes &= model.passes(proposal, at, reached)
            # Zero would stay zero.
            lower = jnp.maximum(trial.next_constant / model.factor, jnp.finfo(x.dtype).tiny)
            after = jnp.where(passes, lower, model.factor * trial.next_constant)
            failures = trial.failures + jnp.where(proposal.is_solved, 0, 1)
            new = _Trial(passes, trial.trials + 1, failures, after, proposal.regularization, candidate, reached, aux)
            kept = jax.tree.map(lambda new, old: jnp.where(passes, new, old), new, trial)
            return kept._replace(trials=trial.trials + 1, failures=failures, next_constant=after)

        none = jnp.zeros((), jnp.int32)
        start = _Trial(jnp.array(False), none, none, state.constant, jnp.zeros_like(at.value), x, at._replace(root=None), state.aux)
        best = jax.lax.while_loop(goes_on, attempt, start)
        result = optx.RESULTS.where(best.is_accepted, optx.RESULTS.successful, optx.RESULTS.nonlinear_divergence)
        value, norm = best.at.value, best.at.gradient_norm
        ends = is_still(self, x, best.x - x, value, value - at.value, unravel)
        ends |= is_target_met(value, norm, self.gradient_tol, self.value_target)
        entries = (at.gradient_norm / best.regularization, best.regularization, primal_norm(at.root, best.x - x), best.trials - 1)
        before = state.counts
        new = _State(
            best.at._replace(root=at.root),
            jnp.where(best.is_accepted, best.next_constant, state.constant),
            best.aux,
            best.is_accepted & ends,
            optx.RESULTS.where(model.is_finite, result, optx.RESULTS.nonfinite),
            _Counts(
                before.trials + best.trials,
                before.failures + best.failures,
                before.gradients + model.n_gradients * best.trials,
                before.steps + 1,
            ),
            recorded(state.trace, before.steps, best.is_accepted, (value, norm), entries),
        )
        return unravel(best.x), new, best.aux

    def terminate(self, fn: Any, y: Any, args: Any, options: Any, state: _State, tags: Any) -> tuple[Bool[Array, ""], optx.RESULTS]:
        """Whether it has converged or failed; part of optimistix's interface."""
        del fn, y, args, options, tags
        return state.terminate, state.result

    def postprocess(
        self, fn: Any, y: Any, aux: Any, args: Any, options: Any, state: _State, tags: Any, result: Any
    ) -> tuple[Any, Any, dict[str, Any]]:
        """The counts and the trace; part of optimistix's interface."""
        del fn, aux, args, options, tags, result
        counts = state.counts
        stats = {"num_solves": counts.trials, "num_failed_solves": counts.failures, "num_gradients": counts.gradients + 1}
        return y, state.aux, {**stats, "trace": state.trace}


class GradientDescent(AbstractModelDescent):
    """Gradient descent, its step 1/L found by doubling and halving (Nesterov, Math. Program. 140, 125, 2013, section 3).

        h = -B⁻¹∇f(x)/L,     m = -‖∇f(x)‖⁎²/(2 L)

    **Arguments:** `rtol`, `atol`, `norm`; `metric` B, None for the identity; `constant`: the first L > 0; `max_trials`: doublings a step;
    `gradient_tol`, `value_target`: stop below either; `record`: steps to keep in `stats["trace"]`.

    **Raises:** `ValueError` for a number or a metric's shape that is out of range; `TypeError` for complex unknowns.

    >>> solver = GradientDescent(rtol=1e-3, atol=1e-4)
    >>> solution = optx.minimise(lambda y, _: jnp.sum((y - 3.0) ** 2), solver, jnp.zeros(2))
    >>> print(solution.value.round(2), int(solution.stats["num_steps"]))
    [3. 3.] 1
    """

    def momentum(self, x: Vector) -> PyTree:
        """None."""
        del x

    def model(self, fn: Any, y: PyTree, args: Any, at: Point) -> Model:
        """See the class."""
        del fn, y, args
        direction = steepest(at.gradient, at.root)
        square = at.gradient @ direction
        return Model(lambda constant: Proposal(-direction / constant, -square / (2 * constant), constant), jnp.array(True))


class CubicNewton(AbstractModelDescent):
    """Newton's method with a cubic term, its constant M found by doubling and halving (Nesterov and Polyak, Math. Program. 108, 177, 2006).

        h = argmin m,     m = ⟨∇f(x), h⟩ + ½ ⟨H h, h⟩ + M/6 ‖h‖³;     h = -(H + λB)⁻¹ ∇f(x),  λ = M ‖h‖/2

    The rate that Lipschitz Hessians allow, O(1/k²) for convex f. One eigendecomposition a step, in the metric, serves every M: λ is then
    the root of a function of one variable. A gradient without a part along the least eigenvector of an indefinite H gives a step that is
    too short.

    **Arguments:** as for [`GradientDescent`][gradatim.optim.GradientDescent], with the first M for `constant`; `hessian`: an
    approximation, None for the Hessian.

    **Raises:** as that.

    >>> solver = CubicNewton(rtol=1e-4, atol=1e-6)
    >>> solution = optx.minimise(lambda y, _: (1 - y[0]) ** 2 + 100 * (y[1] - y[0] ** 2) ** 2, solver, jnp.array([-2.0, 2.0]))
    >>> print(solution.value.round(2))
    [1. 1.]
    """

    hessian: AbstractHessian | None = eqx.field(default=None, kw_only=True)

    def momentum(self, x: Vector) -> PyTree:
        """None."""
        del x

    def model(self, fn: Any, y: PyTree, args: Any, at: Point) -> Model:
        """See the class."""
        matrix = (ExactHessian() if self.hessian is None else self.hessian)(fn, y, args).as_matrix()
        right, root = at.gradient, at.root
        if root is not None:
            right = solve_triangular(root, right, lower=True)
            matrix = solve_triangular(root, solve_triangular(root, matrix, lower=True).T, lower=True)
        curvatures, vectors = jnp.linalg.eigh(matrix)
        slopes = vectors.T @ right
        size, below = optx.two_norm(slopes), jnp.maximum(-curvatures[0], 0.0)
        # Added first: the least is then 0 to the last bit, and a small δ beside it keeps its digits.
        shifted = curvatures + below
        is_finite = jnp.isfinite(matrix).all()

        def propose(constant: Scalar) -> Proposal:
            # λ = δ + max(-e₁, 0); both ends from ‖h‖ between ‖∇f‖/(e_n + λ) and ‖∇f‖/δ.
            product = 2 * constant * size
            highest = product / (2 * (below + jnp.sqrt(below**2 + product)))
            top = jnp.maximum(curvatures[-1], 0.0)
            lowest = product / (2 * (top + jnp.sqrt(top**2 + product))) - below
            tiny = jnp.finfo(size.dtype).eps * (highest + below)

            def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
                low, high = ends
                middle = jnp.sqrt(low) * jnp.sqrt(high)
                is_low = middle + below < constant / 2 * optx.two_norm(slopes / (shifted + middle))
                return jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)

            _, gap = jax.lax.fori_loop(0, HALVINGS, halve, (jnp.maximum(lowest, tiny), jnp.maximum(highest, tiny)))
            parts = -slopes / (shifted + gap)
            change = slopes @ parts + curvatures @ parts**2 / 2 + constant / 6 * optx.two_norm(parts) ** 3
            step = vectors @ parts
            if root is not None:
                step = solve_triangular(root, step, lower=True, trans="T")
            return Proposal(step, change, gap + below)

        return Model(propose, is_finite)


class Point(NamedTuple):
    """What is known of a point."""

    value: Scalar
    gradient: Vector
    gradient_norm: Scalar
    "‖∇f‖⁎"
    root: Root
    "L of the metric B = L Lᵀ, None for the identity and for a point that is tried"
    momentum: PyTree


class Proposal(NamedTuple):
    """What a model proposes."""

    step: Vector
    change: Scalar
    "m(h; M)"
    regularization: Scalar
    "λ with h = -(H + λB)⁻¹∇f"
    is_solved: Bool[Array, ""] | bool = True
    "Whether the step is what it should be."
    momentum: PyTree = None
    "For the next step."


def falls_as_promised(proposal: Proposal, old: Point, new: Point) -> Bool[Array, ""]:
    """f(x⁺) ≤ f(x) + m(h; M)."""
    # Near the minimum both values agree but for the rounding of either.
    rounding = 4 * jnp.finfo(old.value.dtype).eps * jnp.abs(old.value)
    return new.value <= old.value + proposal.change + rounding


class Model(NamedTuple):
    """A model at one point, for every constant."""

    propose: Callable[[Scalar], Proposal]
    is_finite: Bool[Array, ""]
    passes: Callable[[Proposal, Point, Point], Bool[Array, ""]] = falls_as_promised
    "Whether a step from the one point to the other is accepted."
    factor: float = 2.0
    "By which a refused constant grows and an accepted one shrinks."
    n_gradients: int = 1
    "That a trial takes."


def steepest(gradient: Vector, root: Root) -> Vector:
    """B⁻¹∇f."""
    return gradient if root is None else cho_solve((root, True), gradient)


class _Counts(NamedTuple):
    trials: Int[Array, ""]
    failures: Int[Array, ""]
    gradients: Int[Array, ""]
    steps: Int[Array, ""]


class _Trial(NamedTuple):
    """The trial that passed, the starting point before there is one."""

    is_accepted: Bool[Array, ""]
    trials: Int[Array, ""]
    failures: Int[Array, ""]
    next_constant: Scalar
    regularization: Scalar
    x: Vector
    at: Point
    aux: Any


class _State(eqx.Module):
    at: Point
    constant: Scalar
    aux: Any
    terminate: Bool[Array, ""]
    result: optx.RESULTS
    counts: _Counts
    trace: Trace | None
