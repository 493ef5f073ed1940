"""The energy that a hidden node climbs while it learns a feature, and which feature it has learned (Tian, arXiv:2509.21519).

A network of pairs has f = σ(w·x) with x the two elements as one-hot vectors: σ(u[a] + v[b]) for w = (u, v). As long as its nodes do
not feel each other, each climbs

    E(w) = ½ |Ỹᵀ σ(Xw)|²,     ∇E = Xᵀ (σ'(Xw) ∘ ỸỸᵀ σ(Xw)),     Ỹ = (I - 11ᵀ/n) Y

with the answers as one-hot rows Y: a canonical correlation, nonlinear in x. For σ(x) = x² and all pairs of a group its maxima on
the sphere lie in one block of representations each, of dimension d:

    E = M/(2d) for a representation by real matrices,     M/(4d) for a pair of conjugates (or a quaternionic one)

which is four times what the article prints: with (u + v)² the cross term is 2uv, and it is left at uv there. The phases of u and v
are free, so that maxima are flat, and v need not be ±u. Nothing of size samples × samples or samples × inputs is made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .group_arithmetic import FiniteGroup, Pairs

Activation = Callable[[Array], Array]
"Of one number, or of an array entry by entry."


class Ascent(eqx.Module):
    """Where nodes ended."""

    weights: Float[Array, "nodes inputs"]
    energy: Float[Array, " nodes"]
    slope: Float[Array, " nodes"]
    "Length of the gradient along the sphere, over the whole gradient's: 0 at a maximum."


class FeatureMasses(eqx.Module):
    """How the squared length of nodes' weights is shared among the blocks of a group."""

    masses: Float[Array, "nodes blocks"]
    "They add up to 1, or to 0 where all weights are 0."
    winner: Int[Array, " nodes"]
    "The largest of them, the trivial block (a constant) set aside."
    purity: Float[Array, " nodes"]
    "The winner's share of what is not constant."


def pair_features(weights: Float[Array, "inputs ..."], pairs: Int[Array, "n 2"], activation: Activation) -> Float[Array, "n ..."]:
    """F = σ(XW), as two look-ups: the first half of the inputs stands for the first element, the second half for the second.

    **Raises:** `ValueError` for an odd number of inputs, or known pairs of elements that there are not.

    >>> pair_features(jnp.array([1.0, 2.0, 10.0, 20.0]), jnp.array([[0, 0], [1, 0]]), jnp.square).tolist()
    [121.0, 144.0]
    """
    check_pairs(weights.shape[0], pairs)
    return activation(weights[pairs[:, 0]] + weights[len(weights) // 2 + pairs[:, 1]])


def check_pairs(n_inputs: int, pairs: Int[Array, "n 2"]) -> None:
    """**Raises:** `ValueError` for an odd number of inputs, or known pairs of elements that there are not."""
    if n_inputs % 2:
        raise ValueError(f"weights must have an even number of inputs, two for each element, got {n_inputs}")
    if is_known(pairs):
        numbers = np.asarray(pairs)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < n_inputs // 2:
            raise ValueError(f"pairs must lie in [0, {n_inputs // 2}), got {numbers.min()} to {numbers.max()}")


def centred_class_sums(values: Float[Array, "n ..."], labels: Int[Array, " n"], n_classes: int) -> Float[Array, "classes ..."]:
    """Ỹᵀ values: the sum of each class less its share of the whole sum."""
    flat = values.reshape(len(labels), -1)
    one_hot = jax.nn.one_hot(labels, n_classes, axis=0, dtype=values.dtype)
    # Centred first: the sums are then as exact as their size allows, where their differences would not be.
    sums = one_hot @ (flat - flat.mean(axis=0, keepdims=True))
    return sums.reshape(n_classes, *values.shape[1:])


def target_gradient(features: Float[Array, "n ..."], labels: Int[Array, " n"], n_classes: int) -> Float[Array, "n ..."]:
    """ỸỸᵀF: what a read-out near zero sends back to the features, up to a factor.

    >>> target_gradient(jnp.array([1.0, 2.0, 6.0]), jnp.array([0, 0, 1]), 2).tolist()
    [-2.0, -2.0, 4.0]
    """
    sums = centred_class_sums(features, labels, n_classes)
    sent = sums[labels]
    return sent - sent.mean(axis=0, keepdims=True)


def node_gradient(
    weights: Float[Array, "inputs ..."], pairs: Int[Array, "n 2"], feature_gradient: Float[Array, "n ..."], activation: Activation
) -> Float[Array, "inputs ..."]:
    """Xᵀ (σ'(XW) ∘ G): the gradient of the first layer's weights from that of the features.

    >>> pairs, sent = jnp.array([[0, 1], [1, 1]]), jnp.array([1.0, 2.0])
    >>> node_gradient(jnp.array([1.0, 2.0, 0.0, 3.0]), pairs, sent, jnp.square).tolist()
    [8.0, 20.0, 0.0, 28.0]
    """
    _, pull = jax.vjp(lambda w: pair_features(w, pairs, activation), weights)
    return pull(feature_gradient)[0]


def feature_energy(weights: Float[Array, "inputs ..."], table: Pairs, activation: Activation = jnp.square) -> Float[Array, ...]:
    """E = ½ |Ỹᵀ σ(Xw)|² of each node, one a column.

    In single precision three or four digits are lost to the constant part of σ at a hundred elements: for oracles take double.

    **Arguments:** `weights`: two numbers for each element; `table`: all pairs, or those one learns from.

    >>> from gradatim.landscape import all_pairs, cyclic_group
    >>> wave = jnp.cos(2 * jnp.pi / 7 * jnp.arange(7)) / 7**0.5
    >>> print(f"{feature_energy(jnp.concatenate([wave, wave]), all_pairs(cyclic_group(7))):.3f}", 7 / 4)
    1.750 1.75
    """
    check_pairs(weights.shape[0], table.pairs)
    return _energy(weights, table, activation)


@eqx.filter_jit
def _energy(weights: Array, table: Pairs, activation: Activation) -> Array:
    features = pair_features(weights, table.pairs, activation)
    sums = centred_class_sums(features, table.labels, weights.shape[0] // 2)
    return jnp.sum(sums**2, axis=0) / 2


def energy_parts(
    weights: Float[Array, "inputs ..."], group: FiniteGroup, activation: Activation = jnp.square
) -> Float[Array, "blocks ..."]:
    """The energy over all pairs, block by block of the group's representations: Eₖ = ½ |Πₖ Yᵀσ(Xw)|², for any activation.

    What is learned drops out of it: once the blocks S are reconstructed, a node climbs the sum over the others (theorem 7).
    The trivial block's is 0. Residues under addition take a Fourier transform, other groups their projectors.

    >>> from gradatim.landscape import cyclic_group
    >>> wave = jnp.cos(2 * jnp.pi / 7 * 2 * jnp.arange(7)) / 7**0.5
    >>> print(" ".join(f"{abs(part):.2f}" for part in energy_parts(jnp.concatenate([wave, wave]), cyclic_group(7))))
    0.00 0.00 1.75 0.00
    """
    if weights.shape[0] != 2 * group.order:
        raise ValueError(f"weights must have {2 * group.order} inputs, two for each element, got {weights.shape[0]}")
    partner, elements = jnp.asarray(group.table[group.inverse]), np.arange(group.order)
    is_residues = np.array_equal(group.table, (elements[:, None] + elements) % group.order)
    return _parts(weights, partner, None if is_residues else jnp.asarray(group.isotypic_projectors, weights.dtype), activation)


@eqx.filter_jit
def _parts(weights: Array, partner: Array, projectors: Array | None, activation: Activation) -> Array:
    u, v = jnp.split(weights, 2)
    # σ(u[a] + v[a⁻¹h]) summed over a, for each h.
    features = activation(u[:, None] + v[partner])
    sums = jnp.sum(features - features.mean(axis=(0, 1), keepdims=True), axis=0)
    flat = sums.reshape(len(sums), -1)
    if projectors is None:
        squares = jnp.abs(jnp.fft.rfft(flat, axis=0)) ** 2 / len(flat)
        # Each frequency but the largest of an even order stands for its conjugate too.
        conjugates = jnp.where(2 * jnp.arange(len(squares)) == len(flat), 1, 2).astype(squares.dtype)
        parts = conjugates[:, None] * squares / 2
    else:
        parts = jnp.sum((projectors @ flat[None]) ** 2, axis=1) / 2
    return parts.reshape(len(parts), *weights.shape[1:]).at[0].set(0)


def maximal_energies(group: FiniteGroup) -> Float[np.ndarray, " blocks"]:
    """The energy at the maxima in each block, for σ(x) = x², all pairs and |w| = 1: M/(2d) or M/(4d), 0 for the trivial one.

    >>> from gradatim.landscape import dihedral_group
    >>> maximal_energies(dihedral_group(3)).tolist()
    [0.0, 3.0, 1.5]
    """
    dimensions = np.array([group.irreps[block[0]].shape[1] for block in group.blocks])
    energies = group.order / np.where(group.is_of_real_type, 2, 4) / dimensions
    return np.where(np.arange(len(energies)) == 0, 0.0, energies)


def random_nodes(key: PRNGKeyArray, n_nodes: int, n_inputs: int, dtype: jax.typing.DTypeLike = float) -> Float[Array, "nodes inputs"]:
    """Uniform on the sphere.

    **Raises:** `ValueError` for fewer than 1 node.

    >>> nodes = random_nodes(jax.random.key(0), 3, 14)
    >>> nodes.shape, bool(jnp.allclose(jnp.linalg.norm(nodes, axis=1), 1))
    ((3, 14), True)
    """
    if n_nodes < 1:
        raise ValueError(f"n_nodes must be at least 1, got {n_nodes}")
    return _random_nodes(key, n_nodes, n_inputs, dtype)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _random_nodes(key: PRNGKeyArray, n_nodes: int, n_inputs: int, dtype: jax.typing.DTypeLike) -> Array:
    draws = jax.random.normal(key, (n_nodes * n_inputs,), dtype).reshape(n_nodes, n_inputs)
    return draws / jnp.linalg.norm(draws, axis=1, keepdims=True)


def ascend_features(
    weights: Float[Array, "nodes inputs"], table: Pairs, activation: Activation = jnp.square, *, n_steps: int = 1000, step_size: float = 0.5
) -> Ascent:
    """Climbs the energy on the unit sphere, each node for itself.

        w ← (w + h ∇E/|∇E|) / |…|

    Relative to the gradient's length one step suits all groups and activations; where the gradient vanishes a node stays.

    **Arguments:** `weights`: starts, one a row, of any length but 0; `n_steps` ≥ 0; `step_size` h > 0.

    **Raises:** `ValueError` for a number out of its range or pairs that do not fit the weights.

    >>> from gradatim.landscape import all_pairs, cyclic_group
    >>> found = ascend_features(random_nodes(jax.random.key(0), 4, 14), all_pairs(cyclic_group(7)))
    >>> print(" ".join(f"{energy:.2f}" for energy in found.energy), "at a quarter of 7")
    1.75 1.75 1.75 1.75 at a quarter of 7
    """
    check_pairs(weights.shape[1], table.pairs)
    if n_steps < 0:
        raise ValueError(f"n_steps must be at least 0, got {n_steps}")
    if not step_size > 0:
        raise ValueError(f"step_size must be positive, got {step_size}")
    return _ascent(weights, table, activation, jnp.asarray(n_steps, jnp.int32), jnp.asarray(step_size, weights.dtype))


@eqx.filter_jit
def _ascent(weights: Array, table: Pairs, activation: Activation, n_steps: Array, step_size: Array) -> Ascent:
    def unit(w: Array) -> Array:
        length = jnp.linalg.norm(w, axis=0, keepdims=True)
        return w / jnp.where(length > 0, length, 1)

    def total(w: Array) -> tuple[Array, Array]:
        energies = feature_energy(w, table, activation)
        return energies.sum(), energies

    gradient = jax.grad(total, has_aux=True)
    w = jax.lax.fori_loop(0, n_steps, lambda _, w: unit(w + step_size * unit(gradient(w)[0])), unit(weights.T))
    up, energies = gradient(w)
    along = jnp.linalg.norm(up - jnp.sum(up * w, axis=0, keepdims=True) * w, axis=0)
    whole = jnp.linalg.norm(up, axis=0)
    return Ascent(w.T, energies, jnp.where(whole > 0, along / jnp.where(whole > 0, whole, 1), 0))


def classify_features(weights: Float[Array, "nodes inputs"], group: FiniteGroup) -> FeatureMasses:
    """Which block of representations the weights of each node, one a row, lie in, and how purely.

    **Raises:** `ValueError` for weights of another length than two numbers for each element.

    >>> from gradatim.landscape import cyclic_group
    >>> wave = jnp.cos(2 * jnp.pi / 7 * 2 * jnp.arange(7))
    >>> found = classify_features(jnp.concatenate([wave, 3 * wave])[None], cyclic_group(7))
    >>> int(found.winner[0]), f"{found.purity[0]:.3f}"
    (2, '1.000')
    """
    if weights.shape[1] != 2 * group.order:
        raise ValueError(f"weights must have {2 * group.order} entries, two for each element, got {weights.shape[1]}")
    return feature_masses(weights, jnp.asarray(group.isotypic_projectors, weights.dtype))


@jax.jit
def feature_masses(weights: Float[Array, "nodes inputs"], projectors: Float[Array, "blocks order order"]) -> FeatureMasses:
    """The same from the projectors of a group, the trivial block's first.

    >>> from gradatim.landscape import cyclic_group
    >>> projectors = jnp.asarray(cyclic_group(3).isotypic_projectors, jnp.float32)
    >>> found = feature_masses(jnp.array([[1.0, 1.0, 1.0, 1.0, -1.0, 0.0]]), projectors)
    >>> print(" ".join(f"{mass:.1f}" for mass in found.masses[0]), found.winner)
    0.6 0.4 [1]
    """
    halves = weights.reshape(len(weights), 2, -1)
    # ‖Πw‖² = w·Πw of an orthogonal projector.
    squares = jnp.einsum("nhx,bxy,nhy->nb", halves, projectors, halves)
    whole = squares.sum(axis=1)
    moving = squares[:, 1:]
    rest = moving.sum(axis=1)
    return FeatureMasses(
        squares / jnp.where(whole > 0, whole, 1)[:, None],
        1 + moving.argmax(axis=1),
        moving.max(axis=1) / jnp.where(rest > 0, rest, 1),
    )


def sphere_curvatures(weights: Float[Array, " inputs"], table: Pairs, activation: Activation = jnp.square) -> Float[Array, " inputs"]:
    """The curvatures of the energy along the unit sphere at a point of it, ascending: inputs - 1 of them, and a 0 for the way off it.

    At a maximum none is above zero, and those that are zero are the directions in which it is flat. Double precision.

    >>> from gradatim.landscape import all_pairs, cyclic_group
    >>> wave = jnp.cos(2 * jnp.pi / 5 * jnp.arange(5))
    >>> found = sphere_curvatures(jnp.concatenate([wave, wave]), all_pairs(cyclic_group(5)))
    >>> print(found.shape, "three of them flat:", int((jnp.abs(found) < 1e-4).sum()))
    (10,) three of them flat: 3
    """
    return _curvatures(weights / jnp.linalg.norm(weights), table, activation)


@eqx.filter_jit
def _curvatures(w: Array, table: Pairs, activation: Activation) -> Array:
    def energy(w: Array) -> Array:
        return feature_energy(w, table, activation)

    along = jnp.eye(len(w)) - w[:, None] * w[None]
    slope = jax.grad(energy)(w) @ w
    hessian = along @ (jax.hessian(energy)(w) - slope * jnp.eye(len(w))) @ along
    return jnp.linalg.eigvalsh((hessian + hessian.T) / 2)
