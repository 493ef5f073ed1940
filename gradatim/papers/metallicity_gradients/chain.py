"""One galaxy from its disc to its gradient: the cube as the stepped slit sees it, lines, rotation, maps, and the gradient twice."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.astro import (
    HALPHA_COMPLEX,
    Beam,
    DiskFit,
    DiskPlane,
    LineFit,
    LineFluxes,
    Moments,
    ThinDisk,
    channel_edges,
    disk_cube,
    disk_plane,
    extract_lines,
    fit_gradient_map,
    fit_lines,
    fit_rotation,
    gaussian_beam,
    instrumental_dispersion,
    line_surfaces,
    log_flux_ratio,
    metallicity,
    moments,
    radial_gradient,
    radial_profile,
    rotation_over_dispersion,
)

from .config import Config, Telescope

HALPHA = HALPHA_COMPLEX.wavelengths[0]
SPEED_OF_LIGHT = 299_792.458
HALF_RANGE = 700.0
"km/s that the channels reach beyond Hα and [N II]."
LEAST_SIGNAL = 5.0
"Signal to noise of Hα from which a pixel's velocity and width are taken."
REACH = 2.5
"Effective radii out to which rings go."
TURNOVER = 0.3
"Of the rotation curve, in effective radii."
TO_SCALE_LENGTH = 1.678
"Effective radius of an exponential disc over its scale length."


class Galaxy(NamedTuple):
    """What is known of a galaxy from its image, and what is not: its disc."""

    disk: ThinDisk
    effective_radius: Float[Array, ""]  # kpc
    kpc_per_arcsec: Float[Array, ""]
    position_angle: Float[Array, ""]
    inclination: Float[Array, ""]


class Result(NamedTuple):
    """What the chain finds."""

    gradient: Array  # dex/kpc, corrected for the beam
    gradient_error: Array
    central_metallicity: Array
    naive_gradient: Array
    naive_error: Array
    rotation_over_dispersion: Array  # at 1.5 effective radii
    chi_squared: Array  # of the flux maps, over the degrees of freedom
    is_valid: Array
    n_kinematic: Array  # pixels behind the rotation


class Pictures(NamedTuple):
    """Maps and profile of a galaxy."""

    metallicity: Array
    signal: Array  # signal to noise of Hα and [N II]
    velocity: Array
    ring_radius: Array
    ring_metallicity: Array
    ring_error: Array


def wavelengths(telescope: Telescope) -> np.ndarray:
    """Centres of channels at rest: Hα and the [N II] doublet, and continuum to either side."""
    lines = HALPHA_COMPLEX.wavelengths
    low, high = min(lines) * (1 - HALF_RANGE / SPEED_OF_LIGHT), max(lines) * (1 + HALF_RANGE / SPEED_OF_LIGHT)
    n = math.ceil((high - low) / telescope.channel)
    return low + telescope.channel * np.arange(n)


def beams(telescope: Telescope) -> tuple[Beam, Beam]:
    """Onto the pixels, from the finer ones of the fit and from those that make the galaxies."""
    fine, finer = (
        gaussian_beam(telescope.pixels, telescope.pixel, fwhm=telescope.beam, oversampling=m, slit=telescope.slit)
        for m in (telescope.oversampling, 2 * telescope.oversampling)
    )
    return fine, finer


def plane_of(galaxy: Galaxy, telescope: Telescope, oversampling: int) -> DiskPlane:
    """Of the finer pixels."""
    return disk_plane(
        telescope.pixels * oversampling,
        telescope.pixel / oversampling,
        kpc_per_arcsec=galaxy.kpc_per_arcsec,
        position_angle=galaxy.position_angle,
        inclination=galaxy.inclination,
    )


@eqx.filter_jit
def observe(galaxy: Galaxy, key: Array, config: Config, beam: Beam) -> tuple[Array, Array, Array]:
    """Spectra with noise and a faint continuum, the noise's standard deviation in a channel, and the numbers of the brightest pixels."""
    telescope = config.telescope
    plane = plane_of(galaxy, telescope, 2 * telescope.oversampling)
    wave = jnp.asarray(wavelengths(telescope))
    instrument = instrumental_dispersion(telescope.resolving_power)
    cube = disk_cube(
        galaxy.disk,
        plane,
        beam,
        lines=HALPHA_COMPLEX,
        edges=channel_edges(wave),
        instrument=instrument,
        calibration=config.calibration,
    )
    seen = moments(galaxy.disk, plane, beam)
    width = HALPHA / SPEED_OF_LIGHT * jnp.hypot(seen.dispersion.ravel()[jnp.argmax(seen.flux)], instrument)
    # The error of the flux of a line of known place and width in white noise.
    noise = seen.flux.max() / telescope.signal_to_noise / jnp.sqrt(2 * np.sqrt(np.pi) * width * telescope.channel)
    spectra = cube.reshape(-1, wave.size)
    spectra = spectra + 0.5 * noise + noise * jax.random.normal(key, (cube.size,), cube.dtype).reshape(spectra.shape)
    return spectra, noise, _brightest(spectra, wave, min(config.fitted, len(spectra)))


def fit_brightest(spectra: Array, noise: Array, chosen: Array, telescope: Telescope, *, resolving_power: float | None) -> LineFit:
    """Lines of the chosen pixels."""
    some = spectra[chosen]
    weights = jnp.broadcast_to(1 / noise**2, some.shape)
    return fit_lines(jnp.asarray(wavelengths(telescope)), some, weights, HALPHA_COMPLEX, resolving_power=resolving_power)


def analyse(
    galaxy: Galaxy, spectra: Array, noise: Array, chosen: Array, lines: LineFit, config: Config, beam: Beam
) -> tuple[Result, Pictures]:
    """From spectra and the lines of the brightest to a gradient. Of the galaxy, its size and orientation are used, which images give."""
    telescope, n = config.telescope, config.telescope.pixels
    start, plane, seen, errors = _rotation_maps(galaxy, chosen, lines, config)
    rotation = fit_rotation(start, plane, beam, seen=seen, errors=errors)
    velocity, dispersion, weights = _expected(rotation.disk, plane, beam, spectra, noise)
    fluxes = extract_lines(
        jnp.asarray(wavelengths(telescope)),
        spectra,
        weights,
        HALPHA_COMPLEX,
        velocity=velocity,
        dispersion=dispersion,
        resolving_power=telescope.resolving_power,
    )
    flux, error = _as_maps(fluxes, n)
    found = fit_gradient_map(rotation.disk, plane, beam, fluxes=flux, errors=error, calibration=config.calibration)
    return _summary(galaxy, flux, error, seen, errors, rotation, found, config)


@eqx.filter_jit
def _rotation_maps(galaxy: Galaxy, chosen: Array, lines: LineFit, config: Config) -> tuple[ThinDisk, DiskPlane, Moments, Moments]:
    """Where the search for the rotation starts, the disc's plane, and maps of Hα's moments and their errors, infinite where unknown."""
    n = config.telescope.pixels
    is_kept = lines.is_valid & (lines.flux[:, 0] > LEAST_SIGNAL * lines.flux_error[:, 0]) & (lines.dispersion > 1.0)

    def scattered(values: Array, empty: float) -> Array:
        return jnp.full(n * n, empty, values.dtype).at[chosen].set(jnp.where(is_kept, values, empty)).reshape(n, n)

    seen = Moments(*(scattered(part, 0.0) for part in (lines.flux[:, 0], lines.velocity, lines.dispersion)))
    errors = (lines.flux_error[:, 0], lines.velocity_error, lines.dispersion_error)
    start = _start(galaxy, seen, config)
    return start, plane_of(galaxy, config.telescope, config.telescope.oversampling), seen, Moments(*(scattered(e, np.inf) for e in errors))


@jax.jit
def _expected(disk: ThinDisk, plane: DiskPlane, beam: Beam, spectra: Array, noise: Array) -> tuple[Array, Array, Array]:
    """Velocity and dispersion of each pixel by the disc, and the weights of its channels."""
    model = moments(disk, plane, beam)
    return model.velocity.ravel(), model.dispersion.ravel(), jnp.broadcast_to(1 / noise**2, spectra.shape)


@functools.partial(jax.jit, static_argnums=1)
def _as_maps(fluxes: LineFluxes, n: int) -> tuple[Array, Array]:
    return fluxes.flux.T.reshape(2, n, n), fluxes.flux_error.T.reshape(2, n, n)


@eqx.filter_jit
def _summary(
    galaxy: Galaxy, flux: Array, error: Array, seen: Moments, errors: Moments, rotation: DiskFit, found: DiskFit, config: Config
) -> tuple[Result, Pictures]:
    radius = plane_of(galaxy, config.telescope, 1).radius
    profile = radial_profile(flux, error, radius, edges=ring_edges(galaxy, config), calibration=config.calibration)
    naive = radial_gradient(profile)
    known = jnp.isfinite(errors.velocity)
    result = Result(
        gradient=found.disk.gradient,
        gradient_error=found.standard_error.gradient,
        central_metallicity=found.disk.central_metallicity,
        naive_gradient=naive.slope,
        naive_error=jnp.sqrt(naive.covariance[1, 1]),
        rotation_over_dispersion=rotation_over_dispersion(rotation.disk, 1.5 * galaxy.effective_radius),
        chi_squared=found.chi_squared / (flux.size - 4),
        is_valid=found.is_valid & rotation.is_valid,
        n_kinematic=known.sum(),
    )
    pictures = Pictures(
        metallicity=metallicity(log_flux_ratio(flux[1], flux[0]).value, config.calibration).value,
        signal=flux / error,
        velocity=jnp.where(known, seen.velocity, jnp.nan),
        ring_radius=profile.radius,
        ring_metallicity=jnp.where(profile.is_valid, profile.metallicity, jnp.nan),
        ring_error=jnp.where(profile.is_valid, profile.standard_error, jnp.nan),
    )
    return result, pictures


def ring_edges(galaxy: Galaxy, config: Config) -> Array:
    """Of the naive profile, kpc."""
    return jnp.linspace(0, 1, config.rings + 1, dtype=galaxy.effective_radius.dtype) * REACH * galaxy.effective_radius


def _brightest(spectra: Array, wave: Array, n: int) -> Array:
    """The pixels with most light within 400 km/s of Hα, above the mean of the outermost channels."""
    inside = (jnp.abs(wave / HALPHA - 1) < 400 / SPEED_OF_LIGHT).astype(spectra.dtype)
    outside = jnp.concatenate([spectra[:, :6], spectra[:, -6:]], axis=1).mean(axis=1)
    return jax.lax.top_k((spectra - outside[:, None]) @ inside, n)[1]


def _start(galaxy: Galaxy, seen: Moments, config: Config) -> ThinDisk:
    one = jnp.ones_like(galaxy.effective_radius)
    return ThinDisk(
        brightness=seen.flux.max() / config.telescope.oversampling**2,
        scale_length=galaxy.effective_radius / TO_SCALE_LENGTH,
        central_metallicity=8.4 * one,
        gradient=0 * one,
        speed=100 * one,
        turnover=TURNOVER * galaxy.effective_radius,
        dispersion=50 * one,
    )


def survey(galaxies: Sequence[Galaxy], keys: Array, config: Config, fine: Beam, finer: Beam) -> tuple[Result, Pictures]:
    """All galaxies, one after another."""
    parts = []
    for galaxy, key in zip(galaxies, keys, strict=True):
        seen = observe(galaxy, key, config, finer)
        lines = fit_brightest(*seen, config.telescope, resolving_power=config.telescope.resolving_power)
        parts.append(jax.device_get(analyse(galaxy, *seen, lines, config, fine)))
    return jax.tree.map(lambda *rows: np.stack(rows), *parts)


def narrow_line(galaxy: Galaxy, key: Array, config: Config, finer: Beam) -> float:
    """Width of the lines of a galaxy whose gas neither rotates nor stirs, the instrument's left in, km/s: weighted mean of the brightest.

    The telescope's resolving power and nothing else widens them.
    """
    still = eqx.tree_at(lambda g: (g.disk.speed, g.disk.dispersion), galaxy, (0 * galaxy.disk.speed, 0 * galaxy.disk.dispersion))
    fit = jax.device_get(fit_brightest(*observe(still, key, config, finer), config.telescope, resolving_power=None))
    # By the signal, not by each width's own error, which is smaller where noise narrows the line.
    weight = np.where(fit.is_valid, (fit.flux[:, 0] / fit.flux_error[:, 0]) ** 2, 0) * (
        fit.flux[:, 0] > LEAST_SIGNAL * fit.flux_error[:, 0]
    )
    return float(weight @ fit.dispersion / weight.sum())


@eqx.filter_jit
def _noiseless(
    galaxy: Galaxy, config: Config, fine: Beam, calibrations: tuple[str, ...]
) -> tuple[ThinDisk, DiskPlane, Array, Array, Array]:
    """Where a fit starts, the disc's plane, maps of Hα and [N II] with nominal errors, and the naive gradient by each calibration."""
    plane = plane_of(galaxy, config.telescope, config.telescope.oversampling)
    flux = fine(line_surfaces(galaxy.disk, plane, config.calibration))
    error = jnp.full_like(flux, 1e-2) * flux.max()
    radius = plane_of(galaxy, config.telescope, 1).radius
    naive = [
        radial_gradient(radial_profile(flux, error, radius, edges=ring_edges(galaxy, config), calibration=name)).slope
        for name in calibrations
    ]
    disk = galaxy.disk
    start = eqx.tree_at(lambda d: (d.gradient, d.central_metallicity), disk, (0 * disk.gradient, jnp.full_like(disk.gradient, 8.4)))
    return start, plane, flux, error, jnp.stack(naive)


def noiseless_gradients(
    galaxies: Sequence[Galaxy], config: Config, fine: Beam, calibrations: tuple[str, ...], corrected: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients by several calibrations of one set of maps without noise, naive and, by some, corrected for the beam.

    All galaxies are made with the configuration's calibration. Shapes (calibrations, galaxies).
    """
    naive, true = [], []
    for galaxy in galaxies:
        start, plane, flux, error, slopes = _noiseless(galaxy, config, fine, calibrations)
        fits = [fit_gradient_map(start, plane, fine, fluxes=flux, errors=error, calibration=name) for name in corrected]
        naive.append(np.asarray(slopes))
        true.append([float(fit.disk.gradient) for fit in fits])
    return np.stack(naive, axis=1), np.array(true).T
