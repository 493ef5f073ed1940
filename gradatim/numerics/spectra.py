"""Spectra of large symmetric operators: Lanczos with measured re-orthogonalisation, Ritz pairs, quadrature, traces.

Lanczos builds an orthonormal basis Q of the Krylov space of v₀ in which the operator is tridiagonal (Lanczos 1950; Golub and Van Loan,
*Matrix Computations*, section 10.3):

    H Qᵀ = Qᵀ T + βₘ qₘ₊₁ eₘᵀ,     T = tridiag(β, α, β)

In rounded arithmetic Q loses its orthogonality along the Ritz vectors that have converged (Paige 1980), and copies of the outliers
("ghosts") appear in T. Full re-orthogonalisation cures it at the price of reading all of Q in every step; keeping Q orthogonal to √ε is
enough for T to be exact to round-off (Simon 1984, Linear Algebra and its Applications 61).
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree
from matfree import stochtrace

Reorthogonalization = Literal["measured", "full", "none"]
# Overlaps at which a block of basis vectors is looked at less often, or in every step again, in units of ε: round-off alone gives 1 to 3.
_QUIET, _LOUD = 4, 16
_LONGEST_PAUSE = 8
# By how much more than was learned overlaps may have grown, for steps shorter than then, before a block is visited out of turn.
_SURPRISE = 4


class Krylov(eqx.Module):
    """What Lanczos leaves: T, and the basis in blocks of rows (one array would be copied whole to be made)."""

    alpha: Float[Array, " steps"]
    "Diagonal of T."
    beta: Float[Array, " steps"]
    "Off-diagonal of T, then the norm of the last residual; zero where the space was exhausted and a new direction was drawn."
    blocks: tuple[Float[Array, "_ n"], ...]
    "Rows of Q."
    overlap: Float[Array, ""]
    "Largest |⟨qᵢ, w⟩|/‖w‖ that was met, and removed, in a new vector that was not orthogonalised again; harmless below √ε."

    @property
    def basis(self) -> Float[Array, "steps n"]:
        """Q, copied into one array."""
        return jnp.concatenate(self.blocks)

    def tridiagonal(self) -> Float[Array, "steps steps"]:
        """T."""
        off = self.beta[:-1]
        return jnp.diag(self.alpha) + jnp.diag(off, 1) + jnp.diag(off, -1)

    def ritz(self) -> Ritz:
        """Eigenvalues of T, the largest first, with the bounds and weights that its eigenvectors give."""
        # Dense: jax.scipy.linalg.eigh_tridiagonal gives no eigenvectors, and T is small.
        values, vectors = jnp.linalg.eigh(self.tridiagonal())
        values, vectors = values[::-1], vectors[:, ::-1]
        return Ritz(values, jnp.abs(self.beta[-1] * vectors[-1]), vectors[0] ** 2, vectors)

    def lift(self, coefficients: Float[Array, "steps k"]) -> Float[Array, "k n"]:
        """Vectors of the full space from their coefficients in the basis."""
        start, total = 0, None
        for block in self.blocks:
            part = coefficients[start : start + block.shape[0]].T @ block
            total = part if total is None else total + part
            start += block.shape[0]
        assert total is not None
        return total


class Ritz(eqx.Module):
    """Ritz values θᵢ with T sᵢ = θᵢ sᵢ, the largest first."""

    values: Float[Array, " steps"]
    residuals: Float[Array, " steps"]
    "‖H yᵢ - θᵢ yᵢ‖ = βₘ |sₘᵢ| for yᵢ = Qᵀ sᵢ: an eigenvalue lies within this distance of θᵢ."
    weights: Float[Array, " steps"]
    "s₁ᵢ², the squared *first* components: Gauss quadrature of the spectral density seen by v₀ (Golub and Welsch 1969)."
    vectors: Float[Array, "steps steps"]
    "sᵢ as columns."


class Estimate(eqx.Module):
    """A mean over random probes with its standard error."""

    value: Float[Array, "*shape"]
    standard_error: Float[Array, "*shape"]


@eqx.filter_jit
def lanczos(
    operator: lx.AbstractLinearOperator,
    v0: PyTree[Array],
    *,
    steps: int,
    reorthogonalize: Reorthogonalization = "measured",
    throw: bool = True,
) -> Krylov:
    """`steps` products with a symmetric operator, tridiagonalised.

    `"full"` removes from each new vector its components along all earlier ones. `"measured"` does so block by block of the basis, and
    learns from the size of what it removes which blocks need it: those that lose nothing but round-off are left out for up to eight
    steps, those that hold converged Ritz vectors are visited in every step, and all of them where β falls all at once. `"full"` leaves a
    basis orthogonal to a few ε, `"measured"` to well below √ε (1e-6 to 1e-4 in single precision), with the same T to round-off and a
    half to nine tenths of the traffic. `"none"` yields ghosts after the first convergence: for study only. In all but `"none"`, a new
    vector of which more than half was removed is orthogonalised twice more, and where the Krylov space is exhausted the iteration goes
    on from a new direction (a fixed stream of random vectors: the result depends on `v0` alone), so that `steps` up to the dimension
    are allowed and multiple eigenvalues are found.

    **Arguments:** `operator`: symmetric (unchecked), over any pytree of arrays of one dtype; `v0`: start, same structure, normalised here;
    `steps`: 1 to the dimension; `throw`: whether numbers that are not finite raise, else they are left in the result.

    **Raises:** `ValueError` for `steps` out of range; with `throw`, a run-time error for a product that is not finite.

    Memory: `steps` vectors. Safe under jit, vmap (which visits all blocks in every step) and forward differentiation.

    >>> operator = lx.DiagonalLinearOperator(jnp.arange(1.0, 7.0))
    >>> values = lanczos(operator, jnp.ones(6), steps=6).ritz().values
    >>> print(" ".join(f"{value:.3f}" for value in values))
    6.000 5.000 4.000 3.000 2.000 1.000
    """
    if reorthogonalize not in ("measured", "full", "none"):
        raise ValueError(f"reorthogonalize must be 'measured', 'full' or 'none', got {reorthogonalize!r}")
    start, unravel = ravel_pytree(v0)
    if not 1 <= steps <= start.size:
        raise ValueError(f"steps must lie between 1 and the operator's dimension {start.size}, got {steps}")
    linear = lx.linearise(operator)

    def product(q: Float[Array, " n"]) -> Float[Array, " n"]:
        return ravel_pytree(linear.mv(unravel(q)))[0]

    sizes = _block_sizes(steps)
    state = _State.initial(start / jnp.sqrt(start @ start), steps, len(sizes))
    blocks: tuple[Array, ...] = ()
    for size in sizes:
        first = sum(block.shape[0] for block in blocks)
        body = partial(_step, product=product, earlier=blocks, first=first, mode=reorthogonalize)
        state, block = jax.lax.fori_loop(first, first + size, body, (state, jnp.zeros((size, start.size), start.dtype)))
        blocks = (*blocks, block)
    alpha = state.alpha
    if throw:
        message = "a product with the operator is not finite: check the loss and the parameters for NaN and overflow"
        alpha = eqx.error_if(alpha, ~jnp.isfinite(alpha) | ~jnp.isfinite(state.beta), message)
    return Krylov(alpha, state.beta, blocks, state.overlap)


class _State(eqx.Module):
    previous: Float[Array, " n"]  # qⱼ₋₁
    current: Float[Array, " n"]  # qⱼ
    alpha: Float[Array, " steps"]
    beta: Float[Array, " steps"]
    norm: Float[Array, ""]  # largest |α| + β so far, a lower bound of the operator's norm times a small factor
    overlap: Float[Array, ""]
    level: Float[Array, ""]  # running mean of β on a logarithmic scale
    due: Int[Array, " blocks"]  # steps until each block is visited
    pause: Int[Array, " blocks"]  # steps that it is left out after a visit
    learned_at: Float[Array, " blocks"]  # the level at its last visit
    surprise: Float[Array, " blocks"]  # Π max(1, learned_at / β) since

    @classmethod
    def initial(cls, start: Float[Array, " n"], steps: int, n_blocks: int) -> _State:
        zero = jnp.zeros((), start.dtype)
        return cls(
            previous=jnp.zeros_like(start),
            current=start,
            alpha=jnp.zeros(steps, start.dtype),
            beta=jnp.zeros(steps, start.dtype),
            norm=zero,
            overlap=zero,
            level=zero,
            due=jnp.zeros(n_blocks, jnp.int32),
            pause=jnp.zeros(n_blocks, jnp.int32),
            learned_at=jnp.zeros(n_blocks, start.dtype),
            surprise=jnp.ones(n_blocks, start.dtype),
        )


def _step(
    j: Int[Array, ""], carry: tuple[_State, Array], *, product, earlier: tuple[Array, ...], first: int, mode: Reorthogonalization
) -> tuple[_State, Array]:
    state, block = carry
    q, eps = state.current, jnp.finfo(state.current.dtype).eps
    block = jax.lax.dynamic_update_index_in_dim(block, q, j - first, 0)
    # βⱼ₋₁ is beta[-1] = 0 in the first step.
    w = product(q) - state.beta[j - 1] * state.previous
    alpha = q @ w
    w = w - alpha * q
    before = jnp.sqrt(w @ w)
    blocks = (*earlier, block)
    if mode == "none":
        norm, beta, following = state.norm, before, w / jnp.where(before > 0, before, 1)
    else:
        norm = jnp.maximum(state.norm, jnp.abs(alpha) + before)
        # One step that all but vanishes says nothing of the next: it moves the mean by half at most.
        level = jnp.where(j == 0, before, jnp.sqrt(state.level * jnp.maximum(before, state.level / 4)))
        state, overlap = eqx.tree_at(lambda s: s.level, state, jax.lax.stop_gradient(level)), state.overlap
        for index, rows in enumerate(blocks):
            w, state = _visit(state, w, rows, index, before, always=mode == "full")
        after = jnp.sqrt(w @ w)
        exhausted = after <= 8 * eps * norm
        repeat = exhausted | (after < before / 2)
        state = eqx.tree_at(lambda s: s.overlap, state, jnp.where(repeat, overlap, state.overlap))
        beta, following = jax.lax.cond(
            repeat,
            lambda: _again(w, blocks, exhausted, j),
            lambda: (after, w / jnp.where(after > 0, after, 1)),
        )
    state = _State(
        previous=q,
        current=following,
        alpha=state.alpha.at[j].set(alpha),
        beta=state.beta.at[j].set(beta),
        norm=norm,
        overlap=state.overlap,
        level=state.level,
        due=state.due,
        pause=state.pause,
        learned_at=state.learned_at,
        surprise=state.surprise,
    )
    return state, block


def _visit(state: _State, w: Array, rows: Array, index: int, before: Array, *, always: bool) -> tuple[Array, _State]:
    scale = 1 / jnp.where(before > 0, before, 1)

    def remove() -> tuple[Array, Array]:
        overlaps = rows @ w
        return w - overlaps @ rows, jnp.max(jnp.abs(overlaps)) * scale

    if always:
        w, found = remove()
        return w, eqx.tree_at(lambda s: s.overlap, state, jnp.maximum(state.overlap, found))
    eps = jnp.finfo(w.dtype).eps
    due, pause, learned_at = state.due[index], state.pause[index], state.learned_at[index]
    # Overlaps grow as 1/β: where β falls all at once, they have outgrown what was learned before the pause is over.
    surprise = jax.lax.stop_gradient(state.surprise[index] * jnp.maximum(learned_at * scale, 1))
    is_early = ~(surprise <= _SURPRISE) | (before == 0)
    is_due = (due == 0) | is_early
    w, found = jax.lax.cond(is_due, remove, lambda: (w, jnp.zeros_like(scale)))
    # Over a pause p the overlap grows from ε to ε gᵖ, all of which is seen at the next visit: at gᵖ <= 4 twice the pause gives at most
    # 16 ε. The recurrence carries two vectors, of which a visit cleans one: of a quiet block the other needs no cleaning, a loud block
    # is visited in the next step too.
    longer = jnp.minimum(jnp.maximum(2 * pause, 1), _LONGEST_PAUSE)
    learned = jnp.where(found <= _QUIET * eps, longer, jnp.where(found > _LOUD * eps, 0, pause))
    pause = jnp.where(is_early, 0, jnp.where(is_due, learned, pause))
    due = jnp.where(is_due, pause, due - 1)
    learned_at, surprise = jnp.where(is_due, state.level, learned_at), jnp.where(is_due, 1, surprise)
    return w, eqx.tree_at(
        lambda s: (s.due, s.pause, s.learned_at, s.surprise, s.overlap),
        state,
        (
            state.due.at[index].set(due),
            state.pause.at[index].set(pause),
            state.learned_at.at[index].set(learned_at),
            state.surprise.at[index].set(surprise),
            jnp.maximum(state.overlap, found),
        ),
    )


def _again(w: Array, blocks: tuple[Array, ...], exhausted: Bool[Array, ""], j: Array) -> tuple[Array, Array]:
    fresh = jax.random.normal(jax.random.fold_in(jax.random.key(0), j), w.shape, w.dtype)
    w = jnp.where(exhausted, fresh, w)
    for _ in range(2):
        for rows in blocks:
            w = w - (rows @ w) @ rows
    norm = jnp.sqrt(w @ w)
    return jnp.where(exhausted, 0, norm), w / jnp.where(norm > 0, norm, 1)


def _block_sizes(steps: int) -> list[int]:
    # Converged Ritz vectors live in the first few rows: those blocks are small, so that visiting them in every step stays cheap. Each
    # block is one compiled loop.
    sizes: list[int] = []
    while (left := steps - sum(sizes)) > 0:
        size = 16 if len(sizes) < 2 else 32
        sizes.append(left if left < size + 8 else size)
    return sizes


def random_probe(operator: lx.AbstractLinearOperator, *, key: PRNGKeyArray) -> PyTree[Array]:
    """A direction uniform on the unit sphere of the operator's space.

    >>> probe = random_probe(lx.DiagonalLinearOperator(jnp.ones(5)), key=jax.random.key(0))
    >>> print(f"{jnp.linalg.norm(probe):.3f}")
    1.000
    """
    flat, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), operator.in_structure()))
    normal = jax.random.normal(key, flat.shape, flat.dtype)
    return unravel(normal / jnp.sqrt(normal @ normal))


@eqx.filter_jit
def trace_estimate(operator: lx.AbstractLinearOperator, *, key: PRNGKeyArray, n_probes: int = 64, power: int = 1) -> Estimate:
    """The trace tr Hᵖ = E[zᵀ Hᵖ z], z uniform on {-1, 1}ⁿ (Hutchinson 1990), from `n_probes` times `power` products, one after another.

    **Raises:** `ValueError` for fewer than two probes (no standard error) or a power below 1.

    >>> operator = lx.DiagonalLinearOperator(jnp.arange(1.0, 5.0))
    >>> print(trace_estimate(operator, key=jax.random.key(0), n_probes=2).value)
    10.0
    """
    if n_probes < 2:
        raise ValueError(f"n_probes must be at least 2, got {n_probes}")
    if power < 1:
        raise ValueError(f"power must be at least 1, got {power}")
    linear = lx.linearise(operator)
    flat, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), operator.in_structure()))

    def product(v: Float[Array, " n"]) -> Float[Array, " n"]:
        for _ in range(power):
            v = ravel_pytree(linear.mv(unravel(v)))[0]
        return v

    # One probe a call: matfree would vmap them, and hold the network's activations once for each.
    estimate = stochtrace.estimator_monte_carlo(stochtrace.monte_carlo_trace(), stochtrace.sampler_signs(flat, num=1))
    samples = jax.lax.map(lambda k: estimate(product, k), jax.random.split(key, n_probes))
    return Estimate(samples.mean(), samples.std(ddof=1) / jnp.sqrt(n_probes))


def gaussian_density(
    nodes: Float[Array, " nodes"], weights: Float[Array, " nodes"], grid: Float[Array, " points"], *, sigma: float | Float[Array, ""]
) -> Float[Array, " points"]:
    """Σᵢ wᵢ N(x; θᵢ, σ²) on a grid.

    >>> density = gaussian_density(jnp.array([0.0, 1.0]), jnp.array([0.75, 0.25]), jnp.array([0.0, 1.0]), sigma=0.1)
    >>> print(density.round(2))
    [2.99 1.  ]
    """
    offsets = (grid[:, None] - nodes[None, :]) / sigma
    return (jnp.exp(-(offsets**2) / 2) @ weights) / (sigma * np.sqrt(2 * np.pi))
