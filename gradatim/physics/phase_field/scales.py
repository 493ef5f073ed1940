"""The bridge between the dimensionless phase-field model and a material in SI units."""

from __future__ import annotations

from dataclasses import dataclass

from .free_energy import GAS_CONSTANT


@dataclass(frozen=True)
class Scales:
    """What one unit of the dimensionless model stands for.

        time = D_model length² / D       energy: f = 1 stands for R T₀ / `thermal_energy`

    **Arguments:** `length`: metres to a unit of length; `diffusivity` D of the material in m²/s; `model_diffusivity` M ∂²f/∂c², that of
    the model; `temperature` T₀ in K; `thermal_energy`: R T₀ in units of f.

    >>> scales = Scales(length=2e-9, diffusivity=1e-16, model_diffusivity=1.28, temperature=1000.0)
    >>> print(f"{scales.time:.3g} s, {scales.heat_of_transport(-100e3):.2f}, {scales.gradient(1e-3):.3g} K/m")
    0.0512 s, -12.03, 5e+08 K/m
    """

    length: float
    diffusivity: float
    model_diffusivity: float
    temperature: float
    thermal_energy: float = 1.0

    def __post_init__(self) -> None:
        for name in ("length", "diffusivity", "model_diffusivity", "temperature", "thermal_energy"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @property
    def time(self) -> float:
        """Seconds to a unit of time."""
        return self.model_diffusivity * self.length**2 / self.diffusivity

    @property
    def velocity(self) -> float:
        """Metres per second to a unit of velocity."""
        return self.length / self.time

    def gradient(self, gradient: float) -> float:
        """The model's G (in T₀ per unit of length) in K/m."""
        return gradient * self.temperature / self.length

    def heat_of_transport(self, joule_per_mole: float) -> float:
        """Q* in J/mol as the model's Q*."""
        return joule_per_mole * self.thermal_energy / (GAS_CONSTANT * self.temperature)
