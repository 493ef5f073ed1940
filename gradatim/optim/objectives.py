"""One-dimensional objectives with traps for optimisers, and where their minima lie: F1, F2 and F3 of diffGrad (arXiv:1909.11015)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Objective:
    """A function of one real number, its minima (the global one first), and the interval that it is usually searched on.

    Call it as the function; it is element-wise, `jax.grad`-able, and at a kink its derivative is that of the left piece.

    >>> import jax, jax.numpy as jnp
    >>> print(two_parabolas.minima, jax.grad(two_parabolas)(jnp.array(0.0)))
    (-0.3, 0.2) 0.6
    """

    function: Callable[[Float[Array, "*batch"]], Float[Array, "*batch"]]
    minima: tuple[float, ...]
    interval: tuple[float, float] = (-1.0, 1.0)

    def __call__(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """The value at `x`."""
        return self.function(x)


def _two_parabolas(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    return jnp.where(x <= 0, (x + 0.3) ** 2, (x - 0.2) ** 2 + 0.05)


def _ramp_to_waves(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    return jnp.where(x <= -0.9, -40 * x - 35.15, x**3 + x * jnp.sin(8 * x) + 0.85)


def _notched_valley(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    left = jnp.where(x <= -0.5, x**2, jnp.where(x <= -0.4, x + 0.75, -7 * x / 8))
    right = jnp.where(x <= 0.4, 7 * x / 8, jnp.where(x <= 0.5, 0.75 - x, x**2))
    return jnp.where(x <= 0, left, right)


two_parabolas = Objective(_two_parabolas, (-0.3, 0.2))
"""F1: (x + 0.3)² for x ≤ 0, (x - 0.2)² + 0.05 beyond. Two valleys, the one on the left deeper.

Read off the gradients in the authors' notebook."""
ramp_to_waves = Objective(_ramp_to_waves, (-0.6429185989152617, 0.5880534760792461, 0.0))
"""F2: -40 x - 35.15 for x ≤ -0.9, x³ + x sin 8x + 0.85 beyond. A steep ramp down to the deepest of three valleys.

The closed form is reconstructed: the derivative in the authors' notebook lacks the factor 8 of 8 x cos 8x, this one has it."""
notched_valley = Objective(_notched_valley, (0.0, -0.5, 0.5))
"""F3: 7|x|/8 up to |x| = 0.4, 0.75 - |x| up to 0.5, x² beyond. A sharp valley with a notch on either slope.

Read off the gradients in the authors' notebook."""
