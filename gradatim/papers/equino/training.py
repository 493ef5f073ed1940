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
    AbstractOperator,
    CellGeometry,
    EquilibriumOperator,
    ModalBasis,
    ModalRegression,
    ModalSamples,
    VariationalOperator,
    fit_operator,
)

from .cells import Solved, first
from .config import Config

COMPONENTS = ("xx", "yy", "xy")
ANCHORED = ("anchored", "anchored, small strains")
"Operators beside that of the claims: two ways to be better where strains are small."
RATE, BATCH = 1e-3, 10
"Of Adam, the authors'."


class Trained(NamedTuple):
    """Operators of one kind from one number of snapshots."""

    model: Any
    "With networks that have learnt nothing; `parameters` go into it."
    parameters: np.ndarray
    data: xr.Dataset
    examples: dict[str, np.ndarray]
    "Fields of the first seed at all unseen strains."

    def operator(self, seed: int) -> EquilibriumOperator:
        """Of one seed."""
        return self.model.with_parameters(jnp.asarray(self.parameters[seed]))


def train_operators(config: Config, solved: Solved, session: Session, key: jax.Array) -> dict[str, Trained]:
    """Under `"equilibrium 48"`, `"regression 48"`, and so on, `"all points"` and `"variational"`; from the restricted data also
    `"anchored 16"`, whose stress is zero where the strain is, and `"anchored, small strains 16"`, which is trained on more of these too.
    """
    keys = jax.random.split(key, config.seeds)
    trained = {}
    for count in config.snapshots:
        basis = ModalBasis.from_snapshots(solved.cell, first(solved.snapshots, count), min(config.rank, count))
        operator = _operator(config, basis)
        points = basis.magic_points(min(config.points, 6 * basis.rank))
        on_points = operator.at_points(points)
        strains = jnp.asarray(solved.collocation)
        is_claimed = count in (config.restricted, config.snapshots[-1])
        own = keys if is_claimed else keys[: config.beside_seeds]
        fitted = _fit(session, f"equilibrium {count}", on_points, strains, own, config, config.lbfgs_steps)
        trained[f"equilibrium {count}"] = _look(session, f"equilibrium {count}", operator, fitted, solved)
        samples = _repeated(ModalSamples.of(basis, first(solved.snapshots, count)), math.lcm(*config.snapshots))
        own = keys if count == config.restricted else keys[: config.beside_seeds]
        fitted = _fit(session, f"regression {count}", ModalRegression(operator), samples, own, config, config.lbfgs_steps)
        # Its parameters are those of the operator in it, in the same order.
        trained[f"regression {count}"] = _look(session, f"regression {count}", operator, fitted, solved)
        if count == config.restricted:
            other = _operator(config, basis, is_anchored=True)
            for name, of in zip(ANCHORED, (solved.collocation, solved.small_collocation), strict=True):
                fitted = _fit(session, f"{name} {count}", other.at_points(points), jnp.asarray(of), keys, config, config.lbfgs_steps)
                trained[f"{name} {count}"] = _look(session, f"{name} {count}", other, fitted, solved)
        if count == config.snapshots[-1] and config.all_points_seeds:
            few = keys[: config.all_points_seeds]
            fitted = _fit(session, "all points", operator, strains, few, config, config.lbfgs_steps)
            trained["all points"] = _look(session, "all points", operator, fitted, solved)
    variational = VariationalOperator(
        CellGeometry.of(solved.cell), rank=config.rank, width=config.width, depth=config.depth, strain_limit=config.strain_limit,
        key=jax.random.key(0),
    )  # fmt: skip
    keys = keys[: config.variational_seeds]
    fitted = _fit(session, "variational", variational, jnp.asarray(solved.collocation), keys, config, config.variational_lbfgs_steps)
    trained["variational"] = _look(session, "variational", variational, fitted, solved)
    return trained


def _operator(config: Config, basis: ModalBasis, *, is_anchored: bool = False) -> EquilibriumOperator:
    return EquilibriumOperator(
        basis, strain_limit=config.strain_limit, width=config.width, depth=config.depth, is_anchored=is_anchored, key=jax.random.key(0)
    )


def _repeated(samples: ModalSamples, count: int) -> ModalSamples:
    """Each as often as the others: the same loss and batches, and one program for any number of snapshots."""
    return ModalSamples(*(jnp.tile(part, (count // len(part), 1)) for part in samples))


def _fit(
    session: Session, label: str, model: AbstractOperator, samples: Any, keys: Array, config: Config, lbfgs_steps: int
) -> dict[str, np.ndarray]:
    def fit() -> dict[str, Any]:
        start = time.perf_counter()
        found = fit_operator(
            model, samples, keys, adam_steps=config.adam_steps, lbfgs_steps=lbfgs_steps, batch_size=BATCH, learning_rate=RATE,
            memory=config.memory,
        )  # fmt: skip
        jax.block_until_ready(found)
        return {**found._asdict(), "seconds": time.perf_counter() - start}

    return {name: np.asarray(value) for name, value in session.once(f"train {label}", fit).items()}


@eqx.filter_jit
def _predict(model: Any, parameters: Float[Array, "seeds parameters"], strains: Float[Array, "tests 3"]) -> dict[str, Array]:
    """Fields, averages and tangents of all seeds at all strains."""

    def one(row: Array) -> dict[str, Array]:
        operator = model.with_parameters(row)
        fields = jax.vmap(operator.__call__)(strains)
        found = {"fluctuation": fields.fluctuation, "stress": fields.stress}
        if isinstance(operator, VariationalOperator):
            return {**found, "average_stress": fields.stress @ operator.geometry.shares}
        average, tangent = jax.vmap(operator.stress_and_tangent)(strains)
        return {**found, "average_stress": average, "tangent": tangent, "material_stress": fields.material_stress}

    return jax.lax.map(one, parameters)


def _look(session: Session, label: str, model: Any, fitted: dict[str, np.ndarray], solved: Solved) -> Trained:
    strains = jnp.asarray(solved.tests.average_strain)

    def look() -> dict[str, Any]:
        rows = {"": fitted["parameters"], "adam_": fitted["after_adam"]}
        both = {prefix: _predict(model, jnp.asarray(parameters), strains) for prefix, parameters in rows.items()}
        measured = {}
        for prefix, found in both.items():
            found = {name: np.asarray(value) for name, value in found.items()}
            measured |= {f"{prefix}{name}": value for name, value in errors(found, solved).items()}
            if not prefix:
                measured |= {f"example_{name}": value[0] for name, value in found.items()}
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
    return Trained(model, fitted["parameters"], xr.Dataset(variables, {"component": list(COMPONENTS)}), examples)


def errors(found: dict[str, np.ndarray], solved: Solved) -> dict[str, np.ndarray]:
    """Relative errors by seed and unseen strain, %, and what holds by construction."""
    tests, cell = solved.tests, solved.cell
    measured = {
        "stress": _relative(found["stress"], tests.stress, axes=(-1,)),
        "tensor": _relative(found["stress"], tests.stress, axes=(-2, -1)),
        "average": _relative(found["average_stress"], tests.average_stress, axes=(-1,)),
        "fluctuation": _relative(found["fluctuation"], tests.fluctuation, axes=(-2, -1)),
    }
    average = np.array([1, 1, 0.5]) * tests.average_strain
    x, y = cell.mesh.nodes.T
    linear = np.stack([np.outer(average[:, 0], x) + np.outer(average[:, 2], y), np.outer(average[:, 2], x) + np.outer(average[:, 1], y)], 1)
    measured["displacement"] = _relative(found["fluctuation"] + linear[None], tests.fluctuation + linear, axes=(-1,)).max(axis=-1)
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
    """100 ‖found - truth‖ / ‖truth‖ over some axes; seeds lead in what was found."""
    return 100 * np.sqrt(((found - truth[None]) ** 2).sum(axis=axes) / (truth**2).sum(axis=axes)[None])


def _residuals(cell: Any, stress: np.ndarray) -> np.ndarray:
    flat = stress.reshape(-1, *stress.shape[-2:])
    return np.array([cell.equilibrium_residual(one) for one in flat]).reshape(stress.shape[:-2])


def projection_errors(config: Config, solved: Solved) -> xr.Dataset:
    """What the modes themselves leave of unseen fields, by number of snapshots: no operator can do better."""
    rows: dict[str, list[Any]] = {"stress": [], "tensor": [], "fluctuation": [], "truncation": []}
    for count in config.snapshots:
        basis = ModalBasis.from_snapshots(solved.cell, first(solved.snapshots, count), min(config.rank, count))
        samples = ModalSamples.of(basis, solved.tests)
        stress = np.tensordot(np.asarray(samples.for_stress), np.asarray(basis.stress), 1)
        fluctuation = np.tensordot(np.asarray(samples.for_fluctuation), np.asarray(basis.fluctuation), 1)
        rows["stress"].append(_relative(stress[None], solved.tests.stress, axes=(-1,))[0].mean(axis=0))
        rows["tensor"].append(_relative(stress[None], solved.tests.stress, axes=(-2, -1)).mean())
        rows["fluctuation"].append(_relative(fluctuation[None], solved.tests.fluctuation, axes=(-2, -1)).mean())
        known = ModalSamples.of(basis, first(solved.snapshots, count))
        fields = np.tensordot(np.asarray(known.for_stress), np.asarray(basis.stress), 1)
        rows["truncation"].append(100 * np.linalg.norm(fields - solved.snapshots.stress[:count]) / np.linalg.norm(fields))
    variables = {
        name: (("snapshots", "component")[: 2 if name == "stress" else 1], np.array(values), {"units": "%"})
        for name, values in rows.items()
    }
    return xr.Dataset(variables, {"snapshots": list(config.snapshots), "component": list(COMPONENTS)})
