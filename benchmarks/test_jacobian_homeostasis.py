"""One gradient of an equilibrium network, 784-128-128-10, 50 images: local rules beside what differentiates the relaxation.

The free phase of 150 steps is in all of them. The network is symmetric, so that all find one gradient, up to what a finite nudge and few
steps leave; that of a linear solve with the transpose is what they are compared with first. optimistix differentiates its own fixed point
by an implicit adjoint with the same solver as ours.
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
import pytest

from gradatim.implicit import (
    ExactAdjoint,
    ExactResponse,
    ForwardResponse,
    LayeredNetwork,
    NudgedResponse,
    RecurrentAdjoint,
    RelativeTolerance,
    activities,
    chain_connections,
    cost_through_time,
    equilibrium_propagation,
    set_weight_angle,
)
from gradatim.implicit.relaxation import update

SIZES = {"in": 784, "l1": 128, "l2": 128, "out": 10}
BATCH, STEPS, RESPONSE_STEPS = 50, 150, 40
SOLVER = RelativeTolerance(lx.GMRES(1e-5, 1e-5, restart=50))
AGREEMENT = 0.02
"Of the rules that are exact but for their number of steps, relative."


def problem() -> tuple[Any, Any, Any]:
    network = LayeredNetwork(SIZES, chain_connections(SIZES), classes=10, gain=0.6, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (BATCH * 784,)).reshape(BATCH, 784)
    return set_weight_angle(network, 0.0), x, jnp.arange(BATCH) % 10


def local(response: Any) -> Any:
    def loss(network: Any, x: Any, y: Any) -> Any:
        return equilibrium_propagation(network, x, y, response=response, steps=STEPS).loss

    return loss


def through_all_steps(network: Any, x: Any, y: Any) -> Any:
    """The whole relaxation kept and differentiated."""
    rest = jax.tree.map(jnp.zeros_like, network.drive(x))
    return cost_through_time(network, x, y, rest, steps=STEPS)


def with_optimistix(network: Any, x: Any, y: Any) -> Any:
    drive = network.drive(x)
    iteration = optx.FixedPointIteration(rtol=1e-5, atol=1e-5)
    adjoint = optx.ImplicitAdjoint(linear_solver=SOLVER)

    def fn(u: Any, args: Any) -> Any:
        network, drive = args
        return update(network, drive, u)

    rest = jax.tree.map(jnp.zeros_like, drive)
    found = optx.fixed_point(fn, iteration, rest, (network, drive), adjoint=adjoint, max_steps=STEPS, throw=False).value
    return network.cost(activities(network, found), y)


WAYS = {
    "gradatim": local(ForwardResponse(RESPONSE_STEPS)),
    "gradatim, recurrent backpropagation": local(RecurrentAdjoint(RESPONSE_STEPS)),
    "gradatim, two nudges": local(NudgedResponse(0.1, 2, RESPONSE_STEPS)),
    "gradatim, four nudges": local(NudgedResponse(0.1, 4, RESPONSE_STEPS)),
    "gradatim, response by GMRES": local(ExactResponse(SOLVER)),
    "gradatim, adjoint by GMRES": local(ExactAdjoint(SOLVER)),
    "backpropagation through all steps": through_all_steps,
    "optimistix ImplicitAdjoint, GMRES": with_optimistix,
}


def gradient_of(way: Any) -> Any:
    def mean(network: Any, x: Any, y: Any) -> Any:
        return jax.vmap(lambda x, y: way(network, x, y))(x, y).mean()

    return jax.grad(mean)


def flat(network: Any) -> Any:
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_array))])


@pytest.fixture(scope="module")
def exact() -> Any:
    return flat(jax.jit(gradient_of(local(ExactAdjoint())))(*problem()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", WAYS)
def test_gradient(benchmark: Any, peer: str, exact: Any) -> None:
    benchmark.group, benchmark.param = "gradient of an equilibrium network, 784-128-128-10, 50 images", peer
    inputs = problem()
    start = time.perf_counter()
    lowered: Any = jax.jit(gradient_of(WAYS[peer]))
    compiled = lowered.lower(*inputs).compile()
    seconds = time.perf_counter() - start
    error = float(jnp.linalg.norm(flat(compiled(*inputs)) - exact) / jnp.linalg.norm(exact))
    assert error < (0.1 if "nudges" in peer else AGREEMENT)
    memory = compiled.memory_analysis()
    benchmark.extra_info.update({"relative error": error, "temporary MiB": memory.temp_size_in_bytes / 2**20, "compile seconds": seconds})
    benchmark.pedantic(lambda: jax.block_until_ready(compiled(*inputs)), rounds=20, warmup_rounds=2)
