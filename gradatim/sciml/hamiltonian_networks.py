"""Networks whose output is an energy: of one particle, and of several as a graph (arXiv:2212.01168).

    hᵢ ← σ(W hᵢ + Σ_{j≠i} aᵢⱼ V hⱼ + b),     h⁰ᵢ = (qᵢ, pᵢ),     H = Σᵢ (w·hᵢ + c),     aᵢⱼ = 1/(n - 1)

on the complete graph of n particles. A particle alone has no neighbour, and the graph network is then the perceptron with the same W.
With a mask n counts the particles that are present, and sums are over these.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

Activation = Callable[[Array], Array]
"Entry by entry, with a second derivative."


def mish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """X tanh(log(1 + eˣ)) (Misra, arXiv:1908.08681), cheap to differentiate several times.

        s = n/(n + 2),     n = u(u + 2),     u = eˣ;     s' = (1 - s²) sigmoid(x)

    The numbers of `jax.nn.mish`, which meta-learning of a field differentiates four times, logarithm, tanh and all; here every
    derivative is a product of s, the sigmoid and x.

    >>> print(f"{mish(jnp.array(1.0)):.6f} {mish(jnp.array(-1.0)):.6f}")
    0.865098 -0.303401
    """
    return x * _tanh_softplus(x)


@jax.custom_jvp
def _tanh_softplus(x: Array) -> Array:
    # Beyond 20 it is one to the last digit of double precision.
    u = jnp.exp(jnp.minimum(x, 20))
    n = u * (u + 2)
    return n / (n + 2)


@_tanh_softplus.defjvp
def _tanh_softplus_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    s = _tanh_softplus(*primals)
    return s, (1 - s * s) * jax.nn.sigmoid(primals[0]) * tangents[0]


class HamiltonianMLP(eqx.Module):
    """H(x) of a flat state (q, p) by a perceptron; weights are normal with variance 1/inputs, biases start at zero.

    The read-out's bias shifts the energy and nothing else: its gradient is zero under any loss of the field.

    **Arguments:** `size`: of a state, even; `width`, `depth`: of the hidden layers; `activation`: smooth; a module, too, whose arrays
    then belong to the network.

    **Raises:** `ValueError` for an odd size or a width or depth below 1.

    >>> network = HamiltonianMLP(4, 8, 2, key=jax.random.key(0))
    >>> print(f"{network(jnp.zeros(4)):.1f}", network.features(jnp.ones(4)).shape)
    0.0 (8,)
    """

    weights: tuple[Float[Array, "outputs inputs"], ...]
    biases: tuple[Float[Array, " outputs"], ...]
    readout: Float[Array, " width"]
    readout_bias: Float[Array, ""]
    activation: Activation

    def __init__(self, size: int, width: int, depth: int, activation: Activation = mish, *, key: PRNGKeyArray) -> None:
        if size < 2 or size % 2:
            raise ValueError(f"size must be even, q and p together, got {size}")
        for name, number in (("width", width), ("depth", depth)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        sizes = [size, *(width for _ in range(depth))]
        layers = [(outputs, inputs) for inputs, outputs in pairwise(sizes)]
        *self_weights, readout = normal_matrices(key, [*layers, (1, width)])
        self.weights, self.readout = tuple(self_weights), readout[0]
        self.biases = tuple(jnp.zeros(outputs, readout.dtype) for outputs, _ in layers)
        self.readout_bias = jnp.zeros((), readout.dtype)
        self.activation = activation

    def features(self, x: Float[Array, " size"]) -> Float[Array, " width"]:
        """The last hidden layer."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = self.activation(weight @ x + bias)
        return x

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, ""]:
        """The energy of a state."""
        return self.readout @ self.features(x) + self.readout_bias


class HamiltonianGCN(eqx.Module):
    """H of n particles by a graph network that holds, for each particle, a perceptron of its own q and p, and links between them.

    A perceptron that has been trained on one particle goes on as the graph network of many. H does not change when particles change
    places; total momentum is not conserved, for H sees places and not their differences.

    **Arguments:** `particle`: what each does alone, of a state (qᵢ, pᵢ) in d dimensions; `n_particles` ≥ 1; `key`: draws the links,
    normal with variance 1/inputs.

    A mask `present` says which particles a state has: those that it lacks, whatever stands in their places, add nothing to the energy
    and have no gradient, so that states of different numbers of particles fit one shape ([`pad_particles`][gradatim.sciml.pad_particles]).

    **Raises:** `ValueError` for fewer than one particle; for a state of a size other than that of the particles together.

    >>> one = HamiltonianMLP(4, 8, 2, key=jax.random.key(0))
    >>> x = jnp.array([0.1, -0.2, 0.3, 0.4])
    >>> print(f"{abs(HamiltonianGCN(one, 1, key=jax.random.key(1))(x) - one(x)):.5f}")
    0.00000
    >>> two, present = HamiltonianGCN(one, 2, key=jax.random.key(1)), jnp.array([True, False])
    >>> print(f"{abs(two(jnp.array([0.1, -0.2, 7.0, 7.0, 0.3, 0.4, 7.0, 7.0]), present) - one(x)):.5f}")
    0.00000
    """

    particle: HamiltonianMLP
    links: tuple[Float[Array, "outputs inputs"], ...]
    n_particles: int = eqx.field(static=True)

    def __init__(self, particle: HamiltonianMLP, n_particles: int, *, key: PRNGKeyArray) -> None:
        if n_particles < 1:
            raise ValueError(f"n_particles must be at least 1, got {n_particles}")
        shapes = [(weight.shape[0], weight.shape[1]) for weight in particle.weights]
        self.particle, self.n_particles = particle, n_particles
        self.links = tuple(normal_matrices(key, shapes))

    def features(self, x: Float[Array, " all"], present: Bool[Array, " n"] | None = None) -> Float[Array, "n width"]:
        """The last hidden layer of each particle; zero for those that are not present."""
        n, size = self.n_particles, self.particle.weights[0].shape[1]
        if x.shape != (n * size,):
            raise ValueError(f"the state of {n} particles must have shape ({n * size},), got {x.shape}")
        if present is not None and present.shape != (n,):
            raise ValueError(f"present must have shape ({n},), got {present.shape}")
        h = _where_present(present, x.reshape(2, n, size // 2).transpose(1, 0, 2).reshape(n, size))
        n_others = n - 1 if present is None else jnp.maximum(jnp.sum(present, dtype=h.dtype) - 1, 1)
        for weight, link, bias in zip(self.particle.weights, self.links, self.particle.biases, strict=True):
            before = h @ weight.T + bias[None]
            if n > 1:
                others = (jnp.sum(h, axis=0, keepdims=True) - h) / n_others
                before = before + others @ link.T
            h = _where_present(present, self.particle.activation(before))
        return h

    def __call__(self, x: Float[Array, " all"], present: Bool[Array, " n"] | None = None) -> Float[Array, ""]:
        """The energy of a state: all coordinates, particle by particle, then all momenta."""
        return jnp.sum(self.features(x, present) @ self.particle.readout + self.particle.readout_bias, where=present)


def _where_present(present: Bool[Array, " n"] | None, h: Float[Array, "n size"]) -> Float[Array, "n size"]:
    return h if present is None else jnp.where(present[:, None], h, 0)


def normal_matrices(key: PRNGKeyArray, shapes: list[tuple[int, int]]) -> list[Float[Array, "outputs inputs"]]:
    """Matrices with entries of variance 1/inputs, cut from one flat draw."""
    sizes = [outputs * inputs for outputs, inputs in shapes]
    draws = jax.random.normal(key, (sum(sizes),))
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [
        draws[end - size : end].reshape(outputs, inputs) / inputs**0.5
        for end, size, (outputs, inputs) in zip(ends, sizes, shapes, strict=True)
    ]
