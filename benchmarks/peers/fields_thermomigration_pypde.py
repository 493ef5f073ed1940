"""py-pde: Cahn–Hilliard by finite differences, explicit steps compiled by numba."""

import json

import numpy as np
import pde
import spinodal
import timing

# Explicit: stable only below about dx⁴/(32 γ).
STEPS = (0.0078125, 0.00390625)
MORE = {256: 20, 512: 4}
"How many times more steps the longer run takes."


def solver(n):
    grid = pde.CartesianGrid([[0, n], [0, n]], [n, n], periodic=True)
    equation = pde.CahnHilliardPDE(interface_width=spinodal.GAMMA)
    field = pde.ScalarField(grid, spinodal.start(n))

    def solve(n, dt, end):
        return np.asarray(equation.solve(field, t_range=end, dt=dt, solver="euler", backend="numba", tracker=None).data)

    return solve


found = []
for n in spinodal.SIZES:
    solve = solver(n)
    reference = solve(n, STEPS[-1] / 4, spinodal.END)
    for dt in STEPS:
        error = spinodal.error(solve(n, dt, spinodal.END), reference)
        if error <= spinodal.TARGET:
            seconds = timing.beyond_start(lambda end, n=n, dt=dt, solve=solve: solve(n, dt, end), spinodal.END, MORE[n])
            found.append(spinodal.row("py-pde explicit", n, dt, seconds, error))
            break
print(json.dumps(found))
