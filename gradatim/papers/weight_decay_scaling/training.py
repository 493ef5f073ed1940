"""Training on the chain: at several widths by three rules, at one width by several pairs, and on grids of rates and decays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Session
from gradatim.lab.sweeps import take_rows
from gradatim.optim import WidthScaling

from .chain import FRACTIONS, MATRICES, Task, Trainer, final_losses, make_chain, readings
from .config import Config
from .plateau import NAMES, Pair, late_means, matrix_pairs, note_waits

PAIRS = {"base": (1.0, 1.0), "η × 2, λ / 2": (2.0, 0.5), "η / 2, λ × 2": (0.5, 2.0), "η × 2, λ × 2": (2.0, 2.0)}
"Factors of rate and decay: a 16-fold range of η/λ, and one pair with the base's ratio."
TOGETHER = 5 * 2**18
"Weights of all runs that go together, about: the arrays of many more do not stay in the processor's cache."
_DIMS = {"spectrum": ("matrix", "fraction"), "top": ("matrix",), "rms": ("matrix",), "gain": ("matrix",)}


class Runs:
    """All training of one experiment: what has one width runs together, one lane for each setting and seed."""

    def __init__(self, config: Config, session: Session) -> None:
        self.config, self.session = config, session
        keys = jax.random.split(session.key, (config.n_seeds, 2))
        self.chains = jax.jit(jax.vmap(lambda key: make_chain(config.vocabulary, config.n_successors, key=key)))(keys[:, 0])
        self.entropy = np.asarray(jax.jit(jax.vmap(lambda chain: chain.entropy))(self.chains))
        self.keys = keys[:, 1]
        self._trainers: dict[int, Trainer] = {}

    @property
    def base_width(self) -> int:
        """The width at which the settings of the configuration hold."""
        return self.config.widths[0]

    def by_rule(self) -> xr.Dataset:
        """Readings on the plateau for every rule and width, `(rule, width, seed, …)`."""
        parts: list[xr.Dataset] = []
        for width in self.config.widths:
            pairs = matrix_pairs(self.base_width, width, self.config.rate, self.config.decay)
            parts.append(self._plateau(width, pairs, "rule", NAMES))
        return xr.concat(parts, xr.DataArray(list(self.config.widths), dims="width", name="width"))

    def by_pair(self) -> xr.Dataset:
        """Readings on the plateau at one width, for every pair of rate and decay, `(pair, seed, …)`."""
        width = self.config.pairs_width
        base = WidthScaling(self.base_width, width).scale(self.config.rate, self.config.decay)["matrix"]
        pairs = {name: (base.learning_rate * a, base.weight_decay * b) for name, (a, b) in PAIRS.items()}
        return self._plateau(width, pairs, "pair", {name: name for name in PAIRS})

    def by_grid(self) -> xr.Dataset:
        """Final losses over the grid, `(scaled, width, rate, decay, seed)`: by the rule, and with the proxy's values as they are.

        Those without the rule are the same runs at the proxy's width; elsewhere they have one seed, the others are NaN.
        """
        t, n_seeds = self.config.transfer, self.config.n_seeds
        grid = [(rate, decay) for rate in t.rates for decay in t.decays]
        losses = np.full((2, len(t.widths), len(grid), n_seeds), np.nan)
        for w, width in enumerate(t.widths):
            by_rule, as_they_are = (
                [WidthScaling(self.base_width, target).scale(*pair)["matrix"] for pair in grid] for target in (width, t.widths[0])
            )
            settings = [(pair, seed) for pair in by_rule for seed in range(n_seeds)]
            settings += [(pair, 0) for pair in as_they_are if w > 0]
            found = self._losses(width, settings, [self._vector] * len(settings), f"grid of rates and decays, width {width}")
            losses[1, w] = found[: len(grid) * n_seeds].reshape(len(grid), n_seeds)
            losses[0, w, :, 0] = found[len(grid) * n_seeds :] if w > 0 else losses[1, w, :, 0]
        shape = (2, len(t.widths), len(t.rates), len(t.decays), n_seeds)
        return xr.Dataset(
            {"loss": (("scaled", "width", "rate", "decay", "seed"), losses.reshape(shape))},
            {"scaled": [0, 1], "width": list(t.widths), "rate": list(t.rates), "decay": list(t.decays), "seed": np.arange(n_seeds)},
        )

    def by_vector_rate(self) -> xr.Dataset:
        """Final losses over the rates of vectors and read-out, `(width, vector_decay, vector_rate, seed)`, matrices by the root rule.

        Vectors do not decay, or by the decay that matrices have at the base width.
        """
        t, n_seeds = self.config.transfer, self.config.n_seeds
        decays = (0.0, self.config.decay)
        losses = []
        for width in t.vector_widths:
            pair = WidthScaling(self.base_width, width).scale(self.config.rate, self.config.decay)["matrix"]
            vectors = [
                WidthScaling(self.base_width, width, vector_decay=decay).scale(rate, self.config.decay)["vector"]
                for decay in decays
                for rate in t.vector_rates
                for _ in range(n_seeds)
            ]
            settings = [(pair, i % n_seeds) for i in range(len(vectors))]
            found = self._losses(width, settings, vectors, f"rates of vectors, width {width}")
            losses.append(found.reshape(len(decays), len(t.vector_rates), n_seeds))
        return xr.Dataset(
            {"loss": (("width", "vector_decay", "vector_rate", "seed"), np.stack(losses))},
            {
                "width": list(t.vector_widths), "vector_decay": list(decays), "vector_rate": list(t.vector_rates),
                "seed": np.arange(n_seeds),
            },
        )  # fmt: skip

    def _plateau(self, width: int, pairs: Mapping[str, Pair], dim: str, names: Mapping[str, str]) -> xr.Dataset:
        steps, n_seeds = self.config.steps, self.config.n_seeds
        note_waits(self.session, pairs, names, f"width {width}", steps)
        settings = [(pair, seed) for pair in pairs.values() for seed in range(n_seeds)]
        means = self._train(width, settings, [self._vector] * len(settings), steps, readings, f"{dim}s, width {width}")
        shaped: dict[str, Any] = {
            name: ((dim, "seed", *_DIMS.get(name, ())), values.reshape(len(pairs), n_seeds, *values.shape[1:]))
            for name, values in means.items()
        }
        shaped["root_ratio"] = ((dim,), np.array([(rate / decay) ** 0.5 for rate, decay in pairs.values()]))
        return xr.Dataset(shaped, {dim: list(pairs), "seed": np.arange(n_seeds), "matrix": list(MATRICES), "fraction": list(FRACTIONS)})

    @property
    def _vector(self) -> Pair:
        return self.config.vector_rate, 0.0

    def _losses(self, width: int, settings: Sequence[tuple[Pair, int]], vectors: Sequence[Pair], label: str) -> np.ndarray:
        return self._train(width, settings, vectors, self.config.transfer.steps, final_losses, label)["loss"]

    def _train(
        self, width: int, settings: Sequence[tuple[Pair, int]], vectors: Sequence[Pair], steps: int, watch: Any, label: str
    ) -> dict[str, np.ndarray]:
        c = self.config
        if width not in self._trainers:
            self._trainers[width] = Trainer(c.vocabulary, width, batch_size=c.batch_size, b1=c.b1, b2=c.b2)
        trainer = self._trainers[width]
        seeds = np.array([seed for _, seed in settings])
        pairs, others = (np.array([tuple(pair) for pair in of], np.float32) for of in ([pair for pair, _ in settings], vectors))
        parts: list[dict[str, np.ndarray]] = []
        n_blocks = -(-len(settings) // lanes(width, c.vocabulary))
        for k, block in enumerate(np.array_split(np.arange(len(settings)), n_blocks), 1):
            chains, keys = _rows((self.chains, self.keys), seeds[block])
            tasks = Task(chains, jnp.asarray(pairs[block]), jnp.asarray(others[block]), keys)
            name = label if n_blocks == 1 else f"{label}, {k} of {n_blocks}"
            parts.append(late_means(self.session, trainer.step, trainer.begin(tasks), steps=steps, args=tasks, watch=watch, label=name))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


_rows = jax.jit(take_rows)


def lanes(width: int, vocabulary: int) -> int:
    """How many runs of one width go together at most."""
    return max(TOGETHER // (2 * width * (width + vocabulary)), 1)


def best_points(losses: np.ndarray, *grids: Sequence[float]) -> np.ndarray:
    """Where each seed's loss is least, in cells of the grid: the best point, moved along each axis to the vertex of the parabola through
    its neighbours; on an edge the point itself.

    **Arguments:** `losses`: `(grid…, seed)`, with every grid geometric.
    """
    points = []
    for loss in np.moveaxis(np.where(np.isfinite(losses), losses, np.inf), -1, 0):
        best = np.unravel_index(loss.argmin(), loss.shape)
        point = []
        for axis, grid in enumerate(grids):
            line = loss[tuple(slice(None) if a == axis else i for a, i in enumerate(best))]
            k = best[axis]
            shift = 0.0
            if 0 < k < len(grid) - 1 and np.isfinite(line[k - 1 : k + 2]).all():
                left, middle, right = line[k - 1 : k + 2]
                shift = 0.5 * (left - right) / max(left - 2 * middle + right, np.finfo(float).tiny)
            point.append(k + shift)
        points.append(point)
    return np.asarray(points)
