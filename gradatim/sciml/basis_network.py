"""A network of Fourier layers that supplies basis functions on a grid (Li et al., arXiv:2010.08895)."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray


class SpectralLayer(eqx.Module):
    """gelu(K v + W v + c): K acts on the lowest Fourier modes of all axes of the grid alone, W on channels, point by point.

        (K v)(r) = F⁻¹( R_k · F(v)_k ),     kᵢ = -mᵢ … mᵢ - 1 along every axis but the last,     k = 0 … m - 1 along the last

    F is the real discrete transform of all axes, of which so few modes are kept that products with short matrices are cheaper than a fast
    transform. Everything is real: real and imaginary parts have leaves of their own, so that any optimiser takes them.
    """

    real: Float[Array, "*modes inputs outputs"]
    imaginary: Float[Array, "*modes inputs outputs"]
    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def __call__(self, v: Float[Array, "*grid inputs"]) -> Float[Array, "*grid outputs"]:
        """Of one example."""
        return jax.nn.gelu(self.spectral(v) + _plus(v @ self.weight, self.bias))

    def spectral(self, v: Float[Array, "*grid inputs"]) -> Float[Array, "*grid outputs"]:
        """K v."""
        grid, modes = v.shape[:-1], self.real.shape[:-2]
        needed = (*modes[:-1], 2 * modes[-1])
        if len(grid) != len(modes) or any(n < least for n, least in zip(grid, needed, strict=True)):
            raise ValueError(f"the grid must have at least {needed} points along its axes for these modes, got {grid}")
        dtype = jnp.result_type(v, jnp.complex64)
        real = jnp.finfo(dtype).dtype
        *others, last = (_waves(n, m, i == len(grid) - 1) for i, (n, m) in enumerate(zip(grid, modes, strict=True)))
        # The last axis first, while the field is real; each product takes the axis to the front, the last one back into place.
        apart = np.concatenate([np.real(last), np.imag(last)])
        found = jnp.tensordot(jnp.asarray(apart, real), jnp.moveaxis(v.astype(real), -2, 0), 1)
        found = jax.lax.complex(*jnp.split(found, 2))
        for waves in reversed(others):
            found = jnp.tensordot(jnp.asarray(waves, dtype), jnp.moveaxis(found, -2, 0), 1)
        mixed = (found[..., None, :] @ jax.lax.complex(self.real, self.imaginary).astype(dtype))[..., 0, :]
        for axis, waves in enumerate(others):
            mixed = jnp.moveaxis(jnp.tensordot(jnp.asarray(waves.conj().T, dtype), mixed, ((1,), (axis,))), 0, axis)
        # Each mode but the zeroth of the last axis stands for its conjugate too.
        doubled = np.tile(np.where(np.arange(modes[-1]) == 0, 1, 2) / math.prod(grid), 2)
        back = jnp.asarray((doubled[:, None] * apart).T, real)
        return jnp.moveaxis(jnp.tensordot(back, jnp.concatenate([mixed.real, mixed.imag], axis=-2), ((1,), (-2,))), 0, -2)


def _plus(values: Float[Array, "*grid channels"], bias: Float[Array, " channels"]) -> Float[Array, "*grid channels"]:
    return values + bias.reshape(*(1 for _ in values.shape[1:]), -1)


def _waves(n: int, n_modes: int, is_last: bool) -> np.ndarray:
    """exp(-2πi k j / n): of both signs of k, but along the last axis."""
    k = np.arange(n_modes) if is_last else np.concatenate([np.arange(n_modes // 2), np.arange(-(n_modes // 2), 0)])
    return np.exp(-2j * math.pi / n * (k[:, None] * np.arange(n)))


class BasisNetwork(eqx.Module):
    """Channels on a grid of times and places to `n_basis` functions on it: a lift, Fourier layers, and two layers point by point.

    The grid may have any number of axes: a time and a place, or a time and two places.

    The same weights serve any grid of at least twice as many points as modes.

    **Arguments:** `n_inputs`, `n_basis`; `width`: channels; `depth`: Fourier layers; `modes`: mᵢ of every axis of the grid, which count
    for both signs but along the last; `hidden`: units of the layer before the last; `activate_last`: whether gelu is applied to the basis
    functions too, as the authors of arXiv:2402.13412 do where a solve weighs them in one dimension; `key`: weights are normal, with
    variance 2/(inputs + outputs).

    **Raises:** `ValueError` for a number below 1; when called, for a grid too coarse for the modes.

    >>> network = BasisNetwork(3, 5, width=4, depth=2, modes=(2, 3), hidden=8, key=jax.random.key(0))
    >>> eqx.filter_jit(network)(jnp.ones((8, 16, 3))).shape
    (8, 16, 5)
    """

    lift: Float[Array, "inputs width"]
    layers: tuple[SpectralLayer, ...]
    weights: tuple[Float[Array, "width hidden"], Float[Array, "hidden basis"]]
    biases: tuple[Float[Array, " hidden"], Float[Array, " basis"]]
    activate_last: bool = eqx.field(static=True)

    def __init__(
        self,
        n_inputs: int,
        n_basis: int,
        *,
        width: int = 64,
        depth: int = 5,
        modes: tuple[int, ...] = (8, 8),
        hidden: int = 128,
        activate_last: bool = True,
        key: PRNGKeyArray,
    ):
        for name, number in (
            ("n_inputs", n_inputs), ("n_basis", n_basis), ("width", width), ("depth", depth), ("modes", min(modes)), ("hidden", hidden),
        ):  # fmt: skip
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        spectral = (*(2 * m for m in modes[:-1]), modes[-1], width, width)
        shapes = [(n_inputs, width)]
        for _ in range(depth):
            shapes += [spectral, spectral, (width, width)]
        shapes += [(width, hidden), (hidden, n_basis)]
        # Drawn flat and at once: one small program, where each shape would be another.
        drawn = jax.random.normal(key, (sum(math.prod(shape) for shape in shapes),))
        parts, start = [], 0
        for shape in shapes:
            size = math.prod(shape)
            parts.append(math.sqrt(2 / (shape[-2] + shape[-1])) * drawn[start : start + size].reshape(shape))
            start += size
        self.lift = parts[0]
        self.layers = tuple(
            SpectralLayer(real, imaginary, weight, jnp.zeros(width))
            for real, imaginary, weight in zip(parts[1:-2:3], parts[2:-2:3], parts[3:-2:3], strict=True)
        )
        self.weights = (parts[-2], parts[-1])
        self.biases = (jnp.zeros(hidden), jnp.zeros(n_basis))
        self.activate_last = activate_last

    def __call__(self, inputs: Float[Array, "*grid inputs"]) -> Float[Array, "*grid basis"]:
        """Of one example."""
        v = inputs @ self.lift
        for layer in self.layers:
            v = layer(v)
        v = jax.nn.gelu(_plus(v @ self.weights[0], self.biases[0]))
        basis = _plus(v @ self.weights[1], self.biases[1])
        return jax.nn.gelu(basis) if self.activate_last else basis
