import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets.geometric import (
    cayley_features,
    cayley_filter,
    chebyshev_coefficients,
    chebyshev_features,
    chebyshev_filter,
    cotangent_laplacian,
    functional_map,
    heat_filter,
    icosphere,
    spectral_filter,
    spectrum,
)

AGREEMENT = 1e-10
"Relative, of a filter and its form by eigenvectors, in double precision."
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def everything_in_double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def mesh():
    return icosphere(2)


@pytest.fixture(scope="module")
def laplacian(mesh):
    return cotangent_laplacian(mesh)


@pytest.fixture(scope="module")
def whole(laplacian):
    return spectrum(laplacian, 162)


@pytest.fixture(scope="module")
def x():
    return jax.device_put(RANDOM.normal(size=(162, 2)))


def through_eigenvectors(whole, values, x):
    return whole.eigenvectors @ (values[:, None] * whole.coefficients(np.asarray(x)))


def test_oracle_chebyshev_is_its_eigenvalue_form(laplacian, whole, x):
    coefficients, largest = RANDOM.normal(size=9), float(laplacian.largest())
    values = np.polynomial.chebyshev.chebval(2 * whole.eigenvalues / largest - 1, coefficients)
    found = chebyshev_filter(laplacian, x, jax.device_put(coefficients), largest)
    np.testing.assert_allclose(found, through_eigenvectors(whole, values, x), atol=AGREEMENT)


def test_oracle_cayley_is_its_eigenvalue_form(laplacian, whole, x):
    coefficients, h = RANDOM.normal(size=7), 0.05
    ratio = (h * whole.eigenvalues - 1j) / (h * whole.eigenvalues + 1j)
    np.testing.assert_allclose(abs(ratio), 1, atol=1e-14)
    values = coefficients[0] + sum(coefficients[2 * k - 1] * (ratio**k).real + coefficients[2 * k] * (ratio**k).imag for k in (1, 2, 3))
    found = cayley_filter(laplacian, x, jax.device_put(coefficients), h)
    np.testing.assert_allclose(found, through_eigenvectors(whole, values, x), atol=AGREEMENT)


def test_oracle_a_polynomial_reaches_as_many_rings_as_its_degree(mesh, laplacian):
    reached = np.asarray(chebyshev_features(laplacian, jax.device_put(np.eye(162)[:, :2]), 8, float(laplacian.largest())))[:5, :, 0]
    u, v = np.asarray(mesh.edges).T
    adjacent = np.eye(162, dtype=bool)
    adjacent[u, v] = adjacent[v, u] = True
    ball = np.arange(162) == 0
    for terms in reached:
        assert (terms[~ball] == 0).all() and (terms != 0).sum() <= ball.sum()
        ball = adjacent[:, ball].any(axis=1)


def test_a_rational_filter_reaches_everywhere(laplacian):
    reached = np.asarray(cayley_features(laplacian, jax.device_put(np.eye(162)[:, :2]), 3, 0.05))
    assert (reached[1, :, 0] != 0).all()


def test_heat_is_the_exponential(laplacian, whole, x):
    found = heat_filter(laplacian, x, 0.05, degree=40)
    np.testing.assert_allclose(found, through_eigenvectors(whole, np.exp(-0.05 * whole.eigenvalues), x), atol=1e-9)
    np.testing.assert_allclose(spectral_filter(whole, x, np.exp(-0.05 * whole.eigenvalues)), found, atol=1e-9)


def test_coefficients_interpolate():
    c = chebyshev_coefficients(lambda values: values**3 - values, 3, 2.0)
    points = np.linspace(0, 2, 7)
    np.testing.assert_allclose(np.polynomial.chebyshev.chebval(points - 1, c), points**3 - points, atol=1e-13)


def test_trap_an_underestimated_largest_eigenvalue_explodes(laplacian, whole, x):
    top = whole.eigenvalues[-1]
    bounds = float(laplacian.largest()), top / 2
    safe, small = (np.abs(np.asarray(chebyshev_features(laplacian, x, 40, bound))[-1]).max() for bound in bounds)
    assert safe < 10 and small > 1e6


def test_trap_signs_of_eigenvectors_matter_to_no_filter_of_one_mesh(whole, x):
    flipped = whole._replace(eigenvectors=whole.eigenvectors * RANDOM.choice([-1, 1], 162))
    values = RANDOM.normal(size=162)
    np.testing.assert_allclose(spectral_filter(flipped, x, values), spectral_filter(whole, x, values), atol=AGREEMENT)


def test_derivatives_of_a_rational_filter(laplacian, x):
    coefficients, way = jnp.asarray(RANDOM.normal(size=7)), jnp.asarray(RANDOM.normal(size=(162, 2)))

    def loss(signal, scale):
        return (cayley_filter(laplacian, signal, coefficients, scale) ** 2).sum()

    both, step = jax.jit(jax.value_and_grad(loss, (0, 1))), 1e-6
    _, (by_x, by_scale) = both(x, 0.05)
    along_x = both(x + step * way, 0.05)[0] - both(x - step * way, 0.05)[0]
    along_scale = both(x, 0.05 + step)[0] - both(x, 0.05 - step)[0]
    np.testing.assert_allclose((np.asarray(by_x) * np.asarray(way)).sum(), along_x / (2 * step), rtol=1e-6)
    np.testing.assert_allclose(by_scale, along_scale / (2 * step), rtol=1e-6)


def test_functional_maps_of_an_isometry_are_orthogonal_and_commute(mesh, laplacian, whole):
    order = RANDOM.permutation(162)
    # Stretched, so that all its eigenvalues are different.
    stretched = mesh.moved(mesh.vertices * jnp.array([[1.0, 1.2, 1.5]]))
    source, target = (spectrum(cotangent_laplacian(m), 20) for m in (stretched, stretched.relabelled(order)))
    c = functional_map(source, target, order)
    np.testing.assert_allclose(c @ c.T, np.eye(20), atol=1e-8)
    np.testing.assert_allclose(c * source.eigenvalues[None], target.eigenvalues[:, None] * c, atol=1e-6)
    x = np.asarray(stretched.vertices[:, :1])
    np.testing.assert_allclose(c @ source.coefficients(x), target.coefficients(x[order]), atol=1e-2)


def test_functional_maps_of_a_remeshed_surface_mix_only_within_eigenspaces(whole):
    # The vertices of a sphere are the first of the next finer one.
    fine = spectrum(cotangent_laplacian(icosphere(3)), 9)
    coarse = whole._replace(eigenvalues=whole.eigenvalues[:9], eigenvectors=whole.eigenvectors[:, :9])
    c = functional_map(fine, coarse, np.arange(162))
    spaces = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2])
    assert np.abs(c[spaces[:, None] != spaces[None]]).max() < 1e-2
    np.testing.assert_allclose(c @ c.T, np.eye(9), atol=0.05)


def test_what_cannot_be_is_refused(laplacian, whole, x):
    with pytest.raises(ValueError, match="degree must be at least 0, got -1"):
        chebyshev_features(laplacian, x, -1, 1.0)
    with pytest.raises(ValueError, match="degree must be at least 0, got -2"):
        chebyshev_coefficients(jnp.exp, -2, 1.0)
    with pytest.raises(ValueError, match="order must be at least 0, got -1"):
        cayley_features(laplacian, x, -1, 1.0)
    with pytest.raises(ValueError, match="coefficients must be odd in number, one and then two for each order, got 2"):
        cayley_filter(laplacian, x, jnp.ones(2), 1.0)
    with pytest.raises(ValueError, match="places must be 162 numbers from 0 to 161, got 3 from 0 to 2"):
        functional_map(whole, whole, np.arange(3))
