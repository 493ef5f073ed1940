"""Natural evolution strategies: a search distribution whose mean and widths both learn (Wierstra et al., JMLR 15, 2014)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .directions import Nonfinite, ValueAndGrad, mean_of_kept, moved, weighted_sum
from .evolution import Shaping, shaped_fitness
from .probes import check_count, check_parameters, check_positive, check_word, draw_probe, probe_seed, scalar_loss


class SearchDistribution(NamedTuple):
    """Independent Gaussians around `mean`, one a parameter, of deviation exp(`log_radius`): two trees of one shape."""

    mean: Any
    log_radius: Any

    @classmethod
    def around(cls, params: Any, radius: Any) -> SearchDistribution:
        """The same radius > 0 for every parameter.

        >>> print(SearchDistribution.around(jnp.zeros(2), 1.0).log_radius)
        [0. 0.]
        """
        check_parameters(params)
        check_positive("radius", radius)
        return cls(params, jax.tree.map(lambda p: jnp.full_like(p, jnp.log(radius)), params))


def natural_evolution_strategy(
    fun: Callable[..., Any],
    *,
    population: int,
    mirrored: bool = True,
    shaping: Shaping | None = None,
    nonfinite: Nonfinite = "propagate",
) -> ValueAndGrad:
    """The natural gradient of E f(μ + σ s), s ~ N(0, I), in the mean μ and in log σ, for each parameter a σ (separable NES).

        ĝ_μ = 1/n Σᵢ uᵢ σ sᵢ,    ĝ_log σ = 1/n Σᵢ uᵢ (sᵢ² - 1) / 2,    uᵢ the shaped loss of μ + σ sᵢ,    mirrored: sᵢ₊ₙ⸝₂ = -sᵢ

    The radius grows while better points lie far out and shrinks where they lie close, and a direction in which the loss is steep gets
    a smaller one: scales of single parameters are learnt, correlations between them are not. A step of size 1 in the mean and of
    (3 + log d) / (5 √d) in log σ is the authors' for d parameters.

    **Arguments:** `fun(params, *args)`: a scalar to be made small; `population` n ≥ 2, even if `mirrored`, at least 4 + 3 log d;
    `shaping`: from losses to weights, by default [`log_ranks`][gradatim.optim.log_ranks]; `nonfinite`: as in
    [`evolution_strategy`][gradatim.optim.evolution_strategy].

    **Returns:** a function `(distribution, *args, key=key) -> (mean loss of the population, estimate)` of a
    [`SearchDistribution`][gradatim.optim.SearchDistribution], the estimate another, to stand where `jax.value_and_grad` stood.

    **Raises:** as [`evolution_strategy`][gradatim.optim.evolution_strategy]; `TypeError` for parameters that are no distribution.

    >>> import optax
    >>> value_and_grad = jax.jit(natural_evolution_strategy(lambda x: ((x - 3) ** 2).sum(), population=16))
    >>> rates = SearchDistribution(optax.sgd(1.0), optax.sgd(0.4))._asdict()
    >>> optimizer = optax.multi_transform(rates, SearchDistribution("mean", "log_radius"))
    >>> search = SearchDistribution.around(jnp.zeros(4), 1.0)
    >>> for key in jax.random.split(jax.random.key(0), 100):
    ...     updates, _ = optimizer.update(value_and_grad(search, key=key)[1], optimizer.init(search))
    ...     search = optax.apply_updates(search, updates)
    >>> print(search.mean.round(1))
    [3. 3. 3. 3.]

    Source: Wierstra, Schaul, Glasmachers, Sun, Peters and Schmidhuber, *Natural Evolution Strategies*, JMLR 15 (2014) 949-980.
    """
    check_count("population", population, 2)
    if mirrored and population % 2:
        raise ValueError(f"population must be even to be mirrored, got {population}")
    check_word("nonfinite", nonfinite, Nonfinite)
    shape = log_ranks if shaping is None else shaping
    loss = scalar_loss(fun)
    n_drawn = population // 2 if mirrored else population

    def value_and_grad(distribution: Any, *args: Any, key: Any) -> tuple[Any, Any]:
        if not isinstance(distribution, SearchDistribution):
            raise TypeError(f"params must be a SearchDistribution, got {type(distribution).__name__}: see SearchDistribution.around")
        check_parameters(distribution)
        mean, seed = distribution.mean, probe_seed(key)
        s = jax.vmap(lambda k: draw_probe(seed, mean, k))(jnp.arange(n_drawn))
        z = jax.tree.map(lambda s, log_radius: s * jnp.exp(log_radius)[None], s, distribution.log_radius)
        signs = (1.0, -1.0) if mirrored else (1.0,)
        fitness = jnp.stack([jax.vmap(lambda z, sign=sign: loss(moved(mean, sign, z), *args))(z) for sign in signs])
        weights, value, count = shaped_fitness(fitness, shape, nonfinite)
        along = weighted_sum(weights[0] - weights[1] if mirrored else weights[0], z, mean)
        spread = weighted_sum(weights.sum(0), jax.tree.map(lambda s: (s**2 - 1) / 2, s), mean)
        return mean_of_kept(value, SearchDistribution(along, spread), count, distribution)

    return value_and_grad


def log_ranks(losses: Float[Array, " population"]) -> Float[Array, " population"]:
    """Weights by rank, of sum zero, that tell good points apart and treat the worse half alike, as 1: n times 1/n - uᵢ of

        uᵢ = max(0, log(n/2 + 1) - log i) / Σⱼ max(0, log(n/2 + 1) - log j),    i = 1 the lowest loss; NaN is worst

    >>> print(log_ranks(jnp.array([3.0, 10.0, -1.0, 5.0])).round(2))
    [-0.08  1.   -1.92  1.  ]
    """
    n = losses.size
    utilities = jnp.maximum(0.0, jnp.log(n / 2 + 1) - jnp.log(jnp.arange(1, n + 1))).astype(losses.dtype)
    return jnp.zeros_like(losses).at[jnp.argsort(losses)].set(1 - n * utilities / utilities.sum())
