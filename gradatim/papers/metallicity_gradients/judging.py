"""What the simulated surveys and the real spectrum say about the claims."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from scipy import stats

from gradatim.lab import Findings, Measure, Session

from .config import Config
from .surveys import LINEAR

CONFIDENCE = 0.95
OF_THE_SKY = {
    "C2.measured_gradients": "the 25 measured gradients are not available",
    "C3.measured_mass_slope": "the measured gradients and masses are not available",
    "C4.measured_rotation_correlation": "the measured gradients are not available, and no correlation tells what keeps them",
}
"What no simulation can stand for."


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """All measures."""
    surveys, population, calibrations, lines = (trees[name] for name in ("surveys", "population", "calibrations", "lines"))
    measures: dict[str, Measure] = {}
    session.note(
        "The galaxies are simulated, with the masses, sizes and rotation of the survey's and with invented gradients: what is judged is "
        "the chain from cube to population, not the sky. The 25 measured gradients were not available"
    )

    measures["C1.instrumental_width"] = Measure.over_seeds(surveys["width"].values)
    differences = 100 * (lines["flux"] / lines["published"] - 1)
    measures["C1.line_flux_difference"] = Measure.exact(float(np.abs(differences).max()))
    session.note(
        "C1: fluxes here over those of the SDSS pipeline, less one: "
        + ", ".join(f"{name} {value:+.1f} %" for name, value in zip(lines["line"].values, differences.values, strict=True))
        + "; both fit Gaussians, but the pipeline takes off a continuum of its own and ties the widths of all Balmer lines and of all "
        "forbidden ones"
    )

    pulls, naive = pulls_of(surveys), pulls_of(surveys, naive=True)
    measures["C2.pull_mean"] = Measure.over_seeds(pulls)
    measures["C2.pull_deviation"] = deviation(pulls)
    measures["C2.calibration_ratio_error"] = Measure.exact(calibration_ratio_error(calibrations))
    left_out = int(surveys["is_valid"].size - surveys["is_valid"].sum())
    kept, kept_corrected = kept_by_the_beam(surveys), kept_by_the_beam(surveys, "gradient")
    errors = surveys["gradient_error"]
    session.note(
        f"C2: the naive fit, through the beam as it is, has pulls of mean {naive.mean():.2f} and deviation {naive.std(ddof=1):.2f}, and "
        f"keeps {kept:.2f} of a gradient, the corrected fit {kept_corrected:.2f}; {left_out} of {surveys['is_valid'].size} fits did not "
        f"converge; errors run from {float(errors.min()):.3f} to {float(errors.max()):.3f} dex/kpc"
    )
    session.note("C2: " + shares(surveys))

    slopes = population["surveys"].sel(parameter="slope", quantile=0.5).values
    without = population["without_slope"].sel(parameter="slope", quantile=0.5).values
    measures["C3.mass_slope"] = Measure.over_seeds(slopes)
    measures["C3.coverage"] = coverage_measure(population)
    scatters = population["surveys"].sel(parameter="scatter", quantile=0.5).values
    likeliest = float(population["likeliest"].sel(parameter="scatter").mean())
    spread = float(surveys["gradient"].std("galaxy", ddof=1).mean())
    negative, negative_without = (100 * (part < 0).mean() for part in (slopes, without))
    session.note(
        f"C3: true slope {config.truth.slope} dex/kpc per dex, found {slopes.mean():.4f}, below zero in {negative:.0f} % of the surveys; "
        f"without a slope {without.mean():.4f} ± {without.std(ddof=1):.4f}, below zero in {negative_without:.0f} %. "
        f"True scatter {config.truth.scatter}, found {scatters.mean():.4f}; the likeliest is {likeliest:.4f}, as it is biased low. The "
        f"gradients of a survey spread by {spread:.4f} as measured, trend and errors left in"
    )
    by_calibration = mass_slopes(calibrations)
    session.note(
        "C3: slope with mass of one set of noiseless maps by calibration, over that of the first: "
        + ", ".join(f"{name} {value / by_calibration['pp04-n2']:.2f}" for name, value in by_calibration.items())
    )

    r, r_without = rotation_correlations(surveys, config.truth.slope)
    measures["C4.rotation_correlation"] = Measure.over_seeds(r)
    n = config.galaxies
    with_mass = float(np.corrcoef(surveys["log_mass"].values, surveys["rotation_over_dispersion"].values.mean(0))[0, 1])
    session.note(
        f"C4: the simulated gradients follow mass alone, so that rotation over dispersion can go with them only through mass, with which "
        f"it correlates by {with_mass:.2f}; with the trend taken off, the correlation is {r_without.mean():.2f}. The r of one survey of "
        f"{n} galaxies is uncertain by {1 / np.sqrt(n - 3):.2f}: this says what the chain finds, not what keeps gradients alive"
    )
    return Findings(measures, xr.DataTree.from_dict(dict(trees)), OF_THE_SKY)


def pulls_of(surveys: xr.Dataset, *, naive: bool = False) -> np.ndarray:
    """(found - true) / error of all fits that converged."""
    value, error = ("naive_gradient", "naive_error") if naive else ("gradient", "gradient_error")
    pulls = ((surveys[value] - surveys["truth"]) / surveys[error]).values
    return pulls[surveys["is_valid"].values.astype(bool)]


def deviation(samples: np.ndarray) -> Measure:
    """The standard deviation with its bootstrap interval: pulls need not be normal."""
    value = float(samples.std(ddof=1))
    found = stats.bootstrap(
        (samples,), lambda x, axis: np.std(x, axis=axis, ddof=1), confidence_level=CONFIDENCE, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return Measure(
        value,
        min(float(found.low), value),
        max(float(found.high), value),
        f"bootstrap over {samples.size} pulls",
        tuple(map(float, samples)),
    )


def calibration_ratio_error(calibrations: xr.Dataset) -> float:
    """The worst of |ratio of gradients / ratio of the calibrations' slopes - 1|, naive and corrected, over galaxies."""
    worst = 0.0
    for kind, axis in (("naive", "calibration"), ("corrected", "linear")):
        first = calibrations[kind].sel({axis: "pp04-n2"}).values
        for name in LINEAR.keys() & set(calibrations[axis].values.tolist()):
            ratio = calibrations[kind].sel({axis: name}).values / first
            worst = max(worst, float(np.abs(ratio / (LINEAR[name] / LINEAR["pp04-n2"]) - 1).max()))
    return worst


def mass_slopes(calibrations: xr.Dataset) -> dict[str, float]:
    """Of the naive gradients of noiseless maps."""
    mass = calibrations["log_mass"].values
    return {
        str(name): float(np.polyfit(mass, calibrations["naive"].sel(calibration=name).values, 1)[0])
        for name in calibrations.calibration.values
    }


def kept_by_the_beam(surveys: xr.Dataset, name: str = "naive_gradient") -> float:
    """Share of the true gradient that a fit finds: least squares through the origin, weighted by its errors."""
    error = surveys["naive_error" if name == "naive_gradient" else "gradient_error"]
    weights = surveys["is_valid"].values / error.values**2
    true = surveys["truth"].values
    return float((weights * true * surveys[name].values).sum() / (weights * true**2).sum())


def shares(surveys: xr.Dataset) -> str:
    """How many gradients are told negative, flat and positive."""
    signal = (surveys["gradient"] / surveys["gradient_error"]).values
    negative, positive = (signal <= -2).mean(), (signal >= 2).mean()
    return (
        f"of the simulated gradients {100 * negative:.0f} % are found negative at two standard errors, {100 * positive:.0f} % positive, "
        f"the rest consistent with flat; between {float(surveys['gradient'].min()):.3f} and {float(surveys['gradient'].max()):.3f} dex/kpc"
    )


def coverage_measure(population: xr.Dataset) -> Measure:
    """The worst share, over slope, intercept and scatter, of repeats whose 68 % interval holds the truth, with its exact interval."""
    low, high = (population["with_slope"].sel(quantile=q).values for q in (0.16, 0.84))
    truth = population["truth"].values
    hits = ((low <= truth) & (truth <= high)).sum(axis=0)
    n, worst = len(low), int(hits.min())
    found = stats.binomtest(worst, n).proportion_ci(CONFIDENCE, method="exact")
    names = ", ".join(f"{name} {count / n:.3f}" for name, count in zip(population["parameter"].values, hits, strict=True))
    return Measure(worst / n, float(found.low), float(found.high), f"Clopper–Pearson over {n} repeats; {names}")


def rotation_correlations(surveys: xr.Dataset, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """Pearson's r of gradient and rotation over dispersion in each survey, as found, and with the true trend with mass taken off."""
    mass = surveys["log_mass"].values
    pairs = list(zip(surveys["gradient"].values, surveys["rotation_over_dispersion"].values, strict=True))
    plain = np.array([np.corrcoef(g, v)[0, 1] for g, v in pairs])
    without = np.array([np.corrcoef(g - slope * mass, v)[0, 1] for g, v in pairs])
    return plain, without


def correlation_p_value(r: float, n: int) -> float:
    """Two-sided probability of a Pearson correlation at least as far from 0 between n unrelated normal pairs."""
    t = abs(r) * np.sqrt((n - 2) / (1 - r**2))
    return float(2 * stats.t.sf(t, n - 2))
