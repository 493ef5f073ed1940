"""Gradients of oxygen in galaxies at z ~ 1 (arXiv:2409.01616): the chain from data cube to population, held to known truth.

Of the article only the abstract could be read, and neither its cubes nor its table of gradients are at hand. Galaxies with the masses,
sizes and rotation of the survey's, and gradients of our choosing, go through the same steps: cubes as a stepped slit sees them, lines,
rotation, flux maps, gradients with and without the beam, and the line of gradient against mass. That calibrates the method and is no
evidence about the sky. One spectrum is real, and its lines are held against those that the survey's pipeline published.
"""

from __future__ import annotations

import jax
import xarray as xr

from gradatim.lab import Findings, Session

from .chain import wavelengths
from .config import Config as Config
from .config import Telescope as Telescope
from .config import Truth as Truth
from .figures import draw as draw
from .judging import judge
from .spectrum import run_spectrum
from .surveys import run_calibrations, run_populations, run_surveys

PRECISION = "double"
SCALES = {
    "smoke": Config(
        galaxies=5, surveys=3, telescope=Telescope(pixels=20, pixel=0.14, slit=0.28, channel=1.5, signal_to_noise=60.0), fitted=32,
        rings=4, repeats=30,
    ),
    "laptop": Config(),
    "full": Config(galaxies=30, surveys=200, telescope=Telescope(oversampling=4), fitted=400, repeats=10_000),
}  # fmt: skip


def memory(config: Config) -> int:
    """Peak bytes: one galaxy's fine cube with its line profiles, its spectra, and the Jacobians of the fitted lines and maps."""
    telescope = config.telescope
    channels = len(wavelengths(telescope))
    fine = (2 * telescope.oversampling * telescope.pixels) ** 2
    cube = 8 * fine * channels * (3 * 3 + 2 + 1)
    spectra = 8 * telescope.pixels**2 * channels * 12
    fits = 8 * config.fitted * channels * 60 + 8 * telescope.pixels**2 * telescope.oversampling**2 * 40
    return cube + spectra + fits


def run(config: Config, session: Session) -> Findings:
    """The real spectrum, the surveys, the calibrations and the populations, judged together."""
    key_surveys, key_populations = jax.random.split(session.key)
    trees: dict[str, xr.Dataset] = run_spectrum(session)
    trees |= run_surveys(config, session, key_surveys)
    trees |= run_calibrations(config, session, key_surveys)
    trees |= run_populations(config, session, key_populations, trees["surveys"])
    return judge(config, trees, session)
