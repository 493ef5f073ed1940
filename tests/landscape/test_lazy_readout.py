import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from scipy.linalg import expm

from gradatim.landscape import lazy_readout, target_gradient

TIMES = np.array([0.0, 0.01, 0.5, 6.0, 7.0, np.inf])
ROUND_OFF = 1e-9  # of an eigendecomposition in double precision


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def shapes_unchecked():
    """As for users, who have no check of the declared shapes."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@jax.jit
def flow(features, targets, decay, start, scale):
    lazy = lazy_readout(features, targets, decay=decay, start=start, output_scale=scale)
    times = jnp.asarray(TIMES)
    small = jnp.array([0.0, 1e-5, 2e-5])
    return lazy.weights(times), lazy.feature_gradient(times), lazy.feature_gradient(small), lazy.rates


@pytest.fixture(scope="module")
def problem():
    random = np.random.default_rng(0)
    F, Y, V0 = random.normal(size=(9, 5)), random.normal(size=(9, 3)), random.normal(size=(5, 3))
    return F, Y, V0, F - F.mean(axis=0), Y - Y.mean(axis=0)


CASES = {"decay": (0.3, 1.0), "no decay": (0.0, 1.0), "scaled": (0.3, 2.5)}


@pytest.mark.parametrize(("decay", "scale"), CASES.values(), ids=CASES)
def test_the_flow_is_the_matrix_exponential(problem, decay, scale):
    F, Y, V0, Fc, Yc = problem
    weights, gradients, _, rates = flow(F, Y, decay, V0, scale)
    A = scale**2 * Fc.T @ Fc + decay * np.eye(5)
    end = scale * np.linalg.solve(A, Fc.T @ Yc)
    for time, V, G in zip(TIMES, weights, gradients, strict=True):
        left = expm(-A * time) if np.isfinite(time) else np.zeros_like(A)
        exact = end + left @ (V0 - end)
        assert np.allclose(V, exact, atol=ROUND_OFF)
        assert np.allclose(G, scale * (Yc - scale * Fc @ exact) @ exact.T, atol=1e-8)
    assert np.allclose(rates, np.linalg.eigvalsh(A))


@pytest.mark.parametrize(("decay", "scale"), CASES.values(), ids=CASES)
def test_the_gradient_begins_as_the_article_says(problem, decay, scale):
    F, Y, V0, Fc, Yc = problem
    start, soon, later = flow(F, Y, decay, V0, scale)[2]
    assert np.allclose(start, scale * (Yc @ V0.T - scale * Fc @ V0 @ V0.T), atol=ROUND_OFF)
    second = -(Yc @ V0.T @ Fc.T @ Fc + Fc @ V0 @ Yc.T @ Fc + Fc @ Fc.T @ Yc @ V0.T)
    third = Fc @ V0 @ V0.T @ Fc.T @ Fc + Fc @ Fc.T @ Fc @ V0 @ V0.T
    # Of the gradient with respect to the features each order has one power of β more than printed; decay shrinks both factors.
    slope = scale * (scale * Yc @ Yc.T @ Fc + scale**2 * second + scale**3 * third)
    slope += scale * decay * (-Yc @ V0.T + 2 * scale * Fc @ V0 @ V0.T)
    measured = (4 * soon - later - 3 * start) / 2e-5
    assert np.allclose(measured, slope, rtol=1e-3, atol=1e-3 * np.abs(slope).max())


def test_o7_the_gradient_ends_where_the_article_says_and_in_proportion_to_decay(problem):
    F, Y, V0, Fc, Yc = problem
    for decay in (0.3, 0.003):
        end = flow(F, Y, decay, V0, 1.0)[1][-1]
        left = decay * np.linalg.solve(Fc @ Fc.T + decay * np.eye(9), Yc @ Yc.T @ Fc) @ np.linalg.inv(Fc.T @ Fc + decay * np.eye(5))
        assert np.allclose(end, left, atol=ROUND_OFF)
    wide = np.random.default_rng(1).normal(size=(9, 5)) @ np.random.default_rng(2).normal(size=(5, 5))
    realisable = (wide - wide.mean(axis=0)) @ np.ones((5, 3))
    sizes = [np.linalg.norm(flow(wide, realisable, decay, V0, 1.0)[1][-1]) for decay in (1e-4, 1e-5, 0.0)]
    assert np.isclose(sizes[0] / sizes[1], 10, rtol=0.05) and sizes[2] < 1e-7 * sizes[1] / 1e-5


def test_o7_the_end_is_approached_at_the_smallest_rate(problem):
    F, Y, V0, *_ = problem
    weights, _, _, rates = jax.device_get(flow(F, Y, 0.3, V0, 1.0))
    away = np.linalg.norm(weights[3:5] - weights[-1:], axis=(1, 2))
    assert np.isclose(np.log(away[0] / away[1]), rates[0], rtol=0.02)


def test_t4_an_output_scale_is_another_decay(problem):
    F, Y, V0, *_ = problem
    scaled, plain = flow(F, Y, 0.4, V0, 2.0), flow(F, Y, 0.1, V0, 1.0)
    assert np.allclose(scaled[0][-1], plain[0][-1] / 2, atol=ROUND_OFF)
    # The true gradient's end: β times the error times V*/β, so that no power of β is left but through the decay.
    assert np.allclose(scaled[1][-1], plain[1][-1], atol=ROUND_OFF)


def test_a_wide_layer_goes_through_the_smaller_matrix_and_keeps_what_it_cannot_see():
    random = np.random.default_rng(3)
    F, Y, V0 = random.normal(size=(4, 7)), random.normal(size=(4, 2)), random.normal(size=(7, 2))
    lazy = lazy_readout(jax.device_put(F), jax.device_put(Y), decay=0.2, start=jax.device_put(V0))
    assert lazy.rates.shape == (4,)
    Fc, Yc = F - F.mean(axis=0), Y - Y.mean(axis=0)
    A = Fc.T @ Fc + 0.2 * np.eye(7)
    end = np.linalg.solve(A, Fc.T @ Yc)
    assert np.allclose(lazy.weights(jnp.asarray(0.7)), end + expm(-0.7 * A) @ (V0 - end), atol=ROUND_OFF)
    still = lazy_readout(jnp.asarray(F), jnp.asarray(Y), decay=0.0, start=jnp.asarray(V0)).weights(jnp.inf)
    hidden = np.eye(7) - np.linalg.pinv(Fc) @ Fc
    assert np.allclose(still, np.linalg.pinv(Fc) @ Yc + hidden @ V0, atol=ROUND_OFF)


def test_the_leak_is_the_target_gradient_at_first():
    random = np.random.default_rng(4)
    F, labels = random.normal(size=(9, 5)), random.integers(0, 3, 9)
    early = flow(F, np.eye(3)[labels], 0.3, np.zeros((5, 3)), 1.0)[2][1] / 1e-5
    sent = jax.jit(target_gradient, static_argnums=2)(jax.device_put(F - F.mean(axis=0)), jax.device_put(labels), 3)
    assert np.allclose(early, sent, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay": -0.1}, "decay must be at least 0, got -0.1"),
        ({"output_scale": 0.0}, "output_scale must be positive, got 0.0"),
        ({"start": jnp.zeros((2, 2))}, r"start must have shape \(3, 2\), nodes by outputs, got \(2, 2\)"),
        ({"targets": jnp.zeros((5, 2))}, r"targets must have 4 rows, one a sample, got shape \(5, 2\)"),
    ],
)
def test_bad_input_is_refused(changes, message, shapes_unchecked):
    del shapes_unchecked
    good = {"features": jnp.zeros((4, 3)), "targets": jnp.zeros((4, 2)), "decay": 0.1}
    with pytest.raises(ValueError, match=message):
        lazy_readout(**{**good, **changes})


def test_a_negative_time_is_refused():
    lazy = lazy_readout(jnp.eye(3), jnp.eye(3), decay=0.1)
    for call in (lazy.weights, lazy.feature_gradient):
        with pytest.raises(ValueError, match="time must be at least 0, got -1"):
            call(-1.0)
