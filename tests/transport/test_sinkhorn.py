import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.transport import (
    SQUARED_EUCLIDEAN,
    Euclidean,
    cost_matrix,
    sinkhorn,
    sinkhorn_divergence,
)
from gradatim.transport.sinkhorn import solve_symmetric

SINGLE = 2e-5  # single precision against double, of costs of order one


def points(seed, n=48, dim=2):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def by_logarithms(costs, epsilon):
    """Sinkhorn as it is written down, in double precision, to the end."""

    def soft_minimum(z, axis):
        least = z.min(axis=axis, keepdims=True)
        return (least - epsilon * np.log(np.exp((least - z) / epsilon).mean(axis=axis, keepdims=True))).squeeze(axis)

    g, before = np.zeros(costs.shape[1]), np.inf
    for _ in range(20_000):
        f = soft_minimum(costs - g[None], 1)
        g = soft_minimum(costs - f[:, None], 0)
        if np.abs(g - before).max() < 1e-9 * epsilon:
            break
        before = g
    return f, g


@pytest.fixture(scope="module")
def costs():
    return np.asarray(cost_matrix(SQUARED_EUCLIDEAN, jax.device_put(points(0)), jnp.asarray(2 * points(1) + 1)))


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 50.0])
def test_value_and_potentials_are_those_of_the_plain_iteration(costs, epsilon):
    found = sinkhorn(jax.device_put(costs), jnp.asarray(epsilon), tolerance=1e-6, max_iterations=10_000)
    f, g = by_logarithms(costs.astype(np.float64), epsilon)
    scale = costs.mean()
    np.testing.assert_allclose(found.value, f.mean() + g.mean(), atol=SINGLE * scale)
    if epsilon > 1:
        # Unique up to a constant; with less entropy points that share no mass hardly feel each other.
        np.testing.assert_allclose(found.first_potential - found.first_potential.mean(), f - f.mean(), atol=2e-4 * scale)
    coupling = np.exp((f[:, None] + g[None] - costs) / epsilon) / costs.size
    np.testing.assert_allclose(found.transport_cost, (coupling * costs).sum(), rtol=1e-4)


def test_a_problem_with_itself_is_solved_by_one_potential():
    costs = cost_matrix(SQUARED_EUCLIDEAN, jnp.asarray(points(0)), jnp.asarray(points(0)))
    for epsilon in (0.2, 2.0):
        found = solve_symmetric(costs, jnp.asarray(epsilon), 1e-3, 2000)
        f, g = by_logarithms(np.asarray(costs, np.float64), epsilon)
        assert found.is_converged
        np.testing.assert_allclose(found.value, f.mean() + g.mean(), atol=5 * SINGLE)


def test_the_derivative_in_the_costs_is_the_coupling(costs):
    epsilon = jnp.asarray(0.3)
    slope, at_epsilon = jax.jit(jax.grad(lambda costs, epsilon: sinkhorn(costs, epsilon, tolerance=1e-6).value, argnums=(0, 1)))(
        jnp.asarray(costs), epsilon
    )
    f, g = by_logarithms(costs.astype(np.float64), 0.3)
    coupling = np.exp((f[:, None] + g[None] - costs) / 0.3) / costs.size
    np.testing.assert_allclose(slope, coupling, atol=2e-4 * coupling.max())
    np.testing.assert_allclose(slope.sum(axis=0), 1 / costs.shape[1], rtol=1e-4)
    # ∂W/∂ε = KL(P | a ⊗ b)
    np.testing.assert_allclose(at_epsilon, (coupling * np.log(coupling * costs.size)).sum(), rtol=1e-3)


SECOND = {
    "reverse over reverse": lambda f: jax.grad(lambda z: jax.grad(f)(z).sum()),
    "forward over reverse": jax.hessian,
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
}


@pytest.mark.parametrize("twice", SECOND.values(), ids=SECOND)
def test_trap_a_second_derivative_is_refused(costs, twice):
    with pytest.raises(NotImplementedError, match="can be differentiated once"):
        jax.jit(twice(lambda shift: sinkhorn(jnp.asarray(costs) + shift**2, 0.3).value))(jnp.ones(()))


def test_trap_a_second_derivative_of_a_divergence_is_refused_and_one_beside_it_is_not():
    x = jnp.asarray(points(0))
    one = lambda scale: sinkhorn_divergence(x, scale * x, epsilon=0.3).value  # noqa: E731
    with pytest.raises(NotImplementedError, match="can be differentiated once"):
        jax.hessian(one)(jnp.array(2.0))
    # The weight of a loss is no argument of the transport problem.
    beside = jax.jit(jax.grad(lambda weight: jax.grad(lambda scale: weight**2 * one(scale))(jnp.array(2.0))))
    np.testing.assert_allclose(beside(3.0), 6 * jax.jit(jax.grad(one))(2.0), rtol=1e-5)


def test_trap_what_is_not_solved_says_so(costs):
    # Of 2e-5 of the mean cost, in a hundred iterations.
    found = sinkhorn(jnp.asarray(costs), jnp.asarray(1e-4), max_iterations=100)
    assert not found.is_converged and found.error > 1e-3 and found.n_iterations == 100 and np.isfinite(found.value)


@pytest.mark.parametrize("far", [1e3, 1e6])
def test_no_row_of_the_kernel_vanishes(far):
    # One point so far away that its kernel is zero in any precision.
    x = points(0)
    x[0] = far
    costs = cost_matrix(SQUARED_EUCLIDEAN, jnp.asarray(x), jnp.asarray(points(1)))
    found = sinkhorn(costs, jnp.asarray(0.5))
    assert np.isfinite(found.value) and np.isfinite(found.first_potential).all() and np.isfinite(found.second_potential).all()


def test_divergence_of_a_shift_is_its_square_and_of_equals_nothing():
    x = jnp.asarray(points(0))
    divergences = jax.jit(jax.vmap(lambda shift: sinkhorn_divergence(x, x + shift[None], epsilon=0.3).value))
    found = divergences(jnp.array([[0.0, 0.0], [2.0, 0.0], [0.0, -1.0]]))
    np.testing.assert_allclose(found, [0.0, 4.0, 1.0], atol=1e-3)


@pytest.mark.parametrize(("n", "m"), [(6, 10), (10, 6)])
def test_samples_of_two_sizes_have_equal_weights_each(n, m):
    costs = np.square(points(0, n)[:, None] - 2 * points(1, m)[None]).sum(axis=-1)
    found = sinkhorn(jnp.asarray(costs), 1.0, tolerance=1e-6, max_iterations=10_000)
    f, g = by_logarithms(costs.astype(np.float64), 1.0)
    np.testing.assert_allclose(found.value, f.mean() + g.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.first_potential[:, None] + found.second_potential[None], f[:, None] + g[None], atol=1e-4)
    np.testing.assert_allclose(found.transport_cost, (np.exp(f[:, None] + g[None] - costs) * costs).mean(), rtol=1e-5)


def test_a_divergence_is_made_of_three_problems_of_its_cost():
    x, y = points(0, 8), 2 * points(1, 5)

    def value(x, y):
        f, g = by_logarithms(np.sqrt(np.square(x[:, None] - y[None]).sum(axis=-1)).astype(np.float64), 0.5)
        return f.mean() + g.mean()

    found = sinkhorn_divergence(jnp.asarray(x), jnp.asarray(y), epsilon=0.5, cost=Euclidean(), tolerance=1e-6)
    np.testing.assert_allclose(found.value, value(x, y) - (value(x, x) + value(y, y)) / 2, atol=SINGLE)
    assert found.is_converged and found.error <= 1e-6


def test_trap_a_divergence_that_is_not_solved_says_so():
    x = jnp.asarray(points(0))
    # The whole of one sample goes to the one point of another: only the problem of the sample with itself is left.
    found = sinkhorn_divergence(x, x[:1], epsilon=0.3, tolerance=1e-9, max_iterations=100)
    alone = solve_symmetric(cost_matrix(SQUARED_EUCLIDEAN, x, x), jnp.asarray(0.3), 1e-9, 100)
    assert found.error == alone.error > 1e-9 and not found.is_converged


def test_only_the_value_has_a_derivative(costs):
    def rest(costs, epsilon):
        found = sinkhorn(costs, epsilon)
        return found.transport_cost + found.first_potential.sum() + found.second_potential.sum() + found.error

    slopes = jax.jit(jax.grad(rest, argnums=(0, 1)))(jnp.asarray(costs), jnp.asarray(2.0))
    assert all((np.asarray(slope) == 0).all() for slope in slopes)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_epsilon_out_of_range_is_refused(costs, epsilon):
    with pytest.raises(ValueError, match="epsilon must be positive and finite, got"):
        sinkhorn(jnp.asarray(costs), epsilon)
    with pytest.raises(ValueError, match="epsilon must be positive and finite, got"):
        sinkhorn_divergence(jnp.ones((2, 1)), jnp.ones((2, 1)), epsilon=epsilon)


def test_tolerance_and_count_out_of_range_are_refused(costs):
    with pytest.raises(ValueError, match=r"tolerance must lie in \(0, 1\), got 0"):
        sinkhorn(jnp.asarray(costs), 0.1, tolerance=0.0)
    with pytest.raises(ValueError, match="max_iterations must be at least 100, got 99"):
        sinkhorn(jnp.asarray(costs), 0.1, max_iterations=99)
