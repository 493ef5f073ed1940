"""The functional that falls along every solution for χ ≥ 0, and how fast.

With L_a = 1 - a ∇², the signals obey ε² c_tt + ε (L₁ + L_τ) c_t + L_τ L₁ c = n, a damped wave that the cells drive by the gradient of n c.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from .grids import AbstractGrid
from .stepping import State
from .transport import currents


def entropy(grid: AbstractGrid, state: State, *, tau: Float[Array, ""] | float, chi: Float[Array, ""] | float = 1.0) -> Float[Array, ""]:
    """The Lyapunov functional of the full system and, on the manifold of the limits, of these:

        F = ∫ n ln n - χ n c + χ/2 [τ (∇²c)² + (1 + τ) |∇c|² + c² + (∇²c - c + w)²] dV

    n ln n is 0 where n is.

    >>> from gradatim.physics.chemotaxis import Box
    >>> one = jnp.ones(4)
    >>> float(entropy(Box((4,)), State(one, one, one), tau=0.2))
    -0.5
    """
    n, c, w = state
    tau, chi = jnp.asarray(tau, n.dtype), jnp.asarray(chi, n.dtype)
    curvature = grid.laplacian(c)
    # At n = 0 the logarithm of 1 instead: 0 ln 0 = 0, with a finite derivative.
    mixing = n * jnp.log(jnp.where(n > 0, n, 1))
    inner = mixing - chi * n * c + chi / 2 * (tau * curvature**2 + c**2 + (curvature - c + w) ** 2)
    return grid.integral(inner) + chi / 2 * (1 + tau) * grid.dirichlet(c)


def dissipation(
    grid: AbstractGrid,
    state: State,
    *,
    eps: Float[Array, ""] | float,
    tau: Float[Array, ""] | float,
    chi: Float[Array, ""] | float = 1.0,
) -> Float[Array, ""]:
    """-dF/dt of [`entropy`][gradatim.physics.chemotaxis.entropy], not negative for χ ≥ 0:

        ∫ n |∇(ln n - χ c)|² dV + χ ε ∫ 2 c_t² + (1 + τ) |∇c_t|² dV,   ε c_t = ∇²c - c + w

    The first part as the cells' current times the difference of ln n - χ c, face by face: the exact rate of the grid's own law.
    At ε = 0 the second is absent.

    >>> from gradatim.physics.chemotaxis import Box
    >>> grid, zero = Box((2,)), jnp.zeros(2)
    >>> rates = [dissipation(grid, State(jnp.array(n), zero, zero), eps=0.0, tau=0.2) for n in ([1.0, 1.0], [2.0, 1.0])]
    >>> print(f"{rates[0]:.3f} {rates[1]:.3f}")  # 2 ln 2
    0.000 1.386
    """
    n, c, w = state
    eps, tau, chi = (jnp.asarray(x, n.dtype) for x in (eps, tau, chi))
    # Empty cells: the current out of them is zero, and a finite logarithm keeps it so.
    potential = jnp.log(jnp.maximum(n, jnp.finfo(n.dtype).tiny)) - chi * c
    flows = currents(grid, n, c, chi)
    of_cells = jnp.stack([-(flow * grid.difference(potential, axis)).sum() for axis, flow in enumerate(flows)]).sum()
    residual = grid.laplacian(c) - c + w
    of_signals = chi * (2 * grid.integral(residual**2) + (1 + tau) * grid.dirichlet(residual)) / jnp.where(eps > 0, eps, 1)
    return of_cells + jnp.where(eps > 0, of_signals, 0)
