"""How a network's output becomes a field: as it is, or weighed by a solve, once or block by block; and what the field is held to."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradatim.implicit import BlockPartition, HardConstraint, MixtureOfConstraints, Parts, Weighed
from gradatim.sciml import BasisNetwork, DiffusionSorption, SorptionTerms, SpaceTimeGrid

from .config import Config

Arm = Literal["penalty", "single", "blocks", "scattered"]
ARMS: tuple[Arm, ...] = ("penalty", "single", "blocks", "scattered")
HORIZON = 500.0
"s."
MEAN_INITIAL = 0.1
"Initial concentrations are uniform between 0 and twice this."


class Span(NamedTuple):
    """Where equation and conditions are asked for."""

    equation: Float[Array, "times places"]
    "1 inside, 0 elsewhere."
    later: Float[Array, " later"]
    "1 for the times after the start at which boundaries count."


class Given(NamedTuple):
    """One problem, for the rows of the conditions."""

    initial: Float[Array, ""]
    scale: Float[Array, ""]
    later: Float[Array, " later"]
    weight: Float[Array, ""]
    "Of the conditions beside the equation."


class Rows(eqx.Module):
    """The residual of a solve: each group of rows over the root of its number, so that few or many points do not weigh more or less."""

    problem: DiffusionSorption

    def __call__(self, fields: Parts, data: Parts) -> tuple[Array, Array, Array, Array]:
        """Equation at the sampled points, initial state, left and right ends."""
        equation = self.problem.equation(fields.local, HORIZON)
        left = self.problem.conditions(fields.shared, data.shared.initial, data.shared.scale)
        weight = data.shared.weight
        later = weight * data.shared.later / jnp.sqrt(jnp.sum(data.shared.later))
        return (
            equation / math.sqrt(equation.size),
            weight * left.initial / math.sqrt(left.initial.size),
            later * left.left,
            later * left.right,
        )


class Solved(NamedTuple):
    """A field, what its solves say, and the residual of the equation."""

    u: Float[Array, "times places"]
    weighed: Weighed | None
    residual: Float[Array, "times places"]
    "Of u as it is, jumps between blocks among its differences."
    inner: Float[Array, "times places"]
    "Of each block by itself."


class Losses(NamedTuple):
    """Root mean squares of what should be zero."""

    equation: Float[Array, ""]
    conditions: Float[Array, ""]


class Model(eqx.Module):
    """All that belongs to an arm but its network."""

    problem: DiffusionSorption
    grid: SpaceTimeGrid
    mixture: MixtureOfConstraints | None
    is_scattered: bool = eqx.field(static=True)
    "Whether the solves of the blocks have their points anywhere, which tells what it is worth that a block's own are its neighbours."
    relative_initial: bool = eqx.field(static=True)
    interface: str = eqx.field(static=True)

    def given(self, initial: Float[Array, ""], span: Span, weight: Float[Array, ""]) -> Given:
        """The problem with this initial concentration."""
        scale = initial if self.relative_initial else jnp.full_like(initial, MEAN_INITIAL)
        return Given(initial, scale, span.later, weight)

    def solve(
        self, network: BasisNetwork, initial: Float[Array, ""], points: Int[Array, "blocks points"], span: Span, weight: Float[Array, ""]
    ) -> Solved:
        """The field of one initial state."""
        shape = (self.grid.n_times, self.grid.n_places)
        channels = (self.grid.t[:, None] / self.grid.horizon, self.grid.x[None], initial)
        basis = network(jnp.stack([jnp.broadcast_to(channel, shape) for channel in channels], axis=-1))
        if self.mixture is None:
            u = basis[..., 0]
            residual = self.problem.equation(self.problem.terms(u, self.grid), HORIZON)
            return Solved(u, None, residual, residual)
        terms = Parts(self.problem.terms(basis, self.grid), self.problem.edges(basis, self.grid))
        weighed = self._weigh(self.mixture, terms, Parts(None, self.given(initial, span, weight)), points)
        fields: SorptionTerms = self.mixture.assemble(terms.local, weighed.weights)
        residual = self.problem.equation(self.problem.terms(fields.value, self.grid), HORIZON)
        return Solved(fields.value, weighed, residual, self.problem.equation(fields, HORIZON))

    def _weigh(self, mixture: MixtureOfConstraints, terms: Parts, data: Parts, points: Int[Array, "blocks points"]) -> Weighed:
        if not self.is_scattered:
            return mixture(terms, data, points)
        whole = MixtureOfConstraints(mixture.constraint, BlockPartition((1, 1)))
        found = jax.vmap(lambda rows: whole(terms, data, rows[None]))(points)
        return jax.tree.map(lambda x: x[:, 0], found)

    def losses(self, solved: Solved, initial: Float[Array, ""], span: Span) -> Losses:
        """What training makes small, for all arms alike."""
        given = self.given(initial, span, jnp.ones_like(initial))
        left = self.problem.conditions(self.problem.edges(solved.u, self.grid), given.initial, given.scale)
        residual = solved.residual if self.interface == "include" else solved.inner
        conditions = root_mean_square(left.initial), root_mean_square(left.left, span.later), root_mean_square(left.right, span.later)
        return Losses(root_mean_square(residual, span.equation), conditions[0] + conditions[1] + conditions[2])


def root_mean_square(values: Float[Array, "*axes"], weights: Float[Array, "*axes"] | None = None) -> Float[Array, ""]:
    """Over the entries of weight 1."""
    squares = values**2
    mean = jnp.mean(squares) if weights is None else jnp.sum(weights * squares) / jnp.sum(weights)
    # The root has no derivative at zero.
    return jnp.sqrt(mean + 1e-20)


def relative_error(u: Array, truth: Array, weights: Array) -> Array:
    """‖u - truth‖ / ‖truth‖ over the entries of weight 1."""
    return jnp.sqrt(jnp.sum(weights * (u - truth) ** 2) / jnp.sum(weights * truth**2))


def model_of(config: Config, arm: Arm) -> Model:
    """An arm's model."""
    problem, mixture = DiffusionSorption(), None
    if arm != "penalty":
        # At some rates a training diverges, which is for the loop to see.
        constraint = HardConstraint(Rows(problem), rtol=config.tolerance, atol=config.tolerance, max_steps=config.max_steps, throw=False)
        mixture = MixtureOfConstraints(constraint, BlockPartition((1, n_blocks(config, arm))))
    grid = SpaceTimeGrid(config.times, config.places, HORIZON)
    return Model(problem, grid, mixture, arm == "scattered", config.relative_initial, config.interface)


untrained = eqx.filter_jit(BasisNetwork)
"A network, by one program for all arms that weigh as many functions."


def new_network(config: Config, arm: Arm, key: Array) -> BasisNetwork:
    """Untrained: basis functions where they are weighed, else the field itself."""
    constrained = arm != "penalty"
    return untrained(
        3, config.basis if constrained else 1, width=config.width, depth=config.depth, modes=config.modes, hidden=config.hidden,
        activate_last=constrained, key=key,
    )  # fmt: skip


def n_blocks(config: Config, arm: Arm) -> int:
    """How many solves an arm has."""
    return config.blocks if arm in ("blocks", "scattered") else 1


def span_of(config: Config, n_times: int) -> Span:
    """The first `n_times`."""
    grid = SpaceTimeGrid(config.times, config.places, HORIZON)
    return Span(grid.interior(n_times), jnp.asarray(np.arange(1, config.times) < n_times, float))


def draw_points(config: Config, arm: Arm, span: Span, sets: int, random: np.random.Generator) -> np.ndarray:
    """Sets of points where the equation is asked for, without repetition, as many a block: axes (set, block, point).

    Numbers within the flattened block, or within the whole grid where they are scattered.
    """
    if arm == "scattered":
        drawn = random.permuted(draw_points(config, "single", span, sets, random)[:, 0], axis=1)
        return drawn.reshape(sets, config.blocks, -1)
    blocks = n_blocks(config, arm)
    inside = np.asarray(span.equation) > 0
    width, n_points = config.places // blocks, config.points // blocks
    drawn = np.empty((sets, blocks, n_points), np.int32)
    for k in range(blocks):
        (eligible,) = np.nonzero(inside[:, k * width : (k + 1) * width].ravel())
        if n_points > eligible.size:
            raise ValueError(f"points must be at most {eligible.size * blocks}, those inside the blocks, got {config.points}")
        rows = random.random((sets, eligible.size)).argpartition(n_points - 1, axis=1)[:, :n_points]
        drawn[:, k] = eligible[rows]
    return drawn
