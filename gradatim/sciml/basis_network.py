"""A network of Fourier layers that supplies basis functions on a grid (Li et al., arXiv:2010.08895)."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class SpectralLayer(eqx.Module):
    """gelu(K v + W v + c): K acts on the lowest Fourier modes of both axes alone, W on channels, point by point.

        (K v)(t, x) = F⁻¹( R_k · F(v)_k ),     k_t = -m_t … m_t - 1,     k_x = 0 … m_x - 1

    F is the real discrete transform of both axes, of which so few modes are kept that two products with short matrices are cheaper than
    a fast transform. Everything is real: real and imaginary parts have leaves of their own, so that any optimiser takes them.
    """

    real: Float[Array, "modes_t modes_x inputs outputs"]
    imaginary: Float[Array, "modes_t modes_x inputs outputs"]
    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def __call__(self, v: Float[Array, "times places inputs"]) -> Float[Array, "times places outputs"]:
        """Of one example."""
        return jax.nn.gelu(self.spectral(v) + v @ self.weight + self.bias[None, None])

    def spectral(self, v: Float[Array, "times places inputs"]) -> Float[Array, "times places outputs"]:
        """K v."""
        n_t, n_x, n_modes, m_x = *v.shape[:2], *self.real.shape[:2]
        if n_modes > n_t or m_x > n_x // 2:
            raise ValueError(f"the grid must have at least {n_modes} times and {2 * m_x} places for these modes, got {n_t} and {n_x}")
        dtype = jnp.result_type(v, jnp.complex64)
        k_t = jnp.concatenate([jnp.arange(n_modes // 2), jnp.arange(-(n_modes // 2), 0)])
        along_t = jnp.exp(-2j * math.pi / n_t * (k_t[:, None] * jnp.arange(n_t)[None])).astype(dtype)
        along_x = jnp.exp(-2j * math.pi / n_x * (jnp.arange(m_x)[:, None] * jnp.arange(n_x)[None])).astype(dtype)
        modes = jnp.einsum("lx,txc->tlc", along_x, v.astype(dtype))
        modes = jnp.einsum("kt,tlc->klc", along_t, modes)
        mixed = jnp.einsum("klc,klcd->kld", modes, self.real + 1j * self.imaginary)
        back = jnp.einsum("kt,kld->tld", along_t.conj(), mixed)
        # Each mode but the zeroth of the last axis stands for its conjugate too.
        doubled = jnp.where(jnp.arange(m_x) == 0, 1, 2).astype(v.dtype) / (n_t * n_x)
        cos, sin = doubled[:, None] * along_x.real, doubled[:, None] * along_x.imag
        return jnp.einsum("lx,tld->txd", cos, back.real) + jnp.einsum("lx,tld->txd", sin, back.imag)


class BasisNetwork(eqx.Module):
    """Channels on a grid of times and places to `n_basis` functions on it: a lift, Fourier layers, and two layers point by point.

    The same weights serve any grid of at least twice as many points as modes.

    **Arguments:** `n_inputs`, `n_basis`; `width`: channels; `depth`: Fourier layers; `modes`: m_t and m_x, of which those along t count for
    both signs; `hidden`: units of the layer before the last; `activate_last`: whether gelu is applied to the basis functions too, as the
    authors of arXiv:2402.13412 do where a solve weighs them; `key`: weights are normal, with variance 2/(inputs + outputs).

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
        modes: tuple[int, int] = (8, 8),
        hidden: int = 128,
        activate_last: bool = True,
        key: PRNGKeyArray,
    ):
        for name, number in (
            ("n_inputs", n_inputs), ("n_basis", n_basis), ("width", width), ("depth", depth), ("modes", min(modes)), ("hidden", hidden),
        ):  # fmt: skip
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        spectral = (2 * modes[0], modes[1], width, width)
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

    def __call__(self, inputs: Float[Array, "times places inputs"]) -> Float[Array, "times places basis"]:
        """Of one example."""
        v = inputs @ self.lift
        for layer in self.layers:
            v = layer(v)
        v = jax.nn.gelu(v @ self.weights[0] + self.biases[0][None, None])
        basis = v @ self.weights[1] + self.biases[1][None, None]
        return jax.nn.gelu(basis) if self.activate_last else basis
