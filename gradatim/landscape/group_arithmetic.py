"""Finite groups as tables, their representations, and the task of completing a table from some of its entries.

A group is given by its Cayley table alone. Its irreducible representations are found numerically, whatever the group: a random Hermitian
matrix that commutes with all left translations has them as its eigenspaces, each as often as its dimension.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, PRNGKeyArray

CRITICAL_CONSTANT = 2.7482
"Of the fraction of pairs that is needed to generalise, in the authors' code."
SAME = 1e-6
"Eigenvalues and characters that differ by less are one: apart they differ by far more, equal ones by round-off."


@dataclass(frozen=True, eq=False)
class FiniteGroup:
    """A group of elements 0, 1, …, M - 1 with `table[a, b]` = ab.

    **Raises:** `ValueError` that names the axiom which the table breaks.

    >>> group = dihedral_group(3)
    >>> [rho.shape[1] for rho in group.irreps], group.table[1, 3] == group.table[3, 1]
    ([1, 1, 2], np.False_)
    """

    table: Int[np.ndarray, "order order"]

    def __post_init__(self) -> None:
        table, swapped, elements = self.table, self.table.T, np.arange(len(self.table))
        if table.size == 0 or not ((table >= 0) & (table < len(table))).all():
            raise ValueError(f"table must be closed, with entries in [0, {len(table)}), got {np.unique(table).tolist()}")
        if not ((table == elements).all(axis=1) & (swapped == elements).all(axis=1)).any():
            raise ValueError("table must have an identity, an element e with ea = ae = a, got none")
        lonely = ~((table == self.identity) & (swapped == self.identity)).any(axis=1)
        if lonely.any():
            raise ValueError(f"table must give every element an inverse, got none for {elements[lonely].tolist()}")
        broken = np.argwhere(table[table] != table[:, table])
        if len(broken):
            a, b, c = broken[0].tolist()
            raise ValueError(f"table must be associative, got (ab)c ≠ a(bc) for a, b, c = {a}, {b}, {c}")

    @property
    def order(self) -> int:
        """How many elements there are, M."""
        return len(self.table)

    @property
    def identity(self) -> int:
        """The element that changes nothing."""
        return int(np.argmax((self.table == np.arange(self.order)).all(axis=1)))

    @functools.cached_property
    def inverse(self) -> Int[np.ndarray, " order"]:
        """The inverse of each element."""
        return np.argmax(self.table == self.identity, axis=1).astype(np.int32)

    @functools.cached_property
    def irreps(self) -> tuple[Complex[np.ndarray, "order d d"], ...]:
        """One unitary matrix an element, for each irreducible representation: those of small dimension first, the trivial one first of all.

        Of a cyclic group in the order of its frequencies.
        """
        for seed in range(10):
            found = self._decomposed(seed)
            if sum(rho.shape[1] ** 2 for rho in found) == self.order:
                return tuple(sorted(found, key=_rank))
        raise RuntimeError(f"the representations of a group of order {self.order} could not be told apart numerically")

    def _decomposed(self, seed: int) -> list[np.ndarray]:
        random, inverse = np.random.default_rng(seed), self.inverse
        c = random.normal(size=self.order) + 1j * random.normal(size=self.order)
        c = c + c[inverse].conj()
        values, vectors = np.linalg.eigh(c[self.table[inverse]])
        found: list[np.ndarray] = []
        for start, end in itertools.pairwise(np.flatnonzero(np.diff(values, prepend=-np.inf, append=np.inf) > SAME * abs(values).max())):
            v = vectors[:, start:end]
            rho = np.einsum("xi,gxj->gij", v.conj(), v[self.table[inverse]])
            character = np.einsum("gii->g", rho)
            if all(abs(np.einsum("gii->g", other) - character).max() > SAME * self.order for other in found):
                found.append(rho)
        return found

    @functools.cached_property
    def characters(self) -> Complex[np.ndarray, "irreps order"]:
        """The traces of the representations."""
        return np.stack([np.einsum("gii->g", rho) for rho in self.irreps])

    @functools.cached_property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """The representations that a real vector mixes: each alone whose character is real, the others with their conjugates."""
        conjugate = [int(np.argmin(abs(self.characters - row.conj()).max(axis=1))) for row in self.characters]
        return tuple(tuple(sorted({k, other})) for k, other in enumerate(conjugate) if k <= other)

    @functools.cached_property
    def isotypic_projectors(self) -> Float[np.ndarray, "blocks order order"]:
        """The orthogonal projectors of the space of functions on the group onto its blocks, which add up to the identity.

        Π[x, h] = Σ d/M χ(h⁻¹x) over the representations of the block.
        """
        quotient = self.table[self.inverse].T
        each = [self.irreps[k].shape[1] / self.order * self.characters[k][quotient] for k in range(len(self.irreps))]
        return np.stack([sum(each[k] for k in block).real for block in self.blocks])

    @functools.cached_property
    def is_of_real_type(self) -> Bool[np.ndarray, " blocks"]:
        """Whether a block is one representation by real matrices: the indicator of Frobenius and Schur, mean of χ(g²), is 1."""
        squares = np.diagonal(self.table)
        return np.array([self.characters[block[0]][squares].mean().real > 0.5 for block in self.blocks])

    @property
    def largest_dimension(self) -> int:
        """Of the representations; 1 where the group is commutative."""
        return max(rho.shape[1] for rho in self.irreps)


def _rank(rho: np.ndarray) -> tuple[int, tuple[float, ...]]:
    character = np.einsum("gii->g", rho)
    angles = np.where(abs(character) > SAME, (np.angle(character) + SAME) % (2 * math.pi), 0)
    return rho.shape[1], tuple(angles.round(5).tolist())


def cyclic_group(order: int) -> FiniteGroup:
    """The residues modulo `order` under addition.

    >>> print(cyclic_group(4).characters[1].round(6) + 0)
    [ 1.+0.j  0.+1.j -1.+0.j  0.-1.j]
    """
    _check_size("order", order)
    elements = np.arange(order)
    return FiniteGroup(((elements[:, None] + elements) % order).astype(np.int32))


def dihedral_group(sides: int) -> FiniteGroup:
    """The 2n symmetries of a polygon of n sides: rotations r, then reflections, of which `r + n` is the rotation r after the first one.

    >>> group = dihedral_group(4)
    >>> group.order, int(group.table[1, 4]), int(group.table[4, 1])  # a turn after a reflection, and before it
    (8, 5, 7)
    """
    _check_size("sides", sides)
    rotation, is_flipped = np.arange(2 * sides) % sides, np.arange(2 * sides) >= sides
    turned = np.where(is_flipped[:, None], rotation[:, None] - rotation, rotation[:, None] + rotation) % sides
    return FiniteGroup((turned + sides * (is_flipped[:, None] ^ is_flipped)).astype(np.int32))


def symmetric_group(letters: int) -> FiniteGroup:
    """The permutations of up to five letters, in the order of their words; (ab)(x) = a(b(x)).

    >>> group = symmetric_group(3)
    >>> group.order, group.largest_dimension
    (6, 2)
    """
    if not 1 <= letters <= 5:
        raise ValueError(f"letters must lie between 1 and 5, got {letters}")
    words = np.array(list(itertools.permutations(range(letters))))
    place = {tuple(word): number for number, word in enumerate(words.tolist())}
    return FiniteGroup(np.array([[place[tuple(a[b].tolist())] for b in words] for a in words], np.int32))


def product_group(first: FiniteGroup, second: FiniteGroup) -> FiniteGroup:
    """Pairs (a, b), numbered a · order of the second + b, multiplied entry by entry.

    >>> group = product_group(cyclic_group(2), cyclic_group(3))
    >>> group.order, int(group.table[1 * 3 + 2, 1 * 3 + 2])
    (6, 1)
    """
    n = second.order
    table = first.table[:, None, :, None] * n + second.table[None, :, None, :]
    return FiniteGroup(table.reshape(first.order * n, first.order * n).astype(np.int32))


class Pairs(eqx.Module):
    """Entries of a table: the numbers of two elements and that of their product."""

    pairs: Int[Array, "n 2"]
    labels: Int[Array, " n"]


def all_pairs(group: FiniteGroup) -> Pairs:
    """The whole table, row by row.

    >>> table = all_pairs(cyclic_group(3))
    >>> table.pairs[5].tolist(), int(table.labels[5])
    ([1, 2], 0)
    """
    pairs = np.indices((group.order, group.order)).reshape(2, -1).T
    return Pairs(jnp.asarray(pairs, jnp.int32), jnp.asarray(group.table.ravel(), jnp.int32))


def split_pairs(
    group: FiniteGroup, *, key: PRNGKeyArray, train_fraction: float | None = None, n_train: int | None = None
) -> tuple[Pairs, Pairs]:
    """Pairs to learn from, drawn uniformly without replacement, and the rest, to be tested on.

    Of one key, those of a smaller number are the first ones of a larger number.

    **Arguments:** either `train_fraction` in (0, 1] or `n_train` in [1, M²].

    **Raises:** `ValueError` for a number out of its range, for both of them or none.

    >>> train, test = split_pairs(cyclic_group(5), key=jax.random.key(0), train_fraction=0.4)
    >>> len(train.labels), len(test.labels)
    (10, 15)
    """
    n = group.order**2
    if (train_fraction is None) == (n_train is None):
        raise ValueError(f"give either train_fraction or n_train, got {train_fraction} and {n_train}")
    if train_fraction is not None and not 0 < train_fraction <= 1:
        raise ValueError(f"train_fraction must lie in (0, 1], got {train_fraction}")
    count = n_train if train_fraction is None else max(1, round(train_fraction * n))
    assert count is not None
    if not 1 <= count <= n:
        raise ValueError(f"n_train must lie in [1, {n}], the number of pairs, got {count}")
    return _split(all_pairs(group), key, count)


@functools.partial(jax.jit, static_argnums=2)
def _split(table: Pairs, key: PRNGKeyArray, n_train: int) -> tuple[Pairs, Pairs]:
    order = jax.random.permutation(key, len(table.labels))
    train, test = (Pairs(table.pairs[rows], table.labels[rows]) for rows in (order[:n_train], order[n_train:]))
    return train, test


def critical_train_fraction(order: int, largest_dimension: int = 1, *, constant: float = CRITICAL_CONSTANT) -> float:
    """The fraction of pairs from which the features of a group can be told: constant · d² log M / M, at most 1.

    The shape is that of theorem 4, n ≳ d² M log(M/δ), of which d is the largest dimension of a representation; the constant is that of
    the authors' code, which multiplies it by d/2 for groups that are not commutative, and not by d².

    **Raises:** `ValueError` for an order below 2, a dimension below 1 or a constant that is not positive.

    >>> [round(critical_train_fraction(order), 3) for order in (23, 71, 127)]
    [0.375, 0.165, 0.105]
    """
    if order < 2:
        raise ValueError(f"order must be at least 2, got {order}")
    _check_size("largest_dimension", largest_dimension)
    if not constant > 0:
        raise ValueError(f"constant must be positive, got {constant}")
    return min(1.0, constant * largest_dimension**2 * math.log(order) / order)


def _check_size(name: str, size: int) -> None:
    if size < 1:
        raise ValueError(f"{name} must be at least 1, got {size}")
