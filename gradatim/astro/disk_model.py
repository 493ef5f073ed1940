"""A thin disc with a gradient of oxygen that rotates: its maps, its moments and its data cube."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .beam_smearing import Beam, pixel_centres
from .deprojection import deproject
from .emission_lines import LineSet, line_profiles
from .strong_lines import CALIBRATIONS, line_index


class DiskPlane(eqx.Module):
    """Where the pixels of a map lie in the plane of a galaxy."""

    radius: Float[Array, "y x"]  # kpc
    cosine: Float[Array, "y x"]  # of the angle from the receding side of the major axis
    inclination: Float[Array, ""]  # radians


class ThinDisk(eqx.Module):
    """An exponential disc of Hα with a straight profile of oxygen and a rotation curve that turns over.

    Hα ∝ exp(-r/h),     12 + log(O/H) = Z₀ + g r,     V(r) = (2/π) V₀ arctan(r/r_t),     dispersion σ₀ everywhere
    """

    brightness: Float[Array, "*disks"]  # of Hα at the centre, flux per pixel of the map
    scale_length: Float[Array, "*disks"]  # h, kpc
    central_metallicity: Float[Array, "*disks"]  # Z₀, dex
    gradient: Float[Array, "*disks"]  # g, dex/kpc
    speed: Float[Array, "*disks"]  # V₀, km/s
    turnover: Float[Array, "*disks"]  # r_t, kpc
    dispersion: Float[Array, "*disks"]  # σ₀, km/s


class Moments(NamedTuple):
    """What a beam leaves of a rotating disc, weighted by Hα."""

    flux: Float[Array, "y x"]
    velocity: Float[Array, "y x"]  # km/s
    dispersion: Float[Array, "y x"]  # km/s, with what rotation adds within the beam


def disk_plane(
    n_pixels: int, pixel: float, *, kpc_per_arcsec: Float[Array, ""], position_angle: Float[Array, ""], inclination: Float[Array, ""]
) -> DiskPlane:
    """The plane of a disc whose centre is that of a square map.

    **Arguments:** `n_pixels` a side; `pixel`: side of a pixel, arc seconds; angles in radians, as for
    [`deproject`][gradatim.astro.deproject].

    >>> angle = jnp.asarray(0.0)
    >>> plane = disk_plane(2, 1.0, kpc_per_arcsec=jnp.asarray(8.0), position_angle=angle, inclination=angle)
    >>> print(f"{plane.radius[0, 0]:.3f} kpc")
    5.657 kpc
    """
    x, y = (jnp.asarray(part, kpc_per_arcsec.dtype) for part in np.meshgrid(*(2 * [pixel_centres(n_pixels, pixel)])))
    place = deproject(x * kpc_per_arcsec, y * kpc_per_arcsec, position_angle=position_angle, inclination=inclination)
    return DiskPlane(place.radius, place.cosine, inclination)


def line_surfaces(disk: ThinDisk, plane: DiskPlane, calibration: str) -> Float[Array, "2 y x"]:
    """Hα and [N II] 6585 of each pixel, before any beam: [N II]/Hα is what the calibration gives Z₀ + g r.

    **Raises:** `ValueError` for a calibration of another ratio.

    >>> one = jnp.ones(())
    >>> plane = DiskPlane(jnp.array([[0.0, 2.0]]), jnp.zeros((1, 2)), one)
    >>> halpha, nitrogen = line_surfaces(ThinDisk(one, one, 8.33 * one, 0 * one, one, one, one), plane, "pp04-n2")
    >>> print(f"{nitrogen[0, 0] / halpha[0, 0]:.2f} {halpha[0, 1]:.3f}")
    0.10 0.135
    """
    check_n2(calibration)
    halpha = disk.brightness * jnp.exp(-plane.radius / disk.scale_length)
    index = line_index(disk.central_metallicity + disk.gradient * plane.radius, calibration).value
    return jnp.stack([halpha, halpha * 10**index])


def line_of_sight_velocity(disk: ThinDisk, plane: DiskPlane) -> Float[Array, "y x"]:
    """V(r) sin i cos φ, km/s: odd about the minor axis.

    >>> one = jnp.ones(())
    >>> plane = DiskPlane(jnp.ones((1, 2)), jnp.array([[1.0, -1.0]]), jnp.pi / 2 * one)
    >>> [round(float(v), 1) for v in line_of_sight_velocity(ThinDisk(one, one, one, one, 200 * one, one, one), plane)[0]]
    [100.0, -100.0]
    """
    rotation = disk.speed * (2 / np.pi) * jnp.arctan(plane.radius / disk.turnover)
    return rotation * jnp.sin(plane.inclination) * plane.cosine


def moments(disk: ThinDisk, plane: DiskPlane, beam: Beam) -> Moments:
    """Mean velocity and dispersion of Hα through a beam: σ² = ⟨v² + σ₀²⟩ - ⟨v⟩², weighted by the light of each place in the beam.

    >>> one, both_pixels = jnp.ones(()), Beam(jnp.ones((1, 1)), jnp.full((1, 2), 0.5))
    >>> plane = DiskPlane(jnp.ones((1, 2)), jnp.array([[1.0, -1.0]]), jnp.pi / 2 * one)
    >>> seen = moments(ThinDisk(one, one, one, one, 200 * one, one, 50 * one), plane, both_pixels)
    >>> print(f"{seen.velocity[0, 0]:.0f} {seen.dispersion[0, 0]:.1f}")  # rotates by ±100 km/s within the beam
    0 111.8
    """
    halpha = disk.brightness * jnp.exp(-plane.radius / disk.scale_length)
    v = line_of_sight_velocity(disk, plane)
    flux, first, second = beam(jnp.stack([halpha, halpha * v, halpha * (v**2 + disk.dispersion**2)]))
    mean = first / flux
    return Moments(flux, mean, jnp.sqrt(second / flux - mean**2))


def disk_cube(
    disk: ThinDisk, plane: DiskPlane, beam: Beam, *, lines: LineSet, edges: Float[Array, " edges"], instrument: float, calibration: str
) -> Float[Array, "y x edges-1"]:
    """The data cube of a disc: flux density of Hα and [N II] in each channel of each pixel, without noise or continuum.

    **Arguments:** `plane`: on the beam's finer pixels; `lines`: Hα and the [N II] doublet, in this order; `edges` of channels at rest, Å;
    `instrument`: the instrument's dispersion, km/s; `calibration`: of N2.

    **Raises:** `ValueError` for a calibration of another ratio.

    >>> from gradatim.astro import HALPHA_COMPLEX, channel_edges, gaussian_beam
    >>> one, none = jnp.asarray(1.0), jnp.asarray(0.0)
    >>> plane = disk_plane(16, 0.05, kpc_per_arcsec=8 * one, position_angle=none, inclination=one)
    >>> disk = ThinDisk(one, one, 8.5 * one, -0.04 * one, 200 * one, one, 50 * one)
    >>> edges = channel_edges(jnp.arange(6530.0, 6610.0))
    >>> settings = {"lines": HALPHA_COMPLEX, "edges": edges, "instrument": 47.0, "calibration": "pp04-n2"}
    >>> beam = gaussian_beam(8, 0.1, fwhm=0.15, oversampling=2)
    >>> cube = eqx.filter_jit(disk_cube)(disk, plane, beam, **settings)
    >>> cube.shape
    (8, 8, 80)
    """
    surfaces = line_surfaces(disk, plane, calibration)
    v = line_of_sight_velocity(disk, plane)
    profiles = line_profiles(edges, lines, v, jnp.full_like(v, disk.dispersion), instrument=instrument)
    fine = jnp.einsum("yxcg,gyx->cyx", profiles, surfaces)
    return jnp.moveaxis(beam(fine), 0, -1)


def rotation_over_dispersion(disk: ThinDisk, radius: Float[Array, ""]) -> Float[Array, ""]:
    """V(r)/σ₀: above 1 a disc, below it motions that are not ordered.

    >>> one = jnp.ones(())
    >>> print(f"{rotation_over_dispersion(ThinDisk(one, one, one, one, 200 * one, one, 50 * one), one):.1f}")
    2.0
    """
    return disk.speed * (2 / np.pi) * jnp.arctan(radius / disk.turnover) / disk.dispersion


def check_n2(calibration: str) -> None:
    """Refuses a calibration that needs lines beyond Hα and [N II]."""
    rule = CALIBRATIONS.get(calibration)
    if rule is None or rule.index != "N2":
        allowed = [name for name, one in CALIBRATIONS.items() if one.index == "N2"]
        raise ValueError(f"calibration must be one of {', '.join(allowed)}, got {calibration!r}")
