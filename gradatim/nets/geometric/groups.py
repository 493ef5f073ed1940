"""Finite groups, their representations, and the linear maps that respect them (arXiv:2104.13478, Section 3.1).

    (ρ(g)x)(u) = x(g⁻¹u),     ρ(g)ρ(h) = ρ(gh)

Groups are tables of numbers on the host: an element is a row of the table. An *action* is any function `act(g, x)`, and a
[`Representation`][gradatim.nets.geometric.Representation] is one that multiplies by matrices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

Action = Callable[[Any, Any], Any]
"From an element and what it acts on to the outcome."
ROUND_OFF = 1e-9
"Of products of matrices whose entries are of order one."


@dataclass(frozen=True, eq=False)
class Group:
    """A finite group of matrices.

    **Arguments:** `name`; `matrices`: its elements, real and orthogonal, the identity first.

    **Raises:** `ValueError` for matrices that are no group: without the identity in front, one twice, or a product that is not among them.

    >>> quarter_turns = cyclic(4)
    >>> quarter_turns.order, quarter_turns.inverse.tolist()
    (4, [0, 3, 2, 1])
    """

    name: str
    matrices: Float[np.ndarray, "order dim dim"]

    def __post_init__(self) -> None:
        dim = self.matrices.shape[1]
        if not np.allclose(self.matrices[0], np.eye(dim), atol=ROUND_OFF):
            raise ValueError(f"the first matrix of {self.name} must be the identity, got {self.matrices[0].tolist()}")
        if (self.table < 0).any():
            g, h = np.argwhere(self.table < 0)[0]
            raise ValueError(f"{self.name} must hold all products of its elements, got none for elements {g} and {h}")
        if len(np.unique(self.table[0])) != self.order:
            raise ValueError(f"elements of {self.name} must differ, got {self.order - len(np.unique(self.table[0]))} twice")

    @property
    def order(self) -> int:
        """How many elements there are."""
        return len(self.matrices)

    @property
    def dim(self) -> int:
        """Of the space that the matrices act on."""
        return self.matrices.shape[1]

    @functools.cached_property
    def table(self) -> Int[np.ndarray, "order order"]:
        """`table[g, h]` is gh; -1 where there is no such element."""
        numbers = {_signature(matrix): g for g, matrix in reversed(list(enumerate(self.matrices)))}
        products = np.einsum("gij,hjk->ghik", self.matrices, self.matrices)
        return np.array([[numbers.get(_signature(product), -1) for product in row] for row in products])

    @functools.cached_property
    def inverse(self) -> Int[np.ndarray, " order"]:
        """The number of g⁻¹ for each g."""
        return np.argmin(self.table, axis=1)

    @functools.cached_property
    def generators(self) -> tuple[int, ...]:
        """A few elements whose products are all of them."""
        chosen: list[int] = []
        reached = {0}
        while len(reached) < self.order:
            chosen.append(min(set(range(self.order)) - reached))
            front = reached = {0}
            while front:
                front = {int(self.table[g, s]) for g in front for s in chosen} - reached
                reached = reached | front
        return tuple(chosen)

    def __repr__(self) -> str:
        return f"{self.name} ({self.order} elements)"


def _signature(matrix: np.ndarray) -> bytes:
    # Adding zero turns -0 into 0.
    return (np.round(matrix, 6) + 0.0).tobytes()


def _generated(name: str, generators: Sequence[np.ndarray]) -> Group:
    """The group of all products of matrices."""
    found = {_signature(np.eye(len(generators[0]))): np.eye(len(generators[0]))}
    front = list(found.values())
    while front:
        products = [a @ b for a in front for b in generators]
        front = []
        for product in products:
            if found.setdefault(_signature(product), product) is product:
                front.append(product)
    return Group(name, np.stack(list(found.values())))


@functools.cache
def cyclic(n: int) -> Group:
    """Turns of the plane by multiples of 2π/n, in their order: element k turns by 2πk/n.

    **Raises:** `ValueError` for n below 1.

    >>> cyclic(4).matrices[1].tolist()  # a quarter turn
    [[0.0, -1.0], [1.0, 0.0]]
    """
    _check_order(n)
    angles = 2 * np.pi * np.arange(n) / n
    return Group(f"C{n}", _unsigned(np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)))


@functools.cache
def dihedral(n: int) -> Group:
    """Turns of the plane by multiples of 2π/n, and the reflections between them: 2n elements, the turns first.

    **Raises:** `ValueError` for n below 1.

    >>> group = dihedral(3)
    >>> group, bool((group.table == group.table.T).all())  # the order of turns and reflections matters
    (D3 (6 elements), False)
    """
    _check_order(n)
    turns = cyclic(n).matrices
    return Group(f"D{n}", np.concatenate([turns, _unsigned(turns @ np.diag([1.0, -1.0]))]))


@functools.cache
def mirror() -> Group:
    """The reflection of a line.

    >>> act_on_grid(mirror())(1, np.array([1, 2, 3])).tolist()
    [3, 2, 1]
    """
    return Group("Z2", np.array([[[1.0]], [[-1.0]]]))


@functools.cache
def octahedral(*, reflections: bool = False) -> Group:
    """The 24 rotations of a cube, or its 48 symmetries with reflections.

    >>> octahedral(), octahedral(reflections=True)
    (O (24 elements), Oh (48 elements))
    """
    turns = [np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])]
    return _generated("Oh", [*turns, -np.eye(3)]) if reflections else _generated("O", turns)


@functools.cache
def symmetric(n: int) -> Group:
    """All n! permutations of n things: the matrix of element g moves thing j to place i where entry ij is 1.

    **Raises:** `ValueError` for n below 1 or above 6.

    >>> symmetric(4).order
    24
    """
    if not 1 <= n <= 6:
        raise ValueError(f"n must lie between 1 and 6, got {n}: larger groups are sampled, not listed")
    return Group(f"S{n}", np.stack([np.eye(n)[list(order)] for order in permutations(range(n))]))


def _check_order(n: int) -> None:
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")


def _unsigned(matrices: np.ndarray) -> np.ndarray:
    """Quarter turns without round-off."""
    whole = np.round(matrices)
    return np.where(np.abs(matrices - whole) < ROUND_OFF, whole, matrices) + 0.0


@dataclass(frozen=True, eq=False)
class Representation:
    """Real matrices that multiply as the elements of a group do; called, it acts on the last axis: `rho(g, x)`.

    **Arguments:** `name`; `group`; `matrices`: one for each element.

    **Raises:** `ValueError` for as many matrices as there are not elements, or if some ρ(g)ρ(h) is not ρ(gh).

    >>> rho = standard(dihedral(4))
    >>> (rho + trivial(rho.group)).dim, rho(1, np.array([1.0, 0.0])).tolist()
    (3, [0.0, 1.0])
    """

    name: str
    group: Group
    matrices: Float[np.ndarray, "order dim dim"]

    def __post_init__(self) -> None:
        if len(self.matrices) != self.group.order:
            raise ValueError(
                f"{self.name} needs {self.group.order} matrices, one for each element of {self.group.name}, got {len(self.matrices)}"
            )
        # Products with generators are enough.
        for s in (0, *self.group.generators):
            off = np.abs(self.matrices[s] @ self.matrices - self.matrices[self.group.table[s]]).max(axis=(1, 2))
            if off.max() > 1e-6:
                raise ValueError(
                    f"{self.name} is no representation of {self.group.name}: ρ(g)ρ(h) differs from ρ(gh) by {off.max():.2g} "
                    f"for elements {s} and {off.argmax()}"
                )

    @property
    def dim(self) -> int:
        """Of the space that it acts on."""
        return self.matrices.shape[1]

    def __call__(self, g: int | np.integer, x: Any) -> Any:
        """ρ(g)x, of a NumPy array without the device."""
        return x @ self.matrices[g].T.astype(x.dtype)

    def __add__(self, other: Representation) -> Representation:
        """The direct sum: both, one behind the other."""
        self._check_group(other)
        n, m = self.dim, other.dim
        sums = np.zeros((self.group.order, n + m, n + m))
        sums[:, :n, :n], sums[:, n:, n:] = self.matrices, other.matrices
        return Representation(f"{self.name} + {other.name}", self.group, sums)

    def __mul__(self, other: Representation) -> Representation:
        """The tensor product, on matrices written out row by row."""
        self._check_group(other)
        products = np.einsum("gij,gkl->gikjl", self.matrices, other.matrices)
        dim = self.dim * other.dim
        return Representation(f"{self.name} × {other.name}", self.group, products.reshape(self.group.order, dim, dim))

    def _check_group(self, other: Representation) -> None:
        if self.group is not other.group:
            raise ValueError(f"both representations must be of one group, got {self.group.name} and {other.group.name}")


def trivial(group: Group) -> Representation:
    """One number that nothing changes.

    >>> trivial(cyclic(4))(1, np.array([5.0])).tolist()
    [5.0]
    """
    return Representation("trivial", group, np.ones((group.order, 1, 1)))


def standard(group: Group) -> Representation:
    """The matrices that the group is made of.

    >>> standard(cyclic(4))(1, np.array([1.0, 0.0])).tolist()
    [0.0, 1.0]
    """
    return Representation("standard", group, group.matrices)


def regular(group: Group) -> Representation:
    """Functions on the group itself: (ρ(g)x)(h) = x(g⁻¹h).

    >>> regular(cyclic(4))(1, np.array([1.0, 2.0, 3.0, 4.0])).tolist()
    [4.0, 1.0, 2.0, 3.0]
    """
    return Representation("regular", group, np.eye(group.order)[:, group.table].transpose(1, 0, 2))


def irreducible(group: Group, order: int, *, reflected: bool = False) -> Representation:
    """Of turns of the plane, and reflections: `order` times the angle, for `order` from 0 to half the number of turns.

    At both ends there are single numbers: 1 for order 0, and for half the turns a sign that alternates from one to the next. Where the
    group has reflections, each of them comes in a second kind, `reflected`, which changes sign under those.

    **Raises:** `ValueError` for a group that does not act on the plane, an order out of range, or a reflected kind that there is not.

    >>> [int(irreducible(dihedral(4), 2, reflected=True).matrices[g, 0, 0]) for g in range(8)]  # four turns, four reflections
    [1, -1, 1, -1, -1, 1, -1, 1]
    """
    if group.dim != 2:
        raise ValueError(f"group must act on the plane, got {group.name} of dimension {group.dim}")
    sign = np.sign(np.linalg.det(group.matrices))
    turns = int((sign > 0).sum())
    if not 0 <= order <= turns / 2:
        raise ValueError(f"order must lie between 0 and half the turns, {turns / 2:g}, got {order} for {group.name}")
    angle = order * np.arctan2(group.matrices[:, 1, 0], group.matrices[:, 0, 0])
    cos, sin = np.cos(angle), np.sin(angle)
    is_single = order in (0, turns / 2)
    if reflected and (turns == group.order or not is_single):
        raise ValueError(f"reflected must be False for order {order} of {group.name}: it has no second kind")
    name = f"order {order}, reflected" if reflected else f"order {order}"
    if is_single:
        return Representation(name, group, np.round(cos * (sign if reflected else 1))[:, None, None] + 0.0)
    return Representation(name, group, np.array([[cos, -sign * sin], [sin, sign * cos]]).transpose(2, 0, 1))


def on_grid(group: Group, *, side: int) -> Representation:
    """Values on a square (or cubic) grid with as many points a side, written out row by row.

    **Raises:** as [`act_on_grid`][gradatim.nets.geometric.act_on_grid].

    >>> len(intertwiner_basis(on_grid(cyclic(4), side=3), trivial(cyclic(4))))  # filters of 3 x 3 that quarter turns leave alone
    3
    """
    n = side**group.dim
    points = np.eye(n).reshape((side,) * group.dim + (n,))
    return Representation(f"grid {side}", group, np.stack([act_on_grid(group)(g, points).reshape(n, n) for g in range(group.order)]))


def act_on_grid(group: Group) -> Action:
    """Turns and flips arrays whose first axes are those of a square (or cubic) grid, about its centre, exactly.

    Axis i is coordinate i of the group's matrices: element 1 of a cyclic group is `numpy.rot90`.

    **Raises:** `ValueError` for a group that does not map the grid to itself, such as sixths of a turn; when it is called, for axes of
    different lengths.

    >>> act_on_grid(cyclic(4))(1, np.array([[1, 2], [3, 4]])).tolist()
    [[2, 4], [1, 3]]
    """
    signs = np.round(group.matrices)
    if np.abs(signs - group.matrices).max() > ROUND_OFF:
        raise ValueError(f"{group.name} does not map a grid to itself: take quarter turns, reflections or the symmetries of a cube")
    dim = group.dim

    def act(g: int | np.integer, x: Any) -> Any:
        if len(set(x.shape[:dim])) != 1:
            raise ValueError(f"the first {dim} axes must be of one length, got {x.shape}")
        sources = [int(np.flatnonzero(row)[0]) for row in signs[g]]
        # Column j says whether coordinate j of g⁻¹u runs against the coordinate that it comes from.
        flipped = x[tuple(slice(None, None, int(signs[g][:, j].sum())) for j in range(dim))]
        return flipped.transpose(*sources, *range(dim, x.ndim))

    return act


def unchanged(g: Any, x: Any) -> Any:
    """The action of any group on what is invariant."""
    del g
    return x


def reynolds(f: Callable[[Any], Any], group: Group, act_in: Action, act_out: Action = unchanged) -> Callable[[Any], Any]:
    """The average of a function over a group, which is equivariant whatever the function is.

        f_G(x) = (1/|G|) Σ_g ρ'(g)⁻¹ f(ρ(g)x)

    It calls `f` once for each element. Averaged again, nothing changes.

    >>> average = reynolds(lambda x: x[:1], cyclic(4), standard(cyclic(4)), unchanged)
    >>> average(np.array([3.0, 4.0])).tolist()
    [0.0]
    """

    def averaged(x: Any) -> Any:
        total: Any = 0
        for g in range(group.order):
            total = total + act_out(int(group.inverse[g]), f(act_in(g, x)))
        return total / group.order

    return averaged


def intertwiner_basis(rho_in: Representation, rho_out: Representation) -> Float[np.ndarray, "dimensions out in"]:
    """All linear maps W with ρ'(g)W = Wρ(g), as an orthonormal basis: the null space of these conditions on generators.

    **Raises:** `ValueError` for representations of different groups.

    >>> things = standard(symmetric(4))
    >>> len(intertwiner_basis(things, things)), len(intertwiner_basis(things * things, things * things))
    (2, 15)
    """
    rho_in._check_group(rho_out)
    n, m = rho_out.dim, rho_in.dim
    conditions = [np.zeros((1, n * m))]
    for g in rho_in.group.generators:
        # Rows of W one behind the other: ρ'W becomes ρ' ⊗ 1, and Wρ becomes 1 ⊗ ρᵀ.
        conditions.append(np.kron(rho_out.matrices[g], np.eye(m)) - np.kron(np.eye(n), rho_in.matrices[g].T))
    # Of the product with its transpose the eigenvectors cost a tenth of the singular vectors, and zero stays apart from the least
    # eigenvalue of a small group, which is of order one.
    stacked = np.concatenate(conditions)
    values, vectors = np.linalg.eigh(stacked.T @ stacked)
    return vectors[:, values < 1e-8].T.reshape(-1, n, m)
