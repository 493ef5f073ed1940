"""The gradient as it is usually read off: line ratios in rings, and a straight line through them, the beam left in."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradatim.numerics import Line, fit_line
from gradatim.numerics.checks import is_known

from .strong_lines import log_flux_ratio, metallicity


class RadialProfile(NamedTuple):
    """Abundances in rings."""

    radius: Float[Array, " rings"]  # mean of the pixels, weighted by Hα
    metallicity: Float[Array, " rings"]
    standard_error: Float[Array, " rings"]  # infinite where there is none
    is_valid: Bool[Array, " rings"]


def radial_profile(
    fluxes: Float[Array, "lines ..."],
    errors: Float[Array, "lines ..."],
    radius: Float[Array, "*pixels"],
    *,
    edges: Float[Array, " edges"],
    calibration: str,
) -> RadialProfile:
    """Abundance in rings from N2: fluxes are summed over a ring before any ratio is formed.

    Pixels are taken for independent; noise that is shared with neighbours makes the errors too small by about the root of the area that
    shares it, in pixels.

    **Arguments:** `fluxes` of Hα and [N II] 6585, and their standard deviations; `radius` of each pixel in the plane of the disc; `edges`
    of the rings, ascending; `calibration`: of N2.

    **Raises:** `ValueError` for edges that do not ascend.

    >>> fluxes, errors = jnp.asarray([[4.0, 2.0, 1.0], [1.0, 0.4, 0.1]]), jnp.full((2, 3), 0.01)
    >>> radius, edges = jnp.asarray([0.5, 1.5, 2.5]), jnp.arange(4.0)
    >>> profile = radial_profile(fluxes, errors, radius, edges=edges, calibration="pp04-n2")
    >>> " ".join(f"{value:.3f}" for value in profile.metallicity)
    '8.557 8.502 8.330'
    """
    if is_known(edges) and not (np.diff(np.asarray(edges)) > 0).all():
        raise ValueError(f"edges must ascend, got {edges}")
    return _profile(fluxes, errors, radius, edges, calibration)


@functools.partial(jax.jit, static_argnames="calibration")
def _profile(fluxes: Array, errors: Array, radius: Array, edges: Array, calibration: str) -> RadialProfile:
    flat = fluxes.reshape(2, -1), errors.reshape(2, -1)
    places = radius.ravel()
    member = ((places[None, :] >= edges[:-1, None]) & (places[None, :] < edges[1:, None])).astype(places.dtype)
    halpha, nitrogen = flat[0] @ member.T
    variances = flat[1] ** 2 @ member.T
    ratio = log_flux_ratio(nitrogen, halpha)
    index = jnp.where(ratio.is_valid, ratio.value, -0.7)
    value, slope = jax.jvp(lambda index: metallicity(index, calibration).value, (index,), (jnp.ones_like(index),))
    relative = jnp.where(ratio.is_valid, variances[0] / halpha**2 + variances[1] / nitrogen**2, jnp.inf)
    is_valid = ratio.is_valid & jnp.isfinite(value)
    mean_radius = (flat[0][0] * places) @ member.T / halpha
    return RadialProfile(
        jnp.where(is_valid, mean_radius, (edges[1:] + edges[:-1]) / 2),
        jnp.where(is_valid, value, 0.0),
        jnp.where(is_valid, jnp.abs(slope) * jnp.sqrt(relative) / np.log(10), jnp.inf),
        is_valid,
    )


def radial_gradient(profile: RadialProfile) -> Line:
    """The line of weighted least squares through a profile: its slope is the gradient as seen, not as it is.

    A beam flattens it, by a fifth and more where the beam is as wide as the galaxy's scale length;
    [`fit_gradient_map`][gradatim.astro.fit_gradient_map] takes that into account.

    >>> profile = RadialProfile(jnp.asarray([1.0, 3.0]), jnp.asarray([8.5, 8.4]), jnp.asarray([0.1, 0.1]), jnp.asarray([True, True]))
    >>> print(f"{radial_gradient(profile).slope:.2f}")
    -0.05
    """
    return fit_line(profile.radius, profile.metallicity, profile.standard_error)
