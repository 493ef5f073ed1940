"""Gradient-regularised Newton's method with a doubled and halved radius (Semenov, Jaggi and Doikov, arXiv:2506.13710)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradatim.numerics.checks import is_known

from .hessian_approximations import AbstractHessian, ExactHessian, MatrixHessian
from .regularized_solves import Scalar, Solve, Vector, conjugate_gradients, dual_norm, primal_norm, root_of_metric, solves_of
from .regularized_trace import Trace, empty_trace, recorded
from .stopping import evaluate, is_still, is_target_met

WORTHWHILE = 0.25
"Of the decrease: what one more doubling must be able to gain to be tried."


class GradientNormalizedNewton(optx.AbstractMinimiser):
    """Newton's method, regularised by the gradient's norm over a radius γ that adapts to the objective.

        λ = ‖∇f(x)‖⁎ / γ,     x⁺ = x - (H(x) + λ B)⁻¹ ∇f(x)
        accepted if f(x) - f(x⁺) ≥ ‖∇f(x⁺)‖⁎² / (8 λ):   γ ← 2 γ;     else γ ← γ/2, again from x

    with ‖h‖² = ⟨Bh, h⟩ and its dual ‖g‖⁎² = ⟨g, B⁻¹g⟩. One rule for objectives whose gradient, Hessian or third derivative is Hölder,
    or that are quasi-self-concordant, without knowing which; H may be any approximation from `gradatim.optim` whose error shrinks
    with the gradient. Each step costs one H and, on average, about two factorisations and gradients; all trials share the H.

    **Where it pays:** if a Hessian (n gradients) costs less than the iterations it saves a quasi-Newton method, below some thousand
    unknowns; beyond, `linear_solver="cg"` needs Hessian–vector products only. A nearby minimum is approached quadratically, a saddle
    is not escaped: where H + λB cannot be factorised the trial counts as refused, and λ grows. Conjugate gradients do not see that H + λB
    is indefinite, and may lead to a saddle: give them a semidefinite H. With an indefinite H an accepted step may be longer than γ;
    with a semidefinite one it never is. In single precision the test drowns in the rounding of f near the
    minimum: take double precision, or `test="gradient"`, which subtracts no values, for convex objectives.

    **Two ways to fewer steps**, beyond the paper. `memory` η replaces f(x) in the test by a mean of all values so far,

        C ← (η Q C + f(x⁺)) / Q⁺,     Q⁺ = η Q + 1,     C = f(x) and Q = 1 at the start

    (Zhang and Hager), so that steps may be longer and a value may rise in between: half the iterations in Rosenbrock's valley
    with their `memory=0.85`, and about four fifths of them, with three fifths of the solves, on most problems, but a few more on
    some convex ones. C ≥ f(x) falls by at least 1 - η of what the test demands: the rates stay, but for this factor.
    `search="both"` doubles a radius that passed once more from the same point, while the test holds, the value falls and λ ‖h‖², the
    most that the model gains by doubling, is a quarter of the change of f: a radius that is too small is mended within one step.
    Both together reach most minima in three quarters of the iterations and seven tenths of the solves of the paper's search.

    Stops where the step and the change of f are both below `atol + rtol · |…|`, as optimistix's solvers do, or at `gradient_tol` or
    `value_target`; with `rtol = atol = 0` the latter two alone. The result is `nonlinear_divergence` where no trial was accepted, and
    `nonfinite` for a value, a gradient or a Hessian that is.

    **Arguments:** `rtol`, `atol` ≥ 0; `norm`: of the step, for these two; `hessian`: an approximation, or a function `(y, args) ↦
    matrix`; `metric`: B, a symmetric positive definite matrix over the entries of `y` in the order of its leaves, None for the
    identity; `gamma0` > 0: the first radius (the paper's 1 has a unit of length: with the distance to the minimum the doubling need
    not begin from below); `gamma_min` > 0: its least value after a success; `jitter` ≥ 0: added to γ in λ (which it keeps below
    ‖∇f‖⁎/jitter: without a Hessian, gradients below L · jitter are then out of reach); `max_trials`: trials a step; `test`: `"value"`,
    or `"gradient"`: ⟨∇f(x⁺), x - x⁺⟩ ≥ ‖∇f(x⁺)‖⁎²/(4 λ), which for convex f implies the other; `memory` in [0, 1): η, with the test of
    values only; `search`: `"halving"`, or `"both"`; `linear_solver`: `"cholesky"` (low-rank
    matrices are solved by Woodbury's identity) or `"cg"`; `forcing` in (0, 1): θ, for conjugate gradients, ‖residual‖⁎ ≤ θ λ ‖step‖;
    `max_products`: their Hessian–vector products a trial; `gradient_tol`: stop at ‖∇f‖⁎ below it; `value_target`: stop at f below it;
    `record`: steps to keep in `stats["trace"]`, 0 for none; under `vmap` all of it is copied at every step: scan over `step` there.

    `stats` has `num_steps`, `num_solves`, `num_failed_solves` (indefinite, or residual too large), `num_gradients`, `num_products`
    (of conjugate gradients), `trace`.

    **Raises:** `ValueError` for a number or a metric's shape that is out of range; `TypeError` for complex unknowns; a warning for
    single precision with a tolerance below 1e-6.

    >>> def rosenbrock(y, args):
    ...     return (1 - y[0]) ** 2 + 100 * (y[1] - y[0] ** 2) ** 2
    >>> solver = GradientNormalizedNewton(rtol=1e-3, atol=1e-6)
    >>> solution = optx.minimise(rosenbrock, solver, jnp.array([-2.0, 2.0]))
    >>> print(solution.value.round(3), int(solution.stats["num_failed_solves"]))
    [1. 1.] 0

    From the authors' code it differs where a factorisation fails or the trials run out: neither is ever accepted. A value may exceed
    what the test allows by four units of rounding of f(x), without which it fails at the minimum. Source: Algorithm 3 of the paper's
    appendix.
    """

    rtol: float
    atol: float
    norm: Callable[[PyTree], Scalar]
    hessian: AbstractHessian
    metric: Float[Array, "n n"] | None
    gamma0: float | Float[Array, ""]
    gamma_min: float | Float[Array, ""]
    jitter: float | Float[Array, ""]
    max_trials: int = eqx.field(static=True)
    test: str = eqx.field(static=True)
    memory: float | Float[Array, ""]
    search: str = eqx.field(static=True)
    linear_solver: str = eqx.field(static=True)
    forcing: float
    max_products: int = eqx.field(static=True)
    gradient_tol: float | Float[Array, ""] | None
    value_target: float | Float[Array, ""] | None
    record: int = eqx.field(static=True)

    def __init__(
        self,
        rtol: float,
        atol: float,
        norm: Callable[[PyTree], Scalar] = optx.max_norm,
        *,
        hessian: AbstractHessian | Callable[[PyTree, Any], Array] | None = None,
        metric: Float[Array, "rows columns"] | None = None,
        gamma0: float | Float[Array, ""] = 1.0,
        gamma_min: float | Float[Array, ""] = 1e-9,
        jitter: float | Float[Array, ""] = 1e-8,
        max_trials: int = 41,
        test: str = "value",
        memory: float | Float[Array, ""] = 0.0,
        search: str = "halving",
        linear_solver: str = "cholesky",
        forcing: float = 0.1,
        max_products: int = 1000,
        gradient_tol: float | Float[Array, ""] | None = None,
        value_target: float | Float[Array, ""] | None = None,
        record: int = 0,
    ) -> None:
        for name, value in (("gamma0", gamma0), ("gamma_min", gamma_min)):
            if is_known(value) and not 0 < float(value) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")
        for name, value in (("rtol", rtol), ("atol", atol), ("jitter", jitter), ("record", record)):
            if is_known(value) and not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        for name, value in (("max_trials", max_trials), ("max_products", max_products)):
            if not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < forcing < 1:
            raise ValueError(f"forcing must lie in (0, 1), got {forcing}")
        if is_known(memory) and not 0 <= float(memory) < 1:
            raise ValueError(f"memory must lie in [0, 1), got {memory}")
        if test == "gradient" and not (is_known(memory) and float(memory) == 0):
            raise ValueError(f"memory must be 0 with test 'gradient', which compares no values, got {memory}")
        for name, value, allowed in (
            ("test", test, ("value", "gradient")),
            ("search", search, ("halving", "both")),
            ("linear_solver", linear_solver, ("cholesky", "cg")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if metric is not None and (metric.ndim != 2 or metric.shape[0] != metric.shape[1]):
            raise ValueError(f"metric must be a square matrix, got shape {metric.shape}")
        if hessian is None:
            hessian = ExactHessian()
        elif not isinstance(hessian, AbstractHessian):
            hessian = MatrixHessian(hessian)
        self.rtol, self.atol, self.norm, self.hessian, self.metric = rtol, atol, norm, hessian, metric
        self.gamma0, self.gamma_min, self.jitter, self.max_trials, self.test = gamma0, gamma_min, jitter, max_trials, test
        self.memory, self.search = memory, search
        self.linear_solver, self.forcing, self.max_products = linear_solver, forcing, max_products
        self.gradient_tol, self.value_target, self.record = gradient_tol, value_target, record

    def init(self, fn: Any, y: Any, args: Any, options: Any, f_struct: Any, aux_struct: Any, tags: Any) -> _State:
        """The state at `y`, evaluated there; part of optimistix's interface."""
        del options, f_struct, aux_struct, tags
        if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(y)):
            raise TypeError("y must be real, got a complex leaf: minimise over its real and imaginary parts")
        x, unravel = ravel_pytree(y)
        self._warn_of_single_precision(x.dtype)
        root = None if self.metric is None else root_of_metric(self.metric, x)
        (value, aux), gradient = evaluate(fn, unravel, args, x)
        gradient_norm = dual_norm(root, gradient)
        nothing = jnp.zeros((), jnp.int32)
        is_finite = jnp.isfinite(value) & jnp.isfinite(gradient_norm)
        return _State(
            value,
            gradient,
            gradient_norm,
            jnp.asarray(self.gamma0, x.dtype),
            value,
            jnp.ones_like(value),
            aux,
            root,
            is_target_met(value, gradient_norm, self.gradient_tol, self.value_target),
            optx.RESULTS.where(is_finite, optx.RESULTS.successful, optx.RESULTS.nonfinite),
            _Counts(*(nothing for _ in _Counts._fields)),
            empty_trace(self.record, value, gradient_norm),
        )

    def step(self, fn: Any, y: Any, args: Any, options: Any, state: _State, tags: Any) -> tuple[Any, _State, Any]:
        """One accepted step, or none and a result that says so; part of optimistix's interface."""
        del options, tags
        x, unravel = ravel_pytree(y)
        operator = self.hessian(lambda y, args: fn(y, args)[0], y, args)
        solve, is_finite = self._solver(operator, state, unravel)
        # Under vmap the lanes that have finished come along.
        is_active = is_finite & ~state.terminate & (state.result == optx.RESULTS.successful)
        nothing = jnp.zeros_like(state.value)
        start = _Trial(
            jnp.array(False),
            is_active,
            state.gamma,
            nothing,
            nothing,
            nothing,
            x,
            state.value,
            state.gradient,
            state.gradient_norm,
            state.aux,
            state.counts,
        )
        first = state.counts.trials

        def is_searching(best: _Trial) -> Bool[Array, ""]:
            return best.is_searching & (best.counts.trials - first < self.max_trials)

        def attempt(best: _Trial) -> _Trial:
            gamma = best.next_gamma
            regularization = state.gradient_norm / (gamma + self.jitter)
            step, is_solved, products = solve(regularization)
            candidate = jnp.where(is_solved, x + step, x)
            (value, aux), gradient = evaluate(fn, unravel, args, candidate)
            gradient_norm = dual_norm(state.root, gradient)
            passes = is_solved & self._passes(state.reference, value, gradient, gradient_norm, step, regularization)
            before = best.counts
            counts = _Counts(before.trials + 1, before.failures + jnp.where(is_solved, 0, 1), before.products + products, before.steps)
            length = primal_norm(state.root, step)
            is_searching, next_gamma = ~passes, gamma / 2
            if self.search == "both":
                # A radius that passed after one that did not has no room above it.
                is_climbing = best.is_accepted | (before.trials == first)
                passes &= ~best.is_accepted | (value < best.value)
                is_worthwhile = regularization * length**2 >= WORTHWHILE * jnp.abs(state.value - value)
                is_searching = jnp.where(passes, is_climbing & is_worthwhile, ~best.is_accepted)
                next_gamma = jnp.where(passes, 2 * gamma, gamma / 2)
            new = _Trial(
                passes, is_searching, next_gamma, gamma, regularization, length, candidate, value, gradient, gradient_norm, aux, counts
            )
            kept = jax.tree.map(lambda new, old: jnp.where(passes, new, old), new, best)
            return kept._replace(is_searching=is_searching, next_gamma=next_gamma, counts=counts)

        best = jax.lax.while_loop(is_searching, attempt, start)
        result = optx.RESULTS.where(best.is_accepted, optx.RESULTS.successful, optx.RESULTS.nonlinear_divergence)
        result = optx.RESULTS.where(is_finite, result, optx.RESULTS.nonfinite)
        ends = is_still(self, x, best.x - x, best.value, best.value - state.value, unravel)
        ends |= is_target_met(best.value, best.gradient_norm, self.gradient_tol, self.value_target)
        weight = self.memory * state.weight + 1
        counts = best.counts._replace(steps=state.counts.steps + 1)
        new = _State(
            best.value,
            best.gradient,
            best.gradient_norm,
            jnp.where(best.is_accepted, jnp.maximum(2 * best.gamma, self.gamma_min), state.gamma),
            (self.memory * state.weight * state.reference + best.value) / weight,
            weight,
            best.aux,
            state.root,
            best.is_accepted & ends,
            result,
            counts,
            self._recorded(state, best),
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
        stats = {
            "num_solves": counts.trials,
            "num_failed_solves": counts.failures,
            "num_gradients": counts.trials + 1,
            "num_products": counts.products,
            "trace": state.trace,
        }
        return y, state.aux, stats

    def _solver(
        self, operator: lx.AbstractLinearOperator, state: _State, unravel: Callable[[Vector], PyTree]
    ) -> tuple[Solve, Bool[Array, ""]]:
        def products() -> Solve:
            settings: Any = {"forcing": self.forcing, "max_products": self.max_products}
            return conjugate_gradients(operator, state.gradient, state.root, unravel, **settings)

        iterative = products if self.linear_solver == "cg" else None
        return solves_of(operator, state.gradient, self.metric, state.root, iterative)

    def _passes(
        self, old: Scalar, new: Scalar, gradient: Vector, gradient_norm: Scalar, step: Vector, regularization: Scalar
    ) -> Bool[Array, ""]:
        is_finite = jnp.isfinite(new) & jnp.isfinite(gradient_norm)
        if self.test == "gradient":
            return is_finite & (-(gradient @ step) >= gradient_norm**2 / (4 * regularization))
        # Near the minimum both values agree but for the rounding of either.
        rounding = 4 * jnp.finfo(old.dtype).eps * jnp.abs(old)
        return is_finite & (old - new >= gradient_norm**2 / (8 * regularization) - rounding)

    def _recorded(self, state: _State, best: _Trial) -> Trace | None:
        radius, further = best.gamma + self.jitter, best.counts.trials - state.counts.trials - 1
        steps = (radius, best.regularization, best.step_norm, further)
        return recorded(state.trace, state.counts.steps, best.is_accepted, (best.value, best.gradient_norm), steps)

    def _warn_of_single_precision(self, dtype: Any) -> None:
        if jnp.finfo(dtype).bits > 32:
            return
        tolerances = {"rtol": self.rtol, "atol": self.atol, "gradient_tol": self.gradient_tol}
        for name, value in tolerances.items():
            if value is not None and is_known(value) and 0 < float(value) < 1e-6:
                warnings.warn(
                    f"{name} = {float(value):g} is below what {dtype} can resolve: the method may stop with nonlinear_divergence; "
                    "take 64 bits, or a tolerance of 1e-6 or more",
                    stacklevel=3,
                )


class _Counts(NamedTuple):
    trials: Int[Array, ""]
    failures: Int[Array, ""]
    products: Int[Array, ""]
    steps: Int[Array, ""]


class _Trial(NamedTuple):
    """The best trial that passed, the starting point before there is one, and where to look next."""

    is_accepted: Bool[Array, ""]
    is_searching: Bool[Array, ""]
    next_gamma: Scalar
    gamma: Scalar  # γ
    regularization: Scalar  # λ
    step_norm: Scalar  # ‖x⁺ - x‖
    x: Vector
    value: Scalar
    gradient: Vector
    gradient_norm: Scalar  # ‖∇f‖⁎
    aux: Any
    counts: _Counts


class _State(eqx.Module):
    value: Scalar
    gradient: Vector
    gradient_norm: Scalar
    gamma: Scalar
    reference: Scalar  # C
    weight: Scalar  # Q
    aux: Any
    root: Float[Array, "n n"] | None  # L, B = L Lᵀ
    terminate: Bool[Array, ""]
    result: optx.RESULTS
    counts: _Counts
    trace: Trace | None
