"""Every way to reconstruct the images of one network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradatim.numerics import conjugate_gradient
from gradatim.transport import (
    AbstractConsistency,
    AcrossSlices,
    Denoiser,
    Krylov,
    NoiseLevels,
    Proximal,
    dds_sample,
    dps_sample,
    predictor_corrector_sample,
    tv_reconstruct,
    variance_exploding_levels,
    variance_preserving_levels,
)

from .config import Config
from .tasks import Task

INNER = 5
"Steps of conjugate gradients, the article's."


def start(levels: NoiseLevels, key: jax.Array, shape: tuple[int, ...]) -> Array:
    """Noise of the first level."""
    return levels.levels.m[0] * jax.random.normal(key, (int(np.prod(shape)),), jnp.float32).reshape(shape)


class Arms:
    """What can be done with one network's task.

    **Arguments:** `config`; `task`; `key`: of start and fresh noise, the same ones for every way.
    """

    def __init__(self, config: Config, task: Task, key: jax.Array) -> None:
        self.config, self.task, self.key = config, task, key

    def sampled(
        self, consistency: AbstractConsistency, y: Array, times: int, denoiser: Denoiser | None = None, exploding: bool = False,
        noise_rule: Any = "split",
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Images and misfits of our sampler, or of the projection on the measurement; y may have its images along several axes."""
        levels = self._levels(times, exploding)
        key_start, key = jax.random.split(self.key)
        shape = self.task.operator.shape
        x = start(levels, key_start, (*y.shape[: y.ndim - self.task.y.ndim + 1], *shape))
        found = dds_sample(
            denoiser or self.task.denoiser, levels, self.task.operator, y, x, key=key, consistency=consistency, eta=self.config.eta,
            noise_rule=noise_rule,
        )  # fmt: skip
        return np.asarray(found.x).reshape(-1, *shape), np.asarray(found.misfits).reshape(times, -1)

    def across(self, rho: Array, weight: Array, y: Array) -> tuple[np.ndarray, np.ndarray]:
        """The same with a penalty across slices, of as many volumes as there are penalties."""
        levels = self._levels(self.config.times, exploding=False)
        key_start, key = jax.random.split(self.key)
        shape = (len(rho), -1, *self.task.operator.shape)
        x = start(levels, key_start, (len(y), *self.task.operator.shape)).reshape(shape)
        found = dds_sample(
            self.task.denoiser, levels, self.task.operator, y.reshape(*x.shape[:2], *y.shape[1:]), x, key=key,
            consistency=AcrossSlices(rho, weight, INNER), eta=self.config.eta,
        )  # fmt: skip
        return np.asarray(found.x).reshape(len(y), *self.task.operator.shape), np.asarray(found.misfits).reshape(len(found.misfits), -1)

    def propagated(self, y: Array, times: int, steps: Array) -> tuple[np.ndarray, np.ndarray]:
        """Images and misfits by back-propagation."""
        levels = self._levels(times, exploding=False)
        key_start, key = jax.random.split(self.key)
        x = start(levels, key_start, (len(y), *self.task.operator.shape))
        found = dps_sample(self.task.denoiser, levels, self.task.operator, y, x, key=key, step_size=steps)
        # Too long a step diverges: as bad as nothing.
        return np.nan_to_num(np.asarray(found.x), posinf=1e6, neginf=-1e6), np.asarray(found.misfits)

    def variation(self, y: Array, weights: Array) -> np.ndarray:
        """Total variation."""
        return np.asarray(tv_reconstruct(self.task.operator, y, weight=weights, n_steps=self.config.tv_steps).x)

    def least_squares(self, y: Array, n_steps: int) -> np.ndarray:
        """Conjugate gradients on AᴴA x = Aᴴy from zero."""
        return np.asarray(_least_squares(self.task.operator, y, n_steps))

    def predictor_corrector(self, y: Array, shape: tuple[int, ...], pairs: int) -> Array:
        """Langevin steps, in so many pairs."""
        levels = variance_exploding_levels(pairs, sigma_max=self.config.sigma_max)
        return predictor_corrector_sample(
            self.task.denoiser, levels, self.task.operator, y, start(levels, self.key, shape), key=self.key
        ).x  # fmt: skip

    def _levels(self, times: int, exploding: bool) -> NoiseLevels:
        return variance_exploding_levels(times, sigma_max=self.config.sigma_max) if exploding else variance_preserving_levels(times)


def products(consistency: AbstractConsistency) -> int:
    """With AᴴA, of one level: conjugate gradients take one more for their first residual."""
    return consistency.n_steps + 1 if isinstance(consistency, Krylov | Proximal) else 1


def _solve(operator: Any, y: Array, n_steps: int) -> Array:
    target = operator.adjoint(y)
    return conjugate_gradient(operator.normal, target, jnp.zeros_like(target), n_steps=n_steps, batch_axes=1).x


_least_squares = jax.jit(_solve, static_argnames="n_steps")
