"""C3: students of random networks on cubes of different dimension."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from gradatim.lab import Findings, Measure, Session

from .config import Students
from .measuring import exponents, normals

TEACHER_BIAS = 0.5
"Standard deviation of a teacher's biases: without them a ReLU network scales with its input, which takes a dimension away."


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
    fan_in = jnp.asarray(np.repeat(config.dimensions, n_sizes * config.seeds), jnp.float32)
    params = _networks(key_students, len(fan_in), inputs.shape[-1], config.width, fan_in, 0.0)
    state = (params, work.optimizer.init(params))
    loop = session.loop(_step, state, steps=config.steps, args=work, every=max(config.steps // 40, 1), watch=_watch, label="students")
    test = loop.history["test"].reshape(-1, n_dimensions, n_sizes, config.seeds)
    train = loop.history["train"][-1].reshape(n_dimensions, n_sizes, config.seeds)
    best = test.min(axis=0).swapaxes(1, 2)
    window = (min(config.sizes), max(config.sizes))
    exponent = np.stack([exponents(config.sizes, rows, window) for rows in best])
    dimension = [Measure.over_seeds(4 / row) for row in exponent]
    earlier = np.stack([exponents(config.sizes, rows, window) for rows in test[: 1 + 3 * len(test) // 4].min(axis=0).swapaxes(1, 2)])
    means, left = exponent.mean(axis=1), (train[:, -1] / test[-1, :, -1]).mean(axis=-1)
    is_kept = bool((means >= 1 / np.array(config.dimensions)).all())
    session.note(
        f"C3: exponents in {config.dimensions} dimensions {means.round(3).tolist()}, those after three quarters of the steps "
        f"{earlier.mean(axis=1).round(3).tolist()}; loss on the training samples at the end over the test loss, most samples: "
        f"{left.round(3).tolist()}; at least 1 over the dimension, as the bound has it: {'yes' if is_kept else 'no'}"
    )
    data = xr.Dataset(
        {
            "test_loss": (
                ("dimension", "seed", "size"),
                best,
                {"units": "1", "long_name": "mean squared error over the teacher's variance"},
            ),
            "train_loss": (("dimension", "size", "seed"), train, {"units": "1"}),
            "exponent": (("dimension", "seed"), exponent, {"units": "1"}),
            "curve": (("step", "dimension", "size", "seed"), test, {"units": "1"}),
        },
        {"dimension": list(config.dimensions), "size": list(config.sizes), "step": loop.history["step"]},
    )
    measures: dict[str, Measure] = {"C3.dimension_order": Measure.sequence(dimension)}
    untested: dict[str, str] = {}
    for d_claimed in (2, 4):
        if d_claimed in config.dimensions:
            measures[f"C3.dimension_{d_claimed}"] = dimension[config.dimensions.index(d_claimed)]
        else:
            untested[f"C3.dimension_{d_claimed}"] = f"no cube of {d_claimed} dimensions"
    return Findings(measures, xr.DataTree.from_dict({"students": data}), untested)


def outputs(params: PyTree, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Of a ReLU network with one output."""
    for number, (weight, bias) in enumerate(params):
        x = (jax.nn.relu(x) if number else x) @ weight + bias[None]
    return x[:, 0]


def _networks(key: PRNGKeyArray, n: int, features: int, width: int, fan_in: Array, bias: float) -> PyTree:
    """Weights of variance 2/inputs, of which only `fan_in` are not zero."""
    params = []
    for number, (a, b) in enumerate(((features, width), (width, width), (width, 1))):
        key_weight, key_bias = jax.random.split(jax.random.fold_in(key, number))
        size = fan_in[:, None, None] if number == 0 else jnp.full((n, 1, 1), width, jnp.float32)
        weight = jnp.sqrt(2 / size) * normals(key_weight, n, a, b, dtype=jnp.float32)
        params.append((weight, bias * normals(key_bias, n, b, dtype=jnp.float32)))
    return params


def _cubes(config: Students, key: PRNGKeyArray) -> tuple[Array, Array]:
    """Samples and targets, those for training first; targets of zero mean and unit variance."""
    key_inputs, key_teacher = jax.random.split(key)
    n, d, cubes = max(config.sizes) + config.n_test, max(config.dimensions), len(config.dimensions) * config.seeds
    fan_in = jnp.asarray(np.repeat(config.dimensions, config.seeds), jnp.float32)
    inputs = jax.random.uniform(key_inputs, (cubes * n * d,), jnp.float32, -1, 1).reshape(cubes, n, d)
    inputs = inputs * (jnp.arange(d)[None, None] < fan_in[:, None, None])
    teachers = _networks(key_teacher, cubes, d, config.teacher_width, fan_in, TEACHER_BIAS)
    targets = jax.jit(jax.vmap(outputs))(teachers, inputs)
    return inputs, (targets - targets.mean(axis=1, keepdims=True)) / targets.std(axis=1, keepdims=True)


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
