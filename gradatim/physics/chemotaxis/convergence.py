"""How far the full system is from its limits, and with which power of ε and τ that falls."""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .grids import AbstractGrid
from .stepping import Solution
from .system import IndirectChemotaxis, simplify
from .times import layer_times


class LimitErrors(eqx.Module):
    """Distances of a solution from the limit's, L² in space, and in time:

    `cells`: the largest, at any time; `attractant`, `signal`, `attractant_gradient`: square-integrated; `cells_at_end`: at the end.
    """

    cells: Float[Array, "*cases"]
    attractant: Float[Array, "*cases"]
    signal: Float[Array, "*cases"]
    attractant_gradient: Float[Array, "*cases"]
    cells_at_end: Float[Array, "*cases"]

    def orders(self, parameter: Float[Array, " cases"]) -> LimitErrors:
        """Observed orders between neighbouring cases: log(eₖ/eₖ₊₁) / log(pₖ/pₖ₊₁), one fewer than cases."""
        ratios = jnp.log(parameter[:-1] / parameter[1:])
        return jax.tree.map(lambda e: jnp.log(e[:-1] / e[1:]) / ratios, self)


def limit_errors(grid: AbstractGrid, full: Solution, limit: Solution) -> LimitErrors:
    """The distances between two solutions at the same times (or the two hide behind errors in time), integrated by trapezoids.

    >>> from gradatim.physics.chemotaxis import Box
    >>> times, zero, rest = jnp.linspace(0.0, 1.0, 3), jnp.zeros((3, 4)), (jnp.zeros(3), jnp.zeros(3), jnp.zeros(3, int), jnp.array(False))
    >>> full, limit = (Solution(times, zero + shift, zero, zero, *rest) for shift in (0.1, 0.0))
    >>> print(f"{limit_errors(Box((4,)), full, limit).cells:.1f}")
    0.1
    """

    def in_space(u: Array) -> Array:
        return jax.vmap(grid.norm)(u)

    def in_time(square: Array) -> Array:
        return jnp.sqrt(jnp.trapezoid(square, full.times))

    cells = in_space(full.cells - limit.cells)
    attractant = full.attractant - limit.attractant
    return LimitErrors(
        cells.max(),
        in_time(in_space(attractant) ** 2),
        in_time(in_space(full.signal - limit.signal) ** 2),
        in_time(jax.vmap(grid.dirichlet)(attractant)),
        cells[-1],
    )


def convergence_study(
    model: IndirectChemotaxis,
    cells: Float[Array, ...],
    attractant: Float[Array, ...] | None = None,
    signal: Float[Array, ...] | None = None,
    *,
    eps: Float[Array, " cases"],
    tau: Float[Array, " cases"],
    limit: Literal["pes", "ids"],
    t_end: float,
    n_layer: int = 400,
    n_after: int = 800,
) -> LimitErrors:
    """Errors of the limit for pairs (ε, τ), each case on a time grid that resolves its own layer; both solutions on the same one.

    Signals that are not given are well prepared. Steps are those of [`layer_times`][gradatim.physics.chemotaxis.layer_times]: far below ε,
    or the error of order dt masks that of order ε. What to expect in smooth solutions: `cells` of order 1 in ε; the signals'
    square-integrated errors of order 1 when well prepared and 1/2 otherwise, for a layer of height one and width ε has √∫ ~ √ε.

    **Arguments:** `model`: whose grid and χ are taken; `eps`, `tau` > 0, one entry a case; `limit`: `"pes"` keeps each case's τ, `"ids"`
    has none.

    >>> from gradatim.physics.chemotaxis import Box
    >>> model = IndirectChemotaxis(Box((16,)), 0.01, 0.2)
    >>> n0 = 5 * (1 + 0.8 * jnp.cos(jnp.pi * model.grid.centres[0]))
    >>> eps = jnp.array([0.02, 0.01])
    >>> errors = convergence_study(model, n0, eps=eps, tau=jnp.full(2, 0.2), limit="pes", t_end=0.3, n_layer=100, n_after=400)
    >>> print(f"{errors.orders(eps).cells[0]:.1f}")
    1.0
    """

    def one(eps: Array, tau: Array) -> LimitErrors:
        full = IndirectChemotaxis(model.grid, eps, tau, model.chi)
        simple = simplify(full, limit)
        times = layer_times(jnp.asarray(t_end, cells.dtype), eps.astype(cells.dtype), n_layer=n_layer, n_after=n_after)
        return limit_errors(model.grid, full.solve(full.init(cells, attractant, signal), times), simple.solve(simple.init(cells), times))

    # Compiled whole: operation by operation, the two solutions are a hundred programs.
    return jax.jit(jax.vmap(one))(eps, tau)
