"""The decrease of a bilevel loss, certified from values that are not its own (lemma 3.5 of arXiv:2308.10098)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Array, Float

Number = float | Float[Array, ""]


def loss_bounds(value: Number, slope: Number, accuracy: Number, upper_smoothness: Number, is_upper_convex: bool) -> tuple[Number, Number]:
    """U₋ and U₊ of [`InexactArmijo`][gradatim.implicit.InexactArmijo], from g, ‖∇g‖ and ε."""
    reach, bend = slope * accuracy, upper_smoothness * accuracy**2 / 2
    return value - reach - (0.0 if is_upper_convex else bend), value + reach + bend


@dataclass(frozen=True)
class InexactArmijo:
    """A sufficient condition for f(θ₊) - f(θ) ≤ -λ α ‖z‖², where f = g(x̂) is known through g at points within ε of x̂ only.

        f ≤ U₊ = g + ‖∇g‖ ε + L_g ε²/2,     f ≥ U₋ = g - ‖∇g‖ ε - L_g ε²/2  (g convex: without its last term)
        ψ(α) = U₊(x̄(θ - α z), ε₊) - U₋(x̄(θ), ε) + λ α ‖z‖² ≤ 0

    A plain comparison of g at two approximate points certifies nothing: at low accuracy it accepts steps that ascend. For ε = 0 this is
    Armijo's rule.

    **Arguments:** `decrease` λ in (0, 1); `upper_smoothness` L_g ≥ 0; `is_upper_convex`.

    **Raises:** `ValueError` for a λ outside (0, 1).

    >>> armijo = InexactArmijo(decrease=0.1, upper_smoothness=1.0)
    >>> print(f"{armijo.upper_bound(2.0, 1.0, 0.1):.3f} {armijo.lower_bound(2.0, 1.0, 0.1):.3f}")
    2.105 1.900
    """

    decrease: float
    upper_smoothness: float
    is_upper_convex: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.decrease < 1:
            raise ValueError(f"decrease must lie in (0, 1), got {self.decrease}")

    def upper_bound(self, value: Number, slope: Number, accuracy: Number) -> Number:
        """U₊ of g, ‖∇g‖ and ε."""
        return loss_bounds(value, slope, accuracy, self.upper_smoothness, self.is_upper_convex)[1]

    def lower_bound(self, value: Number, slope: Number, accuracy: Number) -> Number:
        """U₋ of g, ‖∇g‖ and ε."""
        return loss_bounds(value, slope, accuracy, self.upper_smoothness, self.is_upper_convex)[0]

    def excess(self, after: Number, before: Number, step_size: Number, gradient_norm: Number) -> Number:
        """ψ from U₊ after the step and U₋ before it; at most 0 where the decrease is certain."""
        return after - before + self.decrease * step_size * gradient_norm**2
