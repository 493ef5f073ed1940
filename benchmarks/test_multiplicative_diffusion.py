"""A multiplicative loss with its gradient and a sign-preserving sampler, values compared first; PyTorch's in peers/."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from environments import python_of

from gradatim.transport import (
    GeometricBrownianMotion,
    VariancePreserving,
    dale_langevin_step,
    multiplicative_score_matching,
    multiplicative_step,
    sample_dale_langevin,
    sample_multiplicative,
    sample_reverse_diffusion,
)

PEERS_FOLDER = Path(__file__).parent / "peers"
_spec = importlib.util.spec_from_file_location("multiplicative", PEERS_FOLDER / "multiplicative.py")
assert _spec is not None
assert _spec.loader is not None
given = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(given)

AGREEMENT = 1e-6
ROUND_OFF = 2e-4  # single precision against itself, sums in another order
MOTION = GeometricBrownianMotion(given.SIGMA)


def perceptron(layers: Any, h: Any) -> Any:
    """One row, or many."""
    for i, (weight, bias) in enumerate(layers):
        h = h @ weight + bias.reshape((1,) * (h.ndim - 1) + bias.shape)
        h = jax.nn.silu(h) if i + 1 < len(layers) else h
    return h


def network(layers: Any, t: Any, x: Any) -> Any:
    """The score times the point, of one time and one point, or many."""
    return perceptron(layers, jnp.concatenate([jnp.log(x), t[..., None]], axis=-1))


def arrays(tree: Any) -> Any:
    """In JAX's own precision."""
    dtype = jnp.result_type(float)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def loss(layers: Any, batch: Any) -> Any:
    """Of the library."""
    return multiplicative_score_matching(lambda t, x: network(layers, t, x), MOTION, *batch)


def loss_by_hand(layers: Any, batch: Any) -> Any:
    """The paper's expression for the whole batch: what there is to be done."""
    x0, z, t = batch
    variance = given.SIGMA**2 * t[:, None]
    moved = jnp.sqrt(variance) * z
    return jnp.mean((variance * (network(layers, t, x0 * jnp.exp(moved)) + 1) + moved) ** 2)


LOSSES = {"gradatim": loss, "JAX, written out": loss_by_hand}


@pytest.mark.parametrize("peer", LOSSES)
def test_loss_and_gradient(benchmark: Any, peer: str) -> None:
    benchmark.group, benchmark.param = given.LOSS_GROUP, peer
    layers, batch = arrays(given.layers()), arrays(given.batch())
    step: Any = jax.jit(jax.value_and_grad(LOSSES[peer]))
    compiled = step.lower(layers, batch).compile()
    if peer == "gradatim":
        expected: Any = jax.jit(jax.value_and_grad(loss_by_hand))(layers, batch)
        for found, value in zip(jax.tree.leaves(compiled(layers, batch)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, value, rtol=ROUND_OFF, atol=ROUND_OFF * float(abs(value).max()))
    benchmark.extra_info.update({"temporary MiB": compiled.memory_analysis().temp_size_in_bytes / 2**20})
    benchmark.pedantic(lambda: jax.block_until_ready(compiled(layers, batch)), rounds=50, warmup_rounds=3)


def ours(layers: Any, x: Any, key: Any) -> Any:
    """In the logarithm."""
    return sample_dale_langevin(lambda t, x: network(layers, t, x), MOTION, x, jnp.linspace(1, 0, given.STEPS + 1), key=key)


def in_the_space(layers: Any, x: Any, key: Any) -> Any:
    """The sampler that may cross zero."""
    return sample_multiplicative(lambda t, x: network(layers, t, x), MOTION, x, jnp.linspace(1, 0, given.STEPS + 1), key=key).x


def additive(layers: Any, x: Any, key: Any) -> Any:
    """Additive diffusion of the logarithm, by the library: the same network, as often."""
    score = lambda t, y: perceptron(layers, jnp.concatenate([y, t[None]]))  # noqa: E731
    times = jnp.linspace(0, 1, given.STEPS + 1)
    return jnp.exp(sample_reverse_diffusion(score, VariancePreserving(), jnp.log(x), times, key=key))


def by_diffrax(layers: Any, x: Any, key: Any) -> Any:
    """The reverse equation of the logarithm by diffrax's Euler method."""
    variance = given.SIGMA**2

    def drift(s: Any, y: Any, args: Any) -> Any:
        return variance * (network(layers, 1 - jnp.asarray(s), jnp.exp(y)) + 1)

    brownian = diffrax.UnsafeBrownianPath(x.shape, key=key)
    noise = diffrax.ControlTerm(lambda s, y, args: lx.DiagonalLinearOperator(jnp.full(y.shape, given.SIGMA, y.dtype)), brownian)
    terms = diffrax.MultiTerm(diffrax.ODETerm(drift), noise)
    solution: Any = diffrax.diffeqsolve(
        terms, diffrax.Euler(), 0.0, 1.0, 1 / given.STEPS, jnp.log(x), max_steps=given.STEPS + 8, adjoint=diffrax.DirectAdjoint()
    )
    return jnp.exp(solution.ys[-1])


SAMPLERS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "gradatim": ours,
    "gradatim, in the space itself": in_the_space,
    "gradatim, additive": additive,
    "diffrax": by_diffrax,
}


@pytest.mark.parametrize("peer", SAMPLERS)
def test_sampler(benchmark: Any, peer: str) -> None:
    benchmark.group, benchmark.param = given.SAMPLER_GROUP, peer
    layers, x = arrays(given.layers()), arrays(given.starts())
    keys = jax.random.split(jax.random.key(0), given.POINTS)
    compiled = jax.jit(jax.vmap(SAMPLERS[peer], (None, 0, 0))).lower(layers, x, keys).compile()
    if peer != "gradatim, additive":
        # Other noise, the same law: means of logarithms over all points and coordinates.
        known = jax.jit(jax.vmap(ours, (None, 0, 0)))(layers, x, jax.random.split(jax.random.key(1), given.POINTS))
        logs, expected = (np.log(np.abs(np.asarray(y))) for y in (compiled(layers, x, keys), known))
        assert abs(logs.mean() - expected.mean()) < 0.05
        assert abs(logs.std() / expected.std() - 1) < 0.05
    benchmark.pedantic(lambda: jax.block_until_ready(compiled(layers, x, keys)), rounds=10, warmup_rounds=1)


def test_agrees_with_the_authors_equations() -> None:
    command = [python_of("torch"), str(PEERS_FOLDER / "torch_multiplicative_diffusion.py"), "--values"]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])
    with jax.enable_x64(True):
        layers, (x, z, t) = arrays(given.layers()), arrays(given.batch())
        value, gradient = jax.jit(jax.value_and_grad(loss))(layers, (x, z, t))
        np.testing.assert_allclose(value, theirs["loss"], rtol=AGREEMENT)
        for found, expected in zip(jax.tree.leaves(gradient), theirs["gradient"], strict=True):
            np.testing.assert_allclose(found, expected, rtol=AGREEMENT, atol=AGREEMENT)
        h, variance = network(layers, t, x), 0.01 * given.SIGMA**2
        for name, step in (("log", dale_langevin_step), ("space", multiplicative_step)):
            np.testing.assert_allclose(step(x, h, z, variance / 2, variance), theirs[name], rtol=AGREEMENT)
