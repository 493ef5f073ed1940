import jax
import jax.numpy as jnp
import jaxtyping
import lineax as lx
import numpy as np
import pytest

from gradatim.landscape import (
    bulk_edge,
    count_outliers,
    hessian_spectrum,
    hessian_trace,
    permuted_edge,
    spectral_density,
    top_eigenpairs,
)
from gradatim.numerics import HessianOperator, dense_matrix

ROUND_OFF = 1e-10


def test_o2_deep_linear_net_through_lanczos(double):
    operator = HessianOperator(lambda w, _: 0.5 * (jnp.prod(w) - 1) ** 2, jnp.array([2.0, 0.5, 1.0, 1.0]), None)
    spectrum = hessian_spectrum(operator, key=jax.random.key(0))
    assert np.allclose(spectrum.eigenvalues, [6.25, 0, 0, 0], atol=ROUND_OFF)
    assert int(count_outliers(spectrum.eigenvalues)) == 1


def test_o5_a_spike_leaves_the_bulk_where_theory_says(double):
    n, m, strength = 1000, 200, 4.0
    aspect, random = m / n, np.random.default_rng(0)
    rows = random.normal(size=(n, m))
    rows[:, 0] += random.choice([-1, 1], n) * np.sqrt(strength)
    known = np.linalg.eigvalsh(rows.T @ rows / n)[::-1]
    values = jax.device_put(known)
    assert abs(known[0] - (1 + strength) * (1 + aspect / strength)) < 0.5  # 5.25; finite size ± 0.25
    edge = bulk_edge(values, n_samples=n)
    assert abs(edge - 2.094) < 0.1
    assert abs(known[1] - edge) < 0.15
    assert int(count_outliers(values, "edge", edge=edge + 0.15)) == 1


def test_a_spike_is_not_in_the_edge_of_permuted_columns_whatever_their_variances(double):
    n, m, random = 1000, 200, np.random.default_rng(0)
    scales = np.where(np.arange(m) < 20, 3.0, 0.3)
    noise = random.normal(size=(n, m)) * scales
    direction = random.normal(size=m) * scales
    rows = noise + 6 * random.choice([-1, 1], n)[:, None] * direction / np.linalg.norm(direction)
    edge, of_noise = (float(permuted_edge(jax.device_put(x / n**0.5), key=jax.random.key(0))) for x in (rows, noise))
    values = np.linalg.eigvalsh(rows.T @ rows / n)[::-1]
    assert abs(of_noise / np.linalg.eigvalsh(noise.T @ noise / n)[-1] - 1) < 0.05
    assert values[0] > edge > values[1]
    # Scaled to the median variance, the law of equal ones takes the wider columns for outliers.
    assert int(count_outliers(jax.device_put(values), "edge", edge=bulk_edge(jax.device_put(values), n_samples=n))) >= 20
    wide = np.random.default_rng(1).normal(size=(50, 200)) / 50**0.5
    np.testing.assert_allclose(permuted_edge(jax.device_put(wide), key=jax.random.key(0)), (1 + 200**0.5 / 50**0.5) ** 2, rtol=0.1)


def test_o6_density_has_mass_one_and_moments_are_traces(getkey, double):
    values, key, probes = np.linspace(-1, 2, 60), getkey(), {"steps": 20, "n_probes": 200}
    operator = lx.DiagonalLinearOperator(jax.device_put(values))
    spectrum = hessian_spectrum(operator, key=key, **probes)
    grid = jax.device_put(np.linspace(-2, 3, 2001))
    density = spectral_density(operator, grid, key=key, sigma=0.05, **probes)
    assert abs(np.trapezoid(density.value, grid) - 1) < 1e-6
    for power in range(4):
        moment = spectrum.moment(power)
        assert abs(moment.value - np.mean(values**power)) <= 4 * moment.standard_error + ROUND_OFF
    dense = hessian_spectrum(operator, method="dense")
    assert np.allclose(dense.eigenvalues, values[::-1], atol=ROUND_OFF)
    assert abs(dense.moment(2).value - np.mean(values**2)) < ROUND_OFF
    assert np.isnan(dense.density(grid, sigma=0.1).standard_error).all()


def test_lanczos_and_dense_agree_on_a_network(getkey, double):
    def loss(params, batch):
        return jnp.mean((jnp.tanh(batch @ params["w"]) @ params["v"] - 1) ** 2)

    random = np.random.default_rng(1)
    params = {"w": jax.device_put(random.normal(size=(3, 5))), "v": jax.device_put(random.normal(size=5))}
    operator = HessianOperator(loss, params, jax.device_put(random.normal(size=(30, 3))))
    matrix = np.asarray(dense_matrix(operator))
    dense = hessian_spectrum(operator, method="dense").eigenvalues
    assert np.allclose(dense, np.linalg.eigvalsh(matrix)[::-1], atol=ROUND_OFF)
    whole = hessian_spectrum(operator, key=getkey(), steps=100)
    assert whole.eigenvalues.shape == (20,) and np.allclose(whole.eigenvalues, dense, atol=1e-8)
    for which, expected in (("largest", dense[:3]), ("smallest", dense[::-1][:3])):
        pairs = top_eigenpairs(operator, 3, key=getkey(), steps=19, which=which)
        assert np.allclose(pairs.values, expected, atol=1e-8)
        vectors = np.concatenate([np.asarray(leaf).reshape(3, -1) for leaf in jax.tree.leaves(pairs.vectors)], axis=1)
        assert np.allclose(vectors @ vectors.T, np.eye(3), atol=1e-8)
        errors = np.linalg.norm(vectors @ matrix - np.asarray(pairs.values)[:, None] * vectors, axis=1)
        assert np.all(errors <= pairs.residuals + 1e-8)
    estimate = hessian_trace(operator, key=getkey(), n_probes=100)
    assert abs(estimate.value - np.trace(matrix)) < 4 * estimate.standard_error


def test_count_outliers_by_the_three_rules():
    values = jnp.array([10.0, 9.0, 8.0, 1.5, 0.9, 0.2, 0.1, 0.01, 1e-6, -0.1])
    assert int(count_outliers(values)) == 4
    assert int(count_outliers(values, fraction=0.2)) == 3
    assert int(count_outliers(values, "gap", n_classes=2)) == 3
    assert int(count_outliers(values, "edge", edge=0.5)) == 5
    shuffled = jax.device_put(np.random.default_rng(0).permutation(np.asarray(values)))
    assert int(jax.jit(count_outliers)(shuffled)) == 4


def test_t6_the_fraction_rule_depends_on_training_time():
    # Late in training one direction outlives the others, and the same outliers count for fewer.
    early, late = jnp.array([1.0, 0.8, 0.5, 0.01]), jnp.array([0.1, 0.008, 0.005, 0.0001])
    assert int(count_outliers(early)) == 3 and int(count_outliers(late)) == 1


def test_t9_single_precision_makes_small_negative_eigenvalues_of_none():
    # A positive semi-definite matrix of rank 3: in single precision its zeros come out negative too, at the size of round-off.
    rows = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    values = np.asarray(jax.jit(lambda rows: jnp.linalg.eigvalsh(rows.T @ rows))(rows))
    assert values[0] < 0 and abs(values[0]) < 1e-5 * values[-1]


def test_spectra_of_a_batch_of_networks(double):
    diagonals = np.arange(1.0, 21.0) * np.array([[1.0], [2.0]])

    def top(diagonal):
        return hessian_spectrum(lx.DiagonalLinearOperator(diagonal), key=jax.random.key(0), steps=20).eigenvalues[0]

    assert np.allclose(jax.jit(jax.vmap(top))(diagonals), [20.0, 40.0], atol=ROUND_OFF)


@pytest.fixture
def unchecked():
    """Without the type checks that only the tests have: a user meets the library's own messages."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def test_bad_input(unchecked):
    operator = lx.DiagonalLinearOperator(jnp.arange(5.0))
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="method must be 'dense' or 'lanczos', got 'qr'"):
        hessian_spectrum(operator, method="qr")
    with pytest.raises(ValueError, match="key must be given"):
        hessian_spectrum(operator)
    with pytest.raises(ValueError, match="at most max_size=4 columns"):
        hessian_spectrum(operator, method="dense", max_size=4)
    with pytest.raises(ValueError, match="n_probes must be at least 1, got 0"):
        hessian_spectrum(operator, key=key, n_probes=0)
    with pytest.raises(ValueError, match="k must lie between 1 and steps=3, got 4"):
        top_eigenpairs(operator, 4, key=key, steps=3)
    with pytest.raises(ValueError, match="steps must lie between 1 and the operator's dimension 5, got 6"):
        top_eigenpairs(operator, 2, key=key, steps=6)
    with pytest.raises(ValueError, match="which must be"):
        top_eigenpairs(operator, 2, key=key, steps=3, which="middle")
    values = jnp.arange(5.0)
    with pytest.raises(ValueError, match="fraction must lie in"):
        count_outliers(values, fraction=1.5)
    with pytest.raises(ValueError, match="needs n_classes"):
        count_outliers(values, "gap")
    with pytest.raises(ValueError, match="needs edge"):
        count_outliers(values, "edge")
    with pytest.raises(ValueError, match="rule must be"):
        count_outliers(values, "elbow")


def test_standard_errors_are_those_of_a_mean_over_probes(double):
    operator = lx.DiagonalLinearOperator(jnp.linspace(-1.0, 2.0, 12))
    spectrum = hessian_spectrum(operator, key=jax.random.key(0), steps=4, n_probes=5)
    nodes, weights = np.asarray(spectrum.nodes), np.asarray(spectrum.weights)
    cubes = (weights * nodes**3).sum(axis=1)
    grid = np.array([-0.5, 1.0])
    heights = np.einsum("pn,pgn->pg", weights, np.exp(-((grid[:, None] - nodes[:, None]) ** 2) / 0.08) / (0.2 * np.sqrt(2 * np.pi)))
    for found, samples in ((spectrum.moment(3), cubes), (spectrum.density(jnp.asarray(grid), sigma=0.2), heights)):
        assert np.allclose(found.value, samples.mean(axis=0)) and np.allclose(found.standard_error, samples.std(axis=0, ddof=1) / 5**0.5)


def test_the_gap_is_sought_among_three_eigenvalues_a_class():
    values = jnp.array([8.0, 7.9, 7.8, 5.0, 1e-3])
    assert int(count_outliers(values, "gap", n_classes=1)) == 3 and int(count_outliers(values, "gap", n_classes=2)) == 4
    assert [int(count_outliers(jax.device_put(np.array(few, np.float32)), "gap", n_classes=1)) for few in ([2, -1, -3], [0, -1, -3])] == [
        1,
        0,
    ]


def test_the_edge_of_fewer_samples_than_parameters_is_that_of_their_law(double):
    rows = 1.5 * np.random.default_rng(2).normal(size=(150, 300))
    values = jax.device_put(np.linalg.eigvalsh(rows.T @ rows / 150))
    np.testing.assert_allclose(bulk_edge(values, n_samples=150), 1.5**2 * (1 + 2**0.5) ** 2, rtol=0.03)
