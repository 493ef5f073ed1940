"""Free energies f(c, T) of a binary mixture, with the derivatives that diffusion needs in closed form."""

from __future__ import annotations

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

GAS_CONSTANT = 8.31446261815324
"R in J/(mol K), exact in the SI of 2019."

Field = Float[Array, "..."]
Scalar = Float[Array, ""] | float


class AbstractFreeEnergy(eqx.Module):
    """A density f(c, T) of composition and temperature; every method works cell by cell on arrays that broadcast."""

    @abc.abstractmethod
    def __call__(self, c: Field, T: Field) -> Field:
        """f(c, T)."""

    @abc.abstractmethod
    def potential(self, c: Field, T: Field) -> Field:
        """∂f/∂c: the bulk part of the chemical potential."""

    @abc.abstractmethod
    def curvature(self, c: Field, T: Field) -> Field:
        """∂²f/∂c²: times the mobility, the chemical diffusivity."""

    @abc.abstractmethod
    def thermal_slope(self, c: Field, T: Field) -> Field:
        """∂²f/∂c∂T: what of ∇μ is due to ∇T alone."""

    @abc.abstractmethod
    def phase(self, c: Field, T: Field) -> Field:
        """0 in the matrix, 1 in the precipitate, not cut off in between or beyond."""

    @abc.abstractmethod
    def stable_compositions(self, T: Field) -> tuple[Field, ...]:
        """Composition of each stable phase: where the time step's bounds on mobility and diffusivity are taken."""

    @abc.abstractmethod
    def domain(self) -> tuple[float, float]:
        """The open interval in which c must start."""


class IdealSolution(AbstractFreeEnergy):
    """An ideal interstitial solution, in J/mol:

        f = R T [c ln c + (1 - c) ln(1 - c)] + g₀ c

    with c the fraction of filled sites. Nearer than `edge` to 0 or 1 the logarithm is continued by its tangent (f by a parabola), so that
    a step that undershoots keeps its mass and stays finite: nothing is clipped.

    **Arguments:** `reference` g₀ in J/mol.

    >>> f = IdealSolution()
    >>> print(f"{f.curvature(jnp.array(0.5), jnp.array(1000.0)) / (GAS_CONSTANT * 1000):.1f} R T")
    4.0 R T
    """

    reference: Scalar = 0.0
    edge: float = eqx.field(default=1e-8, static=True)

    def __call__(self, c: Field, T: Field) -> Field:
        """f(c, T)."""
        return GAS_CONSTANT * T * (self._entropy(c) + self._entropy(1 - c)) + self.reference * c

    def potential(self, c: Field, T: Field) -> Field:
        """∂f/∂c = R T ln(c / (1 - c)) + g₀."""
        return T * self.thermal_slope(c, T) + self.reference

    def curvature(self, c: Field, T: Field) -> Field:
        """∂²f/∂c² = R T / (c (1 - c))."""
        return GAS_CONSTANT * T * (1 / jnp.maximum(c, self.edge) + 1 / jnp.maximum(1 - c, self.edge))

    def thermal_slope(self, c: Field, T: Field) -> Field:
        """∂²f/∂c∂T = R ln(c / (1 - c))."""
        del T
        return GAS_CONSTANT * (self._log(c) - self._log(1 - c))

    def phase(self, c: Field, T: Field) -> Field:
        """0: there is one phase."""
        del T
        return jnp.zeros_like(c)

    def stable_compositions(self, T: Field) -> tuple[Field, ...]:
        """The middle; a mobility of Arrhenius type gives the same diffusivity at every composition."""
        return (jnp.full_like(T, 0.5),)

    def domain(self) -> tuple[float, float]:
        """Between empty and full."""
        return 0.0, 1.0

    def _log(self, c: Field) -> Field:
        inside = jnp.maximum(c, self.edge)
        return jnp.log(inside) + (c - inside) / self.edge

    def _entropy(self, c: Field) -> Field:
        inside = jnp.maximum(c, self.edge)
        below = c - inside
        return inside * jnp.log(inside) + below * (jnp.log(self.edge) + 1) + below**2 / (2 * self.edge)


class QuarticTwoPhase(AbstractFreeEnergy):
    """Two phases whose equilibrium compositions move with temperature, the solvus lines:

        f = W (c - cₐ)² (c_b - c)²,   cₐ = cₐ₀ + sₐ (T - T₀)/T₀,   c_b = c_b₀ + s_b (T - T₀)/T₀

    a is the matrix, b the precipitate. Both wells have f = 0 and ∂²f/∂c² = 2 W (c_b - cₐ)². c may leave [0, 1].

    **Arguments:** `barrier` W > 0; `matrix` cₐ₀ < `precipitate` c_b₀; `matrix_slope` sₐ, `precipitate_slope` s_b;
    `reference_temperature` T₀ > 0.

    >>> f = QuarticTwoPhase(matrix_slope=0.1)
    >>> print(f"{f.curvature(jnp.array(0.1), jnp.array(1.0)):.2f}, {f.thermal_slope(jnp.array(0.1), jnp.array(1.0)):.3f}")
    1.28, -0.128
    """

    barrier: Scalar = 1.0
    matrix: Scalar = 0.1
    precipitate: Scalar = 0.9
    matrix_slope: Scalar = 0.0
    precipitate_slope: Scalar = 0.0
    reference_temperature: Scalar = 1.0

    def matrix_composition(self, T: Field) -> Field:
        """cₐ(T)."""
        return self.matrix + self.matrix_slope * self._reduced(T)

    def precipitate_composition(self, T: Field) -> Field:
        """c_b(T)."""
        return self.precipitate + self.precipitate_slope * self._reduced(T)

    def __call__(self, c: Field, T: Field) -> Field:
        """f(c, T)."""
        h, g = self._distances(c, T)
        return self.barrier * (h * g) ** 2

    def potential(self, c: Field, T: Field) -> Field:
        """∂f/∂c = 2 W h g (g - h) with h = c - cₐ, g = c_b - c."""
        h, g = self._distances(c, T)
        return 2 * self.barrier * (h * g * (g - h))

    def curvature(self, c: Field, T: Field) -> Field:
        """∂²f/∂c² = 2 W [(g - h)² - 2 h g]."""
        h, g = self._distances(c, T)
        return 2 * self.barrier * ((g - h) ** 2 - 2 * h * g)

    def thermal_slope(self, c: Field, T: Field) -> Field:
        """∂²f/∂c∂T = 2 W [(g - h)(c_b' h - cₐ' g) + h g (cₐ' + c_b')] with cᵢ' = sᵢ/T₀."""
        h, g = self._distances(c, T)
        a, b = self.matrix_slope / self.reference_temperature, self.precipitate_slope / self.reference_temperature
        return 2 * self.barrier * ((g - h) * (b * h - a * g) + h * g * (a + b))

    def phase(self, c: Field, T: Field) -> Field:
        """(c - cₐ) / (c_b - cₐ)."""
        h, g = self._distances(c, T)
        return h / (h + g)

    def stable_compositions(self, T: Field) -> tuple[Field, ...]:
        """cₐ(T) and c_b(T)."""
        return self.matrix_composition(T), self.precipitate_composition(T)

    def domain(self) -> tuple[float, float]:
        """Any composition."""
        return -float("inf"), float("inf")

    def _reduced(self, T: Field) -> Field:
        return (T - self.reference_temperature) / self.reference_temperature

    def _distances(self, c: Field, T: Field) -> tuple[Field, Field]:
        return c - self.matrix_composition(T), self.precipitate_composition(T) - c


class CustomFreeEnergy(AbstractFreeEnergy):
    """Any density `f(c, T)` that JAX can trace, for instance a fit to a CALPHAD assessment; its derivatives by automatic differentiation.

    **Arguments:** `density`: a function of arrays, cell by cell; `matrix` < `precipitate`: compositions of the two stable phases, which
    define `phase`; `limits`: the open interval in which c must start.

    >>> f = CustomFreeEnergy(lambda c, T: T * (c - 0.1) ** 2 * (0.9 - c) ** 2, matrix=0.1, precipitate=0.9)
    >>> print(f"{f.curvature(jnp.array(0.1), jnp.array(1.0)):.2f}, {f.phase(jnp.array(0.5), jnp.array(1.0)):.1f}")
    1.28, 0.5
    """

    density: Callable[[Field, Field], Field]
    matrix: Scalar
    precipitate: Scalar
    limits: tuple[float, float] = eqx.field(default=(-float("inf"), float("inf")), static=True)

    def __call__(self, c: Field, T: Field) -> Field:
        """f(c, T)."""
        return self.density(c, T)

    def potential(self, c: Field, T: Field) -> Field:
        """∂f/∂c."""
        return jax.jvp(lambda c: self.density(c, T), (c,), (jnp.ones_like(c),))[1]

    def curvature(self, c: Field, T: Field) -> Field:
        """∂²f/∂c²."""
        return jax.jvp(lambda c: self.potential(c, T), (c,), (jnp.ones_like(c),))[1]

    def thermal_slope(self, c: Field, T: Field) -> Field:
        """∂²f/∂c∂T."""
        return jax.jvp(lambda T: self.potential(c, T), (T,), (jnp.ones_like(T),))[1]

    def phase(self, c: Field, T: Field) -> Field:
        """Linear between the two given compositions."""
        del T
        return (c - self.matrix) / (self.precipitate - self.matrix)

    def stable_compositions(self, T: Field) -> tuple[Field, ...]:
        """The two given compositions."""
        return self.matrix * jnp.ones_like(T), self.precipitate * jnp.ones_like(T)

    def domain(self) -> tuple[float, float]:
        """The given limits."""
        return self.limits
