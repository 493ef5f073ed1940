"""Cells that follow, and align with the gradient of, a fast signal they emit: the critical field theory and its time step.

The setting is that of M. Mahdisoltani, R. Ben Alì Zinati, C. Duclut, A. Gambassi and R. Golestanian, Phys. Rev. Research 3, 013100 (2021),
and arXiv:2207.00467. The equation is written from its symmetries.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from gradatim.numerics import PeriodicGrid, phi_1, phi_2, phi_3
from gradatim.numerics.checks import is_known

from .checks import Scalar, not_negative, positive

LARGEST_COURANT = 0.3
"(|μ₁|/2 + |μ₂|) |∇φ| k_max dt above which the explicit terms are not to be trusted; at twice that they blow up."


class PolarState(NamedTuple):
    """The density in Fourier space, and what the next step needs of the last."""

    spectrum: Complex[Array, ...]  # of ρ, as the grid's `forward` gives it
    force: Complex[Array, ...]  # the nonlinear terms one step before, which order 2 needs
    courant: Float[Array, ""]  # the largest (|μ₁|/2 + |μ₂|) |∇φ| k_max dt so far
    key: PRNGKeyArray


class CriticalExponents(NamedTuple):
    """How the critical theory scales."""

    dynamic: float  # z: time ~ lengthᶻ
    roughness: float  # χ: ρ ~ length^χ
    structure: float  # S(k) ~ kˢ at small k
    number: float  # ⟨δN²⟩ ~ lⁿ in a region of side l


def critical_exponents(dim: int) -> CriticalExponents:
    """The exact exponents of the critical theory in `dim` ≥ 1 dimensions.

        z = (d + 2)/3,   χ = -z,   S ~ k⁽⁴⁻ᵈ⁾ᐟ³,   ⟨δN²⟩ ~ l⁽⁴ᵈ⁻⁴⁾ᐟ³   for d ≤ 4;   z = 2, χ = -d/2 and independent particles above

    The noise conserves and both vertices carry two external momenta, so that it is not renormalised: 2χ = z - d - 2. A tilt of the signal
    shifts the frame, so that its vertex is not either: χ = -z.

    >>> critical_exponents(1).dynamic, round(critical_exponents(2).number, 4)
    (1.0, 1.3333)
    """
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    if dim > 4:
        return CriticalExponents(2.0, -dim / 2, 0.0, float(dim))
    return CriticalExponents((dim + 2) / 3, -(dim + 2) / 3, (4 - dim) / 3, (4 * dim - 4) / 3)


class PolarChemotaxis(eqx.Module):
    """Density ρ of cells about its mean, driven by the gradient of their signal φ and, through their polarity, by that of its square:

        ∂ρ/∂t = (D ∇² - σ) ρ + μ₁ ∇·(ρ ∇φ) + μ₂ ∇² (∇φ)² + ∇·(√(2T) ξ),   -∇²φ = ρ,   ∇φ → ∇φ + a (tilt)

    Critical at σ = 0. Both nonlinear terms are double divergences, ∇·(ρ∇φ) = -∂ᵢ∂ⱼ(∂ᵢφ ∂ⱼφ - δᵢⱼ (∇φ)²/2): as such they are computed, and
    the mean of ρ is kept to the bit. A tilt a moves the frame at the velocity -(μ₁ - 2μ₂) a. In one dimension u = ∂ₓφ obeys Burgers's
    equation ∂u/∂t = D ∂ₓ²u + λ ∂ₓ(u²)/2 + √(2T) ξ with λ = μ₁ - 2μ₂.

    **Arguments:** `grid` of one to three dimensions; `diffusivity` D > 0; `mass` σ > -D k_min², or the longest wave grows; `mu_ks` μ₁ (the
    Keller–Segel term; it holds a -μ₁ρ², under which this expansion, which does not know that densities are positive, blows up in finite
    time in two dimensions and more: keep |μ₁ρ| small); `mu_polar` μ₂; `noise` T ≥ 0; `tilt` a, one number for each axis.

    **Raises:** `ValueError` for a number out of range or a tilt of another length.

    >>> theory = PolarChemotaxis(PeriodicGrid((64,), 64.0), mu_ks=1.0, noise=0.1)
    >>> step = theory.stepper(0.04)
    >>> state = jax.lax.fori_loop(0, 100, lambda _, state: step(state), step.initial(jax.random.key(0)))
    >>> f"{float(jnp.abs(state.spectrum[0])):.1f} {bool(state.courant < LARGEST_COURANT)}"
    '0.0 True'
    """

    grid: PeriodicGrid
    diffusivity: Scalar
    mass: Scalar
    mu_ks: Scalar
    mu_polar: Scalar
    noise: Scalar
    tilt: tuple[Scalar, ...]

    def __init__(
        self,
        grid: PeriodicGrid,
        *,
        diffusivity: Scalar = 1.0,
        mass: Scalar = 0.0,
        mu_ks: Scalar = 0.0,
        mu_polar: Scalar = 0.0,
        noise: Scalar = 1.0,
        tilt: tuple[Scalar, ...] | None = None,
    ):
        tilt = (0.0,) * grid.dim if tilt is None else tilt
        positive(diffusivity=diffusivity)
        not_negative(noise=noise)
        if len(tilt) != grid.dim:
            raise ValueError(f"tilt must have one component for each of the grid's {grid.dim} axes, got {tilt}")
        slowest = (2 * math.pi / max(grid.box)) ** 2
        if is_known(mass) and is_known(diffusivity) and not float(mass) > -float(diffusivity) * slowest:
            raise ValueError(f"mass must exceed -D (2π/L)² = {-float(diffusivity) * slowest:.4g}, or waves grow without end, got {mass}")
        self.grid, self.diffusivity, self.mass, self.noise, self.tilt = grid, diffusivity, mass, noise, tilt
        self.mu_ks, self.mu_polar = mu_ks, mu_polar

    def linear_structure_factor(self, k: Float[Array, ...]) -> Float[Array, ...]:
        """T k²/(D k² + σ) at wavenumbers k > 0: S(k) without nonlinear terms, with the wavenumbers' own values; 0 at k = 0."""
        square = k**2
        safe = jnp.where(square > 0, square, 1.0)
        return jnp.where(square > 0, self.noise * safe / (self.diffusivity * safe + self.mass), 0.0)

    def nonlinear_terms(self, spectrum: Complex[Array, ...]) -> Complex[Array, ...]:
        """The spectrum of μ₁ ∇·(ρ∇φ) + μ₂ ∇²(∇φ)² for that of ρ, dealiased."""
        return _nonlinear_terms(self.grid, self._gradient(spectrum), self._vertices())

    def stepper(self, dt: Scalar, *, order: Literal[1, 2, 4] = 2) -> PolarStepper:
        """The time step as a function state → state; what it needs of the wavenumbers is worked out here, once.

        Diffusion and its noise are exact, the nonlinear terms explicit, of `order` 1, 2 or 4 in time: 1 and 2 work them out once a step, 4
        four times. It pays without noise, under which the error in time is of first order whatever the order.

        **Raises:** `ValueError` for dt ≤ 0, or one at which the tilt alone exceeds the stability bound, which is named.
        """
        positive(dt=dt)
        if order not in (1, 2, 4):
            raise ValueError(f"order must be 1, 2 or 4, got {order}")
        strength = (jnp.abs(self.mu_ks) / 2 + jnp.abs(self.mu_polar)) * self._largest_wavenumber()
        speed = strength * jnp.sqrt(functools.reduce(jnp.add, [jnp.asarray(a, float) ** 2 for a in self.tilt]))
        if is_known(speed) and is_known(dt) and not float(speed * dt) <= LARGEST_COURANT:
            raise ValueError(f"dt must be at most {LARGEST_COURANT / float(speed):.4g} under this tilt, got {dt}")
        square = self.grid.squared_wavenumber()
        growth = -jnp.where(square > 0, self.diffusivity * square + self.mass, 0.0) * dt
        scheme = _RungeKutta(dt, growth) if order == 4 else _Multistep(dt, growth, order)
        return PolarStepper(self, scheme, self._noise_amplitude(dt, growth), self._gradient_kernels(), self._vertices(), strength * dt)

    def _noise_amplitude(self, dt: Scalar, growth: Array) -> Array | None:
        if is_known(self.noise) and float(self.noise) == 0:
            return None
        # Over one step noise adds 2 T k² ∫ exp(-2 (D k² + σ) s) ds to S(k).
        added = 2 * self.noise * self.grid.squared_wavenumber() * dt * phi_1(2 * growth)
        return jnp.sqrt(jnp.where(added > 0, added, 1.0)) * (added > 0) * (self.grid.n_cells / math.sqrt(self.grid.volume))

    def _gradient(self, spectrum: Array) -> tuple[Array, ...]:
        return _gradient(self.grid, spectrum, self._gradient_kernels(), self.tilt)

    def _gradient_kernels(self) -> tuple[Array, ...]:
        """K/k² below the cut-off: ∂φ is i times that times ρ."""
        kernel = -self.grid.inverse_laplacian() * self.grid.dealiased()
        return tuple(k * kernel for k in self.grid.derivative_wavenumbers())

    def _vertices(self) -> tuple[Array, ...]:
        """What multiplies the spectrum of ∂ᵢφ ∂ⱼφ, i ≤ j; of (∇φ)² alone where that is all there is: fewer transforms."""
        square, keep, k = self.grid.squared_wavenumber(), self.grid.dealiased(), self.grid.wavenumbers()
        if is_known(self.mu_ks) and float(self.mu_ks) == 0:
            return (-self.mu_polar * square * keep,)
        found = []
        for i, j in itertools.combinations_with_replacement(range(self.grid.dim), 2):
            own = self.mu_ks * k[i] ** 2 - (self.mu_ks / 2 + self.mu_polar) * square
            found.append(keep * (own if i == j else 2 * self.mu_ks * k[i] * k[j]))
        return tuple(found)

    def _largest_wavenumber(self) -> float:
        return max(2 * math.pi / side * ((n - 1) // 3) for n, side in zip(self.grid.shape, self.grid.box, strict=True))


class _Multistep(eqx.Module):
    """ETD2 (S. M. Cox and P. C. Matthews, J. Comput. Phys. 176, 430 (2002), eq. 6), with the N before; ETD1 without.

    ρ⁺ = exp(L dt) ρ + dt φ₁ N + dt φ₂ (N - N₋)
    """

    decay: Float[Array, ...]
    now: Float[Array, ...]
    before: Float[Array, ...]

    def __init__(self, dt: Scalar, growth: Array, order: int):
        self.before = dt * phi_2(growth) if order == 2 else jnp.zeros_like(growth)
        self.decay, self.now = jnp.exp(growth), dt * phi_1(growth) + self.before

    def __call__(self, spectrum: Array, force: Array, before: Array, rate: Callable[[Array], Array]) -> Array:
        return self.decay * spectrum + self.now * force - self.before * before


class _RungeKutta(eqx.Module):
    """ETDRK4 (Cox and Matthews, eqs. 26-29), h = dt/2:

    a = exp(L h) ρ + h φ₁(L h) N(ρ),   b = exp(L h) ρ + h φ₁(L h) N(a),   c = exp(L h) a + h φ₁(L h) (2 N(b) - N(ρ))
    ρ⁺ = exp(L dt) ρ + dt [(φ₁ - 3φ₂ + 4φ₃) N(ρ) + (2φ₂ - 4φ₃) (N(a) + N(b)) + (4φ₃ - φ₂) N(c)]

    with φ functions that keep their digits at any L.
    """

    half_decay: Float[Array, ...]
    half: Float[Array, ...]
    first: Float[Array, ...]
    middle: Float[Array, ...]
    last: Float[Array, ...]

    def __init__(self, dt: Scalar, growth: Array):
        one, two, three = phi_1(growth), phi_2(growth), phi_3(growth)
        self.half_decay, self.half = jnp.exp(growth / 2), dt / 2 * phi_1(growth / 2)
        self.first, self.middle, self.last = dt * (one - 3 * two + 4 * three), dt * (2 * two - 4 * three), dt * (4 * three - two)

    def __call__(self, spectrum: Array, force: Array, before: Array, rate: Callable[[Array], Array]) -> Array:
        drifting = self.half_decay * spectrum
        a = drifting + self.half * force
        at_a = rate(a)
        at_b = rate(drifting + self.half * at_a)
        at_c = rate(self.half_decay * a + self.half * (2 * at_b - force))
        return self.half_decay * drifting + self.first * force + self.middle * (at_a + at_b) + self.last * at_c


class PolarStepper(eqx.Module):
    """One step of [`PolarChemotaxis`][gradatim.physics.electrolyte.PolarChemotaxis]: `state = stepper(state)`, in Fourier space,

        ρ⁺ = (exponential step under N and L = -(Dk² + σ)) + √(2Tk² ∫ exp(2Ls) ds) w

    N being the nonlinear terms. The Ornstein–Uhlenbeck noise that belongs to L is exact whatever dt. `state.courant` above
    [`LARGEST_COURANT`][gradatim.physics.electrolyte.LARGEST_COURANT] tells that dt is too long: nothing is clipped.
    """

    theory: PolarChemotaxis
    scheme: _Multistep | _RungeKutta
    amplitude: Float[Array, ...] | None
    gradients: tuple[Float[Array, ...], ...]
    vertices: tuple[Float[Array, ...], ...]
    strength: Float[Array, ""]

    def initial(self, key: PRNGKeyArray, density: Float[Array, ...] | None = None) -> PolarState:
        """A state of that density, or of none beyond the mean.

        From the linear theory's stationary state nonlinear runs may blow up: its gradients are as large as the box.
        """
        grid = self.theory.grid
        spectrum = jnp.zeros(grid.spectrum_shape, self.vertices[0].dtype) + 0j if density is None else grid.forward(density)
        force, courant = self._force(spectrum)
        return PolarState(spectrum, force, courant, key)

    def __call__(self, state: PolarState) -> PolarState:
        """The state dt later."""
        if self.amplitude is None:
            return self._drifted(state)
        key, now = jax.random.split(state.key)
        return self.advance(state, self.theory.grid.white_noise(now, self.amplitude.dtype))._replace(key=key)

    def advance(self, state: PolarState, noise: Complex[Array, ...]) -> PolarState:
        """The state dt later under a given noise, wₖ of a real field with ⟨|wₖ|²⟩ = 1 (a grid's `white_noise`, or one's own)."""
        after = self._drifted(state)
        return after if self.amplitude is None else after._replace(spectrum=after.spectrum + self.amplitude * noise)

    def _drifted(self, state: PolarState) -> PolarState:
        force, courant = self._force(state.spectrum)
        spectrum = self.scheme(state.spectrum, force, state.force, lambda s: self._terms(self._gradient(s)))
        return PolarState(spectrum, force, jnp.maximum(state.courant, courant), state.key)

    def density(self, state: PolarState) -> Float[Array, ...]:
        """ρ in space."""
        return self.theory.grid.backward(state.spectrum)

    def structure_factor(self, state: PolarState) -> Float[Array, ...]:
        """V |ρₖ|² of this state."""
        return self.theory.grid.structure_factor(state.spectrum)

    def _force(self, spectrum: Array) -> tuple[Array, Array]:
        gradient = self._gradient(spectrum)
        steepest = jnp.sqrt(functools.reduce(jnp.add, [u**2 for u in gradient]).max())
        return self._terms(gradient), self.strength * steepest

    def _gradient(self, spectrum: Array) -> tuple[Array, ...]:
        return _gradient(self.theory.grid, spectrum, self.gradients, self.theory.tilt)

    def _terms(self, gradient: tuple[Array, ...]) -> Array:
        return _nonlinear_terms(self.theory.grid, gradient, self.vertices)


def keller_segel_term(grid: PeriodicGrid, potential: Float[Array, ...]) -> Float[Array, ...]:
    """∇·(ρ∇φ) with ρ = -∇²φ, as it stands; exact for a φ without modes beyond a third of the grid's.

    >>> grid = PeriodicGrid((32,), 2 * math.pi)
    >>> print(f"{keller_segel_term(grid, jnp.cos(2 * jnp.pi * jnp.arange(32) / 32))[0]:.3f}")  # -cos 2x
    -1.000
    """
    spectrum = grid.forward(potential)
    k = grid.derivative_wavenumbers()
    density = grid.backward(-grid.laplacian() * spectrum)
    fluxes = [1j * q * grid.forward(density * grid.backward(1j * q * spectrum)) for q in k]
    return grid.backward(functools.reduce(jnp.add, fluxes))


def polarity_term(grid: PeriodicGrid, potential: Float[Array, ...]) -> Float[Array, ...]:
    """∇²(∇φ)², as it stands.

    >>> grid = PeriodicGrid((32,), 2 * math.pi)
    >>> print(f"{polarity_term(grid, jnp.cos(2 * jnp.pi * jnp.arange(32) / 32))[0]:.3f}")  # 2 cos 2x
    2.000
    """
    spectrum = grid.forward(potential)
    square = functools.reduce(jnp.add, [grid.backward(1j * q * spectrum) ** 2 for q in grid.derivative_wavenumbers()])
    return grid.backward(grid.laplacian() * grid.forward(square))


def _gradient(grid: PeriodicGrid, spectrum: Array, kernels: tuple[Array, ...], tilt: tuple[Scalar, ...]) -> tuple[Array, ...]:
    return tuple(grid.backward(1j * kernel * spectrum) + a for kernel, a in zip(kernels, tilt, strict=True))


def _nonlinear_terms(grid: PeriodicGrid, gradient: tuple[Array, ...], vertices: tuple[Array, ...]) -> Array:
    if len(vertices) == 1:
        return vertices[0] * grid.forward(functools.reduce(jnp.add, [u**2 for u in gradient]))
    pairs = itertools.combinations_with_replacement(gradient, 2)
    return functools.reduce(jnp.add, [vertex * grid.forward(u * v) for vertex, (u, v) in zip(vertices, pairs, strict=True)])
