import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from hypothesis import given
from hypothesis import strategies as st

from gradatim.physics.phase_field import (
    ArrheniusMobility,
    HeatOfTransport,
    IdealSolution,
    PhaseMobility,
    QuarticTwoPhase,
    Thermotransport,
    disc_velocity,
    gibbs_thomson,
    indicator,
    interface_positions,
    interface_profile,
    matrix_flux,
    slab_velocity,
    soret_steady_state,
    spinodal_growth_rate,
)

pytestmark = pytest.mark.usefixtures("double")
MASS = 1e-12  # round-off of some hundred steps
N = 48
HEAT, NONE = HeatOfTransport(-0.3, 0.2), HeatOfTransport(0.0, 0.0)
SHAPES = [(N,), (24, 18)]


def arrays(tree):
    """The same with its numbers as arrays: models that differ in them alone go through one compiled program."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf, tree)


def bar(n=N, gradient=2e-3):
    return jnp.asarray(1 + gradient * (np.arange(n) + 0.5 - n / 2))


def with_one(temperature):
    """A bar one of whose cells has this temperature."""
    T = np.array(bar())
    T[3] = temperature
    return jnp.asarray(T)


def noise(shape=(N,), amplitude=0.05, seed=0):
    return jnp.asarray(0.5 + amplitude * np.random.default_rng(seed).normal(size=shape))


def model(shape=(N,), temperature=None, slopes=(0.1, -0.2), heat=HEAT, **options):
    temperature = bar(shape[0]).reshape(-1, *(1 for _ in shape[1:])) if temperature is None else temperature
    free_energy = QuarticTwoPhase(matrix_slope=slopes[0], precipitate_slope=slopes[1])
    return arrays(Thermotransport(shape, free_energy, temperature, heat_of_transport=heat, **options))


@eqx.filter_jit
def flux(run, c):
    return run.flux(c)


@eqx.filter_jit
def rhs(run, c):
    return run.rhs(c)


@eqx.filter_jit
def thermal_slope(run, c, T):
    return run.free_energy.thermal_slope(c, T)


@eqx.filter_jit
def step(run, c, dt):
    return run.step(c, dt)


@eqx.filter_jit
def _advance(run, c, dt, n_steps, order):
    stepper = run.stepper(dt, order=order)
    return jax.lax.fori_loop(0, n_steps, lambda _, c: stepper(c), c)


def advance(run, c, dt, n_steps, order=1):
    """The state after so many steps: one program whatever their number and length."""
    return _advance(run, c, jnp.asarray(dt), jnp.asarray(n_steps), order)


@pytest.fixture(scope="module")
def slabs():
    """Speeds of slabs between walls that pass the matrix's own flux, by a line through the second half of their way."""
    cases = {
        "chemical": ((0.1, -0.1), NONE, "isothermal"),
        "thermal": ((0.0, 0.0), HeatOfTransport(-0.2, 0.0), "isothermal"),
        "equal heats": ((0.0, 0.0), HeatOfTransport(-0.2, -0.2), "isothermal"),
        "total law": ((0.1, -0.1), NONE, "total"),
    }
    gradient, width, n, dt, t_end = 1e-3, 60, 256, 0.25, 2000.0
    with jax.enable_x64(True):
        x, T = jax.device_put(np.arange(n) + 0.5), bar(n, gradient)
        shape = sum(sign * np.tanh((np.asarray(x) - n / 2 + sign * width / 2) / 2.5) for sign in (1, -1)) / 2

        @eqx.filter_jit
        @eqx.filter_vmap
        def middles(run):
            a, b = run.free_energy.stable_compositions(T)
            solution = run.solve(a + (b - a) * shape, t_end, dt=dt, save_every=round(t_end / dt / 20))
            return solution.time, jax.vmap(lambda c: interface_positions(run.free_energy.phase(c, T), x).mean())(solution.concentration)

        runs, speeds = {}, {}
        for name, (slopes, heat, convention) in cases.items():
            free_energy = QuarticTwoPhase(matrix_slope=slopes[0], precipitate_slope=slopes[1])
            passing = matrix_flux(free_energy, heat, gradient, convention=convention)
            runs[name] = model((n,), T, slopes, heat, wall_flux=(passing, passing), convention=convention)
        for convention in ("isothermal", "total"):
            names = [name for name in cases if cases[name][2] == convention]
            batch = jax.tree.map(lambda *leaves: jax.device_put(np.stack(leaves)), *(runs[name] for name in names))
            for name, time, middle in zip(names, *map(np.asarray, middles(batch)), strict=True):
                speeds[name] = np.polyfit(time[10:], middle[10:], 1)[0]
    return speeds


# Oracles.


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", [1, 2])
def test_mass_is_kept(shape, order):
    c = noise(shape)
    end, c = np.asarray(advance(model(shape), c, 0.2, 100, order)), np.asarray(c)
    assert abs(end.sum() / c.sum() - 1) < MASS and np.abs(end - c).max() > 0.01


def test_wall_flux_is_what_enters():
    c = noise()
    end = advance(model(wall_flux=(0.002, 0.001)), c, 0.2, 20)
    assert np.isclose(np.asarray(end).sum() - np.asarray(c).sum(), 4.0 * 0.001, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_isothermal_energy_never_rises(shape):
    @eqx.filter_jit
    def energies(run, c):
        orders = [run.solve(c, 40.0, dt=0.2, save_every=1, order=order).concentration for order in (1, 2)]
        return jnp.stack([jax.lax.map(run.energy, states) for states in orders])

    found = np.asarray(energies(model(shape, jnp.asarray(1.0)), noise(shape)))
    assert found.shape == (2, 201) and np.diff(found).max() <= 1e-12 * np.abs(found[:, 0]).max()


@pytest.mark.parametrize("shape", SHAPES)
def test_centre_of_mass_moves_by_the_integral_of_the_flux(shape):
    run, c = model(shape), noise(shape)
    x = (np.arange(shape[0]) + 0.5).reshape(-1, *(1 for _ in shape[1:]))
    assert np.isclose((x * np.asarray(rhs(run, c))).sum(), np.asarray(flux(run, c)[0]).sum(), rtol=1e-10)


def test_rhs_is_minus_the_gradient_of_the_energy_under_the_laplacian():
    run, c = model((24, 18), jnp.asarray(1.0)), noise((24, 18))
    potential, slope = jax.jit(lambda c: (run.chemical_potential(c), jax.grad(run.energy)(c)))(c)
    assert np.allclose(potential, slope, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_energy_is_an_integral_over_cells_of_any_size(shape):
    dx = 0.5

    @jax.jit
    def both(c):
        run = model(shape, dx=dx)
        return run.chemical_potential(c), jax.grad(run.energy)(c) / dx ** len(shape)

    potential, slope = both(noise(shape))
    assert np.allclose(potential, slope, atol=1e-11)


@jax.jit
def at_rest(T, heat, mean):
    return soret_steady_state(T, heat, mean)


@pytest.mark.parametrize(("heat", "ratio"), [(-100e3, 8.223452), (-75e3, 4.856133)])
def test_dilute_soret_ratio(heat, ratio):
    c = at_rest(jnp.array([973.15, 1173.15]), heat, 1e-9)
    assert np.isclose(c[1] / c[0], ratio, rtol=1e-6)


def test_dilute_soret_profile_in_a_closed_bar():
    n = 2000
    T = 973.15 + 100 * (np.arange(n) + 0.5) / n
    ends = np.interp([973.15, 1023.15, 1073.15], T, np.asarray(at_rest(T, -100e3, 1e-9)) / 1e-9)
    assert np.allclose(ends, [0.522673, 0.956163, 1.653452], rtol=1e-3)


def test_ideal_solution_settles_into_the_soret_state():
    n, length = 64, 1e-3
    T = jnp.asarray(973.15 + 100 * (np.arange(n) + 0.5) / n)
    mobility = ArrheniusMobility(2e-6, 84.1e3)
    run = Thermotransport((n,), IdealSolution(), T, heat_of_transport=HeatOfTransport(-100e3), mobility=mobility, kappa=0.0, dx=length / n)
    relaxation = length**2 / np.pi**2 / (2e-6 * np.exp(-84.1e3 / (8.314462618 * 1023.15)))
    start, exact = jax.device_put(np.full(n, 0.2)), at_rest(T, -100e3, 0.2)
    end = advance(run, start, relaxation / 40, 1200)
    assert np.abs(np.asarray(end) / np.asarray(exact) - 1).max() < 1e-6
    # On faces the mean of 1/T makes the state at rest exact, whatever the grid.
    assert np.abs(flux(run, exact)[0]).max() < 1e-12 * np.abs(flux(run, start)[0]).max()


def reduced(c, T, free_energy):
    """`HEAT` as the total law has it."""
    return HEAT(c, T, free_energy) - T * free_energy.thermal_slope(c, T)


def test_conventions_are_one_law_in_two_notations():
    c, T = noise(), bar()
    isothermal, total = model(), model(heat=reduced, convention="total")
    slope, T = np.asarray(thermal_slope(isothermal, c, T)), np.asarray(T)
    # Q* and ∂²f/∂c∂T are averaged to faces apart; mean(T g) mean(1/T) = mean(g) up to the squares of differences across a cell.
    across = np.abs(np.diff(T)).max() ** 2 * np.abs(np.diff(slope)).max() / T.min()
    one, other = (np.asarray(flux(run, c)[0]) for run in (isothermal, total))
    assert np.abs(one - other).max() <= across
    uniform = jax.device_put(np.full(N, 0.3))
    one, other = (np.asarray(flux(run, uniform)[0]) for run in (isothermal, total))
    assert np.abs(one - other).max() < 1e-5 * np.abs(one).max()


@pytest.mark.parametrize("convention", ["isothermal", "total"])
def test_without_slopes_and_heat_temperature_drops_out_bit_for_bit(convention):
    c = noise()
    with_gradient, without = (model(temperature=T, slopes=(0.0, 0.0), heat=NONE, convention=convention) for T in (bar(), jnp.ones(N)))
    assert np.array_equal(step(with_gradient, c, 0.2), step(without, c, 0.2))


@pytest.mark.parametrize("convention", ["isothermal", "total"])
@pytest.mark.parametrize("shape", SHAPES)
def test_mirror(convention, shape):
    c = noise(shape)
    hot_right, hot_left = (
        model(shape, bar(shape[0], gradient).reshape(-1, *(1 for _ in shape[1:])), convention=convention) for gradient in (2e-3, -2e-3)
    )
    assert np.allclose(step(hot_right, c, 0.2), np.flip(np.asarray(step(hot_left, np.flip(np.asarray(c), 0), 0.2)), 0), atol=1e-14)


def test_temperature_along_y_is_the_same_law():
    n = 32
    c, T = noise((n, n)), jnp.broadcast_to(bar(n)[:, None], (n, n))
    along_x, along_y = flux(model((n, n), T), c)[0], flux(model((n, n), T.T), c.T)[1]
    # Walls and periodic edges change places; away from them nothing does.
    inner = slice(2, -2)
    assert np.allclose(np.asarray(along_x)[inner, inner], np.asarray(along_y)[:, :-1].T[inner, inner], atol=1e-14)
    assert np.allclose(rhs(model((n, n), T), c), rhs(model((n, n)), c), atol=1e-14)


def test_closed_fluxes_are_those_of_each_phase_on_its_solvus():
    heat, mobility, middle, gradient = HeatOfTransport(-0.5, 0.2), PhaseMobility(1.3, 0.7), 1.2, 1e-3
    free_energy = QuarticTwoPhase(1.1, 0.1, 0.8, 0.3, -0.2, middle)
    T = middle + gradient * jnp.array([-0.5, 0.5])
    run = arrays(Thermotransport((2,), free_energy, T, heat_of_transport=heat, mobility=mobility, kappa=0.0))
    matrix, precipitate = (float(flux(run, c)[0][0]) for c in free_energy.stable_compositions(T))
    settings = {"mobility": mobility, "temperature": middle}
    gap = 0.8 - 0.1
    assert np.isclose(matrix_flux(free_energy, heat, gradient, **settings), matrix, rtol=1e-4)
    assert np.isclose(slab_velocity(free_energy, heat, gradient, **settings), (precipitate - matrix) / gap, rtol=1e-4)
    sphere = disc_velocity(free_energy, heat, gradient, dimension=3, far_field="zero_flux", **settings)
    assert np.isclose(sphere, (precipitate + 2 * matrix) / gap, rtol=1e-4)


def test_flat_interface_is_at_rest():
    n = 160
    free_energy = QuarticTwoPhase()
    profile = jax.jit(lambda x: interface_profile(x, free_energy, 1.0))(jnp.arange(n) + 0.5 - n / 2)
    end = advance(Thermotransport((n,), free_energy, 1.0), profile, 0.5, 400)
    # The grid's own profile differs by (dx/δ)²/12 of the gap.
    assert np.abs(end - profile).max() < 0.8 / 12 / 2.5**2


def test_gibbs_thomson_level():
    n, radius = 64, 10.0
    free_energy = QuarticTwoPhase()
    run = Thermotransport((n, n), free_energy, 1.0)

    @jax.jit
    def settle():
        x = jnp.arange(n) + 0.5 - n / 2
        r = jnp.hypot(x[:, None], x[None, :])
        start = interface_profile(radius - r, free_energy, 1.0) + gibbs_thomson(radius, free_energy, 1.0)
        end = run.solve(start, 400.0, dt=0.5).concentration[-1]
        area = indicator(free_energy.phase(end, jnp.array(1.0))).sum()
        return run.chemical_potential(end), 1.28 * gibbs_thomson(jnp.sqrt(area / jnp.pi), free_energy, 1.0)

    potential, settled = settle()
    assert np.ptp(potential) < 0.05 * potential.mean()
    # The grid's γ, and the radius that an area stands for, are off by (dx/δ)²/12 and (δ/r)²/2.
    assert np.isclose(potential.mean(), settled, rtol=0.03)


def test_early_spinodal_growth_rate():
    n, mode, middle = 64, 4, 0.5
    k = 2 * np.pi * mode / n
    grid_k = 2 * np.sin(k / 2)
    c = middle + 1e-6 * np.cos(np.pi * 2 * mode * (np.arange(n) + 0.5) / n)
    end = advance(model((n,), jnp.asarray(1.0), slopes=(0.0, 0.0)), jnp.asarray(c), 0.002, 1000, order=2)
    rate = np.log(np.abs(end - middle).max() / np.abs(c - middle).max()) / 2.0
    exact = spinodal_growth_rate(jnp.array(grid_k), middle, QuarticTwoPhase(), 1.0)
    assert exact > 0.04 and np.isclose(rate, exact, rtol=1e-4)


def test_soret_transient_relaxes_at_its_own_rate():
    n, length, diffusivity = 128, 2.0, 0.7
    mobility = PhaseMobility(diffusivity / 1.28)
    run = Thermotransport((n,), QuarticTwoPhase(), 1.0, mobility=mobility, kappa=0.0, dx=length / n)
    c = 0.1 + 1e-6 * np.cos(np.pi * (np.arange(n) + 0.5) / n)
    relaxation = length**2 / (diffusivity * np.pi**2)
    end = advance(run, jnp.asarray(c), relaxation / 1000, 1000)
    assert np.isclose((np.asarray(end) - 0.1)[0] / (c - 0.1)[0], np.exp(-1), rtol=1e-3)


@pytest.mark.parametrize(("order", "slope"), [(1, 1), (2, 2)])
def test_order_in_time(order, slope):
    run = model()
    c = advance(run, noise(), 0.1, 100)
    ends = [advance(run, c, dt, round(6.4 / dt), order) for dt in (0.4, 0.2, 0.1)]
    fine = advance(run, c, 0.0125 / 2, 1024, order=2)
    errors = [np.abs(end - fine).max() for end in ends]
    orders = np.log2(errors[0] / errors[1]), np.log2(errors[1] / errors[2])
    assert abs(orders[1] - slope) < 0.25, orders


@pytest.mark.parametrize("axis", [0, 1])
def test_a_small_wave_on_a_phase_decays_as_backward_euler_has_it(axis):
    # By default what is taken implicitly is all of M f_cc λ + 2κ M λ², λ the grid's.
    shape, dx, dt, mobility, kappa = (8, 6), 0.5, 3.0, 0.7, 0.9
    n, turns = shape[axis], 0.5 if axis == 0 else 1.0
    wave = np.cos(2 * np.pi * turns * (np.arange(n) + 0.5) / n).reshape(-1, *(1 for _ in range(1 - axis)))
    run = arrays(Thermotransport(shape, QuarticTwoPhase(), 1.0, mobility=PhaseMobility(mobility), kappa=kappa, dx=dx))
    start = 0.1 + 1e-7 * np.broadcast_to(wave, shape)
    after = (np.asarray(step(run, jnp.asarray(start), dt)) - 0.1) / 1e-7
    square = (2 / dx * np.sin(np.pi * turns / n)) ** 2
    assert np.allclose(after, wave / (1 + dt * mobility * square * (1.28 + 2 * kappa * square)), atol=1e-5)


def test_a_single_step_has_the_order_that_it_is_asked_for():
    run, c = model((12,)), noise((12,))
    single, prepared, first = jax.jit(lambda c: (run.step(c, 0.2, order=2), run.stepper(0.2, order=2)(c), run.step(c, 0.2)))(c)
    assert np.allclose(single, prepared, atol=1e-14) and np.abs(single - first).max() > 1e-4


def test_order_in_space():
    @jax.jit
    def rates():
        found = []
        for n in (32, 96, 288):
            x = (jnp.arange(n) + 0.5) / n
            run = Thermotransport((n,), QuarticTwoPhase(matrix_slope=0.1), 1 + 0.2 * x, heat_of_transport=HEAT, dx=1 / n, kappa=0.0)
            found.append(run.rhs(0.5 + 0.1 * jnp.cos(2 * jnp.pi * x)))
        return found

    # Three to one: centres of the coarse cells are centres of fine ones.
    coarse, middle, fine = (np.asarray(rate)[(k - 1) // 2 :: k] for k, rate in zip((1, 3, 9), rates(), strict=True))
    inner = slice(4, -4)
    order = np.log(np.abs(coarse - fine)[inner].max() / np.abs(middle - fine)[inner].max()) / np.log(3)
    assert 1.9 < order < 2.3


def test_steps_converge_to_an_implicit_reference():
    run = model((24,))
    c = advance(run, noise((24,)), 0.1, 40)
    jacobian = jax.jit(jax.jacfwd(run.rhs))
    reference = scipy.integrate.solve_ivp(
        lambda t, c: np.asarray(rhs(run, jnp.asarray(c))),
        (0, 3.0),
        c,
        "Radau",
        rtol=1e-8,
        atol=1e-10,
        jac=lambda t, c: np.asarray(jacobian(c)),
    ).y[:, -1]
    # ETDRK2 at dt = 0.01: (0.01)² of a solution of order one.
    assert np.abs(advance(run, c, 0.01, 300, order=2) - reference).max() < 1e-4


# Slabs: the velocity comes out of the field.


def test_slab_moves_at_the_theoretical_speed(slabs):
    theory = slab_velocity(QuarticTwoPhase(matrix_slope=0.1, precipitate_slope=-0.1), NONE, 1e-3)
    assert theory > 0 and 0.97 < slabs["chemical"] / theory < 1.05


def test_total_law_leaves_a_slab_where_it_is(slabs):
    assert abs(slabs["total law"]) < 0.03 * abs(slabs["chemical"])


def test_hot_seeking_is_a_negative_heat_of_transport(slabs):
    c = jax.device_put(np.full(N, 0.1))
    assert np.asarray(flux(model(heat=HeatOfTransport(-0.2, -0.2), slopes=(0.0, 0.0)), c)[0]).min() > 0
    # Solute that runs to the hot side in the matrix takes from the front of a slab and feeds its back: the slab goes to the cold side.
    assert slabs["thermal"] < 0


def test_equal_heats_cancel_from_the_speed(slabs):
    assert abs(slabs["equal heats"]) < 0.05 * abs(slabs["thermal"])


def test_heat_of_transport_goes_with_one_over_temperature():
    c, T = jax.device_put(np.full(N, 0.1)), bar(gradient=5e-3)
    found = flux(model(temperature=T, slopes=(0.0, 0.0), heat=HeatOfTransport(-0.2, -0.2)), c)[0]
    T = np.asarray(T)
    assert np.allclose(found, 0.2 * 5e-3 * (1 / T[1:] + 1 / T[:-1]) / 2, rtol=1e-12)


def test_thermal_slope_is_taken_on_faces():
    c, T = noise(), bar()
    with_slope, total = model(), model(convention="total")
    slope = np.asarray(thermal_slope(with_slope, c, T))
    one, other = (np.asarray(flux(run, c)[0]) for run in (with_slope, total))
    assert np.allclose(one - other, (slope[1:] + slope[:-1]) / 2 * np.diff(T), atol=1e-14)


def test_a_temperature_ramp_has_no_jump_at_the_wall():
    # A periodic box would see the whole ramp drop between the last cell and the first.
    steep = model(heat=HeatOfTransport(-0.3, -0.3), temperature=bar(gradient=8e-3), slopes=(0.0, 0.0))
    rate = np.asarray(rhs(steep, jax.device_put(np.full(N, 0.1))))
    entering = 0.3 * 8e-3
    assert np.isclose(rate[0], -entering / np.asarray(steep.temperature)[0], rtol=0.02) and np.abs(rate[1:-1]).max() < 0.02 * entering


# Properties, transformations, input.


@given(st.floats(-1, 1), st.floats(-0.3, 0.3), st.sampled_from(["isothermal", "total"]))
def test_a_closed_bar_keeps_its_mass(heat, slope, convention):
    with jax.enable_x64(True):
        c = noise()
        run = model(heat=HeatOfTransport(heat, -heat), slopes=(slope, -slope), convention=convention)
        after, c = np.asarray(step(run, c, 0.2)), np.asarray(c)
        assert abs(after.sum() - c.sum()) < MASS * c.sum()


def test_derivatives_in_the_parameters():
    c = noise((12,))

    def end(heat, slope, kappa, gradient):
        run = Thermotransport(
            (12,),
            QuarticTwoPhase(matrix_slope=slope),
            bar(12, gradient),
            heat_of_transport=HeatOfTransport(heat),
            mobility=PhaseMobility(1.0, 0.8),
            kappa=kappa,
        )
        return 100 * (run.solve(c, 2.0, dt=0.25, save_every=4, order=2).concentration[-1] * jnp.arange(12)).sum()

    at = np.array([-0.5, 0.2, 1.1, 0.02])
    # One program for values and slopes.
    both = jax.jit(jax.value_and_grad(end, argnums=(0, 1, 2, 3)))
    _, slopes = both(*at)
    for slope, h in zip(slopes, 1e-5 * np.eye(4), strict=True):
        difference = (both(*(at + h))[0] - both(*(at - h))[0]) / 2e-5
        assert np.isclose(slope, difference, rtol=1e-6)
    assert abs(float(slopes[0])) > 0.1


def test_vmap_over_parameters_is_a_loop():
    c, gradients = noise(), jnp.array([0.0, 1e-3, 4e-3])
    batched = jax.jit(jax.vmap(lambda g: model(temperature=bar(gradient=g)).step(c, 0.2)))(gradients)
    assert np.allclose(batched, [step(model(temperature=bar(gradient=g)), c, 0.2) for g in np.asarray(gradients)], rtol=1e-12)


def test_a_second_call_does_not_compile():
    traces = []

    @eqx.filter_jit
    def step(stepper, c):
        traces.append(0)
        return stepper(c)

    stepper = eqx.filter_jit(lambda run: run.stepper(0.2))
    for gradient in (1e-3, 2e-3):
        step(stepper(model(temperature=bar(gradient=gradient))), noise())
    assert len(traces) == 1


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_single_precision_stays_single(shape, order):
    c = noise(shape).astype(jnp.float32)
    after = eqx.filter_eval_shape(lambda run, c: run.stepper(0.2, order=order)(c), model(shape), c)
    assert after.dtype == jnp.float32


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature must be positive"):
        model(temperature=with_one(temperature))


@pytest.mark.parametrize("shape", [(N + 1,), (N, 2)])
def test_temperature_must_fit(shape):
    with pytest.raises(ValueError, match="temperature must be a number or have shape"):
        model(temperature=jnp.ones(shape))


def test_concentration_must_fit():
    with pytest.raises(ValueError, match=r"concentration must have shape \(48,\), got \(47,\)"):
        model().step(jnp.ones(47), 0.2)


@pytest.mark.parametrize("shape", [(1,), (4, 4, 4)])
def test_boxes_have_one_or_two_dimensions(shape):
    with pytest.raises(ValueError, match="shape must be"):
        Thermotransport(shape, QuarticTwoPhase(), 1.0)


def test_convention_is_a_word():
    with pytest.raises(ValueError, match="convention must be 'isothermal' or 'total', got 'reduced'"):
        model(convention="reduced")


@pytest.mark.parametrize(("option", "match"), [({"kappa": -1.0}, "kappa"), ({"dx": 0.0}, "dx")])
def test_lengths_and_stiffness_are_positive(option, match):
    with pytest.raises(ValueError, match=f"{match} must be"):
        model(**option)


@pytest.mark.parametrize("dt", [0.0, -0.1, float("nan")])
def test_dt_must_be_positive(dt):
    with pytest.raises(ValueError, match="dt must be positive"):
        model().stepper(dt)


@pytest.mark.parametrize(("order", "dt"), [(1, 50.0), (2, 50.0)])
def test_stabilisation_must_damp_the_explicit_part(order, dt):
    run = model(slopes=(0.0, 0.0))
    with pytest.raises(ValueError, match=r"stabilisation must be large enough for dt, got 0\.1 and 50"):
        run.stepper(dt, order=order, stabilisation=0.1)
    run.stepper(dt, order=order)
    run.stepper(0.1, order=order, stabilisation=0.0)


@pytest.mark.parametrize("order", [1, 2])
def test_a_step_that_is_accepted_does_not_ring_and_one_that_is_refused_would(order):
    run, phase = model(slopes=(0.0, 0.0), temperature=jnp.asarray(1.0)), 0.1
    c = phase + 1e-6 * np.cos(np.pi * 17 * (np.arange(N) + 0.5) / N)
    for dt, stabilisation in ((0.5, 0.0), (50.0, 1.28)):
        step = run.stepper(dt, order=order, stabilisation=stabilisation)
        after = np.asarray(eqx.filter_jit(step)(c))
        assert np.abs(after - phase).max() < np.abs(c - phase).max()


def test_ideal_solution_must_start_between_empty_and_full():
    run = Thermotransport((N,), IdealSolution(), 1000.0, kappa=0.0)
    with pytest.raises(ValueError, match=r"c0 must lie in \(0, 1\)"):
        run.solve(jnp.full(N, 0.5).at[0].set(-0.1), 1.0, dt=1.0)


def test_what_is_known_is_checked_inside_a_trace_too():
    hot, cold = bar(), with_one(-1.0)

    def made(T, c):
        return jax.jit(lambda kappa: Thermotransport((N,), IdealSolution(), T, kappa=kappa).solve(c, 1.0, dt=1.0).concentration)

    assert jax.eval_shape(made(hot, jnp.full(N, 0.5)), 0.0).shape == (2, N)
    with pytest.raises(ValueError, match=r"temperature must be positive everywhere .*, got a minimum of -1\.0"):
        jax.eval_shape(made(cold, jnp.full(N, 0.5)), 0.0)
    with pytest.raises(ValueError, match=r"c0 must lie in \(0, 1\), got values from 1\.5 to 1\.5"):
        jax.eval_shape(made(hot, jnp.full(N, 1.5)), 0.0)


def test_time_must_be_whole_steps():
    with pytest.raises(ValueError, match="t_end must be a positive multiple of dt"):
        model().solve(jnp.full(N, 0.5), 1.0, dt=0.3)


@pytest.mark.parametrize("shape", SHAPES)
def test_uniform_case_is_the_general_case(shape):
    walls = (0.002, -0.001)

    @jax.jit
    def both(c):
        found = []
        for temperature in (jnp.asarray(1.0), jnp.ones(shape)):
            run = model(shape, temperature, heat=HeatOfTransport(0.0), wall_flux=walls)
            found.append((run.rhs(c), jax.jacrev(run.rhs)(c)))
        return found

    (fast, fast_slopes), (general, general_slopes) = both(noise(shape))
    assert np.allclose(fast, general, atol=1e-13)
    assert np.allclose(fast_slopes, general_slopes, atol=1e-12)
