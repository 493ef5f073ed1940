import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.numerics import conjugate_gradient, hermitian_defect

DOUBLE = 1e-10  # relative, after as many steps as dimensions
N, RANK, BATCH = 12, 5, 3


@functools.partial(jax.jit, static_argnames=("n_steps", "batch_axes", "tolerance"))
def solve(h, b, x0, n_steps=RANK, batch_axes=1, tolerance=0.0):
    return conjugate_gradient(
        lambda x: jnp.einsum("...ij,...j->...i", h, x), b, x0, n_steps=n_steps, batch_axes=batch_axes, tolerance=tolerance
    )


@pytest.fixture(scope="module", autouse=True)
def _in_double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def systems():
    """A batch of wide complex A, measurements in their ranges, and starts."""
    random = np.random.default_rng(0)

    def draw(*shape):
        return random.normal(size=shape) + 1j * random.normal(size=shape)

    return draw(BATCH, RANK, N), draw(BATCH, RANK), draw(BATCH, N)


@pytest.fixture(scope="module")
def iterates(systems):
    a, y, x0 = systems
    h = a.conj().transpose(0, 2, 1) @ a
    b = np.einsum("bij,bi->bj", a.conj(), y)
    return h, b, [jax.tree.map(np.asarray, solve(h, b, x0, n_steps=k)) for k in range(RANK + 1)]


def test_oracle_1_as_many_steps_as_the_rank_give_the_nearest_solution(systems, iterates):
    a, y, x0 = systems
    inverse = np.linalg.pinv(a)
    found = iterates[2][-1].x
    expected = x0 - np.einsum("bij,bj->bi", inverse, np.einsum("bij,bj->bi", a, x0) - y)
    np.testing.assert_allclose(found, expected, rtol=DOUBLE, atol=DOUBLE)
    # What the operator does not see stays.
    null = np.eye(N) - inverse @ a
    np.testing.assert_allclose(np.einsum("bij,bj->bi", null, found), np.einsum("bij,bj->bi", null, x0), atol=DOUBLE)


def test_oracle_3_each_iterate_is_the_best_of_its_krylov_space(systems, iterates):
    a, y, x0 = systems
    h, b, found = iterates
    for system in range(BATCH):
        r0 = b[system] - h[system] @ x0[system]
        basis = [r0]
        for k in range(1, RANK):
            q = np.linalg.qr(np.stack(basis, axis=1))[0]
            best = np.linalg.lstsq(a[system] @ q, y[system] - a[system] @ x0[system], rcond=None)[0]
            np.testing.assert_allclose(found[k].x[system], x0[system] + q @ best, rtol=1e-8, atol=1e-8)
            basis.append(h[system] @ basis[-1])
        misfit = [np.linalg.norm(y[system] - a[system] @ one.x[system]) for one in found]
        assert (np.diff(misfit) < 0).all()


def test_oracle_3_residuals_are_orthogonal_and_directions_conjugate(iterates):
    h, b, found = iterates
    x = np.stack([one.x for one in found])
    residuals = b - np.einsum("bij,kbj->kbi", h, x)
    directions = np.diff(x, axis=0)
    for system in range(BATCH):
        gram = residuals[:-1, system].conj() @ residuals[:-1, system].T
        energy = directions[:, system].conj() @ h[system] @ directions[:, system].T
        for matrix in (gram, energy):
            scale = np.sqrt(np.diag(matrix).real)
            np.testing.assert_allclose(matrix / np.outer(scale, scale), np.eye(RANK), atol=1e-7)
    # The recursion's residuals are the true ones.
    np.testing.assert_allclose(found[-1].residual_norms[:-1], np.linalg.norm(residuals[:-1], axis=-1), rtol=1e-8)


def test_trap_inner_products_of_complex_vectors_are_conjugated():
    # uᵀu = 0 for (1, i): without the conjugate the first step has no length.
    found = conjugate_gradient(lambda x: 2 * x, jnp.array([1.0, 1j]), jnp.zeros(2, complex), n_steps=1)
    np.testing.assert_allclose(found.x, [0.5, 0.5j])


def test_trap_every_system_of_a_batch_has_its_own_step_length(systems, iterates):
    h, b, found = iterates
    scales = np.array([1.0, 1e-3, 1e3])
    scaled = solve(h * scales[:, None, None], b * scales[:, None], systems[2], n_steps=RANK)
    np.testing.assert_allclose(scaled.x, found[-1].x, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("n_steps", [0, 3])
def test_a_solved_system_and_an_empty_one_stay_finite(n_steps):
    h = jnp.asarray([np.diag(np.arange(3.0))] * 2)
    b = jnp.array([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    x0 = jnp.array([[5.0, 1.0, 1.0], [7.0, 0.0, 0.0]])
    found = solve(h, b, x0, n_steps=n_steps)
    np.testing.assert_array_equal(found.x, x0)
    np.testing.assert_array_equal(found.residual_norms, np.zeros((n_steps + 1, 2)))


def test_steps_after_the_solution_do_not_follow_round_off():
    # A singular operator: round-off outside its range would be divided by next to nothing.
    random = np.random.default_rng(1)
    q = np.linalg.qr(random.normal(size=(N, 2)))[0].astype(np.float32)
    h, x0 = (q @ q.T)[None], random.normal(size=(1, N)).astype(np.float32)
    b = np.einsum("bij,bj->bi", h, random.normal(size=(1, N)).astype(np.float32))
    found = solve(jnp.asarray(h), jnp.asarray(b), jnp.asarray(x0), n_steps=40, tolerance=1e-5)
    np.testing.assert_allclose(np.asarray(found.x)[0], x0[0] - q @ (q.T @ (x0[0] - b[0])), atol=1e-5)


def test_vmap_is_a_batch(systems, iterates):
    h, b, found = iterates
    alone = lambda h, b, x0: conjugate_gradient(lambda x: h @ x, b, x0, n_steps=2, tolerance=0.0)  # noqa: E731
    one_by_one = jax.jit(jax.vmap(alone))(h, b, systems[2])
    np.testing.assert_allclose(one_by_one.x, found[2].x, rtol=DOUBLE)
    np.testing.assert_allclose(np.asarray(one_by_one.residual_norms).T, found[2].residual_norms, rtol=DOUBLE)


def test_the_derivative_is_that_of_the_solution():
    h = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    b, seen = jnp.array([1.0, -2.0]), jnp.array([1.0, 3.0])
    solved = jax.jit(jax.grad(lambda b: seen @ conjugate_gradient(lambda x: h @ x, b, jnp.zeros(2), n_steps=2, tolerance=0.0).x))
    slope = solved(b)
    np.testing.assert_allclose(slope, np.linalg.solve(h, seen), rtol=1e-8)


@given(st.integers(0, 2**31 - 1))
def test_misfit_never_rises(seed):
    random = np.random.default_rng(seed)
    a = random.normal(size=(BATCH, RANK, N)) * 10.0 ** random.integers(-2, 3, size=(BATCH, 1, 1))
    y, x0 = random.normal(size=(BATCH, RANK)), random.normal(size=(BATCH, N))
    h, b = np.einsum("bij,bik->bjk", a, a), np.einsum("bij,bi->bj", a, y)

    def misfit(x):
        return np.linalg.norm(y - np.einsum("bij,bj->bi", a, x), axis=1)

    after = [misfit(x0), *(misfit(solve(h + 0j, b + 0j, x0 + 0j, n_steps=k).x.real) for k in (1, 2, RANK))]
    assert (np.diff(after, axis=0) <= 1e-9 * after[0]).all()


def test_a_map_that_is_not_hermitian_shows():
    random = np.random.default_rng(2)
    a = random.normal(size=(N, N)) + 1j * random.normal(size=(N, N))
    defect = jax.jit(lambda a, key: hermitian_defect(lambda x: a @ x, jnp.zeros(N, complex), key=key))
    assert defect(a, jax.random.key(0)) > 0.1
    assert defect(a + a.conj().T, jax.random.key(0)) < 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_steps": -1}, "n_steps must be at least 0, got -1"),
        ({"tolerance": -1.0}, r"tolerance must be at least 0, got -1\.0"),
        ({"tolerance": float("nan")}, "tolerance must be at least 0, got nan"),
        ({"batch_axes": 2}, "batch_axes must lie between 0 and the 1 axes of b, got 2"),
    ],
)
def test_numbers_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        conjugate_gradient(lambda x: x, jnp.zeros(2), jnp.zeros(2), **{"n_steps": 1, **change})


def test_an_operator_that_changes_shapes_is_refused():
    with pytest.raises(ValueError, match=r"operator must keep the shape \(2,\), got \(3,\)"):
        conjugate_gradient(lambda x: jnp.zeros(3), jnp.zeros(2), jnp.zeros(2), n_steps=1)


def test_a_complex_start_of_a_real_system_is_taken_whole():
    h, b = jnp.array([[2.0, 0.5], [0.5, 1.0]]), jnp.array([1.0, -2.0])
    found = conjugate_gradient(lambda x: h @ x, b, jnp.array([1j, 0.3]), n_steps=2, tolerance=0.0)
    np.testing.assert_allclose(found.x, np.linalg.solve(h, b), atol=1e-12)
    np.testing.assert_allclose(found.residual_norms[0], np.linalg.norm(b - h @ np.array([1j, 0.3])))


def test_a_complex_map_of_real_vectors_is_solved_in_complex_ones():
    h, b = jnp.array([[2.0, 1j], [-1j, 3.0]]), jnp.array([1.0, -2.0])
    found = conjugate_gradient(lambda x: h @ x, b, jnp.array([0.5, 0.0]), n_steps=2, tolerance=0.0)
    np.testing.assert_allclose(found.x, np.linalg.solve(h, b), atol=1e-12)


def test_a_residual_is_small_beside_what_is_to_be_met():
    h, b = np.diag([1.0, 2.0, 5.0]), np.array([1.0, -2.0, 3.0])
    near, far = (np.linalg.solve(h, b) + size * np.ones(3) for size in (1e-4, 1e6))
    solved = solve(*(jnp.asarray(np.stack([part] * 2)) for part in (h, b)), jnp.asarray(np.stack([near, far])), n_steps=4, tolerance=1e-3)
    assert np.array_equal(solved.x[0], near) and solved.residual_norms[-1, 1] < 1e-3 * np.linalg.norm(b)
