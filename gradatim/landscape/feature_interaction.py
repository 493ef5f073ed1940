"""How hidden nodes feel each other once the read-out has settled (Tian, arXiv:2509.21519, theorems 6 and 7).

The read-out of centred features F̃ is BF̃ᵀỸ with B = (F̃ᵀF̃ + ηI)⁻¹. Off the diagonal,

    b[j, l] = -s / ((η + fⱼᵀPfⱼ)(η + fₗᵀPfₗ) - s²),     s = fⱼᵀPfₗ,     P = I - F₋(F₋ᵀF₋ + ηI)⁻¹F₋ᵀ without columns j and l

so that nodes alike in what the others leave over repel each other. And what the read-out reproduces is missing from the error that is
sent back: a learned block of representations drops out of the energy of all nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradatim.numerics.checks import is_known
from gradatim.numerics.ridge import check_not_negative

from .group_arithmetic import FiniteGroup
from .lazy_readout import centred

Number = float | Float[Array, ""]


def node_coupling(features: Float[Array, "n nodes"], *, decay: Number) -> Float[Array, "nodes nodes"]:
    """B = (F̃ᵀF̃ + ηI)⁻¹: how much of one node's correlation with the targets goes to another's read-out.

    **Arguments:** `features`: one sample a row, centred here; `decay`: η > 0.

    **Raises:** `ValueError` for a decay that is not positive.

    >>> alike = jnp.array([[1.0, 0.9], [-1.0, -0.9]])
    >>> bool(node_coupling(alike, decay=0.1)[0, 1] < 0)
    True
    """
    _check_decay(decay)
    return _coupling(features, jnp.asarray(decay, features.dtype))


@jax.jit
def _coupling(features: Array, decay: Array) -> Array:
    F = centred(features)
    factor = jax.scipy.linalg.cho_factor(F.T @ F + decay * jnp.eye(F.shape[1], dtype=F.dtype))
    return jax.scipy.linalg.cho_solve(factor, jnp.eye(F.shape[1], dtype=F.dtype))


def overlap_without(
    features: Float[Array, "n nodes"], pair: Int[Array, "*pairs two"], *, decay: Number
) -> tuple[Float[Array, "*pairs"], Float[Array, "*pairs"]]:
    """What two nodes have in common beyond all others, s = fⱼᵀPfₗ, and the coupling b[j, l] that follows from it, without inverting B.

    **Arguments:** `features`: as in [`node_coupling`][gradatim.landscape.node_coupling]; `pair`: numbers of two different nodes, or
    several pairs of them; `decay`: η > 0.

    **Raises:** `ValueError` for a decay that is not positive, or a known pair that is none.

    >>> alike = jnp.array([[1.0, 0.9], [-1.0, -0.9]])
    >>> overlap, coupling = overlap_without(alike, jnp.array([0, 1]), decay=0.1)
    >>> print(f"{overlap:.1f}", bool(jnp.allclose(coupling, node_coupling(alike, decay=0.1)[0, 1], rtol=1e-3)))
    1.8 True
    """
    _check_decay(decay)
    if is_known(pair):
        rows = np.asarray(pair).reshape(-1, 2)
        if not ((rows >= 0) & (rows < features.shape[1])).all() or (rows[:, 0] == rows[:, 1]).any():
            raise ValueError(f"pair must hold two different numbers in [0, {features.shape[1]}), got {rows.tolist()}")
    overlap, coupling = _overlaps(features, pair.reshape(-1, 2), jnp.asarray(decay, features.dtype))
    return overlap.reshape(pair.shape[:-1]), coupling.reshape(pair.shape[:-1])


@jax.jit
def _overlaps(features: Array, pairs: Array, decay: Array) -> tuple[Array, Array]:
    F = centred(features)
    nodes = jnp.arange(F.shape[1])

    def one(pair: Array) -> tuple[Array, Array]:
        both = F[:, pair]
        # A column of zeros is as good as none.
        others = jnp.where(((nodes == pair[0]) | (nodes == pair[1]))[None], 0, F)
        gram = others.T @ others + decay * jnp.eye(F.shape[1], dtype=F.dtype)
        fitted = others @ jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(gram), others.T @ both)
        inner = both.T @ (both - fitted)
        first, second, s = decay + inner[0, 0], decay + inner[1, 1], inner[0, 1]
        return s, -s / (first * second - s**2)

    return jax.lax.map(one, pairs)


def learned_prediction(group: FiniteGroup, blocks: Sequence[int]) -> Float[np.ndarray, "order order"]:
    """What a network says of all pairs once it has learned some blocks of representations: a row for each true product h.

        Ŷ[h, h'] = Σ d/M χ(h⁻¹h')      over the representations of the blocks

    the projector onto them. For a commutative group χ(h⁻¹h') is the product that the article prints, which elsewhere would not reproduce
    the table. All blocks but the trivial one give 1 - 1/M where h = h' and -1/M elsewhere.

    **Raises:** `ValueError` for a block that there is not, or the trivial one.

    >>> from gradatim.landscape import cyclic_group
    >>> print(learned_prediction(cyclic_group(5), [1, 2])[0].round(3))
    [ 0.8 -0.2 -0.2 -0.2 -0.2]
    """
    n = len(group.blocks)
    if not all(1 <= block < n for block in blocks):
        raise ValueError(f"blocks must lie in [1, {n}), the trivial one aside, got {list(blocks)}")
    return group.isotypic_projectors[list(blocks)].sum(axis=0)


def residual_energy(features: Float[Array, "n ..."], residual: Float[Array, "n outputs"]) -> Float[Array, ...]:
    """½ |Rᵀf|² of each node, with what is left of the targets in their place, centred here.

    >>> print(residual_energy(jnp.array([1.0, 3.0]), jnp.array([[-1.0], [1.0]])))
    2.0
    """
    return jnp.sum((centred(residual).T @ features) ** 2, axis=0) / 2


def _check_decay(decay: Number) -> None:
    check_not_negative("decay", decay)
    if is_known(decay) and not decay > 0:
        raise ValueError(f"decay must be positive, got {decay}")
