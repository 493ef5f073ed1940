"""Bilevel problems whose constants are known in closed form: least squares on both levels, and penalties of a linear classifier."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .bilevel_problem import AbstractBilevel, Scalar

SOFTMAX_THIRD = math.sqrt(2) ** 3 / (6 * math.sqrt(3))
"Of log Σ exp, the largest third derivative along a unit vector: no variable within a range r has a third central moment above r³/(6√3)."

Labels = Int[Array, " _"] | Int[np.ndarray, " _"]


class LinearBilevel(AbstractBilevel):
    """Least squares on both levels, g = ‖A₁x - b₁‖²/2 and h = ‖A₂x + A₃θ - b₂‖²/2, where all that is bounded is known exactly.

    >>> eye = jnp.eye(2)
    >>> problem = LinearBilevel.of(eye, jnp.ones(2), eye, -eye, jnp.zeros(2))
    >>> print(problem.value(jnp.zeros(2)), problem.gradient(jnp.zeros(2)).tolist(), problem.strong_convexity(jnp.zeros(2)))
    1.0 [-1.0, -1.0] 1.0
    """

    A1: Float[Array, "r n"]
    b1: Float[Array, " r"]
    A2: Float[Array, "s n"]
    A3: Float[Array, "s d"]
    b2: Float[Array, " s"]
    mu: Scalar
    L: Scalar
    L_g: Scalar
    J_norm: Scalar

    @classmethod
    def of(
        cls,
        A1: Float[Array, "r n"],
        b1: Float[Array, " r"],
        A2: Float[Array, "s n"],
        A3: Float[Array, "s d"],
        b2: Float[Array, " s"],
    ) -> LinearBilevel:
        """The problem with its constants, from singular values; not for jit.

        **Raises:** `ValueError` for an A₂ with fewer rows than columns, whose lower problem is not strongly convex.
        """
        if A2.shape[0] < A2.shape[1]:
            raise ValueError(f"A2 must have at least as many rows as columns, got shape {A2.shape}")
        values = np.linalg.svd(A2, compute_uv=False)
        norms = np.linalg.norm(A1, 2), np.linalg.norm(np.asarray(A2).T @ np.asarray(A3), 2)
        return cls(A1, b1, A2, A3, b2, *(jnp.asarray(c, A2.dtype) for c in (values[-1] ** 2, values[0] ** 2, norms[0] ** 2, norms[1])))

    def upper(self, x: Float[Array, " n"]) -> Scalar:
        """½‖A₁x - b₁‖²."""
        return jnp.sum((self.A1 @ x - self.b1) ** 2) / 2

    def lower(self, x: Float[Array, " n"], theta: Float[Array, " d"]) -> Scalar:
        """½‖A₂x + A₃θ - b₂‖²."""
        return jnp.sum((self.A2 @ x + self.A3 @ theta - self.b2) ** 2) / 2

    def strong_convexity(self, theta: Float[Array, " d"]) -> Scalar:
        """The least eigenvalue of A₂ᵀA₂."""
        return self.mu

    def smoothness(self, theta: Float[Array, " d"]) -> Scalar:
        """The largest eigenvalue of A₂ᵀA₂."""
        return self.L

    def upper_smoothness(self) -> Scalar:
        """The largest eigenvalue of A₁ᵀA₁."""
        return self.L_g

    def hessian_lipschitz(self, theta: Float[Array, " d"]) -> Scalar:
        """0: h is quadratic."""
        return jnp.zeros_like(self.mu)

    def cross_lipschitz(self, theta: Float[Array, " d"]) -> Scalar:
        """0: h is quadratic."""
        return jnp.zeros_like(self.mu)

    def cross_norm(self, x: Float[Array, " n"], theta: Float[Array, " d"]) -> Scalar:
        """The spectral norm of A₂ᵀA₃."""
        return self.J_norm

    def is_upper_convex(self) -> bool:
        """It is."""
        return True

    def solution(self, theta: Float[Array, " d"]) -> Float[Array, " n"]:
        """x̂ = (A₂ᵀA₂)⁻¹A₂ᵀ(b₂ - A₃θ)."""
        return jnp.linalg.lstsq(self.A2, self.b2 - self.A3 @ theta)[0]

    def value(self, theta: Float[Array, " d"]) -> Scalar:
        """f(θ), exact."""
        return self.upper(self.solution(theta))

    def gradient(self, theta: Float[Array, " d"]) -> Float[Array, " d"]:
        """∇f(θ), exact."""
        return -self.A3.T @ jnp.linalg.lstsq(self.A2.T, self.A1.T @ (self.A1 @ self.solution(theta) - self.b1))[0]


class RidgeLogistic(AbstractBilevel):
    """Softmax regression without a bias, a ridge penalty for each weight, judged by its cross-entropy on other data.

        h = ⟨CE(X w, labels)⟩ + ½ Σ e^θᵢ wᵢ²,     g = ⟨CE(X' w, labels')⟩

    Constants: μ = min e^θ, L ≤ λ_max(XᵀX)/(2n) + max e^θ, ‖J‖ = max e^θᵢ|wᵢ| exactly, L_J = max e^θ, L_H ≤ 0.2722 max‖xᵢ‖ λ_max(XᵀX)/n,
    as the third derivative of log Σ exp along a unit vector is at most √2³/(6√3).

    **Arguments of `of`:** rows of features and class numbers, to train and to judge by; `classes`. Weights and theta have shape
    `(features, classes)`.

    >>> X, labels = jnp.eye(2), jnp.array([0, 1])
    >>> problem = RidgeLogistic.of(X, labels, X, labels, classes=2)
    >>> print(f"{problem.upper(jnp.zeros((2, 2))):.4f} {problem.smoothness(jnp.zeros((2, 2))):.2f}")
    0.6931 1.25
    """

    X: Float[Array, "n features"]
    Y: Float[Array, "n classes"]
    X_upper: Float[Array, "m features"]
    Y_upper: Float[Array, "m classes"]
    spread: Scalar
    "λ_max(XᵀX)/n"
    spread_upper: Scalar
    longest: Scalar
    "max‖xᵢ‖"

    @classmethod
    def of(
        cls,
        X: Float[Array, "n features"],
        labels: Labels,
        X_upper: Float[Array, "m features"],
        labels_upper: Labels,
        *,
        classes: int,
    ) -> RidgeLogistic:
        """The problem with its constants; not for jit.

        **Raises:** `ValueError` for a class number that is not between 0 and `classes` - 1.
        """
        for name, numbers in (("labels", labels), ("labels_upper", labels_upper)):
            known = np.asarray(numbers)
            if known.size and not (known.min() >= 0 and known.max() < classes):
                raise ValueError(f"{name} must be numbers from 0 to {classes - 1}, got {known.min()} to {known.max()}")
        spreads = [np.linalg.norm(rows, 2) ** 2 / len(rows) for rows in (X, X_upper)]
        longest = np.max(np.linalg.norm(X, axis=1))
        one_hot = [jnp.asarray(np.eye(classes)[np.asarray(numbers)], X.dtype) for numbers in (labels, labels_upper)]
        return cls(X, one_hot[0], X_upper, one_hot[1], *(jnp.asarray(c, X.dtype) for c in (*spreads, longest)))

    def upper(self, x: Float[Array, "features classes"]) -> Scalar:
        """Mean cross-entropy on the other data."""
        return mean_cross_entropy(self.X_upper, self.Y_upper, x)

    def lower(self, x: Float[Array, "features classes"], theta: Float[Array, "features classes"]) -> Scalar:
        """Mean cross-entropy and penalties."""
        return mean_cross_entropy(self.X, self.Y, x) + jnp.sum(jnp.exp(theta) * x**2) / 2

    def strong_convexity(self, theta: Float[Array, "features classes"]) -> Scalar:
        """Min e^θ: the data add nothing that is certain."""
        return jnp.exp(jnp.min(theta))

    def smoothness(self, theta: Float[Array, "features classes"]) -> Scalar:
        """λ_max(XᵀX)/(2n) + max e^θ: the Hessian of log Σ exp is at most ½."""
        return self.spread / 2 + jnp.exp(jnp.max(theta))

    def upper_smoothness(self) -> Scalar:
        """λ_max(X'ᵀX')/(2m)."""
        return self.spread_upper / 2

    def hessian_lipschitz(self, theta: Float[Array, "features classes"]) -> Scalar:
        """0.2722 max‖xᵢ‖ λ_max(XᵀX)/n."""
        return SOFTMAX_THIRD * self.longest * self.spread

    def cross_lipschitz(self, theta: Float[Array, "features classes"]) -> Scalar:
        """Max e^θ."""
        return jnp.exp(jnp.max(theta))

    def cross_norm(self, x: Float[Array, "features classes"], theta: Float[Array, "features classes"]) -> Scalar:
        """Max e^θᵢ|wᵢ|: J is diagonal."""
        return jnp.max(jnp.exp(theta) * jnp.abs(x))

    def is_upper_convex(self) -> bool:
        """It is."""
        return True


def mean_cross_entropy(X: Float[Array, "n features"], Y: Float[Array, "n classes"], w: Float[Array, "features classes"]) -> Scalar:
    """⟨log Σ exp(w x) - (w x)_label⟩ in nat, for one-hot labels Y."""
    logits = X @ w
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.sum(Y * logits, axis=1))
