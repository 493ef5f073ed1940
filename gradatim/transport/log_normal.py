"""Log-normal densities: the noise that a multiplicative diffusion ends in, and the one family whose score it keeps in closed form."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .geometric_motion import AbstractGeometricMotion, Times, check_positive


class LogNormal(eqx.Module):
    """Independent coordinates with log x ~ N(m, s²): where reverse sampling starts, and an exact score to test it with.

    **Arguments:** `mean`, `std`: m and s > 0 of the logarithm, of the shape of one point.

    **Raises:** `ValueError` for an `std` that is not positive, where it is known.

    >>> from gradatim.transport import GeometricBrownianMotion
    >>> data = LogNormal(jnp.array([0.0]), jnp.array([0.24]))
    >>> noised = data.after(GeometricBrownianMotion(0.8), 1.0)
    >>> print(f"{noised.std[0]:.4f} {noised.score(jnp.array([1.0]))[0]:.1f}")  # √(0.24² + 0.8²), and -1 at the median
    0.8352 -1.0
    """

    mean: Float[Array, "*shape"]
    std: Float[Array, "*shape"]

    def __check_init__(self) -> None:
        if is_known(self.std) and not np.all(np.asarray(self.std) > 0):
            raise ValueError(f"std must be positive, got a least entry of {np.asarray(self.std).min()}")

    @classmethod
    def fit(cls, x: Float[Array, "n ..."], *, shared: tuple[int, ...] = ()) -> LogNormal:
        """By the mean and the standard deviation of log x over the first axis, for each coordinate by itself.

        What coordinates have in common is lost: fit to data whose noise has drowned it.

        **Arguments:** `x`: positive; `shared`: further axes of `x`, from 1, along which all coordinates have one mean and one deviation, as
        (1, 2) for the channels of images.

        **Raises:** `ValueError` for entries that are not positive or axes outside.
        """
        x = check_positive("x", x)
        if not all(1 <= axis < x.ndim for axis in shared):
            raise ValueError(f"shared must name axes from 1 to {x.ndim - 1}, got {shared}")
        y = jnp.log(x)
        over = (0, *shared)
        parts = (jnp.broadcast_to(part(y, axis=over, keepdims=True), (1, *x.shape[1:]))[0] for part in (jnp.mean, jnp.std))
        return cls(*parts)

    def after(self, motion: AbstractGeometricMotion, t: Times) -> LogNormal:
        """The density at one time of a motion that starts from this one."""
        shift, variance = (part.astype(self.std.dtype) for part in motion.log_transition(t))
        return LogNormal(self.mean + shift, jnp.sqrt(self.std**2 + variance))

    def score(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The score times the point, x ∘ ∇ log p(x) = -1 - (log x - m) / s²."""
        return -1 - (jnp.log(x) - self.mean) / self.std**2

    def log_density(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """Summed over the coordinates."""
        y = jnp.log(x)
        return -jnp.sum(((y - self.mean) / self.std) ** 2 / 2 + jnp.log(self.std) + y + jnp.log(2 * jnp.pi) / 2)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*shape"]:
        """One point; for many, `jax.vmap` over keys."""
        # Drawn flat: XLA compiles draws with several axes many times slower.
        noise = jax.random.normal(key, (self.mean.size,), self.mean.dtype).reshape(self.mean.shape)
        return jnp.exp(self.mean + self.std * noise)


class LogNormalScore(eqx.Module):
    """The score, times the point, of log-normal data at every time of a motion: `LogNormalScore(motion, data)(t, x)`.

    >>> from gradatim.transport import GeometricBrownianMotion
    >>> exact = LogNormalScore(GeometricBrownianMotion(0.8), LogNormal(jnp.zeros(1), 0.6 * jnp.ones(1)))
    >>> print(f"{exact(jnp.array(1.0), jnp.exp(jnp.ones(1)))[0]:.3f}")  # -1 - 1 / (0.36 + 0.64)
    -2.000
    """

    motion: AbstractGeometricMotion
    data: LogNormal

    def __call__(self, t: Float[Array, ""], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """At one time and one point."""
        return self.data.after(self.motion, t).score(x)
