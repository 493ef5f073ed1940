"""Scion, unconstrained: the step of a given length that descends most under each layer's norm (Pethick et al., arXiv:2502.07529)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradatim.numerics import lmo
from gradatim.numerics.checks import is_known
from gradatim.optim.layer_norms import NORM_OF_GROUP, Groups, Layer, layers_of
from gradatim.optim.rates import check_rates


class ScaleByScionState(NamedTuple):
    """The momentum."""

    momentum: Any  # Bₜ


def scale_by_scion(
    groups: Groups,
    b1: float | jax.Array = 0.95,
    *,
    axes: Any = None,
    radii: Mapping[str, float] | None = None,
    method: str = "newton_schulz",
) -> optax.GradientTransformation:
    """The direction of [`scion`][gradatim.optim.scion], without its learning rate and weight decay.

    **Arguments, raises:** as in [`scion`][gradatim.optim.scion].

    >>> import jax.numpy as jnp
    >>> direction = scale_by_scion("embed", b1=0.0)
    >>> step, _ = direction.update(jnp.array([[3.0, -4.0]]), direction.init(jnp.zeros((1, 2))))
    >>> print(step)
    [[ 1. -1.]]
    """
    if is_known(b1) and not 0 <= b1 < 1:
        raise ValueError(f"b1 must lie in [0, 1), got {b1}")
    radii = dict(radii or {})
    for group, radius in radii.items():
        if group not in NORM_OF_GROUP:
            raise ValueError(f"radii must be of the groups {', '.join(NORM_OF_GROUP)}, got one of {group!r}")
        if not (radius > 0 and math.isfinite(radius)):
            raise ValueError(f"the radius of {group!r} must be positive, got {radius}")

    def init(params: Any) -> ScaleByScionState:
        layers_of(params, groups, axes)
        return ScaleByScionState(optax.tree.zeros_like(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ScaleByScionState]:
        del params
        momentum = optax.tree.cast_like(optax.tree.update_moment(updates, state.momentum, b1, 1), state.momentum)
        layers, structure = layers_of(updates, groups, axes)
        leaves = [_step(layer, b, radii, method) for layer, b in zip(layers, structure.flatten_up_to(momentum), strict=True)]
        return structure.unflatten(leaves), ScaleByScionState(momentum)

    return optax.GradientTransformation(init, update)


def scion(
    learning_rate: optax.ScalarOrSchedule,
    groups: Groups,
    b1: float | jax.Array = 0.95,
    *,
    axes: Any = None,
    radii: Mapping[str, float] | None = None,
    method: str = "newton_schulz",
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Any = None,
) -> optax.GradientTransformation:
    """Every layer moves by the same length in its own norm, whatever its gradient's size.

        Bₜ = b₁ Bₜ₋₁ + (1 - b₁) Gₜ,   B₀ = 0
        Xₜ = Xₜ₋₁ + η ρ LMO(Bₜ),      LMO(B) = argmin ⟨B, Z⟩ over ‖Z‖ ≤ 1

    | group      | norm                     | -LMO(B)           |
    | ---        | ---                      | ---               |
    | `"hidden"` | RMS to RMS, of matrices  | √(out/in) U Vᵀ    |
    | `"embed"`  | largest absolute entry   | sign B            |
    | `"vector"` | root mean square         | √d B/‖B‖₂         |

    The last two axes of a matrix are (out, in), and those before them count layers, as in a scan over stacked blocks; a convolution
    needs `axes`.

    **Arguments:** `learning_rate`: η ≥ 0 or a schedule; `groups`: a label of the table for every leaf
    ([`norm_groups`][gradatim.nets.norm_groups]), or a function from the parameters to such a tree, as is needed inside
    `optax.multi_transform`; `b1` in [0, 1); `axes`: a tree as [`matrix_axes`][gradatim.nets.matrix_axes] gives it, for "hidden" leaves
    that are not (…, out, in); `radii`: ρ of each group, by default 1; `method`: of the polar factor, `"newton_schulz"` or `"svd"`
    ([`polar_factor`][gradatim.numerics.polar_factor]); `weight_decay`: decoupled, λ ≥ 0 with η λ ≤ 1, or a schedule; `mask`: the leaves
    that decay.

    **Raises:** `ValueError` for a number out of its range, a leaf without a group, a norm of matrices on a leaf with fewer than two
    axes; `TypeError` for a leaf that is not real or complex floating point.

    >>> import jax.numpy as jnp
    >>> optimizer = scion(0.1, "vector", b1=0.0)
    >>> step, _ = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(jnp.zeros(2)))
    >>> print([f"{entry:.4f}" for entry in step])
    ['-0.0849', '-0.1131']

    Source: Pethick, Xie, Antonakopoulos, Zhu, Silveti-Falls and Cevher, *Training Deep Learning Models with Norm-Constrained
    LMOs*, 2025, algorithm 1. Their code calls 1 - b₁ the momentum, and divides the step of an embedding or read-out by its
    inputs: a radius here.
    """
    check_rates({"learning_rate": learning_rate}, {"learning_rate": ("weight_decay", weight_decay)})
    parts: list[Any] = [scale_by_scion(groups, b1, axes=axes, radii=radii, method=method)]
    if not (isinstance(weight_decay, int | float) and weight_decay == 0):
        parts.append(optax.add_decayed_weights(weight_decay, mask))
    return optax.chain(*parts, optax.scale_by_learning_rate(learning_rate))


def _step(layer: Layer | None, momentum: Any, radii: Mapping[str, float], method: str) -> Any:
    if layer is None:
        return momentum
    matrices = layer.fold(momentum)
    step = -lmo(matrices, radii.get(layer.group, 1.0), NORM_OF_GROUP[layer.group], method=method)
    return layer.unfold(step, jnp.shape(momentum))
