"""A batch of phase fields that differ in numbers only goes through one compiled loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradatim.lab import Session
from gradatim.physics import phase_field as pf

DELTA = 2.5
"Half width of an interface for W = κ = 1 and a gap of 0.8: cells enough that the grid does not hold it."


class _Batch(NamedTuple):
    models: pf.Thermotransport
    stepper: pf.SemiImplicit
    extra: Any


def _step(c: Array, i: Array, batch: _Batch) -> Array:
    del i
    return jax.vmap(lambda model, c: pf.SemiImplicit(model, batch.stepper.response)(c))(batch.models, c)


def each(watch: Callable[[Array, pf.Thermotransport, Any], dict[str, Array]]) -> Callable[[Array, _Batch], dict[str, Array]]:
    """A watch of one state as a watch of the batch."""
    return lambda c, batch: jax.vmap(watch)(c, batch.models, batch.extra)


def positions(model: pf.Thermotransport) -> Array:
    """Centres of the cells along the gradient."""
    return jnp.arange(model.shape[0]) + 0.5


def evolve(
    session: Session,
    label: str,
    models: Sequence[pf.Thermotransport],
    start: Array,
    *,
    time: float,
    dt: float,
    watch: Callable[[Array, _Batch], dict[str, Array]],
    looks: int,
    extra: Any = (),
) -> tuple[Array, dict[str, np.ndarray]]:
    """States after `time` and what `watch` saw `looks` times; the times themselves are under "time"."""
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *models)
    # One response for all: it only damps the increment, and theirs differ by the few per cent of their gaps in composition.
    batch = _Batch(stacked, _stepper(models[0], dt), extra)

    every = max(round(time / dt / looks), 1)
    loop = session.loop(_step, start, steps=every * looks, args=batch, every=every, watch=watch, label=label)
    return loop.state, {**loop.history, "time": dt * loop.history["step"]}


@eqx.filter_jit
def _stepper(model: pf.Thermotransport, dt: float | Array) -> pf.SemiImplicit:
    return model.stepper(dt)


@eqx.filter_jit
def local_equilibrium(free_energy: pf.QuarticTwoPhase, T: Array, phase: Array) -> Array:
    """Each phase with its own composition at the temperature of the place."""
    a, b = free_energy.stable_compositions(T)
    return a + (b - a) * phase


def ramp(n: int, gradient: float) -> np.ndarray:
    """The temperature of each cell along a bar, T₀ = 1 in the middle."""
    return 1 + gradient * (np.arange(n) + 0.5 - n / 2)


def disc_field(shape: tuple[int, ...], centre: tuple[float, float], radius: float) -> np.ndarray:
    """φ of one disc, y periodic."""
    x, y = (np.arange(n) + 0.5 for n in shape)
    across = (y - centre[1] + shape[1] / 2) % shape[1] - shape[1] / 2
    return (1 - np.tanh((np.hypot((x - centre[0])[:, None], across[None, :]) - radius) / DELTA)) / 2


def steady_speed(time: np.ndarray, position: np.ndarray) -> tuple[float, float]:
    """The slope over the second half, and half the difference between its own halves as the error; NaN for what was lost on the way."""
    if not np.isfinite(position).all():
        return np.nan, np.nan
    half, three = len(time) // 2, 3 * len(time) // 4
    parts = (slice(half, None), slice(half, three + 1), slice(three, None))
    slope, early, late = (float(np.polyfit(time[part], position[part], 1)[0]) for part in parts)
    return slope, abs(early - late) / 2


def sign_change(x: np.ndarray, y: np.ndarray) -> float | None:
    """Where a piecewise linear curve first changes sign."""
    for i in range(len(x) - 1):
        if y[i] * y[i + 1] <= 0 and y[i] != y[i + 1]:
            return float(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))
    return None
