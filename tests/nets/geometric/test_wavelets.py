import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets.geometric import fourier_modulus, wavelet_modulus_averages

SAMPLES, HALF_WIDTH, HIGHEST = 4096, 32.0, 120.0
SPACING = 2 * HALF_WIDTH / SAMPLES
PRINTED = 6e-4
"Half of the last digit of the numbers, and a little."


def signal(xi, stretch=0.0):
    u = (1 - stretch) * (-HALF_WIDTH + SPACING * np.arange(SAMPLES))
    return jnp.asarray(np.exp(-(u**2) / 8) * np.cos(xi * u))


def averages(x):
    return wavelet_modulus_averages(x, spacing=SPACING, highest=HIGHEST, octaves=8)


@pytest.mark.parametrize(
    ("of", "xi", "expected"),
    [
        (fourier_modulus, 10.0, (0.142, 0.690, 1.189)),
        (fourier_modulus, 40.0, (0.548, 1.422, 1.453)),
        (averages, 10.0, (0.032, 0.164, 0.333)),
        (averages, 40.0, (0.033, 0.169, 0.343)),
    ],
    ids=["Fourier, slow", "Fourier, fast", "wavelets, slow", "wavelets, fast"],
)
def test_o9_relative_changes_under_stretches(of, xi, expected):
    with jax.enable_x64(True):
        before, *after = (np.asarray(of(signal(xi, stretch))) for stretch in (0.0, 0.01, 0.05, 0.1))
    changes = [np.linalg.norm(one - before) / np.linalg.norm(before) for one in after]
    np.testing.assert_allclose(changes, expected, atol=PRINTED)


def test_moduli_do_not_see_shifts():
    with jax.enable_x64(True):
        x = signal(10.0)
        for of in (fourier_modulus, averages):
            np.testing.assert_allclose(of(jnp.roll(x, 100)), of(x), atol=1e-12)


def test_waves_that_cannot_be_are_refused():
    x = jnp.ones(64)
    for wrong in ({"octaves": 0}, {"spacing": 0.0}, {"highest": -1.0}, {"bandwidth": 0.0}):
        with pytest.raises(ValueError, match="spacing, highest, octaves and bandwidth must be positive, got"):
            wavelet_modulus_averages(x, **({"spacing": 0.1, "highest": 1.0, "octaves": 2} | wrong))
    with pytest.raises(ValueError, match=r"highest must be below π / spacing = 31.42, got 40.0"):
        wavelet_modulus_averages(x, spacing=0.1, highest=40.0, octaves=2)
