"""Kernels of wide ReLU networks by neural-tangents 0.6.5 under JAX 0.4.30, the last that it runs under: seconds as JSON."""

from __future__ import annotations

import json
from typing import Any

import jax
import scaling
import timing
from neural_tangents import stax

jax.config.update("jax_enable_x64", True)


def main() -> None:
    """Prints one JSON list."""
    layer = {"W_std": 2**0.5, "b_std": None}
    layers = [part for _ in range(2) for part in (stax.Dense(8, **layer), stax.Relu())]
    kernel_fn: Any = stax.serial(*layers, stax.Dense(1, **layer))[2]
    x = jax.numpy.asarray(scaling.inputs())
    compiled: Any = jax.jit(lambda x: tuple(kernel_fn(x, x, ("nngp", "ntk")))).lower(x).compile()
    ntk = compiled(x)[1]
    row = {"group": scaling.KERNELS, "name": "neural-tangents", "seconds": timing.median(lambda: jax.block_until_ready(compiled(x)))}
    print(json.dumps([row | {"info": scaling.checks(ntk)}]))


if __name__ == "__main__":
    main()
