"""Width scaling: AdamW by class beside plain AdamW, the largest singular value beside full decompositions, labels beside mup's.

AdamW by class does the same work as `optax.adamw` on the same tree (less where there is no decay), so the ratio to beat is 1. A warm
power iteration costs two products with the matrix each time.
"""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from environments import python_of

from gradatim.nets import label_by_growth
from gradatim.numerics import top_singular_value
from gradatim.optim import WidthScaling, width_adamw

RATE, DECAY = 1e-3, 0.1
SHAPES = {"embedding": (4000, 1000), "hidden": (2000, 2000), "output": (1000, 2000)}
LABELS = {"embedding": "vector", "hidden": "matrix", "output": "output"}
SCALING = WidthScaling(500, 1000)
ROUND_OFF = 1e-6  # single precision, another order of products


def tree(seed: int) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(seed), len(SHAPES))
    return {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, SHAPES.items(), strict=True)}


UPDATES: dict[str, Any] = {
    "optax.adamw, one class": lambda: optax.adamw(RATE, b2=0.95, weight_decay=DECAY),
    "gradatim": lambda: width_adamw(SCALING, RATE, DECAY, LABELS),
}


@pytest.mark.parametrize("peer", UPDATES, ids=UPDATES)
@pytest.mark.benchmark(group="width AdamW, update of 10 million parameters")
def test_update(benchmark: Any, peer: str) -> None:
    optimizer = UPDATES[peer]()
    step = jax.jit(lambda p, s, g: _apply(optimizer, p, s, g), donate_argnums=(0, 1))
    gradients = tree(1)
    params, state = step(tree(0), optimizer.init(tree(0)), gradients)
    if peer == "gradatim":
        for name, start in tree(0).items():
            rate, decay = SCALING.scale(RATE, DECAY)[LABELS[name]]
            alone: Any = optax.adamw(rate, b2=0.95, weight_decay=decay)
            expected = start + alone.update(gradients[name], alone.init(start), start)[0]
            np.testing.assert_allclose(params[name], expected, rtol=ROUND_OFF, atol=ROUND_OFF)
    held = [params, state]

    def update() -> None:
        held[:] = jax.block_until_ready(step(*held, gradients))

    benchmark.pedantic(update, rounds=30, warmup_rounds=3)


def _apply(optimizer: Any, params: Any, state: Any, gradients: Any) -> Any:
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def _blocked(fn: Any, *args: Any) -> np.ndarray:
    first, *_ = jax.tree.leaves(jax.block_until_ready(fn(*args)))
    return first


def _power(iterations: int) -> Any:
    return jax.jit(lambda w, v0: top_singular_value(w, iterations=iterations, v0=v0))


TOPS = {"jax svdvals": None, "scipy svds": None, "gradatim, cold": 300, "gradatim": 5}


@pytest.mark.parametrize("peer", TOPS, ids=TOPS)
@pytest.mark.parametrize("n", [512, 1024])
def test_largest_singular_value(benchmark: Any, peer: str, n: int) -> None:
    benchmark.param, benchmark.group = peer, f"largest singular value, {n} x {n}"
    w = jax.random.normal(jax.random.key(0), (n, n)) / n**0.5
    exact = float(np.linalg.svd(w, compute_uv=False)[0])
    if peer == "scipy svds":
        from scipy.sparse import linalg

        svds: Any = linalg.svds

        v0 = np.random.default_rng(0).normal(size=n).astype(np.float32)
        call: Any = functools.partial(svds, np.asarray(w), k=1, v0=v0, return_singular_vectors=False, tol=1e-3)
    elif peer == "jax svdvals":
        call = functools.partial(_blocked, jax.jit(jnp.linalg.svdvals), w)
    else:
        # Warm: from the vector of a matrix one step of training earlier, here one that differs by 1 %.
        before = w + 0.01 * jax.random.normal(jax.random.key(1), (n, n)) / n**0.5
        v0 = _power(500)(before, jnp.ones(n))[1] if peer == "gradatim" else jax.random.normal(jax.random.key(2), (n,))
        call = functools.partial(_blocked, _power(TOPS[peer]), w, v0)
    value = float(np.ravel(call())[0])
    assert abs(value / exact - 1) < 5e-3, value
    benchmark.extra_info["relative_error"] = value / exact - 1
    benchmark.pedantic(call, rounds=10, warmup_rounds=2)


class Attention(eqx.Module):
    """A block of the kind that mup's own examples have, with the same parameter names as the torch peer."""

    embedding: eqx.nn.Embedding
    q: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    readout: eqx.nn.Linear

    def __init__(self, width: int) -> None:
        key = jax.random.key(0)
        self.embedding, self.norm = eqx.nn.Embedding(11, width, key=key), eqx.nn.LayerNorm(width)
        self.q, self.up = eqx.nn.Linear(width, width, key=key), eqx.nn.Linear(width, 4 * width, key=key)
        self.down, self.readout = eqx.nn.Linear(4 * width, width, key=key), eqx.nn.Linear(width, 11, key=key)


def test_labels_agree_with_mup() -> None:
    script = Path(__file__).parent / "peers" / "torch_mup.py"
    theirs = json.loads(subprocess.run([python_of("torch"), str(script)], check=True, capture_output=True, text=True).stdout)
    labels = label_by_growth(Attention(16), Attention(32))
    ours = {jax.tree_util.keystr(path, simple=True, separator="."): label for path, label in jax.tree_util.tree_leaves_with_path(labels)}
    assert ours.keys() == theirs.keys()
    for name, label in ours.items():
        assert (label == "matrix") == (theirs[name]["infinite_dimensions"] == 2), name
        assert (label == "output") == theirs[name]["is_output"], name
