"""What theory says: the Soret steady state, the flat interface, Gibbs–Thomson, and the velocity of a precipitate in a gradient.

Fluxes and speeds follow from the linear law and local equilibrium at the interfaces (as for inclusions in J. Philibert, Atom Movements,
1991, ch. X); G = dT/dx, and a positive velocity points to the hot side.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from .flux import check_convention
from .free_energy import GAS_CONSTANT, QuarticTwoPhase, Scalar
from .heat_of_transport import HeatOfTransport
from .mobility import PhaseMobility

FAR_FIELDS = ("equilibrium", "zero_flux")
"The matrix far away: on the solvus at every temperature, as between walls that pass its flux; or at rest, as in a closed box."


def soret_steady_state(temperature: Float[Array, ...], heat_of_transport: Scalar, mean: Scalar) -> Float[Array, ...]:
    """The ideal solution at rest in a closed bar of equal cells, with the given mean composition ("isothermal" law, SI units):

        J = 0:   ln(c / (1 - c)) = Q*/(R T) + A,   A from the mean

    Dilute: c ∝ exp(Q*/(R T)), so that ln c against 1/T has the slope Q*/R, from which L. S. Darken and R. A. Oriani measured Q*
    (Acta Metall. 2, 841 (1954)).

    **Arguments:** `temperature` in K, `heat_of_transport` Q* in J/mol, `mean` in (0, 1). Differentiable in all three.

    >>> c = soret_steady_state(jnp.linspace(973.15, 1073.15, 65), -100e3, 1e-4)
    >>> print(f"{c[-1] / c[0]:.2f} times as much carbon at the hot end")
    3.16 times as much carbon at the hot end
    """
    exponent = heat_of_transport / (GAS_CONSTANT * temperature)

    mean = jnp.asarray(mean, exponent.dtype)
    guess = jnp.log(mean / (1 - mean)) - exponent.mean()
    # Round-off of logarithms of 1e-12 and less; convergence is quadratic, so what is left is far smaller.
    tolerance = 1e3 * float(jnp.finfo(exponent.dtype).eps)
    constant = optx.root_find(_excess, optx.Newton(rtol=tolerance, atol=tolerance), guess, args=(exponent, mean), max_steps=64).value
    return jax.nn.sigmoid(exponent + constant)


def _excess(constant: Array, args: tuple[Array, Array]) -> Array:
    exponent, mean = args
    # In logarithms the dilute limit is linear, and Newton's method is exact there.
    return jax.nn.logsumexp(jax.nn.log_sigmoid(exponent + constant)) - jnp.log(exponent.size * mean)


def interface_width(free_energy: QuarticTwoPhase, kappa: Scalar) -> Float[Array, ""]:
    """δ = (2/Δc) √(κ/W) of the flat profile (cₐ + c_b)/2 + (Δc/2) tanh(x/δ), for F = ∫ f + κ|∇c|² (with κ/2, κ counts half).

    >>> print(f"{interface_width(QuarticTwoPhase(), kappa=1.0):.2f}")
    2.50
    """
    return 2 * jnp.sqrt(kappa / free_energy.barrier) / _gap(free_energy)


def interface_profile(x: Float[Array, ...], free_energy: QuarticTwoPhase, kappa: Scalar) -> Float[Array, ...]:
    """The flat interface at T₀, matrix at x → -∞, precipitate at x → ∞.

    >>> print(" ".join(f"{c:.2f}" for c in interface_profile(jnp.array([-20.0, 0.0, 20.0]), QuarticTwoPhase(), kappa=1.0)))
    0.10 0.50 0.90
    """
    middle = (free_energy.matrix + free_energy.precipitate) / 2
    return middle + _gap(free_energy) / 2 * jnp.tanh(x / interface_width(free_energy, kappa))


def interface_energy(free_energy: QuarticTwoPhase, kappa: Scalar) -> Float[Array, ""]:
    """γ = √(κ W) Δc³/3, per area.

    >>> print(f"{interface_energy(QuarticTwoPhase(), kappa=1.0):.4f}")
    0.1707
    """
    return jnp.sqrt(kappa * jnp.asarray(free_energy.barrier)) * _gap(free_energy) ** 3 / 3


def gibbs_thomson(radius: Scalar, free_energy: QuarticTwoPhase, kappa: Scalar, *, dimension: Literal[2, 3] = 2) -> Float[Array, ""]:
    """The excess of composition in a matrix at equilibrium with a particle of that radius: (d - 1) γ / (r Δc f_cc).

    >>> print(f"{gibbs_thomson(10.0, QuarticTwoPhase(), kappa=1.0):.4f}")
    0.0167
    """
    potential = (dimension - 1) * interface_energy(free_energy, kappa) / (radius * _gap(free_energy))
    return potential / _curvature(free_energy)


def slab_velocity(
    free_energy: QuarticTwoPhase,
    heat_of_transport: HeatOfTransport,
    gradient: Scalar,
    *,
    mobility: PhaseMobility | None = None,
    temperature: Scalar = 1.0,
    convention: str = "isothermal",
) -> Float[Array, ""]:
    """The speed of a slab of precipitate b across a matrix a that is at equilibrium on either side:

        v = (J_b - Jₐ) / (c_b - cₐ),   Jᵢ = -Mᵢ (mᵢ + Qᵢ/T) G,   mᵢ = f_cc sᵢ/T₀ ("isothermal") or 0 ("total")

    With equal M and Q in both phases Q cancels. Valid for slabs much wider than the interface, error O(δ/width). Taken at T = T₀, where
    the gap is Δc.

    >>> sloped = QuarticTwoPhase(matrix_slope=0.1, precipitate_slope=-0.1)
    >>> print(" ".join(f"{slab_velocity(sloped, HeatOfTransport(0.0, heat), 1e-3):.1e}" for heat in (0.0, 0.512)))
    3.2e-04 -3.2e-04
    """
    matrix, precipitate = _fluxes(free_energy, heat_of_transport, gradient, mobility, temperature, convention)
    return (precipitate - matrix) / _gap(free_energy)


def matrix_flux(
    free_energy: QuarticTwoPhase,
    heat_of_transport: HeatOfTransport,
    gradient: Scalar,
    *,
    mobility: PhaseMobility | None = None,
    temperature: Scalar = 1.0,
    convention: str = "isothermal",
) -> Float[Array, ""]:
    """Jₐ of a matrix on its solvus: the flux that walls must pass so that it stays there.

    >>> print(f"{matrix_flux(QuarticTwoPhase(), HeatOfTransport(-0.2), 1e-3):.1e}")
    2.0e-04
    """
    return _fluxes(free_energy, heat_of_transport, gradient, mobility, temperature, convention)[0]


def disc_velocity(
    free_energy: QuarticTwoPhase,
    heat_of_transport: HeatOfTransport,
    gradient: Scalar,
    *,
    dimension: Literal[1, 2, 3] = 2,
    far_field: str = "equilibrium",
    mobility: PhaseMobility | None = None,
    temperature: Scalar = 1.0,
    convention: str = "isothermal",
) -> Float[Array, ""]:
    """The speed of a disc (sphere for `dimension=3`), whatever its radius:

        far matrix at equilibrium:  v = (J_b - Jₐ) / Δc                  as for the slab
        far matrix without flux:    v = (J_b + (d - 1) Jₐ) / Δc          the matrix answers with a dipole around the particle

    Size enters through Gibbs–Thomson only, at order δ/radius.

    >>> speeds = [disc_velocity(QuarticTwoPhase(), HeatOfTransport(-0.2), 1e-3, far_field=far) for far in ("equilibrium", "zero_flux")]
    >>> print(" ".join(f"{speed:.1e}" for speed in speeds))
    0.0e+00 5.0e-04
    """
    if far_field not in FAR_FIELDS:
        raise ValueError(f"far_field must be 'equilibrium' or 'zero_flux', got {far_field!r}")
    matrix, precipitate = _fluxes(free_energy, heat_of_transport, gradient, mobility, temperature, convention)
    share = -1 if far_field == "equilibrium" else dimension - 1
    return (precipitate + share * matrix) / _gap(free_energy)


def critical_gradient(
    small: Scalar,
    large: Scalar,
    separation: Scalar,
    free_energy: QuarticTwoPhase,
    heat_of_transport: HeatOfTransport,
    kappa: Scalar,
    *,
    temperature: Scalar = 1.0,
) -> Float[Array, ""]:
    """The gradient that balances Ostwald ripening between a small particle on the hot side and a large one on the cold side:

        |f_cc sₐ/T₀ + Qₐ/T| G ℓ = (γ/Δc) (1/r - 1/R)

    An estimate, up to a factor of order one from the shape of the flow around them. `separation` ℓ is the matrix between them.

    >>> print(f"{critical_gradient(9.0, 14.0, 37.0, QuarticTwoPhase(), HeatOfTransport(-0.2), kappa=1.0):.2g}")
    0.0011
    """
    theta = _curvature(free_energy) * free_energy.matrix_slope / free_energy.reference_temperature
    theta = theta + heat_of_transport.matrix / temperature
    return interface_energy(free_energy, kappa) / _gap(free_energy) * (1 / small - 1 / large) / (jnp.abs(theta) * separation)


def spinodal_growth_rate(
    wavenumber: Float[Array, ...], composition: Scalar, free_energy: QuarticTwoPhase, kappa: Scalar, *, temperature: Scalar = 1.0
) -> Float[Array, ...]:
    """-k² (f_cc + 2κ k²): how fast a small wave on a uniform c grows at unit mobility (J. W. Cahn, Acta Metall. 9, 795 (1961)).

    >>> print(spinodal_growth_rate(jnp.array([0.1, 0.4, 0.8]), 0.5, QuarticTwoPhase(), kappa=1.0).round(4))
    [ 0.0062  0.0512 -0.4096]
    """
    curvature = free_energy.curvature(jnp.asarray(composition), jnp.asarray(temperature))
    return -(wavenumber**2) * (curvature + 2 * kappa * wavenumber**2)


def _fluxes(
    free_energy: QuarticTwoPhase,
    heat_of_transport: HeatOfTransport,
    gradient: Scalar,
    mobility: PhaseMobility | None,
    temperature: Scalar,
    convention: str,
) -> tuple[Array, Array]:
    check_convention(convention)
    mobility = PhaseMobility(1.0) if mobility is None else mobility
    slopes = (free_energy.matrix_slope, free_energy.precipitate_slope)

    def flux(part: PhaseMobility, heat: HeatOfTransport, index: int) -> Array:
        chemical = _curvature(free_energy) * slopes[index] / free_energy.reference_temperature if convention == "isothermal" else 0.0
        values = [p.matrix if index == 0 or p.precipitate is None else p.precipitate for p in (part, heat)]
        return jnp.asarray(-values[0] * (chemical + values[1] / temperature) * gradient)

    return flux(mobility, heat_of_transport, 0), flux(mobility, heat_of_transport, 1)


def _gap(free_energy: QuarticTwoPhase) -> Array:
    return jnp.asarray(free_energy.precipitate) - free_energy.matrix


def _curvature(free_energy: QuarticTwoPhase) -> Array:
    return 2 * free_energy.barrier * _gap(free_energy) ** 2
