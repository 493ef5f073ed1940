import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.implicit import BlockPartition, HardConstraint, MixtureOfConstraints, Parts
from gradatim.numerics import PeriodicGrid
from gradatim.sciml import BurgersTerms, ViscousBurgers, reference_burgers

NU, CELLS = 0.1, 48


@pytest.fixture(scope="module", autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def reference(n_times):
    grid = PeriodicGrid((CELLS,), 2 * jnp.pi)
    x = grid.positions()[0]
    return grid, reference_burgers(jnp.sin(x), x[:1], diffusivity=NU, horizon=1.0, n_snapshots=n_times - 1).field


def test_oracle_solutions_leave_what_central_differences_in_time_leave():
    problem, left = ViscousBurgers(NU), []
    for n in (17, 33):
        grid, field = reference(n)
        left.append(float(jnp.max(jnp.abs(problem.equation(problem.terms(field, grid, dt=1 / (n - 1)), 1.0)[n // 2]))))
    assert left[1] < 5e-3 and 3.5 < left[0] / left[1] < 4.5


def test_solves_over_a_basis_that_holds_the_solution_find_it():
    grid, field = reference(65)
    rng, problem = np.random.default_rng(0), ViscousBurgers(NU)
    start = jnp.broadcast_to(field[:1], field.shape)
    others = jnp.asarray(
        np.linspace(0, 1, 65)[:, None, None] * np.sin(rng.integers(1, 4, 3) * np.asarray(grid.positions()[0])[:, None])[None]
    )
    basis = jnp.concatenate([(field - start)[..., None], others], axis=-1)
    terms, known = (problem.terms(u, grid, dt=1 / 64) for u in (basis, start))

    def residual(fields, data):
        return problem.equation(jax.tree.map(jnp.add, fields.local, data.local), 1.0)

    mixture = MixtureOfConstraints(HardConstraint(residual, start=0.0, ridge=0.0), BlockPartition((1, 2)))
    inner = np.arange(65 * CELLS // 2).reshape(65, CELLS // 2)[1:-1].ravel()
    points = jnp.asarray(np.stack([rng.choice(inner, 200, replace=False) for _ in range(2)]))
    found = jax.jit(mixture)(Parts(terms), Parts(known), points)
    np.testing.assert_allclose(start + mixture.assemble(basis, found.weights), field, atol=2e-3)  # what the time differences leave


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ViscousBurgers(0.0), r"viscosity must be positive and finite, got 0\.0"),
        (lambda: ViscousBurgers(0.1).terms(jnp.ones((3, 8)), PeriodicGrid((16,), 1.0), dt=0.1), "the grid's 16 places first"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rows_are_multiplied_by_the_time():
    fields = BurgersTerms(*(jnp.asarray(part) for part in (2.0, 3.0, 5.0, 7.0)))
    assert np.isclose(ViscousBurgers(0.5).equation(fields, 4.0), 4 * (3 + 2 * 5 - 0.5 * 7))
