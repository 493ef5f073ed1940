"""Fitting a map from one sample to another with the Monge gap (Uscidda and Cuturi, arXiv:2302.04953, Equations 12 to 15).

    L(T) = S_ε(T#μ, ν) + λ M_ε(T) + λ_c C(F),     C(F) = E ‖J_F - J_Fᵀ‖²_F

S is the Sinkhorn divergence, M the Monge gap of the same points, C what a field F is short of being a gradient. Without the second term any
map with the right image will do, and there are many. Its weight need not be tuned, for the optimal maps make both of the first terms least
at once: from 0.1 to 10 it makes little difference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .costs import SQUARED_EUCLIDEAN, Cost, cost_matrix
from .monge_gap import Convention, check_convention, gap_of_pairs
from .sinkhorn import check_epsilon, check_iteration, solve, solve_symmetric
from .transport_maps import Field

Weight = Float[Array, ""] | float


def conservativity_penalty(field: Field, x: Float[Array, "n dim"], key: PRNGKeyArray, *, n_probes: int = 1) -> Float[Array, ""]:
    """How far a field is from a gradient, E ‖J - Jᵀ‖²_F over the points, estimated by random probes: an unbiased E ‖J v - Jᵀ v‖².

    0 for every probe where the Jacobian is symmetric, and with it its derivative: unlike that of the difference of two traces, it does not
    shake what is there already. Four times the mean of [`jacobian_asymmetry`][gradatim.numerics.jacobian_asymmetry], which is exact.

    **Arguments:** `field`: of one point; `x`; `key`: draws `n_probes` normal probes for each point.

    **Raises:** `ValueError` for fewer than one probe.

    >>> x = jnp.ones((5, 3))
    >>> print(conservativity_penalty(lambda z: z**3, x, jax.random.key(0)))
    0.0
    """
    if n_probes < 1:
        raise ValueError(f"n_probes must be at least 1, got {n_probes}")
    n, dim = x.shape
    probes = jax.random.normal(key, (n * n_probes * dim,), x.dtype).reshape(n, n_probes, dim)

    def at(point: Array, probes: Array) -> Array:
        _, push = jax.linearize(field, point)
        pull = jax.linear_transpose(push, point)
        return jnp.mean(jax.vmap(lambda v: jnp.sum((push(v) - pull(v)[0]) ** 2))(probes))

    return jnp.mean(jax.vmap(at)(x, probes))


class Terms(NamedTuple):
    """The terms of the loss, without their weights; `is_converged` of all of its transport problems."""

    fit: Float[Array, ""]
    gap: Float[Array, ""]
    displacement: Float[Array, ""]
    asymmetry: Float[Array, ""]
    is_converged: Bool[Array, ""]


class MapObjective(eqx.Module):
    """The loss of a map: `objective(transport, x, y, key)` gives it and its [`Terms`][gradatim.transport.map_fitting.Terms].

    ε is fixed beforehand: one that followed the images would be a way to a smaller loss.

    **Arguments:** `fit_epsilon`, `gap_epsilon`: ε > 0 of the divergence, a tenth of the mean cost within the target, and of the gap, a few
    hundredths of the mean cost between source and target ([`mean_cost`][gradatim.transport.mean_cost]); `gap_weight` λ ≥ 0: the article
    takes 1 up to 64 dimensions and 10 above; `asymmetry_weight` λ_c ≥ 0, there 0.01 and 0.1, or None without that term;
    `displacement_weight` ≥ 0, of the mean cost itself: the usual regulariser, which shrinks the image, for comparison; `cost` of the gap;
    `fit_cost` of the divergence; `field`: F from the map, by default the map itself, whose Jacobian is symmetric for the squared
    distance; `convention` of the gap: `"entropy"` is the article's, whose least value is that of a map that spreads its images a little too
    far, which shows at weights of ten and more; `"debiased"` does not; `tolerance`, `max_iterations` of Sinkhorn.

    **Raises:** `ValueError` for a number out of range.

    >>> x = jnp.array([[0.0], [1.0], [2.0]])
    >>> _, terms = MapObjective(fit_epsilon=0.1, gap_epsilon=0.1)(lambda z: z + 2, x, x + 2, jax.random.key(0))
    >>> print(f"{terms.displacement:.2f}", terms.is_converged)
    4.00 True
    """

    fit_epsilon: Weight
    gap_epsilon: Weight
    gap_weight: Weight = 1.0
    asymmetry_weight: Weight | None = None
    displacement_weight: Weight | None = None
    cost: Cost = SQUARED_EUCLIDEAN
    fit_cost: Cost = SQUARED_EUCLIDEAN
    field: Callable[[Any], Field] = eqx.field(default_factory=lambda: _itself)
    convention: Convention = eqx.field(static=True, default="entropy")
    tolerance: float = eqx.field(static=True, default=1e-3)
    max_iterations: int = eqx.field(static=True, default=500)

    def __check_init__(self) -> None:
        check_epsilon(self.fit_epsilon)
        check_epsilon(self.gap_epsilon)
        check_iteration(self.tolerance, self.max_iterations)
        check_convention(self.convention)
        for name in ("gap_weight", "asymmetry_weight", "displacement_weight"):
            weight = getattr(self, name)
            if isinstance(weight, float | int) and not 0 <= weight < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {weight}")

    def __call__(
        self,
        transport: Callable[[Float[Array, " dim"]], Float[Array, " dim"]],
        x: Float[Array, "n dim"],
        y: Float[Array, "m dim"],
        key: PRNGKeyArray,
    ) -> tuple[Float[Array, ""], Terms]:
        """The loss on two samples, less W_ε(ν, ν) / 2, which no map can change."""
        images = jax.vmap(transport)(x)
        fit_epsilon, gap_epsilon = (jnp.asarray(epsilon, x.dtype) for epsilon in (self.fit_epsilon, self.gap_epsilon))
        between = solve(cost_matrix(self.fit_cost, images, y), fit_epsilon, self.tolerance, self.max_iterations)
        within = solve_symmetric(cost_matrix(self.fit_cost, images, images), fit_epsilon, self.tolerance, self.max_iterations)
        gap = gap_of_pairs(x, images, self.cost, gap_epsilon, self.convention, self.tolerance, self.max_iterations)
        zero = jnp.zeros((), x.dtype)
        asymmetry = zero if self.asymmetry_weight is None else conservativity_penalty(self.field(transport), x, key)
        fit = between.value - within.value / 2
        loss = fit + self.gap_weight * gap.value
        if self.asymmetry_weight is not None:
            loss = loss + self.asymmetry_weight * asymmetry
        if self.displacement_weight is not None:
            loss = loss + self.displacement_weight * gap.displacement
        is_converged = between.is_converged & within.is_converged & gap.is_converged
        return loss, Terms(fit, gap.value, gap.displacement, asymmetry, is_converged)


class FittedMap(eqx.Module):
    """A map after training, and the loss and its terms at each step."""

    transport: Callable[[Float[Array, " dim"]], Float[Array, " dim"]]
    loss: Float[Array, " steps"]
    terms: Terms


def fit_transport_map(
    transport: Callable[[Float[Array, " dim"]], Float[Array, " dim"]],
    x: Float[Array, "n dim"],
    y: Float[Array, "m dim"],
    *,
    objective: MapObjective,
    optimizer: optax.GradientTransformation,
    n_steps: int,
    batch_size: int,
    key: PRNGKeyArray,
) -> FittedMap:
    """Trains a map from one sample to another on random batches, in one compiled loop.

    Look at `terms.is_converged`, and judge the map by [`exact_monge_gap`][gradatim.transport.exact_monge_gap] on points that it has not
    seen: an image that fits says nothing of which map it is the image of.

    **Arguments:** `transport`: an equinox module of one point; `x`, `y`: samples; `objective`; `optimizer`; `n_steps`;
    `batch_size` of either sample, at most their sizes: a hundred or more; `key`.

    **Raises:** `ValueError` for a count out of range.

    >>> key = jax.random.key(0)
    >>> x = jax.random.normal(key, (64,)).reshape(32, 2)
    >>> from gradatim.transport import ResidualMap, exact_monge_gap
    >>> start = ResidualMap(eqx.nn.Linear(2, 2, key=key))
    >>> objective = MapObjective(fit_epsilon=0.1, gap_epsilon=0.1)
    >>> fitted = fit_transport_map(
    ...     start, x, 2 * x + 1, objective=objective, optimizer=optax.adam(3e-2), n_steps=100, batch_size=32, key=key
    ... )
    >>> before, after = (exact_monge_gap(x, jax.vmap(one)(x)).value for one in (start, fitted.transport))
    >>> print(before > 1e-3, after < 1e-3, bool(fitted.terms.is_converged.all()))
    True True True
    """
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")
    fewest = min(len(x), len(y))
    if not 1 <= batch_size <= fewest:
        raise ValueError(f"batch_size must lie in [1, {fewest}], the size of the smaller sample, got {batch_size}")
    return _fit(transport, x, y, objective, optimizer, n_steps, batch_size, key)


def _itself(transport: Any) -> Field:
    return transport


@eqx.filter_jit
def _fit(
    transport: Any, x: Array, y: Array, objective: MapObjective, optimizer: Any, n_steps: int, batch_size: int, key: Array
) -> FittedMap:
    moving, fixed = eqx.partition(transport, eqx.is_inexact_array)

    def loss_of(moving: Any, x: Array, y: Array, key: Array) -> tuple[Array, Terms]:
        return objective(eqx.combine(moving, fixed), x, y, key)

    def step(state: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], tuple[Array, Terms]]:
        moving, memory = state
        first, second, probes = jax.random.split(key, 3)
        rows = [jax.random.permutation(k, len(points))[:batch_size] for k, points in ((first, x), (second, y))]
        found, gradient = jax.value_and_grad(loss_of, has_aux=True)(moving, x[rows[0]], y[rows[1]], probes)
        updates, memory = optimizer.update(gradient, memory, moving)
        return (optax.apply_updates(moving, updates), memory), found

    (moving, _), (loss, terms) = jax.lax.scan(step, (moving, optimizer.init(moving)), jax.random.split(key, n_steps))
    return FittedMap(eqx.combine(moving, fixed), loss, terms)
