"""What a node learns when all the pairs that it sees have one answer (Tian, arXiv:2509.21519, theorem 5).

With pair g seen with probability p[g], a node of unit length climbs Σ p[g] σ(u[g] + v[g⁻¹h]), and since each weight stands in one pair
only, both halves of a sum s[g] are equal and Σ s² = 2. For σ(x) = max(0, x)^q the maximiser depends on σ'(x)/x = q x^(q - 2): where that
does not fall (q ≥ 2) a single pair is remembered, where it falls (q < 2) all are, the frequent ones more.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known


def memorization_solution(probabilities: Float[Array, " pairs"], power: float | Float[Array, ""] = 2.0) -> Float[Array, " pairs"]:
    """The sums s[g] that maximise Σ p[g] max(0, s[g])^q under Σ s² = 2; the weights of a pair are s/2 each.

        q ≥ 2:  √2 at the most probable pair, 0 elsewhere        q < 2:  s ∝ p^(1/(2 - q)),  for a rectifier (q = 1) s ∝ p

    For q = 2 and pairs that are equally probable every direction among them is a maximiser; the first pair is given.

    **Arguments:** `probabilities`: not negative, not all 0; `power`: q ≥ 1.

    **Raises:** `ValueError` for a number out of its range.

    >>> p = jnp.array([0.5, 0.3, 0.2])
    >>> for power in (2.0, 1.0):
    ...     print(" ".join(f"{s:.3f}" for s in memorization_solution(p, power)))
    1.414 0.000 0.000
    1.147 0.688 0.459
    """
    if is_known(power) and not power >= 1:
        raise ValueError(f"power must be at least 1, got {power}")
    if is_known(probabilities) and not ((np.asarray(probabilities) >= 0).all() and np.asarray(probabilities).any()):
        raise ValueError(f"probabilities must not be negative, and not all 0, got {probabilities}")
    focused = (jnp.arange(len(probabilities)) == jnp.argmax(probabilities)).astype(probabilities.dtype)
    # Above 2 the exponent is not looked at, but must be finite for its derivative.
    share = (probabilities / probabilities.max()) ** (1 / jnp.where(power < 2, 2 - power, 1))
    return jnp.sqrt(2.0) * jnp.where(power >= 2, focused, share / jnp.linalg.norm(share))
