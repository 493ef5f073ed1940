import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import fft

from gradatim.numerics import cosine_eigenvalues, cosine_transform_2d, inverse_cosine_transform_2d
from gradatim.sciml import PoissonSystem, box_with_ball

pytestmark = pytest.mark.usefixtures("double")
apply = jax.jit(lambda system, x: system(x))
DISK = box_with_ball((8, 10), radius=0.25)


def test_oracle_eigenvalues_of_the_box():
    n = 32
    system = PoissonSystem(np.ones((n, n), bool))
    angle = np.arange(1, n + 1) * np.pi / (n + 1)
    eigenvalues = 4 * np.sin(angle / 2) ** 2
    matrix = system.as_csr()
    for i, j in ((1, 1), (2, 5), (n, n)):
        wave = np.outer(np.sin(i * angle), np.sin(j * angle)).ravel()
        np.testing.assert_allclose(matrix @ wave, (eigenvalues[i - 1] + eigenvalues[j - 1]) * wave, atol=1e-13)
    low, high = 2 * eigenvalues[0], 2 * eigenvalues[-1]
    assert abs(low - 0.0181123) < 1e-7 and abs(high - 7.9818877) < 1e-7 and abs(high / low - 440.7) < 0.05


def test_oracle_the_sine_transform_solves_the_box():
    system = PoissonSystem(np.ones((8, 10), bool))
    b = np.random.default_rng(0).normal(size=(8, 10))
    sums = np.add.outer(*(4 * np.sin(np.arange(1, n + 1) * np.pi / (2 * (n + 1))) ** 2 for n in b.shape))
    x = fft.idstn(fft.dstn(b, 1) / sums, 1)
    np.testing.assert_allclose(apply(system, jax.device_put(x)), b, atol=1e-13)


def test_oracle_the_cosine_transform_diagonalises_the_closed_box():
    system = PoissonSystem(np.ones((8, 10), bool), walls="neumann", spacing=0.5)
    x = jax.device_put(np.random.default_rng(1).normal(size=(8, 10)))
    sums = np.add.outer(np.asarray(cosine_eigenvalues(8, 0.5)), np.asarray(cosine_eigenvalues(10, 0.5)))
    transformed = jax.jit(lambda x, sums: inverse_cosine_transform_2d(sums * cosine_transform_2d(x)))(x, sums)
    np.testing.assert_allclose(apply(system, x), transformed, atol=1e-12)
    np.testing.assert_allclose(apply(system, jnp.ones((8, 10))), 0, atol=1e-14)


@pytest.mark.parametrize("walls", ["dirichlet", "neumann"])
@pytest.mark.parametrize("obstacles", ["dirichlet", "neumann"])
def test_stencil_and_sparse_matrix_agree_and_are_symmetric(walls, obstacles):
    system = PoissonSystem(DISK, walls=walls, obstacles=obstacles, spacing=0.25)
    matrix = system.as_csr()
    x = np.random.default_rng(2).normal(size=DISK.shape)
    np.testing.assert_allclose(system.restrict(apply(system, jnp.asarray(x))), matrix @ system.restrict(x), atol=1e-12)
    assert np.abs(matrix - matrix.T).max() == 0
    eigenvalues = np.linalg.eigvalsh(matrix.toarray())
    assert eigenvalues[0] > (-1e-12 if walls == obstacles == "neumann" else 1e-3)


@given(st.floats(-10, 10))
def test_trap_rows_of_solid_cells_are_zero_and_what_they_hold_is_not_looked_at(value):
    system = PoissonSystem(DISK)
    x = np.random.default_rng(3).normal(size=DISK.shape)
    leaked = np.where(DISK, x, value)
    image, other = (np.asarray(apply(system, jnp.asarray(one))) for one in (x, leaked))
    assert (image == other).all() and (image[~DISK] == 0).all()


def test_three_dimensions():
    system = PoissonSystem(np.ones((2, 4, 2), bool))
    x = np.random.default_rng(4).normal(size=(2, 4, 2))
    np.testing.assert_allclose(apply(system, jax.device_put(x)).ravel(), system.as_csr() @ x.ravel(), atol=1e-13)
    assert system.as_csr().diagonal().tolist() == [6.0] * 16


def test_operators_of_one_shape_are_one_program():
    first, second = (PoissonSystem(mask).operator() for mask in (DISK, ~DISK))
    assert jax.tree.structure(first) == jax.tree.structure(second)


def test_dtype_and_vectors_are_kept():
    system = PoissonSystem(DISK)
    assert apply(system, jnp.ones(DISK.shape, jnp.float32)).dtype == jnp.float32
    assert system.operator().in_structure().dtype == jnp.float64 and system.operator(jnp.float32).in_structure().dtype == jnp.float32
    vector = np.arange(1.0, DISK.sum() + 1)
    assert (system.restrict(system.extend(vector)) == vector).all() and (system.extend(vector)[~DISK] == 0).all()


def test_bad_inputs_are_refused():
    with pytest.raises(ValueError, match="is_fluid must have two or three dimensions, got 1"):
        PoissonSystem(np.ones(4, bool))
    with pytest.raises(ValueError, match="is_fluid must hold at least one fluid cell"):
        PoissonSystem(np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match=r"spacing must be positive, got 0\.0"):
        PoissonSystem(DISK, spacing=0.0)
    # By the type checker, where there is one, before the system can.
    for name in ("walls", "obstacles"):
        with pytest.raises((ValueError, jaxtyping.TypeCheckError), match=name):
            PoissonSystem(DISK, **{name: "periodic"})
    with pytest.raises(ValueError, match=r"x must have the shape of the box, \(8, 10\), got \(10, 8\)"):
        PoissonSystem(DISK)(jnp.ones((10, 8)))
