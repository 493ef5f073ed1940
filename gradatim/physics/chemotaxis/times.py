"""Times that resolve a layer of width ε at the start, and everything after it."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

LAYER = 10.0
"Width that is resolved, in units of ε: e⁻¹⁰ of the layer is left at its end."


def layer_times(
    t_end: Float[Array, ""] | float, eps: Float[Array, ""] | float, *, n_layer: int = 400, n_after: int = 800
) -> Float[Array, " times"]:
    """Times from 0 to `t_end`: `n_layer` steps to 10 ε at the squares of equal steps, then `n_after` that grow with the time passed.

        t = 10 ε (i / n_layer)²,   i = 0 … n_layer

    Waves of Laplacian eigenvalue -m relax m times faster than the mean, and the squares resolve them too: of the layer up to m = 40,
    n_layer = 400 misses half a per cent. A norm over time needs n_layer ≥ 100; a uniform grid that steps over the layer sees errors of
    another order. Should 10 ε pass half of `t_end`, the layer ends there. Differentiable in both times.

    **Raises:** `ValueError` for a time or an ε that is not positive, or fewer than one step.

    >>> times = layer_times(1.0, 0.01, n_layer=4, n_after=2)
    >>> [round(float(t), 3) for t in times]
    [0.0, 0.006, 0.025, 0.056, 0.1, 0.316, 1.0]
    """
    for name, number in (("t_end", t_end), ("eps", eps)):
        if is_known(number) and not float(number) > 0:
            raise ValueError(f"{name} must be positive, got {number}")
    for name, count in (("n_layer", n_layer), ("n_after", n_after)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    end = jnp.asarray(t_end, jnp.result_type(float, t_end))
    layer = jnp.minimum(LAYER * eps, end / 2).astype(end.dtype)
    early = layer * jnp.linspace(0, 1, n_layer + 1, dtype=end.dtype) ** 2
    late = layer * (end / layer) ** jnp.linspace(0, 1, n_after + 1, dtype=end.dtype)[1:]
    return jnp.concatenate([early, late])
