"""py-pde: a growing surface, and Burgers's equation with noise, by finite differences and explicit steps compiled by numba."""

import functools
import json
import time

import kpz
import numpy as np
import pde
import timing


@functools.cache
def equation():
    return pde.PDE({"p": "laplace(p) + 0.5 * gradient_squared(p)"})


def solve(solver, dim, n, dt, end=kpz.END):
    grid = pde.CartesianGrid([[0, n * kpz.DX]] * dim, [n] * dim, periodic=True)
    field = pde.ScalarField(grid, kpz.start(dim, n))
    try:
        return np.asarray(equation().solve(field, t_range=end, dt=dt, solver=solver, backend="numba", adaptive=False, tracker=None).data)
    except Exception as error:  # a field that is not finite any more ends some runs
        if "diverge" in str(error).lower() or "finite" in str(error).lower() or "nan" in str(error).lower():
            return np.full((n,) * dim, np.nan)
        raise


# Explicit: unstable above dx²/(2 d), whatever the accuracy. Few candidates, for each is compiled anew.
STEPS = {"euler": [kpz.END / n for n in (4096, 16384)], "runge-kutta": [kpz.END / n for n in (192, 384)]}
MORE = {1: 1000, 2: 20}
"How many times more steps the longer run takes."

found = []
for dim, n in kpz.CASES:
    reference = solve("runge-kutta", dim, n, kpz.END / 2048)
    for solver, steps in STEPS.items():
        for dt in steps:
            error = kpz.distance(solve(solver, dim, n, dt), reference)
            if error <= kpz.TARGET:
                once = functools.partial(solve, solver, dim, n, dt)
                found.append(kpz.row(f"py-pde {solver}", dim, n, dt, timing.beyond_start(once, kpz.END, MORE[dim]), error))
                break

grid = pde.CartesianGrid([[0, kpz.NOISY]], kpz.NOISY, periodic=True)
burgers = pde.PDE({"u": "laplace(u) + 0.5 * d_dx(u**2)"}, noise=2 * kpz.NOISE, rng=np.random.default_rng(0))
seconds, variance = [], 0.0
for _ in range(2):
    began = time.perf_counter()
    end = burgers.solve(
        pde.ScalarField(grid, 0.0), t_range=kpz.NOISY_STEPS * kpz.NOISY_DT, dt=kpz.NOISY_DT, solver="euler", backend="numba", tracker=None
    )
    whole = time.perf_counter() - began
    began = time.perf_counter()
    burgers.solve(pde.ScalarField(grid, 0.0), t_range=2 * kpz.NOISY_DT, dt=kpz.NOISY_DT, solver="euler", backend="numba", tracker=None)
    seconds.append(whole - (time.perf_counter() - began))
    variance = float(end.data.var())
info = {"steps a second": kpz.NOISY_STEPS / min(seconds), "variance of u over T": variance / kpz.NOISE}
found.append({"group": f"noisy Burgers {kpz.NOISY}", "name": "py-pde euler", "seconds": min(seconds), "info": info})
print(json.dumps(found))
