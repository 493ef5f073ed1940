"""The square-root law of the random walk, and every way in which a run can end badly."""

from __future__ import annotations

import math
import os
import signal
import time
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Between, Findings, Measure, OneOf
from gradatim.lab.session import Session

PRECISION = "double"


@dataclass(frozen=True)
class Walkers:
    """Who walks."""

    n_walkers: Annotated[int, Between(3, 10**12)] = 200
    "Walkers, all from the origin."
    stride: Annotated[float, Between(1e-3, 10.0)] = 1.0
    "Standard deviation of one step."


@dataclass(frozen=True)
class Config:
    """How far and how often."""

    walkers: Walkers = Walkers()
    "Who walks."
    steps: Annotated[int, Between(20, 10**6)] = 100
    "Steps of each walk."
    loops: Annotated[int, Between(1, 100)] = 2
    "Walks one after another."
    pause: Annotated[float, Between(0.0, 600.0)] = 0.0
    "Seconds between two walks."
    ending: Annotated[str, OneOf("well", "raise", "exit", "killed", "segfault", "print")] = "well"
    "How the run ends."
    ages: tuple[float, ...] = (1.0, 2.0)
    "Not used."


SCALES = {"smoke": Config(), "laptop": Config(Walkers(400)), "full": Config(Walkers(10_000), steps=1000)}


def memory(config: Config) -> int:
    """Bytes: two numbers per walker."""
    return 16 * config.walkers.n_walkers


def run(config: Config, session: Session) -> Findings:
    """Lets them walk, and fits the exponent of the spread."""
    session._checkpoint_seconds = 0.0  # a checkpoint wherever one is possible: runs here are killed
    spreads = []
    for n, key in enumerate(jax.random.split(session.key, config.loops)):

        def step(positions, i, key):
            moves = jax.random.normal(jax.random.fold_in(key, i), positions.shape)
            return positions + config.walkers.stride * moves

        loop = session.loop(
            step,
            jnp.zeros(config.walkers.n_walkers),
            steps=config.steps,
            args=key,
            every=config.steps // 20,
            watch=lambda positions, _: {"spread": jnp.std(positions)},
            label=f"walk {n}",
            chunk=5,
        )
        spreads.append(loop.history["spread"])
        time.sleep(config.pause)
    match config.ending:
        case "raise":
            raise RuntimeError("the walkers are lost")
        case "exit":
            os._exit(7)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "print":
            print("{}, said a walker")
    session.note("they walked")
    steps = loop.history["step"]
    rises = [np.polyfit(np.log(steps[1:]), np.log(spread[1:]), 1)[0] for spread in spreads]
    data = xr.Dataset({"spread": (("walk", "step"), np.stack(spreads), {"units": "seconds"})}, coords={"step": steps})
    bound = Measure(float(np.max(spreads)), 1.0, math.inf, "no bound above")
    return Findings({"C1.exponent": Measure.exact(float(np.mean(rises)), 0.01), "C3.bound": bound}, xr.DataTree.from_dict({"/walks": data}))


def draw(findings: Findings) -> dict[str, Figure]:
    """The spread against the number of steps."""
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.plot(findings.data["walks/step"], np.transpose(findings.data["walks/spread"].values))
    axes.set(xlabel="step", ylabel="spread")
    return {"spread": figure}
