import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from gradatim.landscape import empirical_ntk, linearise, wide_kernels

ACTIVATIONS = {"relu": jax.nn.relu, "erf": jax.lax.erf}
WEIGHT_VARIANCE = 1.5
X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def network(activation):
    def apply(params, x):
        for number, W in enumerate(params):
            x = jnp.sqrt(WEIGHT_VARIANCE / W.shape[1]) * W @ (x if number == 0 else activation(x))
        return x[0]

    return apply


@pytest.fixture(scope="module", params=ACTIVATIONS)
def kernels(request):
    """Closed kernels of two hidden layers, and those of eight networks of width 256."""
    apply = network(ACTIVATIONS[request.param])

    @jax.jit
    def measure(key, x):
        def one(key):
            w = jax.random.normal(key, (3 * 256 + 256 * 256 + 256,))
            params = [w[:768].reshape(256, 3), w[768:66304].reshape(256, 256), w[66304:].reshape(1, 256)]
            return empirical_ntk(apply, params, x, x)

        closed = wide_kernels(x, x, n_hidden=2, activation=request.param, weight_variance=WEIGHT_VARIANCE)
        return closed, jax.lax.map(one, jax.random.split(key, 8))

    return measure(jax.random.key(0), jax.device_put(X))


def test_kernel_of_wide_networks_is_the_closed_one(kernels):
    closed, measured = kernels
    assert np.abs(measured.mean(0) - closed.ntk).max() < 0.1 * closed.ntk.max()
    assert np.allclose(measured, np.swapaxes(measured, 1, 2), rtol=1e-4, atol=1e-5)


def test_closed_kernels_are_positive_and_the_tangent_kernel_holds_the_other(kernels):
    closed = kernels[0]
    for kernel in (closed.nngp, closed.ntk, closed.ntk - closed.nngp):
        assert np.allclose(kernel, kernel.T, rtol=1e-5) and np.linalg.eigvalsh(kernel).min() > -1e-4


def test_moments_of_the_activations_are_gaussian_integrals():
    # One hidden layer: Σ² = σ_w² E[φ(u) φ(v)] over the Gaussian of the first layer's outputs.
    x, rng = X[:2], np.random.default_rng(0)
    cov = WEIGHT_VARIANCE * x @ x.T / 3
    u = rng.multivariate_normal(np.zeros(2), cov, 400_000)
    for name, phi in (("relu", lambda z: np.maximum(z, 0)), ("erf", special.erf)):
        sample = phi(u)
        closed = wide_kernels(jnp.asarray(x), jnp.asarray(x), activation=name, weight_variance=WEIGHT_VARIANCE)
        assert np.allclose(closed.nngp, WEIGHT_VARIANCE * sample.T @ sample / len(sample), rtol=0.02, atol=0.01)


def test_without_hidden_layers_both_kernels_are_the_inner_product():
    closed = wide_kernels(jnp.asarray(X), jnp.asarray(X[:2]), n_hidden=0, weight_variance=3.0)
    assert np.allclose(closed.nngp, X @ X[:2].T, rtol=1e-5) and np.array_equal(closed.nngp, closed.ntk)


def test_gradients_are_finite_at_equal_opposite_and_zero_inputs():
    x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    total, gradient = jax.jit(jax.value_and_grad(lambda x: wide_kernels(x, x).ntk.sum()))(x)
    # Each input with itself; opposite ones have nothing in common, nor has zero with any.
    assert np.isclose(total, 4) and np.isfinite(gradient).all()


def test_a_linearised_network_is_the_network_at_first_order():
    apply = network(jnp.tanh)
    key = jax.random.key(1)
    params = [jax.random.normal(k, (m, n)) for k, m, n in zip(jax.random.split(key, 2), (8, 1), (3, 8), strict=True)]
    step = [jnp.ones_like(W) for W in params]

    @jax.jit
    def gaps(eps, x):
        tangent = linearise(apply, params)
        moved = jax.tree.map(lambda w, v: w + eps * v, params, step)
        return tangent(params, x) - apply(params, x), tangent(moved, x) - apply(moved, x)

    with jax.enable_x64(True):
        at_start, small = gaps(1e-3, jax.device_put(X[0]))
        _, large = gaps(2e-3, jnp.asarray(X[0]))
    # Single precision leaves 1e-7; the remainder is quadratic.
    assert abs(at_start) < 1e-6 and abs(small) < 1e-4 and abs(large) < 6e-4


def test_leaves_that_are_no_numbers_of_a_network_stay():
    tangent = linearise(lambda p, x: p["w"] * x + p["n"], {"w": jnp.array(2.0), "n": 3})
    assert float(tangent({"w": jnp.array(4.0), "n": 3}, 2.0)) == 11.0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_hidden": -1}, "n_hidden must be at least 0, got -1"),
        ({"weight_variance": 0.0}, "weight_variance must be positive, got 0.0"),
        ({"y": jnp.ones((1, 2))}, "inputs of one length, got 3 and 2"),
    ],
)
def test_bad_input(change, match):
    with pytest.raises(ValueError, match=match):
        wide_kernels(**{"x": jnp.ones((1, 3)), "y": jnp.ones((1, 3))} | change)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_kernels_between_two_sets_are_a_block_of_those_of_both(activation):
    first, second, both = jnp.asarray(X[:1]), jnp.asarray(X[1:]), jnp.asarray(X)
    between, whole = (wide_kernels(*pair, n_hidden=2, activation=activation) for pair in ((first, second), (both, both)))
    for block, kernel in zip(between, whole, strict=True):
        assert np.allclose(block, kernel[:1, 1:], rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_tangent_kernel_adds_up_layer_by_layer(double, activation):
    """By Price's theorem E[φ'(u) φ'(v)] is the slope of E[φ(u) φ(v)] in the covariance k: Θ = Σ³ + dΣ³/dΣ² (Σ² + dΣ²/dk · k)."""
    (a, b), covariance, step = np.linalg.norm(X[:2].astype(float), axis=1), float(X[0] @ X[1]) / 3, 1e-5

    def kernels(n_hidden, change=0.0):
        # Both lengths stay as they are.
        cosine = 3 * (covariance + change) / (a * b)
        pair = jnp.array([[a, 0.0]]), jnp.array([[b * cosine, b * np.sqrt(1 - cosine**2)]])
        return wide_kernels(*(jnp.pad(x, ((0, 0), (0, 1))) for x in pair), n_hidden=n_hidden, activation=activation, weight_variance=1.0)

    once, twice = ((kernels(n, step).nngp - kernels(n, -step).nngp)[0, 0] / (2 * step) for n in (1, 2))
    expected = kernels(2).nngp + twice / once * kernels(1).nngp + twice * covariance
    assert np.allclose(kernels(2).ntk, expected, rtol=1e-7)
