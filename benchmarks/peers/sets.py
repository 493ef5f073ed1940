"""Points to be projected onto four convex sets, their projections by slow methods that cannot go wrong, and cotangents pulled back."""

from __future__ import annotations

import numpy as np

AGREEMENT = 1e-6
"Largest distance of a projection, and of a cotangent, from the exact one, relative to its largest entry."
SECTION = "projection onto a section of a box, 1000 unknowns, and its cotangent"
POLYHEDRON = "projection onto a polyhedron, 50 unknowns, 100 inequalities, and its cotangent"
TRANSPORTATION = "projection onto a transportation polytope, 100 x 300, and its cotangent"
BIRKHOFF = "projection onto the Birkhoff polytope, 200 x 200, and its cotangent"
Problem = dict[str, np.ndarray]


def section() -> Problem:
    """aᵀx = b, l ≤ x ≤ u: the multiplier of the hyperplane by bisection."""
    random = np.random.default_rng(0)
    v, a, cotangent = random.normal(size=1000), random.uniform(0.5, 2.0, 1000), random.normal(size=1000)
    lower, upper = np.full(1000, -0.5), np.full(1000, 0.5)
    b = np.asarray(10.0)
    low, high = -100.0, 100.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if a @ np.clip(v + middle * a, lower, upper) > b else (middle, high)
    x = np.clip(v + low * a, lower, upper)
    free = (x > lower) & (x < upper)
    pulled = free * _within(a[None] * free, cotangent)
    return {"v": v, "a": a, "b": b, "lower": lower, "upper": upper, "cotangent": cotangent, "x": x, "pulled": pulled}


def polyhedron() -> Problem:
    """A x = b, G x ≤ h: the multipliers one by one, over and over (Hildreth)."""
    random = np.random.default_rng(1)
    A, G, v, cotangent = random.normal(size=(5, 50)), random.normal(size=(100, 50)), 3 * random.normal(size=50), random.normal(size=50)
    inside = random.normal(size=50)
    b, h = A @ inside, G @ inside + random.uniform(0.1, 1.0, 100)
    rows, sides = np.concatenate([A, G]), np.concatenate([b, h])
    x, multipliers, norms = v.copy(), np.zeros(105), (rows**2).sum(1)
    for _ in range(5000):
        for i in range(105):
            move = (rows[i] @ x - sides[i]) / norms[i]
            move = move if i < 5 else max(move, -multipliers[i])
            multipliers[i] += move
            x -= move * rows[i]
    active = (np.arange(105) < 5) | (multipliers > 1e-9)
    return {"v": v, "A": A, "b": b, "G": G, "h": h, "cotangent": cotangent, "x": x, "pulled": _within(rows[active], cotangent)}


def transportation() -> Problem:
    """X 1 = a, Xᵀ 1 = b, X ≥ 0."""
    random = np.random.default_rng(2)
    a, b = random.dirichlet(np.full(100, 3.0)), random.dirichlet(np.full(300, 3.0))
    return _with_sums(random.uniform(size=(100, 300)) / 300, a, b, random.normal(size=(100, 300)))


def birkhoff() -> Problem:
    """All sums 1."""
    random = np.random.default_rng(3)
    return _with_sums(random.normal(size=(200, 200)), np.ones(200), np.ones(200), random.normal(size=(200, 200)))


WORK = {SECTION: section, POLYHEDRON: polyhedron, TRANSPORTATION: transportation, BIRKHOFF: birkhoff}


def errors(problem: Problem, x: np.ndarray, pulled: np.ndarray) -> dict[str, float]:
    """Of a projection and a cotangent, relative to their largest entries."""
    found = {"error": (x, problem["x"]), "error of the cotangent": (pulled, problem["pulled"])}
    return {name: float(np.abs(one - exact).max() / np.abs(exact).max()) for name, (one, exact) in found.items()}


def _with_sums(v: np.ndarray, a: np.ndarray, b: np.ndarray, cotangent: np.ndarray) -> Problem:
    """The shifts of rows and of columns in turns, each exactly."""
    alpha, beta = np.zeros(len(a)), np.zeros(len(b))
    for _ in range(20_000):
        alpha = _shifts(v + beta, a)
        moved = _shifts((v + alpha[:, None]).T, b)
        change, beta = np.abs(moved - beta).max(), moved
        if change < 1e-15:
            break
    x = np.maximum(v + alpha[:, None] + beta, 0)
    rows, columns = np.nonzero(x > 0)
    sums = np.concatenate([np.arange(len(a))[:, None] == rows, np.arange(len(b))[:, None] == columns]).astype(float)
    pulled = np.zeros_like(v)
    pulled[rows, columns] = _within(sums, cotangent[rows, columns])
    return {"v": v, "a": a, "b": b, "cotangent": cotangent, "x": x, "pulled": pulled}


def _shifts(v: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """What, added to each row, makes the sums of its positive entries right."""
    ordered = -np.sort(-v, axis=1)
    excess = np.cumsum(ordered, axis=1) - sums[:, None]
    counts = (ordered * np.arange(1, v.shape[1] + 1) > excess).sum(1, keepdims=True)
    return -np.take_along_axis(excess, counts - 1, axis=1)[:, 0] / counts[:, 0]


def _within(rows: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    """The part of a cotangent along which no active constraint changes."""
    return cotangent - rows.T @ np.linalg.lstsq(rows @ rows.T, rows @ cotangent, rcond=1e-12)[0]
