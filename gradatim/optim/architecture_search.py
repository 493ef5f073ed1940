"""Search for an architecture in a supernet: by gradients, in one stage, or by sampling a trained supernet, in two (TangleNAS).

Arrays of the supernet are its weights w, logits a give the probabilities p of options, and losses are means over batches of two disjoint
sets of examples: weights are fitted to the one, logits to the other (DARTS, Liu et al., arXiv:1806.09055).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.nets.search_space import SearchSpace, entropies

from .architecture_samplers import Sampler, softmax_mixture

Loss = Callable[[Any, Any, Any], Any]
"`loss(model, probabilities, batch)`, a scalar."
CLIP = 5.0
"Largest norm of a gradient by the weights, as in the authors' code."


class ArchitectureState(eqx.Module):
    """Where a search stands."""

    model: Any
    logits: dict[str, Array]
    weight_memory: Any
    logit_memory: Any
    count: Int[Array, ""]


class ArchitectureLosses(NamedTuple):
    """Of the batches of one step, before it; the validation loss is 0 where logits are not learned."""

    train: Float[Array, ""]
    validation: Float[Array, ""]


def official_logit_optimizer(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Adam for logits with the constants of the authors' code: β = (0.5, 0.999), and 1e-3 a added to the gradient.

    >>> optimizer = official_logit_optimizer(3e-4)
    >>> step, _ = optimizer.update(jnp.array(2.0), optimizer.init(jnp.array(1.0)), jnp.array(1.0))
    >>> print(f"{step:.4f}")
    -0.0003
    """
    return optax.chain(optax.add_decayed_weights(1e-3), optax.adam(learning_rate, b1=0.5, b2=0.999))


class ArchitectureSearch(eqx.Module):
    """Steps of a search: logits first, by a validation batch, then weights, by a training batch and a fresh sample of probabilities.

        a ← a - step(∇ₐ L_val(w', p(a)))          w' = w (order 1),  or w - η ∇_w L_train(w, p(a)) (order 2)
        w ← w - step(clip(∇_w L_train(w, p(a)), 5))

    **Arguments:** `loss`; `sampler`: of probabilities ([`dirichlet_mixture`][gradatim.optim.dirichlet_mixture], …);
    `weight_optimizer`; `logit_optimizer`: None leaves the logits alone, for the first stage of a search in two; `order`: 1, or 2, which
    costs two more gradients by the weights; `inner_rate`: η of order 2, the plain step that is looked ahead (DARTS adds the momentum of
    its optimiser to it).

    **Raises:** `ValueError` for another order, or an `inner_rate` that is not positive where it is used.

    >>> loss = lambda model, p, batch: (model - p["x"] @ batch) ** 2
    >>> search = ArchitectureSearch(loss, softmax_mixture, optax.sgd(0.1), optax.sgd(1.0))
    >>> state = search.init(jnp.zeros(()), {"x": jnp.zeros(2)})
    >>> state, losses = search.step(state, jnp.array([1.0, 0.0]), jnp.array([1.0, 2.0]), jax.random.key(0))
    >>> round(float(losses.validation), 2), bool(state.logits["x"][0] > state.logits["x"][1])
    (2.25, True)
    """

    loss: Loss = eqx.field(static=True)
    sampler: Sampler = eqx.field(static=True, default=softmax_mixture)
    weight_optimizer: optax.GradientTransformation = eqx.field(static=True, default_factory=lambda: optax.adam(3e-4))
    logit_optimizer: optax.GradientTransformation | None = eqx.field(static=True, default=None)
    order: int = eqx.field(static=True, default=1)
    inner_rate: float = eqx.field(static=True, default=0.025)

    def __check_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {self.order}")
        if self.order == 2 and not self.inner_rate > 0:
            raise ValueError(f"inner_rate must be above 0, got {self.inner_rate}")

    def init(self, model: Any, logits: Mapping[str, Array]) -> ArchitectureState:
        """A state to begin with."""
        # Copies: the states of both optimisers and the model may be donated.
        logits = {name: jnp.array(a) for name, a in logits.items()}
        memory = None if self.logit_optimizer is None else self.logit_optimizer.init(logits)
        weights = eqx.filter(model, eqx.is_inexact_array)
        return ArchitectureState(model, logits, self.weight_optimizer.init(weights), memory, jnp.zeros((), jnp.int32))

    def step(
        self, state: ArchitectureState, train: Any, validation: Any, key: PRNGKeyArray
    ) -> tuple[ArchitectureState, ArchitectureLosses]:
        """One step; `validation` is not looked at where logits are not learned."""
        key_logits, key_weights = jax.random.split(key)
        weights, others = eqx.partition(state.model, eqx.is_inexact_array)

        def loss_of(weights: Any, logits: Any, batch: Any, key: PRNGKeyArray) -> Array:
            return self.loss(eqx.combine(weights, others), self.sampler(logits, key, state.count), batch)

        logits, logit_memory, validation_loss = state.logits, state.logit_memory, jnp.zeros(())
        if self.logit_optimizer is not None:
            train_of = lambda w, a: loss_of(w, a, train, key_logits)  # noqa: E731
            validation_of = lambda w, a: loss_of(w, a, validation, key_logits)  # noqa: E731
            if self.order == 1:
                validation_loss, gradient = jax.value_and_grad(validation_of, 1)(weights, logits)
            else:
                validation_loss, gradient = second_order_gradient(train_of, validation_of, weights, logits, rate=self.inner_rate)
            updates, logit_memory = self.logit_optimizer.update(gradient, logit_memory, logits)
            logits = jax.tree.map(jnp.add, logits, updates)
        train_loss, gradient = jax.value_and_grad(loss_of)(weights, logits, train, key_weights)
        gradient, _ = optax.clip_by_global_norm(CLIP).update(gradient, optax.EmptyState())
        updates, weight_memory = self.weight_optimizer.update(gradient, state.weight_memory, weights)
        model = eqx.combine(optax.apply_updates(weights, updates), others)
        return ArchitectureState(model, logits, weight_memory, logit_memory, state.count + 1), ArchitectureLosses(
            train_loss, validation_loss
        )


def second_order_gradient(
    train: Callable[[Any, Any], Any], validation: Callable[[Any, Any], Any], weights: Any, logits: Any, *, rate: Any
) -> Any:
    """Value and gradient by the logits of the validation loss after one plain step of the weights (DARTS, equation 7).

        w' = w - η ∇_w L_train(w, a),   v = ∇_w L_val(w', a),   dₐ = ∇ₐ L_val(w', a) - η ∇²ₐ_w L_train(w, a) v

    The mixed derivative is a forward derivative of the gradient, exact at any v; DARTS and its successors take a difference with a
    step of 0.01/‖v‖, which rounding ruins where ‖v‖ is small.

    **Arguments:** `train(weights, logits)`, `validation(weights, logits)`: scalars; `rate`: η.

    >>> train = lambda w, a: (w - a) ** 2 / 2
    >>> value, gradient = second_order_gradient(train, lambda w, a: w**2 / 2, jnp.array(3.0), jnp.array(1.0), rate=0.5)
    >>> float(value), float(gradient)  # w' = 2, and a step of the logits moves it by the rate
    (2.0, 1.0)
    """
    ahead = jax.tree.map(lambda w, g: w - rate * g, weights, jax.grad(train)(weights, logits))
    value, (v, direct) = jax.value_and_grad(validation, (0, 1))(ahead, logits)
    _, mixed = jax.jvp(lambda w: jax.grad(train, 1)(w, logits), (weights,), (v,))
    return value, jax.tree.map(lambda d, m: d - rate * m, direct, mixed)


class SearchHistory(NamedTuple):
    """A search and the way to it."""

    model: Any
    logits: dict[str, np.ndarray]
    "Of each choice, after the last step."
    steps: np.ndarray
    "At which the following were noted."
    incumbents: np.ndarray
    "Positions of the largest logits, (row, choice); -1 where logits are not learned."
    entropies: dict[str, np.ndarray]
    "Of softmax(a), over their largest, (row,)."
    losses: np.ndarray
    "(row, 2): training and validation."
    seconds: np.ndarray
    "Since the first step, whose compilation does not count."


def search_architecture(
    model: Any,
    space: SearchSpace,
    loss: Loss,
    train: Any,
    validation: Any,
    *,
    sampler: Sampler,
    steps: int,
    key: PRNGKeyArray,
    batch_size: int = 64,
    order: int = 1,
    inner_rate: float = 0.025,
    weight_optimizer: optax.GradientTransformation,
    logit_optimizer: optax.GradientTransformation | None,
    every: int = 10,
) -> SearchHistory:
    """A whole search, step by step: a Python loop of one compiled step, so that a supernet may hold native convolutions.

    **Arguments:** `train`, `validation`: pytrees of arrays with examples along the first axis, that share no example; `steps`;
    `batch_size`; `every`: steps between two notes; the others as for [`ArchitectureSearch`][gradatim.optim.ArchitectureSearch].

    **Raises:** `ValueError` for fewer examples than a batch, or steps below 1.

    >>> from gradatim.nets import Choice
    >>> loss = lambda model, p, batch: jnp.mean((model - p["x"] @ jnp.array([1.0, 2.0]) * batch) ** 2)
    >>> found = search_architecture(
    ...     jnp.zeros(()), SearchSpace((Choice("x", ("one", "two")),)), loss, jnp.ones(8), jnp.zeros(8), sampler=softmax_mixture, steps=3,
    ...     key=jax.random.key(0), batch_size=4, weight_optimizer=optax.sgd(0.1), logit_optimizer=optax.sgd(1.0), every=1,
    ... )
    >>> found.steps.tolist(), found.incumbents.tolist()
    ([1, 2, 3], [[0], [0], [0]])
    """
    for name, data in (("train", train), ("validation", validation)):
        n = len(jax.tree.leaves(data)[0])
        if n < batch_size:
            raise ValueError(f"{name} must hold at least a batch of {batch_size} examples, got {n}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    method = ArchitectureSearch(loss, sampler, weight_optimizer, logit_optimizer, order, inner_rate)
    key_logits, key_steps = jax.random.split(key)
    state = method.init(model, space.logits(key_logits))

    @eqx.filter_jit
    def step(state: ArchitectureState, train: Any, validation: Any, key: PRNGKeyArray) -> tuple[ArchitectureState, ArchitectureLosses]:
        key_train, key_validation, key_sample = jax.random.split(jax.random.fold_in(key, state.count), 3)
        return method.step(state, _batch(train, key_train, batch_size), _batch(validation, key_validation, batch_size), key_sample)

    rows: list[tuple[Any, ...]] = []
    began = None
    for i in range(steps):
        state, losses = step(state, train, validation, key_steps)
        if began is None:
            jax.block_until_ready(losses)
            began = time.perf_counter()
        if i % every == 0 or i == steps - 1:
            noted = jax.device_get((state.logits, losses))
            rows.append((i + 1, *noted, time.perf_counter() - began))
    numbers, logits, losses, seconds = zip(*rows, strict=True)
    stacked = {name: np.stack([row[name] for row in logits]) for name in logits[0]}
    decided = np.asarray(space.discretise(stacked))
    return SearchHistory(
        state.model,
        {name: values[-1] for name, values in stacked.items()},
        np.array(numbers),
        decided if logit_optimizer is not None else np.full_like(decided, -1),
        {name: np.asarray(h) for name, h in entropies({name: jax.nn.softmax(values) for name, values in stacked.items()}).items()},
        np.array(losses),
        np.array(seconds),
    )


def _batch(data: Any, key: PRNGKeyArray, size: int) -> Any:
    rows = jax.random.randint(key, (size,), 0, len(jax.tree.leaves(data)[0]))
    return jax.tree.map(lambda array: array[rows], data)


Score = Callable[[Any], Any]
"Of architectures, positions of shape (n, choices), the scores, larger is better, of shape (n,)."


class ScoredArchitectures(NamedTuple):
    """Architectures in the order in which they were scored."""

    positions: Int[np.ndarray, "evaluations choices"]
    scores: Float[np.ndarray, " evaluations"]

    @property
    def incumbents(self) -> Int[np.ndarray, "evaluations choices"]:
        """The best so far after each."""
        best, seen = np.zeros(len(self.scores), int), 0
        for i, score in enumerate(self.scores):
            seen = i if score > self.scores[seen] else seen
            best[i] = seen
        return self.positions[best]


def random_architectures(score: Score, space: SearchSpace, *, n_evaluations: int, key: PRNGKeyArray) -> ScoredArchitectures:
    """Scores architectures drawn without repetition, as long as there are any.

    **Raises:** `ValueError` for fewer than one evaluation.

    >>> from gradatim.nets import Choice
    >>> space = SearchSpace((Choice("width", (2, 4, 8)), Choice("depth", (1, 2))))
    >>> found = random_architectures(lambda positions: positions.sum(axis=1), space, n_evaluations=6, key=jax.random.key(0))
    >>> len(found.scores), found.incumbents[-1].tolist()
    (6, [2, 1])
    """
    if n_evaluations < 1:
        raise ValueError(f"n_evaluations must be at least 1, got {n_evaluations}")
    random = _host(key)
    n = min(n_evaluations, space.n_architectures)
    numbers = random.choice(space.n_architectures, n, replace=False)
    positions = np.array([space.positions(int(number)) for number in numbers], np.int32)
    return ScoredArchitectures(positions, np.asarray(score(positions), np.float64))


def evolved_architectures(
    score: Score,
    space: SearchSpace,
    *,
    n_evaluations: int,
    key: PRNGKeyArray,
    population: int = 30,
    n_parents: int = 10,
    n_mutants: int = 10,
    n_crossed: int = 10,
    mutation_rate: float = 0.2,
) -> ScoredArchitectures:
    """Rounds of mutation and crossover of the best parents so far, filled up at random to `population`; nothing is scored twice.

    Population 30, ten parents, ten mutants at rate 0.2 and ten crossings are the authors'.

    **Raises:** `ValueError` for counts below 1 or a rate outside (0, 1].

    >>> from gradatim.nets import Choice
    >>> space = SearchSpace((Choice("width", (2, 4, 8)), Choice("depth", (1, 2))))
    >>> found = evolved_architectures(lambda positions: positions.sum(axis=1), space, n_evaluations=6, key=jax.random.key(0), population=2)
    >>> len(found.scores), found.incumbents[-1].tolist()
    (6, [2, 1])
    """
    if min(n_evaluations, population, n_parents) < 1 or not 0 < mutation_rate <= 1:
        raise ValueError(
            f"n_evaluations, population and n_parents must be at least 1 and mutation_rate in (0, 1], got {n_evaluations}, {population}, "
            f"{n_parents} and {mutation_rate}"
        )
    random = _host(key)
    scored: dict[tuple[int, ...], float] = {}
    limit = min(n_evaluations, space.n_architectures)
    while len(scored) < limit:
        parents = sorted(scored, key=lambda one: -scored[one])[:n_parents]
        fresh: dict[tuple[int, ...], None] = {}
        if parents:
            for _ in range(n_mutants):
                fresh[_mutated(parents[random.integers(len(parents))], space, random, mutation_rate)] = None
            for _ in range(n_crossed):
                a, b = (parents[random.integers(len(parents))] for _ in range(2))
                fresh[tuple(x if random.uniform() < 0.5 else y for x, y in zip(a, b, strict=True))] = None
        tried = [one for one in fresh if one not in scored]
        while len(tried) < min(population, limit - len(scored)):
            one = space.positions(int(random.integers(space.n_architectures)))
            if one not in scored and one not in tried:
                tried.append(one)
        tried = tried[: limit - len(scored)]
        values = np.asarray(score(np.array(tried, np.int32)), np.float64)
        scored |= dict(zip(tried, values.tolist(), strict=True))
    return ScoredArchitectures(np.array(list(scored), np.int32), np.array(list(scored.values())))


def _mutated(parent: tuple[int, ...], space: SearchSpace, random: np.random.Generator, rate: float) -> tuple[int, ...]:
    return tuple(int(random.integers(n)) if random.uniform() < rate else i for i, n in zip(parent, space.sizes, strict=True))


def _host(key: PRNGKeyArray) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
