import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import (
    CondOT,
    GaussianScore,
    ScoreFlow,
    VariancePreserving,
    flow_jacobian,
    flow_log_likelihood,
    sample_flow,
    sample_flow_adaptively,
    velocity_log_likelihood,
)

TOLERANCE = 1e-6  # of a solver at rtol 1e-7


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def gaussian_velocity(variance, correlation=0.0):
    """The straight path's velocity for normal data of two coordinates, without a singular time."""
    data = variance * np.array([[1.0, correlation], [correlation, 1.0]])

    def velocity(t, x):
        c = CondOT().coefficients(t)
        covariance = c.a**2 * data + c.m**2 * jnp.eye(2)
        return (c.a * c.da * data + c.m * c.dm * jnp.eye(2)) @ jnp.linalg.solve(covariance, x)

    return velocity, data


def test_the_flow_of_normal_data_gives_their_density():
    velocity, data = gaussian_velocity(3.0, 0.5)
    x = jnp.array([0.7, -1.2])
    found = velocity_log_likelihood(velocity, x)
    expected = -x @ np.linalg.solve(data, x) / 2 - np.log(2 * np.pi) - np.log(np.linalg.det(data)) / 2
    np.testing.assert_allclose(found.log_density, expected, atol=TOLERANCE)
    # From there the flow goes to x.
    back = sample_flow_adaptively(velocity, found.noise, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(back.x, x, atol=TOLERANCE)


def test_random_probes_are_right_on_average():
    velocity, _ = gaussian_velocity(3.0, 0.5)
    x = jnp.array([0.7, -1.2])
    exact = velocity_log_likelihood(velocity, x).log_density
    of = jax.jit(jax.vmap(lambda key: velocity_log_likelihood(velocity, x, key=key, rtol=1e-5, atol=1e-5).log_density))
    found = np.asarray(of(jax.random.split(jax.random.key(0), 400)))
    assert found.std() > 0.01
    assert abs(found.mean() - exact) < 4 * found.std() / 20


def test_a_score_and_its_flow_have_one_likelihood():
    path = VariancePreserving()
    score = GaussianScore(path, jnp.asarray([[1.5, 0.6], [0.6, 0.5]]))
    x = jnp.array([1.0, -0.3])
    found = [flow_log_likelihood(score, path, x, end=0.99), velocity_log_likelihood(ScoreFlow(score, path), x, end=0.99)]
    np.testing.assert_array_equal(*(one.log_density for one in found))


TOO_MANY = "maximum number of solver steps"


def swing(t, x):
    return jnp.stack([-x[1], x[0]]) * 30


@pytest.mark.parametrize(
    "run",
    [
        lambda: flow_log_likelihood(lambda t, x: -5 * x, VariancePreserving(), jnp.ones(2), end=0.99, max_steps=3),
        lambda: velocity_log_likelihood(swing, jnp.ones(2), max_steps=3),
        lambda: flow_jacobian(swing, jnp.ones(2), jnp.array([0.0, 1.0]), max_steps=3),
        lambda: sample_flow_adaptively(swing, jnp.ones(2), max_steps=3),
    ],
    ids=["flow_log_likelihood", "velocity_log_likelihood", "flow_jacobian", "sample_flow_adaptively"],
)
def test_more_steps_than_allowed_are_an_error(run):
    with pytest.raises(eqx.EquinoxRuntimeError, match=TOO_MANY):
        run()


def test_steps_that_were_rejected_are_counted():
    def sudden(t, x):
        return -x * jnp.where(t < 0.5, 1000.0, 1.0) * jnp.exp(-jnp.abs(t - 0.3))

    x = jnp.ones(1) * 1e-3
    found = velocity_log_likelihood(sudden, x, start=0.45, rtol=1e-5)
    # As many are enough: fewer would be an error.
    again = velocity_log_likelihood(sudden, x, start=0.45, rtol=1e-5, max_steps=int(found.n_steps))
    np.testing.assert_array_equal(found.log_density, again.log_density)


def test_another_solver_with_equal_steps_is_as_good_as_its_order():
    x = jnp.array([1.0, 0.0])
    exact = np.array([np.cos(3.0), np.sin(3.0)])

    def error(n_steps, solver):
        moved = sample_flow(lambda t, x: swing(t, x) / 10, x, n_steps=n_steps, solver=solver)
        return np.abs(np.asarray(moved) - exact).max()

    for solver, order in ((None, 1), (diffrax.Midpoint(), 2), (diffrax.Heun(), 2)):
        assert abs(np.log2(error(64, solver) / error(128, solver)) - order) < 0.15


def test_a_count_that_is_traced_may_not_be_above_the_most_either():
    with pytest.raises(eqx.EquinoxRuntimeError, match=TOO_MANY):
        eqx.filter_jit(lambda n: sample_flow(swing, jnp.ones(2), n_steps=n))(jnp.asarray(5000))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"times must obey 0 <= start < end <= 1, got 0\.5 and 0\.5"):
        velocity_log_likelihood(swing, jnp.ones(2), start=0.5, end=0.5)
    with pytest.raises(ValueError, match=r"exact derivatives are for at most 64 dimensions, got 65: pass a key"):
        velocity_log_likelihood(lambda t, x: x, jnp.ones(65))
