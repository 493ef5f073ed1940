"""Reference solutions of diffusion with sorption: finite volumes in space, a stiff solver with a banded Jacobian in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import integrate, interpolate, sparse

from .sorption import DiffusionSorption

Ends = Literal["face", "cell"]
Method = Literal["LSODA", "BDF", "Radau", "RK45"]


class SorptionReference(NamedTuple):
    """Values in cells, and what they took."""

    x: np.ndarray
    "Centres of the cells."
    t: np.ndarray
    "s."
    u: np.ndarray
    "Axes (t, x)."
    right: np.ndarray
    "At x = 1, after the start."
    n_evaluations: int
    "Of the rates in all cells."

    def at(self, x: np.ndarray) -> np.ndarray:
        """Cubic splines through cells and ends; the initial state as it is."""
        rows = [np.interp(x, self.x, self.u[0])]
        for values, right in zip(self.u[1:], self.right, strict=True):
            nodes = np.concatenate([[0.0], self.x, [1.0]])
            rows.append(interpolate.CubicSpline(nodes, np.concatenate([[1.0], values, [right]]))(x))
        return np.stack(rows)


def reference_sorption(
    problem: DiffusionSorption,
    initial: float | np.ndarray,
    times: Sequence[float] | np.ndarray,
    *,
    n_cells: int = 512,
    method: Method = "LSODA",
    ends: Ends = "face",
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> SorptionReference:
    """The state at `times`, the first of which is where it is `initial`.

        du_i/dt = D/R(u_i) (u_{i-1} - 2 u_i + u_{i+1}) / h²,     cells i = 1…n, h = 1/n

    `ends="face"` has the boundary values on the outer faces, which is of second order in h. `ends="cell"` is the benchmark's own way: the
    values stand in the cells beyond them, half a cell too far out, which is of first order. The Jacobian is tridiagonal: each step of a
    stiff method costs a few times n. An explicit one (`"RK45"`) needs steps below 0.7 R h²/D instead, thousands of times as many.

    Runs on the host in double precision, and has no derivative.

    **Arguments:** `initial`: one value, or one a cell; `times`: s, ascending, at least 2; `n_cells`: at least 4; `method`: of scipy;
    `rtol`, `atol`: its tolerances.

    **Raises:** `ValueError` for times that do not ascend, too few cells, or a right end of sign +1 that is ill-posed on this grid;
    `RuntimeError` where scipy's solver gives up.

    >>> found = reference_sorption(DiffusionSorption(), 0.1, [0.0, 250.0], n_cells=64)
    >>> print(f"{found.u[1].mean():.2f}")
    0.27
    """
    times = np.asarray(times, np.float64)
    if times.size < 2 or not (np.diff(times) > 0).all():
        raise ValueError(f"times must ascend, at least two of them, got {times.tolist()}")
    if n_cells < 4:
        raise ValueError(f"n_cells must be at least 4, got {n_cells}")
    rates = _Rates(problem, n_cells, ends)
    state = np.broadcast_to(np.asarray(initial, np.float64), (n_cells,)).copy()
    options: dict[str, Any] = {"rtol": rtol, "atol": atol}
    if method == "LSODA":
        options |= {"jac": rates.banded, "lband": 1, "uband": 1}
    elif method != "RK45":
        options["jac"] = rates.sparse
    # BDF subtracts from rows of its table that nothing has been written to yet.
    with np.errstate(invalid="ignore", over="ignore"):
        found = integrate.solve_ivp(rates, (times[0], times[-1]), state, method=method, t_eval=times, **options)
    if not found.success:
        raise RuntimeError(f"{method} stopped at t = {found.t[-1] if found.t.size else times[0]:g}: {found.message}")
    u = found.y.T
    return SorptionReference((np.arange(n_cells) + 0.5) / n_cells, times, u, rates.right(u[1:].T), int(found.nfev))


class _Rates:
    """du/dt of all cells, and its Jacobian."""

    def __init__(self, problem: DiffusionSorption, n_cells: int, ends: Ends) -> None:
        if ends not in ("face", "cell"):
            raise ValueError(f"ends must be 'face' or 'cell', got {ends!r}")
        self._problem, self._h, self._n = problem, 1 / n_cells, n_cells
        self._diffusivity = float(problem.diffusivity)
        slope = problem.right_sign * self._diffusivity / self._h
        # The cell beyond each end, linear in the two next to it.
        if ends == "cell":
            self._left, self._right = (1.0, 0.0), (slope, -slope)
        elif slope < 0.5:
            self._left, self._right = (2.0, -1.0), (-(0.5 + slope) / (0.5 - slope), 0.0)
        else:
            raise ValueError(f"with right_sign 1 a cell must be wider than 2 D = {2 * self._diffusivity:g}, got 1/{n_cells}: ill-posed")

    def __call__(self, t: float, u: np.ndarray) -> np.ndarray:
        del t
        return self._effective(u)[0] * self._laplacian(u)

    def right(self, u: np.ndarray) -> np.ndarray:
        """The value on the face at x = 1."""
        return (u[-1] + self._right[0] * u[-1] + self._right[1] * u[-2]) / 2

    def banded(self, t: float, u: np.ndarray) -> np.ndarray:
        """Row 1 + i - j, column j: the derivative of rate i by value j."""
        lower, diagonal, upper = self._diagonals(t, u)
        packed = np.zeros((3, u.size))
        packed[0, 1:], packed[1], packed[2, :-1] = upper, diagonal, lower
        return packed

    def sparse(self, t: float, u: np.ndarray) -> Any:
        """The same as a sparse matrix."""
        return sparse.diags(self._diagonals(t, u), (-1, 0, 1), format="csc")  # pyright: ignore[reportArgumentType]

    def _diagonals(self, t: float, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        del t
        effective, slope = self._effective(u)
        coefficient = effective / self._h**2
        diagonal = slope * self._laplacian(u) - 2 * coefficient
        diagonal[0] += self._left[1] * coefficient[0]
        diagonal[-1] += self._right[0] * coefficient[-1]
        lower = coefficient[1:].copy()
        lower[-1] += self._right[1] * coefficient[-1]
        return lower, diagonal, coefficient[:-1]

    def _laplacian(self, u: np.ndarray) -> np.ndarray:
        beyond = np.empty(self._n + 2)
        beyond[1:-1] = u
        beyond[0] = self._left[0] + self._left[1] * u[0]
        beyond[-1] = self._right[0] * u[-1] + self._right[1] * u[-2]
        return (beyond[2:] - 2 * u + beyond[:-2]) / self._h**2

    def _effective(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """D/R and its derivative."""
        problem = self._problem
        base = np.maximum(u, 0.0) + problem.guard
        power = problem.strength * base ** (problem.exponent - 1)
        effective = self._diffusivity / (1 + power)
        slope = -effective / (1 + power) * (problem.exponent - 1) * power / base
        return effective, np.where(u > 0, slope, 0.0)
