"""A generation of an evolution strategy beside evosax, and a step of MeZO beside inference and backpropagation, with its memory.

The generation (256 points, 1,000 dimensions, Adam behind it) is what random numbers cost: half of the population is mirrored, and each
hash of the generator gives two numbers. The network of the memory rows is deep and its layers hold a sort, which no compiler fuses with the
products around it, so that the activations of inference are seen by the compiler's own account.
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
from peers import generation

from gradatim.optim import evolution_strategy, mezo_step, random_directions
from gradatim.optim.zeroth_order.probes import draw_probe, probe_seed

DEPTH, WIDTH, BATCH = 16, 512, 256
MEMORY = "a step on 4.2 million parameters in 16 layers"
ROUND_OFF = 1e-5  # single precision; sums of 256 terms in another order


def contestant() -> tuple[Any, Any]:
    value_and_grad = evolution_strategy(generation.fitness, radius=generation.RADIUS, population=generation.POPULATION)
    optimizer: Any = optax.adam(generation.RATE)

    def one(state: Any, key: Any) -> Any:
        x, memory = state
        value, estimate = value_and_grad(x, key=key)
        updates, memory = optimizer.update(estimate, memory)
        return (optax.apply_updates(x, updates), memory), value

    def begin() -> Any:
        x = jnp.full(generation.DIMENSION, generation.START)
        return x, optimizer.init(x)

    return one, begin


def timed(benchmark: Any, step: Any, begin: Any, length: int) -> None:
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    held = [begin()]

    def prepare() -> Any:
        key = next(keys)
        return jax.block_until_ready((held[0], key if length == 1 else jax.random.split(key, length))), {}

    def run(state: Any, key: Any) -> None:
        held[0], _ = jax.block_until_ready(step(state, key))

    benchmark.pedantic(run, setup=prepare, rounds=generation.ROUNDS, warmup_rounds=2)


@pytest.mark.parametrize("peer", ["gradatim"])
@pytest.mark.benchmark(group=generation.CALLED)
def test_generation_called(benchmark: Any, peer: str) -> None:
    one, begin = contestant()
    timed(benchmark, jax.jit(one, donate_argnums=0), begin, 1)


@pytest.mark.parametrize("peer", ["gradatim"])
@pytest.mark.benchmark(group=generation.SCANNED)
def test_generations_in_a_scan(benchmark: Any, peer: str) -> None:
    one, begin = contestant()
    scan = jax.jit(lambda state, keys: jax.lax.scan(one, state, keys), donate_argnums=0)
    _, values = scan(begin(), jax.random.split(jax.random.key(0), 300))
    assert float(values[-1]) < 0.5 * float(values[0])
    benchmark.extra_info["fitness after 300 generations"] = float(values[-1])
    timed(benchmark, scan, begin, generation.LENGTH)


def test_agrees_with_evosax(tmp_path: Path) -> None:
    key, mean = jax.random.key(3), jnp.linspace(-1.0, 1.0, generation.DIMENSION)
    half = generation.POPULATION // 2
    z = jax.vmap(lambda k: draw_probe(probe_seed(key), mean, k))(jnp.arange(half))
    points = mean[None] + generation.RADIUS * jnp.concatenate([z, -z])
    np.savez(tmp_path / "population.npz", mean=mean, points=points, fitness=generation.fitness(points))
    script = Path(__file__).parent / "peers" / "evolution_zeroth_order.py"
    command = [python_of("evolution"), str(script), "--population", str(tmp_path / "population.npz")]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])["mean"]
    one, begin = contestant()
    (ours, _), _ = one((mean, begin()[1]), key)
    np.testing.assert_allclose(ours, theirs, atol=ROUND_OFF)


def net(params: Any, x: Any) -> Any:
    for weight in params:
        x = x @ weight
        x = jnp.sin(x) + 0.1 * jnp.sort(x, 1)
    return (x**2).mean()


def descend(value_and_grad: Any) -> Any:
    def step(params: Any, x: Any, key: Any) -> Any:
        value, gradient = value_and_grad(params, x, key)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), value

    return step


STEPS = {
    "inference": lambda params, x, key: (params, net(params, x)),
    "gradatim": lambda params, x, key: mezo_step(net, learning_rate=1e-3)(params, x, key=key)[:2],
    "gradatim, directions kept": descend(lambda params, x, key: random_directions(net, radius=1e-3)(params, x, key=key)),
    "backpropagation": descend(lambda params, x, key: jax.value_and_grad(net)(params, x)),
}


def peak(compiled: Any) -> int:
    memory = compiled.memory_analysis()
    parts = (memory.argument_size_in_bytes, memory.temp_size_in_bytes, memory.output_size_in_bytes)
    return sum(parts) - memory.alias_size_in_bytes


@pytest.mark.parametrize("peer", STEPS)
@pytest.mark.benchmark(group=MEMORY)
def test_memory(benchmark: Any, peer: str) -> None:
    keys = jax.random.split(jax.random.key(0), DEPTH + 1)
    params = [jax.random.normal(key, (WIDTH, WIDTH)) / WIDTH**0.5 for key in keys[1:]]
    x = jax.random.normal(keys[0], (BATCH, WIDTH))
    compiled = {
        name: jax.jit(STEPS[name], donate_argnums=0).lower(params, x, keys[0]).compile() for name in dict.fromkeys(("inference", peer))
    }
    least, own = peak(compiled["inference"]), peak(compiled[peer])
    benchmark.extra_info |= {"peak MiB": own / 2**20, "peak over inference": own / least}
    if peer == "gradatim":
        assert own <= 1.05 * least
    held: list[Any] = [jax.tree.map(jnp.copy, params)]

    def run() -> None:
        held[0], value = jax.block_until_ready(compiled[peer](held[0], x, keys[0]))
        assert np.isfinite(value)

    benchmark.pedantic(run, rounds=7, warmup_rounds=1)
