"""Steps of Hamilton's equations: symplectic where the energy is T(p) + V(q), Runge–Kutta for any field.

Each is one step of a flat state x = (q, p); [`rollout`][gradatim.numerics.rollout] makes a trajectory of them. Adaptive and implicit
solvers are diffrax's, whose terms take a [`HamiltonianField`][gradatim.sciml.HamiltonianField] as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

State = Float[Array, " size"]
CUBE_ROOT = 2 ** (1 / 3)
YOSHIDA = (1 / (2 - CUBE_ROOT), -CUBE_ROOT / (2 - CUBE_ROOT), 1 / (2 - CUBE_ROOT))
"Fractions of a step, the middle one backwards (Yoshida 1990, Physics Letters A 150): they sum to 1, their cubes to 0."


class SeparableHamiltonian(eqx.Module):
    """H(q, p) = T(p) + V(q), which the symplectic steps can take apart.

    **Arguments:** `kinetic`, `potential`: of a vector of m momenta or coordinates.

    >>> pendulum = SeparableHamiltonian(lambda p: jnp.sum(p**2) / 2, lambda q: 1 - jnp.cos(q[0]))
    >>> print(f"{pendulum(jnp.array([1.0, 0.0])):.4f}")
    0.4597
    """

    kinetic: Callable[[Float[Array, " m"]], Float[Array, ""]]
    potential: Callable[[Float[Array, " m"]], Float[Array, ""]]

    def __call__(self, x: State) -> Float[Array, ""]:
        """The energy of a state."""
        q, p = jnp.split(x, 2)
        return self.kinetic(p) + self.potential(q)


def leapfrog_step(hamiltonian: SeparableHamiltonian, x: State, dt: float | Float[Array, ""]) -> State:
    """Half a kick, a drift, half a kick: order 2, symplectic, and its own inverse with the sign of `dt` changed.

    p ← p - dt/2 ∇V(q),     q ← q + dt ∇T(p),     p ← p - dt/2 ∇V(q)

    >>> oscillator = SeparableHamiltonian(lambda p: p @ p / 2, lambda q: q @ q / 2)
    >>> q, p = leapfrog_step(oscillator, jnp.array([1.0, 0.0]), 0.1)
    >>> print(f"{q:.3f} {p:.3f}")
    0.995 -0.100
    """
    return _kicks_and_drifts(hamiltonian, x, dt, (1.0,))


def yoshida_step(hamiltonian: SeparableHamiltonian, x: State, dt: float | Float[Array, ""]) -> State:
    """Three leapfrog steps, the middle one backwards: order 4, symplectic and reversible (Yoshida 1990).

    >>> from gradatim.numerics import rollout
    >>> oscillator = SeparableHamiltonian(lambda p: p @ p / 2, lambda q: q @ q / 2)
    >>> path = rollout(lambda x: yoshida_step(oscillator, x, 0.1), jnp.array([1.0, 0.0]), n_steps=100)
    >>> print(f"{path[-1, 0] - jnp.cos(10.0):.0e}")
    -4e-05
    """
    return _kicks_and_drifts(hamiltonian, x, dt, YOSHIDA)


def runge_kutta_step(field: Callable[[State], State], x: State, dt: float | Float[Array, ""]) -> State:
    """The classical step of order 4, of any field; it does not keep the energy, but for short times and small steps nearly so.

    >>> print(runge_kutta_step(lambda x: -x, jnp.array([1.0]), 0.1).round(5))  # exp(-0.1)
    [0.90484]
    """
    k1 = field(x)
    k2 = field(x + dt / 2 * k1)
    k3 = field(x + dt / 2 * k2)
    k4 = field(x + dt * k3)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _kicks_and_drifts(hamiltonian: SeparableHamiltonian, x: State, dt: float | Float[Array, ""], parts: tuple[float, ...]) -> State:
    q, p = jnp.split(x, 2)
    force, velocity = (lambda q: -jax.grad(hamiltonian.potential)(q)), jax.grad(hamiltonian.kinetic)
    # Two half kicks at one place are one kick.
    kicks = [(before + after) / 2 for before, after in zip((0.0, *parts), (*parts, 0.0), strict=True)]
    for kick, drift in zip(kicks, parts, strict=False):
        p = p + kick * dt * force(q)
        q = q + drift * dt * velocity(p)
    return jnp.concatenate([q, p + kicks[-1] * dt * force(q)])
