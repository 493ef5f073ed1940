"""How symmetric a Jacobian is, of a matrix or from a layered network's weights, and the angle between forward and backward weights."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .equilibrium_network import LayeredNetwork


class JacobianSymmetry(NamedTuple):
    """Norms of the two parts of J = S + A, S = (J + Jᵀ)/2, A = (J - Jᵀ)/2."""

    symmetric: Float[Array, ""]
    "‖S‖_F."
    antisymmetric: Float[Array, ""]
    "‖A‖_F."

    @property
    def score(self) -> Float[Array, ""]:
        """The share ‖S‖/(‖S‖ + ‖A‖), from 0 to 1. Near 1 by itself where small weights leave J = -I: read it beside ‖A‖."""
        return self.symmetric / (self.symmetric + self.antisymmetric)


def jacobian_symmetry(jacobian: Float[Array, "n n"]) -> JacobianSymmetry:
    """Of a matrix.

    >>> found = jacobian_symmetry(jnp.array([[0.0, 3.0], [1.0, 0.0]]))
    >>> print(f"{found.symmetric:.3f} {found.antisymmetric:.3f} {found.score:.3f}")
    2.828 1.414 0.667
    """
    return JacobianSymmetry(jnp.linalg.norm(jacobian + jacobian.T) / 2, jnp.linalg.norm(jacobian - jacobian.T) / 2)


def weight_symmetry(network: LayeredNetwork) -> JacobianSymmetry:
    """Of J = ∂G/∂r - I of a layered network, the same in every state, from its weights.

        2 ‖A‖² = Σ over pairs ‖W - Bᵀ‖² + Σ over the rest ‖W‖²,     2 ‖S‖² = 2 n + Σ over pairs ‖W + Bᵀ‖² + Σ over the rest ‖W‖²

    A layer connected to itself adds ½ ‖W - Wᵀ‖² to the one and ½ ‖W + Wᵀ - 2‖² - 2 n_layer to the other. It can be differentiated
    where it is not zero.

    >>> import jax
    >>> from gradatim.implicit import chain_connections
    >>> sizes = {"in": 3, "l1": 4, "out": 2}
    >>> network = LayeredNetwork(sizes, chain_connections(sizes), key=jax.random.key(0))
    >>> print(weight_symmetry(set_weight_angle(network, 0.0)).score)
    1.0
    """
    n_units = sum(bias.size for bias in network.biases.values())
    alone = sum((jnp.sum(network.weights[c] ** 2) for c in network.unpaired()), jnp.zeros(()))
    plus = minus = alone
    for forward, backward in network.reciprocal_pairs():
        w, b = network.weights[forward], network.weights[backward].T
        plus, minus = plus + jnp.sum((w + b) ** 2), minus + jnp.sum((w - b) ** 2)
    for connection in network.own():
        w = network.weights[connection]
        both = w + w.T - 2 * jnp.eye(len(w), dtype=w.dtype)
        plus, minus = plus + jnp.sum(both**2) / 2 - 2 * len(w), minus + jnp.sum((w - w.T) ** 2) / 2
    return JacobianSymmetry(jnp.sqrt(n_units + plus / 2), jnp.sqrt(minus / 2))


def weight_angles(network: LayeredNetwork) -> dict[str, Float[Array, ""]]:
    """The angle between the forward and the transposed backward weights of every pair, degrees, by the forward connection's name.

    >>> import jax
    >>> from gradatim.implicit import chain_connections
    >>> sizes = {"in": 3, "l1": 4, "out": 2}
    >>> network = LayeredNetwork(sizes, chain_connections(sizes), key=jax.random.key(0))
    >>> print({name: f"{angle:.3f}" for name, angle in weight_angles(set_weight_angle(network, 30.0)).items()})
    {'l1->out': '30.000'}
    """
    angles = {}
    for forward, backward in network.reciprocal_pairs():
        w, b = network.weights[forward], network.weights[backward].T
        w, b = w / jnp.linalg.norm(w), b / jnp.linalg.norm(b)
        # Not the arc cosine of their product, which loses small angles to round-off.
        angles[forward] = jnp.rad2deg(2 * jnp.arctan2(jnp.linalg.norm(w - b), jnp.linalg.norm(w + b)))
    return angles


def set_weight_angle(network: LayeredNetwork, degrees: Float[Array, ""] | float) -> LayeredNetwork:
    """The network with its backward weights turned to an angle with the forward ones, B = cos α Wᵀ + sin α B⊥.

    B⊥ is the part of the present backward weights that is orthogonal to Wᵀ, scaled to its norm, so that the angle is exact and the backward
    weights are as large as the forward ones; the authors add the backward weights as they are, which at layers of unequal widths makes
    another angle. At 0 the network is symmetric to the last bit.

    Where the present backward weights have no such part, as between two layers of one unit, 0 is the only angle; any other gives NaN.

    **Arguments:** `degrees` α: 0 to 180.

    **Raises:** `ValueError` for a network without reciprocal pairs.

    >>> import jax
    >>> from gradatim.implicit import chain_connections
    >>> sizes = {"in": 3, "l1": 4, "out": 2}
    >>> network = set_weight_angle(LayeredNetwork(sizes, chain_connections(sizes), key=jax.random.key(0)), 0.0)
    >>> print((network.weights["out->l1"] == network.weights["l1->out"].T).all())
    True
    """
    pairs = network.reciprocal_pairs()
    if not pairs:
        raise ValueError(f"network must have a connection that leads back between two layers, got {', '.join(network.weights)}")
    radians = jnp.deg2rad(jnp.asarray(degrees))
    turned = []
    for forward, backward in pairs:
        w = network.weights[forward].T
        b = network.weights[backward]
        b = b - w * (jnp.sum(w * b) / jnp.sum(w**2))
        b = b * (jnp.linalg.norm(w) / jnp.linalg.norm(b))
        sine, cosine = (f(radians).astype(w.dtype) for f in (jnp.sin, jnp.cos))
        turned.append(cosine * w + jnp.where(sine == 0, 0, sine * b))
    return eqx.tree_at(lambda n: [n.weights[backward] for _, backward in pairs], network, turned)
