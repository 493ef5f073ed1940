"""Entropic optimal transport between two samples of equal weights, by Sinkhorn's iteration, and the Sinkhorn divergence.

    W_ε = min_P ⟨C, P⟩ + ε KL(P | a ⊗ b) = max_{f, g}  (1/n) Σ fᵢ + (1/m) Σ gⱼ + ε - (ε / n m) Σᵢⱼ exp((fᵢ + gⱼ - Cᵢⱼ) / ε)

(Cuturi 2013; Peyré and Cuturi, arXiv:1803.00567). Made for what training a map takes, a thousand small problems one after another: the
kernel exp((f + g - C) / ε) is made once for ten iterations, which then are products with it, and ε is lowered to its value in the first
rounds. Stabilised by the hard c-transforms of the potentials at each round, no row and no column of the kernel can vanish, whatever ε. For
weights, low-rank couplings, unbalanced and quadratic problems there is ott-jax.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradatim.numerics.checks import is_known

from .costs import SQUARED_EUCLIDEAN, Cost, cost_matrix

ROUND = 10
"Iterations with one kernel."
DECAY = 0.5
"Of ε from round to round, until it has its value."
FIRST = 0.25
"Of the mean cost: ε of the first round, where it is to be smaller."
FEWEST = 100
"Iterations to allow for: in half of them ε gets down to its value."


class EntropicTransport(eqx.Module):
    """The optimum of an entropic transport problem: `value` can be differentiated, once, in the costs and in ε."""

    value: Float[Array, ""]
    "W_ε, with the relative entropy to the product of the weights."
    transport_cost: Float[Array, ""]
    "⟨C, P⟩, without the entropy and without a gradient."
    first_potential: Float[Array, " n"]
    "f"
    second_potential: Float[Array, " m"]
    "g"
    error: Float[Array, ""]
    "Σᵢ |Σⱼ Pᵢⱼ - 1/n|; the sums over i are right to round-off."
    is_converged: Bool[Array, ""]
    "Whether the error is within the tolerance."
    n_iterations: Int[Array, ""]
    "Pairs of updates."


def sinkhorn(
    costs: Float[Array, "n m"], epsilon: Float[Array, ""] | float, *, tolerance: float = 1e-3, max_iterations: int = 2000
) -> EntropicTransport:
    """Solves an entropic transport problem between n and m points of equal weights.

    The derivative of the value is the coupling P (Danskin): it needs no derivative of the iteration, and it is as good as P is. A second
    derivative would miss how P itself moves, and raises `NotImplementedError`.

    In single precision costs of some size hold an ε down to about 1e-4 of their mean; below, take double precision.

    **Arguments:** `costs`: C, finite; `epsilon` ε > 0, in the unit of the costs; `tolerance` of the marginal error, from about 1e-6 in
    single precision; `max_iterations`: at least 100. Where they do not do, `is_converged` says so.

    **Raises:** `ValueError` for an ε, tolerance or count out of range.

    >>> far = jnp.array([[0.0, 4.0], [4.0, 0.0]])
    >>> print(f"{sinkhorn(far, 0.1).value:.4f}")  # P is diagonal: ε KL = 0.1 log 2
    0.0693
    """
    check_epsilon(epsilon)
    check_iteration(tolerance, max_iterations)
    return solve(costs, jnp.asarray(epsilon, costs.dtype), tolerance, max_iterations)


class SinkhornDivergence(eqx.Module):
    """The divergence, and how far its problems are solved."""

    value: Float[Array, ""]
    error: Float[Array, ""]
    "The largest marginal error of the three problems."
    is_converged: Bool[Array, ""]
    "Whether it is within the tolerance."


def sinkhorn_divergence(
    x: Float[Array, "n dim"],
    y: Float[Array, "m dim"],
    *,
    epsilon: Float[Array, ""] | float,
    cost: Cost = SQUARED_EUCLIDEAN,
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
) -> SinkhornDivergence:
    """How far two samples are from each other (Genevay et al., arXiv:1706.00292; Feydy et al., arXiv:1810.08278).

        S_ε(x, y) = W_ε(x, y) - (W_ε(x, x) + W_ε(y, y)) / 2

    At least 0, and 0 for equal samples, with the squared distance. Can be differentiated once, in both.

    **Arguments:** `cost`: symmetric; the others as for [`sinkhorn`][gradatim.transport.sinkhorn].

    **Raises:** `ValueError` for an ε, tolerance or count out of range.

    >>> x = jnp.linspace(0.0, 1.0, 9)[:, None]
    >>> print(f"{sinkhorn_divergence(x, x + 2, epsilon=0.1).value:.3f}")
    4.000
    """
    check_epsilon(epsilon)
    check_iteration(tolerance, max_iterations)
    return _divergence(x, y, cost, jnp.asarray(epsilon, x.dtype), tolerance, max_iterations)


def check_epsilon(epsilon: Float[Array, ""] | float) -> None:
    """Refuses an ε that is known not to be positive."""
    if is_known(epsilon) and not 0 < float(epsilon) < float("inf"):
        raise ValueError(f"epsilon must be positive and finite, got {float(epsilon)}: a few hundredths of mean_cost(cost, x, y) serve")


def check_iteration(tolerance: float, max_iterations: int) -> None:
    """Refuses a tolerance or a count out of range."""
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie in (0, 1), got {tolerance}")
    if max_iterations < FEWEST:
        raise ValueError(f"max_iterations must be at least {FEWEST}, got {max_iterations}")


@eqx.filter_jit
def solve(costs: Array, epsilon: Array, tolerance: float, max_iterations: int) -> EntropicTransport:
    """[`sinkhorn`][gradatim.transport.sinkhorn] without its checks."""
    n, m = costs.shape
    fixed, eps = jax.lax.stop_gradient((costs, epsilon))
    first, decay = _lowering(fixed, eps, max_iterations)

    def a_round(state: tuple[Array, ...]) -> tuple[Array, ...]:
        _, g, now, _, done = state
        # Hard c-transforms: afterwards every row and every column of the exponents has the largest entry 0. What they change of g is
        # given back in v.
        exponents = g[None] - fixed
        f = -exponents.max(axis=1)
        exponents = exponents + f[:, None]
        shift = -exponents.max(axis=0)
        kernel = jnp.exp((exponents + shift[None]) / now)

        def iterate(_: Array, v: Array) -> Array:
            return n / _positive(_scaled(kernel, v, m) @ kernel)

        v = jax.lax.fori_loop(0, ROUND - 1, iterate, jnp.exp(-shift / now))
        u = _scaled(kernel, v, m)
        v = n / _positive(u @ kernel)
        error = jnp.mean(jnp.abs(u * (kernel @ v) / m - 1))
        # An ε on its way is no solution, however small its error.
        error = jnp.where(now > eps, jnp.inf, error)
        return f + now * jnp.log(u), g + shift + now * jnp.log(v), jnp.maximum(decay * now, eps), error, done + ROUND

    def is_under_way(state: tuple[Array, ...]) -> Array:
        return (state[3] > tolerance) & (state[4] + ROUND <= max_iterations)

    zero = jnp.zeros((), jnp.int32)
    start = (jnp.zeros(n, fixed.dtype), jnp.zeros(m, fixed.dtype), first, jnp.asarray(jnp.inf, fixed.dtype), zero)
    f, g, _, error, done = jax.lax.while_loop(is_under_way, a_round, start)
    return _solution(costs, epsilon, f, g, error, tolerance, done)


@eqx.filter_jit
def solve_symmetric(costs: Array, epsilon: Array, tolerance: float, max_iterations: int) -> EntropicTransport:
    """A problem between a sample and itself: one potential, which the averaged iteration finds in few steps (Feydy et al.)."""
    n = len(costs)
    fixed, eps = jax.lax.stop_gradient((costs, epsilon))
    first, decay = _lowering(fixed, eps, max_iterations)

    def a_round(state: tuple[Array, ...]) -> tuple[Array, ...]:
        f, now, _, done = state
        # The kernel of equal points is 1 where f is the soft c-transform of a coarser ε: nothing can vanish.
        kernel = jnp.exp((f[:, None] + f[None] - fixed) / now)
        u = jax.lax.fori_loop(0, ROUND, lambda _, u: jnp.sqrt(u * n / _positive(kernel @ u)), jnp.ones(n, fixed.dtype))
        error = jnp.where(now > eps, jnp.inf, jnp.mean(jnp.abs(u * (kernel @ u) / n - 1)))
        return f + now * jnp.log(u), jnp.maximum(decay * now, eps), error, done + ROUND

    def is_under_way(state: tuple[Array, ...]) -> Array:
        return (state[2] > tolerance) & (state[3] + ROUND <= max_iterations)

    start = (jnp.zeros(n, fixed.dtype), first, jnp.asarray(jnp.inf, fixed.dtype), jnp.zeros((), jnp.int32))
    f, _, error, done = jax.lax.while_loop(is_under_way, a_round, start)
    return _solution(costs, epsilon, f, f, error, tolerance, done)


def _lowering(costs: Array, epsilon: Array, max_iterations: int) -> tuple[Array, Array]:
    """ε of the first round, and its decay."""
    first = jnp.maximum(epsilon, FIRST * jnp.mean(jnp.abs(costs)))
    return first, jnp.minimum(DECAY, (epsilon / first) ** (2 * ROUND / max_iterations))


def _solution(costs: Array, epsilon: Array, f: Array, g: Array, error: Array, tolerance: float, done: Array) -> EntropicTransport:
    value = _value(costs, epsilon, f, g)
    fixed, eps = jax.lax.stop_gradient((costs, epsilon))
    return EntropicTransport(value, jnp.mean(_density(fixed, eps, f, g) * fixed), f, g, error, error <= tolerance, done)


def _density(costs: Array, epsilon: Array, f: Array, g: Array) -> Array:
    """Of the coupling with respect to the product of the weights."""
    return jnp.exp((f[:, None] + g[None] - costs) / epsilon)


@jax.custom_jvp
def _value(costs: Array, epsilon: Array, f: Array, g: Array) -> Array:
    return jnp.mean(f) + jnp.mean(g) + epsilon * (1 - jnp.mean(_density(costs, epsilon, f, g)))


@_value.defjvp
def _value_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    # Stationary in the potentials, which therefore need no derivative.
    costs, epsilon, f, g = primals
    density = _held_density(costs, epsilon, f, g)
    entropy = 1 - jnp.mean(density) + jnp.mean(density * (f[:, None] + g[None] - costs)) / epsilon
    return _value(costs, epsilon, f, g), jnp.mean(density * tangents[0]) + entropy * tangents[1]


@jax.custom_jvp
def _held_density(costs: Array, epsilon: Array, f: Array, g: Array) -> Array:
    return _density(costs, epsilon, f, g)


@_held_density.defjvp
def _held_density_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    del primals, tangents
    raise NotImplementedError(
        "an entropic transport value can be differentiated once: its derivative holds the coupling still, and a second one would be wrong"
    )


def _scaled(kernel: Array, v: Array, m: int) -> Array:
    return m / _positive(kernel @ v)


def _positive(sums: Array) -> Array:
    # Only in a first round can a sum underflow, where all weight of a row lies on columns without any: the next update mends it.
    return jnp.maximum(sums, 1e-30)


@eqx.filter_jit
def _divergence(x: Array, y: Array, cost: Cost, epsilon: Array, tolerance: float, max_iterations: int) -> SinkhornDivergence:
    between = solve(cost_matrix(cost, x, y), epsilon, tolerance, max_iterations)
    selves = [solve_symmetric(cost_matrix(cost, z, z), epsilon, tolerance, max_iterations) for z in (x, y)]
    value = between.value - (selves[0].value + selves[1].value) / 2
    error = jnp.stack([between.error, selves[0].error, selves[1].error]).max()
    return SinkhornDivergence(value, error, error <= tolerance)
