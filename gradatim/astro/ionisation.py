"""Whether young stars or an active nucleus make a galaxy's lines: the diagram of Baldwin, Phillips & Terlevich."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

BptCurve = Literal["kauffmann03", "kewley01"]
BPT_CURVES: dict[str, tuple[float, float, float]] = {"kauffmann03": (0.61, 0.05, 1.3), "kewley01": (0.61, 0.47, 1.19)}
"a, b, c of each curve log₁₀([O III]/Hβ) = a / (log₁₀([N II]/Hα) - b) + c."


class BptClass(NamedTuple):
    """On which side of a curve a spectrum lies."""

    is_active: Bool[Array, "*spectra"]  # above the curve: more than young stars; false where is_valid is
    is_valid: Bool[Array, "*spectra"]  # both ratios exist


def bpt_class(n2: Float[Array, "*spectra"], o3: Float[Array, "*spectra"], *, curve: BptCurve) -> BptClass:
    """Whether lines are harder than young stars make them: log₁₀([O III]/Hβ) > 0.61 / (log₁₀([N II]/Hα) - b) + c, or n2 ≥ b.

    `"kauffmann03"`: G. Kauffmann et al., MNRAS 346, 1055 (2003), b = 0.05, c = 1.3, above which few local galaxies form stars alone;
    `"kewley01"`: L. J. Kewley et al., ApJ 556, 121 (2001), b = 0.47, c = 1.19, above which no starburst model reaches. At z ~ 1 lines of
    star formation lie closer to the curves than they do here. Strong-line abundances mean nothing above.

    **Arguments:** `n2`: log₁₀([N II] 6585 / Hα); `o3`: log₁₀([O III] 5008 / Hβ); NaN where a line is lost.

    **Raises:** `ValueError` for another curve.

    >>> n2, o3 = jnp.asarray([-1.0, -0.2, 0.1]), jnp.asarray([0.3, 0.2, 0.9])
    >>> [bpt_class(n2, o3, curve=curve).is_active.tolist() for curve in BPT_CURVES]
    [[False, True, True], [False, False, True]]
    """
    if curve not in BPT_CURVES:
        raise ValueError(f"curve must be one of {', '.join(BPT_CURVES)}, got {curve!r}")
    return _classified(n2, o3, curve)


@functools.partial(jax.jit, static_argnames="curve")
def _classified(n2: Array, o3: Array, curve: str) -> BptClass:
    a, b, c = BPT_CURVES[curve]
    is_valid, is_left = jnp.isfinite(n2) & jnp.isfinite(o3), n2 < b
    is_above = o3 > a / jnp.where(is_left, n2 - b, -1.0) + c
    return BptClass(is_valid & (is_above | ~is_left), is_valid)
