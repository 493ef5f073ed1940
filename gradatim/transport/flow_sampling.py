"""Samples from a velocity: its flow from noise to data, by diffrax."""

from __future__ import annotations

from typing import Any, cast

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .kinetic_energy import Velocity

_MAX_STEPS = 4096


class FlowEnd(eqx.Module):
    """Where a flow ends, and what it cost."""

    x: Float[Array, " dim"]
    n_evaluations: Int[Array, ""]
    "Of the velocity, those of rejected steps among them."


def sample_flow(
    velocity: Velocity, x0: Float[Array, " dim"], *, n_steps: int | Int[Array, ""], solver: diffrax.AbstractSolver | None = None
) -> Float[Array, " dim"]:
    """The end of dx/dt = v(t, x) from noise x₀, in equal steps from t = 0 to t = 1; one point, batch with `jax.vmap`.

    Euler's steps never ask for the velocity at t = 1, where many are singular.

    **Arguments:** `velocity`; `x0`: standard normal; `n_steps`: between 1 and 4096, may be traced, so that several counts share a
    program; `solver`: of diffrax, by default Euler's.

    **Raises:** `ValueError` for a count outside, where it is known.

    >>> print(sample_flow(lambda t, x: -x, jnp.ones(1), n_steps=2))  # (1 - 1/2)²
    [0.25]
    """
    if isinstance(n_steps, int) and not 1 <= n_steps <= _MAX_STEPS:
        raise ValueError(f"n_steps must lie between 1 and {_MAX_STEPS}, got {n_steps}")
    solution = diffrax.diffeqsolve(
        _term(velocity),
        diffrax.Euler() if solver is None else solver,
        t0=jnp.zeros((), x0.dtype),
        t1=jnp.ones((), x0.dtype),
        dt0=1 / jnp.asarray(n_steps, x0.dtype),
        y0=x0,
        max_steps=_MAX_STEPS,
    )
    return _end(solution, x0)


def sample_flow_adaptively(
    velocity: Velocity,
    x0: Float[Array, " dim"],
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    start: float = 0.0,
    end: float = 1.0,
    max_steps: int = 4096,
) -> FlowEnd:
    """The same by Dormand and Prince's pair of orders 5 and 4 with steps of its own choice, and the evaluations that they took.

    **Arguments:** `rtol`, `atol`: per step; `start`, `end`: end it before 1 for a velocity that is singular there; `max_steps`: more raise
    an error.

    **Raises:** `ValueError` for times that do not obey 0 ≤ `start` < `end` ≤ 1.

    >>> print(f"{sample_flow_adaptively(lambda t, x: x, jnp.ones(1)).x[0]:.3f}")
    2.718
    """
    if not 0 <= start < end <= 1:
        raise ValueError(f"times must obey 0 <= start < end <= 1, got {start} and {end}")
    solution = diffrax.diffeqsolve(
        _term(velocity),
        diffrax.Dopri5(),
        t0=jnp.asarray(start, x0.dtype),
        t1=jnp.asarray(end, x0.dtype),
        dt0=None,
        y0=x0,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=max_steps,
    )
    # Six a step, of which the last is the first of the next, and the very first.
    return FlowEnd(_end(solution, x0), 6 * cast(Array, solution.stats["num_steps"]) + 1)


def _term(velocity: Velocity) -> diffrax.ODETerm:
    return diffrax.ODETerm(lambda t, x, args: velocity(jnp.asarray(t), x))


def _end(solution: diffrax.Solution, x0: Float[Array, " dim"]) -> Float[Array, " dim"]:
    # Typed as any pytree.
    ys: Any = solution.ys
    return ys[-1].astype(x0.dtype)
