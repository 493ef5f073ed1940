"""Aggregation from a nearly uniform start: the fields themselves, by the full system and by both limits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Session
from gradatim.physics import chemotaxis as ct
from gradatim.physics.chemotaxis.stepping import Carry

from .config import Config
from .part import Part

NOISE = 0.05
"Of the start, relative to the mean."
LONGER = 3
"The interval is so many times as long as the square's side,"
LATER = 5
"and is followed so many times as long."


def run_patterns(config: Config, session: Session) -> Part:
    """A square and a long interval, each three times: full, indirect limit, direct limit."""
    p = config.patterns
    of_square, of_line = jax.random.split(session.key)
    square = ct.Box((p.cells, p.cells), (p.side, p.side))
    line = ct.Box((LONGER * p.cells,), (LONGER * p.side,))
    data = {
        "patterns/square": _aggregate(square, of_square, p.time, 24, config, session, "square"),
        "patterns/line": _aggregate(line, of_line, LATER * p.time, 240, config, session, "interval"),
    }
    return Part(data, {}, {})


def _aggregate(grid: ct.Box, key: Any, time: float, looks: int, config: Config, session: Session, label: str) -> xr.Dataset:
    p = config.patterns
    models = {
        "full": ct.IndirectChemotaxis(grid, p.time_scale, p.spreading),
        "indirect": ct.IndirectChemotaxis(grid, 0.0, p.spreading),
        "direct": ct.IndirectChemotaxis(grid, 0.0, 0.0),
    }
    noise = jax.random.normal(key, (int(np.prod(grid.shape)),)).reshape(grid.shape)
    cells = p.density * (1 + NOISE * jnp.clip(noise, -3, 3))
    cells = cells * p.density / cells.mean()
    every = max(round(time / p.dt / looks), 1)
    fields, flags, entropies = [], [], []
    for name, model in models.items():
        stepper = model.stepper(p.dt)
        start = Carry(cells, stepper.signals.enter(*model.init(cells)), jnp.zeros((), jnp.int32))

        def watch(carry: Carry, args: Any) -> dict[str, Any]:
            stepper, model = args
            state = ct.State(carry.cells, *stepper.signals.leave(carry.memory))
            return {"cells": carry.cells.astype(jnp.float32), "flag": carry.flag, "entropy": model.entropy(state)}

        def step(carry: Carry, i: Any, args: Any) -> Carry:
            del i
            return args[0].guarded(carry)

        loop = session.loop(
            step, start, steps=every * looks, args=(stepper, model), every=every, watch=watch, label=f"aggregation, {label}, {name}"
        )
        fields.append(loop.history["cells"])
        flags.append(loop.history["flag"])
        entropies.append(loop.history["entropy"])
    flag = np.stack(flags)
    for name, row in zip(models, flag, strict=True):
        if row.any():
            when = p.dt * every * int(np.flatnonzero(row)[0])
            session.note(
                f"aggregation, {label}, {name}: {ct.Flag(int(row[-1])).name.lower()} flagged by t = {when:.3g}; held from there on"
            )
    axes = ("x", "y")[: len(grid.shape)]
    # Six fields tell the story of a square; an interval's are small.
    kept = np.arange(looks + 1) if len(axes) == 1 else np.unique(np.round(looks * np.linspace(0, 1, 7) ** 2).astype(int))
    times = p.dt * every * np.arange(looks + 1)
    return xr.Dataset(
        {
            "cells": (("system", "snapshot", *axes), np.stack(fields)[:, kept], {"units": "1"}),
            "peak": (("system", "time"), np.stack([f.reshape(len(f), -1).max(1) for f in fields]), {"units": "1"}),
            "flag": (("system", "time"), flag, {"units": "1"}),
            "entropy": (("system", "time"), np.stack(entropies), {"units": "1"}),
        },
        {
            "system": list(models),
            "snapshot": ("snapshot", times[kept], {"units": "1"}),
            "time": ("time", times, {"units": "1"}),
            **{axis: (axis, np.asarray(x), {"units": "1"}) for axis, x in zip(axes, grid.centres, strict=True)},
        },
        {"eps": p.time_scale, "tau": p.spreading},
    )
