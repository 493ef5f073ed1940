import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.sciml import (
    MAML,
    FieldPoints,
    HamiltonianGCN,
    HamiltonianMLP,
    ParticlePoints,
    TrajectoryTasks,
    field_at,
    log_cosh_field_loss,
    log_cosh_particle_loss,
    n_body,
    pad_particles,
    particle_field_at,
    three_body,
)

PARTICLE = HamiltonianMLP(4, 8, 2, key=jax.random.key(0))
# A constant of each particle would show if an absent one's were counted.
PARTICLE = eqx.tree_at(lambda network: network.readout_bias, PARTICLE, jnp.asarray(0.7))
ONE, TWO, THREE = (HamiltonianGCN(PARTICLE, n, key=jax.random.key(1)) for n in (1, 2, 3))
STATES, RATES = (jnp.asarray(x) for x in np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32))


def test_absent_particles_add_exactly_nothing_to_the_energy_or_its_gradient():
    look = eqx.filter_jit(lambda x, present: jax.value_and_grad(lambda x: THREE(x, present))(x))
    x = np.random.default_rng(1).normal(size=12).astype(np.float32)
    for absent in (0, 2):
        present = np.arange(3) != absent
        other, unknown = x.reshape(2, 3, 2).copy(), x.reshape(2, 3, 2).copy()
        other[:, absent], unknown[:, absent] = 100.0, np.nan
        energy, gradient = look(x, present)
        for state in (other, unknown):
            again, slope = look(state.ravel(), present)
            assert again == energy and np.array_equal(slope, gradient)
        parts = np.asarray(gradient).reshape(2, 3, 2)
        assert (parts[:, absent] == 0).all() and (parts[:, present] != 0).all()
        assert not np.isclose(energy, look(x, np.ones(3, bool))[0], rtol=1e-2)
        rows = eqx.filter_jit(lambda x, present: THREE.features(x, present))(x, present)
        assert (np.asarray(rows)[absent] == 0).all()


def test_a_padded_state_has_the_energy_and_field_of_the_smaller_network():
    @jax.jit
    def look(states):
        alone = states[:, jnp.array([0, 1, 4, 5])]
        pairs, singles = (pad_particles(FieldPoints(x, x), n, n_particles=3) for x, n in ((states, 2), (alone, 1)))
        return {
            "two": (jax.vmap(TWO)(states), jax.vmap(THREE)(pairs.states, pairs.present)),
            "one": (jax.vmap(PARTICLE)(alone), jax.vmap(THREE)(singles.states, singles.present)),
            "alone": (jax.vmap(PARTICLE)(alone), jax.vmap(ONE)(alone)),
            "field": (pad_particles(FieldPoints(field_at(TWO, states), states), 2, n_particles=3).states,
                      particle_field_at(THREE, pairs.states, pairs.present)),
            "all": (field_at(TWO, states), particle_field_at(TWO, states, jnp.ones((5, 2), bool))),
        }  # fmt: skip

    for name, (expected, found) in look(STATES).items():
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-6), name


def test_present_particles_may_change_places():
    x = np.random.default_rng(2).normal(size=(2, 3, 2)).astype(np.float32)
    look = eqx.filter_jit(THREE)
    energy, swapped = look(x.ravel(), np.array([True, True, False])), look(x[:, [2, 1, 0]].ravel(), np.array([False, True, True]))
    assert np.isclose(energy, swapped, rtol=1e-5)


def test_padding_changes_neither_the_loss_nor_its_gradient():
    @eqx.filter_jit
    def look(two, three, points):
        padded = pad_particles(points, 2, n_particles=3)
        unknown = ParticlePoints(padded.states, jnp.where(padded.rates == 0, jnp.nan, padded.rates), padded.present)
        return (
            eqx.filter_value_and_grad(log_cosh_field_loss)(two, points),
            eqx.filter_value_and_grad(log_cosh_particle_loss)(three, padded),
            eqx.filter_value_and_grad(log_cosh_particle_loss)(three, unknown),
        )

    expected, found, unknown = (jax.tree.leaves(result) for result in look(TWO, THREE, FieldPoints(STATES, RATES)))
    for a, b, c in zip(expected, found, unknown, strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-6) and np.array_equal(b, c)


@pytest.fixture(scope="module")
def bodies():
    """Tasks of two bodies and of three, in arrays of one shape."""

    @jax.jit
    def make(key):
        points = []
        for system, n in ((n_body(2), 2), (three_body(horizon=2.0), 3)):
            starts = system.sample_initial(key, 4).states
            states = jax.vmap(lambda x, system=system: system.trajectory(x, horizon=2.0, n_steps=20)[:-1])(starts)
            rates = jax.vmap(jax.vmap(lambda x, system=system: system.field(0.0, x)))(states)
            points.append(pad_particles(FieldPoints(states, rates), n, n_particles=3))
        return jax.tree.map(lambda *parts: jnp.stack(parts), *points)

    return TrajectoryTasks(make(jax.random.key(2)), n_support=10, n_query=10)


def test_tasks_of_two_and_of_three_bodies_are_adapted_to_together(bodies):
    drawn = bodies.draw(jax.random.key(3), jnp.array([0, 1]), 3)
    assert drawn.tasks.support.present.sum(axis=-1).tolist() == [[2] * 10] * 3 + [[3] * 10] * 3

    @eqx.filter_jit
    def look(network, tasks):
        maml = MAML(optax.sgd(0.1), n_steps=20)

        def adapt(task):
            return maml.watched(network, log_cosh_particle_loss, task.support, lambda n: log_cosh_particle_loss(n, task.query))[1]

        return jax.vmap(adapt)(tasks), eqx.filter_grad(MAML(optax.sgd(0.1), n_steps=2).meta_loss)(network, log_cosh_particle_loss, tasks)

    losses, gradient = look(THREE, drawn.tasks)
    assert (losses[:, -1] < 0.8 * losses[:, 0]).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)) and np.abs(gradient.links[0]).max() > 0


@pytest.mark.parametrize(
    ("size", "n_present", "n_particles", "message"),
    [
        (8, 3, 2, "n_present must lie between 1 and n_particles = 2, got 3"),
        (8, 0, 2, "n_present must lie between 1 and n_particles = 2, got 0"),
        (8, 3, 3, "the size of a state of 3 particles must be a multiple of 6, got 8"),
    ],
)
def test_particles_that_cannot_be_are_refused(size, n_present, n_particles, message):
    with pytest.raises(ValueError, match=message):
        pad_particles(FieldPoints(jnp.zeros(size), jnp.zeros(size)), n_present, n_particles=n_particles)


def test_a_mask_of_another_number_is_refused():
    with pytest.raises(ValueError, match=r"present must have shape \(2,\), got \(3,\)"):
        TWO(STATES[0], jnp.ones(3, bool))
