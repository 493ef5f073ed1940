import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import CondOT, GaugeField, GaussianScore, gauge_penalty, gauge_residual, weak_gauge_statistic

TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
EXACT = 1e-10
T = 0.7


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


class Mixture:
    """Three normal densities of different widths in the plane, at every time."""

    means = np.array([[1.0, 0.0], [-1.0, 0.7], [0.2, -1.5]])
    widths = np.array([0.5, 0.8, 0.3])

    def log_density(self, x):
        squares = jnp.sum((x[None] - self.means) ** 2, axis=1) / self.widths**2
        return jax.nn.logsumexp(-squares / 2 - 2 * jnp.log(self.widths))

    def __call__(self, t, x):
        return jax.grad(self.log_density)(x)


@pytest.fixture(scope="module")
def residuals():
    """Of several fields at several points, relative to the size of their terms."""
    mixture = Mixture()
    normal = GaussianScore(CondOT(), jnp.array([[1.5, 0.6], [0.6, 0.5]]))
    turn = jnp.asarray(TURN)

    def rotation(t, x):
        return turn @ x

    def bent(x):
        # Of which the antisymmetric part counts.
        return jnp.sin(x[0] * x[1]) * turn + jnp.cos(x)[:, None]

    fields = {
        "constant": (GaugeField(mixture, turn), mixture),
        "of the place": (GaugeField(mixture, bent), mixture),
        "normal": (GaugeField(normal, turn), normal),
        "rotation of a mixture": (rotation, mixture),
        "rotation of an ellipse": (rotation, normal),
        "rotation of a disc": (rotation, GaussianScore(CondOT(), jnp.eye(2))),
    }
    x = jax.device_put(np.random.default_rng(0).normal(size=(50, 2)))

    @jax.jit
    @jax.vmap
    def of(x):
        t = jnp.asarray(T)

        def one(field, score):
            return gauge_residual(field, score, t, x), field(t, x) @ score(t, x), jnp.linalg.norm(field(t, x))

        return {name: one(*pair) for name, pair in fields.items()}

    return of(x)


@pytest.mark.parametrize("name", ["constant", "of the place", "normal"])
def test_o8_an_antisymmetric_matrix_times_the_score_is_a_gauge_field(residuals, name):
    residual, _, size = residuals[name]
    assert np.abs(residual).max() < EXACT * max(1, np.abs(size).max())


@pytest.mark.parametrize("name", ["constant", "normal"])
def test_o1_a_constant_matrix_gives_no_divergence_and_nothing_along_the_score(residuals, name):
    residual, along, size = residuals[name]
    assert np.abs(along).max() < EXACT * np.square(size).max() and np.abs(residual - along).max() < EXACT * size.max()


def test_a_matrix_of_the_place_obeys_only_the_sum(residuals):
    residual, along, _ = residuals["of the place"]
    assert np.abs(along).max() > 0.1 and np.abs(residual - along).max() > 0.1


def test_trap_without_divergence_is_not_enough_except_for_round_densities(residuals):
    assert np.abs(residuals["rotation of a mixture"][0]).max() > 0.1
    assert np.abs(residuals["rotation of an ellipse"][0]).max() > 0.1
    assert np.abs(residuals["rotation of a disc"][0]).max() < EXACT


def test_weak_statistic_tells_a_gauge_field_from_samples_alone():
    random = np.random.default_rng(0)
    covariance = np.array([[1.5, 0.6], [0.6, 0.5]])
    x = random.normal(size=(20_000, 2)) @ np.linalg.cholesky(covariance).T
    # Of x₁², x₁x₂ and x₂².
    gradients = np.stack([np.stack([2 * x[:, 0], 0 * x[:, 0]], 1), x[:, ::-1], np.stack([0 * x[:, 0], 2 * x[:, 1]], 1)], axis=1)
    gauge = -x @ np.linalg.inv(covariance) @ TURN.T
    statistic = jax.jit(weak_gauge_statistic)
    noise = 4 / len(x) ** 0.5
    assert statistic(jax.device_put(gauge), jax.device_put(gradients)).max() < noise
    assert statistic(jnp.asarray(x @ TURN.T), jnp.asarray(gradients)).max() > 10 * noise
    assert (statistic(jnp.zeros((4, 2)), jnp.ones((4, 3, 2))) == 0).all()


def test_the_penalty_bends_the_part_and_not_the_score():
    t, x = jnp.full(20, T), jax.device_put(np.random.default_rng(0).normal(size=(20, 2)))

    @jax.jit
    def of(part, score):
        return jax.value_and_grad(
            lambda part, score: gauge_penalty(lambda t, x: part @ x, lambda t, x: -score @ x, CondOT(), t, x), argnums=(0, 1)
        )(part, score)

    precision = jnp.array([[2.0, 0.3], [0.3, 1.0]])
    value, (slope, of_score) = of(jnp.asarray(TURN) @ precision, precision)
    assert value < 1e-20 and np.abs(slope).max() < 1e-9 and (of_score == 0).all()
    value, (slope, of_score) = of(jnp.asarray(TURN), precision)
    by_hand = (1 - T) ** 4 * np.mean(np.einsum("ni,ij,nj->n", x, TURN.T @ precision, x) ** 2)
    np.testing.assert_allclose(value, by_hand, rtol=1e-12)
    assert np.abs(slope).max() > 0 and (of_score == 0).all()


def test_random_probes_reach_beyond_exact_derivatives():
    slopes, x = np.linspace(-1, 2, 65), np.random.default_rng(1).normal(size=(2, 65))
    t = np.array([0.3, 0.6])

    @jax.jit
    def of(t, x, key):
        field, score = lambda t, x: slopes * x, lambda t, x: -x
        return gauge_residual(field, score, t[0], x[0], key=key), gauge_penalty(field, score, CondOT(), t, x, key=key)

    residual, penalty = of(t, x, jax.random.key(0))
    # Of coordinates by themselves every probe finds the divergence.
    expected = slopes.sum() - x**2 @ slopes
    np.testing.assert_allclose(residual, expected[0], rtol=1e-9)
    np.testing.assert_allclose(penalty, np.mean(((1 - t) ** 2 * expected) ** 2), rtol=1e-9)


def test_each_point_has_a_probe_of_its_own():
    mixed = np.ones((3, 3)) - np.eye(3)
    t, x = np.zeros(400), np.zeros((400, 3))
    found = jax.jit(lambda t, x, key: gauge_penalty(lambda t, x: mixed @ x, lambda t, x: -x, CondOT(), t, x, key=key))
    # (Σ ε)² - 3 is 6 for a quarter of all signs, else -2: a mean square of 12.
    assert abs(found(t, x, jax.random.key(0)) - 12) < 3


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"antisymmetric must obey A = -Aᵀ, got \[\[0\.0, 1\.0\], \[1\.0, 0\.0\]\]"):
        GaugeField(lambda t, x: x, jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="at most 64 dimensions, got 65: pass a key"):
        gauge_residual(lambda t, x: x, lambda t, x: x, jnp.asarray(0.5), jnp.ones(65))
