"""Smooth objectives of many variables on which second-order methods are compared, with their residuals.

Each objective is a module: call it with the point. To keep its data out of the compiled program, minimise
[`value_at`][gradatim.optim.value_at] with the objective itself as `args`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Vector = Float[Array, " n"]
Scalar = Float[Array, ""]


def value_at(y: Any, objective: Callable[[Any], Scalar]) -> Scalar:
    """The objective's value: what optimistix minimises, with the objective as `args`."""
    return objective(y)


class LogSumExp(eqx.Module):
    """f(x) = μ log Σᵢ exp((⟨aᵢ, x⟩ - bᵢ)/μ): a smoothed maximum, quasi-self-concordant with M = 2/μ in the metric Σ aᵢaᵢᵀ.

    >>> problem = LogSumExp.centred(jnp.array([[1.0], [-1.0], [0.0]]), jnp.array([0.0, 1.0, 2.0]))
    >>> print(f"{jax.grad(problem)(jnp.zeros(1))[0]:.6f}")
    0.000000
    """

    rows: Float[Array, "m n"]
    offset: Float[Array, " m"]
    temperature: float | Scalar = 1.0

    def __call__(self, x: Vector) -> Scalar:
        """The value at `x`."""
        return self.temperature * jax.nn.logsumexp(self.scores(x) / self.temperature)

    def scores(self, x: Vector) -> Float[Array, " m"]:
        """u(x) = Ax - b."""
        return self.rows @ x - self.offset

    def weights(self, scores: Float[Array, " m"]) -> Float[Array, " m"]:
        """softmax(u/μ)/μ, the diagonal of the weighted Gauss–Newton matrix."""
        return jax.nn.softmax(scores / self.temperature) / self.temperature

    @classmethod
    def centred(cls, rows: Float[Array, "m n"], offset: Float[Array, " m"], temperature: float | Scalar = 1.0) -> LogSumExp:
        """The one with all rows shifted by one vector so that its minimum lies at the origin."""
        weights = jax.nn.softmax(-offset / temperature)
        return cls(rows - (weights @ rows)[None], offset, temperature)


class ResidualPower(eqx.Module):
    """f(x) = ‖u(x)‖ᵖ/p, p ≥ 2: nonlinear equations; as flat at a solution as p is large."""

    residual: Callable[[Vector], Float[Array, " m"]]
    power: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not self.power >= 2:
            raise ValueError(f"power must be at least 2, got {self.power}")

    def __call__(self, x: Vector) -> Scalar:
        """The value at `x`."""
        return power_of_norm(self.residual(x), self.power)


def power_of_norm(u: Float[Array, " m"], power: float) -> Scalar:
    """s(u) = ‖u‖ᵖ/p with its first two derivatives right at u = 0 as well: the identity for p = 2, zero for p > 2."""
    square = jnp.sum(u**2)
    if power == 2:
        return square / 2
    is_zero = square == 0
    return jnp.where(is_zero, 0.0, jnp.where(is_zero, 1.0, square) ** (power / 2)) / power


class LinearResidual(eqx.Module):
    """u(x) = Ax - b."""

    matrix: Float[Array, "m n"]
    offset: Float[Array, " m"]

    def __call__(self, x: Vector) -> Float[Array, " m"]:
        """The residual at `x`."""
        return self.matrix @ x - self.offset


class RosenbrockResidual(eqx.Module):
    """u(x) = (a - x₁, √b (x₂ - x₁²)), zero at (a, a²); ‖u‖² is Rosenbrock's function."""

    a: float = eqx.field(static=True, default=1.0)
    b: float = eqx.field(static=True, default=100.0)

    def __call__(self, x: Vector) -> Float[Array, " 2"]:
        """The residual at `x`."""
        return jnp.stack([self.a - x[0], self.b**0.5 * (x[1] - x[0] ** 2)])


class ChebyshevResidual(eqx.Module):
    """u(x) = (½(1 - x₁), …, xᵢ - (2xᵢ₋₁² - 1), …), zero at (1, …, 1): a curved valley that folds once more with each variable.

    A small residual does not mean a small distance: along the valley some coordinates may be 2 away from the solution.
    """

    def __call__(self, x: Vector) -> Vector:
        """The residual at `x`."""
        return jnp.concatenate([0.5 * (1 - x[:1]), x[1:] - 2 * x[:-1] ** 2 + 1])


class SlackChain(eqx.Module):
    """f(x) = (|x₁ - 1|^q + Σᵢ max(|xᵢ₊₁ - xᵢ| - s, 0)^q)/q: a coordinate feels nothing until its neighbour has moved.

    The Hessian is bounded but jumps for q = 2, and is Lipschitz for q = 3. From the origin a method that moves along gradients and their
    derivatives wakes one coordinate a step. Convex, with the value 0 at (1, …, 1).

    **Arguments:** `slack`: s ≥ 0; `power`: q ≥ 2.
    """

    slack: float | Scalar
    power: int = eqx.field(static=True)

    def __call__(self, x: Vector) -> Scalar:
        """The value at `x`."""
        links = jnp.maximum(jnp.abs(jnp.diff(x)) - self.slack, 0.0)
        return (jnp.abs(x[0] - 1) ** self.power + jnp.sum(links**self.power)) / self.power


class FadingWaves(eqx.Module):
    """f(x) = c (1+x)^(1-b)/(b-1) + (1+x)^(-b(1+α)) cos θ(x) for x ≥ 0: a long descent that stays as rough as its smoothness allows.

        θ′(x) = (1+x)^(αb),     f′(x) ≈ -(1+x)^(-b) (c + sin θ),     |f″| ≲ (1+x)^(-b(1-α))

    Where f″ is negative a Newton step needs λ > |f″|, which keeps it within about ‖f′‖^α, so that min ‖f′‖ falls as k^(-b/(1+αb)) over k
    steps, for b towards 1 the worst case k^(-1/(1+α)): α = ½ has a Lipschitz Hessian. Without a Hessian nothing holds a step back, for
    the waves always descend.

    **Arguments:** `smoothness`: α in [0, 1]; `decay`: b > 1; `drift`: c > 1 keeps f′ negative far out, with the
    defaults from x = 2 on for every `phase`: θ(0), and from 0 on for the phase 0.
    """

    smoothness: float | Scalar
    decay: float = eqx.field(static=True, default=1.1)
    drift: float = eqx.field(static=True, default=1.5)
    phase: float | Scalar = 0.0

    def __call__(self, x: Float[Array, " 1"]) -> Scalar:
        """The value at `x`, one coordinate."""
        far = 1 + x[0]
        b = self.decay
        angle = self.phase + (far ** (1 + self.smoothness * b) - 1) / (1 + self.smoothness * b)
        return self.drift * far ** (1 - b) / (b - 1) + far ** (-b * (1 + self.smoothness)) * jnp.cos(angle)


class FadingValley(eqx.Module):
    """f(x, z) = c (1+x)^(1-b)/(b-1) + ½ (z - (1+x)^(-b) sin θ(x))² for x ≥ 0, θ′(x) = (1+x)^b: a long descent in a winding valley.

    The floor winds with steepness one at a width that shrinks with the slope along it, so that a gradient method meets the curvature across
    at every step, however flat the valley has become: ‖∇f‖ ~ (1+x)^(-b) falls as k^(-b/(1+b)), for b towards 1 the worst case k^(-½).

    **Arguments:** `decay`: b > 1; `drift`: c > 0; `phase`: θ(0).
    """

    decay: float = eqx.field(static=True, default=1.1)
    drift: float = eqx.field(static=True, default=1.0)
    phase: float | Scalar = 0.0

    def __call__(self, y: Float[Array, " 2"]) -> Scalar:
        """The value at (x, z)."""
        far, b = 1 + y[0], self.decay
        floor = far**-b * jnp.sin(self.phase + (far ** (1 + b) - 1) / (1 + b))
        return self.drift * far ** (1 - b) / (b - 1) + 0.5 * (y[1] - floor) ** 2


class LogisticRegression(eqx.Module):
    """f(x) = ⟨log(1 + exp(-yᵢ⟨aᵢ, x⟩))⟩ + ½ penalty ‖x‖²; on separable data without penalty its infimum 0 is not attained.

    **Arguments:** `features`: the rows yᵢaᵢ, labels yᵢ = ±1 multiplied in; `penalty` ≥ 0.
    """

    features: Float[Array, "examples n"]
    penalty: float | Scalar = 0.0

    def __call__(self, x: Vector) -> Scalar:
        """The value at `x`."""
        return jnp.mean(self.losses(x)) + 0.5 * self.penalty * jnp.sum(x**2)

    def losses(self, x: Vector) -> Float[Array, " examples"]:
        """The loss of each example, without the penalty."""
        return jax.nn.softplus(-(self.features @ x))
