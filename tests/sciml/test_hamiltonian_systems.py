import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ellipk

from gradatim.numerics import rollout
from gradatim.sciml import (
    MechanicalSystem,
    geometric_mean_over_time,
    henon_heiles,
    leapfrog_step,
    magnetic_mirror,
    mass_spring,
    n_body,
    pendulum,
    relative_energy_error,
    relative_field_error,
    relative_state_error,
    runge_kutta_step,
    yoshida_step,
)

# Of a step of order 4 at 1/800: below what the known digits tell.
ATOL = 2e-8


def end(system, x, horizon, n_steps=8000):
    return np.asarray(jax.jit(lambda x: system.trajectory(x, horizon=horizon, n_steps=1, substeps=n_steps)[-1])(jnp.array(x)))


def test_henon_heiles_from_a_known_start(double):
    x = [0.1, -0.2, 0.3, 0.15]
    assert np.allclose(end(henon_heiles(), x, 10.0), [-0.23119074, 0.08243533, -0.17175221, -0.25622458], atol=ATOL)
    assert abs(float(henon_heiles().energy(jnp.array(x))) - 0.0819166667) < 1e-10


def test_magnetic_mirror_from_a_known_start(double):
    x = [0.4, 0.3, -0.2, 0.25]
    assert np.allclose(end(magnetic_mirror(), x, 10.0), [0.40917479, -0.30498947, 0.14149465, -0.27290997], atol=ATOL)
    assert abs(float(magnetic_mirror().energy(jnp.array(x))) - 0.1353) < 5e-5


def test_magnetic_mirror_as_a_polynomial(double):
    rho, z = jnp.array([0.4, -1.2, 0.3]), jnp.array([0.3, 0.7, -2.0])
    written = rho**2 / 2 + rho**2 * z**2 / 2 - rho**4 / 8 + rho**2 * z**4 / 8 - rho**4 * z**2 / 16 + rho**6 / 128
    assert np.allclose(jax.vmap(magnetic_mirror().potential)(jnp.stack([rho, z], axis=1)), written, rtol=1e-13, atol=1e-14)


def test_pendulum_from_a_known_start_and_its_period(double):
    q, _, p, _ = end(pendulum(), [1.0, 0, 0, 0], 10.0)
    assert np.allclose([q, p], [-0.99894981, -0.04203338], atol=ATOL)
    period = 4 * ellipk(np.sin(0.5) ** 2)
    assert abs(period - 6.6999756644) < 1e-9 and np.allclose(end(pendulum(), [1.0, 0, 0, 0], period), [1, 0, 0, 0], atol=ATOL)


def test_two_bodies_on_a_circle_of_known_period(double):
    speed = 0.5**0.5
    start = [0.5, 0.0, -0.5, 0.0, 0.0, speed, 0.0, -speed]
    period = 2 * np.pi / np.sqrt(2)
    assert abs(period - 4.4428829382) < 1e-9 and np.allclose(end(n_body(2), start, period), start, atol=1e-7)


def test_leapfrog_is_its_own_inverse_and_yoshida_is_of_order_four(double):
    hamiltonian, x = henon_heiles().hamiltonian, jnp.array([0.1, -0.2, 0.3, 0.15])

    @jax.jit
    def look(x):
        there = rollout(lambda x: leapfrog_step(hamiltonian, x, 0.1), x, n_steps=50)[-1]
        back = rollout(lambda x: leapfrog_step(hamiltonian, x, -0.1), there, n_steps=50)[-1]
        ends = jnp.stack([rollout(lambda x, n=n: yoshida_step(hamiltonian, x, 2.0 / n), x, n_steps=n)[-1] for n in (20, 40, 400)])
        other = rollout(lambda x: runge_kutta_step(lambda x: henon_heiles().field(0.0, x), x, 0.01), x, n_steps=200)[-1]
        return back, ends, other

    back, ends, other = map(np.asarray, look(x))
    assert np.allclose(back, x, atol=1e-13)
    errors = np.linalg.norm(ends[:2] - ends[2], axis=1)
    assert 3.8 < np.log2(errors[0] / errors[1]) < 4.2 and np.allclose(other, ends[2], atol=1e-8)


def test_starts_lie_in_their_region_and_use_no_surplus_coordinate():
    bound = {"mass-spring": 1.0, "pendulum": 1.0, "Hénon–Heiles": 0.25, "magnetic mirror": 0.5}
    systems = [mass_spring(), pendulum(), henon_heiles(), magnetic_mirror()]
    some = MechanicalSystem("some", lambda q: q @ q / 2, lambda key: jax.random.uniform(key, (2,)), energy_below=0.3)

    @jax.jit
    def draw(key):
        keys = jax.random.split(key, 200)
        return [jax.vmap(system.draw)(keys) for system in systems], henon_heiles().sample_initial(key, 200), some.sample_initial(key, 200)

    drawn, held, low = draw(jax.random.key(0))
    assert 50 < low.n_refused < 800 and 0.25 < np.square(low.states).sum(axis=1).max() / 2 <= 0.3
    for system, states in zip(systems, drawn, strict=True):
        assert np.abs(states).max() <= bound[system.name] and np.abs(states).max() > 0.9 * bound[system.name]
        assert (np.asarray(states)[:, [1, 3]] == 0).all() == (system.n_surplus == 1)
    assert np.asarray(jax.vmap(henon_heiles().energy)(held.states)).max() <= 0.12


def test_bodies_start_without_momentum_around_their_centre():
    x = np.asarray(jax.jit(n_body(3).draw)(jax.random.key(1))).reshape(2, 3, 2)
    assert np.allclose(x.sum(axis=1), 0, atol=1e-6) and 0.4 <= np.linalg.norm(x[0, 0]) <= 0.6


def test_a_start_that_is_never_found_is_nan():
    endless = MechanicalSystem("none", lambda q: q @ q, lambda key: jax.random.uniform(key, (2,)) + 1, energy_below=0.0)
    states, n_refused = jax.jit(lambda key: endless.sample_initial(key, 1))(jax.random.key(0))
    assert np.isnan(states).all() and n_refused == 999


def test_errors_of_a_trajectory_are_as_written():
    path, state_error = np.array([[1.0, 0.0], [0.0, 2.0]]), jax.jit(relative_state_error)
    assert np.allclose(state_error(path, path[:, ::-1]), [np.sqrt(2) / 2, np.sqrt(2) / 2])
    assert state_error(np.zeros(2), np.zeros(2)) == 0 and state_error(np.ones(2), np.zeros(2)) == 1
    assert np.allclose(jax.jit(relative_field_error)(2 * path, path), 1)
    assert np.allclose(jax.jit(lambda path: relative_energy_error(lambda x: x @ x, path, path[0]))(path), [0, 3])
    # Not infinite, which would be a very large error: relative to nothing there is none.
    assert np.isnan(jax.jit(lambda path: relative_energy_error(lambda x: x @ x, path, 0 * path[0]))(path)).all()
    assert np.isclose(jax.jit(geometric_mean_over_time)(np.array([0.0, 1e-2])), 1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pendulum().sample_initial(jax.random.key(0), 0), "n must be at least 1, got 0"),
        (lambda: pendulum().trajectory(jnp.zeros(4), horizon=0.0, n_steps=1), "horizon must be positive, got 0.0"),
        (lambda: pendulum().trajectory(jnp.zeros(4), horizon=1.0, n_steps=0), "n_steps and substeps must be at least 1, got 0 and 4"),
        (lambda: n_body(1), "n must be at least 2, got 1"),
        (lambda: geometric_mean_over_time(jnp.ones(3), floor=0.0), "floor must be positive, got 0.0"),
        (lambda: relative_energy_error(lambda x: x @ x, jnp.ones((3, 2)), jnp.zeros(2)), "energy must not be zero at the start"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("n", [2, 3, 5])
def test_bodies_start_near_the_speed_that_holds_them_on_their_circle(n, double):
    @jax.jit
    def look(key):
        x = n_body(n).draw(key)
        return x, n_body(n).field(0.0, x)

    for key in jax.random.split(jax.random.key(2), 3):
        (q, p), (_, force) = (np.asarray(part).reshape(2, n, 2) for part in look(key))
        pull = -np.sum(force * q, axis=1) / np.linalg.norm(q, axis=1)
        speed = np.sqrt(pull * np.linalg.norm(q, axis=1))
        ratio = np.linalg.norm(p, axis=1) / speed
        assert np.ptp(ratio) < 1e-9 and 0.9 <= ratio[0] <= 1.1 and np.allclose(np.sum(p * q, axis=1), 0)
