import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import (
    CondOT,
    GaugeField,
    GaussianScore,
    ScoreFlow,
    SumOfFields,
    Trigonometric,
    VariancePreserving,
    drift_and_noise,
    flow_dimension,
    flow_dimension_at,
    flow_log_likelihood,
    kinetic_optimal_path,
    sample_reverse_diffusion,
    separation_of_gap,
)

COVARIANCE = np.array([[1.5, 0.6], [0.6, 0.5]])
TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])
DATUM = np.array([1.0, -0.3])
CLOSE = 1e-6  # the path is singular at the data themselves
TOLERANCE = 1e-8  # of a solver at rtol 1e-10
PRINTED = 2e-5  # digits known of the oracles at the data, and the last stretch


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def likelihoods():
    """Of one datum for the score of a normal density, with c J ∇ log p and with c J x beside it."""
    path = VariancePreserving()
    exact = GaussianScore(path, jnp.asarray(COVARIANCE))

    def of(gauge, rotation):
        field = SumOfFields(exact, GaugeField(exact, jnp.asarray(TURN)), gauge)
        field = SumOfFields(field, lambda t, x: jnp.asarray(TURN) @ x, rotation)

        def prior(x):
            return exact.log_density(jnp.zeros(()), x)

        return flow_log_likelihood(field, path, jnp.asarray(DATUM), end=1 - CLOSE, prior=prior, rtol=1e-10, atol=1e-12)

    strengths = np.array([[0.0, 0.0], [0.5, 0.0], [2.0, 0.0], [0.0, 0.5], [0.0, 2.0]])
    found = jax.jit(jax.vmap(of))(*jax.device_put(strengths.T))
    return exact, found


def test_o2_likelihood_does_not_depend_on_a_gauge_part(likelihoods):
    exact, found = likelihoods
    at_the_end = -0.5 * DATUM @ np.linalg.solve(COVARIANCE, DATUM) - np.log(2 * np.pi) - 0.5 * np.log(np.linalg.det(COVARIANCE))
    np.testing.assert_allclose(at_the_end, -2.6427138, atol=1e-7)
    np.testing.assert_allclose(found.log_density[:3], exact.log_density(jnp.asarray(1 - CLOSE), jnp.asarray(DATUM)), atol=TOLERANCE)
    np.testing.assert_allclose(found.log_density[:3], at_the_end, atol=PRINTED)


def test_o2_a_gauge_part_changes_where_the_flow_comes_from(likelihoods):
    expected = [[1.1589, -1.0992], [-1.5709, 0.2889], [0.0341, 1.5969]]
    np.testing.assert_allclose(likelihoods[1].noise[:3], expected, atol=1e-4)


def test_o2_trap_a_field_without_divergence_is_no_gauge_field(likelihoods):
    np.testing.assert_allclose(likelihoods[1].log_density[3:], [-2.2531567, -1.9667826], atol=PRINTED)
    assert (likelihoods[1].n_steps > 10).all()


@pytest.mark.parametrize("path", [CondOT(), Trigonometric(), VariancePreserving()], ids=lambda path: type(path).__name__)
def test_the_flow_of_the_score_is_the_velocity_of_the_denoiser(path):
    x, t = jnp.array([0.7, -1.2]), jnp.asarray(0.4)
    c = path.coefficients(t)
    # Of data from N(0, 4 I): E[x₁ | x] = 4 a x / (4 a² + m²).
    expected = path.velocity_from_denoiser(x, 4 * c.a * x / (4 * c.a**2 + c.m**2), t)
    np.testing.assert_allclose(ScoreFlow(lambda t, x: -x / (4 * c.a**2 + c.m**2), path)(t, x), expected, rtol=1e-12)
    linear, squared = drift_and_noise(path, t)
    assert squared > 0 and linear > 0


def test_the_reverse_diffusion_ends_in_the_data_with_a_gauge_part_and_without():
    path = VariancePreserving()
    exact = GaussianScore(path, jnp.asarray(COVARIANCE))
    times = 1 - jnp.geomspace(1, 1e-3, 200)
    keys = jax.random.split(jax.random.key(0), 4000)
    x0 = jax.random.normal(jax.random.key(1), (8000,)).reshape(4000, 2)

    def ends(strength):
        field = SumOfFields(exact, GaugeField(exact, jnp.asarray(TURN)), strength)
        return jax.vmap(lambda x, key: sample_reverse_diffusion(field, path, x, times, key=key))(x0, keys)

    found = np.asarray(jax.jit(jax.vmap(ends))(jnp.array([0.0, 0.5])))
    for sample in found:
        # Four thousand samples: three standard errors of a variance are seven per cent.
        np.testing.assert_allclose(np.cov(sample.T), COVARIANCE, atol=0.11)
    assert np.abs(found[0] - found[1]).max() > 0.5


def straight_to(data_variance):
    return GaussianScore(CondOT(), data_variance * jnp.eye(2))


LEAST_ENERGY = kinetic_optimal_path(separation_of_gap(lambda s: 0 * s))
NO_DATA_YET = {"straight": CondOT(), "quarter circle": Trigonometric(), "least energy": LEAST_ENERGY}


@pytest.mark.parametrize("path", NO_DATA_YET.values(), ids=NO_DATA_YET)
def test_a_time_without_data_is_refused_at_once(path):
    def still(t, x):
        return -x

    def times(first):
        return first + (0.999 - first) * jnp.linspace(0, 1, 20)

    with pytest.raises(ValueError, match=r"start must be a time at which the path's a is above 0, got 0\.0"):
        flow_log_likelihood(still, path, jnp.ones(2), end=0.9)
    for dimension in (flow_dimension, flow_dimension_at):
        with pytest.raises(ValueError, match=r"start must be a time at which the path's a is above 0, got 0\.0"):
            jax.jit(lambda x, dimension=dimension: dimension(still, path, x).by_slope)(jnp.ones(2))
    with pytest.raises(ValueError, match=r"times\[0\] must be a time at which the path's a is above 0, got 0\.0"):
        sample_reverse_diffusion(still, path, jnp.ones(2), times(0.0), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"t must be a time at which the path's a is above 0, got 0\.0"):
        ScoreFlow(still, path)(jnp.array(0.0), jnp.ones(2))
    ended = jax.jit(lambda x: sample_reverse_diffusion(still, path, x, times(0.01), key=jax.random.key(0)))(jnp.ones(2))
    assert np.isfinite(ended).all()


def test_likelihoods_of_the_straight_path_from_just_after_the_noise():
    score, x, end = straight_to(4.0), jnp.array([1.0, -0.3]), 0.9
    found = flow_log_likelihood(score, score.path, x, start=1e-3, end=end)
    # The density at the start differs from noise by 1e-3 of its width.
    np.testing.assert_allclose(found.log_density, score.log_density(jnp.asarray(end), x), atol=5e-3)


def test_bad_input_is_refused():
    def still(t, x):
        return -x

    with pytest.raises(ValueError, match=r"times must obey 0 <= start < end <= 1, got 0\.0 and 1\.5"):
        flow_log_likelihood(still, VariancePreserving(), jnp.ones(2), end=1.5)
    with pytest.raises(ValueError, match=r"exact derivatives are for at most 64 dimensions, got 65: pass a key"):
        flow_log_likelihood(still, VariancePreserving(), jnp.ones(65), end=0.5)
    with pytest.raises(ValueError, match=r"times must ascend, two of them at least, got 2 from 1\.0 to 0\.5"):
        sample_reverse_diffusion(still, CondOT(), jnp.ones(2), jnp.array([1.0, 0.5]), key=jax.random.key(0))
