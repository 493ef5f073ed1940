"""Normal data in the plane, where everything is known: decompositions, likelihoods, covariances and Euler's steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Session
from gradatim.numerics import divergence
from gradatim.transport import (
    GaugeField,
    GaussianScore,
    ScoreFlow,
    flow_jacobian,
    flow_log_likelihood,
    gauge_residual,
    helmholtz_decomposition,
    linear_helmholtz,
)

from .fields import COVARIANCE, LAST, PATH, TURN, flat_normal, normal_field, over_pairs

GAUGES = (0.0, 0.5, 2.0)
"Strengths of c J ∇ log p."
ROTATIONS = (0.5, 2.0)
"Of c J x."
CLOSE = 1e-6
"1 - t at which likelihoods are read: at 0 the path is singular."
EULER = (20, 50, 100, 200)
N_FIELDS = 64
DIM_FIELDS = 4
DRAWN_TIMES = 1 - np.linspace(1, LAST ** (1 / 3), 121) ** 3
N_DATA, N_DRAWN = 64, 5
"Points at which likelihoods are compared, and starts of drawn flows."
MEANS = np.array([[1.0, 0.0], [-1.0, 0.7], [0.2, -1.5]])
WIDTHS = np.array([0.5, 0.8, 0.3])


def run_normal(session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Decompositions; likelihoods; flows with their derivatives; Euler's steps."""
    key_fields, key_points, key_starts = jax.random.split(key, 3)
    parts = session.once("decompositions", lambda: _host(_decompositions(key_fields, key_points)))
    flows = session.once("likelihoods and flows of normal data", lambda: _host(_flows(flat_normal(key_starts, N_DATA + N_DRAWN, 2))))
    gradient = _gradient_part(jnp.asarray(-np.linalg.inv(COVARIANCE) + TURN))
    session.note(
        "C1: the gradient part of -C⁻¹x + Jx is "
        + np.array2string(np.asarray(gradient).round(4), separator=", ").replace("\n", "")
        + ", that of the score alone "
        + np.array2string(-np.linalg.inv(COVARIANCE).round(4), separator=", ").replace("\n", "")
        + f"; for a mixture of three the gauge condition leaves {parts['mixture'].max():.1e} of J ∇log p and up to "
        f"{parts['mixture_rotation'].max():.2f} of Jx, which has no divergence either, relative to |r| |∇log p|"
    )
    units = {"units": "1"}
    decompositions = xr.Dataset(
        {
            "inner": ("field", parts["inner"], units),
            "split": ((), parts["split"], units),
            "mixture": ("point", parts["mixture"], units),
            "mixture_rotation": ("point", parts["mixture_rotation"], units),
            "divergence": ("point", parts["divergence"], units),
            "along": ("point", parts["along"], units),
        }
    )
    names = [*(f"gauge {c:g}" for c in GAUGES), *(f"rotation {c:g}" for c in ROTATIONS), "wrong gradient"]
    likelihoods = xr.Dataset(
        {
            "log_density": (("case", "point"), flows["log_density"], {"units": "nat"}),
            "exact": ("point", flows["exact"], {"units": "nat"}),
            "noise": (("case", "point", "axis"), flows["noise"], units),
        },
        {"case": names},
    )
    moved = xr.Dataset(
        {
            "x": (("case", "start", "time", "axis"), flows["x"], units),
            "singular_values": (("case", "time", "index"), flows["singular_values"], units),
            "covariance_error": (("case", "time"), flows["covariance_error"], units),
        },
        {"case": names, "time": DRAWN_TIMES},
    )
    euler = xr.Dataset(
        {"error": (("gauge", "steps"), flows["euler"], units)},
        {"gauge": list(GAUGES), "steps": list(EULER)},
    )
    slopes = [np.polyfit(np.log(EULER), np.log(row), 1)[0] for row in flows["euler"]]
    session.note(
        "Euler's steps are not blind to a gauge part: relative error of the covariance after "
        f"{EULER[-1]} of them "
        + ", ".join(
            f"{row[-1]:.2g} (slope {slope:.2f}) for c = {c:g}" for c, row, slope in zip(GAUGES, flows["euler"], slopes, strict=True)
        )
    )
    return {"decompositions": decompositions, "likelihoods": likelihoods, "flows": moved, "euler": euler}


def _host(found: dict[str, Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in found.items()}


@jax.jit
def _gradient_part(matrix: Array) -> Array:
    return linear_helmholtz(matrix, jnp.asarray(COVARIANCE)).gradient


@jax.jit
def _decompositions(key_fields: Array, key_points: Array) -> dict[str, Array]:
    matrices = flat_normal(key_fields, N_FIELDS, 2, DIM_FIELDS, DIM_FIELDS)

    def inner(pair: Array) -> Array:
        """The normalised product of the two parts of a random field under a random normal density."""
        covariance = pair[1] @ pair[1].T + 0.1 * jnp.eye(DIM_FIELDS)
        parts = linear_helmholtz(pair[0], covariance)

        def product(a: Array, b: Array) -> Array:
            return jnp.trace(a.T @ b @ covariance)

        sizes = product(parts.gradient, parts.gradient) * product(parts.remainder, parts.remainder)
        return jnp.abs(product(parts.gradient, parts.remainder)) / jnp.sqrt(sizes)

    turn, covariance = jnp.asarray(TURN), jnp.asarray(COVARIANCE)
    points = flat_normal(key_points, 400, 2)
    # Samples with the moments of the density: quadratic potentials see no others.
    centred = points - points.mean(axis=0)[None]
    root = jnp.linalg.cholesky(centred.T @ centred / len(points))
    samples = jax.scipy.linalg.solve_triangular(root, centred.T, lower=True).T @ jnp.linalg.cholesky(covariance).T
    matrix = -jnp.linalg.inv(covariance) + turn
    found = helmholtz_decomposition(lambda x: matrix @ x, samples, lambda x: jnp.concatenate([x, x**2, x[:1] * x[1:]]))
    expected = samples @ linear_helmholtz(matrix, covariance).gradient.T
    split = jnp.max(jnp.abs(jax.vmap(found.conservative)(samples) - expected)) / jnp.max(jnp.abs(expected))

    t = jnp.zeros(())
    mixture, exact = _mixture_score, GaussianScore(PATH, covariance)
    late = jnp.asarray(0.9)

    def at(x: Array) -> dict[str, Array]:
        def size(field: Array, score: Array) -> Array:
            return jnp.linalg.norm(field) * jnp.linalg.norm(score)

        gauge = GaugeField(mixture, turn)
        ellipse = GaugeField(exact, turn)
        value, score = ellipse(late, x), exact(late, x)
        return {
            "mixture": jnp.abs(gauge_residual(gauge, mixture, t, x)) / size(gauge(t, x), mixture(t, x)),
            "mixture_rotation": jnp.abs(gauge_residual(lambda t, x: turn @ x, mixture, t, x)) / size(x, mixture(t, x)),
            "divergence": jnp.abs(divergence(lambda x: ellipse(late, x), x)) / jnp.linalg.norm(value),
            "along": jnp.abs(value @ score) / size(value, score),
        }

    return {"inner": jax.vmap(inner)(matrices), "split": split} | jax.vmap(at)(points)


def _mixture_score(t: Array, x: Array) -> Array:
    """Of three normal densities of different widths."""

    def log_density(x: Array) -> Array:
        return jax.nn.logsumexp(-jnp.sum((x[None] - MEANS) ** 2, axis=1) / (2 * WIDTHS**2) - 2 * jnp.log(WIDTHS))

    return jax.grad(log_density)(x)


@jax.jit
def _flows(normal: Array) -> dict[str, Array]:
    covariance = jnp.asarray(COVARIANCE)
    n_right = len(GAUGES) + len(ROTATIONS)
    # The wrong gradient: the score of the same density turned by a right angle.
    covariances = jnp.stack([covariance] * n_right + [jnp.asarray(TURN @ COVARIANCE @ TURN.T)])
    gauges = jnp.asarray([*GAUGES, *(0.0 for _ in ROTATIONS), 0.0])
    rotations = jnp.asarray([*(0.0 for _ in GAUGES), *ROTATIONS, 0.0])
    exact = GaussianScore(PATH, covariance)
    data = normal[:-N_DRAWN] @ jnp.linalg.cholesky(covariance).T
    times = jnp.asarray(DRAWN_TIMES)

    def likelihood(case: tuple[Array, Array, Array], x: Array) -> tuple[Array, Array]:
        field, _ = normal_field(*case)
        found = flow_log_likelihood(
            field, PATH, x, end=1 - CLOSE, prior=lambda x: exact.log_density(jnp.zeros(()), x), rtol=1e-9, atol=1e-11
        )
        return found.log_density, found.noise

    def moved(case: tuple[Array, Array, Array], x: Array) -> tuple[Array, Array, Array]:
        flow = flow_jacobian(ScoreFlow(normal_field(*case)[0], PATH), x, times, rtol=1e-9, atol=1e-11)
        carried = flow.jacobian @ exact.covariance(times[0]) @ jnp.swapaxes(flow.jacobian, 1, 2)
        apart = jnp.abs(carried - jax.vmap(exact.covariance)(times)).max(axis=(1, 2))
        return flow.x, flow.singular_values, apart

    def euler(gauge: Array, n_steps: Array) -> Array:
        """Of linear flows the ends of the axes say it all."""
        velocity = jax.vmap(ScoreFlow(normal_field(covariance, gauge, jnp.zeros(()))[0], PATH), (None, 1), 1)
        step = lambda i, ends: ends + velocity(i / n_steps, ends) / n_steps  # noqa: E731
        carried = jax.lax.fori_loop(0, n_steps, step, jnp.eye(2))
        return jnp.linalg.norm(carried @ exact.covariance(jnp.zeros(())) @ carried.T - covariance) / jnp.linalg.norm(covariance)

    cases = (covariances, gauges, rotations)
    log_density, noise = over_pairs(likelihood, cases, data)
    x, values, apart = over_pairs(moved, cases, normal[-N_DRAWN:])
    errors = jax.vmap(jax.vmap(euler, (None, 0)), (0, None))(jnp.asarray(GAUGES), jnp.asarray(EULER))
    return {
        "log_density": log_density,
        "noise": noise,
        "exact": jax.vmap(lambda x: exact.log_density(jnp.asarray(1 - CLOSE), x))(data),
        "x": x,
        # The same from every start, for the flow is linear.
        "singular_values": values[:, 0],
        "covariance_error": apart[:, 0],
        "euler": errors,
    }
