"""Oxygen abundances from ratios of strong lines, by the calibrations of the field."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

SOLAR = 8.69
"12 + log(O/H) of the Sun (M. Asplund et al., ARA&A 47, 481 (2009))."


@dataclass(frozen=True)
class Calibration:
    """A polynomial between an index and the abundance Z = 12 + log(O/H), one way or the other, and where it was calibrated."""

    index: Literal["N2", "O3N2"]
    "N2 = log₁₀([N II] 6585 / Hα); O3N2 = log₁₀([O III] 5008 / Hβ) - N2."
    coefficients: tuple[float, ...]
    "Ascending powers: of the index, or of Z - 8.69."
    gives: Literal["abundance", "index"]
    "What the polynomial is equal to."
    low: float
    high: float
    "The range, of the index where the polynomial gives the abundance (of the abundance for `range_of`), of Z where it gives the index."
    scatter: float
    "Of single galaxies about it, dex in Z."
    range_of: Literal["index", "abundance"] = "index"
    source: str = ""


_PP04 = "M. Pettini & B. E. J. Pagel, MNRAS 348, L59 (2004)"
_M13 = "R. A. Marino et al., A&A 559, A114 (2013)"
_B18 = "F. Bian, L. J. Kewley & M. A. Dopita, ApJ 859, 175 (2018)"
_C20 = "M. Curti et al., MNRAS 491, 944 (2020)"
CALIBRATIONS: dict[str, Calibration] = {
    "pp04-n2": Calibration("N2", (8.90, 0.57), "abundance", -2.5, -0.3, 0.18, source=_PP04),
    "pp04-n2-cubic": Calibration("N2", (9.37, 2.03, 1.26, 0.32), "abundance", -2.5, -0.3, 0.18, source=_PP04),
    "pp04-o3n2": Calibration("O3N2", (8.73, -0.32), "abundance", -1.0, 1.9, 0.14, source=_PP04),
    "m13-n2": Calibration("N2", (8.743, 0.462), "abundance", -1.6, -0.2, 0.16, source=_M13),
    "m13-o3n2": Calibration("O3N2", (8.533, -0.214), "abundance", -1.1, 1.7, 0.18, source=_M13),
    "b18-n2": Calibration("N2", (8.82, 0.49), "abundance", 7.8, 8.4, 0.15, "abundance", source=_B18),
    "b18-o3n2": Calibration("O3N2", (8.97, -0.39), "abundance", 7.8, 8.4, 0.15, "abundance", source=_B18),
    "c20-n2": Calibration("N2", (-0.489, 1.513, -2.554, -5.293, -2.867), "index", 7.6, 8.85, 0.10, source=_C20),
    "c20-o3n2": Calibration("O3N2", (0.281, -4.765, -2.268), "index", 7.65, 8.85, 0.09, source=_C20),
}
"By name: the article, the index, and the order where an article has two."


class LogRatio(NamedTuple):
    """log₁₀ of a ratio of fluxes, and whether it exists."""

    value: Float[Array, "*spectra"]  # NaN where is_valid is false
    is_valid: Bool[Array, "*spectra"]


class Metallicity(NamedTuple):
    """12 + log(O/H), and whether it lies where the calibration was made."""

    value: Float[Array, "*spectra"]
    is_valid: Bool[Array, "*spectra"]


@jax.jit
def log_flux_ratio(numerator: Float[Array, "*spectra"], denominator: Float[Array, "*spectra"]) -> LogRatio:
    """log₁₀ of a ratio of fluxes, NaN where one is not positive.

    Sum fluxes over pixels before taking it: the logarithm of a noisy ratio is biased, and leaving out the pixels in which the weaker line
    is lost leaves those that are bright by chance.

    >>> log_flux_ratio(jnp.asarray([1.0, -1.0]), jnp.asarray([10.0, 10.0])).value.tolist()
    [-1.0, nan]
    """
    is_valid = (numerator > 0) & (denominator > 0)
    value = jnp.log10(jnp.where(is_valid, numerator, 1.0) / jnp.where(is_valid, denominator, 1.0))
    return LogRatio(jnp.where(is_valid, value, jnp.nan), is_valid)


def metallicity(index: Float[Array, "*spectra"], calibration: str) -> Metallicity:
    """12 + log(O/H) of an index by a calibration.

    Beyond the calibrated range `is_valid` is false; the value is then extrapolated where a polynomial gives it, and NaN where it is the
    root of one, for the polynomials turn around there. Calibrations differ by up to 0.3 dex, and gradients by the ratio of their slopes:
    never mix them.

    **Arguments:** `index`: N2 or O3N2, as the calibration wants it; `calibration`: a name in `CALIBRATIONS`.

    **Raises:** `ValueError` for another name.

    >>> " ".join(f"{metallicity(jnp.asarray(-0.7), name).value:.4f}" for name in ("pp04-n2", "m13-n2", "b18-n2", "c20-n2"))
    '8.5010 8.4196 8.4770 8.5694'
    """
    return _metallicity(index, _calibration(calibration))


@functools.partial(jax.jit, static_argnames="rule")
def _metallicity(index: Array, rule: Calibration) -> Metallicity:
    if rule.gives == "abundance":
        value = _polynomial(rule, index)
        ranged = index if rule.range_of == "index" else value
        return Metallicity(value, (ranged >= rule.low) & (ranged <= rule.high))
    root = _root(lambda z: _polynomial(rule, z - SOLAR), index, rule.low, rule.high)
    return Metallicity(*root)


def line_index(abundance: Float[Array, "*spectra"], calibration: str) -> LogRatio:
    """The index that a calibration gives an abundance: the inverse of [`metallicity`][gradatim.astro.metallicity].

    **Raises:** `ValueError` for a name that is not in `CALIBRATIONS`.

    >>> print(f"{line_index(jnp.asarray(8.501), 'pp04-n2').value:.4f}")
    -0.7000
    """
    return _line_index(abundance, _calibration(calibration))


@functools.partial(jax.jit, static_argnames="rule")
def _line_index(abundance: Array, rule: Calibration) -> LogRatio:
    if rule.gives == "index":
        return LogRatio(_polynomial(rule, abundance - SOLAR), (abundance >= rule.low) & (abundance <= rule.high))
    if len(rule.coefficients) == 2:
        value = (abundance - rule.coefficients[0]) / rule.coefficients[1]
        ranged = value if rule.range_of == "index" else abundance
        return LogRatio(value, (ranged >= rule.low) & (ranged <= rule.high))
    return LogRatio(*_root(lambda index: _polynomial(rule, index), abundance, rule.low, rule.high))


def abundance_range(calibration: str) -> tuple[float, float]:
    """The least and the greatest abundance that a calibration was made for.

    **Raises:** `ValueError` for a name that is not in `CALIBRATIONS`.

    >>> "{:.3f} {:.3f}".format(*abundance_range("pp04-n2"))
    '7.475 8.729'
    """
    rule = _calibration(calibration)
    if rule.gives == "index" or rule.range_of == "abundance":
        return rule.low, rule.high
    low, high = sorted(float(np.polynomial.Polynomial(rule.coefficients)(end)) for end in (rule.low, rule.high))
    return low, high


def _calibration(name: str) -> Calibration:
    if name not in CALIBRATIONS:
        raise ValueError(f"calibration must be one of {', '.join(CALIBRATIONS)}, got {name!r}")
    return CALIBRATIONS[name]


def _polynomial(rule: Calibration, x: Array) -> Array:
    return jnp.polyval(jnp.asarray(rule.coefficients[::-1], jnp.result_type(x)), x)


def _root(fn: Callable[[Array], Array], target: Array, low: float, high: float) -> tuple[Array, Array]:
    """Where a monotonic function takes a value, by halving; one step of Newton from there carries the derivative."""
    ends = fn(jnp.asarray([low, high], jnp.result_type(target)))
    # The ends themselves lie inside, however they were rounded.
    slack = 8 * jnp.finfo(ends.dtype).eps * jnp.abs(ends).max()
    is_inside = (target >= ends.min() - slack) & (target <= ends.max() + slack)
    rises = ends[1] > ends[0]

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        a, b = bounds
        middle = (a + b) / 2
        is_above = (fn(middle) > target) == rises
        return jnp.where(is_above, a, middle), jnp.where(is_above, middle, b)

    bounds = jnp.full_like(target, low), jnp.full_like(target, high)
    x = jax.lax.stop_gradient(sum(jax.lax.fori_loop(0, 40, halve, bounds)) / 2)
    value, slope = jax.jvp(fn, (x,), (jnp.ones_like(x),))
    safe = jnp.where(is_inside, target, value)
    return jnp.where(is_inside, x - (value - safe) / slope, jnp.nan), is_inside
