"""How a mode of a deep linear network is learned, and how long it takes (Saxe, McClelland and Ganguli, arXiv:1312.6120)."""

from __future__ import annotations

from typing import Any

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known
from gradatim.numerics.ridge import as_row_of

Number = float | Float[Array, ""]
N_NODES = 64
"Of the integral over the logarithm of the strength: exact to round-off from starts of 1e-8 of the end on."


def deep_linear_time(
    share: float | Float[Array, "*shares"], correlation: Number, eigenvalue: Number, *, depth: Number, start: Number
) -> Float[Array, "*shares"]:
    """The time at which the product b of `depth` balanced layers has come to a share of its end s/λ, under gradient flow.

        db/dt = D b^(2 - 2/D) (s - λb),     b(0) = start

    D = 1 is the exponential approach of a single layer at the rate λ, D = 2 the logistic curve of rate 2s. From a small start, deeper
    networks wait the longer the weaker s is, and then turn fast: a sigmoid. The equation is solved for time, an integral over b; the
    layers must be balanced and aligned with the mode.

    **Arguments:** `share` in [start λ/s, 1); `correlation` s > 0 of input and output in the mode; `eigenvalue` λ > 0 of the inputs;
    `depth` D ≥ 1, any real number; `start` > 0, below s/λ.

    **Raises:** `ValueError` for a number out of its range.

    >>> times = deep_linear_time(jnp.array([0.1, 0.5, 0.9]), 2.0, 1.0, depth=3.0, start=0.01)
    >>> print(" ".join(f"{t:.2f}" for t in times))
    1.50 1.98 2.30
    """
    _check_mode(correlation, eigenvalue, depth, start)
    if is_known(correlation, eigenvalue, start, share):
        first, shares = start * eigenvalue / correlation, np.asarray(share)
        if not ((shares >= first) & (shares < 1)).all():
            raise ValueError(f"share must lie between that of the start, {float(first):.4g}, and 1, got {share}")
    return _time(share, correlation, eigenvalue, depth, start)


@jax.jit
def _time(share: Array, correlation: Array, eigenvalue: Array, depth: Array, start: Array) -> Array:
    """With x = bλ/s and v = log x: D s (s/λ)^(1 - 2/D) t = ∫ exp((2/D - 1) v)/(1 - exp v) dv, whose pole at the end is taken out."""
    end = correlation / eigenvalue
    power = 2 / depth - 1
    low, high = jnp.log(start / end), jnp.log(jnp.asarray(share))
    nodes, weights = np.polynomial.legendre.leggauss(N_NODES)
    reach = high[..., None] - low
    v = low + reach * as_row_of(jnp.asarray(nodes + 1, reach.dtype), reach) / 2
    smooth = jnp.exp(v) * jnp.expm1((power - 1) * v) / -jnp.expm1(v)
    integral = smooth @ jnp.asarray(weights, v.dtype) * (high - low) / 2 - jnp.log1p(-jnp.exp(high)) + jnp.log1p(-jnp.exp(low))
    return integral / (depth * correlation * end**-power)


def deep_linear_flow(
    time: Float[Array, " times"], correlation: Number, eigenvalue: Number, *, depth: Number, start: Number, rtol: float = 1e-8
) -> Float[Array, " times"]:
    """The mode's strength b(t) under the same flow, at each of the times, ascending from 0 on: Tsitouras' method with adaptive steps.

    [`deep_linear_time`][gradatim.landscape.deep_linear_time] is its inverse, and takes no steps.

    **Arguments:** `time` ≥ 0, ascending; `rtol`: relative error of a step, for which double precision is needed below 1e-6; the others as
    there.

    **Raises:** `ValueError` for a number out of its range.

    >>> b = deep_linear_flow(jnp.array([1.5, 1.98, 2.3]), 2.0, 1.0, depth=3.0, start=0.01, rtol=1e-5)
    >>> print(" ".join(f"{share:.1f}" for share in b / 2))
    0.1 0.5 0.9
    """
    _check_mode(correlation, eigenvalue, depth, start)
    if is_known(time) and not ((np.asarray(time) >= 0).all() and (np.diff(np.asarray(time)) >= 0).all()):
        raise ValueError(f"time must not be negative and must ascend, got {time}")
    return _strength(time, correlation, eigenvalue, depth, start, rtol)


@jax.jit
def _strength(time: Array, correlation: Array, eigenvalue: Array, depth: Array, start: Array, rtol: Array) -> Array:
    def rate(t: Any, b: Array, args: Any) -> Array:
        del t, args
        return depth * b ** (2 - 2 / depth) * (correlation - eigenvalue * b)

    first = jnp.asarray(start, time.dtype)
    steps = dfx.PIDController(rtol=rtol, atol=rtol * first)
    saved = dfx.SaveAt(ts=time)
    solution = dfx.diffeqsolve(
        dfx.ODETerm(rate), dfx.Tsit5(), 0.0, time[-1], None, first, saveat=saved, stepsize_controller=steps, max_steps=100_000
    )
    assert solution.ys is not None
    return solution.ys


def _check_mode(correlation: Number, eigenvalue: Number, depth: Number, start: Number) -> None:
    for name, value in (("correlation", correlation), ("eigenvalue", eigenvalue), ("start", start)):
        if is_known(value) and not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    if is_known(depth) and not depth >= 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
