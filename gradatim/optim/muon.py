"""Muon: momentum, orthogonalised by Newton–Schulz (Jordan et al. 2024; arXiv:2502.16982, arXiv:2509.24406)."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree
from optax.contrib import MuonDimensionNumbers

from gradatim.nets.labels import Classify, Selection, matrix_axes, muon_roles
from gradatim.nets.parameters import MatrixAxes
from gradatim.numerics.polar import NEWTON_SCHULZ, Coefficients, check_name, polar_factor
from gradatim.optim.leaves import check_leaves
from gradatim.optim.rates import check_not_negative, check_rates, is_constant

Dimensions = MuonDimensionNumbers | MatrixAxes | PyTree | Callable[[Any], Any] | None
Mask = PyTree[bool] | Callable[[optax.Params], PyTree[bool]] | None
AS_OPTAX = MuonDimensionNumbers(reduction_axis=0, output_axis=1)
NO_MATRIX = object()


class ScaleByMuonState(NamedTuple):
    """The momentum."""

    count: Int[Array, ""]  # t  # pyright: ignore[reportIncompatibleMethodOverride]: optax's name for it
    mu: Any  # Mₜ


def scale_by_muon(
    ns_coeffs: Coefficients = NEWTON_SCHULZ["jordan"],
    ns_steps: int = 5,
    beta: float | Array = 0.95,
    eps: float | Array = 1e-8,
    mu_dtype: jax.typing.DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    method: Literal["newton_schulz", "svd"] = "newton_schulz",
    weight_dimension_numbers: Dimensions = None,
) -> optax.GradientTransformation:
    """The direction of [`muon`][gradatim.optim.muon] before its shape factor, learning rate and weight decay: every leaf a matrix.

    **Arguments:** as in [`muon`][gradatim.optim.muon]; `weight_dimension_numbers` without None among its leaves, or None for matrices
    of two axes throughout.

    **Raises:** `ValueError` for a number out of its range, or, with the path, a leaf that is no matrix by its dimension numbers.

    >>> direction = scale_by_muon(method="svd")
    >>> gradient = jnp.array([[3.0, 0.0], [0.0, -1e-3]])
    >>> step, _ = direction.update(gradient, direction.init(gradient))
    >>> print(step.round(3))
    [[ 1.  0.]
     [ 0. -1.]]
    """
    _check_momentum(beta, eps)
    check_name("method", method, ("newton_schulz", "svd"))

    def axes_of(tree: Any) -> Any:
        return _axes(_resolved(weight_dimension_numbers, tree), tree)

    def init(params: Any) -> ScaleByMuonState:
        if NO_MATRIX in jax.tree.leaves(axes_of(params)):
            raise ValueError("weight_dimension_numbers must not be None for any leaf: take muon, which has Adam for these")
        return ScaleByMuonState(jnp.zeros((), jnp.int32), optax.tree.zeros_like(params, mu_dtype))

    def direction(momentum: Array, axes: MatrixAxes) -> Array:
        # Of a plain matrix the orientation is all one to the polar factor; it tells in the shape factor alone.
        folded = momentum if momentum.ndim == 2 else axes.fold(momentum)
        factor = polar_factor(folded, method=method, steps=ns_steps, coefficients=ns_coeffs, eps=eps)
        if adaptive:
            inner = jnp.real(folded.conj() * factor).sum((-2, -1), keepdims=True)
            factor = (inner * factor).astype(momentum.dtype)
        return factor if momentum.ndim == 2 else axes.unfold(factor, momentum.shape)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ScaleByMuonState]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, beta, 1)
        count: Any = optax.safe_increment(state.count)
        ahead: Any = optax.tree.bias_correction(mu, beta, optax.safe_increment(count) if nesterov else count)
        if nesterov:
            now: Any = optax.tree.bias_correction(updates, beta, count)
            ahead = jax.tree.map(lambda m, g: beta * m + (1 - beta) * g, ahead, now)
        steps = jax.tree.map(direction, ahead, axes_of(ahead))
        steps = jax.tree.map(lambda step, g: step.astype(g.dtype), steps, updates)
        return steps, ScaleByMuonState(count, optax.tree.cast_like(mu, state.mu))

    return optax.GradientTransformation(init, update)


def muon(
    learning_rate: optax.ScalarOrSchedule,
    ns_coeffs: Coefficients = NEWTON_SCHULZ["jordan"],
    ns_steps: int = 5,
    beta: float | Array = 0.95,
    eps: float | Array = 1e-8,
    weight_decay: float | Array = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    method: Literal["newton_schulz", "svd"] = "newton_schulz",
    adam_b1: float | Array = 0.9,
    adam_b2: float | Array = 0.999,
    adam_eps_root: float | Array = 0.0,
    adam_weight_decay: float | Array = 0.0,
    adam_learning_rate: optax.ScalarOrSchedule | None = None,
    muon_weight_dimension_numbers: Dimensions = None,
    consistent_rms: float | Array | None = None,
) -> optax.GradientTransformation:
    """Steps of unit spectral norm along the momentum; AdamW for what is no matrix.

        Mₜ = β Mₜ₋₁ + (1 - β) Gₜ             M̂ₜ = β Mₜ / (1 - βᵗ⁺¹) + (1 - β) Gₜ / (1 - βᵗ)      (Nesterov)
        Uₜ = Newton–Schulz(M̂ₜ) ≈ U Vᵀ
        Wₜ = Wₜ₋₁ - η (s Uₜ + λ Wₜ₋₁)         s = √max(1, out/in), or with `consistent_rms` r: r √max(in, out)

    `optax.contrib.muon`, argument by argument, with a faster Newton–Schulz: the weights agree to round-off. Its `preconditioning`
    is not offered; in half precision the products are taken in float32; with `adaptive` each matrix of a batch has its own factor.

    **Mind the orientation.** optax's default is (in, out), equinox stores (out, in): the direction is right either way, the
    factor s inverted. For an equinox model take its dimension numbers from
    [`muon_dimension_numbers`][gradatim.optim.muon_dimension_numbers], which also sends embeddings and read-out to Adam.

    **Arguments:** `learning_rate`: η or a schedule, positive; `ns_coeffs`, `ns_steps`, `eps`, `method`: of
    [`polar_factor`][gradatim.numerics.polar_factor]; `beta` in [0, 1); `weight_decay`: λ ≥ 0, with η λ ≤ 1; `weight_decay_mask`: the
    matrices that decay; `mu_dtype`: of the momentum; `nesterov`; `adaptive`: times ⟨M̂, U⟩, about the nuclear norm, which makes the step
    the one of steepest descent; `adam_…`: of AdamW, whose rate is by default η and is better tuned apart;
    `muon_weight_dimension_numbers`: a tree over the parameters (or a prefix of it, or a function of them) with
    `optax.contrib.MuonDimensionNumbers` or [`MatrixAxes`][gradatim.nets.MatrixAxes] where a leaf is a matrix, all further axes being
    a batch of matrices, and None where it is not; by default all leaves of two axes are matrices; `consistent_rms`: 0.2 makes
    the steps as long as AdamW's, so that both can share a rate.

    **Raises:** `ValueError` for a number out of its range; on `init`, with the path, for a leaf called a matrix that is none, and
    `TypeError` for one that is not floating point.

    >>> optimizer = muon(0.1)
    >>> weights = jnp.array([[3.0, 1.0], [0.0, 2.0]])
    >>> step, _ = optimizer.update(weights, optimizer.init(weights), weights)
    >>> print([f"{s:.2f}" for s in jnp.linalg.svd(step, compute_uv=False)])
    ['0.08', '0.08']
    """
    rates = {"learning_rate": learning_rate, "adam_learning_rate": adam_learning_rate}
    decays = {"learning_rate": ("weight_decay", weight_decay), "adam_learning_rate": ("adam_weight_decay", adam_weight_decay)}
    check_rates(rates, decays)
    _check_momentum(beta, eps)

    def build(params: Any) -> optax.GradientTransformation:
        dimensions = _resolved(muon_weight_dimension_numbers, params)
        if muon_weight_dimension_numbers is None:
            dimensions = jax.tree.map(lambda leaf: AS_OPTAX if leaf.ndim == 2 else None, params)
        axes = _axes(dimensions, params)
        labels = jax.tree.map(lambda a: "adam" if a is NO_MATRIX else "muon", axes)

        def per_matrix(tree: Any) -> Any:
            # Where Adam updates, the tree holds optax's masked node.
            return jax.tree.map(lambda a, leaf: leaf if a is NO_MATRIX else a, axes, tree)

        direction = scale_by_muon(
            ns_coeffs, ns_steps, beta, eps, mu_dtype,
            nesterov=nesterov, adaptive=adaptive, method=method, weight_dimension_numbers=per_matrix,
        )  # fmt: skip
        # A number that is 0 now stays 0, and then the parameters are not needed.
        parts = [direction, _scale_by_shape(per_matrix, consistent_rms)]
        if not _is_zero(weight_decay):
            parts.append(optax.add_decayed_weights(weight_decay, weight_decay_mask))
        adam_rate = learning_rate if adam_learning_rate is None else adam_learning_rate
        adam_parts = [optax.scale_by_adam(adam_b1, adam_b2, eps, adam_eps_root, mu_dtype, nesterov=nesterov)]
        if not _is_zero(adam_weight_decay):
            adam_parts.append(optax.add_decayed_weights(adam_weight_decay))
        adam = optax.chain(*adam_parts, optax.scale_by_learning_rate(adam_rate))
        transforms: dict[Hashable, optax.GradientTransformation] = {
            "muon": optax.chain(*parts, optax.scale_by_learning_rate(learning_rate)),
            "adam": adam,
        }
        return optax.partition(transforms, lambda _: labels)

    def init(params: Any) -> Any:
        check_leaves(params)
        return build(params).init(params)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return build(updates).update(updates, state, params)

    return optax.GradientTransformation(init, update)


def muon_dimension_numbers(
    model: PyTree, *, classify: Classify | None = None, readout: Selection | None = None
) -> PyTree[MuonDimensionNumbers]:
    """Dimension numbers of an equinox model, for Muon here and in optax: None where Adam is to update.

    Linear maps and convolutions are matrices, stacked ones (experts, scanned layers) a batch of them; embeddings, read-out,
    routers, norms and biases are not. Hand the tree over as `lambda _: tree`, for modules are often callable.

    **Arguments, raises:** as in [`muon_roles`][gradatim.nets.muon_roles].

    >>> import equinox as eqx
    >>> net = eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0))
    >>> numbers = muon_dimension_numbers(net, readout=lambda net: net.layers[-1])
    >>> numbers.layers[0].weight, numbers.layers[1].weight
    (MuonDimensionNumbers(reduction_axis=(1,), output_axis=(0,)), None)
    """
    axes = matrix_axes(model, muon_roles(model, classify=classify, readout=readout), "muon")
    return jax.tree.map(lambda a: MuonDimensionNumbers(a.reduction, a.output), axes, is_leaf=lambda a: isinstance(a, MatrixAxes))


def spectral_norm_bound(
    norm: float | Array, learning_rate: float | Array, weight_decay: float | Array, steps: int | Array, *, step_norm: float | Array
) -> Array:
    """How large a weight matrix that Muon moves can have become: decay bounds its spectral norm, whatever the gradients.

        ‖Wₜ‖ ≤ (1 - η λ)ᵗ ‖W₀‖ + (1 - (1 - η λ)ᵗ) s c/λ,    for λ = 0: ‖W₀‖ + t η s c

    **Arguments:** `norm`: ‖W₀‖; `learning_rate` η, constant; `weight_decay` λ with η λ < 1; `steps` t; `step_norm`: s c, the shape factor
    times the largest singular value of a step: 1 with exact singular vectors, 1.2024 with five steps of Newton–Schulz.

    **Raises:** `ValueError` for a number out of its range.

    >>> print(f"{spectral_norm_bound(3.0, 0.1, 0.5, 1000, step_norm=1.0):.3f}")
    2.000
    """
    check_rates({"learning_rate": learning_rate}, {"learning_rate": ("weight_decay", weight_decay)})
    check_not_negative(norm=norm, step_norm=step_norm)
    log = jnp.asarray(steps) * jnp.log1p(-learning_rate * jnp.asarray(weight_decay, float))
    decays = jnp.asarray(weight_decay) > 0
    # Where there is no decay, (1 - (1 - η λ)ᵗ)/λ is t η.
    moved = jnp.where(decays, -jnp.expm1(log) / jnp.where(decays, weight_decay, 1.0), jnp.asarray(steps) * learning_rate)
    return jnp.exp(log) * norm + moved * step_norm


def _scale_by_shape(axes_of: Callable[[Any], Any], consistent_rms: float | Array | None) -> optax.GradientTransformation:
    def scaled(step: Array, axes: MatrixAxes) -> Array:
        fan_in, fan_out = (math.prod(step.shape[axis] for axis in group) for group in (axes.reduction, axes.output))
        if consistent_rms is None:
            return (math.sqrt(max(1.0, fan_out / fan_in)) * step).astype(step.dtype)
        return (consistent_rms * math.sqrt(max(fan_in, fan_out)) * step).astype(step.dtype)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return jax.tree.map(scaled, updates, axes_of(updates)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _is_numbers(node: Any) -> bool:
    return isinstance(node, MuonDimensionNumbers | MatrixAxes)


def _resolved(dimensions: Any, params: Any) -> Any:
    if dimensions is None:
        return AS_OPTAX
    # A tree of dimension numbers in the shape of a callable module is no function.
    is_tree = any(map(_is_numbers, jax.tree.leaves(dimensions, is_leaf=_is_numbers)))
    return dimensions(params) if callable(dimensions) and not is_tree else dimensions


def _axes(dimensions: Any, params: Any) -> Any:
    """The axes of every leaf, counted from the front: a tree over `params` with `NO_MATRIX` where they have none."""

    def spread(numbers: Any, subtree: Any) -> Any:
        return jax.tree.map(lambda leaf: numbers, subtree)

    each = jax.tree.map(spread, dimensions, params, is_leaf=lambda node: node is None or _is_numbers(node))
    # The parameters lead: a None of theirs, or optax's masked node, is no leaf.
    return jax.tree_util.tree_map_with_path(lambda path, leaf, numbers: _leaf_axes(path, leaf, numbers), params, each)


def _leaf_axes(path: Any, leaf: Any, numbers: Any) -> Any:
    if numbers is None:
        return NO_MATRIX
    where = f"parameter {jax.tree_util.keystr(path)}" if path else "the parameter"
    if leaf.ndim < 2:
        raise ValueError(f"{where} of shape {leaf.shape} is no matrix: give it None instead of dimension numbers, so that Adam updates it")
    if isinstance(numbers, MuonDimensionNumbers):
        numbers = MatrixAxes(*(tuple(map(int, np.atleast_1d(np.asarray(axis)))) for axis in numbers))
    if not isinstance(numbers, MatrixAxes):
        raise ValueError(f"{where} needs MuonDimensionNumbers, MatrixAxes or None, got {numbers!r}")
    try:
        return numbers.of(leaf.ndim)
    except ValueError as error:
        raise ValueError(f"{where} of shape {leaf.shape}: {error}") from None


def _is_zero(decay: Any) -> bool:
    return isinstance(decay, int | float) and decay == 0


def _check_momentum(beta: Any, eps: Any) -> None:
    if is_constant(beta) and not 0 <= beta < 1:
        raise ValueError(f"beta must lie in [0, 1), got {beta}")
    if is_constant(eps) and not eps >= 0:
        raise ValueError(f"eps must be at least 0, got {eps}")
