"""A read-out that learns on fixed features, and the gradient that it sends back to them (Tian, arXiv:2509.21519, lemma 1 and theorem 1).

With features F̃ and targets Ỹ, both of zero mean over the samples, and J = ½ ‖Ỹ - βF̃V‖² + ½ η ‖V‖²,

    dV/dt = βF̃ᵀ(Ỹ - βF̃V) - ηV            V(t) = V* + exp(-At) (V₀ - V*),     A = β²F̃ᵀF̃ + ηI,     V* = β A⁻¹F̃ᵀỸ
    G(t) = -∂J/∂F = β (Ỹ - βF̃V) Vᵀ        G ≈ β² t ỸỸᵀF̃ at first,     G* = β η (β²F̃F̃ᵀ + ηI)⁻¹ Ỹ V*ᵀ in the end

for every time at once, from one eigendecomposition. The gradient grows with the read-out and falls with its error: to a size of order η,
and without decay to nothing if the features can express the targets. The article gives the two ends of G; that a factor β of the output
divides the last one by β² is true for decay → 0 and such targets alone, in general V*(β, η) = V*(1, η/β²)/β.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradatim.numerics import LeastSquares, least_squares
from gradatim.numerics.checks import is_known
from gradatim.numerics.ridge import check_not_negative, flow_filter

Number = float | Float[Array, ""]


class LazyReadout(eqx.Module):
    """Gradient flow of a read-out on fixed features; made by [`lazy_readout`][gradatim.landscape.lazy_readout]."""

    problem: LeastSquares
    "Its inputs are the centred features times the output scale, its targets the centred ones."
    start: Float[Array, "nodes outputs"]
    decay: Float[Array, ""]
    output_scale: Float[Array, ""]

    def weights(self, time: float | Float[Array, "*path"]) -> Float[Array, "*path nodes outputs"]:
        """V(t), for each time t ≥ 0; ∞ is the end.

        **Raises:** `ValueError` for a negative time.
        """
        check_not_negative("time", time)
        return _weights(self, jnp.asarray(time, self.start.dtype))

    def feature_gradient(self, time: float | Float[Array, "*path"]) -> Float[Array, "*path n nodes"]:
        """G(t) = -∂J/∂F; as large as the features, for each time.

        **Raises:** `ValueError` for a negative time.
        """
        check_not_negative("time", time)
        return _gradient(self, jnp.asarray(time, self.start.dtype))

    @property
    def rates(self) -> Float[Array, " smaller"]:
        """The rates at which the weights come to their end: the eigenvalues of A, ascending; not those that are η for want of samples."""
        return self.problem.eigenvalues + self.decay


@jax.jit
def _weights(lazy: LazyReadout, time: Array) -> Array:
    problem, at = lazy.problem, time[..., None, None]
    # What is learned from zero, and what is left of the start: the flow is linear in both.
    learned = problem.filtered(flow_filter(lazy.rates, time)).weights
    kept = LeastSquares(problem.inputs, jnp.zeros_like(problem.targets), problem.eigenvalues, problem.vectors)
    left = kept.filtered(flow_filter(problem.eigenvalues, time), lazy.start).weights
    # Without decay nothing fades, not even in infinite time.
    fading = jnp.exp(-jnp.where(lazy.decay > 0, lazy.decay * at, 0))
    return learned + fading * left


@jax.jit
def _gradient(lazy: LazyReadout, time: Array) -> Array:
    V = _weights(lazy, time)
    X, Y = lazy.problem.inputs, lazy.problem.targets
    expand = (1,) * (V.ndim - 2)
    error = Y.reshape(*expand, *Y.shape) - X.reshape(*expand, *X.shape) @ V
    return lazy.output_scale * error @ V.swapaxes(-1, -2)


def lazy_readout(
    features: Float[Array, "n nodes"],
    targets: Float[Array, "n outputs"],
    *,
    decay: Number,
    start: Float[Array, "nodes outputs"] | None = None,
    output_scale: Number = 1.0,
) -> LazyReadout:
    """The gradient flow of a read-out with weight decay; features and targets are centred here.

    **Arguments:** `features`, `targets`: one sample a row; `decay`: η ≥ 0; `start`: V₀, by default 0; `output_scale`: β > 0, a constant
    factor of the network's output. Double precision, where late times or small eigenvalues matter.

    **Raises:** `ValueError` for a number out of its range or a start of another shape.

    >>> lazy = lazy_readout(jnp.array([[1.0], [-1.0]]), jnp.array([[1.0], [-1.0]]), decay=0.5)
    >>> sizes = jnp.linalg.norm(lazy.feature_gradient(jnp.array([0.0, 0.1, 0.3, jnp.inf])), axis=(1, 2))
    >>> print(" ".join(f"{size:.3f}" for size in sizes), "and at last √2 · 0.2 · 0.8")
    0.000 0.206 0.345 0.226 and at last √2 · 0.2 · 0.8
    """
    check_not_negative("decay", decay)
    if is_known(output_scale) and not output_scale > 0:
        raise ValueError(f"output_scale must be positive, got {output_scale}")
    if targets.shape[0] != features.shape[0]:
        raise ValueError(f"targets must have {features.shape[0]} rows, one a sample, got shape {targets.shape}")
    shape = (features.shape[1], targets.shape[1])
    if start is not None and start.shape != shape:
        raise ValueError(f"start must have shape {shape}, nodes by outputs, got {start.shape}")
    return _begun(features, targets, decay, start, output_scale)


@jax.jit
def _begun(features: Array, targets: Array, decay: Number, start: Array | None, output_scale: Number) -> LazyReadout:
    eta, scale = (jnp.asarray(number, features.dtype) for number in (decay, output_scale))
    problem = least_squares(scale * centred(features), centred(targets))
    V0 = jnp.zeros((features.shape[1], targets.shape[1]), features.dtype) if start is None else start
    return LazyReadout(problem, V0, eta, scale)


def centred(rows: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """Less their mean over the samples: (I - 11ᵀ/n) rows.

    Training centres outputs over the classes instead, which on some of the pairs is not the same.
    """
    return rows - rows.mean(axis=0, keepdims=True)
