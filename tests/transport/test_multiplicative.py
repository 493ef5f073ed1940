import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.optim import exponentiated_gradient
from gradatim.transport import (
    ENTROPY,
    EUCLIDEAN,
    GeometricBrownianMotion,
    LogNormal,
    LogNormalScore,
    MultiplicativeFlow,
    RampedGeometricMotion,
    dale_langevin_step,
    mirrored_langevin_step,
    multiplicative,
    multiplicative_step,
    sample_dale_langevin,
    sample_multiplicative,
)

S0, SIGMA = 0.24, 0.8
MOTION = GeometricBrownianMotion(SIGMA)
N_POINTS = 4000
COARSE = 10
EXACT = 1e-12  # double precision, a handful of operations
ROUND_OFF = 1e-9  # double precision, over a path


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def data_of(n):
    return LogNormal(jnp.zeros(n), jnp.full(n, S0))


@pytest.fixture(scope="module")
def samples():
    """Both samplers from the exact noise, in few steps; the first also scaled by ten."""

    @jax.jit
    def draw(key):
        key_noise, key = jax.random.split(key)
        times = jnp.linspace(1, 0, COARSE + 1)
        x = data_of(N_POINTS).after(MOTION, 1.0).sample(key_noise)

        def log(scale):
            score = LogNormalScore(MOTION, LogNormal(jnp.full(N_POINTS, jnp.log(scale)), jnp.full(N_POINTS, S0)))
            return sample_dale_langevin(score, MOTION, scale * x, times, key=key)

        end = sample_multiplicative(LogNormalScore(MOTION, data_of(N_POINTS)), MOTION, x, times, key=key)
        return jax.vmap(log)(jnp.array([1.0, 10.0])), end

    (log, scaled), end = draw(jax.random.key(0))
    return np.asarray(log), np.asarray(scaled), end


@pytest.fixture(scope="module")
def paths():
    """One path of a sampler, of mirrored Langevin dynamics and of Euler–Maruyama, all with one noise."""
    score = LogNormalScore(MOTION, LogNormal(jnp.linspace(-1, 1, 5), jnp.linspace(0.2, 0.9, 5)))

    @jax.jit
    def walk(start, noise, times):
        drift, variance = (-jnp.diff(part) for part in MOTION.integrals(times))

        def step(state, given):
            log, mirrored, by_log, space, by_space = state
            t, z, m, v = given
            log = dale_langevin_step(log, score(t, log), z, m, v)
            mirrored = mirrored_langevin_step(ENTROPY, mirrored, score(t, mirrored) / mirrored, z, v, temperature=0.5)
            by_log = by_log - (m - v / 2 - v * (score(t, jnp.exp(by_log)) + 1)) + jnp.sqrt(v) * z
            space = multiplicative_step(space, score(t, space), z, m, v)
            by_space = by_space - (m - 2 * v - v * score(t, by_space)) * by_space + jnp.sqrt(v) * by_space * z
            state = log, mirrored, by_log, space, by_space
            return state, state

        return jax.lax.scan(step, (start, start, jnp.log(start), start, start), (times[:-1], noise, drift, variance))[1]

    random = np.random.default_rng(0)
    return walk(jnp.linspace(0.5, 2, 5), jax.device_put(random.normal(size=(50, 5))), jnp.linspace(1, 0, 51))


def test_o8_the_log_sampler_is_euler_maruyama_of_the_logarithm(paths):
    np.testing.assert_allclose(paths[0], np.exp(paths[2]), rtol=ROUND_OFF)


def test_o8_the_other_is_euler_maruyama_in_the_space(paths):
    np.testing.assert_allclose(paths[3], paths[4], rtol=ROUND_OFF)
    assert not np.allclose(paths[0], paths[3], rtol=1e-2)


def test_c3_the_log_sampler_is_mirrored_langevin_dynamics_of_the_entropy(paths):
    np.testing.assert_allclose(paths[0], paths[1], rtol=ROUND_OFF)


def test_c3_without_noise_it_is_an_exponentiated_gradient_step():
    v = 0.05

    @jax.jit
    def both(x):
        score = LogNormal(jnp.zeros(3), jnp.ones(3)).score(x)
        # The gradient of -log p_Y along the logarithm, not that of -log p along x.
        optimizer = exponentiated_gradient(v)
        updates, _ = optimizer.update(-(score + 1), optimizer.init(x), x)
        return dale_langevin_step(x, score, jnp.zeros(3), v / 2, v), optax.apply_updates(x, updates)

    np.testing.assert_allclose(*both(np.array([0.5, 2.0, 7.0])), rtol=EXACT)


def test_a_euclidean_mirror_is_langevin_dynamics():
    x, stein, z = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.4]), jnp.array([1.0, -1.0])
    found = jax.jit(lambda *given: mirrored_langevin_step(EUCLIDEAN, *given, 0.1))(x, stein, z)
    np.testing.assert_allclose(found, np.asarray(x) + 0.1 * np.asarray(stein) + np.sqrt(0.2) * np.asarray(z), rtol=EXACT)


def final_variance(n, motion=MOTION, anneal=1.0):
    """V ← a² V + b², as a step is affine in the logarithm and the noise."""
    times = np.linspace(motion.end, 0, n + 1)
    drift, variance = (-np.diff(np.asarray(part)) for part in motion.integrals(jnp.asarray(times)))
    after = S0**2 + np.asarray(motion.integrals(jnp.asarray(times)).variance)[:-1]
    centre = np.asarray(motion.log_transition(jnp.asarray(times)).shift)[:-1]
    still = _log_of_step(0.0, 0.0, centre, after, drift, variance)
    a = _log_of_step(1.0, 0.0, centre, after, drift, variance) - still
    b = anneal ** np.arange(n) * (_log_of_step(0.0, 1.0, centre, after, drift, variance) - still)
    value = after[0]
    for one, two in zip(a, b, strict=True):
        value = one**2 * value + two**2
    return value


def _log_of_step(y, z, centre, after, drift, variance):
    score = -1 - (y - centre) / after
    return y + variance * score - (drift - 1.5 * variance) + np.sqrt(variance) * z


@pytest.mark.parametrize(("n", "expected"), [(10, 0.0994396), (50, 0.0644257), (100, 0.0608963), (1000, 0.0579190)])
def test_o2_final_log_variance_of_exact_scores(n, expected):
    np.testing.assert_allclose(final_variance(n), expected, atol=1e-7)
    np.testing.assert_allclose(final_variance(n, GeometricBrownianMotion(SIGMA, 1.3)), expected, atol=1e-7)


def test_o2_the_recursion_speaks_of_the_library_step():
    y, z, m, v = 0.4, -0.7, 0.02, 0.05
    found = dale_langevin_step(jnp.exp(jnp.array(y)), jnp.array(-1 - (y - 0.1) / 0.3), jnp.array(z), m, v)
    np.testing.assert_allclose(np.log(found), _log_of_step(y, z, 0.1, 0.3, m, v), rtol=EXACT)


def test_o2_samples_have_the_variance_of_the_recursion(samples):
    error = final_variance(COARSE) * (2 / N_POINTS) ** 0.5
    assert abs(np.log(samples[0]).var() - final_variance(COARSE)) < 4 * error


def test_trap_a_forgotten_one_drifts_by_the_exponential_of_the_variance():
    # h taken for the score of the logarithm: one less in every step, and here there is no pull back.
    x = jnp.ones(1)
    for _ in range(10):
        x = dale_langevin_step(x, jnp.zeros(1), jnp.zeros(1), SIGMA**2 / 20, SIGMA**2 / 10)
    np.testing.assert_allclose(x, [np.exp(SIGMA**2)], rtol=1e-6)
    assert abs(float(x[0]) - 1.9) < 0.01


def test_trap_annealed_noise_makes_data_too_narrow():
    assert final_variance(100, anneal=0.99) < 0.75 * final_variance(100)


def test_c2_signs_stay_in_the_logarithm_and_may_change_in_the_space(samples):
    assert (samples[0] > 0).all()
    # 0.17 % of the samples at ten steps.
    assert 0 < int(samples[2].crossings) < 0.006 * N_POINTS and int(samples[2].crossings) >= int((np.asarray(samples[2].x) < 0).sum())


def test_o7_the_log_sampler_commutes_with_scaling(samples):
    np.testing.assert_allclose(samples[1], 10 * samples[0], rtol=ROUND_OFF)


def test_steps_of_a_ramped_motion_are_those_of_its_integrals():
    levels = multiplicative._levels(RampedGeometricMotion(0.2, 1.0), jnp.array([1.0, 0.5, 0.0]), jnp.dtype("float64"), 1, 1.0, 1.0, 0)
    np.testing.assert_allclose(levels.variance, [0.52 - 0.02 - 0.96 / 8, 0.02 + 0.96 / 8], rtol=EXACT)
    np.testing.assert_allclose(levels.drift, levels.variance / 2, rtol=EXACT)


def test_habits_of_the_authors_code_are_more_steps_and_less_noise():
    times = jnp.array([1.0, 0.5, 0.0])
    levels = multiplicative._levels(MOTION, times, jnp.dtype("float64"), 2, 0.5, 0.9, 1)
    assert levels.t.tolist() == [1.0, 1.0, 0.5, 0.5, 0.5]
    np.testing.assert_allclose(levels.loudness, [1, 0.9, 0.81, 0.729, 0], rtol=EXACT)
    np.testing.assert_allclose(levels.variance, np.full(5, 0.5 * 0.5 * SIGMA**2), rtol=EXACT)


def test_samplers_take_the_steps_that_their_habits_ask_for():
    motion = GeometricBrownianMotion(1.5, 0.3)
    x = np.linspace(0.5, 3, 20)
    habits = {"repeats": 2, "step_factor": 0.5, "anneal": 0.9, "denoise_steps": 1}

    def score(t, x):
        # Of positive numbers alone.
        return -1 - t * jnp.log(x)

    @jax.jit
    def ends(x, times, key):
        return [sampler(score, motion, x, times, key=key, **habits) for sampler in (sample_dale_langevin, sample_multiplicative)]

    log, end = ends(x, np.array([1.0, 0.5, 0.0]), jax.random.key(3))
    by_log, space, crossings = x, x, 0
    for i, (t, loudness) in enumerate(zip((1.0, 1.0, 0.5, 0.5, 0.5), (1, 0.9, 0.81, 0.729, 0), strict=True)):
        noise = loudness * np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(3), i), (20,)))
        drift, variance = 0.25 * 0.3, 0.25 * 1.5**2
        by_log = by_log * np.exp(variance * (-1 - t * np.log(by_log)) - (drift - 1.5 * variance) + variance**0.5 * noise)
        before, here = space, -1 - t * np.log(np.abs(space))
        space = space * (1 + 2 * variance - drift + variance * here + variance**0.5 * noise)
        crossings += (before * space < 0).sum()
    np.testing.assert_allclose(log, by_log, rtol=ROUND_OFF)
    np.testing.assert_allclose(end.x, space, rtol=ROUND_OFF)
    assert end.crossings == crossings > 0


def test_a_flow_with_a_drift_carries_the_median_along():
    motion, data, t = GeometricBrownianMotion(0.8, 0.1, end=2.0), LogNormal(jnp.array([0.5]), jnp.array([S0])), 0.6
    flow = MultiplicativeFlow(LogNormalScore(motion, data), motion)
    # Along y = M - V/2 + k √(s₀² + V), t against s.
    spread = S0**2 + 0.64 * t
    found = flow(jnp.array(1 - t / 2), jnp.array([0.5 + (0.1 - 0.32) * t + 1.3 * spread**0.5]))
    np.testing.assert_allclose(found, [-2 * (0.1 - 0.32 + 1.3 * 0.64 / (2 * spread**0.5))], rtol=ROUND_OFF)


def test_half_precision_stays_and_is_not_used_for_logarithms():
    seen = []

    def score(t, x):
        seen.append(x.dtype)
        return -x

    x, times = jnp.full(3, 1.5, jnp.bfloat16), jnp.array([1.0, 0.0])
    jaxpr, end = jax.make_jaxpr(lambda x: sample_dale_langevin(score, MOTION, x, times, key=jax.random.key(0)), return_shape=True)(x)
    assert end.dtype == jnp.bfloat16 and set(seen) == {jnp.dtype("bfloat16")}
    (scan,) = [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]
    assert scan.outvars[0].aval.dtype == jnp.float32


def test_the_flow_keeps_ranks():
    # dy/ds of y = √(s₀² + σ² t) k: of a normal density, k stays.
    flow, t, y = MultiplicativeFlow(LogNormalScore(MOTION, data_of(2)), MOTION, last=0.1), 0.4, np.array([0.3, -1.0])
    found = flow(jnp.array((1 - t) / 0.9), jnp.asarray(y))
    np.testing.assert_allclose(found, -0.9 * y * SIGMA**2 / (2 * (S0**2 + SIGMA**2 * t)), rtol=ROUND_OFF)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": [0.0, 1.0]}, r"times must descend, two of them at least, got 2 from 0\.0 to 1\.0"),
        ({"times": [1.0]}, r"times must descend, two of them at least, got 1 from"),
        ({"times": [2.0, 0.0]}, r"t must lie in \[0, 1\.0\]"),
        ({"x": [0.0]}, r"x must be positive, got a least entry of 0\.0"),
        ({"repeats": 0}, r"repeats must be at least 1 and denoise_steps at least 0, got 0 and 0"),
        ({"denoise_steps": -1}, r"repeats must be at least 1 and denoise_steps at least 0, got 1 and -1"),
        ({"step_factor": 0.0}, r"step_factor must be positive, got 0\.0"),
        ({"anneal": 1.5}, r"anneal must lie in \(0, 1\], got 1\.5"),
    ],
)
@pytest.mark.parametrize("sampler", [sample_dale_langevin, sample_multiplicative])
def test_what_cannot_be_is_refused(sampler, arguments, message):
    arguments = {"x": [1.0], "times": [1.0, 0.0], **arguments}
    x, times = (jnp.asarray(arguments.pop(name)) for name in ("x", "times"))
    with pytest.raises(ValueError, match=message):
        sampler(lambda t, x: x, MOTION, x, times, key=jax.random.key(0), **arguments)
    with pytest.raises(ValueError, match=r"last must lie in \[0, 1\.0\), got 1\.0"):
        MultiplicativeFlow(lambda t, x: x, MOTION, last=1.0)
