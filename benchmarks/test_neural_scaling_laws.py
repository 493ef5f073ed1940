"""Exact losses, their theory, dimensions and kernels; scikit-dimension and neural-tangents are in `peers/`.

Nobody ships the losses: their rivals are the formulas as they are written, by NumPy and SciPy. All in double precision, all answers
compared first.
"""

import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from gradatim.landscape import (
    intrinsic_dimension,
    loss_of_samples,
    power_law_spectrum,
    random_feature_loss,
    spectral_learning_curve,
    wide_kernels,
)

_spec = importlib.util.spec_from_file_location("scaling", Path(__file__).parent / "peers" / "scaling.py")
assert _spec is not None
assert _spec.loader is not None
scaling = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scaling)

THEORY_SIZES = np.array([8.0, 16, 32, 64, 128, 256, 512, 1024])
PAIRS = [(d, p) for d in (20, 60, 200) for p in (20, 60, 200)]


def curve_by_numpy(C: Any, Phi: Any) -> list[float]:
    """Each size by itself, with the pseudo-inverse."""
    losses = []
    for n in scaling.SIZES:
        rows = Phi[:n]
        fitted = np.trace(rows @ C @ rows.T @ np.linalg.pinv(rows @ rows.T, rcond=1e-12, hermitian=True))
        losses.append((np.trace(C) - fitted) / (2 * len(C)))
    return losses


def grid_by_numpy(C: Any, Phi: Any, Pr: Any) -> list[float]:
    """The definition, by the map between teachers."""
    losses = []
    for d, p in PAIRS:
        T = Pr[:p].T @ np.linalg.pinv(Phi[:d] @ Pr[:p].T, rcond=1e-12) @ Phi[:d]
        rest = np.eye(len(C)) - T
        losses.append(np.sum(rest * (C @ rest)) / (2 * len(C)))
    return losses


def theory_by_scipy(spectrum: Any) -> list[float]:
    """Brent's method for κ, which is the loss."""
    losses = []
    for D in THEORY_SIZES:
        excess = lambda log_kappa, D=D: np.sum(spectrum / (np.exp(log_kappa) + D * spectrum)) - 1  # noqa: E731
        ends = np.log((len(spectrum) - D) * spectrum[-1]), np.log(spectrum.sum())
        root: Any = optimize.brentq(excess, *ends, xtol=1e-13)
        losses.append(np.exp(root))
    return losses


@pytest.mark.parametrize("peer", ["gradatim", "NumPy, size by size"])
def test_curve(benchmark: Any, peer: str) -> None:
    benchmark.group, benchmark.param = scaling.CURVE, peer
    with jax.enable_x64(True):
        given = scaling.regression()
        C, Phi = jnp.asarray(given["C"]), jnp.asarray(given["Phi"])
        sizes = jnp.array(scaling.SIZES)
        ours = lambda: jax.block_until_ready(loss_of_samples(C, Phi, sizes).loss)  # noqa: E731
        theirs = lambda: curve_by_numpy(given["C"], given["Phi"])  # noqa: E731
        np.testing.assert_allclose(ours(), theirs(), rtol=1e-8)
        benchmark.pedantic(ours if peer == "gradatim" else theirs, rounds=20, warmup_rounds=2)


@pytest.mark.parametrize("peer", ["gradatim", "NumPy, pair by pair"])
def test_grid(benchmark: Any, peer: str) -> None:
    benchmark.group, benchmark.param = scaling.GRID, peer
    with jax.enable_x64(True):
        given = scaling.regression()
        C, Phi, Pr = (jnp.asarray(given[name]) for name in ("C", "Phi", "Pr"))
        d, p = jnp.array(PAIRS).T
        ours = lambda: jax.block_until_ready(random_feature_loss(C, Phi, Pr, d, p).loss)  # noqa: E731
        theirs = lambda: grid_by_numpy(given["C"], given["Phi"], given["Pr"])  # noqa: E731
        # At D = P the inverse amplifies round-off.
        np.testing.assert_allclose(ours(), theirs(), rtol=1e-4)
        benchmark.pedantic(ours if peer == "gradatim" else theirs, rounds=10, warmup_rounds=1)


@pytest.mark.parametrize("peer", ["gradatim", "SciPy, Brent's method"])
def test_theory(benchmark: Any, peer: str) -> None:
    benchmark.group, benchmark.param = scaling.THEORY, peer
    with jax.enable_x64(True):
        spectrum, sizes = power_law_spectrum(1.0, 200_000), jnp.asarray(THEORY_SIZES)
        on_host = np.asarray(spectrum)
        ours = lambda: jax.block_until_ready(spectral_learning_curve(spectrum, sizes).loss)  # noqa: E731
        theirs = lambda: theory_by_scipy(on_host)  # noqa: E731
        np.testing.assert_allclose(ours(), theirs(), rtol=1e-10)
        benchmark.pedantic(ours if peer == "gradatim" else theirs, rounds=5, warmup_rounds=1)


def test_dimension(benchmark: Any) -> None:
    benchmark.group, benchmark.param = scaling.DIMENSION, "gradatim"
    points = scaling.points()
    dimension = intrinsic_dimension(points)
    assert abs(dimension / 5 - 1) < 0.1
    benchmark.extra_info["dimension"] = dimension
    benchmark.pedantic(lambda: intrinsic_dimension(points), rounds=5, warmup_rounds=1)


def test_kernels(benchmark: Any) -> None:
    benchmark.group, benchmark.param = scaling.KERNELS, "gradatim"
    with jax.enable_x64(True):
        x = jnp.asarray(scaling.inputs())
        kernels = lambda: jax.block_until_ready(wide_kernels(x, x, n_hidden=2))  # noqa: E731
        benchmark.extra_info.update(scaling.checks(kernels().ntk))
        benchmark.pedantic(kernels, rounds=10, warmup_rounds=2)
