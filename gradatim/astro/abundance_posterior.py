"""Abundance, dust and Hβ at once from whatever strong lines there are, with the scatter of the calibrations in the errors."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from .dust import CASE_B, TOTAL_TO_SELECTIVE, Curve, attenuation_curve
from .emission_lines import HALPHA, HBETA
from .strong_lines import CALIBRATIONS, abundance_range, line_index

WAVELENGTHS = {"Hβ": HBETA, "[O III]": 5008.24, "Hα": HALPHA, "[N II]": 6585.27}
"The lines that are taken, in this order; at rest in vacuum, Å."
_FLUX_NODES = 25


class AbundancePosterior(NamedTuple):
    """What lines say of 12 + log(O/H) and of the dust's A_V."""

    metallicity: Float[Array, " probabilities"]
    attenuation: Float[Array, " probabilities"]  # A_V, mag
    density: Float[Array, "metallicities attenuations"]  # sums to one
    metallicities: Float[Array, " metallicities"]
    attenuations: Float[Array, " attenuations"]


def infer_metallicity(
    fluxes: Float[Array, " 4"],
    errors: Float[Array, " 4"],
    *,
    n2: str = "c20-n2",
    o3n2: str = "c20-o3n2",
    curve: Curve = "calzetti00",
    probabilities: tuple[float, ...] = (0.16, 0.5, 0.84),
    metallicity_range: tuple[float, float] | None = None,
    n_metallicities: int = 121,
    attenuation_range: tuple[float, float] = (0.0, 4.0),
    n_attenuations: int = 161,
) -> AbundancePosterior:
    """Abundance and dust from Hβ, [O III] 5008, Hα and [N II] 6585, none of them needed: on a grid, no sampler.

        mᵢ = f Rᵢ(Z) 10^(-0.4 kᵢ A_V/R_V),     ln L = -½ Σ [ln Vᵢ + (Fᵢ - mᵢ)²/Vᵢ],     Vᵢ = σᵢ² + (mᵢ ln 10 · sᵢ)²

    with Rᵢ the ratio to Hβ without dust that the calibrations give (2.86 for Hα) and sᵢ their scatter in dex (none for hydrogen). Priors
    are flat in Z and in A_V, and 1/f in the flux f of Hβ, over which the sum runs at each point of the grid. With Hα, Hβ adds
    little to Z: it is dust that it tells.

    **Arguments:** `fluxes` and `errors` > 0, in the order above; an infinite error leaves a line out; `n2`, `o3n2`: calibrations of these
    indices; `curve` of the dust; `probabilities` of the quantiles, in [0, 1]; `metallicity_range`: within that of both calibrations, which
    it is by default (see [`abundance_range`][gradatim.astro.abundance_range]); `attenuation_range`: from at least 0; both ascend;
    `n_metallicities`, `n_attenuations` ≥ 2: a grid coarser than what the lines tell blurs it.

    **Raises:** `ValueError` for errors that are not positive or leave out every line, calibrations of another index, and ranges,
    probabilities or sizes out of range.

    >>> from gradatim.astro import line_index
    >>> z = jnp.asarray(8.5)
    >>> n2, o3n2 = (10 ** line_index(z, name).value for name in ("c20-n2", "c20-o3n2"))
    >>> fluxes = jnp.stack([jnp.ones(()), o3n2 * n2, jnp.asarray(2.86), 2.86 * n2])
    >>> print(f"{infer_metallicity(fluxes, 0.01 * fluxes).metallicity[1]:.1f}")
    8.5
    """
    for name, index in ((n2, "N2"), (o3n2, "O3N2")):
        if name not in CALIBRATIONS or CALIBRATIONS[name].index != index:
            allowed = ", ".join(key for key, rule in CALIBRATIONS.items() if rule.index == index)
            raise ValueError(f"the calibration of {index} must be one of {allowed}, got {name!r}")
    if is_known(errors) and not ((np.asarray(errors) > 0).all() and np.isfinite(errors).any()):
        raise ValueError(f"errors must be positive and one of them finite, got {errors}")
    lows, highs = zip(*(abundance_range(name) for name in (n2, o3n2)), strict=True)
    known = max(lows), min(highs)
    span = known if metallicity_range is None else metallicity_range
    if not known[0] <= span[0] < span[1] <= known[1]:
        raise ValueError(
            f"metallicity_range must ascend within [{known[0]:.4g}, {known[1]:.4g}], for which {n2} and {o3n2} were both made, got {span}"
        )
    if not 0 <= attenuation_range[0] < attenuation_range[1]:
        raise ValueError(f"attenuation_range must ascend from at least 0, got {attenuation_range}")
    for name, size in (("n_metallicities", n_metallicities), ("n_attenuations", n_attenuations)):
        if size < 2:
            raise ValueError(f"{name} must be at least 2, got {size}")
    if not all(0 <= p <= 1 for p in probabilities):
        raise ValueError(f"probabilities must lie in [0, 1], got {probabilities}")
    at, ranges = (jnp.asarray(part, fluxes.dtype) for part in (probabilities, (*span, *attenuation_range)))
    return _infer(fluxes, errors, at, ranges, n2, o3n2, curve, (n_metallicities, n_attenuations))


@functools.partial(jax.jit, static_argnums=(4, 5, 6, 7))
def _infer(
    fluxes: Array,
    errors: Array,
    at: Array,
    ranges: Array,
    n2: str,
    o3n2: str,
    curve: Curve,
    sizes: tuple[int, int],
) -> AbundancePosterior:
    dtype, (n_metallicities, n_attenuations) = fluxes.dtype, sizes
    fluxes = jnp.where(jnp.isfinite(errors), fluxes, 0.0)
    z, dust = (jnp.linspace(ranges[i], ranges[i + 1], n, dtype=dtype) for i, n in ((0, n_metallicities), (2, n_attenuations)))
    low, high = (line_index(z, name).value for name in (n2, o3n2))
    ratios = jnp.stack([jnp.ones_like(z), 10 ** (high + low), jnp.full_like(z, CASE_B), CASE_B * 10**low], axis=1)
    # Scatter in Z is scatter in the ratio times the slope of the calibration.
    slopes = [
        jnp.abs(jax.jvp(lambda z, name=name: line_index(z, name).value, (z,), (jnp.ones_like(z),))[1]) * CALIBRATIONS[name].scatter
        for name in (n2, o3n2)
    ]
    scatter = jnp.stack([0 * z, jnp.hypot(*slopes), 0 * z, slopes[0]], axis=1) * np.log(10)
    k = attenuation_curve(jnp.asarray(list(WAVELENGTHS.values()), dtype), curve)
    dimmed = 10 ** (-0.4 * k[None, :] * dust[:, None] / TOTAL_TO_SELECTIVE[curve])

    nodes = jnp.linspace(-5, 5, _FLUX_NODES, dtype=dtype)

    def cell(R: Array, s: Array, D: Array) -> Array:
        shape = R * D
        # Each line's own estimate of f; the calibrations' scatter enters relative to a first mean.
        first = _mean(fluxes / shape, errors / shape)[0]
        middle, width = _mean(fluxes / shape, jnp.sqrt((errors / shape) ** 2 + (first * s) ** 2))
        share = jnp.minimum(width / jnp.maximum(middle, width), 0.9)
        f = jnp.maximum(middle, width) * jnp.exp(nodes * share)
        m = f[:, None] * shape[None, :]
        v = errors[None, :] ** 2 + (m * s[None, :]) ** 2
        known = jnp.isfinite(errors)[None, :]
        v = jnp.where(known, v, 1.0)
        terms = jnp.where(known, jnp.log(v) + (fluxes[None, :] - m) ** 2 / v, 0.0)
        return jax.scipy.special.logsumexp(-0.5 * terms.sum(axis=1)) + jnp.log(share)

    heights = jax.vmap(lambda R, s: jax.vmap(lambda D: cell(R, s, D))(dimmed))(ratios, scatter)
    density = jnp.exp(heights - heights.max())
    density = density / density.sum()
    return AbundancePosterior(_quantiles(z, density.sum(axis=1), at), _quantiles(dust, density.sum(axis=0), at), density, z, dust)


def _mean(values: Array, errors: Array) -> tuple[Array, Array]:
    w = 1 / errors**2
    return w @ values / w.sum(), 1 / jnp.sqrt(w.sum())


def _quantiles(points: Array, density: Array, probabilities: Array) -> Array:
    below = jnp.concatenate([jnp.zeros(1, points.dtype), jnp.cumsum((density[1:] + density[:-1]) / 2)])
    return jnp.interp(probabilities * below[-1], below, points)
