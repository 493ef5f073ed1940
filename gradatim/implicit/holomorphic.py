"""Derivatives by Cauchy's formula: differences taken around a circle in the complex plane instead of along the real line."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

_RADIUS = 0.1
"Of the circles on which the mean value is taken."
_CENTRES = np.linspace(-3, 3, 61) + 0.035
"No further apart than a radius, so that no kink lies off all circles, and at no round number, where the two sides of one may cancel."
_ON_CIRCLE = 32
_MEAN_VALUE_TOLERANCE = 1e-5
"Between the round-off of single precision, 1e-6, and what a kink in the second derivative does, 1e-4."


def cauchy_derivative(
    f: Callable[[Array], PyTree],
    *,
    radius: Float[Array, ""] | float,
    points: int,
    value: PyTree | None = None,
    has_aux: bool = False,
) -> PyTree[Array]:
    """f'(0) of a function that is holomorphic around 0 and real on real numbers, from N values on a circle.

        f'(0) = 1/(2πi) ∮ f(β)/β² dβ ≈ 1/N Σₜ f(βₜ)/βₜ = a₁ + a_{1+N} rᴺ + a_{1+2N} r²ᴺ + …,     βₜ = r e^{2πit/N},  f(β) = Σₖ aₖ βᵏ

    The error falls as rᴺ inside the radius of convergence of Σ aₖ βᵏ and the formula is worthless beyond it, without any sign of that: a
    singularity of f, of its continuation or of the branch that a solver follows is at an unknown distance. Nothing cancels, so that a
    small radius costs round-off as any difference does, and a larger one with more points does not.

    Values at conjugate points are conjugate: only the points of the upper half are computed, and those on the real line in real arithmetic.
    One point is the difference (f(r) - f(0))/r, two are the central difference.

    **Arguments:** `f`: from a scalar, real or complex, to arrays of the corresponding type; mapped over the points by `jax.vmap`;
    `radius` r > 0; `points` N ≥ 1; `value`: f(0) where it is known; used by one point alone; `has_aux`: f gives a pair, of which the
    second, real part is not differentiated.

    **Returns:** the derivative; with `has_aux` also the second parts at the points that were computed, along a further axis 0.

    **Raises:** `ValueError` for a radius that is not positive or fewer than one point.

    >>> for points in (1, 2, 4, 8):
    ...     print(points, f"{cauchy_derivative(jnp.exp, radius=0.5, points=points) - 1:.0e}")
    1 3e-01
    2 4e-02
    4 5e-04
    8 0e+00
    """
    _check(radius, points)
    signs = np.array([1.0] if points % 2 else [1.0, -1.0])
    upper = np.exp(2j * np.pi * np.arange(1, (points + 1) // 2) / points)
    radius = jnp.asarray(radius)
    pair = f if has_aux else lambda b: (f(b), ())
    at_real, aux = jax.vmap(pair)(radius * jnp.asarray(signs, radius.dtype))
    if points == 1:
        origin = pair(jnp.zeros_like(radius))[0] if value is None else value
        at_real = jax.tree.map(lambda v, v0: v - v0[None], at_real, origin)
    total = jax.tree.map(lambda v: _weighted(1 / signs, v, radius), at_real)
    if upper.size:
        at_upper, further = jax.vmap(pair)(radius * jnp.asarray(upper, jnp.result_type(radius.dtype, jnp.complex64)))
        total = jax.tree.map(lambda t, v: t + 2 * _weighted(1 / upper, v, radius).real, total, at_upper)
        aux = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), aux, further)
    derivative = jax.tree.map(lambda t: t / points, total)
    return (derivative, aux) if has_aux else derivative


def check_holomorphic(fn: Callable[[Array], Array], name: str = "fn") -> None:
    """Refuses a function of one number that is not holomorphic around the real line between -3 and 3.

    Kinks, absolute values and cut-offs have a value at complex numbers too, only not that of a continuation. They are told by the mean value
    property, f(c) = mean of f on a circle around c, on circles of radius 0.1 that cover the interval.

    **Raises:** `ValueError`, which calls the function `name`.

    >>> check_holomorphic(jax.nn.sigmoid)
    >>> check_holomorphic(jax.nn.leaky_relu, "activation")
    Traceback (most recent call last):
    ValueError: activation must be holomorphic around the real line for complex nudges, leaky_relu is not: take a smooth one such as steep_sigmoid, or at most two points, which are real
    """  # noqa: E501
    try:
        is_holomorphic = _is_holomorphic(fn)
    except TypeError:
        # What has no complex version, or cannot be kept in a table.
        is_holomorphic = _has_mean_values(fn)
    if not is_holomorphic:
        raise ValueError(
            f"{name} must be holomorphic around the real line for complex nudges, {getattr(fn, '__name__', fn)} is not: "
            "take a smooth one such as steep_sigmoid, or at most two points, which are real"
        )


def _check(radius: object, points: int) -> None:
    if isinstance(radius, int | float) and not (radius > 0 and math.isfinite(radius)):
        raise ValueError(f"radius must be positive and finite, got {radius}")
    if points < 1:
        raise ValueError(f"points must be at least 1, got {points}")


def _weighted(weights: np.ndarray, values: Array, radius: Array) -> Array:
    """Σₜ wₜ vₜ / r in the values' own precision."""
    return jnp.tensordot(jnp.asarray(weights, values.dtype), values, 1) / radius.astype(values.real.dtype)


def _has_mean_values(fn: Callable[[Array], Array]) -> bool:
    circle = _RADIUS * np.exp(2j * np.pi * (np.arange(_ON_CIRCLE) + 0.5) / _ON_CIRCLE)
    points = np.concatenate([_CENTRES[:, None], _CENTRES[:, None] + circle], axis=1).astype(np.complex64)
    with jax.ensure_compile_time_eval():
        try:
            values = np.asarray(jax.jit(fn)(jnp.asarray(points)))
        except TypeError:
            return False
    error = np.abs(values[:, 1:].mean(axis=1) - values[:, 0]).max()
    return bool(error <= _MEAN_VALUE_TOLERANCE * (1 + np.abs(values).max()))


_is_holomorphic = functools.lru_cache(maxsize=64)(_has_mean_values)
