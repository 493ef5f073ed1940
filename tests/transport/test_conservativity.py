import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import CondOT, FreeScore, GradientScore, asymmetry_share, denoising_score_matching

DIM = 3
POINTS = np.random.default_rng(0).normal(size=(40, DIM))
TIMES = np.random.default_rng(1).uniform(0.05, 0.95, size=40)


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def network(weights):
    """A smooth function of time and place that is no gradient."""
    return lambda t, x: weights[1] @ jnp.tanh(weights[0] @ x + t)


@pytest.fixture(scope="module")
def weights():
    random = np.random.default_rng(2)
    return [jax.device_put(random.normal(size=shape)) for shape in ((8, DIM), (DIM, 8))]


@pytest.fixture(scope="module")
def shares(weights):
    @jax.jit
    def of(weights, points, key):
        t = jnp.asarray(0.5)
        fields = [
            FreeScore(network(weights), CondOT()),
            GradientScore(network(weights), CondOT()),
            lambda t, x: jnp.roll(x, 1) - jnp.roll(x, -1),
        ]
        exact = [asymmetry_share(field, t, points) for field in fields]
        return exact, [asymmetry_share(field, t, points, key=key, n_probes=200) for field in fields]

    return of(weights, jnp.asarray(POINTS), jax.random.key(0))


def test_a_gradient_has_no_asymmetry_and_a_rotation_nothing_else(shares):
    free, gradient, rotation = shares[0]
    assert 0.01 < free < 1 and abs(gradient) < 1e-12 and abs(rotation - 1) < 1e-12


def test_probes_agree_with_the_whole_jacobian(shares):
    # Forty points and two hundred probes: a per cent or so.
    np.testing.assert_allclose(shares[1], shares[0], rtol=0.1, atol=1e-12)


def test_both_models_are_the_score_where_the_denoiser_is_exact(weights):
    path, t = CondOT(), jnp.asarray(0.4)

    def exact(t, x):
        # Of data that are a single point.
        return 0 * x + 1.5

    x = jnp.asarray(POINTS[0])
    expected = -(POINTS[0] - 0.4 * 1.5) / 0.6**2
    for model in (FreeScore, GradientScore):
        np.testing.assert_allclose(jax.jit(lambda x, model=model: model(exact, path)(t, x))(x), expected, rtol=1e-12)


def test_score_matching_differs_from_the_error_of_the_score_by_a_constant(weights):
    # Of data ±1 in each coordinate the score is known: the loss less its least value is the mean square error.
    random = np.random.default_rng(3)
    n = 20_000
    data, noise, t = random.choice([-1.0, 1.0], size=(n, 1)), random.normal(size=(n, 1)), random.uniform(0.1, 0.8, n)
    path = CondOT()

    def exact(t, x):
        a, m = t, 1 - t
        return (a * jnp.tanh(a * x / m**2) - x) / m**2

    @jax.jit
    def of(noise, data, t):
        def wrong(t, x):
            return exact(t, x) + 0.3 * jnp.cos(x)

        losses = [denoising_score_matching(score, path, noise, data, t) for score in (exact, wrong)]
        return losses[1] - losses[0], jnp.mean((1 - t) ** 2 * (0.3 * jnp.cos(path.point(noise, data, t)[:, 0])) ** 2)

    found, expected = of(*map(jnp.asarray, (noise, data, t)))
    np.testing.assert_allclose(found, expected, atol=4 * 0.3 / n**0.5)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at most 64 dimensions, got 65: pass a key for random probes"):
        asymmetry_share(lambda t, x: x, jnp.asarray(0.5), jnp.ones((2, 65)))
