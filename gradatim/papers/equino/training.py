"""All operators, from all numbers of snapshots, each seed by seed, and what they say of unseen strains."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from gradatim.lab import Session
from gradatim.sciml import (
    CellGeometry,
    EquilibriumOperator,
    ModalBasis,
    ModalRegression,
    ModalSamples,
    OperatorFit,
    PeriodicCell,
    VariationalOperator,
    fit_operator,
)

from .cells import Drawn, Solved, first
from .config import Config

COMPONENTS = ("xx", "yy", "xy")
ANCHORED = ("anchored", "anchored, small strains")
"Operators beside that of the claims: two ways to be better where strains are small."
RATE, BATCH = 1e-3, 10
"Of Adam, the authors'."


class Trained(NamedTuple):
    """Operators of one kind from one number of snapshots, for the first of the seeds or all of them."""

    models: list[Any]
    "Of each seed, with networks that have learnt nothing; its row of `parameters` goes into it."
    parameters: np.ndarray
    data: xr.Dataset
    examples: dict[str, np.ndarray]
    "Fields of the first seed at all unseen strains."

    def operator(self, seed: int) -> EquilibriumOperator:
        """Of one seed."""
        return self.models[seed].with_parameters(jnp.asarray(self.parameters[seed]))


def train_operators(config: Config, solved: Solved, session: Session, key: jax.Array) -> dict[str, Trained]:
    """Under `"equilibrium 48"`, `"regression 48"`, and so on, `"all points"` and `"variational"`; from the restricted data also
    `"anchored 16"`, whose stress is zero where the strain is, and `"anchored, small strains 16"`, which is trained on more of these too.
    """
    keys = jax.random.split(key, config.seeds)
    trained: dict[str, Trained] = {}

    def train(label: str, models: list[Any], learners: list[Any], samples: list[Any], n_seeds: int, lbfgs_steps: int) -> None:
        fitted = _fit(session, label, learners[:n_seeds], samples[:n_seeds], keys[:n_seeds], config, lbfgs_steps)
        trained[label] = _look(session, label, models[:n_seeds], fitted, solved)

    strains = [jnp.asarray(drawn.collocation) for drawn in solved.draws]
    for count in config.snapshots:
        is_claimed = count in (config.restricted, config.snapshots[-1])
        n_seeds = config.seeds if is_claimed else config.beside_seeds
        known = [first(drawn.snapshots, count) for drawn in solved.draws[:n_seeds]]
        bases = [ModalBasis.from_snapshots(solved.cell, own, min(config.rank, count)) for own in known]
        operators = [_operator(config, basis) for basis in bases]
        points = [basis.magic_points(min(config.points, 6 * basis.rank)) for basis in bases]
        on_points = [operator.at_points(at) for operator, at in zip(operators, points, strict=True)]
        train(f"equilibrium {count}", operators, on_points, strains, n_seeds, config.lbfgs_steps)
        samples = [_repeated(ModalSamples.of(basis, own), math.lcm(*config.snapshots)) for basis, own in zip(bases, known, strict=True)]
        # Its parameters are those of the operator in it, in the same order.
        learners = [ModalRegression(operator) for operator in operators]
        n_seeds = config.seeds if count == config.restricted else config.beside_seeds
        train(f"regression {count}", operators, learners, samples, n_seeds, config.lbfgs_steps)
        if count == config.restricted:
            others = [_operator(config, basis, is_anchored=True) for basis in bases]
            on_points = [other.at_points(at) for other, at in zip(others, points, strict=True)]
            small = [jnp.asarray(drawn.small_collocation) for drawn in solved.draws]
            for name, of in zip(ANCHORED, (strains, small), strict=True):
                train(f"{name} {count}", others, on_points, of, config.beside_seeds, config.lbfgs_steps)
        if count == config.snapshots[-1] and config.all_points_seeds:
            train("all points", operators, operators, strains, config.all_points_seeds, config.lbfgs_steps)
    variational = VariationalOperator(
        CellGeometry.of(solved.cell), rank=config.rank, width=config.width, depth=config.depth, strain_limit=config.strain_limit,
        key=jax.random.key(0),
    )  # fmt: skip
    each = [variational] * config.seeds
    train("variational", each, each, strains, config.variational_seeds, config.variational_lbfgs_steps)
    return trained


def _operator(config: Config, basis: ModalBasis, *, is_anchored: bool = False) -> EquilibriumOperator:
    return EquilibriumOperator(
        basis, strain_limit=config.strain_limit, width=config.width, depth=config.depth, is_anchored=is_anchored, key=jax.random.key(0)
    )


def _repeated(samples: ModalSamples, count: int) -> ModalSamples:
    """Each as often as the others: the same loss and batches, and one program for any number of snapshots."""
    return ModalSamples(*(jnp.tile(part, (count // len(part), 1)) for part in samples))


def _fit(
    session: Session, label: str, models: list[Any], samples: list[Any], keys: Array, config: Config, lbfgs_steps: int
) -> dict[str, np.ndarray]:
    """Seed by seed, by one program."""

    def fit() -> dict[str, Any]:
        start = time.perf_counter()
        rows = [
            fit_operator(
                model, own, keys[i : i + 1], adam_steps=config.adam_steps, lbfgs_steps=lbfgs_steps, batch_size=BATCH, learning_rate=RATE,
                memory=config.memory,
            )
            for i, (model, own) in enumerate(zip(models, samples, strict=True))
        ]  # fmt: skip
        found = {name: np.concatenate([np.asarray(getattr(row, name)) for row in rows]) for name in OperatorFit._fields}
        return {**found, "seconds": time.perf_counter() - start}

    return {name: np.asarray(value) for name, value in session.once(f"train {label}", fit).items()}


@eqx.filter_jit
def _predict(model: Any, parameters: Float[Array, " parameters"], strains: Float[Array, "tests 3"]) -> dict[str, Array]:
    """Fields, averages and tangents at all strains."""
    operator = model.with_parameters(parameters)
    fields = jax.vmap(operator.__call__)(strains)
    found = {"fluctuation": fields.fluctuation, "stress": fields.stress}
    if isinstance(operator, VariationalOperator):
        return {**found, "average_stress": fields.stress @ operator.geometry.shares}
    average, tangent = jax.vmap(operator.stress_and_tangent)(strains)
    return {**found, "average_stress": average, "tangent": tangent, "material_stress": fields.material_stress}


def _look(session: Session, label: str, models: list[Any], fitted: dict[str, np.ndarray], solved: Solved) -> Trained:
    def look() -> dict[str, Any]:
        measured: dict[str, Any] = {}
        for prefix, parameters in (("", fitted["parameters"]), ("adam_", fitted["after_adam"])):
            rows = []
            for i, (model, own, drawn) in enumerate(zip(models, parameters, solved.draws, strict=False)):
                found = _predict(model, jnp.asarray(own), jnp.asarray(drawn.tests.average_strain))
                found = {name: np.asarray(value) for name, value in found.items()}
                rows.append(errors(found, solved.cell, drawn))
                if i == 0 and not prefix:
                    measured |= {f"example_{name}": value for name, value in found.items()}
            measured |= {f"{prefix}{name}": np.stack([row[name] for row in rows]) for name in rows[0]}
        return measured

    found = {name: np.asarray(value) for name, value in session.once(f"errors of {label}", look).items()}
    examples = {name.removeprefix("example_"): value for name, value in found.items() if name.startswith("example_")}
    variables: dict[str, Any] = {}
    for name, value in found.items():
        if name in {f"example_{part}" for part in examples}:
            continue
        dims = ("seed", "test", "component")[: value.ndim]
        variables[name] = (dims, value, {"units": "1" if "residual" in name or "jump" in name else "%"})
    for name in ("adam_loss", "lbfgs_loss"):
        unit = "MPa" if label == "variational" else "1" if label.startswith("regression") else "MPa²"
        variables[name] = (("seed", f"{name.removesuffix('_loss')}_step"), fitted[name], {"units": unit})
    variables["failed_searches"] = ("seed", fitted["is_search_failed"].sum(axis=1), {"units": "steps"})
    variables["seconds"] = ((), float(fitted["seconds"]), {"units": "s"})
    return Trained(models, fitted["parameters"], xr.Dataset(variables, {"component": list(COMPONENTS)}), examples)


def errors(found: dict[str, np.ndarray], cell: PeriodicCell, drawn: Drawn) -> dict[str, np.ndarray]:
    """Relative errors by unseen strain, %, and what holds by construction."""
    tests = drawn.tests
    measured = {
        "stress": _relative(found["stress"], tests.stress, axes=(-1,)),
        "tensor": _relative(found["stress"], tests.stress, axes=(-2, -1)),
        "average": _relative(found["average_stress"], tests.average_stress, axes=(-1,)),
        "fluctuation": _relative(found["fluctuation"], tests.fluctuation, axes=(-2, -1)),
    }
    average = np.array([1, 1, 0.5]) * tests.average_strain
    x, y = cell.mesh.nodes.T
    linear = np.stack([np.outer(average[:, 0], x) + np.outer(average[:, 2], y), np.outer(average[:, 2], x) + np.outer(average[:, 1], y)], 1)
    measured["displacement"] = _relative(found["fluctuation"] + linear, tests.fluctuation + linear, axes=(-1,)).max(axis=-1)
    measured["residual"] = _residuals(cell, found["stress"])
    inside = found["fluctuation"]
    scale = np.abs(inside).max(axis=(-2, -1))
    measured["jump"] = np.abs(inside - inside[..., cell.partner]).max(axis=(-2, -1)) / np.where(scale > 0, scale, 1)
    if "tangent" in found:
        measured["tangent"] = _relative(found["tangent"], tests.tangent, axes=(-2, -1))
        skew = found["tangent"] - np.swapaxes(found["tangent"], -1, -2)
        measured["asymmetry"] = 100 * np.linalg.norm(skew, axis=(-2, -1)) / np.linalg.norm(found["tangent"], axis=(-2, -1))
    if "material_stress" in found:
        measured["law_tensor"] = _relative(found["material_stress"], tests.stress, axes=(-2, -1))
        measured["law_average"] = _relative(found["material_stress"] @ cell.weights / cell.area, tests.average_stress, axes=(-1,))
        measured["law_residual"] = _residuals(cell, found["material_stress"])
    return measured


def _relative(found: np.ndarray, truth: np.ndarray, *, axes: tuple[int, ...]) -> np.ndarray:
    """100 ‖found - truth‖ / ‖truth‖ over some axes."""
    return 100 * np.sqrt(((found - truth) ** 2).sum(axis=axes) / (truth**2).sum(axis=axes))


def _residuals(cell: PeriodicCell, stress: np.ndarray) -> np.ndarray:
    return np.array([cell.equilibrium_residual(one) for one in stress])


def projection_errors(config: Config, solved: Solved) -> xr.Dataset:
    """What the modes themselves leave of unseen fields, by number of snapshots and seed: no operator can do better."""
    rows: dict[str, list[Any]] = {"stress": [], "tensor": [], "fluctuation": [], "truncation": []}
    for count in config.snapshots:
        by_seed = [_projection_errors(solved.cell, drawn, count, min(config.rank, count)) for drawn in solved.draws]
        for name, values in rows.items():
            values.append([one[name] for one in by_seed])
    variables = {
        name: (("snapshots", "seed", "component")[: 3 if name == "stress" else 2], np.array(values), {"units": "%"})
        for name, values in rows.items()
    }
    return xr.Dataset(variables, {"snapshots": list(config.snapshots), "component": list(COMPONENTS)})


def _projection_errors(cell: PeriodicCell, drawn: Drawn, count: int, rank: int) -> dict[str, Any]:
    """Means over unseen strains, and the share of the snapshots themselves that the modes have not."""
    tests, snapshots = drawn.tests, first(drawn.snapshots, count)
    basis = ModalBasis.from_snapshots(cell, snapshots, rank)
    samples, known = ModalSamples.of(basis, tests), ModalSamples.of(basis, snapshots)
    stress = np.tensordot(np.asarray(samples.for_stress), np.asarray(basis.stress), 1)
    fluctuation = np.tensordot(np.asarray(samples.for_fluctuation), np.asarray(basis.fluctuation), 1)
    fields = np.tensordot(np.asarray(known.for_stress), np.asarray(basis.stress), 1)
    return {
        "stress": _relative(stress, tests.stress, axes=(-1,)).mean(axis=0),
        "tensor": _relative(stress, tests.stress, axes=(-2, -1)).mean(),
        "fluctuation": _relative(fluctuation, tests.fluctuation, axes=(-2, -1)).mean(),
        "truncation": 100 * np.linalg.norm(fields - snapshots.stress) / np.linalg.norm(fields),
    }
