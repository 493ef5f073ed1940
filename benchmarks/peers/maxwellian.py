"""The plasma that all contestants step: uniform, warm, one dimension, three velocities, electrons and ions that move. NumPy only.

Nothing is driven, since the peers know no thermodynamic force; ours is timed with and without. Seconds are for `STEPS` steps of all
`PARTICLES`, at one thermal speed, one cell of a Debye length, and a time step just below the light limit.
"""

from __future__ import annotations

CELLS = 200
PER_CELL = 160
"Of each species."
PARTICLES = 2 * CELLS * PER_CELL
STEPS = 50
THERMAL_SPEED = 0.1
"√(T/m) of the electrons, in c."
ION_MASS = 1836.0
GROUP = f"plasma 1D3V, {PARTICLES} particles, {STEPS} steps"


def info(seconds: float, **more: float) -> dict[str, float]:
    """What goes beside a row."""
    return {"ns a particle-step": 1e9 * seconds / PARTICLES / STEPS} | more
