"""Lines of many spectra and of a real one, Voronoi bins, and a population's line with scatter: ours beside SciPy and optimistix.

emcee, ppxf and vorbin run in `peers/`; what the last two find is compared with ours here.

Every contestant fits the same Gaussians, integrated over channels, to the same noise, and is compared before it is timed.
"""

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from environments import python_of
from scipy import optimize, special

from gradatim.astro import (
    HALPHA_COMPLEX,
    HBETA_COMPLEX,
    channel_edges,
    fit_lines,
    instrumental_dispersion,
    line_profiles,
    voronoi_bin,
)
from gradatim.numerics import fit_scattered_line, scattered_line_posterior

PEERS_FOLDER = Path(__file__).parent / "peers"


def shared(name: str) -> Any:
    """A module of the peers that all contestants share."""
    spec = importlib.util.spec_from_file_location(name, PEERS_FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


population, spectral_lines = shared("population"), shared("spectral_lines")

N_SPECTRA = 256
WAVE = 6534.0 + 1.1 * np.arange(61)
EDGES = np.concatenate([[WAVE[0] - 0.55], WAVE + 0.55])
INSTRUMENT = instrumental_dispersion(2700)
LIGHT = 299_792.458
LINES, POPULATION = f"lines of {N_SPECTRA} spectra", "posterior of a line with scatter, 25 points"
LIKELIEST = "likeliest line with scatter, 25 points"
SPECTRUM, BINS = "lines of an SDSS spectrum", "Voronoi bins of a SAURON map"
AGREEMENT = 1e-3
"Of a flux, relative: the least squares are the same, the stopping rules are not."


def spectra() -> tuple[np.ndarray, np.ndarray]:
    """Of galaxies of all velocities, at a signal to noise of about 30."""
    random = np.random.default_rng(0)
    velocity, dispersion = random.uniform(-200, 200, N_SPECTRA), random.uniform(30, 100, N_SPECTRA)
    fluxes = np.stack([random.uniform(5, 20, N_SPECTRA), random.uniform(1, 5, N_SPECTRA)], axis=1)
    shapes = line_profiles(
        channel_edges(jnp.asarray(WAVE)), HALPHA_COMPLEX, jnp.asarray(velocity), jnp.asarray(dispersion), instrument=INSTRUMENT
    )
    clean = np.einsum("scg,sg->sc", np.asarray(shapes), fluxes) + 0.2
    return clean + 0.05 * random.normal(size=clean.shape), np.full(clean.shape, 400.0)


def model(p: Any, erf: Any, xp: Any) -> Any:
    """Velocity, log dispersion, two fluxes, level and slope of the continuum."""
    centres = np.array(HALPHA_COMPLEX.wavelengths) * (1 + p[0] / LIGHT)
    widths = centres * xp.sqrt(xp.exp(2 * p[1]) + INSTRUMENT**2) / LIGHT
    below = erf((EDGES[:, None] - centres[None, :]) / (widths[None, :] * 2**0.5)) / 2
    density = xp.diff(below, axis=0) / 1.1
    return density @ xp.stack([p[2], p[3], p[3] / 3.05]) + p[4] + p[5] * np.linspace(-1, 1, WAVE.size)


STARTS = (-400.0, -200.0, 0.0, 200.0, 400.0)


def starts_of(flux: np.ndarray) -> np.ndarray:
    """As good as ours: the best of the same velocities, by the light under Hα."""
    under = [np.where(np.abs(WAVE / 6564.61 - 1 - v / LIGHT) < 150 / LIGHT, 1.0, 0.0) for v in STARTS]
    best = np.array(STARTS)[np.argmax([(flux - 0.2) @ mask for mask in under], axis=0)]
    rest = np.broadcast_to([np.log(60.0), 10.0, 2.0, 0.0, 0.0], (N_SPECTRA, 5))
    return np.concatenate([best[:, None], rest], axis=1)


def with_gradatim(flux: np.ndarray, weights: np.ndarray) -> Any:
    arrays = jnp.asarray(WAVE), jnp.asarray(flux), jnp.asarray(weights)
    return lambda: jax.block_until_ready(fit_lines(*arrays, HALPHA_COMPLEX, resolving_power=2700)).flux


def with_optimistix(flux: np.ndarray, weights: np.ndarray) -> Any:
    solver = optx.LevenbergMarquardt(rtol=1e-6, atol=1e-6)

    def one(y: Any, w: Any, start: Any) -> Any:
        def residual(p: Any, args: Any) -> Any:
            return jnp.sqrt(w) * (y - model(p, jax.scipy.special.erf, jnp))

        return optx.least_squares(residual, solver, start, options={"jac": "fwd"}, throw=False, max_steps=100).value[2:4]

    fit = jax.jit(jax.vmap(one))
    arrays = jnp.asarray(flux), jnp.asarray(weights), jnp.asarray(starts_of(flux))
    return lambda: jax.block_until_ready(fit(*arrays))


def with_scipy(flux: np.ndarray, weights: np.ndarray) -> Any:
    starts = starts_of(flux)

    def fit() -> np.ndarray:
        found = []
        for y, w, start in zip(flux, weights, starts, strict=True):
            predict = lambda _, *p: model(np.array(p), special.erf, np)  # noqa: E731
            found.append(optimize.curve_fit(predict, WAVE, y, start, w**-0.5)[0][2:4])
        return np.array(found)

    return fit


@pytest.mark.parametrize("peer", ["gradatim", "optimistix LevenbergMarquardt, vmapped", "scipy curve_fit, in a loop"])
def test_lines(benchmark: Any, peer: str) -> None:
    benchmark.group, benchmark.param = LINES, peer
    make = {"g": with_gradatim, "o": with_optimistix, "s": with_scipy}[peer[0]]
    with jax.enable_x64(True):
        flux, weights = spectra()
        reference, fit = np.asarray(with_gradatim(flux, weights)()), make(flux, weights)
        off = np.abs(np.asarray(fit()) / reference - 1).max(axis=1)
        benchmark.extra_info["spectra with other fluxes"] = int((off > AGREEMENT).sum())
        # A search that starts badly may end elsewhere; most must not.
        assert np.median(off) < AGREEMENT
        benchmark.pedantic(fit, rounds=3 if peer[0] == "s" else 10, warmup_rounds=1)


@pytest.mark.parametrize("peer", ["gradatim", "scipy minimize, Nelder–Mead"])
def test_likeliest_line(benchmark: Any, peer: str) -> None:
    benchmark.group, benchmark.param = LIKELIEST, peer
    data = population.sample()
    with jax.enable_x64(True):
        x, y, x_errors, y_errors = (jnp.asarray(data[name]) for name in ("x", "y", "x_errors", "y_errors"))

        def ours() -> Any:
            return jax.block_until_ready(fit_scattered_line(x, y, x_errors=x_errors, y_errors=y_errors))

        def scipys() -> Any:
            settings = {"method": "Nelder-Mead", "options": {"xatol": 1e-7, "fatol": 1e-9}}
            return optimize.minimize(lambda p: -population.log_posterior(p, **data), [0.0, 0.0, 0.02], **settings).x

        np.testing.assert_allclose(scipys(), np.array([float(part) for part in ours()[:3]]), atol=1e-5)
        benchmark.pedantic(ours if peer == "gradatim" else scipys, rounds=20, warmup_rounds=2)


def test_posterior_of_a_line(benchmark: Any) -> None:
    benchmark.group, benchmark.param = POPULATION, "gradatim"
    data = population.sample()
    with jax.enable_x64(True):
        x, y, x_errors, y_errors = (jnp.asarray(data[name]) for name in ("x", "y", "x_errors", "y_errors"))
        ours = lambda: jax.block_until_ready(scattered_line_posterior(x, y, x_errors=x_errors, y_errors=y_errors))  # noqa: E731
        benchmark.extra_info.update({name: np.asarray(part).tolist() for name, part in ours()._asdict().items()})
        benchmark.pedantic(ours, rounds=20, warmup_rounds=2)


@pytest.fixture(scope="module")
def peers() -> Any:
    """What ppxf and vorbin find."""
    command = [python_of("sky"), str(PEERS_FOLDER / "sky_metallicity_gradients.py"), "--values"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_lines_of_a_real_spectrum(benchmark: Any, peers: Any) -> None:
    benchmark.group, benchmark.param = SPECTRUM, "gradatim"
    with jax.enable_x64(True):
        parts = [(jnp.asarray(f)[None], jnp.asarray(w)[None], jnp.asarray(wave)) for wave, f, w in spectral_lines.parts()]

        def ours() -> Any:
            settings = {"redshift": spectral_lines.REDSHIFT, "resolving_power": None}
            return [
                jax.block_until_ready(fit_lines(wave, flux, weight, lines, **settings)).flux[0]
                for (flux, weight, wave), lines in zip(parts, (HBETA_COMPLEX, HALPHA_COMPLEX), strict=True)
            ]

        off = np.concatenate([np.asarray(part) for part in ours()]) / np.array(peers["fluxes"]) - 1
        benchmark.extra_info["furthest from ppxf [%]"] = 100 * float(np.abs(off).max())
        # The same Gaussians beside the same continuum: three per cent is what surveys agree to.
        assert np.abs(off).max() < 0.03
        benchmark.pedantic(ours, rounds=20, warmup_rounds=2)


def test_voronoi_bins(benchmark: Any, peers: Any) -> None:
    benchmark.group, benchmark.param = BINS, "gradatim"
    x, y, signal, noise = np.loadtxt(peers["table"]).T
    ours = lambda: voronoi_bin(x, y, signal, noise, peers["target"])  # noqa: E731
    found = ours()
    joined = found.signal_to_noise[found.n_pixels > 1]
    scatter = 100 * float(joined.std()) / peers["target"]
    benchmark.extra_info.update({"bins": len(found.x), "scatter of signal to noise [%]": scatter})
    assert abs(len(found.x) / peers["bins"] - 1) < 0.03
    assert scatter < peers["scatter of signal to noise [%]"] + 1
    benchmark.pedantic(ours, rounds=3, warmup_rounds=1)
