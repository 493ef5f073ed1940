"""exponax: Cahn–Hilliard, spectral in space, exponential time differencing of first and second order."""

import functools
import json

import exponax as ex
import jax
import jax.numpy as jnp
import numpy as np
import spinodal

jax.config.update("jax_enable_x64", True)


@functools.cache
def stepper(n, dt, order):
    return ex.stepper.reaction.CahnHilliard(2, float(n), n, dt, diffusivity=1.0, gamma=spinodal.GAMMA, order=order)


@functools.cache
def compiled(n, dt, order, dtype, n_steps):
    step = stepper(n, dt, order)
    step = jax.tree.map(lambda leaf: leaf.astype(narrow(leaf.dtype)) if dtype == "float32" and isinstance(leaf, jax.Array) else leaf, step)
    run = jax.jit(lambda u: jax.lax.fori_loop(0, n_steps, lambda _, v: step(v), u))
    return run.lower(jax.ShapeDtypeStruct((1, n, n), dtype)).compile()


def narrow(dtype):
    return {"float64": jnp.float32, "complex128": jnp.complex64}.get(str(dtype), dtype)


@functools.cache
def start(dtype, n):
    return jnp.asarray(spinodal.start(n)[None], dtype)


def solve(order, dtype, n, dt, end):
    return np.asarray(compiled(n, dt, order, dtype, round(end / dt))(start(dtype, n)))[0]


found = []
for n in spinodal.SIZES:
    reference = solve(2, "float64", n, 4 * spinodal.REFERENCE, spinodal.END)
    for order in (1, 2):
        for dtype in ("float32", "float64"):
            name = f"exponax ETDRK{order} {dtype}"
            found += spinodal.rows(functools.partial(solve, order, dtype), name, reference, n)
print(json.dumps(found))
