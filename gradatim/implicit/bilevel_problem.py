"""Bilevel problems together with the constants that certify an inexact answer.

min_θ f(θ) = g(x̂(θ)),     x̂(θ) = argmin_x h(x, θ);     H = ∂ₓₓh,  J = ∂ₓ∂_θ h
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Scalar = Float[Array, ""]
Constant = Callable[[PyTree], Any] | float | Scalar


class AbstractBilevel(eqx.Module):
    """A strongly convex lower problem, an upper loss of its solution, and constants that hold for all x (of θ as given).

    The constants change with θ and are asked for at each θ anew. None may be too small: a bound made of wrong constants bounds nothing.
    """

    @abc.abstractmethod
    def upper(self, x: PyTree) -> Scalar:
        """The upper loss g."""

    @abc.abstractmethod
    def lower(self, x: PyTree, theta: PyTree) -> Scalar:
        """The lower objective h, whose minimiser in x is wanted."""

    @abc.abstractmethod
    def strong_convexity(self, theta: PyTree) -> Scalar:
        """The constant μ > 0 with H ≽ μ."""

    @abc.abstractmethod
    def smoothness(self, theta: PyTree) -> Scalar:
        """The constant L with H ≼ L."""

    @abc.abstractmethod
    def upper_smoothness(self) -> Scalar:
        """The constant L_g, Lipschitz for ∇g."""

    @abc.abstractmethod
    def hessian_lipschitz(self, theta: PyTree) -> Scalar:
        """The constant L_H, Lipschitz for H in x; 0 where h is quadratic in x."""

    @abc.abstractmethod
    def cross_lipschitz(self, theta: PyTree) -> Scalar:
        """The constant L_J, Lipschitz for J in x."""

    @abc.abstractmethod
    def cross_norm(self, x: PyTree, theta: PyTree) -> Scalar | None:
        """A bound of ‖J‖ at x in closed form, or None where power iteration is to measure it."""

    @abc.abstractmethod
    def is_upper_convex(self) -> bool:
        """Whether g is known to be convex, which tightens its lower bound."""


class Bilevel(AbstractBilevel):
    """A bilevel problem of one's own functions and constants.

    **Arguments:** `upper_loss(x)`; `lower_loss(x, theta)`; then by name the constants of
    [`AbstractBilevel`][gradatim.implicit.AbstractBilevel], each a number or a function of theta: `strong_convexity` μ > 0,
    `smoothness` L ≥ μ, `upper_smoothness` L_g (a number), `hessian_lipschitz` L_H and `cross_lipschitz` L_J, both 0 where h is quadratic;
    `cross_norm(x, theta)`: a bound of ‖J‖, None to measure it; `is_upper_convex`.

    Functions are compiled by identity: make the problem once, with its data in a module's fields rather than closed over.

    **Raises:** `ValueError` for a μ that is not positive, or another constant that is negative.

    >>> problem = Bilevel(
    ...     lambda x: (x - 1.0) ** 2 / 2, lambda x, theta: (x - theta) ** 2 / 2,
    ...     strong_convexity=1.0, smoothness=1.0, upper_smoothness=1.0, hessian_lipschitz=0.0, cross_lipschitz=0.0,
    ... )
    >>> print(problem.upper(jnp.array(3.0)), problem.strong_convexity(jnp.array(0.0)))
    2.0 1.0
    """

    upper_loss: Callable[[PyTree], Scalar]
    lower_loss: Callable[[PyTree, PyTree], Scalar]
    constants: dict[str, Any]
    cross_bound: Callable[[PyTree, PyTree], Scalar] | None
    is_convex: bool = eqx.field(static=True)

    def __init__(
        self,
        upper_loss: Callable[[PyTree], Scalar],
        lower_loss: Callable[[PyTree, PyTree], Scalar],
        *,
        strong_convexity: Constant,
        smoothness: Constant,
        upper_smoothness: float | Scalar,
        hessian_lipschitz: Constant,
        cross_lipschitz: Constant,
        cross_norm: Callable[[PyTree, PyTree], Scalar] | None = None,
        is_upper_convex: bool = True,
    ) -> None:
        constants = {
            "strong_convexity": strong_convexity,
            "smoothness": smoothness,
            "upper_smoothness": upper_smoothness,
            "hessian_lipschitz": hessian_lipschitz,
            "cross_lipschitz": cross_lipschitz,
        }
        for name, value in constants.items():
            if isinstance(value, int | float) and not (value > 0 if name == "strong_convexity" else value >= 0):
                raise ValueError(f"{name} must be {'positive' if name == 'strong_convexity' else 'at least 0'}, got {value}")
        self.upper_loss, self.lower_loss = upper_loss, lower_loss
        # As arrays, so that another number is no other program.
        self.constants = {name: jnp.asarray(float(c)) if isinstance(c, int | float) else c for name, c in constants.items()}
        self.cross_bound, self.is_convex = cross_norm, is_upper_convex

    def upper(self, x: PyTree) -> Scalar:
        """`upper_loss(x)`."""
        return self.upper_loss(x)

    def lower(self, x: PyTree, theta: PyTree) -> Scalar:
        """`lower_loss(x, theta)`."""
        return self.lower_loss(x, theta)

    def strong_convexity(self, theta: PyTree) -> Scalar:
        """μ."""
        return self._constant("strong_convexity", theta)

    def smoothness(self, theta: PyTree) -> Scalar:
        """L."""
        return self._constant("smoothness", theta)

    def upper_smoothness(self) -> Scalar:
        """L_g."""
        return self.constants["upper_smoothness"]

    def hessian_lipschitz(self, theta: PyTree) -> Scalar:
        """L_H."""
        return self._constant("hessian_lipschitz", theta)

    def cross_lipschitz(self, theta: PyTree) -> Scalar:
        """L_J."""
        return self._constant("cross_lipschitz", theta)

    def cross_norm(self, x: PyTree, theta: PyTree) -> Scalar | None:
        """The bound of ‖J‖ that was given."""
        return None if self.cross_bound is None else self.cross_bound(x, theta)

    def is_upper_convex(self) -> bool:
        """As it was given."""
        return self.is_convex

    def _constant(self, name: str, theta: PyTree) -> Scalar:
        constant = self.constants[name]
        return jnp.asarray(constant(theta)) if callable(constant) else constant


def lower_gradient(problem: AbstractBilevel, x: PyTree, theta: PyTree) -> PyTree:
    """∂ₓh, zero at x̂(θ): the conditions through which the solution is differentiated."""
    return jax.grad(problem.lower)(x, theta)
