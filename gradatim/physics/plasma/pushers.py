"""Pushers: a particle's momentum over one step in given fields, with or without a thermodynamic force.

J. P. Boris, Proc. 4th Conf. Num. Sim. Plasmas, 3 (1970); J.-L. Vay, Phys. Plasmas 15, 056701 (2008); A. V. Higuera and J. R. Cary, Phys.
Plasmas 24, 052104 (2017), whose printed form of the last rotation is corrected as in B. Ripperda et al., ApJS 235, 21 (2018). How the force
goes into Vay's and Boris's: arXiv:2504.14000, section III.1 and appendix C.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from .forces import AbstractForce
from .vectors import Scalar, Vector, add, cross, dot, lorentz_factor, scaled

SPLITTINGS = ("strang", "effective-field")


Pusher = Callable[..., Vector]
"The call that all pushers share."


def boris(
    u: Vector,
    E: Vector,
    B: Vector,
    dt: Scalar,
    charge_to_mass: Scalar,
    *,
    force: AbstractForce | None = None,
    splitting: str = "strang",
) -> Vector:
    """Boris: half the electric kick, a rotation, the other half.

        u⁻ = u + h E,   t = h B / γ⁻,   u' = u⁻ + u⁻ × t,   u⁺ = u⁻ + 2 u' × t / (1 + t²),   u_new = u⁺ + h E,   h = q dt / (2 m)

    Keeps |u| in a magnetic field to round-off; drifts a little off E × B at relativistic speeds, which [`vay`][gradatim.physics.plasma.vay]
    does not.

    **Arguments:** `u`: momenta γ v / c at half a step before the fields; `E`, `B`: at the particles; `charge_to_mass` q / m in e / mₑ;
    `force`: added as `splitting` says: `"strang"`, half its flow before the push and half after, of second order; `"effective-field"`, the
    paper's way, as an electric field (m/q) du/dt taken at the old momentum, of first order only, since that momentum lags.

    **Raises:** `ValueError` for a word that is no splitting.

    >>> zero, along_z = Vector(0.0, 0.0, 0.0), Vector(0.0, 0.0, 1.0)
    >>> u = boris(Vector(3.0, 0.0, 0.0), zero, along_z, 0.1, -1.0)
    >>> print(f"{float(u.x**2 + u.y**2):.4f} {float(u.y):.4f}")
    9.0000 0.0948
    """
    return _forced(_boris, u, E, B, dt, charge_to_mass, force, splitting)


def vay(
    u: Vector,
    E: Vector,
    B: Vector,
    dt: Scalar,
    charge_to_mass: Scalar,
    *,
    force: AbstractForce | None = None,
    splitting: str = "strang",
) -> Vector:
    """Vay: keeps a particle that moves with E + v × B = 0 exactly there, at any speed.

        u' = u + 2h E + h v × B,   τ = h B,   s = γ'² - τ²,   u* = u'·τ,   γ = √[(s + √(s² + 4(τ² + u*²))) / 2],   t = τ / γ
        u_new = (u' + (u'·t) t + u' × t) / (1 + t²),   h = q dt / (2 m)

    Arguments and errors as for [`boris`][gradatim.physics.plasma.boris]. With `"effective-field"` this is Eq. (54) of arXiv:2504.14000.

    >>> import jax.numpy as jnp
    >>> drifting = vay(Vector(0.0, 0.0, 0.0), Vector(0.0, 0.0, 0.0), Vector(0.0, 0.0, 1.0), 0.1, -1.0)
    >>> [float(part) for part in drifting]
    [0.0, 0.0, 0.0]
    """
    return _forced(_vay, u, E, B, dt, charge_to_mass, force, splitting)


def higuera_cary(
    u: Vector,
    E: Vector,
    B: Vector,
    dt: Scalar,
    charge_to_mass: Scalar,
    *,
    force: AbstractForce | None = None,
    splitting: str = "strang",
) -> Vector:
    """Higuera and Cary: Boris's rotation with the Lorentz factor of its middle; keeps both phase-space volume and the E × B drift.

        u⁻ = u + h E,   s = γ⁻² - τ²,   γ = √[(s + √(s² + 4(τ² + (u⁻·τ)²))) / 2],   t = τ / γ,   then as Boris

    Arguments and errors as for [`boris`][gradatim.physics.plasma.boris].

    >>> drifting = Vector(0.75**-0.5 / 2, 0.0, 0.0)  # at E × B / B²
    >>> u = higuera_cary(drifting, Vector(0.0, 0.5, 0.0), Vector(0.0, 0.0, 1.0), 0.1, -1.0)
    >>> bool(abs(u.x - drifting.x) + abs(u.y) < 1e-6)
    True
    """
    return _forced(_higuera_cary, u, E, B, dt, charge_to_mass, force, splitting)


def _forced(core, u, E, B, dt, charge_to_mass, force, splitting):
    if splitting not in SPLITTINGS:
        raise ValueError(f"splitting must be one of {SPLITTINGS}, got {splitting!r}")
    kick, rotation = scaled(E, charge_to_mass * dt / 2), scaled(B, charge_to_mass * dt / 2)
    if force is None:
        return core(u, kick, rotation)
    if splitting == "effective-field":
        return core(u, add(kick, force(u), dt / 2), rotation)
    return force.flow(core(force.flow(u, dt / 2), kick, rotation), dt / 2)


def _boris(u: Vector, kick: Vector, tau: Vector) -> Vector:
    u = add(u, kick)
    return add(_rotated(u, scaled(tau, 1 / lorentz_factor(u))), kick)


def _vay(u: Vector, kick: Vector, tau: Vector) -> Vector:
    gamma = lorentz_factor(u)
    u = add(add(u, kick, 2), cross(u, tau), 1 / gamma)
    t = scaled(tau, 1 / _middle_gamma(u, tau))
    along, turned = dot(u, t), cross(u, t)
    return scaled(add(add(u, t, along), turned), 1 / (1 + dot(t, t)))


def _higuera_cary(u: Vector, kick: Vector, tau: Vector) -> Vector:
    u = add(u, kick)
    return add(_rotated(u, scaled(tau, 1 / _middle_gamma(u, tau))), kick)


def _middle_gamma(u: Vector, tau: Vector):
    tau_squared = dot(tau, tau)
    s = 1 + dot(u, u) - tau_squared
    return jnp.sqrt((s + jnp.sqrt(s**2 + 4 * (tau_squared + dot(u, tau) ** 2))) / 2)


def _rotated(u: Vector, t: Vector) -> Vector:
    return add(u, cross(add(u, cross(u, t)), t), 2 / (1 + dot(t, t)))
