"""Hypergradients of the support-vector machine: through which conditions (C1), at which memory and time (C4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from gradatim.implicit import FixedPointConditions, custom_fixed_point, implicit_solution
from gradatim.lab import Findings, Measure, Session, host_generator

from .config import Machine
from .data import classification
from .machine import MachineData, block_coordinate_descent, mirror_step, outer_loss, projected_step, solvers

MACHINES = 3000
"Folded into the session's key."
DIFFERENCE = 1e-4
"Half the distance of the central differences in log θ."
CONDITIONS = {"projected gradient": projected_step, "mirror descent": mirror_step}


def run_machine(config: Machine, session: Session) -> Findings:
    """C1 and C4 over all sizes."""
    key = jax.random.fold_in(session.key, MACHINES)
    problems = [_data(config, p, key) for p in config.features]
    measures, exact, agreement = _agreement(config, session, problems)
    costs, times, memory = _costs(config, session, problems, exact)
    data = agreement.merge(times).merge(memory)
    untested = {}
    if len(problems) > 1:
        costs["C4.speedup_growth"] = speedup_growth(times["seconds"])
    else:
        untested["C4.speedup_growth"] = f"one size alone among features, {config.features[0]}"
    return Findings(measures | costs, xr.DataTree.from_dict({"machine": data}), untested)


def speedup_growth(seconds: xr.DataArray) -> Measure:
    """The speed-up over unrolling at the largest size over that at the smallest, of the solver where it grows least."""
    speedups = (
        (seconds.sel(way="unrolled") / seconds.sel(way="implicit")).sortby("features").transpose("features", "solver", "build").values
    )
    growths = [Measure.paired(large, small, "log-ratio") for small, large in zip(speedups[0], speedups[-1], strict=True)]
    return min(growths, key=lambda measure: float(np.min(measure.value)))


def _data(config: Machine, features: int, key: PRNGKeyArray) -> MachineData:
    seed = int(host_generator(jax.random.fold_in(key, features)).integers(2**31))
    X, labels = classification(config.samples * 3 // 2, features, classes=config.classes, informative=min(10, features - 2), seed=seed)
    return MachineData.split(X, labels, train=config.samples)


def _agreement(config: Machine, session: Session, problems: list[MachineData]) -> tuple[dict[str, Measure], list[float], xr.Dataset]:
    """Both kinds of conditions at one solution of block coordinate descent, and central differences of whole solves."""

    @jax.jit
    def hypergradients(log: Any, data: MachineData) -> tuple[dict[str, Any], Any]:
        def solve(log: Any, start: Any, n_sweeps: int) -> Any:
            return block_coordinate_descent(start, jnp.exp(log), data, n_sweeps=n_sweeps)

        x = solve(log, data.start, config.exact_sweeps)

        def through(step: Any) -> Any:
            def loss(log: Any) -> Any:
                # With fewer features than samples the dual has many solutions, all with the same machine: the least-squares one.
                at = implicit_solution(FixedPointConditions(step), x, (jnp.exp(log), data), linear_solver=lx.SVD(rcond=1e-9))
                return outer_loss(at, jnp.exp(log), data)

            return jax.grad(loss)(log)

        def value(log: Any) -> Any:
            return outer_loss(solve(log, x, config.exact_sweeps // 2), jnp.exp(log), data)

        low, high = jax.lax.map(value, jnp.stack([log - DIFFERENCE, log + DIFFERENCE]))
        return {name: through(step) for name, step in CONDITIONS.items()}, (high - low) / (2 * DIFFERENCE)

    rows, differences = [], []
    for p, data in zip(config.features, problems, strict=True):
        found, difference = session.once(f"hypergradients, {p} features", hypergradients, jnp.asarray(config.log_penalty), data)
        rows.append([float(found[name]) for name in CONDITIONS])
        differences.append(float(difference))
    table, central = np.asarray(rows), np.asarray(differences)
    disagreement = np.abs(table[:, 0] - table[:, 1]) / np.abs(central)
    error = np.abs(table - central[:, None]).max(1) / np.abs(central)
    measures = {
        "C1.mapping_disagreement": Measure.exact(float(disagreement.max())),
        "C1.difference_error": Measure.exact(float(error.max())),
    }
    dataset = xr.Dataset(
        {
            "hypergradient": (("features", "conditions"), table, {"units": "of the outer loss"}),
            "central_difference": ("features", central, {"units": "of the outer loss"}),
        },
        {"features": list(config.features), "conditions": list(CONDITIONS)},
    )
    return measures, table[:, 0].tolist(), dataset


def _programs(data: MachineData, steps: int, sweeps: int, names: tuple[str, ...]) -> dict[tuple[str, str], Any]:
    """Compiled hypergradients: implicit through the projected-gradient fixed point whatever solved, and unrolled."""
    found = {}
    for name, solve in solvers(steps, sweeps).items():
        if name not in names:
            continue
        ways = {"implicit": custom_fixed_point(projected_step)(solve), "unrolled": solve}
        for way, solution in ways.items():

            def loss(log: Any, data: MachineData, solution: Callable = solution) -> Any:
                theta = jnp.exp(log)
                return outer_loss(solution(data.start, (theta, data)), theta, data)

            lowered: Any = jax.jit(jax.grad(loss))
            found[name, way] = lowered.lower(jnp.asarray(0.0), data).compile()
    return found


def _peak(program: Any) -> float:
    """Bytes of a compiled program: what goes in, what comes out and all in between."""
    memory = program.memory_analysis()
    return float(memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes)


def _costs(
    config: Machine, session: Session, problems: list[MachineData], exact: list[float]
) -> tuple[dict[str, Measure], xr.Dataset, xr.Dataset]:
    names, ways = tuple(solvers(1, 1)), ("implicit", "unrolled")
    log = jnp.asarray(config.log_penalty)
    seconds = np.zeros((len(problems), len(names), 2, config.builds))
    errors = np.zeros((len(problems), len(names), 2))
    descents = names[:2]
    memory = np.zeros((len(config.steps), len(descents), 2))
    for i, (p, data) in enumerate(zip(config.features, problems, strict=True)):
        programs = {}
        # Compiled anew each time, for where a program's arrays come to lie moves its time more than its calls differ; and for new data,
        # on which it depends what the adjoint's solver takes.
        for b in range(config.builds):
            programs = _programs(data, config.steps[-1], config.sweeps, names)
            fresh = _data(config, p, jax.random.fold_in(session.key, MACHINES + 1 + b))
            calls = {
                f"{name}, {way}": lambda program=program, fresh=fresh: program(log, fresh) for (name, way), program in programs.items()
            }
            found = session.timed(f"hypergradients, {p} features, build {b}", calls, repeats=1)
            for (j, name), (k, way) in itertools.product(enumerate(names), enumerate(ways)):
                seconds[i, j, k, b] = found[f"{name}, {way}"][0]
        values = session.once(
            f"timed hypergradients, {p} features", lambda programs=programs, data=data: [f(log, data) for f in programs.values()]
        )
        for (name, way), value in zip(programs, values, strict=True):
            errors[i, names.index(name), ways.index(way)] = abs(float(value) / exact[i] - 1)
        if i == len(problems) - 1:
            memory[-1] = [[_peak(programs[name, way]) for way in ways] for name in descents]
    for i, steps in enumerate(config.steps[:-1]):
        programs = _programs(problems[-1], steps, config.sweeps, descents)
        memory[i] = [[_peak(programs[name, way]) for way in ways] for name in descents]
    for name, pair in zip(names, errors[-1], strict=True):
        off = f"{pair[0]:.1e} off by the implicit derivative, {pair[1]:.1e} by the unrolled one"
        session.note(f"machine: at {config.features[-1]} features, where {name} stops, the hypergradient is {off}")
    speedups = [Measure.paired(seconds[-1, j, 1], seconds[-1, j, 0], "log-ratio") for j in range(len(names))]
    ratio = memory[-1, :, 1] / memory[-1, :, 0]
    measures = {
        "C4.memory_ratio": Measure.exact(float(ratio.min())),
        "C4.slowest_speedup": min(speedups, key=lambda measure: float(np.min(measure.value))),
    }
    coordinates = {"features": list(config.features), "solver": list(names), "way": list(ways)}
    times = xr.Dataset(
        {
            "seconds": (("features", "solver", "way", "build"), seconds, {"units": "s"}),
            "hypergradient_error": (("features", "solver", "way"), errors, {"units": "relative"}),
        },
        coordinates,
    )
    sizes = xr.Dataset(
        {"memory": (("steps", "descent", "way"), memory, {"units": "bytes"})},
        {"steps": list(config.steps), "descent": list(descents), "way": list(ways)},
    )
    return measures, times, sizes
