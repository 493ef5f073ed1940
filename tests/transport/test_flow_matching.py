import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import (
    CondOT,
    EmpiricalVelocity,
    Trigonometric,
    empirical_kinetic_energy,
    flow_matching_loss,
    sample_flow,
    sample_flow_adaptively,
)

TWO = np.array([[-1.0], [1.0]])


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def test_the_empirical_velocity_is_bayes_rule():
    velocity = EmpiricalVelocity(Trigonometric(), jax.device_put(TWO))
    t, x = 0.3, np.linspace(-2, 2, 7)[:, None]
    a, m = np.sin(np.pi / 2 * t), np.cos(np.pi / 2 * t)
    mean = np.tanh(a * x / m**2)
    expected = np.pi / 2 * (m * mean - a * (x - a * mean) / m)
    np.testing.assert_allclose(jax.jit(jax.vmap(velocity, (None, 0)))(jax.device_put(t), jax.device_put(x)), expected, atol=1e-12)


def test_the_marginal_velocity_has_the_least_loss_and_the_gradient_of_the_regression():
    path = CondOT()
    random = np.random.default_rng(0)
    x0, x1, t = random.normal(size=(4096, 1)), TWO[random.integers(0, 2, 4096)], random.uniform(size=4096)
    batch = [jax.device_put(values) for values in (x0, x1, t)]
    exact = EmpiricalVelocity(path, jnp.asarray(TWO))

    @jax.jit
    def losses(scale):
        return jax.value_and_grad(lambda scale: flow_matching_loss(lambda t, x: scale * exact(t, x), path, *batch))(scale)

    best, slope = losses(1.0)
    # A minimum, within the noise of so many samples.
    assert abs(slope) < 0.1 and losses(1.2)[0] > best < losses(0.8)[0]
    by_hand = np.mean((np.asarray(jax.jit(jax.vmap(exact))(batch[2], path.point(*batch))) - (x1 - x0)) ** 2)
    assert abs(best - by_hand) < 1e-12


@pytest.fixture(scope="module")
def flow():
    return jax.jit(jax.vmap(lambda x0, n_steps: sample_flow(lambda t, x: x * t, x0, n_steps=n_steps), (0, None)))


def test_euler_steps_are_equal_and_end_at_one(flow):
    x0 = jnp.array([[1.0], [-2.0]])
    for n_steps in (1, 3, 6, 10):
        factor = np.prod([1 + k / n_steps**2 for k in range(n_steps)])
        np.testing.assert_allclose(flow(x0, n_steps), x0 * factor, rtol=1e-12)


def test_counts_share_a_program(flow):
    before = flow._cache_size()
    flow(jnp.array([[1.0], [-2.0]]), 7)
    assert flow._cache_size() == before


def test_the_flow_of_a_finite_set_ends_at_its_points_and_every_evaluation_is_counted():
    exact, calls = EmpiricalVelocity(CondOT(), jnp.asarray(TWO)), []

    def velocity(t, x):
        jax.debug.callback(lambda: calls.append(1))
        return exact(t, x)

    end = jax.jit(lambda x0: sample_flow_adaptively(velocity, x0, rtol=1e-6, atol=1e-6, end=1 - 1e-6))(jnp.array([0.3]))
    jax.effects_barrier()
    np.testing.assert_allclose(end.x, [1], atol=1e-4)
    assert len(calls) == end.n_evaluations > 50


def test_a_flow_goes_from_its_start_to_its_end():
    end = sample_flow_adaptively(lambda t, x: 3 * t * x, jnp.array([2.0]), start=0.5, end=0.8, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(end.x, 2 * np.exp(1.5 * (0.8**2 - 0.5**2)), rtol=1e-7)


def test_an_energy_by_samples_is_an_integral_over_time_and_knows_its_error():
    data, start, end = jnp.asarray(TWO) * jnp.array([[1.0, 2.0]]), 0.2, 0.9

    @jax.jit
    @jax.vmap
    def energy(key):
        how = {"n_samples": 100, "batch_size": 32, "start": start, "end": end}
        return empirical_kinetic_energy(lambda t, x: x, CondOT(), data, key=key, **how)

    found = energy(jax.random.split(jax.random.key(0), 200))
    # The mean square of t x₁ + (1 - t) x₀, with 5/2 that of the data.
    exact = 2.5 * (end**3 - start**3) / 3 + ((1 - start) ** 3 - (1 - end) ** 3) / 3
    spread = np.std(found.value)
    assert abs(np.mean(found.value) - exact) < 4 * spread / 200**0.5
    np.testing.assert_allclose(np.mean(found.standard_error), spread, rtol=0.2)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="n_steps must lie between 1 and 4096, got 0"):
        sample_flow(lambda t, x: x, jnp.ones(1), n_steps=0)
    with pytest.raises(ValueError, match=r"times must obey 0 <= start < end <= 1, got 1\.0 and 1\.0"):
        sample_flow_adaptively(lambda t, x: x, jnp.ones(1), start=1.0)
    with pytest.raises(ValueError, match="n_samples must be at least 2, got 1"):
        empirical_kinetic_energy(lambda t, x: x, CondOT(), jnp.asarray(TWO), key=jax.random.key(0), n_samples=1)
