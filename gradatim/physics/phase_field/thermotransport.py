"""Solute thermotransport in a Cahn–Hilliard mixture under a steady temperature field: the model, and its conservative time step.

The setting is that of Guin et al., arXiv:2406.00649 (2024); the equations are the standard theory of thermotransport (S. R. de Groot
and P. Mazur, Non-Equilibrium Thermodynamics, 1962, ch. XI) on the free energy of J. W. Cahn and J. E. Hilliard, J. Chem. Phys. 28,
258 (1958).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics import fourier
from gradatim.numerics.checks import is_known
from gradatim.numerics.rollout import rollout

from . import faces
from .flux import check_convention, divergence, inner_flux
from .free_energy import AbstractFreeEnergy, Field, Scalar
from .heat_of_transport import HeatOfTransport
from .mobility import PhaseMobility

Coefficient = Callable[[Field, Field, AbstractFreeEnergy], Field]
"A function of c, T and the free energy, cell by cell."


class Trajectory(NamedTuple):
    """Snapshots along a solution."""

    time: Float[Array, " snapshots"]
    concentration: Float[Array, "snapshots ..."]


class Thermotransport(eqx.Module):
    """Composition c on a grid of cells between two walls (and, in two dimensions, periodic along the second axis):

        ∂c/∂t = -∇·J,   μ = ∂f/∂c - 2κ ∇²c,   J = -M [∇μ - (∂²f/∂c∂T) ∇T + Q* ∇T/T]      "isothermal"
                                              J = -M [∇μ + Q* ∇T/T]                       "total"

    from F = ∫ f(c, T) + κ |∇c|² dV. T is given and steady: heat spreads orders of magnitude faster than solute. Nothing prescribes a
    velocity: precipitates move because c does.

    **Arguments:** `shape`: cells, `(nx,)` or `(nx, ny)`; `free_energy`; `temperature` > 0: a number (isothermal), an array of that shape,
    or `(nx, 1)` for a profile along x; `heat_of_transport`, `mobility`: [`HeatOfTransport`][gradatim.physics.phase_field.HeatOfTransport],
    [`PhaseMobility`][gradatim.physics.phase_field.PhaseMobility] or any function of (c, T, free_energy) that JAX can trace; `kappa` κ ≥ 0;
    `dx`: the side of a cell; `convention`; `wall_flux`: J through the walls at low and high x, along +x.

    Interfaces need 2.5 cells (`interface_width` / dx), or the grid pins them. In single precision round-off moves c by 1e-7 a step:
    drift velocities of order 1e-5 need double.

    **Raises:** `ValueError` for T ≤ 0, a temperature of the wrong shape, a negative κ, or a word that is no convention; values that JAX
    is tracing are not checked.

    >>> from gradatim.physics.phase_field import QuarticTwoPhase
    >>> bar = Thermotransport((32,), QuarticTwoPhase(), jnp.linspace(0.98, 1.02, 32), heat_of_transport=HeatOfTransport(-0.2))
    >>> solve = jax.jit(lambda c: bar.solve(c, 100.0, dt=0.5).concentration[-1])
    >>> later = solve(jnp.full(32, 0.1))
    >>> print(f"more at the hot end than at the cold one: {later[-1] > later[0]}; mean {later.mean():.3f}")
    more at the hot end than at the cold one: True; mean 0.100
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    free_energy: AbstractFreeEnergy
    temperature: Float[Array, ...]
    heat_of_transport: Coefficient
    mobility: Coefficient
    kappa: Scalar
    wall_flux: tuple[Scalar, Scalar]
    dx: float = eqx.field(static=True)
    convention: str = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        free_energy: AbstractFreeEnergy,
        temperature: Float[Array, ...] | float,
        *,
        heat_of_transport: Coefficient | None = None,
        mobility: Coefficient | None = None,
        kappa: Scalar = 1.0,
        dx: float = 1.0,
        convention: str = "isothermal",
        wall_flux: tuple[Scalar, Scalar] = (0.0, 0.0),
    ):
        check_convention(convention)
        # In NumPy: inside a trace, even what JAX makes of a known array is not known.
        lowest = np.asarray(temperature).min() if is_known(temperature) else None
        temperature = jnp.asarray(temperature, jnp.result_type(float, temperature))
        if len(shape) not in (1, 2) or min(shape) < 2:
            raise ValueError(f"shape must be (nx,) or (nx, ny) of at least 2 cells each, got {shape}")
        if temperature.shape not in ((), shape, (*shape[:1], *(1 for _ in shape[1:]))):
            raise ValueError(f"temperature must be a number or have shape {shape} or {(shape[0], 1)}, got {temperature.shape}")
        if not dx > 0:
            raise ValueError(f"dx must be positive, got {dx}")
        if lowest is not None and not lowest > 0:
            raise ValueError(f"temperature must be positive everywhere (kelvin, or scaled by T₀), got a minimum of {lowest}")
        if is_known(kappa) and not float(kappa) >= 0:
            raise ValueError(f"kappa must be at least 0, got {kappa}")
        self.shape, self.free_energy, self.temperature = shape, free_energy, temperature
        self.heat_of_transport = HeatOfTransport(0.0) if heat_of_transport is None else heat_of_transport
        self.mobility = PhaseMobility(1.0) if mobility is None else mobility
        self.kappa, self.dx, self.convention, self.wall_flux = kappa, dx, convention, wall_flux

    def chemical_potential(self, c: Float[Array, ...]) -> Float[Array, ...]:
        """μ = ∂f/∂c - 2κ ∇²c in each cell."""
        return self.free_energy.potential(c, self._temperature(c)) - 2 * self.kappa * faces.laplacian(c, self.dx)

    def flux(self, c: Float[Array, ...]) -> tuple[Float[Array, ...], ...]:
        """J along each axis, on the faces between cells (the walls, whose flux is given, are left out)."""
        T, potential = self._temperature(c), self.chemical_potential(c)
        mobility, heat = self.mobility(c, T, self.free_energy), self.heat_of_transport(c, T, self.free_energy)
        return tuple(
            inner_flux(
                potential,
                c,
                T,
                axis=axis,
                free_energy=self.free_energy,
                mobility=mobility,
                heat_of_transport=heat,
                convention=self.convention,
                dx=self.dx,
            )
            for axis in range(c.ndim)
        )

    def rhs(self, c: Float[Array, ...]) -> Float[Array, ...]:
        """∂c/∂t = -∇·J."""
        self._check_shape(c)
        T = self._temperature(c)
        mobility = self.mobility(c, T, self.free_energy)
        if T.ndim or mobility.ndim:
            return -divergence(self.flux(c), self.wall_flux, self.dx).astype(c.dtype)
        # All uniform: -∇·J is M ∇²μ and what passes the walls, in one sweep over c and one over μ, both with their mirror images.
        wide = faces.with_ghosts(c, 2)
        bulk = self.free_energy.potential(wide[(slice(1, -1),) * c.ndim], T)
        potential = jax.lax.optimization_barrier(bulk - 2 * self.kappa * faces.inner_laplacian(wide, self.dx))
        rate = mobility * faces.inner_laplacian(potential, self.dx)
        entering, leaving = (jnp.asarray(flux, c.dtype) / self.dx for flux in self.wall_flux)
        return rate.at[0].add(entering).at[-1].add(-leaving).astype(c.dtype)

    def energy(self, c: Float[Array, ...]) -> Float[Array, ""]:
        """F = ∫ f(c, T) + κ |∇c|² dV, gradients on the faces; in a uniform temperature it never rises."""
        self._check_shape(c)
        square = sum(jnp.sum((faces.difference(c, axis) / self.dx) ** 2) for axis in range(c.ndim))
        return self.dx**c.ndim * (self.free_energy(c, self._temperature(c)).sum() + self.kappa * square)

    def stepper(
        self,
        dt: Scalar,
        *,
        order: Literal[1, 2] = 1,
        stabilisation: Scalar | None = None,
    ) -> SemiImplicit:
        """The time step as a function c → c; its response in transform space is worked out here, once.

        **Arguments:** `dt` > 0; `order` in time, 1 or 2 (twice the work a step); `stabilisation` S, the diffusivity taken
        implicitly. By default the largest M ∂²f/∂c² of a stable phase, which damps at any dt; half of it always does in the first order.
        The error in time grows with its distance from the M ∂²f/∂c² of where things happen, which lies lower, in interfaces even below
        0: for accuracy in the second order take a small S, as long as it is accepted.

        **Raises:** `ValueError` for dt ≤ 0, or S too small for dt: some wave on a stable phase would grow.
        """
        if order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {order}")
        if is_known(dt) and not float(dt) > 0:
            raise ValueError(f"dt must be positive, got {dt}")
        T = self.temperature
        stable = self.free_energy.stable_compositions(T)
        mobilities = [self.mobility(c, T, self.free_energy) for c in stable]
        bound = jnp.stack([m.max() for m in mobilities]).max()
        largest = jnp.stack([(m * self.free_energy.curvature(c, T)).max() for m, c in zip(mobilities, stable, strict=True)]).max()
        if stabilisation is None:
            stabilisation = largest
        eigenvalues = fourier.cosine_eigenvalues(self.shape[0], self.dx)
        if len(self.shape) == 2:
            eigenvalues = eigenvalues[:, None] + fourier.fourier_eigenvalues(self.shape[1], self.dx)[None, :]
        decay = eigenvalues * (stabilisation + 2 * self.kappa * bound * eigenvalues)
        response = _first_order(dt, decay) if order == 1 else _second_order(dt, decay)
        growth = _growth(response, eigenvalues * (largest + 2 * self.kappa * bound * eigenvalues))
        if is_known(growth) and not float(growth) <= 1 + 1e-3:
            raise ValueError(
                f"stabilisation must be large enough for dt, got {stabilisation} and {dt}: waves on a stable phase grow "
                f"{float(growth):.3g} times a step; {float(largest):.4g} damps them"
            )
        return SemiImplicit(self, tuple(fourier.FoldedResponse(r) for r in response))

    def step(self, c: Float[Array, ...], dt: Scalar, *, order: Literal[1, 2] = 1) -> Float[Array, ...]:
        """One step of length dt. In a loop use `stepper(dt)`, which prepares it once."""
        return self.stepper(dt, order=order)(c)

    def solve(
        self, c0: Float[Array, ...], t_end: float, *, dt: float, save_every: int | None = None, order: Literal[1, 2] = 1
    ) -> Trajectory:
        """Steps from `c0` to `t_end` (a whole number of steps) and keeps every `save_every`-th state, the first and the last at least.

        **Raises:** `ValueError` if c0 has another shape or leaves the free energy's domain, or t_end is no multiple of dt.
        """
        self._check_shape(c0)
        low, high = self.free_energy.domain()
        if is_known(c0):
            least, most = np.asarray(c0).min(), np.asarray(c0).max()
            if not low < least <= most < high:
                raise ValueError(f"c0 must lie in ({low:g}, {high:g}), got values from {least} to {most}")
        n_steps = round(t_end / dt)
        if n_steps < 1 or not math.isclose(n_steps * dt, t_end, rel_tol=1e-9):
            raise ValueError(f"t_end must be a positive multiple of dt, got {t_end} and {dt}")
        every = n_steps if save_every is None else save_every
        states = rollout(self.stepper(dt, order=order), c0, n_steps=n_steps, every=every)
        return Trajectory(dt * every * jnp.arange(states.shape[0], dtype=c0.dtype), states)

    def _temperature(self, c: Array) -> Array:
        return self.temperature.astype(c.dtype)

    def _check_shape(self, c: Array) -> None:
        if c.shape != self.shape:
            raise ValueError(f"concentration must have shape {self.shape}, got {c.shape}; batch with jax.vmap")


class SemiImplicit(eqx.Module):
    """One conservative step of a [`Thermotransport`][gradatim.physics.phase_field.Thermotransport]: `c = stepper(c)`.

    The increment is the explicit right-hand side R(c), damped in transform space by a linear operator A whose eigenvalues there are
    S λ + 2 κ M₀ λ², λ those of the discrete -∇²:

        order 1:   c⁺ = c + (1 + dt A)⁻¹ dt R(c)
        order 2:   a = c + φ₁ dt R(c),   c⁺ = a + φ₂ dt [R(a) - R(c) + A (a - c)],   φ₁, φ₂ of -dt A

    The first is backward Euler on A and forward Euler on what A misses (D. J. Eyre, MRS Proc. 529, 39 (1998)); a fixed point is one of
    R, whatever A is. The second is ETDRK2 (S. M. Cox and P. C. Matthews, J. Comput. Phys. 176, 430 (2002), eq. 22), written for the
    increment. At λ = 0 nothing is damped, so mass is kept to round-off.
    """

    model: Thermotransport
    response: tuple[fourier.FoldedResponse, ...]

    def __call__(self, c: Float[Array, ...]) -> Float[Array, ...]:
        """C one step later."""
        first, *second = self.response
        rate = fourier.fold_spectrum(self.model.rhs(c))
        c = c + fourier.unfold_spectrum(first(rate), c.shape)
        if second:
            increment = second[0](fourier.fold_spectrum(self.model.rhs(c))) + second[1](rate)
            c = c + fourier.unfold_spectrum(increment, c.shape)
        return c


def _first_order(dt: Array | float, decay: Array) -> tuple[Array, ...]:
    return (dt / (1 + dt * decay),)


def _second_order(dt: Array | float, decay: Array) -> tuple[Array, ...]:
    z = -dt * decay
    # Below 1/2 the closed forms lose digits and the series to z¹² has them all.
    small = jnp.abs(z) < 0.5
    safe = jnp.where(small, -1.0, z)
    series = [jnp.polyval(jnp.asarray([1 / math.factorial(k + p) for k in range(12, -1, -1)]), jnp.where(small, z, 0)) for p in (1, 2)]
    phi_1 = jnp.where(small, series[0], jnp.expm1(safe) / safe)
    phi_2 = jnp.where(small, series[1], (jnp.expm1(safe) - safe) / safe**2)
    # a - c = φ₁ dt R(c) is known in transform space, so A (a - c) costs no transform.
    return dt * phi_1, dt * phi_2, -dt * phi_2 * (1 + z * phi_1)


def _growth(response: tuple[Array, ...], rate: Array) -> Array:
    """The largest factor by which a step multiplies a wave on a uniform stable phase, whose ∂c/∂t is -rate c."""
    factor = 1 - response[0] * rate
    if len(response) == 3:
        factor = factor - (response[1] * factor + response[2]) * rate
    return jnp.abs(factor).max()
