"""A small network of place and time, periodic in place, with its derivatives in the same forward pass."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class Jet(NamedTuple):
    """A function at points, and the derivatives that convection and diffusion are made of."""

    value: Float[Array, "*points"]
    t: Float[Array, "*points"]  # ∂/∂t
    x: Float[Array, "*points"]  # ∂/∂x
    xx: Float[Array, "*points"]  # ∂²/∂x²


class PeriodicNetwork(eqx.Module):
    """tanh layers over (cos κx, sin κx, t), κ = 2π/P: exactly periodic, whatever the weights (Dong and Ni, arXiv:2007.07442).

    The derivatives are carried forward beside the value, layer by layer, as four rows of one matrix product:

        y = tanh z:     yₜ = s zₜ,     yₓ = s zₓ,     yₓₓ = s (zₓₓ - 2 y zₓ²),     s = 1 - y²

    which costs less than nested differentiation, and leaves a plain forward pass for reverse differentiation in the weights. (Derivatives
    of higher order by `jax.jvp`, as usual.)

    **Arguments:** `width`: units a layer; `depth`: hidden layers; `period`: P; `key`: weights and biases are uniform
    within ±1/√inputs, as in the authors' code of arXiv:2205.02902; `last_gain`: factor of the last layer; 0 makes a network that begins as
    zero.

    **Raises:** `ValueError` for a width or depth below 1, or a period that is not positive.

    >>> network = PeriodicNetwork(8, 2, period=1.0, key=jax.random.key(0))
    >>> values = network(jnp.array([0.2, 1.2]), jnp.array([0.5, 0.5]))
    >>> print(f"{abs(values[0] - values[1]):.5f}")
    0.00000
    """

    weights: tuple[Float[Array, "outputs inputs"], ...]
    biases: tuple[Float[Array, " outputs"], ...]
    period: float = eqx.field(static=True)

    def __init__(self, width: int, depth: int, *, period: float, key: PRNGKeyArray, last_gain: float = 1.0):
        for name, number in (("width", width), ("depth", depth)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if not 0 < period < math.inf:
            raise ValueError(f"period must be positive and finite, got {period}")
        shapes = [(n, m) for m, n in pairwise((3, *(width for _ in range(depth)), 1))]
        gains = [*(1.0 for _ in range(depth)), last_gain]
        # Drawn flat and at once: one small program, where each shape would be another.
        drawn = jax.random.uniform(key, (sum(n * (m + 1) for n, m in shapes),), minval=-1, maxval=1)
        layers, start = [], 0
        for (n, m), gain in zip(shapes, gains, strict=True):
            layers.append(gain / math.sqrt(m) * drawn[start : start + n * (m + 1)].reshape(n, m + 1))
            start += n * (m + 1)
        self.weights, self.biases = tuple(layer[:, :-1] for layer in layers), tuple(layer[:, -1] for layer in layers)
        self.period = float(period)

    def __call__(self, x: Float[Array, " points"], t: Float[Array, " points"]) -> Float[Array, " points"]:
        """The value at points."""
        angle = self._wavenumber * x
        rows = jnp.stack([jnp.cos(angle), jnp.sin(angle), t], axis=-1)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            rows = jnp.tanh(rows @ weight.T + bias[None])
        return (rows @ self.weights[-1].T + self.biases[-1][None])[:, 0]

    def jet(self, x: Float[Array, " points"], t: Float[Array, " points"]) -> Jet:
        """Value and derivatives at points."""
        k = self._wavenumber
        cos, sin, zero, one = jnp.cos(k * x), jnp.sin(k * x), jnp.zeros_like(x), jnp.ones_like(x)
        inputs = ((cos, sin, t), (zero, zero, one), (-k * sin, k * cos, zero), (-(k**2) * cos, -(k**2) * sin, zero))
        rows = jnp.stack([jnp.stack(row, axis=-1) for row in inputs])
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z, z_t, z_x, z_xx = _product(rows, weight)
            y = jnp.tanh(z + bias[None])
            s = 1 - y**2
            rows = jnp.stack([y, s * z_t, s * z_x, s * (z_xx - 2 * y * z_x**2)])
        value, *derivatives = _product(rows, self.weights[-1])[..., 0]
        return Jet(value + self.biases[-1], *derivatives)

    @property
    def _wavenumber(self) -> float:
        return 2 * math.pi / self.period


def _product(rows: Array, weight: Array) -> Array:
    """All four rows of all points through one matrix."""
    return (rows.reshape(-1, rows.shape[-1]) @ weight.T).reshape(*rows.shape[:-1], -1)


def started_at(jet: Jet, t: Float[Array, " points"], start: Jet) -> Jet:
    """The jet of `start` + t · network: what fulfils an initial condition exactly, `start` being constant in time."""
    return Jet(start.value + t * jet.value, start.t + jet.value + t * jet.t, start.x + t * jet.x, start.xx + t * jet.xx)
