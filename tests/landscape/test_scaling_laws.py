import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.landscape import (
    effective_map,
    fit_scaling_law,
    fit_variance_limited,
    intrinsic_dimension,
    loss_of_features,
    loss_of_samples,
    power_law_spectrum,
    random_feature_loss,
    spectral_exponent,
    spectral_learning_curve,
)

pytestmark = pytest.mark.usefixtures("double")
ROUND_OFF = 1e-10  # double precision; spectra that span five decades
S = 24


def draw(seed, *shape):
    return jax.device_put(np.random.default_rng(seed).normal(size=shape))


def root(C):
    values, vectors = np.linalg.eigh(C)
    return jnp.asarray((vectors * np.sqrt(values)) @ vectors.T)


# One shape for nearly all: nine pairs of sizes, or three sizes, of twelve rows, a full covariance. Sizes are traced.
GRID = jnp.array([(d, p) for d in (3, 8, 12) for p in (3, 8, 12)])
THREE = jnp.array([3, 8, 12])


def losses(C, Phi, W, pairs=GRID):
    return random_feature_loss(C, Phi, W, pairs[:, 0], pairs[:, 1])


@pytest.fixture(scope="module")
def problem():
    """Samples, projections and a covariance that is not diagonal, with losses at all pairs of sizes."""
    with jax.enable_x64(True):
        Q = jnp.linalg.qr(draw(1, S, S))[0]
        C = Q @ jnp.diag(power_law_spectrum(1.0, S)) @ Q.T
        Z, W, A = draw(2, 12, S), draw(3, 12, S), root(C)
        return C, A, Q, Z, W, losses(C, Z @ A, W)


def by_definition(C, Phi, W):
    C, Phi, W = (np.asarray(x) for x in (C, Phi, W))
    rest = np.eye(len(C)) - W.T @ np.linalg.pinv(Phi @ W.T, rcond=1e-13) @ Phi
    return np.trace(rest.T @ C @ rest) / (2 * len(C))


def test_the_effective_map_is_what_the_student_learns(problem):
    _, A, _, Z, W, _ = problem
    Phi, teacher = np.asarray(Z) @ np.asarray(A), np.random.default_rng(0).normal(size=S)
    student = np.linalg.lstsq(Phi @ np.asarray(W).T, Phi @ teacher, rcond=None)[0]
    assert np.allclose(np.asarray(jax.jit(effective_map)(Phi, W)) @ teacher, np.asarray(W).T @ student, rtol=1e-7)


@pytest.fixture(scope="module")
def theory():
    with jax.enable_x64(True):
        curve = jax.jit(lambda a, D: spectral_learning_curve(power_law_spectrum(a, 200_000), D))
        D = jnp.array([16.0, 64.0, 256.0, 512.0])
        return {a: curve(jnp.asarray(a), D) for a in (0.5, 1.0, 2.0)}


def test_theory_has_its_known_values(theory):
    one, two, half = (np.asarray(theory[a].loss) for a in (1.0, 2.0, 0.5))
    assert np.allclose(one[[0, 1, 3]], [0.14499826, 0.03794781, 0.00479975], atol=5e-9)
    assert np.isclose(np.log2(one[3] / one[2]), -0.9987, atol=1e-4)
    assert np.allclose(two[[1, 3]], [4.216914e-4, 6.724808e-6], rtol=2e-7)
    assert np.allclose(half[[1, 3]], [0.45798655, 0.15921838], atol=5e-9)


def test_t7_a_cut_spectrum_steepens_the_curve(theory):
    assert np.isclose(np.log2(theory[0.5].loss[3] / theory[0.5].loss[2]), -0.5158, atol=1e-4)


def test_for_equal_targets_the_loss_is_kappa_and_gamma_is_a_over_one_plus_a(theory):
    for a, curve in theory.items():
        assert np.allclose(curve.loss, curve.kappa, rtol=1e-11)
        assert np.isclose(curve.gamma[3], a / (1 + a), atol=0.01)
    assert np.isclose(theory[0.5].gamma[3], 0.342, atol=5e-4)


def test_t2_the_prefactor_of_steep_spectra_is_one_over_alpha():
    D = 400.0
    spectrum = power_law_spectrum(6.0, 20_000)
    tail = float(spectrum[int(D) :].sum()) * D**6
    assert np.isclose(tail, 1 / 6, rtol=0.02) and abs(tail / 6 - 1) > 0.9


def test_kappa_solves_its_equation_with_a_ridge_and_uneven_targets():
    spectrum, power = power_law_spectrum(0.7, 40), jnp.linspace(0, 2, 40)
    D, r = jnp.array([[0.0, 3.0], [39.0, 100.0]]), 0.05
    curve = spectral_learning_curve(spectrum, D, target_power=power, ridge=r)
    kappa, n, lam = np.asarray(curve.kappa)[..., None], np.asarray(D)[..., None], np.asarray(spectrum)
    assert np.allclose(r + (kappa * lam / (kappa + n * lam)).sum(-1), curve.kappa, rtol=1e-11)
    expected = curve.kappa**2 / (1 - curve.gamma) * (lam * np.asarray(power) / (kappa + n * lam) ** 2).sum(-1)
    assert np.allclose(curve.loss, expected) and np.isclose(curve.loss[0, 0], (spectrum * power).sum())


def test_two_scales_of_eigenvalues_do_not_mislead_the_root():
    spectrum = jnp.concatenate([jnp.ones(10), jnp.full(25, 1e-9), jnp.zeros(5)])
    curve = spectral_learning_curve(spectrum, jnp.array([5.0, 20.0, 35.0, 100.0]))
    # Few samples see the large ones alone; of many each of these takes one up: 10/20 + 25e-9/(κ + 20e-9) = 1.
    assert np.allclose(curve.kappa[:2], [5.0, 30e-9], rtol=1e-6)
    assert (curve.loss[2:] == 0).all() and np.isclose(curve.gamma[2], 1)


def test_derivatives_of_the_curve_pass_through_its_root():
    def loss(a, r, D):
        return spectral_learning_curve(jnp.arange(1.0, 41) ** -(1 + a), D * jnp.ones(4), ridge=r).loss.mean()

    value_and_slopes = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    at = np.array([1.0, 0.1, 4.0])
    slopes = np.array(value_and_slopes(*at)[1])
    step = 1e-5
    differences = [(value_and_slopes(*(at + v))[0] - value_and_slopes(*(at - v))[0]) / (2 * step) for v in step * np.eye(3)]
    assert np.allclose(slopes, differences, rtol=1e-6)
    # Isotropic, without ridge: the loss is 40 - D.
    assert np.allclose(value_and_slopes(-1.0, 0.0, 4.0)[0], 36) and np.isclose(value_and_slopes(-1.0, 0.0, 4.0)[1][2], -1)


def test_isotropic_losses_are_known_for_every_draw():
    for loss, name in ((loss_of_samples, "D"), (loss_of_features, "P")):
        assert np.allclose(loss(jnp.eye(S), draw(4, 12, S), THREE).loss, (S - THREE) / (2 * S), rtol=ROUND_OFF), name
    assert np.allclose(spectral_learning_curve(jnp.ones(40), jnp.arange(4.0)).kappa, 40 - np.arange(4), rtol=1e-12)


def test_the_loss_is_its_definition(problem):
    C, A, _, Z, W, there = problem
    for i in (1, 3, 8):
        d, p = GRID[i].tolist()
        assert np.isclose(there.loss[i], by_definition(C, (Z @ A)[:d], W[:p]), rtol=1e-8) and there.rank[i] == min(d, p)


def test_samples_and_projections_are_exchanged_exactly(problem):
    C, A, _, Z, W, there = problem
    back = losses(C, W @ A, Z, GRID[:, ::-1])
    # Conditioning: at D = P the inverse amplifies round-off.
    assert np.allclose(there.loss, back.loss, rtol=1e-7) and np.array_equal(there.rank, back.rank)


def test_rotating_features_and_covariance_changes_nothing(problem):
    C, A, Q, Z, W, there = problem
    assert np.allclose(losses(Q.T @ C @ Q, Z @ A @ Q, W @ Q).loss, there.loss, rtol=1e-7)


def test_all_features_give_the_loss_of_samples_and_all_samples_that_of_features(problem):
    C, A, Q, Z, W, _ = problem
    whole = random_feature_loss(C, Z @ A, Q, THREE, jnp.full(3, S))
    assert np.allclose(whole.loss, loss_of_samples(C, Z @ A, THREE).loss, rtol=ROUND_OFF)
    # Samples that fill the space: Φᵀ Φ = C.
    infinite = random_feature_loss(C, A, W, jnp.full(3, S), THREE)
    assert np.allclose(infinite.loss, loss_of_features(C, W, THREE).loss, rtol=ROUND_OFF)
    # A projection that is invertible and not orthogonal changes the norm, and so the loss.
    skew = random_feature_loss(C, Z @ A, draw(5, S, S), THREE, jnp.full(3, S))
    assert not np.allclose(skew.loss, whole.loss, rtol=1e-2)


def test_the_loss_of_features_never_rises(problem):
    C, W = problem[0], problem[4]
    loss = np.concatenate([loss_of_features(C, W, first + jnp.arange(3)).loss for first in (1, 4, 7, 10)])
    assert (np.diff(loss) < 0).all()


def test_students_with_as_many_features_as_samples_interpolate(problem):
    _, A, _, Z, W, _ = problem
    enough, few = effective_map(Z @ A, W), effective_map(Z @ A, W * (jnp.arange(12) < 11)[:, None])
    assert np.allclose(Z @ A @ enough, Z @ A, atol=1e-8) and not np.allclose(Z @ A @ few, Z @ A, atol=1e-3)


@pytest.fixture(scope="module")
def finite_sizes():
    """Twenty features or samples among 60, and up to 480 of the other, over 30 draws."""
    with jax.enable_x64(True):
        C = power_law_spectrum(1.0, 60)
        n, few = jnp.array([80, 120, 240, 480]), jnp.full(4, 20)
        rows = draw(6, 30, 500, 60)

        # By the exact exchange these are also losses of 20 samples and up to 480 projections.
        found = [random_feature_loss(C, row[:480] * jnp.sqrt(C)[None], row[480:], n, few).loss for row in rows]
        limit = [loss_of_features(C, row[480:], few[:1]).loss[0] for row in rows]
        return np.asarray(n), np.array(found), np.array(limit)


def test_variance_limited_excess_has_its_exact_mean(finite_sizes):
    n, losses, limit = finite_sizes
    ratio = losses.mean(0) / limit.mean() - 1
    assert np.allclose(ratio, 20 / (n - 21), rtol=0.08)


def test_variance_limited_exponent_is_one_and_steeper_near_the_peak(finite_sizes):
    n, losses, limit = finite_sizes
    fit = fit_variance_limited(n, losses, limit)
    exact = -np.polyfit(np.log(n), np.log(20 / (n - 21)), 1)[0]
    assert fit.low <= exact <= fit.high and 1 < fit.exponent < 1.2 and fit.n_points == 4


def test_t6_t9_losses_peak_where_samples_are_as_many_as_features():
    sizes = jnp.array([(d, 6) for d in (1, 2, 3, 4, 5, 6, 7, 9, 12)])
    C = power_law_spectrum(1.0, S)
    found = np.array([losses(jnp.diag(C), rows[:12] * jnp.sqrt(C)[None], rows[12:], sizes).loss for rows in draw(7, 40, 24, S)])
    median, mean = np.median(found, axis=0), found.mean(axis=0)
    assert median[2:].argmax() == 3 and median[5] > 2 * median[2] and median[5] > 3 * median[-1]
    # Heavy tails at the peak, none away from it.
    assert mean[5] > 1.5 * median[5] and mean[-1] < 1.2 * median[-1]


def test_repeated_samples_are_counted_once(problem):
    C, A, _, Z, W, _ = problem
    thrice = jnp.concatenate([(Z @ A)[:4]] * 3)
    found = losses(C, thrice, W, jnp.tile(jnp.array([[4, 12], [8, 12], [12, 12]]), (3, 1)))
    assert (found.rank == 4).all() and np.allclose(found.loss, found.loss[0], rtol=1e-6)
    alone = loss_of_samples(C, thrice, jnp.array([4, 8, 12]))
    assert (alone.rank == 4).all() and np.allclose(alone.loss, alone.loss[0], rtol=1e-6)


def test_t8_a_large_cut_loses_small_directions():
    C = power_law_spectrum(3.0, S)
    Phi = draw(2, 12, S) * jnp.sqrt(C)[None]
    exact, cut = (loss_of_samples(jnp.diag(C), Phi, THREE, rcond=rcond) for rcond in (1e-12, 1e-3))
    assert exact.rank[2] == 12 and cut.rank[2] < 8 and cut.loss[2] > 4 * exact.loss[2]


def test_t10_a_loss_is_one_half_and_one_over_s_of_the_trace():
    C = power_law_spectrum(1.0, S)
    nothing = loss_of_features(jnp.diag(C), jnp.zeros((12, S)), THREE)
    assert np.allclose(nothing.loss * 2 * S, C.sum()) and (nothing.rank == 0).all()


def test_monte_carlo_over_gaussian_features_meets_the_theory():
    C, D = power_law_spectrum(1.0, 40), jnp.array([2.0, 4.0, 8.0, 8.0])
    rows = np.asarray(draw(8, 100, 12, 40)) * np.sqrt(C)
    found = np.array([loss_of_samples(C, jnp.asarray(row), jnp.array([2, 4, 8])).loss for row in rows])
    # At so few samples the theory is as far off as the draws scatter.
    assert np.allclose(80 * found.mean(axis=0), spectral_learning_curve(C, D).loss[:3], rtol=0.1)


def test_theorem_1_quadratic_losses_differ_by_the_variance():
    f = np.random.default_rng(0).normal(1.0, 0.3, 1000)
    curvature = 3.0
    loss = 0.5 * curvature * (f - 2) ** 2
    assert np.isclose(loss.mean() - 0.5 * curvature * (f.mean() - 2) ** 2, curvature / 2 * f.var())


@pytest.mark.parametrize("d", [1, 2, 4])
def test_nearest_neighbours_come_nearer_as_the_inverse_dimension(d):
    from scipy.spatial import KDTree

    rng, n = np.random.default_rng(d), np.array([100, 200, 400, 800, 1600])
    places = rng.uniform(size=(200, d))
    # On a torus: a cube's faces would bend the line.
    distances = [KDTree(rng.uniform(size=(m, d)), boxsize=1.0).query(places)[0].mean() for m in n for _ in range(4)]
    slope = np.polyfit(np.log(np.repeat(n, 4)), np.log(distances), 1)[0]
    assert abs(slope + 1 / d) < 0.08 / d + 0.02


@pytest.mark.parametrize("d", [1, 2, 4])
def test_intrinsic_dimension_of_a_cube_in_space(d):
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(1500, d)) @ np.linalg.qr(rng.normal(size=(6, d)))[0].T
    assert abs(intrinsic_dimension(points) / d - 1) < 0.12


def test_intrinsic_dimension_does_not_change_with_scale_or_place():
    points = np.random.default_rng(0).normal(size=(200, 3))
    assert np.isclose(intrinsic_dimension(points), intrinsic_dimension(5 * points[::-1] - 3), rtol=1e-9)


@given(st.floats(0.1, 3.0), st.floats(0.01, 100.0))
def test_an_exact_scaling_law_is_found(exponent, prefactor):
    n = np.array([16.0, 32.0, 64.0, 128.0, 1e4])
    y = prefactor * np.stack([n**-exponent, 2 * n**-exponent])
    y[:, 4] = 1
    fit = fit_scaling_law(n, y, window=(16, 128), n_resamples=20)
    assert np.isclose(fit.exponent, exponent) and np.isclose(fit.low, fit.high) and fit.n_points == 4
    assert np.isclose(fit.prefactor, prefactor * 2**0.5)


def test_a_scaling_law_averages_logarithms_over_seeds():
    n = np.array([1.0, 2.0, 4.0, 8.0])
    fit = fit_scaling_law(n, np.stack([n**-1.0, n**-2.0, n**-3.0]))
    assert np.isclose(fit.exponent, 2.0) and np.isclose(fit.low, 1.0, atol=0.4) and np.isclose(fit.high, 3.0, atol=0.4)


def test_t1_a_measured_limit_tells_exponents_apart_that_a_free_floor_does_not():
    n = np.array([16.0, 32.0, 64.0, 128.0, 256.0])
    y = 1 + n**-1.0
    # With a floor that is free a curve of exponent ½ passes within half a per cent of every point.
    design = np.stack([np.ones(5), n**-0.5], axis=1)
    other = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert np.abs(other / y - 1).max() < 0.005
    assert np.isclose(fit_variance_limited(n, y[None], np.ones(1)).exponent, 1.0)


def test_resamples_below_the_limit_make_the_interval_open():
    n = np.array([1.0, 2.0, 4.0, 8.0])
    fit = fit_variance_limited(n, 1 + np.array([[3.0], [-1.0], [-0.5]]) / n, np.ones(3))
    assert np.isclose(fit.exponent, 1.0) and fit.low == -np.inf and fit.high == np.inf


def test_spectral_exponent_of_a_power_law_is_exact():
    assert np.isclose(spectral_exponent(power_law_spectrum(1.3, 200), (4, 190)), 1.3)


ONES, FOUR = jnp.ones((2, 3)), np.arange(1, 5)
BAD = {
    "sizes of a spectrum": (lambda: power_law_spectrum(1.0, 0), "size must be at least 1, got 0"),
    "short window": (lambda: spectral_exponent(jnp.ones(10), (3, 5)), r"at least 4 of the ranks from 1 to 10, got \(3, 5\)"),
    "window beyond": (lambda: spectral_exponent(jnp.ones(10), (3, 11)), r"ranks from 1 to 10, got \(3, 11\)"),
    "columns": (lambda: random_feature_loss(jnp.ones(3), ONES, jnp.ones((2, 4))), "column for each teacher feature, got 3 and 4"),
    "covariance": (lambda: loss_of_samples(jnp.ones(4), ONES, THREE), r"shape \(3, 3\), or \(3,\).*got \(4,\)"),
    "too many": (lambda: loss_of_samples(jnp.ones(3), ONES, jnp.array([3])), r"between 1 and the 2 rows there are, got \[3\]"),
    "no features": (lambda: loss_of_features(jnp.ones(3), ONES, jnp.array([0])), "n_features must lie between 1 and the 2"),
    "half a pair": (lambda: random_feature_loss(jnp.ones(3), ONES, ONES, THREE), "n_samples and n_features must be given together"),
    "negative spectrum": (lambda: spectral_learning_curve(-jnp.ones(2), jnp.array([1])), "spectrum must not be negative, got.*-1"),
    "no spectrum": (lambda: spectral_learning_curve(jnp.zeros(2), jnp.array([1])), "an eigenvalue above zero"),
    "negative ridge": (lambda: spectral_learning_curve(jnp.ones(2), jnp.array([1]), ridge=-1.0), "ridge must not be negative"),
    "three points": (lambda: fit_scaling_law(FOUR, np.ones((1, 4)), window=(2, 8)), r"at least 4 sizes, got 3 of \[1, 2, 3, 4\]"),
    "negative losses": (lambda: fit_scaling_law(FOUR, -np.ones((1, 4))), "losses must be positive, got a minimum of -1"),
    "no excess": (lambda: fit_variance_limited(FOUR, np.ones((1, 4)), np.ones(1)), "mean excess over the limit must be positive"),
    "limits": (lambda: fit_variance_limited(FOUR, np.ones((1, 4)), np.ones(2)), "one loss for each of the 1 seeds"),
    "lengths": (lambda: fit_scaling_law(FOUR, np.ones((1, 3))), r"each of the 4 sizes, got shape \(1, 3\)"),
    "one neighbour": (lambda: intrinsic_dimension(np.eye(5), (1, 2)), "neighbours must lie between 2 and the 4 others"),
    "copies": (lambda: intrinsic_dimension(np.ones((9, 2))), "points must not repeat, got 9 with a copy"),
}


@pytest.mark.parametrize(("call", "match"), BAD.values(), ids=BAD)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_cut_takes_small_directions_for_none():
    features = jnp.diag(jnp.array([1.0, 0.1, 1e-4]))
    for rcond, kept in ((1e-12, 3), (1e-2, 2)):
        found = random_feature_loss(jnp.ones(3), features, jnp.eye(3), rcond=rcond)
        assert found.rank == kept and np.isclose(found.loss, (3 - kept) / 6)
        assert np.allclose(effective_map(features, jnp.eye(3), rcond=rcond), np.diag(np.arange(3) < kept), atol=1e-10)


def test_every_octave_of_ranks_has_the_same_weight():
    values = np.sort(np.arange(1.0, 51) ** -1.5 * np.exp(0.2 * np.random.default_rng(0).normal(size=50)))[::-1]
    rank = np.arange(4, 41)
    slope = np.polyfit(np.log(rank), np.log(values[3:40]), 1, w=rank**-0.5)[0]
    assert np.isclose(spectral_exponent(jnp.asarray(values), (4, 40)), -1 - slope)


def test_each_seed_nears_a_limit_of_its_own_within_the_window():
    n, limits = np.array([16.0, 32.0, 64.0, 128.0, 256.0]), np.array([1.0, 2.0, 5.0])
    losses = limits[:, None] + 3 / n[None]
    losses[:, -1] += 1
    fit = fit_variance_limited(n, losses, limits, window=(16, 128))
    assert np.allclose([fit.exponent, fit.low, fit.high, fit.prefactor], [1, 1, 1, 3]) and fit.n_points == 4


@pytest.mark.parametrize("diagonal", [True, False])
def test_more_rows_than_teacher_features_give_the_same_formula(diagonal):
    mix = np.random.default_rng(9).normal(size=(5, 5))
    covariance = np.diag(np.arange(1.0, 6)) if diagonal else mix @ mix.T
    features, projection = draw(10, 9, 5), draw(11, 8, 5)
    found = random_feature_loss(
        jnp.asarray(np.diag(covariance) if diagonal else covariance), features, projection, jnp.array([9, 7, 3]), jnp.array([2, 4, 8])
    )
    for i, (d, p) in enumerate(((9, 2), (7, 4), (3, 8))):
        assert np.isclose(found.loss[i], by_definition(covariance, features[:d], projection[:p]), rtol=1e-8)
