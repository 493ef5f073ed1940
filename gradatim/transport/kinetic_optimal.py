"""The Gaussian path of least kinetic energy, in closed form (Shaul et al., arXiv:2306.06626, Theorem 3.1)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from .data_separation import DataSeparation
from .probability_paths import AbstractGaussianPath, Coefficients, Times, _times


class KineticOptimal(AbstractGaussianPath):
    """Made by [`kinetic_optimal_path`][gradatim.transport.kinetic_optimal_path]."""

    angles: Float[Array, " nodes"]
    speeds: Float[Array, " nodes"]
    "√γ at the angles."
    arc: Float[Array, " nodes"]
    "φ at the angles."

    def coefficients(self, t: Times) -> Coefficients:
        """Of the chord z, turned back into angles."""
        t = _times(t)
        angles, speeds, arc = (table.astype(t.dtype) for table in (self.angles, self.speeds, self.arc))
        cosine, sine = jnp.cos(arc[-1]), jnp.sin(arc[-1])
        real, imaginary = 1 - t + t * cosine, t * sine
        r = jnp.hypot(real, imaginary)
        dr = (real * (cosine - 1) + imaginary * sine) / r
        phi, dphi = jnp.arctan2(imaginary, real), sine / r**2
        i = jnp.clip(jnp.searchsorted(arc, phi, side="right") - 1, 0, len(arc) - 2)
        width = angles[i + 1] - angles[i]
        slope = (speeds[i + 1] - speeds[i]) / width
        # √γ is linear in a cell, so that φ is a parabola in θ, and this its root without cancellation.
        beyond = phi - arc[i]
        root = jnp.sqrt(jnp.maximum(speeds[i] ** 2 + 2 * slope * beyond, 0))
        step = jnp.clip(2 * beyond / (speeds[i] + root), 0, width)
        theta, dtheta = angles[i] + step, dphi / (speeds[i] + slope * step)
        a, m = jnp.sin(theta), jnp.cos(theta)
        return Coefficients(r * a, r * m, dr * a + r * m * dtheta, dr * m - r * a * dtheta)


def kinetic_optimal_path(separation: DataSeparation, *, floor: float | Float[Array, ""] = 1e-3) -> KineticOptimal:
    """The path whose marginal flow moves the data set with the least kinetic energy among Gaussian paths; not optimal transport.

        (a, m) = r (sin θ, cos θ),   φ(θ) = ∫ √γ dθ,   Φ = φ(π/2):     r e^{iφ} = (1 - t) + t e^{iΦ}

    In (r, φ) the energy is that of a motion in the flat plane, ∫ (r′² + r² φ′²) dt, so the optimum is a chord at constant speed, and its
    energy b = |1 - e^{iΦ}|². This solves the differential equation of the theorem, which starts at infinite speed, without integrating it.
    The gain over the straight path is large only where λ is far from one: data in few dimensions, or few that count.

    Where γ is near zero the angle moves fast (a′ ~ t^(-1/2) at the noise, for data that are not white), which makes the variance of
    the training target large: `floor` bounds it.

    **Arguments:** `separation` of the normalised data; `floor`: √γ is taken to be at least this, in (0, 1], which makes θ′ finite and
    raises the energy by at most 4 `floor`.

    **Raises:** `ValueError` for a floor outside.

    >>> from gradatim.transport import line_separation_gap, separation_of_gap
    >>> separation = separation_of_gap(lambda s: line_separation_gap(jnp.array([-1.0, 1.0]), s), n_nodes=256)
    >>> path = kinetic_optimal_path(separation)
    >>> print(f"energy {separation.least_energy:.3f}, of the straight path {2 - separation.area:.3f}")
    energy 0.459, of the straight path 0.982
    """
    if is_known(floor) and not 0 < floor <= 1:
        raise ValueError(f"floor must lie in (0, 1], got {floor}")
    floored = DataSeparation(separation.angles, jnp.maximum(separation.root_gamma, floor))
    return KineticOptimal(floored.angles, floored.root_gamma, floored.arc)
