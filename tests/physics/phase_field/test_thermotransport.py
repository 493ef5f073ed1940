import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from gradatim.physics.phase_field import (
    ArrheniusMobility,
    HeatOfTransport,
    IdealSolution,
    PhaseMobility,
    QuarticTwoPhase,
    Thermotransport,
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
HEAT, NONE = HeatOfTransport(-0.3, 0.2), HeatOfTransport(0.0)


def bar(n=N, gradient=2e-3):
    return 1 + gradient * (jnp.arange(n) + 0.5 - n / 2)


def noise(key, shape=(N,), amplitude=0.05):
    return 0.5 + amplitude * jax.random.normal(key, shape)


def model(shape=(N,), temperature=None, slopes=(0.1, -0.2), heat=HEAT, **options):
    temperature = bar(shape[0]).reshape(-1, *(1 for _ in shape[1:])) if temperature is None else temperature
    free_energy = QuarticTwoPhase(matrix_slope=slopes[0], precipitate_slope=slopes[1])
    return Thermotransport(shape, free_energy, temperature, heat_of_transport=heat, **options)


def slab(gradient, width=60, n=256, *, slopes=(0.1, -0.1), heat=NONE, t_end=2000.0, **options):
    """Speed of a slab between walls that pass the matrix's own flux, by a line through the second half of its way."""
    x, T = jnp.arange(n) + 0.5, bar(n, gradient)
    free_energy = QuarticTwoPhase(matrix_slope=slopes[0], precipitate_slope=slopes[1])
    flux = matrix_flux(free_energy, heat, gradient, **options)
    run = Thermotransport((n,), free_energy, T, heat_of_transport=heat, wall_flux=(flux, flux), **options)
    a, b = free_energy.stable_compositions(T)
    shape = (jnp.tanh((x - n / 2 + width / 2) / 2.5) - jnp.tanh((x - n / 2 - width / 2) / 2.5)) / 2
    solution = eqx.filter_jit(run.solve)(a + (b - a) * shape, t_end, dt=0.25, save_every=round(t_end / 0.25 / 20))
    middle = jax.vmap(lambda c: interface_positions(free_energy.phase(c, T), x).mean())(solution.concentration)
    return np.polyfit(solution.time[10:], middle[10:], 1)[0]


# Oracles.


@pytest.mark.parametrize("shape", [(N,), (24, 18)])
@pytest.mark.parametrize("order", [1, 2])
def test_mass_is_kept(shape, order, getkey):
    c = noise(getkey(), shape)
    end = model(shape).solve(c, 20.0, dt=0.2, order=order).concentration[-1]
    assert abs(end.sum() / c.sum() - 1) < MASS and jnp.abs(end - c).max() > 0.01


def test_wall_flux_is_what_enters(getkey):
    c = noise(getkey())
    end = model(wall_flux=(0.002, 0.001)).solve(c, 4.0, dt=0.2).concentration[-1]
    assert jnp.allclose(end.sum() - c.sum(), 4.0 * 0.001, rtol=1e-9)


@pytest.mark.parametrize("shape", [(N,), (24, 18)])
@pytest.mark.parametrize("order", [1, 2])
def test_isothermal_energy_never_rises(shape, order, getkey):
    run = model(shape, jnp.asarray(1.0))
    states = run.solve(noise(getkey(), shape), 40.0, dt=0.2, save_every=1, order=order).concentration
    assert jnp.diff(jax.vmap(run.energy)(states)).max() <= 1e-12 * abs(run.energy(states[0]))


@pytest.mark.parametrize("shape", [(N,), (24, 18)])
def test_centre_of_mass_moves_by_the_integral_of_the_flux(shape, getkey):
    run, c = model(shape), noise(getkey(), shape)
    x = (jnp.arange(shape[0]) + 0.5).reshape(-1, *(1 for _ in shape[1:]))
    assert jnp.allclose((x * run.rhs(c)).sum(), run.flux(c)[0].sum(), rtol=1e-10)


def test_rhs_is_minus_the_gradient_of_the_energy_under_the_laplacian(getkey):
    run, c = model((24, 18), jnp.asarray(1.0)), noise(getkey(), (24, 18))
    assert jnp.allclose(run.chemical_potential(c), jax.grad(run.energy)(c), atol=1e-12)


@pytest.mark.parametrize(("heat", "ratio"), [(-100e3, 8.223452), (-75e3, 4.856133)])
def test_dilute_soret_ratio(heat, ratio):
    c = soret_steady_state(jnp.array([973.15, 1173.15]), heat, 1e-9)
    assert jnp.allclose(c[1] / c[0], ratio, rtol=1e-6)


def test_dilute_soret_profile_in_a_closed_bar():
    n = 2000
    T = 973.15 + 100 * (jnp.arange(n) + 0.5) / n
    c = soret_steady_state(T, -100e3, 1e-9) / 1e-9
    ends = jnp.interp(jnp.array([973.15, 1023.15, 1073.15]), T, c)
    assert jnp.allclose(ends, jnp.array([0.522673, 0.956163, 1.653452]), rtol=1e-3)


def test_ideal_solution_settles_into_the_soret_state():
    n, length = 64, 1e-3
    T = 973.15 + 100 * (jnp.arange(n) + 0.5) / n
    mobility = ArrheniusMobility(2e-6, 84.1e3)
    run = Thermotransport((n,), IdealSolution(), T, heat_of_transport=HeatOfTransport(-100e3), mobility=mobility, kappa=0.0, dx=length / n)
    relaxation = length**2 / np.pi**2 / (2e-6 * np.exp(-84.1e3 / (8.314462618 * 1023.15)))
    end = run.solve(jnp.full(n, 0.2), 30 * relaxation, dt=relaxation / 40).concentration[-1]
    exact = soret_steady_state(T, -100e3, 0.2)
    assert jnp.abs(end / exact - 1).max() < 1e-6
    # On faces the mean of 1/T makes the state at rest exact, whatever the grid.
    assert jnp.abs(run.flux(exact)[0]).max() < 1e-12 * jnp.abs(run.flux(jnp.full(n, 0.2))[0]).max()


def test_conventions_are_one_law_in_two_notations(getkey):
    heat = HeatOfTransport(-0.3, 0.2)

    def total(c, T, free_energy):
        return heat(c, T, free_energy) - T * free_energy.thermal_slope(c, T)

    c, T = noise(getkey()), bar()
    a = model(heat=heat).flux(c)[0]
    b = model(heat=total, convention="total").flux(c)[0]
    # Q* and ∂²f/∂c∂T are averaged to faces apart; mean(T g) mean(1/T) = mean(g) up to the squares of differences across a cell.
    across = (
        jnp.abs(jnp.diff(T)).max() * jnp.abs(jnp.diff(QuarticTwoPhase(matrix_slope=0.1, precipitate_slope=-0.2).thermal_slope(c, T))).max()
    )
    assert jnp.abs(a - b).max() <= across * jnp.abs(jnp.diff(T)).max() / T.min()
    uniform = jnp.full(N, 0.3)
    difference = model(heat=heat).flux(uniform)[0] - model(heat=total, convention="total").flux(uniform)[0]
    assert jnp.abs(difference).max() < 1e-5 * jnp.abs(model(heat=heat).flux(uniform)[0]).max()


@pytest.mark.parametrize("convention", ["isothermal", "total"])
def test_without_slopes_and_heat_temperature_drops_out_bit_for_bit(convention, getkey):
    step = jax.jit(lambda c, T: model(temperature=T, slopes=(0.0, 0.0), heat=HeatOfTransport(0.0), convention=convention).step(c, 0.2))
    c = noise(getkey())
    assert (step(c, bar()) == step(c, jnp.ones(N))).all()


@pytest.mark.parametrize("convention", ["isothermal", "total"])
@pytest.mark.parametrize("shape", [(N,), (24, 18)])
def test_mirror(convention, shape, getkey):
    c = noise(getkey(), shape)
    hot_right, hot_left = (
        model(shape, (1 + g * (bar(shape[0]) - 1)).reshape(-1, *(1 for _ in shape[1:])), convention=convention) for g in (1, -1)
    )
    assert jnp.allclose(hot_right.step(c, 0.2), jnp.flip(hot_left.step(jnp.flip(c, 0), 0.2), 0), atol=1e-14)


def test_temperature_along_y_is_the_same_law(getkey):
    n = 32
    c, T = noise(getkey(), (n, n)), jnp.broadcast_to(bar(n)[:, None], (n, n))
    along_x, along_y = model((n, n), T).flux(c)[0], model((n, n), T.T).flux(c.T)[1]
    # Walls and periodic edges change places; away from them nothing does.
    inner = slice(2, -2)
    assert jnp.allclose(along_x[inner, inner], along_y[:, :-1].T[inner, inner], atol=1e-14)
    assert jnp.allclose(model((n, n), T).rhs(c), model((n, n)).rhs(c), atol=1e-14)


def test_flat_interface_is_at_rest():
    n = 160
    free_energy = QuarticTwoPhase()
    run = Thermotransport((n,), free_energy, 1.0)
    profile = interface_profile(jnp.arange(n) + 0.5 - n / 2, free_energy, 1.0)
    end = run.solve(profile, 200.0, dt=0.5).concentration[-1]
    # The grid's own profile differs by (dx/δ)²/12 of the gap.
    assert jnp.abs(end - profile).max() < 0.8 / 12 / 2.5**2


def test_gibbs_thomson_level():
    n, radius = 64, 10.0
    free_energy = QuarticTwoPhase()
    x = jnp.arange(n) + 0.5 - n / 2
    r = jnp.hypot(x[:, None], x[None, :])
    start = interface_profile(radius - r, free_energy, 1.0) + gibbs_thomson(radius, free_energy, 1.0)
    run = Thermotransport((n, n), free_energy, 1.0)
    end = eqx.filter_jit(run.solve)(start, 400.0, dt=0.5).concentration[-1]
    potential = run.chemical_potential(end)
    assert jnp.ptp(potential) < 0.05 * potential.mean()
    area = indicator(free_energy.phase(end, jnp.array(1.0))).sum()
    settled = 1.28 * gibbs_thomson(jnp.sqrt(area / jnp.pi), free_energy, 1.0)
    # The grid's γ, and the radius that an area stands for, are off by (dx/δ)²/12 and (δ/r)²/2.
    assert jnp.allclose(potential.mean(), settled, rtol=0.03)


def test_early_spinodal_growth_rate():
    n, mode, middle = 64, 4, 0.5
    k = 2 * np.pi * mode / n
    grid_k = 2 * np.sin(k / 2)
    c = middle + 1e-6 * jnp.cos(np.pi * 2 * mode * (jnp.arange(n) + 0.5) / n)
    end = model((n,), jnp.asarray(1.0), slopes=(0.0, 0.0)).solve(c, 2.0, dt=0.002, order=2).concentration[-1]
    rate = jnp.log(jnp.abs(end - middle).max() / jnp.abs(c - middle).max()) / 2.0
    exact = spinodal_growth_rate(jnp.array(grid_k), middle, QuarticTwoPhase(), 1.0)
    assert exact > 0.04 and jnp.allclose(rate, exact, rtol=1e-4)


def test_soret_transient_relaxes_at_its_own_rate():
    n, length, diffusivity = 128, 2.0, 0.7
    free_energy = QuarticTwoPhase()
    mobility = PhaseMobility(diffusivity / 1.28)
    run = Thermotransport((n,), free_energy, 1.0, mobility=mobility, kappa=0.0, dx=length / n)
    x = (jnp.arange(n) + 0.5) * length / n
    c = 0.1 + 1e-6 * jnp.cos(np.pi * x / length)
    relaxation = length**2 / (diffusivity * np.pi**2)
    end = run.solve(c, relaxation, dt=relaxation / 1000).concentration[-1]
    assert jnp.allclose((end - 0.1)[0] / (c - 0.1)[0], np.exp(-1), rtol=1e-3)


@pytest.mark.parametrize(("order", "slope"), [(1, 1), (2, 2)])
def test_order_in_time(order, slope, getkey):
    c = model().solve(noise(getkey()), 10.0, dt=0.1).concentration[-1]
    ends = [model().solve(c, 6.4, dt=dt, order=order).concentration[-1] for dt in (0.0125, 0.4, 0.2, 0.1)]
    fine = model().solve(c, 6.4, dt=0.0125 / 2, order=2).concentration[-1]
    errors = [jnp.abs(end - fine).max() for end in ends[1:]]
    orders = np.log2(errors[0] / errors[1]), np.log2(errors[1] / errors[2])
    assert abs(orders[1] - slope) < 0.25, orders


def test_order_in_space():
    def rhs(n):
        x = (jnp.arange(n) + 0.5) / n
        run = Thermotransport(
            (n,), QuarticTwoPhase(matrix_slope=0.1), 1 + 0.2 * x, heat_of_transport=HeatOfTransport(-0.3, 0.2), dx=1 / n, kappa=0.0
        )
        return run.rhs(0.5 + 0.1 * jnp.cos(2 * jnp.pi * x))

    # Three to one: centres of the coarse cells are centres of fine ones.
    coarse, middle, fine = rhs(32), rhs(96)[1::3], rhs(288)[4::9]
    inner = slice(4, -4)
    order = jnp.log(jnp.abs(coarse - fine)[inner].max() / jnp.abs(middle - fine)[inner].max()) / jnp.log(3)
    assert 1.9 < order < 2.3


def test_steps_converge_to_an_implicit_reference(getkey):
    run = model((24,))
    c = run.solve(noise(getkey(), (24,)), 4.0, dt=0.1).concentration[-1]
    term = diffrax.ODETerm(lambda t, c, args: run.rhs(c))
    control = diffrax.PIDController(rtol=1e-8, atol=1e-10)
    reference = diffrax.diffeqsolve(term, diffrax.Kvaerno5(), 0.0, 3.0, 0.01, c, stepsize_controller=control).ys[0]
    # ETDRK2 at dt = 0.01: (0.01)² of a solution of order one.
    assert jnp.abs(run.solve(c, 3.0, dt=0.01, order=2).concentration[-1] - reference).max() < 1e-4


# Slabs: the velocity comes out of the field.


def test_slab_moves_at_the_theoretical_speed():
    theory = slab_velocity(QuarticTwoPhase(matrix_slope=0.1, precipitate_slope=-0.1), HeatOfTransport(0.0), 1e-3)
    assert theory > 0 and 0.97 < slab(1e-3) / theory < 1.05


def test_total_law_leaves_a_slab_where_it_is():
    assert abs(slab(1e-3, convention="total")) < 0.03 * abs(slab(1e-3))


def test_hot_seeking_is_a_negative_heat_of_transport():
    c = jnp.full(N, 0.1)
    assert model(heat=HeatOfTransport(-0.2), slopes=(0.0, 0.0)).flux(c)[0].min() > 0
    # Solute that runs to the hot side in the matrix takes from the front of a slab and feeds its back: the slab goes to the cold side.
    assert slab(1e-3, slopes=(0.0, 0.0), heat=HeatOfTransport(-0.2, 0.0)) < 0


def test_equal_heats_cancel_from_the_speed():
    moving, still = (slab(1e-3, slopes=(0.0, 0.0), heat=HeatOfTransport(-0.2, b)) for b in (0.0, -0.2))
    assert abs(still) < 0.05 * abs(moving)


def test_heat_of_transport_goes_with_one_over_temperature():
    c, T = jnp.full(N, 0.1), bar(gradient=5e-3)
    flux = model(temperature=T, slopes=(0.0, 0.0), heat=HeatOfTransport(-0.2)).flux(c)[0]
    assert jnp.allclose(flux, 0.2 * 5e-3 * (1 / T[1:] + 1 / T[:-1]) / 2, rtol=1e-12)


def test_thermal_slope_is_taken_on_faces(getkey):
    c, T = noise(getkey()), bar()
    with_slope, total = model(), model(convention="total")
    slope = with_slope.free_energy.thermal_slope(c, T)
    assert jnp.allclose(with_slope.flux(c)[0] - total.flux(c)[0], (slope[1:] + slope[:-1]) / 2 * jnp.diff(T), atol=1e-14)


def test_a_temperature_ramp_has_no_jump_at_the_wall(getkey):
    # A periodic box would see the whole ramp drop between the last cell and the first.
    steep = model(heat=HeatOfTransport(-0.3), temperature=bar(gradient=8e-3), slopes=(0.0, 0.0))
    rate = steep.rhs(jnp.full(N, 0.1))
    flux = 0.3 * 8e-3
    assert jnp.allclose(rate[0], -flux / steep.temperature[0], rtol=0.02) and jnp.abs(rate[1:-1]).max() < 0.02 * flux


# Properties, transformations, input.


@given(st.floats(-1, 1), st.floats(-0.3, 0.3), st.sampled_from(["isothermal", "total"]))
def test_a_closed_bar_keeps_its_mass(heat, slope, convention):
    with jax.enable_x64(True):
        c = noise(jax.random.key(0))
        run = model(heat=HeatOfTransport(heat, -heat), slopes=(slope, -slope), convention=convention)
        assert abs(run.step(c, 0.3).sum() - c.sum()) < MASS * c.sum()


def test_derivatives_in_the_parameters(getkey):
    c = noise(getkey(), (12,))

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

    check_grads(end, (-0.5, 0.2, 1.1, 0.02), order=1, modes=["rev"])
    assert abs(jax.grad(end)(-0.5, 0.2, 1.1, 0.02)) > 0.1


def test_vmap_over_parameters_is_a_loop(getkey):
    c, gradients = noise(getkey()), jnp.array([0.0, 1e-3, 4e-3])
    step = lambda g: model(temperature=bar(gradient=g)).step(c, 0.2)  # noqa: E731
    assert jnp.allclose(jax.vmap(step)(gradients), jnp.stack([step(g) for g in gradients]), rtol=1e-12)


def test_a_second_call_does_not_compile(getkey):
    traces = []

    @eqx.filter_jit
    def step(stepper, c):
        traces.append(0)
        return stepper(c)

    for gradient in (1e-3, 2e-3):
        step(model(temperature=bar(gradient=gradient)).stepper(0.2), noise(getkey()))
    assert len(traces) == 1


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", [(N,), (24, 18)])
def test_single_precision_stays_single(shape, order, getkey):
    c = noise(getkey(), shape).astype(jnp.float32)
    assert model(shape).stepper(0.2, order=order)(c).dtype == jnp.float32


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature must be positive"):
        model(temperature=bar().at[3].set(temperature))


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
    c = phase + 1e-6 * jnp.cos(jnp.pi * 17 * (jnp.arange(N) + 0.5) / N)
    for dt, stabilisation in ((0.5, 0.0), (50.0, 1.28)):
        step = run.stepper(dt, order=order, stabilisation=stabilisation)
        assert jnp.abs(step(c) - phase).max() < jnp.abs(c - phase).max()


def test_ideal_solution_must_start_between_empty_and_full():
    run = Thermotransport((N,), IdealSolution(), 1000.0, kappa=0.0)
    with pytest.raises(ValueError, match=r"c0 must lie in \(0, 1\)"):
        run.solve(jnp.full(N, 0.5).at[0].set(-0.1), 1.0, dt=1.0)


def test_time_must_be_whole_steps():
    with pytest.raises(ValueError, match="t_end must be a positive multiple of dt"):
        model().solve(jnp.full(N, 0.5), 1.0, dt=0.3)


@pytest.mark.parametrize("shape", [(N,), (24, 18)])
def test_uniform_case_is_the_general_case(shape, getkey):
    c, walls = noise(getkey(), shape), (0.002, -0.001)
    fast = model(shape, jnp.asarray(1.0), heat=NONE, wall_flux=walls)
    general = model(shape, jnp.ones(shape), heat=NONE, wall_flux=walls)
    assert jnp.allclose(fast.rhs(c), general.rhs(c), atol=1e-13)
    assert jnp.allclose(jax.jacrev(fast.rhs)(c), jax.jacrev(general.rhs)(c), atol=1e-12)
