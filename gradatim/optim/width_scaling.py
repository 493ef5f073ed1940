"""Learning rate and weight decay by the width of a model: the square-root rule (Fan, Liu, Zhao, Yuan and Gu, arXiv:2510.15262)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
import optax
from jaxtyping import Array, PyTree

from gradatim.nets import check_labels
from gradatim.optim.leaves import check_leaves
from gradatim.optim.rates import check_not_negative, is_constant

CLASSES = ("matrix", "vector", "output")
SHRINK_WARNING = 0.1
"Shrink η λ per step above which √(η/2λ) is off by more than a few per cent."


class RateAndDecay(NamedTuple):
    """η (or its schedule) and λ of AdamW; the weights shrink by η λ a step."""

    learning_rate: Any
    weight_decay: Any


@dataclass(frozen=True)
class WidthScaling:
    """How learning rate η and weight decay λ of AdamW go from a model of `base_width` to one of `width`, m = width / base_width.

        matrix (both dimensions grow):   η = η₀ mᵃ   a = -1     λ = λ₀ mᵇ   b = ½     first weights of deviation 1/√(fan in)
        vector (one grows, or none):     η = η₀ mᶜ   c = 0      λ = `vector_decay`, 0 by default
        output (read-out):               as vectors, and the logits times 1/m (`output_multiplier`)

    In the steady state of AdamW the singular values of a matrix scale as √(η/λ), and, at fixed η/λ, the largest as about d^0.75:
    with η ∝ 1/d it stays the same if λ ∝ √d. The power is measured, not derived: noise alone gives d^0.5, a constant gradient d¹, and
    training lies in between, by batch size, task and duration. Check your own with
    [`match_top_singular_values`][gradatim.optim.match_top_singular_values]. Other rules have other exponents b: 0 in `constant_decay`,
    1 in `independent_decay`. All hold for AdamW, whose decay is decoupled and multiplied by η; with L2 in the gradient there is no such
    law.

    **Arguments:** `base_width`, `width` > 0: d at which η₀ and λ₀ were found, and that of the model; the exponents; `vector_decay`: λ of
    vectors and read-out at every width.

    **Raises:** `ValueError` for a width that is not positive, an exponent that is not finite, or a negative `vector_decay`.

    >>> rate, decay = WidthScaling(256, 2048).scale(4e-3, 0.1)["matrix"]
    >>> f"{rate:.4f} {decay:.4f}"
    '0.0005 0.2828'
    """

    base_width: int
    width: int
    matrix_rate_exponent: float = -1.0
    matrix_decay_exponent: float = 0.5
    vector_rate_exponent: float = 0.0
    vector_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("base_width", "width"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("matrix_rate_exponent", "matrix_decay_exponent", "vector_rate_exponent"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)}")
        check_not_negative(vector_decay=self.vector_decay)

    @classmethod
    def square_root_decay(cls, base_width: int, width: int) -> WidthScaling:
        """λ ∝ √d: the rule of this paper, and the default."""
        return cls(base_width, width)

    @classmethod
    def constant_decay(cls, base_width: int, width: int) -> WidthScaling:
        """λ the same at every width: muP as it is mostly used (Yang et al., arXiv:2203.03466)."""
        return cls(base_width, width, matrix_decay_exponent=0.0)

    @classmethod
    def independent_decay(cls, base_width: int, width: int) -> WidthScaling:
        """λ ∝ d, so that η λ stays the same (Wang and Aitchison, arXiv:2405.13698)."""
        return cls(base_width, width, matrix_decay_exponent=1.0)

    @property
    def ratio(self) -> float:
        """The factor m = width / base_width."""
        return self.width / self.base_width

    @property
    def output_multiplier(self) -> float:
        """1/m, the factor of the logits beyond that of the base model; without it the best rates shift for another reason."""
        return 1 / self.ratio

    def scale(self, learning_rate: Any, weight_decay: Any, *, vector_learning_rate: Any = None) -> dict[str, RateAndDecay]:
        """η and λ of each class at `width` from those at `base_width`.

        **Arguments:** `learning_rate`: η₀ ≥ 0 or a schedule; `weight_decay`: λ₀ ≥ 0; `vector_learning_rate`: η₀ of vectors and read-out,
        by default `learning_rate`.

        **Raises:** `ValueError` for a negative number.
        """
        vector_learning_rate = learning_rate if vector_learning_rate is None else vector_learning_rate
        check_not_negative(learning_rate=learning_rate, weight_decay=weight_decay, vector_learning_rate=vector_learning_rate)
        vector = RateAndDecay(_times(vector_learning_rate, self.ratio**self.vector_rate_exponent), self.vector_decay)
        matrix_rate = _times(learning_rate, self.ratio**self.matrix_rate_exponent)
        matrix_decay = weight_decay * self.ratio**self.matrix_decay_exponent
        return {"matrix": RateAndDecay(matrix_rate, matrix_decay), "vector": vector, "output": vector}


def width_adamw(
    scaling: WidthScaling,
    learning_rate: Any,
    weight_decay: Any,
    labels: PyTree | Callable[[optax.Params], PyTree],
    *,
    vector_learning_rate: Any = None,
    b1: float | Array = 0.9,
    b2: float | Array = 0.95,
    eps: float | Array = 1e-8,
) -> optax.GradientTransformation:
    """AdamW with the rates and decays of [`WidthScaling`][gradatim.optim.WidthScaling] for every class of parameters.

        matrix:  W ← W - η (m̂ / (√v̂ + eps) + λ W)          vector, output:  w ← w - η m̂ / (√v̂ + eps)

    Embeddings, gains and biases do not decay, unless `scaling` has a `vector_decay`. The decay is multiplied by the *current* rate: under
    a schedule that falls, the weights follow √(η/λ) late, and end where their history, not the last rate, puts them.

    **Arguments:** `scaling`; `learning_rate`: η₀ of the base width, or a schedule; `weight_decay`: λ₀; `labels`: "matrix", "vector" or
    "output" for every parameter, a tree ([`label_by_growth`][gradatim.nets.label_by_growth],
    [`label_parameters`][gradatim.nets.label_parameters]) or a function of the parameters; `vector_learning_rate`: η₀ of vectors and
    read-out, by default `learning_rate`; `b1`, `b2`, `eps`: of Adam.

    **Raises:** `ValueError` for a negative number, or if a matrix would shrink by more than itself in a step (η λ > 1); on `init`, with
    the path, for labels that do not fit the parameters or a matrix with fewer than two axes, and `TypeError` for a leaf that is not
    floating point. Warns where η λ > 0.1. Of schedules and traced numbers neither is seen.

    >>> import jax.numpy as jnp
    >>> optimizer = width_adamw(WidthScaling(64, 256), 0.1, 0.01, {"w": "matrix", "b": "vector"})
    >>> params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> f"{updates['w'][0, 0]:.4f} {updates['b'][0]:.4f}"
    '-0.0255 -0.1000'
    """
    classes = scaling.scale(learning_rate, weight_decay, vector_learning_rate=vector_learning_rate)
    return adamw_by_label(classes, labels, b1=b1, b2=b2, eps=eps)


def adamw_by_label(
    classes: Mapping[str, RateAndDecay | tuple[Any, Any]],
    labels: PyTree | Callable[[optax.Params], PyTree],
    *,
    b1: float | Array = 0.9,
    b2: float | Array = 0.95,
    eps: float | Array = 1e-8,
) -> optax.GradientTransformation:
    """AdamW with a learning rate and a decay for every label: `optax.multi_transform` over `optax.adamw`, checked.

    **Arguments:** `classes`: `(learning_rate, weight_decay)` by label, all labels that may occur; `labels`, `b1`, `b2`, `eps`: as in
    [`width_adamw`][gradatim.optim.width_adamw].

    **Raises:** as there.
    """
    transforms: dict[Hashable, Any] = {label: _adamw(label, RateAndDecay(*pair), b1, b2, eps) for label, pair in classes.items()}
    # A tree of labels may be a callable module, which optax would call.
    labels_of = labels if callable(labels) and not isinstance(labels, eqx.Module) else lambda _: labels
    inner = optax.multi_transform(transforms, labels_of)

    def init(params: Any) -> Any:
        check_leaves(params)
        check_labels(params, labels_of(params), tuple(transforms))
        return inner.init(params)

    return optax.GradientTransformationExtraArgs(init, inner.update)


def steady_state_rms(learning_rate: Any, weight_decay: Any) -> Any:
    """√(η/(2 λ)): root mean square of a weight that AdamW moves by noise alone.

    For gradients independent in time and η λ ≪ 1 - b₁, whatever their size, and whatever b₁ and b₂; a constant gradient leads to 1/λ
    instead. The matrix is then Gaussian, and its largest singular value that times √d_in + √d_out.

    **Raises:** `ValueError` unless η ≥ 0, λ > 0 and η λ ≤ 1. Warns where η λ > 0.1.

    >>> f"{steady_state_rms(0.01, 0.5):.3f}"
    '0.100'
    """
    _check_shrink("a weight", learning_rate, weight_decay, needs_decay=True)
    return (learning_rate / (2 * weight_decay)) ** 0.5


def relaxation_steps(learning_rate: float, weight_decay: float, *, tolerance: float = 0.05) -> int:
    """Steps until the mean square of weights under noise is within `tolerance` of its steady state: 1 - exp(-2 η λ t) = 1 - tolerance.

    **Arguments:** η > 0, λ > 0, `tolerance` in (0, 1).

    **Raises:** `ValueError` for a number out of its range, or η λ > 1. Warns where η λ > 0.1.

    >>> relaxation_steps(0.01, 0.5)
    300
    """
    _check_shrink("a weight", learning_rate, weight_decay, needs_decay=True)
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, got {learning_rate}")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie in (0, 1), got {tolerance}")
    return math.ceil(-math.log(tolerance) / (2 * learning_rate * weight_decay))


def _adamw(label: str, pair: RateAndDecay, b1: Any, b2: Any, eps: Any) -> optax.GradientTransformation:
    _check_shrink(label, *pair)
    if isinstance(pair.weight_decay, int | float) and pair.weight_decay == 0:
        return optax.adam(pair.learning_rate, b1, b2, eps)
    return optax.adamw(pair.learning_rate, b1, b2, eps, weight_decay=pair.weight_decay)


def _times(rate: Any, factor: float) -> Any:
    if not callable(rate):
        return rate * factor
    schedule: Any = rate
    return lambda count: schedule(count) * factor


def _check_shrink(name: str, learning_rate: Any, weight_decay: Any, *, needs_decay: bool = False) -> None:
    check_not_negative(learning_rate=learning_rate, weight_decay=weight_decay)
    if needs_decay and is_constant(weight_decay) and not np.all(np.asarray(weight_decay) > 0):
        raise ValueError(f"weight_decay must be positive, got {weight_decay}: without decay there is no steady state")
    if not is_constant(learning_rate) or not is_constant(weight_decay):
        return
    shrink = float(np.max(np.asarray(learning_rate) * np.asarray(weight_decay)))
    if shrink > 1:
        raise ValueError(f"learning_rate times weight_decay must be at most 1, got {shrink:g} for {name}: it overshoots zero every step")
    if shrink > SHRINK_WARNING:
        message = f"learning_rate times weight_decay is {shrink:g} for {name}: above {SHRINK_WARNING} weights do not settle at √(η/2λ)"
        warnings.warn(message, stacklevel=3)
