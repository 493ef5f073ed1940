"""py-pde: Cahn–Hilliard by finite differences, explicit steps compiled by numba."""

import json

import numpy as np
import pde
import spinodal

# Explicit: stable only below about dx⁴/(32 γ).
STEPS = (0.0078125, 0.00390625)


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
    found += spinodal.rows(solve, "py-pde explicit", reference, n, STEPS)
print(json.dumps(found))
