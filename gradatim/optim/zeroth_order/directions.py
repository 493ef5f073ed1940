"""Gradients from directional differences: SPSA, random directions, Gaussian smoothing; forward gradients; finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .probes import (
    check_count,
    check_parameters,
    check_positive,
    check_word,
    chosen_radius,
    draw_orthogonal,
    draw_probe,
    probe_seed,
    scalar_loss,
)

Difference = Literal["central", "forward", "one_point"]
Directions = Literal["gaussian", "rademacher", "sphere", "orthogonal"]
Nonfinite = Literal["propagate", "drop", "raise"]
NOT_FINITE = "fun was not finite at a probe: lower the radius, or drop such probes"
ValueAndGrad = Callable[..., tuple[Any, Any]]
"`(params, *args, key=key) -> (value, estimate)`: as `jax.value_and_grad` gives it, but for the key."


def random_directions(
    fun: Callable[..., Any],
    *,
    radius: Any = None,
    n_probes: int = 1,
    difference: Difference = "central",
    distribution: Directions = "gaussian",
    baseline: Any = 0.0,
    nonfinite: Nonfinite = "propagate",
    batch_size: int | None = None,
) -> ValueAndGrad:
    """A gradient from losses alone: differences along random directions z, averaged over K of them.

        central    ĝ = (1/K) Σₖ (f(θ + h zₖ) - f(θ - h zₖ)) / (2h) · zₖ        2K evaluations, bias O(h²)
        forward    ĝ = (1/K) Σₖ (f(θ + h zₖ) - f(θ)) / h · zₖ                  K + 1, bias O(h)
        one_point  ĝ = (1/K) Σₖ (f(θ + h zₖ) - b) / h · zₖ                     K, a variance that grows as 1/h²

    With E[z zᵀ] = I the estimate is unbiased as h → 0; with Gaussian z it is, for every h, that of E f(θ + h z).

    **Dear in many dimensions.** E‖ĝ‖² is (1 + (d + 1)/K) ‖∇f‖² for Gaussian z, 1 + (d - 1)/K times it for signs and the
    sphere, d/K times for orthogonal ones: descent needs a rate about d/K times smaller than with the gradient.
    Both evaluations see the same arguments; pass a dropout key or a batch among `args`, and they share it.

    **Arguments:** `fun(params, *args)`: a real scalar, which need not be differentiable; `radius` h > 0, by default ε^⅓ of the parameters'
    coarsest dtype; `n_probes` K ≥ 1; `difference`; `distribution` of z: `"gaussian"`, `"rademacher"` (±1), `"sphere"` (of radius √d) or
    `"orthogonal"` (K ≤ d at right angles, of length √d; holds all K at once); `baseline` b, for `"one_point"`: never changes the
    mean, best near the loss itself; `nonfinite`: a probe whose loss is not finite makes the estimate so, is dropped from the
    average, or raises (under `eqx.filter_jit`); `batch_size`: probes evaluated, and directions held, at a time; None: all.

    **Returns:** a function `(params, *args, key=key) -> (value, estimate)`, to stand where `jax.value_and_grad(fun)` stood. The value
    is f(θ) for `"forward"`, else the mean over the points that were evaluated. Any optax optimiser takes the estimate.

    **Raises:** `ValueError` for a number out of its range, a word that is not allowed or a loss that is no scalar; `TypeError` for a
    parameter that is not real floating point, or no key.

    >>> import jax
    >>> value_and_grad = jax.jit(random_directions(lambda x: x @ x / 2, radius=1.0, n_probes=64, distribution="orthogonal"))
    >>> value, gradient = value_and_grad(jax.numpy.arange(64.0), key=jax.random.key(0))
    >>> print(f"{gradient[3]:.2f}")
    3.00

    Source: Spall, IEEE TAC 37 (1992) 332-341; Nesterov and Spokoiny, Found. Comput. Math. 17 (2017) 527-566; the ordering of the family is
    that of García Fernández, Ahmad and van Gerven (arXiv:2510.18812).
    """
    check_positive("radius", radius)
    check_word("difference", difference, Difference)
    average = _averager(n_probes, distribution, nonfinite, batch_size)
    loss = scalar_loss(fun)

    def value_and_grad(params: Any, *args: Any, key: Any) -> tuple[Any, Any]:
        check_parameters(params)
        h = chosen_radius(radius, params)
        clean = loss(params, *args) if difference == "forward" else None

        def probe(z: Any) -> tuple[Any, Any]:
            after = loss(moved(params, h, z), *args)
            if difference == "central":
                before = loss(moved(params, -h, z), *args)
                return (after + before) / 2, (after - before) / (2 * h)
            if clean is not None:
                return clean, (after - clean) / h
            return after, (after - baseline) / h

        return average(probe, params, key)

    return value_and_grad


def spsa(
    fun: Callable[..., Any],
    *,
    radius: Any = None,
    n_probes: int = 1,
    nonfinite: Nonfinite = "propagate",
    batch_size: int | None = None,
) -> ValueAndGrad:
    """Simultaneous perturbation: central differences along random signs (Spall 1992).

    Dividing by zᵢ = ±1, as it is often written, and multiplying by it are the same; for other distributions only the product has a
    variance. Spall's decreasing rate and radius are [`spsa_gains`][gradatim.optim.spsa_gains]. Arguments, returns and errors are those of
    [`random_directions`][gradatim.optim.random_directions].

    >>> value, gradient = spsa(lambda x: 3 * x, radius=0.5)(jnp.array(2.0), key=jax.random.key(0))
    >>> print(f"{value:.1f} {gradient:.1f}")
    6.0 3.0
    """
    return random_directions(
        fun, radius=radius, n_probes=n_probes, distribution="rademacher", nonfinite=nonfinite, batch_size=batch_size
    )  # fmt: skip


def gaussian_smoothing(
    fun: Callable[..., Any],
    *,
    radius: Any,
    n_probes: int = 1,
    nonfinite: Nonfinite = "propagate",
    batch_size: int | None = None,
) -> ValueAndGrad:
    """The gradient of E f(θ + h z), z ~ N(0, I): without bias at every radius, whether f has a derivative or not.

    For |x| that is erf(x / (h √2)). The radius is part of the question here, so it has no default. Arguments, returns and errors are
    those of [`random_directions`][gradatim.optim.random_directions]. Source: Nesterov and Spokoiny (2017).

    >>> _, slope = gaussian_smoothing(jnp.abs, radius=0.5, n_probes=100_000)(jnp.array(0.3), key=jax.random.key(0))
    >>> print(f"{slope:.1f} {jax.scipy.special.erf(0.3 / (0.5 * 2**0.5)):.1f}")
    0.5 0.5
    """
    return random_directions(fun, radius=radius, n_probes=n_probes, nonfinite=nonfinite, batch_size=batch_size)


def forward_gradient(
    fun: Callable[..., Any],
    *,
    n_probes: int = 1,
    distribution: Directions = "gaussian",
    nonfinite: Nonfinite = "propagate",
    batch_size: int | None = None,
) -> ValueAndGrad:
    """Exact directional derivatives along random directions, by forward mode: no radius, no stored activations.

        ĝ = (1/K) Σₖ (∇f(θ)·zₖ) zₖ,    E[ĝ] = ∇f(θ)

    One probe costs about as much as two evaluations. With as many orthogonal directions as parameters it is the gradient itself.

    **Arguments, returns, raises:** as [`random_directions`][gradatim.optim.random_directions]; `fun` must have a derivative, and the
    value is f(θ).

    >>> import jax
    >>> value_and_grad = jax.jit(forward_gradient(lambda x: (x**3).sum(), n_probes=2, distribution="orthogonal"))
    >>> _, gradient = value_and_grad(jax.numpy.array([1.0, 2.0]), key=jax.random.key(0))
    >>> print([f"{slope:.3f}" for slope in gradient])
    ['3.000', '12.000']

    Source: Baydin, Pearlmutter, Syme, Wood and Torr, *Gradients without Backpropagation* (arXiv:2202.08587).
    """
    average = _averager(n_probes, distribution, nonfinite, batch_size)
    loss = scalar_loss(fun)

    def value_and_grad(params: Any, *args: Any, key: Any) -> tuple[Any, Any]:
        check_parameters(params)

        def probe(z: Any) -> tuple[Any, Any]:
            tangent = jax.tree.map(lambda p, direction: direction.astype(p.dtype), params, z)
            return jax.jvp(lambda p: loss(p, *args), (params,), (tangent,))

        return average(probe, params, key)

    return value_and_grad


def finite_differences(fun: Callable[..., Any], *, radius: Any = None, batch_size: int | None = None) -> ValueAndGrad:
    """Central differences along every coordinate: 2d + 1 evaluations, no randomness.

        gᵢ = (f(θ + h eᵢ) - f(θ - h eᵢ)) / (2h)

    **Arguments:** `radius` h > 0, by default ε^⅓ of the coarsest dtype; `batch_size`: coordinates at a time; None: all d at once.

    **Returns:** a function `(params, *args, key=None) -> (value, gradient)`, whose key is not used; the value is f(θ).

    **Raises:** as [`random_directions`][gradatim.optim.random_directions].

    >>> value, gradient = finite_differences(lambda x: x**3, radius=1e-2)(jax.numpy.array(2.0))
    >>> print(f"{value:.0f} {gradient:.3f}")
    8 12.000
    """
    check_positive("radius", radius)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    loss = scalar_loss(fun)

    def value_and_grad(params: Any, *args: Any, key: Any = None) -> tuple[Any, Any]:
        del key
        check_parameters(params)
        h = chosen_radius(radius, params)
        flat, unravel = ravel_pytree(params)

        def slope(i: Any) -> Any:
            after, before = (loss(unravel(flat.at[i].add(jnp.asarray(s * h, flat.dtype))), *args) for s in (1, -1))
            return (after - before) / (2 * h)

        slopes = jax.lax.map(slope, jnp.arange(flat.size), batch_size=batch_size or flat.size)
        return loss(params, *args), unravel(slopes.astype(flat.dtype))

    return value_and_grad


def with_estimated_gradient(value_and_grad: ValueAndGrad) -> Callable[..., Any]:
    """The loss of a `value_and_grad`, whose derivative under `jax.grad` is the estimate: for loops that call `jax.grad` themselves.

    >>> loss = with_estimated_gradient(forward_gradient(lambda x: x @ x, n_probes=2, distribution="orthogonal"))
    >>> print([f"{slope:.3f}" for slope in jax.grad(loss)(jax.numpy.array([1.0, 2.0]), key=jax.random.key(0))])
    ['2.000', '4.000']
    """

    def loss(params: Any, *args: Any, key: Any) -> Any:
        arrays, rest = eqx.partition(params, eqx.is_inexact_array)
        held = jax.lax.stop_gradient(arrays)
        value, estimate = jax.lax.stop_gradient(value_and_grad(eqx.combine(held, rest), *args, key=key))
        # θ - θ is zero in value and one in derivative.
        zeros = jax.tree.map(lambda p, q, g: jnp.vdot(g, p - q), arrays, held, estimate)
        return value + sum(jax.tree.leaves(zeros))

    return loss


def moved(params: Any, scale: Any, z: Any) -> Any:
    """θ + scale z, in the dtypes of θ."""
    return jax.tree.map(lambda p, direction: (p + scale * direction).astype(p.dtype), params, z)


def weighted_sum(weights: Any, directions: Any, like: Any) -> Any:
    """Σₖ wₖ zₖ over the first axis, in the wider dtype; `like` only names the tree."""
    return jax.tree.map(lambda _, z: jnp.tensordot(weights.astype(z.dtype), z, 1), like, directions)


def without_nonfinite(values: Any, slopes: Any, nonfinite: Nonfinite) -> tuple[Any, Any, Any]:
    """Values and slopes of probes, zero for those that are dropped, and 1 or 0 for those that are kept or not."""
    kept = jnp.ones_like(slopes)
    if nonfinite == "propagate":
        return values, slopes, kept
    good = jnp.isfinite(slopes) & jnp.isfinite(values)
    if nonfinite == "raise":
        slopes = eqx.error_if(slopes, ~good, NOT_FINITE)
    return jnp.where(good, values, 0), jnp.where(good, slopes, 0), good.astype(kept.dtype)


def mean_of_kept(value: Any, total: Any, count: Any, params: Any) -> tuple[Any, Any]:
    """Sums over what is kept as means, in the dtypes of `params`; where nothing is: a value that says so, NaN, and no step."""
    value = jnp.where(count > 0, value, jnp.nan) / jnp.maximum(count, 1)
    return value, jax.tree.map(lambda p, g: (g / jnp.maximum(count, 1).astype(g.dtype)).astype(p.dtype), params, total)


def _averager(n_probes: int, distribution: Directions, nonfinite: Nonfinite, batch_size: int | None) -> Callable[..., tuple[Any, Any]]:
    """Draws directions, has them probed for `(value, slope)`, and averages the values and the slopes times directions."""
    check_count("n_probes", n_probes)
    check_word("distribution", distribution, Directions)
    check_word("nonfinite", nonfinite, Nonfinite)
    size = n_probes if batch_size is None else batch_size
    check_count("batch_size", size)
    if n_probes % size:
        raise ValueError(f"batch_size must divide n_probes, got {size} and {n_probes}")

    def average(probe: Callable[[Any], tuple[Any, Any]], params: Any, key: Any) -> tuple[Any, Any]:
        seed = probe_seed(key)
        draw = _drawer(seed, params, n_probes, distribution)

        def batch(ks: Any) -> tuple[Any, Any, Any]:
            z = draw(ks)
            values, slopes = jax.vmap(probe)(z)
            values, slopes, kept = without_nonfinite(values, slopes, nonfinite)
            return values.sum(), weighted_sum(slopes, z, params), kept.sum()

        ks = jnp.arange(n_probes)
        if size == n_probes:
            value, total, count = batch(ks)
        else:
            first = jax.eval_shape(batch, ks[:size])
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), first)
            step = lambda sums, rows: (jax.tree.map(jnp.add, sums, batch(rows)), None)  # noqa: E731
            (value, total, count), _ = jax.lax.scan(step, zeros, ks.reshape(-1, size))
        return mean_of_kept(value, total, count, params)

    return average


def _drawer(seed: Any, params: Any, n_probes: int, distribution: Directions) -> Callable[[Any], Any]:
    if distribution == "orthogonal":
        every = draw_orthogonal(seed, params, n_probes)
        return lambda ks: jax.tree.map(lambda z: z[ks], every)
    return jax.vmap(lambda k: draw_probe(seed, params, k, distribution=distribution))
