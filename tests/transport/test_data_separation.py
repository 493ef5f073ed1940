import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.transport import (
    DataSeparation,
    data_separation,
    line_separation_gap,
    normalise,
    separation_angles,
    separation_of_data,
    separation_of_gap,
)

N_NOISE = 2048
S = np.array([0.0, 0.05, 0.5, 1.0, 2.0, 30.0], np.float32)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def cloud():
    """Forty correlated points in five dimensions, not normalised."""
    random = np.random.default_rng(0)
    return 3 + random.normal(size=(40, 5)) @ random.normal(size=(5, 5)) * np.array([3, 1, 1, 0.3, 0.3])


@pytest.fixture(scope="module")
def data(cloud):
    return normalise(jax.device_put(cloud.astype(np.float32)))[0]


def estimated(x, **settings):
    return data_separation(x, jax.device_put(S), key=KEY, n_noise=N_NOISE, **settings)


@pytest.fixture(scope="module")
def estimate(data):
    return estimated(data)


def dense(x, s, n_noise=4000, without=False):
    """The definition, in double precision: every point, plainly; or what is missed without the point itself."""
    random = np.random.default_rng(1)
    rows = random.integers(0, len(x), n_noise)
    x1 = x[rows]
    y = x1 + random.normal(size=x1.shape) / s
    logits = -(s**2) * ((y[:, None] - x[None]) ** 2).sum(-1) / 2
    if without:
        logits[np.arange(n_noise), rows] = -np.inf
    weights = np.exp(logits - logits.max(1, keepdims=True))
    mean = weights @ x / weights.sum(1, keepdims=True)
    values = 1 - ((x1 - mean) ** 2).mean(1) if without else (mean**2).mean(1)
    return values.mean(), values.std() / np.sqrt(n_noise)


def test_the_estimate_is_the_definition(data, estimate):
    for i in (2, 3, 4):
        value, error = dense(np.asarray(data, np.float64), float(S[i]))
        assert abs(estimate.value[i] - value) < 4 * np.hypot(error, estimate.standard_error[i])
        # The blend has less variance than the definition, number for number.
        assert estimate.standard_error[i] < error * np.sqrt(4000 / N_NOISE)


def test_o3_o4_two_points_in_five_dimensions():
    two, far = jnp.array([-1.0, 1.0]), np.zeros((40, 5), np.float32)
    far[:, 2] = np.tile([-1, 1], 20) * 5**0.5
    estimate, exact = estimated(jnp.asarray(far)), 1 - line_separation_gap(two, 5**0.5 * jnp.asarray(S))
    # Where less than one noisy point in so many is mistaken, none may be.
    assert (np.abs(estimate.value - exact) <= 4 * estimate.standard_error + 1 / N_NOISE).all()


def test_o7_invariances(cloud, data, estimate):
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(5, 5)))
    moved = normalise(jnp.asarray((7 * cloud @ turn - 2).astype(np.float32)))[0]
    other = estimated(moved)
    # Other noise falls on a turned set, so equal only within errors.
    assert (np.abs(other.value - estimate.value) <= 4 * (other.standard_error + estimate.standard_error) + 1e-6).all()
    assert (np.diff(estimate.value) > 0).all()


def test_o9_limits(data, estimate):
    x = np.asarray(data, np.float64)
    kappa = ((x.T @ x / len(x)) ** 2).sum() / 5
    # λ / s² → tr C² / d, within the next order of s² and the error of the estimate.
    assert abs(estimate.value[1] / S[1] ** 2 - kappa) < 0.1 * kappa
    assert abs(estimate.value[0]) < 1e-6 and abs(estimate.value[-1] - 1) < 1e-6


def test_leave_one_out_is_below_and_the_set_itself_above_its_distribution(data, estimate):
    # In batches of which the last is not full.
    without = estimated(data, exclude_self=True, batch_size=500)
    value, error = dense(np.asarray(data, np.float64), float(S[3]), without=True)
    assert without.value.shape == (6,) and abs(without.value[3] - value) < 4 * np.hypot(error, without.standard_error[3])
    # At high s the set is known by heart; what is left out is not.
    assert (without.value < estimate.value)[2:].all() and estimate.value[-1] > 0.999 and without.value[-1] < 0.95


def test_standard_errors_are_those_of_estimates_repeated():
    two = jnp.array([[-1.0], [1.0]])
    of = jax.jit(jax.vmap(lambda key: data_separation(two, jnp.array([0.7]), key=key, n_noise=64)))
    found = of(jax.random.split(KEY, 400))
    np.testing.assert_allclose(np.mean(found.standard_error), np.std(found.value), rtol=0.2)


def test_a_represented_function_goes_through_its_estimates(data):
    # As many angles within as there are ratios above: one program.
    separation = separation_of_data(data, key=KEY, n_noise=N_NOISE, n_nodes=8)
    s = np.tan(separation_angles(8)[1:-1]).astype(np.float32)
    direct = data_separation(data, jnp.asarray(s), key=KEY, n_noise=N_NOISE)
    np.testing.assert_allclose(separation(jnp.asarray(s)), np.clip(direct.value, s**2 / (1 + s**2), 1), atol=2e-6)
    assert separation.root_gamma[-1] == 1 and separation(jnp.inf) == 1


@jax.jit
def properties(separation, s):
    return separation(s), separation.least_energy, separation.area


@settings(max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=16, max_size=16), st.lists(st.floats(0, 100), min_size=8, max_size=8))
def test_whatever_is_represented_lies_in_the_sandwich(values, ratios):
    separation = DataSeparation(jnp.asarray(separation_angles(16), jnp.float32), jnp.asarray(values, jnp.float32))
    s = jnp.asarray(ratios, jnp.float32)
    value, least, area = map(np.asarray, properties(separation, s))
    floor = np.asarray(s) ** 2 / (1 + np.asarray(s) ** 2)
    assert (value <= 1 + 1e-6).all() and (value >= floor - 1e-6).all()
    # The straight path and the trigonometric one, by their areas, cost no less than the optimum.
    assert least <= min(2 - area, np.pi / 2 * (np.pi / 2 - area)) + 1e-5


def test_noise_outside_of_the_possible_is_set_to_its_ends():
    noisy = separation_of_gap(lambda s: jnp.where(s < 1, 1.2, -0.1) + 0 * s, n_nodes=16)
    assert set(np.asarray(noisy.root_gamma).tolist()) == {0.0, 1.0}


def test_data_that_are_not_normalised_are_refused(cloud, data):
    with pytest.raises(ValueError, match=r"x must have mean 0 and mean square 1, got .* and .*: normalise\(x\) makes it so"):
        estimated(jnp.asarray(cloud.astype(np.float32)))
    with pytest.raises(ValueError, match="x must have mean 0 and mean square 1"):
        estimated(2 * data)
    with pytest.raises(ValueError, match="x must hold at least 2 points, got 1"):
        estimated(data[:1])
    with pytest.raises(ValueError, match="x must have mean 0 and mean square 1"):
        line_separation_gap(jnp.array([0.0, 1.0]), jnp.asarray(S))


def test_bad_input_is_refused(data):
    with pytest.raises(ValueError, match="n_noise must be at least 1, got 0"):
        data_separation(data, jnp.asarray(S), key=KEY, n_noise=0)
    with pytest.raises(ValueError, match=r"s must be at least 0, got -1\.0"):
        data_separation(data, jnp.array([-1.0]), key=KEY)
    with pytest.raises(ValueError, match="n_nodes must be at least 4, got 3"):
        separation_angles(3)
    with pytest.raises(ValueError, match="angles must ascend strictly from 0 to π/2"):
        DataSeparation(jnp.array([0.0, 1.0]), jnp.ones(2))
    with pytest.raises(ValueError, match=r"root_gamma must lie in \[0, 1\]"):
        DataSeparation(jnp.array([0.0, jnp.pi / 2]), jnp.array([0.0, 1.5]))
