"""What a telescope's beam and a slit that steps across do to a map, and to the gradient that is read off it."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import ndtr

from gradatim.numerics.checks import is_known

from .emission_lines import FWHM


class Beam(eqx.Module):
    """A beam that is a product of one along each axis: `seen = beam(map)`, seen = R · map · Cᵀ.

    Two products with small matrices blur, integrate over pixels and bin down at once: exact, without an edge around which anything could
    wrap, and with exact derivatives. Light that falls beside the seen map is lost.
    """

    rows: Float[Array, "y fine_y"]
    columns: Float[Array, "x fine_x"]

    def __call__(self, surface: Float[Array, "*maps fine_y fine_x"]) -> Float[Array, "*maps y x"]:
        """Maps as they are seen."""
        return self.rows @ surface @ self.columns.T


def gaussian_aperture(
    places: Float[np.ndarray, " fine"], centres: Float[np.ndarray, " seen"], *, width: float, fwhm: float, step: float | None = None
) -> Float[np.ndarray, "seen fine"]:
    """Share of the light at each place that a Gaussian beam leads into apertures along one axis.

        Aᵢⱼ = (step/width) [Φ((cᵢ + width/2 - xⱼ)/p) - Φ((cᵢ - width/2 - xⱼ)/p)],     p = fwhm / 2.3548

    A pixel is an aperture as wide as the step. A slit that is stepped across a source by less than its width sees every place several
    times: each exposure is then weighted by step/width, so that the map put together holds the flux of the source (exactly for a width
    of whole steps). In NumPy: a beam is made once and then only multiplied with.

    **Arguments:** `places` x of the source's light and `centres` c of the apertures, evenly spaced, in one unit with all else; `width` of
    an aperture > 0; `fwhm` ≥ 0; `step` between apertures > 0, by default the width.

    **Raises:** `ValueError` for lengths out of range.

    >>> at = np.arange(3.0)
    >>> gaussian_aperture(at, at, width=1.0, fwhm=0.0).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    >>> gaussian_aperture(at, at, width=2.0, step=1.0, fwhm=0.0)[1].tolist()
    [0.25, 0.5, 0.25]
    """
    step = width if step is None else step
    for name, length, is_fine in (("width", width, width > 0), ("step", step, step > 0), ("fwhm", fwhm, fwhm >= 0)):
        if not is_fine:
            raise ValueError(f"{name} must be {'at least 0' if name == 'fwhm' else 'positive'}, got {length}")
    from_centre = places[None, :] - centres[:, None]
    if fwhm == 0:
        # Light on an edge is shared by both sides.
        inside = np.heaviside(width / 2 - np.abs(from_centre), 0.5)
    else:
        upper, lower = ((from_centre + sign * width / 2) * (FWHM / fwhm) for sign in (1, -1))
        inside = ndtr(upper) - ndtr(lower)
    return step / width * inside


def gaussian_beam(
    n_pixels: int, pixel: float, *, fwhm: float, oversampling: int, slit: float | None = None, dtype: np.typing.DTypeLike = float
) -> Beam:
    """A Gaussian beam onto square maps whose pixels are whole numbers of finer ones.

    **Arguments:** `n_pixels` a side of the seen map; `pixel`: its side, arc seconds; `fwhm` of the beam, arc seconds; `oversampling`:
    finer pixels in a pixel; `slit`: width of a slit along y that is stepped along x by a pixel at a time, arc seconds; None for pixels.

    **Raises:** `ValueError` for sizes out of range.

    >>> beam = gaussian_beam(5, 0.1, fwhm=0.15, oversampling=3)
    >>> point = jnp.zeros((15, 15)).at[7, 7].set(1.0)
    >>> seen = beam(point)
    >>> print(f"{seen.sum():.4f} {seen[2, 2]:.4f}")
    0.9998 0.3221
    """
    if n_pixels < 1 or oversampling < 1:
        raise ValueError(f"n_pixels and oversampling must be at least 1, got {n_pixels} and {oversampling}")
    fine, coarse = (pixel_centres(n_pixels * m, pixel / m) for m in (oversampling, 1))
    rows = gaussian_aperture(fine, coarse, width=pixel, fwhm=fwhm)
    columns = rows if slit is None else gaussian_aperture(fine, coarse, width=slit, step=pixel, fwhm=fwhm)
    return Beam(*(jnp.asarray(part, jnp.result_type(dtype)) for part in (rows, columns)))


def pixel_centres(n_pixels: int, pixel: float) -> Float[np.ndarray, " pixels"]:
    """Along one axis, from the middle of the map.

    >>> pixel_centres(4, 0.5).tolist()
    [-0.75, -0.25, 0.25, 0.75]
    """
    return (np.arange(n_pixels) - (n_pixels - 1) / 2) * pixel


class SmearedLine(NamedTuple):
    """The straight line that a beam makes of a straight abundance profile."""

    slope: Float[Array, ""]
    offset: Float[Array, ""]  # at the middle of the source, dex


def smeared_gradient(gradient: Float[Array, ""] | float, *, scale: float, beam: float, calibration_slope: float) -> SmearedLine:
    """What a Gaussian beam leaves of a gradient across a Gaussian source: exact, for abundances linear in the log of a line ratio.

        Hα ∝ exp(-x²/2s²), Z = Z₀ + g x, Z = A + B log₁₀([N II]/Hα), a beam of dispersion p:
        Z_seen = Z₀ + B k² v / (2 ln 10) + g s²/(s² + p²) x,     k = g ln 10 / B,     v = s² p²/(s² + p²)

    Both lines stay Gaussian, [N II] shifted by what the gradient moves its middle.

    **Arguments:** `gradient` g, dex per length; `scale` s > 0 and `beam` p ≥ 0, standard deviations in that length; `calibration_slope`
    B ≠ 0, dex.

    **Raises:** `ValueError` for lengths or a slope out of range.

    >>> line = smeared_gradient(-0.04, scale=3.0, beam=1.0, calibration_slope=0.57)
    >>> print(f"{line.slope:.4f} {line.offset:.7f}")
    -0.0360 0.0029085
    """
    if not (scale > 0 and beam >= 0):
        raise ValueError(f"scale must be positive and beam at least 0, got {scale} and {beam}")
    if is_known(calibration_slope) and calibration_slope == 0:
        raise ValueError("calibration_slope must not be 0")
    kept = scale**2 / (scale**2 + beam**2)
    k = jnp.asarray(gradient) * np.log(10) / calibration_slope
    return SmearedLine(jnp.asarray(gradient) * kept, calibration_slope * k**2 * kept * beam**2 / (2 * np.log(10)))
