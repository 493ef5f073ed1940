"""Draws of the linear set-up beside theory: errors at all times, overtraining, frozen directions, the gap, norms (C1, C2, C4, C5, C6)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session
from gradatim.numerics import LeastSquares, least_squares

from .config import Linear
from .theory import law_errors

TIMES = np.unique(np.concatenate([[0.0], np.geomspace(0.05, 1000, 14), [0.5, 2.0, 10.0, 100.0], [np.inf]]))
JUDGED_TIMES, JUDGED_RATIOS = (0.5, 2.0, 10.0), (0.5, 1.0, 2.0)
EDGE_RATIOS = (0.25, 0.5, 2.0, 4.0)
INITIAL_VARIANCES = np.array([1.0, 5.0])
"σ₀² over the noise's; 0 beside them."
STARTS = 256
"Initial weights on each set of inputs."
NOISES = np.array([0.01, 0.2, 1.0])
"Variances of the noise over the teacher's."
N_GROUPS = 5
"Groups of draws, each of which says where overtraining is worst."


def run_linear(config: Linear, session: Session) -> Findings:
    """All ratios, one after another, through one compiled function: samples that a ratio has too many of are rows of zeros."""
    missing = sorted({*EDGE_RATIOS, *JUDGED_RATIOS} - set(config.ratios))
    if missing:
        raise ValueError(f"ratios must hold {missing}, got {config.ratios}")
    n_rows = max(round(ratio * config.parameters) for ratio in (*config.ratios, 1.0))
    measure = jax.jit(_mapped)
    settings = _Settings(config.parameters, n_rows, config.teachers)
    rows = []
    for i, ratio in enumerate(config.ratios):
        keys = jax.random.split(jax.random.fold_in(session.key, i), config.draws)
        samples = jnp.asarray(round(ratio * config.parameters))
        rows.append(session.once(f"draws at ratio {ratio}", measure, keys, samples, jnp.asarray(config.snr), settings))
    found = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
    theory = {name: np.asarray(values) for name, values in law_errors(config.ratios, TIMES, config.snr).items()}
    motion = run_motion(config, session)
    measures = {
        **_judge_limits(config, found, theory, session),
        **_judge_overtraining(config, found, session),
        **_judge_frozen(config, found),
        **_judge_gap(config, found, session),
        **_judge_norms(config, found),
        "C4.frozen_motion": Measure.exact(float(motion.max())),
    }
    by_time = ("ratio", "draw", "time")
    unit = {"units": "noise variance"}
    data = xr.Dataset(
        {
            **{name: (by_time, found[name], unit) for name in ("test", "train", "weight_norm")},
            **{f"{name}_theory": (("ratio", "time"), theory[name], unit) for name in ("test", "train", "weight_norm")},
            "smallest": (("ratio", "draw"), found["smallest"], {"units": "of XᵀX"}),
            "spectrum": (("ratio", "eigenvalue"), found["eigenvalues"][:, 0], {"units": "of XᵀX"}),
            "rise": (("ratio", "draw", "initial_variance"), found["rise"], unit),
            "end_norm": (("ratio", "draw", "noise"), found["end_norm"], {"units": "teacher variance"}),
            "frozen_motion": ("motion_draw", motion, {"units": "relative"}),
        },
        {
            "ratio": ("ratio", np.asarray(config.ratios), {"units": "samples per parameter"}),
            "time": ("time", TIMES, {"units": "time constants of the flow"}),
            "initial_variance": ("initial_variance", INITIAL_VARIANCES, unit),
            "noise": ("noise", NOISES, {"units": "teacher variance"}),
        },
    )
    return Findings(measures, xr.DataTree.from_dict({"linear": data}))


class _Settings(eqx.Module):
    parameters: int = eqx.field(static=True)
    n_rows: int = eqx.field(static=True)
    teachers: int = eqx.field(static=True)


def _mapped(keys: Any, samples: Any, snr: Any, settings: _Settings) -> Any:
    return jax.lax.map(lambda key: _measure(key, samples, snr, settings), keys)


def _measure(key: Any, samples: Any, snr: Any, settings: _Settings) -> dict[str, Any]:
    """One set of inputs with all its teachers."""
    n, rows, m = settings.parameters, settings.n_rows, settings.teachers
    sizes = [rows * n, n * m, n * STARTS, rows * m]
    draws = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    is_there = (jnp.arange(rows) < samples)[:, None]
    inputs = jnp.where(is_there, draws[0].reshape(rows, n), 0) / n**0.5
    teacher, start, noise = draws[1].reshape(n, m), draws[2].reshape(n, -1), jnp.where(is_there, draws[3].reshape(rows, m), 0)
    signal = inputs @ teacher
    problem = least_squares(inputs, jnp.sqrt(snr) * signal + noise)
    fits = problem.gradient_flow(jnp.asarray(TIMES))

    def test(weights: Any) -> Any:
        return jnp.mean((weights - jnp.sqrt(snr) * teacher.reshape((1,) * (weights.ndim - 2) + teacher.shape)) ** 2, axis=-2) + 1

    # Zero rows are no samples.
    train, errors, norms = fits.training_error * (rows / samples), test(fits.weights), jnp.mean(fits.weights**2, axis=-2)
    # The flow is linear: a start adds what is left of it in the end to any weights, and, on average of it and its mirror image, the square
    # of that to the test error.
    left = LeastSquares(inputs, jnp.zeros((rows, STARTS)), problem.eigenvalues, problem.vectors).minimum_norm(start).weights
    both = LeastSquares(inputs, jnp.concatenate([signal, noise], axis=1), problem.eigenvalues, problem.vectors).minimum_norm().weights
    ends = both[None, :, :m] + jnp.sqrt(NOISES)[:, None, None] * both[None, :, m:]
    finite_train, finite_norms = train[:-1], norms[:-1]
    return {
        "test": errors.mean(1),
        "train": train.mean(1),
        "weight_norm": norms.mean(1),
        "training_rise": jnp.max((finite_train[1:] - finite_train[:-1]) / finite_train[:1]),
        "norm_fall": jnp.max((finite_norms[:-1] - finite_norms[1:]) / norms[-1:]),
        "rise": INITIAL_VARIANCES * jnp.mean(left**2),
        "end_norm": jnp.mean(ends**2, axis=(1, 2)),
        "eigenvalues": problem.eigenvalues,
        "smallest": jnp.min(jnp.where(problem.eigenvalues > 0, problem.eigenvalues, jnp.inf)),
    }


def _at(config: Linear, ratio: float) -> int:
    return config.ratios.index(ratio)


def _judge_limits(config: Linear, found: dict[str, np.ndarray], theory: dict[str, np.ndarray], session: Session) -> dict[str, Measure]:
    """C1: of all judged ratios and times the largest deviation; its interval reaches as far as that of any."""
    times = np.searchsorted(TIMES, JUDGED_TIMES)
    ratios = [_at(config, ratio) for ratio in JUDGED_RATIOS]
    measures = {}
    for part, name in (("test_error_deviation", "test"), ("training_error_deviation", "train")):
        cells = [found[name][i][:, j] / theory[name][i, j] - 1 for i in ratios for j in times]
        measures[f"C1.{part}"] = largest([Measure.over_seeds(cell) for cell in cells])
        worst = int(np.argmax([abs(cell.mean()) for cell in cells]))
        ratio, time = JUDGED_RATIOS[worst // len(times)], JUDGED_TIMES[worst % len(times)]
        session.note(f"linear, {name} error: the largest of {len(cells)} deviations from theory is at ratio {ratio:g} and time {time:g}")
    equal, late = _at(config, 1.0), int(np.searchsorted(TIMES, 100.0))
    session.note(
        f"linear, as many samples as parameters at time 100: mean test error {found['test'][equal][:, late].mean():.4g}, "
        f"theory {theory['test'][equal, late]:.4g}"
    )
    return measures


def largest(measures: list[Measure]) -> Measure:
    """The largest of several absolute values, with an interval that holds each of theirs that could be the largest."""
    rows = [measure.intervals()[0] for measure in measures]
    lows = [max(low, -high, 0.0) for _, low, high in rows]
    return Measure(
        max(abs(value) for value, _, _ in rows),
        max(lows),
        max(max(abs(low), abs(high)) for _, low, high in rows),
        f"largest of {len(rows)}, each: {measures[0].method}",
    )


def _judge_overtraining(config: Linear, found: dict[str, np.ndarray], session: Session) -> dict[str, Measure]:
    """C2: how much is lost from the best time to the end, median of a group of draws, since at ratio 1 the mean has heavy tails."""
    lost = found["test"][..., -1] - found["test"].min(axis=-1)
    groups = np.array_split(np.arange(config.draws), N_GROUPS)
    medians = np.stack([np.median(lost[:, group], axis=1) for group in groups])
    worst = np.asarray(config.ratios)[medians.argmax(axis=1)]
    equal = found["test"][_at(config, 1.0)].mean(axis=0)
    first, last = np.searchsorted(TIMES, 100.0), len(TIMES) - 2
    slope = np.log(equal[last] / equal[first]) / np.log(TIMES[last] / TIMES[first])
    session.note(
        "linear, lost from the best time to the end, median: "
        + ", ".join(f"{ratio:g}: {np.median(row):.3g}" for ratio, row in zip(config.ratios, lost, strict=True))
        + f"; growth exponent of the draws at ratio 1 from time 100 to {TIMES[last]:g}: {slope:.3f}"
    )
    return {
        "C2.training_rise": Measure.exact(float(found["training_rise"].max())),
        "C2.peak_ratio": Measure.over_seeds(worst),
    }


def _judge_frozen(config: Linear, found: dict[str, np.ndarray]) -> dict[str, Measure]:
    """C4: the slope through zero over both initial variances."""
    rise = found["rise"][_at(config, 0.5)]
    return {"C4.rise_per_initial_variance": Measure.over_seeds((rise / INITIAL_VARIANCES).mean(axis=1))}


def _judge_gap(config: Linear, found: dict[str, np.ndarray], session: Session) -> dict[str, Measure]:
    """C5: the ratio that is furthest from theory."""
    edges = {r: Measure.over_seeds(found["smallest"][_at(config, r)] / (r**0.5 - 1) ** 2) for r in EDGE_RATIOS}
    session.note("linear, smallest eigenvalue over the edge: " + ", ".join(f"{r:g}: {m.value:.4f}" for r, m in edges.items()))
    return {"C5.edge_ratio": max(edges.values(), key=lambda m: abs(m.intervals()[0][0] - 1))}


def _judge_norms(config: Linear, found: dict[str, np.ndarray]) -> dict[str, Measure]:
    """C6: growth in time from zero, and with the noise at half as many samples as parameters."""
    ends = found["end_norm"][_at(config, 0.5)]
    return {
        "C6.norm_fall": Measure.exact(float(found["norm_fall"].max())),
        "C6.norm_by_noise": Measure.paired_sequence(list(ends.T)),
    }


def run_motion(config: Linear, session: Session) -> np.ndarray:
    """Plain gradient descent at half as many samples as parameters: what it moves in the null space over all that it moves."""
    n, p = config.parameters // 2, config.parameters
    n_draws = 3

    @jax.jit
    def descend(key: Any, steps: Any) -> dict[str, Any]:
        sizes = [n_draws * n * p, n_draws * n, n_draws * p]
        draws = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
        inputs = draws[0].reshape(n_draws, n, p) / p**0.5
        teacher = draws[2].reshape(n_draws, p, 1)
        targets = config.snr**0.5 * inputs @ teacher + draws[1].reshape(n_draws, n, 1)
        start = jnp.flip(teacher, axis=1)

        def step(_: Any, w: Any) -> Any:
            # Stable below 2/λ₊, which is 0.69 at this ratio.
            return w + 0.3 * inputs.mT @ (targets - inputs @ w)

        return {"inputs": inputs, "moved": jax.lax.fori_loop(0, steps, step, start) - start}

    found = session.once("motion in frozen directions", descend, jax.random.fold_in(session.key, 1000), jnp.asarray(config.motion_steps))
    shares = []
    for inputs, moved in zip(np.asarray(found["inputs"]), np.asarray(found["moved"])[..., 0], strict=True):
        span = np.linalg.svd(inputs, full_matrices=False)[2]
        shares.append(np.linalg.norm(moved - span.T @ (span @ moved)) / np.linalg.norm(moved))
    return np.array(shares)
