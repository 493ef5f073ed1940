"""C3, C4 and C7: the energy of a node, its maxima, and what a node learns from one answer alone."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.lab import Findings, Measure, Session, host_generator
from gradatim.landscape import (
    FiniteGroup,
    Pairs,
    all_pairs,
    ascend_features,
    classify_features,
    cyclic_group,
    dihedral_group,
    feature_energy,
    maximal_energies,
    memorization_solution,
    random_nodes,
    sphere_curvatures,
    split_pairs,
    symmetric_group,
)

from .config import Maxima

CLIMBED = 4
"Maxima at which the curvatures are taken."
SINGLE = 0.999
"Purity from which a node has one frequency."
N_PAIRS, RATIO = 7, 1.3
"Pairs that have the one answer, and the ratio of one's probability to the next one's."
CLIMBING_STEPS = 400


def run_maxima(config: Maxima, session: Session, key: PRNGKeyArray) -> Findings:
    """Gradients, ascents and curvatures, and the single answer."""
    key_identity, key_ascents, key_answer = jax.random.split(key, 3)
    error, linear = _gradients(key_identity)
    measures = {"C3.gradient_identity_error": Measure.exact(error), "C4.linear_gradient": Measure.exact(linear)}
    groups = {f"cyclic, {n}": cyclic_group(n) for n in config.orders}
    made = {
        "cyclic, 8": lambda: cyclic_group(8),
        "permutations of 3": lambda: symmetric_group(3),
        "dihedral, 14": lambda: dihedral_group(7),
    }
    beside = {name: made[name]() for name in config.beside}
    tree: dict[str, xr.Dataset] = {}
    shares, printed, relative = [], [], []
    for number, (name, group) in enumerate((groups | beside).items()):
        energy, purity, winner, weights = _ascents(config, group, jax.random.fold_in(key_ascents, number))
        expected = maximal_energies(group)[winner]
        if name in groups:
            shares.append(np.mean(purity > SINGLE))
            relative.append(energy / group.order)
        printed.append(f"{name}: {np.mean(purity > SINGLE):.3f} of {len(energy)} nodes in one block, at {_levels(energy / group.order)} M")
        tree[name] = xr.Dataset(
            {
                "energy": ("node", energy / group.order, {"units": "M"}),
                "expected": ("node", expected / group.order, {"units": "M"}),
                "purity": ("node", purity, {"units": "1"}),
                "weights": (("shown", "input"), weights[:16], {"units": "1"}),
            }
        )
    session.note("C4: ends of ascents, with how many: " + "; ".join(printed))
    measures["C4.single_frequency_share"] = Measure.exact(float(min(shares)))
    ends = np.concatenate(relative)
    level = Measure(float(ends.mean()), float(ends.min()), float(ends.max()), "smallest and largest of the ascents")
    measures["C4.printed_energy"] = measures["C4.corrected_energy"] = level
    first = groups[f"cyclic, {config.orders[0]}"]
    curvatures = _curvatures(jnp.asarray(tree[f"cyclic, {config.orders[0]}"]["weights"].values[:CLIMBED]), all_pairs(first))
    # One zero is the way off the sphere.
    along = np.sort(abs(curvatures), axis=1)[:, 1:]
    measures["C4.flat_curvature"] = Measure.exact(float((along[:, 0] / along[:, -1]).max()))
    flat = [int((row < 1e-5 * row[-1]).sum()) for row in along]
    session.note(f"C4: flat directions along the sphere at {CLIMBED} maxima of {first.order} elements: {flat}")
    overlap, error, reached = _single_answer(key_answer, config.nodes)
    measures |= {"C7.single_pair_overlap": Measure.exact(overlap), "C7.spread_error": Measure.exact(error)}
    tree["single_answer"] = reached
    return Findings(measures, xr.DataTree.from_dict({f"maxima_{_slug(name)}": data for name, data in tree.items()}))


def _slug(name: str) -> str:
    return name.replace(", ", "_").replace(" ", "_")


def _levels(values: np.ndarray) -> dict[float, int]:
    levels, counts = np.unique(values.round(6), return_counts=True)
    return {float(level): int(count) for level, count in zip(levels, counts, strict=True)}


def _gradients(key: PRNGKeyArray) -> tuple[float, float]:
    """Of the energy by differentiation: the error against what comes back through the layer, all matrices written out; and the longest
    one with a linear activation and all pairs, over that with the squared one.
    """
    key_split, key_nodes = jax.random.split(key)
    train, table = split_pairs(cyclic_group(11), key=key_split, n_train=50)[0], all_pairs(cyclic_group(11))

    def gradient(w: Array, table: Pairs, activation: Callable[[Array], Array]) -> Array:
        return jax.grad(lambda w: feature_energy(w, table, activation).sum())(w)

    @jax.jit
    def all_of_them(key: PRNGKeyArray, train: Pairs, table: Pairs) -> tuple[Array, Array, Array, Array]:
        w = random_nodes(key, 16, 22).T
        return w, gradient(w, train, jnp.square), gradient(w, table, lambda x: x), gradient(w, table, jnp.square)

    w, ours, linear, square = jax.device_get(all_of_them(key_nodes, train, table))
    pairs = np.asarray(train.pairs)
    X = np.concatenate([np.eye(11)[pairs[:, 0]], np.eye(11)[pairs[:, 1]]], axis=1)
    Y = np.eye(11)[np.asarray(train.labels)]
    Y = Y - Y.mean(axis=0)
    through = X.T @ (2 * (X @ w) * (Y @ (Y.T @ (X @ w) ** 2)))
    error = np.linalg.norm(ours - through) / np.linalg.norm(through)
    return float(error), float(np.linalg.norm(linear, axis=0).max() / np.linalg.norm(square, axis=0).max())


def _ascents(config: Maxima, group: FiniteGroup, key: PRNGKeyArray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Energy, purity and block of each node, and its weights."""

    @jax.jit
    def ascend(key: PRNGKeyArray) -> tuple[Array, Array, Array, Array]:
        starts = random_nodes(key, config.nodes, 2 * group.order)
        end = ascend_features(starts, all_pairs(group), n_steps=config.steps)
        found = classify_features(end.weights, group)
        return end.energy, found.purity, found.winner, end.weights

    energy, purity, winner, weights = jax.device_get(ascend(key))
    return energy, purity, winner, weights


def _curvatures(weights: Float[Array, "nodes inputs"], table: Pairs) -> Float[np.ndarray, "nodes inputs"]:
    return np.asarray(jax.jit(lambda weights: jax.lax.map(lambda w: sphere_curvatures(w, table), weights))(weights))


def _single_answer(key: PRNGKeyArray, n_starts: int) -> tuple[float, float, xr.Dataset]:
    """Ascents from random starts, of a node that sees pairs with one answer: each pair has two weights of its own."""
    key_order, key_starts = jax.random.split(key)
    ratios = RATIO ** host_generator(key_order).permutation(N_PAIRS)
    p = jnp.asarray(ratios / ratios.sum())
    starts = jnp.asarray(abs(np.asarray(random_nodes(key_starts, n_starts, 2 * N_PAIRS))))

    @jax.jit
    def climb(power: Array) -> Array:
        def value(w: Array) -> Array:
            sums = w[:, :N_PAIRS] + w[:, N_PAIRS:]
            # Its derivative at zero is that from above, of either power.
            return jnp.sum(p[None] * jnp.where(sums > 0, jnp.where(sums > 0, sums, 1) ** power, 0))

        def step(_: Array, w: Array) -> Array:
            up = jax.grad(value)(w)
            w = w + up / jnp.linalg.norm(up, axis=1, keepdims=True)
            return w / jnp.linalg.norm(w, axis=1, keepdims=True)

        w = jax.lax.fori_loop(0, CLIMBING_STEPS, step, starts)
        return w[:, :N_PAIRS] + w[:, N_PAIRS:]

    reached = {power: np.asarray(climb(jnp.asarray(float(power)))) for power in (1, 2)}
    known = {power: np.asarray(memorization_solution(p, float(power))) for power in (1, 2)}
    overlap = (reached[2] @ known[2] / 2).min()
    error = (np.linalg.norm(reached[1] - known[1], axis=1) / np.linalg.norm(known[1])).max()
    data = xr.Dataset(
        {
            "probability": ("pair", np.asarray(p), {"units": "1"}),
            "square": (("start", "pair"), reached[2], {"units": "1", "long_name": "sum of a pair's weights"}),
            "rectifier": (("start", "pair"), reached[1], {"units": "1", "long_name": "sum of a pair's weights"}),
            "square_known": ("pair", known[2], {"units": "1"}),
            "rectifier_known": ("pair", known[1], {"units": "1"}),
        }
    )
    return float(overlap), float(error), data
