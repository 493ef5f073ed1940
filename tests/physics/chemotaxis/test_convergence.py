import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.physics.chemotaxis import Box, IndirectChemotaxis, Solution, convergence_study, layer_times, limit_errors, simplify

pytestmark = pytest.mark.usefixtures("double")
GRID = Box((24,))
X = GRID.centres[0]
CELLS, C0, W0 = (np.asarray(f) for f in (5 * (1 + 0.8 * np.cos(np.pi * X)), 2 + np.cos(2 * np.pi * X), np.ones(24)))
EPS = (0.02, 0.01, 0.005)


@functools.cache
def program(limit):
    model = IndirectChemotaxis(GRID, 0.01, 0.2)
    return jax.jit(functools.partial(convergence_study, model, limit=limit, t_end=0.5, n_layer=400, n_after=1600))


def study(limit, is_ill, tau_of_eps):
    eps = np.array(EPS)
    signals = (C0, W0) if is_ill else jax.jit(lambda n: IndirectChemotaxis(GRID, 0.0, 0.2).critical_manifold(n))(CELLS)
    return program(limit)(CELLS, *signals, eps=eps, tau=eps if tau_of_eps else np.full(3, 0.2))


def test_ill_prepared_signals_converge_with_the_root_of_eps():
    errors = study("pes", True, False)
    orders = errors.orders(jnp.array(EPS))
    for of_signals in (orders.attractant, orders.signal, orders.attractant_gradient):
        np.testing.assert_allclose(of_signals, 0.5, atol=0.06)
    assert 0.88 < orders.cells[-1] < 1.05 and abs(orders.cells_at_end[-1] - 1) < 0.15
    # Values of 64 cells and finer steps.
    np.testing.assert_allclose(errors.cells, [0.0644, 0.0338, 0.0173], rtol=0.04)
    np.testing.assert_allclose(errors.attractant, [0.537, 0.380, 0.268], rtol=0.02)
    np.testing.assert_allclose(errors.signal, [0.401, 0.284, 0.201], rtol=0.02)


def test_well_prepared_signals_converge_with_eps():
    errors = study("pes", False, False)
    orders = errors.orders(jnp.array(EPS))
    for order in (orders.cells, orders.attractant, orders.signal):
        np.testing.assert_allclose(order, 1, atol=0.12)
    np.testing.assert_allclose(errors.cells, [0.0134, 0.00676, 0.00337], rtol=0.05)


def test_direct_limit_is_of_first_order_in_both():
    errors = study("ids", True, True)
    order = errors.orders(jnp.array(EPS)).cells
    assert 0.7 < order[0] < order[1] < 1  # rising
    np.testing.assert_allclose(errors.cells, [0.194, 0.117, 0.066], rtol=0.04)


def test_a_grid_that_steps_over_the_layer_sees_another_order():
    # With 100 points in the layer the order is 1/2; with one a time scale or fewer, what is seen falls far faster.
    def errors(eps, times):
        full = IndirectChemotaxis(GRID, eps, 0.2)
        limit = simplify(full, "pes")
        first = full.init(jnp.asarray(CELLS), jnp.asarray(C0), jnp.asarray(W0))
        # The first state is left out: at t = 0 the error of ill-prepared signals does not fall at all.
        found = [model.solve(model.init(*first), times) for model in (full, limit)]
        late = [jax.tree.map(lambda x: x[1:] if x.ndim else x, solution) for solution in found]
        return limit_errors(GRID, *late).attractant, jnp.abs(found[0].attractant[0] - found[1].attractant[0]).max()

    run = jax.jit(jax.vmap(errors, in_axes=(0, None)))
    coarse, at_start = map(np.asarray, run(np.array([8e-3, 4e-3]), np.linspace(0.0, 0.5, 51)))
    assert np.log2(coarse[0] / coarse[1]) > 0.85
    assert at_start[0] == at_start[1] > 1


def test_errors_are_norms_over_space_and_time():
    grid, times = Box((6,), (2.0,)), jnp.array([0.0, 0.5, 2.0])
    fields = np.random.default_rng(0).normal(size=(2, 3, 3, 6))
    rest = jnp.zeros(3), jnp.zeros(3), jnp.zeros(3, int), jnp.array(False)
    full, limit = (Solution(times, *map(jnp.asarray, one), *rest) for one in fields)
    found = jax.jit(functools.partial(limit_errors, grid))(full, limit)
    cells, attractant, signal = ((part**2).sum(-1) * 2 / 6 for part in fields[0] - fields[1])
    slopes = (np.diff(fields[0, 1] - fields[1, 1], axis=-1) ** 2).sum(-1) / (2 / 6)
    exact = [np.sqrt(np.trapezoid(square, times)) for square in (attractant, signal, slopes)]
    assert np.allclose([found.cells, found.cells_at_end], np.sqrt([cells.max(), cells[-1]]))
    assert np.allclose([found.attractant, found.signal, found.attractant_gradient], exact)


def test_a_study_is_of_the_model_that_it_is_given():
    # Cells that follow nothing cannot tell the limit from what tends to it.
    model = IndirectChemotaxis(Box((6,)), 0.01, 0.2, 0.0)
    study = functools.partial(convergence_study, model, limit="pes", t_end=0.1, n_layer=3, n_after=3)
    found = jax.jit(study)(jnp.linspace(1.0, 2.0, 6), eps=jnp.array([0.02]), tau=jnp.array([0.2]))
    assert found.cells[0] < 1e-12 < 1e-4 < found.signal[0]


def test_layer_times_resolve_the_layer():
    made = jax.jit(layer_times)
    times = np.asarray(made(0.5, 1e-3))
    assert times[0] == 0 and times[-1] == pytest.approx(0.5) and (np.diff(times) > 0).all()
    assert (times <= 1e-2 * (1 + 1e-12)).sum() > 100 and times[1] < 1e-7
    # Steps pass over into each other, and the longest stays small.
    assert np.diff(times).max() < 3e-3 and np.diff(times)[401] < 1e-3 / 10
    assert np.asarray(made(0.5, 1.0))[400] == pytest.approx(0.25)
