"""py-pde: indirect chemotaxis by finite differences compiled by numba, with SciPy's stiff solvers and with explicit steps."""

import functools
import json

import numpy as np
import pde
import signalling
from pde.solvers import EulerSolver, ScipySolver

RULES = {
    "n": "laplace(n) - d_dx(n) * d_dx(c) - n * laplace(c)",
    "c": "(laplace(c) - c + w) / {eps}",
    "w": "({tau} * laplace(w) - w + n) / {eps}",
}


def problem(eps):
    grid = pde.CartesianGrid([[0, 1]], signalling.CELLS)
    fields = zip(RULES, signalling.start(signalling.centres()), strict=True)
    state = pde.FieldCollection([pde.ScalarField(grid, field, label=name) for name, field in fields])
    return pde.PDE({name: rule.format(eps=eps, tau=signalling.TAU) for name, rule in RULES.items()}, bc={"derivative": 0}), state


@functools.cache
def stiff(eps):
    """A solver whose method and tolerance may change from call to call: what takes long is to compile the rates."""
    equation, state = problem(eps)
    solver = ScipySolver(equation, backend="numba")
    return solver, solver.make_stepper(state)


@functools.cache
def explicit(eps, dt):
    equation, state = problem(eps)
    return EulerSolver(equation, backend="numba").make_stepper(state, dt)


def densities(stepper, eps):
    _, state = problem(eps)
    now, found = 0.0, []
    for look in signalling.LOOKS:
        now = stepper(state, now, look)
        found.append(np.array(state.data[0]))
    return np.stack(found)


def by_scipy(eps, method, tolerance):
    solver, stepper = stiff(eps)
    solver.solver_params = {"method": method, "rtol": tolerance, "atol": tolerance}
    return densities(stepper, eps)


def by_steps(eps, dt):
    return densities(explicit(eps, dt), eps)


found = []
for eps in signalling.TIME_SCALES:
    for method in ("BDF", "LSODA"):
        found += signalling.row(eps, f"py-pde {method}", functools.partial(by_scipy, eps, method), (1e-1, 1e-2, 1e-3))
    # Stable below ε dx² / 2: at the least ε that would be 900 million steps, an hour.
    if eps >= 1e-3:
        dt = 0.9 * eps / (2 * signalling.CELLS**2)
        found += signalling.row(eps, "py-pde explicit", functools.partial(by_steps, eps), (dt,))
print(json.dumps(found))
