import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gradatim.numerics import BlockMean, fit_power_law, local_exponents

pytestmark = pytest.mark.usefixtures("double")


@given(st.floats(-4, 4), st.floats(0.01, 100))
def test_an_exact_power_law_is_found_exactly(exponent, prefactor):
    with jax.enable_x64(True):
        x = jnp.array([1.0, 2.0, 3.0, 5.0, 8.0])
        law = fit_power_law(x, prefactor * x**exponent)
        assert abs(law.exponent - exponent) < 1e-12 and abs(law.prefactor / prefactor - 1) < 1e-11 and law.standard_error < 1e-11
        assert np.allclose(local_exponents(x, prefactor * x**exponent), exponent, atol=1e-11)


def test_fit_and_its_error_are_those_of_linear_regression():
    rng = np.random.default_rng(1)
    x = np.geomspace(1, 30, 12)
    rows = x[None] ** np.array([[-2.0], [0.5]]) * np.exp(0.1 * rng.normal(size=(2, 12)))
    law = fit_power_law(jnp.asarray(x), jnp.asarray(rows))
    for i, row in enumerate(rows):
        reference = stats.linregress(np.log(x), np.log(row))
        assert np.isclose(law.exponent[i], reference.slope) and np.isclose(law.standard_error[i], reference.stderr)


def test_a_weight_of_zero_leaves_a_point_out():
    x, y = jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([1.0, 4.0, 16.0, 1.0])
    assert np.isclose(fit_power_law(x, y, weights=jnp.array([1.0, 1.0, 1.0, 0.0])).exponent, 2.0)


@pytest.mark.parametrize("block", [1, 5])
def test_block_mean_is_numpys(block):
    samples = np.random.default_rng(2).normal(5, 2, (53, 3))
    step = lambda mean, sample: (mean.update(sample), None)  # noqa: E731
    mean, _ = jax.lax.scan(step, BlockMean(jnp.zeros(3), block), jnp.asarray(samples))
    full = samples[: 53 // block * block].reshape(-1, block, 3).mean(1)
    assert np.allclose(mean.value, full.mean(0)) and np.allclose(mean.standard_error, full.std(0, ddof=1) / np.sqrt(len(full)))


def test_standard_error_of_correlated_samples_needs_blocks():
    rng = np.random.default_rng(3)
    samples = np.zeros((200, 4000))
    for i in range(1, 4000):
        samples[:, i] = 0.9 * samples[:, i - 1] + rng.normal(size=200)
    spread = samples.mean(1).std(ddof=1)

    @jax.jit
    def error(samples, like):
        return jax.lax.scan(lambda mean, sample: (mean.update(sample), None), like, samples)[0].standard_error.mean()

    assert abs(error(samples.T, BlockMean(jnp.zeros(200), 200)) / spread - 1) < 0.15
    assert error(samples.T, BlockMean(jnp.zeros(200), 1)) < 0.4 * spread


def test_no_error_without_two_blocks():
    assert BlockMean(jnp.zeros(()), 2).update(jnp.asarray(1.0)).standard_error == jnp.inf


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        ([1.0, 2.0], [1.0, 2.0], "x must hold at least 3 points, got 2"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "y must hold one value for each of the 3 points"),
        ([0.0, 2.0, 3.0], [1.0, 2.0, 3.0], "x must be positive, got a minimum of 0.0"),
        ([1.0, 2.0, 3.0], [1.0, -2.0, 3.0], "y must be positive, got a minimum of -2.0"),
    ],
)
def test_points_that_have_no_logarithm_are_refused(x, y, match):
    with pytest.raises(ValueError, match=match):
        fit_power_law(jnp.array(x), jnp.array(y))


def test_blocks_and_samples_must_fit():
    with pytest.raises(ValueError, match="block must be at least 1, got 0"):
        BlockMean(jnp.zeros(3), 0)
    with pytest.raises(ValueError, match=r"sample must have shape \(3,\), got \(2,\)"):
        BlockMean(jnp.zeros(3)).update(jnp.zeros(2))
