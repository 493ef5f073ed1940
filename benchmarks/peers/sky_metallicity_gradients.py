"""Astronomy's own tools: emcee 3.1.6, ppxf 9.5.2 and vorbin 3.2.1; seconds as JSON, with `--values` what the last two find instead.

ppxf fits the lines of the SDSS spectrum with Gaussian templates beside a straight continuum, as ours does; vorbin bins the map by
SAURON that its wheel holds, which is read from there and copied nowhere.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import emcee
import numpy as np
import population
import spectral_lines
import timing
from ppxf.ppxf import ppxf
from scipy.special import erf
from vorbin.voronoi_2d_binning import voronoi_2d_binning

LIGHT = 299_792.458
TEMPLATE_WIDTH = 55.0
"km/s of the templates' lines, less than the spectrograph's."
SAURON = Path(str(files("vorbin"))) / "example" / "voronoi_2d_binning_example_input.txt"
TARGET = 50.0


def gas_fluxes() -> list[float]:
    """Of Hβ, [O III] 5008, Hα and [N II] 6585 by ppxf: templates of each range share velocity and width."""
    found: list[float] = []
    for (wave, flux, weight), lines in zip(spectral_lines.parts(), spectral_lines.LINES, strict=True):
        step = np.log(10) * 1e-4
        log_rest = np.log(wave / (1 + spectral_lines.REDSHIFT))
        # Beyond both ends, so that nothing is missing after a shift.
        grid = log_rest[0] + step * np.arange(-60, len(wave) + 60)
        edges = np.exp(np.concatenate([grid - step / 2, grid[-1:] + step / 2]))
        templates = np.zeros((len(grid), 2))
        for centre, group, share in lines:
            width = centre * TEMPLATE_WIDTH / LIGHT
            templates[:, group] += share * np.diff(erf((edges - centre) / (2**0.5 * width)) / 2) / np.diff(edges)
        with contextlib.redirect_stdout(io.StringIO()):
            fit = ppxf(
                templates, flux, weight**-0.5, LIGHT * step, [0.0, 60.0], lam=np.exp(log_rest), lam_temp=np.exp(grid),
                moments=2, degree=1, quiet=True,
            )  # fmt: skip
        # Templates hold a flux of one at rest.
        found += [float(value) * (1 + spectral_lines.REDSHIFT) for value in fit.weights]
    return found


def bins() -> Any:
    """Signal to noise and pixels of vorbin's bins."""
    found = voronoi_2d_binning(*np.loadtxt(SAURON).T, TARGET, plot=False, quiet=True)
    return found[5], found[6]


def values() -> dict[str, Any]:
    """What ours is compared with."""
    ratio, n_pixels = bins()
    joined = ratio[n_pixels > 1]
    return {
        "fluxes": gas_fluxes(),
        "table": str(SAURON),
        "target": TARGET,
        "bins": len(ratio),
        "scatter of signal to noise [%]": 100 * float(joined.std()) / TARGET,
    }


def main() -> None:
    """Prints one JSON list, or the values."""
    if "--values" in sys.argv[1:]:
        print(json.dumps(values()))
        return
    data = population.sample()
    start = np.array([-0.005, -0.015, 0.015]) * (1 + 0.1 * np.random.default_rng(0).normal(size=(32, 3)))
    quantiles = np.zeros((3, 3))

    def run() -> None:
        nonlocal quantiles
        sampler = emcee.EnsembleSampler(32, 3, population.log_posterior, kwargs=data)
        sampler.run_mcmc(start, 1000)
        samples = sampler.get_chain(discard=200, flat=True)
        quantiles = np.quantile(samples, [0.16, 0.5, 0.84], axis=0).T

    seconds = timing.median(run)
    info = {name: quantiles[i].tolist() for i, name in enumerate(("intercept", "slope", "scatter"))}
    found = values()
    print(
        json.dumps(
            [
                {"group": "posterior of a line with scatter, 25 points", "name": "emcee, 32 × 1000", "seconds": seconds, "info": info},
                {"group": "lines of an SDSS spectrum", "name": "ppxf", "seconds": timing.median(gas_fluxes), "info": {}},
                {
                    "group": "Voronoi bins of a SAURON map",
                    "name": "vorbin",
                    "seconds": timing.median(bins),
                    "info": {name: found[name] for name in ("bins", "scatter of signal to noise [%]")},
                },
            ]
        )
    )


if __name__ == "__main__":
    main()
