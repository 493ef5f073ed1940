import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import splu

from gradatim.numerics.sparse import symmetric_lu


def laplacian(n):
    line = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    return scipy.sparse.kronsum(line, line)


def constrained(n):
    """A floating structure held by a multiplier, whose diagonal is zero."""
    matrix = laplacian(n) - scipy.sparse.diags_array(laplacian(n).sum(axis=1))
    border = np.ones((n * n, 1))
    return scipy.sparse.block_array([[matrix, border], [border.T, None]])


@pytest.mark.parametrize(
    ("matrix", "settings"),
    [
        (laplacian(9), {"pivot_threshold": 0}),
        (laplacian(9), {}),
        (laplacian(9) + 1j * scipy.sparse.eye_array(81), {}),
        (constrained(9), {}),
    ],
)
def test_solves_as_the_dense_matrix_does(matrix, settings):
    right = np.random.default_rng(0).normal(size=matrix.shape[0]).astype(matrix.dtype)
    exact = np.linalg.solve(matrix.toarray(), right)
    np.testing.assert_allclose(symmetric_lu(matrix, **settings).solve(right), exact, rtol=1e-9, atol=1e-11)


def test_fills_in_less_than_the_default():
    matrix = scipy.sparse.csc_matrix(laplacian(40))
    assert symmetric_lu(matrix).L.nnz < 0.8 * splu(matrix).L.nnz


def test_a_singular_matrix_is_refused():
    with pytest.raises(RuntimeError, match="singular"):
        symmetric_lu(scipy.sparse.csc_matrix((3, 3)))
