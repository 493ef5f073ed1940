"""Reference solutions of convection problems on a circle by Fourier series, with their characteristics."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradatim.numerics import PeriodicGrid


class BurgersReference(NamedTuple):
    """Fields and characteristics at equally spaced times from 0 on."""

    t: Float[Array, " times"]
    field: Float[Array, "times cells"]
    paths: Float[Array, "times labels"]
    "X(ξ, t), not wrapped into one period."
    jacobian: Float[Array, "times labels"]
    "∂X/∂ξ."


def reference_convection_diffusion(
    initial: Float[Array, " cells"],
    t: Float[Array, " times"],
    *,
    speed: float | Float[Array, ""],
    diffusivity: float | Float[Array, ""],
    period: float = 2 * math.pi,
) -> Float[Array, "times cells"]:
    """The solution of ∂w/∂t + c ∂w/∂x = ν ∂²w/∂x² from equally spaced samples: each Fourier coefficient times exp(-(ν k² + i c k) t).

    Exact for what the samples resolve.

    >>> x = jnp.linspace(0, 2 * jnp.pi, 16, endpoint=False)
    >>> field = reference_convection_diffusion(jnp.sin(x), jnp.array([0.5]), speed=3.0, diffusivity=0.1)
    >>> print(f"{jnp.abs(field[0] - jnp.exp(-0.05) * jnp.sin(x - 1.5)).max():.5f}")
    0.00000
    """
    grid = PeriodicGrid(initial.shape, period)
    (odd,), decay = grid.derivative_wavenumbers(), diffusivity * grid.squared_wavenumber()
    rate = jax.lax.complex(decay, speed * odd)
    return grid.backward(jnp.exp(-rate[None, :] * t[:, None]) * grid.forward(initial)[None])


def reference_burgers(
    initial: Float[Array, " cells"],
    labels: Float[Array, " labels"],
    *,
    diffusivity: float | Float[Array, ""],
    horizon: float | Float[Array, ""],
    n_snapshots: int = 100,
    steps_between: int = 5,
    period: float = 2 * math.pi,
) -> BurgersReference:
    """The solution of ∂w/∂t + w ∂w/∂x = ν ∂²w/∂x² from equally spaced samples, and the paths dX/dt = w(X, t) that leave `labels`.

    Pseudo-spectral, products without aliases (two-thirds rule), fourth-order Runge–Kutta in the variables in which diffusion and the
    mean's convection are gone (Lawson 1967): a mean c therefore costs nothing, and w_c(x, t) = w₀(x - c t, t) + c holds to round-off. Paths
    and their ∂X/∂ξ, which grows at the rate ∂w/∂x, go through the same four stages.

    **Arguments:** `initial`: resolved by its cells, as the layer of width ν must be; `horizon`: last time; `n_snapshots`: after the first
    one, at time 0; `steps_between`: steps from one to the next, each about a fifth of a cell's crossing time or shorter.

    **Raises:** `ValueError` for fewer than one snapshot or step.

    >>> x = jnp.linspace(0, 2 * jnp.pi, 64, endpoint=False)
    >>> reference = reference_burgers(jnp.sin(x), x[:1], diffusivity=0.1, horizon=1.0, n_snapshots=4)
    >>> print(reference.field.shape, f"{reference.paths[-1, 0]:.3f}")
    (5, 64) 0.000
    """
    for name, number in (("n_snapshots", n_snapshots), ("steps_between", steps_between)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    grid = PeriodicGrid(initial.shape, period)
    (odd,), decay = grid.derivative_wavenumbers(), diffusivity * grid.squared_wavenumber()
    mean, keep = initial.mean(), grid.dealiased()
    dt = jnp.asarray(horizon / (n_snapshots * steps_between), initial.dtype)
    half = jnp.exp(-jax.lax.complex(decay, mean * odd) * dt / 2)
    waves = grid.multiplicity() * keep / grid.n_cells

    def force(v: Array) -> Array:
        return jnp.where(keep, -0.5j * odd * grid.forward(grid.backward(v) ** 2), 0)

    def motion(v: Array, X: Array, J: Array) -> tuple[Array, Array]:
        """dX/dt, and dJ/dt = w_x J."""
        phases = jnp.exp(1j * X[:, None] * odd[None, :])
        both = phases @ jnp.stack([waves * v, 1j * odd * waves * v], axis=-1)
        return mean + both[:, 0].real, both[:, 1].real * J

    def step(state: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        v, X, J = state
        a, (X_a, J_a) = force(v), motion(v, X, J)
        v_b = half * (v + dt / 2 * a)
        b, (X_b, J_b) = force(v_b), motion(v_b, X + dt / 2 * X_a, J + dt / 2 * J_a)
        v_c = half * v + dt / 2 * b
        c, (X_c, J_c) = force(v_c), motion(v_c, X + dt / 2 * X_b, J + dt / 2 * J_b)
        v_d = half * (half * v + dt * c)
        d, (X_d, J_d) = force(v_d), motion(v_d, X + dt * X_c, J + dt * J_c)
        v = half * (half * (v + dt / 6 * a) + dt / 3 * (b + c)) + dt / 6 * d
        return (v, X + dt / 6 * (X_a + 2 * (X_b + X_c) + X_d), J + dt / 6 * (J_a + 2 * (J_b + J_c) + J_d)), None

    def snapshot(state: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
        state, _ = jax.lax.scan(step, state, length=steps_between)
        return state, state

    first = jnp.where(keep, grid.forward(initial - mean), 0), labels, jnp.ones_like(labels)
    _, later = jax.lax.scan(snapshot, first, length=n_snapshots)
    v, X, J = (jnp.concatenate([start[None], rest]) for start, rest in zip(first, later, strict=True))
    t = jnp.linspace(0, 1, n_snapshots + 1, dtype=initial.dtype) * horizon
    return BurgersReference(t, mean + grid.backward(v), X, J)
