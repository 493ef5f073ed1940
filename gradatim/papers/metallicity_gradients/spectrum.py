"""A real spectrum, its lines fitted here and by the survey that took it."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.astro import (
    HALPHA_COMPLEX,
    HBETA_COMPLEX,
    balmer_decrement,
    bpt_class,
    fit_lines,
    infer_metallicity,
    log_flux_ratio,
)
from gradatim.datasets import DatasetError, Provenance
from gradatim.lab import Session

FILE = Path(__file__).parent / "sdss_358_51818_504.csv"
"log₁₀ of the wavelength in vacuum [Å], flux density [10⁻¹⁷ erg/s/cm²/Å] and its inverse variance, around Hβ and around Hα."
REDSHIFT = 0.0472221521
"Of Hα, by the survey's pipeline."
PUBLISHED = {
    "Hβ": (6105.4756, 36.7302),
    "[O III] 5008": (37916.594, 154.8269),
    "Hα": (21341.055, 121.9582),
    "[N II] 6585": (1103.1656, 9.3831),
}
"Fluxes and errors by the survey's pipeline, 10⁻¹⁷ erg/s/cm²: Gaussians whose width all Balmer lines share, and all forbidden ones."
RANGES = ((4820.0, 5050.0), (6500.0, 6630.0))
"Å at rest."


PROVENANCE = Provenance(
    source="Sloan Digital Sky Survey, plate 358, MJD 51818, fibre 504 (SHOC 579): 289 channels around Hβ and Hα",
    version="DR18",
    licence="public data of the SDSS",
    sha256={FILE.name: "e56523c679e27cd33c81a79b5d04c3ccafa05fb5bdb0a8f4383acfe0e1f1048f"},
)


def run_spectrum(session: Session) -> dict[str, xr.Dataset]:
    """Fluxes of the strong lines beside the published ones, and the abundance that they give."""
    table = read_spectrum()
    session.uses(PROVENANCE)
    data = session.once("the spectrum of an SDSS galaxy", lambda: _fits(table))
    lines = xr.Dataset(
        {
            "flux": ("line", data["flux"], {"units": "1e-17 erg/s/cm²"}),
            "flux_error": ("line", data["error"], {"units": "1e-17 erg/s/cm²"}),
            "published": ("line", np.array([value for value, _ in PUBLISHED.values()]), {"units": "1e-17 erg/s/cm²"}),
            "published_error": ("line", np.array([error for _, error in PUBLISHED.values()]), {"units": "1e-17 erg/s/cm²"}),
            "metallicity": ("quantile", data["metallicity"], {"units": "dex"}),
            "attenuation": ("quantile", data["attenuation"], {"units": "mag"}),
            "density": (("abundance", "dust"), data["density"], {"units": "1"}),
        },
        coords={
            "line": list(PUBLISHED),
            "quantile": [0.16, 0.5, 0.84],
            "abundance": ("abundance", data["abundances"], {"units": "dex"}),
            "dust": ("dust", data["dusts"], {"units": "mag"}),
        },
    )
    spectrum = xr.Dataset(
        {name: (("complex", "channel"), data[name], {"units": unit}) for name, unit in (
            ("wavelength", "Å"), ("observed", "1e-17 erg/s/cm²/Å"), ("model", "1e-17 erg/s/cm²/Å"),
        )},
        coords={"complex": ["Hβ", "Hα"]},
    )  # fmt: skip
    low, middle, high = data["metallicity"]
    session.note(
        "C1: the galaxy is SHOC 579, with an Hα of a thousand Å equivalent width and a signal to noise that shows wings beyond any "
        f"Gaussian: χ² per channel is {data['chi_squared'][0]:.0f} and {data['chi_squared'][1]:.0f}, and the fluxes differ by more than "
        f"their errors; colour excess from the Balmer lines {data['excess']:.3f} mag (Calzetti), 12 + log(O/H) {middle:.2f} [{low:.2f}, "
        f"{high:.2f}]; by the curve of Kauffmann et al. its lines are those of {'an active nucleus' if data['active'] else 'young stars'}"
    )
    return {"lines": lines, "spectrum": spectrum}


def read_spectrum() -> np.ndarray:
    """The table in the package, checked by its hash.

    **Raises:** `DatasetError` for a corrupt file.
    """
    content = FILE.read_bytes()
    found, expected = hashlib.sha256(content).hexdigest(), PROVENANCE.sha256[FILE.name]
    if found != expected:
        raise DatasetError(f"{FILE} is corrupt: expected sha256 {expected}, found {found}; install the package anew")
    return np.loadtxt(io.BytesIO(content), delimiter=",")


def _fits(table: np.ndarray) -> dict[str, np.ndarray | float]:
    wave = 10 ** table[:, 0]
    parts = [np.flatnonzero((wave / (1 + REDSHIFT) > low) & (wave / (1 + REDSHIFT) < high)) for low, high in RANGES]
    longest = max(map(len, parts))
    fluxes, errors, models, chi, waves, seen = [], [], [], [], [], []
    for part, lines in zip(parts, (HBETA_COMPLEX, HALPHA_COMPLEX), strict=True):
        # Both of one length, the rest without weight, so that one program serves both.
        spare = longest - len(part)
        grid = np.concatenate([wave[part], wave[part[-1]] + 1.5 * np.arange(1, spare + 1)])
        flux, weight = (np.concatenate([table[part, i], np.zeros(spare)]) for i in (1, 2))
        fit = fit_lines(
            jnp.asarray(grid), jnp.asarray(flux)[None], jnp.asarray(weight)[None], lines, redshift=REDSHIFT, resolving_power=None
        )
        fluxes.append(np.asarray(fit.flux[0]))
        errors.append(np.asarray(fit.flux_error[0]))
        chi.append(float(fit.chi_squared[0]) / len(part))
        waves.append(np.where(np.arange(longest) < len(part), grid, np.nan))
        seen.append(np.where(np.arange(longest) < len(part), flux, np.nan))
        models.append(np.where(np.arange(longest) < len(part), np.asarray(fit.model[0]), np.nan))
    flux, error = np.concatenate(fluxes), np.concatenate(errors)
    posterior = infer_metallicity(jnp.asarray(flux), jnp.asarray(error), attenuation_range=(0.0, 1.6))
    excess = balmer_decrement(jnp.asarray(flux[2]), jnp.asarray(flux[0]), "calzetti00").colour_excess
    o3, n2 = (log_flux_ratio(*(jnp.asarray(flux[i]) for i in pair)).value for pair in ((1, 0), (3, 2)))
    return {
        "flux": flux,
        "active": bool(bpt_class(n2, o3, curve="kauffmann03").is_active),
        "error": error,
        "chi_squared": np.array(chi),
        "wavelength": np.stack(waves),
        "observed": np.stack(seen),
        "model": np.stack(models),
        "excess": float(excess),
        "metallicity": np.asarray(posterior.metallicity),
        "attenuation": np.asarray(posterior.attenuation),
        "density": np.asarray(posterior.density),
        "abundances": np.asarray(posterior.metallicities),
        "dusts": np.asarray(posterior.attenuations),
    }
