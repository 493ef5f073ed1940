"""Searches for images: every sampler from every seed's weights and batches, and what comes of them."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim.lab import Session, host_generator
from gradatim.nets import CellSupernet, SearchSpace, entropies
from gradatim.optim import (
    ArchitectureSearch,
    ArchitectureState,
    dirichlet_mixture,
    evolved_architectures,
    gumbel_straight_through,
    official_logit_optimizer,
    random_architectures,
    softmax_mixture,
    sparsemax_mixture,
    uniform_one_hot,
)

from .config import Search
from .networks import Images, Parts, accuracies, adam, batches, image_loss, load_parts, make_nets, rest_of
from .table import SEED, Table, read_table, train_table

HOTTEST, COLDEST = 10.0, 0.1
"Temperatures of the Gumbel sampler, at the start and at the end."
OURS, UNIFORM, UNSHARED = "Dirichlet", "uniform", "Dirichlet, no shares"
ARMS = (OURS, "softmax", "sparsemax", "Gumbel", UNIFORM, UNSHARED)
"The uniform arm is the first stage of a search in two; the last is the Dirichlet arm without the shares of groups of operations."
INHERITED = (OURS, UNIFORM)
"Arms whose supernets are read out as every architecture."
NOBODY = -1


def samplers(steps: int) -> tuple[Any, ...]:
    """Of the arms but the last, in their order; the last has the first's."""
    gumbel = gumbel_straight_through(optax.linear_schedule(HOTTEST, COLDEST, max(steps - 1, 1)))
    return dirichlet_mixture, softmax_mixture, sparsemax_mixture, gumbel, uniform_one_hot


def run_searches(config: Search, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Searches, networks with inherited weights, the second stage, and seconds of each; with a table, regrets."""
    key_nets, key_rows, key_steps, key_second = jax.random.split(key, 4)
    parts, rest = load_parts(config, session), rest_of(config)
    space: SearchSpace = rest.space
    if config.rebuild:
        table: Table | None = train_table(config, space, parts, session, jax.random.key(SEED))
    else:
        table = read_table(config)
    nets = make_nets(config, jax.random.split(key_nets, config.seeds))
    models, history = _searched(config, session, parts, rest, nets, key_rows, key_steps)
    found = history["incumbent"]  # (row, arm, seed, choice)
    order = [ARMS.index(name) for name in INHERITED]
    arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf[order].reshape(-1, *leaf.shape[2:])), models)
    scored = (np.asarray(part)[: config.n_scored] for part in parts.validation)
    tested = (np.asarray(part)[: config.n_inherited] for part in parts.test)
    both = Images(*(jnp.asarray(np.concatenate(pair)) for pair in zip(scored, tested, strict=True)))
    positions = jnp.asarray(space.every())
    right = session.once("as every architecture", lambda: np.asarray(accuracies(arrays, rest, positions, both), np.int8))
    shares = right.reshape(len(INHERITED), config.seeds, space.n_architectures, -1)
    validation, test = (100 * part.mean(-1) for part in (shares[..., : config.n_scored], shares[..., config.n_scored :]))
    second = _second_stage(config, space, validation[INHERITED.index(UNIFORM)], key_second)
    searches = xr.Dataset(
        {
            "incumbent": (("row", "arm", "seed"), _numbers(space, found), {"units": "1"}),
            "entropy": (("row", "arm", "seed", "choice"), history["entropy"], {"units": "1"}),
            "train_loss": (("row", "arm", "seed"), history["train"], {"units": "nat"}),
            "second_incumbent": (("stage", "seed", "evaluation"), second, {"units": "1"}),
            "validation": (("supernet", "seed", "architecture"), validation, {"units": "%"}),
            "inherited": (("supernet", "seed", "architecture"), test, {"units": "%"}),
        },
        {
            "arm": list(ARMS),
            "row": history["step"],
            "choice": [choice.name for choice in space.choices],
            "stage": ["random", "evolutionary"],
            "supernet": list(INHERITED),
        },
    )
    trees = {"searches": searches}
    # Without a table there is no regret for them to be set against.
    if table is not None:
        seconds = _seconds(config, session, parts, rest, jax.tree.map(lambda leaf: leaf[0], nets))
        trees["seconds"] = xr.Dataset({name: ("repeat", values, {"units": "s"}) for name, values in seconds.items()})
        trees["table"] = xr.Dataset(
            {
                "accuracy": (("architecture", "table_seed"), table.accuracies, {"units": "%"}),
                "option": (("architecture", "choice"), space.every(), {"units": "1"}),
            }
        )
    return trees


class _State(eqx.Module):
    model: Any
    logits: Any
    weight_memory: Any
    logit_memory: Any
    train: Any
    "Loss of the last batch."


class _Task(eqx.Module):
    rest: Any
    parts: Parts
    rows: Any
    "(step, seed, part, batch)"
    arm_of: Any
    seed_of: Any
    key: Any


def _searched(
    config: Search, session: Session, parts: Parts, rest: Any, nets: Any, key_rows: jax.Array, key_steps: jax.Array
) -> tuple[Any, dict[str, np.ndarray]]:
    """All arms from all seeds through one program: the arm decides which sampler's probabilities count.

    The last networks, (arm, seed), on the host, and what was watched.
    """
    space, each = rest.space, samplers(config.steps)
    random = host_generator(key_rows)
    halves = parts[:2]
    rows = [
        np.stack([batches(random, len(half.labels), config.batch_size, config.steps) for half in halves], axis=1)
        for _ in range(config.seeds)
    ]
    arm_of, seed_of = np.indices((len(ARMS), config.seeds), np.int32).reshape(2, -1)
    task = _Task(rest, parts, jnp.asarray(np.stack(rows, axis=1)), jnp.asarray(arm_of), jnp.asarray(seed_of), key_steps)

    @eqx.filter_jit
    def begin(nets: Any, keys: Any) -> _State:
        def one(given: Any) -> _State:
            arrays, key = given
            state = _method(config, softmax_mixture).init(arrays, space.logits(key))
            return _State(state.model, state.logits, state.weight_memory, state.logit_memory, jnp.zeros(()))

        states = jax.lax.map(one, (nets, keys))
        return jax.tree.map(lambda leaf: jnp.tile(leaf, (len(ARMS),) + (1,) * (leaf.ndim - 1)), states)

    def step(state: _State, i: Any, task: _Task) -> _State:
        def one(given: Any) -> _State:
            state, arm, seed = given

            def sampler(logits: Any, key: Any, step: Any) -> Any:
                drawn = [draw(logits, key, step) for draw in each]
                return {name: sum((arm % len(each) == j) * p[name] for j, p in enumerate(drawn)) for name in logits}

            def loss(arrays: Any, p: Any, batch: Images) -> Any:
                return image_loss(_with_shares(eqx.combine(arrays, task.rest), arm != ARMS.index(UNSHARED)), p, batch)

            train, validation = (Images(*(leaf[task.rows[i, seed, j]] for leaf in half)) for j, half in enumerate(task.parts[:2]))
            before = ArchitectureState(state.model, state.logits, state.weight_memory, state.logit_memory, i)
            key = jax.random.fold_in(jax.random.fold_in(task.key, i), seed)
            after, losses = _method(config, sampler, loss).step(before, train, validation, key)
            return _State(after.model, after.logits, after.weight_memory, after.logit_memory, losses.train)

        return jax.lax.map(one, (state, task.arm_of, task.seed_of))

    def watch(state: _State, task: _Task) -> dict[str, Any]:
        del task
        h = entropies({name: jax.nn.softmax(a) for name, a in state.logits.items()})
        columns = jnp.stack([h[choice.name] for choice in space.choices], axis=-1)
        return {"incumbent": space.discretise(state.logits), "entropy": columns, "train": state.train}

    start = begin(nets, jax.random.split(jax.random.fold_in(key_steps, config.steps), config.seeds))
    loop = session.loop(step, start, steps=config.steps, args=task, every=max(config.steps // 30, 1), watch=watch, label="searches")
    shape = (len(ARMS), config.seeds)
    history = {name: column.reshape(len(column), *shape, *column.shape[2:]) for name, column in loop.history.items() if name != "step"}
    models = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(*shape, *leaf.shape[1:]), loop.state.model)
    return models, history | {"step": loop.history["step"]}


def _method(config: Search, sampler: Any, loss: Any = image_loss, is_learned: bool = True) -> ArchitectureSearch:
    optimizer = official_logit_optimizer(config.logit_rate) if is_learned else None
    return ArchitectureSearch(loss, sampler, adam(config.learning_rate, config.steps), optimizer)


def _with_shares(net: Any, has_shares: Any) -> Any:
    """The cell supernet with its operations told whether groups have shares; others have no groups."""
    if not isinstance(net, CellSupernet):
        return net

    def where(net: CellSupernet) -> list[Any]:
        return [edge.has_shares for cell in net.cells for edge in cell.edges]

    return eqx.tree_at(where, net, [has_shares] * len(where(net)))


def _numbers(space: SearchSpace, positions: np.ndarray) -> np.ndarray:
    """Of incumbents; the uniform arm has none."""
    numbers = np.array(np.ravel_multi_index(tuple(np.moveaxis(positions, -1, 0)), space.sizes))
    numbers[:, ARMS.index(UNIFORM)] = NOBODY
    return numbers


def _second_stage(config: Search, space: SearchSpace, scores: np.ndarray, key: jax.Array) -> np.ndarray:
    """Incumbents of random and of evolutionary search over the networks with inherited weights, (stage, seed, evaluation)."""
    incumbents = np.zeros((2, config.seeds, min(config.n_evaluations, space.n_architectures)), int)
    for seed, (one, row) in enumerate(zip(jax.random.split(key, config.seeds), scores, strict=True)):

        def score(positions: np.ndarray, row: np.ndarray = row) -> np.ndarray:
            return row[np.ravel_multi_index(tuple(positions.T), space.sizes)]

        n = config.n_evaluations
        some = max(config.population // 3, 1)
        stages = (
            random_architectures(score, space, n_evaluations=n, key=one),
            evolved_architectures(
                score, space, n_evaluations=n, key=one, population=config.population, n_parents=some, n_mutants=some, n_crossed=some
            ),
        )
        for i, stage in enumerate(stages):
            incumbents[i, seed] = np.ravel_multi_index(tuple(stage.incumbents.T), space.sizes)
    return incumbents


def _seconds(config: Search, session: Session, parts: Parts, rest: Any, arrays: Any) -> dict[str, np.ndarray]:
    """Of one step of a search by gradients, one of a uniform supernet, and one score of the second stage, each by itself."""
    space: SearchSpace = rest.space
    train, validation = (Images(*(leaf[: config.batch_size] for leaf in half)) for half in parts[:2])
    scored = Images(*(leaf[: config.n_scored] for leaf in parts.validation))
    first = space.one_hot(jnp.zeros(len(space.choices), jnp.int32))
    key, calls = jax.random.key(0), {}

    def loss(arrays: Any, p: Any, batch: Images) -> Any:
        return image_loss(eqx.combine(arrays, rest), p, batch)

    for name, sampler, is_learned in (("gradient step", dirichlet_mixture, True), ("uniform step", uniform_one_hot, False)):
        method = _method(config, sampler, loss, is_learned)
        step = jax.jit(lambda state, train, validation, method=method: method.step(state, train, validation, key))
        calls[name] = functools.partial(step, method.init(arrays, first), train, validation)
    one = jnp.zeros((1, len(space.choices)), jnp.int32)
    stacked = jax.tree.map(lambda leaf: leaf[None], arrays)
    calls["evaluation"] = lambda: accuracies(stacked, rest, one, scored)
    return session.timed("steps and scores", calls, repeats=15)
