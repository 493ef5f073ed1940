"""MeZO: descent along a direction that is never stored, only drawn again from its key (Malladi et al., arXiv:2305.17333)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from .probes import check_parameters, check_positive, check_word, chosen_radius, probe_seed, scalar_loss, shifted

ReplayDistribution = Literal["gaussian", "rademacher"]


class ReplayStep(NamedTuple):
    """The parameters after a step, the mean of the two losses, and the slope along the direction.

    A key and a slope are the whole step: see [`replay_updates`][gradatim.optim.replay_updates].
    """

    params: Any
    value: Float[Array, ""]
    slope: Float[Array, ""]


def mezo_step(
    fun: Callable[..., Any],
    *,
    learning_rate: Any,
    radius: Any = 1e-3,
    weight_decay: Any = 0.0,
    decays: Callable[[Any], Any] | None = None,
    distribution: ReplayDistribution = "gaussian",
    in_place: bool = True,
) -> Callable[..., ReplayStep]:
    """One step of descent in the memory of an inference: θ is moved in place along z, which is drawn three times from its key.

        θ ← θ + h z;   ℓ₊ = f(θ);   θ ← θ - 2h z;   ℓ₋ = f(θ);   s = (ℓ₊ - ℓ₋) / (2h)
        θ ← (1 - η λ) (θ + h z) - η s z

    Jit it with the parameters donated (`jax.jit(step, donate_argnums=0)`): z comes in blocks of 4,096 numbers, so nothing else as
    large as a parameter is alive, whatever the depth. The way back and the update are one rounding, but three roundings a step make
    the parameters wander by about 1e-7 of their size; `in_place=False` never leaves θ, for two more copies of it.

    **Arguments:** `fun(params, *args)`: a scalar; `learning_rate` η; `radius` h > 0, 1e-3 in the paper (in half precision the losses must
    still be in single, and 1e-3 is too small for bfloat16 parameters); `weight_decay` λ ≥ 0, decoupled; `decays(params)`: a tree of
    booleans, by default the leaves with at least two axes, so no bias and no norm's scale; `distribution`; `in_place`.

    **Returns:** a function `(params, *args, key=key) -> ReplayStep`. The factory is cheap: call it inside a step to change η.

    **Raises:** as [`random_directions`][gradatim.optim.random_directions], whose central difference with one probe and the same key has
    the same direction.

    >>> step = mezo_step(lambda x: x @ x / 2, learning_rate=0.1)
    >>> params, value, slope = step(jax.numpy.ones(3), key=jax.random.key(0))
    >>> print(f"{value:.3f}")
    1.500

    For optimisers with a state of their own there is [`spsa`][gradatim.optim.spsa]: what the state costs, MeZO saves.
    """
    check_positive("radius", radius)
    check_word("distribution", distribution, ReplayDistribution)
    for name, number in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
        if is_known(number) and not float(number) >= 0:
            raise ValueError(f"{name} must be at least 0, got {number}")
    loss = scalar_loss(fun)

    def step(params: Any, *args: Any, key: Any) -> ReplayStep:
        check_parameters(params)
        seed, h = probe_seed(key), chosen_radius(radius, params)
        keep = _kept(params, learning_rate, weight_decay, decays)
        if in_place:
            params = shifted(params, seed, h, distribution=distribution)
            after = loss(params, *args)
            params = shifted(params, seed, _once_known(-2 * h, after), distribution=distribution)
            before = loss(params, *args)
            slope = (after - before) / (2 * h)
            # The way back and the update in one rounding: c (θ + h z) - η s z, c = 1 - η λ where λ holds.
            back = jax.tree.map(lambda c: c * h - learning_rate * slope, keep)
            params = shifted(params, seed, back, keep=keep, distribution=distribution)
        else:
            after = loss(shifted(params, seed, h, distribution=distribution), *args)
            before = loss(shifted(params, seed, _once_known(-h, after), distribution=distribution), *args)
            slope = (after - before) / (2 * h)
            params = shifted(params, seed, -learning_rate * slope, keep=keep, distribution=distribution)
        return ReplayStep(params, (after + before) / 2, slope)

    return step


def replay_updates(
    params: Any,
    keys: Any,
    slopes: Float[Array, " steps"],
    *,
    learning_rate: Any,
    distribution: ReplayDistribution = "gaussian",
) -> Any:
    """Walks a run of [`mezo_step`][gradatim.optim.mezo_step] again from its keys and slopes, with no loss: θₜ₊₁ = θₜ - η sₜ zₜ.

    A fine-tuned model is then two numbers a step beside the model it began with.

    **Arguments:** `params`: those of the start; `keys`: one a step; `slopes`; the rest as the run had it (without weight decay).

    >>> start, keys = jnp.ones(3), jax.random.split(jax.random.key(0), 1)
    >>> params, _, slope = mezo_step(lambda x: x @ x / 2, learning_rate=0.1)(start, key=keys[0])
    >>> bool(jnp.allclose(replay_updates(start, keys, slope[None], learning_rate=0.1), params, atol=1e-5))
    True
    """
    check_parameters(params)
    check_word("distribution", distribution, ReplayDistribution)

    def step(params: Any, pair: Any) -> tuple[Any, None]:
        key, slope = pair
        return shifted(params, probe_seed(key), -learning_rate * slope, distribution=distribution), None

    return jax.lax.scan(step, params, (keys, slopes))[0]


def _once_known(number: Any, loss: Any) -> Any:
    """`number`, but only after the loss: a dependence that keeps two sets of parameters from being alive at once.

    `jax.lax.optimization_barrier` does not: XLA's CPU backend drops it before it assigns buffers.
    """
    never = jnp.isnan(loss) & (loss == loss)
    return jnp.where(never, 0.0, number)


def _kept(params: Any, learning_rate: Any, weight_decay: Any, decays: Callable[[Any], Any] | None) -> Any:
    if isinstance(weight_decay, int | float) and weight_decay == 0:
        return jax.tree.map(lambda _: 1.0, params)
    mask = jax.tree.map(lambda p: p.ndim >= 2, params) if decays is None else decays(params)
    return jax.tree.map(lambda _, decay: jnp.where(decay, 1 - learning_rate * weight_decay, 1.0), params, mask)
