import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.numerics import PeriodicGrid
from gradatim.physics.electrolyte import DrivenElectrolyte, IonBrownianDynamics, mesh

GRID = PeriodicGrid((16, 12), (16.0, 12.0))
N_PAIRS = 96
pytestmark = pytest.mark.usefixtures("double")


def electrolyte(dim=2, field=2.0, density=0.5, smearing=1.0, kappa=1.0):
    return DrivenElectrolyte(kappa, field, mean_density=density, smearing=smearing, dim=dim)


@eqx.filter_jit
def _made(electrolyte, grid, dt, n_pairs):
    return IonBrownianDynamics(electrolyte, grid, dt, n_pairs=n_pairs)


def made(electrolyte, grid=GRID, dt=0.02, n_pairs=N_PAIRS):
    """Ions; those on one grid share a program, whatever their numbers."""
    return _made(jax.tree.map(jnp.asarray, electrolyte), grid, jnp.asarray(dt), n_pairs)


@pytest.fixture(scope="module")
def ions():
    with jax.enable_x64(True):
        return made(electrolyte())


@eqx.filter_jit
def initial(ions, key):
    return ions.initial(key)


@eqx.filter_jit
def fields(ions, state):
    return ions.fields(state)


@eqx.filter_jit
def _forces(ions, positions):
    return ions.forces(positions)


def forces(ions, positions):
    # Numbers as arrays: other values of them compile nothing again.
    return _forces(jax.tree.map(jnp.asarray, ions), positions)


def run(ions, state, n_steps, k):
    return _run(jax.tree.map(jnp.asarray, ions), state, n_steps, k)


@eqx.filter_jit
def _run(ions, state, n_steps, k):
    def body(carry, _):
        carry = ions(carry)
        return carry, ions.structure_factor(carry, k)

    return jax.lax.scan(body, state, length=n_steps)


def place(ions, *points):
    """All ions far away from each other's business: at one point, half of them of either sign, but for the first of each sign."""
    x = np.full((2, 2 * ions.n_pairs), 3.0)
    x[:, 0], x[:, ions.n_pairs] = points
    return tuple(jax.device_put(row) for row in x)


def test_fields_hold_every_ion_and_no_charge(ions):
    density, charge = np.asarray(fields(ions, initial(ions, jax.random.key(0))))
    assert density.mean() * GRID.volume == pytest.approx(2 * N_PAIRS) and abs(charge.sum()) < 1e-10
    assert np.abs(charge).max() <= density.max()


@pytest.mark.parametrize(("smearing", "error"), [(1.0, 0.04), (2.0, 0.02)])
def test_lone_pair_attracts_along_its_line_with_the_smeared_coulomb_force(smearing, error):
    ions = made(electrolyte(smearing=smearing))
    force = np.asarray(forces(ions, place(ions, (8.3, 6.0), (10.9, 6.0))))
    on_positive, on_negative = force[:, 0], force[:, ions.n_pairs]
    assert on_positive[0] > 0 and np.allclose(on_positive, -on_negative, rtol=1e-10, atol=1e-12) and abs(on_positive[1]) < 1e-12
    assert abs(on_positive[0] / between_clouds(2.6, smearing) - 1) < error


def between_clouds(distance, smearing):
    """Fourier sum of the field between Gaussian clouds in the periodic box; ℓ = 1."""
    kx, ky = np.meshgrid(2 * np.pi / 16 * np.arange(-40, 41), 2 * np.pi / 12 * np.arange(-40, 41), indexing="ij")
    square = np.where(kx**2 + ky**2 > 0, kx**2 + ky**2, np.inf)
    return (kx / square * np.exp(-(smearing**2) * square) * np.sin(kx * distance)).sum() / (16 * 12)


def test_mean_force_over_places_in_a_cell_is_that_of_the_clouds(ions):
    # What is off depends on where in its cell a pair lies: of the window of sharing nothing is left in the mean.
    places = [(x, y) for x in (8.1, 8.35, 8.6, 8.85) for y in (6.0, 6.25, 6.5, 6.75)]
    found = [float(forces(ions, place(ions, (x, y), (x + 2.6, y)))[0][0]) for x, y in places]
    assert np.isclose(np.mean(found), between_clouds(2.6, 1.0), rtol=4e-3)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_no_force_on_a_lone_ion_and_none_in_total(dim):
    grid = PeriodicGrid((8,) * dim, 8.0)
    one = made(electrolyte(dim, density=8.0**-dim, smearing=1.3, kappa=0.1), grid, n_pairs=1)
    x = np.random.default_rng(dim).uniform(0, 8, (dim, 2))
    found = np.asarray(forces(one, tuple(x)))
    assert np.abs(found.sum(1)).max() < 1e-12 * np.abs(found).max()
    alone = tuple(np.repeat(y[:1], 2) for y in x)
    assert np.abs(forces(one, alone)).max() < 1e-12

    @jax.jit
    def of_a_charge_without_its_partner(kernels, alone):
        where = mesh.shares(alone, grid)
        density = mesh.deposit(jnp.array([1.0, 0.0]), where, grid)
        return [mesh.gather(grid.backward(kernel * grid.forward(density)), where)[0] for kernel in kernels]

    assert np.abs(of_a_charge_without_its_partner(one.kernels, alone)).max() < 1e-13


def test_deposit_keeps_the_number_and_gather_is_its_transpose():
    rng = np.random.default_rng(0)
    positions = tuple(side * rng.uniform(size=50) for side in GRID.box)
    amounts, field = rng.normal(size=50), rng.normal(size=GRID.shape)

    @jax.jit
    def both(positions, amounts, field):
        where = mesh.shares(positions, GRID)
        return mesh.deposit(amounts, where, GRID), mesh.gather(field, where)

    density, gathered = map(np.asarray, both(positions, amounts, field))
    assert np.isclose(density.sum() * GRID.volume / GRID.n_cells, amounts.sum())
    assert np.isclose((density * field).sum() * GRID.volume / GRID.n_cells, (amounts * gathered).sum())


def test_particles_on_the_edge_of_the_box_are_inside():
    with jax.enable_x64(False):
        x = jnp.array([-1e-9, 16.0, 0.0], jnp.float32)
        (low, _), (high, _) = jax.jit(lambda x: mesh.shares((mesh.wrapped(x, 16.0),), PeriodicGrid((16,), 16.0)))(x)
        assert (np.asarray(low) >= 0).all() and (np.asarray(low) < 16).all() and (np.asarray(high) < 16).all()


def test_free_ions_diffuse_and_drift_as_they_should(ions):
    free = made(electrolyte(kappa=1e-6, field=3e5))
    state = initial(free, jax.random.key(1))
    move = jax.jit(lambda state: free(state))
    moved = []
    for _ in range(40):
        after = move(state)
        step = np.stack([np.asarray(b) - np.asarray(a) for a, b in zip(state.positions, after.positions, strict=True)])
        moved.append((step + np.array([[8.0], [6.0]])) % np.array([[16.0], [12.0]]) - np.array([[8.0], [6.0]]))
        state = after
    moved = np.stack(moved)  # step, axis, ion
    drift = 0.3 * 0.02
    n = moved.size / 2
    error = np.sqrt(2 * 0.02 / n)
    signed = moved * np.asarray(free.signs)
    assert abs(signed[:, 0].mean() - drift) < 5 * error and abs(signed[:, 1].mean()) < 5 * error
    assert abs(moved[:, 1].var() / 0.04 - 1) < 5 * np.sqrt(2 / n)


def test_coulomb_force_goes_as_the_square_of_the_debye_wavenumber(ions):
    where = place(ions, (8.3, 6.0), (10.9, 6.0))
    weak, strong = (np.asarray(forces(made(electrolyte(kappa=kappa)), where))[0, 0] for kappa in (1.0, 2.0))
    assert np.isclose(strong, 4 * weak, rtol=1e-10)


def test_mobility_multiplies_drift_and_noise_along_the_axis_of_the_field(ions):
    def driven(diffusivity, field):
        parts = {"diffusivity": diffusivity, "mean_density": 0.5, "smearing": 1.0, "dim": 2, "axis": 1}
        return made(DrivenElectrolyte(1e-6, field, **parts))

    state = initial(ions, jax.random.key(1))
    state = state._replace(positions=tuple(5 + 0.1 * x for x in state.positions))  # away from the edges
    step = eqx.filter_jit(lambda ions, state: ions(state).positions)
    start = np.stack(state.positions)
    still, slow, pushed = (np.stack(step(driven(*pair), state)) - start for pair in ((4.0, 0.0), (1.0, 0.0), (4.0, 3e5)))
    assert np.allclose(still, 2 * slow, atol=1e-9)
    assert np.allclose((pushed - still)[1], 4 * 0.02 * 0.3 * np.asarray(ions.signs), atol=1e-9)
    assert np.allclose(pushed[0], still[0], atol=1e-9)


def test_structure_factor_of_a_state_is_that_of_its_sums_over_ions(ions):
    state, k = initial(ions, jax.random.key(5)), 2 * np.pi * np.array([[1 / 16, 0.0], [2 / 16, -1 / 12]])
    waves = np.exp(-1j * k @ np.stack(state.positions))
    density, charge = waves.sum(1), waves[:, :N_PAIRS].sum(1) - waves[:, N_PAIRS:].sum(1)
    found = eqx.filter_jit(lambda ions, state, k: ions.structure_factor(state, k))(ions, state, k)
    exact = np.abs(density) ** 2, np.abs(charge) ** 2, (density * charge.conj()).imag
    assert all(np.allclose(part, value / (2 * N_PAIRS)) for part, value in zip(found, exact, strict=True))


def test_numbers_and_the_box_are_kept_over_long_runs(ions):
    state, samples = run(ions, initial(ions, jax.random.key(0)), 2000, np.zeros((1, 2)))
    for x, side in zip(state.positions, GRID.box, strict=True):
        assert np.isfinite(x).all() and (np.asarray(x) >= 0).all() and (np.asarray(x) < side).all()
    density, charge = np.asarray(fields(ions, state))
    assert abs(charge.sum()) < 1e-10 and np.isclose(density.sum(), 2 * N_PAIRS)
    # At k = 0 the number is the number and the charge is none.
    assert np.allclose(samples.density, 2 * N_PAIRS) and np.allclose(samples.charge, 0)


def test_charge_is_screened_and_density_depleted_along_the_field():
    grid = PeriodicGrid((16, 16), 16.0)
    ions = made(electrolyte(density=1.0), grid, 0.05, 256)
    k = 2 * np.pi / 16 * np.eye(2)
    _, samples = run(ions, initial(ions, jax.random.key(2)), 8000, k)
    exact = jax.tree.map(np.asarray, eqx.filter_jit(lambda electrolyte, k: electrolyte.structure_factor(k))(ions.electrolyte, k))
    along, across = (np.asarray(samples.density)[1000:, i].mean() for i in (0, 1))
    charge = np.asarray(samples.charge)[1000:].mean(0)
    assert abs(along / exact.density[0] - 1) < 0.25 and abs(across / exact.density[1] - 1) < 0.4
    assert np.abs(charge / exact.charge - 1).max() < 0.2


def test_modes_are_the_deposited_ones_at_small_wavenumbers(ions):
    @eqx.filter_jit
    def both(ions, state, k):
        return ions.modes(state, k)[1], GRID.forward(ions.fields(state)[1]) / mesh.cloud_window(GRID)

    charge, spectrum = map(np.asarray, both(ions, initial(ions, jax.random.key(3)), np.array([[2 * np.pi / 16, 0.0]])))
    assert np.isclose(charge[0], spectrum[1, 0] * GRID.volume / GRID.n_cells, rtol=0.05)


def test_derivative_in_the_field_agrees_with_differences_and_vmap_is_a_loop(ions):
    state = initial(ions, jax.random.key(4))

    def separation(field):
        driven = eqx.tree_at(lambda ions: ions.electrolyte.field, ions, field)
        moved = driven(driven(state))
        # Small steps, none of which leaves the box in the mean: sines of the places are smooth across its edge.
        return jnp.sum(ions.signs * jnp.sin(2 * jnp.pi * moved.positions[0] / 16))

    both = jax.jit(jax.value_and_grad(separation))
    (high, _), (low, _), (_, slope) = both(2.0 + 1e-6), both(2.0 - 1e-6), both(2.0)
    assert np.isclose(slope, (high - low) / 2e-6, rtol=1e-5) and abs(float(slope)) > 1e-3
    assert np.allclose(jax.jit(jax.vmap(separation))(jnp.array([2.0 + 1e-6, 2.0 - 1e-6])), [high, low])


def test_single_precision_stays_single():
    with jax.enable_x64(False):
        ions = made(electrolyte())
        after = eqx.filter_eval_shape(lambda ions, key: ions(ions.initial(key)), ions, jax.random.key(0))
        assert after.positions[1].dtype == jnp.float32


def test_time_step_above_the_bound_is_refused_with_the_bound():
    with pytest.raises(ValueError, match=r"dt must be at most 0\.1/\(D κ²\) = 0\.1, got 0\.2"):
        IonBrownianDynamics(electrolyte(), GRID, 0.2, n_pairs=N_PAIRS)


@pytest.mark.parametrize(
    ("options", "n_pairs", "match"),
    [
        ({"smearing": 0.5}, 96, "smearing must be at least the width of a cell, 1, got 0.5"),
        ({}, 95, "n_pairs must be mean_density times the box, 96, got 95"),
        ({}, 0, "n_pairs must be at least 1, got 0"),
        ({"dim": 3}, 96, "grid must have the electrolyte's 3 dimensions, got 2"),
    ],
)
def test_ions_and_grids_that_do_not_fit_are_refused(options, n_pairs, match):
    with pytest.raises(ValueError, match=match):
        IonBrownianDynamics(electrolyte(**options), GRID, 0.02, n_pairs=n_pairs)


def test_ions_that_would_collapse_are_refused():
    grid = PeriodicGrid((8, 8, 8), 8.0)
    with pytest.raises(ValueError, match="smearing must exceed the Bjerrum length"):
        IonBrownianDynamics(electrolyte(3, density=1 / 64, smearing=1.0, kappa=1.0), grid, 0.02, n_pairs=8)


def test_wavevectors_must_fit(ions):
    with pytest.raises(ValueError, match="k must hold vectors of 2 components"):
        ions.structure_factor(initial(ions, jax.random.key(0)), jnp.ones((1, 3)))
