"""One task with all of its networks: what every way finds, and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.lab import Session
from gradatim.numerics import psnr, ssim
from gradatim.transport import AbstractConsistency, Denoiser, RangeNullSpace

from .arms import INNER, Arms, products
from .config import Config
from .tasks import Task

RANGE = 2.0
"Of the values an image may have: the same for all."


@jax.jit
def quality(x: Array, truth: Array) -> tuple[Array, Array]:
    """Peak signal-to-noise ratio and structural similarity of each image."""
    return psnr(x, truth, data_range=RANGE), ssim(x, truth, data_range=RANGE)


class Bench:
    """A task, and all that is found, network after network; each result is kept for a run that is resumed.

    **Arguments:** `config`; `tasks`: the task of each network; `session`; `key`: of start and fresh noise.
    """

    def __init__(self, config: Config, tasks: Sequence[Task], session: Session, key: jax.Array) -> None:
        self.config, self.tasks, self.session = config, tasks, session
        self.name = tasks[0].name
        self.arms = [Arms(config, task, jax.random.fold_in(key, i)) for i, task in enumerate(tasks)]
        self.truth: Float[np.ndarray, "n side side"] = np.concatenate([task.truth for task in tasks])
        self.found: dict[str, np.ndarray] = {}
        self.misfits: dict[str, np.ndarray] = {}
        self.work: dict[str, tuple[int, int]] = {}
        "Calls of the network (by back-propagation differentiated) and products with AᴴA, of an image."
        self.chosen: dict[str, str] = {}
        self.tuning: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def data(self) -> list[Array]:
        """What is measured, for each network."""
        return [task.y for task in self.tasks]

    @property
    def fine(self) -> list[Array]:
        """The same on a grid twice as fine."""
        return [task.y_fine for task in self.tasks if task.y_fine is not None]

    def scores(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Ratio and similarity of everything found, over `(set, image)`."""
        rows = {name: quality(jnp.asarray(x), jnp.asarray(self.truth)) for name, x in self.found.items()}
        return {name: (self.by_set(row[0]), self.by_set(row[1])) for name, row in rows.items()}

    def by_set(self, values: Any) -> np.ndarray:
        """A number of each image, over `(set, image)`."""
        return np.asarray(values).reshape(self.config.seeds, -1)

    def dds(
        self, name: str, consistencies: Sequence[AbstractConsistency], times: int, *, denoisers: Sequence[Denoiser] | None = None,
        data: Sequence[Array] | None = None, exploding: bool = False, noise_rule: Any = "split",
    ) -> None:  # fmt: skip
        """Our sampler, or the projection on the measurement, by the consistency for each network."""
        priors = denoisers or [task.denoiser for task in self.tasks]
        more = zip(consistencies, data or self.data, priors, strict=True)
        self._keep(name, lambda: [arms.sampled(one, y, times, prior, exploding, noise_rule) for arms, (one, y, prior) in self._with(more)])
        self.work[name] = times, times * products(consistencies[0])

    def dps(self, name: str, times: int, step_size: float, *, data: Sequence[Array] | None = None) -> None:
        """By back-propagation."""
        self._keep(name, lambda: [arms.propagated(y, times, _full(y, step_size)) for arms, y in self._with(data or self.data)])
        self.work[name] = times, times

    def across(self, name: str, rho: float, weight: float) -> None:
        """Our sampler with the penalty across slices."""
        volumes = np.zeros(self.config.seeds // len(self.tasks))
        self._keep(name, lambda: [arms.across(_full(volumes, rho), _full(volumes, weight), y) for arms, y in self._with(self.data)])
        self.work[name] = self.config.times, self.config.times * (INNER + 1)

    def least_squares(self, name: str, n_steps: int, *, data: Sequence[Array] | None = None) -> None:
        """Conjugate gradients from nothing at all."""
        self._keep_images(name, lambda: [arms.least_squares(y, n_steps) for arms, y in self._with(data or self.data)])
        self.work[name] = 0, n_steps + 1

    def variation(self, name: str, weight: float, *, data: Sequence[Array] | None = None) -> None:
        """Total variation."""
        self._keep_images(name, lambda: [arms.variation(y, _full(y, weight)) for arms, y in self._with(data or self.data)])
        self.work[name] = 0, self.config.tv_steps

    def projections(self, cutoff: float | np.ndarray) -> list[RangeNullSpace]:
        """On the measurement of each network, at one or several cutoffs; those of one scanner are one."""
        operators = {id(task.operator): task.operator for task in self.tasks}
        made = {name: RangeNullSpace.of(operator, cutoff=cutoff) for name, operator in operators.items()}
        return [made[id(task.operator)] for task in self.tasks]

    def once(self, name: str, run: Callable[[], Any]) -> Any:
        """What has been found is read in a run that is resumed."""
        return self.session.once(f"{self.name}, {name}", run)

    def _with(self, more: Any) -> Any:
        return zip(self.arms, more, strict=True)

    def _keep(self, name: str, run: Callable[[], list[tuple[np.ndarray, np.ndarray]]]) -> None:
        images, misfits = zip(*self.once(name, run), strict=True)
        self.found[name], self.misfits[name] = np.concatenate(images), np.concatenate(misfits, axis=1)

    def _keep_images(self, name: str, run: Callable[[], list[np.ndarray]]) -> None:
        self.found[name] = np.concatenate(self.once(name, run))


def _full(like: Any, value: float) -> Array:
    """A number for each of them: the same program whatever the number."""
    return jnp.full(len(like), value, jnp.float32)
