"""jaxincell: the same plasma, electromagnetic, relativistic Boris pusher; always in double precision, keeps every step's particles."""

import json
import time

import jax
import maxwellian
import numpy as np
from jaxincell import Simulation

# Its thermal speed is √(2T/m).
THERMAL = maxwellian.THERMAL_SPEED * 2**0.5
UNIFORM = {f"perturbation_amplitude_{axis}": 0.0 for axis in "xyz"}
SPECIES = UNIFORM | {"number_pseudoparticles": maxwellian.CELLS * maxwellian.PER_CELL, "grid_points_per_Debye_length": 1.0}
SIMULATION = Simulation(
    {
        "length": 1e-2,
        "number_grid_points": maxwellian.CELLS,
        "total_steps": maxwellian.STEPS,
        "timestep_over_spatialstep_times_c": 0.9,
        "electrons": SPECIES | {f"vth_over_c_{axis}": THERMAL for axis in "xyz"},
        "ions": SPECIES,
        "relativistic": True,
        "filter_passes": 2,
        "filter_strides": (1,),
        "print_info": False,
    }
)


def run():
    return jax.block_until_ready(SIMULATION.run())


end = run()
seconds = []
for _ in range(3):
    began = time.perf_counter()
    end = run()
    seconds.append(time.perf_counter() - began)
mass, speeds = np.asarray(end["masses"]), np.asarray(end["velocities"])
kinetic = [float((mass.ravel() * (speeds[i] ** 2).sum(-1)).sum()) for i in (0, -1)]
print(
    json.dumps(
        [
            {
                "group": maxwellian.GROUP,
                "name": "jaxincell float64",
                "seconds": min(seconds),
                "info": maxwellian.info(min(seconds)) | {"change of kinetic energy": abs(kinetic[1] / kinetic[0] - 1)},
            }
        ]
    )
)
