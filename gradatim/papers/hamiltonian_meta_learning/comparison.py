"""The experiment: pilots, training, adaptation to the system held out, and all that is measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Key

from gradatim.lab import Session
from gradatim.sciml import DrawnTasks, FieldPoints, Tasks, TrajectoryTasks

from .adapting import LEAST_CHANGE, adapt, adapt_pairs, capped, choose_rates, draw_tasks, judge_paths, last_errors, predict
from .arms import VARIANTS, Learner, Runs, make_runs
from .config import Config
from .training import Trainer
from .trajectories import NAMES, Trajectories, damped_floor, make_trajectories, special_tasks

ARMS = ("meta", "pooled", "random")
"The network meta-trained with mish and log cosh, and the two that it is compared with."
OTHERS = ("tanh", "softplus", "squares")
"Meta-trained with something else."


class Batch(NamedTuple):
    """Three arms, all systems held out, all columns: seeds, or, in a pilot, the rates tried for each seed."""

    learners: Learner
    shape: tuple[int, int, int]


class Experiment:
    """One run of it; parts in their order."""

    def __init__(self, config: Config, session: Session) -> None:
        self.config, self.session = config, session
        key_data, key_runs, key_tuning, key_test, key_special = jax.random.split(session.key, 5)
        # As many again for the pilots, one a seed.
        n_sets, n_systems = 2 * config.seeds, len(NAMES)
        self.keys_runs = jax.random.split(key_runs, n_sets)
        self.keys_tuning, self.keys_test = jax.random.split(key_tuning, n_sets), jax.random.split(key_test, n_sets)
        self.keys_special = jax.random.split(key_special, config.seeds)
        self.trajectories: Trajectories = make_trajectories(config, session, jax.random.split(key_data, n_sets))
        self.trainer = Trainer(config, session, TrajectoryTasks(self.trajectories.training, config.points, config.points))
        test = FieldPoints(*(part[:, :, : config.times] for part in self.trajectories.test))
        self.sampler = TrajectoryTasks(test, config.points, config.points)
        self.n_systems = n_systems

    def run(self) -> dict[str, xr.Dataset]:
        """Everything, as named data."""
        rates = self.pilot()
        main, others, training = self.train(rates)
        main_rates, other_rates = (self.tune(batch, arms) for batch, arms in ((main, ARMS), (others, OTHERS)))
        drawn = self._test_tasks()
        held_out, adapted = self.adapt_main(main, main_rates, drawn.tasks)
        trees = {"training": training, "adaptation": held_out}
        trees["few_points"] = self.adapt_to_fewer(main, main_rates, drawn.tasks)
        trees["variants"] = self.adapt_others(others, other_rates, drawn.tasks)
        trees["special"] = self.adapt_special(main, main_rates)
        trees["paths"] = self.roll_out(main, drawn, adapted)
        return trees

    def pilot(self) -> dict[str, np.ndarray]:
        """Adam's rate, then that of the inner steps, along a first axis, for each arm, system held out and seed.

        Each seed chooses for itself, by short trainings on data of its own pilot, so that the scatter of the choice is in the intervals:
        by the error after the inner steps on new tasks of the systems trained on. While the first rate is chosen, the second is the
        middle one of its grid.
        """
        config, n_seeds = self.config, self.config.seeds
        middle = config.inner_rates[len(config.inner_rates) // 2]
        chosen = {arm: np.full((2, self.n_systems, n_seeds), middle) for arm in ("meta", *OTHERS, "pooled")}
        for row, (what, grid) in enumerate((("Adam's rate", config.outer_rates), ("rate of the inner steps", config.inner_rates))):
            tried = {arm: np.repeat(rates, len(grid), axis=2) for arm, rates in chosen.items()}
            for rates in tried.values():
                rates[row] = np.tile(grid, n_seeds)
            sets = n_seeds + np.repeat(np.arange(n_seeds), len(grid))
            main, others, _ = self._train_all(sets, tried, config.pilot_steps, f"pilot, {what}")
            tasks = self._tuning_tasks(sets)
            for batch, arms in ((main, ARMS), (others, OTHERS)):
                # The other two arms have no inner steps.
                inner = np.concatenate([tried[arm][1] if arm in ("meta", *OTHERS) else np.zeros(batch.shape[1:]) for arm in arms])
                error = last_errors(self.session, batch.learners, tasks, inner.ravel(), config.inner_steps, f"{what} of {', '.join(arms)}")
                best = error.reshape(len(arms), self.n_systems, n_seeds, len(grid)).argmin(axis=-1)
                for arm, choice in zip(arms, best, strict=True):
                    if arm in chosen:
                        chosen[arm][row] = np.asarray(grid)[choice]
            # The pooled network has no inner steps.
            self._note_rates(what, {arm: rates[row] for arm, rates in chosen.items() if row == 0 or arm != "pooled"}, grid)
        return chosen

    def train(self, rates: dict[str, np.ndarray]) -> tuple[Batch, Batch, xr.Dataset]:
        """The main runs at the rates chosen, Adam's and the inner steps' along a first axis."""
        return self._train_all(np.arange(self.config.seeds), rates, self.config.outer_steps, "training")

    def tune(self, batch: Batch, arms: tuple[str, ...]) -> np.ndarray:
        """The rate of adaptation, for each arm, system held out and seed, on the systems that were trained on."""
        rates = choose_rates(
            self.session,
            batch.learners,
            self._tuning_tasks(np.arange(self.config.seeds)),
            self.config.adapt_rates,
            batch.shape,
            n_steps=self.config.adapt_steps,
            label=f"rate of adaptation of {', '.join(arms)}",
        )
        self._note_rates("rate of adaptation", dict(zip(arms, rates, strict=True)), self.config.adapt_rates)
        return rates.ravel()

    def adapt_main(self, batch: Batch, rates: np.ndarray, tasks: Tasks) -> tuple[xr.Dataset, Learner]:
        """The system held out, from all points; and the learners adapted to it, which are too many to be kept with the record."""
        error, change, adapted = adapt(batch.learners, tasks, jnp.asarray(rates, jnp.float32), self.config.adapt_steps)
        error, change = self.session.once("adaptation", lambda: [capped(error), change])
        dims = ("arm", "system", "seed", "task", "adapt_step")
        shape = (*batch.shape, self.config.test_tasks, -1)
        # All at the rate that suits the first arm: how much of the comparison is the rate's.
        same = jnp.asarray(np.tile(rates.reshape(batch.shape)[:1], (len(ARMS), 1, 1)).ravel(), jnp.float32)
        at_one = self.session.once("adaptation at one rate", _ends, batch.learners, tasks, same, self.config.adapt_steps)
        error_at_one, change_at_one = (np.asarray(part).reshape(shape[:-1]) for part in at_one)
        data = {
            "error": (dims, np.asarray(error).reshape(shape), {"units": "1"}),
            "error_at_same_rate": (dims[:-1], error_at_one, {"units": "1"}),
            "change_at_same_rate": (dims[:-1], _readable(change_at_one), {"units": "1"}),
            "change": (dims, _readable(np.asarray(change)).reshape(shape), {"units": "1"}),
            "rate": (dims[:3], rates.reshape(batch.shape), {"units": "1"}),
        }
        return xr.Dataset(data, {"arm": list(ARMS), "system": list(NAMES)}), adapted

    def adapt_to_fewer(self, batch: Batch, rates: np.ndarray, tasks: Tasks) -> xr.Dataset:
        """From some of the points, each as often as makes up for the others."""
        config, rows = self.config, []
        support = jax.device_get(tasks.support)
        for n_points in config.fewer_points:
            share = config.points // n_points
            fewer = jax.tree.map(lambda x, m=share: jnp.asarray(np.repeat(x[:, :, m // 2 :: m], m, axis=2)), support)
            rows.append(self._last(f"adaptation to {n_points} points", batch, Tasks(fewer, tasks.query), rates))
        data = {"error": (("points", "arm", "system", "seed", "task"), np.stack(rows), {"units": "1"})}
        return xr.Dataset(data, {"points": list(config.fewer_points), "arm": list(ARMS), "system": list(NAMES)})

    def adapt_others(self, batch: Batch, rates: np.ndarray, tasks: Tasks) -> xr.Dataset:
        """The other activations, and the other loss, on the same tasks."""
        error = self._last("adaptation of variants", batch, tasks, rates)
        data = {
            "error": (("arm", "system", "seed", "task"), error, {"units": "1"}),
            "rate": (("arm", "system", "seed"), rates.reshape(batch.shape), {"units": "1"}),
        }
        return xr.Dataset(data, {"arm": list(OTHERS), "system": list(NAMES)})

    def adapt_special(self, batch: Batch, rates: np.ndarray) -> xr.Dataset:
        """A damped oscillator, and two bodies by a graph network, points and links drawn for each seed."""
        config = self.config
        _, keys = self._groups(np.arange(config.seeds), self.keys_special)
        damped, pairs, keys_links = special_tasks(config, keys)
        damped_error = self._last("adaptation to damping", batch, damped, rates)
        found = self.session.once(
            "adaptation to two bodies",
            lambda: capped(adapt_pairs(batch.learners, pairs, jnp.asarray(rates, jnp.float32), config.adapt_steps, keys_links)),
        )
        pair_error = np.asarray(found).reshape(*batch.shape, config.two_body_tasks, -1)
        data = {
            "damped_error": (("arm", "system", "seed", "task"), damped_error, {"units": "1"}),
            "damped_floor": ((), damped_floor(config.damping), {"units": "1"}),
            "two_body_error": (("arm", "system", "seed", "pair", "adapt_step"), pair_error, {"units": "1"}),
        }
        return xr.Dataset(data, {"arm": list(ARMS), "system": list(NAMES)})

    def roll_out(self, batch: Batch, drawn: DrawnTasks, adapted: Learner) -> xr.Dataset:
        """Other trajectories of the system held out, from their starts on."""
        config = self.config
        n_tasks, n_paths = min(config.rollout_tasks, config.test_tasks), config.rollouts
        rows = np.asarray(drawn.system).reshape(*batch.shape, -1)[0, ..., :n_tasks]
        own = np.asarray(drawn.trajectory).reshape(*batch.shape, -1)[0, ..., :n_tasks]
        which = (own[..., None] + 1 + np.arange(n_paths)) % config.test_trajectories
        true = np.asarray(self.trajectories.test.states)[rows[..., None], which]
        learners = jax.device_put(jax.tree.map(lambda x: x[:, :n_tasks], jax.device_get(adapted)))
        starts = jnp.asarray(np.tile(true[None, ..., 0, :], (len(ARMS), 1, 1, 1, 1, 1)).reshape(-1, n_tasks, n_paths, 4))
        paths = self.session.once("trajectories of the adapted", predict, learners, starts, config.times)
        paths = np.asarray(paths).reshape(*batch.shape, n_tasks, n_paths, config.times + 1, 4)
        judged = judge_paths(jnp.asarray(paths), jnp.asarray(true))
        dims = ("arm", "system", "seed", "task", "path")
        data: dict[str, Any] = {
            name: (dims, np.asarray(getattr(judged, name)), {"units": unit})
            for name, unit in (("state_error", "1"), ("energy_error", "1"), ("surplus", "unit lengths"))
        }
        for name in ("state_curve", "energy_curve"):
            data[name] = (("arm", "system", "later"), np.asarray(getattr(judged, name)), {"units": "1"})
        shown = np.concatenate([true[None, :, 0, 0, 0], paths[:, :, 0, 0, 0]])
        data["shown"] = (("what", "system", "time", "component"), shown, {"units": "unit lengths and momenta"})
        time = np.linspace(0, 10, config.times + 1)
        coordinates = {"arm": list(ARMS), "system": list(NAMES), "what": ["true", *ARMS], "time": time, "later": time[1:]}
        return xr.Dataset(data, coordinates)

    def _train_all(self, sets: np.ndarray, rates: Mapping[str, np.ndarray], n_steps: int, label: str) -> tuple[Batch, Batch, xr.Dataset]:
        # Runs of four variants with inner steps, and of one without; untrained ones are where both start.
        runs = make_runs(self.config, self.keys_runs, tuple(VARIANTS), sets, self.n_systems)
        n = self.n_systems * len(sets)
        plain = Runs(jax.device_put(jax.tree.map(lambda x: x[:n], jax.device_get(runs.learners))), runs.others[:n], runs.keys[:n])
        of_variants = np.concatenate([rates[arm].reshape(2, -1) for arm in ("meta", *OTHERS)], axis=1)
        meta = self.trainer.train("meta", runs, of_variants, n_steps=n_steps, label=f"{label}, meta")
        pooled = self.trainer.train("pooled", plain, rates["pooled"].reshape(2, -1), n_steps=n_steps, label=f"{label}, pooled")
        # In numpy, where nothing is compiled.
        ours, theirs, untrained = jax.device_get((meta.learners, pooled.learners, plain.learners))
        main = jax.device_put(jax.tree.map(lambda a, b, c: np.concatenate([a[:n], b, c]), ours, theirs, untrained))
        others = jax.device_put(jax.tree.map(lambda a: a[n:], ours))
        shape = (3, self.n_systems, len(sets))
        loss = np.concatenate([meta.loss, pooled.loss], axis=1).reshape(len(meta.loss), -1, *shape[1:])
        clipped = np.concatenate([meta.clipped, pooled.clipped])
        lost = int((~np.isfinite(loss[-1])).sum())
        self.session.note(f"{label}: runs whose loss did not stay finite: {lost} of {loss[-1].size}")
        self.session.note(f"{label}: outer gradients clipped at {clipped.mean():.2%} of steps, at most {clipped.max():.2%} of a run")
        data = xr.Dataset(
            {"loss": (("outer_step", "arm", "system", "seed"), loss, {"units": "1"})},
            {"outer_step": meta.step, "arm": ["meta", *OTHERS, "pooled"], "system": list(NAMES)},
        )
        return Batch(main, shape), Batch(others, shape), data

    def _tuning_tasks(self, sets: np.ndarray) -> Tasks:
        rows, keys = self._groups(sets, self.keys_tuning)
        others = np.array([[row - row % self.n_systems + i for i in range(self.n_systems) if i != row % self.n_systems] for row in rows])
        return draw_tasks(self.sampler, keys, jnp.asarray(others), self.config.tuning_tasks).tasks

    def _test_tasks(self) -> DrawnTasks:
        rows, keys = self._groups(np.arange(self.config.seeds), self.keys_test)
        return draw_tasks(self.sampler, keys, jnp.asarray(rows)[:, None], self.config.test_tasks)

    def _groups(self, sets: np.ndarray, keys: Key[Array, " sets"]) -> tuple[np.ndarray, Key[Array, " groups"]]:
        """The row of each group's held-out system, and a key that all arms share."""
        _, held_out, column = (index.ravel() for index in np.indices((3, self.n_systems, len(sets))))
        return self.n_systems * sets[column] + held_out, keys[sets[column]]

    def _last(self, label: str, batch: Batch, tasks: Tasks, rates: np.ndarray) -> np.ndarray:
        def last() -> Any:
            outcome = adapt(batch.learners, tasks, jnp.asarray(rates, jnp.float32), self.config.adapt_steps)
            return capped(outcome.error[..., -1])

        return np.asarray(self.session.once(label, last)).reshape(*batch.shape, -1)

    def _note_rates(self, what: str, chosen: dict[str, np.ndarray], grid: tuple[float, ...]) -> None:
        """Of each arm, by system held out, the least and the largest rate of any seed."""
        edge = [f"{arm} {share:.0%}" for arm, rates in chosen.items() if (share := np.isin(rates, (grid[0], grid[-1])).mean())]
        where = f"; on the edge of the grid: {', '.join(edge)}" if edge else ""
        rates = {arm: [f"{row.min():.3g} to {row.max():.3g}" for row in rows] for arm, rows in chosen.items()}
        self.session.note(f"{what}, of {grid}, by system held out ({', '.join(NAMES)}): {rates}{where}")


def _ends(learners: Learner, tasks: Tasks, rates: Any, n_steps: int) -> list[Array]:
    outcome = adapt(learners, tasks, rates, n_steps)
    return [capped(outcome.error[..., -1]), outcome.change[..., -1]]


def _readable(change: np.ndarray) -> np.ndarray:
    """A layer that no longer varies has changed wholly; changes below the least are not told apart."""
    return np.maximum(np.nan_to_num(change, nan=1.0), LEAST_CHANGE)
