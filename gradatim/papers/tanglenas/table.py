"""What each architecture of the cell space reaches when it is trained alone: the table that searches are judged by."""

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
from gradatim.nets import SearchSpace

from .config import Search
from .networks import Images, Parts, adam, batches, image_loss, make_nets, rest_of

PATH = Path(__file__).with_name("cell_table.json")
SEED = 0
"Of the table."
DECIDES = (
    "space",
    "dataset",
    "pool",
    "n_train",
    "n_test",
    "channels",
    "repeats",
    "hidden",
    "steps",
    "batch_size",
    "learning_rate",
    "table_seeds",
)
"Fields on which the table depends."
CHUNK = 500
"Test images at a time."


class Table(NamedTuple):
    """Test accuracies, percent, of every architecture by its number."""

    accuracies: np.ndarray  # (architecture, seed)

    @property
    def means(self) -> np.ndarray:
        """Over seeds."""
        return self.accuracies.mean(1)

    @property
    def regrets(self) -> np.ndarray:
        """Points below the best mean."""
        return self.means.max() - self.means


class _State(eqx.Module):
    arrays: Any
    memory: Any


def decides(config: Search) -> dict[str, Any]:
    """What the table depends on, by name."""
    return {name: asdict(config)[name] for name in DECIDES}


def read_table(config: Search) -> Table | None:
    """The table of the package, None for other sizes than its own."""
    content = json.loads(PATH.read_text(encoding="utf-8"))
    return Table(np.array(content["accuracies"])) if content["config"] == decides(config) else None


def train_table(config: Search, space: SearchSpace, parts: Parts, session: Session, key: jax.Array) -> Table:
    """Trains every architecture alone: its own weights, those of all others masked out, so that one program does for all."""
    key_weights, key_rows = jax.random.split(key)
    n, rest = space.n_architectures, rest_of(config)
    arrays = make_nets(config, jax.random.split(key_weights, config.table_seeds))
    random = host_generator(key_rows)
    data = Images(*(jnp.concatenate(pair) for pair in zip(parts.train, parts.validation, strict=True)))
    rows = np.stack([batches(random, len(data.labels), config.batch_size, config.steps) for _ in range(config.table_seeds)], axis=1)
    seeds = jnp.tile(jnp.arange(config.table_seeds), n)
    arrays = jax.tree.map(lambda leaf: jnp.tile(leaf, (n,) + (1,) * (leaf.ndim - 1)), arrays)
    positions = jnp.repeat(jnp.asarray(space.every()), config.table_seeds, axis=0)
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

    memory = eqx.filter_jit(lambda arrays: jax.lax.map(optimizer.init, arrays))(arrays)
    args = (rest, data, jnp.asarray(rows), seeds, positions)
    loop = session.loop(step, _State(arrays, memory), steps=config.steps, args=args, label="each architecture alone")

    def judged() -> Any:
        found = []
        for start in range(0, len(parts.test.labels), CHUNK):
            chunk = Images(*(part[start : start + CHUNK] for part in parts.test))
            found.append(np.asarray(_right(loop.state.arrays, rest, positions, space, chunk)))
        return np.concatenate(found, axis=1).mean(1)

    right = session.once("each architecture alone, judged", judged)
    return Table(100 * np.asarray(right, np.float64).reshape(n, config.table_seeds))


@eqx.filter_jit
def _right(arrays: Any, rest: Any, positions: Any, space: SearchSpace, data: Images) -> Any:
    def one(given: Any) -> Any:
        arrays, positions = given
        logits = jax.vmap(eqx.combine(arrays, rest), (0, None))(data.images, space.one_hot(positions))
        return (logits.argmax(-1) == data.labels).astype(jnp.float32)

    return jax.lax.map(one, (arrays, positions))
