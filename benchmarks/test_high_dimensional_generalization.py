"""Least squares along a path and its errors in theory: ours beside scikit-learn, NumPy, SciPy, diffrax and a loop of gradient descent.

All in double precision on the same data, decompositions included. Every answer is compared with one reference first: ours has to agree, how
far off the others are stands in the table.
"""

from functools import partial
from typing import Any

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate
from sklearn.linear_model import LinearRegression, Ridge

from gradatim.landscape import gradient_flow_errors
from gradatim.numerics import least_squares

SAMPLES, PARAMETERS = 300, 1000
PENALTIES = np.geomspace(1e-3, 1e2, 100)
TIMES = np.linspace(0.0, 50.0, 51)
STEPS = 20
"Of gradient descent in one unit of time: 1/50 of the limit of stability."
RATIO, SNR, THEORY_TIMES = 0.5, 5.0, np.geomspace(0.1, 100, 100)
AGREEMENT = 1e-8


@pytest.fixture(scope="module")
def problem() -> Any:
    """Inputs of variance 1/N, a linear teacher and noise."""
    random = np.random.default_rng(0)
    X = random.normal(size=(SAMPLES, PARAMETERS)) / PARAMETERS**0.5
    return X, X @ random.normal(size=PARAMETERS) * SNR**0.5 + random.normal(size=SAMPLES)


def reference(X: Any, y: Any, psi: Any) -> Any:
    """By the singular value decomposition."""
    U, s, V = np.linalg.svd(X, full_matrices=False)
    return np.stack([V.T @ (row * s * (U.T @ y)) for row in psi(s**2)])


def compiled(fn: Any) -> Any:
    jitted = jax.jit(fn)
    return lambda X, y: jax.block_until_ready(jitted(jnp.asarray(X), jnp.asarray(y)))


def with_sklearn(X: Any, y: Any, **settings: Any) -> Any:
    return np.stack([Ridge(alpha=penalty, fit_intercept=False, **settings).fit(X, y).coef_ for penalty in PENALTIES])


def with_cholesky(X: Any, y: Any) -> Any:
    gram, eye = X @ X.T, jnp.eye(SAMPLES)
    return jax.lax.map(lambda g: X.T @ jax.scipy.linalg.solve(gram + g * eye, y, assume_a="pos"), jnp.asarray(PENALTIES))


def with_descent(X: Any, y: Any) -> Any:
    def unit(w: Any, _: Any) -> Any:
        later = jax.lax.fori_loop(0, STEPS, lambda _, w: w + X.T @ (y - X @ w) / STEPS, w)
        return later, later

    start = jnp.zeros(PARAMETERS)
    return jnp.concatenate([start[None], jax.lax.scan(unit, start, length=len(TIMES) - 1)[1]])


def with_diffrax(X: Any, y: Any) -> Any:
    term = dfx.ODETerm(lambda t, w, args: args[0].T @ (args[1] - args[0] @ w))
    controller = dfx.PIDController(rtol=1e-8, atol=1e-10)
    times = jnp.asarray(TIMES)
    first, last = times[0], times[-1]
    save = dfx.SaveAt(ts=times)
    return dfx.diffeqsolve(
        term, dfx.Tsit5(), first, last, None, jnp.zeros(PARAMETERS), (X, y), saveat=save, stepsize_controller=controller
    ).ys


PATHS: dict[str, Any] = {
    f"ridge, 100 penalties, {SAMPLES} samples of {PARAMETERS} parameters": (
        lambda eigenvalues: 1 / (eigenvalues + PENALTIES[:, None]),
        {
            "gradatim": compiled(lambda X, y: least_squares(X, y).ridge(jnp.asarray(PENALTIES)).weights),
            "scikit-learn Ridge": with_sklearn,
            "scikit-learn Ridge, SVD": partial(with_sklearn, solver="svd"),
            "JAX, a Cholesky factor for each": compiled(with_cholesky),
        },
    ),
    f"gradient flow at 51 times, {SAMPLES} samples of {PARAMETERS} parameters": (
        lambda eigenvalues: -np.expm1(-eigenvalues * TIMES[:, None]) / eigenvalues,
        {
            "gradatim": compiled(lambda X, y: least_squares(X, y).gradient_flow(jnp.asarray(TIMES)).weights),
            "JAX, gradient descent": compiled(with_descent),
            "diffrax Tsit5": compiled(with_diffrax),
        },
    ),
    f"minimum norm, {SAMPLES} samples of {PARAMETERS} parameters": (
        lambda eigenvalues: 1 / eigenvalues[None],
        {
            "gradatim": compiled(lambda X, y: least_squares(X, y).minimum_norm().weights[None]),
            "NumPy lstsq": lambda X, y: np.linalg.lstsq(X, y, rcond=None)[0][None],
            "JAX lstsq": compiled(lambda X, y: jnp.linalg.lstsq(X, y, rcond=None)[0][None]),
            "scikit-learn LinearRegression": lambda X, y: LinearRegression(fit_intercept=False).fit(X, y).coef_[None],
        },
    ),
}


@pytest.mark.parametrize(("group", "peer"), [(group, peer) for group, (_, peers) in PATHS.items() for peer in peers])
def test_path(benchmark: Any, problem: Any, group: str, peer: str) -> None:
    psi, peers = PATHS[group]
    benchmark.group, benchmark.param = group, peer
    with jax.enable_x64(True):
        X, y = problem
        exact, found = reference(X, y, psi), np.asarray(peers[peer](X, y))
        error = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
        if peer == "gradatim":
            assert error < AGREEMENT
        benchmark.extra_info["relative error"] = error
        benchmark.pedantic(lambda: peers[peer](X, y), rounds=7, warmup_rounds=1)


def theory_by_quadrature(eps: float) -> Any:
    """E_g at every time by SciPy's adaptive rule over the eigenvalue."""
    root = RATIO**0.5
    low, high = (root - 1) ** 2, (root + 1) ** 2

    def density(x: float) -> float:
        return np.sqrt(max((high - x) * (x - low), 0)) / (2 * np.pi * x)

    def error(t: float) -> float:
        def integrand(x: float) -> float:
            return density(x) * (SNR * np.exp(-2 * x * t) + np.expm1(-x * t) ** 2 / x)

        return 1 + (1 - RATIO) * SNR + integrate.quad(integrand, low, high, epsabs=eps, epsrel=eps, limit=200)[0]

    return np.array([error(t) for t in THEORY_TIMES])


def theory_by_law() -> Any:
    return jax.block_until_ready(gradient_flow_errors(jnp.asarray(THEORY_TIMES), RATIO, SNR).test)


THEORY = {"gradatim": theory_by_law, "scipy.integrate.quad": partial(theory_by_quadrature, 1e-9)}


@pytest.mark.parametrize("peer", THEORY)
def test_theory(benchmark: Any, peer: str) -> None:
    benchmark.group, benchmark.param = "test error in theory at 100 times", peer
    with jax.enable_x64(True):
        error = float(np.abs(np.asarray(THEORY[peer]()) - theory_by_quadrature(1e-12)).max())
        assert error < AGREEMENT
        benchmark.extra_info["largest error"] = error
        benchmark.pedantic(THEORY[peer], rounds=7, warmup_rounds=1)
