import functools

import equinox as eqx
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
    r2 = jnp.asarray(grid.centres[0] ** 2)

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
    found = from_gaussian(dimension, "limit")(jnp.array([0.5, 1.5, heavy]), jnp.array([0.1, 0.1, 0.3]), tau)
    below, above, spread = np.asarray(found.flag[:, -1])
    assert (below, above) == (Flag.REGULAR, Flag.COLLAPSE)
    peaks = found.cells[:, :, 0]
    assert peaks[0, 1] > peaks[0, 2] and peaks[1, 2] > 100 * peaks[1, 0]
    # Mass above the critical one, but spread out, goes to rest: concentration is needed too.
    assert spread == Flag.REGULAR and peaks[2, 2] < peaks[2, 0]
    assert found.is_supercritical.tolist() == [False, True, True]
    assert all(jnp.isfinite(x).all() for x in (*found.states, found.entropy)) and found.cells.min() >= 0
    np.testing.assert_allclose(found.mass, found.mass[:, :1] * np.ones((1, 3)), rtol=1e-11)


def test_slow_signals_do_not_save_a_heavy_ball():
    found = from_gaussian(4, "full")(jnp.array([0.5, 1.8]), jnp.array([0.1, 0.1]), 1.0)
    assert found.flag[:, -1].tolist() == [Flag.REGULAR, Flag.COLLAPSE]


def test_aggregates_of_many_cells_are_regular():
    grid = Box((96,))
    model = IndirectChemotaxis(grid, 0.01, 0.2)
    first = model.init(40 * (1 + 0.01 * jnp.cos(jnp.pi * grid.centres[0])))
    end = eqx.filter_jit(functools.partial(model.solve_adaptively, adaptivity=Adaptivity(largest_dt=1e-2)))(first, jnp.array([0.0, 4.0]))
    # Unstable, and bounded: one dimension has no collapse.
    assert end.flag[-1] == Flag.REGULAR and end.cells[-1].max() > 2 * 40


def test_adaptive_steps_reach_what_equal_ones_do():
    grid = Box((16,))
    model = IndirectChemotaxis(grid, 0.02, 0.2)
    first = model.init(5 * (1 + 0.8 * jnp.cos(jnp.pi * grid.centres[0])), jnp.ones(16), jnp.ones(16))
    adaptive = eqx.filter_jit(functools.partial(model.solve_adaptively, adaptivity=Adaptivity(largest_dt=1e-3)))(
        first, jnp.array([0.0, 0.03, 0.1])
    )
    even = eqx.filter_jit(functools.partial(model.evolve, dt=1e-4, n_steps=1000, every=100))(first)
    assert jnp.abs(adaptive.cells - even.cells[jnp.array([0, 3, 10])]).max() < 0.02
    assert adaptive.times.tolist() == [0.0, 0.03, 0.1]


def test_a_step_that_fails_is_undone_and_flagged():
    grid = Box((8,))
    model = IndirectChemotaxis(grid, 0.0, 0.2, 1e38)
    first = model.init(jnp.linspace(1, 3e30, 8, dtype=jnp.float32))
    even = model.evolve(first, dt=0.1, n_steps=3, every=1)
    assert even.flag.tolist() == [0, *[Flag.INSTABILITY] * 3] and (even.cells == first.cells[None]).all()
    adaptive = model.solve_adaptively(first, jnp.array([0.0, 0.1], jnp.float32), Adaptivity(least_dt=1e-7))
    assert adaptive.flag[-1] == Flag.INSTABILITY and (adaptive.cells[-1] == first.cells).all()


def test_too_few_steps_are_no_collapse():
    grid = Box((8,))
    model = IndirectChemotaxis(grid, 0.0, 0.2)
    first = model.init(jnp.linspace(1, 3, 8))
    assert model.solve_adaptively(first, jnp.array([0.0, 1.0]), Adaptivity(max_steps=3)).flag.tolist() == [0, Flag.STALLED]


def test_flags_of_densities():
    grid = Box((100,))
    lumps = jnp.ones(100).at[3].set(60.0)
    assert [int(examine(grid, n)) for n in (jnp.ones(100), lumps, jnp.ones(100).at[3].set(-1.0), lumps.at[0].set(jnp.inf))] == [0, 1, 2, 2]
    # A cell that is large holds much without a collapse.
    assert int(examine(Box((3,)), jnp.ones(3))) == 0
