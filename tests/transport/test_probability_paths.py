import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import (
    CondOT,
    GaussianScore,
    TabulatedPath,
    Trigonometric,
    VarianceExploding,
    VariancePreserving,
    drift_and_noise,
    flow_log_likelihood,
    kinetic_optimal_path,
    sample_reverse_diffusion,
    separation_of_gap,
    variance_exploding_levels,
)

TIMES = np.linspace(0.03, 0.97, 9)
ROUND_OFF = 1e-12
STEP = 1e-6
DIFFERENCES = 1e-7  # central differences of that step, in double precision


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def paths():
    separation = separation_of_gap(lambda s: 1 / (1 + s**4), n_nodes=64)
    table = np.linspace(0, 1, 12)
    return {
        "CondOT": CondOT(),
        "Trigonometric": Trigonometric(),
        "VariancePreserving": VariancePreserving(),
        "VarianceExploding": VarianceExploding(0.01, 5.0),
        "TabulatedPath": TabulatedPath(*map(jnp.asarray, (table, table**2, 1 - table**3))),
        "KineticOptimal": kinetic_optimal_path(separation, floor=0.01),
    }


NAMES = ("CondOT", "Trigonometric", "VariancePreserving", "VarianceExploding", "TabulatedPath", "KineticOptimal")
STARTS = {"VariancePreserving": (np.exp(-20.1 / 4), np.sqrt(-np.expm1(-20.1 / 2))), "VarianceExploding": (1.0, np.sqrt(25 - 1e-4))}
"a and m at the noise, of those that do not begin at 0 and 1."


@jax.jit
def everything(paths, x0, x1, t):
    return {name: of_one(path, x0, x1, t) for name, path in paths.items()}


def of_one(path, x0, x1, t):
    x, u = path.point(x0, x1, t), path.conditional_velocity(x0, x1, t)
    ways = (path.velocity_from_denoiser(x, x1, t), path.denoiser_from_velocity(x, u, t), path.score_from_denoiser(x, x1, t))
    return path.coefficients(t), path.signal_to_noise(t), x, u, ways


@pytest.fixture(scope="module")
def seen(paths):
    random = np.random.default_rng(0)
    x0, x1 = random.normal(size=(2, 9, 3))
    # The last: both ends, and times between them.
    times = [TIMES, TIMES + STEP, TIMES - STEP, np.linspace(0, 1, 9)]
    return x0, x1, [jax.tree.map(np.asarray, everything(paths, x0, x1, t)) for t in times]


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_those_of_the_coefficients(seen, name):
    c, later, earlier = (one[name][0] for one in seen[2][:3])
    np.testing.assert_allclose(c.da, (later.a - earlier.a) / (2 * STEP), atol=DIFFERENCES * 100)
    np.testing.assert_allclose(c.dm, (later.m - earlier.m) / (2 * STEP), atol=DIFFERENCES * 100)


@pytest.mark.parametrize("name", NAMES)
def test_velocity_denoiser_and_score_say_the_same(seen, name):
    x0, x1, near = seen
    c, ratio, x, u, (velocity, denoised, score) = near[0][name]
    np.testing.assert_allclose(x, c.a[:, None] * x1 + c.m[:, None] * x0, atol=ROUND_OFF)
    np.testing.assert_allclose(u, c.da[:, None] * x1 + c.dm[:, None] * x0, atol=ROUND_OFF)
    # Of one point alone the denoiser is that point, and the velocity the conditional one.
    np.testing.assert_allclose(velocity, u, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(denoised, x1, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(score, -x0 / c.m[:, None], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ratio, c.a / c.m, rtol=ROUND_OFF)
    assert (np.diff(ratio) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_time_runs_from_noise_to_data(seen, name):
    c = seen[2][3][name][0]
    a, m = STARTS.get(name, (0.0, 1.0))
    np.testing.assert_allclose(c.a[[0, -1]], [a, 1], atol=1e-9)
    np.testing.assert_allclose(c.m[[0, -1]], [m, 0], atol=1e-9)


def test_an_exploding_path_has_the_ratios_of_its_levels_and_no_drift():
    path = VarianceExploding(0.01, 5.0)
    t = np.linspace(0, 0.9, 7)
    c = path.coefficients(jnp.asarray(t))
    expected = 0.01 * 500 ** (1 - t)
    np.testing.assert_allclose(np.sqrt(np.asarray(c.m) ** 2 + 1e-4), expected, rtol=1e-10)
    np.testing.assert_allclose(variance_exploding_levels(7, sigma_min=expected[-1], sigma_max=5.0).levels.m, expected, rtol=1e-10)
    linear, squared = drift_and_noise(path, jnp.asarray(t))
    np.testing.assert_array_equal(linear, np.zeros(7))
    np.testing.assert_allclose(squared, 2 * np.log(500) * expected**2, rtol=1e-10)


def test_an_exploding_diffusion_has_the_likelihood_and_the_samples_of_its_data():
    path = VarianceExploding(0.01, 5.0)
    score = GaussianScore(path, jnp.asarray([[1.5, 0.6], [0.6, 0.5]]))
    x, end = jnp.array([1.0, -0.3]), 0.999
    found = flow_log_likelihood(score, path, x, end=end, prior=lambda x: score.log_density(jnp.zeros(()), x))
    np.testing.assert_allclose(found.log_density, score.log_density(jnp.asarray(end), x), atol=1e-6)
    times = jnp.linspace(0, 0.999, 300)
    noise = STARTS["VarianceExploding"][1] * jax.random.normal(jax.random.key(0), (8000,)).reshape(4000, 2)
    keys = jax.random.split(jax.random.key(1), 4000)
    ends = jax.jit(jax.vmap(lambda x, key: sample_reverse_diffusion(score, path, x, times, key=key)))(noise, keys)
    # Four thousand samples: three standard errors of a variance are seven per cent.
    np.testing.assert_allclose(np.cov(np.asarray(ends).T), [[1.5, 0.6], [0.6, 0.5]], atol=0.15)


def test_one_time_for_all_points_and_a_time_for_each_are_the_same(paths):
    x0, x1 = jnp.arange(6.0).reshape(3, 2), jnp.ones((3, 2))
    path = paths["CondOT"]
    once = path.point(x0, x1, 0.25)
    np.testing.assert_array_equal(once, path.point(x0, x1, jnp.full(3, 0.25)))
    np.testing.assert_array_equal(once, jax.jit(jax.vmap(path.point, (0, 0, None)))(x0, x1, 0.25))


def test_points_keep_their_dtype(paths):
    x = jnp.ones((2, 2), jnp.float32)
    assert paths["CondOT"].point(x, x, jnp.asarray(0.5)).dtype == jnp.float32


def test_a_table_of_a_cubic_is_that_cubic_and_a_monotone_table_does_not_overshoot():
    t = np.array([0.0, 0.3, 0.5, 1.0])
    fine = np.linspace(0, 1, 50)
    of_table = jax.jit(lambda table: table.coefficients(jnp.asarray(fine)))
    c = of_table(TabulatedPath(*map(jnp.asarray, (t, t**3, 1 - t**2, 3 * t**2, -2 * t))))
    for found, expected in zip(c, (fine**3, 1 - fine**2, 3 * fine**2, -2 * fine), strict=True):
        np.testing.assert_allclose(found, expected, atol=ROUND_OFF)
    step = TabulatedPath(*map(jnp.asarray, (t, np.array([0.0, 0.0, 1.0, 1.0]), 1 - t)))
    a = np.asarray(of_table(step).a)
    assert a.min() >= 0 and a.max() <= 1 and (np.diff(a) >= 0).all()


def test_several_tables_are_one_batch(paths):
    t = jnp.linspace(0, 1, 33)
    tables = [TabulatedPath.of(paths[name], t) for name in ("CondOT", "Trigonometric")]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tables)
    a = jax.jit(jax.vmap(lambda path: path.coefficients(jnp.asarray(TIMES)).a))(both)
    np.testing.assert_allclose(a, [TIMES, np.sin(np.pi / 2 * TIMES)], atol=1e-6)


@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan")])
def test_times_outside_are_refused(t):
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1\], from noise to data, got"):
        CondOT().coefficients(t)


def test_bad_paths_are_refused():
    with pytest.raises(ValueError, match=r"rates must obey 0 < beta_min <= beta_max, got 3\.0 and 2\.0"):
        VariancePreserving(3.0, 2.0)
    with pytest.raises(ValueError, match=r"standard deviations must obey 0 < sigma_min < sigma_max, got 2\.0 and 2\.0"):
        VarianceExploding(2.0, 2.0)
    t = jnp.array([0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match=r"t must ascend strictly from 0 to 1, got 3 times from 0\.0 to 0\.5"):
        TabulatedPath(t / 2, t, 1 - t)
    with pytest.raises(ValueError, match="da and dm must be given together"):
        TabulatedPath(t, t, 1 - t, t)
    with pytest.raises(ValueError, match=r"must be made outside of jax.jit"):
        jax.jit(lambda a: TabulatedPath(t, a, 1 - t).t)(t)
    with pytest.raises(ValueError, match=r"leading axes of points of shape \(2, 3\), got shape \(3,\)"):
        CondOT().point(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.full(3, 0.5))
