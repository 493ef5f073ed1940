"""Gaussian emission lines on a straight continuum, fitted by variable projection: two unknowns are searched for, the rest is linear."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradatim.numerics.checks import is_known

from .deprojection import SPEED_OF_LIGHT

HALPHA, HBETA = 6564.61, 4862.68
"Å in vacuum, as all wavelengths here: in air, Hα lies 1.8 Å lower and goes by 6563."
FWHM = 2 * (2 * np.log(2)) ** 0.5
"Of a Gaussian, in standard deviations."


class LineSet(eqx.Module):
    """Lines that are seen together, in groups whose flux ratios atomic physics fixes.

    **Arguments:** `names`: of the groups; `wavelengths`: at rest in vacuum, Å; `groups`: the number of each line's group; `ratios`: each
    line's flux over that which its group is told by.

    **Raises:** `ValueError` for lists that do not fit together.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    wavelengths: tuple[float, ...] = eqx.field(static=True)
    groups: tuple[int, ...] = eqx.field(static=True)
    ratios: tuple[float, ...] = eqx.field(static=True)

    def __check_init__(self):
        lengths = {len(self.wavelengths), len(self.groups), len(self.ratios)}
        if len(lengths) != 1 or set(self.groups) != set(range(len(self.names))):
            raise ValueError(
                f"wavelengths, groups and ratios must have one entry a line and groups number the {len(self.names)} names, got "
                f"{len(self.wavelengths)}, {self.groups} and {len(self.ratios)}"
            )


HALPHA_COMPLEX = LineSet(("Hα", "[N II] 6585"), (HALPHA, 6585.27, 6549.86), (0, 1, 1), (1.0, 1.0, 1 / 3.05))
HBETA_COMPLEX = LineSet(("Hβ", "[O III] 5008"), (HBETA, 5008.24, 4960.30), (0, 1, 1), (1.0, 1.0, 1 / 2.98))


class LineFit(NamedTuple):
    """What a spectrum says of its lines."""

    flux: Float[Array, "*spectra groups"]  # unit of flux density times Å
    flux_error: Float[Array, "*spectra groups"]
    velocity: Float[Array, "*spectra"]  # km/s
    velocity_error: Float[Array, "*spectra"]
    dispersion: Float[Array, "*spectra"]  # km/s, the instrument's taken off
    dispersion_error: Float[Array, "*spectra"]
    chi_squared: Float[Array, "*spectra"]
    model: Float[Array, "*spectra channels"]
    is_valid: Bool[Array, "*spectra"]  # converged to finite numbers with enough channels


class LineFluxes(NamedTuple):
    """Fluxes of lines whose place and width are given."""

    flux: Float[Array, "*spectra groups"]
    flux_error: Float[Array, "*spectra groups"]


def instrumental_dispersion(resolving_power: float) -> float:
    """Standard deviation of the instrument's line, km/s: c / (2.3548 R).

    >>> print(f"{instrumental_dispersion(2700):.3f}")
    47.152
    """
    if not resolving_power > 0:
        raise ValueError(f"resolving_power must be positive, got {resolving_power}")
    return SPEED_OF_LIGHT / (FWHM * resolving_power)


@jax.jit
def channel_edges(wavelength: Float[Array, " channels"]) -> Float[Array, " channels+1"]:
    """Edges of channels, halfway between their centres.

    >>> channel_edges(jnp.asarray([1.0, 2.0, 4.0])).tolist()
    [0.5, 1.5, 3.0, 5.0]
    """
    middle = (wavelength[1:] + wavelength[:-1]) / 2
    return jnp.concatenate([2 * wavelength[:1] - middle[:1], middle, 2 * wavelength[-1:] - middle[-1:]])


def line_profiles(
    edges: Float[Array, " edges"],
    lines: LineSet,
    velocity: Float[Array, "*pixels"],
    dispersion: Float[Array, "*pixels"],
    *,
    redshift: Float[Array, ""] | float = 0.0,
    instrument: float,
) -> Float[Array, "*pixels edges-1 groups"]:
    """Each group's mean flux density over each channel, for a flux of one in the line that the group is told by.

        μ = λ (1 + z)(1 + v/c),     s = μ √(σ² + σ_inst²) / c,     [Φ((l₊ - μ)/s) - Φ((l₋ - μ)/s)] / (l₊ - l₋)

    **Arguments:** `edges` l of the channels, Å, ascending; `velocity` v and `dispersion` σ ≥ 0, km/s; `redshift` z; `instrument`: the
    instrument's dispersion σ_inst, km/s (0 where σ is to contain it).

    >>> edges, still = channel_edges(jnp.arange(6500.0, 6620.0)), jnp.zeros(())
    >>> profiles = line_profiles(edges, HALPHA_COMPLEX, still, still + 50.0, instrument=47.0)
    >>> [round(float(flux), 3) for flux in profiles.sum(axis=0)]  # [N II] holds its fainter line too: 1 + 1/3.05
    [1.0, 1.328]
    """
    return _profiles(edges, *_arrays(lines, edges.dtype), velocity, dispersion, jnp.asarray(redshift, edges.dtype), instrument)


def _arrays(lines: LineSet, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Wavelengths, and each line's share in its group: traced, so that one program serves all sets of as many lines."""
    shares = np.zeros((len(lines.wavelengths), len(lines.names)))
    shares[range(len(lines.groups)), lines.groups] = lines.ratios
    return jnp.asarray(lines.wavelengths, dtype), jnp.asarray(shares, dtype)


@jax.jit
def _profiles(edges: Array, rest: Array, shares: Array, velocity: Array, dispersion: Array, redshift: Array, instrument: Array) -> Array:
    ones = [1] * velocity.ndim
    centre = (1 + velocity[..., None, None] / SPEED_OF_LIGHT) * (rest * (1 + redshift)).reshape(*ones, 1, -1)
    width = centre * jnp.sqrt(dispersion**2 + instrument**2)[..., None, None] / SPEED_OF_LIGHT
    below = jax.scipy.special.erf((edges.reshape(*ones, -1, 1) - centre) / (width * 2**0.5)) / 2
    density = jnp.diff(below, axis=-2) / jnp.diff(edges).reshape(*ones, -1, 1)
    return density @ shares


def extract_lines(
    wavelength: Float[Array, " channels"],
    flux: Float[Array, "spectra channels"],
    inverse_variance: Float[Array, "spectra channels"],
    lines: LineSet,
    *,
    velocity: Float[Array, " spectra"],
    dispersion: Float[Array, " spectra"],
    redshift: float = 0.0,
    resolving_power: float,
) -> LineFluxes:
    """Fluxes of lines whose velocity and dispersion are known: linear, so without bias however faint they are.

    The continuum, a straight line, is fitted beside them.

    **Arguments:** as for [`fit_lines`][gradatim.astro.fit_lines]; `velocity` and `dispersion` of each spectrum, km/s.

    **Raises:** `ValueError` as there.

    >>> wave = jnp.arange(6500.0, 6620.0)
    >>> zero, width = jnp.zeros(1), jnp.full(1, 50.0)
    >>> flux = 5 * line_profiles(channel_edges(wave), HALPHA_COMPLEX, zero, width, instrument=instrumental_dispersion(2700))[..., 0]
    >>> settings = {"velocity": zero, "dispersion": width, "resolving_power": 2700}
    >>> print(f"{extract_lines(wave, flux, jnp.ones_like(flux), HALPHA_COMPLEX, **settings).flux[0, 0]:.3f}")
    5.000
    """
    _check(wavelength, flux, inverse_variance)
    instrument = instrumental_dispersion(resolving_power)
    shapes = (*_arrays(lines, flux.dtype), *(jnp.asarray(number, flux.dtype) for number in (redshift, instrument)))
    return _extract(wavelength, flux, inverse_variance, velocity, dispersion, shapes)


@jax.jit
def _extract(wavelength: Array, flux: Array, ivar: Array, velocity: Array, dispersion: Array, shapes: tuple[Array, ...]) -> LineFluxes:
    edges, (rest, shares, redshift, instrument) = channel_edges(wavelength), shapes
    n = shares.shape[1]
    flux = _weighed(flux, ivar)

    def one(y: Array, w: Array, v: Array, s: Array) -> LineFluxes:
        coefficients, _, covariance = _project(_profiles(edges, rest, shares, v, s, redshift, instrument), y, w)
        return LineFluxes(coefficients[:n], jnp.sqrt(jnp.diag(covariance)[:n]))

    return jax.vmap(one)(flux, ivar, velocity, dispersion)


def fit_lines(
    wavelength: Float[Array, " channels"],
    flux: Float[Array, "spectra channels"],
    inverse_variance: Float[Array, "spectra channels"],
    lines: LineSet,
    *,
    redshift: float = 0.0,
    resolving_power: float | None,
    velocities: Sequence[float] = (-400.0, -200.0, 0.0, 200.0, 400.0),
    dispersion: float = 60.0,
    n_steps: int = 12,
) -> LineFit:
    """Lines that share velocity and dispersion, on a straight continuum: least squares by variable projection (G. H. Golub & V. Pereyra).

    For each trial of (v, ln σ) the fluxes and the continuum follow from a linear solve; what is searched for has two unknowns, by damped
    Gauss–Newton steps (L. Kaufman, BIT 15, 49 (1975), who leaves out what the solve itself changes). Errors come from the Jacobian of all
    unknowns, (JᵀWJ)⁻¹.

    Below a signal to noise of about 5 the search settles on whatever bump or dip of the noise is largest: take
    [`extract_lines`][gradatim.astro.extract_lines] there, at a velocity and dispersion from elsewhere.

    **Arguments:** `wavelength`: centres of channels, Å in vacuum, ascending; `flux` density per Å; `inverse_variance` ≥ 0, 0 for bad
    channels; `redshift` z about which velocities are told; `resolving_power` λ/FWHM, or None to leave the instrument's width in σ;
    `velocities`: starting points, km/s, of which the best is taken; `dispersion`: starting point, km/s; `n_steps`.

    **Raises:** `ValueError` for wavelengths that do not ascend, a negative inverse variance, or shapes that do not fit.

    >>> wave = jnp.arange(6500.0, 6620.0)
    >>> instrument = instrumental_dispersion(2700)
    >>> speed, width = jnp.asarray([80.0]), jnp.asarray([50.0])
    >>> profiles = line_profiles(channel_edges(wave), HALPHA_COMPLEX, speed, width, instrument=instrument)
    >>> flux = profiles @ jnp.asarray([10.0, 2.0]) + 0.1
    >>> fit = fit_lines(wave, flux, jnp.ones_like(flux), HALPHA_COMPLEX, resolving_power=2700)
    >>> print(f"{fit.flux[0, 0]:.2f} {fit.flux[0, 1]:.2f} {fit.velocity[0]:.0f} km/s {fit.dispersion[0]:.0f} km/s")
    10.00 2.00 80 km/s 50 km/s
    """
    _check(wavelength, flux, inverse_variance)
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")
    instrument = 0.0 if resolving_power is None else instrumental_dispersion(resolving_power)
    starts = jnp.stack([jnp.asarray(velocities, flux.dtype), jnp.full(len(velocities), np.log(dispersion), flux.dtype)], axis=1)
    shapes = (*_arrays(lines, flux.dtype), *(jnp.asarray(number, flux.dtype) for number in (redshift, instrument)))
    return _fit(wavelength, flux, inverse_variance, starts, shapes, n_steps)


def _check(wavelength: Array, flux: Array, inverse_variance: Array) -> None:
    if flux.shape != inverse_variance.shape or flux.shape[-1:] != wavelength.shape:
        raise ValueError(
            f"flux and inverse_variance must have one shape that ends with the {wavelength.shape[0]} channels, got {flux.shape} and "
            f"{inverse_variance.shape}"
        )
    if is_known(wavelength) and not (np.diff(np.asarray(wavelength)) > 0).all():
        raise ValueError(f"wavelength must ascend, got a smallest step of {np.diff(np.asarray(wavelength)).min()}")
    if is_known(inverse_variance) and not (np.asarray(inverse_variance) >= 0).all():
        raise ValueError(f"inverse_variance must be at least 0, got a minimum of {np.min(inverse_variance)}")


def _weighed(flux: Array, ivar: Array) -> Array:
    """Zero in bad channels, whose fluxes need not be numbers: NaN times a weight of zero is NaN."""
    return jnp.where(ivar > 0, flux, 0.0)


def _project(profiles: Array, y: Array, w: Array) -> tuple[Array, Array, Array]:
    """Fluxes and continuum that fit best, what they add up to, and their covariance."""
    n, dtype = y.shape[0], y.dtype
    design = jnp.concatenate([profiles, jnp.ones((n, 1), dtype), jnp.linspace(-1, 1, n, dtype=dtype)[:, None]], axis=1)
    weighted = design * w[:, None]
    inverse = jnp.linalg.inv(design.T @ weighted)
    coefficients = inverse @ (weighted.T @ y)
    return coefficients, design @ coefficients, inverse


@functools.partial(jax.jit, static_argnames="n_steps")
def _fit(wavelength: Array, flux: Array, ivar: Array, starts: Array, shapes: tuple[Array, ...], n_steps: int) -> LineFit:
    edges, (rest, shares, redshift, instrument) = channel_edges(wavelength), shapes
    n_groups, furthest = shares.shape[1], jnp.asarray([150.0, 1.0], flux.dtype)
    flux = _weighed(flux, ivar)

    def one(y: Array, w: Array) -> LineFit:
        root = jnp.sqrt(w)

        def profiles(p: Array) -> Array:
            return _profiles(edges, rest, shares, p[0], jnp.exp(p[1]), redshift, instrument)

        def cost_of(p: Array) -> Array:
            return jnp.sum(w * (y - _project(profiles(p), y, w)[1]) ** 2)

        def look(p: Array) -> tuple[Array, Array, Array]:
            """Residual, its Jacobian up to the change of the projection, and that Jacobian before it is projected."""
            found = profiles(p)
            coefficients, model, _ = _project(found, y, w)
            slopes = jax.jacfwd(lambda p: profiles(p) @ coefficients[:n_groups])(p)
            across = jax.vmap(lambda slope: slope - _project(found, slope, w)[1], 1, 1)(slopes)
            return root * (y - model), root[:, None] * across, slopes

        def step(_: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            p, cost, damping = state
            r, J, _ = look(p)
            gradient, H = r @ J, J.T @ J
            a, b, c = H[0, 0] * (1 + damping), H[0, 1], H[1, 1] * (1 + damping)
            change = jnp.stack([c * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]]) / (a * c - b**2)
            # No further than a line is wide in velocity, or than a factor e in width: beyond, the model bends.
            trial = p + jnp.clip(change, -furthest, furthest)
            new = cost_of(trial)
            is_better = new <= cost
            return jnp.where(is_better, trial, p), jnp.where(is_better, new, cost), damping * jnp.where(is_better, 0.1, 10.0)

        costs = jax.lax.map(cost_of, starts)
        best = jnp.argmin(costs)
        p, cost, _ = jax.lax.fori_loop(0, n_steps, step, (starts[best], costs[best], jnp.asarray(1e-3, y.dtype)))

        r, across, slopes = look(p)
        found = profiles(p)
        coefficients, model, _ = _project(found, y, w)
        n = y.shape[0]
        J = jnp.concatenate([slopes, found, jnp.ones((n, 1), y.dtype), jnp.linspace(-1, 1, n, dtype=y.dtype)[:, None]], axis=1)
        errors = jnp.sqrt(jnp.diag(jnp.linalg.inv(J.T @ (J * w[:, None]))))
        dispersion = jnp.exp(p[1])
        # What of χ² a further step would gain: less than a hundredth, or the search has not ended.
        gradient, H = r @ across, across.T @ across
        gain = (H[1, 1] * gradient[0] ** 2 - 2 * H[0, 1] * gradient[0] * gradient[1] + H[0, 0] * gradient[1] ** 2) / (
            H[0, 0] * H[1, 1] - H[0, 1] ** 2
        )
        is_valid = jnp.isfinite(errors).all() & (gain < 0.01) & (jnp.sum(w > 0) > n_groups + 4)
        return LineFit(
            flux=coefficients[:n_groups],
            flux_error=errors[2 : 2 + n_groups],
            velocity=p[0],
            velocity_error=errors[0],
            dispersion=dispersion,
            dispersion_error=errors[1] * dispersion,
            chi_squared=cost,
            model=model,
            is_valid=is_valid,
        )

    return jax.lax.map(lambda spectrum: one(*spectrum), (flux, ivar), batch_size=min(len(flux), 64))
