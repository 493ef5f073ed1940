"""jaxincell: the same plasma, electromagnetic, relativistic Boris pusher; always in double precision, keeps every step's particles."""

import json
import time

import jax
import numpy as np
import warm_plasma
from jaxincell import simulation

# Its thermal speed is √(2T/m).
THERMAL = warm_plasma.THERMAL_SPEED * 2**0.5
PARAMETERS = {
    "length": 1e-2,
    "amplitude_perturbation_x": 0.0,
    "grid_points_per_Debye_length": 1.0,
    "vth_electrons_over_c_x": THERMAL,
    "vth_electrons_over_c_y": THERMAL,
    "vth_electrons_over_c_z": THERMAL,
    "electron_drift_speed_x": 0.0,
    "velocity_plus_minus_electrons_x": False,
    "timestep_over_spatialstep_times_c": 0.9,
    "relativistic": True,
    "filter_passes": 2,
    "filter_strides": (1,),
    "print_info": False,
}


def run():
    return jax.block_until_ready(
        simulation(
            PARAMETERS,
            number_grid_points=warm_plasma.CELLS,
            number_pseudoelectrons=warm_plasma.CELLS * warm_plasma.PER_CELL,
            total_steps=warm_plasma.STEPS,
            field_solver=0,
            time_evolution_algorithm=0,
        )
    )


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
                "group": warm_plasma.GROUP,
                "name": "jaxincell float64",
                "seconds": min(seconds),
                "info": warm_plasma.info(min(seconds)) | {"change of kinetic energy": abs(kinetic[1] / kinetic[0] - 1)},
            }
        ]
    )
)
