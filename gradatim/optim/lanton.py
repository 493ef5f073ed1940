"""LANTON: shorter steps for the layers whose gradients are noisier (Hao, Gong, Xu, Wang and Liu, arXiv:2510.14009)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from gradatim.numerics.checks import is_known
from gradatim.optim.layer_norms import DualNorm, Groups, Layer, layer_dual_norms, layers_of, measure
from gradatim.optim.rates import check_not_negative, check_rates
from gradatim.optim.scion import scale_by_scion

Threshold = float | Array | Mapping[str, float | Array]


class NoiseAdaptiveState(NamedTuple):
    """The noise of every layer beside the state of the transformation whose steps it shortens."""

    count: Int[Array, ""]  # t  # pyright: ignore[reportIncompatibleMethodOverride]: optax's name for it
    previous: Any  # Gₜ₋₁, or nothing where the second gradient is given
    noise: Any  # Hₜ, a number for each layer
    factors: Any  # √(aₜ / max aₜ), a number for each layer
    inner: Any


def noise_adaptive(
    inner: optax.GradientTransformation,
    groups: Groups,
    dual_norms: Mapping[str, DualNorm] | None = None,
    *,
    b2: float | Array = 0.9,
    alpha: Threshold = 1.0,
    reference: str = "previous",
    every: int = 1,
    exponent: float | Array = 0.5,
    axes: Any = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """The steps of any transformation, shorter in the layers of a group whose gradients are noisier.

        Dₜ = ‖Gₜ - G̃ₜ‖_*²,        Hₜ = b₂ Hₜ₋₁ + (1 - b₂) Dₜ,   H₀ = 0
        aₜ = α/√(α² + Hₜ),        step = (aₜ / max of aₜ in the group)^½ × inner step

    G̃ₜ is the gradient of the step before, or of a second, independent batch at the same weights. The quietest layer of each group
    keeps its step, and a group of one layer is left alone. Put clipping by the global norm *after* it: before, it ties the layers' noises
    together. A gradient that is not finite makes the noise of its layer so, and with it every later step of its group: put
    `optax.apply_if_finite` around.

    Under `optax.MultiSteps` it is the noise of the gathered batches that counts, and a second gradient must be theirs, given with the
    last of them. Inside `jax.vmap` both branches of `every` are computed.

    **Arguments:** `inner`: from gradients to steps; `groups`: a label for every leaf, or a function from the parameters to these;
    `dual_norms`: how each group is measured, by default [`layer_dual_norms`][gradatim.optim.layer_dual_norms]; `b2` in [0, 1); `alpha`:
    α > 0, one for all or one for each group, **in the unit of the noise** (a loss times c wants α times c): far above it nothing is
    adapted, far below it steps go with the noise to the power -½ ([`noise_report`][gradatim.optim.noise_report] measures it);
    `reference`: `"previous"`, which takes the drift of the gradient between two steps for noise, or `"independent"`: `update` is then
    called with `second_grads`; `every`: steps between two measurements, H held in between; `exponent`: ½, at least 0; `axes`: as
    [`matrix_axes`][gradatim.nets.matrix_axes] gives them, for matrices that are not (…, out, in); `seed`: of the probes of
    random estimates, drawn from it and the count, the same ones for all layers.

    **Returns:** an optax transformation with extra arguments, which also go to `inner`.

    **Raises:** `ValueError` for a number out of its range, a leaf without a group or with too few axes for its norm, a group
    without an α, a missing second gradient; `TypeError` for a leaf that is not real or complex floating point.

    >>> entries = DualNorm(lambda gradient, key: jnp.abs(gradient).sum())
    >>> optimizer = noise_adaptive(optax.sgd(1.0), {"a": "all", "b": "all"}, {"all": entries}, b2=0.0)
    >>> state = optimizer.init({"a": jnp.array(0.0), "b": jnp.array(0.0)})
    >>> for gradient in ({"a": jnp.array(1.0), "b": jnp.array(1.0)}, {"a": jnp.array(1.0), "b": jnp.array(1.0 + 15**0.5)}):
    ...     step, state = optimizer.update(gradient, state)
    >>> print(f"{state.factors['a']:.3f} {state.factors['b']:.3f}")
    1.000 0.500
    """
    _check_ranges(b2, alpha, exponent, every)
    if reference not in ("previous", "independent"):
        raise ValueError(f"reference must be 'previous' or 'independent', got {reference!r}")
    norms = dict(dual_norms or layer_dual_norms())
    inner_with = optax.with_extra_args_support(inner)
    n_axes = {group: norm.n_axes for group, norm in norms.items()}

    def init(params: Any) -> NoiseAdaptiveState:
        layers, structure = layers_of(params, groups, axes, n_axes)
        without = {layer.group for layer in layers if layer is not None} - set(alpha) if isinstance(alpha, Mapping) else ()
        if without:
            raise ValueError(f"alpha must hold a threshold for every group, got none for {', '.join(sorted(without))}")
        leaves = structure.flatten_up_to(params)

        def numbers(value: float) -> Any:
            pairs = zip(layers, leaves, strict=True)
            return structure.unflatten([leaf if layer is None else _numbers(layer, leaf, value) for layer, leaf in pairs])

        previous = optax.tree.zeros_like(params) if reference == "previous" else ()
        return NoiseAdaptiveState(jnp.zeros((), jnp.int32), previous, numbers(0.0), numbers(1.0), inner_with.init(params))

    def update(updates: Any, state: Any, params: Any = None, *, second_grads: Any = None, **extra: Any) -> tuple[Any, NoiseAdaptiveState]:
        if reference == "independent" and second_grads is None:
            raise ValueError(
                "reference 'independent' needs the gradients of a second batch: call update(grads, state, params, second_grads=…), got None"
            )
        layers, structure = layers_of(updates, groups, axes, n_axes)
        other = state.previous if reference == "previous" else second_grads
        gradients, others, before = (structure.flatten_up_to(tree) for tree in (updates, other, state.noise))
        key = jax.random.fold_in(jax.random.key(seed), state.count)

        def difference(g: Array, r: Array, noise: Array) -> Array:
            wide = noise.dtype if not jnp.iscomplexobj(g) else jnp.result_type(noise.dtype, g.dtype)
            return g.astype(wide) - r.astype(wide)

        def measured() -> list[Any]:
            leaves = zip(layers, gradients, others, before, strict=True)
            differences = [None if layer is None else difference(g, r, noise) for layer, g, r, noise in leaves]
            distances = measure(layers, norms, differences, key)
            return [
                noise if distance is None else (b2 * noise + (1 - b2) * distance**2).astype(noise.dtype)
                for distance, noise in zip(distances, before, strict=True)
            ]

        # There is nothing before the first gradient, and to count it from zero would take the signal for noise.
        first = 1 if reference == "previous" else 0
        is_due = (state.count >= first) & ((state.count - first) % every == 0)
        if every == 1:
            now = [
                old if layer is None else jnp.where(is_due, new, old) for layer, new, old in zip(layers, measured(), before, strict=True)
            ]
        else:
            now = jax.lax.cond(is_due, measured, lambda: before)
        factors = _factors(layers, now, alpha, exponent)
        steps, inner_state = inner_with.update(updates, state.inner, params, **extra)
        scaled = [
            step if layer is None else layer.scale(factor, step)
            for layer, factor, step in zip(layers, factors, structure.flatten_up_to(steps), strict=True)
        ]
        previous = optax.tree.cast_like(updates, state.previous) if reference == "previous" else ()
        after = NoiseAdaptiveState(
            jnp.asarray(optax.safe_increment(state.count)), previous, structure.unflatten(now), structure.unflatten(factors), inner_state
        )
        return structure.unflatten(scaled), after

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_lanton(
    groups: Groups,
    b1: float | Array = 0.95,
    b2: float | Array = 0.9,
    alpha: Threshold = 1.0,
    *,
    reference: str = "previous",
    nuclear: str = "quadrature",
    every: int = 1,
    exponent: float | Array = 0.5,
    axes: Any = None,
    radii: Mapping[str, float] | None = None,
    method: str = "newton_schulz",
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Any = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """The direction of [`lanton`][gradatim.optim.lanton], without its learning rate.

    **Arguments, raises:** as in [`lanton`][gradatim.optim.lanton].

    >>> direction = scale_by_lanton("vector", b1=0.0)
    >>> step, _ = direction.update(jnp.array([3.0, 4.0]), direction.init(jnp.zeros(2)))
    >>> print([f"{entry:.4f}" for entry in step])
    ['0.8485', '1.1314']
    """
    check_not_negative(weight_decay=weight_decay)
    direction: Any = scale_by_scion(groups, b1, axes=axes, radii=radii, method=method)
    # Inside, so that a layer decays at its own rate.
    if not (isinstance(weight_decay, int | float) and weight_decay == 0):
        direction = optax.chain(direction, optax.add_decayed_weights(weight_decay, mask))
    return noise_adaptive(
        direction,
        groups,
        layer_dual_norms(nuclear),
        b2=b2,
        alpha=alpha,
        reference=reference,
        every=every,
        exponent=exponent,
        axes=axes,
        seed=seed,
    )


def lanton(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    b1: float | Array = 0.95,
    b2: float | Array = 0.9,
    alpha: Threshold = 1.0,
    *,
    reference: str = "previous",
    nuclear: str = "quadrature",
    every: int = 1,
    exponent: float | Array = 0.5,
    axes: Any = None,
    radii: Mapping[str, float] | None = None,
    method: str = "newton_schulz",
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Any = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """[`scion`][gradatim.optim.scion] whose rate in each layer falls with the noise of the layer's gradient, in the dual of its norm.

        Bₜ = b₁ Bₜ₋₁ + (1 - b₁) Gₜ,                                          B₀ = 0
        Hₜ = b₂ Hₜ₋₁ + (1 - b₂) ‖Gₜ - Gₜ₋₁‖_*²  from the second step on,       H₁ = 0
        aₜ = α/√(α² + Hₜ),     ηₜ,ₗ = ηₜ √(aₜ,ₗ / max of aₜ in l's group)
        Xₜ = (1 - ηₜ,ₗ λ) Xₜ₋₁ + ηₜ,ₗ ρ LMO(Bₜ)

    **It only ever shortens steps**: at an equal base rate it is slower where rates are small and better where they are large, so
    compare it with a fixed rate best-tuned to best-tuned. It gains where the noisy layers also have less far to go; where
    layers differ in noise alone it moves the best base rate and wins nothing. α is a threshold in the unit of the gradient's noise
    ([`noise_adaptive`][gradatim.optim.noise_adaptive]).

    State: momentum and last gradient, two copies of the parameters. The default `nuclear` measures every step for a few per cent of
    Newton–Schulz's work. Its errors hardly matter, for the rate goes with the square root of the norm.

    **Arguments:** `learning_rate`: ηₜ ≥ 0 or a schedule; `groups`, `b1`, `axes`, `radii` ρ, `method`: as in
    [`scion`][gradatim.optim.scion]; `b2`, `alpha` α, `reference`, `every`, `exponent`, `seed`: as in
    [`noise_adaptive`][gradatim.optim.noise_adaptive]; `nuclear`: how ‖·‖_* of the hidden matrices is computed
    ([`layer_dual_norms`][gradatim.optim.layer_dual_norms]); `weight_decay` λ ≥ 0: decoupled, with ηₜ λ ≤ 1, or a schedule; `mask`: the
    leaves that decay.

    **Returns:** an optax transformation; its updates are to be added.

    **Raises:** `ValueError` for a number out of its range, a leaf without a group, a norm of matrices on a leaf with fewer
    than two axes, `reference="independent"` without `second_grads`; `TypeError` for a leaf that is not floating point.

    >>> groups = {"quiet": "vector", "noisy": "vector"}
    >>> optimizer = lanton(1.0, groups)
    >>> state = optimizer.init({"quiet": jnp.zeros(1), "noisy": jnp.zeros(1)})
    >>> for noise in (0.0, 30.0, -30.0):
    ...     step, state = optimizer.update({"quiet": jnp.array([1.0]), "noisy": jnp.array([1.0 + noise])}, state)
    >>> print(f"{layer_learning_rates(state, 1.0)['quiet']:.2f} {layer_learning_rates(state, 1.0)['noisy']:.2f}")
    1.00 0.22

    The exponent ½ and b₂ = 0.9 are the usual reading of the paper's algorithm 1. At the first step, for which the paper names no
    earlier gradient, H stays 0. The paper estimates nuclear norms by a randomised decomposition (`nuclear="sketch"`).
    """
    check_rates({"learning_rate": learning_rate}, {"learning_rate": ("weight_decay", weight_decay)})
    direction = scale_by_lanton(
        groups,
        b1,
        b2,
        alpha,
        reference=reference,
        nuclear=nuclear,
        every=every,
        exponent=exponent,
        axes=axes,
        radii=radii,
        method=method,
        weight_decay=weight_decay,
        mask=mask,
        seed=seed,
    )
    return optax.chain(direction, optax.scale_by_learning_rate(learning_rate))


def layer_noise(state: Any) -> PyTree[Float[Array, ...]]:
    """√Hₜ of every layer: √2 times its gradient's noise, and half the squared drift with `reference="previous"`.

    **Arguments:** `state`: of [`noise_adaptive`][gradatim.optim.noise_adaptive] or [`lanton`][gradatim.optim.lanton], or any optax state
    with just one of these inside.

    **Raises:** `ValueError` for a state with none or several.

    >>> optimizer = noise_adaptive(optax.identity(), "vector", b2=0.0, reference="independent")
    >>> _, state = optimizer.update(jnp.zeros(4), optimizer.init(jnp.zeros(4)), second_grads=jnp.full(4, 0.5))
    >>> print(f"√4 times the length 1: {layer_noise(state):.3f}")
    √4 times the length 1: 2.000
    """
    return jax.tree.map(jnp.sqrt, _the_state(state).noise)


def layer_learning_rates(state: Any, learning_rate: float | Array) -> PyTree[Float[Array, ...]]:
    """ηₜ,ₗ of the step that gave this state, from its base rate ηₜ.

    **Arguments, raises:** as in [`layer_noise`][gradatim.optim.layer_noise].

    >>> state = lanton(0.1, "vector").init(jnp.zeros(4))
    >>> print(f"{layer_learning_rates(state, 0.1):.2f}")
    0.10
    """
    return jax.tree.map(lambda factor: learning_rate * factor, _the_state(state).factors)


def _factors(layers: list[Layer | None], noise: list[Any], alpha: Threshold, exponent: float | Array) -> list[Any]:
    roots = [h if layer is None else _root(h) for layer, h in zip(layers, noise, strict=True)]
    quietest: dict[str, Array] = {}
    for layer, root in zip(layers, roots, strict=True):
        if layer is not None:
            least = root.min()
            quietest[layer.group] = jnp.minimum(quietest[layer.group], least) if layer.group in quietest else least
    factors = []
    for layer, root in zip(layers, roots, strict=True):
        if layer is None:
            factors.append(root)
            continue
        a = alpha[layer.group] if isinstance(alpha, Mapping) else alpha
        # hypot: α² would overflow where α is to switch the adaptation off.
        ratio = jnp.hypot(a, quietest[layer.group]) / jnp.hypot(a, root)
        factors.append((ratio**exponent).astype(root.dtype))
    return factors


def _root(noise: Array) -> Array:
    # The derivative of the root is infinite at zero noise, that of the rate is zero.
    return jnp.where(noise == 0, 0.0, jnp.sqrt(jnp.where(noise == 0, 1.0, noise)))


def _numbers(layer: Layer, leaf: Any, value: float) -> Array:
    real = jnp.finfo(jnp.result_type(leaf)).dtype
    return jnp.full(layer.stack(jnp.shape(leaf)), value, jnp.promote_types(real, jnp.float32))


def _the_state(state: Any) -> NoiseAdaptiveState:
    states = [s for s in jax.tree.leaves(state, is_leaf=_is_state) if _is_state(s)]
    if len(states) != 1:
        raise ValueError(f"state must hold one noise-adaptive state, got {len(states)}")
    return states[0]


def _is_state(node: object) -> bool:
    return isinstance(node, NoiseAdaptiveState)


def _check_ranges(b2: float | Array, alpha: Threshold, exponent: float | Array, every: int) -> None:
    # Traced values (`optax.inject_hyperparams` under jit) cannot be looked at.
    if is_known(b2) and not 0 <= b2 < 1:
        raise ValueError(f"b2 must lie in [0, 1), got {b2}")
    for name, value in (alpha if isinstance(alpha, Mapping) else {"": alpha}).items():
        if is_known(value) and not value > 0:
            raise ValueError(f"alpha{f' of {name!r}' if name else ''} must be positive, got {value}")
    if is_known(exponent) and not exponent >= 0:
        raise ValueError(f"exponent must be at least 0, got {exponent}")
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
