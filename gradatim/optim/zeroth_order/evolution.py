"""Evolution strategies: many points, ranked against one another, as one gradient (Salimans et al., arXiv:1703.03864)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from .directions import NOT_FINITE, Nonfinite, ValueAndGrad, mean_of_kept, moved, weighted_sum, without_nonfinite
from .probes import check_count, check_parameters, check_positive, check_word, chosen_radius, draw_probe, probe_seed, scalar_loss

Shaping = Callable[[Float[Array, " population"]], Float[Array, " population"]]


def evolution_strategy(
    fun: Callable[..., Any],
    *,
    radius: Any,
    population: int,
    mirrored: bool = True,
    shaping: Shaping | None = None,
    nonfinite: Nonfinite = "propagate",
    batch_size: int | None = None,
    axis_name: str | None = None,
) -> ValueAndGrad:
    """The gradient estimate of OpenAI's evolution strategy: a population of points, their losses replaced by ranks.

        ĝ = 1/(n h) Σᵢ uᵢ zᵢ,    uᵢ = rank(f(θ + h zᵢ)) / (n - 1) - ½,    mirrored: zᵢ₊ₙ⸝₂ = -zᵢ

    **The length of a shaped estimate means nothing**: ranks forget the scale of f, so take an optimiser or a rate that fits, and
    [`raw_losses`][gradatim.optim.raw_losses] for an estimate of the gradient. Only half of the population is drawn where it is
    mirrored, at half the price of `jax.random.normal`: in a scan the draws are what a generation costs.

    **Arguments:** `fun(params, *args)`: a scalar to be made small; `radius` h > 0, of the search; `population` n ≥ 2, even if
    `mirrored`; `shaping`: from losses to weights, by default [`centered_ranks`][gradatim.optim.centered_ranks]; `nonfinite`: a loss
    that is not finite is shaped like any other (NaN ranks worst), is dropped, or raises (under `eqx.filter_jit`); one that is dropped
    has no weight, nor has its mirror image, and the rest are shaped as if it were their mean; `batch_size`: points evaluated at a time;
    None: all; `axis_name`: of `jax.shard_map` or `jax.vmap`, along which each device draws a population of its own, and all are shaped
    as one.

    **Returns:** a function `(params, *args, key=key) -> (mean loss of the population, estimate)`.

    **Raises:** as [`random_directions`][gradatim.optim.random_directions]; `ValueError` for an odd population that is to be mirrored,
    or one that is not mirrored for [`best_half_directions`][gradatim.optim.best_half_directions].

    >>> import optax
    >>> value_and_grad = jax.jit(evolution_strategy(lambda x: ((x - 3) ** 2).sum(), radius=0.1, population=64))
    >>> optimizer = optax.adam(0.1)
    >>> params = jax.numpy.zeros(4)
    >>> state = optimizer.init(params)
    >>> for key in jax.random.split(jax.random.key(0), 100):
    ...     updates, state = optimizer.update(value_and_grad(params, key=key)[1], state)
    ...     params = optax.apply_updates(params, updates)
    >>> print(params.round(1))
    [3. 3. 3. 3.]

    Source: Salimans, Ho, Chen, Sidor and Sutskever, *Evolution Strategies as a Scalable Alternative to Reinforcement Learning*.
    """
    check_positive("radius", radius)
    check_count("population", population, 2)
    if mirrored and population % 2:
        raise ValueError(f"population must be even to be mirrored, got {population}")
    if shaping is best_half_directions and not mirrored:
        raise ValueError("mirrored must be True for best_half_directions, got False: it compares both ends of a direction")
    check_word("nonfinite", nonfinite, Nonfinite)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    shape = centered_ranks if shaping is None else shaping
    loss = scalar_loss(fun)
    n_drawn = population // 2 if mirrored else population

    def value_and_grad(params: Any, *args: Any, key: Any) -> tuple[Any, Any]:
        check_parameters(params)
        h = chosen_radius(radius, params)
        key = key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        seed = probe_seed(key)
        z = jax.vmap(lambda k: draw_probe(seed, params, k))(jnp.arange(n_drawn))

        def losses(sign: float) -> Float[Array, " drawn"]:
            evaluate = lambda direction: loss(moved(params, sign * h, direction), *args)  # noqa: E731
            return jax.vmap(evaluate)(z) if batch_size is None else jax.lax.map(evaluate, z, batch_size=batch_size)

        fitness = jnp.stack([losses(1.0), losses(-1.0)]) if mirrored else losses(1.0)[None]
        weights, value, count = shaped_fitness(fitness, shape, nonfinite, axis_name)
        signed = weights[0] - weights[1] if mirrored else weights[0]
        total = weighted_sum(signed / h, z, params)
        total = total if axis_name is None else jax.lax.psum(total, axis_name)
        return mean_of_kept(value, total, count, params)

    return value_and_grad


def shaped_fitness(
    fitness: Float[Array, "ends drawn"], shape: Shaping, nonfinite: Nonfinite, axis_name: str | None = None
) -> tuple[Float[Array, "ends drawn"], Array, Array]:
    """Weights of a population given by the ends of its directions, the sum of its losses, and how many of them count.

    **Arguments:** `axis_name`: over which populations are shaped as one, the sum and the count with them.
    """
    mine = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    whole = fitness[None] if axis_name is None else jax.lax.all_gather(fitness, axis_name)
    whole = jnp.swapaxes(whole, 0, 1)  # (ends, devices, drawn): all first ends, then all second ends
    kept = jnp.ones(whole.shape, bool)
    if nonfinite != "propagate":
        kept = jnp.broadcast_to(jnp.isfinite(whole).all(0), whole.shape)
        if nonfinite == "raise":
            whole = eqx.error_if(whole, ~kept, NOT_FINITE)
    zeroed, count = jnp.where(kept, whole, 0), kept.sum().astype(whole.dtype)
    losses = jnp.where(kept, whole, zeroed.sum() / jnp.maximum(count, 1)).reshape(-1)
    weights = shape(losses)
    if weights.shape != losses.shape:
        raise ValueError(f"shaping must keep the shape {losses.shape}, got {weights.shape}")
    return jnp.where(kept, weights.reshape(whole.shape), 0)[:, mine], zeroed.sum(), count


def raw_losses(losses: Float[Array, " population"]) -> Float[Array, " population"]:
    """No shaping: the estimate is the mean of the directional differences.

    >>> print(raw_losses(jnp.array([3.0, 1.0])))
    [3. 1.]
    """
    return losses


def without_mean(losses: Float[Array, " population"]) -> Float[Array, " population"]:
    """Each loss less the mean of the others: the baseline that keeps the estimate unbiased without mirroring.

    >>> print(without_mean(jnp.array([3.0, 1.0, 2.0])))
    [ 1.5 -1.5  0. ]
    """
    n = losses.size
    return (losses - losses.mean()) * (n / (n - 1))


def centered_ranks(losses: Float[Array, " population"]) -> Float[Array, " population"]:
    """Ranks from -½ (best) to ½ (worst), whose sum is zero: the same for every increasing function of the losses; NaN is worst.

    >>> print(centered_ranks(jax.numpy.array([3.0, 10.0, -1.0])))
    [ 0.   0.5 -0.5]
    """
    order = jnp.argsort(losses)
    ranks = jnp.zeros(losses.size, jnp.int32).at[order].set(jnp.arange(losses.size, dtype=jnp.int32))
    return ranks.astype(losses.dtype) / (losses.size - 1) - 0.5


def standardized(losses: Float[Array, " population"]) -> Float[Array, " population"]:
    """Losses less their mean, over their standard deviation: the same for every a f + b with a > 0. Zero where all are equal.

    >>> print(standardized(jnp.array([3.0, 1.0, 3.0, 1.0])))
    [ 1. -1.  1. -1.]
    """
    deviation = losses - losses.mean()
    scale = jnp.sqrt((deviation**2).mean())
    return jnp.where(scale > 0, deviation / jnp.where(scale > 0, scale, 1), 0)


def best_half_directions(losses: Float[Array, " population"]) -> Float[Array, " population"]:
    """Of a mirrored population, the half of the pairs with the lowest loss at either end, over the deviation of their losses (ARS).

    **Raises:** `ValueError` for an odd number of losses.

    >>> print(best_half_directions(jnp.array([1.0, 9.0, 3.0, 8.0])))
    [2. 0. 6. 0.]

    Source: Mania, Guy and Recht, *Simple Random Search Provides a Competitive Approach to Reinforcement Learning* (arXiv:1803.07055).
    """
    if losses.size % 2:
        raise ValueError(f"losses must be those of a mirrored population, an even number, got {losses.size}")
    pairs = losses.reshape(2, -1)
    n_pairs = pairs.shape[1]
    kept = jnp.zeros(n_pairs, bool).at[jnp.argsort(pairs.min(0))[: -(-n_pairs // 2)]].set(True)
    mean = jnp.where(kept[None], pairs, 0).sum() / (2 * kept.sum())
    scale = jnp.sqrt(jnp.where(kept[None], (pairs - mean) ** 2, 0).sum() / (2 * kept.sum()))
    share = n_pairs / kept.sum()
    return jnp.where(kept[None] & (scale > 0), share * pairs / jnp.where(scale > 0, scale, 1), 0).reshape(-1)


def guided_directions(
    fun: Callable[..., Any],
    surrogates: Any,
    *,
    radius: Any = None,
    n_probes: int = 1,
    share: Any = 0.5,
    nonfinite: Nonfinite = "propagate",
) -> ValueAndGrad:
    """Central differences along directions drawn mostly where surrogate gradients lie (guided evolution strategies).

        z = √α u₁ + √((1 - α) d/k) U u₂,    u₁, u₂ Gaussian, U an orthonormal basis of k surrogate gradients
        ĝ = (f(θ + h z) - f(θ - h z)) / (2h) · z,    E[ĝ] = (α I + (1 - α) d/k U Uᵀ) ∇f

    **Biased towards the surrogates**, unless α = 1: a descent direction all the same.

    **Arguments:** `surrogates`: k trees like the parameters, stacked along the first axis; `share` α in [0, 1]; the rest, returns and
    errors as in [`random_directions`][gradatim.optim.random_directions].

    >>> value_and_grad = guided_directions(lambda x: x @ x / 2, jnp.array([[1.0, 0.0]]), radius=0.1, share=0.0)
    >>> _, estimate = value_and_grad(jnp.array([1.0, 1.0]), key=jax.random.key(0))
    >>> print(bool(estimate[0] > 0), bool(estimate[1] == 0))
    True True

    Source: Maheswaranathan, Metz, Tucker, Choi and Sohl-Dickstein, *Guided Evolutionary Strategies* (arXiv:1806.10230), times d.
    """
    check_positive("radius", radius)
    check_count("n_probes", n_probes)
    check_word("nonfinite", nonfinite, Nonfinite)
    if is_known(share) and not 0 <= float(share) <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    loss = scalar_loss(fun)

    def value_and_grad(params: Any, *args: Any, key: Any) -> tuple[Any, Any]:
        check_parameters(params)
        h, seed = chosen_radius(radius, params), probe_seed(key)
        flat, unravel = ravel_pytree(params)
        basis = jnp.linalg.qr(jax.vmap(lambda tree: ravel_pytree(tree)[0])(surrogates).T)[0]
        d, k = basis.shape

        def probe(i: Any) -> tuple[Any, Any, Any]:
            free, inside = draw_probe(seed, (flat, basis[0]), i)
            z = jnp.sqrt(share) * free + jnp.sqrt((1 - share) * d / k) * (basis @ inside)
            after, before = (loss(unravel((flat + s * h * z).astype(flat.dtype)), *args) for s in (1, -1))
            return (after + before) / 2, (after - before) / (2 * h), z

        values, slopes, z = jax.vmap(probe)(jnp.arange(n_probes))
        values, slopes, kept = without_nonfinite(values, slopes, nonfinite)
        value, estimate = mean_of_kept(values.sum(), weighted_sum(slopes, z, flat), kept.sum(), flat)
        return value, unravel(estimate)

    return value_and_grad


class SPSAGains(NamedTuple):
    """Schedules of the learning rate and of the radius: each is called with the number of steps done."""

    learning_rate: Callable[[Any], Any]
    radius: Callable[[Any], Any]


def spsa_gains(learning_rate: float, radius: float, *, stability: float = 0.0) -> SPSAGains:
    """Spall's gains: aₖ = a/(k + 1 + A)^0.602 and cₖ = c/(k + 1)^0.101, with Σ aₖ = ∞ and Σ aₖ²/cₖ² < ∞.

    **Arguments:** `learning_rate` a > 0; `radius` c > 0, about the noise of the loss; `stability` A ≥ 0, a tenth of all steps.

    >>> gains = spsa_gains(0.1, 0.01, stability=99.0)
    >>> print(f"{gains.learning_rate(0):.5f} {gains.radius(0):.2f}")
    0.00625 0.01

    Source: Spall, *Implementation of the Simultaneous Perturbation Algorithm*, IEEE TAES 34 (1998) 817-823.
    """
    check_positive("learning_rate", learning_rate)
    check_positive("radius", radius)
    if not 0 <= stability < math.inf:
        raise ValueError(f"stability must be at least 0 and finite, got {stability}")
    return SPSAGains(lambda k: learning_rate / (k + 1 + stability) ** 0.602, lambda k: radius / (k + 1) ** 0.101)
