"""Convection and diffusion on a circle, as a problem for networks: speed, diffusivity and initial state."""

from __future__ import annotations

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

Scalar = Float[Array, ""]
Coefficient = Callable[[Scalar, Scalar, Scalar], Scalar]
"Of place, time and state."


class Affine(eqx.Module):
    """The coefficient a + b w of a state w: a number (b = 0), or the state itself (a = 0, b = 1). Both are leaves, so one program serves
    all of them.
    """

    constant: Float[Array, "*batch"]
    slope: Float[Array, "*batch"]

    def __init__(self, constant: float | Float[Array, "*batch"], slope: float | Float[Array, "*batch"] = 0.0):
        self.constant, self.slope = jnp.asarray(constant, float), jnp.asarray(slope, float)

    def __call__(self, x: Scalar, t: Scalar, w: Scalar) -> Scalar:
        """The coefficient."""
        return self.constant.astype(w.dtype) + self.slope.astype(w.dtype) * w


class Raised(eqx.Module):
    """A profile with a constant added: w₀(x) + c."""

    profile: Callable[[Scalar], Scalar]
    by: Float[Array, "*batch"]

    def __init__(self, profile: Callable[[Scalar], Scalar], by: float | Float[Array, "*batch"]):
        self.profile, self.by = profile, jnp.asarray(by, float)

    def __call__(self, x: Scalar) -> Scalar:
        """The profile and the constant."""
        return self.profile(x) + self.by.astype(x.dtype)


class Sampled(eqx.Module):
    """A periodic profile through equally spaced samples, by trigonometric interpolation.

    **Arguments:** `samples`: an odd number of values at x = 0, P/n, 2P/n, …; `period`: P.

    **Raises:** `ValueError` for an even number, whose highest wave has no derivative that is real and its own.

    >>> profile = Sampled(jnp.sin(2 * jnp.pi * jnp.arange(9) / 9), 2 * math.pi)
    >>> print(f"{profile(jnp.array(1.0)):.5f}")
    0.84147
    """

    samples: Float[Array, "*batch n"]
    period: float = eqx.field(static=True)

    def __init__(self, samples: Float[Array, "*batch n"], period: float):
        if samples.shape[-1] % 2 == 0:
            raise ValueError(f"samples must be odd in number, got {samples.shape[-1]}")
        self.samples, self.period = samples, period

    def __call__(self, x: Scalar) -> Scalar:
        """The value between the samples: Σⱼ wⱼ D(x - xⱼ) with Dirichlet's kernel D written as a sum of cosines."""
        n = self.samples.shape[-1]
        angle = 2 * jnp.pi / self.period * x - 2 * jnp.pi / n * jnp.arange(n, dtype=x.dtype)
        waves = jnp.arange(1, n // 2 + 1, dtype=x.dtype)
        kernel = (1 + 2 * jnp.cos(waves[:, None] * angle[None, :]).sum(axis=0)) / n
        return kernel @ self.samples


class ConvectionDiffusion(eqx.Module):
    """A state w that is carried along and spreads on a circle, as in Mojgani, Balajewicz and Hassanzadeh (arXiv:2205.02902).

        ∂w/∂t + f(x, t, w) ∂w/∂x = g(x, t, w) ∂²w/∂x²,     w(x + P, t) = w(x, t),     w(x, 0) = w₀(x)

    Along the characteristics X(ξ, t) that leave the labels ξ with the speed f it reads

        ∂X/∂t = f(X, t, W),     ∂W/∂t = g(X, t, W) ∂²w/∂x²  at (X, t),     X(ξ, 0) = ξ,     W(ξ, t) = w(X(ξ, t), t).

    **Arguments:** `speed`: f, a number or a function of three scalars; `diffusivity`: g ≥ 0, likewise; `initial`: w₀ of a scalar, of the
    period; `period`: P, positive. Functions that are equinox Modules may hold arrays: these stay as they are while a network is trained,
    and a batch of problems is such a Module with a first axis more.

    **Raises:** `ValueError` for a function whose value is no scalar, a negative diffusivity, a period that is not positive, or an initial
    state that is not of that period.

    >>> problem = ConvectionDiffusion(30.0, 0.01, jnp.sin, 2 * math.pi)
    >>> x, t, w = jnp.array(0.5), jnp.array(0.0), jnp.array(2.0)
    >>> print(f"{problem.speed(x, t, w):.0f} {problem.diffusivity(x, t, w):.2f} {problem.initial(x):.3f}")
    30 0.01 0.479
    """

    speed: Coefficient
    diffusivity: Coefficient
    initial: Callable[[Scalar], Scalar]
    period: float = eqx.field(static=True)

    def __init__(
        self,
        speed: Coefficient | float | Float[Array, ""],
        diffusivity: Coefficient | float | Float[Array, ""],
        initial: Callable[[Scalar], Scalar],
        period: float,
    ):
        if not 0 < period < math.inf:
            raise ValueError(f"period must be positive and finite, got {period}")
        self.speed, self.diffusivity = (f if callable(f) else Affine(f) for f in (speed, diffusivity))
        self.initial, self.period = initial, float(period)
        if isinstance(self.diffusivity, Affine) and is_known(*jax.tree.leaves(self.diffusivity)):
            # By numpy, which looks at known numbers in a traced function as well.
            least = float(np.asarray(self.diffusivity.constant).min())
            if not least >= 0 and not np.asarray(self.diffusivity.slope).any():
                raise ValueError(f"diffusivity must be at least 0, got {least}")
        self._check_scalars()

    def _check_scalars(self) -> None:
        point = jax.ShapeDtypeStruct((), jnp.result_type(float))
        for name, function, n in (("speed", self.speed, 3), ("diffusivity", self.diffusivity, 3), ("initial", self.initial, 1)):
            shape = jax.eval_shape(function, *(point,) * n).shape
            if shape != ():
                raise ValueError(
                    f"{name} must return a scalar for scalar arguments, got shape {shape}; a batch is made with eqx.filter_vmap"
                )
        ends = [self.initial(jnp.asarray(x, float)) for x in (0.0, self.period)]
        if is_known(*ends) and not abs(float(ends[0] - ends[1])) <= 1e-3 * (1 + abs(float(ends[0]))):
            raise ValueError(f"initial must have the period {self.period:g}, got {ends[0]:g} at 0 and {ends[1]:g} one period on")


def burgers(
    diffusivity: float | Float[Array, ""], initial: Callable[[Scalar], Scalar], *, mean: float | Float[Array, ""] = 0.0
) -> ConvectionDiffusion:
    """Viscous Burgers on a circle of 2π, ∂w/∂t + w ∂w/∂x = ν ∂²w/∂x², from a profile raised by `mean`, at which its shock then travels.

    >>> print(burgers(0.01, jnp.sin, mean=10.0).initial(jnp.array(0.0)))
    10.0
    """
    return ConvectionDiffusion(Affine(0.0, 1.0), diffusivity, Raised(initial, mean), 2 * math.pi)
