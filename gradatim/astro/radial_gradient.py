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

from .disk_model import check_n2
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
    shares it, in pixels: [`block_bootstrap`][gradatim.astro.block_bootstrap] does not take them so.

    **Arguments:** `fluxes` of Hα and [N II] 6585, and their standard deviations, infinite in either line where a pixel is to be left out;
    `radius` of each pixel in the plane of the disc; `edges` of the rings, ascending; `calibration`: of N2.

    **Raises:** `ValueError` for edges that do not ascend, or a calibration of another ratio.

    >>> fluxes, errors = jnp.asarray([[4.0, 2.0, 1.0], [1.0, 0.4, 0.1]]), jnp.full((2, 3), 0.01)
    >>> radius, edges = jnp.asarray([0.5, 1.5, 2.5]), jnp.arange(4.0)
    >>> profile = radial_profile(fluxes, errors, radius, edges=edges, calibration="pp04-n2")
    >>> " ".join(f"{value:.3f}" for value in profile.metallicity)
    '8.557 8.502 8.330'
    """
    if is_known(edges) and not (np.diff(np.asarray(edges)) > 0).all():
        raise ValueError(f"edges must ascend, got {edges}")
    check_n2(calibration)
    return _profile(fluxes, errors, radius, edges, calibration)


@functools.partial(jax.jit, static_argnames="calibration")
def _profile(fluxes: Array, errors: Array, radius: Array, edges: Array, calibration: str) -> RadialProfile:
    flux, error, places = fluxes.reshape(2, -1), errors.reshape(2, -1), radius.ravel()
    is_member = (places[None, :] >= edges[:-1, None]) & (places[None, :] < edges[1:, None]) & jnp.isfinite(error).all(axis=0)[None, :]

    def sums(values: Array) -> Array:
        # Chosen, not multiplied by zero: what lies elsewhere may not be a number.
        return jnp.where(is_member, values[..., None, :], 0.0).sum(axis=-1)

    halpha, nitrogen = sums(flux)
    variances = sums(error**2)
    ratio = log_flux_ratio(nitrogen, halpha)
    index = jnp.where(ratio.is_valid, ratio.value, -0.7)
    value, slope = jax.jvp(lambda index: metallicity(index, calibration).value, (index,), (jnp.ones_like(index),))
    relative = jnp.where(ratio.is_valid, variances[0] / halpha**2 + variances[1] / nitrogen**2, jnp.inf)
    is_valid = ratio.is_valid & jnp.isfinite(value)
    mean_radius = sums(flux[0] * places) / halpha
    return RadialProfile(
        jnp.where(is_valid, mean_radius, (edges[1:] + edges[:-1]) / 2),
        jnp.where(is_valid, value, 0.0),
        jnp.where(is_valid, jnp.abs(slope) * jnp.sqrt(relative) / np.log(10), jnp.inf),
        is_valid,
    )


def radial_gradient(profile: RadialProfile, *, scatter: bool = False) -> Line:
    """The line of weighted least squares through a profile: its slope is the gradient as seen, not as it is.

    A beam flattens it, by a fifth and more where the beam is as wide as the galaxy's scale length;
    [`fit_gradient_map`][gradatim.astro.fit_gradient_map] takes that into account.

    **Arguments:** `scatter`: whether rings may scatter about the line beyond their errors, as spiral arms make them: by s, in quadrature,
    with which χ² is the number n of rings less two (R. C. Paule & J. Mandel, J. Res. Natl. Bur. Stand. 87, 377 (1982)); none where it is
    less without.

    >>> profile = RadialProfile(jnp.asarray([1.0, 3.0]), jnp.asarray([8.5, 8.4]), jnp.asarray([0.1, 0.1]), jnp.asarray([True, True]))
    >>> print(f"{radial_gradient(profile).slope:.2f}")
    -0.05
    """
    line = functools.partial(fit_line, profile.radius, profile.metallicity)
    return line(_scattered(profile) if scatter else profile.standard_error)


@jax.jit
def _scattered(profile: RadialProfile) -> Array:
    """Errors of the rings with what they scatter beyond them."""
    x, y, errors, is_known = profile.radius, profile.metallicity, profile.standard_error, jnp.isfinite(profile.standard_error)
    excess = is_known.sum() - 2

    def with_scatter(squared: Array) -> Array:
        return jnp.sqrt(errors**2 + squared)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        is_enough = fit_line(x, y, with_scatter(middle)).chi_squared <= excess
        return jnp.where(is_enough, low, middle), jnp.where(is_enough, middle, high)

    # About any line, χ² is at least that of the best one: with this much scatter, too little about a level one.
    level = jnp.where(is_known, y - y.mean(where=is_known), 0.0)
    bounds = jnp.zeros_like(y[0]), level @ level / jnp.maximum(excess, 1)
    _, squared = jax.lax.fori_loop(0, 40, halve, bounds)
    is_needed = (excess > 0) & (fit_line(x, y, errors).chi_squared > excess)
    return with_scatter(jnp.where(is_needed, squared, 0.0))
