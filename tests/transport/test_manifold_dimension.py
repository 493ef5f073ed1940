import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import (
    GaussianScore,
    SphereScore,
    VariancePreserving,
    flow_dimension,
    flow_dimension_at,
    fokker_planck_dimension,
    normal_space_dimension,
    read_flow_dimension,
)


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def sphere():
    """Each estimate at points of a sphere in four dimensions."""
    score = SphereScore(VariancePreserving())
    x = np.random.default_rng(0).normal(size=(5, 4))
    x[:, 3] = 0
    data = jnp.asarray(x / np.linalg.norm(x, axis=1)[:, None])

    def of(x, key):
        at = jnp.asarray(0.998)
        return (
            flow_dimension_at(score, score.path, x, rtol=1e-5),
            normal_space_dimension(score, score.path, x, at, key=key),
            fokker_planck_dimension(score, score.path, x, at),
        )

    return jax.jit(jax.vmap(of))(data, jax.random.split(jax.random.key(0), 5))


def test_a_datum_of_the_sphere_has_two_dimensions(sphere):
    found, normals, planck = sphere
    assert (found.by_slope == 2).all() and (found.by_gap == 2).all() and (normals == 2).all()
    np.testing.assert_allclose(found.slopes, np.broadcast_to([0.0, 0.0, 1.0, 1.0], (5, 4)), atol=0.05)
    np.testing.assert_allclose(planck, 2, atol=0.05)


def test_trap_surviving_values_need_not_be_near_one():
    vanishing = np.array([0.05, 0.005])
    read = jax.jit(read_flow_dimension)
    for size in (10.0, 0.2):
        values = jax.device_put(np.stack([np.full(2, size), np.full(2, size), vanishing], axis=1))
        found = read(values, jax.device_put(vanishing))
        assert found.by_slope == 2 and found.by_gap == 2
    # All vanish, or none: the slopes see it, and a gap cannot.
    assert read(jax.device_put(np.stack([vanishing] * 3, axis=1)), jnp.asarray(vanishing)).by_slope == 0
    assert read(jnp.ones((2, 3)), jnp.asarray(vanishing)).by_slope == 3


def test_a_value_of_zero_is_read_as_vanishing():
    found = jax.jit(read_flow_dimension)(jnp.array([[1.0, 0.1, 0.0], [1.0, 0.01, 0.0]]), jnp.array([0.1, 0.01]))
    assert found.by_slope == 2 and np.isfinite(found.slopes).all()


def test_the_rate_of_the_log_density_is_taken_where_noise_takes_the_datum():
    path, slopes = VariancePreserving(), np.linspace(0.5, 2, 65)
    x, t = np.random.default_rng(1).normal(size=65), 0.7
    # Of coordinates by themselves every probe finds the divergence.
    found = jax.jit(lambda x, t, key: fokker_planck_dimension(lambda t, x: -slopes * x, path, x, t, key=key))(x, t, jax.random.key(0))
    c = path.coefficients(t)
    np.testing.assert_allclose(found, 65 + c.m**2 * (c.a**2 * np.sum((slopes * x) ** 2) - slopes.sum()), rtol=1e-9)


def test_a_flow_starts_where_it_is_told_to():
    path, start = VariancePreserving(), 0.6
    variances = np.array([4.0, 1.0, 0.0])
    found = flow_dimension_at(GaussianScore(path, jnp.diag(jnp.asarray(variances))), path, jnp.array([1.0, 0.5, 0.0]), start=start)
    c = path.coefficients(jnp.array([start, 0.99, 0.999]))
    widths = np.sqrt(np.asarray(c.a)[:, None] ** 2 * variances + np.asarray(c.m)[:, None] ** 2)
    np.testing.assert_allclose(found.singular_values, widths[1:] / widths[:1], rtol=1e-4)


def test_bad_input_is_refused():
    path = VariancePreserving()
    score = SphereScore(path)
    with pytest.raises(ValueError, match=r"window must obey 0 < last < first < 1 - start = 1\.0, got 0\.01 and 0\.0"):
        flow_dimension(score, path, jnp.ones(3), window=(1e-2, 0.0))
    with pytest.raises(ValueError, match=r"window must obey 0 < last < first < 1 - start = 1\.0, got 0\.001 and 0\.01"):
        flow_dimension_at(score, path, jnp.ones(3), window=(1e-3, 1e-2))
    with pytest.raises(ValueError, match=r"two times and two dimensions at least, got shape \(1, 3\)"):
        read_flow_dimension(jnp.ones((1, 3)), jnp.ones(1))
    with pytest.raises(ValueError, match=r"noise must fall and stay positive, got 0\.01 to 0\.1"):
        read_flow_dimension(jnp.ones((2, 3)), jnp.array([0.01, 0.1]))
    with pytest.raises(ValueError, match="n_points must be at least the 3 dimensions, got 2"):
        normal_space_dimension(score, path, jnp.ones(3), jnp.asarray(0.9), key=jax.random.key(0), n_points=2)
