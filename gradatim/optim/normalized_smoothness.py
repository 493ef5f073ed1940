"""Gradient-normalised smoothness: how far a Newton model of the gradient holds (Semenov, Jaggi and Doikov, arXiv:2506.13710)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from gradatim.numerics.checks import is_known

from .hessian_approximations import AbstractHessian
from .regularized_solves import dual_norm, primal_norm, root_of_metric

Scalar = Float[Array, ""]


class Smoothness(eqx.Module):
    """γ between two bounds; `high` is infinite where no radius up to the largest shows an error, `low` is then that radius."""

    low: Scalar
    high: Scalar


def gradient_normalized_smoothness(
    fn: Callable[[Any, Any], Scalar],
    y: Float[Array, ...],
    args: Any = None,
    *,
    hessian: AbstractHessian,
    max_radius: float | Scalar,
    restrict: bool = True,
    resolution: int = 4000,
) -> Smoothness:
    """γ of an objective of one variable: the radius within which the linear model of the gradient errs by less than its size allows.

        γ(x) = sup{γ: |f′(x+h) - f′(x) - H(x)h| ≤ |f′(x)| |h|/γ  for |h| ≤ γ, h in O}
             = inf{max(|h|, |f′(x)| |h|/|f′(x+h) - f′(x) - H(x)h|): h in O},     O = {h: f′(x)h + H(x)h² ≤ 0} or everything

    A step h breaks the condition for a γ that is larger than both: hence the second line, which is searched on a grid of lengths on
    either side, geometric from `max_radius`/10⁸ on. Between two neighbours on it the error is taken to be monotone: with that, γ lies
    between the bounds. A step of the method always lies in O, and without O the bound for quasi-self-concordant functions is false.

    **Arguments:** `fn(y, args)`; `hessian`: an approximation; `max_radius` > 0; `restrict`: to O; `resolution` ≥ 2: lengths on a
    side.

    **Raises:** `ValueError` for more than one variable (see [`smoothness_upper_bound`][gradatim.optim.smoothness_upper_bound]), a
    radius that is not positive and finite, or a resolution below 2.

    >>> from gradatim.optim import ExactHessian
    >>> found = gradient_normalized_smoothness(lambda y, _: jnp.exp(y), jnp.array(0.0), hessian=ExactHessian(), max_radius=100.0)
    >>> print(f"{found.low:.2f} ≤ γ ≤ {found.high:.2f}")
    2.71 ≤ γ ≤ 2.72
    """
    if y.size != 1:
        raise ValueError(f"y must be one variable, got {y.size}; smoothness_upper_bound samples directions in more")
    model = _model(fn, y, args, hessian, None)
    lengths = _lengths(max_radius, resolution, model.point.dtype)
    low, high = [], []
    for sign in (1.0, -1.0):
        direction = jnp.full(1, sign, model.point.dtype)
        reach, is_open = model.reach(direction, restrict)
        # The end of O is a point of the grid; beyond it the grid repeats that end, which changes nothing.
        inside = jnp.where(is_open, lengths, jnp.minimum(lengths, reach))
        errors, certain = jax.vmap(model.error)(inside[:, None] * direction[None])
        rate = jnp.abs(model.curvature_error(direction))
        limits = _ratio(model.size * inside, certain)
        high.append(jnp.min(jnp.maximum(inside, limits), initial=jnp.inf))
        first = _ratio(model.size, jnp.maximum(rate, errors[0] / inside[0]))
        cells = jnp.maximum(inside[:-1], _ratio(model.size * inside[:-1], jnp.maximum(errors[:-1], errors[1:])))
        beyond = jnp.where(is_open | (reach > lengths[-1]), lengths[-1], jnp.inf)
        low.append(jnp.minimum(jnp.minimum(first, jnp.min(cells)), beyond))
        # A direction that O forbids altogether binds nothing.
        if restrict:
            is_forbidden = ~is_open & (reach <= 0)
            low[-1], high[-1] = jnp.where(is_forbidden, jnp.inf, low[-1]), jnp.where(is_forbidden, jnp.inf, high[-1])
    return Smoothness(jnp.minimum(*low), jnp.minimum(*high))


def smoothness_upper_bound(
    fn: Callable[[Any, Any], Scalar],
    y: PyTree,
    args: Any = None,
    *,
    hessian: AbstractHessian,
    key: PRNGKeyArray,
    max_radius: float | Scalar,
    metric: Float[Array, "n n"] | None = None,
    restrict: bool = True,
    num_directions: int = 64,
    resolution: int = 100,
) -> Scalar:
    """An upper bound on γ in several variables: the condition of the definition at finitely many h can only be too weak.

    Directions are uniform on the sphere of the metric, both signs of each, and along the gradient; otherwise as
    [`gradient_normalized_smoothness`][gradatim.optim.gradient_normalized_smoothness].

    **Arguments:** as there; `metric`: B, symmetric and positive definite over the entries of `y`, None for the identity;
    `num_directions` ≥ 0: pairs beside that along the gradient; `resolution` ≥ 2: lengths along each.

    **Raises:** `ValueError` for numbers out of range, or a metric of another shape; at run time an error for a metric that is not
    symmetric and positive definite.

    >>> from gradatim.optim import ZeroHessian
    >>> bound = smoothness_upper_bound(
    ...     lambda y, _: jnp.sum(y**2), jnp.array([3.0, 4.0]), hessian=ZeroHessian(), key=jax.random.key(0), max_radius=100.0
    ... )
    >>> print(f"{bound:.3f}")
    5.000
    """
    if num_directions < 0:
        raise ValueError(f"num_directions must be at least 0, got {num_directions}")
    root = None if metric is None else root_of_metric(metric, ravel_pytree(y)[0])
    model = _model(fn, y, args, hessian, root)
    lengths = _lengths(max_radius, resolution, model.point.dtype)
    steepest = model.gradient if root is None else jax.scipy.linalg.cho_solve((root, True), model.gradient)
    drawn = jnp.concatenate([steepest[None], jax.random.normal(key, (num_directions, steepest.size), steepest.dtype)])
    if root is not None:
        drawn = drawn.at[1:].set(jax.scipy.linalg.solve_triangular(root, drawn[1:].T, lower=True, trans="T").T)

    def along(direction: Array) -> Scalar:
        norm = primal_norm(root, direction)
        # At a stationary point the gradient has no direction: nothing is looked at along it.
        direction = direction / jnp.where(norm > 0, norm, 1.0)
        reach, is_open = model.reach(direction, restrict)
        inside = jnp.where(is_open, lengths, jnp.minimum(lengths, reach))
        _, certain = jax.lax.map(lambda length: model.error(length * direction), inside)
        limits = _ratio(model.size * inside, certain)
        return jnp.where(is_open | (reach > 0), jnp.min(jnp.maximum(inside, limits)), jnp.inf)

    return jnp.min(jax.lax.map(along, jnp.concatenate([drawn, -drawn])))


class _Model(eqx.Module):
    """The gradient's linear model at a point."""

    slope: Callable[[Array], Array]
    operator: Callable[[Array], Array]
    point: Array
    gradient: Array
    root: Array | None

    @property
    def size(self) -> Scalar:
        return dual_norm(self.root, self.gradient)

    def error(self, step: Array) -> tuple[Scalar, Scalar]:
        """‖∇f(x+h) - ∇f(x) - Hh‖⁎, zero where rounding could make it, and what is left of it whatever the rounding was.

        Where the gradient overflows, the first is infinite and the second is nothing.
        """
        there, modelled = self.slope(self.point + step), self.operator(step)
        error = dual_norm(self.root, there - self.gradient - modelled)
        parts = dual_norm(self.root, there) + self.size + dual_norm(self.root, modelled)
        rounding = 16 * jnp.finfo(error.dtype).eps * parts
        is_known, is_certain = jnp.isfinite(parts), error > rounding
        return jnp.where(is_known, jnp.where(is_certain, error, 0.0), jnp.inf), jnp.where(is_known & is_certain, error - rounding, 0.0)

    def curvature_error(self, direction: Array) -> Scalar:
        """‖(∇²f - H)h‖⁎: the error over the length as the length goes to nothing."""
        true = jax.jvp(self.slope, (self.point,), (direction,))[1]
        modelled = self.operator(direction)
        error = dual_norm(self.root, true - modelled)
        return jnp.where(error > 16 * jnp.finfo(error.dtype).eps * dual_norm(self.root, true), error, 0.0)

    def reach(self, direction: Array, restrict: bool) -> tuple[Scalar, Bool[Array, ""]]:
        """How far O extends along a direction, and whether it has no end there (a part that begins late is left out)."""
        slope, curvature = self.gradient @ direction, direction @ self.operator(direction)
        is_open = jnp.array(not restrict) | ((slope <= 0) & (curvature <= 0))
        safe = jnp.where(curvature > 0, curvature, 1.0)
        return jnp.where((curvature > 0) & (slope < 0), -slope / safe, 0.0), is_open


def _ratio(size: Array, error: Array) -> Array:
    """The ratio of both, infinite where there is no error, also for a size of nothing; NaN for a size that is."""
    has_error = error > 0
    return jnp.where(has_error | jnp.isnan(size), size / jnp.where(has_error, error, 1.0), jnp.inf)


def _model(fn: Callable[[Any, Any], Scalar], y: PyTree, args: Any, hessian: AbstractHessian, root: Array | None) -> _Model:
    x, unravel = ravel_pytree(y)
    linear = lx.linearise(hessian(fn, y, args))
    slope = jax.grad(lambda x: fn(unravel(x), args))
    return _Model(slope, lambda h: ravel_pytree(linear.mv(unravel(h)))[0], x, slope(x), root)


def _lengths(max_radius: float | Scalar, resolution: int, dtype: Any) -> Float[Array, " resolution"]:
    if is_known(max_radius) and not 0 < max_radius < jnp.inf:
        raise ValueError(f"max_radius must be positive and finite, got {max_radius}")
    if resolution < 2:
        raise ValueError(f"resolution must be at least 2, got {resolution}")
    return jnp.asarray(max_radius, dtype) * jnp.geomspace(1e-8, 1.0, resolution, dtype=dtype)
