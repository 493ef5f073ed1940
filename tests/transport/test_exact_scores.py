import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import CondOT, EmpiricalScore, GaussianScore, SphereScore, VariancePreserving

TIME = 0.6
POINTS = np.random.default_rng(0).normal(size=(5, 4))


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def seen():
    """Each score at several points, and the gradient of each log density."""
    path = CondOT()
    data = np.random.default_rng(1).normal(size=(6, 4))
    normal = np.random.default_rng(2).normal(size=(4, 4))
    scores = {
        "normal": GaussianScore(path, jax.device_put(normal @ normal.T)),
        "sphere": SphereScore(path),
        "points": EmpiricalScore(path, jax.device_put(data)),
    }

    @jax.jit
    def both(scores, x):
        t = jnp.asarray(TIME)
        return {name: (score(t, x), jax.grad(score.log_density, 1)(t, x), score.log_density(t, x)) for name, score in scores.items()}

    found = jax.jit(jax.vmap(both, (None, 0)))(scores, jax.device_put(POINTS))
    return found, normal @ normal.T, data


@pytest.mark.parametrize("name", ["normal", "sphere", "points"])
def test_the_score_is_the_gradient_of_the_log_density(seen, name):
    score, gradient, _ = seen[0][name]
    np.testing.assert_allclose(score, gradient, rtol=1e-9, atol=1e-9)


def test_log_densities_are_normalised(seen):
    from scipy import stats

    found, covariance, data = seen
    a, m = TIME, 1 - TIME
    normal = stats.multivariate_normal(np.zeros(4), a**2 * covariance + m**2 * np.eye(4))
    np.testing.assert_allclose(found["normal"][2], normal.logpdf(POINTS), rtol=1e-9)
    parts = [stats.multivariate_normal(a * x, m**2 * np.eye(4)).pdf(POINTS) for x in data]
    np.testing.assert_allclose(found["points"][2], np.log(np.mean(parts, axis=0)), rtol=1e-9)
    # Gauss and Legendre over the height: the mean over a sphere of exp(a u · s / m²) sees the angle to u alone.
    height, weights = np.polynomial.legendre.leggauss(60)
    rho = np.linalg.norm(POINTS[:, :3], axis=1)
    mean = np.exp(a * rho[:, None] * height / m**2) @ weights / 2
    expected = np.log(mean) - (rho**2 + a**2 + POINTS[:, 3] ** 2) / (2 * m**2) - 2 * np.log(2 * np.pi * m**2)
    np.testing.assert_allclose(found["sphere"][2], expected, rtol=1e-9)


def test_trap_langevin_is_stable_from_the_centre_to_far_away():
    score = SphereScore(VariancePreserving())
    times = np.array([0.3, 0.3, 0.3, 0.9, 0.999])
    radii = np.array([0.0, 1e-9, 0.3, 0.8, 1.7])
    at = jax.jit(jax.vmap(lambda t, rho: jax.value_and_grad(lambda rho: score(t, jnp.array([0.0, 0.0, rho]))[2])(rho)))
    value, slope = map(np.asarray, at(times, radii))
    c = jax.jit(VariancePreserving().coefficients)(times)
    a, v = np.asarray(c.a), np.asarray(c.m) ** 2
    kappa = a * np.maximum(radii, 1e-300) / v
    with np.errstate(over="ignore"):
        langevin = np.where(kappa > 1e-3, 1 / np.tanh(kappa) - 1 / kappa, kappa / 3)
    np.testing.assert_allclose(value, -radii / v + a / v * langevin, rtol=1e-10, atol=1e-12)
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(slope[:2], (a**2 / v / 3 - 1)[:2] / v[:2], rtol=1e-9)


def test_single_precision_stays_so_and_is_close():
    score = SphereScore(VariancePreserving())
    x = jnp.array([0.2, 0.1, 0.05])
    of = jax.jit(score)
    single = of(jnp.asarray(0.7, jnp.float32), x.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, of(jnp.asarray(0.7), x), rtol=1e-4)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="covariance must be symmetric and positive semi-definite, got"):
        GaussianScore(CondOT(), jnp.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(ValueError, match="a point near the sphere must have at least 3 coordinates, got 2"):
        SphereScore(CondOT())(jnp.asarray(0.5), jnp.ones(2))


def test_a_covariance_that_is_not_symmetric_is_refused():
    with pytest.raises(ValueError, match="covariance must be symmetric and positive semi-definite, got"):
        GaussianScore(CondOT(), jnp.array([[1.0, 0.5], [0.0, 1.0]]))
