"""Differentiating a solver's answer without its conditions: through all its steps, or through one."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
from jaxtyping import PyTree

from .conditions import held


def iterate(step: Callable[..., PyTree], *, n_steps: int) -> Callable[..., PyTree]:
    """The solver x ← `step(x, *theta)`, `n_steps` times; differentiated as it stands it is *unrolled*.

    The derivative is that of the iterate, not of the solution, from which it is further away than the iterate itself; in reverse mode
    all iterates are kept, so that memory grows with `n_steps`. Under [`custom_fixed_point`][gradatim.implicit.custom_fixed_point]
    the same solver has the derivative of the solution.

    **Returns:** a function `solve(init, *theta)`.

    **Raises:** `ValueError` for n_steps < 1.

    >>> halve = iterate(lambda x, theta: (x + theta) / 2, n_steps=3)
    >>> print(halve(0.0, 8.0), jax.grad(halve, argnums=1)(0.0, 8.0))
    7.0 0.875
    """
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")

    def solve(init: PyTree, *theta: PyTree) -> PyTree:
        return jax.lax.scan(lambda x, _: (step(x, *theta), None), init, length=n_steps)[0]

    return solve


def one_step(step: Callable[..., PyTree]) -> Callable[[Callable[..., PyTree]], Callable[..., PyTree]]:
    """Decorates a solver `solve(init, *theta)` with the derivative of one more step from its answer (Bolte et al., arXiv:2305.13768).

    No linear solve and no memory for iterations; the derivative is wrong by the factor with which a step contracts, so that it is
    good for Newton's method and useless for slow ones.

    >>> newton = lambda x, theta: (x + theta / x) / 2
    >>> solve = one_step(newton)(iterate(newton, n_steps=6))
    >>> print(jax.grad(solve, argnums=1)(1.0, 16.0))
    0.125
    """

    def decorate(solver: Callable[..., PyTree]) -> Callable[..., PyTree]:
        @functools.wraps(solver)
        def solve(init: PyTree, *theta: PyTree) -> PyTree:
            start, fixed = held((init, theta))
            return step(held(solver(start, *fixed)), *theta)

        return solve

    return decorate
