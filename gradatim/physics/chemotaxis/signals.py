"""One time step of the two signals with the cells held, for fast signals, slow ones, and none but their limit.

ε ∂c/∂t = ∇²c - c + w,   ε ∂w/∂t = τ ∇²w - w + n
"""

from __future__ import annotations

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradatim.numerics import phi_1

from .grids import AbstractGrid, Box

Pair = tuple[Float[Array, "..."], Float[Array, "..."]]
"The attractant c and the signal w."


class AbstractSignals(eqx.Module):
    """The signals between steps are kept in a `memory` of the method's own."""

    @abc.abstractmethod
    def enter(self, cells: Float[Array, ...], attractant: Float[Array, ...], signal: Float[Array, ...]) -> PyTree:
        """The memory of a state."""

    @abc.abstractmethod
    def advance(self, memory: PyTree, cells: Float[Array, ...]) -> PyTree:
        """The memory one step later, cells held."""

    @abc.abstractmethod
    def attractant(self, memory: PyTree) -> Float[Array, ...]:
        """The c of a memory."""

    @abc.abstractmethod
    def leave(self, memory: PyTree) -> Pair:
        """(c, w) of a memory."""


class ExactSignals(AbstractSignals):
    """On a box every cosine of Laplacian eigenvalue -m obeys two linear equations, whose solution is known for any dt / ε:

        w⁺ = w* + (w - w*) e⁻ᵇ,   c⁺ = c* + (c - c*) e⁻ᵃ + (w - w*) (dt/ε) e⁻ˢ φ₁(-|b - a|)
        w* = n / (1 + τ m),   c* = w* / (1 + m),   a = (1 + m) dt/ε,   b = (1 + τ m) dt/ε,   s = min(a, b),   φ₁(z) = (eᶻ - 1)/z

    a = b for the mean of every field, and for all modes at τ = 1. For ε → 0 what is left is (c*, w*).
    """

    grid: Box
    keep_attractant: Float[Array, ...]
    keep_signal: Float[Array, ...]
    pass_on: Float[Array, ...]
    emit_attractant: Float[Array, ...]
    emit_signal: Float[Array, ...]

    def __init__(self, grid: Box, eps: Float[Array, ""], tau: Float[Array, ""], dt: Float[Array, ""]):
        eigenvalues = grid.eigenvalues(dt.dtype)
        ratio = dt / eps
        fast, slow = (1 + eigenvalues) * ratio, (1 + tau * eigenvalues) * ratio
        signal = 1 / (1 + tau * eigenvalues)
        # The smaller of the two rates outside leaves φ₁ an argument that cannot overflow; at a tie both extremes share the derivative.
        least, most = jnp.minimum(fast, slow), jnp.maximum(fast, slow)
        between = ratio * jnp.exp(-least) * phi_1(least - most)
        self.grid = grid
        self.keep_attractant, self.keep_signal, self.pass_on = jnp.exp(-fast), jnp.exp(-slow), between
        self.emit_signal = -jnp.expm1(-slow) * signal
        self.emit_attractant = -jnp.expm1(-fast) * signal / (1 + eigenvalues) - between * signal

    def enter(self, cells: Float[Array, ...], attractant: Float[Array, ...], signal: Float[Array, ...]) -> Pair:
        """Coefficients of cosines."""
        del cells
        return self.grid.to_modes(attractant), self.grid.to_modes(signal)

    def advance(self, memory: Pair, cells: Float[Array, ...]) -> Pair:
        """Coefficients one step later."""
        c, w = memory
        n = self.grid.to_modes(cells)
        c = self.keep_attractant * c + self.pass_on * w + self.emit_attractant * n
        return c, self.keep_signal * w + self.emit_signal * n

    def attractant(self, memory: Pair) -> Float[Array, ...]:
        """The c of these coefficients."""
        return self.grid.from_modes(memory[0])

    def leave(self, memory: Pair) -> Pair:
        """(c, w) of these coefficients."""
        return self.grid.from_modes(memory[0]), self.grid.from_modes(memory[1])


class ImplicitSignals(AbstractSignals):
    """Backward Euler, two tridiagonal systems on a radial grid: first order in dt / ε, and (c*, w*) for ε → 0."""

    grid: AbstractGrid
    tau: Float[Array, ""]
    share: Float[Array, ""]

    def __init__(self, grid: AbstractGrid, eps: Float[Array, ""], tau: Float[Array, ""], dt: Float[Array, ""]):
        self.grid, self.tau, self.share = grid, tau, dt / (dt + eps)

    def enter(self, cells: Float[Array, ...], attractant: Float[Array, ...], signal: Float[Array, ...]) -> Pair:
        """The two fields."""
        del cells
        return attractant, signal

    def advance(self, memory: Pair, cells: Float[Array, ...]) -> Pair:
        """The two fields one step later: (1 + ε/dt - τ∇²) w⁺ = (ε/dt) w + n, and so for c⁺."""
        c, w = memory
        w = self.grid.solve_helmholtz((1 - self.share) * w + self.share * cells, self.share * self.tau)
        return self.grid.solve_helmholtz((1 - self.share) * c + self.share * w, self.share), w

    def attractant(self, memory: Pair) -> Float[Array, ...]:
        """The first of the two fields."""
        return memory[0]

    def leave(self, memory: Pair) -> Pair:
        """The two fields."""
        return memory


class EllipticSignals(AbstractSignals):
    """The limit ε = 0, in which the signals follow the cells at once: c = K₁ w, w = K_τ n, K_a = (1 - a ∇²)⁻¹; directly: w = n."""

    grid: AbstractGrid
    tau: Float[Array, ""]
    is_direct: bool = eqx.field(static=True)

    def enter(self, cells: Float[Array, ...], attractant: Float[Array, ...], signal: Float[Array, ...]) -> Float[Array, ...]:
        """The cells: they alone decide."""
        del attractant, signal
        return cells

    def advance(self, memory: Float[Array, ...], cells: Float[Array, ...]) -> Float[Array, ...]:
        """The cells."""
        del memory
        return cells

    def attractant(self, memory: Float[Array, ...]) -> Float[Array, ...]:
        """The c of these cells."""
        if isinstance(self.grid, Box):
            # One pair of transforms for both operators.
            eigenvalues = self.grid.eigenvalues(memory.dtype)
            response = 1 / (1 + eigenvalues) if self.is_direct else 1 / ((1 + eigenvalues) * (1 + self.tau * eigenvalues))
            return self.grid.from_modes(self.grid.to_modes(memory) * response)
        return self.leave(memory)[0]

    def leave(self, memory: Float[Array, ...]) -> Pair:
        """(c, w) of these cells."""
        w = memory if self.is_direct else self.grid.solve_helmholtz(memory, self.tau)
        return self.grid.solve_helmholtz(w, 1.0), w
