"""Every way to reconstruct, with whatever it has to be tuned tuned on images of their own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradatim.lab import Session
from gradatim.numerics import conjugate_gradient, psnr, ssim
from gradatim.transport import (
    AbstractConsistency,
    AcrossSlices,
    Denoiser,
    Krylov,
    NoiseLevels,
    Proximal,
    RangeNullSpace,
    dds_sample,
    dps_sample,
    predictor_corrector_sample,
    tv_reconstruct,
    variance_exploding_levels,
    variance_preserving_levels,
)

from .config import Config
from .tasks import Task

RANGE = 2.0
"Of the values an image may have: the same for all."
INNER = 5
"Steps of conjugate gradients, the article's."


def start(levels: NoiseLevels, key: jax.Array, shape: tuple[int, ...]) -> Array:
    """Noise of the first level."""
    return levels.levels.m[0] * jax.random.normal(key, (int(np.prod(shape)),), jnp.float32).reshape(shape)


@jax.jit
def quality(x: Array, truth: Array) -> tuple[Array, Array]:
    """Peak signal-to-noise ratio and structural similarity of each image."""
    return psnr(x, truth, data_range=RANGE), ssim(x, truth, data_range=RANGE)


class Bench:
    """One task and all that can be done with it, each result kept for a run that is resumed.

    **Arguments:** `config`; `task`; `session`; `key`: of start and fresh noise, the same ones for every way.
    """

    def __init__(self, config: Config, task: Task, session: Session, key: jax.Array) -> None:
        self.config, self.task, self.session, self.key = config, task, session, key
        self.found: dict[str, np.ndarray] = {}
        self.misfits: dict[str, np.ndarray] = {}
        self.work: dict[str, tuple[int, int]] = {}
        "Calls of the network (by back-propagation differentiated) and products with AᴴA, of an image."
        self.chosen: dict[str, str] = {}
        self.tuning: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def scores(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Ratio and similarity of everything found, over `(set, image)`."""
        truth = jnp.asarray(self.task.truth)
        rows = {name: quality(jnp.asarray(x), truth) for name, x in self.found.items()}
        return {name: (self.by_set(row[0]), self.by_set(row[1])) for name, row in rows.items()}

    def by_set(self, values: Any) -> np.ndarray:
        """A number of each image, over `(set, image)`."""
        return np.asarray(values).reshape(self.config.seeds, -1)

    def dds(
        self, name: str, consistency: AbstractConsistency, times: int, *, denoiser: Denoiser | None = None, data: Array | None = None,
        exploding: bool = False, noise_rule: Any = "split",
    ) -> None:  # fmt: skip
        """Our sampler, or the projection on the measurement, by their consistency."""
        y = self.task.y if data is None else data
        x, misfits = self._once(name, lambda: self.sampled(consistency, y, times, denoiser, exploding, noise_rule))
        self.found[name], self.misfits[name] = x, misfits
        self.work[name] = times, times * products(consistency)

    def dps(self, name: str, times: int, step_size: float, *, data: Array | None = None) -> None:
        """By back-propagation."""
        y = self.task.y if data is None else data
        steps = jnp.full(len(y), step_size, jnp.float32)
        self.found[name], self.misfits[name] = self._once(name, lambda: self.propagated(y, times, steps))
        self.work[name] = times, times

    def least_squares(self, name: str, n_steps: int, *, data: Array | None = None) -> None:
        """Conjugate gradients from nothing at all."""
        y = self.task.y if data is None else data
        self.found[name] = self._once(name, lambda: least_squares(self.task.operator, y, n_steps))
        self.work[name] = 0, n_steps + 1

    def variation(self, name: str, weight: float, *, data: Array | None = None) -> None:
        """Total variation."""
        y = self.task.y if data is None else data
        weights = jnp.full(len(y), weight, jnp.float32)
        self.found[name] = self._once(name, lambda: self._variation(y, weights))
        self.work[name] = 0, self.config.tv_steps

    def tune(self) -> dict[str, float]:
        """The best of every grid, by the mean ratio on the validation images, all of a grid at once."""
        config, task = self.config, self.task
        n = len(task.validation)
        if len(task.y) != n * config.seeds:
            raise ValueError(
                f"every grid must be as long as there are sets, {config.seeds}, got {len(task.y)} images and {n} for validation"
            )
        many = jnp.tile(task.y_validation, (config.seeds, *(1 for _ in task.y.shape[1:])))

        def spread(grid: tuple[float, ...]) -> Array:
            return jnp.repeat(jnp.asarray(grid, jnp.float32), n)

        best: dict[str, float] = {}
        if task.name == "coils":
            best["gamma"] = self._best(
                "gamma", config.gammas, lambda: self.sampled(Proximal(spread(config.gammas), INNER), many, config.times)[0]
            )
        if task.name in ("coils", "projections"):
            grid = config.dps_steps
            best["step"] = self._best("step", grid, lambda: self.propagated(many, config.many_times, spread(grid))[0])
        if task.name != "one coil":
            # One matrix for all images of a cutoff.
            inverses = RangeNullSpace(RangeNullSpace.of(task.operator, cutoff=np.asarray(config.cutoffs)).inverse[:, None])
            rows = many.reshape(len(config.cutoffs), n, *many.shape[1:])
            best["cutoff"] = self._best("cutoff", config.cutoffs, lambda: self.sampled(inverses, rows, config.times, noise_rule="ddim")[0])
        best["weight"] = self._best("weight", config.tv_weights, lambda: self._variation(many, spread(config.tv_weights)))
        best["steps"] = self._best(
            "steps",
            tuple(map(float, config.least_squares_steps)),
            lambda: np.concatenate([least_squares(task.operator, task.y_validation, steps) for steps in config.least_squares_steps]),
        )
        return best

    def tune_across(self) -> tuple[float, float]:
        """ρ and λ of the penalty across slices, on the validation volume."""
        config, task = self.config, self.task
        pairs = [(rho, rho * threshold) for rho in config.rhos for threshold in config.thresholds]
        wide = pairs + [pairs[-1]] * (-len(pairs) % config.seeds)
        many = jnp.tile(task.y_validation, (config.seeds, *(1 for _ in task.y.shape[1:])))
        found = []
        for first in range(0, len(wide), config.seeds):
            rho, weight = (jnp.asarray(column, jnp.float32) for column in zip(*wide[first : first + config.seeds], strict=True))
            found.append(self._once(f"across {first}", lambda rho=rho, weight=weight: self._across(rho, weight, many)[0]))
        x = np.concatenate(found)[: len(pairs) * len(task.validation)]
        scores = self._validation_scores(x, len(pairs))
        best = pairs[int(scores.argmax())]
        edges = [
            word
            for word, value, grid in (("ρ", best[0], config.rhos), ("λ/ρ", best[1] / best[0], config.thresholds))
            if min(abs(value - min(grid)), abs(value - max(grid))) < 1e-9
        ]
        self.chosen["across"] = f"ρ {best[0]:g}, λ {best[1]:g}" + (f" (at an edge of its grid: {', '.join(edges)})" if edges else "")
        return best

    def across(self, name: str, rho: float, weight: float) -> None:
        """Our sampler with the penalty across slices."""
        rhos, weights = (jnp.full(self.config.seeds, value, jnp.float32) for value in (rho, weight))
        self.found[name], self.misfits[name] = self._once(name, lambda: self._across(rhos, weights, self.task.y))
        self.work[name] = self.config.times, self.config.times * (INNER + 1)

    def predictor_corrector(self, y: Array, shape: tuple[int, ...], pairs: int) -> Array:
        """Langevin steps, in so many pairs."""
        levels = variance_exploding_levels(pairs, sigma_max=self.config.sigma_max)
        return predictor_corrector_sample(
            self.task.denoiser, levels, self.task.operator, y, start(levels, self.key, shape), key=self.key
        ).x  # fmt: skip

    def sampled(
        self, consistency: AbstractConsistency, y: Array, times: int, denoiser: Denoiser | None = None, exploding: bool = False,
        noise_rule: Any = "split",
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Images and misfits of our sampler, not kept; y may have its images along several axes."""
        levels = self._levels(times, exploding)
        key_start, key = jax.random.split(self.key)
        shape = self.task.operator.shape
        x = start(levels, key_start, (*y.shape[: y.ndim - self.task.y.ndim + 1], *shape))
        found = dds_sample(
            denoiser or self.task.denoiser, levels, self.task.operator, y, x, key=key, consistency=consistency, eta=self.config.eta,
            noise_rule=noise_rule,
        )  # fmt: skip
        return np.asarray(found.x).reshape(-1, *shape), np.asarray(found.misfits).reshape(times, -1)

    def _across(self, rho: Array, weight: Array, y: Array) -> tuple[np.ndarray, np.ndarray]:
        levels = self._levels(self.config.times, exploding=False)
        key_start, key = jax.random.split(self.key)
        shape = (self.config.seeds, -1, *self.task.operator.shape)
        x = start(levels, key_start, (len(y), *self.task.operator.shape)).reshape(shape)
        found = dds_sample(
            self.task.denoiser, levels, self.task.operator, y.reshape(*x.shape[:2], *y.shape[1:]), x, key=key,
            consistency=AcrossSlices(rho, weight, INNER), eta=self.config.eta,
        )  # fmt: skip
        return np.asarray(found.x).reshape(len(y), *self.task.operator.shape), np.asarray(found.misfits).reshape(len(found.misfits), -1)

    def propagated(self, y: Array, times: int, steps: Array) -> tuple[np.ndarray, np.ndarray]:
        """Images and misfits by back-propagation, not kept."""
        levels = self._levels(times, exploding=False)
        key_start, key = jax.random.split(self.key)
        x = start(levels, key_start, (len(y), *self.task.operator.shape))
        found = dps_sample(self.task.denoiser, levels, self.task.operator, y, x, key=key, step_size=steps)
        # Too long a step diverges: as bad as nothing.
        return np.nan_to_num(np.asarray(found.x), posinf=1e6, neginf=-1e6), np.asarray(found.misfits)

    def _variation(self, y: Array, weights: Array) -> np.ndarray:
        return np.asarray(tv_reconstruct(self.task.operator, y, weight=weights, n_steps=self.config.tv_steps).x)

    def _levels(self, times: int, exploding: bool) -> NoiseLevels:
        return variance_exploding_levels(times, sigma_max=self.config.sigma_max) if exploding else variance_preserving_levels(times)

    def _best(self, word: str, grid: tuple[float, ...], run: Any) -> float:
        scores = self._validation_scores(self._once(f"tuning {word}", run), len(grid))
        best = grid[int(scores.argmax())]
        edge = " (at an edge of its grid)" if best in (min(grid), max(grid)) else ""
        self.chosen[word] = f"{word} {best:g}{edge}"
        self.tuning[word] = (np.asarray(grid), scores)
        return best

    def _validation_scores(self, x: np.ndarray, n: int) -> np.ndarray:
        truth = jnp.asarray(np.tile(self.task.validation, (n, 1, 1)))
        scores = np.asarray(quality(jnp.asarray(x), truth)[0]).reshape(n, -1).mean(axis=1)
        # What broke down is worst: NumPy would take NaN for the largest.
        return np.where(np.isfinite(scores), scores, -np.inf)

    def _once(self, name: str, run: Any) -> Any:
        return self.session.once(f"{self.task.name}, {name}", run)


def products(consistency: AbstractConsistency) -> int:
    """With AᴴA, of one level: conjugate gradients take one more for their first residual."""
    return consistency.n_steps + 1 if isinstance(consistency, Krylov | Proximal) else 1


def least_squares(operator: Any, y: Array, n_steps: int) -> np.ndarray:
    """Conjugate gradients on AᴴA x = Aᴴy from zero."""
    return np.asarray(_least_squares(operator, y, n_steps))


def _solve(operator: Any, y: Array, n_steps: int) -> Array:
    target = operator.adjoint(y)
    return conjugate_gradient(operator.normal, target, jnp.zeros_like(target), n_steps=n_steps, batch_axes=1).x


_least_squares = jax.jit(_solve, static_argnames="n_steps")


def same_length(config: Config) -> None:
    """Refuses grids that are not as long as there are sets."""
    grids = {"gammas": config.gammas, "dps_steps": config.dps_steps, "tv_weights": config.tv_weights, "cutoffs": config.cutoffs}
    for name, grid in grids.items():
        if len(grid) != config.seeds:
            raise ValueError(f"{name} must have {config.seeds} entries, as there are sets, got {len(grid)}")
