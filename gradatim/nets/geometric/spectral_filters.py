"""Filters p(L) of functions on a mesh, and maps between spectra (Bronstein et al., arXiv:2104.13478, sections 4.5, 4.6 and 5.1).

| filter | p(λ) | on another mesh |
| --- | --- | --- |
| [`spectral_filter`][gradatim.nets.geometric.spectral_filter] | one number for each eigenvector | no meaning: bases differ |
| [`chebyshev_filter`][gradatim.nets.geometric.chebyshev_filter] | Σ_k c_k T_k(2 λ/λ_max - 1), as far as its degree | the same function |
| [`cayley_filter`][gradatim.nets.geometric.cayley_filter] | c_0 + Re Σ_l c_l ((h λ - i)/(h λ + i))^l | the same function |

Each is the coefficients over `…_features`, which a network mixes as it likes, or least squares fit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradatim.numerics.sparse import symmetric_lu

from .meshes import Laplacian, Spectrum

# Factorisations that are kept, each of one matrix and one scale.
_KEPT = 8


def chebyshev_features(
    laplacian: Laplacian, x: Float[Array, "vertices channels"], degree: int, largest: Float[Array, ""] | float
) -> Float[Array, "terms vertices channels"]:
    """T_k(L̃) x for k from 0 to `degree`, by T_k = 2 L̃ T_{k-1} - T_{k-2} with L̃ = 2 L / `largest` - 1.

    **Arguments:** `laplacian`; `x`; `degree`: at least 0; `largest`: no eigenvalue may exceed it, or the terms explode:
    `laplacian.largest()` is safe. A filter for several meshes needs one number for all of them.

    **Raises:** `ValueError` for a negative degree.
    """
    if degree < 0:
        raise ValueError(f"degree must be at least 0, got {degree}")

    return _chebyshev_features(laplacian, x, degree, jnp.asarray(largest, x.dtype))


def chebyshev_filter(
    laplacian: Laplacian,
    x: Float[Array, "vertices channels"],
    coefficients: Float[Array, " terms"],
    largest: Float[Array, ""] | float,
) -> Float[Array, "vertices channels"]:
    """Σ_k c_k T_k(L̃) x, see [`chebyshev_features`][gradatim.nets.geometric.chebyshev_features].

    >>> from gradatim.nets.geometric import cotangent_laplacian, icosphere
    >>> mesh = icosphere(2)
    >>> laplacian = cotangent_laplacian(mesh)
    >>> largest = laplacian.largest()
    >>> c = chebyshev_coefficients(lambda x: jnp.exp(-0.1 * x), 20, largest)
    >>> blurred = chebyshev_filter(laplacian, mesh.vertices, c, largest)  # coordinates have the eigenvalue 2
    >>> f"{jnp.vdot(blurred, mesh.vertices) / 162:.3f}, exp(-0.2) = {np.exp(-0.2):.3f}"
    '0.819, exp(-0.2) = 0.819'
    """
    return jnp.tensordot(coefficients, chebyshev_features(laplacian, x, len(coefficients) - 1, largest), 1)


def chebyshev_coefficients(
    transfer: Callable[[Float[Array, " terms"]], Float[Array, " terms"]], degree: int, largest: Float[Array, ""] | float
) -> Float[Array, " terms"]:
    """Those of the polynomial through a transfer function at the Chebyshev points of [0, `largest`]."""
    if degree < 0:
        raise ValueError(f"degree must be at least 0, got {degree}")
    points = np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1)
    waves = np.cos(np.arange(degree + 1)[:, None] * points[None]) * 2 / (degree + 1)
    waves[0] /= 2
    return jnp.asarray(waves) @ transfer(largest * (1 + jnp.asarray(np.cos(points))) / 2)


def heat_filter(
    laplacian: Laplacian, x: Float[Array, "vertices channels"], time: Float[Array, ""] | float, *, degree: int = 32
) -> Float[Array, "vertices channels"]:
    """exp(-time L) x, the heat after a while, by a Chebyshev polynomial.

    Its error is near exp(-degree² / (time λ_max)): take a degree of 3 √(time λ_max) for three digits.

    >>> from gradatim.nets.geometric import cotangent_laplacian, icosphere
    >>> mesh = icosphere(2)
    >>> cooled = heat_filter(cotangent_laplacian(mesh), mesh.vertices, 0.5)  # coordinates have the eigenvalue 2
    >>> print(f"{jnp.vdot(cooled, mesh.vertices) / 162:.3f}, exp(-1) = {np.exp(-1):.3f}")
    0.368, exp(-1) = 0.368
    """
    if degree < 0:
        raise ValueError(f"degree must be at least 0, got {degree}")
    return _heat_filter(laplacian, x, jnp.asarray(time, x.dtype), degree)


def cayley_features(
    laplacian: Laplacian, x: Float[Array, "vertices channels"], order: int, scale: Float[Array, ""] | float
) -> Float[Array, "terms vertices channels"]:
    """x, then real and imaginary parts of ((h L - i)(h L + i)⁻¹)^l x for l from 1 to `order` (Levie et al., arXiv:1705.07664).

    Each factor has modulus 1: nothing grows, whatever the eigenvalues; `scale` h says which of them are told apart best, those near 1/h.
    Solves h K + i M by sparse LU on the host, which is kept for as long as matrix and scale stay the same. May be compiled, and
    differentiated in all arguments.

    **Raises:** `ValueError` for a negative order.

    >>> from gradatim.nets.geometric import cotangent_laplacian, icosphere
    >>> mesh = icosphere(1)
    >>> x, real, imaginary = cayley_features(cotangent_laplacian(mesh), mesh.vertices, 1, 0.5)  # h λ near 1: (1 - i)/(1 + i) = -i
    >>> print(f"{abs(jnp.vdot(real, x)) / 42:.1f}, {jnp.vdot(imaginary, x) / 42:.1f}")
    0.0, -1.0
    """
    if order < 0:
        raise ValueError(f"order must be at least 0, got {order}")
    x = jnp.asarray(x, jnp.result_type(x, laplacian.mass))
    return _cayley_features(laplacian, x, order, jnp.asarray(scale, x.dtype))


def cayley_filter(
    laplacian: Laplacian,
    x: Float[Array, "vertices channels"],
    coefficients: Float[Array, " terms"],
    scale: Float[Array, ""] | float,
) -> Float[Array, "vertices channels"]:
    """The sum of [`cayley_features`][gradatim.nets.geometric.cayley_features] with these coefficients, an odd number of them.

    **Raises:** `ValueError` for an even number.

    >>> from gradatim.nets.geometric import cotangent_laplacian, icosphere
    >>> mesh = icosphere(1)
    >>> y = cayley_filter(cotangent_laplacian(mesh), mesh.vertices, jnp.array([0.5, -0.5, 0.0]), 0.5)  # 1 / (1 + (h λ)²), λ near 2
    >>> f"{y[0, 1] / mesh.vertices[0, 1]:.2f}"
    '0.49'
    """
    if len(coefficients) % 2 == 0:
        raise ValueError(f"coefficients must be odd in number, one and then two for each order, got {len(coefficients)}")
    return jnp.tensordot(coefficients, cayley_features(laplacian, x, len(coefficients) // 2, scale), 1)


def spectral_filter(
    spectrum: Spectrum, x: Float[Array | np.ndarray, "vertices channels"], coefficients: Float[Array | np.ndarray, " k"]
) -> Float[Array, "vertices channels"]:
    """Φ diag(c) Φᵀ M x: a coefficient for each eigenvector of this mesh, in the order of its spectrum.

    On another mesh the same coefficients meet other eigenvectors, of other signs and, within an eigenspace, of another basis.

    >>> from gradatim.nets.geometric import cotangent_laplacian, icosphere, spectrum
    >>> mesh = icosphere(0)
    >>> first = spectrum(cotangent_laplacian(mesh), 4)  # the constant, and three of one eigenvalue: the coordinates
    >>> bool(jnp.allclose(spectral_filter(first, mesh.vertices, jnp.array([5.0, 1.0, 1.0, 1.0])), mesh.vertices, atol=1e-4))
    True
    """
    vectors = jnp.asarray(spectrum.eigenvectors)
    weights = (vectors * jnp.asarray(spectrum.mass)[:, None]).T @ jnp.asarray(x)
    return vectors @ (jnp.asarray(coefficients)[:, None] * weights)


def functional_map(
    source: Spectrum, target: Spectrum, places: Int[np.ndarray, " target_vertices"]
) -> Float[np.ndarray, "k_target k_source"]:
    """C, which takes coefficients of a function on the source to those of its copy on the target (Ovsjanikov et al. 2012).

    Orthogonal if the correspondence preserves areas; it commutes with the Laplacians, C Λ = Λ' C, if it preserves lengths.

    **Arguments:** spectra of both meshes; `places`: of each vertex of the target, the vertex of the source that it corresponds to.

    **Raises:** `ValueError` for a place that is no vertex of the source, or as many places as the target has no vertices.

    >>> from gradatim.nets.geometric import cotangent_laplacian, icosphere, spectrum
    >>> whole = spectrum(cotangent_laplacian(icosphere(1)), 4)
    >>> bool(np.allclose(functional_map(whole, whole, np.arange(42)), np.eye(4), atol=1e-5))
    True
    """
    if len(places) != len(target.mass) or places.min() < 0 or places.max() >= len(source.mass):
        wanted = f"{len(target.mass)} numbers from 0 to {len(source.mass) - 1}"
        raise ValueError(f"places must be {wanted}, got {len(places)} from {places.min()} to {places.max()}")
    return target.coefficients(source.eigenvectors[places])


@eqx.filter_jit
def _chebyshev_features(laplacian: Laplacian, x: Array, degree: int, largest: Array) -> Array:
    def shifted(y: Array) -> Array:
        return laplacian(y) * (2 / largest) - y

    def step(terms: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        before, now = terms
        return (now, 2 * shifted(now) - before), now

    _, rest = jax.lax.scan(step, (x, shifted(x)), length=degree)
    return jnp.concatenate([x[None], rest])


@eqx.filter_jit
def _heat_filter(laplacian: Laplacian, x: Array, time: Array, degree: int) -> Array:
    largest = laplacian.largest()
    coefficients = chebyshev_coefficients(lambda values: jnp.exp(-time * values), degree, largest)
    return chebyshev_filter(laplacian, x, coefficients.astype(x.dtype), largest)


@eqx.filter_jit
def _cayley_features(laplacian: Laplacian, x: Array, order: int, scale: Array) -> Array:
    mass = laplacian.mass[:, None]

    def matvec(y: Array) -> Array:
        return scale * laplacian.stiff(y) + 1j * mass * y

    def solve(_: Callable[[Array], Array], y: Array) -> Array:
        # Numbers of the matrix have no derivative here: that of the solution comes from `matvec`. They travel as bits, for the host's
        # thread may not know that this one is in double precision, and would round them.
        numbers = laplacian.stiffness.data, laplacian.mass, scale, y.real, y.imag
        bits = (jax.lax.bitcast_convert_type(jax.lax.stop_gradient(part).astype(x.dtype), jnp.uint32) for part in numbers)
        width = x.dtype.itemsize // 4
        shape = jax.ShapeDtypeStruct((2, *y.shape, width)[: 4 if width > 1 else 3], jnp.uint32)
        found = jax.pure_callback(functools.partial(_solve, np.dtype(x.dtype)), shape, laplacian.stiffness.indices, *bits)
        return jax.lax.complex(*jax.lax.bitcast_convert_type(found, x.dtype))

    y, terms = jax.lax.complex(x, jnp.zeros_like(x)), [x]
    for _ in range(order):
        right = scale * laplacian.stiff(y) - 1j * mass * y
        y = jax.lax.custom_linear_solve(matvec, right, solve, transpose_solve=solve, symmetric=True)
        terms += [y.real, y.imag]
    return jnp.stack(terms)


def _solve(dtype: np.dtype, indices: Any, *bits: Any) -> np.ndarray:
    """(scale K + i M)⁻¹ on the host: data and mass, the scale, and real and imaginary parts of the right side, as their bits."""
    shape = np.shape(bits[-1])[:2]
    data, mass, scale, real, imaginary = (np.ascontiguousarray(part).view(dtype).ravel().astype(np.float64) for part in bits)
    places = np.ascontiguousarray(indices)
    factors = _factors(places.tobytes(), data.tobytes(), mass.tobytes(), places.dtype.str, float(scale[0]))
    solution = factors.solve((real + 1j * imaginary).reshape(shape))
    found = np.ascontiguousarray(np.stack([solution.real, solution.imag]).astype(dtype))
    return found.view(np.uint32).reshape(2, *np.shape(bits[-1]))


@functools.lru_cache(maxsize=_KEPT)
def _factors(indices: bytes, data: bytes, mass: bytes, dtype: str, scale: float) -> Any:
    import scipy.sparse

    rows, columns = np.frombuffer(indices, dtype).reshape(-1, 2).T
    areas = np.frombuffer(mass)
    stiffness = scipy.sparse.csc_matrix((np.frombuffer(data), (rows, columns)), shape=(len(areas),) * 2)
    return symmetric_lu(scale * stiffness + 1j * scipy.sparse.diags_array(areas))
