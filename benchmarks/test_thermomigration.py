"""Isothermal Cahn–Hilliard at equal error, cosine transforms beside the real FFT, and a step beside the transforms that it needs."""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
from turns import Rival, in_turns

from gradatim.numerics import (
    cosine_fourier_transform,
    cosine_transform,
    cosine_transform_2d,
    inverse_cosine_fourier_transform,
    inverse_cosine_transform,
    inverse_cosine_transform_2d,
)
from gradatim.physics.phase_field import PhaseMobility, QuarticTwoPhase, Thermotransport

sys.path.append(str(Path(__file__).parent / "peers"))
import spinodal  # pyright: ignore[reportMissingImports]
import timing  # pyright: ignore[reportMissingImports]

REPEATS = 50  # inside one compiled loop: a call's own overhead is no part of a transform


@functools.cache
def solver(n, dt, end, order, dtype):
    free_energy = QuarticTwoPhase(barrier=0.25, matrix=-1.0, precipitate=1.0)
    model = Thermotransport((n, n), free_energy, 1.0, mobility=PhaseMobility(1.0), kappa=spinodal.GAMMA / 2)
    # Half way to the spinodal middle, M ∂²f/∂c² = -1, where exponax linearises; the first order needs more to be stable.
    step = model.stepper(dt, order=order, stabilisation=-0.5 if order == 2 else 0.0)
    run = jax.jit(lambda u: jax.lax.fori_loop(0, round(end / dt), lambda _, v: step(v), u))
    return run.lower(jax.ShapeDtypeStruct((n, n), dtype)).compile()


@functools.cache
def start(n, dtype):
    return jnp.asarray(spinodal.start(n), dtype)


def solve(n, dt, end, order, dtype):
    return np.asarray(solver(n, dt, end, order, dtype)(start(n, dtype)))


@functools.cache
def reference(n):
    with jax.enable_x64(True):
        return solve(n, 4 * spinodal.REFERENCE, spinodal.END, 2, "float64")


@pytest.mark.parametrize("n", spinodal.SIZES)
@pytest.mark.parametrize("name", ["gradatim", "gradatim float64", "gradatim order 1"])
def test_cahn_hilliard(benchmark, name, n):
    order, dtype = 1 if "order 1" in name else 2, "float64" if "float64" in name else "float32"
    benchmark.group, benchmark.param = f"cahn-hilliard {n}²", name
    exact = reference(n)
    with jax.enable_x64(dtype == "float64"):
        dt, error = np.nan, np.inf
        for dt in spinodal.TIME_STEPS:
            try:
                end = solve(n, dt, spinodal.END, order, dtype)
            except ValueError:  # the time step is refused as unstable
                continue
            error = spinodal.error(end, exact)
            if error <= spinodal.TARGET:
                break
        assert error <= spinodal.TARGET
        call = functools.partial(solve, n, dt, spinodal.END, order, dtype)
        benchmark.pedantic(call, rounds=timing.rounds(call))
    benchmark.extra_info.update({"time units a second": spinodal.END / benchmark.stats.stats.median, "dt": dt, "error in time": error})


def identity_1d(u):
    return jnp.fft.irfft(jnp.fft.rfft(u), u.shape[-1])


def identity_2d(u):
    return jnp.fft.irfft2(jnp.fft.rfft2(u), u.shape)


def behind_a_product(u):
    # An FFT that follows a loop on several threads runs on one: XLA goes on in a thread of its pool, from which the FFT takes no other.
    last = jnp.nextafter(np.float32(1), np.float32(0))
    spectrum = jnp.fft.rfft2(jax.lax.optimization_barrier(last * u))
    return jnp.fft.irfft2(jax.lax.optimization_barrier(spectrum / last), u.shape)


def mixed(u):
    return inverse_cosine_fourier_transform(cosine_fourier_transform(u), u.shape[1])


PAIRS = {
    "real FFT, one axis": identity_1d,
    "cosine, one axis": lambda u: inverse_cosine_transform(cosine_transform(u)),
    "real FFT, two axes": identity_2d,
    "real FFT, two axes, each behind a product": behind_a_product,
    "cosine, two axes": lambda u: inverse_cosine_transform_2d(cosine_transform_2d(u)),
    "cosine and Fourier": mixed,
    "jax.scipy.fft.dctn": lambda u: jax.scipy.fft.idctn(jax.scipy.fft.dctn(u)),
}


def repeated(run, u):
    compiled = jax.jit(lambda u: jax.lax.fori_loop(0, REPEATS, lambda _, v: run(v), u)).lower(u).compile()
    return Rival(lambda: jax.block_until_ready(compiled(u)))


@pytest.mark.parametrize("n", spinodal.SIZES)
def test_transform_pairs(benchmark, n):
    u = jnp.asarray(spinodal.start(n), jnp.float32)
    np.testing.assert_allclose(cosine_transform_2d(u), np.asarray(scipy.fft.dctn(np.asarray(u))), atol=1e-6 * n**2)
    for pair in PAIRS.values():
        np.testing.assert_allclose(pair(u), u, atol=1e-5)
    in_turns(
        benchmark, f"transform pair {n}², float32, {REPEATS} times", {name: repeated(run, u) for name, run in PAIRS.items()}, rounds=15
    )


@pytest.mark.parametrize("n", spinodal.SIZES)
def test_step_beside_its_transforms(benchmark, n):
    u = jnp.asarray(0.5 + 0.4 * spinodal.start(n), jnp.float32)
    inclined = jnp.asarray(1 + 1e-3 * (np.arange(n)[:, None] / n - 0.5), jnp.float32)
    rivals = {"bare transforms": repeated(mixed, u)}
    for name, temperature in (("step, uniform temperature", 1.0), ("step, temperature gradient", inclined)):
        step = Thermotransport((n, n), QuarticTwoPhase(matrix_slope=0.1), temperature).stepper(0.2)
        rivals[name] = repeated(step, u)
    in_turns(benchmark, f"thermotransport step {n}², float32, {REPEATS} times", rivals, rounds=15)
