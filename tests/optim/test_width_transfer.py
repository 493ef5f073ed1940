import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gradatim.nets import label_parameters
from gradatim.numerics import top_singular_value
from gradatim.optim import match_top_singular_values, scaled_spectrum, sublayer_gain, transfer_report, width_exponent

WIDTHS = [32, 64, 128, 256]


def normal(*shapes):
    random = np.random.default_rng(0)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


@jax.jit
def linear_gain(w, inputs):
    return sublayer_gain(lambda n: w @ n, inputs)


def test_o7_gain_of_a_linear_map_of_isotropic_inputs():
    w, inputs = normal((5, 8), (20_000, 8))
    np.testing.assert_allclose(linear_gain(w, inputs), np.linalg.norm(w) / 5**0.5, rtol=0.01)


def test_o7_worst_gain_is_the_top_singular_value():
    w, inputs = normal((5, 8), (50, 8))
    _, values, vt = np.linalg.svd(w)
    np.testing.assert_allclose(linear_gain(w, vt[:1]), values[0] * (8 / 5) ** 0.5, rtol=1e-5)
    assert linear_gain(w, inputs) < values[0] * (8 / 5) ** 0.5


def test_o8_a_norm_right_after_a_matrix_undoes_its_scale():
    (w, x), norm = normal((6, 4), 4), eqx.nn.RMSNorm(6, eps=0.0, use_bias=False)

    @jax.jit
    @jax.value_and_grad
    def loss(w):
        return jnp.sum(norm(w @ x) ** 3)

    value, gradient = loss(w)
    scaled, scaled_gradient = loss(np.float32(5) * w)
    np.testing.assert_allclose(scaled, value, rtol=1e-4)
    np.testing.assert_allclose(scaled_gradient, np.asarray(gradient) / 5.0, rtol=1e-3, atol=1e-5)


def test_scaled_spectrum_starts_at_one_and_reads_off_ranks():
    w = np.diag(np.array([4, 2, 1], np.float32))
    np.testing.assert_allclose(scaled_spectrum(jnp.asarray(w), jnp.array([0.0, 0.25, 0.5, 1.0])), [1.0, 0.75, 0.5, 0.25], rtol=1e-6)
    np.testing.assert_allclose(scaled_spectrum(jnp.asarray([w, 3 * w]), jnp.array([0.5])), [[0.5], [0.5]], rtol=1e-6)
    assert (scaled_spectrum(jnp.zeros((3, 3)), jnp.array([0.0, 1.0])) == 0).all()
    with pytest.raises(ValueError, match=r"fractions must lie in \[0, 1\]"):
        scaled_spectrum(jnp.asarray(w), jnp.array([1.5]))


def test_singular_values_are_matched_matrix_by_matrix():
    class Net(eqx.Module):
        single: eqx.nn.Linear
        stacked: eqx.nn.Linear
        norm: eqx.nn.RMSNorm

        def __init__(self, width):
            self.single = eqx.nn.Linear(width, width, key=jax.random.key(0))
            self.stacked = eqx.filter_vmap(lambda k: eqx.nn.Linear(width, width, key=k))(jax.random.split(jax.random.key(1), 3))
            self.norm = eqx.nn.RMSNorm(width)

    def scaled(width, single, *stacked):
        eye = np.eye(width, dtype=np.float32)
        weights = jnp.asarray(single * eye), jnp.asarray([scale * eye for scale in stacked])
        return eqx.tree_at(lambda n: (n.single.weight, n.stacked.weight), eqx.filter_jit(Net)(width), weights)

    scales = [1.0, 1.2, 2.0]
    small, large = scaled(4, 1.0, 1.0, 1.0, 1.0), scaled(8, 0.9, *scales)
    table = match_top_singular_values(small, large, label_parameters(small))
    assert list(table) == [".single.weight", ".stacked.weight"]
    np.testing.assert_allclose(table[".single.weight"].ratio, [0.9], rtol=1e-5)
    np.testing.assert_allclose(table[".stacked.weight"].ratio, scales, rtol=1e-5)
    assert table[".single.weight"].is_matched and not table[".stacked.weight"].is_matched
    assert (table[".single.weight"].residual < 1e-5).all()


def test_residuals_are_relative_and_the_larger_of_both_models():
    small, large = ({"w": jnp.asarray(scale * w)} for scale, w in zip((1, 100), normal((6, 6), (6, 6)), strict=True))
    found = [top_singular_value(model["w"], iterations=2) for model in (small, large)]
    expected = [float(f.residual / f.value) for f in found]
    assert abs(expected[0] - expected[1]) > 1e-2
    for first, second in ((small, large), (large, small)):
        match = match_top_singular_values(first, second, {"w": "matrix"}, iterations=2)["['w']"]
        np.testing.assert_allclose(match.residual, [max(expected)], rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "other", "labels", "message"),
    [
        ({"w": jnp.eye(2)}, {"w": jnp.eye(2)}, {"w": "vector"}, "labels must hold 'matrix' at least once"),
        ({"w": jnp.eye(2)}, {"v": jnp.eye(2)}, {"w": "matrix"}, r"\['w'\] is missing in other"),
        ({"w": jnp.eye(2)}, {"w": jnp.zeros((2, 2))}, {"w": "matrix"}, r"must not be zero, got one in \['w'\]"),
        ({"w": jnp.ones((2, 2, 2))}, {"w": jnp.ones((3, 2, 2))}, {"w": "matrix"}, r"equally many matrices in both models, got 2 and 3"),
        ({"w": jnp.eye(2)}, {"w": jnp.eye(2)}, {"v": "matrix"}, r"\['w'\] is missing in labels"),
    ],
)
def test_models_that_do_not_fit_are_refused(model, other, labels, message):
    with pytest.raises(ValueError, match=message):
        match_top_singular_values(model, other, labels)


def test_exponent_and_its_standard_error():
    exact = width_exponent(WIDTHS, 3.0 * np.array(WIDTHS) ** 0.75)
    np.testing.assert_allclose((exact.value, exact.standard_error), (0.75, 0.0), atol=1e-6)
    noisy = np.array(WIDTHS)[:, None] ** np.array([[0.5, 0.6, 0.7]])
    over_seeds = width_exponent(WIDTHS, noisy)
    np.testing.assert_allclose((over_seeds.value, over_seeds.standard_error), (0.6, 0.1 / 3**0.5), rtol=1e-5)
    bent = width_exponent(WIDTHS, np.array([1.0, 1.0, 1.0, 2.0]))
    slope, covariance = np.polyfit(np.log(WIDTHS), np.log([1.0, 1.0, 1.0, 2.0]), 1, cov=True)
    np.testing.assert_allclose((bent.value, bent.standard_error), (slope[0], covariance[0, 0] ** 0.5), rtol=1e-5)


@pytest.mark.parametrize(
    ("widths", "values", "message"),
    [
        ([32, 64], [1.0, 2.0], "widths must be four or more"),
        ([32, 64, 64, 128], [1.0] * 4, "widths must be four or more, all different"),
        (WIDTHS, [1.0, 2.0, 0.0, 1.0], "values must be positive"),
        (WIDTHS, [1.0, 2.0], "values must be positive, of shape"),
    ],
)
def test_trap_exponents_need_four_widths(widths, values, message):
    with pytest.raises(ValueError, match=message):
        width_exponent(widths, np.array(values))


RATES, DECAYS = [0.01, 0.02, 0.04], [0.1, 0.4]


def bowl(shift, n_seeds=3):
    rate, decay, seed = np.meshgrid(np.log2(RATES), np.log2(DECAYS), np.arange(n_seeds), indexing="ij")
    return (rate - np.log2(0.02) - shift) ** 2 + (decay - np.log2(0.1)) + 0.01 * seed


def test_transfer_report_finds_shift_and_regret():
    report = transfer_report(np.stack([bowl(0), bowl(1), bowl(0.25)]), RATES, DECAYS)
    np.testing.assert_allclose(report.best_rate, [0.02, 0.04, 0.02])
    np.testing.assert_allclose(report.rate_shift, [0, 1, 0])
    np.testing.assert_allclose(report.decay_shift, 0)
    np.testing.assert_allclose(report.regret, [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(report.regret_standard_error, 0, atol=1e-12)
    np.testing.assert_array_equal(report.on_edge, [[False, True], [True, True], [False, True]])
    assert np.isnan(transfer_report(bowl(0)[None, ..., 0], RATES, DECAYS).regret_standard_error).all()


def test_transfer_report_pairs_seeds():
    losses = np.random.default_rng(0).uniform(1.0, 2.0, (2, 3, 2, 4))
    losses[0, 1, 0] -= 1.0
    losses[1, 2, 1] -= 1.0
    report = transfer_report(losses, RATES, DECAYS)
    np.testing.assert_allclose(report.best_decay, [0.1, 0.4])
    np.testing.assert_allclose(report.decay_shift, [0, 2])
    extra = losses[1, 1, 0] - losses[1, 2, 1]
    np.testing.assert_allclose(report.regret, [0, extra.mean()])
    np.testing.assert_allclose(report.regret_standard_error, [0, scipy.stats.sem(extra)])


def test_transfer_report_passes_over_what_diverged():
    losses = np.stack([bowl(0), bowl(0)])
    losses[1, 1, 0, 2] = np.nan
    report = transfer_report(losses, RATES, DECAYS)
    assert report.best_rate[1] != 0.02 and np.isinf(report.regret[1])


@pytest.mark.parametrize(
    ("losses", "rates", "message"),
    [
        (np.ones((2, 3)), RATES, r"losses must have shape \(width, 3, 2\[, seed\]\), got \(2, 3\)"),
        (np.ones((2, 3, 2)), [0.02, 0.01, 0.04], "learning_rates must be positive and ascending"),
        (np.full((1, 3, 2), np.nan), RATES, "every pair diverges at width number 0"),
    ],
)
def test_grids_that_do_not_fit_are_refused(losses, rates, message):
    with pytest.raises(ValueError, match=message):
        transfer_report(losses, rates, DECAYS)
