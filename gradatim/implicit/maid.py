"""MAID: descent on a loss that is known up to bounds, which set their own accuracy (Salehi et al., arXiv:2308.10098)."""

from __future__ import annotations

import math

from jaxtyping import PyTree

from .bilevel_problem import AbstractBilevel
from .bilevel_run import BilevelSolution, BilevelStep, Callback, Machinery, Point, Slope, Status, history
from .inexact_line_search import InexactArmijo


def maid(
    problem: AbstractBilevel,
    theta: PyTree,
    x: PyTree,
    *,
    accuracy: float = 0.1,
    tolerance: float | None = None,
    step_size: float = 1.0,
    share: float = 0.5,
    decrease: float = 0.1,
    step_shrink: float = 0.5,
    step_growth: float = 1.2,
    tighten: float | None = 0.5,
    loosen: float = 1.1,
    max_backtracks: int = 10,
    loosest: float = 1.0,
    stop_at: float = 0.0,
    max_steps: int = 1000,
    work_limit: float = math.inf,
    max_lower_gradients: int = 100_000,
    callback: Callback | None = None,
) -> BilevelSolution:
    """Minimises f(θ) = g(x̂(θ)) by certified descent, each lower problem and linear system solved no better than a step needs.

        z with ω ≤ (1-η) ‖z‖:     solve to ε and δ; until the bound ω of ‖z - ∇f‖ allows it, ε ← ν ε, δ ← ν δ
        θ₊ = θ - α ρⁱ z:          the first i with ψ(α ρⁱ) ≤ 0, lower problem solved to ν̄ ε; then α ← ρ̄ α ρⁱ, ε ← ν̄ ε, δ ← ν̄ δ
        no such i:                ε ← ν ε, δ ← ν δ, one backtrack more, again

    (algorithms 3.1 and 3.2).

    Every accepted step decreases f by λ α ‖z‖², by proof, although f is never evaluated
    ([`InexactArmijo`][gradatim.implicit.InexactArmijo]). ε shrinks only where a bound or the line search asks for it and grows after each
    step, so that its first value hardly matters. The certificates are as good as the problem's constants. Where it knows no bound of ‖J‖
    (`cross_norm` gives None), ω rests on a measurement: twenty power iterations at the start, five from the last vector at each later
    point, times 1.05, an estimate from below that the factor is to make up for. It does so along denoising runs
    ([`TotalVariationDenoising`][gradatim.implicit.TotalVariationDenoising] and
    [`FieldOfExpertsDenoising`][gradatim.implicit.FieldOfExpertsDenoising]); nothing proves it.

    A loop on the host around compiled pieces: not for jit or vmap. Problems of one structure share the compiled pieces.

    **Arguments:** `problem`: an [`AbstractBilevel`][gradatim.implicit.AbstractBilevel]; `theta`, `x`: the start, pytrees of floats;
    `accuracy` ε₀ > 0, absolute, a distance in x; `tolerance` δ₀ > 0, absolute, of the linear system's residual, ε₀ by default;
    `step_size` α₀ > 0; `share` η in (λ, 1); `decrease` λ in (0, η); `step_shrink` ρ, `tighten` ν in (0, 1); `step_growth` ρ̄, `loosen`
    ν̄ > 1, or `tighten` None to keep ε and δ as they are given: it stalls where they certify no further step, too coarse ones early;
    `max_backtracks` ≥ 1 with the first accuracy; `loosest`: ε grows no further than this, or than ε₀ if that is larger;
    `stop_at`: ends where ‖z‖ + ω, which bounds ‖∇f‖, is at most this; `max_steps`, accepted ones; `work_limit`: in gradients of h, checked
    between solves; `max_lower_gradients` of one lower solve; `callback(step)`: called with each accepted
    [`BilevelStep`][gradatim.implicit.BilevelStep].

    **Raises:** `ValueError` for constants out of range, a μ that is not positive, an accuracy beyond the precision of the dtype, or a
    start whose loss is not finite; `TypeError` for pytrees that do not hold floating-point arrays.

    Deviations from the authors' code: constants certify (there, some are guesses); the trial solve is done to ε₊ as its bound charges.

    >>> import jax.numpy as jnp
    >>> from gradatim.implicit import Bilevel
    >>> problem = Bilevel(
    ...     lambda x: (x - 1.0) ** 2 / 2, lambda x, theta: (x - theta) ** 2 / 2,
    ...     strong_convexity=1.0, smoothness=1.0, upper_smoothness=1.0, hessian_lipschitz=0.0, cross_lipschitz=0.0,
    ... )
    >>> found = maid(problem, jnp.array(4.0), jnp.array(0.0), stop_at=1e-2)
    >>> print(found.status, f"{found.theta:.1f}")
    converged 1.0
    """
    residual = accuracy if tolerance is None else tolerance
    _check_positive(accuracy=accuracy, tolerance=residual, step_size=step_size)
    _check_fractions(step_shrink=step_shrink, share=share, decrease=decrease, **({} if tighten is None else {"tighten": tighten}))
    if not decrease < share:
        raise ValueError(f"decrease must be below share, {share}, got {decrease}")
    for name, value in (("step_growth", step_growth), *(() if tighten is None else (("loosen", loosen),))):
        if not value > 1:
            raise ValueError(f"{name} must be above 1, got {value}")
    if max_backtracks < 1:
        raise ValueError(f"max_backtracks must be at least 1, got {max_backtracks}")
    machinery = Machinery(problem, theta, x, max_lower_gradients)
    loosen, loosest = (1.0, accuracy) if tighten is None else (loosen, max(loosest, accuracy))
    point = machinery.start(accuracy)
    armijo = InexactArmijo(decrease, machinery.upper_smoothness, problem.is_upper_convex())
    steps: list[BilevelStep] = []

    def is_spent() -> bool:
        return machinery.work.total >= work_limit

    def certified_slope() -> Slope | Status:
        """A direction of certain descent, or why there is none."""
        nonlocal point, accuracy, residual
        while True:
            if point.accuracy > accuracy:
                point = machinery.solve(point.theta, machinery.still, 0.0, point.x, accuracy)
            if not point.certified:
                return "precision"
            slope = machinery.differentiate(point, residual)
            if not slope.certified:
                return "precision"
            if slope.norm + slope.bound <= stop_at:
                return "converged"
            if slope.bound <= (1 - share) * slope.norm:
                return slope
            if tighten is None:
                return "stalled"
            if is_spent():
                return "work_limit"
            accuracy, residual = tighten * accuracy, tighten * residual

    def accept(slope: Slope, alpha: float, moved: Point) -> None:
        nonlocal point
        work = machinery.work
        step = BilevelStep(
            theta=point.theta,
            x=point.x,
            gradient=slope.gradient,
            next_theta=moved.theta,
            loss=point.value,
            upper_bound=float(armijo.upper_bound(point.value, point.slope, point.accuracy)),
            lower_bound=float(armijo.lower_bound(point.value, point.slope, point.accuracy)),
            gradient_norm=slope.norm,
            error_bound=slope.bound,
            accuracy=point.accuracy,
            tolerance=residual,
            step_size=alpha,
            lower_gradients=work.lower_gradients,
            hessian_products=work.hessian_products,
            cross_products=work.cross_products,
        )
        steps.append(step)
        point = moved
        if callback is not None:
            callback(step)

    def backtrack(slope: Slope, tries: int) -> Status | float | None:
        """The step size that was accepted, None if there is none."""
        before = armijo.lower_bound(point.value, point.slope, point.accuracy)
        next_accuracy = min(loosen * accuracy, loosest)
        for i in range(tries):
            alpha = step_size * step_shrink**i
            trial = machinery.solve(point.theta, slope.gradient, alpha, point.x, next_accuracy)
            after = armijo.upper_bound(trial.value, trial.slope, next_accuracy)
            if trial.certified and armijo.excess(after, before, alpha, slope.norm) <= 0:
                accept(slope, alpha, trial)
                return alpha
            if is_spent():
                return "work_limit"
        return None

    status: Status = "max_steps"
    tries = max_backtracks
    while len(steps) < max_steps:
        if is_spent():
            status = "work_limit"
            break
        slope = certified_slope()
        if isinstance(slope, str):
            status = slope
            break
        outcome = backtrack(slope, tries)
        if isinstance(outcome, str):
            status = outcome
            break
        if outcome is not None:
            step_size, tries = step_growth * outcome, max_backtracks
            accuracy, residual = min(loosen * accuracy, loosest), loosen * residual
        elif tighten is None:
            status = "stalled"
            break
        else:
            accuracy, residual, tries = tighten * accuracy, tighten * residual, tries + 1
    return BilevelSolution(point.theta, point.x, point.value, status, history(steps), machinery.work)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def _check_fractions(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie in (0, 1), got {value}")
