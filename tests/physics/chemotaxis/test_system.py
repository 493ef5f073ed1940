import functools
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from gradatim.physics import chemotaxis as ct
from gradatim.physics.chemotaxis import Box, IndirectChemotaxis, Radial, simplify, system

pytestmark = pytest.mark.usefixtures("double")
MASS = 1e-12  # round-off of thousands of steps
GRIDS = {"line": Box((16,)), "square": Box((8, 6)), "ball": Radial(4, 16)}
KINDS = {"full": (0.05, 0.2), "pes": (0.0, 0.2), "ids": (0.0, 0.0)}
CASES = [(grid, kind) for grid in GRIDS for kind in KINDS]


def ill_prepared(grid):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.uniform(0, most, grid.shape)) for most in (8.0, 3.0, 1.0))


@functools.cache
def stepped(grid, kind):
    """Sixty steps of one length, with entropy, mass and the least density after each, compiled once a case."""

    @jax.jit
    def run(dt, chi):
        model = IndirectChemotaxis(GRIDS[grid], *KINDS[kind], chi)
        n, c, w = ill_prepared(GRIDS[grid])
        stepper = model.stepper(dt)

        def one(state, _):
            after = stepper(state)
            return after, (model.entropy(after), GRIDS[grid].integral(after.cells), after.cells.min(), model.dissipation(after))

        first = model.init(n, c, w)
        end, seen = jax.lax.scan(one, first, length=60)
        return first, model.entropy(first), model.dissipation(first), end, seen

    return run


# Invariants.


@pytest.mark.parametrize(("grid", "kind"), CASES)
@given(exponent=st.floats(-5, 1), chi=st.floats(0.1, 20))
def test_entropy_falls_in_every_step_whatever_its_length(grid, kind, exponent, chi):
    with jax.enable_x64(True):
        first, before, _, _, seen = stepped(grid, kind)(10.0**exponent, chi)
        entropy, mass, least, dissipation = map(np.asarray, seen)
        values = np.append(np.asarray(before), entropy)
        assert np.diff(values).max() <= 1e-10 * np.abs(values).max()
        assert values[0] > values[-1] and least.min() >= 0 and dissipation.min() >= -1e-10
        # Round-off of what passes the faces, which a long step makes large beside what is there.
        assert np.abs(mass / GRIDS[grid].integral(first.cells) - 1).max() < MASS * (1 + 300 * 10.0**exponent)


@pytest.mark.parametrize("grid", GRIDS)
def test_dissipation_is_the_rate_at_which_entropy_falls(grid):
    def rate(dt):
        _, before, dissipation, _, (entropy, *_) = stepped(grid, "full")(dt, 1.0)
        return float(before - entropy[0]) / dt, float(dissipation)

    rates = [rate(dt)[0] for dt in (2e-7, 1e-7)]
    assert 2 * rates[1] - rates[0] == pytest.approx(rate(1e-7)[1], rel=2e-3)


@pytest.mark.parametrize("grid", GRIDS)
def test_mass_is_kept_over_long_runs(grid):
    model = IndirectChemotaxis(GRIDS[grid], 0.01, 0.2)
    end = eqx.filter_jit(functools.partial(model.evolve, dt=1e-3, n_steps=20_000, every=5000))(model.init(*ill_prepared(GRIDS[grid])))
    assert jnp.abs(end.mass / end.mass[0] - 1).max() < MASS and end.cells.min() > 0 and (end.flag == 0).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_uniform_states_stay(grid):
    model = IndirectChemotaxis(GRIDS[grid], 0.01, 0.2)
    uniform = model.init(jnp.full(GRIDS[grid].shape, 3.0))
    after = eqx.filter_jit(model.stepper(0.1))(uniform)
    assert all(jnp.abs(field - 3).max() < 1e-11 for field in after)
    assert max(model.manifold_residuals(after)) < 1e-8 and model.dissipation(after) < 1e-12


@pytest.mark.parametrize("chi", [-2.0, 0.0])
def test_repulsion_spreads(chi):
    model = IndirectChemotaxis(GRIDS["line"], 0.01, 0.2, chi)
    end = eqx.filter_jit(functools.partial(model.evolve, dt=1e-2, n_steps=200))(model.init(*ill_prepared(GRIDS["line"])))
    assert jnp.ptp(end.cells[-1]) < 1e-4 and end.cells.min() >= 0 and model.critical_mass() == jnp.inf


# References.


@functools.cache
def at_wall(limit, cells, dt):
    grid = Box((cells,))
    model = simplify(IndirectChemotaxis(grid, 0.1, 0.2), limit)
    first = model.init(5 * (1 + 0.8 * jnp.cos(jnp.pi * grid.centres[0])))
    found = eqx.filter_jit(functools.partial(model.evolve, dt=dt, n_steps=round(0.2 / dt), every=round(0.05 / dt)))(first)
    n = np.asarray(found.cells)[[1, 2, 4]]
    return (9 * n[:, 0] - n[:, 1]) / 8  # the even parabola through the first two cells


@pytest.mark.parametrize(("limit", "exact"), [("pes", (7.6999031, 6.7729866, 5.7611268)), ("ids", (8.3256744, 7.5393309, 6.4417349))])
def test_limits_reach_the_spectral_reference(limit, exact):
    coarse, halved, finer = at_wall(limit, 20, 1e-3), at_wall(limit, 20, 5e-4), at_wall(limit, 40, 1e-3)
    # First order in time and second in space, both extrapolated: what is left is of the order of their squares.
    np.testing.assert_allclose(2 * halved - coarse + 4 / 3 * (finer - coarse), exact, rtol=2e-4)
    np.testing.assert_allclose(finer, exact, rtol=2e-2)


def test_full_system_reaches_an_implicit_reference():
    grid, eps, tau = Box((12,)), 0.03, 0.2
    model = IndirectChemotaxis(grid, eps, tau)
    first = model.init(*ill_prepared(grid))

    @jax.jit
    def rate(y):
        n, c, w = y.reshape(3, -1)
        laplacian = grid.laplacian
        return jnp.concatenate([ct.scharfetter_gummel(grid, n, c), (laplacian(c) - c + w) / eps, (tau * laplacian(w) - w + n) / eps])

    reference = solve_ivp(lambda t, y: np.asarray(rate(y)), (0, 0.1), np.concatenate(first), "BDF", rtol=1e-8, atol=1e-9)
    exact = reference.y[:, -1].reshape(3, -1)
    ends = [eqx.filter_jit(functools.partial(model.evolve, dt=0.1 / n, n_steps=n))(first) for n in (200, 400)]
    for name, field in zip(("cells", "attractant", "signal"), exact, strict=True):
        coarse, fine = (float(jnp.abs(getattr(end, name)[-1] - field).max()) for end in ends)
        assert 1.8 < coarse / fine < 2.2 and fine < 5e-3 * np.abs(field).max()


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_x_alone_make_the_square_a_line(kind):
    line, square = Box((24,)), Box((24, 5), (1.0, 0.3))
    fields = [5 * (1 + 0.8 * np.cos(np.pi * line.centres[0])), 2 + np.cos(2 * np.pi * line.centres[0]), np.ones(24)]
    ends = []
    for grid in (line, square):
        first = (jnp.asarray(np.broadcast_to(f.reshape(-1, *(1 for _ in grid.shape[1:])), grid.shape)) for f in fields)
        model = IndirectChemotaxis(grid, *KINDS[kind])
        ends.append(eqx.filter_jit(functools.partial(model.evolve, dt=1e-3, n_steps=50))(model.init(*first)).states)
    assert all(jnp.abs(a[-1][:, None] - b[-1]).max() < 1e-8 for a, b in zip(*ends, strict=True))


def test_equal_shells_in_one_dimension_are_the_box():
    ends = []
    for grid in (Box((24,)), Radial(1, 24, grading=1.0)):
        model = IndirectChemotaxis(grid, 0.0, 0.2)
        first = model.init(5 * (1 + 0.8 * jnp.cos(jnp.pi * grid.centres[0])))
        ends.append(eqx.filter_jit(functools.partial(model.evolve, dt=1e-3, n_steps=50))(first).cells[-1])
    assert jnp.abs(ends[0] - ends[1]).max() < 1e-10


def test_a_disc_of_shells_is_the_middle_of_a_square():
    # The Gaussian is far from the walls: what is left is the grids' error, of second order.
    def density(r2):
        return 6 * np.exp(-r2 / (2 * 0.1**2)) / (2 * np.pi * 0.1**2)

    def at_radius(grid, r2):
        model = IndirectChemotaxis(grid, 0.0, 0.2)
        end = eqx.filter_jit(functools.partial(model.evolve, dt=4e-5, n_steps=100))(model.init(jnp.asarray(density(r2)))).cells[-1]
        return np.asarray(end)

    shells = Radial(2, 80, grading=1.0)
    fine = at_radius(shells, shells.centres[0] ** 2)
    errors = []
    for n in (16, 32):
        # A quarter of the square, walls being mirrors.
        x = np.asarray(Box((n, n)).centres[0])
        r = np.hypot(x[:, None], x[None, :])
        found = at_radius(Box((n, n)), r**2)
        near = r < 0.4
        errors.append(np.abs(found[near] - np.interp(r[near], shells.centres[0], fine)).max() / fine.max())
    assert errors[1] < 0.02 and errors[0] / errors[1] > 2.5


# Small waves.


@pytest.mark.parametrize("eps", [0.0, 0.001, 0.01])
def test_a_wave_grows_at_the_eigenvalue(eps):
    grid = Box((32,))
    rate = float(ct.growth_rate(40.0, grid.eigenvalues(np.dtype(float))[1], eps=eps, tau=0.2))
    model = IndirectChemotaxis(grid, eps, 0.2)
    wave = jnp.cos(jnp.pi * grid.centres[0])

    @jax.jit
    def amplitudes(dt):
        first = model.init(40 * (1 + 1e-6 * wave))
        found = model.evolve(first, dt=dt, n_steps=800, every=400).cells
        return (found * wave[None]).mean(1)

    def measured(dt):
        _, early, late = amplitudes(dt)
        return float(jnp.log(late / early) / (400 * dt))

    # Of first order in dt: two steps are extrapolated.
    assert 2 * measured(1e-4) - measured(2e-4) == pytest.approx(rate, rel=1e-3)


# Transformations.


def line_end(amplitude, tau, eps):
    grid = Box((12,))
    model = IndirectChemotaxis(grid, eps, tau)
    first = model.init(5 * (1 + amplitude * jnp.cos(jnp.pi * grid.centres[0])), jnp.ones(12), 2 * jnp.ones(12))
    return model.solve(first, ct.layer_times(0.1, eps, n_layer=12, n_after=12), every=4).cells[-1]


def test_derivatives_agree_with_differences():
    x = jnp.arange(12.0)
    scalar = jax.jit(lambda p: (x * line_end(*p)).mean())
    point = jnp.array([0.6, 0.3, 0.05])
    found = jax.jit(jax.grad(scalar))(point)
    steps = 1e-5 * jnp.eye(3)
    differences = jnp.stack([(scalar(point + h) - scalar(point - h)) / 2e-5 for h in steps])
    assert jnp.allclose(found, differences, rtol=1e-6) and jnp.abs(found).min() > 1e-3


def test_vmap_over_parameters_is_a_loop():
    taus, epss = jnp.array([0.0, 0.2, 1.0]), jnp.array([0.1, 0.01, 1e-6])
    run = jax.jit(functools.partial(line_end, 0.5))
    batch = jax.jit(jax.vmap(functools.partial(line_end, 0.5)))(taus, epss)
    assert jnp.allclose(batch, jnp.stack([run(*pair) for pair in zip(taus, epss, strict=True)]), rtol=1e-10)


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
    cells = jnp.ones(16, jnp.float32).at[0].set(2)
    model = IndirectChemotaxis(grid, 1e-5, 0.2)
    with pytest.warns(UserWarning, match="float32 with eps = 1e-05, below 1e-4"):
        first = model.init(cells)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.init(cells)
        IndirectChemotaxis(grid, 1e-3, 0.2).init(cells)
    found = eqx.filter_jit(functools.partial(model.evolve, dt=1e-3, n_steps=4))(first)
    assert all(x.dtype == jnp.float32 for x in (*found.states, found.times, found.mass, found.entropy))


# Words and numbers that are not allowed.

GOOD = IndirectChemotaxis(Box((8,)), 0.1, 0.2)


def start():
    return GOOD.init(jnp.ones(8))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: IndirectChemotaxis(Box((8,)), -0.1, 0.2), "eps must be finite and at least 0, got -0.1"),
        (lambda: IndirectChemotaxis(Box((8,)), 0.1, -0.2), "tau must be finite and at least 0, got -0.2"),
        (lambda: IndirectChemotaxis(Box((8,)), 0.1, 0.2, float("nan")), "chi must be finite, got nan"),
        (lambda: GOOD.init(jnp.ones(8).at[2].set(-0.5)), "cells must be finite and at least 0 everywhere, got values from -0.5 to 1"),
        (lambda: GOOD.init(jnp.ones(8).at[2].set(jnp.nan)), "cells must be finite"),
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
