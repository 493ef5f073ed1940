"""A step of a supernet with mixed weights beside ones with mixed outputs, results compared first; PyTorch in peers/torch_tanglenas.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets import EntangledConv

_spec = importlib.util.spec_from_file_location("entangled", Path(__file__).parent / "peers" / "entangled.py")
assert _spec is not None
assert _spec.loader is not None
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)

AGREEMENT = 1e-4
ARMS = {"gradatim": "weights", "outputs mixed": "outputs", "a tensor for each option": "separate"}


def layers(weight: np.ndarray) -> dict[str, Any]:
    """The layer of each arm, all with the same slices."""
    made = {}
    for mixing in ("weights", "outputs"):
        layer = EntangledConv(shared.OUTS, shared.INS, shared.KERNELS, mixing=mixing, has_bias=False, key=jax.random.key(0))
        made[mixing] = jnp.asarray(weight), layer
    # As if nothing were shared: every combination owns its slice.
    slices = [
        jnp.asarray(weight[:out, :n_in, (7 - side) // 2 : (7 + side) // 2, (7 - side) // 2 : (7 + side) // 2])
        for out, n_in, side in shared.combinations()
    ]
    made["separate"] = slices, None
    return made


def loss(arm: str, layer: Any) -> Any:
    """The mean square of the result."""

    def with_one(weight: Any, p: Any, x: Any) -> Any:
        net = eqx.tree_at(lambda one: one.weight, layer, weight)
        return (jax.vmap(net, (0, None, None, None))(x, *p) ** 2).mean()

    def with_own(slices: Any, p: Any, x: Any) -> Any:
        shares = (p[0][:, None, None] * p[1][None, :, None] * p[2][None, None]).reshape(-1)
        total = jnp.zeros(())
        for share, weight, (out, n_in, side) in zip(shares, slices, shared.combinations(), strict=True):
            y = jax.lax.conv_general_dilated(x[:, :n_in], weight, (1, 1), [(side // 2, side // 2)] * 2)
            total = total + share * jnp.pad(y, ((0, 0), (0, shared.OUTS[-1] - out), (0, 0), (0, 0)))
        return (total**2).mean()

    return with_own if arm == "separate" else with_one


@pytest.mark.parametrize("arm", ARMS)
def test_step_of_a_mixed_convolution(benchmark: Any, arm: str) -> None:
    benchmark.group, benchmark.param = shared.GROUP, arm
    weight, p, x = shared.problem()
    p = tuple(map(jnp.asarray, p))
    weights, layer = layers(weight)[ARMS[arm]]
    compiled = jax.jit(jax.value_and_grad(loss(ARMS[arm], layer), (0, 1))).lower(weights, p, jnp.asarray(x)).compile()
    value, (_, by_p) = compiled(weights, p, jnp.asarray(x))
    np.testing.assert_allclose(value, shared.value(weight, p, x), rtol=AGREEMENT)
    memory = compiled.memory_analysis()
    numbers = {"value": float(value), "parameters": sum(leaf.size for leaf in jax.tree.leaves(weights)), "slope": float(by_p[2][0])}
    numbers["temporary MiB"] = float("nan") if memory is None else memory.temp_size_in_bytes / 2**20
    benchmark.extra_info.update(numbers)
    benchmark.pedantic(lambda: jax.block_until_ready(compiled(weights, p, jnp.asarray(x))), rounds=10, warmup_rounds=2)
