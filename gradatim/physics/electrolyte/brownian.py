"""Brownian dynamics of ions in a uniform field, with forces through a mesh: the particles behind the field theory."""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from gradatim.numerics import PeriodicGrid
from gradatim.numerics.checks import is_known

from . import mesh
from .checks import Scalar, positive, vectors
from .theory import DrivenElectrolyte, StructureFactor

LONGEST_STEP = 0.1
"Largest D κ² dt: charge relaxes in 1/(D κ²), and an explicit step must be well within it. 0.01 leaves an error of a per cent."


class IonState(NamedTuple):
    """Ions, the positive ones first, and the key of the noise to come."""

    positions: mesh.Positions
    key: PRNGKeyArray


class IonBrownianDynamics(eqx.Module):
    """Ions ± in a periodic box, overdamped: `state = ions(state)`.

        drᵢ = D zᵢ [κ E x̂ - ℓ ∇ψ(rᵢ)] dt + √(2D) dWᵢ,   -∇²ψ = Σⱼ zⱼ δ(r - rⱼ),   ℓ = Q²/(ε k_B T) = κ²/(2 C₀)

    by Euler and Maruyama, in one to three dimensions (ψ ∝ -ln r in two). Ions are Gaussian clouds of width a, which keeps opposite ones
    from falling into each other; forces go through clouds in cells and one FFT. Numbers are conserved, and momenta pairwise: the mesh
    exerts no force on a lone ion. At distances of a few cells forces are off by 3 % with a as wide as a cell, by 1.5 % at twice that; at
    long wavelengths by nothing. Derivatives exist but where an ion crosses from cell to cell, and those of long runs are chaotic.

    **Arguments:** `electrolyte`: its parameters, with a `smearing` a of at least the widest cell, and above the Bjerrum length ℓ/4π in
    three dimensions; `grid` of the mesh; `dt` ≤ 0.1/(D κ²), better 0.01; `n_pairs`: ions of each sign, C₀ times the box.

    **Raises:** `ValueError` for a time step above that bound, a grid that does not fit, a smearing that is too small, or numbers of ions
    that are not the mean density's.

    >>> electrolyte = DrivenElectrolyte(field=1.0, mean_density=0.25, smearing=1.0, dim=2)
    >>> ions = IonBrownianDynamics(electrolyte, PeriodicGrid((16, 16), 16.0), 0.01, n_pairs=64)
    >>> state = eqx.filter_jit(ions)(ions.initial(jax.random.key(0)))
    >>> [x.shape for x in state.positions]
    [(128,), (128,)]
    """

    electrolyte: DrivenElectrolyte
    grid: PeriodicGrid
    dt: Scalar
    kernels: tuple[Complex[Array, ...], ...]
    signs: Float[Array, " ions"]
    n_pairs: int = eqx.field(static=True)

    def __init__(self, electrolyte: DrivenElectrolyte, grid: PeriodicGrid, dt: Scalar, *, n_pairs: int):
        positive(dt=dt)
        if grid.dim != electrolyte.dim:
            raise ValueError(f"grid must have the electrolyte's {electrolyte.dim} dimensions, got {grid.dim}")
        if n_pairs < 1:
            raise ValueError(f"n_pairs must be at least 1, got {n_pairs}")
        rate, density, width = electrolyte.diffusivity * electrolyte.debye_wavenumber**2, electrolyte.mean_density, electrolyte.smearing
        if is_known(density) and not math.isclose(n_pairs, float(density) * grid.volume, rel_tol=1e-5):
            raise ValueError(f"n_pairs must be mean_density times the box, {float(density) * grid.volume:.6g}, got {n_pairs}")
        if is_known(rate * dt) and not float(rate * dt) <= LONGEST_STEP * (1 + 1e-6):
            raise ValueError(f"dt must be at most {LONGEST_STEP}/(D κ²) = {LONGEST_STEP / float(rate):.4g}, got {dt}")
        cell = max(side / n for side, n in zip(grid.box, grid.shape, strict=True))
        if is_known(width) and not float(width) >= cell * (1 - 1e-6):
            raise ValueError(f"smearing must be at least the width of a cell, {cell:.4g}, got {width}")
        bjerrum = electrolyte.debye_wavenumber**2 / (8 * math.pi * density)
        if electrolyte.dim == 3 and is_known(bjerrum * width) and not float(bjerrum) < float(width):
            raise ValueError(f"smearing must exceed the Bjerrum length {float(bjerrum):.4g}, or opposite ions collapse, got {width}")
        self.electrolyte, self.grid, self.dt, self.n_pairs = electrolyte, grid, dt, n_pairs
        self.kernels = mesh.coulomb_kernels(grid, width)
        self.signs = jnp.where(jnp.arange(2 * n_pairs) < n_pairs, 1.0, -1.0)

    def initial(self, key: PRNGKeyArray) -> IonState:
        """Ions anywhere, independent of each other."""
        key, now = jax.random.split(key)
        places = jax.random.uniform(now, (self.grid.dim * 2 * self.n_pairs,)).reshape(self.grid.dim, -1)
        return IonState(tuple(side * x for side, x in zip(self.grid.box, places, strict=True)), key)

    def forces(self, positions: mesh.Positions) -> mesh.Positions:
        """-zᵢ ℓ ∇ψ(rᵢ): the Coulomb force on each ion, over k_B T."""
        where = mesh.shares(positions, self.grid)
        charge = self.grid.forward(mesh.deposit(self.signs.astype(positions[0].dtype), where, self.grid))
        coupling = self.electrolyte.debye_wavenumber**2 / (2 * self.electrolyte.mean_density)
        fields = (self.grid.backward(kernel.astype(charge.dtype) * charge) for kernel in self.kernels)
        return tuple(coupling * self.signs.astype(x.dtype) * mesh.gather(f, where) for f, x in zip(fields, positions, strict=True))

    def __call__(self, state: IonState) -> IonState:
        """The state dt later."""
        key, now = jax.random.split(state.key)
        first = state.positions[0]
        noise = jax.random.normal(now, (self.grid.dim * first.size,), first.dtype).reshape(self.grid.dim, -1)
        drift = self.electrolyte.diffusivity * self.dt
        field = self.electrolyte.debye_wavenumber * self.electrolyte.field * self.signs.astype(first.dtype)
        moved = []
        for axis, (x, force, side) in enumerate(zip(state.positions, self.forces(state.positions), self.grid.box, strict=True)):
            push = force + field if axis == self.electrolyte.axis else force
            step = (drift * push + jnp.sqrt(2 * drift) * noise[axis]).astype(x.dtype)
            moved.append(mesh.wrapped(x + step, side))
        return IonState(tuple(moved), key)

    def fields(self, state: IonState) -> Float[Array, "2 ..."]:
        """Density and charge on the mesh, through the clouds in cells that forces go through."""
        where = mesh.shares(state.positions, self.grid)
        signs = self.signs.astype(state.positions[0].dtype)
        return jnp.stack([mesh.deposit(amounts, where, self.grid) for amounts in (jnp.ones_like(signs), signs)])

    def modes(self, state: IonState, k: Float[Array, "modes dim"]) -> tuple[Complex[Array, " modes"], Complex[Array, " modes"]]:
        """Σᵢ exp(-ik·rᵢ) and Σᵢ zᵢ exp(-ik·rᵢ) for a few k of the box, exactly: density and charge."""
        vectors("k", k, self.grid.dim)
        phase = sum((jnp.outer(k[:, i], x) for i, x in enumerate(state.positions)), start=jnp.zeros((k.shape[0], self.signs.size)))
        waves = jnp.exp(-1j * phase)
        return waves.sum(-1), waves @ (self.signs + 0j)

    def structure_factor(self, state: IonState, k: Float[Array, "modes dim"]) -> StructureFactor:
        """One sample of the structure factors, in units of 2C₀; the mean over states is to be compared with the theory's."""
        density, charge = self.modes(state, k)
        n = 2 * self.n_pairs
        return StructureFactor(jnp.abs(density) ** 2 / n, jnp.abs(charge) ** 2 / n, (density * charge.conj()).imag / n)
