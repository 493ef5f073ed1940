import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.numerics import psnr, ssim

SINGLE = 1e-4


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    reference = random.uniform(size=(3, 12, 10)).astype(np.float32)
    return reference + 0.1 * random.normal(size=reference.shape).astype(np.float32), reference


def test_similarity_is_the_mean_over_windows(images):
    x, reference = images
    expected = []
    for one, other in zip(*images, strict=True):
        values = []
        for i in range(12 - 6):
            for j in range(10 - 6):
                u, v = (image[i : i + 7, j : j + 7].astype(np.float64).ravel() for image in (one, other))
                c = np.cov(u, v)
                brightness = (2 * u.mean() * v.mean() + 4e-4) / (u.mean() ** 2 + v.mean() ** 2 + 4e-4)
                values.append(brightness * (2 * c[0, 1] + 3.6e-3) / (c[0, 0] + c[1, 1] + 3.6e-3))
        expected.append(np.mean(values))
    np.testing.assert_allclose(jax.jit(lambda x, y: ssim(x, y, data_range=2.0))(x, reference), expected, atol=SINGLE)


def test_trap_a_bias_lowers_the_ratio_of_signal_to_noise(images):
    # Stretching both images to their own range would hide it.
    _, reference = images
    np.testing.assert_allclose(psnr(jnp.asarray(reference + 0.1), jnp.asarray(reference), data_range=1.0), 20, rtol=SINGLE)
    np.testing.assert_allclose(psnr(jnp.asarray(reference + 0.1), jnp.asarray(reference), data_range=10.0), 40, rtol=SINGLE)


def test_equal_images():
    x = jnp.ones((8, 8))
    assert psnr(x, x, data_range=1.0) == jnp.inf
    np.testing.assert_allclose(ssim(x, x, data_range=1.0), 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: psnr(jnp.zeros((8, 8)), jnp.zeros((8, 7)), data_range=1.0), r"reference must have the shape of x, \(8, 8\), got \(8, 7\)"),
        (lambda: psnr(jnp.zeros((8, 8)), jnp.zeros((8, 8)), data_range=0.0), r"data_range must be positive, got 0\.0"),
        (lambda: ssim(jnp.zeros((6, 8)), jnp.zeros((6, 8)), data_range=1.0), r"at least 7 pixels a side, got \(6, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
