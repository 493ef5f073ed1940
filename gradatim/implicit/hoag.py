"""HOAG: bilevel descent with accuracies that are fixed in advance (Pedregosa, arXiv:1602.02355)."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .bilevel_problem import AbstractBilevel
from .bilevel_run import BilevelSolution, BilevelStep, Callback, Machinery, Point, Slope, Status, history

INCREASE = 0.25
"C of HOAG's test of a step."
RISE = 0.2
"Share of |g| by which a step that is kept may raise g."
FINEST = 1e-12
"Below which HOAG's accuracies do not go."
BOX = 1000.0
"Largest entry of HOAG's theta."


def hoag(
    problem: AbstractBilevel,
    theta: PyTree,
    x: PyTree,
    *,
    schedule: Callable[[int], float],
    max_steps: int = 1000,
    work_limit: float = math.inf,
    max_lower_gradients: int = 100_000,
    callback: Callback | None = None,
) -> BilevelSolution:
    """HOAG: step k solves lower problem and linear system to εₖ, and its step 1/Λ follows a test that forgives errors of that size.

        θ₊ = θ - z/Λ,  Λ₀ = ‖z‖/√d;    with s = ‖θ₊ - θ‖, C = ¼:
        g₊ ≤ g + C ε₊ + (C + 1) ε s - Λ s²:  Λ ← 0.95 Λ;       g₊ ≥ g + 0.2 |g|:  back to θ, solved anew, Λ ← 2 Λ, later accuracies halved

    Nothing is certified: the bounds of its history are infinite. The first step 1/Λ₀ has length √d: scale theta so that this is
    sensible.

    **Arguments:** `schedule(k)`: εₖ for k = 0, 1, …, such as `lambda k: 0.9**k`, used down to 1e-12 or round-off; θ is kept in
    [-1000, 1000]; `max_steps`: refused ones included; the others as [`maid`][gradatim.implicit.maid].

    **Raises:** as `maid`; `ValueError` for a negative accuracy.

    >>> from gradatim.implicit import Bilevel
    >>> problem = Bilevel(
    ...     lambda x: (x - 1.0) ** 2 / 2, lambda x, theta: (x - theta) ** 2 / 2,
    ...     strong_convexity=1.0, smoothness=1.0, upper_smoothness=1.0, hessian_lipschitz=0.0, cross_lipschitz=0.0,
    ... )
    >>> found = hoag(problem, jnp.array(4.0), jnp.array(0.0), schedule=lambda k: 0.9**k, max_steps=40)
    >>> print(found.status, f"{found.theta:.1f}")
    max_steps 1.0
    """

    def accuracy_of(k: int) -> float:
        value = schedule(k)
        if not value >= 0:
            raise ValueError(f"schedule must be at least 0, got {value} at step {k}")
        return max(value * halved, finest)

    halved, finest = 1.0, FINEST
    machinery = Machinery(problem, theta, x, max_lower_gradients)
    accuracy = accuracy_of(0)
    point = machinery.start(accuracy)
    slope = machinery.differentiate(point, accuracy)
    size = sum(leaf.size for leaf in jax.tree.leaves(theta))
    curvature = slope.norm / math.sqrt(size)
    steps: list[BilevelStep] = []
    status: Status = "max_steps"
    k = 0
    while k < max_steps:
        if machinery.work.total >= work_limit:
            status = "work_limit"
            break
        if not (slope.certified and point.certified):
            status = "precision"
            break
        k, finest = k + 1, max(FINEST, point.finest)
        next_accuracy = accuracy_of(k)
        if slope.norm == 0:
            # So coarse a solution may be its start, with nothing to learn from: on to the next accuracy.
            if next_accuracy <= finest:
                status = "converged"
                break
            point = machinery.solve(point.theta, machinery.still, 0.0, point.x, next_accuracy)
            slope = machinery.differentiate(point, next_accuracy)
            curvature = slope.norm / math.sqrt(size)
            continue
        moved = machinery.solve(point.theta, slope.gradient, 1 / curvature, point.x, next_accuracy)
        if _leaves_box(moved.theta):
            boxed = jax.tree.map(lambda leaf: jnp.clip(leaf, -BOX, BOX), moved.theta)
            moved = machinery.solve(boxed, machinery.still, 0.0, point.x, next_accuracy)
        if not moved.value < point.value + RISE * abs(point.value):
            curvature, halved = 2 * curvature, halved / 2
            point = machinery.solve(point.theta, machinery.still, 0.0, point.x, accuracy_of(k))
            slope = machinery.differentiate(point, point.accuracy)
            continue
        length = slope.norm / curvature
        allowed = INCREASE * next_accuracy + (INCREASE + 1) * point.accuracy * length - curvature * length**2
        steps.append(_step(point, slope, moved, curvature, machinery))
        if callback is not None:
            callback(steps[-1])
        if moved.value <= point.value + allowed:
            curvature = 0.95 * curvature
        point = moved
        slope = machinery.differentiate(point, next_accuracy)
    return BilevelSolution(point.theta, point.x, point.value, status, history(steps), machinery.work)


def _leaves_box(theta: PyTree) -> bool:
    return any(bool(jnp.any(jnp.abs(leaf) > BOX)) for leaf in jax.tree.leaves(theta))


def _step(point: Point, slope: Slope, moved: Point, curvature: float, machinery: Machinery) -> BilevelStep:
    work = machinery.work
    return BilevelStep(
        theta=point.theta,
        x=point.x,
        gradient=slope.gradient,
        next_theta=moved.theta,
        loss=point.value,
        upper_bound=math.inf,
        lower_bound=-math.inf,
        gradient_norm=slope.norm,
        error_bound=math.inf,
        accuracy=point.accuracy,
        tolerance=point.accuracy,
        step_size=1 / curvature,
        lower_gradients=work.lower_gradients,
        hessian_products=work.hessian_products,
        cross_products=work.cross_products,
    )
