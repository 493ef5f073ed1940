"""How a flow stretches space: the derivative of where it goes with respect to where it comes from."""

from __future__ import annotations

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from .flow_likelihood import MOST_EXACT
from .kinetic_energy import Velocity


class FlowJacobian(eqx.Module):
    """A flow at several times, and its derivative with respect to the first point."""

    times: Float[Array, " times"]
    x: Float[Array, "times dim"]
    jacobian: Float[Array, "times dim dim"]
    "∂xₜ/∂x at the first time: the identity there."

    @property
    def singular_values(self) -> Float[Array, "times dim"]:
        """At each time in descending order: two that cross change places."""
        return jnp.linalg.svd(self.jacobian, compute_uv=False)

    def from_the_other_end(self) -> FlowJacobian:
        """The same flow run backwards: ∂xₜ/∂x with respect to the last point, times turned around.

        What vanishes one way grows without bound the other way, and 1/σ loses no digits by it.
        """
        whole = self.jacobian[-1]
        jacobian = jax.vmap(lambda part: jnp.linalg.solve(whole.T, part.T).T)(self.jacobian[::-1])
        return FlowJacobian(self.times[::-1], self.x[::-1], jacobian)


def flow_jacobian(
    velocity: Velocity,
    x: Float[Array, " dim"],
    times: Float[Array, " times"],
    *,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    max_steps: int = 16384,
) -> FlowJacobian:
    """xₜ and Y = ∂xₜ/∂x from one point along a velocity: dx/dt = v, dY/dt = (∂v/∂x) Y, Y = I at the first time.

    The point and its D tangents move together by Tsitouras' pair of orders 5 and 4, one forward product a tangent.

    **Arguments:** `velocity`: [`ScoreFlow`][gradatim.transport.ScoreFlow] for one of a score; `x`: the point at the first of the `times`,
    batch with `jax.vmap`; `times`: ascending from noise to data, or descending; they stop short of a singular end; `rtol`, `atol`: per
    step; `max_steps`: more raise an error.

    **Raises:** `ValueError` for times that neither ascend nor descend, where they are known, or more than 64 dimensions.

    [`flow_dimension`][gradatim.transport.flow_dimension] shows it at work.

    >>> flow = flow_jacobian(lambda t, x: jnp.array([1.0, -1.0]) * x, jnp.ones(2), jnp.array([0.0, 1.0]), rtol=1e-5, atol=1e-5)
    >>> print([f"{value:.3f}" for value in flow.singular_values[-1]])  # e and 1/e
    ['2.718', '0.368']
    """
    if x.size > MOST_EXACT:
        raise ValueError(f"a flow's derivative is for at most {MOST_EXACT} dimensions, got {x.size}")
    if is_known(times):
        steps = np.diff(np.asarray(times))
        if not (steps.size and (np.all(steps > 0) or np.all(steps < 0))):
            raise ValueError(f"times must ascend or descend, two of them at least, got {np.asarray(times).tolist()}")

    return _solve(velocity, x, times.astype(x.dtype), rtol=rtol, atol=atol, max_steps=max_steps)


@eqx.filter_jit
def _solve(
    velocity: Velocity, x: Float[Array, " dim"], times: Float[Array, " times"], *, rtol: float, atol: float, max_steps: int
) -> FlowJacobian:
    def rates(t: Any, state: tuple[Array, Array], args: Any) -> tuple[Array, Array]:
        point, tangents = state
        value, product = jax.linearize(lambda point: velocity(jnp.asarray(t), point), point)
        return value, jax.vmap(product, in_axes=1, out_axes=1)(tangents)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rates),
        diffrax.Tsit5(),
        t0=times[0],
        t1=times[-1],
        dt0=None,
        y0=(x, jnp.eye(x.size, dtype=x.dtype)),
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=max_steps,
    )
    # Typed as any pytree.
    ys: Any = solution.ys
    return FlowJacobian(times, ys[0].astype(x.dtype), ys[1].astype(x.dtype))
