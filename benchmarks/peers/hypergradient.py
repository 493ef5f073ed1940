"""Two solutions and cotangents that ours and the peers pull back: a ridge regression's and a support-vector machine's."""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-8
"Of every iterative solve, relative to the right-hand side."
AGREEMENT = 1e-6
"Largest relative distance of a pulled-back cotangent from that of a factorisation."


def ridge() -> dict[str, np.ndarray]:
    """1000 samples, 600 coordinates with a penalty each: Φ, y, θ, the solution and a cotangent."""
    random = np.random.default_rng(0)
    scales = np.geomspace(1, 0.1, 600)
    Phi = random.normal(size=(1000, 600)) * scales / np.sqrt(1000)
    y, theta, cotangent = random.normal(size=1000), np.full(600, 1e-2), random.normal(size=600)
    matrix = Phi.T @ Phi + np.diag(theta)
    x = np.linalg.solve(matrix, Phi.T @ y)
    return {"Phi": Phi, "y": y, "theta": theta, "x": x, "cotangent": cotangent, "exact": -x * np.linalg.solve(matrix, cotangent)}


def project_rows(v: np.ndarray) -> np.ndarray:
    """The nearest point of the simplex to each row."""
    ordered = -np.sort(-v, axis=1)
    sums = np.cumsum(ordered, axis=1) - 1
    counts = (ordered * np.arange(1, v.shape[1] + 1) > sums).sum(1, keepdims=True)
    return np.maximum(v - np.take_along_axis(sums, counts - 1, axis=1) / counts, 0)


def machine() -> dict[str, np.ndarray]:
    """200 samples with 1000 features in 5 classes: X, one-hot Y, θ, the dual solution, the step of its fixed point and a cotangent."""
    random = np.random.default_rng(1)
    labels = np.arange(200) % 5
    X = random.normal(size=(200, 1000)) + 1.5 * random.normal(size=(5, 1000))[labels]
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    Y, theta, cotangent = np.eye(5)[labels], 1.0, random.normal(size=(200, 5))
    gram = X @ X.T
    rate = theta / np.linalg.eigvalsh(gram)[-1]
    x = np.full((200, 5), 0.2)
    momentum, before = x, x
    # Accelerated, and restarted every hundred steps.
    for i in range(20_000):
        x = project_rows(momentum - rate * (Y - gram @ (Y - momentum) / theta))
        momentum, before = x + (i % 100) / (i % 100 + 3) * (x - before), x
    return {
        "X": X,
        "Y": Y,
        "theta": np.asarray(theta),
        "x": x,
        "rate": np.asarray(rate),
        "cotangent": cotangent,
        "exact": _pulled(X, Y, theta, x, cotangent),
    }


def _pulled(X: np.ndarray, Y: np.ndarray, theta: float, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    """The cotangent of θ by the linear system of the support: Σⱼ xᵢⱼ = 1, and equal slopes where xᵢⱼ > 0."""
    gram = X @ X.T
    support = x > 1e-12
    rows, columns = np.nonzero(support)
    n, m = len(rows), len(x)
    hessian = gram[np.ix_(rows, rows)] * (columns[:, None] == columns[None]) / theta
    sums = (rows[None] == np.arange(m)[:, None]).astype(float)
    system = np.block([[hessian, sums.T], [sums, np.zeros((m, m))]])
    # The slope Y - XW has the derivative XW/θ in θ.
    scores = (gram @ (Y - x) / theta)[rows, columns]
    moved = np.linalg.lstsq(system, np.concatenate([-scores / theta, np.zeros(m)]), rcond=None)[0][:n]
    return np.asarray(moved @ cotangent[rows, columns])
