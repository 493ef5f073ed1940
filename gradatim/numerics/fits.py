"""Power laws and lines with their errors, and means of correlated samples with theirs."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .checks import is_known


class PowerLaw(NamedTuple):
    """y = prefactor · x^exponent, and how far the points let the exponent stray."""

    exponent: Float[Array, "*batch"]
    prefactor: Float[Array, "*batch"]
    standard_error: Float[Array, "*batch"]  # of the exponent


def fit_power_law(
    x: Float[Array, " points"], y: Float[Array, "*batch values"], *, weights: Float[Array, " points"] | None = None
) -> PowerLaw:
    """The line through (ln x, ln y) of least squares, for each row of y.

    The standard error takes the scatter about the line for that of independent points: for modes of one simulation the scatter between
    repetitions is the honest one. A slope that drifts is no power law: look at [`local_exponents`][gradatim.numerics.local_exponents].

    **Arguments:** `x`, `y` > 0; `weights` ≥ 0, in proportion to the inverse variances of ln y, by default equal.

    **Raises:** `ValueError` for fewer than three points, numbers that are not positive, negative weights, or shapes that differ.

    >>> law = fit_power_law(jnp.array([1.0, 2.0, 4.0]), jnp.array([3.0, 12.0, 48.0]))
    >>> f"{law.exponent:.4f} {law.prefactor:.4f}"
    '2.0000 3.0000'
    """
    n = x.shape[0]
    if n < 3:
        raise ValueError(f"x must hold at least 3 points, got {n}")
    if y.shape[-1] != n:
        raise ValueError(f"y must hold one value for each of the {n} points of x along its last axis, got shape {y.shape}")
    for name, values in (("x", x), ("y", y)):
        if is_known(values) and not (np.asarray(values) > 0).all():
            raise ValueError(f"{name} must be positive, got a minimum of {values.min()}")
    if weights is not None and is_known(weights) and not (np.asarray(weights) >= 0).all():
        raise ValueError(f"weights must be at least 0, got a minimum of {weights.min()}")
    return _line(x, y, jnp.ones_like(x) if weights is None else weights)


# Compiled as a whole, for a fit is twenty small operations that would be compiled one by one.
@jax.jit
def _line(x: Array, y: Array, weights: Array) -> PowerLaw:
    w = weights / weights.sum()
    u, v = jnp.log(x), jnp.log(y)
    mean_u, mean_v = w @ u, v @ w
    shifted = u - mean_u
    spread = w @ shifted**2
    exponent = (v @ (w * shifted)) / spread
    residual = v - mean_v[..., None] - exponent[..., None] * jnp.broadcast_to(shifted, v.shape)
    variance = (residual**2 @ w) / (x.shape[0] - 2)
    return PowerLaw(exponent, jnp.exp(mean_v - exponent * mean_u), jnp.sqrt(variance / spread))


def local_exponents(x: Float[Array, " points"], y: Float[Array, "*batch points"]) -> Float[Array, "*batch points-1"]:
    """Slopes d ln y / d ln x between neighbouring points: constant for a power law.

    >>> local_exponents(jnp.array([1.0, 2.0, 4.0]), jnp.array([1.0, 4.0, 16.0])).tolist()
    [2.0, 2.0]
    """
    return jnp.diff(jnp.log(y), axis=-1) / jnp.broadcast_to(jnp.diff(jnp.log(x)), (*y.shape[:-1], x.shape[0] - 1))


class BlockMean(eqx.Module):
    """A running mean of correlated samples, with a standard error from the means of blocks: `mean = mean.update(sample)`.

    Blocks must be longer than the samples remember, and eight or more of them full before their scatter means much. Sums are kept about the
    running mean (B. P. Welford, Technometrics 4, 419 (1962)), so that nothing cancels; what stands in the block that is not yet full does
    not count.

    **Arguments:** `like`: an array of the samples' shape; `block`: samples in a block, at least 1 (1 for independent samples).

    >>> mean = BlockMean(jnp.zeros(()), 2)
    >>> for sample in (1.0, 3.0, 5.0, 7.0, 100.0):
    ...     mean = mean.update(jnp.asarray(sample))
    >>> float(mean.value), float(mean.standard_error)
    (4.0, 2.0)
    """

    value: Float[Array, ...]
    squares: Float[Array, ...]  # Σ over blocks of (block mean - value)²
    filling: Float[Array, ...]  # sum over the block that is not yet full
    n_blocks: Int[Array, ""]
    n_filling: Int[Array, ""]
    block: int = eqx.field(static=True)

    def __init__(self, like: Float[Array, ...], block: int = 1):
        if block < 1:
            raise ValueError(f"block must be at least 1, got {block}")
        # Separate buffers: a loop that donates its state may donate each of them once.
        self.value, self.squares, self.filling = (jnp.zeros_like(like) for _ in range(3))
        self.n_blocks, self.n_filling = (jnp.zeros((), jnp.int32) for _ in range(2))
        self.block = block

    def update(self, sample: Float[Array, ...]) -> BlockMean:
        """With one more sample.

        **Raises:** `ValueError` for a sample of another shape.
        """
        if sample.shape != self.value.shape:
            raise ValueError(f"sample must have shape {self.value.shape}, got {sample.shape}")
        filling, n_filling = self.filling + sample, self.n_filling + 1
        is_full = n_filling == self.block
        n_blocks = self.n_blocks + is_full
        change = jnp.where(is_full, filling / self.block - self.value, 0.0)
        value = self.value + change / jnp.maximum(n_blocks, 1)
        squares = self.squares + change * (jnp.where(is_full, filling / self.block, value) - value)
        new = jnp.where(is_full, 0.0, filling), jnp.where(is_full, 0, n_filling)
        return eqx.tree_at(
            lambda m: (m.value, m.squares, m.filling, m.n_blocks, m.n_filling), self, (value, squares, new[0], n_blocks, new[1])
        )

    @property
    def standard_error(self) -> Float[Array, ...]:
        """Of the mean; infinite before the second block is full."""
        n = self.n_blocks
        return jnp.where(n > 1, jnp.sqrt(self.squares / jnp.maximum(n * (n - 1), 1)), jnp.inf)


class Line(NamedTuple):
    """y = intercept + slope · x, and how far the points let both stray."""

    intercept: Float[Array, ""]
    slope: Float[Array, ""]
    covariance: Float[Array, "2 2"]  # of intercept and slope
    chi_squared: Float[Array, ""]


def fit_line(x: Float[Array, " points"], y: Float[Array, " points"], errors: Float[Array, " points"]) -> Line:
    """The line of weighted least squares: (AᵀWA)⁻¹AᵀW y with rows (1, xᵢ) of A and W = diag(1/σᵢ²).

    The covariance takes the errors at their word: it does not grow where points scatter more than they say.

    **Arguments:** `errors` σ > 0, standard deviations of y; infinite leaves a point out.

    **Raises:** `ValueError` for fewer than two points, or an error that is not positive.

    >>> line = fit_line(jnp.array([0.0, 1.0, 2.0]), jnp.array([1.0, 3.0, 5.0]), jnp.array([1.0, 1.0, 1.0]))
    >>> f"{line.intercept:.4f} {line.slope:.4f} ± {line.covariance[1, 1] ** 0.5:.4f}"
    '1.0000 2.0000 ± 0.7071'
    """
    if x.shape[0] < 2:
        raise ValueError(f"x must hold at least 2 points, got {x.shape[0]}")
    _check_errors("errors", errors)
    return _weighted_line(x, y, 1 / errors**2)


@jax.jit
def _weighted_line(x: Array, y: Array, w: Array) -> Line:
    total = w.sum()
    mean_x, mean_y = w @ x / total, w @ y / total
    shifted = x - mean_x
    spread = w @ shifted**2
    slope = (w * shifted) @ y / spread
    intercept = mean_y - slope * mean_x
    off = -mean_x / spread
    covariance = jnp.array([[1 / total + mean_x**2 / spread, off], [off, 1 / spread]])
    return Line(intercept, slope, covariance, w @ (y - intercept - slope * x) ** 2)


class ScatteredLine(NamedTuple):
    """y = intercept + slope · x, about which points scatter beyond their errors."""

    intercept: Float[Array, ""]
    slope: Float[Array, ""]
    scatter: Float[Array, ""]
    log_likelihood: Float[Array, ""]


def scattered_line_log_likelihood(
    x: Float[Array, " points"],
    y: Float[Array, " points"],
    line: tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]],
    *,
    x_errors: Float[Array, " points"],
    y_errors: Float[Array, " points"],
    form: Literal["vertical", "orthogonal"] = "vertical",
) -> Float[Array, ""]:
    """How well a line explains points with errors in both variables and a scatter s of their own.

        ln L = -½ Σ [ln 2πVᵢ + (yᵢ - a - b xᵢ)²/Vᵢ],     Vᵢ = s² + σ²_yᵢ + b² σ²_xᵢ                        vertical
        ln L = … + ½ n ln(1 + b²),                        Vᵢ = (1 + b²) s² + σ²_yᵢ + b² σ²_xᵢ             orthogonal

    The vertical form asks for y at a given x; the orthogonal one knows no dependent variable, and its scatter is the distance from the
    line (A. S. G. Robotham & D. Obreschkow, PASA 32, e033 (2015)). Their slopes differ: say which one is told.

    **Arguments:** `line`: intercept a, slope b, scatter s ≥ 0; `x_errors` ≥ 0 and `y_errors` > 0, standard deviations.

    **Raises:** `ValueError` for another form.

    >>> x = y = jnp.array([0.0, 1.0])
    >>> errors = jnp.array([1.0, 1.0])
    >>> line = (jnp.zeros(()), jnp.ones(()), jnp.zeros(()))
    >>> print(f"{scattered_line_log_likelihood(x, y, line, x_errors=errors, y_errors=errors):.4f}")
    -2.5310
    """
    _check_form(form)
    a, b, s = line
    return _log_likelihood(x, y, a, b, s, x_errors**2, y_errors**2, form)


def _variances(b: Array, s: Array, xx: Array, yy: Array, form: str) -> Array:
    stretch = 1 + b**2 if form == "orthogonal" else jnp.ones_like(b)
    return stretch * s**2 + yy + b**2 * xx


def _log_likelihood(x: Array, y: Array, a: Array, b: Array, s: Array, xx: Array, yy: Array, form: str) -> Array:
    v = _variances(b, s, xx, yy, form)
    found = -0.5 * jnp.sum(jnp.log(2 * jnp.pi * v) + (y - a - b * x) ** 2 / v)
    return found + x.shape[0] / 2 * jnp.log1p(b**2) if form == "orthogonal" else found


def _best_intercept(x: Array, y: Array, b: Array, s: Array, xx: Array, yy: Array, form: str) -> tuple[Array, Array]:
    """The intercept that fits best for a slope and a scatter, and its variance."""
    w = 1 / _variances(b, s, xx, yy, form)
    total = w.sum()
    return w @ (y - b * x) / total, 1 / total


def fit_scattered_line(
    x: Float[Array, " points"],
    y: Float[Array, " points"],
    *,
    x_errors: Float[Array, " points"],
    y_errors: Float[Array, " points"],
    form: Literal["vertical", "orthogonal"] = "vertical",
) -> ScatteredLine:
    """The likeliest line through points with errors in both variables and a scatter of their own.

    The likelihood is that of [`scattered_line_log_likelihood`][gradatim.numerics.scattered_line_log_likelihood], searched on a grid of
    angles and scatters that narrows about its best point. The likeliest scatter is too small on average, as a standard deviation without
    Bessel's correction is; [`scattered_line_posterior`][gradatim.numerics.scattered_line_posterior] is not. Derivatives do not pass.

    **Arguments:** `x_errors` ≥ 0 and `y_errors` > 0: standard deviations; `form`: vertical for y at a given x, orthogonal for a line that
    knows no dependent variable.

    **Raises:** `ValueError` for fewer than three points, errors out of range, or another form.

    >>> x = jnp.array([0.0, 1.0, 2.0, 3.0])
    >>> y = jnp.array([0.5, 0.5, 2.5, 2.5])
    >>> line = fit_scattered_line(x, y, x_errors=0 * x, y_errors=0 * x + 0.1)
    >>> f"{line.slope:.2f} {line.scatter:.2f}"
    '0.80 0.44'
    """
    if x.shape[0] < 3:
        raise ValueError(f"x must hold at least 3 points, got {x.shape[0]}")
    _check_form(form)
    _check_errors("y_errors", y_errors)
    if is_known(x_errors) and not (np.asarray(x_errors) >= 0).all():
        raise ValueError(f"x_errors must be at least 0, got a minimum of {np.min(x_errors)}")
    return _scattered_line(x, y, x_errors, y_errors, form)


@functools.partial(jax.jit, static_argnames="form")
def _scattered_line(x: Array, y: Array, x_errors: Array, y_errors: Array, form: str) -> ScatteredLine:
    # Measured from their means in units of their spread, so that neither shifts nor scales change what is found.
    mean_x, mean_y = x.mean(), y.mean()
    u, v, xx, yy = x - mean_x, y - mean_y, x_errors**2, y_errors**2
    steepness, spread = v.std() / u.std(), v.std()

    def height(angle: Array, share: Array) -> Array:
        b, s = steepness * jnp.tan(angle), spread * share
        a, _ = _best_intercept(u, v, b, s, xx, yy, form)
        return _log_likelihood(u, v, a, b, s, xx, yy, form)

    offsets = jnp.linspace(-1, 1, _GRID, dtype=x.dtype)
    heights = jax.vmap(jax.vmap(height, (None, 0)), (0, None))

    def narrow(_: Array, box: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        angle, share, half_angle, half_share = box
        angles = angle + half_angle * offsets
        shares = jnp.abs(share + half_share * offsets)  # mirrored at zero, where the likelihood is flat
        i, j = jnp.unravel_index(jnp.argmax(heights(angles, shares)), (_GRID, _GRID))
        return angles[i], shares[j], half_angle * _NARROWER, half_share * _NARROWER

    # A little less than a right angle: a vertical line has no slope.
    box = (jnp.zeros_like(spread), jnp.full_like(spread, 0.75), jnp.full_like(spread, 1.5707), jnp.full_like(spread, 0.75))
    angle, share, _, _ = jax.lax.fori_loop(0, _NARROWINGS, narrow, box)
    b, s = steepness * jnp.tan(angle), spread * share
    a, _ = _best_intercept(u, v, b, s, xx, yy, form)
    return ScatteredLine(mean_y + a - b * mean_x, b, s, _log_likelihood(u, v, a, b, s, xx, yy, form))


_GRID, _NARROWER, _NARROWINGS = 21, 0.25, 14
"Points a side, and how often the square narrows by how much: to 2.5 cells on either side of the best point, 4e-9 of the first in the end."


class LinePosterior(NamedTuple):
    """Quantiles of what is known of a line, one for each probability asked for."""

    intercept: Float[Array, " probabilities"]
    slope: Float[Array, " probabilities"]
    scatter: Float[Array, " probabilities"]


def scattered_line_posterior(
    x: Float[Array, " points"],
    y: Float[Array, " points"],
    *,
    x_errors: Float[Array, " points"],
    y_errors: Float[Array, " points"],
    probabilities: tuple[float, ...] = (0.16, 0.5, 0.84),
) -> LinePosterior:
    """What points with errors in both variables say of the line y = a + b x and the vertical scatter s about it.

    Flat priors on a, b and s ≥ 0; a is integrated in closed form, b and s on a grid about the likeliest line, six standard deviations to
    either side and more for few points. Intervals hold the truth about as often as they say, also for a scatter that few points cannot tell
    from zero: then the lower end means nothing and the upper one is a limit. Derivatives do not pass.

    **Arguments:** as for [`fit_scattered_line`][gradatim.numerics.fit_scattered_line]; `probabilities` of the quantiles, in (0, 1).

    **Raises:** `ValueError` as there, or for a probability out of range.

    >>> x = jnp.linspace(-1, 1, 20)
    >>> y = 2 * x + 0.3 * (-1.0) ** jnp.arange(20)
    >>> posterior = scattered_line_posterior(x, y, x_errors=0 * x, y_errors=0 * x + 0.01)
    >>> " ".join(f"{value:.2f}" for value in posterior.scatter)
    '0.28 0.33 0.40'
    """
    if not all(0 < p < 1 for p in probabilities):
        raise ValueError(f"probabilities must lie in (0, 1), got {probabilities}")
    best = fit_scattered_line(x, y, x_errors=x_errors, y_errors=y_errors)
    return _posterior(x, y, x_errors, y_errors, best, jnp.asarray(probabilities, x.dtype))


_POSTERIOR_GRID = 49
"Points a side: a third of a standard deviation of the slope apart, half of one of the scatter."


@jax.jit
def _posterior(x: Array, y: Array, x_errors: Array, y_errors: Array, best: ScatteredLine, probabilities: Array) -> LinePosterior:
    n, mean = x.shape[0], x.mean()
    u, xx, yy = x - mean, x_errors**2, y_errors**2
    w = 1 / _variances(best.slope, best.scatter, xx, yy, "vertical")
    # The tails of few points are those of Student's t.
    tails = 6 * (1 + 6 / n)
    wide = tails / jnp.sqrt(w @ (u - w @ u / w.sum()) ** 2)
    slopes = best.slope + wide * jnp.linspace(-1, 1, _POSTERIOR_GRID, dtype=x.dtype)
    # The scatter's right tail falls like a power: twice as far.
    top = best.scatter + 2 * tails * jnp.sqrt((1 / w).mean() / (2 * n))
    scatters = top * jnp.linspace(0, 1, _POSTERIOR_GRID, dtype=x.dtype)

    def cell(b: Array, s: Array) -> tuple[Array, Array, Array]:
        a, variance = _best_intercept(u, y, b, s, xx, yy, "vertical")
        # The integral over the intercept leaves the root of its variance.
        return _log_likelihood(u, y, a, b, s, xx, yy, "vertical") + 0.5 * jnp.log(variance), a - b * mean, jnp.sqrt(variance)

    heights, centres, widths = jax.vmap(jax.vmap(cell, (None, 0)), (0, None))(slopes, scatters)
    # Trapezoids: the ends of the scatter's range count half.
    ends = jnp.ones(_POSTERIOR_GRID, x.dtype).at[jnp.array([0, -1])].set(0.5)
    mass = jnp.exp(heights - heights.max()) * ends[None, :]
    mass = mass / mass.sum()

    def quantiles(points: Array, density: Array) -> Array:
        steps = (density[1:] + density[:-1]) / 2
        below = jnp.concatenate([jnp.zeros(1, x.dtype), jnp.cumsum(steps)])
        return jnp.interp(probabilities * below[-1], below, points)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        shape = (-1, 1, 1)
        below = jnp.sum(mass[None] * jax.scipy.stats.norm.cdf((middle.reshape(shape) - centres[None]) / widths[None]), axis=(1, 2))
        return jnp.where(below < probabilities, middle, low), jnp.where(below < probabilities, high, middle)

    far = (centres - 8 * widths).min(), (centres + 8 * widths).max()
    low, high = jax.lax.fori_loop(0, 24, halve, tuple(jnp.full_like(probabilities, end) for end in far))
    return LinePosterior((low + high) / 2, quantiles(slopes, mass.sum(axis=1)), quantiles(scatters, (mass / ends[None, :]).sum(axis=0)))


def _check_errors(name: str, errors: Array) -> None:
    if is_known(errors) and not (np.asarray(errors) > 0).all():
        raise ValueError(f"{name} must be positive, got a minimum of {np.min(errors)}")


def _check_form(form: str) -> None:
    if form not in ("vertical", "orthogonal"):
        raise ValueError(f"form must be 'vertical' or 'orthogonal', got {form!r}")
