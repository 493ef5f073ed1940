"""Discs fitted through the beam: rotation from velocities and widths, the gradient from maps of fluxes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float

from .beam_smearing import Beam
from .disk_model import DiskPlane, Moments, ThinDisk, check_n2, line_surfaces, moments


class DiskFit(NamedTuple):
    """A disc, how far the data let its numbers stray, and how well it fits."""

    disk: ThinDisk
    standard_error: ThinDisk  # zero for what was not fitted
    chi_squared: Float[Array, ""]
    is_valid: Bool[Array, ""]  # the search converged, to finite numbers


def fit_rotation(start: ThinDisk, plane: DiskPlane, beam: Beam, *, seen: Moments, errors: Moments) -> DiskFit:
    """Brightness, scale length, rotation and dispersion of a disc from its flux, velocity and dispersion maps, through the beam.

    Rotation within the beam widens lines in the middle of a galaxy; the model's moments hold the same, so that it is not taken for
    dispersion. Abundances of `start` are left as they are.

    **Arguments:** `start`: a disc to start from; `plane` on the beam's finer pixels; `seen` and `errors`: maps and their standard
    deviations, infinite where a pixel is to be left out.
    """
    return _fit_rotation(start, plane, beam, seen, errors)


@jax.jit
def _fit_rotation(start: ThinDisk, plane: DiskPlane, beam: Beam, seen: Moments, errors: Moments) -> DiskFit:
    def disk_of(p: Array) -> ThinDisk:
        q = jnp.exp(p)
        return ThinDisk(q[0], q[1], start.central_metallicity, start.gradient, 100 * p[2], q[3], q[4])

    def residual(p: Array, args: tuple[Moments, Moments]) -> Array:
        found = moments(disk_of(p), plane, beam)
        return jnp.concatenate([((a - b) / e).ravel() for a, b, e in zip(found, *args, strict=True)])

    logs = jnp.log(jnp.stack([start.brightness, start.scale_length, start.turnover, start.dispersion]))
    first = jnp.stack([logs[0], logs[1], start.speed / 100, logs[2], logs[3]])
    seen = Moments(*(jnp.where(jnp.isfinite(e), value, 0.0) for value, e in zip(seen, errors, strict=True)))
    return _fit(residual, first, (seen, errors), disk_of)


def fit_gradient_map(
    start: ThinDisk,
    plane: DiskPlane,
    beam: Beam,
    *,
    fluxes: Float[Array, "2 y x"],
    errors: Float[Array, "2 y x"],
    calibration: str,
) -> DiskFit:
    """The gradient that, smeared by the beam, gives the maps of Hα and [N II]: brightness, scale length, Z₀ and g of a disc.

    It is fluxes that are compared, however faint: no ratio is taken, no logarithm of noise, and no pixel is left out for what it shows.
    Rotation and dispersion of `start` are left as they are.

    **Arguments:** `start`: a disc to start from; `plane` on the beam's finer pixels; `fluxes` of Hα and [N II] 6585 and their standard
    deviations, infinite where a pixel is to be left out; `calibration`: of N2.

    **Raises:** `ValueError` for a calibration of another ratio.
    """
    check_n2(calibration)
    return _fit_gradient(start, plane, beam, fluxes, errors, calibration)


@functools.partial(jax.jit, static_argnames="calibration")
def _fit_gradient(start: ThinDisk, plane: DiskPlane, beam: Beam, fluxes: Array, errors: Array, calibration: str) -> DiskFit:
    def disk_of(p: Array) -> ThinDisk:
        brightness, scale = jnp.exp(p[:2])
        return ThinDisk(brightness, scale, p[2], p[3] / 10, start.speed, start.turnover, start.dispersion)

    def residual(p: Array, args: tuple[Array, Array]) -> Array:
        seen, errors = args
        return ((beam(line_surfaces(disk_of(p), plane, calibration)) - seen) / errors).ravel()

    first = jnp.stack([jnp.log(start.brightness), jnp.log(start.scale_length), start.central_metallicity, 10 * start.gradient])
    return _fit(residual, first, (jnp.where(jnp.isfinite(errors), fluxes, 0.0), errors), disk_of)


def _fit(residual: Callable[..., Array], first: Array, args: tuple, disk_of: Callable[[Array], ThinDisk]) -> DiskFit:
    tolerance = 100 * jnp.finfo(first.dtype).eps ** 0.5
    solver = optx.LevenbergMarquardt(rtol=float(tolerance), atol=float(tolerance))
    solution = optx.least_squares(residual, solver, first, args, options={"jac": "fwd"}, max_steps=60, throw=False)
    p = solution.value
    r, J = residual(p, args), jax.jacfwd(residual)(p, args)
    covariance = jnp.linalg.inv(J.T @ J)
    slopes = jax.jacfwd(disk_of)(p)
    errors = jax.tree.map(lambda d: jnp.sqrt(d @ covariance @ d), slopes)
    is_valid = (solution.result == optx.RESULTS.successful) & jnp.isfinite(covariance).all()
    return DiskFit(disk_of(p), errors, r @ r, is_valid)
