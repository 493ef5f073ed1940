"""exponax: a growing surface, spectral in space, exponential Runge–Kutta of first, second and fourth order."""

import functools
import json

import exponax as ex
import jax
import jax.numpy as jnp
import kpz
import numpy as np

jax.config.update("jax_enable_x64", True)


@functools.cache
def compiled(order, dtype, dim, n, dt):
    step = ex.stepper.generic.GeneralGradientNormStepper(
        dim, n * kpz.DX, n, dt, linear_coefficients=(0.0, 0.0, 1.0), gradient_norm_scale=-1.0, order=order
    )
    step = jax.tree.map(lambda leaf: leaf.astype(narrow(leaf.dtype)) if dtype == "float32" and isinstance(leaf, jax.Array) else leaf, step)
    run = jax.jit(lambda u: jax.lax.fori_loop(0, round(kpz.END / dt), lambda _, v: step(v), u))
    return run.lower(jax.ShapeDtypeStruct((1, *(n,) * dim), dtype)).compile()


def narrow(dtype):
    return {"float64": jnp.float32, "complex128": jnp.complex64}.get(str(dtype), dtype)


@functools.cache
def start(dtype, dim, n):
    return jnp.asarray(kpz.start(dim, n)[None], dtype)


def solve(order, dtype, dim, n, dt):
    return np.asarray(compiled(order, dtype, dim, n, dt)(start(dtype, dim, n)))[0]


found = []
for dim, n in kpz.CASES:
    reference = solve(4, "float64", dim, n, kpz.REFERENCE)
    for order in (1, 2, 4):
        for dtype in ("float32", "float64"):
            found += kpz.rows(functools.partial(solve, order, dtype), f"exponax ETDRK{order} {dtype}", reference, dim, n)
print(json.dumps(found))
