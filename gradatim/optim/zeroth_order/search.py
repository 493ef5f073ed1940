"""Random search: the (1+1) evolution strategy with the one-fifth rule, and simulated annealing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradatim.numerics.checks import is_known

from .directions import moved
from .probes import check_parameters, check_positive, draw_probe, probe_seed, scalar_loss


class RandomSearch(NamedTuple):
    """`init(params, *args)` gives a state, `step(state, *args, key=key)` the next one."""

    init: Callable[..., Any]
    step: Callable[..., Any]


class SearchState(NamedTuple):
    """The best point so far, its loss, and how far the next trial goes."""

    params: Any  # θ
    value: Float[Array, ""]  # f(θ)
    radius: Float[Array, ""]  # h


class AnnealingState(NamedTuple):
    """Where the walk is, and the best point that it has seen."""

    count: Int[Array, ""]  # trials  # pyright: ignore[reportIncompatibleMethodOverride]: optax's name for it
    params: Any
    value: Float[Array, ""]
    best_params: Any
    best_value: Float[Array, ""]


def one_plus_one(fun: Callable[..., Any], *, radius: Any, growth: Any = 0.8, success_rate: Any = 0.2) -> RandomSearch:
    """The (1+1) evolution strategy: one random trial a step, kept if it is better, and a radius that follows its luck.

        θ' = θ + h z,   z ~ N(0, I)
        f(θ') < f(θ):   θ ← θ',  h ← h eᵃ            else:   h ← h exp(-a p/(1 - p))

    At a success rate of p the radius stays as it is; more luck makes trials bolder. With p = 1/5 the loss of a well-conditioned bowl
    falls by a factor of about 1 - 0.27/d a step, and is halved in 2.6 d evaluations. **It knows no correlations**: on a badly
    conditioned loss take CMA-ES (`cma`, `evosax`). Every increasing function of the loss gives the same path. A trial whose loss is
    NaN is never kept.

    **Arguments:** `fun(params, *args)`: a real scalar, the same from step to step, for the loss of θ is not computed anew; `radius` h > 0
    of the first step; `growth` a > 0; `success_rate` p in (0, 1).

    **Returns:** a [`RandomSearch`][gradatim.optim.RandomSearch] over [`SearchState`][gradatim.optim.SearchState]: one evaluation a step.

    **Raises:** as [`random_directions`][gradatim.optim.random_directions].

    >>> search = one_plus_one(lambda x: ((x - 3) ** 2).sum(), radius=1.0)
    >>> state = search.init(jnp.zeros(4))
    >>> state, _ = jax.lax.scan(lambda state, key: (search.step(state, key=key), None), state, jax.random.split(jax.random.key(0), 400))
    >>> print(state.params.round(2))
    [3. 3. 3. 3.]

    Source: Rechenberg, *Evolutionsstrategie*, 1973; the factors are those of Kern et al., Natural Computing 3 (2004) 77-112.
    """
    check_positive("radius", radius)
    check_positive("growth", growth)
    if is_known(success_rate) and not 0 < float(success_rate) < 1:
        raise ValueError(f"success_rate must lie in (0, 1), got {success_rate}")
    loss = scalar_loss(fun)

    def init(params: Any, *args: Any) -> SearchState:
        check_parameters(params)
        return SearchState(params, loss(params, *args), jnp.asarray(radius, float))

    def step(state: Any, *args: Any, key: Any) -> SearchState:
        trial, value = _trial(loss, state.params, state.radius, probe_seed(key), args)
        is_better = _is_better(value, state.value, 0.0)
        factor = jnp.exp(jnp.where(is_better, growth, -growth * success_rate / (1 - success_rate)))
        params = _chosen(is_better, trial, state.params)
        return SearchState(params, jnp.where(is_better, value, state.value), (state.radius * factor).astype(state.radius.dtype))

    return RandomSearch(init, step)


def simulated_annealing(fun: Callable[..., Any], *, radius: Any, temperature: Any) -> RandomSearch:
    """A random walk that goes uphill now and then: by Δ with probability exp(-Δ/T).

        θ' = θ + h z,   z ~ N(0, I);     θ ← θ' if f(θ') - f(θ) < T e,   e ~ Exp(1)

    At a constant temperature the walk settles in the law ∝ exp(-f/T), in wide minima rather than narrow ones of equal depth; T that falls
    to zero lets it freeze. T = 0 is hill climbing. The best point seen is kept beside. A trial whose loss is NaN is never taken.

    **Arguments:** `fun(params, *args)`: as in [`one_plus_one`][gradatim.optim.one_plus_one]; `radius` h > 0; `temperature` T ≥ 0, in units
    of the loss, or a schedule of the number of trials done.

    **Returns:** a [`RandomSearch`][gradatim.optim.RandomSearch] over [`AnnealingState`][gradatim.optim.AnnealingState].

    **Raises:** as [`random_directions`][gradatim.optim.random_directions].

    >>> search = simulated_annealing(lambda x: x**2 / 2, radius=1.0, temperature=lambda n: 0.99**n)
    >>> state = search.init(jnp.array(5.0))
    >>> state, _ = jax.lax.scan(lambda state, key: (search.step(state, key=key), None), state, jax.random.split(jax.random.key(0), 1000))
    >>> print(f"{state.best_value:.3f}")
    0.000

    Source: Metropolis et al., J. Chem. Phys. 21 (1953) 1087-1092; Kirkpatrick, Gelatt and Vecchi, Science 220 (1983) 671-680.
    """
    check_positive("radius", radius)
    if not callable(temperature) and is_known(temperature) and not 0 <= float(temperature) < math.inf:
        raise ValueError(f"temperature must be at least 0 and finite, got {temperature}")
    loss = scalar_loss(fun)

    def init(params: Any, *args: Any) -> AnnealingState:
        check_parameters(params)
        value = loss(params, *args)
        # Buffers of their own: one that two fields share cannot be donated.
        return AnnealingState(jnp.zeros((), jnp.int32), params, value, jax.tree.map(jnp.copy, params), jnp.copy(value))

    def step(state: Any, *args: Any, key: Any) -> AnnealingState:
        probe_seed(key)
        direction, chance = jax.random.split(key)
        trial, value = _trial(loss, state.params, radius, probe_seed(direction), args)
        now: Any = temperature(state.count) if callable(temperature) else temperature
        is_taken = _is_better(value, state.value, now * jax.random.exponential(chance))
        is_best = _is_better(value, state.best_value, 0.0)
        return AnnealingState(
            state.count + 1,
            _chosen(is_taken, trial, state.params),
            jnp.where(is_taken, value, state.value),
            _chosen(is_best, trial, state.best_params),
            jnp.where(is_best, value, state.best_value),
        )

    return RandomSearch(init, step)


def _trial(loss: Callable[..., Any], params: Any, radius: Any, seed: Any, args: tuple[Any, ...]) -> tuple[Any, Array]:
    trial = moved(params, radius, draw_probe(seed, params))
    return trial, loss(trial, *args)


def _is_better(value: Array, than: Array, slack: Any) -> Array:
    """By more than -`slack`; any number is better than NaN, which is better than nothing."""
    return (value < than + slack) | (jnp.isnan(than) & ~jnp.isnan(value))


def _chosen(is_new: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(is_new, a, b), new, old)
