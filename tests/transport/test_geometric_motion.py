import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import GeometricBrownianMotion, LogNormal, LogNormalScore, RampedGeometricMotion

MOTIONS = {
    "paper": GeometricBrownianMotion(0.8),
    "drifting": GeometricBrownianMotion(0.8, 0.1, end=2.0),
    "ramped": RampedGeometricMotion(0.3, 1.1, 0.4, end=2.0),
}
EXACT = 1e-12  # double precision


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("motion", MOTIONS.values(), ids=MOTIONS)
def test_integrals_are_those_of_the_rates(motion):
    nodes, weights = np.polynomial.legendre.leggauss(3)
    t = 0.7 * motion.end
    rates = motion.rates(jnp.asarray(t * (nodes + 1) / 2))
    for found, values in zip(motion.integrals(t), rates, strict=True):
        np.testing.assert_allclose(found, t / 2 * weights @ np.asarray(values), rtol=EXACT)


@pytest.mark.parametrize("motion", MOTIONS.values(), ids=MOTIONS)
def test_o1_log_normal_data_stay_log_normal(motion):
    data = LogNormal(jnp.array([0.3]), jnp.array([0.24]))
    mu, variance = (float(part) for part in motion.integrals(0.9))
    after = data.after(motion, 0.9)
    mean, spread = 0.3 + mu - variance / 2, 0.24**2 + variance
    np.testing.assert_allclose([after.mean[0], after.std[0] ** 2], [mean, spread], rtol=EXACT)
    found = LogNormalScore(motion, data)(jnp.array(0.9), jnp.array([1.7]))
    np.testing.assert_allclose(found, [-1 - (np.log(1.7) - mean) / spread], rtol=EXACT)


def test_o1_the_score_is_the_point_times_the_gradient_of_the_log_density():
    density = LogNormal(jnp.array([0.3, -0.2]), jnp.array([0.24, 0.7]))
    x = jnp.array([1.7, 0.4])
    np.testing.assert_allclose(density.score(x), np.asarray(x) * np.asarray(jax.jit(jax.grad(density.log_density))(x)), rtol=EXACT)


@pytest.mark.parametrize("motion", MOTIONS.values(), ids=MOTIONS)
def test_o6_the_mean_grows_with_the_drift_and_the_median_stays_without_one(motion):
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    x = motion.point(jnp.full(40, 2.0), jax.device_put(nodes), 0.9)
    drift, variance = motion.integrals(0.9)
    np.testing.assert_allclose(weights @ np.asarray(x) / weights.sum(), 2 * np.exp(drift), rtol=1e-10)
    median = motion.point(jnp.array([2.0]), jnp.array([0.0]), 0.9)
    np.testing.assert_allclose(median, [2 * np.exp(drift - variance / 2)], rtol=EXACT)
    if motion is MOTIONS["paper"]:
        np.testing.assert_allclose(median, [2.0], rtol=EXACT)


def test_the_conditional_score_is_the_noise():
    motion, noise = MOTIONS["ramped"], jnp.array([[0.4, -1.0], [2.0, 0.0]])
    t = jnp.array([0.1, 1.5])
    x0 = jnp.array([[1.0, 2.0], [0.1, 10.0]])
    found = jax.jit(lambda *args: motion.conditional_score(motion.point(*args), args[0], args[2]))(x0, noise, t)
    root = np.sqrt(motion.integrals(t).variance)[:, None]
    np.testing.assert_allclose(found, -1 - np.asarray(noise) / root, rtol=1e-10)


def test_diffrax_terms_of_a_ramped_motion_have_the_rates_of_their_time():
    brownian = diffrax.UnsafeBrownianPath((2,), key=jax.random.key(0))
    x, t, increment = jnp.array([1.0, 3.0]), jnp.array(0.5), (jnp.array(0.01), jnp.array([0.2, -0.1]))
    # A quarter of the way from 0.09 to 1.21.
    variance = 0.37
    moved = MOTIONS["ramped"].terms(brownian).vf_prod(t, x, None, increment)
    np.testing.assert_allclose(moved, x * (0.4 * variance * 0.01 + variance**0.5 * increment[1]), rtol=EXACT)
    moved = MOTIONS["ramped"].log_terms(brownian).vf_prod(t, jnp.log(x), None, increment)
    np.testing.assert_allclose(moved, -0.1 * variance * 0.01 + variance**0.5 * increment[1], rtol=EXACT)


def test_diffrax_terms_are_the_equations():
    motion = MOTIONS["drifting"]
    brownian = diffrax.UnsafeBrownianPath((2,), key=jax.random.key(0))
    x, t, increment = jnp.array([1.0, 3.0]), jnp.array(0.5), (jnp.array(0.01), jnp.array([0.2, -0.1]))
    in_space, in_log = motion.terms(brownian), motion.log_terms(brownian)
    moved = in_space.vf_prod(t, x, None, increment)
    np.testing.assert_allclose(moved, x * (0.001 + 0.8 * increment[1]), rtol=EXACT)
    moved = in_log.vf_prod(t, jnp.log(x), None, increment)
    np.testing.assert_allclose(moved, (0.1 - 0.32) * 0.01 + 0.8 * increment[1], rtol=EXACT)


def test_a_prior_is_fitted_to_every_pixel_or_every_channel():
    random = np.random.default_rng(0)
    y = random.normal(size=(50, 2, 2, 3))
    pixel, channel = jax.jit(lambda x: (LogNormal.fit(x), LogNormal.fit(x, shared=(1, 2))))(jax.device_put(np.exp(y)))
    np.testing.assert_allclose(pixel.mean, y.mean(axis=0), rtol=1e-10, atol=EXACT)
    np.testing.assert_allclose(pixel.std, y.std(axis=0), rtol=1e-10)
    np.testing.assert_allclose(channel.mean, np.broadcast_to(y.mean(axis=(0, 1, 2)), (2, 2, 3)), rtol=1e-10, atol=EXACT)
    np.testing.assert_allclose(channel.std, np.broadcast_to(y.std(axis=(0, 1, 2)), (2, 2, 3)), rtol=1e-10)
    assert jax.eval_shape(channel.sample, jax.random.key(0)).shape == (2, 2, 3)


def test_the_prior_of_noised_data_adds_variances():
    # The authors' figures for handwritten digits: 0.8353² = 0.64 + 0.0577.
    data = LogNormal(jnp.array([0.1565]), jnp.array([0.0577**0.5]))
    assert abs(float(data.after(MOTIONS["paper"], 1.0).std[0]) - 0.8353) < 1e-4


ONE, ZERO, HALF = jnp.ones(2), jnp.zeros(2), jnp.array(0.5)
REFUSED = {
    "a datum at zero": (lambda x0, x, t: MOTIONS["paper"].point(x0, x, t), (ZERO, ONE, HALF), "x0 must be positive"),
    "a datum below zero": (lambda x0, x, t: MOTIONS["paper"].point(x0, x, t), (-ONE, ONE, HALF), "x0 must be positive"),
    "a score at zero": (lambda x0, x, t: MOTIONS["paper"].conditional_score(x, x0, t), (ONE, ZERO, HALF), "x must be positive"),
    "a score from zero": (lambda x0, x, t: MOTIONS["paper"].conditional_score(x, x0, t), (ZERO, ONE, HALF), "x0 must be positive"),
    "a score without noise": (
        lambda x0, x, t: MOTIONS["paper"].conditional_score(x, x0, t),
        (ONE, ONE, jnp.array(0.0)),
        "t must be positive.*: at 0 there is no noise to remove",
    ),
}


@pytest.mark.parametrize(("function", "arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_points_that_are_not_positive_are_refused_also_when_traced(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
    with pytest.raises(eqx.EquinoxRuntimeError, match=message):
        eqx.filter_jit(function)(*arguments)
    assert np.isfinite(eqx.filter_jit(function)(ONE, 2 * ONE, HALF)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeometricBrownianMotion(0.0), r"sigma must be positive, got 0\.0"),
        (lambda: GeometricBrownianMotion(end=-1.0), r"end must be positive, got -1\.0"),
        (lambda: RampedGeometricMotion(0.1, 0.0), r"last must be positive, got 0\.0"),
        (lambda: GeometricBrownianMotion().integrals(-0.1), r"t must lie in \[0, 1\.0\], from data to noise, got -0\.1"),
        (lambda: GeometricBrownianMotion().integrals(1.5), r"t must lie in \[0, 1\.0\], from data to noise, got 1\.5"),
        (
            lambda: GeometricBrownianMotion().point(jnp.zeros(2), jnp.zeros(2), 0.5),
            r"x0 must be positive, got a least entry of 0\.0",
        ),
        (lambda: LogNormal.fit(-jnp.ones((3, 2))), r"x must be positive, got a least entry of -1\.0"),
        (lambda: LogNormal.fit(jnp.ones((3, 2)), shared=(2,)), r"shared must name axes from 1 to 1, got \(2,\)"),
        (lambda: LogNormal(jnp.zeros(1), jnp.zeros(1)), r"std must be positive, got a least entry of 0\.0"),
        (
            lambda: GeometricBrownianMotion().point(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones(2)),
            r"t must be one time, or have the leading axes of points of shape \(3, 2\), got shape \(2,\)",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
