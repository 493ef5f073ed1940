"""Random first layers: the peak where units equal samples, what the error consists of, spectra and bounds (C7, C8)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session, rank_correlation
from gradatim.landscape import Population, error_parts, rademacher_complexity, relu_features, relu_population
from gradatim.numerics import LeastSquares, least_squares

from .config import Students

SCALED_WIDTHS = (0.5, 0.8, 1.0, 1.25, 2.0)
"Hidden units over samples where the peak is looked for at more samples."
FLOW_TIMES = np.geomspace(1.0, 1e9, 46)
"Of early stopping, over that of the largest eigenvalue."
AWAY = (0.5, 2.0)
"Widths up to the one and from the other on are away from the peak."
RESAMPLES = 2000
CURVES = ("test", "stopped", "gaussian", "approximation", "null_space", "overfitting")
"By trial and width."


class Shape(NamedTuple):
    """The largest sizes, to which all are filled up."""

    inputs: int
    teacher_units: int
    rows: int
    units: int


def run_students(config: Students, session: Session) -> Findings:
    """C7 (all but digits and trained networks) and C8; the population is known exactly, so that no test sample is drawn."""
    for needed in (1.0, 8.0):
        if needed not in config.widths:
            raise ValueError(f"widths must hold {needed}, got {config.widths}")
    cases = [(config.samples, config.widths, config.trials)]
    cases += [(round(m * config.samples), SCALED_WIDTHS, config.scaled_trials) for m in config.scaled]
    n_widths = max(len(widths) for _, widths, _ in cases)
    shape = Shape(config.inputs, config.teacher_units, max(p for p, _, _ in cases), max(round(max(widths) * p) for p, widths, _ in cases))

    # Samples and units that a case has too few of are zeros: one program for all.
    @jax.jit
    def measure(keys: Any, samples: Any, widths: Any) -> Any:
        return jax.lax.map(lambda key: _trial(key, samples, widths, shape), keys)

    found = []
    for i, (samples, widths, trials) in enumerate(cases):
        keys = jax.random.split(jax.random.fold_in(session.key, i), trials)
        # As many widths for all, again for the one program; those that fill up are left out below.
        units = [round(w * samples) for w in widths] + [1] * (n_widths - len(widths))
        rows = session.once(f"random first layers, {samples} samples", measure, keys, jnp.asarray(samples), jnp.asarray(units))
        found.append({name: np.asarray(values)[:, : len(widths)] for name, values in rows.items()})
    spectra, shares = _spectra(config, session)
    main = found[0]
    ratios = np.asarray(config.widths)
    bounds = {
        "norm_bound": np.sqrt(main["train"]) + 2 * main["classical"],
        "refined_bound": np.sqrt(main["train"]) + 2 * main["refined"],
    }
    measures = {
        **_judge_curves(ratios, main),
        "C7.zero_eigenvalue_share": Measure.over_seeds(shares[:, 1]),
        **_judge_bounds(ratios, main["test"], bounds),
    }
    for (samples, widths, _), rows in zip(cases[1:], found[1:], strict=True):
        medians = np.median(rows["test"], axis=0)
        session.note(f"random first layer, {samples} samples: the peak lies at {widths[int(medians.argmax())]:g} × as many units")
    stopped = np.median(main["stopped"], axis=0)
    session.note(
        "random first layer, median test error: "
        + ", ".join(f"{w:g}: {m:.3g}" for w, m in zip(ratios, np.median(main["test"], axis=0), strict=True))
        + "; stopped at its best time: "
        + ", ".join(f"{m:.3g}" for m in stopped)
        + "; with what the best read-out leaves over as Gaussian label noise: "
        + ", ".join(f"{m:.3g}" for m in np.median(main["gaussian"], axis=0))
        + f"; share of zero eigenvalues at equal numbers {shares[:, 0].mean():.3f}"
    )
    unit = {"units": "teacher's output squared"}
    data = xr.Dataset(
        {
            **{name: (("trial", "width"), main[name], unit) for name in CURVES},
            **{name: (("trial", "width"), rows, {"units": "teacher's output"}) for name, rows in bounds.items()},
        },
        {"width": ("width", ratios, {"units": "units per sample"})},
    )
    scaled = xr.Dataset(
        {"test": (("samples", "trial", "width"), np.stack([rows["test"] for rows in found[1:]]), unit)},
        {
            "samples": ("samples", [samples for samples, _, _ in cases[1:]], {"units": "1"}),
            "width": ("width", list(SCALED_WIDTHS), {"units": "units per sample"}),
        },
    )
    return Findings(measures, xr.DataTree.from_dict({"students": data, "scaled": scaled, "spectra": spectra}))


def _trial(key: Any, samples: Any, widths: Any, shape: Shape) -> dict[str, Any]:
    """One teacher, one set of samples and one first layer, whose first units make the students of all widths."""
    d, k, rows, units = shape
    sizes = [rows * d, k * d, k, units * d]
    draws = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    x, teacher, layer = draws[0].reshape(rows, d), draws[1].reshape(k, d) / d**0.5, draws[3].reshape(units, d) / d**0.5
    weights = draws[2] / k**0.5
    is_sample = jnp.arange(rows) < samples
    noise = jnp.where(is_sample, jax.random.normal(jax.random.fold_in(key, 1), (rows,)), 0)
    targets = jnp.where(is_sample, relu_features(x, teacher) @ weights, 0)
    whole, features = relu_population(layer, teacher, weights), relu_features(x, layer)

    def student(width: Any) -> dict[str, Any]:
        is_unit = jnp.arange(units) < width
        covariance = jnp.where(is_unit[:, None] & is_unit[None], whole.covariance, jnp.eye(units))
        population = Population(covariance, jnp.where(is_unit, whole.correlation, 0), whole.power)
        seen = jnp.where(is_sample[:, None] & is_unit[None], features, 0)
        parts = error_parts(seen, targets, population)
        problem = least_squares(seen, targets)
        end, path = problem.minimum_norm(), problem.gradient_flow(jnp.asarray(FLOW_TIMES) / problem.eigenvalues[-1])
        # The same samples, with what the best read-out leaves over as noise of its variance.
        noisy = seen @ population.best() + jnp.sqrt(parts.approximation) * noise
        beside = LeastSquares(problem.inputs, noisy[:, None], problem.eigenvalues, problem.vectors).minimum_norm()
        # Zero rows are no samples; the complexity, too, is over those that there are.
        more = rows / samples
        return {
            "test": parts.test,
            "approximation": parts.approximation,
            "null_space": parts.null_space,
            "overfitting": parts.overfitting,
            "stopped": jnp.min(population.test_error(path.weights)),
            "gaussian": population.test_error(beside.weights[:, 0]),
            "train": end.training_error * more,
            "classical": rademacher_complexity(seen, jnp.sqrt(1.0 * width)) * more,
            "refined": rademacher_complexity(seen, jnp.linalg.norm(end.weights)) * more,
        }

    return jax.lax.map(student, widths)


def _judge_curves(ratios: np.ndarray, found: dict[str, np.ndarray]) -> dict[str, Measure]:
    """C7: all from medians of trials, since at the peak the mean has heavy tails."""
    equal, wide = int(np.argmin(np.abs(ratios - 1))), int(np.argmin(np.abs(ratios - 8)))
    away = (ratios <= AWAY[0]) | (ratios >= AWAY[1])
    parts = [found[name] for name in ("approximation", "null_space", "overfitting")]

    def off(total: Any, rows: np.ndarray) -> np.ndarray:
        return np.max(np.abs(total / np.median(found["test"][rows], axis=-2) - 1)[..., away], axis=-1)

    def sum_of_parts(rows: np.ndarray) -> np.ndarray:
        return off(sum(np.median(part[rows], axis=-2) for part in parts), rows)

    def gaussian(rows: np.ndarray) -> np.ndarray:
        return off(np.median(found["gaussian"][rows], axis=-2), rows)

    def stopped_peak(rows: np.ndarray) -> np.ndarray:
        medians = np.median(found["stopped"][rows], axis=-2)
        return np.max(medians[..., 1:-1] / np.maximum(medians[..., :-2], medians[..., 2:]), axis=-1)

    def peak(rows: np.ndarray) -> np.ndarray:
        return ratios[np.median(found["test"][rows], axis=-2).argmax(axis=-1)]

    def wide_over_narrow(rows: np.ndarray) -> np.ndarray:
        medians = np.median(found["test"][rows], axis=-2)
        return medians[..., wide] / medians[..., :equal].min(axis=-1)

    trials = len(found["test"])
    return {
        "C7.peak_width_ratio": over_trials(peak, trials),
        "C7.wide_over_narrow": over_trials(wide_over_narrow, trials),
        "C7.decomposition_error": over_trials(sum_of_parts, trials),
        "C7.gaussian_noise_error": over_trials(gaussian, trials),
        "C7.stopped_peak": over_trials(stopped_peak, trials),
    }


def over_trials(statistic: Any, n: int) -> Measure:
    """A statistic of all trials (of their numbers, along the last axis) and its 95 % percentile interval under resampling of trials."""
    value = float(statistic(np.arange(n)[None])[0])
    resampled = statistic(np.random.default_rng(0).integers(n, size=(RESAMPLES, n)))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Measure(value, min(float(low), value), max(float(high), value), f"percentile bootstrap over {n} trials")


def _judge_bounds(ratios: np.ndarray, test: np.ndarray, bounds: dict[str, np.ndarray]) -> dict[str, Measure]:
    """C8: the root mean square on the training set and twice the complexity bound the mean absolute error; ranks within each trial."""
    beyond = ratios > 1

    def correlations(bound: np.ndarray, chosen: np.ndarray) -> list[float]:
        return [float(rank_correlation(b[chosen], t[None, chosen])[0]) for b, t in zip(bound, test, strict=True)]

    return {
        "C8.classical_correlation": Measure.over_seeds(correlations(bounds["norm_bound"], beyond)),
        "C8.refined_correlation": Measure.over_seeds(correlations(bounds["refined_bound"], np.ones_like(beyond))),
    }


def _spectra(config: Students, session: Session) -> tuple[xr.Dataset, np.ndarray]:
    """Eigenvalues of hidden-layer correlations FᵀF at equal numbers and at twice as many units, and the shares of those that are zero."""
    p, d, n = config.spectrum_samples, config.spectrum_inputs, config.spectrum_draws
    key = jax.random.fold_in(session.key, 1000)

    def eigenvalues() -> dict[str, np.ndarray]:
        draws = np.asarray(jax.random.normal(key, (n * 3 * p * d,))).reshape(n, 3 * p, d)
        found = {name: np.zeros((n, factor * p)) for name, factor in (("equal", 1), ("twice", 2))}
        for i, rows in enumerate(draws):
            features = np.maximum(rows[:p] @ rows[p:].T, 0) / d**0.5
            for name, values in found.items():
                seen = features[:, : values.shape[1]]
                found[name][i] = np.linalg.eigvalsh(seen.T @ seen / seen.shape[1])
        return found

    found = session.once("spectra of hidden layers", eigenvalues)
    shares = np.stack(
        [np.mean(values <= np.finfo(float).eps * values.shape[1] * values[:, -1:], axis=1) for values in map(np.asarray, found.values())],
        axis=1,
    )
    unit = {"units": "of FᵀF / units"}
    data = xr.Dataset(
        {
            "equal": (("draw", "unit"), np.asarray(found["equal"]), unit),
            "twice": (("draw", "unit_of_twice"), np.asarray(found["twice"]), unit),
        }
    )
    return data, shares
