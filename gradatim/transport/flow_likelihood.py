"""Likelihoods by the change of variables along a flow (Chen et al., arXiv:1806.07366; Lipman et al., arXiv:2210.02747, Appendix C)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.numerics.divergence import divergence, hutchinson_divergence

from .kinetic_energy import Velocity

LogDensity = Callable[[Float[Array, " dim"]], Float[Array, ""]]
MOST_EXACT = 64
"Dimensions up to which a derivative is taken along every coordinate."


class FlowLikelihood(eqx.Module):
    """The logarithm of a density at a point, and how it was found."""

    log_density: Float[Array, ""]
    noise: Float[Array, " dim"]
    "Where the flow through the point comes from."
    n_steps: Int[Array, ""]
    "Of the solver, rejected ones among them."


def standard_normal_log_density(x: Float[Array, " dim"]) -> Float[Array, ""]:
    """The logarithm of N(x; 0, I)."""
    return -(x @ x + x.size * jnp.log(2 * jnp.pi).astype(x.dtype)) / 2


def velocity_log_likelihood(
    velocity: Velocity,
    x: Float[Array, " dim"],
    *,
    end: float = 1.0,
    prior: LogDensity = standard_normal_log_density,
    start: float = 0.0,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    max_steps: int = 16384,
    key: PRNGKeyArray | None = None,
) -> FlowLikelihood:
    """The log density, at time `end`, of what the flow of a velocity makes of noise: log p(x₀) - ∫ div v(t, xₜ) dt.

    Of the field as it is, trained or not: how well it fits the data that x is from. In nats; over `x.size` and log 2 in bits a dimension.

    **Arguments:** `velocity`: of one time and one point; `x`: one point, batch with `jax.vmap`; `end`: its time, below 1 for a velocity
    that is singular there; `prior`: log density at `start`, of noise; `rtol`, `atol`: per step of Tsitouras' pair of orders 5 and 4;
    `max_steps`: more raise an error; `key`: for an unbiased estimate of the divergence with one random probe for the whole path, instead of
    one product a coordinate.

    **Raises:** `ValueError` for times that do not obey 0 ≤ `start` < `end` ≤ 1, or more than 64 dimensions without a key.

    >>> found = velocity_log_likelihood(lambda t, x: x, jnp.zeros(1))  # e times as wide: -log(√(2π) e)
    >>> print(f"{found.log_density:.3f}")
    -1.919
    """
    if not 0 <= start < end <= 1:
        raise ValueError(f"times must obey 0 <= start < end <= 1, got {start} and {end}")
    check_dimensions(x, key)
    noise, change, n_steps = _solve(velocity, x, key, start=start, end=end, rtol=rtol, atol=atol, max_steps=max_steps)
    return FlowLikelihood(prior(noise) - change, noise, n_steps)


def field_divergence(
    field: Callable[[Float[Array, " dim"]], Float[Array, " dim"]], x: Float[Array, " dim"], key: PRNGKeyArray | None = None
) -> Float[Array, ""]:
    """The divergence along every coordinate, or with a key its estimate by one random probe.

    **Raises:** `ValueError` in more than 64 dimensions without a key.
    """
    check_dimensions(x, key)
    return divergence(field, x) if key is None else hutchinson_divergence(field, x, key)


def check_dimensions(x: Float[Array, " dim"], key: PRNGKeyArray | None) -> None:
    """Refuses exact derivatives in many dimensions."""
    if key is None and x.size > MOST_EXACT:
        raise ValueError(f"exact derivatives are for at most {MOST_EXACT} dimensions, got {x.size}: pass a key for random probes")


@eqx.filter_jit
def _solve(
    velocity: Velocity,
    x: Float[Array, " dim"],
    key: PRNGKeyArray | None,
    *,
    start: float,
    end: float,
    rtol: float,
    atol: float,
    max_steps: int,
) -> tuple[Float[Array, " dim"], Float[Array, ""], Int[Array, ""]]:
    """The first point of the flow, ∫ div v dt, and the solver's steps."""

    def rates(t: Any, state: tuple[Array, Array], args: Any) -> tuple[Array, Array]:
        def at(x: Float[Array, " dim"]) -> Float[Array, " dim"]:
            return velocity(jnp.asarray(t), x)

        return at(state[0]), -field_divergence(at, state[0], key)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rates),
        diffrax.Tsit5(),
        t0=jnp.asarray(end, x.dtype),
        t1=jnp.asarray(start, x.dtype),
        dt0=None,
        y0=(x, jnp.zeros((), x.dtype)),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=max_steps,
    )
    # Typed as any pytree.
    ys: Any = solution.ys
    return ys[0][-1].astype(x.dtype), ys[1][-1].astype(x.dtype), cast(Array, solution.stats["num_steps"])
