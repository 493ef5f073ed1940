"""What each architecture of a space reaches when it is trained alone: the table that searches are judged by."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gradatim.lab import Session, host_generator
from gradatim.nets import MacroSupernet, SearchSpace

from .config import Search
from .networks import MACRO_KERNELS, MACRO_WIDTHS, Images, Parts, adam, batches, begun_alone, image_loss, make_nets, rest_of
from .scores import score

SEED = 0
"Of the tables."
DECIDES = ("dataset", "pool", "n_train", "n_test", "steps", "batch_size", "learning_rate", "table_seeds")
"Fields on which a table depends."
OF_THE_CELL = ("channels", "repeats", "hidden")
"And on these that of the cell space."
CHUNK = 500
"Test images at a time."


class Table(NamedTuple):
    """What every architecture is worth, by its number."""

    accuracies: np.ndarray
    "Of test images, percent, (architecture, seed)."
    costs: np.ndarray
    "Of its parameters, points, (architecture,)."

    @property
    def scores(self) -> np.ndarray:
        """Points, (architecture, seed)."""
        return score(self.accuracies.T, self.costs).T

    @property
    def means(self) -> np.ndarray:
        """Scores, over seeds."""
        return self.scores.mean(1)

    @property
    def regrets(self) -> np.ndarray:
        """Points below the best mean, which errs upwards: they are too large rather than too small."""
        return self.means.max() - self.means


class _State(eqx.Module):
    arrays: Any
    memory: Any


def path_of(space: str) -> Path:
    """Where the table of a space lies in the package."""
    return Path(__file__).with_name(f"{space}_table.json")


def decides(config: Search, space: str) -> dict[str, Any]:
    """What the table of a space depends on, by name."""
    fields = asdict(config)
    shared = {"space": space} | {name: fields[name] for name in DECIDES}
    if space == "cell":
        return shared | {name: fields[name] for name in OF_THE_CELL}
    sizes = {"widths": [list(one) for one in MACRO_WIDTHS], "kernels": [list(one) for one in MACRO_KERNELS]}
    return shared | sizes


def read_table(config: Search, space: str) -> np.ndarray | None:
    """Accuracies from the table of the package, (architecture, seed), None for other sizes than its own."""
    content = json.loads(path_of(space).read_text(encoding="utf-8"))
    return np.array(content["accuracies"]) if content["config"] == decides(config, space) else None


def train_table(config: Search, name: str, parts: Parts, session: Session, key: jax.Array) -> np.ndarray:
    """Trains every architecture alone: its own weights, those of all others masked out, so that one program does for all.

    First weights of the macro space are scaled to each one's own inputs; the cells normalise what they give.

    **Returns:** test accuracies, percent, (architecture, seed).
    """
    key_weights, key_rows = jax.random.split(key)
    rest, n_seeds = rest_of(config, name), config.table_seeds
    space: SearchSpace = rest.space
    n = space.n_architectures
    arrays = make_nets(config, name, jax.random.split(key_weights, n_seeds))
    random = host_generator(key_rows)
    data = Images(*(jnp.concatenate(pair) for pair in zip(parts.train, parts.validation, strict=True)))
    rows = np.stack([batches(random, len(data.labels), config.batch_size, config.steps) for _ in range(n_seeds)], axis=1)
    seeds = jnp.tile(jnp.arange(n_seeds), n)
    arrays = jax.tree.map(lambda leaf: jnp.tile(leaf, (n,) + (1,) * (leaf.ndim - 1)), arrays)
    positions = jnp.repeat(jnp.asarray(space.every()), n_seeds, axis=0)
    optimizer = adam(config.learning_rate, config.steps)

    def step(state: _State, i: Any, args: Any) -> _State:
        rest, data, rows, seeds, positions = args

        def one(given: Any) -> Any:
            arrays, memory, seed, positions = given
            chosen = rows[i, seed]
            batch = Images(data.images[chosen], data.labels[chosen])
            p = space.one_hot(positions)
            gradient = jax.grad(lambda arrays: image_loss(eqx.combine(arrays, rest), p, batch))(arrays)
            updates, memory = optimizer.update(gradient, memory)
            return jax.tree.map(jnp.add, arrays, updates), memory

        return _State(*jax.lax.map(one, (state.arrays, state.memory, seeds, positions)))

    @eqx.filter_jit
    def begin(arrays: Any, positions: Any) -> _State:
        def one(given: Any) -> _State:
            net = eqx.combine(given[0], rest)
            if isinstance(net, MacroSupernet):
                net = begun_alone(net, space.one_hot(given[1]))
            first = eqx.filter(net, eqx.is_array)
            return _State(first, optimizer.init(first))

        return jax.lax.map(one, (arrays, positions))

    args = (rest, data, jnp.asarray(rows), seeds, positions)
    loop = session.loop(step, begin(arrays, positions), steps=config.steps, args=args, label=f"each {name} architecture alone")

    def judged() -> Any:
        found = []
        for start in range(0, len(parts.test.labels), CHUNK):
            chunk = Images(*(part[start : start + CHUNK] for part in parts.test))
            found.append(np.asarray(_right(loop.state.arrays, rest, positions, space, chunk)))
        return np.concatenate(found, axis=1).mean(1)

    right = session.once(f"each {name} architecture alone, judged", judged)
    return 100 * np.asarray(right, np.float64).reshape(n, n_seeds)


@eqx.filter_jit
def _right(arrays: Any, rest: Any, positions: Any, space: SearchSpace, data: Images) -> Any:
    def one(given: Any) -> Any:
        arrays, positions = given
        logits = jax.vmap(eqx.combine(arrays, rest), (0, None))(data.images, space.one_hot(positions))
        return (logits.argmax(-1) == data.labels).astype(jnp.float32)

    return jax.lax.map(one, (arrays, positions))
