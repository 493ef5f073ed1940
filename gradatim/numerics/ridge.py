"""Linear least squares along a whole path: every ridge penalty, every time of gradient flow, every step of gradient descent and the
minimum-norm solution, from one eigendecomposition of the smaller Gram matrix.

All of them filter the same spectrum. With start w₀ and the eigenvalues λ of XᵀX,

    w = w₀ + ψ(XᵀX) Xᵀ(y - X w₀),     ψ(λ) = 1/(λ + g)               min ‖y - Xw‖² + g ‖w - w₀‖²
                                            (1 - exp(-λt))/λ         dw/dt = Xᵀ(y - Xw)
                                            (1 - (1 - hλ)ᵏ)/λ        k steps of size h
                                            1/λ                      the end of both: what fits best, nearest to w₀

and no division by a singular value is ever made: with fewer samples than parameters ψ acts on XXᵀ instead. Directions without an
eigenvalue keep their start.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .checks import is_known

Number = float | Float[Array, ""]


class Fits(eqx.Module):
    """Solutions along a path."""

    weights: Float[Array, "*path parameters *outputs"]
    training_error: Float[Array, "*path *outputs"]
    "‖y - Xw‖² / samples, of each output."


class LeastSquares(eqx.Module):
    """A problem min ‖y - Xw‖² with its spectrum; made by [`least_squares`][gradatim.numerics.least_squares]."""

    inputs: Float[Array, "samples parameters"]
    targets: Float[Array, "samples ..."]
    eigenvalues: Float[Array, " smaller"]
    "Of the smaller of XᵀX and XXᵀ, ascending; what is round-off is 0."
    vectors: Float[Array, "smaller smaller"]

    @property
    def rank(self) -> Int[Array, ""]:
        """How many eigenvalues are not zero."""
        return jnp.sum(self.eigenvalues > 0)

    @property
    def frozen_fraction(self) -> Float[Array, ""]:
        """The share of directions in which no weight ever moves: 1 - rank / parameters."""
        return 1 - self.rank / jnp.asarray(self.inputs.shape[1], self.inputs.dtype)

    def ridge(self, penalty: float | Float[Array, "*path"], start: Float[Array, "parameters ..."] | None = None) -> Fits:
        """Argmin ‖y - Xw‖² + g ‖w - w₀‖² for each penalty g ≥ 0 (0: the minimum-norm solution).

        **Raises:** `ValueError` for a negative penalty.
        """
        check_not_negative("penalty", penalty)
        return self.filtered(ridge_filter(self.eigenvalues, penalty), start)

    def gradient_flow(self, time: float | Float[Array, "*path"], start: Float[Array, "parameters ..."] | None = None) -> Fits:
        """w(t) with dw/dt = Xᵀ(y - Xw), exactly, for each time t ≥ 0 (∞ allowed).

        **Raises:** `ValueError` for a negative time.
        """
        check_not_negative("time", time)
        return self.filtered(flow_filter(self.eigenvalues, time), start)

    def gradient_descent(
        self,
        n_steps: int | Int[Array, "*path"],
        start: Float[Array, "parameters ..."] | None = None,
        *,
        step_size: Number,
    ) -> Fits:
        """The weights after each number of steps w ← w + h Xᵀ(y - Xw), at the cost of none.

        **Raises:** `ValueError` for a negative number of steps or a step size that is not positive; at run time, for one beyond the
        limit of stability 2/λ₁.
        """
        check_not_negative("n_steps", n_steps)
        if is_known(step_size) and not step_size > 0:
            raise ValueError(f"step_size must be positive, got {step_size}")
        message = "step_size is beyond 2 / (largest eigenvalue), where gradient descent diverges: reduce it"
        h = eqx.error_if(jnp.asarray(step_size, self.eigenvalues.dtype), step_size * self.eigenvalues[-1] > 2, message)
        return self.filtered(descent_filter(self.eigenvalues, n_steps, step_size=h), start)

    def minimum_norm(self, start: Float[Array, "parameters ..."] | None = None) -> Fits:
        """Of all that fit best the one nearest to the start, or to zero: the end of gradient flow."""
        return self.filtered(minimum_norm_filter(self.eigenvalues), start)

    @eqx.filter_jit
    def filtered(self, psi: Float[Array, "*path smaller"], start: Float[Array, "parameters ..."] | None = None) -> Fits:
        """W = w₀ + ψ(XᵀX) Xᵀ(y - X w₀) for values ψ at the eigenvalues; where these are zero, ψ has no say."""
        n, p = self.inputs.shape
        path, outputs = psi.shape[:-1], self.targets.shape[1:]
        if start is not None and start.shape != (p, *outputs):
            raise ValueError(f"start must have shape {(p, *outputs)}, parameters by outputs, got {start.shape}")
        is_moving = self.eigenvalues > 0
        psi = jnp.where(as_row_of(is_moving, psi), psi, 0).reshape(-1, psi.shape[-1], 1)
        w0 = jnp.zeros((p, *outputs), self.inputs.dtype) if start is None else start
        w0 = w0.reshape(p, -1)
        residual = self.targets.reshape(n, -1) - self.inputs @ w0
        is_dual = n <= p
        # c = (eigenvectors)ᵀ r₀ in the space of samples, or (eigenvectors)ᵀ Xᵀ r₀ in that of parameters.
        c = self.vectors.T @ (residual if is_dual else self.inputs.T @ residual)
        motion = self.vectors[None] @ (psi * c[None])
        motion = self.inputs.T[None] @ motion if is_dual else motion
        left = 1 - self.eigenvalues[None, :, None] * psi
        if is_dual:
            squared = jnp.sum((left * c[None]) ** 2, axis=1)
        else:
            share = jnp.where(is_moving[:, None], c**2 / jnp.where(is_moving, self.eigenvalues, 1)[:, None], 0)
            # What no weights fit; never below zero but for round-off.
            rest = jnp.maximum(jnp.sum(residual**2, axis=0) - jnp.sum(share, axis=0), 0)
            squared = jnp.sum(left**2 * share[None], axis=1) + rest[None]
        weights = (w0[None] + motion).reshape(*path, p, *outputs)
        return Fits(weights, (squared / n).reshape(*path, *outputs))


def least_squares(
    inputs: Float[Array, "samples parameters"], targets: Float[Array, "samples ..."], *, cutoff: Number | None = None
) -> LeastSquares:
    """The problem min ‖y - Xw‖², decomposed once at O(n p min(n, p)).

    The eigenvalues are squared singular values: those below `cutoff` times the largest cannot be told from zero, and with 1/λ or a long
    time their round-off would take the place of the answer.

    **Arguments:** `inputs`: X, one sample a row; `targets`: y, with any further axes for several outputs; `cutoff`: by default ε times
    the larger side of X, which in single precision leaves condition numbers of X up to about 1e2 to 1e3: take double precision.

    **Raises:** `ValueError` for a cutoff outside [0, 1), or another number of targets than samples.

    >>> X = jnp.array([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> fits = least_squares(X, jnp.array([3.0, 2.0])).gradient_flow(jnp.array([0.0, 1.0, 100.0]), jnp.array([0.0, 0.0, 5.0]))
    >>> print(fits.weights.round(3).tolist())
    [[0.0, 0.0, 5.0], [1.0, 1.2640000581741333, 5.0], [1.0, 2.0, 5.0]]
    """
    if cutoff is not None and is_known(cutoff) and not 0 <= cutoff < 1:
        raise ValueError(f"cutoff must lie in [0, 1), got {cutoff}")
    if targets.shape[:1] != inputs.shape[:1]:
        raise ValueError(f"targets must have {inputs.shape[0]} rows, one a sample, got shape {targets.shape}")
    return _decomposed(inputs, targets, cutoff)


@jax.jit
def _decomposed(inputs: Array, targets: Array, cutoff: Number | None) -> LeastSquares:
    n, p = inputs.shape
    gram = inputs @ inputs.T if n <= p else inputs.T @ inputs
    values, vectors = jnp.linalg.eigh(gram)
    relative = jnp.finfo(gram.dtype).eps * max(n, p) if cutoff is None else cutoff
    return LeastSquares(inputs, targets, jnp.where(values > relative * values[-1], values, 0), vectors)


def ridge_filter(eigenvalues: Float[Array, " n"], penalty: float | Float[Array, "*path"]) -> Float[Array, "*path n"]:
    """ψ = 1/(λ + g); 0 where both are zero."""
    g = _column(penalty, eigenvalues)
    return _inverse(as_row_of(eigenvalues, g) + g)


def flow_filter(eigenvalues: Float[Array, " n"], time: float | Float[Array, "*path"]) -> Float[Array, "*path n"]:
    """ψ = (1 - exp(-λt))/λ, t where λ is zero."""
    t = _column(time, eigenvalues)
    is_positive = eigenvalues > 0
    values = jnp.where(is_positive, eigenvalues, 1)
    moved = -jnp.expm1(-as_row_of(values, t) * t) / as_row_of(values, t)
    return jnp.where(as_row_of(is_positive, t), moved, t)


def descent_filter(eigenvalues: Float[Array, " n"], n_steps: int | Int[Array, "*path"], *, step_size: Number) -> Float[Array, "*path n"]:
    """ψ = (1 - (1 - hλ)ᵏ)/λ, hk where λ is zero."""
    k = _column(n_steps, eigenvalues)
    is_positive = eigenvalues > 0
    values = jnp.where(is_positive, eigenvalues, 1)
    moved = (1 - descent_decay(as_row_of(values, k), k, step_size=step_size)) / as_row_of(values, k)
    return jnp.where(as_row_of(is_positive, k), moved, step_size * k)


def descent_decay(eigenvalues: Float[Array, "*n"], n_steps: Float[Array, "*k"], *, step_size: Number) -> Float[Array, ...]:
    """(1 - hλ)ᵏ, to full accuracy for small steps; shapes as they broadcast."""
    factor = 1 - step_size * eigenvalues
    # The logarithm of what is left keeps the digits that 1 - hλ loses.
    is_small = jnp.abs(step_size * eigenvalues) < 0.5
    logarithm = jnp.where(is_small, jnp.log1p(-jnp.where(is_small, step_size * eigenvalues, 0)), 0)
    sign = jnp.where((factor < 0) & (n_steps % 2 == 1), -1.0, 1.0)
    size = jnp.where(is_small, 1, jnp.abs(factor))
    return jnp.where(is_small, jnp.exp(n_steps * logarithm), sign * size**n_steps)


def minimum_norm_filter(eigenvalues: Float[Array, " n"]) -> Float[Array, " n"]:
    """ψ = 1/λ, 0 where λ is zero."""
    return _inverse(eigenvalues)


def _inverse(x: Array) -> Array:
    is_zero: Bool[Array, ...] = x == 0
    return jnp.where(is_zero, 0, 1 / jnp.where(is_zero, 1, x))


def _column(path: Array | float, eigenvalues: Array) -> Array:
    """The path with an axis for the eigenvalues."""
    return jax.lax.convert_element_type(jnp.asarray(path), eigenvalues.dtype)[..., None]


def as_row_of(row: Array, table: Array) -> Array:
    """The row with as many axes as the table: where ranks are not promoted silently, what varies along the last axis."""
    return row.reshape((1,) * (table.ndim - 1) + row.shape)


def check_not_negative(name: str, value: Array | float) -> None:
    """**Raises:** `ValueError` for a known value, or an entry of one, below zero or not a number."""
    if is_known(value) and not (np.asarray(value) >= 0).all():
        raise ValueError(f"{name} must be at least 0, got {value}")
