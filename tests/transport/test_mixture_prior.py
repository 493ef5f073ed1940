import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import MixturePrior, NoiseLevel, draw_ellipses, fit_mixture, random_ellipses

N, RANK, K = 6, 2, 3


@pytest.fixture(scope="module", autouse=True)
def _in_double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def prior():
    random = np.random.default_rng(0)
    axes = np.stack([np.linalg.qr(random.normal(size=(N, RANK)))[0].T for _ in range(K)])
    weights = np.array([0.2, 0.3, 0.5])
    means, variances = random.normal(size=(K, N)), random.uniform(0.2, 2, size=(K, RANK))
    return MixturePrior(*(jax.device_put(array) for array in (weights, means, axes, variances, 0.05)))


denoise = jax.jit(lambda prior, level, x: prior(level, x))


def level(a, m):
    return NoiseLevel(jnp.asarray(a), jnp.asarray(m), jnp.asarray(0.0))


@pytest.mark.parametrize(("a", "m"), [(0.999, 0.02), (0.8, 0.6), (0.05, 0.99), (1.0, 30.0)])
def test_tweedie_the_image_is_that_of_the_score(prior, a, m):
    weights, means, axes, variances = (np.asarray(part) for part in (prior.weights, prior.means, prior.axes, prior.variances))
    covariances = jax.device_put(np.einsum("krn,kr,krm->knm", axes, variances, axes) + 0.05 * np.eye(N))

    def log_density(x):
        laws = [
            jnp.log(w) + jax.scipy.stats.multivariate_normal.logpdf(x, a * mean, a**2 * covariance + m**2 * jnp.eye(N))
            for w, mean, covariance in zip(weights, means, covariances, strict=True)
        ]
        return jax.nn.logsumexp(jnp.stack(laws))

    x = jax.device_put(np.random.default_rng(1).normal(size=(5, N))) * max(m, 1)
    score = jax.jit(jax.vmap(jax.grad(log_density)))(x)
    np.testing.assert_allclose(denoise(prior, level(a, m), x), (x + m**2 * score) / a, rtol=1e-8, atol=1e-8 * max(1, m**2 / a))


def test_no_noise_leaves_the_image_and_much_leaves_the_mean(prior):
    x = jax.device_put(np.random.default_rng(2).normal(size=(4, N)))
    np.testing.assert_allclose(denoise(prior, level(1.0, 1e-4), x), x, atol=1e-5)
    np.testing.assert_allclose(denoise(prior, level(1e-6, 1.0), x), jnp.broadcast_to(prior.weights @ prior.means, x.shape), atol=1e-4)


def test_a_fit_is_that_of_its_groups():
    images = draw_ellipses(random_ellipses(200, seed=0), 8).astype(np.float64)
    prior = fit_mixture(images, n_components=5, rank=4, seed=0)
    axes = np.asarray(prior.axes).reshape(5, 4, 64)
    np.testing.assert_allclose(np.einsum("krn,ksn->krs", axes, axes), np.broadcast_to(np.eye(4), (5, 4, 4)), atol=1e-8)
    np.testing.assert_allclose(prior.weights.sum(), 1, rtol=1e-12)
    # The mean of all images is that of the mixture.
    np.testing.assert_allclose(jnp.tensordot(prior.weights, prior.means, 1), images.mean(axis=0), atol=1e-10)
    assert (np.diff(np.asarray(prior.variances), axis=1) <= 0).all() and prior.floor > 0


def test_one_group_has_the_principal_variances_of_its_images_and_keeps_the_whole():
    images = np.random.default_rng(4).normal(size=(50, 2, 3)) * np.arange(1.0, 7.0).reshape(2, 3)
    prior = fit_mixture(images, n_components=1, rank=2, seed=0)
    covariance = np.cov(images.reshape(50, 6).T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(prior.floor, values[:4].mean(), rtol=1e-9)
    np.testing.assert_allclose(prior.variances[0] + prior.floor, values[:3:-1], rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.asarray(prior.axes).reshape(2, 6) @ vectors[:, :3:-1]), np.eye(2), atol=1e-9)


def test_groups_weigh_as_many_images_as_they_have():
    images = np.concatenate([np.zeros((6, 1, 2)), np.full((2, 1, 2), 9.0)]) + 0.1 * np.random.default_rng(5).normal(size=(8, 1, 2))
    prior = fit_mixture(images, n_components=2, rank=1, seed=0)
    order = np.argsort(prior.weights)
    np.testing.assert_allclose(prior.weights[order], [0.25, 0.75], rtol=1e-12)
    for k, members in zip(order, (images[6:], images[:6]), strict=True):
        largest = np.linalg.eigvalsh(np.cov(members[:, 0].T, bias=True))[-1]
        np.testing.assert_allclose(prior.variances[k, 0], max(largest - float(prior.floor), 0), rtol=1e-9, atol=1e-12)


def test_a_group_smaller_than_its_rank_has_axes_all_the_same():
    images = np.random.default_rng(3).normal(size=(3, 2, 2))
    axes = np.asarray(fit_mixture(images, n_components=3, rank=2, seed=0).axes).reshape(3, 2, 4)
    np.testing.assert_allclose(np.einsum("krn,ksn->krs", axes, axes), np.broadcast_to(np.eye(2), (3, 2, 2)), atol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_components": 4}, "n_components must lie between 1 and the 3 images, got 4"),
        ({"rank": 4}, "below the 4 pixels, got 4"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fit_mixture(np.zeros((3, 2, 2)), **{"n_components": 1, "rank": 1, "seed": 0, **change})
