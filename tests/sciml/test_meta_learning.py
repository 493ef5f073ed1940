import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from gradatim.sciml import MAML, FieldPoints, HamiltonianMLP, Tasks, TrajectoryTasks, leave_one_out, linear_cka, log_cosh_field_loss

A, B, C, D, ALPHA, THETA = 2.0, 0.7, -0.3, 0.4, 0.1, 1.5


def quadratic(theta, data):
    curvature, centre = data
    return curvature / 2 * (theta - centre) ** 2


@pytest.mark.parametrize(
    ("n_steps", "first_order", "expected"),
    [(1, False, 0.4144), (1, True, 0.518), (3, False, 0.0794214), (3, True, 0.1551200), (0, False, B * (THETA - D))],
)
def test_quadratics_have_the_known_gradient_first_order_and_second(n_steps, first_order, expected):
    maml = MAML(optax.sgd(ALPHA), n_steps=n_steps, first_order=first_order)
    tasks = jax.tree.map(lambda x: jnp.array([x]), Tasks((A, C), (B, D)))
    gradient = jax.jit(jax.grad(lambda theta: maml.meta_loss(theta, quadratic, tasks)))(THETA)
    assert np.isclose(gradient, expected, rtol=1e-5)


def test_derivatives_in_the_rate_and_the_support_are_right(double):
    def after(theta, rate, centre):
        return MAML(optax.sgd(rate), n_steps=3).adapt(theta, quadratic, (A, centre))

    shrink = 1 - ALPHA * A
    found = jax.jit(jax.grad(after, argnums=(0, 1, 2)))(THETA, ALPHA, C)
    assert np.allclose(found, [shrink**3, -3 * A * shrink**2 * (THETA - C), 1 - shrink**3], rtol=1e-12)


@pytest.fixture(scope="module")
def networks():
    """A network of few parameters, its outer gradients and finite differences, in double precision."""
    with jax.enable_x64(True):
        draws = jax.random.normal(jax.random.key(1), (2 * 2 * 3 * 4 * 2,)).reshape(2, 2, 2, 3, 4)
        tasks = Tasks(FieldPoints(draws[0, 0], jnp.sin(draws[0, 1])), FieldPoints(draws[1, 0], jnp.sin(draws[1, 1])))
        network = HamiltonianMLP(4, 4, 1, key=jax.random.key(2))
        flat, unravel = ravel_pytree(eqx.filter(network, eqx.is_inexact_array))
        rest = eqx.filter(network, eqx.is_inexact_array, inverse=True)

        def readout(network):
            return network.readout

        def outer(flat, **settings):
            maml = MAML(optax.sgd(0.3), n_steps=2, **settings)
            return maml.meta_loss(eqx.combine(unravel(flat), rest), log_cosh_field_loss, tasks)

        @jax.jit
        def look(flat):
            shifts = 1e-5 * jnp.eye(flat.size)
            values = jax.vmap(outer)(jnp.concatenate([flat[None] + shifts, flat[None] - shifts])).reshape(2, -1)
            maml = MAML(optax.sgd(0.3), n_steps=2, where=readout)
            task = jax.tree.map(lambda x: x[0], tasks)
            adapted, _ = maml.watched(network, log_cosh_field_loss, task.support, lambda network: None)

            def features(network):
                return jax.vmap(network.features)(task.query.states)

            moved = MAML(optax.sgd(0.3), n_steps=2).adapt(network, log_cosh_field_loss, task.support)
            return {
                "second order": jax.grad(outer)(flat),
                "differences": (values[0] - values[1]) / 2e-5,
                "last layer": jax.grad(lambda flat: outer(flat, where=readout))(flat),
                "features": (features(network), features(adapted), features(moved)),
                "changes": (linear_cka(features(network), features(adapted)), linear_cka(features(network), features(moved))),
                "constant": adapted.readout_bias - network.readout_bias,
                "adapted readout": adapted.readout - network.readout,
            }

        return jax.tree.map(np.asarray, look(flat))


def test_second_order_is_what_finite_differences_see(networks):
    assert np.allclose(networks["second order"], networks["differences"], atol=1e-8)


def test_the_last_layer_alone_moves_no_features_but_all_are_learned(networks):
    before, after, all_moved = networks["features"]
    assert np.array_equal(before, after) and not np.allclose(before, all_moved)
    assert np.isclose(networks["changes"][0], 1, atol=1e-12) and networks["changes"][1] < 1 - 1e-9
    assert networks["constant"] == 0 and (networks["adapted readout"] != 0).all()
    assert (networks["last layer"] != 0).sum() == networks["last layer"].size - 1 and not np.allclose(
        networks["last layer"], networks["second order"], rtol=1e-2
    )


@pytest.mark.parametrize("optimizer", [optax.adam(0.1), optax.sgd(0.1, momentum=0.9)], ids=["adam", "momentum"])
def test_any_inner_optimiser_is_differentiated_through(optimizer, double):
    def by_hand(theta):
        memory = optimizer.init(theta)
        for _ in range(3):
            updates, memory = optimizer.update(jax.grad(quadratic)(theta, (A, C)), memory, theta)
            theta = theta + updates
        return theta

    def ours(theta):
        return MAML(optimizer, n_steps=3).adapt(theta, quadratic, (A, C))

    found, expected = jax.jit(lambda theta: (jax.value_and_grad(ours)(theta), jax.value_and_grad(by_hand)(theta)))(THETA)
    assert np.allclose(found, expected, rtol=1e-12)


def test_a_derivative_in_what_the_loss_closes_over_is_refused():
    def adapted(centre):
        return MAML(optax.sgd(ALPHA), n_steps=1).adapt(jnp.array(THETA), lambda theta, _: (theta - centre) ** 2, None)

    with pytest.raises(Exception, match=r"(?i)closed-over|differentiat"):
        jax.grad(adapted)(C)


def test_what_is_watched_begins_before_the_first_step():
    adapted, seen = MAML(optax.sgd(ALPHA), n_steps=3).watched(jnp.array(THETA), quadratic, (A, C), lambda theta: {"theta": theta})
    assert np.allclose(seen["theta"], C + (1 - ALPHA * A) ** np.arange(4) * (THETA - C)) and np.isclose(seen["theta"][-1], adapted)


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="n_steps must be at least 0, got -1"):
        MAML(optax.sgd(0.1), n_steps=-1)


STATES = jnp.arange(3 * 4 * 24.0).reshape(3, 4, 24, 1)


@pytest.fixture(scope="module")
def drawn():
    sampler = TrajectoryTasks(FieldPoints(jnp.pad(STATES, ((0, 0),) * 3 + ((0, 1),)), jnp.pad(STATES, ((0, 0),) * 3 + ((0, 1),))), 4, 8)
    return jax.jit(lambda key: sampler.draw(key, jnp.array(leave_one_out(3)[1]), 100))(jax.random.key(0))


def test_the_held_out_system_is_never_drawn_and_the_others_alike(drawn):
    assert np.unique(drawn.system, return_counts=True)[0].tolist() == [0, 2] and (np.bincount(drawn.system)[[0, 2]] == 100).all()
    places = np.concatenate([part.states[..., 0] for part in drawn.tasks], axis=1).astype(int)
    assert np.array_equal(places // 96, np.repeat(np.asarray(drawn.system)[:, None], 12, axis=1))
    assert np.array_equal(places % 96 // 24, np.repeat(np.asarray(drawn.trajectory)[:, None], 12, axis=1))


def test_support_and_query_share_no_time_and_lie_all_along_the_trajectory(drawn):
    support, query = (np.asarray(part.states[..., 0]).astype(int) % 24 for part in drawn.tasks)
    assert not (support[:, :, None] == query[:, None, :]).any()
    assert np.array_equal(support // 6, np.tile(np.arange(4), (200, 1))) and np.array_equal(query // 3, np.tile(np.arange(8), (200, 1)))
    # Every time may be either.
    assert set(support.ravel()) == set(range(24)) == set(query.ravel()) and len(set(np.asarray(drawn.trajectory).tolist())) == 4


@pytest.mark.parametrize(
    ("shape", "n_support", "n_query", "message"),
    [
        ((2, 3, 20, 4), 3, 10, "n_support must be at least 1 and divide n_query, got 3 and 10"),
        ((2, 3, 20, 4), 0, 10, "n_support must be at least 1 and divide n_query, got 0 and 10"),
        ((2, 3, 20, 4), 20, 20, "n_query must divide the 20 times of a trajectory at least twice, got 20"),
        ((2, 3, 20, 4), 1, 7, "n_query must divide the 20 times of a trajectory at least twice, got 7"),
        ((20, 4), 1, 2, "points must have axes for systems, trajectories and times, got shape \\(20, 4\\)"),
    ],
)
def test_tasks_that_cannot_be_are_refused(shape, n_support, n_query, message):
    with pytest.raises(ValueError, match=message):
        TrajectoryTasks(FieldPoints(jnp.zeros(shape), jnp.zeros(shape)), n_support, n_query)


def test_a_single_point_of_support_is_enough_to_be_drawn():
    sampler = TrajectoryTasks(FieldPoints(STATES, STATES), 1, 2)
    assert sampler.draw(jax.random.key(0), jnp.array([0]), 1).tasks.support.states.shape == (1, 1, 1)


def test_leaving_one_of_one_out_is_refused():
    with pytest.raises(ValueError, match="n must be at least 2, got 1"):
        leave_one_out(1)
