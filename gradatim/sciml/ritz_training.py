"""Training of a network that proposes directions, from right-hand sides alone
(Kaneda, Akar, Chen, Kala, Hyde and Teran, arXiv:2205.10763).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.numerics import lanczos

Map = Callable[[Array], Array]
Forward = Callable[[Any, Array], Array]
"Of a network and a right-hand side."


class RitzBasis(NamedTuple):
    """Approximate eigenvectors of a symmetric matrix, the smallest eigenvalue first."""

    values: Float[Array, " m"]
    vectors: Float[Array, "m ..."]
    "Orthonormal."


def ritz_vectors(operator: lx.AbstractLinearOperator, steps: int, *, key: PRNGKeyArray, threshold: float = 1e-8) -> RitzBasis:
    """Ritz vectors of as many steps of Lanczos from A x, x normal, with full re-orthogonalisation; those below `threshold` are left out.

    The start lies in the range of A, so that what A does not see (solid cells, constants between Neumann walls) stays out of it.

    **Arguments:** `operator`: symmetric, over one array; `steps`: from 1 to its dimension; `threshold`: the authors' 1e-8. Not to be
    compiled: how many are left depends on the values.

    >>> operator = lx.DiagonalLinearOperator(jnp.arange(5.0))
    >>> print(" ".join(f"{value:.3f}" for value in ritz_vectors(operator, 4, key=jax.random.key(0)).values))
    1.000 2.000 3.000 4.000
    """
    structure = operator.in_structure()
    values, vectors = _ritz(operator, key, steps)
    if not np.isfinite(np.asarray(values)).all():
        raise ValueError("operator must give finite products, got Ritz values that are not")
    # On the host, where a number of rows that is not known before needs no program.
    is_kept = np.asarray(values) >= threshold
    return RitzBasis(jnp.asarray(np.asarray(values)[is_kept]), jnp.asarray(np.asarray(vectors)[is_kept].reshape(-1, *structure.shape)))


@eqx.filter_jit
def _ritz(operator: lx.AbstractLinearOperator, key: PRNGKeyArray, steps: int) -> tuple[Array, Array]:
    structure = operator.in_structure()
    x = jax.random.normal(key, (int(np.prod(structure.shape)),), structure.dtype).reshape(structure.shape)
    # Not checked inside: a program that can raise is not kept in the persistent cache.
    krylov = lanczos(operator, operator.mv(x), steps=steps, reorthogonalize="full", throw=False)
    ritz = krylov.ritz()
    return ritz.values[::-1], krylov.lift(ritz.vectors[:, ::-1])


def spectral_weights(m: int, *, boost: float = 9.0, low_fraction: float = 0.55) -> Float[np.ndarray, " m"]:
    """Standard deviations of coefficients, smallest eigenvalue first: `boost` for the low end of the spectrum, 1 for the rest.

    Of the energy, the low end has boost² n_low/(boost² n_low + n_high): 99 % by default, which are the authors' numbers (5,500 of
    10,000 vectors).

    >>> spectral_weights(4, low_fraction=0.5).tolist()
    [9.0, 9.0, 1.0, 1.0]
    """
    if not 0 <= low_fraction <= 1:
        raise ValueError(f"low_fraction must lie in [0, 1], got {low_fraction}")
    if not boost > 0:
        raise ValueError(f"boost must be positive, got {boost}")
    return np.where(np.arange(m) < round(low_fraction * m), float(boost), 1.0)


def spectral_right_hand_sides(
    basis: RitzBasis, n: int, *, key: PRNGKeyArray, boost: float = 9.0, low_fraction: float = 0.55
) -> Float[Array, "{n} ..."]:
    """Unit vectors b = Σⱼ cⱼ qⱼ / ‖·‖, cⱼ normal with the standard deviations of `spectral_weights`.

    The same key draws the same normal numbers whatever the weights.

    >>> basis = RitzBasis(jnp.array([1.0, 2.0]), jnp.eye(2))
    >>> b = spectral_right_hand_sides(basis, 1000, key=jax.random.key(0), low_fraction=0.5)
    >>> print(f"{(b**2).sum(axis=1).mean():.3f}, of which low {(b[:, 0] ** 2).mean():.1f}")
    1.000, of which low 0.9
    """
    m = len(basis.values)
    weights = spectral_weights(m, boost=boost, low_fraction=low_fraction)
    return _synthesised(basis.vectors, jnp.asarray(weights, basis.vectors.dtype), key, n)


@eqx.filter_jit
def _synthesised(vectors: Array, weights: Array, key: PRNGKeyArray, n: int) -> Array:
    m = len(weights)
    # Drawn flat: random numbers of several axes take longest to compile.
    c = jax.random.normal(key, (n * m,), vectors.dtype).reshape(n, m) * weights[None]
    # The vectors are orthonormal, so that this is the norm of b.
    c = c / jnp.sqrt((c**2).sum(1, keepdims=True))
    return (c @ vectors.reshape(m, -1)).reshape(n, *vectors.shape[1:])


def direction_loss(product: Map, q: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, ""]:
    """What a direction leaves of a right-hand side after the exact step along it; no solution is needed:

        L = ‖b - α A q‖²,     α = (q · b)/(q · A q)

    L = 0 if and only if q is parallel to A⁻¹b; L = ‖b‖² for q = 0; L does not change with the scale of q, so that ∇L · q = 0. The
    step is the solver's own: it is least in the norm of the error, not of the residual, and L may exceed ‖b‖².

    >>> A = jnp.array([1.0, 2.0])
    >>> print(direction_loss(lambda x: A * x, jnp.array([-4.0, -2.0]), jnp.array([1.0, 1.0])))
    0.0
    """
    Aq = product(q)
    curvature = jnp.vdot(q, Aq)
    is_positive = curvature > 0
    alpha = jnp.where(is_positive, jnp.vdot(q, b) / jnp.where(is_positive, curvature, 1), 0)
    left = b - alpha * Aq
    return jnp.vdot(left, left)


def mean_direction_loss(
    network: Any, product: Map, batch: Float[Array, "batch ..."], *, forward: Forward | None = None
) -> Float[Array, ""]:
    """Of the network's directions, `network(b)` or `forward(network, b)`, for a batch of right-hand sides.

    >>> A = jnp.array([1.0, 2.0])
    >>> print(f"{mean_direction_loss(lambda b: -b / A, lambda x: A * x, jnp.eye(2)):.3f}")  # the inverse, up to scale
    0.000
    """
    call: Forward = (lambda network, b: network(b)) if forward is None else forward
    return jnp.mean(jax.vmap(lambda b: direction_loss(product, call(network, b), b))(batch))


class DirectionTraining(eqx.Module):
    """A network on its way, and what its optimiser remembers."""

    network: Any
    memory: Any

    @classmethod
    def start(cls, network: Any, optimizer: optax.GradientTransformation) -> DirectionTraining:
        """Before the first step."""
        return cls(network, optimizer.init(eqx.filter(network, eqx.is_inexact_array)))


def direction_step(
    state: DirectionTraining,
    product: Map,
    batch: Float[Array, "batch ..."],
    optimizer: optax.GradientTransformation,
    *,
    forward: Forward | None = None,
) -> tuple[DirectionTraining, Float[Array, ""]]:
    """One step of an optimiser on a batch, and the loss before it.

    On CPU, steps that are called one by one are fastest with `GridResNet.by_convolutions` as `forward`.

    >>> A, optimizer = jnp.array([1.0, 2.0]), optax.sgd(0.1)
    >>> state = DirectionTraining.start(eqx.nn.Linear(2, 2, key=jax.random.key(0)), optimizer)
    >>> after, loss = eqx.filter_jit(direction_step)(state, lambda x: A * x, jnp.eye(2), optimizer)
    >>> bool(loss > 0), after.network.weight.shape
    (True, (2, 2))
    """
    loss, gradient = eqx.filter_value_and_grad(mean_direction_loss)(state.network, product, batch, forward=forward)
    updates, memory = optimizer.update(gradient, state.memory, eqx.filter(state.network, eqx.is_inexact_array))
    return DirectionTraining(eqx.apply_updates(state.network, updates), memory), loss


def fit_direction_network(
    network: Any,
    product: Map,
    right_hand_sides: Float[Array, "n ..."],
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch_size: int,
    key: PRNGKeyArray,
    forward: Forward | None = None,
) -> tuple[Any, Float[Array, " steps"]]:
    """Trains on batches drawn with replacement, and returns the network and the loss before each step.

    The steps are called one by one: on CPU, a compiled loop would make convolutions slow.

    **Raises:** `ValueError` for fewer than one step or example a batch.

    >>> A, b = jnp.array([1.0, 2.0]), jax.random.normal(jax.random.key(0), (64, 2))
    >>> network = eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(1))
    >>> turned = eqx.tree_at(lambda linear: linear.weight, network, jnp.array([[1.0, 1.0], [-1.0, 1.0]]))
    >>> options = {"optimizer": optax.adam(0.1), "steps": 100, "batch_size": 16, "key": jax.random.key(2)}
    >>> _, losses = fit_direction_network(turned, lambda x: A * x, b, **options)
    >>> bool(losses[-1] < losses[0] / 2)
    True
    """
    if steps < 1 or batch_size < 1:
        raise ValueError(f"steps and batch_size must be at least 1, got {steps} and {batch_size}")
    rows = jax.random.randint(key, (steps * batch_size,), 0, len(right_hand_sides)).reshape(steps, batch_size)
    # On a copy: each step gives its buffers to the next.
    state = jax.tree.map(lambda leaf: jnp.copy(leaf) if eqx.is_array(leaf) else leaf, DirectionTraining.start(network, optimizer))
    losses = []
    for i in range(steps):
        state, loss = _one_step((product, right_hand_sides, rows, jnp.asarray(i, jnp.int32), optimizer, forward), state)
        losses.append(loss)
    return state.network, jnp.stack(losses)


@eqx.filter_jit(donate="all-except-first")
def _one_step(fixed: Any, state: DirectionTraining) -> tuple[DirectionTraining, Array]:
    product, b, rows, i, optimizer, forward = fixed
    return direction_step(state, product, b[rows[i]], optimizer, forward=forward)
