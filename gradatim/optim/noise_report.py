"""How noisy each layer's gradient is, in the dual of its norm: what LANTON (arXiv:2510.14009) adapts to, measured at fixed weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradatim.optim.layer_norms import DualNorm, Groups, layer_dual_norms, layers_of, measure


class NoiseReport(eqx.Module):
    """σ of every layer at fixed weights, with standard errors."""

    noise: PyTree[Float[Array, ...]]
    "σₗ = (½ E ‖Gₗ - G'ₗ‖_*²)^½, the unit of LANTON's α."
    standard_error: PyTree[Float[Array, ...]]
    labels: tuple[str, ...] = eqx.field(static=True)
    "The group of every leaf."
    n_pairs: int = eqx.field(static=True)

    def of(self, group: str) -> Float[Array, "layers 2"]:
        """σ and its standard error for every layer of a group, in the order of the tree's leaves.

        **Raises:** `ValueError` if there is none.
        """
        rows = [
            jnp.stack([jnp.ravel(value), jnp.ravel(error)], -1)
            for value, error, label in zip(jax.tree.leaves(self.noise), jax.tree.leaves(self.standard_error), self.labels, strict=True)
            if label == group
        ]
        if not rows:
            raise ValueError(f"group must be one of {', '.join(sorted(set(self.labels)))}, got {group!r}")
        return jnp.concatenate(rows)

    def spread(self, group: str) -> Float[Array, ""]:
        """The largest σ of a group over its smallest."""
        noise = self.of(group)[:, 0]
        return noise.max() / noise.min()

    def thresholds(self) -> dict[str, Float[Array, ""]]:
        """α of every group for LANTON, where the paper leaves the user without one: the median over its layers of √2 σ.

        That is what √H settles at, so that half of a group is slowed by more than 2^-¼ and half by less.
        """
        return {group: jnp.sqrt(2.0) * jnp.median(self.of(group)[:, 0]) for group in sorted(set(self.labels))}


def noise_report(
    loss: Callable[[Any, Any], Array],
    params: Any,
    batches: Any,
    groups: Groups,
    dual_norms: Mapping[str, DualNorm] | None = None,
    *,
    axes: Any = None,
) -> NoiseReport:
    """The noise of every layer's gradient from pairs of independent batches at the same weights.

        σₗ² = ½ E ‖∇ₗ L(θ; ξ) - ∇ₗ L(θ; ξ')‖_*²

    for which no true gradient is needed, so that nothing is biased by its estimate; Gaussian noise has E ‖∇ₗ L(θ; ξ) - ∇ₗ L(θ)‖_*² = σₗ².
    Gradients are those of the whole loss, all layers on one batch.

    **Arguments:** `loss(params, batch)`: a scalar; `params`: a model, whose floating-point arrays are meant; `batches`: any tree of arrays
    whose first axis is an even number of batches, at least 4, which are taken in pairs; `groups`, `dual_norms`, `axes`: as in
    [`noise_adaptive`][gradatim.optim.noise_adaptive], by default with exact singular values.

    **Raises:** `ValueError` for an odd number of batches, or fewer than 4.

    >>> loss = lambda w, batch: (w * batch).sum()
    >>> batches = jax.random.normal(jax.random.key(0), (400, 25))
    >>> report = noise_report(loss, jnp.zeros(25), batches, "vector")
    >>> print(f"within a tenth of √d ‖noise‖ = 25: {abs(report.noise / 25 - 1) < 0.1}")
    within a tenth of √d ‖noise‖ = 25: True

    **Returns:** a [`NoiseReport`][gradatim.optim.NoiseReport], whose `thresholds()` are a choice of LANTON's α.
    """
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(batches)}
    (n,) = lengths if len(lengths) == 1 else (0,)
    if n < 4 or n % 2:
        raise ValueError(f"batches must have a first axis of an even length of at least 4, got {sorted(lengths)}")
    norms = dict(dual_norms or layer_dual_norms("svd"))
    arrays = eqx.filter(params, eqx.is_inexact_array)
    layers, structure = layers_of(arrays, groups, axes, {group: norm.n_axes for group, norm in norms.items()})
    key = jax.random.key(0)  # used by random estimates of a norm alone

    def squares(pair: Any) -> list[Any]:
        one, other = (
            structure.flatten_up_to(eqx.filter_grad(loss)(params, jax.tree.map(lambda array, i=i: array[i], pair))) for i in (0, 1)
        )
        differences = [None if layer is None else a - b for layer, a, b in zip(layers, one, other, strict=True)]
        return [() if distance is None else distance**2 / 2 for distance in measure(layers, norms, differences, key)]

    pairs = jax.tree.map(lambda array: array.reshape(n // 2, 2, *array.shape[1:]), batches)
    samples = jax.lax.map(squares, pairs)
    noise = [jax.tree.map(lambda s: jnp.sqrt(s.mean(0)), sample) for sample in samples]
    # d√x = dx/(2√x)
    errors = [
        jax.tree.map(lambda s: s.std(0, ddof=1) / jnp.sqrt(n / 2) / jnp.maximum(2 * jnp.sqrt(s.mean(0)), jnp.finfo(s.dtype).tiny), sample)
        for sample in samples
    ]
    labels = tuple(layer.group for layer in layers if layer is not None)
    return NoiseReport(structure.unflatten(noise), structure.unflatten(errors), labels, n // 2)
