import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.physics.plasma import (
    ForcedGas,
    RunawayCap,
    Species,
    SumForce,
    TemperatureGradientForce,
    VelocityGradientForce,
    lorentz_factor,
    moments,
)

ALONG = (1.0, 0.0, 0.0)
THETA = 1e-4
THERMAL = np.sqrt(2 * THETA)
N = 100_000


@eqx.filter_jit
def begin(gas, key):
    return gas.start(key)


along = jax.jit(lambda u: moments(u, ALONG))
stretching = jax.jit(lambda rate: VelocityGradientForce.gyrotropic(rate, ALONG))


@eqx.filter_jit
def evolve(gas, state, n_steps, directions):
    """The end, and the mean of the moments over the second half, along each direction."""

    def step(i, carry):
        state, total = carry
        state = gas(state)
        now = jnp.stack([jnp.stack(moments(state.momentum, direction)) for direction in directions])
        return state, total + jnp.where(i >= n_steps // 2, now, 0.0)

    state, total = jax.lax.fori_loop(0, n_steps, step, (state, jnp.zeros((len(directions), 5))))
    return state, total / (n_steps - n_steps // 2)


RATE, DT = 1e-3, 100.0  # a tenth of a collision in each step
SHARE = -np.expm1(-RATE * DT)


@pytest.fixture(scope="module")
def collisional():
    """Temperature gradient and shear, with collisions, until at rest."""
    weak, none = TemperatureGradientForce(1000.0, ALONG, THETA), TemperatureGradientForce(np.inf, ALONG, THETA)
    strain = [stretching(rate) for rate in (0.0, 0.2 * RATE)]
    found = {}
    for name, parts in (("heat", (weak, strain[0])), ("shear", (none, strain[1]))):
        gas = ForcedGas(Species(THETA, N, force=SumForce(*parts)), dt=DT, collision_rate=jnp.float32(RATE))
        gas = jax.tree.map(jnp.asarray, gas)
        found[name] = np.asarray(evolve(gas, begin(gas, jax.random.key(0)), 80, [ALONG])[1])[0]
    return found


def test_collisions_bring_the_heat_flux_to_rest(collisional):
    """q = (5/2) n T² / (m ν L); in steps, the age of a particle just after a collision is dt / (e^{ν dt} - 1) instead of 1/ν."""
    expected = 2.5 * THETA**2 / 1000.0 * DT / np.expm1(RATE * DT)
    assert np.isclose(float(collisional["heat"][1]), expected, rtol=0.04)


def test_collisions_bring_the_shear_stress_to_rest(collisional):
    """p_∥ - p_⊥ = 2 σ n T / ν to first order; to all orders, the affine map averaged over the ages of the particles."""

    def grown(rate):
        return SHARE / (1 - (1 - SHARE) * np.exp(rate * DT))

    tiny = 1e-6 * RATE
    assert np.isclose((grown(4 * tiny / 3) - grown(-2 * tiny / 3)) / (2e-6 * RATE * DT / np.expm1(RATE * DT)), 1, rtol=1e-5)
    stress = float(collisional["shear"][2] - collisional["shear"][3]) / THETA
    assert np.isclose(stress, grown(4 * 0.2 * RATE / 3) - grown(-2 * 0.2 * RATE / 3), rtol=0.06)


def test_flux_grows_as_five_quarters_without_collisions():
    gas = ForcedGas(Species(THETA, N, force=TemperatureGradientForce(1.0, ALONG, THETA)), dt=0.2)
    end, _ = evolve(gas, begin(gas, jax.random.key(1)), 10, [ALONG])
    eta = THERMAL * 2.0
    assert np.isclose(float(along(end.momentum).heat_flux) / (THETA * THERMAL) / eta, 1.25, rtol=0.03)


def test_gradient_across_the_field_gives_a_steady_diamagnetic_flux():
    """(5/2) n T² / (m Ω L) across both, nothing that grows."""
    field, length = 0.02, 20.0
    period = 2 * np.pi / field
    gas = ForcedGas(
        Species(THETA, N, force=TemperatureGradientForce(length, (0.0, 1.0, 0.0), THETA)), dt=period / 20, magnetic=(field, 0.0, 0.0)
    )
    _, mean = evolve(gas, begin(gas, jax.random.key(2)), 40, [ALONG, (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
    expected = 2.5 * THETA**2 / (field * length)
    along, down, across = (float(row[1]) for row in np.asarray(mean))
    assert np.isclose(abs(across), expected, rtol=0.06)
    assert abs(along) < 0.05 * expected and abs(down) < 0.1 * expected


def test_shear_of_a_gas_is_the_affine_map():
    gas = ForcedGas(Species(THETA, 2000, force=stretching(1e-3)), dt=10.0)
    start = begin(gas, jax.random.key(3))
    end, _ = evolve(gas, start, 40, [ALONG])
    before, after = (jax.tree.map(float, along(state.momentum)) for state in (start, end))
    ratio = (after.parallel_pressure / after.perpendicular_pressure) / (before.parallel_pressure / before.perpendicular_pressure)
    assert np.isclose(ratio, np.exp(2 * 1e-3 * 400), rtol=1e-3)


def test_coupled_gas_holds_its_drift_and_has_the_flux_of_a_plasma():
    theta = 0.1
    force = TemperatureGradientForce(60.0, ALONG, theta, 0.14)
    gas = ForcedGas(Species(theta, N, force=force, cap=RunawayCap.thermal(theta)), dt=0.3, is_coupled=True)
    steps = 100
    end, mean = evolve(gas, begin(gas, jax.random.key(4)), steps, [ALONG])
    now = along(end.momentum)
    eta = np.sqrt(2 * theta) * 0.3 * steps / 60.0
    assert abs(float(mean[0][0])) < 2e-3
    assert np.isclose(float(now.heat_flux) / (theta * np.sqrt(2 * theta)) / eta, 0.621, rtol=0.05)


def test_heavy_ions_turn_and_drive_the_field_by_their_charge(double):
    charge, mass, field, dt = 2.0, 4.0, 0.8, 0.05
    ions = Species(0.1, 20, charge=charge, mass=mass)
    gas = ForcedGas(ions, dt=dt, magnetic=(0.0, 0.0, field), is_coupled=True)
    state = begin(gas, jax.random.key(0))
    state = state._replace(momentum=state.momentum._replace(x=state.momentum.x + 0.3))
    end = eqx.filter_jit(gas)(state)
    before, after = (np.asarray(u.x) + 1j * np.asarray(u.y) for u in (state.momentum, end.momentum))
    gamma = np.asarray(lorentz_factor(end.momentum))
    # Ions turn about B against the fingers of the right hand.
    assert np.allclose(after / before, np.exp(-2j * np.arctan(charge * field * dt / (2 * mass * gamma))), rtol=1e-10)
    drift = [float((part / gamma).mean()) for part in end.momentum]
    assert np.allclose([float(part) for part in end.electric], [-dt * charge * part for part in drift], atol=1e-14)


def test_a_cap_must_stop_the_tail_and_leave_the_carriers():
    """Runaways eat the heat flux; a cap at four thermal speeds stops them, one at two takes away what carries the heat."""

    def flux(limit, dt, n_steps):
        species = Species(THETA, 20_000, force=TemperatureGradientForce(1.0, ALONG, THETA), cap=RunawayCap(limit * THERMAL))
        gas = jax.tree.map(jnp.asarray, ForcedGas(species, dt=dt / THERMAL))
        end, _ = evolve(gas, begin(gas, jax.random.key(5)), jnp.asarray(n_steps), [ALONG])
        return float(along(end.momentum).heat_flux) / (THETA * THERMAL), int(end.redrawn)

    (free, none), (held, few), (cut, many) = (flux(limit, 0.02, 10) for limit in (1e3, 4.0, 2.0))
    assert none == 0 and few < 20 < 1000 < many
    assert np.isclose(held, free, rtol=0.02) and cut < 0.5 * free
    (late, _), (late_held, more) = (flux(limit, 0.02, 60) for limit in (1e3, 4.0))
    assert more > few and 0.5 < late_held < 2 and late > 100 * late_held


@pytest.mark.usefixtures("double")
def test_derivative_in_the_gradient_agrees_with_differences():
    def flux(inverse_length):
        gas = ForcedGas(Species(0.1, 32, force=TemperatureGradientForce(1 / inverse_length, ALONG, 0.1)), dt=0.3, is_coupled=True)
        end = jax.lax.scan(lambda state, _: (gas(state), None), start, length=5)[0]
        return moments(end.momentum, ALONG).heat_flux

    start = begin(ForcedGas(Species(0.1, 32), dt=0.3), jax.random.key(6))
    step = 1e-5
    # One program for values and slopes: a batch of three.
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(flux)))(jnp.array([0.1 - step, 0.1, 0.1 + step]))
    assert np.isclose(slopes[1], (values[2] - values[0]) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt": 0.0}, "dt must be positive, got 0"),
        ({"dt": 2.0, "is_coupled": True}, r"dt must be positive and below 2 \(plasma oscillations\), got 2"),
        ({"dt": 1.0, "collision_rate": -1.0}, "collision_rate must be at least 0, got -1"),
        ({"dt": 1.0, "magnetic": (0.0,)}, "magnetic must have three components, got 1"),
    ],
)
def test_bad_gases_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ForcedGas(Species(0.1, 4), **options)
