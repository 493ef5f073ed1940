import numpy as np
import pytest

from gradatim.astro import voronoi_bin

N = 48


@pytest.fixture(scope="module")
def galaxy():
    """An exponential disc that is bright in the middle and drowns in the noise at the edge; a corner is masked."""
    y, x = (part.ravel() for part in np.mgrid[0.0:N, 0.0:N])
    kept = ~((x < 8) & (y < 8))
    x, y = x[kept], y[kept]
    return x, y, 30 * np.exp(-np.hypot(x - 25, y - 22) / 7), np.ones(x.size)


@pytest.fixture(scope="module")
def bins(galaxy):
    return voronoi_bin(*galaxy, 20.0)


def test_every_bin_reaches_the_target_within_its_scatter(bins):
    joined = bins.signal_to_noise[bins.n_pixels > 1]
    assert len(joined) > 20 and abs(joined.mean() / 20 - 1) < 0.03 and joined.std() < 0.08 * 20
    assert joined.min() > 0.75 * 20 and joined.max() < 1.35 * 20
    # A pixel that has enough by itself is not joined to any other.
    assert (bins.n_pixels == 1).any() and bins.signal_to_noise[bins.n_pixels == 1].min() > 0.75 * 20


def test_all_pixels_have_a_bin_and_its_numbers_are_theirs(galaxy, bins):
    x, y, signal, noise = galaxy
    number = bins.number
    assert number.shape == x.shape and set(number) == set(range(len(bins.x)))
    assert (bins.n_pixels == np.bincount(number)).all()
    assert np.allclose(bins.x, np.bincount(number, x) / bins.n_pixels) and np.allclose(bins.y, np.bincount(number, y) / bins.n_pixels)
    assert np.allclose(bins.signal_to_noise, np.bincount(number, signal) / np.sqrt(np.bincount(number, noise**2)))
    assert all(np.isfinite(part).all() for part in bins)


def test_bins_grow_outwards_from_the_brightest_pixel(galaxy, bins):
    x, y, signal, _ = galaxy
    brightest = np.argmax(signal)
    assert bins.number[brightest] == 0
    far, n = np.hypot(bins.x - x[brightest], bins.y - y[brightest]), len(bins.x) // 4
    assert far[0] == far.min() and far[:10].max() < 4 and far[-n:].mean() > 2 * far[:n].mean()


def test_bins_are_compact(galaxy, bins):
    x, y = galaxy[:2]
    reach = np.array([np.hypot(*(part[bins.number == i] - middle[i] for part, middle in ((x, bins.x), (y, bins.y)))).max()
                      for i in range(len(bins.x))])  # fmt: skip
    # A square of as many pixels reaches 1.25 times as far as a disc.
    assert np.median(reach / np.sqrt(bins.n_pixels / np.pi)) < 1.5


def test_the_units_of_the_map_do_not_matter(galaxy, bins):
    x, y, signal, noise = galaxy
    # By powers of two: pixels at equal distances are told apart by rounding.
    again = voronoi_bin(0.25 * x, 0.25 * y, 8 * signal, 8 * noise, 20.0)
    assert (again.number == bins.number).all() and np.allclose(again.x, 0.25 * bins.x)


def test_a_target_that_every_pixel_reaches_joins_none():
    x, y = (part.ravel() for part in np.mgrid[0.0:4.0, 0.0:4.0])
    bins = voronoi_bin(x, y, np.full(16, 9.0), np.ones(16), 5.0)
    assert (bins.n_pixels == 1).all() and (bins.signal_to_noise == 9).all()
    assert voronoi_bin(x[:1], y[:1], np.full(1, 9.0), np.ones(1), 5.0).number.tolist() == [0]


def test_a_target_that_only_all_pixels_reach_joins_all():
    x, y = (part.ravel() for part in np.mgrid[0.0:4.0, 0.0:4.0])
    bins = voronoi_bin(x, y, np.ones(16), np.ones(16), 4.0)
    assert bins.n_pixels.tolist() == [16] and bins.signal_to_noise.tolist() == [4.0]
    # A row of bright pixels far apart: nothing compact gets there.
    assert voronoi_bin(np.array([0.0, 1.0, 9.0, 20.0]), np.zeros(4), np.ones(4), np.ones(4), 2.0).n_pixels.tolist() == [4]


def test_pixels_of_negative_flux_are_binned_like_any(galaxy):
    x, y, signal, noise = galaxy
    noisy = signal + noise * np.random.default_rng(0).normal(size=signal.size)
    bins = voronoi_bin(x, y, noisy, noise, 20.0)
    joined = bins.signal_to_noise[bins.n_pixels > 1]
    assert (noisy < 0).sum() > 100 and bins.number.min() == 0 and abs(joined.mean() / 20 - 1) < 0.1 and joined.min() > 12


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"noise": np.array([1.0, np.nan, 1.0])}, "noise must be finite, got 1 of 3 pixels that are not: leave masked pixels out"),
        ({"signal": np.array([np.inf, np.nan, 1.0])}, "signal must be finite, got 2 of 3 pixels that are not: leave masked"),
        ({"noise": np.array([1.0, 0.0, 1.0])}, "noise must be positive, got 1 of 3 pixels where it is not: leave masked"),
        ({"noise": np.ones(2)}, r"noise must list one number a pixel, as x of shape \(3,\) does, got shape \(2,\)"),
        ({"x": np.zeros(3)}, "x and y must differ between pixels, got two at one place"),
        ({"target": 0.0}, "target must be positive and at most 3.464, what all pixels together have, got 0.0"),
        ({"target": 3.5}, "target must be positive and at most 3.464, what all pixels together have, got 3.5"),
    ],
)
def test_what_cannot_be_is_refused(change, match):
    settings = {"x": np.arange(3.0), "y": np.zeros(3), "signal": np.full(3, 2.0), "noise": np.ones(3), "target": 3.0} | change
    with pytest.raises(Exception, match=f"{match}|Type-check error"):
        voronoi_bin(**settings)
