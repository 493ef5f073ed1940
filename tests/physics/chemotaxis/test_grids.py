import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from gradatim.physics.chemotaxis import Box, Radial

pytestmark = pytest.mark.usefixtures("double")
ROUND_OFF = 1e-11  # of elliptic solves on graded shells, whose condition is some thousands
GRIDS = {
    "line": Box((24,), (2.0,)),
    "square": Box((8, 12), (1.0, 1.5)),
    "cube": Box((4, 3, 5)),
    "ball": Radial(4, 24),
    "disc": Radial(2, 24),
}
GRID = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def field(grid, seed=0):
    return jax.device_put(np.random.default_rng(seed).uniform(0.1, 1, grid.shape))


@jax.jit
def smoothed(grid, u, a):
    return grid.solve_helmholtz(u, a)


@jax.jit
def numbers(grid, u, v, a):
    """What a Helmholtz solve must obey."""
    ku, kv = grid.solve_helmholtz(u, a), grid.solve_helmholtz(v, a)
    residual = ku - a * grid.laplacian(ku) - u
    return {
        "residual": jnp.abs(residual).max(),
        "mass": grid.integral(ku) - grid.integral(u),
        "asymmetry": grid.integral(u * kv) - grid.integral(v * ku),
        "least": ku.min(),
        "dirichlet": grid.dirichlet(u) + grid.integral(u * grid.laplacian(u)),
        "size": grid.dirichlet(u),
    }


@GRID
def test_signal_operators_keep_mass_and_sign_and_are_symmetric(grid):
    found = numbers(grid, field(grid), field(grid, 1), 0.3)
    assert found["least"] > 0 and found["residual"] < ROUND_OFF * 1e3
    assert abs(found["mass"]) < ROUND_OFF and abs(found["asymmetry"]) < ROUND_OFF


@GRID
def test_gradients_on_faces_sum_by_parts(grid):
    found = numbers(grid, field(grid), field(grid, 1), 0.3)
    assert abs(found["dirichlet"]) < ROUND_OFF * found["size"]


@pytest.mark.parametrize("grid", [GRIDS["line"], GRIDS["ball"]], ids=["line", "ball"])
def test_second_signal_without_spreading_is_the_cells(grid):
    u = 1 + 0.5 * jnp.cos(jnp.pi * grid.centres[0] / grid.centres[0][-1])
    distance = [float(jnp.abs(smoothed(grid, u, tau) - u).max()) for tau in (1e-4, 5e-5)]
    assert 1.9 < distance[0] / distance[1] < 2.1  # of first order in τ
    assert np.abs(smoothed(grid, u, 0.0) - u).max() < ROUND_OFF


def test_volumes_of_shells_add_up_to_the_ball():
    for dimension, volume in ((1, 2 * 1.5), (2, np.pi * 1.5**2), (3, 4 / 3 * np.pi * 1.5**3), (4, np.pi**2 / 2 * 1.5**4)):
        assert Radial(dimension, 30, radius=1.5).volumes.sum() == pytest.approx(volume)


def test_few_cells_have_the_same_transform_as_many(getkey):
    u = jax.random.normal(getkey(), (24,))
    grid = GRIDS["line"]
    modes = grid.to_modes(u)
    np.testing.assert_allclose(modes, scipy.fft.dct(np.asarray(u)), atol=1e-12)
    np.testing.assert_allclose(grid.from_modes(modes), u, atol=1e-13)


def test_many_cells_solve_alike():
    coarse, fine = Box((128,)), Box((256,))
    on = [smoothed(grid, 1 + jnp.cos(3 * jnp.pi * grid.centres[0]), 0.1) for grid in (coarse, fine)]
    assert np.abs(on[0] - (on[1][::2] + on[1][1::2]) / 2).max() < 1e-3


def test_equal_shells_in_one_dimension_are_half_an_interval():
    line, ball = Box((24,), (2.0,)), Radial(1, 24, grading=1.0, radius=2.0)
    u = field(line)
    assert np.abs(smoothed(line, u, 0.3) - smoothed(ball, u, 0.3)).max() < ROUND_OFF
    assert ball.volumes == pytest.approx(2 * float(line.volumes))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Box((1,)), r"shape must have one to three axes of at least 2 cells each, got \(1,\)"),
        (lambda: Box((4, 4, 4, 4)), "shape must have one to three axes"),
        (lambda: Box((4, 4), (1.0,)), r"lengths must be 2 positive numbers, one an axis, got \(1\.0,\)"),
        (lambda: Box((4,), (-1.0,)), "lengths must be 1 positive"),
        (lambda: Radial(0, 8), "dimension must be at least 1, got 0"),
        (lambda: Radial(4, 1), "cells must be at least 2, got 1"),
        (lambda: Radial(4, 8, grading=0.5), "grading must be at least 1"),
        (lambda: Radial(4, 8, radius=0.0), "radius must be positive"),
        (lambda: Radial(4, 8).conductances(1), "axis must be 0"),
    ],
)
def test_grids_are_checked(make, match):
    with pytest.raises(ValueError, match=match):
        make()
