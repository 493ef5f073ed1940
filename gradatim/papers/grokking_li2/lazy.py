"""C1 and C2 without training of the features: the gradient that a learning read-out sends back to them."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.lab import Findings, Measure, Session, host_generator
from gradatim.landscape import PairNetwork, cyclic_group, lazy_readout, pair_features, pair_network, split_pairs

from .config import Config, Lazy

ORDER, N_TRAIN, NODES, FEW_NODES = 7, 32, 64, 8
"Of the problem whose gradient is followed: the features of many nodes express all targets, those of a few do not."
STEP, DECAY = 2e-3, 1e-2
"Step of the descent and weight decay, over the largest curvature; Euler's error is then below the step over e."
DECAYS = (0.0, 1e-4, 1e-2)
LOOK_LEAST = 200
"Steps between two looks, at least: Euler's error is largest at about 500 steps, and is not to be missed."
TIMES = np.geomspace(1e-3, 1e10, 120)
"Times, over the inverse of the largest curvature."
START = 1e-4
"Standard deviation of the first read-out."


def run_lazy(config: Lazy, session: Session, key: PRNGKeyArray) -> Findings:
    """The closed form against descent, and how the gradient fades with decay and without."""
    random = host_generator(key)
    train, _ = split_pairs(cyclic_group(ORDER), key=key, n_train=N_TRAIN)
    weights = jnp.asarray(random.normal(size=(2 * ORDER, NODES)))
    targets = jnp.asarray(np.eye(ORDER)[np.asarray(train.labels)])
    start = jnp.asarray(START * random.normal(size=(NODES, ORDER)))
    features = jax.jit(lambda weights, pairs: pair_features(weights, pairs, jnp.square))(weights, train.pairs)

    few = jnp.asarray(np.asarray(features)[:, :FEW_NODES])
    error, curve, times = _descended(config, session, few, targets, jnp.asarray(np.asarray(start)[:FEW_NODES]))
    sizes = jax.device_get(_sizes(features, targets, start))
    fading = sizes[:, -1] / sizes.max(axis=1)
    session.note(
        f"C1: final over largest gradient norm with decay over the largest curvature of {DECAYS}: {[float(f'{f:.2g}') for f in fading]}"
    )
    data = xr.Dataset(
        {
            "norm": (("decay", "time"), sizes, {"units": "1", "long_name": "norm of the gradient at the features"}),
            "descended": (("way", "look"), curve, {"units": "1", "long_name": "the same by descent and in closed form"}),
        },
        {"decay": list(DECAYS), "time": TIMES, "look_time": ("look", times), "way": ["descent", "closed form"]},
    )
    measures = {"C1.gradient_error": Measure.exact(error), "C1.late_gradient_without_decay": Measure.exact(float(fading[0]))}
    return Findings(measures, xr.DataTree.from_dict({"lazy": data}))


class _Problem(eqx.Module):
    features: Float[Array, "n nodes"]
    targets: Float[Array, "n outputs"]
    decay: Float[Array, ""]
    step: Float[Array, ""]


def _loss(readout: Array, problem: _Problem) -> Array:
    error = problem.targets - problem.features @ readout
    error = error - error.mean(axis=0, keepdims=True)
    return jnp.sum(error**2) / 2 + problem.decay / 2 * jnp.sum(readout**2)


def _descend(readout: Array, i: Array, problem: _Problem) -> Array:
    optimizer = optax.sgd(problem.step)
    updates, _ = optimizer.update(jax.grad(_loss)(readout, problem), optimizer.init(readout))
    return optax.apply_updates(readout, updates)  # pyright: ignore[reportReturnType]: an array, as was given


def _sent_back(readout: Array, problem: _Problem) -> dict[str, Array]:
    # By automatic differentiation, with the features as the variable.
    gradient = jax.grad(lambda features: _loss(readout, dataclasses.replace(problem, features=features)))(problem.features)
    return {"gradient": -gradient}


def _descended(config: Lazy, session: Session, features: Array, targets: Array, start: Array) -> tuple[float, np.ndarray, np.ndarray]:
    lazy, largest = _with_relative_decay(features, targets, start, DECAY)
    problem = _Problem(features, targets, lazy.decay, jnp.asarray(STEP / float(largest)))
    steps, every = config.descent_steps, max(config.descent_steps // 250, LOOK_LEAST)
    loop = session.loop(_descend, start, steps=steps, args=problem, every=every, watch=_sent_back, label="descent on fixed features")
    times = loop.history["step"] * STEP
    exact = np.asarray(lazy.feature_gradient(jnp.asarray(times / float(largest))))
    error = np.linalg.norm(loop.history["gradient"] - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))
    norms = np.stack([np.linalg.norm(gradient, axis=(1, 2)) for gradient in (loop.history["gradient"], exact)])
    return float(error.max()), norms, times


@eqx.filter_jit
def _with_relative_decay(features: Array, targets: Array, start: Array, decay: float) -> tuple[Any, Array]:
    lazy = lazy_readout(features, targets, decay=0.0, start=start)
    largest = lazy.rates[-1]
    return dataclasses.replace(lazy, decay=decay * largest), largest


@jax.jit
def _sizes(features: Array, targets: Array, start: Array) -> Array:
    lazy, largest = _with_relative_decay(features, targets, start, 0.0)

    def one(decay: Array) -> Array:
        gradients = dataclasses.replace(lazy, decay=decay * largest).feature_gradient(jnp.asarray(TIMES) / largest)
        return jnp.linalg.norm(gradients, axis=(1, 2))

    return jax.lax.map(one, jnp.asarray(DECAYS))


def run_simple_form(config: Config, session: Session, key: PRNGKeyArray) -> Findings:
    """C2: the late gradient of a first layer as it is drawn, against η ỸỸᵀF̃/((Kc + η)(nc + η)), its form if F̃F̃ᵀ = KcI and F̃ᵀF̃ = ncI."""
    lazy, group = config.lazy, cyclic_group(config.decays.order)
    n_train = config.decays.n_train
    widths = (config.decays.few_nodes, config.decays.width)
    decays = n_train / 2 * config.decays.decay * np.asarray(lazy.relative_decays)
    cosines, sizes = np.empty((2, len(widths), lazy.seeds, len(decays)))
    for i, width in enumerate(widths):
        for seed in range(lazy.seeds):
            key_split, key_network = jax.random.split(jax.random.fold_in(key, seed))
            train, _ = split_pairs(group, key=key_split, n_train=n_train)
            label, targets = f"late gradient, {width} nodes, seed {seed}", np.eye(group.order)[np.asarray(train.labels)]
            network = pair_network(group.order, width, key=key_network)
            found = session.once(label, _against_form, network, train.pairs, jnp.asarray(targets), jnp.asarray(decays))
            cosines[i, seed], sizes[i, seed] = found
    own = int(np.argmin(abs(np.asarray(lazy.relative_decays) - 1)))
    session.note(
        f"C2: cosine of the late gradient and ỸỸᵀF̃ at {lazy.relative_decays} times the training's weight decay, mean over seeds: "
        + "; ".join(f"{width} nodes {rows.mean(axis=0).round(3).tolist()}" for width, rows in zip(widths, cosines, strict=True))
    )
    session.note(
        "C2: the same of its length, over that of η ỸỸᵀF̃/((Kc + η)(nc + η)) with c in closed form: "
        + "; ".join(f"{width} nodes {rows.mean(axis=0).round(3).tolist()}" for width, rows in zip(widths, sizes, strict=True))
    )
    data = xr.Dataset(
        {
            "cosine": (("width", "seed", "relative_decay"), cosines, {"units": "1"}),
            "size": (("width", "seed", "relative_decay"), sizes, {"units": "1", "long_name": "length over that of the form"}),
        },
        {"width": list(widths), "relative_decay": list(lazy.relative_decays)},
        {"own": lazy.relative_decays[own]},
    )
    measure = Measure.over_seeds(cosines[-1, :, own])
    return Findings({"C2.gradient_cosine": measure}, xr.DataTree.from_dict({"simple_form": data}))


def isotropy(order: int) -> float:
    """E σ(wx)² - E σ(wx)σ(wx′), x and x′ without a common element: of x² and weights uniform in ±1/√(2M).

    >>> print(f"{36 * isotropy(1):.1f}")
    5.6
    """
    variance = 1 / (6 * order)
    # Of one weight the fourth moment is 9/5 its variance squared; that of the sum of two is 2 · 9/5 + 6 of it.
    return (2 * 1.8 + 6 - 2**2) * variance**2


@jax.jit
def _against_form(network: PairNetwork, pairs: Array, targets: Array, decays: Array) -> tuple[Array, Array]:
    """Cosine and relative length for each decay."""
    lazy = lazy_readout(network.features(pairs).astype(float), targets, decay=0.0)
    F, Y = lazy.problem.inputs, lazy.problem.targets
    simple = Y @ (Y.T @ F)
    c, (n, nodes) = isotropy(targets.shape[1]), F.shape

    def one(decay: Array) -> tuple[Array, Array]:
        late = dataclasses.replace(lazy, decay=decay).feature_gradient(jnp.inf)
        size, length = jnp.linalg.norm(simple), jnp.linalg.norm(late)
        form = decay * size / ((nodes * c + decay) * (n * c + decay))
        return jnp.sum(late * simple) / length / size, length / form

    return jax.lax.map(one, decays)
