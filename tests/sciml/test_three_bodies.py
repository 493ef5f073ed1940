import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.sciml import MechanicalSystem, n_body, three_body

MASSES, GRAVITY = (1.0, 2.0, 0.5), 1.5
# Of steps of order 4 at about 1/1000: below what the known digits tell.
ATOL = 1e-7


def end(system, x, horizon, n_steps=4000):
    return np.asarray(jax.jit(lambda x: system.trajectory(x, horizon=horizon, n_steps=1, substeps=n_steps)[-1])(jnp.array(x)))


def triangle(masses, side, omega):
    """Lagrange's solution at time 0, its centre of mass at rest at the origin."""
    angles = 2 * np.pi * np.arange(3) / 3
    q = side / np.sqrt(3) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    m = np.array(masses)[:, None]
    q = q - (m * q).sum(axis=0) / m.sum()
    return q, m * omega * np.stack([-q[:, 1], q[:, 0]], axis=1)


def test_a_triangle_of_equal_masses_turns_by_lagranges_law(double):
    """Two pulls m²/d² at 30° to the way to the centre, d/√3 away: m ω² d/√3 = √3 m²/d², ω² = 3 m/d³."""
    mass, side = 0.7, 1.3
    omega = np.sqrt(3 * mass / side**3)
    q, p = triangle((mass,) * 3, side, omega)
    after = end(three_body((mass,) * 3), np.concatenate([q.ravel(), p.ravel()]), 2 * np.pi / 3 / omega).reshape(2, 3, 2)
    # A third of a turn: each where the next one was.
    assert np.allclose(after, np.stack([q, p])[:, [1, 2, 0]], atol=ATOL)


def test_a_triangle_of_unequal_masses_turns_by_lagranges_law(double):
    side = 1.3
    omega = np.sqrt(GRAVITY * sum(MASSES) / side**3)
    q, p = triangle(MASSES, side, omega)
    start = np.concatenate([q.ravel(), p.ravel()])
    quarter = end(three_body(MASSES, gravity=GRAVITY), start, np.pi / 2 / omega).reshape(2, 3, 2)
    assert np.allclose(quarter, np.stack([np.stack([-x[:, 1], x[:, 0]], axis=1) for x in (q, p)]), atol=ATOL)


def test_the_figure_eight_comes_back_after_its_period(double):
    """Chenciner and Montgomery 2000, Annals of Mathematics 152; eight digits of C. Simó's."""
    q, p = np.array([0.97000436, -0.24308753]), np.array([-0.93240737, -0.86473146])
    start = np.concatenate([q, -q, 0 * q, -p / 2, -p / 2, p])
    period = 6.32591398
    assert np.allclose(end(three_body(), start, period), start, atol=1e-6)
    # One curve for all: a third of a period on, each is where another was.
    third = end(three_body(), start, period / 3).reshape(2, 3, 2)
    assert np.allclose(third, start.reshape(2, 3, 2)[:, [1, 2, 0]], atol=1e-6) or np.allclose(
        third, start.reshape(2, 3, 2)[:, [2, 0, 1]], atol=1e-6
    )


def test_energy_momentum_and_angular_momentum_are_kept(double):
    q, p = triangle(MASSES, 1.8, 0.9 * np.sqrt(GRAVITY * sum(MASSES) / 1.8**3))
    p = p + np.array([[0.1, 0.2], [-0.1, 0.3], [0.2, 0.1]])
    system, start = three_body(MASSES, gravity=GRAVITY), jnp.concatenate([q.ravel(), p.ravel()])

    @jax.jit
    def look(x):
        path = system.trajectory(x, horizon=3.0, n_steps=10, substeps=200)
        q, p = jnp.split(path.reshape(-1, 2, 3, 2), 2, axis=1)
        return jax.vmap(system.energy)(path), p.sum(axis=(1, 2)), jnp.sum(q[..., 0] * p[..., 1] - q[..., 1] * p[..., 0], axis=(1, 2)), path

    energy, momentum, angular, path = map(np.asarray, look(start))
    assert np.ptp(energy) < 1e-8 and np.ptp(momentum, axis=0).max() < 1e-12 and np.ptp(angular) < 1e-12
    assert np.allclose(momentum[0], [0.2, 0.6]) and np.ptp(path, axis=0).max() > 1


def test_forces_are_newtons_and_what_finite_differences_see(double):
    system, rng = three_body(MASSES, gravity=GRAVITY), np.random.default_rng(0)
    q, p = rng.normal(size=(2, 3, 2))
    x, shift = np.concatenate([q.ravel(), p.ravel()]), 1e-6
    field, energies = jax.jit(lambda x: (system.field(0.0, x[0]), jax.vmap(system.energy)(x[1:])))(
        jnp.concatenate([x[None], x + shift * np.eye(12), x - shift * np.eye(12)])
    )
    above, below = np.asarray(energies).reshape(2, 12)
    gradient = (above - below) / (2 * shift)
    assert np.allclose(field, np.concatenate([gradient[6:], -gradient[:6]]), atol=1e-8)
    m, force = np.array(MASSES), np.zeros((3, 2))
    for i in range(3):
        for j in {0, 1, 2} - {i}:
            force[i] -= GRAVITY * m[i] * m[j] * (q[i] - q[j]) / np.linalg.norm(q[i] - q[j]) ** 3
    assert np.allclose(field, np.concatenate([(p / m[:, None]).ravel(), force.ravel()]), rtol=1e-12)


def test_bodies_that_change_places_with_their_masses_change_nothing(double):
    x, order = np.random.default_rng(1).normal(size=(2, 3, 2)), [2, 0, 1]
    permuted = x[:, order]
    mixed = three_body((MASSES[2], MASSES[0], MASSES[1])).energy(jnp.asarray(permuted.ravel()))
    assert np.isclose(three_body(MASSES).energy(jnp.asarray(x.ravel())), mixed, rtol=1e-14)
    assert not np.isclose(three_body(MASSES).energy(jnp.asarray(permuted.ravel())), mixed, rtol=1e-3)
    alike = [three_body().energy(jnp.asarray(state.ravel())) for state in (x, permuted)]
    assert np.isclose(*alike, rtol=1e-14) and np.isclose(alike[0], n_body(3).energy(jnp.asarray(x.ravel())), rtol=1e-14)


@pytest.mark.parametrize(("masses", "gravity"), [((1.0, 1.0, 1.0), 1.0), (MASSES, 1.2)])
def test_starts_are_near_the_triangle_and_lead_to_no_collision(masses, gravity, double):
    system = three_body(masses, gravity=gravity, horizon=6.0)

    @jax.jit
    def look(key):
        states, n_refused = system.sample_initial(key, 30)
        # Steps unlike those by which the starts were chosen.
        paths = jax.vmap(lambda x: system.trajectory(x, horizon=6.0, n_steps=400, substeps=2))(states)
        return states, n_refused, paths[:, :, :6], jax.vmap(jax.vmap(system.energy))(paths[:, ::20])

    states, n_refused, places, energy = map(np.asarray, look(jax.random.key(3)))
    q, p = states.reshape(-1, 2, 3, 2).transpose(1, 0, 2, 3)
    m = np.array(masses)[:, None]
    sides = np.linalg.norm(q - np.roll(q, 1, axis=1), axis=2)
    assert np.ptp(sides, axis=1).max() < 1e-12 and 1.55 < sides.min() < 1.7 and 1.9 < sides.max() < 2.08
    assert np.abs(p.sum(axis=1)).max() < 1e-12 and np.abs((m * q).sum(axis=1)).max() < 1e-12
    omega = np.sqrt(gravity * m.sum() / sides[:, :1, None] ** 3)
    across = omega * np.stack([-q[..., 1], q[..., 0]], axis=-1)
    change = np.linalg.norm(p / m - across, axis=-1) / np.linalg.norm(across, axis=-1)
    assert 0.05 < np.median(change) < 0.3
    bodies = places.reshape(30, -1, 3, 2)
    apart = np.linalg.norm(bodies - np.roll(bodies, 1, axis=2), axis=3)
    # The steps that the starts were chosen by are coarser: where the chaos is largest they see another path.
    assert apart.min() > 0.25 and n_refused > 0 and (np.ptp(energy, axis=1) / np.abs(energy[:, 0])).max() < 1e-3


def test_starts_that_a_system_does_not_accept_are_drawn_again_or_nan():
    def system(accepts):
        return MechanicalSystem("some", lambda q: q @ q, lambda key: jax.random.uniform(key, (2,)), accepts=accepts)

    states, n_refused = jax.jit(lambda key: system(lambda x: x[0] > 0.5).sample_initial(key, 200))(jax.random.key(0))
    assert 0.5 < states[:, 0].min() < 0.52 and 100 < n_refused < 320
    states, n_refused = jax.jit(lambda key: system(lambda x: x[0] > 2).sample_initial(key, 1))(jax.random.key(0))
    assert np.isnan(states).all() and n_refused == 999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masses": (1.0, 1.0, 0.0)}, r"masses must be three positive numbers, got \(1.0, 1.0, 0.0\)"),
        ({"masses": (1.0, 1.0)}, r"masses must be three positive numbers, got \(1.0, 1.0\)"),
        ({"gravity": -1.0}, "gravity must be positive, got -1.0"),
        ({"horizon": 0.0}, "horizon must be positive, got 0.0"),
        ({"closest": 1.6}, r"closest must lie in \[0, 1.5588\), below the shortest side at the start, got 1.6"),
    ],
)
def test_bodies_that_cannot_be_are_refused(arguments, message, without_type_checks):
    with pytest.raises(ValueError, match=message):
        three_body(**arguments)
