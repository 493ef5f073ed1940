"""From temperature and plasma beta to the lengths and times of a magnetised plasma."""

from __future__ import annotations

import equinox as eqx

from gradatim.numerics.checks import is_known

from .loading import check_temperature
from .vectors import Scalar


class PlasmaScales(eqx.Module):
    """Electrons of temperature θ = T / (mₑ c²) in a field of β = 8π n T / B²; c = ωₚ = mₑ = e = 1.

    v_th is √(2T/m), with the two; then ρₑ = v_th / Ωₑ = √β.

    >>> scales = PlasmaScales(0.1, 40.0)
    >>> print(f"{scales.gyrofrequency:.4f} {scales.gyroradius:.3f} {scales.gyroradius / scales.debye_length:.0f}")
    0.0707 6.325 20
    """

    theta: Scalar
    beta: Scalar

    def __init__(self, theta: Scalar, beta: Scalar):
        check_temperature(theta)
        if is_known(beta) and not float(beta) > 0:
            raise ValueError(f"beta must be positive, got {float(beta)}")
        self.theta, self.beta = theta, beta

    @property
    def thermal_speed(self) -> Scalar:
        """v_th = √(2θ), in c."""
        return (2 * self.theta) ** 0.5

    @property
    def gyrofrequency(self) -> Scalar:
        """Ωₑ = B = √(2θ/β), in ωₚ."""
        return (2 * self.theta / self.beta) ** 0.5

    @property
    def gyroradius(self) -> Scalar:
        """ρₑ = √β, in c/ωₚ."""
        return self.beta**0.5

    @property
    def debye_length(self) -> Scalar:
        """λ_D = √θ, in c/ωₚ."""
        return self.theta**0.5
