"""Turbulence in a periodic plane by a penalised network, by one solve and by blocks, judged on a finer grid than that of the training.

All arms start from the initial vorticity, w = w₀ + t/T · (network, or weighed basis functions), less its mean: initial and boundary
conditions hold by construction, and the equation is all there is to weigh.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.implicit import BlockPartition, HardConstraint, MixtureOfConstraints, Parts
from gradatim.lab import Loop, Session
from gradatim.lab.draws import host_generator
from gradatim.numerics import PeriodicGrid
from gradatim.sciml import BasisNetwork, PlaneVorticity

from .config import Config, Turbulence
from .flow_draws import FLOW_ARMS, FlowArm, FlowSeed, HeldOutFlows, draw_flow_points, draw_flow_seeds, n_splits
from .problem import root_mean_square, untrained
from .training import State, adam_step, edge_note, first_state, last_error

POINT_SETS = 64
"Drawn at most; steps take them in turns."


class FlowRows(eqx.Module):
    """The equation's residual at the sampled points, over the root of their number; data are the terms of the initial vorticity."""

    problem: PlaneVorticity
    horizon: float = eqx.field(static=True)

    def __call__(self, fields: Parts, data: Parts) -> Array:
        """Of the weighed basis functions on top of the initial vorticity."""
        rows = self.problem.equation(jax.tree.map(jnp.add, fields.local, data.local), self.horizon)
        return rows / math.sqrt(rows.size)


class Flow(eqx.Module):
    """All that belongs to an arm on a grid but its network."""

    problem: PlaneVorticity
    grid: PeriodicGrid
    mixture: MixtureOfConstraints | None
    n_times: int = eqx.field(static=True)
    horizon: float = eqx.field(static=True)

    @property
    def dt(self) -> float:
        """Between two times."""
        return self.horizon / (self.n_times - 1)

    def solve(self, network: BasisNetwork, initial: Float[Array, "nx ny"], points: Int[Array, "blocks points"]) -> Array:
        """The vorticity at all times, axes (time, x, y)."""
        shape = (self.n_times, *self.grid.shape)
        share = jnp.linspace(0.0, 1.0, self.n_times, dtype=initial.dtype)[:, None, None]
        channels = (share, *(place[None] for place in self.grid.positions()), initial[None])
        basis = network(jnp.stack([jnp.broadcast_to(channel, shape) for channel in channels], axis=-1))
        basis = share[..., None] * (basis - jnp.mean(basis, axis=(1, 2), keepdims=True))
        start = jnp.broadcast_to(initial[None], shape)
        if self.mixture is None:
            return start + basis[..., 0]
        terms, known = (self.problem.terms(w, self.grid, dt=self.dt) for w in (basis, start))
        weights = self.mixture(Parts(terms), Parts(known), points).weights
        moved = self.mixture.assemble(basis, weights)
        return start + moved - jnp.mean(moved, axis=(1, 2), keepdims=True)

    def residual(self, w: Float[Array, "times nx ny"]) -> Float[Array, ""]:
        """Root mean square at the times that have neighbours on both sides."""
        return root_mean_square(self.problem.equation(self.problem.terms(w, self.grid, dt=self.dt), self.horizon)[1:-1])


class FlowWork(NamedTuple):
    """What a run is given."""

    rate: Float[Array, ""]
    n_steps: Float[Array, ""]
    initial: Float[Array, "states nx ny"]
    batches: Int[Array, "steps batch"]
    points: Int[Array, "sets blocks points"]
    fine_points: Int[Array, "blocks points"]
    held_out: HeldOutFlows


def train_turbulence(config: Config, session: Session, key: PRNGKeyArray) -> xr.Dataset:
    """Every arm at every rate for few steps, then, at the one with the best mean over the pilots' seeds, for all that are judged."""
    sizes = config.turbulence
    pilot_seeds, seeds = draw_flow_seeds(sizes, session, key)
    found: dict[FlowArm, list[dict[str, np.ndarray]]] = {}
    for arm in FLOW_ARMS:
        trainer = FlowTrainer(sizes, arm, session)
        tried = {
            rate: [
                trainer.pilot(seed, rate, sizes.pilot_steps, f"turbulence, {arm}, rate {rate:g}, pilot {i}")
                for i, seed in enumerate(pilot_seeds)
            ]
            for rate in sizes.rates
        }
        rate = min(tried, key=lambda rate: np.mean(tried[rate]))
        session.note(f"turbulence, {arm}: Adam's rate {rate:g}{edge_note(rate, sizes.rates)}")
        found[arm] = [trainer.train(seed, rate, sizes.steps, f"turbulence, {arm}, seed {i}") for i, seed in enumerate(seeds)]

    def stacked(name: str) -> np.ndarray:
        return np.stack([np.stack([run[name] for run in found[arm]]) for arm in FLOW_ARMS])

    axes = ("arm", "seed", "step")
    return xr.Dataset(
        {
            "error": (axes, stacked("error"), {"units": "%"}),
            "fine_error": (axes, stacked("fine_error"), {"units": "%"}),
            "residual": (axes, stacked("residual"), {"units": "1"}),
            "field": (("arm", "x", "y"), stacked("field")[:, 0, -1], {"units": "1"}),
            "truth": (("x", "y"), seeds[0].held_out.truth[0, -1], {"units": "1"}),
        },
        {"arm": list(FLOW_ARMS), "step": found["penalty"][0]["step"]},
        {"standing": float(100 * np.mean([_relative(held.initial[:, None], held.truth) for _, _, held in seeds]))},
    )


class FlowTrainer:
    """One arm: a program for all its runs."""

    def __init__(self, sizes: Turbulence, arm: FlowArm, session: Session) -> None:
        self._sizes, self._session = sizes, session
        self._arm: FlowArm = arm
        coarse, fine = (flow_of(sizes, arm, side) for side in (sizes.side, sizes.fine_side))
        self._step, self._watch = eqx.Partial(take_step, coarse), eqx.Partial(look, coarse, fine)

    def train(self, seed: FlowSeed, rate: float, n_steps: int, label: str) -> dict[str, np.ndarray]:
        """One run: what was looked at, axis (look, …)."""
        return self._run(seed, rate, n_steps, label, is_pilot=False).history

    def pilot(self, seed: FlowSeed, rate: float, n_steps: int, label: str) -> float:
        """One run to choose by: its last error."""
        return last_error(self._run(seed, rate, n_steps, label, is_pilot=True))

    def _run(self, seed: FlowSeed, rate: float, n_steps: int, label: str, *, is_pilot: bool) -> Loop:
        sizes, (key_network, key_draws) = self._sizes, jax.random.split(seed.key)
        random = host_generator(key_draws)
        batches = random.integers(len(seed.initial), size=(n_steps, sizes.batch))
        points = np.stack([draw_flow_points(sizes, self._arm, sizes.side, sizes.points, random) for _ in range(min(n_steps, POINT_SETS))])
        finer = sizes.points * (sizes.fine_side // sizes.side) ** 2
        fine_points = draw_flow_points(sizes, self._arm, sizes.fine_side, finer, random)
        work = FlowWork(
            jnp.asarray(rate, float), jnp.asarray(n_steps, float), jnp.asarray(seed.initial), jnp.asarray(batches), jnp.asarray(points),
            jnp.asarray(fine_points), jax.tree.map(jnp.asarray, seed.held_out),
        )  # fmt: skip
        state = first_state(new_network(sizes, self._arm, key_network))
        every = n_steps // sizes.looks
        return self._session.loop(
            self._step, state, steps=n_steps, args=work, every=every, watch=self._watch, label=label,
            on_nonfinite="stop" if is_pilot else "raise",
        )  # fmt: skip


def take_step(flow: Flow, state: State, i: Array, work: FlowWork) -> State:
    """One step on a batch of initial states."""
    initial, points = work.initial[work.batches[i]], work.points[i % work.points.shape[0]]

    def loss(network: BasisNetwork) -> Array:
        return jnp.mean(jax.vmap(lambda w: flow.residual(flow.solve(network, w, points)))(initial))

    return adam_step(loss, state, i, work.rate, work.n_steps)


def look(coarse: Flow, fine: Flow, state: State, work: FlowWork) -> dict[str, Array]:
    """Held-out states on both grids, one at a time: relative errors, the residual, and the first one's last field."""

    def one(held: HeldOutFlows) -> dict[str, Array]:
        w = coarse.solve(state.network, held.initial, work.points[0])
        finer = fine.solve(state.network, held.fine_initial, work.fine_points)
        return {
            "error": 100 * _relative(w, held.truth),
            "fine_error": 100 * _relative(finer, held.fine_truth),
            "residual": coarse.residual(w),
            "field": w[-1],
        }

    found = jax.lax.map(one, work.held_out)
    field = found.pop("field")[0]
    return {"loss": state.loss, "field": field} | {name: jnp.mean(values) for name, values in found.items()}


def flow_of(sizes: Turbulence, arm: FlowArm, side: int) -> Flow:
    """An arm's model on a grid of that side."""
    problem, mixture = PlaneVorticity(sizes.viscosity), None
    if arm != "penalty":
        constraint = HardConstraint(
            FlowRows(problem, sizes.horizon), start=0.0, rtol=sizes.tolerance, atol=sizes.tolerance, max_steps=sizes.max_steps, throw=False
        )
        mixture = MixtureOfConstraints(constraint, BlockPartition((1, *n_splits(sizes, arm))))
    return Flow(problem, PeriodicGrid((side, side), 1.0), mixture, sizes.times, sizes.horizon)


def new_network(sizes: Turbulence, arm: FlowArm, key: Array) -> BasisNetwork:
    """Untrained."""
    return untrained(
        4, 1 if arm == "penalty" else sizes.basis, width=sizes.width, depth=sizes.depth, modes=sizes.modes, hidden=sizes.hidden,
        activate_last=False, key=key,
    )  # fmt: skip


def check_turbulence(sizes: Turbulence) -> None:
    """Raises `ValueError` for sizes that do not go together."""
    if sizes.side % sizes.splits or sizes.points % sizes.splits**2:
        raise ValueError(f"turbulence.side and .points must be multiples of the {sizes.splits} splits, and of their square")
    for name in ("fine_side", "reference_side"):
        if getattr(sizes, name) % sizes.side:
            raise ValueError(f"turbulence.{name} must be a multiple of the side of {sizes.side}, got {getattr(sizes, name)}")
    if sizes.reference_side % sizes.fine_side:
        raise ValueError(f"turbulence.reference_side must be a multiple of fine_side, got {sizes.reference_side} and {sizes.fine_side}")
    for name in ("steps", "pilot_steps"):
        if getattr(sizes, name) % sizes.looks:
            raise ValueError(f"turbulence.{name} must be a multiple of the {sizes.looks} looks, got {getattr(sizes, name)}")


def _relative(w: Any, truth: Any) -> Any:
    """Relative errors over the last three axes."""
    axes = (-3, -2, -1)
    return (((w - truth) ** 2).sum(axes) / (truth**2).sum(axes)) ** 0.5
