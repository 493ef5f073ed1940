"""The barrier's height from the curvature along the chord: an exact integral, and what single Hessians make of it.

Along θ(t) = (1-t) a + t b, with d = b - a, the loss l(t) has the second derivative dᵀ H(θ(t)) d. Twice integrated by parts, with the
kernel of a string that is held at both ends,

    l(t) - (1-t) l(0) - t l(1) = - ∫₀¹ G(t, s) dᵀ H(θ(s)) d ds,     G(t, s) = min(t, s) (1 - max(t, s)),

so that nothing but negative curvature along the chord makes a barrier. All of it takes second derivatives in one direction: two
forward differentiations, no gradient and no Hessian. Kinks (ReLU, max) hold curvature that automatic differentiation does not see: take
a smooth activation for the integral to be exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .mode_connectivity import check_ends, interpolate, is_weight

Method = Literal["integral", "midpoint", "endpoints", "endpoints_with_slopes", "fork"]
METHODS: tuple[Method, ...] = ("integral", "midpoint", "endpoints", "endpoints_with_slopes", "fork")


class Chord(eqx.Module):
    """The loss and its first two derivatives along a direction, at points of a line (or at one)."""

    loss: Float[Array, "*points"]
    slope: Float[Array, "*points"]
    "gᵀd."
    curvature: Float[Array, "*points"]
    "dᵀHd: not divided by |d|²."


class ChordIntegral(eqx.Module):
    """The height over the chord of the end values at one point, and the curvature that makes it."""

    height: Float[Array, ""]
    t: Float[Array, " nodes"]
    curvature: Float[Array, " nodes"]

    @property
    def bound(self) -> Float[Array, ""]:
        """maxₛ (-dᵀHd) / 8, no barrier if that is negative: the height that the worst curvature would make, all along the chord."""
        return jnp.maximum(jnp.max(-self.curvature), 0) / 8


def barrier_kernel(t: Float[Array, "*points"], s: Float[Array, "*points"]) -> Float[Array, "*points"]:
    """G(t, s) = min(t, s) (1 - max(t, s)): what curvature at s adds to the height at t. Its integral over s is t (1-t)/2.

    >>> print(f"{barrier_kernel(jnp.array(0.5), jnp.array(0.25)):.3f}")
    0.125
    """
    return jnp.minimum(t, s) * (1 - jnp.maximum(t, s))


def directional_derivatives(loss: Callable[[PyTree], Float[Array, ""]], point: PyTree, direction: PyTree) -> Chord:
    """L, gᵀd and dᵀHd at one point, from two forward differentiations: about five evaluations of the loss.

    **Arguments:** `loss`: of the parameters alone; `point`, `direction`: pytrees of one structure; leaves of `point` that are no
    floating-point arrays stay as they are.

    >>> found = directional_derivatives(lambda w: jnp.prod(w), jnp.array([2.0, 3.0]), jnp.array([1.0, 1.0]))
    >>> print(f"{found.loss:.0f} {found.slope:.0f} {found.curvature:.0f}")
    6 5 2
    """

    def along(s: Array) -> Array:
        return loss(jax.tree.map(lambda x, v: x + s.astype(x.dtype) * v if is_weight(x) else x, point, direction))

    zero, one = _scalars(point)
    (value, slope), (_, curvature) = jax.jvp(lambda s: jax.jvp(along, (s,), (one,)), (zero,), (one,))
    return Chord(value, slope, curvature)


def chord_derivatives(loss: Callable[[PyTree], Float[Array, ""]], start: PyTree, end: PyTree, t: Float[Array, " points"]) -> Chord:
    """l, l′ and l″ at the points t of the line from `start` to `end`, one after another.

    **Arguments:** `loss`, `start`, `end`: as for [`line_loss`][gradatim.landscape.line_loss]; `t`: any numbers, beyond the ends too.

    **Raises:** `ValueError` for ends that do not fit.

    >>> found = chord_derivatives(lambda w: w**3, jnp.array(0.0), jnp.array(2.0), jnp.array([0.5, 1.0]))
    >>> found.slope.tolist(), found.curvature.tolist()
    ([6.0, 24.0], [24.0, 48.0])
    """
    check_ends(start, end)
    direction = _difference(end, start)
    return jax.lax.map(lambda s: directional_derivatives(loss, interpolate(start, end, s), direction), t)


def chord_curvature(
    loss: Callable[[PyTree], Float[Array, ""]], start: PyTree, end: PyTree, t: Float[Array, " points"]
) -> Float[Array, " points"]:
    """dᵀ H(θ(t)) d, the second derivative of the loss along the line, at the points t.

    Arguments and errors as for [`chord_derivatives`][gradatim.landscape.chord_derivatives].

    >>> print(chord_curvature(lambda w: w**3, jnp.array(0.0), jnp.array(2.0), jnp.array([0.5, 1.0])))
    [24. 48.]
    """
    return chord_derivatives(loss, start, end, t).curvature


def quadrature(at: float = 0.5, *, n_nodes: int = 16) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Nodes s of [0, 1] and the weights of ∫ G(at, s) f(s) ds: `n_nodes` of Gauss and Legendre on either side of the kernel's kink.

    Exact for polynomials f of degree up to 2 `n_nodes` - 2 on each side.

    **Raises:** `ValueError` for a point that is not inside (0, 1) or fewer than one node.

    >>> nodes, weights = quadrature(n_nodes=2)
    >>> print(f"{weights.sum():.3f} = ½ · ½ / 2")
    0.125 = ½ · ½ / 2
    """
    if not 0 < at < 1:
        raise ValueError(f"at must lie between 0 and 1, got {at}")
    if n_nodes < 1:
        raise ValueError(f"n_nodes must be at least 1, got {n_nodes}")
    x, w = np.polynomial.legendre.leggauss(n_nodes)
    unit, weight = (x + 1) / 2, w / 2
    nodes = np.concatenate([at * unit, at + (1 - at) * unit])
    weights = np.concatenate([at * weight, (1 - at) * weight])
    return nodes, weights * np.minimum(at, nodes) * (1 - np.maximum(at, nodes))


def chord_integral(
    loss: Callable[[PyTree], Float[Array, ""]], start: PyTree, end: PyTree, *, at: float = 0.5, n_nodes: int = 16
) -> ChordIntegral:
    """The height of the line over the chord of its end values at t = `at`, from curvature alone.

        l(t) - (1-t) l(0) - t l(1) = - ∫₀¹ G(t, s) dᵀ H(θ(s)) d ds

    Exact for a smooth loss, to the error of the quadrature; wrong for networks with kinks, whose curvature is not seen.

    **Arguments:** `loss`, `start`, `end`: as for [`line_loss`][gradatim.landscape.line_loss]; `at` in (0, 1); `n_nodes`: nodes on either
    side of `at`, five evaluations of the loss each.

    **Raises:** `ValueError` for ends that do not fit, or as [`quadrature`][gradatim.landscape.quadrature].

    >>> found = chord_integral(lambda w: 0.5 * (w[0] * w[1] - 1) ** 2, jnp.ones(2), -jnp.ones(2))
    >>> print(f"{found.height:.4f}, at most {found.bound:.1f}")
    0.5000, at most 1.0
    """
    nodes, weights = quadrature(at, n_nodes=n_nodes)
    t = jnp.asarray(nodes, _scalars(start)[0].dtype)
    curvature = chord_curvature(loss, start, end, t)
    return ChordIntegral(-jnp.asarray(weights, curvature.dtype) @ curvature, t, curvature)


def predict_barrier(
    loss: Callable[[PyTree], Float[Array, ""]],
    start: PyTree,
    end: PyTree,
    *,
    method: Method,
    fork: PyTree | None = None,
    n_nodes: int = 16,
) -> Float[Array, ""]:
    """The height at the middle of the line, from curvature at some points of it.

        "integral":              - ∫ G(½, s) dᵀH(θ(s))d ds                       exact for a smooth loss
        "midpoint":              - ⅛ dᵀ H(θ(½)) d                                exact if the curvature is the same all along
        "fork":                  - ⅛ dᵀ H(fork) d                                the same, from where the two runs parted
        "endpoints":             1/16 dᵀ (H₀ + H₁) d                             each end a bowl with its bottom there, up to the middle
        "endpoints_with_slopes": the same + ¼ (g₀ - g₁)ᵀ d                       each end a bowl; exact for a quadratic loss

    "midpoint" and "fork" take the curvature of the ridge for that of the whole chord and overestimate a narrow one; "endpoints" is no
    bound to either side. All but the integral are equal or exact for a quadratic loss, the plain "endpoints" apart.

    **Arguments:** `loss`, `start`, `end`: as for [`line_loss`][gradatim.landscape.line_loss]; `fork`: the parameters at the fork, for
    that method; `n_nodes`: for the integral, on either side of the middle.

    **Raises:** `ValueError` for a method that does not exist, a missing or an unused `fork`, or ends that do not fit.

    >>> loss = lambda w: 0.5 * (w[0] * w[1] - 1) ** 2
    >>> for method in ("integral", "midpoint", "endpoints"):
    ...     print(f"{method}: {predict_barrier(loss, jnp.ones(2), -jnp.ones(2), method=method):.2f}")
    integral: 0.50
    midpoint: 1.00
    endpoints: 2.00
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if (fork is None) == (method == "fork"):
        raise ValueError(f"fork must be given for method 'fork' and for no other, got {'none' if fork is None else 'one'} for {method!r}")
    check_ends(start, end)
    if method == "integral":
        return chord_integral(loss, start, end, n_nodes=n_nodes).height
    if method == "fork":
        check_ends(start, fork)
        return -directional_derivatives(loss, fork, _difference(end, start)).curvature / 8
    dtype = _scalars(start)[0].dtype
    if method == "midpoint":
        return -chord_derivatives(loss, start, end, jnp.full((1,), 0.5, dtype)).curvature[0] / 8
    ends = chord_derivatives(loss, start, end, jnp.asarray([0, 1], dtype))
    bowls = jnp.sum(ends.curvature) / 16
    return bowls if method == "endpoints" else bowls + (ends.slope[0] - ends.slope[1]) / 4


def _difference(a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: x - y if is_weight(x) else x, a, b)


def _scalars(params: PyTree) -> tuple[Array, Array]:
    dtype = jnp.result_type(*filter(is_weight, jax.tree.leaves(params)))
    return jnp.zeros((), dtype), jnp.ones((), dtype)
