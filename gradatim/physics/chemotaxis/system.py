"""Chemotaxis by indirect signalling and its two simplifications (arXiv:2508.01436)."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from . import lyapunov
from .adaptive import Adaptivity, march_adaptively
from .critical import least_critical_mass
from .grids import AbstractGrid, Box
from .signals import AbstractSignals, EllipticSignals, ExactSignals, ImplicitSignals
from .stepping import Snapshot, Solution, State, Stepper, march, march_evenly

Number = Float[Array, ""] | float
Limit = Literal["none", "pes", "ids"]
LIMITS = ("none", "pes", "ids")
"The full system, and what is left of it for ε → 0 at a fixed τ, and for (ε, τ) → (0, 0)."


class Residuals(NamedTuple):
    """How far a state is from the manifold of the limit, in L²."""

    attractant: Float[Array, ""]  # ‖∇²c - c + w‖
    signal: Float[Array, ""]  # ‖τ∇²w - w + n‖


class IndirectChemotaxis(eqx.Module):
    """Cells n follow an attractant c, made by a signal w, made by the cells; nothing passes the walls:

        ∂n/∂t = ∇²n - χ ∇·(n ∇c),   ε ∂c/∂t = ∇²c - c + w,   ε ∂w/∂t = τ ∇²w - w + n

        ε = 0        "pes":  0 = ∇²c - c + w,   0 = τ ∇²w - w + n      parabolic–elliptic–elliptic simplification
        ε = τ = 0    "ids":  0 = ∇²c - c + n                            indirect–direct: the parabolic–elliptic Keller–Segel system

    All in the equation's own units. The kind of system is static, chosen when ε (and τ) are given as the number 0; a traced ε must be
    positive. ε, τ and χ are leaves: differentiate them, `vmap` over them. Fields keep the precision of the cells.

    **Arguments:** `grid`: [`Box`][gradatim.physics.chemotaxis.Box] or [`Radial`][gradatim.physics.chemotaxis.Radial]; `eps` ε ≥ 0: time
    scale of the signals; `tau` τ ≥ 0: spreading of w (at τ = 0 < ε it stays where it is made); `chi` χ: sensitivity, negative for
    repulsion.

    **Raises:** `ValueError` for a negative ε or τ, or numbers that are not finite.

    >>> model = IndirectChemotaxis(Box((32,)), eps=0.01, tau=0.2)
    >>> start = model.init(5 + 4 * jnp.cos(jnp.pi * model.grid.centres[0]))
    >>> end = eqx.filter_jit(model.evolve)(start, dt=1e-3, n_steps=100)
    >>> print(f"{end.mass[0]:.3f} {end.mass[-1]:.3f} {bool(end.entropy[-1] < end.entropy[0])}")
    5.000 5.000 True
    """

    grid: AbstractGrid
    eps: Float[Array, ""]
    tau: Float[Array, ""]
    chi: Float[Array, ""]
    limit: Limit = eqx.field(static=True)

    def __init__(self, grid: AbstractGrid, eps: Number, tau: Number, chi: Number = 1.0):
        for name, number, least in (("eps", eps, 0.0), ("tau", tau, 0.0), ("chi", chi, -math.inf)):
            if is_known(number) and not (float(number) >= least and math.isfinite(number)):
                raise ValueError(f"{name} must be finite{' and at least 0' if least == 0 else ''}, got {number}")
        self.grid = grid
        self.eps, self.tau, self.chi = (jnp.asarray(x, jnp.result_type(float, x)) for x in (eps, tau, chi))
        is_fast, is_direct = (is_known(x) and float(x) == 0 for x in (eps, tau))
        self.limit = ("ids" if is_direct else "pes") if is_fast else "none"

    def init(self, cells: Float[Array, ...], attractant: Float[Array, ...] | None = None, signal: Float[Array, ...] | None = None) -> State:
        """A first state; signals that are not given are well prepared: those of `critical_manifold`.

        In the limits the cells decide alone, and given signals are not used.

        **Raises:** `ValueError` for another shape than the grid's, or cells that are negative or not finite (zero is allowed).
        """
        for name, field in (("cells", cells), ("attractant", attractant), ("signal", signal)):
            if field is not None and field.shape != self.grid.shape:
                raise ValueError(f"{name} must have the grid's shape {self.grid.shape}, got {field.shape}; batch with jax.vmap")
        if is_known(cells):
            # NumPy: under a surrounding trace JAX's operations on known values are traced too.
            values = np.asarray(cells)
            if not (np.isfinite(values).all() and (values >= 0).all()):
                raise ValueError(f"cells must be finite and at least 0 everywhere, got values from {values.min()} to {values.max()}")
        if cells.dtype == jnp.float32 and self.limit == "none" and is_known(self.eps) and float(self.eps) < 1e-4:
            _warn_of_single_precision(float(self.eps))
        c, w = self.critical_manifold(cells)
        attractant = c if attractant is None or self.limit != "none" else attractant.astype(cells.dtype)
        signal = w if signal is None or self.limit != "none" else signal.astype(cells.dtype)
        return State(cells, attractant, signal)

    def critical_manifold(self, cells: Float[Array, ...]) -> tuple[Float[Array, ...], Float[Array, ...]]:
        """The signals (c, w) of the limit ε = 0 for these cells: c = K₁ w, w = K_τ n, with K_a = (1 - a ∇²)⁻¹."""
        return EllipticSignals(self.grid, self.tau.astype(cells.dtype), self.limit == "ids").leave(cells)

    def manifold_residuals(self, state: State) -> Residuals:
        """How far the signals are from those of the limit."""
        n, c, w = state
        tau = self.tau.astype(n.dtype)
        laplacian = self.grid.laplacian
        return Residuals(self.grid.norm(laplacian(c) - c + w), self.grid.norm(tau * laplacian(w) - w + n))

    def entropy(self, state: State) -> Float[Array, ""]:
        """F of [`entropy`][gradatim.physics.chemotaxis.entropy]."""
        return lyapunov.entropy(self.grid, state, tau=self.tau, chi=self.chi)

    def dissipation(self, state: State) -> Float[Array, ""]:
        """-dF/dt of [`dissipation`][gradatim.physics.chemotaxis.dissipation]."""
        return lyapunov.dissipation(self.grid, state, eps=self.eps, tau=self.tau, chi=self.chi)

    def critical_mass(self) -> Float[Array, ""]:
        """The least mass at which cells may blow up on this grid: [`critical_mass`][gradatim.physics.chemotaxis.critical_mass] of the
        system that ε → 0 leaves, in a square's corner a quarter of it; infinite below the critical dimension, 0 above.
        """
        # A quarter of a disc around the corner of a square has a quarter of its critical mass.
        share = 1 / 2**self.grid.dimension if isinstance(self.grid, Box) else 1.0
        return least_critical_mass(self.grid.dimension, tau=self.tau, chi=self.chi, share=share)

    def stepper(self, dt: Number) -> Stepper:
        """The time step as a function of the state; what depends on dt alone is worked out here, once.

        **Raises:** `ValueError` for dt ≤ 0.
        """
        if is_known(dt) and not float(dt) > 0:
            raise ValueError(f"dt must be positive, got {dt}")
        return self._stepper(jnp.asarray(dt, jnp.result_type(float, dt)))

    def evolve(self, state: State, *, dt: Number, n_steps: int, every: int | None = None) -> Solution:
        """`n_steps` equal steps, every `every`-th state kept (by default the first and the last). The fastest way.

        **Raises:** `ValueError` for dt ≤ 0, or an `every` that does not divide `n_steps`.
        """
        every = n_steps if every is None else every
        if n_steps < 1 or every < 1 or n_steps % every:
            raise ValueError(f"every must divide n_steps, got {every} and {n_steps}")
        stepper = self._in_precision(state).stepper(jnp.asarray(dt, state.cells.dtype))
        snapshots = march_evenly(stepper, state, n_steps, every)
        return self._solution(stepper.dt * every * jnp.arange(n_steps // every + 1, dtype=state.cells.dtype), snapshots)

    def solve(self, state: State, times: Float[Array, " times"], *, every: int = 1) -> Solution:
        """One step from each time to the next, every `every`-th state kept: for graded times as those of
        [`layer_times`][gradatim.physics.chemotaxis.layer_times].

        **Raises:** `ValueError` for times that do not grow, or an `every` that does not divide their number of steps.
        """
        n_steps = times.size - 1
        if n_steps < 1 or every < 1 or n_steps % every:
            raise ValueError(f"every must divide the number of steps, got {every} and {n_steps}")
        dts = jnp.diff(times)
        if is_known(times) and not (np.diff(np.asarray(times)) > 0).all():
            raise ValueError(f"times must grow, so that dt is positive, got a shortest dt of {np.diff(np.asarray(times)).min()}")
        snapshots = march(self._in_precision(state)._stepper, state, dts.astype(state.cells.dtype), every)
        return self._solution(times[::every], snapshots)

    def solve_adaptively(self, state: State, times: Float[Array, " times"], adaptivity: Adaptivity | None = None) -> Solution:
        """States at the given times by steps as long as the changes allow, for solutions that may blow up.

        Not differentiable in reverse (the number of steps is not known beforehand): for gradients take `solve`.

        **Arguments:** `adaptivity`: [`Adaptivity`][gradatim.physics.chemotaxis.Adaptivity], its defaults if None.

        **Raises:** `ValueError` for times that do not grow.
        """
        if times.size < 2 or (is_known(times) and not (np.diff(np.asarray(times)) > 0).all()):
            raise ValueError(f"times must be at least two that grow, got {times}")
        model = self._in_precision(state)
        snapshots = march_adaptively(model._stepper, state, times.astype(state.cells.dtype), adaptivity or Adaptivity())
        return self._solution(times, snapshots)

    def _stepper(self, dt: Array) -> Stepper:
        signals: AbstractSignals
        if self.limit != "none":
            signals = EllipticSignals(self.grid, self.tau.astype(dt.dtype), self.limit == "ids")
        else:
            eps, tau = self.eps.astype(dt.dtype), self.tau.astype(dt.dtype)
            signals = ExactSignals(self.grid, eps, tau, dt) if isinstance(self.grid, Box) else ImplicitSignals(self.grid, eps, tau, dt)
        return Stepper(self.grid, signals, dt, self.chi.astype(dt.dtype))

    def _in_precision(self, state: State) -> IndirectChemotaxis:
        if state.cells.shape != self.grid.shape:
            raise ValueError(f"cells must have the grid's shape {self.grid.shape}, got {state.cells.shape}; batch with jax.vmap")
        leaves = tuple(x.astype(state.cells.dtype) for x in (self.eps, self.tau, self.chi))
        return eqx.tree_at(lambda m: (m.eps, m.tau, m.chi), self, leaves)

    def _solution(self, times: Array, snapshots: Snapshot) -> Solution:
        states, flag = snapshots
        mass = jax.vmap(self.grid.integral)(states.cells)
        return Solution(
            times.astype(states.cells.dtype), *states, mass, jax.vmap(self.entropy)(states), flag, mass[0] > self.critical_mass()
        )


def simplify(model: IndirectChemotaxis, limit: Limit) -> IndirectChemotaxis:
    """The limit of a model: `"pes"` for ε → 0, `"ids"` for (ε, τ) → (0, 0).

    **Raises:** `ValueError` for another word, or for "pes" of a model whose τ is not positive: that limit is "ids".

    >>> simplify(IndirectChemotaxis(Box((8,)), 0.1, 0.2), "ids").limit
    'ids'
    """
    if limit not in ("pes", "ids"):
        raise ValueError(f"limit must be 'pes' or 'ids', got {limit!r}")
    if limit == "ids":
        return IndirectChemotaxis(model.grid, 0.0, 0.0, model.chi)
    if is_known(model.tau) and not float(model.tau) > 0:
        raise ValueError(f"tau must be positive for the limit 'pes', got {float(model.tau)}; at tau = 0 take 'ids'")
    return IndirectChemotaxis(model.grid, 0.0, model.tau, model.chi)


@functools.cache
def _warn_of_single_precision(eps: float) -> None:
    warnings.warn(
        f"cells in float32 with eps = {eps:g}, below 1e-4: the distance of the signals to their limit is lost in round-off; take float64",
        stacklevel=3,
    )
