import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.physics.chemotaxis import Adaptivity, Box, Flag, IndirectChemotaxis, Radial, critical_mass, examine

pytestmark = pytest.mark.usefixtures("double")
RULE = Adaptivity(calm=0.02, brisk=0.1, largest_dt=2e-3, max_steps=20_000)


@functools.cache
def from_gaussian(dimension, kind):
    """Gaussians of a share of the critical mass in a ball, one program a dimension and kind of system."""
    grid = Radial(dimension, 80)
    r2 = grid.centres[0] ** 2

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, None))
    def run(share, width, tau):
        if dimension == 2:
            tau = 0.0
        model = IndirectChemotaxis(grid, 1e-3 if kind == "full" else 0.0, tau)
        shape = jnp.exp(-r2 / (2 * width**2))
        first = model.init(share * critical_mass(dimension, tau=tau) * shape / grid.integral(shape))
        return model.solve_adaptively(first, jnp.array([0.0, 0.02, 0.5]), RULE)

    return run


@pytest.mark.parametrize(("dimension", "tau", "heavy"), [(2, 0.0, 1.2), (4, 1.0, 1.5), (4, 0.25, 1.5)])
def test_mass_decides_between_decay_and_collapse(dimension, tau, heavy):
    found = from_gaussian(dimension, "limit")(np.array([0.5, 1.5, heavy]), np.array([0.1, 0.1, 0.3]), tau)
    found = jax.tree.map(np.asarray, found)
    below, above, spread = found.flag[:, -1]
    assert (below, above) == (Flag.REGULAR, Flag.COLLAPSE)
    peaks = found.cells[:, :, 0]
    assert peaks[0, 1] > peaks[0, 2] and peaks[1, 2] > 100 * peaks[1, 0]
    # Mass above the critical one, but spread out, goes to rest: concentration is needed too.
    assert spread == Flag.REGULAR and peaks[2, 2] < peaks[2, 0]
    assert found.is_supercritical.tolist() == [False, True, True]
    assert all(np.isfinite(x).all() for x in (*found.states, found.entropy)) and found.cells.min() >= 0
    np.testing.assert_allclose(found.mass, found.mass[:, :1] * np.ones((1, 3)), rtol=1e-11)


def test_slow_signals_do_not_save_a_heavy_ball():
    found = from_gaussian(4, "full")(np.array([0.5, 1.8]), np.array([0.1, 0.1]), 1.0)
    assert np.asarray(found.flag)[:, -1].tolist() == [Flag.REGULAR, Flag.COLLAPSE]


def test_aggregates_of_many_cells_are_regular():
    grid = Box((96,))

    @jax.jit
    def run(cells, times):
        model = IndirectChemotaxis(grid, 0.01, 0.2)
        return model.solve_adaptively(model.init(cells), times, Adaptivity(largest_dt=1e-2))

    end = run(40 * (1 + 0.01 * np.cos(np.pi * grid.centres[0])), np.array([0.0, 4.0]))
    # Unstable, and bounded: one dimension has no collapse.
    assert np.asarray(end.flag)[-1] == Flag.REGULAR and np.asarray(end.cells)[-1].max() > 2 * 40


def test_adaptive_steps_reach_what_equal_ones_do():
    grid = Box((16,))

    @jax.jit
    def both(cells, times):
        model = IndirectChemotaxis(grid, 0.02, 0.2)
        first = model.init(cells, jnp.ones(16), jnp.ones(16))
        return model.solve_adaptively(first, times, Adaptivity(largest_dt=1e-3)), model.evolve(first, dt=1e-4, n_steps=1000, every=100)

    adaptive, even = both(5 * (1 + 0.8 * np.cos(np.pi * grid.centres[0])), np.array([0.0, 0.03, 0.1]))
    assert np.abs(np.asarray(adaptive.cells) - np.asarray(even.cells)[[0, 3, 10]]).max() < 0.02
    assert adaptive.times.tolist() == [0.0, 0.03, 0.1]


def test_a_step_that_fails_is_undone_and_flagged():
    grid = Box((8,))

    @jax.jit
    def both(cells, times):
        model = IndirectChemotaxis(grid, 0.0, 0.2, 1e38)
        first = model.init(cells)
        return model.evolve(first, dt=0.1, n_steps=3, every=1), model.solve_adaptively(first, times, Adaptivity(least_dt=1e-7))

    cells = np.linspace(1, 3e30, 8, dtype=np.float32)
    even, adaptive = both(cells, np.array([0.0, 0.1], np.float32))
    assert even.flag.tolist() == [0, *[Flag.INSTABILITY] * 3] and (np.asarray(even.cells) == cells).all()
    assert np.asarray(adaptive.flag)[-1] == Flag.INSTABILITY and (np.asarray(adaptive.cells)[-1] == cells).all()


def test_too_few_steps_are_no_collapse():
    grid = Box((8,))

    @jax.jit
    def run(cells, times):
        model = IndirectChemotaxis(grid, 0.0, 0.2)
        return model.solve_adaptively(model.init(cells), times, Adaptivity(max_steps=3)).flag

    assert run(np.linspace(1, 3, 8), np.array([0.0, 1.0])).tolist() == [0, Flag.STALLED]


def test_flags_of_densities():
    cells = np.ones((4, 100))
    cells[1:, 3] = 60.0, -1.0, 60.0
    cells[3, 0] = np.inf
    assert jax.jit(jax.vmap(functools.partial(examine, Box((100,)))))(cells).tolist() == [0, 1, 2, 2]
    # A cell that is large holds much without a collapse.
    assert int(jax.jit(functools.partial(examine, Box((3,))))(np.ones(3))) == 0
