"""Surveys of simulated galaxies with the masses and sizes of the real ones, and the populations read off them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.astro import ThinDisk, kpc_per_arcsec
from gradatim.lab import Session
from gradatim.numerics import fit_scattered_line, scattered_line_posterior

from .chain import TO_SCALE_LENGTH, TURNOVER, Galaxy, beams, narrow_line, noiseless_gradients, survey
from .config import Config
from .sample import column

LINEAR = {"pp04-n2": 0.57, "m13-n2": 0.462, "b18-n2": 0.49}
"Calibrations linear in log [N II]/Hα, with their slopes."
CALIBRATIONS = ("pp04-n2", "m13-n2", "b18-n2", "pp04-n2-cubic", "c20-n2")
"Of [N II]/Hα, the linear ones first."
CORRECTED = ("pp04-n2", "m13-n2")
"By which gradients are also corrected for the beam: the steepest and the flattest of the linear ones."
REFERENCE_MASS = 10.0


def galaxies_of(config: Config, key: jax.Array) -> Galaxy:
    """The first galaxies of the table, with drawn gradients and position angles; every leaf has one entry a galaxy."""
    n = config.galaxies
    get = {name: column(name, n) for name in ("redshift", "log_mass", "inclination", "effective_radius", "dispersion", "rotation")}
    mass, size = get["log_mass"] - REFERENCE_MASS, get["effective_radius"]
    draws = np.asarray(jax.random.normal(jax.random.fold_in(key, 0), (n,), jnp.float64))
    angles = np.asarray(jax.random.uniform(jax.random.fold_in(key, 1), (n,), jnp.float64, 0, 2 * np.pi))
    truth = config.truth
    parts = {
        "brightness": np.ones(n),
        "scale_length": size / TO_SCALE_LENGTH,
        "central_metallicity": 8.45 + 0.15 * mass,
        "gradient": truth.intercept + truth.slope * mass + truth.scatter * draws,
        "speed": get["rotation"] / (2 / np.pi * np.arctan(1 / TURNOVER)),
        "turnover": TURNOVER * size,
        "dispersion": get["dispersion"],
    }
    scale = np.asarray(kpc_per_arcsec(jnp.asarray(get["redshift"])))
    disk = ThinDisk(**{name: jnp.asarray(part) for name, part in parts.items()})
    return Galaxy(disk, *(jnp.asarray(part) for part in (size, scale, angles, np.deg2rad(get["inclination"]))))


def each_of(galaxies: Galaxy) -> list[Galaxy]:
    """One after another."""
    leaves, shape = jax.tree.flatten(jax.device_get(galaxies))
    return [jax.tree.unflatten(shape, [jnp.asarray(leaf[i]) for leaf in leaves]) for i in range(len(leaves[0]))]


def run_surveys(config: Config, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Every survey, galaxy by galaxy, from cube to gradient."""
    fine, finer = beams(config.telescope)
    n = config.galaxies
    true, found, widths, pictures = [], [], [], None
    for i, key_survey in enumerate(jax.random.split(key, config.surveys)):
        key_truth, key_noise, key_width = jax.random.split(key_survey, 3)
        galaxies = galaxies_of(config, key_truth)
        single = each_of(galaxies)
        one = session.once(
            f"survey {i}",
            lambda single=single, key=key_noise: [part._asdict() for part in survey(single, jax.random.split(key, n), config, fine, finer)],
        )
        found.append(one[0])
        pictures = one[1] if pictures is None else pictures
        true.append(np.asarray(galaxies.disk.gradient))
        middle = single[_shown(n)[1]]
        widths.append(session.once(f"narrow lines {i}", lambda g=middle, key=key_width: narrow_line(g, key, config, finer)))
    units = {
        "gradient": "dex/kpc", "gradient_error": "dex/kpc", "naive_gradient": "dex/kpc", "naive_error": "dex/kpc",
        "central_metallicity": "dex", "rotation_over_dispersion": "1", "chi_squared": "1", "is_valid": "1", "n_kinematic": "1",
    }  # fmt: skip
    data = xr.Dataset(
        {
            **{name: (("survey", "galaxy"), np.stack([one[name] for one in found]), {"units": unit}) for name, unit in units.items()},
            "truth": (("survey", "galaxy"), np.stack(true), {"units": "dex/kpc"}),
            "width": ("survey", np.array(widths), {"units": "km/s"}),
            "log_mass": ("galaxy", column("log_mass", n), {"units": "dex of solar masses"}),
            "scale_length": ("galaxy", column("effective_radius", n) / TO_SCALE_LENGTH, {"units": "kpc"}),
        },
        coords={"galaxy": column("id", n).astype(int)},
    )
    assert pictures is not None
    return {"surveys": data, "maps": _maps(config, pictures, data)}


def _shown(n: int) -> list[int]:
    """A light, a middling and a massive galaxy."""
    order = np.argsort(column("log_mass", n), kind="stable")
    return [int(order[1]), int(order[n // 2]), int(order[-2])]


def _maps(config: Config, pictures: dict[str, np.ndarray], data: xr.Dataset) -> xr.Dataset:
    """Of three galaxies of the first survey."""
    rows = _shown(config.galaxies)
    n = config.telescope.pixels
    offsets = (np.arange(n) - (n - 1) / 2) * config.telescope.pixel
    field = lambda name, unit: (("galaxy", "y", "x"), pictures[name][rows], {"units": unit})  # noqa: E731
    ring = lambda name, unit: (("galaxy", "ring"), pictures[name][rows], {"units": unit})  # noqa: E731
    return xr.Dataset(
        {
            "metallicity": field("metallicity", "dex"),
            "velocity": field("velocity", "km/s"),
            "signal": (("galaxy", "line", "y", "x"), pictures["signal"][rows], {"units": "1"}),
            "ring_radius": ring("ring_radius", "kpc"),
            "ring_metallicity": ring("ring_metallicity", "dex"),
            "ring_error": ring("ring_error", "dex"),
            **{
                name: ("galaxy", data[name].values[0, rows], dict(data[name].attrs))
                for name in ("truth", "gradient", "gradient_error", "central_metallicity", "naive_gradient", "naive_error")
            },
            "log_mass": ("galaxy", data["log_mass"].values[rows], dict(data["log_mass"].attrs)),
        },
        coords={
            "galaxy": data["galaxy"].values[rows],
            "line": ["Hα", "[N II]"],
            "x": ("x", offsets, {"units": "arc seconds"}),
            "y": ("y", offsets, {"units": "arc seconds"}),
        },
    )


def run_calibrations(config: Config, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """The first survey's galaxies without noise, by every calibration of [N II]/Hα."""
    fine, _ = beams(config.telescope)
    galaxies = galaxies_of(config, jax.random.split(jax.random.split(key, config.surveys)[0], 3)[0])

    def compute() -> dict[str, np.ndarray]:
        naive, corrected = noiseless_gradients(each_of(galaxies), config, fine, CALIBRATIONS, CORRECTED)
        return {"naive": naive, "corrected": corrected}

    data = session.once("gradients by calibration", compute)
    return {
        "calibrations": xr.Dataset(
            {
                "naive": (("calibration", "galaxy"), data["naive"], {"units": "dex/kpc"}),
                "corrected": (("linear", "galaxy"), data["corrected"], {"units": "dex/kpc"}),
                "truth": ("galaxy", np.asarray(galaxies.disk.gradient), {"units": "dex/kpc"}),
                "log_mass": ("galaxy", column("log_mass", config.galaxies), {"units": "dex of solar masses"}),
            },
            coords={"calibration": list(CALIBRATIONS), "linear": list(CORRECTED)},
        )
    }


@jax.jit
def _populations(x: jax.Array, y: jax.Array, sx: jax.Array, sy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Quantiles (intercept, slope, scatter) × (16, 50, 84 %) and the likeliest values, of every row."""

    def one(row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        x, y, sx, sy = row
        best = fit_scattered_line(x, y, x_errors=sx, y_errors=sy)
        posterior = scattered_line_posterior(x, y, x_errors=sx, y_errors=sy)
        return jnp.stack(list(posterior)), jnp.stack([best.intercept, best.slope, best.scatter])

    return jax.lax.map(one, (x, y, sx, sy))


def run_populations(config: Config, session: Session, key: jax.Array, surveys: xr.Dataset) -> dict[str, xr.Dataset]:
    """Gradient against mass in each survey; and the population step again, alone, with a slope and without one."""
    n, truth, repeats = config.galaxies, config.truth, config.repeats
    mass = surveys["log_mass"].values - REFERENCE_MASS
    key_mass, key_alone = jax.random.split(key)
    rows = config.surveys + 2 * repeats
    shift = np.asarray(jax.random.normal(key_mass, (rows * n,), jnp.float64)).reshape(rows, n)
    draws = np.asarray(jax.random.normal(key_alone, (4 * repeats * n,), jnp.float64)).reshape(2, 2, repeats, n)
    measured = mass + truth.mass_error * shift
    # The errors that the surveys' own fits have, galaxy by galaxy.
    errors = surveys["gradient_error"].values
    error = np.median(errors, axis=0)
    alone = [
        truth.intercept + slope * mass + truth.scatter * draws[i, 0] + error * draws[i, 1] for i, slope in enumerate((truth.slope, 0.0))
    ]
    y = np.concatenate([surveys["gradient"].values, *alone])
    sy = np.concatenate([errors, np.broadcast_to(error, (2 * repeats, n))])
    sx = np.full((rows, n), truth.mass_error)

    def compute() -> list[np.ndarray]:
        return [np.asarray(part) for part in _populations(*(jnp.asarray(part) for part in (measured, y, sx, sy)))]

    quantiles, best = session.once("populations", compute)
    units = {"units": "dex/kpc, per dex of mass for the slope"}
    dims = ("parameter", "quantile")
    first, second = config.surveys, config.surveys + repeats
    return {
        "population": xr.Dataset(
            {
                "surveys": (("survey", *dims), quantiles[:first], units),
                "with_slope": (("repeat", *dims), quantiles[first:second], units),
                "without_slope": (("repeat", *dims), quantiles[second:], units),
                "likeliest": (("repeat", "parameter"), best[first:second], units),
                "measured_mass": (("survey", "galaxy"), measured[:first] + REFERENCE_MASS, {"units": "dex of solar masses"}),
                "truth": ("parameter", np.array([truth.intercept, truth.slope, truth.scatter]), units),
            },
            coords={"parameter": ["intercept", "slope", "scatter"], "quantile": [0.16, 0.5, 0.84]},
        )
    }
