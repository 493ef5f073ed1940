"""Searches for images: every sampler from every seed's weights and batches, and what comes of them."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim.lab import Session, host_generator
from gradatim.nets import CellSupernet, MacroSupernet, SearchSpace, entropies
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
from .networks import Images, Parts, accuracies, adam, batches, image_loss, make_nets, rest_of
from .scores import costs, doublings, nats_per_doubling, parameter_counts, score
from .table import SEED, read_table, train_table

HOTTEST, COLDEST = 10.0, 0.1
"Temperatures of the Gumbel sampler, at the start and at the end."
OURS, UNIFORM = "Dirichlet", "uniform"
SAMPLERS = (OURS, "softmax", "sparsemax", "Gumbel", UNIFORM)
"The uniform arm is the first stage of a search in two."
ABLATION = {"cell": f"{OURS}, no shares", "macro": f"{OURS}, no cost"}
"The last arm of a space: the Dirichlet arm without the shares of groups of operations, or without the cost of parameters."
INHERITED = (OURS, UNIFORM)
"Arms whose supernets are read out as every architecture."
PIECES = ("gradient step", "uniform step", "evaluation")
"What is timed: a step of a search by gradients, one of a uniform supernet, and one score of the second stage."
NOBODY = -1


def arms(space: str) -> tuple[str, ...]:
    """In their order."""
    return (*SAMPLERS, ABLATION[space])


def samplers(steps: int) -> tuple[Any, ...]:
    """Of the arms but the last, in their order; the last has the first's."""
    gumbel = gumbel_straight_through(optax.linear_schedule(HOTTEST, COLDEST, max(steps - 1, 1)))
    return dirichlet_mixture, softmax_mixture, sparsemax_mixture, gumbel, uniform_one_hot


def run_searches(config: Search, name: str, parts: Parts, session: Session, key: jax.Array) -> xr.Dataset:
    """Searches of a space, networks with inherited weights and the second stage; with a table, that and seconds of each."""
    key_nets, key_rows, key_steps, key_second = jax.random.split(key, 4)
    rest = rest_of(config, name)
    space: SearchSpace = rest.space
    counts = parameter_counts(config, name)
    table = train_table(config, name, parts, session, jax.random.key(SEED)) if config.rebuild else read_table(config, name)
    n_seeds = config.seeds_of(name)
    nets = make_nets(config, name, jax.random.split(key_nets, n_seeds))
    rows, price = _rows(config, parts, n_seeds, key_rows), nats_per_doubling(config)
    task = _Task(rest, int(counts.min()), parts, jnp.asarray(rows), jnp.asarray(price), key_steps)
    models, history = _searched(config, name, session, task, nets)
    found = history["incumbent"]  # (row, arm, seed, choice)
    order = [SAMPLERS.index(arm) for arm in INHERITED]
    arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf[order].reshape(-1, *leaf.shape[2:])), models)
    scored = (np.asarray(part)[: config.n_scored] for part in parts.validation)
    tested = (np.asarray(part)[: config.n_inherited] for part in parts.test)
    both = Images(*(jnp.asarray(np.concatenate(pair)) for pair in zip(scored, tested, strict=True)))
    positions = jnp.asarray(space.every())
    right = session.once(f"as every {name} architecture", lambda: np.asarray(accuracies(arrays, rest, positions, both), np.int8))
    shares = right.reshape(len(INHERITED), n_seeds, space.n_architectures, -1)
    validation, test = (100 * part.mean(-1) for part in (shares[..., : config.n_scored], shares[..., config.n_scored :]))
    cost = costs(config, name, counts)
    second = _second_stage(config, space, score(validation[INHERITED.index(UNIFORM)], cost), key_second)
    variables: dict[str, Any] = {
        "incumbent": (("row", "arm", "seed"), _numbers(space, found), {"units": "1"}),
        "entropy": (("row", "arm", "seed", "choice"), history["entropy"], {"units": "1"}),
        "train_loss": (("row", "arm", "seed"), history["train"], {"units": "nat"}),
        "second_incumbent": (("stage", "seed", "evaluation"), second, {"units": "1"}),
        "validation": (("supernet", "seed", "architecture"), validation, {"units": "%"}),
        "inherited": (("supernet", "seed", "architecture"), test, {"units": "%"}),
        "option": (("architecture", "choice"), space.every(), {"units": "1"}),
        "parameters": ("architecture", counts, {"units": "1"}),
        "cost": ("architecture", cost, {"units": "points"}),
    }
    # Without a table there is no regret for them to be set against.
    if table is not None:
        variables["accuracy"] = (("architecture", "table_seed"), table, {"units": "%"})
        seconds = _seconds(config, name, session, task, jax.tree.map(lambda leaf: leaf[0], nets))
        variables["seconds"] = (("piece", "seed"), np.stack(list(seconds.values())), {"units": "s"})
    coordinates = {
        "arm": list(arms(name)),
        "row": history["step"],
        "choice": [choice.name for choice in space.choices],
        "stage": ["random", "evolutionary"],
        "supernet": list(INHERITED),
    }
    return xr.Dataset(variables, coordinates if table is None else coordinates | {"piece": list(PIECES)})


class _State(eqx.Module):
    model: Any
    logits: Any
    weight_memory: Any
    logit_memory: Any
    train: Any
    "Loss of the last batch."


class _Batch(NamedTuple):
    data: Images
    price: Any
    "Nats a doubling of the parameters."


class _Task(eqx.Module):
    rest: Any
    smallest: int = eqx.field(static=True)
    "Parameters of the smallest network."
    parts: Parts
    rows: Any
    "(step, seed, part, batch)"
    price: Any
    "Nats that a doubling of the parameters adds to the loss of the logits; weights do not depend on it, and their loss goes without."
    key: Any


def _loss(task: _Task, has_shares: Any = True) -> Any:
    """Of weights, probabilities and a batch: mean cross-entropy and the price of the parameters, nats."""

    def loss(arrays: Any, p: Any, batch: _Batch) -> Any:
        net = _with_shares(eqx.combine(arrays, task.rest), has_shares)
        value = image_loss(net, p, batch.data)
        return value + batch.price * doublings(net, p, task.smallest) if isinstance(net, MacroSupernet) else value

    return loss


def _rows(config: Search, parts: Parts, n_seeds: int, key: jax.Array) -> np.ndarray:
    """Of the images of every step, (step, seed, part, batch)."""
    random = host_generator(key)
    rows = [
        np.stack([batches(random, len(half.labels), config.batch_size, config.steps) for half in parts[:2]], axis=1) for _ in range(n_seeds)
    ]
    return np.stack(rows, axis=1)


def _searched(config: Search, name: str, session: Session, task: _Task, nets: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """All arms from all seeds through one program: the arm decides which sampler's probabilities count.

    The last networks, (arm, seed), on the host, and what was watched.
    """
    space, each, n_arms, n_seeds = task.rest.space, samplers(config.steps), len(arms(name)), config.seeds_of(name)
    arm_of, seed_of = np.indices((n_arms, n_seeds), np.int32).reshape(2, -1)

    @eqx.filter_jit
    def begin(nets: Any, keys: Any) -> _State:
        def one(given: Any) -> _State:
            arrays, key = given
            state = _method(config, softmax_mixture).init(arrays, space.logits(key))
            return _State(state.model, state.logits, state.weight_memory, state.logit_memory, jnp.zeros(()))

        states = jax.lax.map(one, (nets, keys))
        return jax.tree.map(lambda leaf: jnp.tile(leaf, (n_arms,) + (1,) * (leaf.ndim - 1)), states)

    def step(state: _State, i: Any, args: Any) -> _State:
        task, arm_of, seed_of = args

        def one(given: Any) -> Any:
            state, arm, seed = given
            is_whole = arm < len(each)

            def sampler(logits: Any, key: Any, step: Any) -> Any:
                drawn = [draw(logits, key, step) for draw in each]
                return {choice: sum((arm % len(each) == j) * p[choice] for j, p in enumerate(drawn)) for choice in logits}

            train, validation = (
                _Batch(Images(*(leaf[task.rows[i, seed, j]] for leaf in task.parts[j])), nats)
                for j, nats in enumerate((jnp.zeros(()), jnp.where(is_whole, task.price, 0.0)))
            )
            before = ArchitectureState(state.model, state.logits, state.weight_memory, state.logit_memory, i)
            key = jax.random.fold_in(jax.random.fold_in(task.key, i), seed)
            method = _method(config, sampler, _loss(task, is_whole))
            after, losses = method.step(before, train, validation, key)
            return _State(after.model, after.logits, after.weight_memory, after.logit_memory, losses.train)

        return jax.lax.map(one, (state, arm_of, seed_of))

    def watch(state: _State, args: Any) -> dict[str, Any]:
        del args
        h = entropies({name: jax.nn.softmax(a) for name, a in state.logits.items()})
        columns = jnp.stack([h[choice.name] for choice in space.choices], axis=-1)
        return {"incumbent": space.discretise(state.logits), "entropy": columns, "train": state.train}

    start = begin(nets, jax.random.split(jax.random.fold_in(task.key, config.steps), n_seeds))
    args, every = (task, jnp.asarray(arm_of), jnp.asarray(seed_of)), max(config.steps // 30, 1)
    loop = session.loop(step, start, steps=config.steps, args=args, every=every, watch=watch, label=f"searches, {name} space")
    shape = (n_arms, n_seeds)
    history = {key: column.reshape(len(column), *shape, *column.shape[2:]) for key, column in loop.history.items() if key != "step"}
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
    numbers[:, SAMPLERS.index(UNIFORM)] = NOBODY
    return numbers


def _second_stage(config: Search, space: SearchSpace, scores: np.ndarray, key: jax.Array) -> np.ndarray:
    """Incumbents of random and of evolutionary search over the networks with inherited weights, (stage, seed, evaluation)."""
    incumbents = np.zeros((2, len(scores), min(config.n_evaluations, space.n_architectures)), int)
    for seed, (one, row) in enumerate(zip(jax.random.split(key, len(scores)), scores, strict=True)):

        def known(positions: np.ndarray, row: np.ndarray = row) -> np.ndarray:
            return row[np.ravel_multi_index(tuple(positions.T), space.sizes)]

        n = config.n_evaluations
        some = max(config.population // 3, 1)
        stages = (
            random_architectures(known, space, n_evaluations=n, key=one),
            evolved_architectures(
                known, space, n_evaluations=n, key=one, population=config.population, n_parents=some, n_mutants=some, n_crossed=some
            ),
        )
        for i, stage in enumerate(stages):
            incumbents[i, seed] = np.ravel_multi_index(tuple(stage.incumbents.T), space.sizes)
    return incumbents


def _seconds(config: Search, name: str, session: Session, task: _Task, arrays: Any) -> dict[str, np.ndarray]:
    """Of a step of a search by gradients, one of a uniform supernet, and a score of the second stage, each by itself, once a search."""
    space: SearchSpace = task.rest.space
    train, validation = (
        _Batch(Images(*(leaf[: config.batch_size] for leaf in half)), nats)
        for half, nats in zip(task.parts[:2], (jnp.zeros(()), task.price), strict=True)
    )
    scored = Images(*(leaf[: config.n_scored] for leaf in task.parts.validation))
    first = space.one_hot(jnp.zeros(len(space.choices), jnp.int32))
    key, calls = jax.random.key(0), {}
    for piece, sampler, is_learned in zip(PIECES, (dirichlet_mixture, uniform_one_hot), (True, False), strict=False):
        method = _method(config, sampler, _loss(task), is_learned)
        step = jax.jit(lambda state, train, validation, method=method: method.step(state, train, validation, key))
        calls[piece] = functools.partial(step, method.init(arrays, first), train, validation)
    one = jnp.zeros((1, len(space.choices)), jnp.int32)
    stacked = jax.tree.map(lambda leaf: leaf[None], arrays)
    calls[PIECES[-1]] = lambda: accuracies(stacked, task.rest, one, scored)
    return session.timed(f"steps and scores, {name} space", calls, repeats=config.seeds_of(name))
