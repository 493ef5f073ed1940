"""Gradient descent on a quadratic (example 0000.00000): how fast the error shrinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Between, Findings, Measure, Session

PRECISION = "single"


@dataclass(frozen=True)
class Config:
    """A diagonal quadratic, and the descent on it."""

    dimension: Annotated[int, Between(2, 1_000_000)] = 100
    "Number of unknowns."
    condition: Annotated[float, Between(1.0, 1000.0)] = 10.0
    "Ratio L / μ of the ends of the spectrum."
    steps: Annotated[int, Between(10, 100_000)] = 200
    "Steps of gradient descent."
    n_starts: Annotated[int, Between(3, 1000)] = 5
    "Random starting points."


SCALES = {"smoke": Config(dimension=10, steps=100, n_starts=3), "laptop": Config(), "full": Config(dimension=10_000, steps=1000)}


def memory(config: Config) -> int:
    """Bytes: a handful of arrays of one number per start and unknown."""
    return 5 * 4 * config.n_starts * config.dimension


def run(config: Config, session: Session) -> Findings:
    """Descends from several starts at once with η = 2 / (μ + L), and compares the last step's factor with the predicted one."""
    eigenvalues = jnp.linspace(1.0, config.condition, config.dimension)
    rate = 2 / (1 + config.condition)
    start = jax.random.normal(session.key, (config.n_starts, config.dimension))

    # Rescaled after each step, so that many steps do not end below the smallest number there is.
    def step(state, i, eigenvalues):
        error, _ = state
        error = error - rate * eigenvalues * error
        factor = jnp.linalg.norm(error, axis=1)
        return error / factor[:, None], factor

    state = (start / jnp.linalg.norm(start, axis=1, keepdims=True), jnp.ones(config.n_starts))
    loop = session.loop(
        step, state, steps=config.steps, args=eigenvalues, watch=lambda state, _: {"factor": state[1]}, label="gradient descent"
    )
    predicted = max(abs(1 - rate), abs(1 - rate * config.condition))
    factors = loop.history["factor"]
    data = xr.Dataset(
        {"factor": (("step", "start"), factors, {"units": "1"}), "predicted": ((), predicted, {"units": "1"})},
        coords={"step": loop.history["step"]},
    )
    measures = {"C1.rate_ratio": Measure.over_seeds(np.asarray(factors[-1], np.float64) / predicted)}
    return Findings(measures, xr.DataTree.from_dict({"/": data}))


def draw(findings: Findings) -> dict[str, Figure]:
    """The factor of each step against the predicted one."""
    data = findings.data.to_dataset()
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(data["step"], data["factor"], color="tab:blue", linewidth=1)
    axes.axhline(float(data["predicted"]), color="black", linestyle="--", label="predicted")
    axes.set(xlabel="step", ylabel="factor of the error", ylim=(None, 1))
    axes.legend()
    return {"factor": figure}
