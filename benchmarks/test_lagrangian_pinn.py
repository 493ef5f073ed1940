"""Loss and gradient of a Lagrangian PINN: derivatives carried forward by hand, beside nested differentiation: results compared first.

PyTorch, as the authors' code differentiates, is in peers/torch_lagrangian_pinn.py, on the same weights and points.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import python_of

from gradatim.sciml import Jet, LagrangianPINN, LossWeights, PeriodicNetwork, Points, burgers

PEERS_FOLDER = Path(__file__).parent / "peers"
_spec = importlib.util.spec_from_file_location("characteristics", PEERS_FOLDER / "characteristics.py")
assert _spec is not None
assert _spec.loader is not None
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)

GROUP = f"loss and gradient of a Lagrangian PINN, {shared.PLACES * shared.TIMES} points"
WEIGHTS = LossWeights(shared.PATH_WEIGHT, shared.STATE_WEIGHT, shared.INITIAL_WEIGHT)
AGREEMENT = 1e-9  # of double precision, through two divisions by ∂X/∂ξ


class Nested(eqx.Module):
    """A network whose derivatives are differentiated, a point at a time, by `second` of its value."""

    network: PeriodicNetwork
    second: Callable[..., Any] = eqx.field(static=True)

    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        """The value."""
        return self.network(x, t)

    def jet(self, x: jax.Array, t: jax.Array) -> Jet:
        """Value and derivatives."""

        def at(x: jax.Array, t: jax.Array) -> jax.Array:
            return self.network(x[None], t[None])[0]

        return jax.vmap(lambda x, t: self.second(at, x, t))(x, t)


def reverse(at: Callable[..., Any], x: jax.Array, t: jax.Array) -> Jet:
    """Reverse differentiation, twice in x."""
    value, (x_1, t_1) = jax.value_and_grad(at, (0, 1))(x, t)
    return Jet(value, t_1, x_1, jax.grad(jax.grad(at))(x, t))


def forward(at: Callable[..., Any], x: jax.Array, t: jax.Array) -> Jet:
    """Forward differentiation, twice in x."""
    one = jnp.ones_like(x)

    def by_x(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(lambda x: at(x, t), (x,), (one,))

    (value, slope), (_, curvature) = jax.jvp(by_x, (x,), (one,))
    return Jet(value, jax.jvp(lambda t: at(x, t), (t,), (one,))[1], slope, curvature)


PEERS: dict[str, Any] = {"gradatim": None, "JAX, reverse over reverse": reverse, "JAX, forward over forward": forward}


def model() -> LagrangianPINN:
    """With the shared weights."""
    options = {"width": shared.WIDTH, "depth_path": shared.DEPTH_PATH, "depth_state": shared.DEPTH_STATE}
    untrained = LagrangianPINN(burgers(shared.DIFFUSIVITY, jnp.sin), key=jax.random.key(0), **options)
    pairs = [[(jnp.asarray(w, float), jnp.asarray(b, float)) for w, b in network] for network in shared.networks()]
    leaves = [tuple(part) for network in pairs for part in zip(*network, strict=True)]
    return eqx.tree_at(lambda m: [m.path.weights, m.path.biases, m.state.weights, m.state.biases], untrained, leaves)


def contestant(peer: str) -> tuple[Any, Callable[[Any], Any]]:
    """What is trained, and the program for loss and gradient."""
    chosen, second = model(), PEERS[peer]
    if second is not None:
        chosen = eqx.tree_at(lambda m: (m.path, m.state), chosen, (Nested(chosen.path, second), Nested(chosen.state, second)))
    points = Points(*(jnp.asarray(values, float) for values in shared.points()))
    trained, rest = chosen.split()
    return trained, jax.jit(jax.value_and_grad(lambda trained: eqx.combine(trained, rest).loss(points, WEIGHTS)))


def flat(found: Any) -> np.ndarray:
    """Loss, then gradient, layer by layer."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)])


@pytest.fixture(scope="module")
def exact() -> np.ndarray:
    """Of ours, in double precision."""
    with jax.enable_x64(True):
        trained, program = contestant("gradatim")
        return flat(program(trained))


@pytest.mark.parametrize("peer", PEERS)
def test_gradient(benchmark: Any, exact: np.ndarray, peer: str) -> None:
    benchmark.param, benchmark.group = peer, GROUP
    with jax.enable_x64(True):
        trained, program = contestant(peer)
        np.testing.assert_allclose(flat(program(trained)), exact, rtol=AGREEMENT, atol=AGREEMENT)
    trained, program = contestant(peer)
    single = flat(program(trained))
    compiled: Any = program
    memory = compiled.lower(trained).compile().memory_analysis()
    error = float(np.linalg.norm(single - exact) / np.linalg.norm(exact))
    benchmark.extra_info.update({"relative error": error, "temporary MiB": memory.temp_size_in_bytes / 2**20})
    benchmark.pedantic(lambda: jax.block_until_ready(program(trained)), rounds=20, warmup_rounds=2)


def test_torch(exact: np.ndarray) -> None:
    command = [python_of("torch"), str(PEERS_FOLDER / "torch_lagrangian_pinn.py"), "--values"]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])
    np.testing.assert_allclose(theirs, exact, rtol=AGREEMENT, atol=AGREEMENT)
