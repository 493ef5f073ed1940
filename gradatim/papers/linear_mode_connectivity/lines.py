"""What lies between the ends: barriers, the curvature that makes them, and lines on which one layer moves."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, PyTree

from gradatim.lab import Session
from gradatim.landscape import (
    barrier,
    chord_derivatives,
    cumulative_lines,
    directional_derivatives,
    displacement_angle,
    distance,
    layerwise_lines,
    line_loss,
    plane_slice,
    plane_through,
    quadrature,
)

from .config import Config
from .training import Problem, Runs, flat


def measure_lines(config: Config, runs: Runs, session: Session, label: str) -> xr.Dataset:
    """Lines between all pairs, geometry of all forks, curvature along all chords."""
    problem, forks = runs.problem, list(config.fork_epochs)
    pairs = [*(f"fork {k}" for k in forks), "independent"]
    lines = session.once(f"{label}: lines", _lines, problem, runs.firsts, runs.seconds, config.points)
    bases = session.once(f"{label}: forks", _forks, problem, runs.bases, runs.firsts, runs.seconds)
    nodes, weights = quadrature(n_nodes=config.nodes)
    t = np.concatenate([nodes, [0.0, 0.5, 1.0]])
    chords = session.once(f"{label}: curvature", _chords, problem, runs.firsts, runs.seconds, jnp.asarray(t, jnp.float32))
    lines, bases, chords = (_shaped(values, config.seeds) for values in (lines, bases, chords))
    curvature, (loss_0, loss_half, loss_1) = chords["curvature"], np.moveaxis(chords["loss"][..., -3:], -1, 0)
    slope_0, _, slope_1 = np.moveaxis(chords["slope"][..., -3:], -1, 0)
    at_0, at_half, at_1 = np.moveaxis(curvature[..., -3:], -1, 0)
    bowls = (at_0 + at_1) / 16
    predictions = {
        "integral": -curvature[..., :-3] @ weights,
        "endpoints": bowls,
        "endpoints_with_slopes": bowls + (slope_0 - slope_1) / 4,
        "midpoint": -at_half / 8,
        "fork": np.concatenate([-bases["curvature"] / 8, np.full((config.seeds, 1), np.nan)], axis=1),
    }
    order = np.argsort(t[:-3])
    variables: dict[str, Any] = {
        "line": (("seed", "pair", "t"), lines["line"], "nat"),
        "test_line": (("seed", "pair", "t"), lines["test_line"], "nat"),
        "test_error_line": (("seed", "pair", "t"), lines["test_error_line"], "1"),
        "barrier": (("seed", "pair"), lines["barrier"], "nat"),
        "crest": (("seed", "pair"), lines["crest"], "nat"),
        "barrier_over_mean": (("seed", "pair"), lines["barrier_over_mean"], "nat"),
        "middle": (("seed", "pair"), loss_half - (loss_0 + loss_1) / 2, "nat"),
        "prediction": (("estimate", "seed", "pair"), np.stack(list(predictions.values())), "nat"),
        "curvature": (("seed", "pair", "s"), curvature[..., order], "nat"),
        "end_loss": (("seed", "pair"), (loss_0 + loss_1) / 2, "nat"),
        "accuracy": (("seed", "pair"), lines["accuracy"], "1"),
        "fork_loss": (("seed", "fork"), bases["loss"], "nat"),
        "angle": (("seed", "fork"), bases["angle"], "degree"),
        "angle_from_start": (("seed", "fork"), bases["angle_from_start"], "degree"),
        "distance": (("seed", "pair"), lines["distance"], "1"),
        "watched_loss": (("epoch", "seed", "run"), runs.history["loss"], "nat"),
        "watched_middle": (("epoch", "seed", "pair"), runs.history["middle"], "nat"),
        "watched_distance": (("epoch", "seed", "pair"), runs.history["distance"], "1"),
        "watched_angle": (("epoch", "seed", "fork"), runs.history["angle"], "degree"),
    }
    coordinates = {
        "pair": pairs,
        "fork": forks,
        "t": np.linspace(0, 1, config.points),
        "s": t[:-3][order],
        "estimate": list(predictions),
        "epoch": np.arange(len(runs.history["loss"])),
    }
    return labelled(variables, coordinates)


def measure_layers(config: Config, runs: Runs, session: Session, label: str) -> xr.Dataset:
    """Lines on which one layer moves, or ever more of them, for the first fork and for networks of two initialisations."""
    nodes, weights = quadrature(n_nodes=config.nodes)
    t = jnp.asarray(nodes, jnp.float32)
    arguments = (runs.problem, runs.firsts, runs.seconds, config.layer_points, t)
    found = _shaped(session.once(f"{label}: layers", _layers, *arguments), config.seeds)
    names = [f"layer {number + 1}" for number in range(found["single"].shape[2])]
    variables = {
        "line": (("seed", "case", "layer", "default", "t"), found["line"], "nat"),
        "single": (("seed", "case", "layer", "default"), found["single"], "nat"),
        "cumulative": (("seed", "case", "layer", "default"), found["cumulative"], "nat"),
        "middle": (("seed", "case", "layer"), found["middle"], "nat"),
        "integral": (("seed", "case", "layer"), -found["curvature"] @ weights, "nat"),
    }
    coordinates = {
        "case": ["fork 0", "independent"],
        "layer": names,
        "default": ["first", "second"],
        "t": np.linspace(0, 1, config.layer_points),
    }
    return labelled(variables, coordinates)


def measure_plane(config: Config, runs: Runs, session: Session, label: str) -> xr.Dataset:
    """The loss over the plane through the start of the first seed and the two ends that came of it, with the ways there."""
    found = session.once(f"{label}: plane", _plane, runs.problem, runs.path, config.grid, min(config.watched, config.n_train))
    variables = {
        "loss": (("x", "y"), np.asarray(found["loss"]), "nat"),
        "path": (("epoch", "child", "axis"), np.asarray(found["path"]), "1"),
    }
    return labelled(variables, {"x": np.asarray(found["x"]), "y": np.asarray(found["y"])})


@eqx.filter_jit
def _lines(problem: Problem, firsts: PyTree, seconds: PyTree, n_points: int) -> dict[str, Array]:
    def one(pair: tuple[PyTree, PyTree]) -> dict[str, Array]:
        found = barrier(problem.loss, *pair, n_points=n_points)
        line = found.line.loss
        chord = (1 - found.at) * line[0] + found.at * line[-1]
        return {
            "line": line,
            "test_line": line_loss(problem.test_loss, *pair, n_points=n_points).loss,
            "test_error_line": line_loss(lambda layers: 1 - problem.accuracy(layers), *pair, n_points=n_points).loss,
            "barrier": found.height,
            # The highest of the grid, or what the search found if that is higher.
            "crest": jnp.maximum(line.max(), found.height + chord),
            "barrier_over_mean": line.max() - (line[0] + line[-1]) / 2,
            "distance": distance(*pair),
            "accuracy": problem.accuracy(pair[0]),
        }

    return jax.lax.map(one, (flat(firsts), flat(seconds)))


@eqx.filter_jit
def _forks(problem: Problem, bases: PyTree, firsts: PyTree, seconds: PyTree) -> dict[str, Array]:
    n_forks = jax.tree.leaves(bases)[0].shape[1]
    starts = jax.tree.map(lambda x: jnp.broadcast_to(x[:, :1], x.shape), bases)
    firsts, seconds = (jax.tree.map(lambda x: x[:, :n_forks], ends) for ends in (firsts, seconds))

    def one(each: tuple[PyTree, PyTree, PyTree, PyTree]) -> dict[str, Array]:
        base, start, first, second = each
        found = directional_derivatives(problem.loss, base, jax.tree.map(jnp.subtract, second, first))
        return {
            "loss": found.loss,
            "curvature": found.curvature,
            "angle": displacement_angle(base, first, second),
            "angle_from_start": displacement_angle(start, first, second),
        }

    return jax.lax.map(one, tuple(flat(points) for points in (bases, starts, firsts, seconds)))


@eqx.filter_jit
def _chords(problem: Problem, firsts: PyTree, seconds: PyTree, t: Array) -> dict[str, Array]:
    def one(pair: tuple[PyTree, PyTree]) -> dict[str, Array]:
        found = chord_derivatives(problem.loss, *pair, t)
        return {"loss": found.loss, "slope": found.slope, "curvature": found.curvature}

    return jax.lax.map(one, (flat(firsts), flat(seconds)))


@eqx.filter_jit
def _layers(problem: Problem, firsts: PyTree, seconds: PyTree, n_points: int, t: Array) -> dict[str, Array]:
    n_layers = len(firsts)

    def one(pair: tuple[PyTree, PyTree]) -> dict[str, Array]:
        first, second = pair
        single = layerwise_lines(problem.loss, first, second, n_points=n_points)
        growing = cumulative_lines(problem.loss, first, second, n_points=n_points)

        def curvature(number: Array) -> Array:
            end = tuple(jax.tree.map(lambda a, b, i=i: jnp.where(number == i, b, a), first[i], second[i]) for i in range(n_layers))
            return chord_derivatives(problem.loss, first, end, t).curvature

        line = single.loss[:, 0]
        return {
            "line": single.loss,
            "single": single.barriers,
            "cumulative": growing.barriers,
            "middle": line[:, n_points // 2] - (line[:, 0] + line[:, -1]) / 2,
            "curvature": jax.lax.map(curvature, jnp.arange(n_layers)),
        }

    # Of the fork at the start, and of the networks that began apart.
    chosen = (flat(jax.tree.map(lambda x: x[:, np.array([0, -1])], ends)) for ends in (firsts, seconds))
    return jax.lax.map(one, tuple(chosen))


@eqx.filter_jit
def _plane(problem: Problem, path: PyTree, n: int, n_examples: int) -> dict[str, Array]:
    start, first, second = (jax.tree.map(lambda x, at=at: x[at], path) for at in ((0, 0), (-1, 0), (-1, 1)))
    plane = plane_through(start, first, second)
    seen = jax.lax.map(plane.coordinates, flat(path)).reshape(-1, 2, 2)
    low, high = seen.min(axis=(0, 1)), seen.max(axis=(0, 1))
    room = 0.25 * (high - low)
    x, y = (jnp.linspace(low[i] - room[i], high[i] + room[i], n) for i in range(2))
    loss = plane_slice(lambda params: problem.loss_of_first(n_examples, params), plane, x, y)
    return {"loss": loss, "path": seen, "x": x, "y": y}


def _shaped(values: dict[str, Any], seeds: int) -> dict[str, np.ndarray]:
    """With axes of seeds and pairs, in double precision: what is measured is small beside what it is measured from."""
    arrays = {name: np.asarray(value, np.float64) for name, value in values.items()}
    return {name: array.reshape(seeds, -1, *array.shape[1:]) for name, array in arrays.items()}


def labelled(variables: dict[str, Any], coordinates: dict[str, Any]) -> xr.Dataset:
    """A dataset from dimensions, values and unit of each variable."""
    return xr.Dataset({name: (dims, values, {"units": unit}) for name, (dims, values, unit) in variables.items()}, coordinates)
