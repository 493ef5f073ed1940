"""The Monge gap: how much dearer a map is than the best one with the same image (Uscidda and Cuturi, arXiv:2302.04953).

    M(T) = E c(x, T(x)) - W_c(ρ, T#ρ),     x ~ ρ        (Definition 3.1; at least 0, and 0 exactly if T is optimal from ρ to its image)

On n points W is an assignment problem, or, to have derivatives, its entropic version W_ε:

    M_ε = (1/n) Σᵢ c(xᵢ, T(xᵢ)) - min_P ⟨C, P⟩ - ε H(P),     H(P) = -Σ P log P        (Equation 10; convention "entropy")
    ∂M_ε/∂T(xᵢ) = (1/n) ∇c(xᵢ, T(xᵢ)) - Σⱼ Pⱼᵢ ∇c(xⱼ, T(xᵢ))        (in the second argument of c)

Neither version is 0 at an optimal map: with "entropy" M_ε ≥ ε log n; with "kl", the relative entropy to the product of the weights, it is
less by the constant 2 ε log n and may be negative; "debiased" takes W_ε - (W_ε(ρ, ρ) + W_ε(T#ρ, T#ρ)) / 2 instead, which is not in the
article. To tell whether a map is optimal take [`exact_monge_gap`][gradatim.transport.exact_monge_gap].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .costs import SQUARED_EUCLIDEAN, Cost, Euclidean, SquaredEuclidean, cost_matrix, displacement_cost
from .sinkhorn import check_epsilon, check_iteration, solve, solve_symmetric

Convention = Literal["entropy", "kl", "debiased"]
"Which entropic value is taken from the displacement cost."
CONVENTIONS = ("entropy", "kl", "debiased")
METRICS: dict[type, Literal["sqeuclidean", "euclidean"]] = {SquaredEuclidean: "sqeuclidean", Euclidean: "euclidean"}
"SciPy's names."
LARGEST_BLOCK = 2**24
"Other costs that an exact gap computes at a time."


class MongeGap(eqx.Module):
    """The gap, what it is the difference of, and how far its transport problem is solved."""

    value: Float[Array, ""]
    "To be minimised: it can be differentiated, once, in the images, the points, the cost and ε."
    displacement: Float[Array, ""]
    "(1/n) Σ c(xᵢ, T(xᵢ))"
    primal: Float[Array, ""]
    "The displacement less ⟨C, P⟩, without the entropy and without a gradient: at most the exact gap, but for the marginal error."
    error: Float[Array, ""]
    "The marginal error of P, the largest where there are several."
    is_converged: Bool[Array, ""]
    "Whether it is within the tolerance: if not, the gap is off in either direction."


def monge_gap(
    transport: Callable[[Float[Array, " dim"]], Float[Array, " dim"]],
    x: Float[Array, "n dim"],
    *,
    epsilon: Float[Array, ""] | float,
    cost: Cost = SQUARED_EUCLIDEAN,
    convention: Convention = "entropy",
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
) -> MongeGap:
    """The entropic Monge gap of a map of one point, on n points.

    On few points in many dimensions each is nearer to its own image than to the others whatever the map, and the gap of a wrong map looks
    small: take a hundred points or more.

    **Arguments:** `transport`; `x`: the points; the others as for
    [`monge_gap_from_samples`][gradatim.transport.monge_gap_from_samples].

    **Raises:** as there.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (200,)).reshape(100, 2)
    >>> turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])
    >>> for map_of_a_point in (lambda z: z + 1, lambda z: turn @ z):  # an optimal one, and a quarter turn
    ...     print(f"{monge_gap(map_of_a_point, x, epsilon=0.05, convention='debiased').value:.2f}")
    0.00
    4.26
    """
    return monge_gap_from_samples(
        x,
        jax.vmap(transport)(x),
        epsilon=epsilon,
        cost=cost,
        convention=convention,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def monge_gap_from_samples(
    x: Float[Array, "n dim"],
    y: Float[Array, "m dim"],
    *,
    epsilon: Float[Array, ""] | float,
    cost: Cost = SQUARED_EUCLIDEAN,
    convention: Convention = "entropy",
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
) -> MongeGap:
    """The entropic Monge gap of pairs: xᵢ is moved to yᵢ.

    **Arguments:** `x`, `y`: points and their images, as many; `epsilon` ε > 0, in the unit of the cost: a few hundredths of
    [`mean_cost`][gradatim.transport.mean_cost] of a first batch, the same from then on; `cost`: any function of two points;
    `convention`: `"entropy"` is the article's, the others are told above; gradients of the first two are the same; `tolerance` of the
    marginal error; `max_iterations` of Sinkhorn, at least 100.

    **Raises:** `ValueError` for samples that are no pairs, an unknown convention, or an ε, tolerance or count out of range.

    >>> x = jnp.linspace(0.0, 1.0, 50)[:, None]
    >>> gap = monge_gap_from_samples(x, 1 - x, epsilon=1e-3)
    >>> print(f"{gap.primal:.3f}, with the entropy {gap.value:.3f}")  # of a uniform law on [0, 1], turned round: 1/3
    0.346, with the entropy 0.352
    """
    check_pairs(x, y)
    check_epsilon(epsilon)
    check_iteration(tolerance, max_iterations)
    check_convention(convention)
    return gap_of_pairs(x, y, cost, jnp.asarray(epsilon, x.dtype), convention, tolerance, max_iterations)


class ExactMongeGap(NamedTuple):
    """The gap, and the assignment that it is the distance from."""

    value: float
    displacement: float
    "(1/n) Σ c(xᵢ, T(xᵢ))"
    assignment: Int[np.ndarray, " n"]
    "Which image each point would best be sent to."


def exact_monge_gap(x: Float[Array, "n dim"], y: Float[Array, "m dim"], *, cost: Cost = SQUARED_EUCLIDEAN) -> ExactMongeGap:
    """The Monge gap of pairs without entropy, by the best assignment: at least 0, and 0 exactly if no permutation of the images is cheaper.

    For evaluation: it needs real numbers to sort, has no derivative here, and takes a second for 2000 points. On a sample it is lower than
    of the law the points come from, by a few percent for 2000 in the plane, by more in more dimensions.

    **Raises:** `ValueError` for samples that are no pairs, or costs that are not finite.

    >>> x = jnp.array([[0.0], [1.0], [2.0]])
    >>> exact_monge_gap(x, x**3).value, exact_monge_gap(x, 2 - x).value
    (0.0, 2.6666666666666665)
    """
    from scipy.optimize import linear_sum_assignment

    check_pairs(x, y)
    costs = exact_costs(x, y, cost)
    rows, best = linear_sum_assignment(costs)
    own = np.diagonal(costs)
    # Difference by difference: of a map that is its own best assignment nothing is left, not even round-off.
    return ExactMongeGap(float((own - costs[rows, best]).mean()), float(own.mean()), best)


def exact_costs(x: Float[Array, "n dim"], y: Float[Array, "m dim"], cost: Cost) -> Float[np.ndarray, "n m"]:
    """All costs from differences of the points, in double precision for the usual ones; of another the relative accuracy is its own.

    **Raises:** `ValueError` for costs that are not finite.
    """
    metric = METRICS.get(type(cost))
    if metric is not None:
        from scipy.spatial.distance import cdist

        # Nothing to compile, and no round-off but that of the points.
        costs = cdist(np.asarray(x, np.float64), np.asarray(y, np.float64), metric)
    else:
        block = max(LARGEST_BLOCK // (len(y) * x.shape[1]), 1)
        costs = np.concatenate([np.asarray(_one_by_one(cost, x[i : i + block], y), np.float64) for i in range(0, len(x), block)])
    if not np.isfinite(costs).all():
        raise ValueError(f"costs must be finite, got {int((~np.isfinite(costs)).sum())} that are not")
    return costs


def check_pairs(x: Float[Array, "n dim"], y: Float[Array, "m dim"]) -> None:
    """Refuses samples of different sizes."""
    if len(x) != len(y) or not len(x):
        raise ValueError(f"y must hold the image of each point of x, got {len(y)} images of {len(x)} points")


def check_convention(convention: str) -> None:
    """Refuses a convention that there is not."""
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")


@eqx.filter_jit
def gap_of_pairs(x: Array, y: Array, cost: Cost, epsilon: Array, convention: Convention, tolerance: float, max_iterations: int) -> MongeGap:
    """[`monge_gap_from_samples`][gradatim.transport.monge_gap_from_samples] without its checks."""
    best = solve(cost_matrix(cost, x, y), epsilon, tolerance, max_iterations)
    displacement = displacement_cost(cost, x, y)
    value, error = displacement - best.value, best.error
    if convention == "entropy":
        # ε KL(P | a ⊗ b) = -ε H(P) + 2 ε log n
        value = value + 2 * epsilon * jnp.log(len(x))
    if convention == "debiased":
        selves = [solve_symmetric(cost_matrix(cost, z, z), epsilon, tolerance, max_iterations) for z in (x, y)]
        value = value + (selves[0].value + selves[1].value) / 2
        error = jnp.stack([error, selves[0].error, selves[1].error]).max()
    primal = jax.lax.stop_gradient(displacement - best.transport_cost)
    return MongeGap(value, displacement, primal, error, error <= tolerance)


@eqx.filter_jit
def _one_by_one(cost: Cost, x: Array, y: Array) -> Array:
    return jax.vmap(lambda one: jax.vmap(lambda other: cost(one, other))(y))(x)
