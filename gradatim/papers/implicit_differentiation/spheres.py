"""Relaxed soft discs and how they move when half of them grow: implicit, unrolled through FIRE, and by central differences (C7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import xarray as xr

from gradatim.implicit import root_jvp
from gradatim.lab import Findings, Measure, Session

from .config import Spheres

PSEUDO_INVERSE = lx.SVD(rcond=1e-9)
"Translations, and discs that touch nothing, have no stiffness: they stay where they are."
NEWTON_STEPS = 6
"From FIRE's answer to the last digits."
DT, DT_MAX, ALPHA = 0.1, 0.4, 0.1
"FIRE's first and largest time step and its mixing (Bitzek et al., Phys. Rev. Lett. 97, 170201)."


def run_spheres(config: Spheres, session: Session) -> Findings:
    """C7: all packings together."""
    side = box_side(config)
    energy = soft_energy(config.particles, side)
    force_free = jax.grad(energy)
    n, theta = config.particles, jnp.asarray(config.ratio)
    starts = side * jax.random.uniform(session.key, (config.packings * n * 2,)).reshape(config.packings, n, 2)

    # Compiled by themselves only to be traced once, however often they are called.
    @jax.jit
    def polish(x: Any, theta: Any) -> Any:
        def newton(_: Any, x: Any) -> Any:
            operator = lx.JacobianLinearOperator(lambda x, theta: force_free(x, theta), x, theta)
            return x - lx.linear_solve(operator, force_free(x, theta), PSEUDO_INVERSE).value

        return jax.lax.fori_loop(0, NEWTON_STEPS, newton, x)

    @jax.jit
    def sensitivity(x: Any, theta: Any) -> Any:
        return root_jvp(force_free, x, (theta,), (jnp.ones(()),), linear_solver=PSEUDO_INVERSE)

    @jax.jit
    def relax(start: Any, theta: Any) -> dict[str, Any]:
        def descend(theta):
            return fire(force_free, start, theta, n_looks=config.looks, every=config.steps // config.looks)

        x, unrolled = jax.jvp(descend, (theta,), (jnp.ones(()),))
        return {"fire": x, "unrolled": unrolled - unrolled.mean(1, keepdims=True)}

    @jax.jit
    def compare(x: Any, theta: Any) -> dict[str, Any]:
        best = polish(x[-1], theta)
        low, high = (polish(best, theta + sign * config.difference) for sign in (-1, 1))
        return {
            "x": best,
            "implicit": sensitivity(best, theta),
            "implicit_at_fire": jax.lax.map(lambda x: sensitivity(x, theta), x),
            "difference": (high - low) / (2 * config.difference),
            "residual": jnp.linalg.norm(force_free(best, theta)),
            "residual_at_fire": jax.lax.map(lambda x: jnp.linalg.norm(force_free(x, theta)), x),
        }

    relaxed = session.once("relaxed packings", jax.jit(jax.vmap(relax, in_axes=(0, None))), starts, theta)
    found = session.once("sensitivities", jax.jit(jax.vmap(compare, in_axes=(0, None))), relaxed["fire"], theta)
    exact = np.asarray(found["difference"])

    def error(values: Any) -> np.ndarray:
        """Relative, for each packing, and for each look if there are any."""
        values = np.asarray(values)
        against = exact if values.ndim == 3 else exact[:, None]
        return np.linalg.norm(values - against, axis=(-2, -1)) / np.linalg.norm(against, axis=(-2, -1))

    implicit, at_fire, unrolled = error(found["implicit"]), error(found["implicit_at_fire"]), error(relaxed["unrolled"])
    force = np.asarray(found["residual_at_fire"])
    session.note(f"spheres: largest force {np.max(found['residual']):.1e} when relaxed, {force[:, -1].max():.1e} after FIRE")
    last = float(np.median(unrolled[:, -1] / at_fire[:, -1]))
    session.note(f"spheres: at the last step alone the unrolled error is {last:.2g} times the implicit one, median of packings")
    measures = {
        "C7.difference_error": Measure.exact(float(implicit.max())),
        "C7.unrolled_over_implicit_error": along_the_descent(unrolled, at_fire),
        "C7.unrolled_error_at_the_end": at_the_end(unrolled),
    }
    data = xr.Dataset(
        {
            "position": (("packing", "disc", "axis"), np.asarray(found["x"]) % side, {"units": "diameters"}),
            "implicit": (("packing", "disc", "axis"), np.asarray(found["implicit"]), {"units": "diameters per θ"}),
            "unrolled": (("packing", "look", "disc", "axis"), np.asarray(relaxed["unrolled"]), {"units": "diameters per θ"}),
            "relaxed_error": ("packing", implicit, {"units": "relative"}),
            "implicit_error": (("packing", "look"), at_fire, {"units": "relative"}),
            "unrolled_error": (("packing", "look"), unrolled, {"units": "relative"}),
            "force": (("packing", "look"), force, {"units": "of the contact stiffness"}),
            "diameter": ("disc", np.asarray(diameters(n, config.ratio)), {"units": "diameters"}),
            "side": ((), side, {"units": "diameters"}),
        },
        {
            "packing": np.arange(config.packings),
            "axis": ["x", "y"],
            "look": ("look", (1 + np.arange(config.looks)) * (config.steps // config.looks), {"units": "steps of FIRE"}),
        },
    )
    return Findings(measures, xr.DataTree.from_dict({"spheres": data}))


def along_the_descent(unrolled: np.ndarray, implicit: np.ndarray) -> Measure:
    """Unrolled over implicit error, rows of packings and columns of looks: geometric mean over looks, median of packings.

    Where the descent has converged both errors are those of the differences, and their ratio is 1.
    """
    return Measure.median(np.exp(np.log(unrolled / implicit).mean(1)))


def at_the_end(unrolled: np.ndarray) -> Measure:
    """The error at the last look, median of packings: whether the derivative comes to converge, which no mean along the descent says."""
    return Measure.median(unrolled[:, -1])


def box_side(config: Spheres) -> float:
    """The side of the box that the discs fill as told."""
    return float(np.sqrt(config.particles / 2 * np.pi / 4 * (1 + config.ratio**2) / config.filling))


def diameters(n: int, theta: Any) -> Any:
    """1 for the first half, θ for the others."""
    return jnp.where(jnp.arange(n) < n // 2, 1.0, theta)


def soft_energy(n: int, side: float) -> Callable[[Any, Any], Any]:
    """E(x, θ) = Σ ½(1 - r/σ)² over pairs nearer than σ, the mean of their diameters, in a periodic box."""
    apart = ~np.eye(n, dtype=bool)

    def energy(x: Any, theta: Any) -> Any:
        size = diameters(n, theta)
        sigma = (size[:, None] + size[None]) / 2
        delta = x[:, None] - x[None]
        delta = delta - side * jnp.round(delta / side)
        square = jnp.sum(delta**2, axis=-1)
        # The root of a safe number: a disc's distance to itself has no derivative.
        r = jnp.sqrt(jnp.where(apart, square, 1.0))
        return jnp.sum(jnp.where(apart, jax.nn.relu(1 - r / sigma) ** 2, 0.0)) / 4

    return energy


def fire(gradient: Callable[[Any, Any], Any], x: Any, theta: Any, *, n_looks: int, every: int) -> Any:
    """Molecular dynamics that is turned downhill and stopped where it climbs (fast inertial relaxation engine): x every so many steps."""

    def step(state: Any, _: Any) -> Any:
        x, v, dt, alpha, good = state
        force = -gradient(x, theta)
        power = jnp.sum(force * v)
        uphill = power <= 0
        good = jnp.where(uphill, 0, good + 1)
        faster = good > 5
        mixed = (1 - alpha) * v + alpha * _norm(v) / _norm(force) * force
        v = jnp.where(uphill, 0.0, mixed)
        dt = jnp.where(uphill, dt * 0.5, jnp.where(faster, jnp.minimum(dt * 1.1, DT_MAX), dt))
        alpha = jnp.where(uphill, ALPHA, jnp.where(faster, alpha * 0.99, alpha))
        v = v + dt * force
        return (x + dt * v, v, dt, alpha, good), None

    start = (x, jnp.zeros_like(x), jnp.asarray(DT, x.dtype), jnp.asarray(ALPHA, x.dtype), jnp.zeros((), jnp.int32))

    def look(state: Any, _: Any) -> Any:
        state, _ = jax.lax.scan(step, state, length=every)
        return state, state[0]

    return jax.lax.scan(look, start, length=n_looks)[1]


def _norm(v: Any) -> Any:
    # Away from zero, where the root has no derivative.
    return jnp.sqrt(jnp.sum(v**2) + 1e-200)
