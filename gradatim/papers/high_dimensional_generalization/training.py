"""Two-layer networks with both layers trained on noisy labels: the widest beside the narrowest (C7)."""

from __future__ import annotations

from itertools import product
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim.lab import Findings, Measure, Session
from gradatim.landscape import relu_features

from .config import Students, Trained

POWER = 0.5
"Mean square of the teacher's output."
CONVERGED = 1e-6
"A training error that is none."


class _Work(eqx.Module):
    inputs: Any  # (seed, sample, dim)
    labels: Any
    test_inputs: Any
    test_targets: Any
    owner: Any  # (unit, network): 1 where the unit is the network's
    rates: Any  # of each unit


def run_trained(config: Trained, students: Students, session: Session) -> Findings:
    """C7: all widths and rates are one long hidden layer, of which each network reads its own units."""
    d, k = students.inputs, students.teacher_units
    networks = list(product(config.widths, config.rates))
    sizes = np.array([width for width, _ in networks])
    owner = np.repeat(np.arange(len(networks)), sizes)
    noise = POWER / config.snr

    @jax.jit
    def draw(key: Any) -> tuple[Any, Any]:
        # Single precision: nothing here comes near its limits, and it takes half the time.
        counts = [config.samples * d, config.test * d, k * d, k, config.samples, len(owner) * d, len(owner)]
        draws = jax.random.normal(key, (config.seeds * sum(counts),), jnp.float32).reshape(config.seeds, -1)
        x, test, teacher, weights, label_noise, layer, read_out = jnp.split(draws, np.cumsum(counts)[:-1], axis=1)
        x, test, teacher, layer = (a.reshape(config.seeds, -1, d) for a in (x, test, teacher / d**0.5, layer / d**0.5))

        def targets(x: Any) -> Any:
            return jax.vmap(lambda x, teacher, weights: relu_features(x, teacher) @ weights)(x, teacher, weights / k**0.5)

        work = _Work(
            inputs=x,
            labels=targets(x) + noise**0.5 * label_noise,
            test_inputs=test,
            test_targets=targets(test),
            owner=jnp.asarray(np.eye(len(networks))[owner], jnp.float32),
            rates=jnp.asarray(np.array([rate for _, rate in networks])[owner], jnp.float32),
        )
        scale = jnp.asarray(1 / np.sqrt(sizes[owner]), jnp.float32)
        return work, {"layer": layer, "read_out": read_out * scale[None]}

    work, params = draw(jax.random.fold_in(session.key, 2000))
    loop = session.loop(
        _step, (params, ADAM.init(params)), steps=config.steps, args=work, every=max(config.steps // 60, 1), watch=_watch, label="trained"
    )
    shape = (-1, config.seeds, len(config.widths), len(config.rates))
    train, test = (loop.history[name].reshape(shape) for name in ("train", "test"))
    # Of a new noisy label, as everywhere else.
    test = test + noise
    # Where all of them interpolate, the least of round-off errors would say nothing.
    final, rates = train[-1].mean(axis=0), np.asarray(config.rates)
    chosen = (final <= 1.05 * final.min(axis=1, keepdims=True) + CONVERGED).argmax(axis=1)
    if len(rates) > 1:
        on_edge = [w for w, c in zip(config.widths, chosen, strict=True) if c in (0, len(rates) - 1)]
        ends = test[-1].mean(axis=0)
        session.note(
            f"trained networks: the chosen rate is on the edge of the grid {config.rates} for widths {on_edge}; final test errors by rate: "
            + "; ".join(f"{w}: " + ", ".join(f"{e:.3g}" for e in row) for w, row in zip(config.widths, ends, strict=True))
        )
    best = np.arange(len(config.widths))
    train, test = train[:, :, best, chosen], test[:, :, best, chosen]
    session.note(
        "trained networks, final training and test error by width, noise included: "
        + ", ".join(f"{w}: {a:.3g}, {b:.3g}" for w, a, b in zip(config.widths, train[-1].mean(axis=0), test[-1].mean(axis=0), strict=True))
    )
    unit = {"units": "output squared"}
    data = xr.Dataset(
        {"train": (("step", "seed", "width"), train, unit), "test": (("step", "seed", "width"), test, unit)},
        {
            "step": ("step", loop.history["step"], {"units": "steps"}),
            "width": ("width", list(config.widths), {"units": "hidden units"}),
            "rate": ("width", rates[chosen], {"units": "1"}),
        },
    )
    measures = {"C7.trained_wide_over_narrow": Measure.paired(test[-1, :, -1], test[-1, :, 0], kind="log-ratio")}
    return Findings(measures, xr.DataTree.from_dict({"trained": data}))


ADAM = optax.scale_by_adam()


def _outputs(params: Any, inputs: Any, owner: Any) -> Any:
    """Of all networks, one a column."""
    return (relu_features(inputs, params["layer"]) * params["read_out"][None]) @ owner


def _squared(params: Any, inputs: Any, targets: Any, owner: Any) -> Any:
    return jnp.mean((_outputs(params, inputs, owner) - targets[:, None]) ** 2, axis=0)


def _step(state: Any, i: Any, work: _Work) -> Any:
    params, memory = state

    # No weight has a part in two networks: the gradient of the sum is that of each.
    def total(params: Any, inputs: Any, labels: Any) -> Any:
        return jnp.sum(_squared(params, inputs, labels, work.owner))

    gradient = jax.vmap(jax.grad(total))(params, work.inputs, work.labels)
    direction, memory = ADAM.update(gradient, memory)
    rates = {"layer": work.rates[None, :, None], "read_out": work.rates[None]}
    return jax.tree.map(lambda w, rate, step: w - rate * step, params, rates, direction), memory


def _watch(state: Any, work: _Work) -> dict[str, Any]:
    errors = jax.vmap(_squared, in_axes=(0, 0, 0, None))
    return {
        "train": errors(state[0], work.inputs, work.labels, work.owner),
        "test": errors(state[0], work.test_inputs, work.test_targets, work.owner),
    }
