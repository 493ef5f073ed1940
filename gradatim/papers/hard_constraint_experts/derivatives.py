"""Derivatives through the solves of all blocks, against central differences of the whole."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, PRNGKeyArray

from gradatim.implicit import BlockPartition, HardConstraint, MixtureOfConstraints, Parts
from gradatim.lab import Session
from gradatim.lab.draws import host_generator
from gradatim.sciml import DiffusionSorption, SpaceTimeGrid

from .config import Config
from .problem import HORIZON, MEAN_INITIAL, Given, Rows

N_TIMES, N_PLACES, N_BASIS, N_BLOCKS, N_POINTS = 6, 16, 4, 4, 16
N_DRAWS = 3
"Of a direction and of points."
STEP = 1e-5
"Of the central differences; half of it tells their error."


def cosines(grid: SpaceTimeGrid, n: int) -> np.ndarray:
    """The first `n` products of cosines of time and place, the slowest first."""
    orders = sorted(((i, j) for i in range(n) for j in range(n)), key=lambda pair: (sum(pair), pair))[:n]
    t, x = np.linspace(0, 1, grid.n_times), np.linspace(0, 1, grid.n_places)
    return np.stack([np.cos(np.pi * i * t)[:, None] * np.cos(np.pi * j * x)[None] for i, j in orders], axis=-1)


def measure_derivatives(config: Config, session: Session, key: PRNGKeyArray) -> xr.Dataset:
    """A loss of each block along random directions of the basis, and the derivative of one block's weights by the rows of the others."""
    grid = SpaceTimeGrid(N_TIMES, N_PLACES, HORIZON)
    random = host_generator(key)
    basis = jnp.asarray(cosines(grid, N_BASIS))
    drawn = [(random.normal(size=basis.shape), _draw_points(random)) for _ in range(N_DRAWS)]
    problem = DiffusionSorption()
    constraint = HardConstraint(Rows(problem), rtol=1e-13, atol=1e-13, max_steps=100)
    mixture = MixtureOfConstraints(constraint, BlockPartition((1, N_BLOCKS)))
    article = None
    if config.article_derivative:
        article = MixtureOfConstraints(dataclasses.replace(constraint, derivative="pseudo-inverse"), mixture.partition)
    found = session.once(
        "derivatives", lambda: [_measure(mixture, article, problem, grid, basis, *map(jnp.asarray, pair)) for pair in drawn]
    )
    names = ["exact", "differences", "differences_error", "residual_norm", *(["pseudo_inverse"] if article is not None else [])]
    variables: dict[str, Any] = {name: (("draw", "block"), np.stack([one[name] for one in found]), {"units": "1"}) for name in names}
    variables["by_rows_of"] = (("draw", "block", "other"), np.stack([one["by_rows_of"] for one in found]), {"units": "1"})
    return xr.Dataset(variables, {"block": np.arange(N_BLOCKS), "other": np.arange(N_BLOCKS)})


def _draw_points(random: np.random.Generator) -> np.ndarray:
    return np.stack([random.permutation(N_TIMES * N_PLACES // N_BLOCKS)[:N_POINTS] for _ in range(N_BLOCKS)])


def _measure(
    mixture: MixtureOfConstraints, article: MixtureOfConstraints | None, problem: DiffusionSorption, grid: SpaceTimeGrid, basis: Array,
    direction: Array, points: Array,
) -> dict[str, Any]:  # fmt: skip
    args = (problem, grid, basis, direction, points)

    def at(mixture: MixtureOfConstraints, place: float) -> dict[str, Array]:
        return _along(mixture, *args, jnp.asarray(place, float))

    exact = at(mixture, 0.0)
    differences = []
    for step in (STEP, STEP / 2):
        up, down = (np.asarray(at(mixture, sign * step)["losses"]) for sign in (1, -1))
        differences.append((up - down) / (2 * step))
    return {
        "exact": exact["slopes"],
        "differences": differences[1],
        "differences_error": np.abs(differences[1] - differences[0]),
        "residual_norm": exact["residual_norm"],
        "by_rows_of": exact["by_rows_of"],
        **({} if article is None else {"pseudo_inverse": at(article, 0.0)["slopes"]}),
    }


@eqx.filter_jit
def _along(
    mixture: MixtureOfConstraints, problem: DiffusionSorption, grid: SpaceTimeGrid, basis: Array, direction: Array, points: Array,
    place: Array,
) -> dict[str, Array]:  # fmt: skip
    """Losses of the blocks at a place along the direction, their slopes there, and the largest derivative of each block's first weight
    by rows of each block.
    """
    given, n = Given(jnp.asarray(MEAN_INITIAL), jnp.asarray(MEAN_INITIAL), jnp.ones(grid.n_times - 1), jnp.ones(())), points.shape[0]

    def terms_of(basis: Array) -> Parts:
        return Parts(problem.terms(basis, grid), problem.edges(basis, grid))

    def of_terms(terms: Parts) -> tuple[tuple[Array, Array], Array]:
        found = mixture(terms, Parts(None, given), points)
        u = mixture.assemble(terms.local.value, found.weights)
        return (jnp.sum(mixture.partition.split(u) ** 2, axis=(1, 2)), found.weights[:, 0]), found.residual_norm

    (losses, _), pull, norms = jax.vjp(of_terms, terms_of(basis + place * direction), has_aux=True)
    units, zeros = jnp.eye(n), jnp.zeros((n, n))
    pulled = jax.vmap(lambda *cotangents: pull(cotangents)[0])(jnp.concatenate([units, zeros]), jnp.concatenate([zeros, units]))
    # Terms are linear in the basis: along the direction they change by its terms.
    products = jax.tree.map(lambda p, term: jnp.einsum("kr,r->k", p.reshape(2 * n, -1), term.ravel()), pulled, terms_of(direction))

    def by_block(leaf: Array) -> Array:
        return jax.vmap(lambda one: jnp.abs(mixture.partition.split(one)).reshape(n, -1).max(axis=1))(leaf[n:])

    return {
        "losses": losses,
        "slopes": jnp.sum(jnp.stack(jax.tree.leaves(products)), axis=0)[:n],
        "residual_norm": norms,
        "by_rows_of": jnp.stack([by_block(leaf) for leaf in pulled.local]).max(axis=0),
    }
