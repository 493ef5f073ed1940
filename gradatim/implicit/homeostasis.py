"""The homeostatic loss (Laborieux & Zenke, arXiv:2309.02214): a more symmetric Jacobian, without a product with its transpose."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from gradatim.numerics import hutchinson_asymmetry

from .equilibrium_network import AbstractEquilibriumNetwork


def homeostatic_loss(
    network: AbstractEquilibriumNetwork, x: Array, activity: PyTree[Array], key: PRNGKeyArray, *, n_probes: int = 5
) -> Float[Array, ""]:
    """An unbiased estimate of 2 ‖A‖²_F / n, A = (J - Jᵀ)/2 with J = ∂G/∂r at the free equilibrium and n units.

        E‖J ε‖² - E εᵀ J² ε = 2 ‖A‖²_F,     ε standard normal: two products with J for each probe

    To be added to a loss with a coefficient; its own derivative is the parameters' alone, the activities are held fixed. Where J is
    symmetric the estimate is zero for every probe, its gradient only in the mean: a symmetric network is still shaken a little. A multiple
    of the identity added to J changes neither.

    In a [`LayeredNetwork`][gradatim.implicit.LayeredNetwork], whose field is linear in the activities, the value is known in closed form,

        2 ‖A‖²_F = Σ over pairs ‖W - Bᵀ‖²_F + Σ over connections without a partner ‖W‖²_F + Σ over a layer's own ½ ‖W - Wᵀ‖²_F

    ([`weight_symmetry`][gradatim.implicit.weight_symmetry]): there the loss pulls both weights of a pair towards each other's transpose, as
    the rule of Kolen and Pollack does, and is weight decay on the rest. It depends on the state only where the field is not linear.

    **Arguments:** `network`, `x`, `activity` r: one input and its free equilibrium's activities; `key`: draws the probes; `n_probes` ≥ 1.

    **Raises:** `ValueError` for fewer than one probe.

    >>> from gradatim.implicit import LayeredNetwork, chain_connections, weight_symmetry
    >>> sizes = {"in": 3, "l1": 4, "out": 2}
    >>> network = LayeredNetwork(sizes, chain_connections(sizes), key=jax.random.key(0))
    >>> x, activity = jax.numpy.ones(3), {"l1": jax.numpy.ones(4), "out": jax.numpy.ones(2)}
    >>> estimate = homeostatic_loss(network, x, activity, jax.random.key(1), n_probes=10_000)
    >>> print(f"{estimate:.2f} {2 * weight_symmetry(network).antisymmetric ** 2 / 6:.2f}")
    0.31 0.31
    """
    held = jax.lax.stop_gradient(activity)
    drive = network.drive(jax.lax.stop_gradient(x))

    def product(v: PyTree[Array]) -> PyTree[Array]:
        return jax.jvp(lambda r: network.field(r, drive), (held,), (v,))[1]

    n_units = sum(leaf.size for leaf in jax.tree.leaves(held))
    return 2 * hutchinson_asymmetry(product, held, key, n_probes=n_probes, distribution="gaussian") / n_units
