"""The heat of transport Q*: which way, and how strongly, a temperature gradient drives the solute."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp

from .free_energy import AbstractFreeEnergy, Field, Scalar


class HeatOfTransport(eqx.Module):
    """Q* of the solute, constant or linear in composition between its values in the two phases.

        Q* = Qₐ + (Q_b - Qₐ) φ,   φ = (c - cₐ)/(c_b - cₐ), cut off to [0, 1]

    Sign: the flux is -M Q* ∇T/T, so **Q* < 0 drives solute to the hot side**. Unit: that of f (J/mol for `IdealSolution`).

    **Arguments:** `matrix` Qₐ; `precipitate` Q_b, or None for the matrix's value everywhere.

    >>> from gradatim.physics.phase_field import QuarticTwoPhase
    >>> heat = HeatOfTransport(-0.2, 0.6)(jnp.array([0.1, 0.5, 0.9]), jnp.array(1.0), QuarticTwoPhase())
    >>> print(" ".join(f"{q:.1f}" for q in heat))
    -0.2 0.2 0.6
    """

    matrix: Scalar
    precipitate: Scalar | None = None

    def __call__(self, c: Field, T: Field, free_energy: AbstractFreeEnergy) -> Field:
        """Q*(c, T), a scalar if it is the same everywhere."""
        if self.precipitate is None:
            return jnp.asarray(self.matrix, c.dtype)
        return self.matrix + (self.precipitate - self.matrix) * jnp.clip(free_energy.phase(c, T), 0, 1)
