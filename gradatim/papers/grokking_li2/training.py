"""Networks of pairs trained together: equal shapes, with splits, sizes of the training set, rates and decays of their own."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from gradatim.lab import Session
from gradatim.landscape import (
    FiniteGroup,
    PairNetwork,
    Pairs,
    accuracy,
    all_pairs,
    class_centred_loss,
    feature_masses,
    off_diagonal_ratios,
    pair_network,
    readout_gradient,
    ridge_readout,
)
from gradatim.numerics import polar_factor
from gradatim.optim import scale_by_muon

Method = Literal["adam", "muon", "ridge"]
MUON_TRIPLES = ((4.01, -9.22, 5.80), (3.49, -6.38, 3.23), (3.34, -6.21, 3.20), (3.64, -7.48, 4.43), (3.46, -5.35, 2.85))
"Of the authors' Newton–Schulz, a row a step."
MUON_MOMENTUM = 0.99
ALIVE = 0.01
"Nodes with weights shorter than this share of the longest ones have decayed, and are no features."
NOT_LOOKED_AT = -1.0
"Stands for a number that there is not: NaN would stand for a run that diverged."
ROWS = 16
"Training sets are padded to a multiple of this many pairs, so that experiments of like size share a compiled step."


class Replicas(NamedTuple):
    """What tells networks apart; those of one seed share their first weights and the order in which pairs are drawn."""

    seed: Int[np.ndarray, " r"]
    n_train: Int[np.ndarray, " r"]
    rate: Float[np.ndarray, " r"]
    decay: Float[np.ndarray, " r"]
    readout_scale: Float[np.ndarray, " r"]

    @classmethod
    def of(cls, arms: list[dict[str, Any]], seeds: int, first: int = 0) -> Replicas:
        """Every arm from every seed, seeds fastest, numbered from `first`.

        An arm gives `n_train`, `rate`, `decay` and, if it is not 1, `readout_scale`.
        """
        columns = {name: np.repeat([arm.get(name, 1.0) for arm in arms], seeds) for name in ("n_train", "rate", "decay", "readout_scale")}
        return cls(seed=np.tile(first + np.arange(seeds), len(arms)), **columns)


class Work(eqx.Module):
    """What a step is given."""

    table: Pairs
    order: Int[Array, "r pairs"]
    "Numbers of all pairs in the order in which each replica draws them."
    n_train: Int[Array, " r"]
    rate: Float[Array, " r"]
    decay: Float[Array, " r"]
    has_grams: Bool[Array, ""]
    "Whether Gram matrices of the features are looked at: each look at them is as dear as several steps."
    most: int = eqx.field(static=True)
    "Rows of a training set, of which a replica uses the first ones."
    method: Method = eqx.field(static=True)

    def train_set(self, order: Int[Array, " pairs"], n_train: Int[Array, ""]) -> tuple[Pairs, Bool[Array, " most"]]:
        """The rows of a replica, and which of them it uses."""
        rows = order[: self.most]
        return Pairs(self.table.pairs[rows], self.table.labels[rows]), jnp.arange(self.most) < n_train


class Trained(NamedTuple):
    """The end of training."""

    networks: PairNetwork  # axis r
    work: Work
    history: dict[str, np.ndarray]
    "By step and replica."


def train(
    session: Session,
    group: FiniteGroup,
    replicas: Replicas,
    *,
    key: PRNGKeyArray,
    width: int,
    epochs: int,
    every: int,
    label: str,
    method: Method = "adam",
    has_grams: bool = False,
) -> Trained:
    """All replicas at once; a replica that diverges is kept, and the others go on."""
    n_pairs = group.order**2
    most = min(-(-int(replicas.n_train.max()) // ROWS) * ROWS, n_pairs)
    seeds, scales = jnp.asarray(replicas.seed, jnp.uint32), jnp.asarray(replicas.readout_scale, jnp.float32)
    networks, order = _drawn(key, seeds, scales, group.order, width, n_pairs)
    numbers = {name: jnp.asarray(getattr(replicas, name), jnp.float32) for name in ("rate", "decay")}
    n_train = jnp.asarray(replicas.n_train, jnp.int32)
    work = Work(all_pairs(group), order, n_train, **numbers, has_grams=jnp.asarray(has_grams), most=most, method=method)
    state = (networks, _begun(networks, work))
    loop = session.loop(_step, state, steps=epochs, args=work, every=every, watch=_watch, label=label, on_nonfinite="keep")
    # In double precision, so that rounded numbers read as such.
    history = {name: values.astype(float) if values.dtype.kind == "f" else values for name, values in loop.history.items()}
    return Trained(loop.state[0], work, history)


@eqx.filter_jit
def _drawn(key: PRNGKeyArray, seeds: Array, scales: Array, order: int, width: int, n_pairs: int) -> tuple[PairNetwork, Array]:
    def one(drawn: tuple[Array, Array]) -> tuple[PairNetwork, Array]:
        key_network, key_order = jax.random.split(jax.random.fold_in(key, drawn[0]))
        network = pair_network(order, width, key=key_network, readout_scale=drawn[1])
        return network, jax.random.permutation(key_order, n_pairs).astype(jnp.int32)

    return jax.lax.map(one, (seeds, scales))


def _optimizer(method: Method, rate: Array, decay: Array) -> optax.GradientTransformation:
    adam = optax.chain(optax.add_decayed_weights(decay), optax.adam(rate))
    if method != "muon":
        return adam
    direction = scale_by_muon(MUON_TRIPLES, beta=MUON_MOMENTUM, nesterov=False)
    muon = optax.chain(direction, optax.add_decayed_weights(decay), optax.scale_by_learning_rate(rate))

    def label(network: Any) -> Any:
        return jax.tree.unflatten(jax.tree.structure(network), ("muon", "adam"))

    return optax.partition({"muon": muon, "adam": adam}, label)


@eqx.filter_jit
def _begun(networks: PairNetwork, work: Work) -> Any:
    return jax.vmap(lambda network, rate, decay: _optimizer(work.method, rate, decay).init(network))(networks, work.rate, work.decay)


def _step(state: tuple[PairNetwork, Any], i: Array, work: Work) -> tuple[PairNetwork, Any]:
    def one(network: Any, memory: Any, order: Array, n_train: Array, rate: Array, decay: Array) -> tuple[PairNetwork, Any]:
        pairs, seen = work.train_set(order, n_train)
        if work.method == "ridge":
            # In double precision: the mean of the features is many thousand times the penalty.
            features = network.features(pairs.pairs).astype(float)
            penalty = decay.astype(float) * n_train / 2
            readout = ridge_readout(features, pairs.labels, network.readout.shape[1], decay=penalty, seen=seen)
            network = PairNetwork(network.first, readout.astype(network.first.dtype))
        gradient = jax.grad(lambda net: class_centred_loss(net(pairs.pairs), pairs.labels, seen=seen))(network)
        updates, memory = _optimizer(work.method, rate, decay).update(gradient, memory, network)
        after: Any = optax.apply_updates(network, updates)
        # With ridge regression the read-out is not the optimiser's.
        return (PairNetwork(after.first, network.readout) if work.method == "ridge" else after), memory

    return jax.vmap(one)(*state, work.order, work.n_train, work.rate, work.decay)


def _watch(state: tuple[PairNetwork, Any], work: Work) -> dict[str, Array]:
    def one(replica: tuple[Any, Any, Array, Array, Array, Array]) -> dict[str, Array]:
        network, memory, order, n_train, rate, decay = replica
        labels = work.table.labels
        is_train = jnp.zeros(len(labels), bool).at[order].set(jnp.arange(len(labels)) < n_train)
        features = network.features(work.table.pairs)
        outputs = features @ network.readout
        found: dict[str, Array] = {}
        for name, seen in (("train", is_train), ("test", ~is_train)):
            found[f"{name}_loss"] = class_centred_loss(outputs, labels, seen=seen)
            found[f"{name}_accuracy"] = accuracy(outputs, labels, seen=seen)
        found["feature_gradient"] = jnp.linalg.norm(readout_gradient(network, work.table, is_train))
        pairs, seen = work.train_set(order, n_train)

        def ratios() -> tuple[Array, Array]:
            return off_diagonal_ratios(network.features(pairs.pairs), seen)

        nothing = jax.tree.map(lambda shape: jnp.full(shape.shape, NOT_LOOKED_AT, shape.dtype), jax.eval_shape(ratios))
        found["off_diagonal_nodes"], found["off_diagonal_samples"] = jax.lax.cond(work.has_grams, ratios, lambda: nothing)
        if work.method == "muon":
            gradient = jax.grad(lambda net: class_centred_loss(net(pairs.pairs), pairs.labels, seen=seen))(network)
            updates: Any = _optimizer(work.method, rate, decay).update(gradient, memory, network)[0]
            # Of the gradient alone, as the theorem has it, and of the step with its momentum and decay.
            found["alignment"] = _cosine(polar_factor(gradient.first, coefficients=MUON_TRIPLES), gradient.first)
            found["step_alignment"] = -_cosine(updates.first, gradient.first)
        return found

    return jax.lax.map(one, (*state, work.order, work.n_train, work.rate, work.decay))


def _cosine(a: Array, b: Array) -> Array:
    norms = jnp.linalg.norm(a) * jnp.linalg.norm(b)
    return jnp.sum(a * b) / jnp.where(norms > 0, norms, 1)


class Features(NamedTuple):
    """Of the nodes of each replica."""

    purity: Float[np.ndarray, "r nodes"]
    winner: Int[np.ndarray, "r nodes"]
    length: Float[np.ndarray, "r nodes"]
    energy: Float[np.ndarray, "r nodes"]
    "Of weights of unit length, on the replica's own training pairs."

    @property
    def is_alive(self) -> Bool[np.ndarray, "r nodes"]:
        """Which nodes have not decayed."""
        return self.length > ALIVE * self.length.max(axis=1, keepdims=True)

    def mean(self, name: Literal["purity", "energy"]) -> Float[np.ndarray, " r"]:
        """Over the nodes that are alive."""
        return np.mean(getattr(self, name), axis=1, where=self.is_alive)

    def found(self, least_purity: float = 0.5) -> Int[np.ndarray, " r"]:
        """How many blocks have a node that is alive and mostly theirs."""
        is_clear = self.is_alive & (self.purity > least_purity)
        return np.array([len(set(winner[clear].tolist())) for winner, clear in zip(self.winner, is_clear, strict=True)])


def features_of(trained: Trained, group: FiniteGroup) -> Features:
    """What the nodes have learned."""
    projectors = jnp.asarray(group.isotypic_projectors, jnp.float32)
    purity, winner, length, energy = jax.device_get(_features(trained.networks.first, trained.work, projectors))
    return Features(purity.astype(float), winner, length.astype(float), energy.astype(float))


@eqx.filter_jit
def _features(first: Array, work: Work, projectors: Array) -> tuple[Array, Array, Array, Array]:
    def one(replica: tuple[Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        weights, order, n_train = replica
        masses = feature_masses(weights.T, projectors)
        pairs, seen = work.train_set(order, n_train)
        length = jnp.linalg.norm(weights, axis=0)
        unit = weights / jnp.where(length > 0, length, 1)[None]
        return masses.purity, masses.winner, length, _energy_of_seen(unit, pairs, seen)

    return jax.lax.map(one, (first, work.order, work.n_train))


def _energy_of_seen(unit: Array, pairs: Pairs, seen: Array) -> Array:
    """½ |Ỹᵀf|² over the pairs that are seen."""
    features = jnp.where(seen[:, None], jnp.square(unit[pairs.pairs[:, 0]] + unit[len(unit) // 2 + pairs.pairs[:, 1]]), 0)
    mean = features.sum(axis=0, keepdims=True) / seen.sum()
    sums = jax.nn.one_hot(pairs.labels, len(unit) // 2, axis=0, dtype=unit.dtype) @ jnp.where(seen[:, None], features - mean, 0)
    return jnp.sum(sums**2, axis=0) / 2
