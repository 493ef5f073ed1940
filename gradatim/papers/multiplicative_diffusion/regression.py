"""How weights end up distributed: sparse positive regression by exponentiated and by plain gradient descent."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Session
from gradatim.optim import exponentiated_gradient

from .config import Config

DESCENTS = ("exponentiated", "plain")
KEPT = 20_000
"Weights of each descent that are kept for a figure."


def problems(config: Config, key: Array) -> tuple[Array, Array]:
    """Inputs and outputs of every run, single precision; the teacher's weights are one or zero."""
    settings = config.regression

    @jax.jit
    def draw(key: Array) -> tuple[Array, Array]:
        count = settings.runs * settings.examples * settings.weights
        inputs = jax.random.normal(key, (count,), jnp.float32).reshape(settings.runs, settings.examples, settings.weights)
        # Inputs are all alike, so that which weights are active does not matter.
        return inputs, inputs[..., : settings.active].sum(axis=-1)

    return draw(key)


def run_regression(config: Config, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Both descents at all rates from the same even weights, and the skewness of the logarithm of what they end in."""
    settings = config.regression
    if settings.active > settings.weights:
        raise ValueError(f"regression.active must be at most regression.weights, got {settings.active} of {settings.weights}")
    rates = jnp.asarray(settings.rates, jnp.float32)
    makers: dict[str, Any] = {"exponentiated": exponentiated_gradient, "plain": optax.sgd}

    def loss(weights: Array, inputs: Array, outputs: Array) -> Array:
        return jnp.mean((inputs @ weights - outputs) ** 2) / 2

    def step(state: dict[str, Array], i: Array, args: Any) -> dict[str, Array]:
        inputs, outputs, rates = args

        def one(weights: Array, rate: Array, inputs: Array, outputs: Array, descent: str) -> Array:
            optimizer = makers[descent](rate)
            gradient = jax.grad(loss)(weights, inputs, outputs)
            updates, _ = optimizer.update(gradient, optimizer.init(weights), weights)
            return weights + updates

        def all_of(weights: Array, descent: str) -> Array:
            per_run = jax.vmap(lambda w, rate, x, y: one(w, rate, x, y, descent), (0, None, 0, 0))
            return jax.vmap(per_run, (0, 0, None, None))(weights, rates, inputs, outputs)

        return {descent: all_of(weights, descent) for descent, weights in state.items()}

    def watch(state: dict[str, Array], args: Any) -> dict[str, Array]:
        inputs, outputs, _ = args
        of_all = jax.vmap(jax.vmap(loss), (0, None, None))
        return {descent: of_all(weights, inputs, outputs) for descent, weights in state.items()}

    even = jnp.full((len(settings.rates), settings.runs, settings.weights), settings.active / settings.weights, jnp.float32)
    loop = session.loop(
        step,
        dict.fromkeys(DESCENTS, even),
        steps=settings.steps,
        args=(*problems(config, key), rates),
        watch=watch,
        label="regression by two descents",
        on_nonfinite="keep",
    )
    rows, best = {}, {}
    for descent in DESCENTS:
        final = loop.history[descent][-1].mean(axis=1)
        best[descent] = int(np.where(np.isfinite(final), final, np.inf).argmin())
        weights = np.asarray(loop.state[descent], np.float64)[best[descent]]
        rows[descent] = {
            "skewness": skewness(np.log(np.abs(weights))),
            "weight_skewness": skewness(weights),
            "final_loss": loop.history[descent][-1, best[descent]],
            "loss": loop.history[descent][:, best[descent]].mean(axis=1),
            "weight": weights.ravel()[:KEPT],
        }
    _note(session, config, rows, {descent: settings.rates[row] for descent, row in best.items()})
    dims = {"loss": ("descent", "row"), "weight": ("descent", "kept")}
    data = xr.Dataset(
        {name: (dims.get(name, ("descent", "run")), np.stack([rows[d][name] for d in DESCENTS]), {"units": "1"}) for name in rows["plain"]},
        coords={"descent": list(DESCENTS), "row": loop.history["step"]},
    )
    data["start"] = ((), settings.active / settings.weights, {"units": "1"})
    return {"regression": data}


def skewness(values: np.ndarray) -> np.ndarray:
    """Along the last axis: the third central moment over the standard deviation cubed."""
    centred = values - values.mean(axis=-1, keepdims=True)
    return (centred**3).mean(axis=-1) / (centred**2).mean(axis=-1) ** 1.5


def _note(session: Session, config: Config, rows: dict[str, dict[str, np.ndarray]], rates: dict[str, float]) -> None:
    grid = config.regression.rates
    parts = []
    for descent, row in rows.items():
        edge = ", at an edge of the grid" if len(grid) > 1 and rates[descent] in (min(grid), max(grid)) else ""
        parts.append(
            f"{descent} descent, rate {rates[descent]:g}{edge}: mean loss {row['final_loss'].mean():.2g}, median skewness of log-weights "
            f"{np.median(row['skewness']):.2f} and of weights {np.median(row['weight_skewness']):.2f}, "
            f"{(row['weight'] < 0).mean():.0%} of the weights negative"
        )
    session.note("C8: " + "; ".join(parts) + "; of negative weights, the logarithm of the modulus")
