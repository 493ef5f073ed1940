import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.transport import (
    SQUARED_EUCLIDEAN,
    Euclidean,
    MapObjective,
    PNorm,
    ResidualMap,
    SphereMap,
    SquaredEuclidean,
    StructuredMap,
    conservativity_penalty,
    cost_matrix,
    entropic_map,
    fit_transport_map,
    gaussian_map,
    monge_gap_from_samples,
    sinkhorn,
    unexplained_variance,
)

TURN = np.array([[0.0, -1.0], [1.0, 0.0]], np.float32)


def points(seed=0, n=64, dim=2):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def covariance(points):
    return np.cov(np.asarray(points, np.float64).T, bias=True)


def test_o9_the_gaussian_map_takes_one_covariance_to_the_other():
    x = points(0, 200, 3) @ points(5, 3, 3)
    y = points(1, 150, 3) * np.array([2.0, 0.1, 1.0], np.float32) - 4
    found = gaussian_map(jnp.asarray(x), jnp.asarray(y))
    A = np.asarray(found.matrix, np.float64)
    np.testing.assert_allclose(A @ covariance(x) @ A, covariance(y), atol=1e-4)
    np.testing.assert_allclose(A, A.T, atol=1e-5)
    assert np.linalg.eigvalsh(A).min() > 0
    np.testing.assert_allclose(eqx.filter_jit(found)(x.mean(axis=0)), y.mean(axis=0), atol=1e-5)


def test_a_gaussian_map_of_points_on_a_line_is_finite():
    x = np.arange(5, dtype=np.float32)[:, None] * np.array([1, 0], np.float32)
    found = gaussian_map(jnp.asarray(x), jnp.asarray(2 * x))
    np.testing.assert_allclose(jax.jit(jax.vmap(found))(x), 2 * x, atol=1e-5)
    assert np.isfinite(found.matrix).all()


def test_o8_the_penalty_is_unbiased_and_nothing_for_a_gradient():
    x, turn = points(0, 2000), jnp.asarray(TURN)

    @jax.jit
    def penalties(x, key):
        gradient = jax.grad(lambda z: jax.nn.softplus(z @ jnp.array([1.0, -2.0]) + 1) ** 2)
        return [conservativity_penalty(field, x, key) for field in (lambda z: turn @ z, gradient)]

    turning, potential = penalties(x, jax.random.key(3))
    # Four times the exact asymmetry of a turn, 2.
    assert abs(turning - 8) < 0.5 and potential < 1e-9


def test_the_penalty_is_a_mean_over_probes():
    turn = jnp.asarray(TURN)
    # 4 ‖v‖², with a deviation of 4 over eight thousand probes.
    found = jax.jit(lambda x, key: conservativity_penalty(lambda z: turn @ z, x, key, n_probes=16))(points(0, 500), jax.random.key(0))
    assert abs(found - 8) < 0.5


def test_a_structured_map_is_optimal_for_its_cost_if_its_field_is_a_gradient():
    """On a line any increasing map is: h = |z|⁴/4 and F(x) = (x - 2x)³ gives T(x) = 2x."""
    found = jax.jit(jax.vmap(StructuredMap(lambda x: -(x**3), PNorm(4.0))))(jnp.array([[2.0], [-1.0]]))
    np.testing.assert_allclose(found, [[4.0], [-2.0]], rtol=1e-6)
    assert jax.jit(StructuredMap(lambda x: x))(jnp.array([2.0])).tolist() == [1]  # h = z², without a half


@pytest.mark.parametrize("p", [1.5, 3.0])
def test_trap_a_structured_map_has_a_finite_derivative_where_its_field_vanishes(p):
    # For p = 3 the conjugate gradient is a square root, whose slope has no bound there.
    slope = jax.jit(jax.grad(lambda scale, x: StructuredMap(lambda z: scale * z, PNorm(p))(x).sum()))
    assert slope(2.0, jnp.zeros(2)) == 0 and np.isfinite(slope(2.0, jnp.array([0.0, -1e-30])))


def test_images_of_a_sphere_map_have_length_one():
    @jax.jit
    @jax.vmap
    def image_and_slope(z):
        return SphereMap(lambda x: 3 * x)(z), jax.grad(lambda z: SphereMap(lambda x: 3 * x)(z).sum())(z)

    images, slopes = image_and_slope(np.append(np.zeros((1, 3), np.float32), points(0, 15, 3), axis=0))
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), [0] + 15 * [1], rtol=1e-6)
    assert np.isfinite(slopes).all()


def test_an_entropic_map_tends_to_the_mean_and_to_the_assignment():
    x = points(0, 64)
    y = 2 * x + 1

    @jax.jit
    def images(epsilons):
        a, b = jnp.asarray(x), jnp.asarray(y)
        return jax.lax.map(lambda epsilon: jax.vmap(entropic_map(a, b, epsilon=epsilon))(a), epsilons)

    much, little = np.asarray(images(jnp.array([1e4, 0.02])))
    np.testing.assert_allclose(much, np.broadcast_to(y.mean(axis=0), (64, 2)), atol=0.02)
    assert float(unexplained_variance(jnp.asarray(little), jnp.asarray(y))) < 1


def test_an_entropic_map_takes_points_to_the_barycentres_of_its_cost():
    x, y = points(0, 8), 2 * points(1, 5)
    costs = np.linalg.norm(x[:, None] - y[None], axis=-1).astype(np.float64)
    kernel, v = np.exp(-costs / 0.5), np.ones(5)
    for _ in range(2000):
        u = 1 / (kernel @ v)
        v = 8 / 5 / (u @ kernel)
    found = entropic_map(jnp.asarray(x), jnp.asarray(y), epsilon=0.5, cost=Euclidean(), tolerance=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(found))(x), (u[:, None] * kernel * v[None]) @ y, atol=1e-4)


def test_an_entropic_map_says_whether_its_coupling_is_solved():
    x, y = jax.device_put(np.random.default_rng(0).normal(size=(2, 48, 2)).astype(np.float32))
    assert entropic_map(x, y, epsilon=0.5).is_converged
    assert not entropic_map(x, 2 * y, epsilon=1e-4, max_iterations=100).is_converged


def test_unexplained_variance_of_the_constant_map_is_a_hundred():
    y = points(1)
    y, twice, constant = map(jnp.asarray, (y, 2 * y, np.broadcast_to(y.mean(axis=0), y.shape)))
    np.testing.assert_allclose([unexplained_variance(constant, y), unexplained_variance(y, y, twice)], [100, 0], rtol=1e-5)


@pytest.fixture(scope="module")
def fitted():
    """A linear residual of a quarter turn, trained with all terms towards a stretched sample."""
    x = jnp.asarray(points(0))
    start = ResidualMap(eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(0)), start=lambda z: jnp.asarray(TURN) @ z)
    objective = MapObjective(
        fit_epsilon=0.3,
        gap_epsilon=0.2,
        gap_weight=jnp.float32(1.0),
        asymmetry_weight=jnp.float32(0.01),
        displacement_weight=jnp.float32(0.0),
    )
    target = jnp.asarray(points(0) * np.array([2.0, 0.5], np.float32))
    return (
        x,
        target,
        fit_transport_map(
            start, x, target, objective=objective, optimizer=optax.adam(0.05), n_steps=150, batch_size=48, key=jax.random.key(1)
        ),
    )


def test_training_finds_the_optimal_map_from_a_turn(fitted):
    x, target, found = fitted
    error = unexplained_variance(jax.jit(jax.vmap(found.transport))(x), target)
    loss, terms = jax.tree.map(np.asarray, (found.loss, found.terms))
    assert float(error) < 3 and loss[-10:].mean() < loss[:10].mean()
    assert terms.asymmetry[-1] < 0.1 * terms.asymmetry[0] and terms.is_converged.all()


def test_the_loss_is_the_sum_of_its_terms(fitted):
    _, _, found = fitted
    terms = found.terms
    np.testing.assert_allclose(found.loss, terms.fit + terms.gap + 0.01 * terms.asymmetry, rtol=1e-5, atol=1e-5)


def test_a_loss_is_made_of_the_terms_that_its_fields_name():
    transport = StructuredMap(lambda z: jnp.asarray(TURN) @ z + jnp.tanh(z), SquaredEuclidean())
    objective = MapObjective(
        fit_epsilon=0.5, gap_epsilon=0.9, gap_weight=0.7, asymmetry_weight=0.3, displacement_weight=0.2, cost=PNorm(3.0),
        fit_cost=Euclidean(), field=lambda transport: transport.field, convention="kl", tolerance=1e-5, max_iterations=5000,
    )  # fmt: skip
    x, y = jnp.asarray(points(0, 8)), jnp.asarray(2 * points(1, 6))
    how = {"tolerance": 1e-5, "max_iterations": 5000}

    @jax.jit
    def both(x, y, key):
        images = jax.vmap(transport)(x)
        between, within = (sinkhorn(cost_matrix(Euclidean(), images, z), 0.5, **how).value for z in (y, images))
        gap = monge_gap_from_samples(x, images, epsilon=0.9, cost=PNorm(3.0), convention="kl", **how).value
        displacement = jnp.mean(jnp.sum(jnp.abs(x - images) ** 3, axis=1)) / 3
        return objective(transport, x, y, key), (between - within / 2, gap, displacement, conservativity_penalty(transport.field, x, key))

    (loss, terms), (fit, gap, displacement, asymmetry) = both(x, y, jax.random.key(0))
    np.testing.assert_allclose(terms[:4], (fit, gap, displacement, asymmetry), rtol=1e-4)
    np.testing.assert_allclose(loss, fit + 0.7 * gap + 0.3 * asymmetry + 0.2 * displacement, rtol=1e-4)
    assert terms.is_converged


def test_trap_a_loss_of_which_one_problem_is_not_solved_says_so():
    x, y = jnp.asarray(points(0, 48)), jnp.asarray(2 * points(1, 48))

    @jax.jit
    def is_converged(*epsilons):
        return MapObjective(*epsilons, max_iterations=100)(lambda z: 1 - z[::-1], x, y, jax.random.key(0))[1].is_converged

    assert [bool(is_converged(*pair)) for pair in ((2.0, 2.0), (1e-4, 2.0), (2.0, 1e-4))] == [True, False, False]


def test_every_step_draws_both_samples_anew_and_shows_the_optimizer_the_parameters():
    x = jnp.asarray(points(0))
    halving = optax.chain(optax.set_to_zero(), optax.add_decayed_weights(-0.5))

    def fit(weight):
        start = eqx.tree_at(lambda net: net.weight, eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(0)), weight)
        objective = MapObjective(fit_epsilon=0.1, gap_epsilon=0.1)
        how = {"objective": objective, "optimizer": halving, "n_steps": 8, "batch_size": 1, "key": jax.random.key(1)}
        return fit_transport_map(ResidualMap(start), x, x, **how)

    np.testing.assert_allclose(fit(jnp.ones((2, 2))).transport.field.weight, np.full((2, 2), 2.0**-8), rtol=1e-6)
    # The squared distance between one point of each: not the same one.
    distances = np.asarray(fit(jnp.zeros((2, 2))).terms.fit)
    assert (distances > 1e-3).sum() > 4 and len(np.unique(distances)) == 8


def test_what_cannot_be_is_refused():
    x = jax.device_put(points())
    objective = MapObjective(fit_epsilon=0.1, gap_epsilon=0.1)
    for n_steps, batch_size, message in ((0, 8, "n_steps must be at least 1, got 0"), (1, 65, r"batch_size must lie in \[1, 64\]")):
        with pytest.raises(ValueError, match=message):
            fit_transport_map(
                ResidualMap(lambda z: z), x, x, objective=objective, optimizer=optax.sgd(1.0), n_steps=n_steps, batch_size=batch_size,
                key=jax.random.key(0),
            )  # fmt: skip
    for name in ("gap_weight", "asymmetry_weight", "displacement_weight"):
        with pytest.raises(ValueError, match=f"{name} must be at least 0 and finite, got -1"):
            MapObjective(fit_epsilon=0.1, gap_epsilon=0.1, **{name: -1.0})
    with pytest.raises(ValueError, match="epsilon must be positive and finite, got 0"):
        MapObjective(fit_epsilon=0.0, gap_epsilon=0.1)
    with pytest.raises(ValueError, match="n_probes must be at least 1, got 0"):
        conservativity_penalty(lambda z: z, x, jax.random.key(0), n_probes=0)
    with pytest.raises(ValueError, match="y must hold at least 2 points, got 1"):
        gaussian_map(x, x[:1])
    with pytest.raises(ValueError, match="epsilon must be positive and finite, got 0"):
        entropic_map(x, x, epsilon=0.0, cost=SQUARED_EUCLIDEAN)
