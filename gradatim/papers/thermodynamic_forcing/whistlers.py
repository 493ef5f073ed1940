"""What linear theory makes of whistlers under a heat flux that grows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradatim.physics import plasma


@jax.jit
def growth_rate(wavenumber: Array, heat_flux: Array | float, anisotropy: Array | float) -> Array:
    """γ β / Ω at k ρₑ, for η β and Δ β."""
    return plasma.whistler_frequency(wavenumber, heat_flux, anisotropy).imag


def fastest(heat_flux: float) -> float:
    """Wavenumber k ρₑ of the wave that grows fastest at η β, without anisotropy."""
    K = np.linspace(0.05, 3, 600)
    return float(K[np.asarray(growth_rate(jnp.asarray(K), heat_flux, 0.0)).argmax()])


def foldings(wavenumber: np.ndarray, time: np.ndarray, beta: float, *, heat_flux: np.ndarray, anisotropy: np.ndarray) -> np.ndarray:
    """e-foldings of the energy, ∫ 2 γ dt over times in 1/Ω where γ > 0: noise does not die away, for it is made anew.

    `heat_flux` η β and `anisotropy` Δ β at each time; shape (times, wavenumbers).
    """
    over_time = (jnp.asarray(part)[:, None] for part in (heat_flux, anisotropy))
    rates = np.maximum(np.nan_to_num(growth_rate(jnp.asarray(wavenumber)[None], *over_time)), 0) * 2 / beta
    steps = np.diff(time)[:, None] * (rates[1:] + rates[:-1]) / 2
    return np.concatenate([np.zeros((1, rates.shape[1])), np.cumsum(steps, axis=0)])
