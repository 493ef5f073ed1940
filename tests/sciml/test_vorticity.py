import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.numerics import PeriodicGrid
from gradatim.sciml import PlaneVorticity, VorticityTerms, random_vorticity, reference_vorticity

GRID = PeriodicGrid((32, 32), 1.0)


@pytest.fixture(scope="module", autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@functools.cache
def flow():
    return random_vorticity(jax.random.key(0), GRID, length_scale=0.8)


def solve(initial, grid=GRID, **changes):
    settings = {"viscosity": 1e-3, "horizon": 1.0, "n_snapshots": 8, "steps_between": 8} | changes
    return jax.jit(lambda w: reference_vorticity(w, grid, **settings))(initial)


def test_oracle_taylor_green_vortices_decay_without_carrying_themselves():
    x, y = GRID.positions()
    w = 2 * jnp.cos(2 * jnp.pi * x) * jnp.cos(2 * jnp.pi * y)
    later = solve(w, viscosity=0.02)
    expected = np.asarray(w) * np.exp(-8 * np.pi**2 * 0.02 * np.linspace(0, 1, 9))[:, None, None]
    np.testing.assert_allclose(later, expected, atol=1e-12)


def test_oracle_the_mean_is_conserved_and_without_friction_energy_and_enstrophy_are_too():
    later = solve(flow(), viscosity=0.0, horizon=0.5)
    assert abs(np.asarray(later).mean(axis=(1, 2))).max() < 1e-12
    spectrum = GRID.forward(later[1:])
    enstrophy = jnp.sum(GRID.multiplicity()[None] * jnp.abs(spectrum) ** 2, axis=(1, 2))
    energy = -jnp.sum((GRID.multiplicity() * GRID.inverse_laplacian())[None] * jnp.abs(spectrum) ** 2, axis=(1, 2))
    # Without aliases the truncated equations conserve both; fourth order in steps of 1/128 leaves little.
    np.testing.assert_allclose(enstrophy, enstrophy[0], rtol=1e-6)
    np.testing.assert_allclose(energy, energy[0], rtol=1e-6)


def test_the_reference_is_of_fourth_order_in_time():
    fine = solve(flow(), steps_between=32)[-1]
    coarse, middle = (np.linalg.norm(solve(flow(), steps_between=steps)[-1] - fine) for steps in (2, 4))
    assert 12 < coarse / middle < 20


def test_oracle_solutions_leave_what_central_differences_in_time_leave():
    # A grid that products do not leave, so that only time is resolved badly.
    grid, problem, left = PeriodicGrid((48, 48), 1.0), PlaneVorticity(viscosity=1e-2), []
    smooth = random_vorticity(jax.random.key(0), grid, length_scale=1.5)
    for n in (16, 32):
        fields = problem.terms(solve(smooth, grid, viscosity=1e-2, n_snapshots=n), grid, dt=1 / n)
        left.append(float(jnp.sqrt(jnp.mean(problem.equation(fields, 1.0)[n // 2] ** 2))))
    assert left[1] < 0.01 and 3.8 < left[0] / left[1] < 4.2


def test_terms_are_linear_and_those_of_all_basis_functions_at_once():
    problem, random = PlaneVorticity(), np.random.default_rng(0)
    basis, weights = jnp.asarray(random.normal(size=(3, 32, 32, 2))), jnp.asarray([0.3, -2.0])
    together = jax.tree.map(lambda term: term @ weights, problem.terms(basis, GRID, dt=0.1))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), together, problem.terms(basis @ weights, GRID, dt=0.1)
    )


def test_the_velocity_has_no_divergence_and_this_vorticity():
    terms = PlaneVorticity().terms(jnp.stack([flow()] * 3), GRID, dt=1.0)
    along_x, along_y = GRID.derivative_wavenumbers()
    u, v = (GRID.forward(part[0]) for part in (terms.velocity_x, terms.velocity_y))
    np.testing.assert_allclose(GRID.backward(1j * along_x * u + 1j * along_y * v), 0, atol=1e-12)
    np.testing.assert_allclose(GRID.backward(1j * along_x * v - 1j * along_y * u), flow(), atol=1e-6)  # without its Nyquist modes


def test_random_vorticity_has_the_mean_square_and_the_correlation_it_states():
    grid, length = PeriodicGrid((8, 8), 1.0), 0.8
    draw = jax.jit(jax.vmap(lambda key: random_vorticity(key, grid, length_scale=length)))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(1), 4000)))
    assert abs(drawn.mean(axis=(1, 2))).max() < 1e-12
    distance = np.sin(np.pi * np.arange(8) / 8) ** 2
    kernel = np.exp(-2 * (distance[:, None] + distance[None]) / length**2)
    kernel -= kernel.mean()
    found = (drawn * drawn[:, :1, :1]).mean(axis=0)
    np.testing.assert_allclose(found, kernel / kernel[0, 0], atol=0.06)  # about 3/√4000 and more


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlaneVorticity(viscosity=-1.0), r"viscosity must be at least 0 and finite, got -1\.0"),
        (lambda: PlaneVorticity().terms(jnp.ones((3, 8, 8)), GRID, dt=0.1), r"the grid's \(32, 32\) places first, got shape \(3, 8, 8\)"),
        (lambda: PlaneVorticity().terms(jnp.ones((2, 32, 32)), GRID, dt=0.1), "w must have at least 3 times"),
        (lambda: random_vorticity(jax.random.key(0), PeriodicGrid((8,), 1.0)), "grid must have two dimensions, got 1"),
        (lambda: random_vorticity(jax.random.key(0), GRID, length_scale=0.0), r"length_scale must be positive and finite, got 0\.0"),
        (lambda: solve(jnp.ones((8, 8))), r"initial must have the grid's shape \(32, 32\), got \(8, 8\)"),
        (lambda: solve(flow(), n_snapshots=0), "n_snapshots must be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rows_are_multiplied_by_the_time():
    fields = VorticityTerms(*(jnp.asarray(part) for part in (2.0, 3.0, 5.0, 7.0, 11.0, 13.0)))
    assert np.isclose(PlaneVorticity(viscosity=0.5).equation(fields, 4.0), 4 * (2 + 11 * 3 + 13 * 5 - 0.5 * 7))
