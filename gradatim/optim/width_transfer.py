"""Whether settings carry over from one width to another: singular values, gains, exponents, best points (arXiv:2510.15262)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gradatim.nets import MatrixAxes, matrix_axes
from gradatim.numerics import Estimate, top_singular_value
from gradatim.numerics.checks import is_known

MATCHED = (0.8, 1.25)
"Ratios of largest singular values between which a matrix counts as carried over."


class SingularValueMatch(NamedTuple):
    """One array of matrices in two models; the axis runs over stacked layers or experts, and has length 1 for a plain matrix."""

    value: Float[Array, " batch"]
    other: Float[Array, " batch"]
    ratio: Float[Array, " batch"]
    "other / value."
    residual: Float[Array, " batch"]
    "Relative distance, the larger of both models', within which each value is a singular value."

    @property
    def is_matched(self) -> bool:
        """Whether all ratios lie in [0.8, 1.25]."""
        return bool(jnp.all((self.ratio >= MATCHED[0]) & (self.ratio <= MATCHED[1])))


def match_top_singular_values(
    model: PyTree, other: PyTree, labels: PyTree, *, label: str = "matrix", iterations: int = 100
) -> dict[str, SingularValueMatch]:
    """Largest singular values of every matrix of two models of one architecture, by path: equal where the rule of width works.

    Measure where the rate has been constant for [`relaxation_steps`][gradatim.optim.relaxation_steps] steps or more: before, one sees the
    first weights, whose largest singular value is 2 at every width. Classes differ (queries and keys from outputs, up from down):
    no mean over them is taken.

    **Arguments:** `model`, `other`: say of the base width and of the target; `labels`: of `model`; `label`: whose matrices are compared;
    `iterations`: of power iteration.

    **Raises:** `ValueError`, with the path, if labels or models do not fit each other, a matrix is zero, or none has that label.

    >>> model, other = {"w": jnp.eye(2)}, {"w": 1.1 * jnp.eye(4)}
    >>> match = match_top_singular_values(model, other, {"w": "matrix"})["['w']"]
    >>> print(match.ratio.round(3), match.is_matched)
    [1.1] True
    """
    axes = {jax.tree_util.keystr(path): a for path, a in jax.tree_util.tree_leaves_with_path(matrix_axes(model, labels, label))}
    if not axes:
        raise ValueError(f"labels must hold {label!r} at least once, got none")
    ours, theirs = ({jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)} for tree in (model, other))
    table = {}
    for path, where in axes.items():
        if path not in theirs:
            raise ValueError(f"model and other must have one structure, {path} is missing in other")
        first, second = (_top(where, tree[path], iterations) for tree in (ours, theirs))
        if first[0].shape != second[0].shape:
            raise ValueError(f"{path} must hold equally many matrices in both models, got {first[0].size} and {second[0].size}")
        if not jnp.all(first[0] > 0) or not jnp.all(second[0] > 0):
            raise ValueError(f"matrices to compare must not be zero, got one in {path}")
        residual = jnp.maximum(first[1] / first[0], second[1] / second[0])
        table[path] = SingularValueMatch(first[0], second[0], second[0] / first[0], residual)
    return table


def _top(axes: MatrixAxes, array: Array, iterations: int) -> tuple[Array, Array]:
    value, _, residual = top_singular_value(axes.fold(array), iterations=iterations)
    return value, residual


def sublayer_gain(layer: Callable[[Array], Array], inputs: Float[Array, "batch width"]) -> Float[Array, ""]:
    """The ratio rms f(n) / rms n over a batch of inputs n: what a sublayer f adds to the residual stream, over what it is given.

    For a bias-free linear map of isotropic inputs ‖W‖_F / √d_out; the largest over all inputs is σ_max √(d_in/d_out).

    **Arguments:** `layer`: one input in, one output out; `inputs`: normalised ones, as the layer sees them.

    >>> print(sublayer_gain(lambda n: 3 * n, jnp.ones((2, 4))))
    3.0
    """
    outputs = jax.vmap(layer)(inputs)
    return jnp.sqrt(jnp.mean(outputs**2) / jnp.mean(inputs**2))


def scaled_spectrum(w: Float[Array, "*batch out in"], fractions: Float[Array, " points"]) -> Float[Array, "*batch points"]:
    """Singular values over the largest, s_k / s₁, at ranks given as fractions of the number of singular values, 0 the first.

    **Raises:** `ValueError` for fractions outside [0, 1], unless they are traced.
    """
    if is_known(fractions) and not bool(jnp.all((fractions >= 0) & (fractions <= 1))):
        raise ValueError(f"fractions must lie in [0, 1], got {fractions}")
    values = jnp.linalg.svdvals(w)
    n = values.shape[-1]
    interpolate = jnp.vectorize(lambda v: jnp.interp(fractions * (n - 1), jnp.arange(n, dtype=w.dtype), v), signature="(n)->(m)")
    return interpolate(values / jnp.maximum(values[..., :1], jnp.finfo(w.dtype).tiny))


def width_exponent(widths: Sequence[int], values: np.ndarray | Array) -> Estimate:
    """The power p of values ∝ widthᵖ, by least squares on logarithms.

    **Arguments:** `widths`: four or more; `values` > 0: one a width, or `(width, seed)`.

    **Returns:** the slope, or the mean of each seed's, with its standard error: over seeds if there are two or more, else from the
    residuals of the line.

    **Raises:** `ValueError` for fewer than four widths (two points fit any line), equal widths, or values that are not positive.

    >>> print(f"{width_exponent([32, 64, 128, 256], jnp.array([1.0, 2.0, 4.0, 8.0])).value:.3f}")
    1.000
    """
    y = np.asarray(values, np.float64)
    x = np.log(np.asarray(widths, np.float64))
    if len(x) < 4 or len(np.unique(x)) < len(x):
        raise ValueError(f"widths must be four or more, all different, got {list(widths)}")
    if y.ndim not in (1, 2) or y.shape[0] != len(x) or not (np.isfinite(y).all() and (y > 0).all()):
        raise ValueError(f"values must be positive, of shape ({len(x)},) or ({len(x)}, seeds), got {y.shape} with minimum {y.min()}")
    slopes, residuals = width_slopes(widths, y)
    if slopes.size > 1:
        error = slopes.std(ddof=1) / np.sqrt(slopes.size)
    else:
        error = np.sqrt((residuals**2).sum() / (len(x) - 2) / ((x - x.mean()) ** 2).sum())
    return Estimate(jnp.asarray(slopes.mean()), jnp.asarray(error))


def width_slopes(widths: Sequence[int], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log-log slope of each column of `values`, `(width,)` or `(width, seed)`, and the residuals of the lines."""
    x = np.log(np.asarray(widths, np.float64))
    y = np.log(np.asarray(values, np.float64)).reshape(len(x), -1)
    x, y = x - x.mean(), y - y.mean(0)
    slopes = x @ y / (x @ x)
    return slopes, y - x[:, None] * slopes


class TransferReport(NamedTuple):
    """Best learning rate and decay at each width, and what it costs to take those of the first width instead."""

    best_rate: np.ndarray
    best_decay: np.ndarray
    rate_shift: np.ndarray
    "log₂ of the best rate over that of the first width."
    decay_shift: np.ndarray
    regret: np.ndarray
    "Loss of the first width's best pair minus the best loss at each width, mean over seeds."
    regret_standard_error: np.ndarray
    "Over seeds, of paired differences; NaN for a single seed."
    on_edge: np.ndarray
    "Whether the best point lies on the edge of the grid, so that a better one may lie outside: `(width, [rate, decay])`."


def transfer_report(losses: np.ndarray | Array, learning_rates: Sequence[float], weight_decays: Sequence[float]) -> TransferReport:
    """Whether the best pair at the first width stays best at the others.

    **Arguments:** `losses`: `(width, rate, decay)` or `(width, rate, decay, seed)`, NaN or inf where a run diverged; rates and decays of
    the grid, both of the base width, so that the same pair follows the rule from width to width.

    **Raises:** `ValueError` for shapes that do not fit, rates or decays that are not positive and ascending, or a width at which every
    pair has a seed that diverged.

    >>> losses = np.array([[[3.0, 2.0, 4.0]] * 2, [[3.5, 2.5, 2.4]] * 2]).transpose(0, 2, 1)
    >>> report = transfer_report(losses, [0.01, 0.02, 0.04], [0.1, 0.2])
    >>> print(report.rate_shift, report.regret.round(2))
    [0. 1.] [0.  0.1]
    """
    grid = np.asarray(losses, np.float64)
    grid = grid[..., None] if grid.ndim == 3 else grid
    if grid.ndim != 4 or grid.shape[1:3] != (len(learning_rates), len(weight_decays)):
        raise ValueError(f"losses must have shape (width, {len(learning_rates)}, {len(weight_decays)}[, seed]), got {np.shape(losses)}")
    rates, decays = np.asarray(learning_rates, np.float64), np.asarray(weight_decays, np.float64)
    for name, values in (("learning_rates", rates), ("weight_decays", decays)):
        if not ((values > 0).all() and (np.diff(values) > 0).all()):
            raise ValueError(f"{name} must be positive and ascending, got {values.tolist()}")
    grid = np.where(np.isfinite(grid), grid, np.inf)
    means = grid.mean(-1)
    flat = means.reshape(len(means), -1)
    if not np.isfinite(flat.min(1)).all():
        raise ValueError(f"every pair diverges at width number {int(np.argmax(~np.isfinite(flat.min(1))))}: take smaller rates")
    row, column = np.unravel_index(flat.argmin(1), means.shape[1:])
    extra = np.stack([grid[w, row[0], column[0]] - grid[w, row[w], column[w]] for w in range(len(grid))])
    n = extra.shape[1]
    with np.errstate(invalid="ignore"):  # an infinite regret has no standard error
        error = extra.std(1, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(grid), np.nan)
    on_edge = np.stack([(index == 0) | (index == size - 1) for index, size in zip((row, column), means.shape[1:], strict=True)], axis=1)
    return TransferReport(
        rates[row], decays[column], np.log2(rates[row] / rates[row[0]]), np.log2(decays[column] / decays[column[0]]),
        extra.mean(1), error, on_edge,
    )  # fmt: skip
