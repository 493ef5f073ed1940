"""Hamilton's equations of any energy: the vector field, and losses of a learned one (Greydanus et al., arXiv:1906.01563).

    ẋ = J ∇H(x),     x = (q, p),     J = ((0, I), (-I, 0))

A state is flat: all coordinates q first, all momenta p after them, 2m numbers. H is known only up to a constant, and is conserved along
its own field whatever it is: an error of the energy says something only with the energy of the true system.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Energy = Callable[[Float[Array, " size"]], Float[Array, ""]]
"From a state to a number; a network, too."


class FieldPoints(NamedTuple):
    """Where a field is known: states, and their rates of change."""

    states: Float[Array, "*batch size"]
    rates: Float[Array, "*batch size"]


class HamiltonianField(eqx.Module):
    """ẋ = J ∇H(x) of an energy, as `field(t, x, args)`: what `diffrax.ODETerm` takes.

    Its divergence is zero and H stays constant along it, whatever H is. With a network for H its activation needs a second derivative:
    with ReLU's the field would be constant in pieces.

    **Raises:** `ValueError` for a state that is not a vector of even length.

    >>> oscillator = HamiltonianField(lambda x: jnp.sum(x**2) / 2)
    >>> oscillator(0.0, jnp.array([1.0, 2.0])).tolist()
    [2.0, -1.0]
    """

    energy: Energy

    def __call__(self, t: Any, x: Float[Array, ...], args: Any = None) -> Float[Array, ...]:
        """The rate of change of a state; neither `t` nor `args` matters."""
        del t, args
        if x.ndim != 1 or x.size % 2:
            raise ValueError(f"a state must be one vector (q, p) of even length, got shape {x.shape}; batch with jax.vmap")
        dq, dp = jnp.split(jax.grad(self.energy)(x), 2)
        return jnp.concatenate([dp, -dq])


def field_at(energy: Energy, states: Float[Array, "n size"]) -> Float[Array, "n size"]:
    """The field of an energy at many states.

    >>> field_at(lambda x: jnp.sum(x**2) / 2, jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[2.0, -1.0], [4.0, -3.0]]
    """
    return jax.vmap(lambda x: HamiltonianField(energy)(0.0, x))(states)


def log_cosh_field_loss(energy: Energy, points: FieldPoints) -> Float[Array, ""]:
    """Mean of log cosh(J ∇H(x) - ẋ) over points and components: e²/2 for small errors e, |e| for large ones.

    >>> points = FieldPoints(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, -1.1]]))
    >>> print(f"{log_cosh_field_loss(lambda x: jnp.sum(x**2) / 2, points):.6f}")
    0.002496
    """
    return optax.losses.log_cosh(field_at(energy, points.states), points.rates).mean()


def squared_field_loss(energy: Energy, points: FieldPoints) -> Float[Array, ""]:
    """Half the mean square of J ∇H(x) - ẋ over points and components: what log cosh is near zero.

    >>> points = FieldPoints(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, -1.1]]))
    >>> print(f"{squared_field_loss(lambda x: jnp.sum(x**2) / 2, points):.6f}")
    0.002500
    """
    return optax.losses.l2_loss(field_at(energy, points.states), points.rates).mean()
