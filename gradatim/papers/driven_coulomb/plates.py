"""C2 to C4: the force between two plates, at rest and after the field is switched on."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Measure, Session
from gradatim.numerics import fit_power_law
from gradatim.physics import electrolyte as el

from .config import Plates

_CASES = [(dim, closure) for dim in (2, 3) for closure in el.CLOSURES]


@eqx.filter_jit
def _amplitudes(fields: Array, method: str) -> Array:
    """P Hᵈ, by case and field."""

    def amplitude(field: Array, dim: int, closure: str) -> Array:
        return el.fluctuation_force(field, 1.0, dim=dim, closure=closure, method=method)  # pyright: ignore[reportArgumentType]

    return jnp.stack([jax.vmap(lambda field, dim=dim, closure=closure: amplitude(field, dim, closure))(fields) for dim, closure in _CASES])


@eqx.filter_jit
def _at_distances(field: Array, separations: Array, dim: int) -> Array:
    return jax.vmap(lambda height: el.screened_fluctuation_force(field, height, dim=dim))(separations)


def run_plates(config: Plates, session: Session) -> Findings:
    """All measures of C2, C3 and C4."""
    fields = jnp.geomspace(0.1, 10.0, config.fields)
    # All fields in one program: those of the figure, the weak ones, none and 1.
    every = jnp.concatenate([fields, jnp.asarray([*config.weak_fields, 0.0, 1.0])])
    closed, by_modes = (np.asarray(_amplitudes(every, method)) for method in ("closed", "modes"))
    amplitudes, weak = closed[:, : config.fields], by_modes[:, config.fields : -2]
    wall = {dim: _CASES.index((dim, "wall")) for dim in (2, 3)}
    measures = {}
    # At every distance the sum over modes of the whole structure factor: no power of it is put in.
    separations = jnp.asarray(config.separations)
    at_distance = []
    for dim in (2, 3):
        at_distance.append(np.asarray(_at_distances(jnp.asarray(config.separation_field), separations, dim)))
        law = fit_power_law(separations, jnp.asarray(at_distance[-1]))
        measures[f"C2.distance_slope_{dim}d"] = Measure.exact(float(law.exponent), 2 * float(law.standard_error))
    law = fit_power_law(jnp.asarray(config.weak_fields), jnp.asarray(weak[[wall[2], wall[3]]]))
    worst = int(jnp.argmax(jnp.abs(law.exponent - 2)))
    measures["C2.weak_field_slope"] = Measure.exact(float(law.exponent[worst]), 2 * float(law.standard_error[worst]))
    off, on = (float(np.abs(by_modes[list(wall.values()), column]).max()) for column in (-2, -1))
    measures["C2.amplitude_without_field"] = Measure.exact(off)
    session.note(
        f"With a field of 1 the amplitude of the force is {on:.4f} k_B T (the larger of two and three dimensions), without it {off:.1g}."
    )
    lowest = float(amplitudes[list(wall.values())].min())
    error = float(np.abs(closed - by_modes).max())
    measures["C3.lowest_amplitude"] = Measure.exact(lowest, min(error, abs(lowest)))
    if amplitudes.min() > 0:
        session.note(
            "Every closure repels at every field from 0.1 to 10, in two and three dimensions: stress at an insulating wall, stress "
            "averaged over the gap at a fixed number of ions, and stress at a conducting wall."
        )
    relaxation, slope = _relaxation(config)
    measures["C4.relaxation_slope"] = slope
    data = xr.Dataset(
        {
            "amplitude": (("case", "field"), amplitudes, {"units": "k_B T"}),
            "amplitude_by_modes": (("case", "field"), by_modes[:, : config.fields], {"units": "k_B T"}),
            "force": (("dim", "separation"), np.stack(at_distance), {"units": "k_B T κ^d"}),
            **relaxation,
        },
        {
            "case": [f"{dim}d {closure.replace('_', ' ')}" for dim, closure in _CASES],
            "field": ("field", np.asarray(fields), {"units": "k_B T κ/Q"}),
            "separation": ("separation", list(config.separations), {"units": "1/κ"}),
            "dim": [2, 3],
        },
    )
    return Findings(measures, xr.DataTree.from_dict({"plates": data}))


def _relaxation(config: Plates) -> tuple[dict, Measure]:
    """P(t) - P(∞) in three dimensions, and the slope that is furthest from -1 among the fields."""
    times, fields = jnp.geomspace(3.0, 100.0, config.times), jnp.asarray(config.transient_fields)

    @jax.jit
    def left(field: Array) -> Array:
        steady = el.fluctuation_force(field, 1.0, dim=3)
        return jax.lax.map(lambda time: el.fluctuation_force_at(time, field, 1.0), times) - steady

    found = jnp.asarray(np.stack([left(field) for field in fields]))
    law = fit_power_law(times, jnp.abs(found))
    worst = int(jnp.argmax(jnp.abs(law.exponent + 1)))
    measure = Measure.exact(float(law.exponent[worst]), 2 * float(law.standard_error[worst]))
    units = {"units": "k_B T/H³"}
    return {
        "relaxation": (("transient_field", "time"), np.asarray(found), units),
        "relaxation_slope": ("transient_field", np.asarray(law.exponent), {"units": "1"}),
        "time": ("time", np.asarray(times), {"units": "H²/D"}),
        "transient_field": ("transient_field", np.asarray(fields), {"units": "k_B T κ/Q"}),
    }, measure
