"""Brownian ions beside the linear theory, and the conductivity that follows from it."""

from __future__ import annotations

import functools
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
_MODES = ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (3, 0), (0, 3))
"The smallest wavevectors, in units of 2π/L."


class _Run(NamedTuple):
    ions: el.IonBrownianDynamics
    k: Array


def _step(state: el.IonState, i: Any, run: _Run) -> el.IonState:
    del i
    return jax.lax.fori_loop(0, _EVERY, lambda _, state: run.ions(state), state)


def _watch(state: el.IonState, run: _Run) -> dict[str, Array]:
    return run.ions.structure_factor(state, run.k)._asdict()


def run_ions(config: Ions, session: Session) -> Findings:
    """Structure factors of the ions at the smallest wavevectors, and the theory's; no claim of the paper is judged here."""
    side = float(config.cells)
    grid = PeriodicGrid((config.cells,) * 2, side)
    electrolyte = el.DrivenElectrolyte(field=config.field, mean_density=config.pairs / side**2, smearing=1.0, dim=2)
    # In single precision: forces are known to a per cent, and positions to a millionth of a cell.
    ions = single(el.IonBrownianDynamics(electrolyte, grid, config.dt, n_pairs=config.pairs))
    k = 2 * np.pi / side * np.asarray(_MODES, float)
    run = _Run(ions, jnp.asarray(k, jnp.float32))
    found = []
    for seed, key in enumerate(jax.random.split(jax.random.fold_in(session.key, 1), config.seeds)):
        state = single(ions.initial(key))
        history = session.loop(_step, state, steps=config.steps // _EVERY, args=run, every=1, watch=_watch, label=f"ions {seed}").history
        kept = slice(len(history["step"]) // 6, None)
        found.append([history[name][kept].mean(0) for name in ("density", "charge", "cross")])
    exact = electrolyte.structure_factor(jnp.asarray(k))
    samples, theory = np.asarray(found, float), np.stack(exact)
    ratio = samples[:, 0].mean(0) / theory[0]
    smallest = ", ".join(f"{ratio[i]:.2f}" for i in range(4))
    session.note(
        f"Brownian ions, {config.seeds} runs of {config.steps * config.dt:g} Debye times at 1/(4πC₀) = "
        f"{1 / (4 * np.pi * config.pairs / side**2):.3f}: density structure factor over the linear theory's at the four smallest "
        f"wavevectors {smallest}."
    )
    fields = np.concatenate([[0.0], np.geomspace(0.05, 100.0, 60)])
    correction = jax.jit(jax.vmap(functools.partial(el.conductivity_correction, bjerrum_length=1.0)))(jnp.asarray(fields))
    data = xr.Dataset(
        {
            "structure": (("seed", "part", "mode"), samples, {"units": "2C₀"}),
            "theory": (("part", "mode"), theory, {"units": "2C₀"}),
            "k": (("mode", "axis"), k, {"units": "κ"}),
            "correction": ("field", np.asarray(correction), {"units": "l_B κ"}),
        },
        {
            "part": ["density", "charge", "cross"],
            "mode": [f"({i}, {j})" for i, j in _MODES],
            "axis": ["along", "across"],
            "field": ("field", fields, {"units": "k_B T κ/Q"}),
        },
    )
    return Findings({}, xr.DataTree.from_dict({"ions": data}))


def single(tree: Any) -> Any:
    """A simulator or its state in single precision: fluctuations are not known better than to their samples."""

    def narrow(leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        return leaf.astype(jnp.complex64 if jnp.iscomplexobj(leaf) else jnp.float32)

    return jax.tree.map(narrow, tree)
