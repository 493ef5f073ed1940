import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.astro import (
    CALIBRATIONS,
    attenuation_curve,
    balmer_decrement,
    deredden,
    infer_metallicity,
    line_index,
    log_flux_ratio,
    metallicity,
    radial_gradient,
    radial_profile,
)

pytestmark = pytest.mark.usefixtures("double")
WAVES = jnp.array([6564.61, 4862.68, 6585.27, 5008.24])


@pytest.mark.parametrize(
    ("curve", "k"), [("ccm89", (2.534245, 3.607586, 2.524366, 3.471587)), ("calzetti00", (3.324764, 4.596509, None, None))]
)
def test_oracle_dust_curves(curve, k):
    found = attenuation_curve(jnp.asarray(WAVES), curve)
    assert all(expected is None or abs(value - expected) < 1e-6 for value, expected in zip(found, k, strict=True))


def test_oracle_extinction_in_the_near_infrared():
    # J, H and K over V as the article tables them for R_V = 3.1.
    found = attenuation_curve(1e4 / jnp.array([0.80, 0.63, 0.46]), "ccm89") / 3.1
    assert np.allclose(found, [0.282, 0.190, 0.114], atol=3e-3)


def test_oracle_dust_from_the_balmer_lines():
    ratio, one = jnp.array([3.5, 2.86, 2.0]), jnp.ones(3)
    milky_way, starburst = (balmer_decrement(ratio, one, curve).colour_excess for curve in ("ccm89", "calzetti00"))
    assert np.allclose([milky_way[0], starburst[0]], [0.204273, 0.172405], atol=1e-6) and abs(milky_way[1]) < 1e-12
    assert np.isclose(milky_way[0] * attenuation_curve(WAVES, "ccm89")[0], 0.517678, atol=1e-6) and np.isclose(3.1 * milky_way[0], 0.633247)
    # Set to zero, negative excesses would bias the mean.
    assert milky_way[2] < 0
    bare = [deredden(part, wave * one, milky_way, "ccm89") for part, wave in ((ratio, 6564.61), (one, 4862.68))]
    assert np.allclose(bare[0] / bare[1], 2.86)


def test_oracle_calibrations():
    n2, o3 = jnp.asarray(-0.7), jnp.asarray(0.4)
    expected = {
        "pp04-n2": 8.5010, "pp04-n2-cubic": 8.45664, "pp04-o3n2": 8.3780, "m13-n2": 8.4196, "m13-o3n2": 8.2976, "b18-n2": 8.4770,
        "b18-o3n2": 8.5410, "c20-n2": 8.569367, "c20-o3n2": 8.501146,
    }  # fmt: skip
    assert set(expected) == set(CALIBRATIONS)
    for name, value in expected.items():
        index = n2 if CALIBRATIONS[name].index == "N2" else o3 - n2
        found = metallicity(index, name)
        assert abs(found.value - value) < 5e-6, name
        assert abs(line_index(found.value, name).value - index) < 1e-9, name


@pytest.mark.parametrize("name", ["pp04-n2-cubic", "c20-o3n2"])
def test_roots_of_polynomials_have_derivatives(name):
    fn = metallicity if CALIBRATIONS[name].gives == "index" else line_index
    at = jnp.asarray(1.1 if fn is metallicity else 8.4)
    slope = jax.grad(lambda x: fn(x, name).value)(at)
    h = 1e-4
    assert abs(slope - (fn(at + h, name).value - fn(at - h, name).value) / (2 * h)) < 1e-6


def test_trap_beyond_a_calibration_is_told():
    assert not metallicity(jnp.asarray(0.1), "pp04-n2").is_valid and metallicity(jnp.asarray(-1.0), "pp04-n2").is_valid
    assert not metallicity(jnp.asarray(-0.7), "b18-n2").is_valid  # 8.477 lies above 8.4
    # The polynomial turns around beyond its range: no root is better than the wrong one.
    beyond = metallicity(jnp.array([1.0, -5.0]), "c20-n2")
    assert np.isnan(beyond.value).all() and not beyond.is_valid.any()
    assert not line_index(jnp.asarray(9.2), "c20-o3n2").is_valid


def test_an_abundance_beyond_a_calibration_is_told_from_either_side():
    # The first is calibrated in a range of the index, the second in one of the abundance.
    for name, z, is_valid in (("pp04-n2", (7.4, 8.0, 8.8), (False, True, False)), ("b18-n2", (7.7, 8.1, 8.5), (False, True, False))):
        index = line_index(jnp.asarray(z), name)
        assert tuple(index.is_valid.tolist()) == is_valid and tuple(metallicity(index.value, name).is_valid.tolist()) == is_valid


def test_trap_no_logarithm_of_what_is_not_positive():
    ratio = log_flux_ratio(jnp.array([1.0, -1.0, 1.0]), jnp.array([1.0, 1.0, 0.0]))
    assert ratio.is_valid.tolist() == [True, False, False] and np.isnan(ratio.value[1:]).all()
    dust = balmer_decrement(jnp.array([3.0, -1.0]), jnp.array([1.0, 1.0]), "ccm89")
    assert dust.is_valid.tolist() == [True, False] and np.isnan(dust.colour_excess[1])
    assert np.isfinite(jax.grad(lambda f: jnp.nansum(log_flux_ratio(f, jnp.ones(2)).value))(jnp.array([1.0, -1.0]))).all()


def test_trap_ratios_are_of_summed_fluxes():
    random = np.random.default_rng(0)
    n, z, g = 4000, 8.5, -0.05
    r = random.uniform(0, 4, n)
    halpha = np.exp(-r / 1.5)
    nitrogen = halpha * 10 ** ((z + g * r - 8.90) / 0.57)
    fluxes, error = np.stack([halpha, nitrogen]), 0.05
    seen = fluxes + error * random.normal(size=fluxes.shape)
    edges = jnp.linspace(0, 4, 7)
    profile = radial_profile(jax.device_put(seen), jnp.full(fluxes.shape, error), jax.device_put(r), edges=edges, calibration="pp04-n2")
    line = radial_gradient(profile)
    assert abs(line.slope - g) < 3 * line.covariance[1, 1] ** 0.5 < 0.02
    # Of single pixels, those bright in [N II] by chance are all that is left in the outskirts: the gradient vanishes, or turns round.
    kept = seen[1] > 2 * error
    single = 8.90 + 0.57 * np.log10(seen[1, kept] / np.maximum(seen[0, kept], 0.01))
    assert np.polyfit(r[kept], single, 1)[0] > g / 2


def test_a_ring_without_light_is_left_out():
    fluxes = jnp.array([[4.0, 2.0, 1.0, -0.1], [1.0, 0.4, 0.1, 0.1]])
    profile = radial_profile(fluxes, jnp.full((2, 4), 0.01), jnp.array([0.5, 1.5, 2.5, 3.5]), edges=jnp.arange(6.0), calibration="pp04-n2")
    assert profile.is_valid.tolist() == [True, True, True, False, False] and np.isinf(profile.standard_error[3:]).all()
    assert np.isfinite(radial_gradient(profile).slope)


def test_oracle_a_ring_has_the_error_of_its_sums_and_the_mean_radius_of_its_light():
    fluxes, errors = np.array([[4.0, 1.0], [0.9, 0.5]]), np.array([[0.3, 0.1], [0.05, 0.04]])
    profile = radial_profile(*map(jnp.asarray, (fluxes, errors, [1.0, 2.0])), edges=jnp.array([1.0, 3.0]), calibration="pp04-n2")
    (halpha, nitrogen), (first, second) = fluxes.sum(1), (errors**2).sum(1)
    assert np.isclose(profile.metallicity[0], 8.90 + 0.57 * np.log10(nitrogen / halpha))
    assert np.isclose(profile.standard_error[0], 0.57 / np.log(10) * np.sqrt(first / halpha**2 + second / nitrogen**2))
    assert np.isclose(profile.radius[0], (4.0 + 2.0) / 5)


def rings_of(fluxes, errors):
    radius = jnp.array([0.5, 0.6, 1.5, 2.5])
    return radial_profile(fluxes, errors, radius, edges=jnp.arange(4.0), calibration="pp04-n2")


def test_a_masked_pixel_is_left_out_and_leaves_the_other_rings_alone():
    fluxes, errors = jnp.array([[4.0, 3.0, 2.0, 1.0], [1.0, 0.7, 0.4, 0.1]]), jnp.full((2, 4), 0.01)
    whole = rings_of(fluxes, errors)
    bare = radial_profile(fluxes[:, 1:], errors[:, 1:], jnp.array([0.6, 1.5, 2.5]), edges=jnp.arange(4.0), calibration="pp04-n2")
    # Masked in one line is masked in both: a ratio of sums over different pixels is none.
    for row in (0, 1):
        for value in (jnp.nan, jnp.inf, 9.0):
            masked = rings_of(fluxes.at[row, 0].set(value), errors.at[row, 0].set(jnp.inf))
            assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, rtol=1e-12), masked, bare)), (row, value)
    # A number that is missing without a mask spoils its own ring and no other.
    broken = rings_of(fluxes.at[1, 2].set(jnp.nan), errors)
    assert broken.is_valid.tolist() == [True, False, True] and np.isinf(broken.standard_error[1])
    assert np.allclose(broken.metallicity[jnp.array([0, 2])], whole.metallicity[jnp.array([0, 2])], rtol=1e-12)


def seen_lines(z, av):
    n2, o3n2 = 10 ** line_index(jnp.asarray(z), "c20-n2").value, 10 ** line_index(jnp.asarray(z), "c20-o3n2").value
    bare = jnp.stack([jnp.ones(()), o3n2 * n2, jnp.asarray(2.86), 2.86 * n2])
    return bare * 10 ** (-0.4 * attenuation_curve(jnp.asarray([4862.68, 5008.24, 6564.61, 6585.27]), "calzetti00") * av / 4.05)


def test_posterior_finds_abundance_and_dust():
    fluxes = seen_lines(8.4, 1.0)
    found = infer_metallicity(fluxes, 0.01 * fluxes)
    assert found.metallicity[0] < 8.4 < found.metallicity[2] and found.attenuation[0] < 1.0 < found.attenuation[2]
    # No better than the calibrations: 0.1 and 0.09 dex.
    assert 0.04 < (found.metallicity[2] - found.metallicity[0]) / 2 < 0.1
    # A line that is left out is as if it had not been seen.
    gone = infer_metallicity(fluxes.at[1].set(-5.0), (0.01 * fluxes).at[1].set(jnp.inf))
    assert abs(gone.metallicity[1] - 8.4) < 0.03 and gone.metallicity[2] - gone.metallicity[0] > found.metallicity[2] - found.metallicity[0]
    # The abundance hardly knows of Hβ.
    loose = infer_metallicity(fluxes, (0.01 * fluxes).at[0].mul(10.0))
    assert abs(loose.metallicity[1] - found.metallicity[1]) < 0.03


def test_oracle_posterior_is_the_integral_over_the_flux():
    fluxes, errors = np.array([1.0, 1.9, 3.3, 0.7]), np.array([0.05, 0.1, 0.1, 0.05])
    sizes = {"n_metallicities": 6, "n_attenuations": 5, "metallicity_range": (8.3, 8.7), "attenuation_range": (0.0, 1.5)}
    found = infer_metallicity(jnp.asarray(fluxes), jnp.asarray(errors), n2="pp04-n2", o3n2="pp04-o3n2", curve="ccm89", **sizes)
    z, dust = np.linspace(8.3, 8.7, 6), np.linspace(0, 1.5, 5)
    n2, o3n2 = (z - 8.90) / 0.57, (8.73 - z) / 0.32
    ratios = np.stack([0 * z, o3n2 + n2, 0 * z + np.log10(2.86), n2 + np.log10(2.86)], 1)
    k = np.asarray(attenuation_curve(jnp.asarray([4862.68, 5008.24, 6564.61, 6585.27]), "ccm89"))
    # Scatter in dex of each ratio: that of [O III] is of both calibrations.
    scatter = np.log(10) * np.array([0, np.hypot(0.18 / 0.57, 0.14 / 0.32), 0, 0.18 / 0.57])
    f = np.exp(np.linspace(-2, 3, 4001))[:, None]
    exact = np.empty((6, 5))
    for i, j in np.ndindex(6, 5):
        m = f * 10 ** (ratios[i] - 0.4 * k * dust[j] / 3.1)
        v = errors**2 + (m * scatter) ** 2
        exact[i, j] = np.exp(-0.5 * (np.log(v) + (fluxes - m) ** 2 / v).sum(1)).sum()
    assert np.allclose(found.density, exact / exact.sum(), atol=2e-3 * (exact / exact.sum()).max())


def test_a_line_that_is_left_out_may_be_anything():
    fluxes = seen_lines(8.4, 1.0)
    errors = (0.01 * fluxes).at[1].set(jnp.inf)
    for value in (jnp.nan, -5.0):
        found = infer_metallicity(fluxes.at[1].set(value), errors)
        assert np.allclose(found.metallicity, infer_metallicity(fluxes, errors).metallicity, rtol=1e-12)


@pytest.mark.parametrize(("n2", "o3n2", "low", "high"), [
    ("c20-n2", "c20-o3n2", 7.65, 8.85), ("pp04-n2", "pp04-o3n2", 8.122, 8.729), ("pp04-n2-cubic", "b18-o3n2", 7.8, 8.4),
    ("pp04-n2-cubic", "m13-o3n2", 8.1692, 8.7684),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_abundances_run_over_what_both_calibrations_know(n2, o3n2, low, high, dtype):
    fluxes = jnp.asarray(np.array([1.0, 3.0, 3.2, 0.4]), dtype)
    found = infer_metallicity(fluxes, 0.05 * fluxes, n2=n2, o3n2=o3n2)
    assert np.allclose([found.metallicities[0], found.metallicities[-1]], [low, high], atol=1e-5)
    assert np.isfinite(found.density).all() and np.isfinite(found.metallicity).all()


@given(st.floats(-1.5, -0.35))
def test_an_index_and_its_abundance_are_inverse(index):
    with jax.enable_x64(True):
        for name in ("pp04-n2-cubic", "c20-n2"):
            assert abs(line_index(metallicity(jnp.asarray(index), name).value, name).value - index) < 1e-9


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metallicity(jnp.ones(1), "kk04"), "calibration must be one of pp04-n2, .*, got 'kk04'"),
        (lambda: attenuation_curve(jnp.ones(1), "smc"), "curve must be 'ccm89' or 'calzetti00', got 'smc'"),
        (lambda: attenuation_curve(jnp.ones(1), "ccm89"), "wavelength must lie between 3031 and 33333 Å for ccm89"),
        (lambda: infer_metallicity(jnp.ones(4), jnp.zeros(4)), "errors must be positive"),
        (lambda: infer_metallicity(jnp.ones(4), jnp.full(4, jnp.inf)), "errors must be positive and one of them finite"),
        (
            lambda: infer_metallicity(jnp.ones(4), jnp.ones(4), n2="pp04-n2-cubic", metallicity_range=(7.1, 9.2)),
            r"metallicity_range must ascend within \[7.65, 8.85\], .* pp04-n2-cubic and c20-o3n2 .*, got \(7.1, 9.2\)",
        ),
        (
            lambda: infer_metallicity(jnp.ones(4), jnp.ones(4), metallicity_range=(8.5, 8.0)),
            r"metallicity_range must ascend within \[7.65, 8.85\].*got \(8.5, 8.0\)",
        ),
        (
            lambda: infer_metallicity(jnp.ones(4), jnp.ones(4), attenuation_range=(-1.0, 4.0)),
            r"attenuation_range must ascend from at least 0, got \(-1.0, 4.0\)",
        ),
        (
            lambda: infer_metallicity(jnp.ones(4), jnp.ones(4), attenuation_range=(2.0, 1.0)),
            r"attenuation_range must ascend from at least 0, got \(2.0, 1.0\)",
        ),
        (lambda: infer_metallicity(jnp.ones(4), jnp.ones(4), n_metallicities=1), "n_metallicities must be at least 2, got 1"),
        (lambda: infer_metallicity(jnp.ones(4), jnp.ones(4), n_attenuations=0), "n_attenuations must be at least 2, got 0"),
        (
            lambda: infer_metallicity(jnp.ones(4), jnp.ones(4), probabilities=(0.5, 1.5)),
            r"probabilities must lie in \[0, 1\], got \(0.5, 1.5\)",
        ),
        (
            lambda: infer_metallicity(jnp.ones(4), jnp.ones(4), n2="c20-o3n2"),
            "the calibration of N2 must be one of pp04-n2, .*, got 'c20-o3n2'",
        ),
        (
            lambda: radial_profile(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones(3), edges=jnp.zeros(2), calibration="pp04-n2"),
            "edges must ascend",
        ),
        (
            lambda: radial_profile(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones(3), edges=jnp.arange(2.0), calibration="pp04-o3n2"),
            "calibration must be one of pp04-n2, .*, got 'pp04-o3n2'",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, match):
    # A curve's name is checked before its type.
    with pytest.raises(Exception, match=f"{match}|Type-check error"):
        call()
