"""Divergence of a vector field and asymmetry of its Jacobian: exactly, or from a few products with random probes.

    div F = tr J = E[εᵀ J ε],     ‖A‖²_F = ½ E[‖J ε‖² - εᵀ J² ε],     J = ∂F/∂x,  A = (J - Jᵀ)/2,  E[ε εᵀ] = I

(Hutchinson 1990, Communications in Statistics 19, for the trace; the second is the trace of JᵀJ - J², of which εᵀ J² ε needs no product
with Jᵀ.) A field of one point: batch with `jax.vmap`. Only forward products are taken, so each function can itself be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

Distribution = Literal["gaussian", "rademacher"]


def divergence(field: Callable[[PyTree], PyTree], x: PyTree) -> Float[Array, ""]:
    """The divergence div F = Σᵢ ∂Fᵢ/∂xᵢ at a point, by one forward product for each of its D coordinates.

    **Arguments:** `field`: from a point to a vector of the point's own structure and shapes; `x`: the point, an array of any shape or a
    pytree of arrays.

    **Raises:** `ValueError` where the field's value has another size than the point.

    >>> print(divergence(lambda x: x**2, jnp.array([1.0, 2.0, 3.0])))
    12.0
    """
    flat, product = _products(field, x)
    basis = jnp.eye(flat.size, dtype=flat.dtype)
    return jnp.sum(jax.vmap(lambda e: product(e) @ e)(basis))


def hutchinson_divergence(
    field: Callable[[PyTree], PyTree], x: PyTree, key: PRNGKeyArray, *, n_probes: int = 1, distribution: Distribution = "rademacher"
) -> Float[Array, ""]:
    """An unbiased estimate of the divergence, the mean of εᵀ J ε over `n_probes` random probes (Hutchinson 1990).

    **Arguments:** `field`, `x`: as for [`divergence`][gradatim.numerics.divergence]; `key`: draws the probes; `n_probes`: at least one;
    `distribution`: `"rademacher"`, signs, has the least variance, 2 Σ_{i≠j} S²ᵢⱼ with S = (J + Jᵀ)/2 for one probe; `"gaussian"` has
    2 ‖S‖²_F.

    **Raises:** `ValueError` for fewer than one probe, or a value of another size than the point.

    >>> print(hutchinson_divergence(lambda x: x**2, jnp.array([1.0, 2.0, 3.0]), jax.random.key(0)))
    12.0
    """
    flat, product = _products(field, x)
    return jnp.mean(jax.vmap(lambda e: product(e) @ e)(_draw(key, flat, n_probes, distribution)))


def jacobian_asymmetry(field: Callable[[PyTree], PyTree], x: PyTree) -> Float[Array, ""]:
    """How far a field is from a gradient at a point, ‖(J - Jᵀ)/2‖²_F, by one forward product for each coordinate.

    Zero everywhere is what makes a field on a simply connected domain the gradient of a potential. Holds the D × D Jacobian.

    **Arguments, raises:** as for [`divergence`][gradatim.numerics.divergence].

    >>> print(jacobian_asymmetry(lambda x: jnp.array([-x[1], x[0]]), jnp.array([1.0, 2.0])))
    2.0
    """
    flat, product = _products(field, x)
    jacobian = jax.vmap(product, out_axes=1)(jnp.eye(flat.size, dtype=flat.dtype))
    return jnp.sum((jacobian - jacobian.T) ** 2) / 4


def hutchinson_asymmetry(
    product: Callable[[PyTree], PyTree], like: PyTree, key: PRNGKeyArray, *, n_probes: int = 1, distribution: Distribution = "rademacher"
) -> Float[Array, ""]:
    """An unbiased estimate of ‖(J - Jᵀ)/2‖²_F from products with J alone, ½ (‖J ε‖² - εᵀ J (J ε)) averaged over random probes.

    Exactly zero for every probe where J is symmetric; a single probe may be negative where it is not.

    **Arguments:** `product`: the linear map v ↦ J v, such as `jax.linearize(field, x)[1]`; `like`: arrays of the shapes that it takes and
    gives; `key`, `n_probes`, `distribution`: as for [`hutchinson_divergence`][gradatim.numerics.hutchinson_divergence].

    **Raises:** `ValueError` for fewer than one probe, or a product of another size than `like`.

    >>> turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])
    >>> print(hutchinson_asymmetry(lambda v: turn @ v, jnp.zeros(2), jax.random.key(0)))
    2.0
    """
    flat, unravel = ravel_pytree(like)
    _check_size(jax.eval_shape(product, like), flat)

    def value(e: Float[Array, " n"]) -> Float[Array, ""]:
        once = product(unravel(e))
        twice, _ = ravel_pytree(product(once))
        once, _ = ravel_pytree(once)
        return (once @ once - e @ twice) / 2

    return jnp.mean(jax.vmap(value)(_draw(key, flat, n_probes, distribution)))


def _products(
    field: Callable[[PyTree], PyTree], x: PyTree
) -> tuple[Float[Array, " n"], Callable[[Float[Array, " n"]], Float[Array, " n"]]]:
    flat, unravel = ravel_pytree(x)
    _check_size(jax.eval_shape(field, x), flat)

    def product(vector: Float[Array, " n"]) -> Float[Array, " n"]:
        return jax.jvp(lambda point: ravel_pytree(field(unravel(point)))[0], (flat,), (vector,))[1]

    return flat, product


def _check_size(value: PyTree, flat: Float[Array, " n"]) -> None:
    size = sum(leaf.size for leaf in jax.tree.leaves(value))
    if size != flat.size:
        raise ValueError(f"the value must have the size of the point, {flat.size}, got {size}")


def _draw(key: PRNGKeyArray, flat: Float[Array, " n"], n_probes: int, distribution: Distribution) -> Float[Array, "probes n"]:
    if n_probes < 1:
        raise ValueError(f"n_probes must be at least 1, got {n_probes}")
    if distribution not in ("gaussian", "rademacher"):
        raise ValueError(f"distribution must be 'gaussian' or 'rademacher', got {distribution!r}")
    # Drawn flat: XLA compiles draws with several axes many times slower.
    draw = jax.random.rademacher if distribution == "rademacher" else jax.random.normal
    return draw(key, (n_probes * flat.size,), flat.dtype).reshape(n_probes, flat.size)
