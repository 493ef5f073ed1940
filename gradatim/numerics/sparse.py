"""Sparse matrices of finite elements, on the host."""

from __future__ import annotations

from typing import Any


def symmetric_lu(matrix: Any, *, pivot_threshold: float = 0.01) -> Any:
    """SuperLU's factors of a matrix with entries at (i, j) and at (j, i), by least degree and with pivots from the diagonal.

    Columns ordered for any pivots, as SuperLU's default does, fill in half as many entries again, and take half as long again.

    **Arguments:** `matrix`: of SciPy, in any sparse format; `pivot_threshold`: a pivot on the diagonal below this share of its column is
    passed over; 0 for a positive definite matrix, whose pivots all serve.

    **Raises:** `RuntimeError` for a singular matrix.

    >>> import numpy as np
    >>> import scipy.sparse
    >>> print(symmetric_lu(scipy.sparse.diags_array([1.0, 2.0]), pivot_threshold=0).solve(np.ones(2)))
    [1.  0.5]
    """
    import scipy.sparse
    from scipy.sparse.linalg import splu

    options = {"SymmetricMode": True}
    return splu(scipy.sparse.csc_matrix(matrix), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=pivot_threshold, options=options)
