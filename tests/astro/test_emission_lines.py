import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.astro import (
    HALPHA_COMPLEX,
    HBETA_COMPLEX,
    LineSet,
    channel_edges,
    extract_lines,
    fit_lines,
    instrumental_dispersion,
    line_profiles,
)

pytestmark = pytest.mark.usefixtures("double")
N = 32
WAVE = 6534.567 + 1.5 * np.arange(45)
"As many spectra and channels as in the smoke run of the paper, whose compiled program serves here."
INSTRUMENT = instrumental_dispersion(2700)


def spectra(velocity, dispersion, fluxes, lines=HALPHA_COMPLEX, wave=WAVE):
    profiles = line_profiles(channel_edges(jax.device_put(wave)), lines, velocity, dispersion, instrument=INSTRUMENT)
    return jnp.einsum("scg,sg->sc", profiles, fluxes) + 0.2 + 1e-3 * (jnp.asarray(wave) - wave[0])[None, :]


@pytest.fixture(scope="module")
def truth():
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        return (
            jax.device_put(random.uniform(-200, 200, N)),
            jax.device_put(random.uniform(20, 120, N)),
            jax.device_put(np.stack([random.uniform(5, 20, N), random.uniform(0.5, 5, N)], axis=1)),
        )


def test_oracle_without_noise_all_comes_back(truth):
    velocity, dispersion, fluxes = truth
    flux = spectra(*truth)
    fit = fit_lines(jnp.asarray(WAVE), flux, jnp.ones_like(flux), HALPHA_COMPLEX, resolving_power=2700)
    assert fit.is_valid.all()
    assert np.allclose(fit.flux, fluxes, rtol=1e-6) and np.allclose(fit.model, flux, atol=1e-6)
    assert np.allclose(fit.velocity, velocity, atol=1e-3) and np.allclose(fit.dispersion, dispersion, atol=1e-3)


def test_errors_are_the_scatter_and_the_instrument_can_stay_in_the_width(truth):
    noise = 0.05
    one = [jax.device_put(np.broadcast_to(np.asarray(part)[0], part.shape)) for part in truth]
    flux = np.asarray(spectra(*one)) + noise * np.random.default_rng(1).normal(size=(N, WAVE.size))
    weights = np.full(flux.shape, noise**-2)
    # Two channels are bad: one far off, one without a number.
    flux[:, 3], flux[:, 40], weights[:, [3, 40]] = 1e3, np.nan, 0.0
    fit = fit_lines(jax.device_put(WAVE), jax.device_put(flux), jax.device_put(weights), HALPHA_COMPLEX, resolving_power=None)
    fit, one = jax.tree.map(np.asarray, (fit, one))
    assert fit.is_valid.all() and abs(fit.chi_squared.mean() / (WAVE.size - 8) - 1) < 0.1
    width = np.hypot(one[1][0], INSTRUMENT)
    for found, error, true in (
        (fit.flux[:, 0], fit.flux_error[:, 0], one[2][0, 0]),
        (fit.flux[:, 1], fit.flux_error[:, 1], one[2][0, 1]),
        (fit.velocity, fit.velocity_error, one[0][0]),
        (fit.dispersion, fit.dispersion_error, width),
    ):
        pulls = np.asarray((found - true) / error)
        # 32 pulls: mean to 0.18, deviation to an eighth.
        assert abs(pulls.mean()) < 0.6 and 0.6 < pulls.std() < 1.45


def test_oracle_error_of_an_isolated_line_of_known_place_and_width():
    wave = 6430.0 + 0.5 * np.arange(540)
    line = LineSet(("Hα",), (6564.61,), (0,), (1.0,))
    velocity, dispersion, noise = jnp.zeros(1), jnp.full(1, 100.0), 0.3
    s = 6564.61 * np.hypot(100.0, INSTRUMENT) / 299_792.458
    flux = spectra(velocity, dispersion, jnp.full((1, 1), 7.0), line, wave)
    found = extract_lines(
        jnp.asarray(wave), flux, jnp.full(flux.shape, noise**-2), line, velocity=velocity, dispersion=dispersion, resolving_power=2700
    )
    assert abs(found.flux[0, 0] - 7) < 1e-9
    # The continuum beside it takes about s/range more.
    assert abs(found.flux_error[0, 0] / (np.sqrt(2 * np.sqrt(np.pi) * s / 0.5) * noise * 0.5) - 1) < 0.02


def test_at_a_redshift_all_is_as_at_rest_but_stretched(truth):
    z, flux = 1.3, spectra(*truth)
    wave, stretched = jnp.asarray(WAVE) * (1 + z), flux / (1 + z)
    one = jnp.ones_like(flux)
    known = {"velocity": truth[0], "dispersion": truth[1], "resolving_power": 2700}
    extracted = extract_lines(wave, stretched, one, HALPHA_COMPLEX, redshift=z, **known)
    fit = fit_lines(wave, stretched, one, HALPHA_COMPLEX, redshift=z, resolving_power=2700)
    assert np.allclose(extracted.flux, truth[2], rtol=1e-6) and np.allclose(fit.flux, truth[2], rtol=1e-6)
    assert np.allclose(fit.velocity, truth[0], atol=1e-3) and np.allclose(fit.dispersion, truth[1], atol=1e-3)
    still = [line_profiles(channel_edges(w), HALPHA_COMPLEX, *truth[:2], redshift=r, instrument=47.0) for w, r in ((WAVE, 0.0), (wave, z))]
    assert np.allclose(still[1] * (1 + z), still[0], rtol=1e-8, atol=1e-12)


def test_a_fit_needs_more_channels_than_it_has_unknowns():
    # Six: velocity, width, two fluxes and the continuum's two.
    flux = spectra(jnp.zeros(N), jnp.full(N, 60.0), jnp.tile(jnp.array([[10.0, 3.0]]), (N, 1)))
    weights = jnp.zeros_like(flux).at[:, jnp.array([5, 18, 20, 22, 33, 35])].set(1.0).at[1:, 42].set(1.0)
    fit = fit_lines(jnp.asarray(WAVE), flux, weights, HALPHA_COMPLEX, resolving_power=2700)
    assert fit.is_valid.tolist() == [False, *[True] * (N - 1)]


def test_channels_of_no_weight_may_be_anything(truth):
    flux = spectra(*truth)
    weights = jnp.ones_like(flux).at[:, 7].set(0.0)
    known = {"velocity": truth[0], "dispersion": truth[1], "resolving_power": 2700}
    for value in (jnp.nan, jnp.inf, 1e3):
        found = extract_lines(jnp.asarray(WAVE), flux.at[:, 7].set(value), weights, HALPHA_COMPLEX, **known)
        assert np.allclose(found.flux, truth[2], rtol=1e-6)


def test_known_profiles_give_fluxes_where_a_search_settles_on_the_noise(truth):
    noise = 1.0
    one = [jnp.broadcast_to(part[1], part.shape) for part in truth]
    faint = (one[0], one[1], jnp.tile(jnp.array([[6.0, 1.0]]), (N, 1)))
    flux = spectra(*faint) + noise * np.random.default_rng(2).normal(size=(N, WAVE.size))
    weights = jnp.full(flux.shape, noise**-2)
    known = extract_lines(jnp.asarray(WAVE), flux, weights, HALPHA_COMPLEX, velocity=one[0], dispersion=one[1], resolving_power=2700)
    searched = fit_lines(jnp.asarray(WAVE), flux, weights, HALPHA_COMPLEX, resolving_power=2700)
    error = float(known.flux_error[0, 0]) / N**0.5
    assert abs(known.flux[:, 0].mean() - 6) < 3 * error
    assert jnp.std(searched.flux[:, 0]) > 1.2 * jnp.std(known.flux[:, 0])


def test_trap_wavelengths_are_those_of_vacuum():
    # In air: 6562.8, 6583.5, 5006.8.
    assert HALPHA_COMPLEX.wavelengths[:2] == (6564.61, 6585.27) and HBETA_COMPLEX.wavelengths[1] == 5008.24
    assert np.isclose(1 / HALPHA_COMPLEX.ratios[2], 3.05) and np.isclose(1 / HBETA_COMPLEX.ratios[2], 2.98)


def test_oracle_width_of_the_instrument():
    assert abs(INSTRUMENT - 47.152) < 1e-3
    with pytest.raises(ValueError, match="resolving_power must be positive, got 0"):
        instrumental_dispersion(0)


@pytest.mark.parametrize(
    ("wave", "flux", "weights", "settings", "match"),
    [
        ([1.0, 3.0, 2.0], [[1.0] * 3], [[1.0] * 3], {}, "wavelength must ascend, got a smallest step of -1.0"),
        ([1.0, 2.0, 3.0], [[1.0] * 3], [[1.0, -1.0, 1.0]], {}, "inverse_variance must be at least 0, got a minimum of -1.0"),
        ([1.0, 2.0, 3.0], [[1.0] * 3], [[1.0] * 3], {"n_steps": 0}, "n_steps must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused(wave, flux, weights, settings, match):
    with pytest.raises(ValueError, match=match):
        fit_lines(jnp.asarray(wave), jnp.asarray(flux), jnp.asarray(weights), HALPHA_COMPLEX, resolving_power=2700, **settings)


def test_sets_of_lines_must_fit_together():
    with pytest.raises(ValueError, match="wavelengths, groups and ratios must have one entry a line"):
        LineSet(("a", "b"), (1.0, 2.0), (0, 0), (1.0, 1.0))
