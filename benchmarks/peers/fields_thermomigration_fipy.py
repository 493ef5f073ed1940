"""FiPy: Cahn–Hilliard by implicit finite volumes; three steps of its usual kind, for it takes minutes a unit of time."""

import json
import time

import fipy
import spinodal

DT, N_STEPS = 0.25, 3


def seconds_a_step(n):
    mesh = fipy.PeriodicGrid2D(nx=n, ny=n, dx=1.0, dy=1.0)
    u = fipy.CellVariable(mesh=mesh, value=spinodal.start(n).T.ravel(), hasOld=True)
    face = u.arithmeticFaceValue
    equation = fipy.TransientTerm() == fipy.DiffusionTerm(coeff=3 * face**2 - 1) - fipy.DiffusionTerm(coeff=(1.0, spinodal.GAMMA))
    began = time.perf_counter()
    for _ in range(N_STEPS):
        u.updateOld()
        equation.solve(var=u, dt=DT)
    return (time.perf_counter() - began) / N_STEPS


print(json.dumps([spinodal.row("FiPy implicit", n, DT, seconds_a_step(n) * spinodal.END / DT, None) for n in spinodal.SIZES]))
