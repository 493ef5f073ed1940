import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from gradatim.transport import (
    GeometricBrownianMotion,
    LogNormal,
    LogNormalScore,
    ScoreFromNoise,
    ScoreFromStein,
    explicit_multiplicative_loss,
    multiplicative_score_matching,
    nonnegative_score_matching,
    point_score_from_log_score,
    point_score_from_stein,
    stein_from_point_score,
)

S0, SIGMA = 0.24, 0.8
MOTION = GeometricBrownianMotion(SIGMA)
EXACT = 1e-10  # double precision, quadrature exact for what it sums
WEIGHTINGS = ("variance", "noise", "score")


def wave(coefficients):
    """A model that is neither log-normal nor linear."""
    a, b, c = coefficients
    return lambda t, x: -1 - a * jnp.log(x) + b * jnp.sin(c * jnp.log(x) + t)


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def grid():
    """Nodes and weights of E over data and noise, both normal in the logarithm: exact for smooth models."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    y0, z = (part.ravel() for part in np.meshgrid(nodes, nodes))
    both = np.outer(weights, weights).ravel() / weights.sum() ** 2
    return jnp.exp(S0 * jax.device_put(y0)), jax.device_put(z), jax.device_put(both)


@pytest.fixture(scope="module")
def expected(grid):
    """Both losses, averaged exactly, as functions of the model's coefficients or of the exact score, and of the level."""
    x0, z, weights = grid
    exact = LogNormalScore(MOTION, LogNormal(jnp.zeros(1), jnp.full(1, S0)))

    def losses(score, t):
        def one(x0, z):
            args = x0[None, None], z[None, None], t[None]
            denoising = [multiplicative_score_matching(score, MOTION, *args, weighting=name) for name in WEIGHTINGS]
            x = MOTION.point(*args)
            return jnp.stack([*denoising, explicit_multiplicative_loss(score, exact, x, t[None])])

        return weights @ jax.vmap(one)(x0, z)

    levels = jnp.array([0.1, 0.5, 1.0])
    models = jnp.array([[1.5, 0.0, 1.0], [0.3, 0.7, 2.0], [2.0, -0.4, 1.0]])

    @jax.jit
    def all_losses():
        of_models = jax.vmap(lambda model: jax.vmap(lambda t: losses(wave(model), t))(levels))(models)
        return of_models, jax.vmap(lambda t: losses(exact, t))(levels)

    return (np.asarray(levels), *(np.asarray(part) for part in all_losses()))


def test_o3_the_least_loss_of_log_normal_data(expected):
    levels, _, least = expected
    np.testing.assert_allclose(least[:, 0], [0.0303158, 0.0488136, 0.0528440], atol=1e-7)
    variance = SIGMA**2 * levels
    np.testing.assert_allclose(least[:, 0], S0**2 * variance / (S0**2 + variance), rtol=EXACT)


def test_weightings_are_powers_of_the_variance(expected):
    levels, models, _ = expected
    variance = SIGMA**2 * levels
    np.testing.assert_allclose(models[..., 0], models[..., 1] * variance, rtol=EXACT)
    np.testing.assert_allclose(models[..., 1], models[..., 2] * variance, rtol=EXACT)


def test_c4_denoising_and_explicit_losses_differ_by_what_no_model_changes(expected):
    _, models, least = expected
    np.testing.assert_allclose(models[..., 2] - least[None, :, 2], 2 * models[..., 3], rtol=1e-8)


def test_the_loss_is_the_papers_expression(grid):
    x0, z, _ = (part[:50] for part in grid)
    t = jnp.linspace(0.05, 1, 50)

    def stein(t, x):
        return 0.3 - jnp.log(x) / x

    score = ScoreFromStein(stein)
    found = jax.jit(lambda *args: multiplicative_score_matching(score, MOTION, *args))(x0[:, None], z[:, None], t)
    x0, z, t = (np.asarray(part) for part in (x0, z, t))
    x, mu = x0 * np.exp(SIGMA * np.sqrt(t) * z), SIGMA**2 / 2
    residual = SIGMA**2 * t * x * (0.3 - np.log(x) / x) + np.log(x / x0) - mu * t + 1.5 * SIGMA**2 * t
    np.testing.assert_allclose(found, np.mean(residual**2), rtol=EXACT)


def test_a_network_that_knows_the_noise_has_no_loss():
    x0, noise, t = jnp.ones((3, 2)), jnp.array([[1.0, -1.0], [0.2, 0.0], [3.0, 1.0]]), jnp.array([0.1, 0.5, 1.0])
    score = ScoreFromNoise(lambda t, x: jnp.log(x) / (SIGMA * jnp.sqrt(t)), MOTION)
    loss = jax.jit(lambda *args: multiplicative_score_matching(score, MOTION, *args, weighting="score"))
    assert float(loss(x0, noise, t)) < 1e-24


@pytest.fixture(scope="module")
def on_a_line():
    """J of a model and both sides of the integration by parts, by quadrature over the logarithm of mixed data."""
    y = jnp.linspace(-9, 9, 3001)

    @jax.jit
    def sides(centre, std, weight, model):
        parts = [LogNormal(c[None], s[None]) for c, s in zip(centre, std, strict=True)]

        def log_density(x):
            return jax.nn.logsumexp(jnp.stack([p.log_density(x) for p in parts]), b=jnp.stack([weight, 1 - weight]))

        def terms(x):
            exact = x * jax.grad(log_density)(x)

            def h(x):
                return wave(model)(0.0, x)

            def psi(x):
                return stein_from_point_score(h(x), x)

            slope = jax.jvp(psi, (x,), (jnp.ones_like(x),))[1]
            stein_form = (2 * x * psi(x) + x**2 * slope + x**2 * psi(x) ** 2 / 2)[0]
            j = nonnegative_score_matching(h, x[None])
            return jnp.stack([j, stein_form, (h(x)[0] - exact[0]) ** 2 / 2, exact[0] ** 2 / 2, exact[0]])

        x = jnp.exp(y)[:, None]
        density = jnp.exp(jax.vmap(log_density)(x)) * x[:, 0] * (y[1] - y[0])
        return density @ jax.vmap(terms)(x)

    return lambda *args: np.asarray(sides(*(jnp.asarray(a) for a in args)))


@hypothesis.settings(max_examples=20)
@hypothesis.given(
    st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    st.tuples(st.floats(0.2, 0.9), st.floats(0.2, 0.9)),
    st.floats(0, 1),
    st.tuples(*(st.floats(-2, 2) for _ in range(3))),
)
def test_c5_the_explicit_loss_is_nonnegative_score_matching_and_a_constant(on_a_line, centre, std, weight, model):
    j, stein_form, explicit, constant, _ = on_a_line(centre, std, weight, model)
    np.testing.assert_allclose(j, stein_form, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(j + constant, explicit, rtol=1e-8, atol=1e-8)


@hypothesis.settings(max_examples=10)
@hypothesis.given(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), st.tuples(st.floats(0.2, 0.9), st.floats(0.2, 0.9)), st.floats(0, 1))
def test_o5_the_mean_score_is_minus_one(on_a_line, centre, std, weight):
    assert abs(on_a_line(centre, std, weight, (0.0, 0.0, 0.0))[-1] + 1) < 1e-9


def test_o4_nonnegative_score_matching_at_the_truth(on_a_line):
    v = 0.6976
    found = on_a_line((0.0, 0.0), (v**0.5, v**0.5), 0.5, (1 / v, 0.0, 0.0))
    np.testing.assert_allclose(found[0], -1.2167431, atol=1e-7)
    assert abs(found[2]) < 1e-12

    assert abs(on_a_line((0.0, 0.0), (v**0.5, v**0.5), 0.5, (0.0, 0.0, 0.0))[0] + 0.5) < 1e-9  # h = -1: J = -1 + ½
    other = on_a_line((0.0, 0.0), (v**0.5, v**0.5), 0.5, (0.5, 0.3, 1.0))
    np.testing.assert_allclose(other[0] - found[0], other[2], rtol=1e-8)


def test_random_probes_are_exact_for_coordinates_by_themselves():
    def h(x):
        return -1 - jnp.log(x) ** 2

    @jax.jit
    def both(x):
        return nonnegative_score_matching(h, x, key=jax.random.key(0)), nonnegative_score_matching(h, x)

    np.testing.assert_allclose(*both(jnp.array([[0.3, 0.4], [1.0, 2.0]])), rtol=EXACT)


def test_each_point_has_a_probe_of_its_own():
    mixed = jnp.ones((3, 3)) - jnp.eye(3)
    found = jax.jit(lambda x, key: nonnegative_score_matching(lambda x: mixed @ jnp.log(x), x, key=key))(
        np.ones((400, 3)), jax.random.key(0)
    )
    # A third of (Σ ε)² - 3, which is 6 or -2 and 0 on average.
    assert abs(found) < 0.25


def test_o7_scaling_leaves_the_score_alone_and_divides_the_gradient():
    x, c = jnp.array([0.7]), 37.0
    here, there = LogNormal(jnp.zeros(1), jnp.ones(1)), LogNormal(jnp.full(1, np.log(c)), jnp.ones(1))
    np.testing.assert_allclose(there.score(c * x), here.score(x), rtol=EXACT)
    stein = stein_from_point_score(there.score(c * x), c * x)
    np.testing.assert_allclose(stein, stein_from_point_score(here.score(x), x) / c, rtol=EXACT)
    np.testing.assert_allclose(point_score_from_stein(stein, c * x), here.score(x), rtol=EXACT)


def test_trap_the_score_of_the_logarithm_is_one_more():
    density, y = LogNormal(jnp.full(1, 0.3), jnp.full(1, 0.5)), jnp.array([0.8])
    of_log = -(y - 0.3) / 0.25
    np.testing.assert_allclose(point_score_from_log_score(of_log), density.score(jnp.exp(y)), rtol=EXACT)


def test_single_precision_stays():
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 3), (2, 3), (2,))]
    assert jax.eval_shape(lambda *args: multiplicative_score_matching(lambda t, x: -x, MOTION, *args), *args).dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x, t: multiplicative_score_matching(lambda t, x: x, MOTION, x, x, 0 * t),
            r"t must be positive, got a least entry of 0\.0: at 0 there is no noise",
        ),
        (lambda x, t: multiplicative_score_matching(lambda t, x: x, MOTION, -x, x, t), r"x0 must be positive, got a least entry of -1\.0"),
        (lambda x, t: nonnegative_score_matching(lambda x: x, 0 * x), r"x must be positive, got a least entry of 0\.0"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((2, 1)), jnp.ones(2))


def test_an_unknown_weighting_is_refused():
    # By its type under the checks of the tests, by its value without them.
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="weighting"):
        multiplicative_score_matching(lambda t, x: x, MOTION, jnp.ones((2, 1)), jnp.ones((2, 1)), jnp.ones(2), weighting="sigma")


@pytest.mark.parametrize(("datum", "time", "message"), [(0.0, 0.5, "x0 must be positive"), (1.0, 0.0, "t must be positive")])
def test_a_compiled_loss_of_what_cannot_be_is_an_error_and_not_infinite(datum, time, message):
    @eqx.filter_jit
    def loss(x0, t):
        return multiplicative_score_matching(lambda t, x: -1 - jnp.log(x), MOTION, x0, jnp.ones((2, 1)), t)

    with pytest.raises(eqx.EquinoxRuntimeError, match=message):
        loss(jnp.array([[1.0], [datum]]), jnp.array([0.5, time]))
    assert np.isfinite(loss(jnp.ones((2, 1)), jnp.full(2, 0.5)))


def test_compiled_score_matching_of_data_at_zero_is_an_error():
    with pytest.raises(eqx.EquinoxRuntimeError, match="x must be positive"):
        eqx.filter_jit(lambda x: nonnegative_score_matching(lambda x: -1 - x, x))(jnp.array([[1.0], [0.0]]))
