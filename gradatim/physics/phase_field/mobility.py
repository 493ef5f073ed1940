"""The mobility M of the solute: flux = -M × driving force."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp

from .free_energy import GAS_CONSTANT, AbstractFreeEnergy, Field, Scalar


class PhaseMobility(eqx.Module):
    """M constant, or linear in composition between its values in the two phases (cut off to them beyond).

    **Arguments:** `matrix` > 0; `precipitate` > 0, or None for the matrix's value everywhere.

    >>> from gradatim.physics.phase_field import QuarticTwoPhase
    >>> print(PhaseMobility(1.0, 3.0)(jnp.array([0.1, 0.5, 0.9]), jnp.array(1.0), QuarticTwoPhase()).round(2))
    [1. 2. 3.]
    """

    matrix: Scalar
    precipitate: Scalar | None = None

    def __call__(self, c: Field, T: Field, free_energy: AbstractFreeEnergy) -> Field:
        """M(c, T), a scalar if it is the same everywhere."""
        if self.precipitate is None:
            return jnp.asarray(self.matrix, c.dtype)
        return self.matrix + (self.precipitate - self.matrix) * jnp.clip(free_energy.phase(c, T), 0, 1)


class ArrheniusMobility(eqx.Module):
    """The mobility of activated jumps in a single phase whose chemical diffusivity is D = D₀ exp(-E/(R T)):

        M = D₀ exp(-E/(R T)) / (∂²f/∂c²)

    Only where f is convex: inside a spinodal this M is negative.

    **Arguments:** `diffusivity` D₀ in m²/s; `activation_energy` E in J/mol; f must be in J/mol and T in K.

    >>> from gradatim.physics.phase_field import IdealSolution
    >>> f, c, T = IdealSolution(), jnp.array(1e-4), jnp.array(1000.0)
    >>> print(f"D = {ArrheniusMobility(2e-6, 84.1e3)(c, T, f) * f.curvature(c, T):.2g} m²/s")
    D = 8.1e-11 m²/s
    """

    diffusivity: Scalar
    activation_energy: Scalar

    def __call__(self, c: Field, T: Field, free_energy: AbstractFreeEnergy) -> Field:
        """M(c, T)."""
        return self.diffusivity * jnp.exp(-self.activation_energy / (GAS_CONSTANT * T)) / free_energy.curvature(c, T)
