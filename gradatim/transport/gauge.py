"""Gauge freedom of a score: what may be added to it without moving probability (Horvat and Pfister, arXiv:2402.03845).

A field r leaves every flow and reverse diffusion of s = ∇ log p with the marginals that they have where

    div r + r · ∇ log p = 0,     that is     div(p r) = 0     or, in weak form,     E_p[r · ∇ψ] = 0 for every ψ

A field without divergence is none of these by itself: a rotation changes a density that is not round.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .flow_likelihood import field_divergence
from .probability_paths import AbstractGaussianPath
from .score_flow import Score

MatrixField = Callable[[Float[Array, " dim"]], Float[Array, "dim dim"]]


class GaugeField(eqx.Module):
    """A field that obeys the gauge condition for any density: `GaugeField(score, A)(t, x)`.

        rᵢ = Σⱼ (∂ⱼ Aᵢⱼ + Aᵢⱼ ∂ⱼ log p),     Aᵢⱼ(x) = -Aⱼᵢ(x),     that is     p rᵢ = Σⱼ ∂ⱼ(p Aᵢⱼ)

    Every gauge field has this form locally. For a constant A it is A ∇ log p, which has no divergence and runs along the level sets of p;
    with A(x) only the sum of the two vanishes in general.

    **Arguments:** `score`: ∇ log pₜ; `antisymmetric`: A, a constant matrix, or a function of the point, of whose matrix the antisymmetric
    part counts.

    **Raises:** `ValueError` for a constant matrix that is not antisymmetric, where it is known.

    >>> quarter_turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])
    >>> print(GaugeField(lambda t, x: -x / jnp.array([4.0, 1.0]), quarter_turn)(jnp.array(0.0), jnp.array([2.0, 1.0])))
    [ 1.  -0.5]
    """

    score: Score
    antisymmetric: Float[Array, "dim dim"] | MatrixField

    def __check_init__(self) -> None:
        if not callable(self.antisymmetric) and is_known(self.antisymmetric):
            known = np.asarray(self.antisymmetric)
            # A tree of shapes, or a batch of matrices, is nothing to be looked at.
            if known.dtype != object and known.ndim == 2 and not np.allclose(known, -known.T, atol=1e-6 * np.abs(known).max()):
                raise ValueError(f"antisymmetric must obey A = -Aᵀ, got {known.tolist()}")

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The field at one time and one point."""
        score = self.score(t, x)
        if not callable(self.antisymmetric):
            return self.antisymmetric @ score

        def matrix(x: Float[Array, " dim"]) -> Float[Array, "dim dim"]:
            whole = self.antisymmetric(x)  # pyright: ignore[reportCallIssue]
            return (whole - whole.T) / 2

        return jnp.einsum("ijj->i", jax.jacfwd(matrix)(x)) + matrix(x) @ score


class SumOfFields(eqx.Module):
    """s(t, x) + c r(t, x): a score with a gauge part of some strength, which may be traced.

    >>> print(SumOfFields(lambda t, x: -x, lambda t, x: x**2, 0.5)(jnp.array(0.0), jnp.array([2.0])))
    [0.]
    """

    first: Score
    second: Score
    strength: float | Float[Array, ""] = 1.0

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The sum at one time and one point."""
        return self.first(t, x) + self.strength * self.second(t, x)


def gauge_residual(
    field: Score, score: Score, t: Float[Array, ""], x: Float[Array, " dim"], *, key: PRNGKeyArray | None = None
) -> Float[Array, ""]:
    """The residual div r + r · ∇ log p at a point: zero everywhere for a gauge field.

    **Arguments:** `field`: r; `score`: ∇ log pₜ; `t`; `x`: one point; `key`: for a divergence estimated with a random probe.

    **Raises:** `ValueError` in more than 64 dimensions without a key.

    >>> rotation = lambda t, x: jnp.array([-x[1], x[0]])
    >>> at = jnp.array(0.0), jnp.array([1.0, 2.0])
    >>> print(gauge_residual(rotation, lambda t, x: -x, *at), gauge_residual(rotation, lambda t, x: -x / jnp.array([4.0, 1.0]), *at))
    0.0 -1.5
    """
    return field_divergence(lambda x: field(t, x), x, key) + field(t, x) @ score(t, x)


def weak_gauge_statistic(field: Float[Array, "n dim"], gradients: Float[Array, "n tests dim"]) -> Float[Array, " tests"]:
    """|E r · ∇ψ| / √(E ‖r‖² E ‖∇ψ‖²) for each of several test functions ψ, from samples alone: neither score nor density is needed.

    Between 0 and 1; of a gauge field what is left is the noise of n samples, about 1/√n.

    **Arguments:** `field`: values of r at samples of p; `gradients`: ∇ψ at the same samples.

    >>> at = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    >>> turned = at[:, ::-1] * jnp.array([[-1.0, 1.0]])
    >>> print(weak_gauge_statistic(turned, jnp.stack([at, at + turned], axis=1)))
    [0.         0.70710677]
    """
    products = jnp.einsum("nd,nkd->k", field, gradients)
    norms = jnp.einsum("nkd,nkd->k", gradients, gradients) * jnp.sum(field**2)
    return jnp.abs(products) / jnp.sqrt(jnp.where(norms > 0, norms, 1))


def gauge_penalty(
    field: Score,
    score: Score,
    path: AbstractGaussianPath,
    t: Float[Array, " batch"],
    x: Float[Array, "batch dim"],
    *,
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    """E[m⁴ (div r + r · s)²]: what to add to a loss so that a learned part r of a field becomes a gauge field.

    The factor m⁴ makes noise levels count alike. The score is taken as it is: no gradient goes to it, for it is not to be bent until r
    fits. r = 0 has no penalty either; whether r obeys the condition, and not only shrinks, is for
    [`weak_gauge_statistic`][gradatim.transport.weak_gauge_statistic] to say.

    **Arguments:** `field`: r; `score`: ∇ log pₜ, or the conservative part of the model; `path`; `t`, `x`: times and noisy points; `key`:
    for divergences estimated with random probes, one a point (the square is then biased upwards by their variance).

    **Raises:** `ValueError` in more than 64 dimensions without a key.

    >>> from gradatim.transport import CondOT
    >>> t, x = jnp.array([0.5, 0.0]), jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> print(gauge_penalty(lambda t, x: 2 * x, lambda t, x: -x, CondOT(), t, x))  # (4 - 2 ‖x‖²)², over 16 at half the time
    1059.125
    """
    m = path.coefficients(t).m.astype(x.dtype)
    keys = None if key is None else jax.random.split(key, len(t))

    def residual(t: Array, x: Array, key: PRNGKeyArray | None) -> Array:
        return gauge_residual(field, lambda t, x: jax.lax.stop_gradient(score(t, x)), t, x, key=key)

    values = jax.vmap(residual, (0, 0, None if keys is None else 0))(t, x, keys)
    return jnp.mean((m**2 * values) ** 2)
