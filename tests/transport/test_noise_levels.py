import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import (
    Denoiser,
    NoiseLevel,
    NoiseLevels,
    VariancePreserving,
    in_two_channels,
    levels_of_path,
    variance_exploding_levels,
    variance_preserving_levels,
)

LEVEL = NoiseLevel(jnp.array(0.6), jnp.array(0.8), jnp.array(3.0))


def test_levels_are_products_of_the_rates():
    beta = np.linspace(1e-4, 0.02, 1000)
    a = np.sqrt(np.cumprod(1 - beta))
    levels = variance_preserving_levels(50).levels
    np.testing.assert_allclose(levels.a, a[980::-20], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(levels.a) ** 2 + np.asarray(levels.m) ** 2, 1, rtol=1e-6)
    np.testing.assert_array_equal(levels.time, np.arange(980, -1, -20))


def test_they_are_nearly_those_of_the_continuous_path():
    # Its time runs from noise to data; of a step's rates it takes the integral and not the product.
    discrete = variance_preserving_levels(1000).levels
    path = jax.jit(lambda time: levels_of_path(VariancePreserving(), 1 - (time + 0.5) / 1000).levels)(discrete.time)
    np.testing.assert_allclose(path.a, discrete.a, rtol=5e-2)


@pytest.mark.parametrize("is_last_noise_free", [False, True])
def test_each_level_leads_to_the_next(is_last_noise_free):
    levels = variance_exploding_levels(4, sigma_min=0.1, sigma_max=100.0)
    after = levels.after(is_last_noise_free=is_last_noise_free)
    np.testing.assert_allclose(after.m, [10, 1, 0 if is_last_noise_free else 0.1, 0], rtol=1e-5)
    np.testing.assert_array_equal(after.a, 1)
    np.testing.assert_allclose(after.time, [10, 1, 0.1, 0.1], rtol=1e-5)
    assert len(levels) == 4


def test_the_kinds_of_prediction_say_the_same():
    random = np.random.default_rng(0)
    x, noise = (jax.device_put(random.normal(size=(2, 3)).astype(np.float32)) for _ in range(2))
    image = (np.asarray(x) - np.float32(0.8) * np.asarray(noise)) / np.float32(0.6)
    for kind, said in {"noise": noise, "image": image, "score": -np.asarray(noise) / np.float32(0.8)}.items():
        known = jax.device_put(said)
        found = eqx.filter_jit(Denoiser(lambda level, x, known=known: known, kind))(LEVEL, x)
        np.testing.assert_allclose(found.image, image, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.noise, noise, rtol=1e-5, atol=1e-6)


def test_trap_complex_images_are_two_channels():
    # Each part through its own channel: no measurement or noise is added to both.
    x = jnp.array([[1.0 + 2.0j]])
    model = in_two_channels(lambda level, channels: channels * jnp.array([[[2.0, 3.0]]]))
    np.testing.assert_allclose(eqx.filter_jit(Denoiser(model, "image"))(LEVEL, x).image, [[2.0 + 6.0j]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: variance_preserving_levels(30), "n_steps must be a divisor of the 1000 training steps, got 30"),
        (lambda: variance_preserving_levels(2000), "n_steps must be a divisor of the 1000 training steps, got 2000"),
        (lambda: variance_preserving_levels(0), "n_steps must be a divisor"),
        (lambda: variance_preserving_levels(10, beta_end=1.0), r"0 < beta_start <= beta_end < 1, got 0\.0001 and 1\.0"),
        (lambda: variance_exploding_levels(1), "n_steps must be at least 2"),
        (lambda: variance_exploding_levels(5, sigma_min=60.0), r"0 < sigma_min < sigma_max, got 5, 60\.0 and 50\.0"),
        (lambda: NoiseLevels(jnp.ones(2), jnp.ones(2), jnp.ones(2)), "levels must descend in m / a"),
        (lambda: NoiseLevels(jnp.ones(2), jnp.array([2.0, 1.0]), jnp.ones(1)), "must hold one number for each level, got 2, 2 and 1"),
        (lambda: NoiseLevels(jnp.ones(2), jnp.ones(1), jnp.ones(2)), "must hold one number for each level, got 2, 1 and 2"),
        (lambda: Denoiser(lambda level, x: x[0], "image")(LEVEL, jnp.ones((2, 3))), r"model must keep the shape \(2, 3\), got \(3,\)"),
    ],
)
def test_what_is_out_of_range_is_refused(without_type_checks, make, message):
    with pytest.raises((ValueError, jax.errors.TracerBoolConversionError), match=message):
        make()
