import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from gradatim.physics.plasma import dispersion_function, faddeeva, whistler_frequency

w, frequency_of = jax.jit(faddeeva), jax.jit(whistler_frequency)
pytestmark = pytest.mark.usefixtures("double")


def test_faddeeva_is_scipys_on_both_half_planes():
    x, y = np.meshgrid(np.linspace(-8, 8, 41), np.concatenate([[0.0], np.geomspace(1e-3, 10, 9), -np.geomspace(1e-3, 3, 7)]))
    z = (x + 1j * y).ravel()
    assert np.allclose(w(z), scipy.special.wofz(z), rtol=1e-10)


def test_faddeeva_in_single_precision():
    z = np.linspace(-5, 5, 21).astype(np.complex64)
    found = w(z)
    assert found.dtype == jnp.complex64
    assert np.allclose(found, scipy.special.wofz(z), atol=1e-6)


def test_derivative_of_the_dispersion_function():
    """Z' = -2 (1 + ζ Z)."""
    zeta = np.asarray([0.3 + 0.2j, -1.5 + 1e-3j, 2.0 - 0.4j, 0.0j])
    Z, slope = jax.jit(jax.vmap(jax.value_and_grad(dispersion_function, holomorphic=True)))(zeta)
    assert np.allclose(slope, -2 * (1 + zeta * Z), rtol=1e-9)


@pytest.mark.parametrize(
    ("heat_flux", "wavenumber", "frequency"),
    [
        (1, 0.620, 0.3301 + 0.0533j),
        (3, 0.780, 0.4026 + 0.3284j),
        (5, 0.865, 0.3180 + 0.6724j),
        (10, 0.993, -0.2028 + 1.6475j),
        (20, 1.139, -1.92 + 3.80j),
    ],
)
def test_fastest_whistlers(heat_flux, wavenumber, frequency):
    K = np.linspace(0.05, 3, 2951)
    growth = np.asarray(frequency_of(K, float(heat_flux)))
    best = int(growth.imag.argmax())
    assert abs(K[best] - wavenumber) < 2e-3
    assert abs(growth[best] - frequency) < (5e-3 if heat_flux < 20 else 2e-2)


@pytest.mark.parametrize("heat_flux", [0.5, 3.0, 20.0])
def test_band_of_growth_ends_at_the_cube_root(heat_flux):
    edge = (heat_flux / 2) ** (1 / 3)
    K = np.asarray([0.2 * edge, 0.999 * edge, 1.001 * edge, 2 * edge])
    assert (np.sign(np.imag(frequency_of(K, heat_flux))) == [1, 1, -1, -1]).all()
    assert (np.imag(frequency_of(-K, heat_flux)) < 0).all()


def test_growth_identity_with_anisotropy():
    """Growth where Δβ + ηβ/(2K) > K²."""
    K, heat_flux, anisotropy = np.meshgrid(np.linspace(0.1, 3, 30), np.linspace(0, 5, 11), np.linspace(-3, 3, 13))
    margin = anisotropy + heat_flux / (2 * K) - K**2
    growth = np.imag(frequency_of(K, heat_flux, anisotropy))
    assert ((np.sign(growth) == np.sign(margin)) | (np.abs(margin) < 1e-9)).all()


def test_firehose_anisotropy_stills_the_whistler():
    K = np.linspace(0.02, 3, 3000)
    free, stilled = (np.imag(frequency_of(K, 3.0, delta)).max() for delta in (0.0, -3.0))
    assert np.isclose(free, 0.3284, rtol=1e-3)
    assert np.isclose(stilled, 0.0045, atol=3e-4) and free / stilled > 60


def test_firehose_value_only_turns_the_sense_of_the_parallel_wave():
    """Without a heat flux, Δβ = -2 and below gives no growth of parallel waves: the electron firehose is oblique."""
    growth = np.imag(frequency_of(np.linspace(0.05, 2, 40), 0.0, -4.0))
    assert (growth < 0).all()
    turned, plain = (np.real(frequency_of(1e-2, 0.0, delta)) for delta in (-4.0, 0.0))
    assert turned * plain < 0
