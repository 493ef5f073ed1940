"""Vorticity of an incompressible flow in a periodic plane: the equation as rows that are zero where it holds, and its solutions."""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from gradatim.numerics import PeriodicGrid

from .differences import first_difference


class VorticityTerms(NamedTuple):
    """What the equation needs of w, each linear in it."""

    t: Float[Array, "times nx ny ..."]  # ∂w/∂t
    x: Float[Array, "times nx ny ..."]  # ∂w/∂x
    y: Float[Array, "times nx ny ..."]  # ∂w/∂y
    laplacian: Float[Array, "times nx ny ..."]
    velocity_x: Float[Array, "times nx ny ..."]
    velocity_y: Float[Array, "times nx ny ..."]


class PlaneVorticity(eqx.Module):
    """Two-dimensional flow of constant density without forcing, as one equation for its vorticity.

        ∂w/∂t + v·∇w = ν ∇²w,     v = (∂ψ/∂y, -∂ψ/∂x),     -∇²ψ = w

    The mean of w, which a periodic flow cannot have, and that of v are zero. All terms are linear in w; the equation is quadratic in
    them. Space is differentiated by Fourier series, exactly for what the grid resolves; time by central differences, one-sided ones at both
    ends.

    Units: lengths and times of any choice, w in 1/time, ν in length²/time.

    **Arguments:** `viscosity` ν, at least 0: 1 over the Reynolds number in a box of side 1.

    **Raises:** `ValueError` for a negative viscosity; when called, for fields that are not of the grid, or fewer than 3 times.

    >>> grid = PeriodicGrid((8, 8), 1.0)
    >>> x, y = (2 * jnp.pi * r for r in grid.positions())
    >>> w = jnp.stack([jnp.cos(x) * jnp.cos(y)] * 3)
    >>> terms = PlaneVorticity(viscosity=0.0).terms(w, grid, dt=0.1)
    >>> print(f"{jnp.abs(terms.velocity_x * terms.x + terms.velocity_y * terms.y).max():.3f}")
    0.000
    """

    viscosity: float = eqx.field(static=True, default=1e-4)

    def __check_init__(self) -> None:
        if not 0 <= self.viscosity < math.inf:
            raise ValueError(f"viscosity must be at least 0 and finite, got {self.viscosity}")

    def terms(self, w: Float[Array, "times nx ny *basis"], grid: PeriodicGrid, *, dt: float) -> VorticityTerms:
        """Of a field, or of all basis functions along further axes, at times `dt` apart."""
        if w.shape[1:3] != grid.shape or w.shape[0] < 3:
            raise ValueError(f"w must have at least 3 times and the grid's {grid.shape} places first, got shape {w.shape}")
        # Places last, for the transforms.
        spectrum = grid.forward(jnp.moveaxis(w, (1, 2), (-2, -1)))
        factors = jnp.expand_dims(_factors(grid), tuple(range(1, spectrum.ndim - 1)))
        found = jnp.moveaxis(grid.backward(factors * spectrum[None]), (-2, -1), (2, 3))
        return VorticityTerms(first_difference(w, dt, axis=0), *found)

    def equation(self, fields: VorticityTerms, time: float) -> Float[Array, "*points"]:
        """`time` · (∂w/∂t + v·∇w - ν ∇²w)."""
        carried = fields.velocity_x * fields.x + fields.velocity_y * fields.y
        return time * (fields.t + carried - self.viscosity * fields.laplacian)


def _factors(grid: PeriodicGrid) -> Complex[Array, "5 nx half"]:
    """What makes, of the spectrum of w, those of its two derivatives, of its Laplacian and of both velocities."""
    along_x, along_y = (1j * jnp.broadcast_to(k, grid.spectrum_shape) for k in grid.derivative_wavenumbers())
    inverse = grid.inverse_laplacian()
    return jnp.stack([along_x, along_y, grid.laplacian().astype(along_x.dtype), -along_y * inverse, along_x * inverse])


def random_vorticity(key: PRNGKeyArray, grid: PeriodicGrid, *, length_scale: float = 0.8) -> Float[Array, "nx ny"]:
    """A Gaussian random field of mean 0 and mean square 1, smooth and periodic.

        ⟨w(r) w(r + d)⟩ ∝ exp(-2 Σᵢ sin²(π dᵢ/Lᵢ)/ℓ²) without its mean

    whose Fourier coefficients are products of the modified Bessel functions exp(-1/ℓ²) I_k(1/ℓ²); the mean square is that over draws.

    **Arguments:** `grid` in two dimensions; `length_scale` ℓ > 0, in units of the sides.

    **Raises:** `ValueError` for a grid of another dimension, or a length scale that is not positive.

    >>> grid = PeriodicGrid((16, 16), 1.0)
    >>> print(f"{abs(random_vorticity(jax.random.key(0), grid).mean()):.3f}")
    0.000
    """
    if grid.dim != 2:
        raise ValueError(f"grid must have two dimensions, got {grid.dim}")
    if not 0 < length_scale < math.inf:
        raise ValueError(f"length_scale must be positive and finite, got {length_scale}")
    # Indices of the modes, in NumPy, so that it may be drawn inside a compiled function.
    power = np.outer(*(scipy.special.ive(np.abs(np.fft.fftfreq(n, 1 / n)), length_scale**-2) for n in grid.shape))
    power[0, 0] = 0.0
    power = power[:, : grid.spectrum_shape[1]] / power.sum()
    return grid.backward(grid.n_cells * jnp.sqrt(jnp.asarray(power)) * grid.white_noise(key))


def reference_vorticity(
    initial: Float[Array, "nx ny"], grid: PeriodicGrid, *, viscosity: float, horizon: float, n_snapshots: int, steps_between: int
) -> Float[Array, "snapshots nx ny"]:
    """The solution of [`PlaneVorticity`][gradatim.sciml.PlaneVorticity] at `n_snapshots` + 1 equally spaced times from 0 to `horizon`.

    Pseudo-spectral, products without aliases (two-thirds rule), fourth-order Runge–Kutta in the variables in which friction is gone
    (Lawson 1967): friction costs no small steps, and a flow that does not carry itself decays exactly.

    **Arguments:** `initial`: of mean 0, resolved by the grid; `steps_between`: from one time to the next, each shorter than a cell's
    crossing time.

    **Raises:** `ValueError` for an initial field that is not of the grid, or numbers below 1.

    >>> grid = PeriodicGrid((16, 16), 1.0)
    >>> wave = jnp.cos(2 * jnp.pi * grid.positions()[0]) + jnp.zeros((16, 16))
    >>> later = reference_vorticity(wave, grid, viscosity=0.1, horizon=0.5, n_snapshots=1, steps_between=2)[-1]
    >>> print(f"{later.max():.4f} {jnp.exp(-0.1 * 4 * jnp.pi**2 * 0.5):.4f}")
    0.1389 0.1389
    """
    if initial.shape != grid.shape:
        raise ValueError(f"initial must have the grid's shape {grid.shape}, got {initial.shape}")
    for name, number in (("n_snapshots", n_snapshots), ("steps_between", steps_between)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    keep, factors = grid.dealiased(), _factors(grid)
    dt = horizon / (n_snapshots * steps_between)
    half = jnp.exp(viscosity * grid.laplacian() * dt / 2)

    def force(w: Array) -> Array:
        x, y, _, velocity_x, velocity_y = grid.backward(factors * w[None])
        return jnp.where(keep, -grid.forward(velocity_x * x + velocity_y * y), 0)

    def step(w: Array, _: None) -> tuple[Array, None]:
        a = force(w)
        b = force(half * (w + dt / 2 * a))
        c = force(half * w + dt / 2 * b)
        d = force(half * (half * w + dt * c))
        return half * (half * (w + dt / 6 * a) + dt / 3 * (b + c)) + dt / 6 * d, None

    def snapshot(w: Array, _: None) -> tuple[Array, Array]:
        w, _ = jax.lax.scan(step, w, length=steps_between)
        return w, w

    first = jnp.where(keep, grid.forward(initial), 0)
    _, later = jax.lax.scan(snapshot, first, length=n_snapshots)
    return jnp.concatenate([initial[None], grid.backward(later)])
