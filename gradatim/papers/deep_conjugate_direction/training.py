"""Training of all networks: both weightings of the spectrum, every seed."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int

from gradatim.lab import Session, host_generator
from gradatim.sciml import (
    DirectionTraining,
    GridResNet,
    PoissonSystem,
    RitzBasis,
    direction_step,
    mean_direction_loss,
    spectral_right_hand_sides,
    spectral_weights,
)

from .config import Config, Training

HELD_OUT = 10
"One right-hand side of so many is held out."
LOOKS = 30
"At the loss of a batch, of each network."


class Trained(NamedTuple):
    """Networks by weighting and seed, and how they learned."""

    networks: list[list[Any]]
    "The boosted ones first."
    data: xr.Dataset
    spectrum: xr.Dataset


class _Task(eqx.Module):
    b: Float[Array, "samples ..."]
    rows: Int[Array, "steps batch"]
    system: PoissonSystem
    optimizer: optax.GradientTransformation = eqx.field(static=True)


class _State(eqx.Module):
    training: DirectionTraining
    loss: Float[Array, ""]


def build(config: Training, ndim: int, key: jax.Array) -> GridResNet:
    """A network before training."""
    if len(config.pairs) != 3:
        raise ValueError(f"training.pairs must be three numbers, got {config.pairs}")
    before, below, above = config.pairs
    return GridResNet(
        ndim,
        channels=config.channels,
        pairs_before=before,
        pairs_below=below,
        pairs_above=above,
        use_bias=config.use_bias,
        key=key,
    )


def train(config: Config, system: PoissonSystem, basis: RitzBasis, session: Session, key: jax.Array) -> Trained:
    """All networks, one after another."""
    settings = config.training
    n_held = max(settings.samples // HELD_OUT, 1)
    keys = jax.random.split(key, 2 * settings.seeds + 1)
    boosts = (settings.boost, 1.0)
    single = basis._replace(vectors=basis.vectors.astype(jnp.float32))
    random = host_generator(keys[0])
    rows = random.integers(settings.samples - n_held, size=(settings.seeds, settings.steps, settings.batch_size), dtype=np.int32)
    made: Any = eqx.filter_jit(lambda k: build(settings, system.is_fluid.ndim, k))
    # One object for all, or each network would have a program of its own.
    optimizer = optax.chain(
        optax.clip_by_global_norm(settings.clip), optax.adam(optax.cosine_decay_schedule(settings.learning_rate, settings.steps))
    )
    initial: Any = optimizer.init
    # On the host, where zeros of every shape need no program.
    memory = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(lambda k: initial(made(k)), keys[0]))
    untrained = [made(k) for k in keys[settings.seeds + 1 :]]
    networks, losses, held, energies = [], [], [], []
    steps = np.zeros(0)
    for boost in boosts:
        for seed, network in enumerate(untrained):
            b = spectral_right_hand_sides(single, settings.samples, key=keys[1 + seed], boost=boost, low_fraction=settings.low_fraction)
            task = _Task(b, jnp.asarray(rows[seed]), system, optimizer)
            state = _State(DirectionTraining(network, memory), jnp.asarray(np.float32(1)))
            label = f"network of seed {seed}, weight {boost:g}"
            every = max(settings.steps // LOOKS, 1)
            loop = session.loop(_step, state, steps=settings.steps, every=every, args=task, watch=_watch, label=label)
            networks.append(loop.state.training.network)
            losses.append(loop.history["loss"])
            held.append(float(session.once(f"{label}, held out", _held_out, networks[-1], system, b[-n_held:])))
            energies.append(_energy(single, b))
            steps = loop.history["step"]
    shape = (len(boosts), settings.seeds)
    coordinates = {"boost": list(boosts), "row": steps}
    data = xr.Dataset(
        {
            # At step 0 no loss is known yet, and 1 stands for it.
            "loss": (("boost", "seed", "row"), np.array(losses).reshape(*shape, -1), {"units": "1"}),
            "held_out": (("boost", "seed"), np.array(held).reshape(shape), {"units": "1"}),
        },
        coordinates,
    )
    is_low = spectral_weights(len(single.values), boost=2.0, low_fraction=settings.low_fraction) > 1
    spectrum = xr.Dataset(
        {
            "energy": (("boost", "ritz"), np.array(energies).reshape(*shape, -1).mean(axis=1), {"units": "1"}),
            "value": ("ritz", np.asarray(single.values, np.float64), {"units": "1"}),
            "is_low": ("ritz", is_low, {"units": "1"}),
        },
        coords={"boost": list(boosts)},
    )
    by_weight = [networks[arm * settings.seeds : (arm + 1) * settings.seeds] for arm in range(len(boosts))]
    return Trained(by_weight, data, spectrum)


# One function for all trainings, with everything in `args`: it is compiled once.
def _step(state: _State, i: Array, task: _Task) -> _State:
    batch = task.b[task.rows[i]]
    return _State(*direction_step(state.training, task.system, batch, task.optimizer, forward=GridResNet.by_convolutions))


def _watch(state: _State, task: _Task) -> dict[str, Array]:
    del task
    return {"loss": state.loss}


@eqx.filter_jit
def _held_out(network: GridResNet, system: PoissonSystem, b: Array) -> Array:
    return mean_direction_loss(network, system, b, forward=GridResNet.by_convolutions)


def _energy(basis: RitzBasis, b: Array) -> np.ndarray:
    """Mean share of each Ritz vector."""
    vectors = np.asarray(basis.vectors).reshape(len(basis.values), -1)
    return ((np.asarray(b).reshape(len(b), -1) @ vectors.T) ** 2).mean(axis=0)
