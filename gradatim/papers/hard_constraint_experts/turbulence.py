"""Turbulence in a periodic plane by a penalised network, by one solve and by blocks, judged on a finer grid than that of the training.

All arms start from the initial vorticity, w = w₀ + t/T · (network, or weighed basis functions), less its mean: initial and boundary
conditions hold by construction, and the equation is all there is to weigh.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

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
from gradatim.sciml import BasisNetwork, PlaneVorticity, random_vorticity, reference_vorticity

from .config import Config, Turbulence
from .problem import root_mean_square
from .training import State, adam_step, edge_note, first_state, last_error

FlowArm = Literal["penalty", "single", "blocks"]
FLOW_ARMS: tuple[FlowArm, ...] = ("penalty", "single", "blocks")
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


class HeldOutFlows(NamedTuple):
    """Initial states that no network is trained on, and their solutions, on the grid of the training and on the finer one."""

    initial: Any
    truth: Any
    fine_initial: Any
    fine_truth: Any


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
    """Every arm at every rate for few steps, then at its best for all seeds."""
    sizes = config.turbulence
    key_states, key_pilot, *keys = jax.random.split(key, 2 + sizes.seeds)
    initial, *held_out = session.once("turbulent solutions", lambda: _states(sizes, key_states))
    choosing, judging = (HeldOutFlows(*parts) for parts in held_out)
    found: dict[FlowArm, list[dict[str, np.ndarray]]] = {}
    for arm in FLOW_ARMS:
        trainer = FlowTrainer(sizes, arm, session, initial)
        tried = {
            rate: trainer.pilot(choosing, key_pilot, rate, sizes.pilot_steps, f"turbulence, {arm}, rate {rate:g}") for rate in sizes.rates
        }
        rate = min(tried, key=lambda rate: tried[rate])
        session.note(f"turbulence, {arm}: Adam's rate {rate:g}{edge_note(rate, sizes.rates)}")
        found[arm] = [trainer.train(judging, key, rate, sizes.steps, f"turbulence, {arm}, seed {i}") for i, key in enumerate(keys)]

    def stacked(name: str) -> np.ndarray:
        return np.stack([np.stack([run[name] for run in found[arm]]) for arm in FLOW_ARMS])

    axes = ("arm", "seed", "step")
    return xr.Dataset(
        {
            "error": (axes, stacked("error"), {"units": "%"}),
            "fine_error": (axes, stacked("fine_error"), {"units": "%"}),
            "residual": (axes, stacked("residual"), {"units": "1"}),
            "field": (("arm", "x", "y"), stacked("field")[:, 0, -1], {"units": "1"}),
            "truth": (("x", "y"), judging.truth[0, -1], {"units": "1"}),
        },
        {"arm": list(FLOW_ARMS), "step": found["penalty"][0]["step"]},
        {"standing": float(100 * np.mean(_relative(np.broadcast_to(judging.initial[:, None], judging.truth.shape), judging.truth)))},
    )


class FlowTrainer:
    """One arm: a program for all its runs."""

    def __init__(self, sizes: Turbulence, arm: FlowArm, session: Session, initial: np.ndarray) -> None:
        self._sizes, self._session, self._initial = sizes, session, jnp.asarray(initial)
        self._arm: FlowArm = arm
        coarse, fine = (flow_of(sizes, arm, side) for side in (sizes.side, sizes.fine_side))
        self._begin = eqx.filter_jit(lambda key: new_network(sizes, arm, key))

        def step(state: State, i: Array, work: FlowWork) -> State:
            return take_step(coarse, state, i, work)

        def watch(state: State, work: FlowWork) -> dict[str, Array]:
            return look(coarse, fine, state, work)

        self._step, self._watch = step, watch

    def train(self, held_out: HeldOutFlows, key: PRNGKeyArray, rate: float, n_steps: int, label: str) -> dict[str, np.ndarray]:
        """One run: what was looked at, axis (look, …)."""
        return self._run(held_out, key, rate, n_steps, label, is_pilot=False).history

    def pilot(self, held_out: HeldOutFlows, key: PRNGKeyArray, rate: float, n_steps: int, label: str) -> float:
        """One run to choose by: its last error."""
        return last_error(self._run(held_out, key, rate, n_steps, label, is_pilot=True))

    def _run(self, held_out: HeldOutFlows, key: PRNGKeyArray, rate: float, n_steps: int, label: str, *, is_pilot: bool) -> Loop:
        sizes, (key_network, key_draws) = self._sizes, jax.random.split(key)
        random = host_generator(key_draws)
        batches = random.integers(len(self._initial), size=(n_steps, sizes.batch))
        points = np.stack([draw_flow_points(sizes, self._arm, sizes.side, sizes.points, random) for _ in range(min(n_steps, POINT_SETS))])
        finer = sizes.points * (sizes.fine_side // sizes.side) ** 2
        fine_points = draw_flow_points(sizes, self._arm, sizes.fine_side, finer, random)
        work = FlowWork(
            jnp.asarray(rate, float), jnp.asarray(n_steps, float), self._initial, jnp.asarray(batches), jnp.asarray(points),
            jnp.asarray(fine_points), jax.tree.map(jnp.asarray, held_out),
        )  # fmt: skip
        state = first_state(self._begin(key_network))
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
    return BasisNetwork(
        4, 1 if arm == "penalty" else sizes.basis, width=sizes.width, depth=sizes.depth, modes=sizes.modes, hidden=sizes.hidden,
        activate_last=False, key=key,
    )  # fmt: skip


def n_splits(sizes: Turbulence, arm: FlowArm) -> tuple[int, int]:
    """Blocks along x and y."""
    return (sizes.splits, sizes.splits) if arm == "blocks" else (1, 1)


def draw_flow_points(sizes: Turbulence, arm: FlowArm, side: int, n_points: int, random: np.random.Generator) -> np.ndarray:
    """Points at times with neighbours on both sides, without repetition, as many in every block: axes (block, point)."""
    splits = n_splits(sizes, arm)
    block = (sizes.times, side // splits[0], side // splits[1])
    eligible = np.arange(math.prod(block)).reshape(block)[1:-1].ravel()
    n_blocks = math.prod(splits)
    if n_points // n_blocks > eligible.size:
        raise ValueError(f"turbulence.points must be at most {eligible.size * n_blocks}, those inside the blocks, got {n_points}")
    return np.stack([random.choice(eligible, n_points // n_blocks, replace=False) for _ in range(n_blocks)]).astype(np.int32)


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


def _states(sizes: Turbulence, key: PRNGKeyArray) -> tuple[np.ndarray, tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Initial states to train from; and to choose and to judge by, their solutions too, on both grids."""
    grid = PeriodicGrid((sizes.reference_side, sizes.reference_side), 1.0)
    key_train, key_held = jax.random.split(key)
    thin = sizes.reference_side // sizes.side
    # One by one: the reference's grid is fine.
    draw = jax.jit(lambda key: random_vorticity(key, grid))
    initial = np.stack([np.asarray(draw(each))[::thin, ::thin] for each in jax.random.split(key_train, sizes.initial_states)])
    steps = math.ceil(sizes.horizon / (sizes.times - 1) * sizes.reference_side)

    @jax.jit
    def solve(key: Array) -> Array:
        return reference_vorticity(
            random_vorticity(key, grid),
            grid,
            viscosity=sizes.viscosity,
            horizon=sizes.horizon,
            n_snapshots=sizes.times - 1,
            steps_between=steps,
        )

    solved = [np.asarray(solve(each)) for each in jax.random.split(key_held, 2 * sizes.held_out)]

    def held(states: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        finer = sizes.reference_side // sizes.fine_side
        coarse, fine = (np.stack([w[:, ::every, ::every] for w in states]) for every in (thin, finer))
        return coarse[:, 0], coarse, fine[:, 0], fine

    return initial, held(solved[: sizes.held_out]), held(solved[sizes.held_out :])


def _relative(w: Any, truth: Any) -> Any:
    """Relative errors over the last three axes."""
    axes = (-3, -2, -1)
    return (((w - truth) ** 2).sum(axes) / (truth**2).sum(axes)) ** 0.5
