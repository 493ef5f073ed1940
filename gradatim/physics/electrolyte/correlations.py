"""Correlations in real space: the whole function in three dimensions, its power laws far away, and what it is on a periodic grid."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics import PeriodicGrid
from gradatim.numerics.checks import is_known

from .checks import vectors
from .theory import DrivenElectrolyte

_UNIT = tuple((array + shift) / 2 for array, shift in zip(np.polynomial.legendre.leggauss(128), (1.0, 0.0), strict=True))
_TURNS = 128


def density_correlation(electrolyte: DrivenElectrolyte, r: Float[Array, "*points dim"]) -> Float[Array, "*points"]:
    """G_cc(r)/2C₀ at any distance r > 0 in three dimensions, in unbounded space; the ions themselves, a δ at r = 0, are left out.

        G_cc/2C₀ = -(κ³E²/16π²) ∫₀¹ du ∮ dφ μ² [b exp(-bκru) - a exp(-aκru)]/(b² - a²),   a² = 1/2,   b² = 1 + E²μ²

    over the directions k̂ of modes, u = k̂·r̂ and μ = k̂·x̂, the integral over their length being done. The power law of
    [`far_density_correlation`][gradatim.physics.electrolyte.far_density_correlation] is reached slowly: at E = 1 it is 2.8 times too large
    five Debye lengths away along the field.

    **Raises:** `ValueError` for other dimensions, smeared charges, or r = 0.

    >>> print(f"{float(density_correlation(DrivenElectrolyte(field=1.0), jnp.array([5.0, 0.0, 0.0]))):.2e}")
    4.50e-04
    """
    weights, mu, nodes = _directions(electrolyte, r)
    a, b = math.sqrt(0.5), jnp.sqrt(1 + electrolyte.field**2 * mu**2)
    shell = mu**2 * (b * jnp.exp(-b * nodes) - a * jnp.exp(-a * nodes)) / (b**2 - a**2)
    total = jnp.sum(weights * shell, (-2, -1))
    return -(electrolyte.debye_wavenumber**3) * electrolyte.field**2 / (8 * math.pi) * total


def charge_correlation(electrolyte: DrivenElectrolyte, r: Float[Array, "*points dim"]) -> Float[Array, "*points"]:
    """G_ρρ(r)/2C₀ at any distance r > 0 in three dimensions, in unbounded space; the ions themselves, a δ at r = 0, are left out.

        G_ρρ/2C₀ = -κ² exp(-κr)/(4πr) + (κ³/16π²) ∫₀¹ du ∮ dφ [h(1) - h(b²) + E²μ² h₀/(b² - a²)]
        h(p) = p^{3/2} exp(-√p κru)/(a² - p),   h₀ = a³ exp(-aκru)/(1 - a²),   a² = 1/2,   b² = 1 + E²μ²

    with u and μ as for [`density_correlation`][gradatim.physics.electrolyte.density_correlation]: screening without field, and with it the
    power law of [`far_charge_correlation`][gradatim.physics.electrolyte.far_charge_correlation], which is smaller than that of the density
    by (κr)². It takes double precision: parts cancel that are larger by (κr)⁴.

    **Raises:** `ValueError` for other dimensions, smeared charges, or r = 0.

    >>> found = jax.jit(charge_correlation)(DrivenElectrolyte(field=0.0), jnp.array([2.0, 0.0, 0.0]))
    >>> print(f"{found:.2e}")  # -exp(-2)/8π
    -5.38e-03
    """
    weights, mu, nodes = _directions(electrolyte, r)
    square, a = electrolyte.field**2 * mu**2, math.sqrt(0.5)

    def pole(p: Array) -> Array:
        return p**1.5 * jnp.exp(-jnp.sqrt(p) * nodes) / (a**2 - p)

    rest = a**3 / (1 - a**2) * jnp.exp(-a * nodes) * square / (1 + square - a**2)
    total = jnp.sum(weights * (pole(jnp.ones_like(square)) - pole(1 + square) + rest), (-2, -1))
    kappa = electrolyte.debye_wavenumber
    reach = kappa * jnp.sqrt(jnp.sum(r**2, -1))
    screened = -(kappa**3) * jnp.exp(-reach) / (4 * math.pi * reach)
    return screened + kappa**3 / (8 * math.pi) * total


def _directions(electrolyte: DrivenElectrolyte, r: Array) -> tuple[Array, Array, Array]:
    """Weights of the mean over φ of the integral over u, and μ and κru at their nodes."""
    _check(electrolyte, r)
    if electrolyte.dim != 3:
        raise ValueError(f"dim must be 3, got {electrolyte.dim}")
    if is_known(electrolyte.smearing) and float(electrolyte.smearing) != 0:
        raise ValueError(f"smearing must be 0, got {electrolyte.smearing}: the integral is that of point charges")
    distance = jnp.sqrt(jnp.sum(r**2, -1))[..., None, None]
    cosine = r[..., electrolyte.axis][..., None, None] / distance
    reach = electrolyte.debye_wavenumber * distance
    nodes, weights = (jnp.asarray(x, distance.dtype).reshape(*(1 for _ in r.shape[:-1]), -1, 1) for x in _UNIT)
    # Modes across r, within 1/κr of it, carry everything: nodes are spread evenly in the logarithm of 1 + κru.
    log = jnp.log1p(reach)
    u = jnp.expm1(nodes * log) / reach
    weights = weights * jnp.exp(nodes * log) * log / reach
    turn = jnp.asarray(np.cos(math.pi * (np.arange(_TURNS) + 0.5) / _TURNS), distance.dtype).reshape(*(1 for _ in nodes.shape[:-1]), -1)
    mu = cosine * u + jnp.sqrt((1 - cosine**2) * (1 - u**2).clip(0)) * turn
    return weights / _TURNS, mu, reach * u


def far_density_correlation(electrolyte: DrivenElectrolyte, r: Float[Array, "*points dim"]) -> Float[Array, "*points"]:
    """G_cc(r)/2C₀ at κr ≫ 1, in two and three dimensions, s² = x²/(1 + E²) + r_⊥²:

        d = 3:  E²/(4π (1 + E²)^{3/2}) (2x²/(1 + E²) - r_⊥²)/s⁵        d = 2:  E²/(2π (1 + E²)^{3/2}) (x²/(1 + E²) - r_⊥²)/s⁴

    It falls as r⁻ᵈ, positive along the field and negative across, and is E² ∂ₓ² of the potential of a charge in a stretched space:
    diffusion is faster along the field, noise is not. Without field there is none beyond the ions themselves.

    **Raises:** `ValueError` for one dimension, where no power law is left, or r = 0.

    >>> r = jnp.array([[100.0, 0.0, 0.0], [200.0, 0.0, 0.0]])
    >>> near, far = far_density_correlation(DrivenElectrolyte(field=1.0), r)
    >>> print(f"{near / far:.3f}")
    8.000
    """
    _check(electrolyte, r)
    stretch = 1 + electrolyte.field**2
    along = r[..., electrolyte.axis] ** 2 / stretch
    across = jnp.sum(r**2, -1) - r[..., electrolyte.axis] ** 2
    dim, square = electrolyte.dim, along + across
    sphere = 2 * math.pi * (dim - 1)
    return electrolyte.field**2 / (sphere * stretch**1.5) * ((dim - 1) * along - across) / square ** (dim / 2 + 1)


def far_charge_correlation(electrolyte: DrivenElectrolyte, r: Float[Array, "*points dim"]) -> Float[Array, "*points"]:
    """G_ρρ(r)/2C₀ at κr ≫ 1: ∇²G_cc/κ², which falls as r⁻⁽ᵈ⁺²⁾.

    >>> r = jnp.array([[10.0, 0.0, 0.0], [20.0, 0.0, 0.0]])
    >>> near, far = jax.jit(far_charge_correlation)(DrivenElectrolyte(field=1.0), r)
    >>> print(f"{near / far:.2f}")
    32.00
    """
    _check(electrolyte, r)

    def laplacian(point: Array) -> Array:
        return jnp.trace(jax.hessian(lambda r: far_density_correlation(electrolyte, r))(point))

    flat = jax.vmap(laplacian)(r.reshape(-1, electrolyte.dim))
    return flat.reshape(r.shape[:-1]) / electrolyte.debye_wavenumber**2


def correlations_on_grid(electrolyte: DrivenElectrolyte, grid: PeriodicGrid) -> tuple[Float[Array, ...], Float[Array, ...]]:
    """(G_cc - 2C₀δ)/2C₀ and (G_ρρ - 2C₀δ)/2C₀ in the corners of a periodic grid, r = 0 first: Fourier sums of S/2C₀ - 1.

    Images of the box show beyond an eighth of its side; a cell should not be wider than 1.5/κ.

    **Raises:** `ValueError` if grid and electrolyte differ in dimension.

    >>> density, charge = jax.jit(correlations_on_grid)(DrivenElectrolyte(), PeriodicGrid((8, 8, 8), 8.0))
    >>> print(f"{float(abs(density).max()):.1f} {bool(charge[1, 0, 0] < 0)}")  # without field: ideal, and screened
    0.0 True
    """
    if grid.dim != electrolyte.dim:
        raise ValueError(f"grid must have the electrolyte's {electrolyte.dim} dimensions, got {grid.dim}")
    steady = electrolyte.structure_factor(grid.wavevectors())
    # The mode k = 0 has no value of its own; 0 there takes a constant from the correlation that falls with the volume.
    is_mean = grid.squared_wavenumber() == 0
    parts = (jnp.where(is_mean, 0.0, part - 1) for part in (steady.density, steady.charge))
    density, charge = (grid.backward(part + 0j) * (grid.n_cells / grid.volume) for part in parts)
    return density, charge


def _check(electrolyte: DrivenElectrolyte, r: Array) -> None:
    vectors("r", r, electrolyte.dim)
    if electrolyte.dim == 1:
        raise ValueError("dim must be 2 or 3, got 1: along a line no power law is left")
    if is_known(r) and not np.asarray(r).any(-1).all():
        raise ValueError("r must not be 0: the formula is that of large distances")
