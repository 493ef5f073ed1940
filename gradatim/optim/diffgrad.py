"""diffGrad: Adam, slowed where the gradient has stopped changing (Dubey et al., arXiv:1909.11015)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree, Real

from gradatim.numerics.checks import is_known
from gradatim.optim.leaves import check_leaves
from gradatim.optim.rates import check_not_negative, check_rates

Friction = Callable[[Real[Array, "..."]], Real[Array, "..."]]


class ScaleByDiffgradState(NamedTuple):
    """Adam's state and the gradient before."""

    count: Int[Array, ""]  # t  # pyright: ignore[reportIncompatibleMethodOverride]: optax's name for it
    mu: Any  # mₜ
    nu: Any  # vₜ
    previous: Any  # gₜ₋₁


def scale_by_diffgrad(
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    eps: float | Array = 1e-8,
    eps_root: float | Array = 0.0,
    mu_dtype: jax.typing.DTypeLike | None = None,
    *,
    nesterov: bool = False,
    friction: Friction | None = None,
) -> optax.GradientTransformation:
    """The direction of [`diffgrad`][gradatim.optim.diffgrad], without its learning rate and weight decay.

    The gradient becomes the next gₜ₋₁. For a step without a copy of it (1.1 times Adam's seconds instead of 2.3), donate both, the
    gradient as an argument ahead of `state.previous`: JAX pairs donated inputs with outputs of one shape in their order.

    **Arguments:** as in [`diffgrad`][gradatim.optim.diffgrad].

    **Raises:** `ValueError` for a number out of its range; on `init`, `TypeError` for a leaf that is not real or complex
    floating point; on `update`, JAX's `ValueError` for gradients whose tree differs from that of the parameters.

    >>> import jax.numpy as jnp
    >>> direction = scale_by_diffgrad()
    >>> step, state = direction.update(jnp.array(2.0), direction.init(jnp.array(1.0)))
    >>> print(f"{step:.4f} after the gradient {state.previous}")
    0.8808 after the gradient 2.0
    """
    _check_ranges(b1, b2, eps, eps_root)
    # Any: optax's types let a tree be a number.
    adam: Any = optax.scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)

    def init(params: Any) -> ScaleByDiffgradState:
        check_leaves(params)
        count, mu, nu = adam.init(params)
        # A tree of its own, not mu a second time: a buffer that two fields share cannot be donated.
        return ScaleByDiffgradState(count, mu, nu, optax.tree.zeros_like(params, mu_dtype))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ScaleByDiffgradState]:
        coefficient = diffgrad_friction(state, updates, friction=friction)
        direction, (count, mu, nu) = adam.update(updates, optax.ScaleByAdamState(*state[:3]), params)
        direction = jax.tree.map(lambda ξ, step: (ξ * step).astype(step.dtype), coefficient, direction)
        return direction, ScaleByDiffgradState(count, mu, nu, optax.tree.cast_like(updates, state.previous))

    return optax.GradientTransformation(init, update)


def diffgrad(
    learning_rate: optax.ScalarOrSchedule,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    eps: float | Array = 1e-8,
    eps_root: float | Array = 0.0,
    mu_dtype: jax.typing.DTypeLike | None = None,
    *,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    decoupled: bool = False,
    mask: PyTree[bool] | Callable[[optax.Params], PyTree[bool]] | None = None,
    nesterov: bool = False,
    friction: Friction | None = None,
) -> optax.GradientTransformation:
    """Adam times a friction ξ: ½ where the gradient repeats, towards 1 where it jumps.

        mₜ = b₁ mₜ₋₁ + (1 - b₁) gₜ        m̂ₜ = mₜ / (1 - b₁ᵗ)
        vₜ = b₂ vₜ₋₁ + (1 - b₂) gₜ²       v̂ₜ = vₜ / (1 - b₂ᵗ)
        ξₜ = 1 / (1 + exp(-|gₜ₋₁ - gₜ|))                            g₀ = 0
        θₜ = θₜ₋₁ - η ξₜ m̂ₜ / (√(v̂ₜ + eps_root) + eps)

    **Not scale-free.** Adam does not notice when the loss is multiplied by a number, ξ does: with gradients of size 1e-3, as
    in a network of some size, ξ is ½ to within 0.1 %, and this *is* Adam at half the rate. See what it does in your case
    with [`diffgrad_friction`][gradatim.optim.diffgrad_friction], and compare with `optax.adam(learning_rate / 2)`.

    Where a leaf is complex, |gₜ₋₁ - gₜ| is its modulus. Memory: three copies of the parameters (Adam: two).

    **Arguments:** `learning_rate`: η ≥ 0 or a schedule; `b1`, `b2` in [0, 1): decay of mₜ and vₜ; `eps`, `eps_root` ≥ 0 (in
    float16 the default `eps` is 0: take 1e-4); `mu_dtype`: storage of mₜ and gₜ₋₁ (bfloat16 keeps 8 bits of gₜ₋₁, so |gₜ₋₁ - gₜ| is
    noise below |gₜ|/256); `weight_decay`: added to the gradient, and so also part of ξ, as the authors have it, or, if
    `decoupled`, to the step; `mask`: the leaves that decay, as in `optax.add_decayed_weights`; `nesterov`: Dozat's look-ahead in
    mₜ; `friction`: another map from |gₜ₋₁ - gₜ| to ξₜ than the sigmoid (`jnp.ones_like` gives Adam).

    **Returns:** an optax transformation; its updates are to be added.

    **Raises:** `ValueError` for a number out of its range.

    >>> import jax.numpy as jnp
    >>> optimizer = diffgrad(0.1)
    >>> step, _ = optimizer.update(jnp.array(2.0), optimizer.init(jnp.array(1.0)))
    >>> print(f"{step:.4f}")
    -0.0881

    The authors' code divides `eps` by √(1 - b₂ᵗ), and one of its versions keeps gₜ₋₁ as a reference to gₜ, so that ξ is ½ from
    the second step on. Source: Dubey, Chakraborty, Roy, Mukherjee, Singh and Chaudhuri, *diffGrad: An Optimization Method for
    Convolutional Neural Networks*, IEEE TNNLS 31 (2020) 4500-4511.
    """
    check_not_negative(learning_rate=learning_rate, weight_decay=weight_decay)
    if decoupled:  # with the decay in the gradient there is no shrink to overshoot
        check_rates({"learning_rate": learning_rate}, {"learning_rate": ("weight_decay", weight_decay)})
    parts = [scale_by_diffgrad(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, friction=friction)]
    # A number that is 0 now stays 0; an array may be one that `optax.inject_hyperparams` changes later.
    if not (isinstance(weight_decay, int | float) and weight_decay == 0):
        parts.insert(1 if decoupled else 0, optax.add_decayed_weights(weight_decay, mask))
    return optax.chain(*parts, optax.scale_by_learning_rate(learning_rate))


def diffgrad_friction(state: Any, grads: Any, *, friction: Friction | None = None) -> PyTree[Array]:
    """The factor ξ of every parameter that the next update with `grads` will use: stuck at ½, diffGrad is Adam at half the rate.

    **Arguments:** `state`: of `scale_by_diffgrad`, or any optax state with just one of it inside; `grads`: the gradients (with
    `weight_decay` not decoupled: after the decay was added).

    **Returns:** a tree like `grads`, in [½, 1).

    >>> import jax.numpy as jnp
    >>> state = diffgrad(0.1).init(jnp.zeros(3))
    >>> print(diffgrad_friction(state, jnp.array([0.0, 1e-3, 3.0])))
    [0.5        0.50025    0.95257413]
    """
    if not isinstance(state, ScaleByDiffgradState):
        states = [s for s in jax.tree.leaves(state, is_leaf=_is_state) if _is_state(s)]
        if len(states) != 1:
            raise ValueError(f"state must hold one diffGrad state, got {len(states)}")
        (state,) = states
    # Not a default argument: `optax.inject_hyperparams` takes every callable for a schedule.
    friction = friction or jax.nn.sigmoid
    return jax.tree.map(lambda before, now: friction(jnp.abs(before - now)), state.previous, grads)


def _is_state(node: object) -> bool:
    return isinstance(node, ScaleByDiffgradState)


def _check_ranges(b1: float | Array, b2: float | Array, eps: float | Array, eps_root: float | Array) -> None:
    # Traced values (`optax.inject_hyperparams` under jit) cannot be looked at.
    for name, value in {"b1": b1, "b2": b2}.items():
        if is_known(value) and not 0 <= value < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {value}")
    for name, value in {"eps": eps, "eps_root": eps_root}.items():
        if is_known(value) and not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
