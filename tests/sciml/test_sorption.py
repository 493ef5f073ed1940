import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.sciml import DiffusionSorption, SorptionEdges, SpaceTimeGrid, reference_sorption
from gradatim.sciml.sorption_reference import _Rates

PROBLEM = DiffusionSorption()
BENCHMARK = {"ends": "cell", "method": "BDF", "rtol": 1e-8, "atol": 1e-10}


@pytest.fixture(scope="module", autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def unchecked(function):
    """Without the annotations' own check, which would be the first to refuse a word."""
    return getattr(function, "__wrapped__", function)


@functools.cache
def benchmark_solution(n_cells):
    return reference_sorption(PROBLEM, 0.1, [0.0, 250.0, 500.0], n_cells=n_cells, **BENCHMARK)


@pytest.mark.parametrize(("u", "value"), [(1.0, 3.156911448), (0.1, 3.882918171), (1e-6, 13.29793846)])
def test_oracle_constants_of_the_retardation(u, value):
    assert abs(float(DiffusionSorption(guard=1e-18).retardation(jnp.asarray(u))) / value - 1) < 1e-9


def test_oracle_reference_with_the_benchmark_s_ends():
    found = benchmark_solution(1024)
    # Six digits are known, and the two states differ by 2e-7 between tolerances.
    np.testing.assert_allclose(found.u.mean(axis=1), [0.1, 0.269766, 0.338346], atol=2e-6)
    at = [np.interp([0.25, 0.5, 0.75], found.x, values) for values in found.u[1:]]
    np.testing.assert_allclose(at, [[0.412127, 0.145284, 0.071633], [0.553149, 0.245639, 0.088258]], atol=2e-6)


@pytest.mark.parametrize(("ends", "order"), [("cell", 1), ("face", 2)])
def test_oracle_order_of_the_ends(ends, order):
    masses = [
        reference_sorption(PROBLEM, 0.1, [0.0, 250.0], n_cells=n, ends=ends, rtol=1e-9, atol=1e-11).u[1].mean() for n in (32, 64, 128)
    ]
    found = np.log2((masses[0] - masses[1]) / (masses[1] - masses[2]))
    assert abs(found - order) < 0.25


@settings(max_examples=8)
@given(st.floats(0, 0.2))
def test_oracle_maximum_principle(initial):
    u = reference_sorption(PROBLEM, initial, np.linspace(0, 500, 6), n_cells=48).u
    # Up to the tolerance of the solver.
    assert u.min() > -1e-6 and u.max() < 1 + 1e-6


@pytest.mark.parametrize("ends", ["face", "cell"])
def test_jacobians_against_differences(ends):
    rates = _Rates(PROBLEM, 8, ends)
    u = np.random.default_rng(0).uniform(0.1, 0.9, 8)
    columns = [(rates(0, u + step) - rates(0, u - step)) / 2e-6 for step in 1e-6 * np.eye(8)]
    np.testing.assert_allclose(rates.sparse(0, u).toarray(), np.stack(columns, axis=1), atol=1e-7)
    packed = rates.banded(0, u)
    assert all(packed[1 + i - j, j] == rates.sparse(0, u)[i, j] for i in range(8) for j in range(max(i - 1, 0), min(i + 2, 8)))


def test_stiff_solvers_agree_and_an_explicit_one_needs_many_more_evaluations():
    solve = functools.partial(reference_sorption, PROBLEM, 0.1, [0.0, 50.0], n_cells=256, rtol=1e-4, atol=1e-6)
    banded, sparse, explicit = (solve(method=method) for method in ("LSODA", "Radau", "RK45"))
    np.testing.assert_allclose(banded.u, sparse.u, atol=1e-3)
    np.testing.assert_allclose(banded.u, explicit.u, atol=1e-3)
    assert explicit.n_evaluations > 4 * banded.n_evaluations


def test_trap_the_sign_at_the_right_end_matters_little_on_a_coarse_grid_and_is_ill_posed_on_a_fine_one():
    settings = {"n_cells": 256, "ends": "cell", "rtol": 1e-7, "atol": 1e-9, "method": "BDF"}
    printed = reference_sorption(DiffusionSorption(right_sign=1), 0.1, np.linspace(0, 500, 21), **settings).u
    usual = reference_sorption(PROBLEM, 0.1, np.linspace(0, 500, 21), **settings).u
    assert 1e-4 < np.linalg.norm(printed - usual) / np.linalg.norm(usual) < 1e-3
    with pytest.raises(ValueError, match=r"a cell must be wider than 2 D = 0\.001, got 1/1024: ill-posed"):
        reference_sorption(DiffusionSorption(right_sign=1), 0.1, [0.0, 1.0], n_cells=1024)


def test_ends_of_a_reference_on_the_grid_of_a_network():
    found = reference_sorption(PROBLEM, 0.1, [0.0, 250.0, 500.0], n_cells=256)
    on_grid = found.at(np.linspace(0, 1, 9))
    np.testing.assert_allclose(on_grid[0], 0.1)
    np.testing.assert_allclose(on_grid[1:, 0], 1.0)
    exact = benchmark_solution(1024)
    # Half a cell of the benchmark's, whose left value sits too far out.
    np.testing.assert_allclose(on_grid[1:, 4], [np.interp(0.5, exact.x, values) for values in exact.u[1:]], atol=1e-3)
    # u = s D ∂u/∂x on the face.
    slope = (found.right - found.u[1:, -1]) * 2 * 256
    np.testing.assert_allclose(found.right, -PROBLEM.diffusivity * slope, rtol=1e-9)


def test_trap_retardation_has_a_finite_derivative_at_and_below_zero():
    values, slopes = jax.vmap(jax.value_and_grad(PROBLEM.retardation))(jnp.array([-1.0, -1e-12, 0.0, 1e-12, 1.0]))
    assert np.isfinite(values).all() and np.isfinite(slopes).all() and not np.asarray(slopes)[:2].any()


GRID = SpaceTimeGrid(51, 33, 500.0)
T, X = np.linspace(0, 500, 51)[:, None], np.linspace(0, 1, 33)[None]


@jax.jit
def probe(u):
    """Everything that is made of a field: one program."""
    compact = PROBLEM.terms(u, GRID)
    edges = PROBLEM.edges(u, GRID)
    left = PROBLEM.conditions(edges, jnp.asarray(0.15), 0.15)
    return compact, PROBLEM.terms(u, GRID, stencil="wide"), edges, PROBLEM.equation(compact, GRID.horizon), left


def probed(u):
    return jax.tree.map(np.asarray, probe(jax.device_put(u)))


def test_trap_the_wide_stencil_does_not_see_an_alternating_field():
    compact, wide, *_ = probed(np.tile((-1.0) ** np.arange(33), (51, 1)))
    assert not wide.xx[:, 2:-2].any() and (np.abs(compact.xx) > 3.9 * 32**2).all()


def test_terms_are_exact_for_parabolas():
    compact, wide, edges, *_ = probed(X**2 + 3 * T * X)
    np.testing.assert_allclose(compact.t, np.broadcast_to(3 * X, (51, 33)), atol=1e-9)
    np.testing.assert_allclose(compact.xx, 2.0, atol=1e-8)
    np.testing.assert_allclose(wide.xx[:, 2:-2], 2.0, atol=1e-8)
    np.testing.assert_allclose(edges.initial, X[0] ** 2)
    np.testing.assert_allclose(edges.right, 1 + 3 * T[1:, 0])
    np.testing.assert_allclose(edges.right_slope, 2 - 1 / 32 + 3 * T[1:, 0])


def test_the_true_solution_leaves_little_of_every_row():
    truth = reference_sorption(PROBLEM, 0.15, T[:, 0], n_cells=256).at(X[0])
    compact, _, _, equation, left = probed(truth)
    size = np.abs(500 * compact.t)[25:, 1:-1].max()
    assert np.abs(equation[25:-1, 1:-1]).max() < 0.03 * size
    assert not left.initial.any() and np.abs(left.left).max() < 1e-12 and np.abs(left.right).max() < 1e-3


def test_the_interior_leaves_out_ends_and_times_whose_neighbours_are_not_seen():
    grid = SpaceTimeGrid(6, 5, 1.0)
    whole, part = np.asarray(grid.interior()), np.asarray(grid.interior(4))
    assert whole.sum() == 5 * 3 and not whole[0].any() and not whole[:, [0, -1]].any()
    assert part.sum() == 2 * 3 and part[1:3, 1:-1].all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpaceTimeGrid(3, 8, 1.0), "n_times must be at least 4, got 3"),
        (lambda: SpaceTimeGrid(8, 8, 0.0), r"horizon must be positive and finite, got 0\.0"),
        (lambda: DiffusionSorption(porosity=1.0), r"porosity must lie strictly between 0 and 1, got 1\.0"),
        (lambda: DiffusionSorption(guard=0.0), r"guard must lie strictly between 0 and inf, got 0\.0"),
        (lambda: DiffusionSorption(exponent=1.5), r"exponent must lie in \(0, 1\], got 1\.5"),
        (lambda: DiffusionSorption(right_sign=0), "right_sign must be -1 or 1, got 0"),
        (lambda: DiffusionSorption(diffusivity=-1.0), r"diffusivity must be positive and finite, got -1\.0"),
        (
            lambda: PROBLEM.terms(jnp.ones((4, 5)), SpaceTimeGrid(4, 6, 1.0)),
            r"u must have 4 times and 6 places first, got shape \(4, 5\)",
        ),
        (
            lambda: unchecked(DiffusionSorption.terms)(PROBLEM, jnp.ones((4, 6)), SpaceTimeGrid(4, 6, 1.0), stencil="broad"),
            "stencil must be 'compact' or 'wide', got 'broad'",
        ),
        (lambda: unchecked(_Rates.__init__)(object.__new__(_Rates), PROBLEM, 8, "node"), "ends must be 'face' or 'cell', got 'node'"),
        (lambda: reference_sorption(PROBLEM, 0.1, [0.0]), r"times must ascend, at least two of them, got \[0\.0\]"),
        (lambda: reference_sorption(PROBLEM, 0.1, [0.0, 1.0], n_cells=3), "n_cells must be at least 4, got 3"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_conditions_are_those_of_the_equations():
    problem, scale = DiffusionSorption(diffusivity=0.2), 0.4
    fields = SorptionEdges(jnp.array([0.1, 0.5]), jnp.array([0.75]), jnp.array([0.3]), jnp.array([2.0]))
    left = problem.conditions(fields, jnp.asarray(0.3), scale)
    np.testing.assert_allclose(left.initial, [-0.5, 0.5])
    np.testing.assert_allclose([left.left, left.right], [[-0.25], [0.3 + 0.2 * 2.0]])
    other = DiffusionSorption(diffusivity=0.2, right_sign=1).conditions(fields, jnp.asarray(0.3), scale)
    np.testing.assert_allclose(other.right, [0.3 - 0.2 * 2.0])
