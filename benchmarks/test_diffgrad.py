"""One update of ten million parameters: diffGrad beside optax.adam, results compared first.

Floors by memory traffic, bytes a parameter: Adam 28 (p, m, v read and written, g read), diffGrad 36 (gₜ₋₁ read and written too).
`gradatim` hands over the gradient's buffer as the next gₜ₋₁, which needs no copy: JAX pairs donated inputs with
outputs of the same shape in their order, so the gradient must stand before the old gₜ₋₁ among the arguments. `gradatim, gradient kept`
is the same optimiser where the caller goes on using the gradient.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from environments import python_of

from gradatim.optim import ScaleByDiffgradState, diffgrad, scale_by_diffgrad

RATE = 1e-3
SHAPES = {"embedding": (4000, 1000), "hidden": (2000, 2000), "output": (1000, 2000)}
ROUND_OFF = 1e-6  # single precision, another order of products


def tree(seed: int) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(seed), len(SHAPES))
    return {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, SHAPES.items(), strict=True)}


@jax.jit
def fresh(gradients: Any) -> Any:
    return jax.tree.map(jnp.copy, gradients)


def ordinary(optimizer: Any, donated: tuple[int, ...]) -> tuple[Any, Any]:
    def step(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=donated), optimizer.init


def handed_over() -> tuple[Any, Any]:
    direction: Any = scale_by_diffgrad()
    rate = optax.scale_by_learning_rate(RATE)

    def step(params: Any, moments: Any, gradients: Any, previous: Any) -> Any:
        updates, state = direction.update(gradients, ScaleByDiffgradState(*moments, previous=previous))
        updates, _ = rate.update(updates, rate.init(params))
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1, 2, 3))

    def call(params: Any, state: Any, gradients: Any) -> Any:
        return compiled(params, (state.count, state.mu, state.nu), gradients, state.previous)

    return call, direction.init


PEERS = {
    "optax.adam": lambda: ordinary(optax.adam(RATE), (0, 1)),
    "gradatim, gradient kept": lambda: ordinary(diffgrad(RATE), (0, 1)),
    "gradatim": handed_over,
}


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
@pytest.mark.parametrize("peer", PEERS, ids=PEERS)
@pytest.mark.benchmark(group="diffGrad, update of 10 million parameters")
def test_update(benchmark: Any, peer: str) -> None:
    gradients = tree(1)
    step, init = PEERS[peer]()
    params, state = step(tree(0), init(tree(0)), fresh(gradients))
    adam: Any = optax.adam(RATE).update(gradients, optax.adam(RATE).init(gradients))[0]
    for name, start in tree(0).items():
        friction = 1.0 if peer == "optax.adam" else jax.nn.sigmoid(abs(gradients[name]))
        np.testing.assert_allclose(params[name], start + friction * adam[name], rtol=ROUND_OFF, atol=ROUND_OFF)
    held = [params, state]

    def prepare() -> tuple[tuple[Any, Any, Any], dict[str, Any]]:
        return jax.block_until_ready((*held, fresh(gradients))), {}

    def update(*arguments: Any) -> None:
        held[:] = jax.block_until_ready(step(*arguments))

    benchmark.pedantic(update, setup=prepare, rounds=30, warmup_rounds=3)


def test_agrees_with_torch_optimizer(tmp_path: Path) -> None:
    gradients = np.random.default_rng(0).normal(size=(50, 200)) * np.geomspace(1e-3, 1e2, 200)
    np.save(tmp_path / "gradients.npy", gradients)
    script = Path(__file__).parent / "peers" / "torch_diffgrad.py"
    command = [python_of("torch"), str(script), "--gradients", str(tmp_path / "gradients.npy")]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["parameters"]
    with jax.enable_x64(True):
        optimizer: Any = diffgrad(RATE, eps=1e-16)
        params = jnp.zeros(gradients.shape[1])
        state = optimizer.init(params)
        for gradient, expected in zip(jnp.asarray(gradients), theirs, strict=True):
            updates, state = optimizer.update(gradient, state)
            params = params + updates
            np.testing.assert_allclose(params, expected, rtol=1e-10, atol=1e-14)
