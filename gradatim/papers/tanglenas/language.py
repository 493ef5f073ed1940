"""A character model of Shakespeare: the Transformer that a search finds beside random ones, each trained alone."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim import datasets
from gradatim.lab import Session, host_generator
from gradatim.nets import EntangledTransformer, SearchSpace, entropies
from gradatim.optim import ArchitectureSearch, ArchitectureState, dirichlet_mixture, official_logit_optimizer

from .config import Language
from .networks import adam

HALVES = 0.5
"Share of the training text for the weights during the search; the rest is for the logits."


def run_language(config: Language, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Searches, then trains what was found, the largest and random networks alone, and judges them on held-out works."""
    key_nets, key_rows, key_steps, key_random, key_alone = jax.random.split(key, 5)
    texts = {split: datasets.load_text("shakespeare", split=split) for split in ("train", "validation")}
    session.uses(texts["train"].provenance)
    tokens = texts["train"].tokens
    random = host_generator(key_rows)
    length = config.context + 1
    blocks = texts["validation"].blocks(length)
    held = jnp.asarray(blocks[:: max(len(blocks) // config.n_validation, 1)][: config.n_validation])
    border = int(HALVES * len(tokens))

    def drawn(low: int, high: int) -> np.ndarray:
        starts = random.integers(low, high - length, (config.steps, config.seeds, config.batch_size))
        return tokens[starts[..., None] + np.arange(length)]

    def make(key: Any) -> EntangledTransformer:
        return EntangledTransformer(
            texts["train"].vocabulary_size,
            config.context,
            widths=config.widths,
            heads=config.heads,
            ratios=config.ratios,
            depths=config.depths,
            key=key,
        )

    shapes = eqx.filter_eval_shape(make, key)
    rest = eqx.filter(shapes, lambda leaf: not isinstance(leaf, jax.ShapeDtypeStruct))
    space: SearchSpace = rest.space
    start = eqx.filter_jit(lambda keys: jax.lax.map(lambda key: eqx.filter(make(key), eqx.is_array), keys))
    keys = jax.random.split(key_nets, config.seeds)
    state, history = _searched(config, session, rest, start(keys), (drawn(0, border), drawn(border, len(tokens))), key_steps)
    found = np.asarray(jax.jit(jax.vmap(space.discretise))(state.logits))
    n_random = config.seeds * config.n_random
    others = np.asarray(jax.jit(lambda key: space.sample(key, n_random))(key_random)).reshape(config.seeds, config.n_random, -1)
    largest = np.tile(np.array(space.sizes, np.int32) - 1, (config.seeds, 1))
    positions = np.concatenate([found[:, None], largest[:, None], others], axis=1)  # (seed, network, choice)
    nets = start(jax.random.split(key_alone, config.seeds))
    losses = _alone(config, session, rest, nets, positions, drawn(0, len(tokens)), held)
    sizes = np.array([[shapes.n_parameters(tuple(map(int, one))) for one in row] for row in positions])
    names = ["found", "largest", *(f"random {i + 1}" for i in range(config.n_random))]
    data = xr.Dataset(
        {
            "loss": (("seed", "network"), losses, {"units": "nat"}),
            "parameters": (("seed", "network"), sizes, {"units": "1"}),
            "position": (("seed", "network", "choice"), positions, {"units": "1"}),
            "entropy": (("row", "seed", "choice"), history["entropy"], {"units": "1"}),
            "option_count": ("choice", np.array(space.sizes), {"units": "1"}),
        },
        {"network": names, "choice": [choice.name for choice in space.choices], "row": history["step"]},
    )
    return {"language": data}


def _loss(arrays: Any, rest: Any, p: Any, texts: Any) -> Any:
    """Mean cross-entropy of each next character, nats."""
    net, texts = eqx.combine(arrays, rest), texts.astype(jnp.int32)
    logits = jax.vmap(net, (0, None))(texts[:, :-1], p)
    return optax.softmax_cross_entropy_with_integer_labels(logits, texts[:, 1:]).mean()


class _State(eqx.Module):
    model: Any
    logits: Any
    weight_memory: Any
    logit_memory: Any


def _searched(config: Language, session: Session, rest: Any, nets: Any, texts: Any, key: jax.Array) -> tuple[Any, dict[str, np.ndarray]]:
    space: SearchSpace = rest.space

    def method(rest: Any) -> ArchitectureSearch:
        optimizer = official_logit_optimizer(config.logit_rate)
        weights = adam(config.learning_rate, config.steps)
        return ArchitectureSearch(lambda arrays, p, batch: _loss(arrays, rest, p, batch), dirichlet_mixture, weights, optimizer)

    @eqx.filter_jit
    def begin(nets: Any, keys: Any) -> _State:
        def one(given: Any) -> _State:
            state = method(rest).init(given[0], space.logits(given[1]))
            return _State(state.model, state.logits, state.weight_memory, state.logit_memory)

        return jax.lax.map(one, (nets, keys))

    def step(state: _State, i: Any, args: Any) -> _State:
        rest, texts, keys = args

        def one(given: Any) -> _State:
            state, train, validation, key = given
            before = ArchitectureState(state.model, state.logits, state.weight_memory, state.logit_memory, i)
            after, _ = method(rest).step(before, train, validation, jax.random.fold_in(key, i))
            return _State(after.model, after.logits, after.weight_memory, after.logit_memory)

        return jax.lax.map(one, (state, *(part[i] for part in texts), keys))

    def watch(state: _State, args: Any) -> dict[str, Any]:
        del args
        h = entropies({name: jax.nn.softmax(a) for name, a in state.logits.items()})
        return {"entropy": jnp.stack([h[choice.name] for choice in space.choices], axis=-1)}

    keys = jax.random.split(key, config.seeds)
    args = (rest, tuple(map(jnp.asarray, texts)), keys)
    loop = session.loop(step, begin(nets, keys), steps=config.steps, args=args, watch=watch, label="language search")
    return loop.state, loop.history


class _Alone(eqx.Module):
    arrays: Any
    memory: Any


def _alone(config: Language, session: Session, rest: Any, nets: Any, positions: Any, texts: np.ndarray, held: Any) -> np.ndarray:
    """Losses on held-out text, (seed, network); networks of a seed share first weights and batches."""
    space: SearchSpace = rest.space
    optimizer = adam(config.learning_rate, config.steps)
    n = positions.shape[1]
    arrays = jax.tree.map(lambda leaf: jnp.asarray(np.repeat(np.asarray(leaf), n, axis=0)), nets)
    flat = jnp.asarray(positions.reshape(-1, positions.shape[-1]))
    seed_of = jnp.asarray(np.repeat(np.arange(config.seeds, dtype=np.int32), n))

    def step(state: _Alone, i: Any, args: Any) -> _Alone:
        rest, texts, flat, seed_of = args

        def one(given: Any) -> Any:
            arrays, memory, positions, seed = given
            gradient = jax.grad(_loss)(arrays, rest, space.one_hot(positions), texts[i, seed])
            updates, memory = optimizer.update(gradient, memory)
            return jax.tree.map(jnp.add, arrays, updates), memory

        return _Alone(*jax.lax.map(one, (state.arrays, state.memory, flat, seed_of)))

    memory = eqx.filter_jit(lambda arrays: jax.lax.map(optimizer.init, arrays))(arrays)
    args = (rest, jnp.asarray(texts), flat, seed_of)
    loop = session.loop(step, _Alone(arrays, memory), steps=config.steps, args=args, label="language networks alone")

    @eqx.filter_jit
    def judged(arrays: Any, flat: Any) -> Any:
        return jax.lax.map(lambda given: _loss(given[0], rest, space.one_hot(given[1]), held), (arrays, flat))

    losses = session.once("language networks judged", lambda: np.asarray(judged(loop.state.arrays, flat)))
    return np.asarray(losses, np.float64).reshape(config.seeds, n)
