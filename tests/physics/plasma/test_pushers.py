import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.physics.plasma import (
    SPLITTINGS,
    RunawayCap,
    TemperatureGradientForce,
    Vector,
    blow_up_time,
    boris,
    higuera_cary,
    is_runaway,
    lorentz_factor,
    maxwellian,
    parallel_velocity,
    relativistic_time,
    runaway_speed,
    vay,
)

PUSHERS = {"boris": boris, "vay": vay, "higuera_cary": higuera_cary}
ALONG = (1.0, 0.0, 0.0)
OFF = Vector(0.0, 0.0, 0.0)
THETA = 0.1


def vectors(seed, n=200):
    draw = np.random.default_rng(seed).normal(size=(3, n)).astype(jnp.result_type(float))
    return Vector(*map(jax.device_put, draw))


@pytest.mark.parametrize("name", PUSHERS)
def test_zero_force_is_the_plain_pusher_to_the_bit(name):
    """Step by step: what the compiler fuses, it may round differently."""
    u, E, B = map(vectors, range(3))
    nothing = TemperatureGradientForce(np.inf, ALONG, THETA)
    pair = [PUSHERS[name](u, E, B, 0.3, -1.0, force=force) for force in (None, nothing)]
    for a, b in zip(*pair, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", PUSHERS)
def test_backward_step_undoes_a_forward_step(name):
    u, E, B = map(vectors, range(3))
    there = PUSHERS[name](u, E, B, 0.3, -1.0)
    back = PUSHERS[name](there, E, B, -0.3, -1.0)
    assert all(np.allclose(a, b, atol=1e-12) for a, b in zip(back, u, strict=True))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["boris", "higuera_cary"])
def test_boris_keeps_the_speed_in_a_magnetic_field(name):
    u, B = map(vectors, range(2))
    assert np.allclose(lorentz_factor(PUSHERS[name](u, OFF, B, 1.7, 1.0)), lorentz_factor(u), rtol=1e-14)


@pytest.mark.usefixtures("double")
def test_vay_and_higuera_cary_keep_the_drift_and_boris_does_not():
    """E + v × B = 0 at v = 0.9 c."""
    gamma = 1 / np.sqrt(1 - 0.81)
    u = Vector(jnp.array(0.9 * gamma), jnp.array(0.0), jnp.array(0.0))
    E, B = Vector(0.0, 0.9, 0.0), Vector(0.0, 0.0, 1.0)
    moved = {name: push(u, E, B, 0.5, 1.0) for name, push in PUSHERS.items()}
    for name in ("vay", "higuera_cary"):
        assert all(np.allclose(a, b, atol=1e-12) for a, b in zip(moved[name], u, strict=True)), name
    assert abs(float(moved["boris"].y)) > 1e-3


@pytest.mark.usefixtures("double")
def test_gyration_has_the_frequency_of_the_field_over_gamma():
    u0 = Vector(jnp.array(0.3), jnp.array(0.5), jnp.array(0.0))
    n, B = 4000, 0.8
    period = 2 * np.pi * float(lorentz_factor(u0)) / B

    @jax.jit
    def turned(n_steps):
        step = {name: lambda _, u, push=push: push(u, OFF, Vector(B, 0.0, 0.0), period / n, -1.0) for name, push in PUSHERS.items()}
        return {name: jax.lax.fori_loop(0, n_steps, step[name], u0) for name in PUSHERS}

    whole, quarter = turned(n), turned(n // 4)
    for name in PUSHERS:
        assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(whole[name], u0, strict=True)), name
        # Electrons turn about B as the fingers of the right hand.
        assert np.allclose(quarter[name].z, 0.5, atol=1e-4), name


@pytest.mark.usefixtures("double")
def test_a_gradient_must_lie_along_the_field_not_along_the_grid():
    """Along B the force leaves the momentum across it alone, that of whistlers and firehose; along x, in an oblique field, it does not."""
    b = (0.6, 0.8, 0.0)

    @jax.jit
    def change(u):
        field, along = Vector(*(0.7 * part for part in b)), lambda u: 0.6 * u.x + 0.8 * u.y
        across = lambda u: u.x**2 + u.y**2 + u.z**2 - along(u) ** 2  # noqa: E731
        moved = [boris(u, OFF, field, 0.3, -1.0, force=TemperatureGradientForce(5.0, a, THETA)) for a in (b, ALONG)]
        return [jnp.abs(across(v) - across(u)).max() for v in moved]

    along_field, along_grid = change(vectors(0))
    assert along_field < 1e-13 and along_grid > 0.1


@pytest.mark.parametrize("name", PUSHERS)
def test_force_is_the_same_for_either_charge(name):
    u = vectors(0)
    force = TemperatureGradientForce(3.0, ALONG, THETA)
    pushed = [PUSHERS[name](u, OFF, OFF, 0.3, charge, force=force, splitting=way) for charge in (1.0, -1.0) for way in ("strang",)]
    lagging = [PUSHERS[name](u, OFF, OFF, 0.3, charge, force=force, splitting="effective-field") for charge in (1.0, -1.0)]
    for a, b in (pushed, lagging):
        assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.usefixtures("double")
def test_order_of_either_splitting():
    """Distance from the analytic motion with B along the gradient: 2, but 1 in the effective field, where γ lags."""
    force, time = TemperatureGradientForce(1.0, ALONG, THETA), 1.2
    along, across = np.linspace(-0.4, 0.5, 10), np.linspace(0.1, 0.9, 10)
    u0 = Vector(*map(jnp.asarray, (along, across, 0 * across)))

    def error(push, splitting, n_steps):
        dt = time / n_steps
        step = lambda _, u: push(u, OFF, Vector(0.7, 0.0, 0.0), dt, -1.0, force=force, splitting=splitting)  # noqa: E731
        u = jax.lax.fori_loop(0, n_steps, step, u0)
        # The time by which it is late, times its speed, is how far it is off.
        late = relativistic_time(u0.x, u.x, jnp.hypot(u.y, u.z), force.offset) - time
        return jnp.abs(late * force(u).x).max()

    @jax.jit
    def errors(n_steps):
        return jnp.stack([jnp.stack([error(push, splitting, n_steps) for splitting in SPLITTINGS]) for push in PUSHERS.values()])

    orders = np.log(np.asarray(errors(20)) / np.asarray(errors(80))) / np.log(4)
    assert np.allclose(orders, [[2, 1]] * 3, atol=0.1)


PATH = jax.jit(jax.vmap(jax.value_and_grad(lambda t, start, across: parallel_velocity(start, across, t)), (0, None, None)))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("start", "across"), [(0.2, 0.3), (-1.8, 0.9), (1.0, 0.2), (1.5, 0.8), (0.0, 1.4), (-2.0, 1.6), (0.3, np.sqrt(1.5))]
)
def test_closed_form_solves_the_motion_at_low_speed(start, across):
    last = min(0.9 * float(blow_up_time(start, across)), 3.0)
    path, slope = map(np.asarray, PATH(np.linspace(0, last, 50), start, across))
    assert path[0] == start
    assert np.allclose(slope, path**2 + across**2 - 1.5, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("double")
def test_blow_up_and_rest_points():
    assert np.isinf(parallel_velocity(2.0, 0.0, 1.01 * blow_up_time(2.0, 0.0)))
    assert np.isinf(blow_up_time(1.0, 0.0)) and np.isinf(blow_up_time(-5.0, 1.0))
    assert np.allclose(parallel_velocity(1.1, 0.5, 60.0), -np.sqrt(1.25))
    assert np.allclose(blow_up_time(0.0, 2.0), np.pi / 2 / np.sqrt(2.5))
    assert np.allclose(blow_up_time(2.0, 0.0), np.arctanh(np.sqrt(1.5) / 2) / np.sqrt(1.5))


@pytest.mark.usefixtures("double")
def test_relativistic_time_has_the_right_derivative_and_limit():
    offset = 1.5 * THETA
    start, end, across = np.array([(-0.3, 0.1, 0.2), (1.0, 3.0, 0.2), (-0.5, 4.0, 1.5)]).T
    rate = np.sqrt(1 + end**2 + across**2) - 1 - offset
    slope = jax.jit(jax.vmap(jax.grad(lambda end, start, across: relativistic_time(start, end, across, offset))))(end, start, across)
    assert np.allclose(slope, 1 / rate, rtol=1e-9)
    # A particle cannot cross a rest point.
    assert np.isinf(relativistic_time(0.1, 3.0, 0.0, 1.5 * THETA))
    # At low speed it is the closed form's: t = 2 (L / v_th) τ.
    theta, thermal = 1e-8, np.sqrt(2e-8)
    end = parallel_velocity(0.3, 0.4, 0.2)
    time = relativistic_time(0.3 * thermal, end * thermal, 0.4 * thermal, 1.5 * theta)
    assert np.allclose(time * thermal / 2, 0.2, rtol=1e-5)
    # Late growth is exponential, not a blow-up.
    assert np.allclose(relativistic_time(1e3, 1e4, 1.0, 0.15), np.log(10), rtol=1e-2)


@pytest.mark.usefixtures("double")
def test_without_offset_a_particle_at_rest_divides_those_that_run_from_those_that_stop():
    # du/dt = γ - 1, which vanishes at rest alone: k = 1.
    slope = jax.jit(jax.vmap(jax.grad(lambda end: relativistic_time(0.5, end, 0.0, 0.0))))(jnp.array([0.7, 3.0]))
    assert np.allclose(slope, 1 / (np.sqrt(1 + np.array([0.7, 3.0]) ** 2) - 1), rtol=1e-9)
    assert np.isinf(relativistic_time(-0.5, 0.5, 0.0, 0.0)) and relativistic_time(-0.7, -0.5, 0.0, 0.0) > 0


def test_runaway_condition_is_that_of_the_motion():
    offset = 1.5 * THETA
    along, across = np.meshgrid(np.linspace(-1, 1, 21), np.linspace(0, 1, 22))
    u0 = Vector(jax.device_put(along.ravel()), jax.device_put(across.ravel()), jnp.zeros(along.size))
    force = TemperatureGradientForce(1.0, ALONG, THETA)

    def push(_, u):
        return vay(u, OFF, OFF, 0.02, -1.0, force=force)

    end = jax.jit(lambda u: jax.lax.fori_loop(0, 2000, push, u))(u0)
    near = np.abs(across.ravel() - float(runaway_speed(offset))) < 0.02
    assert (((np.asarray(end.x) > 20) == np.asarray(is_runaway(u0, ALONG, offset))) | near).all()
    assert np.isclose(float(runaway_speed(offset)) ** 2, 3 * THETA + 2.25 * THETA**2, rtol=1e-5)
    thermal = jax.jit(lambda key: maxwellian(key, 1e-6, 100_000))(jax.random.key(0))
    share = (np.asarray(thermal.y) ** 2 + np.asarray(thermal.z) ** 2 > float(runaway_speed(1.5e-6)) ** 2).mean()
    assert abs(share - np.exp(-1.5)) < 5e-3


def test_cap_draws_anew_and_counts():
    fresh = np.random.default_rng(0).normal(scale=np.sqrt(THETA), size=(3, 64)).astype(np.float32)
    u = np.zeros((3, 64), np.float32)
    u[1, 1], u[:, 40] = 10.0, -3.0
    capped, count = jax.jit(lambda u, fresh, turn: RunawayCap.thermal(THETA)(Vector(*u), Vector(*fresh), turn))(u, fresh, jnp.int32(70))
    chosen = np.array([1, 40])
    assert int(count) == 2
    for new, old, pool in zip(map(np.asarray, capped), u, fresh, strict=True):
        assert (new[chosen] == pool[(chosen + 70) % 64]).all()
        assert (np.delete(new, chosen) == np.delete(old, chosen)).all()


def test_cap_holds_almost_nothing_of_a_thermal_population():
    @jax.jit
    def count(key):
        u = maxwellian(key, THETA, 1_000_000)
        return RunawayCap.thermal(THETA)(u, u, jnp.int32(0))[1]

    assert int(count(jax.random.key(1))) < 10


@given(st.floats(-0.5, 0.5), st.floats(0, 1))
def test_parallel_velocity_is_finite_or_said_to_be_infinite(start, across):
    values, _ = PATH(np.array([0.0, 0.5, 50.0], np.float32), start, across)
    assert not np.isnan(values).any()


def test_words_and_ranges_are_checked():
    with pytest.raises(ValueError, match=r"splitting must be one of \('strang', 'effective-field'\), got 'lie'"):
        vay(OFF, OFF, OFF, 0.1, 1.0, splitting="lie")
    with pytest.raises(ValueError, match="limit must be positive, got -1"):
        RunawayCap(-1.0)
