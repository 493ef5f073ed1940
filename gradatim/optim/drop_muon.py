"""Drop-Muon: Muon on the layers from a randomly drawn one on (Gruntkowska, Maziane, Qu and Richtarik, arXiv:2510.02239)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from gradatim.nets.labels import count_layers
from gradatim.optim.layer_sampling import Active
from gradatim.optim.leaves import check_leaves
from gradatim.optim.muon import Dimensions, muon

Params = Any
Make = Callable[[Any, Any], optax.GradientTransformation]
"An optimiser from the rate of this step, and the one of Adam or None."


class LayerState(NamedTuple):
    """Of one layer: the steps that updated it, and its optimiser's state."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]: optax's name for it
    inner: Any


class DropState(NamedTuple):
    """Of all layers, from the input on; the last one is that of the parameters in no layer."""

    count: Int[Array, ""]  # all steps  # pyright: ignore[reportIncompatibleMethodOverride]: optax's name for it
    layers: tuple[LayerState, ...]


def drop_layers(
    make: Make,
    learning_rate: optax.ScalarOrSchedule,
    layers: PyTree[int],
    *,
    adam_learning_rate: optax.ScalarOrSchedule | None = None,
    schedule_by: str = "step",
) -> optax.GradientTransformationExtraArgs:
    """Any optimiser, with a state of its own for each layer, that leaves layers alone as it is told to.

    `update(gradients, state, params, active=…)` updates the layers of the static tuple `active` and those in no layer. Of a layer
    that is left alone nothing is computed: its state is handed on, without decay and without a step of its count, and its
    updates are None where the gradient is None, else zero. Without `active` all layers are updated.

    **Arguments:** `make(rate, adam_rate)`: the optimiser of one layer for one step; `learning_rate`, `adam_learning_rate`: numbers or
    schedules; `layers`: a tree over the parameters with the layer of each leaf, 1 (nearest the input) to b, as
    [`layer_indices`][gradatim.nets.layer_indices] makes it, and None where a leaf is always updated; `schedule_by`: schedules count
    `"step"`, all steps, or `"layer"`, those that updated the layer.

    **Raises:** `ValueError` for layers with a gap or without any, another `schedule_by`; on `init`, what `make`'s optimiser raises, and
    `TypeError` for leaves that are not floating point; on `update`, `ValueError` or `TypeError` for an `active` that is not a bool
    for each layer, known before the program is compiled.

    >>> optimizer = drop_layers(lambda rate, adam_rate: optax.sgd(rate), 0.5, {"first": 1, "second": 2})
    >>> params = {"first": jnp.array(1.0), "second": jnp.array(1.0)}
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params, active=(False, True))
    >>> print(updates["first"], updates["second"])
    0.0 -0.5
    """
    if schedule_by not in ("step", "layer"):
        raise ValueError(f"schedule_by must be 'step' or 'layer', got {schedule_by!r}")
    n_layers = count_layers(layers)
    # A rate out of its range is the optimiser's to refuse, now and not at the first step.
    make(learning_rate, adam_learning_rate)

    def init(params: Params) -> DropState:
        check_leaves(params)
        each = layer_numbers(layers, params)
        optimizer = make(_at(learning_rate, 0), _at(adam_learning_rate, 0))
        states = [optimizer.init(_only(params, each, number)) for number in _all_numbers(n_layers)]
        return DropState(jnp.zeros((), jnp.int32), tuple(LayerState(jnp.zeros((), jnp.int32), state) for state in states))

    def update(updates: Any, state: Any, params: Any = None, *, active: Any = None, **extra: Any) -> tuple[Any, DropState]:
        flags = (*_active(active, n_layers), True)
        each = layer_numbers(layers, updates if params is None else params)
        total = jax.tree.map(lambda u, number: None if u is None else jnp.zeros_like(u), updates, each, is_leaf=_is_none)
        states = []
        for number, is_active, (count, inner) in zip(_all_numbers(n_layers), flags, state.layers, strict=True):
            if not is_active:
                states.append(LayerState(count, inner))
                continue
            now = state.count if schedule_by == "step" else count
            optimizer = make(_at(learning_rate, now), _at(adam_learning_rate, now))
            gradient, weights = _only(updates, each, number), None if params is None else _only(params, each, number)
            steps, inner = optax.with_extra_args_support(optimizer).update(gradient, inner, weights, **extra)
            total = jax.tree.map(lambda old, new: old if new is None else new, total, steps, is_leaf=_is_none)
            advanced: Any = optax.safe_increment(count)
            states.append(LayerState(advanced, inner))
        count: Any = optax.safe_increment(state.count)
        return total, DropState(count, tuple(states))

    return optax.GradientTransformationExtraArgs(init, update)


def drop_muon(
    learning_rate: optax.ScalarOrSchedule,
    layers: PyTree[int],
    *,
    beta: float | Array = 0.95,
    weight_decay: float | Array = 0.0,
    nesterov: bool = False,
    adaptive: bool = False,
    adam_learning_rate: optax.ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: Dimensions = None,
    consistent_rms: float | Array | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
    schedule_by: str = "step",
) -> optax.GradientTransformationExtraArgs:
    """Muon that updates a random set of layers at each step and leaves parameters, momentum and decay of the others alone.

        i in Sₖ:        Mᵢ ← β Mᵢ + (1 - β) ∂f/∂Xᵢ,    Xᵢ ← Xᵢ - η (sᵢ U Vᵀ + λ Xᵢ)         U Vᵀ of Mᵢ by Newton–Schulz
        i not in Sₖ:    nothing

    **By itself this saves no more than Newton–Schulz.** The backward pass of the layers left alone is saved by
    [`drop_step`][gradatim.optim.drop_step], or by [`truncated_value_and_grad`][gradatim.optim.truncated_value_and_grad] ahead of
    `update(…, active=active)`. A step is cheaper, but gets less far: per step this is at best as good as Muon.

    A layer's biases are updated with it, by Adam; what `layers` holds None for is always updated, so that back-propagation goes as
    far down as the lowest of these: leave a bias near the input in its layer.

    **Arguments:** `layers`, `schedule_by`: as in [`drop_layers`][gradatim.optim.drop_layers]; `nesterov`: False as in the paper; all
    else as in [`muon`][gradatim.optim.muon]. `beta` is the weight of the old momentum (the paper's β is that of the new gradient).

    **Raises:** as [`muon`][gradatim.optim.muon] and [`drop_layers`][gradatim.optim.drop_layers] do.

    >>> params = {"first": jnp.eye(2), "second": jnp.eye(2)}
    >>> optimizer = drop_muon(0.1, {"first": 1, "second": 2})
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params, active=(False, True))
    >>> print(updates["first"].any(), updates["second"].any())
    False True

    The paper's radius falls with the number of steps; hand over a schedule. Its sharp operator carries the nuclear norm: `adaptive`.
    """

    def make(rate: Any, adam_rate: Any) -> optax.GradientTransformation:
        return muon(
            rate,
            beta=beta,
            weight_decay=weight_decay,
            mu_dtype=mu_dtype,
            nesterov=nesterov,
            adaptive=adaptive,
            adam_learning_rate=adam_rate,
            muon_weight_dimension_numbers=muon_weight_dimension_numbers,
            consistent_rms=consistent_rms,
        )

    return drop_layers(make, learning_rate, layers, adam_learning_rate=adam_learning_rate, schedule_by=schedule_by)


def truncated_value_and_grad(loss: Callable[..., Any], layers: PyTree[int], active: Active | None) -> Callable[..., tuple[Any, Params]]:
    """`f(params, *args)`: the loss, and its gradient in the active layers and in what is in none; None elsewhere.

    Back-propagation ends at the lowest of them: nothing below is differentiated, and the compiled program is so much shorter.

    **Arguments:** `loss(params, *args)`: a scalar; `layers`, `active`: as in [`drop_layers`][gradatim.optim.drop_layers].

    **Raises:** `ValueError` or `TypeError` for layers or an `active` that do not fit.

    >>> loss = lambda params, x: (params["second"] * params["first"] * x) ** 2
    >>> params = {"first": jnp.array(1.0), "second": jnp.array(3.0)}
    >>> value, gradient = truncated_value_and_grad(loss, {"first": 1, "second": 2}, (False, True))(params, 2.0)
    >>> print(value, gradient["first"], gradient["second"])
    36.0 None 24.0
    """
    flags = _active(active, count_layers(layers))

    def value_and_grad(params: Params, *args: Any) -> tuple[Any, Params]:
        moving, frozen = split_layers(params, layers, flags)
        return eqx.filter_value_and_grad(lambda moving: loss(eqx.combine(moving, frozen), *args))(moving)

    return value_and_grad


def split_layers(params: Params, layers: PyTree[int], active: Active | None) -> tuple[Params, Params]:
    """The floating-point arrays of the active layers and of none, and all else: two trees that `eqx.combine` joins.

    >>> params = {"first": jnp.array(1.0), "second": jnp.array(3.0)}
    >>> moving, frozen = split_layers(params, {"first": 1, "second": 2}, (False, True))
    >>> print(moving["first"], moving["second"], frozen["first"], frozen["second"])
    None 3.0 1.0 None
    """
    flags = _active(active, count_layers(layers))

    def moves(leaf: Any, number: int) -> bool:
        return eqx.is_inexact_array(leaf) and (number == 0 or flags[number - 1])

    return eqx.partition(params, jax.tree.map(moves, params, layer_numbers(layers, params)))


def drop_step(
    loss: Callable[..., Any], optimizer: optax.GradientTransformationExtraArgs, layers: PyTree[int], active: Active
) -> Callable[..., tuple[Params, DropState, Any]]:
    """`step(params, state, *args) -> (params, state, loss)` that computes and updates nothing but the active layers.

    Compile one for each of a sampler's `variants`, and choose between them in Python by what was drawn beforehand:

        steps = [eqx.filter_jit(drop_step(loss, optimizer, layers, active)) for active in sampler.variants]
        for variant in sampler.draw(key, n_steps).tolist():
            params, state, value = steps[variant](params, state, batch)

    Compilation takes about as many times longer as there are variants. For a network without convolutions, which CPUs run
    slowly inside control flow, [`switched_step`][gradatim.optim.switched_step] is one program for all.

    >>> layers, params = {"first": 1, "second": 2}, {"first": jnp.array(1.0), "second": jnp.array(3.0)}
    >>> optimizer = drop_layers(lambda rate, adam_rate: optax.sgd(rate), 0.5, layers)
    >>> step = drop_step(lambda params: (params["first"] + params["second"]) ** 2, optimizer, layers, (False, True))
    >>> params, state, loss = step(params, optimizer.init(params))
    >>> print(params["first"], params["second"], loss)
    1.0 -1.0 16.0
    """
    gradient = truncated_value_and_grad(loss, layers, active)

    def step(params: Params, state: Any, *args: Any) -> tuple[Params, Any, Any]:
        value, updates = gradient(params, *args)
        inexact = eqx.filter(params, eqx.is_inexact_array)
        updates, state = optimizer.update(updates, state, inexact, active=active)
        return eqx.apply_updates(params, updates), state, value

    return step


def switched_step(
    loss: Callable[..., Any], optimizer: optax.GradientTransformationExtraArgs, layers: PyTree[int], variants: tuple[Active, ...]
) -> Callable[..., tuple[Params, DropState, Any]]:
    """`step(params, state, variant, *args)`, where `variant` may be traced: a `jax.lax.switch` between the steps of all variants.

    Under `jax.vmap` over `variant` a switch computes every branch, and nothing is saved.

    >>> layers, params = {"first": 1, "second": 2}, {"first": jnp.array(1.0), "second": jnp.array(3.0)}
    >>> optimizer = drop_layers(lambda rate, adam_rate: optax.sgd(rate), 0.5, layers)
    >>> loss = lambda params: (params["first"] + params["second"]) ** 2
    >>> step = jax.jit(switched_step(loss, optimizer, layers, ((True, True), (False, True))))
    >>> params, state, value = step(params, optimizer.init(params), 1)
    >>> print(params["first"], params["second"], value)
    1.0 -1.0 16.0
    """
    steps = [drop_step(loss, optimizer, layers, active) for active in variants]

    def step(params: Params, state: DropState, variant: Int[Array, ""] | int, *args: Any) -> tuple[Params, DropState, Any]:
        arrays, static = eqx.partition(params, eqx.is_array)

        def branch(step: Any) -> Any:
            def run(arrays: Any, state: Any, args: Any) -> Any:
                params, after, value = step(eqx.combine(arrays, static), state, *args)
                return eqx.filter(params, eqx.is_array), after, value

            return run

        arrays, state, value = jax.lax.switch(variant, [branch(step) for step in steps], arrays, state, args)
        return eqx.combine(arrays, static), state, value

    return step


def layer_numbers(layers: PyTree[int], params: Params) -> PyTree[int]:
    """The layer of every leaf of `params`, 0 where it is in none; `layers` may be a prefix of the tree."""

    def spread(number: Any, subtree: Any) -> Any:
        return jax.tree.map(lambda leaf: number or 0, subtree)

    return jax.tree.map(spread, layers, params, is_leaf=_is_none)


def _active(active: Any, n_layers: int) -> Active:
    if active is None:
        return (True,) * n_layers
    if isinstance(active, jax.Array) or not all(isinstance(flag, bool) for flag in active):
        raise TypeError(
            f"active must be a tuple of bools, known before compilation, got {active!r}: draw it outside, or take switched_step"
        )
    if len(active) != n_layers:
        raise ValueError(f"active must have one entry for each of {n_layers} layers, got {len(active)}")
    return tuple(active)


def _all_numbers(n_layers: int) -> tuple[int, ...]:
    return (*range(1, n_layers + 1), 0)


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _only(tree: Any, numbers: Any, number: int) -> Any:
    return jax.tree.map(lambda n, leaf: leaf if n == number else None, numbers, tree)


def _at(rate: Any, count: Any) -> Any:
    return rate(count) if callable(rate) else rate
