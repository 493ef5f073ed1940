"""Single particles: the order of the pushers against the analytic motion, and where particles begin to run away."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Measure, Session
from gradatim.physics import plasma

from .config import Motion
from .gas import ALONG

PUSHERS = {"vay": plasma.vay, "boris": plasma.boris, "higuera_cary": plasma.higuera_cary}
NOTHING = plasma.Vector(0.0, 0.0, 0.0)
FIELD = plasma.Vector(0.7, 0.0, 0.0)
GONE = 20.0
"Momentum along the gradient, m c, from which no particle comes back."


def run_motion(config: Motion, session: Session, key: Array) -> Findings:
    """C2 and the threshold of C6."""
    errors = session.once("errors of the pushers", partial(_errors, config, key))
    steps = np.asarray(config.steps, float)
    measures: dict[str, Measure] = {}
    orders = {name: _order(steps, np.asarray(row)) for name, row in errors.items()}
    for name in ("vay", "boris"):
        measures[f"C2.{name}_order"] = Measure.exact(*orders[f"{name}, strang"])
    lagging = ", ".join(f"{name} {orders[f'{name}, effective-field'][0]:.2f}" for name in PUSHERS)
    session.note(
        "orders are those of the symmetric splitting, half the force before the push and half after; with the force as an effective "
        f"electric field, at the Lorentz factor of the old momentum, the order is {lagging}"
    )
    theory = float(plasma.runaway_speed(1.5 * config.theta))
    tried = theory * np.linspace(0.94, 1.06, config.speeds)
    gone = np.asarray(session.once("which speeds run away", partial(_escapes, config, tried)))
    untested = {}
    if gone[-1] and not gone[0]:
        spacing = tried[1] - tried[0]
        first = float(tried[np.argmax(gone)])
        measures["C6.threshold_ratio"] = Measure.exact((first - spacing / 2) / theory, spacing / theory)
    else:
        untested["C6.threshold_ratio"] = "no speed tried lies on the threshold"
    data = xr.Dataset(
        {
            "error": (("scheme", "steps"), np.array(list(errors.values())), {"units": "m c"}),
            "runs_away": ("speed", gone.astype(float), {"units": "1"}),
        },
        {
            "scheme": list(errors),
            "steps": ("steps", list(config.steps), {"units": f"per {config.time:g} L/c"}),
            "speed": ("speed", tried / theory, {"units": "of the runaway condition"}),
        },
    )
    return Findings(measures, xr.DataTree.from_dict({"motion": data}), untested)


def _errors(config: Motion, key: Array) -> dict[str, Any]:
    """Root mean square distance from the analytic motion at the end, for each pusher and splitting."""
    force = plasma.TemperatureGradientForce(1.0, ALONG, config.theta)
    start = plasma.maxwellian(key, config.theta, config.particles)
    across = jnp.hypot(start.y, start.z)

    def error(name: str, splitting: str, dt: Array, n_steps: Array) -> Array:
        def push(_: Array, u: plasma.Vector) -> plasma.Vector:
            return PUSHERS[name](u, NOTHING, FIELD, dt, -1.0, force=force, splitting=splitting)

        end = jax.lax.fori_loop(0, n_steps, push, start)
        # How late a particle is, times its speed, is how far it is off; one at rest has no time of arrival.
        late = plasma.relativistic_time(start.x, end.x, across, force.offset) - config.time
        distance = late * force(end).x
        known = jnp.isfinite(distance)
        return jnp.sqrt((jnp.where(known, distance, 0) ** 2).sum() / known.sum())

    @jax.jit
    def errors(dt: Array, n_steps: Array) -> dict[str, Array]:
        return {f"{name}, {splitting}": error(name, splitting, dt, n_steps) for name in PUSHERS for splitting in plasma.SPLITTINGS}

    rows = [errors(jnp.float32(config.time / n), jnp.int32(n)) for n in config.steps]
    return {scheme: [float(row[scheme]) for row in rows] for scheme in rows[0]}


def _order(steps: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """The slope over all steps, and how far the slopes of neighbours are from it at most."""
    x, y = np.log(steps), np.log(errors)
    slope = -float(np.polyfit(x, y, 1)[0])
    return slope, float(np.abs(-np.diff(y) / np.diff(x) - slope).max())


def _escapes(config: Motion, speeds: np.ndarray) -> Array:
    """Which particles, at rest along the gradient, have run away after the time of patience."""
    force = plasma.TemperatureGradientForce(1.0, ALONG, config.theta)
    dt = 0.05

    @jax.jit
    def escapes(across: Array) -> Array:
        def push(_: Array, u: plasma.Vector) -> plasma.Vector:
            new = plasma.vay(u, NOTHING, FIELD, dt, -1.0, force=force)
            return jax.tree.map(lambda a, b: jnp.where(u.x > GONE, a, b), u, new)

        start = plasma.Vector(jnp.zeros_like(across), across, jnp.zeros_like(across))
        return jax.lax.fori_loop(0, round(config.patience / dt), push, start).x > GONE

    return escapes(jnp.asarray(speeds, jnp.float32))
