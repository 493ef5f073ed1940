import functools
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from gradatim.physics import chemotaxis as ct
from gradatim.physics.chemotaxis import Box, IndirectChemotaxis, Radial, simplify, system

pytestmark = pytest.mark.usefixtures("double")
MASS = 1e-12  # round-off of thousands of steps
GRIDS = {"line": Box((16,)), "square": Box((8, 6)), "ball": Radial(4, 16)}
LIMITS = {"pes": (0.0, 0.2), "ids": (0.0, 0.0)}
ON_GRIDS = pytest.mark.parametrize("grid", GRIDS)


def ill_prepared(grid):
    rng = np.random.default_rng(0)
    return ct.State(*(jax.device_put(rng.uniform(0, most, grid.shape)) for most in (8.0, 3.0, 1.0)))


def rounds(model, first, dt, n_steps):
    """Sixty times `n_steps` steps, and what must hold after each."""
    stepper = model.stepper(dt)

    def one(state, _):
        after = jax.lax.fori_loop(0, n_steps, lambda _, s: stepper(s), state)
        seen = (model.entropy(after), model.grid.integral(after.cells), after.cells.min(), model.dissipation(after))
        return after, seen

    first = model.init(*first)
    end, seen = jax.lax.scan(one, first, length=60)
    return end, (model.entropy(first), model.grid.integral(first.cells), model.dissipation(first)), seen


@functools.cache
def full(grid):
    """The full system, one program a grid."""
    return jax.jit(lambda eps, tau, chi, dt, n_steps, first: rounds(IndirectChemotaxis(GRIDS[grid], eps, tau, chi), first, dt, n_steps))


@functools.cache
def limit(kind):
    return jax.jit(lambda chi, dt, n_steps, first: rounds(IndirectChemotaxis(GRIDS["line"], *LIMITS[kind], chi), first, dt, n_steps))


# Invariants.


def check(first, seen, dt):
    (before, mass, _), (entropy, masses, least, dissipation) = jax.tree.map(np.asarray, (first, seen))
    values = np.append(before, entropy)
    assert np.diff(values).max() <= 1e-10 * np.abs(values).max()
    assert values[0] > values[-1] and least.min() >= 0 and dissipation.min() >= -1e-10
    # Round-off of what passes the faces, which a long step makes large beside what is there.
    assert np.abs(masses / mass - 1).max() < MASS * (1 + 300 * dt)


@ON_GRIDS
@settings(max_examples=20)
@given(exponent=st.floats(-5, 1), chi=st.floats(0.1, 20), eps=st.floats(-6, 1), tau=st.floats(0, 3))
def test_entropy_falls_in_every_step_whatever_its_length(grid, exponent, chi, eps, tau):
    with jax.enable_x64(True):
        dt = 10.0**exponent
        _, first, seen = full(grid)(10.0**eps, tau, chi, dt, 1, ill_prepared(GRIDS[grid]))
        check(first, seen, dt)


@pytest.mark.parametrize("kind", LIMITS)
@settings(max_examples=20)
@given(exponent=st.floats(-5, 1), chi=st.floats(0.1, 20))
def test_entropy_of_the_limits_falls_too(kind, exponent, chi):
    with jax.enable_x64(True):
        dt = 10.0**exponent
        _, first, seen = limit(kind)(chi, dt, 1, ill_prepared(GRIDS["line"]))
        check(first, seen, dt)


@ON_GRIDS
@pytest.mark.parametrize("chi", [1.0, 2.5])
def test_dissipation_is_the_rate_at_which_entropy_falls(grid, chi):
    def rate(dt):
        _, (before, _, dissipation), (entropy, *_) = full(grid)(0.05, 0.2, chi, dt, 1, ill_prepared(GRIDS[grid]))
        return float(before - entropy[0]) / dt, float(dissipation)

    coarse, fine = (rate(dt)[0] for dt in (2e-7, 1e-7))
    assert 2 * fine - coarse == pytest.approx(rate(1e-7)[1], rel=2e-3)


@ON_GRIDS
def test_mass_is_kept_over_long_runs(grid):
    end, (_, mass, _), (_, masses, *_) = full(grid)(0.01, 0.2, 1.0, 1e-3, 300, ill_prepared(GRIDS[grid]))
    assert np.abs(np.asarray(masses) / float(mass) - 1).max() < MASS and np.asarray(end.cells).min() > 0


@ON_GRIDS
def test_uniform_states_stay(grid):
    uniform = ct.State(*(jax.device_put(np.full(GRIDS[grid].shape, 3.0)) for _ in range(3)))
    end, _, (*_, dissipation) = full(grid)(0.01, 0.2, 1.0, 0.1, 1, uniform)
    assert all(np.abs(np.asarray(field) - 3).max() < 1e-11 for field in end) and np.abs(dissipation).max() < 1e-12


@pytest.mark.parametrize("chi", [-2.0, 0.0])
def test_repulsion_spreads(chi):
    end, *_ = full("line")(0.01, 0.2, chi, 1e-2, 4, ill_prepared(GRIDS["line"]))
    assert np.ptp(np.asarray(end.cells)) < 1e-4 and np.asarray(end.cells).min() >= 0
    assert IndirectChemotaxis(GRIDS["line"], 0.01, 0.2, chi).critical_mass() == jnp.inf


# References.


@functools.cache
def at_wall(kind, cells):
    grid = Box((cells,))
    model = IndirectChemotaxis(grid, *LIMITS[kind])

    @jax.jit
    def run(dt, n_steps):
        stepper = model.stepper(dt)

        def one(state, _):
            after = jax.lax.fori_loop(0, n_steps, lambda _, s: stepper(s), state)
            return after, (9 * after.cells[0] - after.cells[1]) / 8  # the even parabola through the first two cells

        first = model.init(5 * (1 + 0.8 * jnp.cos(jnp.pi * grid.centres[0])))
        return jax.lax.scan(one, first, length=4)[1][jnp.array([0, 1, 3])]

    return run


@pytest.mark.parametrize(("kind", "exact"), [("pes", (7.6999031, 6.7729866, 5.7611268)), ("ids", (8.3256744, 7.5393309, 6.4417349))])
def test_limits_reach_the_spectral_reference(kind, exact):
    cases = (20, 1e-3, 50), (20, 5e-4, 100), (40, 1e-3, 50)
    coarse, halved, finer = (np.asarray(at_wall(kind, cells)(dt, n_steps)) for cells, dt, n_steps in cases)
    # First order in time and second in space, both extrapolated: what is left is of the order of their squares.
    np.testing.assert_allclose(2 * halved - coarse + 4 / 3 * (finer - coarse), exact, rtol=2e-4)
    np.testing.assert_allclose(finer, exact, rtol=2e-2)


def test_full_system_reaches_an_implicit_reference():
    grid, eps, tau = GRIDS["line"], 0.03, 0.2
    first = ill_prepared(grid)

    @jax.jit
    def rate(y):
        n, c, w = y.reshape(3, -1)
        laplacian = grid.laplacian
        return jnp.concatenate([ct.scharfetter_gummel(grid, n, c), (laplacian(c) - c + w) / eps, (tau * laplacian(w) - w + n) / eps])

    reference = solve_ivp(lambda t, y: np.asarray(rate(y)), (0, 0.1), np.concatenate(first), "BDF", rtol=1e-8, atol=1e-9)
    exact = reference.y[:, -1].reshape(3, -1)
    ends = [full("line")(eps, tau, 1.0, 0.1 / (60 * n), n, first)[0] for n in (20, 40)]
    for coarse, fine, field in zip(*ends, exact, strict=True):
        errors = [np.abs(np.asarray(end) - field).max() for end in (coarse, fine)]
        assert 1.8 < errors[0] / errors[1] < 2.2 and errors[1] < 5e-3 * np.abs(field).max()


def test_another_time_grid_hides_the_distance_from_the_limit():
    """Of order ε on the same steps; beside longer ones, what is seen is their error, of order dt."""
    first = ill_prepared(GRIDS["line"])
    full_end = np.asarray(full("line")(1e-3, 0.2, 1.0, 2.5e-4, 8, first)[0].cells)
    same, other = (np.asarray(limit("pes")(1.0, 2.5e-4 * k, 8 // k, first)[0].cells) for k in (1, 8))
    assert 0 < np.abs(full_end - same).max() < 0.1 * np.abs(full_end - other).max()


def test_data_of_x_alone_make_the_square_a_line():
    line, square = Box((24,)), Box((24, 5), (1.0, 0.3))
    fields = [5 * (1 + 0.8 * np.cos(np.pi * line.centres[0])), 2 + np.cos(2 * np.pi * line.centres[0]), np.ones(24)]

    def ends(grid):
        first = ct.State(*(jax.device_put(np.broadcast_to(f.reshape(-1, *(1 for _ in grid.shape[1:])), grid.shape)) for f in fields))

        def run(kind):
            stepper = IndirectChemotaxis(grid, *kind).stepper(1e-3)
            return jax.lax.fori_loop(0, 50, lambda _, s: stepper(s), first)

        return [run(kind) for kind in ((0.05, 0.2), *LIMITS.values())]

    for on_line, on_square in zip(*(jax.jit(ends, static_argnums=0)(grid) for grid in (line, square)), strict=True):
        assert all(np.abs(np.asarray(a)[:, None] - np.asarray(b)).max() < 1e-8 for a, b in zip(on_line, on_square, strict=True))


@functools.partial(jax.jit, static_argnums=0)
def elliptic_end(grid, cells):
    model = IndirectChemotaxis(grid, 0.0, 0.2)
    stepper = model.stepper(4e-5)
    return jax.lax.fori_loop(0, 100, lambda _, s: stepper(s), model.init(cells)).cells


def test_equal_shells_in_one_dimension_are_the_box():
    line, shells = Box((24,)), Radial(1, 24, grading=1.0)
    cells = 5 * (1 + 0.8 * np.cos(np.pi * line.centres[0]))
    assert np.abs(np.asarray(elliptic_end(line, cells)) - np.asarray(elliptic_end(shells, cells))).max() < 1e-10


def test_a_disc_of_shells_is_the_middle_of_a_square():
    # The Gaussian is far from the walls: what is left is the grids' error, of second order.
    def density(r2):
        return jnp.asarray(6 * np.exp(-r2 / (2 * 0.1**2)) / (2 * np.pi * 0.1**2))

    shells = Radial(2, 80, grading=1.0)
    fine = np.asarray(elliptic_end(shells, density(shells.centres[0] ** 2)))
    errors = []
    for n in (16, 32):
        # A quarter of the square, walls being mirrors.
        square = Box((n, n))
        r = np.hypot(square.centres[0][:, None], square.centres[0][None, :])
        found, near = np.asarray(elliptic_end(square, density(r**2))), r < 0.4
        errors.append(np.abs(found[near] - np.interp(r[near], shells.centres[0], fine)).max() / fine.max())
    assert errors[1] < 0.02 and errors[0] / errors[1] > 2.5


# Small waves.


@pytest.mark.parametrize("eps", [0.0, 0.001, 0.01])
def test_a_wave_grows_at_the_eigenvalue(eps):
    rate = float(growth_of_the_first_wave(eps))
    measured = limit_rate if eps == 0 else functools.partial(full_rate, eps)
    # Of first order in dt: two steps are extrapolated.
    assert 2 * measured(1e-4) - measured(2e-4) == pytest.approx(rate, rel=1e-3)


WAVES = Box((32,))


@functools.partial(jax.jit, static_argnums=0)
def growth_of_the_first_wave(eps):
    return ct.growth_rate(40.0, WAVES.eigenvalues(np.dtype(float))[1], eps=eps, tau=0.2)


def rate_of(model, dt):
    wave = jnp.cos(jnp.pi * WAVES.centres[0])
    stepper = model.stepper(dt)
    advance = lambda state, _: (jax.lax.fori_loop(0, 400, lambda _, s: stepper(s), state),) * 2  # noqa: E731
    _, states = jax.lax.scan(advance, model.init(40 * (1 + 1e-6 * wave)), length=2)
    early, late = (states.cells * wave[None]).mean(1)
    return jnp.log(late / early) / (400 * dt)


@jax.jit
def full_rate(eps, dt):
    return rate_of(IndirectChemotaxis(WAVES, eps, 0.2), dt)


@jax.jit
def limit_rate(dt):
    return rate_of(IndirectChemotaxis(WAVES, 0.0, 0.2), dt)


# Transformations.


def line_end(amplitude, tau, eps):
    grid = Box((12,))
    model = IndirectChemotaxis(grid, eps, tau)
    first = model.init(5 * (1 + amplitude * jnp.cos(jnp.pi * grid.centres[0])), jnp.ones(12), 2 * jnp.ones(12))
    return model.solve(first, ct.layer_times(0.1, eps, n_layer=12, n_after=12), every=4).cells[-1]


def test_derivatives_agree_with_differences():
    x = np.arange(12.0)
    # One program for values and slopes.
    both = jax.jit(jax.value_and_grad(lambda p: (x * line_end(*p)).mean()))
    point = np.array([0.6, 0.3, 0.05])
    _, found = both(point)
    differences = [(both(point + h)[0] - both(point - h)[0]) / 2e-5 for h in 1e-5 * np.eye(3)]
    assert np.allclose(found, differences, rtol=1e-6) and np.abs(found).min() > 1e-3


def test_snapshots_carry_their_times():
    grid = Box((8,))
    model, times = IndirectChemotaxis(grid, 0.1, 0.2), np.linspace(0.0, 0.4, 5)

    @jax.jit
    def both(cells, times):
        first = model.init(cells)
        return model.evolve(first, dt=0.1, n_steps=4, every=2), model.solve(first, times, every=2)

    for found in both(5 + 4 * np.cos(np.pi * grid.centres[0]), times):
        assert np.allclose(found.times, times[::2]) and found.cells.shape == (3, 8)
    even, graded = both(5 + 4 * np.cos(np.pi * grid.centres[0]), times)
    assert all(np.allclose(a, b, atol=1e-12) for a, b in zip(even.states, graded.states, strict=True))


@pytest.mark.parametrize(("limit", "tau"), [("pes", 0.2), ("ids", 0.0)])
def test_limits_keep_the_sensitivity(limit, tau):
    simple = simplify(IndirectChemotaxis(Box((8,)), 0.1, 0.2, 3.0), limit)
    assert (simple.limit, float(simple.eps), float(simple.chi)) == (limit, 0.0, 3.0) and np.isclose(simple.tau, tau)


def test_vmap_over_parameters_is_a_loop():
    taus, epss = np.array([0.0, 0.2, 1.0]), np.array([0.1, 0.01, 1e-6])
    run = jax.jit(functools.partial(line_end, 0.5))
    batch = jax.jit(jax.vmap(functools.partial(line_end, 0.5)))(taus, epss)
    assert np.allclose(batch, [run(*pair) for pair in zip(taus, epss, strict=True)], rtol=1e-10)


def test_known_cells_are_checked_inside_a_trace_too():
    good, bad = (jax.device_put(np.full(8, sign)) for sign in (1.0, -1.0))
    run = lambda cells: jax.jit(lambda eps: IndirectChemotaxis(Box((8,)), eps, 0.2).init(cells).signal)(0.1)  # noqa: E731
    assert np.allclose(run(good), 1)
    with pytest.raises(ValueError, match="cells must be finite"):
        run(bad)


def test_another_parameter_does_not_compile_again():
    traces = []

    @eqx.filter_jit
    def run(model, state):
        traces.append(0)
        return model.stepper(1e-3)(state).cells

    for eps, tau in ((0.1, 0.2), (0.01, 0.5)):
        model = IndirectChemotaxis(GRIDS["line"], eps, tau)
        run(model, model.init(*ill_prepared(GRIDS["line"])))
    assert len(traces) == 1


def test_single_precision_stays_single_and_warns_once_of_a_fast_signal():
    system._warn_of_single_precision.cache_clear()
    grid = GRIDS["line"]
    cells = jnp.asarray(np.append(2, np.ones(15)), jnp.float32)
    model = IndirectChemotaxis(grid, 1e-5, 0.2)
    with pytest.warns(UserWarning, match="float32 with eps = 1e-05, below 1e-4"):
        first = model.init(cells)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.init(cells)
        IndirectChemotaxis(grid, 1e-3, 0.2).init(cells)
    found = eqx.filter_eval_shape(functools.partial(model.evolve, dt=1e-3, n_steps=4), first)
    assert all(x.dtype == jnp.float32 for x in (*found.states, found.times, found.mass, found.entropy))
    for one in (model, simplify(model, "pes")):
        after = eqx.filter_eval_shape(lambda one, first: one.stepper(1e-3)(first), one, first)
        assert all(x.dtype == jnp.float32 for x in after)


# Words and numbers that are not allowed.

GOOD = IndirectChemotaxis(Box((8,)), 0.1, 0.2)


def one_other(value):
    return jax.device_put(np.insert(np.ones(7), 2, value))


@functools.cache
def start():
    return GOOD.init(jnp.ones(8))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: IndirectChemotaxis(Box((8,)), -0.1, 0.2), "eps must be finite and at least 0, got -0.1"),
        (lambda: IndirectChemotaxis(Box((8,)), 0.1, -0.2), "tau must be finite and at least 0, got -0.2"),
        (lambda: IndirectChemotaxis(Box((8,)), 0.1, 0.2, float("nan")), "chi must be finite, got nan"),
        (lambda: GOOD.init(one_other(-0.5)), "cells must be finite and at least 0 everywhere, got values from -0.5 to 1"),
        (lambda: GOOD.init(one_other(np.nan)), "cells must be finite"),
        (lambda: GOOD.init(jnp.ones(7)), r"cells must have the grid's shape \(8,\), got \(7,\)"),
        (lambda: GOOD.init(jnp.ones(8), jnp.ones((8, 1))), r"attractant must have the grid's shape \(8,\), got \(8, 1\)"),
        (lambda: GOOD.init(jnp.ones(8), signal=jnp.ones(9)), r"signal must have the grid's shape \(8,\), got \(9,\)"),
        (lambda: IndirectChemotaxis(Box((9,)), 0.1, 0.2).evolve(start(), dt=0.1, n_steps=1), r"cells must have the grid's shape \(9,\)"),
        (lambda: simplify(IndirectChemotaxis(Box((8,)), 0.1, 0.0), "pes"), "tau must be positive for the limit 'pes', got 0.0"),
        (lambda: simplify(GOOD, "none"), "limit must be 'pes' or 'ids', got 'none'"),
        (lambda: GOOD.stepper(0.0), "dt must be positive, got 0.0"),
        (lambda: GOOD.evolve(start(), dt=-1.0, n_steps=1), "dt must be positive, got -1.0"),
        (lambda: GOOD.evolve(start(), dt=0.1, n_steps=4, every=3), "every must divide n_steps, got 3 and 4"),
        (lambda: GOOD.solve(start(), jnp.array([0.0, 0.2, 0.1])), "times must grow, so that dt is positive, got a shortest dt of -0.1"),
        (lambda: GOOD.solve(start(), jnp.linspace(0, 1, 5), every=3), "every must divide the number of steps, got 3 and 4"),
        (lambda: GOOD.solve_adaptively(start(), jnp.array([0.0, 0.0])), "times must be at least two that grow"),
        (lambda: ct.layer_times(0.0, 0.1), "t_end must be positive, got 0.0"),
        (lambda: ct.layer_times(1.0, -0.1), "eps must be positive, got -0.1"),
        (lambda: ct.layer_times(1.0, 0.1, n_layer=0), "n_layer must be at least 1, got 0"),
        (lambda: ct.Adaptivity(calm=0.1), "calm must be positive and below brisk, got 0.1 and 0.05"),
        (lambda: ct.Adaptivity(first_dt=1.0), "first_dt must be positive, between least_dt and largest_dt"),
        (lambda: ct.Adaptivity(max_steps=0), "max_steps must be at least 1"),
    ],
)
def test_what_is_not_allowed_is_said(call, match):
    with pytest.raises(ValueError, match=match):
        call()
