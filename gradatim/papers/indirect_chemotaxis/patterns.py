"""Aggregation from a nearly uniform start: the fields themselves, by the full system and by both limits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Session
from gradatim.physics import chemotaxis as ct

from .config import Config

NOISE = 0.05
"Of the start, relative to the mean."
LONGER = 3
"The interval is so many times as long as the square's side,"
LATER = 3
"and is followed so many times as long."
FAST = 1e-12
"An ε at which a step is the limit's to round-off, so that all systems go through one program."


def run_patterns(config: Config, session: Session) -> Findings:
    """A square and a long interval, each three times: full, indirect limit, direct limit."""
    p = config.patterns
    of_square, of_line = jax.random.split(session.key)
    square = ct.Box((p.cells, p.cells), (p.side, p.side))
    line = ct.Box((LONGER * p.cells,), (LONGER * p.side,))
    data = {
        "patterns/square": _aggregate(square, p.square_density, of_square, p.time, 24, config, session, "square"),
        "patterns/line": _aggregate(line, p.density, of_line, LATER * p.time, 240, config, session, "interval"),
    }
    return Findings({}, xr.DataTree.from_dict(data))


def _aggregate(grid: ct.Box, density: float, key: Any, time: float, looks: int, config: Config, session: Session, label: str) -> xr.Dataset:
    p = config.patterns
    scales = {"full": (p.time_scale, p.spreading), "indirect": (FAST, p.spreading), "direct": (FAST, 0.0)}
    noise = np.asarray(jax.random.normal(key, (int(np.prod(grid.shape)),))).reshape(grid.shape)
    cells = 1 + NOISE * np.clip(noise, -3, 3)
    cells = jnp.asarray(cells * density / cells.mean())
    every = max(round(time / p.dt / looks), 1)

    def prepare(eps: Any, tau: Any) -> tuple[ct.IndirectChemotaxis, ct.Stepper, ct.Carry]:
        model = ct.IndirectChemotaxis(grid, eps, tau)
        stepper = model.stepper(p.dt)
        return model, stepper, ct.Carry(cells, stepper.signals.enter(*model.init(cells)), jnp.zeros((), jnp.int32))

    def look(model: ct.IndirectChemotaxis, stepper: ct.Stepper, carry: ct.Carry) -> dict[str, Any]:
        state = ct.State(carry.cells, *stepper.signals.leave(carry.memory))
        return {"cells": carry.cells.astype(jnp.float32), "flag": carry.flag, "entropy": model.entropy(state)}

    def step(carry: ct.Carry, i: Any, args: tuple[Any, ...]) -> ct.Carry:
        del i
        return jax.vmap(lambda stepper, one: stepper.guarded(one))(args[1], carry)

    def watch(carry: ct.Carry, args: tuple[Any, ...]) -> dict[str, Any]:
        return jax.vmap(look)(args[0], args[1], carry)

    models, steppers, start = jax.jit(jax.vmap(prepare))(*(jnp.asarray(column) for column in zip(*scales.values(), strict=True)))
    loop = session.loop(step, start, steps=every * looks, args=(models, steppers), every=every, watch=watch, label=f"aggregation, {label}")
    fields, flag, entropies = (np.moveaxis(loop.history[name], 1, 0) for name in ("cells", "flag", "entropy"))
    for name, row in zip(scales, flag, strict=True):
        if row.any():
            when = p.dt * every * int(np.flatnonzero(row)[0])
            # Only the direct system in the square has a blow-up to show.
            what = "" if name == "direct" and len(grid.shape) > 1 else " (an aggregate too steep for this grid, no blow-up)"
            word = ct.Flag(int(row[-1])).name.lower()
            session.note(f"aggregation, {label}, {name}: {word} flagged by t = {when:.3g}, held from there on{what}")
    axes = ("x", "y")[: len(grid.shape)]
    # Six fields tell the story of a square; an interval's are small.
    kept = np.arange(looks + 1) if len(axes) == 1 else np.unique(np.round(looks * np.linspace(0, 1, 7) ** 2).astype(int))
    times = p.dt * every * np.arange(looks + 1)
    return xr.Dataset(
        {
            "cells": (("system", "snapshot", *axes), fields[:, kept], {"units": "1"}),
            "peak": (("system", "time"), fields.reshape(*flag.shape, -1).max(-1), {"units": "1"}),
            "flag": (("system", "time"), flag, {"units": "1"}),
            "entropy": (("system", "time"), entropies, {"units": "1"}),
        },
        {
            "system": list(scales),
            "snapshot": ("snapshot", times[kept], {"units": "1"}),
            "time": ("time", times, {"units": "1"}),
            **{axis: (axis, np.asarray(x), {"units": "1"}) for axis, x in zip(axes, grid.centres, strict=True)},
        },
        {"eps": p.time_scale, "tau": p.spreading},
    )
