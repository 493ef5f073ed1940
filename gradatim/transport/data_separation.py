"""The data separation function: how much of the data is known from a noisy view of it (Shaul et al., arXiv:2306.06626, Eq. 23).

        λ(s) = (1/d) E ‖E[x₁ | x₁ + ε/s]‖² = 1 - (1/d) E ‖x₁ - E[x₁ | x₁ + ε/s]‖²,     ε ~ N(0, I)

of normalised data, E x₁ = 0 and E ‖x₁‖² = d. It lies between s² / (1 + s²), its value for standard Gaussian data, and one. With the angle
θ = arctan s the rest is told by γ in [0, 1]:

        λ = 1 - (1 - γ) cos² θ,     area = ∫ (1 - λ) ds = ∫ (1 - γ) dθ,     Φ = ∫ √γ dθ,     b = 2 - 2 cos Φ     (0 ≤ θ ≤ π/2)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.numerics import Estimate
from gradatim.numerics.checks import is_known

NORMALISED = 1e-3
"Mean (per coordinate) and mean square may be off by this much."
REFINED = 8
"Angles for each one at which λ was estimated."
FARTHEST = 9.0
"Standard deviations of noise that a quadrature over a line reaches."


class Normalisation(NamedTuple):
    """How data were normalised: x = mean + scale · normalised."""

    mean: Float[Array, " dim"]
    scale: Float[Array, ""]


@jax.jit
def normalise(x: Float[Array, "n dim"]) -> tuple[Float[Array, "n dim"], Normalisation]:
    """Data with mean zero and mean square one: each coordinate less its mean, and all over one scale.

    >>> x, how = normalise(jnp.array([[1.0, 0.0], [3.0, 4.0]]))
    >>> print(how.mean, f"{how.scale:.3f}, mean square {jnp.mean(x**2):.1f}")
    [2. 2.] 1.581, mean square 1.0
    """
    mean = x.mean(axis=0)
    centred = x - mean[None]
    scale = jnp.sqrt(jnp.mean(centred**2))
    return centred / scale, Normalisation(mean, scale)


class DataSeparation(eqx.Module):
    """λ as a function, √γ being linear in the angle between nodes: whatever the nodes, s² / (1 + s²) ≤ λ ≤ 1, and Φ, b and the area are
    exact for the function that is represented.

    Made by [`separation_of_data`][gradatim.transport.separation_of_data] or [`separation_of_gap`][gradatim.transport.separation_of_gap].

    **Arguments:** `angles`: ascending from 0 to π/2; `root_gamma`: √γ there, in [0, 1].

    **Raises:** `ValueError` for angles or values outside.
    """

    angles: Float[Array, " nodes"]
    root_gamma: Float[Array, " nodes"]

    def __check_init__(self) -> None:
        if not is_known(self.angles, self.root_gamma):
            return
        angles, root = np.asarray(self.angles), np.asarray(self.root_gamma)
        if not (len(angles) >= 2 and angles[0] == 0 and np.isclose(angles[-1], np.pi / 2, rtol=1e-6) and np.all(np.diff(angles) > 0)):
            raise ValueError(f"angles must ascend strictly from 0 to π/2, got {len(angles)} from {angles[0]} to {angles[-1]}")
        if not np.all((root >= 0) & (root <= 1)):
            raise ValueError(f"root_gamma must lie in [0, 1], got values from {root.min()} to {root.max()}")

    def __call__(self, s: Float[Array, "*batch"] | float) -> Float[Array, "*batch"]:
        """λ at ratios s ≥ 0 of signal to noise."""
        return 1 - self.gap(s)

    def gap(self, s: Float[Array, "*batch"] | float) -> Float[Array, "*batch"]:
        """1 - λ(s), without loss of digits where λ is near one."""
        angle = jnp.arctan(jnp.asarray(s))
        return (1 - self.gamma(angle)) * jnp.cos(angle) ** 2

    def gamma(self, angle: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """γ(θ) = 1 - (1 - λ(tan θ)) / cos² θ."""
        return jnp.interp(angle, self.angles.astype(angle.dtype), self.root_gamma.astype(angle.dtype)) ** 2

    @property
    def arc(self) -> Float[Array, " nodes"]:
        """φ(θ) = ∫ √γ dθ from 0 to each node."""
        pieces = jnp.diff(self.angles) * (self.root_gamma[1:] + self.root_gamma[:-1]) / 2
        return jnp.concatenate([jnp.zeros(1, pieces.dtype), jnp.cumsum(pieces)])

    @property
    def total_arc(self) -> Float[Array, ""]:
        """Φ, at most π/2."""
        return self.arc[-1]

    @property
    def least_energy(self) -> Float[Array, ""]:
        """The kinetic energy b = 2 - 2 cos Φ of the optimal path, between 0 (Gaussian data) and 2."""
        return 4 * jnp.sin(self.total_arc / 2) ** 2

    @property
    def area(self) -> Float[Array, ""]:
        """∫ (1 - λ(s)) ds. The straight path's energy is 2 - area, the trigonometric one's (π/2) (π/2 - area)."""
        g, h = self.root_gamma[:-1], self.root_gamma[1:]
        return jnp.pi / 2 - jnp.sum(jnp.diff(self.angles) * (g**2 + g * h + h**2)) / 3


def separation_angles(n_nodes: int = 128) -> Float[np.ndarray, " nodes"]:
    """Angles from 0 to π/2, dense near 0, where γ changes fastest for data in many dimensions.

    **Raises:** `ValueError` for fewer than 4.
    """
    if n_nodes < 4:
        raise ValueError(f"n_nodes must be at least 4, got {n_nodes}")
    return np.pi / 2 * np.linspace(0, 1, n_nodes) ** 2


def separation_of_gap(gap: Callable[[Float[Array, " nodes"]], Float[Array, " nodes"]], *, n_nodes: int = 2048) -> DataSeparation:
    """The data separation from its gap 1 - λ, a function of an array of ratios s, each up to 10¹⁶.

    The gap and not λ, for near one nothing would be left of their difference.

    >>> gaussian = separation_of_gap(lambda s: 1 / (1 + s**2))
    >>> print(f"b = {gaussian.least_energy:.3f}, straight path: {2 - gaussian.area:.5f}")
    b = 0.000, straight path: 0.42920
    """
    angles = separation_angles(n_nodes)
    s = np.tan(angles)
    s[-1] = min(abs(s[-1]), 1e16)
    values = np.asarray(gap(jnp.asarray(s, jnp.result_type(float))), np.float64)
    return _represented(angles, values * (1 + s**2))


def separation_of_data(
    x: Float[Array, "n dim"], *, key: PRNGKeyArray, n_noise: int = 2048, n_nodes: int = 128, batch_size: int = 256
) -> DataSeparation:
    """The data separation of a finite data set, estimated as by [`data_separation`][gradatim.transport.data_separation].

    Estimates outside of what is possible, by chance, are set to its ends. Where γ is near zero its noise enters under a root, so that Φ and
    b come out a little high: raise `n_noise` until they stay. A finite set is known by heart at high s, so that γ = 1 at
    θ = π/2; with few points in many dimensions it is so at every s that matters: look at the leave-one-out estimate beside it.

    **Arguments:** `x`: distinct, normalised points; `key`, `n_noise`, `batch_size`: as there; `n_nodes`: angles, between which √γ
    is a monotone cubic.

    **Raises:** as `data_separation`.

    >>> separation = separation_of_data(jnp.array([[-1.0], [1.0]]), key=jax.random.key(0), n_noise=4096)
    >>> print(f"b = {separation.least_energy:.1f}")
    b = 0.5
    """
    angles = separation_angles(n_nodes)
    s = np.tan(angles[1:-1])
    estimate = data_separation(x, jnp.asarray(s, x.dtype), key=key, n_noise=n_noise, batch_size=batch_size)
    excess = (1 - np.asarray(estimate.value, np.float64)) * (1 + s**2)
    # γ is even in θ: its value at 0, which no ratio of two small numbers can tell, is that of its neighbour but for second order.
    return _refined(_represented(angles, np.concatenate([excess[:1], excess, np.zeros(1)])))


def data_separation(
    x: Float[Array, "n dim"],
    s: Float[Array, " points"],
    *,
    key: PRNGKeyArray,
    n_noise: int = 2048,
    batch_size: int = 256,
    exclude_self: bool = False,
) -> Estimate:
    """λ at given ratios s for a finite data set, by Monte Carlo over noise, with standard errors.

    Of the two forms of λ above, the first is exact at small s and the second at large s; what comes back is their blend of least variance.
    All s see the same noise, so that the estimate is smooth in s. Memory: `batch_size` rows of n numbers.

    For data drawn from a distribution the estimate is high on average: the point that made x is among those that explain it. With
    `exclude_self` that point is left out and the second form taken, which is low on average (no guess of x₁ is better than its mean): the
    two enclose the value of the distribution. Only the first is that of the finite set, which energies of paths to it go by.

    **Arguments:** `x`: normalised; `s` ≥ 0; `n_noise`: noisy points, each from a point drawn at random; `batch_size`: of them at a time.

    **Raises:** `ValueError` for data not normalised, fewer than two points, negative s, or counts below 1.

    >>> found = data_separation(jnp.array([[-1.0], [1.0]]), jnp.array([2.0]), key=jax.random.key(0))
    >>> print(f"{found.value[0]:.1f}")  # E tanh²(4 + 2 ε)
    0.9
    """
    check_normalised(x)
    for name, count in (("n_noise", n_noise), ("batch_size", batch_size)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if is_known(s) and not np.all(np.asarray(s) >= 0):
        raise ValueError(f"s must be at least 0, got {np.asarray(s).min()}")
    return _estimate(x, s, key, n_noise=n_noise, batch_size=min(batch_size, n_noise), exclude_self=exclude_self)


def line_separation_gap(x: Float[Array, " n"], s: Float[Array, " points"], *, n_noise: int = 401) -> Float[Array, " points"]:
    """1 - λ(s) of points on a line, by the trapezoidal rule over the noise: an error below 1e-8 for s up to 10.

    **Raises:** `ValueError` for data not normalised, or fewer than two points.

    >>> print(f"{1 - line_separation_gap(jnp.array([-1.0, 1.0]), jnp.array([1.0]))[0]:.4f}")
    0.5504
    """
    check_normalised(x[:, None])
    return _line_gap(x, s, jnp.linspace(-FARTHEST, FARTHEST, n_noise, dtype=x.dtype))


def check_normalised(x: Float[Array, "n dim"]) -> None:
    """Refuses fewer than two points, and, where they are known, a mean or a mean square that is not that of normalised data."""
    if x.shape[0] < 2:
        raise ValueError(f"x must hold at least 2 points, got {x.shape[0]}")
    if not is_known(x):
        return
    values = np.asarray(x, np.float64)
    mean, square = abs(values.mean(axis=0)).max(), (values**2).mean()
    if not (mean <= NORMALISED and abs(square - 1) <= NORMALISED):
        raise ValueError(f"x must have mean 0 and mean square 1, got {mean:.3g} (largest) and {square:.3g}: normalise(x) makes it so")


def _represented(angles: Float[np.ndarray, " nodes"], excess: Float[np.ndarray, " nodes"]) -> DataSeparation:
    """From (1 - λ) / cos² θ."""
    root = np.sqrt(np.clip(1 - excess, 0, 1))
    dtype = jnp.result_type(float)
    return DataSeparation(jnp.asarray(angles, dtype), jnp.asarray(root, dtype))


def _refined(separation: DataSeparation) -> DataSeparation:
    """With a monotone cubic between estimates, so that a path made of it is smooth enough for a solver of high order."""
    from scipy.interpolate import PchipInterpolator

    angles = separation_angles((len(separation.angles) - 1) * REFINED + 1)
    nodes, values = np.asarray(separation.angles, np.float64), np.asarray(separation.root_gamma, np.float64)
    root = PchipInterpolator(nodes, values)(np.minimum(angles, nodes[-1]))
    return _represented(angles, 1 - np.clip(root, 0, 1) ** 2)


@eqx.filter_jit
def _estimate(x: Array, s: Array, key: PRNGKeyArray, *, n_noise: int, batch_size: int, exclude_self: bool) -> Estimate:
    n, dim = x.shape
    half_squares = jnp.sum(x**2, axis=1) / 2

    def batch(key: PRNGKeyArray) -> tuple[Array, Array]:
        chosen, drawn = jax.random.split(key)
        source = (jax.random.bits(chosen, (batch_size,), jnp.uint32) % n).astype(jnp.int32)
        x1 = x[source]
        noise = jax.random.normal(drawn, (batch_size * dim,), x.dtype).reshape(x1.shape)
        # ‖y - xᵢ‖² needs only these two products, whatever s: y = x₁ + ε / s.
        signal, distortion = x1 @ x.T - half_squares[None], noise @ x.T

        def at(s: Array) -> tuple[Array, Array]:
            logits = s**2 * signal + s * distortion
            if exclude_self:
                logits = jnp.where(jnp.arange(n)[None] == source[:, None], -jnp.inf, logits)
            mean = jax.nn.softmax(logits, axis=1) @ x
            return jnp.mean(mean**2, axis=1), jnp.mean((x1 - mean) ** 2, axis=1)

        return jax.lax.map(at, s)

    batches = jax.lax.map(batch, jax.random.split(key, -(-n_noise // batch_size)))
    known, missed = (values.transpose(1, 0, 2).reshape(len(s), -1)[:, :n_noise] for values in batches)
    gap = missed if exclude_self else _blended_gap(known, missed)
    return Estimate(1 - gap.mean(axis=1), gap.std(axis=1) / jnp.sqrt(n_noise))


def _blended_gap(known: Float[Array, "points noise"], missed: Float[Array, "points noise"]) -> Float[Array, "points noise"]:
    """1 - λ from ‖x̂‖²/d and ‖x₁ - x̂‖²/d, with the weights of least variance; as a gap, lest digits are lost where λ is near one."""
    difference = (1 - missed) - known
    spread = jnp.var(difference, axis=1)
    weight = -jnp.mean((known - known.mean(axis=1, keepdims=True)) * difference, axis=1) / jnp.where(spread > 0, spread, 1)
    weight = jnp.where(spread > 0, jnp.clip(weight, 0, 1), 1)[:, None]
    return (1 - weight) * (1 - known) + weight * missed


@jax.jit
def _line_gap(x: Array, s: Array, noise: Array) -> Array:
    weights = jnp.exp(-(noise**2) / 2)
    weights = weights / weights.sum()

    def at(s: Array) -> Array:
        # (source, noise, candidate)
        logits = -((s * (x[:, None, None] - x[None, None]) + noise[None, :, None]) ** 2) / 2
        mean = jax.nn.softmax(logits, axis=2) @ x
        return jnp.mean((x[:, None] - mean) ** 2 @ weights)

    return jax.lax.map(at, s)
