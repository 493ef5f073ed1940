"""Brownian ions beside the linear theory, and the conductivity that follows from it."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Session
from gradatim.numerics import PeriodicGrid
from gradatim.physics import electrolyte as el

from .config import Ions

_EVERY = 20
"Steps between two looks, a Debye time."
_STRIP_TIMES = (0, 3, 30, 300)
"Looks of which pictures are kept; earlier ones in proportion if the run is shorter."
_MODES = ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (3, 0), (0, 3))
"The smallest wavevectors, in units of 2π/L."
_SMOOTHING = 2.0
"Width over which pictures are smoothed, in Debye lengths; a cell holds too few ions to be looked at."


class _Run(NamedTuple):
    ions: el.IonBrownianDynamics
    k: Array
    smooth: Array


@eqx.filter_jit
def _ions(config: Ions) -> tuple[_Run, el.StructureFactor]:
    """What is run, in single precision: forces are known to a per cent, and positions to a millionth of a cell; and the linear theory."""
    side = float(config.cells)
    grid = PeriodicGrid((config.cells,) * 2, side)
    electrolyte = el.DrivenElectrolyte(field=config.field, mean_density=config.pairs / side**2, smearing=1.0, dim=2)
    ions = el.IonBrownianDynamics(electrolyte, grid, config.dt, n_pairs=config.pairs)
    k = jnp.asarray(2 * np.pi / side * np.asarray(_MODES, float))
    run = _Run(ions, k, jnp.exp(0.5 * _SMOOTHING**2 * grid.laplacian()))
    return single(run), electrolyte.structure_factor(k)


@eqx.filter_jit
def _start(ions: el.IonBrownianDynamics, key: Array) -> el.IonState:
    return single(ions.initial(key))


@jax.jit
def _corrections(fields: Array) -> Array:
    return jax.vmap(functools.partial(el.conductivity_correction, bjerrum_length=1.0))(fields)


def _step(state: el.IonState, i: Any, run: _Run) -> el.IonState:
    del i
    return jax.lax.fori_loop(0, _EVERY, lambda _, state: run.ions(state), state)


def _watch(state: el.IonState, run: _Run) -> dict[str, Array]:
    return run.ions.structure_factor(state, run.k)._asdict()


def _look(state: el.IonState, run: _Run) -> dict[str, Array]:
    grid = run.ions.grid
    return {"fields": grid.backward(run.smooth[None] * grid.forward(run.ions.fields(state)))}


def run_ions(config: Ions, session: Session) -> Findings:
    """Structure factors of the ions at the smallest wavevectors, and the theory's; no claim of the paper is judged here."""
    side = float(config.cells)
    run, exact = _ions(config)
    found = []
    keys = jax.random.split(jax.random.fold_in(session.key, 1), config.seeds)
    for seed, key in enumerate(keys):
        state = _start(run.ions, key)
        history = session.loop(_step, state, steps=config.steps // _EVERY, args=run, every=1, watch=_watch, label=f"ions {seed}").history
        kept = slice(len(history["step"]) // 6, None)
        found.append([history[name][kept].mean(0) for name in ("density", "charge", "cross")])
    times, fields = _pictures(config, session, run, keys[0])
    samples, theory = np.asarray(found, float), np.stack(exact)
    ratio = samples[:, 0].mean(0) / theory[0]
    smallest = ", ".join(f"{ratio[i]:.2f}" for i in range(4))
    session.note(
        f"Brownian ions, {config.seeds} runs of {config.steps * config.dt:g} Debye times at 1/(4πC₀) = "
        f"{1 / (4 * np.pi * config.pairs / side**2):.3f}: density structure factor over the linear theory's at the four smallest "
        f"wavevectors {smallest}."
    )
    strengths = np.concatenate([[0.0], np.geomspace(0.05, 100.0, 60)])
    data = xr.Dataset(
        {
            "structure": (("seed", "part", "mode"), samples, {"units": "2C₀"}),
            "theory": (("part", "mode"), theory, {"units": "2C₀"}),
            "k": (("mode", "axis"), 2 * np.pi / side * np.asarray(_MODES, float), {"units": "κ"}),
            "correction": ("field", np.asarray(_corrections(jnp.asarray(strengths))), {"units": "l_B κ"}),
            "strip": (("time", "what", "x", "y"), fields, {"units": "2C₀"}),
        },
        {
            "part": ["density", "charge", "cross"],
            "mode": [f"({i}, {j})" for i, j in _MODES],
            "axis": ["along", "across"],
            "field": ("field", strengths, {"units": "k_B T κ/Q"}),
            "time": ("time", times, {"units": "1/(D κ²)"}),
            "what": ["density", "charge"],
        },
    )
    return Findings({}, xr.DataTree.from_dict({"ions": data}))


def _pictures(config: Ions, session: Session, run: _Run, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """Density and charge over 2C₀ of the first run again, at a few moments from the start on, when the field is switched on."""
    last = min(_STRIP_TIMES[-1], config.steps // _EVERY)
    moments = [max(i, time * last // _STRIP_TIMES[-1]) for i, time in enumerate(_STRIP_TIMES)]
    every = math.gcd(*moments)
    looked = session.loop(_step, _start(run.ions, key), steps=last, args=run, every=every, watch=_look, label="ions in time").history
    fields = looked["fields"][[moment // every for moment in moments]] * (config.cells**2 / (2 * config.pairs))
    fields[:, 0] -= 1
    return np.asarray(moments) * _EVERY * config.dt, fields


def single(tree: Any) -> Any:
    """A simulator or its state in single precision: fluctuations are not known better than to their samples."""

    def narrow(leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        return leaf.astype(jnp.complex64 if jnp.iscomplexobj(leaf) else jnp.float32)

    return jax.tree.map(narrow, tree)
