"""Training and test error of a linear student of a noisy linear teacher, at every moment of training
(Advani, Saxe and Sompolinsky, arXiv:1710.03667).

    y = w̄ x + ε,     x ~ N(0, 1/N) in N dimensions, w̄ ~ N(0, σ_w²), ε ~ N(0, σ_ε²);     P samples;     α = P/N
    dw/dt = (y - w X) Xᵀ,     w(0) ~ N(0, σ₀²);     SNR = σ_w²/σ_ε²,     INR = σ₀²/σ_ε²

In units of σ_ε², for N → ∞ at fixed α, with λ from the Marchenko–Pastur law, r = exp(-λt) what is left of the start in a direction and
ψ = (1 - r)/λ,

    test       E_g = 1 + E[(SNR + INR) r² + λψ²]
    training   E_t = max(0, 1 - 1/α) + E₊[((SNR + INR) λ + 1) r²] / α      (E₊: without λ = 0)
    weights    |w|²/N = E[SNR (1 - r)² + λψ² + INR r²]

For k steps of size h of gradient descent r = (1 - hλ)ᵏ, and r = g/(λ + g) for the ridge penalty g (without a start). The article's text
was not at hand: the formulas were derived anew from the set-up. Conventions that other texts do not share: α is *samples over
parameters*, inputs have variance 1/N (with variance 1 all times are N times shorter), the rate of the flow is that of the sum over
samples, and the test error holds the noise of the new sample, the 1.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.numerics.checks import is_known
from gradatim.numerics.marchenko_pastur import MarchenkoPastur
from gradatim.numerics.ridge import LeastSquares, as_row_of, check_not_negative, descent_decay, least_squares

Number = float | Float[Array, ""]


class Errors(eqx.Module):
    """What training has come to, in units of the noise's variance."""

    train: Float[Array, "*times"]
    test: Float[Array, "*times"]
    "On a new noisy sample: never below 1."
    weight_norm: Float[Array, "*times"]
    "|w|²/N."


def gradient_flow_errors(
    time: float | Float[Array, "*times"], alpha: Number, snr: Number, inr: Number = 0.0, *, n_nodes: int = 4096
) -> Errors:
    """Both errors and the weights' norm at any times of gradient flow, in the limit of large N.

    **Arguments:** `time` ≥ 0, ∞ allowed; `alpha` > 0, samples over parameters; `snr`, `inr` ≥ 0, variances of the teacher's and of the
    initial weights over that of the noise; `n_nodes`: of the integral, which at α = 1 resolves times up to (n_nodes/8)².

    **Raises:** `ValueError` for a number out of its range.

    >>> errors = gradient_flow_errors(jnp.array([0.0, 2.7, jnp.inf]), 0.5, 5.0)
    >>> print("test", " ".join(f"{e:.2f}" for e in errors.test), " training", " ".join(f"{e:.2f}" for e in errors.train))
    test 6.00 4.13 4.50  training 6.00 0.20 0.00
    """
    _check(alpha, snr, inr)
    check_not_negative("time", time)
    return _flow_errors(time, alpha, snr, inr, n_nodes=n_nodes)


@partial(jax.jit, static_argnames="n_nodes")
def _flow_errors(time: Array, alpha: Array, snr: Array, inr: Array, *, n_nodes: int) -> Errors:
    law = MarchenkoPastur(alpha)
    t = jnp.asarray(time) * jnp.ones_like(law.alpha)
    is_finite = jnp.isfinite(t)
    within = jnp.where(is_finite, t, 0)[..., None]
    eigenvalues, weights = law.quadrature(n_nodes=n_nodes)
    eigenvalues = as_row_of(eigenvalues, within)
    left, gone = jnp.exp(-eigenvalues * within), -jnp.expm1(-eigenvalues * within)
    errors, end = _errors(law, weights, eigenvalues, left, gone, snr, inr), infinite_time_errors(alpha, snr, inr)
    return jax.tree.map(lambda now, last: jnp.where(is_finite, now, last), errors, end)


def gradient_descent_errors(
    n_steps: int | Int[Array, "*times"], alpha: Number, snr: Number, inr: Number = 0.0, *, step_size: Number, n_nodes: int = 4096
) -> Errors:
    """The same after numbers of steps of gradient descent, w ← w + h (y - wX) Xᵀ: near the flow at t = hk only for h ≪ 2/λ₊.

    **Raises:** `ValueError` for a number out of its range, or a step size that is not in (0, 2/λ₊), where the steps diverge.

    >>> few, many = (gradient_descent_errors(k, 0.5, 5.0, step_size=2.7 / k).test for k in (5, 500))
    >>> print(f"{few:.3f} {many:.3f}")
    4.143 4.130
    """
    _check(alpha, snr, inr)
    check_not_negative("n_steps", n_steps)
    if is_known(step_size, alpha) and not 0 < step_size < (limit := 2 / (1 + float(alpha) ** 0.5) ** 2):
        raise ValueError(f"step_size must lie in (0, {limit:.4g}), below 2 / (largest eigenvalue), got {step_size}")
    return _descent_errors(n_steps, alpha, snr, inr, step_size, n_nodes=n_nodes)


@partial(jax.jit, static_argnames="n_nodes")
def _descent_errors(n_steps: Array, alpha: Array, snr: Array, inr: Array, step_size: Array, *, n_nodes: int) -> Errors:
    law = MarchenkoPastur(alpha)
    k = jnp.asarray(n_steps)[..., None] * jnp.ones_like(law.alpha)
    eigenvalues, weights = law.quadrature(n_nodes=n_nodes)
    eigenvalues = as_row_of(eigenvalues, k)
    left = descent_decay(eigenvalues, k, step_size=step_size)
    return _errors(law, weights, eigenvalues, left, 1 - left, snr, inr)


def infinite_time_errors(alpha: Number, snr: Number, inr: Number = 0.0) -> Errors:
    """The end of training, without early stopping.

        α < 1: E_g = 1 + (1 - α)(SNR + INR) + α/(1 - α)          α > 1: E_g = α/(α - 1)          α = 1: ∞

    The frozen share 1 - α of directions keeps its start and never learns; the noise that the others learn is worst at α = 1.

    >>> " ".join(f"{infinite_time_errors(alpha, 5.0).test:.2f}" for alpha in (0.25, 0.5, 1.0, 2.0, 4.0))
    '5.08 4.50 inf 2.00 1.33'
    """
    _check(alpha, snr, inr)
    law = MarchenkoPastur(alpha)
    noise, moved = law.inverse_mean(), 1 - law.zero_mass
    return Errors(
        train=jnp.maximum(0, 1 - 1 / law.alpha),
        test=1 + law.zero_mass * (snr + inr) + noise,
        weight_norm=moved * snr + noise + law.zero_mass * inr,
    )


def optimal_stopping_time(alpha: Number, snr: Number, inr: Number = 0.0, *, n_nodes: int = 4096) -> Float[Array, ""]:
    """The time at which the test error of gradient flow is least.

    In a direction alone it is log(1 + λ (SNR + INR))/λ, which falls with λ: the best time for all lies between those of both ends of the
    spectrum, and is the root of dE_g/dt there. 0 without signal, ∞ without noise.

    **Arguments** and errors as for [`gradient_flow_errors`][gradatim.landscape.gradient_flow_errors]. Differentiable by the implicit
    function theorem.

    >>> " ".join(f"{optimal_stopping_time(1.0, snr):.2f}" for snr in (1.0, 5.0, 100.0))
    '0.68 3.07 60.40'
    """
    _check(alpha, snr, inr)
    return _stopping_time(alpha, snr, inr, n_nodes=n_nodes)


@partial(jax.jit, static_argnames="n_nodes")
def _stopping_time(alpha: Array, snr: Array, inr: Array, *, n_nodes: int) -> Array:
    law = MarchenkoPastur(alpha)
    signal = (jnp.asarray(snr) + inr) * jnp.ones_like(law.alpha)
    is_proper = (signal > 0) & jnp.isfinite(signal)
    s = jnp.where(is_proper, signal, 1)
    eigenvalues, weights = law.quadrature(n_nodes=n_nodes)
    low, high = law.support

    def slope(logarithm: Array, args: tuple[Array, Array, Array]) -> Array:
        """½ dE_g/dt over what it is at most."""
        s, eigenvalues, weights = args
        left = jnp.exp(-eigenvalues * jnp.exp(logarithm))
        return jnp.sum(weights * left * (1 - (1 + eigenvalues * s) * left)) / jnp.sum(weights * left)

    # Where the lower end is zero, the limit; a little further out, so that a spectrum of one point has a bracket too.
    is_apart = low > 0
    latest = jnp.where(is_apart, jnp.log1p(low * s) / jnp.where(is_apart, low, 1), s)
    bracket = {"lower": jnp.log(jnp.log1p(high * s) / high) - 0.01, "upper": jnp.log(latest) + 0.01}
    bisection = optx.Bisection(rtol=0.0, atol=4 * float(jnp.finfo(s.dtype).eps), flip=False)
    start = (bracket["lower"] + bracket["upper"]) / 2
    # Where the tolerance is below round-off, all steps are taken.
    found = optx.root_find(slope, bisection, start, (s, eigenvalues, weights), bracket, max_steps=60, throw=False)
    return jnp.where(is_proper, jnp.exp(found.value), jnp.where(signal > 0, jnp.inf, 0))


def ridge_risk(alpha: Number, snr: Number, penalty: Number) -> Float[Array, ""]:
    """The test error of ridge regression, min ‖y - wX‖² + g ‖w‖², in closed form with m(g) = E 1/(λ + g).

        E_g = 1 + E[(SNR g² + λ)/(λ + g)²] = 1 + m(g) - g (SNR g - 1) m′(g)

    **Arguments:** as before; `penalty` g > 0.

    **Raises:** `ValueError` for a number out of its range.

    >>> print(f"{ridge_risk(1.0, 1.0, 1.0):.6f}: the golden ratio")
    1.618034: the golden ratio
    """
    _check(alpha, snr, 0.0)
    if is_known(penalty) and not penalty > 0:
        raise ValueError(f"penalty must be positive, got {penalty}")
    law = MarchenkoPastur(alpha)
    g = jnp.asarray(penalty) * jnp.ones_like(law.alpha)
    m = law.stieltjes(g)
    steepness = m * (m + 1) / jnp.sqrt((g + law.alpha - 1) ** 2 + 4 * g)  # -m′(g)
    return 1 + m + g * (snr * g - 1) * steepness


class OptimalRidge(NamedTuple):
    """The best penalty and what it comes to."""

    penalty: Float[Array, ""]
    test: Float[Array, ""]


def optimal_ridge(alpha: Number, snr: Number) -> OptimalRidge:
    """The best ridge penalty is 1/SNR, whatever α, and its test error 1 + m(1/SNR).

    **Raises:** `ValueError` unless α and SNR are positive.

    >>> print(f"{optimal_ridge(2.0, 1.0).test:.6f}")
    1.414214
    """
    _check(alpha, snr, 0.0)
    if is_known(snr) and not snr > 0:
        raise ValueError(f"snr must be positive for a best penalty, got {snr}")
    law = MarchenkoPastur(alpha)
    penalty = 1 / (jnp.asarray(snr) * jnp.ones_like(law.alpha))
    return OptimalRidge(penalty, 1 + law.stieltjes(penalty))


class LinearTeacher(eqx.Module):
    """A draw of the set-up, with noise of variance 1: one set of inputs, several teachers with noise and initial weights of their own."""

    problem: LeastSquares
    teacher: Float[Array, "parameters teachers"]
    start: Float[Array, "parameters teachers"]

    def test_error(self, weights: Float[Array, "*times parameters teachers"]) -> Float[Array, "*times teachers"]:
        """E (y - wx)² over new samples, |w - w̄|²/N + 1: exact, no sample is drawn."""
        away = weights - self.teacher.reshape((1,) * (weights.ndim - 2) + self.teacher.shape)
        return jnp.mean(away**2, axis=-2) + 1


def linear_teacher(
    n_parameters: int, n_samples: int, *, snr: Number, inr: Number = 0.0, n_teachers: int = 1, key: PRNGKeyArray
) -> LinearTeacher:
    """Draws inputs of variance 1/N, teachers, noise of variance 1 and initial weights, and decomposes the inputs.

    Averages over teachers alone are averages at one X: at α = 1, where a few small eigenvalues decide, draw many X.

    **Raises:** `ValueError` for a size below 1 or a negative ratio.

    >>> draw = linear_teacher(20, 10, snr=5.0, n_teachers=3, key=jax.random.key(0))
    >>> draw.problem.inputs.shape, draw.problem.targets.shape
    ((10, 20), (10, 3))
    """
    for name, number in (("n_parameters", n_parameters), ("n_samples", n_samples), ("n_teachers", n_teachers)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    _check(1.0, snr, inr)
    inputs, targets, teacher, start = _draw(key, snr, inr, n_parameters, n_samples, n_teachers)
    return LinearTeacher(least_squares(inputs, targets), teacher, start)


@partial(jax.jit, static_argnums=(3, 4, 5))
def _draw(key: PRNGKeyArray, snr: Array, inr: Array, n: int, p: int, m: int) -> tuple[Array, Array, Array, Array]:
    # In one flat draw: a fraction of the time to compile.
    draws = jnp.split(jax.random.normal(key, (p * n + 2 * n * m + p * m,)), np.cumsum([p * n, n * m, n * m]))
    inputs, teacher = draws[0].reshape(p, n) / n**0.5, draws[1].reshape(n, m) * snr**0.5
    return inputs, inputs @ teacher + draws[3].reshape(p, m), teacher, draws[2].reshape(n, m) * inr**0.5


def sample_errors(draw: LinearTeacher, time: float | Float[Array, "*times"]) -> Errors:
    """Both errors and the weights' norm of a draw at any times of gradient flow, of each of its teachers along the last axis.

    >>> draw = linear_teacher(200, 100, snr=5.0, n_teachers=20, key=jax.random.key(0))
    >>> errors = sample_errors(draw, jnp.array([2.0, 100.0]))
    >>> print("mean test error", " ".join(f"{e:.1f}" for e in errors.test.mean(axis=1)), " in theory 4.15 4.50")
    mean test error 4.2 4.5  in theory 4.15 4.50
    """
    fits = draw.problem.gradient_flow(time, draw.start)
    return Errors(fits.training_error, draw.test_error(fits.weights), jnp.mean(fits.weights**2, axis=-2))


def _errors(law: MarchenkoPastur, weights: Array, eigenvalues: Array, left: Array, gone: Array, snr: Number, inr: Number) -> Errors:
    """The three sums over the spectrum: `left` is r, `gone` 1 - r."""
    learned_noise = gone**2 / eigenvalues
    start = jnp.asarray(snr) + inr
    floor = jnp.maximum(0, 1 - 1 / law.alpha)
    return Errors(
        train=floor + ((start * eigenvalues + 1) * left**2) @ weights / law.alpha,
        test=1 + (start * left**2 + learned_noise) @ weights + law.zero_mass * start,
        weight_norm=(snr * gone**2 + learned_noise + inr * left**2) @ weights + law.zero_mass * inr,
    )


def _check(alpha: Number, snr: Number, inr: Number) -> None:
    if is_known(alpha) and not alpha > 0:
        raise ValueError(f"alpha, samples over parameters, must be positive, got {alpha}")
    check_not_negative("snr", snr)
    check_not_negative("inr", inr)
