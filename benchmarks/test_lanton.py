"""One optimiser step on hidden matrices and on a small decoder: LANTON beside Muon, ours and optax's.

The limit is Muon's own step, nearly all of it Newton–Schulz: what LANTON adds is one dual norm for each layer, a second pass over the
gradients and their copy. `gradatim` is LANTON as it comes, measuring by quadrature in every step; the rows with Newton–Schulz
measure by one more iteration for each layer. Each call is ten steps, so that a measurement in every tenth is counted as what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from turns import Rival, in_turns

from gradatim.nets import DecoderLM, norm_groups
from gradatim.numerics import nuclear_norm, nuclear_norm_by_quadrature
from gradatim.optim import lanton, layer_noise, muon, muon_dimension_numbers, scion

RATE, STEPS = 0.02, 10


def matrices(n: int) -> tuple[Any, Any, Any]:
    shapes = {"query": (n, n), "key": (n, n), "up": (2 * n, n), "down": (n, 2 * n)}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    tree = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return tree, dict.fromkeys(shapes, "hidden"), None


def decoder() -> tuple[Any, Any, Any]:
    model = DecoderLM(84, 128, 4, 4, 64, key=jax.random.key(0))
    arrays = eqx.filter(model, eqx.is_inexact_array)
    return arrays, norm_groups(arrays), muon_dimension_numbers(arrays)


TREES = {"hidden matrices, 512": lambda: matrices(512), "decoder, width 128": decoder}
PEERS = {
    "gradatim": lambda groups, dimensions: lanton(RATE, groups),
    "gradatim, Newton–Schulz every tenth step": lambda groups, dimensions: lanton(RATE, groups, nuclear="newton_schulz", every=10),
    "gradatim, Newton–Schulz every step": lambda groups, dimensions: lanton(RATE, groups, nuclear="newton_schulz"),
    "gradatim scion": lambda groups, dimensions: scion(RATE, groups),
    "gradatim muon": lambda groups, dimensions: muon(RATE, **_dimensions(dimensions)),
    "optax.contrib.muon": lambda groups, dimensions: optax.contrib.muon(RATE, **_dimensions(dimensions)),
}


def _dimensions(dimensions: Any) -> dict[str, Any]:
    return {} if dimensions is None else {"muon_weight_dimension_numbers": lambda _: dimensions}


@pytest.mark.parametrize("tree", TREES, ids=TREES)
def test_step(benchmark: Any, tree: str) -> None:
    in_turns(benchmark, f"LANTON, ten steps on {tree}", {peer: Rival(ten_steps(tree, peer)) for peer in PEERS}, rounds=15)


def ten_steps(tree: str, peer: str) -> Callable[[], None]:
    gradients, groups, dimensions = TREES[tree]()
    optimizer: Any = PEERS[peer](groups, dimensions)

    def ten(params: Any, state: Any, gradients: Any) -> Any:
        def step(carry: Any, i: Any) -> Any:
            params, state = carry
            # Another gradient each time, so that there is something to measure and nothing is moved out of the loop.
            now = jax.tree.map(lambda g: (1 + 0.1 * jnp.sin(i.astype(g.dtype))) * g, gradients)
            updates, state = optimizer.update(now, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), jnp.arange(STEPS))[0]

    run = jax.jit(ten, donate_argnums=(0, 1))
    held = list(run(jax.tree.map(jnp.copy, gradients), optimizer.init(gradients), gradients))
    if isinstance(gradients, dict) and peer.startswith("gradatim") and "muon" not in peer and "scion" not in peer:
        # The noise is that of exact singular values, to the error of the estimate.
        exact = lanton(RATE, groups, nuclear="svd", every=STEPS)
        pair = jax.tree.map(lambda g: (1 + 0.1 * jnp.sin(1.0)) * g, gradients)
        noises = []
        for one in (exact, lanton(RATE, groups, nuclear="newton_schulz" if "Newton" in peer else "quadrature")):
            _, state = one.update(gradients, one.init(gradients))
            noises.append(layer_noise(one.update(pair, state)[1]))
        for name, truth in noises[0].items():
            np.testing.assert_allclose(noises[1][name], truth, rtol=0.2 if "Newton" in peer else 0.05)

    def steps() -> None:
        held[:] = jax.block_until_ready(run(*held, gradients))

    return steps


ESTIMATES = {
    "gradatim": lambda m: nuclear_norm_by_quadrature(m, key=jax.random.key(0)),
    "jax.numpy.linalg.svd": lambda m: jnp.linalg.svd(m, compute_uv=False).sum(),
    "gradatim, Newton–Schulz": nuclear_norm,
}


@pytest.mark.parametrize("estimate", ESTIMATES, ids=ESTIMATES)
@pytest.mark.benchmark(group="nuclear norm of a 512 × 512 matrix")
def test_nuclear_norm(benchmark: Any, estimate: str) -> None:
    benchmark.param = estimate
    matrix = jax.random.normal(jax.random.key(1), (512, 512))
    run = jax.jit(ESTIMATES[estimate])
    benchmark.extra_info["relative error"] = float(abs(run(matrix) / nuclear_norm(matrix, method="svd") - 1))
    assert benchmark.extra_info["relative error"] < 0.2
    benchmark.pedantic(lambda: jax.block_until_ready(run(matrix)), rounds=10, warmup_rounds=2)
