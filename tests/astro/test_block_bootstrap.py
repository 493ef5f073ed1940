import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gradatim.astro import RadialProfile, block_bootstrap, radial_gradient, radial_profile

pytestmark = pytest.mark.usefixtures("double")
N, BLUR = 36, 1.5
OFFSETS = np.arange(N) - (N - 1) / 2
RADIUS = np.hypot(*np.meshgrid(OFFSETS, OFFSETS))
EDGES = jnp.linspace(0.0, 15.0, 6)


def gradient(flux, error, radius):
    return radial_gradient(radial_profile(flux, error, radius, edges=EDGES, calibration="pp04-n2")).slope


def seen(seed, error=0.004):
    """Maps of Hα and [N II] whose noise neighbours share, as a beam of 1.5 pixels makes them."""
    halpha = np.exp(-RADIUS / 6)
    clean = np.stack([halpha, halpha * 10 ** ((8.5 - 0.01 * RADIUS - 8.90) / 0.57)])
    white = np.random.default_rng(seed).normal(size=clean.shape)
    noise = np.stack([gaussian_filter(part, BLUR, mode="wrap") for part in white]) * (2 * BLUR * np.pi**0.5)
    return tuple(map(jax.device_put, (clean + error * noise, np.full(clean.shape, error), RADIUS)))


@pytest.fixture(scope="module")
def scatter():
    with jax.enable_x64(True):
        return float(np.std([float(jax.jit(gradient)(*seen(i))) for i in range(100)], ddof=1))


def error_by_blocks(block):
    errors = [block_bootstrap(gradient, seen(i), block=block, key=jax.random.key(i)).standard_error for i in range(5)]
    return float(np.mean(errors))


def test_trap_neighbours_that_share_their_noise_make_the_naive_error_too_small(scatter):
    """Of the scatter between noise realisations, which a survey of one cube does not see."""
    blocks, pixels = error_by_blocks(6), error_by_blocks(1)
    assert 0.7 < blocks / scatter < 1.5
    profile = radial_profile(*seen(0), edges=EDGES, calibration="pp04-n2")
    naive = float(radial_gradient(profile).covariance[1, 1] ** 0.5)
    assert naive < 0.4 * scatter and pixels < 0.6 * blocks


def test_the_same_key_draws_the_same_samples_and_the_error_is_theirs():
    one, same, other = (block_bootstrap(gradient, seen(0), block=4, key=jax.random.key(i), n_samples=20) for i in (0, 0, 1))
    assert (one.samples == same.samples).all() and not (one.samples == other.samples).any()
    assert np.isclose(one.standard_error, np.std(one.samples, ddof=1))


def test_a_sample_is_as_large_as_the_map_and_keeps_pixels_together():
    rows, columns = (jnp.asarray(part) for part in np.mgrid[0.0:5.0, 0.0:7.0])
    drawn = block_bootstrap(lambda a, b: jnp.asarray(1.0 * a.size) + 0 * (a @ b), (rows, columns), block=2, key=jax.random.key(0))
    assert (drawn.samples == 35).all() and drawn.standard_error == 0
    # A block of the whole map is the map, wherever it begins.
    whole = block_bootstrap(lambda a: a @ a, (rows[:, :5],), block=5, key=jax.random.key(0))
    assert np.allclose(whole.samples, 5 * 30)


def test_rings_may_scatter_beyond_their_errors():
    random = np.random.default_rng(1)
    radius, error = jax.device_put(np.linspace(1.0, 10.0, 200)), jnp.full(200, 0.02)
    level, line = 0.05, 8.6 - 0.03 * np.asarray(radius)
    noisy, calm = (jax.device_put(line + np.hypot(0.02, s) * random.normal(size=200)) for s in (level, 0.0))
    known = jnp.ones(200, bool)
    plain, wide = (radial_gradient(RadialProfile(radius, noisy, error, known), scatter=s) for s in (False, True))
    # χ² comes down to the degrees of freedom, and the error grows with its root.
    assert plain.chi_squared > 4 * 198 and np.isclose(wide.chi_squared, 198, rtol=1e-6)
    assert np.isclose(wide.covariance[1, 1] / plain.covariance[1, 1], plain.chi_squared / 198, rtol=1e-6)
    assert abs(wide.slope + 0.03) < 3 * wide.covariance[1, 1] ** 0.5
    # Where χ² is small already nothing is added, and a ring that is left out stays so.
    gone = radial_gradient(RadialProfile(radius, noisy.at[5].set(0.0), error.at[5].set(jnp.inf), known), scatter=True)
    assert np.isclose(gone.chi_squared, 197, rtol=1e-6) and abs(gone.slope - wide.slope) < 1e-3
    honest = [radial_gradient(RadialProfile(radius, calm, 2 * error, known), scatter=s) for s in (False, True)]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), *honest))
    two = radial_gradient(RadialProfile(radius[:2], noisy[:2], error[:2], known[:2]), scatter=True)
    assert np.isfinite(two.slope) and np.isclose(two.chi_squared, 0, atol=1e-9)


@pytest.mark.parametrize(
    ("maps", "settings", "match"),
    [
        ((np.zeros((4, 6)), np.zeros((2, 6, 4))), {"block": 2}, r"maps must share their last two axes, got \(4, 6\), \(6, 4\)"),
        ((np.zeros((4, 6)),), {"block": 5}, "block must be between 1 and 4, the shorter side of the map, got 5"),
        ((np.zeros((4, 6)),), {"block": 2, "n_samples": 1}, "n_samples must be at least 2, got 1"),
    ],
)
def test_what_cannot_be_is_refused(maps, settings, match):
    with pytest.raises(Exception, match=f"{match}|Type-check error"):
        block_bootstrap(lambda *parts: parts[0].sum(), tuple(map(jax.device_put, maps)), key=jax.random.key(0), **settings)
