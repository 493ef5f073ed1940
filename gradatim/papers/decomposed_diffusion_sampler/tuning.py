"""Every way is tuned on validation images of all networks, which are not judged."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.transport import Proximal, RangeNullSpace

from .arms import INNER, Arms
from .bench import Bench, quality


def tune(bench: Bench) -> dict[str, float]:
    """The best of every grid, by the mean ratio on the validation images, all of a grid at once."""
    config, name = bench.config, bench.name
    best: dict[str, float] = {}
    if name == "coils":

        def weighted(arms: Arms) -> np.ndarray:
            return arms.sampled(Proximal(_spread(arms, config.gammas), INNER), _tiled(arms, len(config.gammas)), config.times)[0]

        best["gamma"] = _best(bench, "gamma", config.gammas, weighted)
    if name in ("coils", "projections"):

        def propagated(arms: Arms) -> np.ndarray:
            steps = _spread(arms, config.dps_steps)
            return arms.propagated(_tiled(arms, len(config.dps_steps)), config.many_times, steps)[0]

        best["step"] = _best(bench, "step", config.dps_steps, propagated)
    if name != "one coil":
        projections = bench.projections(np.asarray(config.cutoffs))

        def projected(arms: Arms) -> np.ndarray:
            # One matrix for all images of a cutoff.
            inverses = RangeNullSpace(projections[bench.arms.index(arms)].inverse[:, None])
            y = arms.task.y_validation
            rows = jnp.broadcast_to(y, (len(config.cutoffs), *y.shape))
            return arms.sampled(inverses, rows, config.times, noise_rule="ddim")[0]

        best["cutoff"] = _best(bench, "cutoff", config.cutoffs, projected)

    def smoothed(arms: Arms) -> np.ndarray:
        return arms.variation(_tiled(arms, len(config.tv_weights)), _spread(arms, config.tv_weights))

    def solved(arms: Arms) -> np.ndarray:
        return np.concatenate([arms.least_squares(arms.task.y_validation, steps) for steps in config.least_squares_steps])

    best["weight"] = _best(bench, "weight", config.tv_weights, smoothed)
    best["steps"] = _best(bench, "steps", tuple(map(float, config.least_squares_steps)), solved)
    return best


def tune_across(bench: Bench) -> tuple[float, float]:
    """ρ and λ of the penalty across slices, on the validation volumes."""
    config = bench.config
    pairs = [(rho, rho * threshold) for rho in config.rhos for threshold in config.thresholds]
    rho, weight = (jnp.asarray(column, jnp.float32) for column in zip(*pairs, strict=True))
    scores = _scores(bench, "across", len(pairs), lambda arms: arms.across(rho, weight, _tiled(arms, len(pairs)))[0])
    best = pairs[int(scores.argmax())]
    edges = [
        word
        for word, value, grid in (("ρ", best[0], config.rhos), ("λ/ρ", best[1] / best[0], config.thresholds))
        if min(abs(value - min(grid)), abs(value - max(grid))) < 1e-9
    ]
    bench.chosen["across"] = f"ρ {best[0]:g}, λ {best[1]:g}" + (f" (at an edge of its grid: {', '.join(edges)})" if edges else "")
    return best


def validation_scores(x: np.ndarray, truth: Float[np.ndarray, "n side side"], n: int) -> np.ndarray:
    """The mean ratio at each of n values of a grid."""
    ratios = quality(jnp.asarray(x), jnp.asarray(np.tile(truth, (n, 1, 1))))[0]
    scores = np.asarray(ratios).reshape(n, -1).mean(axis=1)
    # What broke down is worst: NumPy would take NaN for the largest.
    return np.where(np.isfinite(scores), scores, -np.inf)


def _best(bench: Bench, word: str, grid: tuple[float, ...], run: Callable[[Arms], np.ndarray]) -> float:
    scores = _scores(bench, word, len(grid), run)
    best = grid[int(scores.argmax())]
    edge = " (at an edge of its grid)" if best in (min(grid), max(grid)) else ""
    bench.chosen[word] = f"{word} {best:g}{edge}"
    bench.tuning[word] = (np.asarray(grid), scores)
    return best


def _scores(bench: Bench, word: str, n: int, run: Callable[[Arms], np.ndarray]) -> np.ndarray:
    found = bench.once(f"tuning {word}", lambda: [run(arms) for arms in bench.arms])
    rows = [validation_scores(x, task.validation, n) for x, task in zip(found, bench.tasks, strict=True)]
    return np.mean(rows, axis=0)


def _tiled(arms: Arms, n: int) -> Array:
    """The validation data, once for each value of a grid."""
    y = arms.task.y_validation
    return jnp.tile(y, (n, *(1 for _ in y.shape[1:])))


def _spread(arms: Arms, grid: tuple[float, ...]) -> Array:
    return jnp.repeat(jnp.asarray(grid, jnp.float32), len(arms.task.validation))
