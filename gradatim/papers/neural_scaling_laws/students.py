"""C3: students of random networks on cubes of different dimension."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from gradatim.lab import Findings, Measure, Session, host_generator

from .config import Students
from .measuring import exponents, normals

TEACHER_BIAS = 0.5
"Standard deviation of a teacher's biases: without them a ReLU network scales with its input, which takes a dimension away."

TRAINED = 0.5
"A training loss over this share of the test loss says that steps limit, not samples: such sizes are not fitted."


class _Work(eqx.Module):
    """Replicas r have axes (dimension, size, seed), flattened; cubes have (dimension, seed); inputs are padded with zeros."""

    inputs: Float[Array, "cubes n d"]
    targets: Float[Array, "cubes n"]
    test_inputs: Float[Array, "cubes n_test d"]
    test_targets: Float[Array, "cubes n_test"]
    cube: Int[Array, " r"]
    n_samples: Int[Array, " r"]
    key: PRNGKeyArray
    steps: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    learning_rate: float = eqx.field(static=True)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.steps))


def run_students(config: Students, session: Session, key: PRNGKeyArray) -> Findings:
    """All students of all cubes trained together, and the exponents of their test losses."""
    key_cubes, key_students, key_batches = jax.random.split(key, 3)
    n_dimensions, n_sizes = len(config.dimensions), len(config.sizes)
    inputs, targets = _cubes(config, key_cubes)
    most = max(config.sizes)
    d, _, s = np.meshgrid(range(n_dimensions), range(n_sizes), range(config.seeds), indexing="ij")
    work = _Work(
        inputs=inputs[:, :most],
        targets=targets[:, :most],
        test_inputs=inputs[:, most:],
        test_targets=targets[:, most:],
        cube=jnp.asarray((d * config.seeds + s).ravel()),
        n_samples=jnp.asarray(np.repeat(np.tile(config.sizes, n_dimensions), config.seeds)),
        key=key_batches,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
    )
    fan_in = np.repeat(config.dimensions, n_sizes * config.seeds)
    params = _networks(key_students, len(fan_in), inputs.shape[-1], config.width, fan_in, 0.0)
    state = (params, work.optimizer.init(params))
    loop = session.loop(_step, state, steps=config.steps, args=work, every=max(config.steps // 40, 1), watch=_watch, label="students")
    test = loop.history["test"].reshape(-1, n_dimensions, n_sizes, config.seeds)
    train = loop.history["train"][-1].reshape(n_dimensions, n_sizes, config.seeds)
    best = test.min(axis=0).swapaxes(1, 2)
    share = (train.mean(axis=2) / test[-1].mean(axis=2)).astype(np.float64)
    fits = [_trained(config, rows, shares) for rows, shares in zip(best, share, strict=True)]
    # An exponent that is not known is not a number in the record.
    exponent = np.stack([np.full(config.seeds, np.nan) if fit is None else fit for fit in fits])
    whole = (min(config.sizes), max(config.sizes))
    earlier = test[: 1 + 3 * len(test) // 4].min(axis=0).swapaxes(1, 2)
    everywhere, before = ([round(float(exponents(config.sizes, rows, whole).mean()), 3) for rows in each] for each in (best, earlier))
    session.note(
        f"C3: loss on the training samples over the test loss at the end {share.round(3).tolist()} for {config.dimensions} dimensions and "
        f"{config.sizes} samples: exponents {exponent.mean(axis=1).round(3).tolist()} where it is at most {TRAINED}, elsewhere training "
        f"limits and not the samples; over all sizes {everywhere}, after three quarters of the steps {before}"
    )
    data = xr.Dataset(
        {
            "test_loss": (("dimension", "seed", "size"), best, {"units": "1", "long_name": "squared error over the teacher's variance"}),
            "train_share": (("dimension", "size"), share, {"units": "1", "long_name": "training loss over test loss"}),
            "exponent": (("dimension", "seed"), exponent, {"units": "1"}),
            "curve": (("step", "dimension", "size", "seed"), test, {"units": "1"}),
        },
        {"dimension": list(config.dimensions), "size": list(config.sizes), "step": loop.history["step"]},
        {"trained": TRAINED},
    )
    known = {d: 4 / fit for d, fit in zip(config.dimensions, fits, strict=True) if fit is not None}
    measures = {f"C3.dimension_{d}": Measure.over_seeds(known[d]) for d in (2, 4) if d in known}
    untested = {f"C3.dimension_{d}": _reason(d, config) for d in (2, 4) if d not in known}
    if len(known) == len(config.dimensions) > 1:
        measures["C3.dimension_order"] = Measure.paired_sequence(list(known.values()))
    else:
        untested["C3.dimension_order"] = next(
            (_reason(d, config) for d in config.dimensions if d not in known), "there is but one dimension"
        )
    if len(known) == len(config.dimensions):
        bound = [Measure.over_seeds(4 * d / known[d]) for d in config.dimensions]
        measures["C3.exponent_over_inverse"] = min(bound, key=lambda measure: measure.intervals()[0][0])
    else:
        untested["C3.exponent_over_inverse"] = next(_reason(d, config) for d in config.dimensions if d not in known)
    return Findings(measures, xr.DataTree.from_dict({"students": data}), untested)


def _trained(config: Students, losses: np.ndarray, share: np.ndarray) -> np.ndarray | None:
    """Exponents of the seeds over the sizes, from the least, at which samples limit and not the training; None for fewer than four."""
    n = int(np.argmax(np.append(share > TRAINED, True)))
    return exponents(config.sizes, losses, (config.sizes[0], config.sizes[n - 1])) if n >= 4 else None


def _reason(dimension: int, config: Students) -> str:
    if dimension not in config.dimensions:
        return f"no cube of {dimension} dimensions"
    return f"in {dimension} dimensions training came to an end at fewer than four sizes: take more steps"


def outputs(params: PyTree, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Of a ReLU network with one output."""
    for number, (weight, bias) in enumerate(params):
        x = (jax.nn.relu(x) if number else x) @ weight + bias[None]
    return x[:, 0]


def _networks(key: PRNGKeyArray, n: int, features: int, width: int, fan_in: Int[np.ndarray, " n"], bias: float) -> PyTree:
    """Weights of variance 2/inputs, of which only `fan_in` are not zero."""
    params = []
    for number, (a, b) in enumerate(((features, width), (width, width), (width, 1))):
        key_weight, key_bias = jax.random.split(jax.random.fold_in(key, number))
        size = fan_in[:, None, None] if number == 0 else width
        weight, shift = np.sqrt(2 / size) * normals(key_weight, n, a, b), bias * normals(key_bias, n, b)
        params.append((jnp.asarray(weight, jnp.float32), jnp.asarray(shift, jnp.float32)))
    return params


def _cubes(config: Students, key: PRNGKeyArray) -> tuple[Array, Array]:
    """Samples and targets, those for training first; targets of zero mean and unit variance."""
    key_inputs, key_teacher = jax.random.split(key)
    n, d, cubes = max(config.sizes) + config.n_test, max(config.dimensions), len(config.dimensions) * config.seeds
    fan_in = np.repeat(config.dimensions, config.seeds)
    inputs = host_generator(key_inputs).uniform(-1, 1, (cubes, n, d)) * (np.arange(d) < fan_in[:, None, None])
    teachers = _networks(key_teacher, cubes, d, config.teacher_width, fan_in, TEACHER_BIAS)
    inputs = jnp.asarray(inputs, jnp.float32)
    targets = np.asarray(jax.jit(jax.vmap(outputs))(teachers, inputs))
    centred = targets - targets.mean(axis=1, keepdims=True)
    return inputs, jnp.asarray(centred / targets.std(axis=1, keepdims=True))


def _error(params: PyTree, x: Array, y: Array) -> Array:
    return jnp.mean((outputs(params, x) - y) ** 2)


def _step(state: tuple[PyTree, optax.OptState], i: Array, work: _Work) -> tuple[PyTree, optax.OptState]:
    params, memory = state
    # The same places in the order of samples for all: replicas differ in how many there are.
    place = jax.random.uniform(jax.random.fold_in(work.key, i), (work.batch_size,), jnp.float32)
    rows = jnp.floor(place[None] * work.n_samples[:, None]).astype(jnp.int32)
    x, y = work.inputs[work.cube[:, None], rows], work.targets[work.cube[:, None], rows]
    gradient = jax.vmap(jax.grad(_error))(params, x, y)
    updates, memory = work.optimizer.update(gradient, memory)
    return optax.apply_updates(params, updates), memory


def _watch(state: tuple[PyTree, optax.OptState], work: _Work) -> dict[str, Array]:
    def losses(replica: tuple[PyTree, Array, Array]) -> tuple[Array, Array]:
        params, cube, n = replica
        squares = (outputs(params, work.inputs[cube]) - work.targets[cube]) ** 2
        known = jnp.arange(len(squares)) < n
        return _error(params, work.test_inputs[cube], work.test_targets[cube]), jnp.sum(squares, where=known) / n

    test, train = jax.lax.map(losses, (state[0], work.cube, work.n_samples))
    return {"test": test, "train": train}
