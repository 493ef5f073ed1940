"""From a salt in a solvent to the numbers of the theory."""

from __future__ import annotations

import math
from typing import NamedTuple

from .checks import positive

_ELEMENTARY_CHARGE = 1.602176634e-19  # C
_BOLTZMANN = 1.380649e-23  # J/K
_VACUUM_PERMITTIVITY = 8.8541878188e-12  # F/m
_AVOGADRO = 6.02214076e23  # 1/mol


class SaltUnits(NamedTuple):
    """A symmetric salt in SI units, and its field in the theory's."""

    bjerrum_length: float  # m
    debye_length: float  # m
    field: float  # Q E/(k_B T κ)
    coupling: float  # l_B κ: must be small for the linear theory


def salt_units(
    *, concentration: float, field: float = 0.0, temperature: float = 298.15, relative_permittivity: float = 78.4, valence: int = 1
) -> SaltUnits:
    """κ⁻¹, l_B and the dimensionless field of a z:z salt.

    **Arguments:** `concentration` in mol/m³ (mmol/l) of each species; `field` in V/m; `temperature` in K; `relative_permittivity`, by
    default of water at 25 °C; `valence` z ≥ 1.

    >>> salt = salt_units(concentration=1.0, field=1e6)
    >>> f"{salt.bjerrum_length * 1e9:.2f} nm, {salt.debye_length * 1e9:.1f} nm, {salt.field:.2f}"
    '0.71 nm, 9.6 nm, 0.37'
    """
    positive(concentration=concentration, temperature=temperature, relative_permittivity=relative_permittivity, valence=float(valence))
    charge, energy = valence * _ELEMENTARY_CHARGE, _BOLTZMANN * temperature
    bjerrum = charge**2 / (4 * math.pi * _VACUUM_PERMITTIVITY * relative_permittivity * energy)
    kappa = math.sqrt(8 * math.pi * bjerrum * concentration * _AVOGADRO)
    return SaltUnits(bjerrum, 1 / kappa, charge * field / (energy * kappa), bjerrum * kappa)
