"""Newton–Schulz, and a whole step of Muon, beside optax.contrib.muon: results compared first.

The limit is the machine's best rate of matrix products, XLA's or NumPy's, measured in the same process; each row says which share of it
the products of its Newton–Schulz reach. torch.optim.Muon is in peers/torch_muon.py.
"""

from __future__ import annotations

import functools
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from environments import python_of
from optax.contrib._muon import orthogonalize_via_newton_schulz

from gradatim.numerics import NEWTON_SCHULZ, polar_factor
from gradatim.optim import muon

SIZES = (256, 512, 1024)
STEPS = 5
RATE, DECAY = 0.02, 0.1
ROUND_OFF = 1e-4  # fifteen products of such matrices, summed in another order


def transformer(width: int = 256, depth: int = 4) -> dict[str, tuple[int, ...]]:
    """Shapes of the matrices of a small decoder, its embedding and norms."""
    shapes: dict[str, tuple[int, ...]] = {"embedding": (1, 96, width)}
    for i in range(depth):
        shapes |= {f"{i}.{name}": (width, width) for name in ("query", "key", "value", "out")}
        shapes |= {f"{i}.up": (width, 4 * width), f"{i}.down": (4 * width, width), f"{i}.norm": (width,)}
    return shapes


TREES: dict[str, dict[str, tuple[int, ...]]] = {f"{n} × {n}": {"weight": (n, n)} for n in SIZES} | {"4 layers of width 256": transformer()}


def tree(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {name: jax.random.normal(key, shape) / 10 for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


def operations(shapes: dict[str, tuple[int, ...]]) -> float:
    """Of Newton–Schulz: X Xᵀ, A A and B X for each step, a multiplication and an addition each."""
    pairs = [sorted(shape) for shape in shapes.values() if len(shape) == 2]
    return float(sum(STEPS * 2 * (2 * m * m * n + m**3) for m, n in pairs))


@functools.cache
def peak() -> float:
    """Operations a second of the best matrix product here: XLA's or NumPy's, at three sizes."""
    best = 0.0
    product = jax.jit(jnp.matmul)
    for n in SIZES:
        x = np.asarray(jax.random.normal(jax.random.key(n), (n, n)))
        on_device = jnp.asarray(x)
        rivals: tuple[Callable[[], Any], ...] = (lambda x=x: x @ x, lambda y=on_device: jax.block_until_ready(product(y, y)))
        for multiply in rivals:
            multiply()
            for _ in range(20):
                start = time.perf_counter()
                multiply()
                best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


FACTORS: dict[str, Callable[[Any], Any]] = {
    "gradatim": lambda x: polar_factor(x, steps=STEPS),
    "optax": lambda x: orthogonalize_via_newton_schulz(x, jnp.array(NEWTON_SCHULZ["jordan"]), STEPS),
}
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "gradatim": lambda: muon(RATE, weight_decay=DECAY),
    "optax.contrib.muon": lambda: optax.contrib.muon(RATE, weight_decay=DECAY),
}


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("peer", FACTORS)
def test_newton_schulz(benchmark: Any, peer: str, n: int) -> None:
    benchmark.param, benchmark.group = peer, f"Newton–Schulz, {n} × {n}"
    x = jax.random.normal(jax.random.key(n), (n, n))
    factor = jax.jit(FACTORS[peer]).lower(x).compile()
    np.testing.assert_allclose(factor(x), FACTORS["optax"](x), atol=ROUND_OFF)
    benchmark.pedantic(lambda: jax.block_until_ready(factor(x)), rounds=30, warmup_rounds=3)
    rate = operations({"x": (n, n)}) / benchmark.stats["median"]
    benchmark.extra_info |= {"share of matmul peak": round(rate / peak(), 3), "peak, Gflop/s": round(peak() / 1e9, 1)}


@pytest.mark.parametrize("work", TREES)
@pytest.mark.parametrize("peer", OPTIMIZERS)
def test_step(benchmark: Any, peer: str, work: str) -> None:
    benchmark.param, benchmark.group = peer, f"Muon step, {work}"
    shapes = TREES[work]
    gradients = tree(shapes, 1)

    def compiled(peer: str) -> tuple[Any, Any]:
        optimizer = OPTIMIZERS[peer]()

        def step(params: Any, state: Any, gradients: Any) -> Any:
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        return jax.jit(step, donate_argnums=(0, 1)), optimizer.init

    ends = {}
    for name in {peer, "optax.contrib.muon"}:
        step, init = compiled(name)
        ends[name] = step(tree(shapes, 0), init(tree(shapes, 0)), gradients)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=ROUND_OFF), ends[peer], ends["optax.contrib.muon"])
    step, init = compiled(peer)
    held = [tree(shapes, 0), init(tree(shapes, 0))]

    def update() -> None:
        held[:] = jax.block_until_ready(step(*held, gradients))

    benchmark.pedantic(update, rounds=30, warmup_rounds=3)
    rate = operations(shapes) / benchmark.stats["median"]
    benchmark.extra_info |= {"share of matmul peak": round(rate / peak(), 3)}


@pytest.mark.parametrize("shape", [(48, 48), (32, 64), (64, 32)])
def test_first_step_agrees_with_torch(shape: tuple[int, int], tmp_path: Path) -> None:
    """Weights are (out, in) there, so that the shape factor shows where there are more outputs than inputs."""
    start, gradient = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32) / 10
    np.save(tmp_path / "matrices.npy", np.stack([start, gradient]))
    script = Path(__file__).parent / "peers" / "torch_muon.py"
    command = [python_of("torch"), str(script), "--matrices", str(tmp_path / "matrices.npy")]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    optimizer: Any = muon(RATE, weight_decay=DECAY, muon_weight_dimension_numbers=optax.contrib.MuonDimensionNumbers(1, 0))
    weight = jnp.asarray(start)
    ours, _ = optimizer.update(jnp.asarray(gradient), optimizer.init(weight), weight)
    np.testing.assert_allclose(ours, theirs["torch, float32"], atol=ROUND_OFF * RATE)
    # Theirs takes its products in bfloat16.
    one, other = np.ravel(ours), np.ravel(theirs["torch.optim.Muon"])
    assert one @ other > 0.999 * np.linalg.norm(one) * np.linalg.norm(other)
