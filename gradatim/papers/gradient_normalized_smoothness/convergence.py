"""Every Hessian on every problem: the guarantees of each step, the cost of the search, iterations and seconds (claims 4 to 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np
import optimistix as optx
import xarray as xr

from gradatim.lab import Measure, Session
from gradatim.optim import AbstractHessian, AbstractModelDescent, GradientNormalizedNewton, value_at

from .config import Config
from .problems import Problem, five_problems, linear_equations, log_sum_exp, logistic_regression
from .rates import BASELINES, SCHEME

TRACED = ("value", "gradient_norm", "radius", "regularization", "step_norm", "halvings")
BESIDE = {("linear equations", "zero"), ("logistic regression", "exact"), ("separable", "exact"), ("separable", "zero")}
"Runs that no part asks for."
DIGITS = (1e-4, 1e-8)
"Relative gaps: four digits, and four more."


def solve(problem: Problem, hessian: AbstractHessian, max_steps: int, *, record: bool = True) -> optx.Solution:
    """The method from the problem's start, its trace kept."""
    solver = GradientNormalizedNewton(0.0, 0.0, hessian=hessian, metric=problem.metric, record=max_steps if record else 0, **problem.stop)
    return optx.minimise(value_at, solver, problem.start, problem.objective, max_steps=max_steps, throw=False)


def counts_of(problem: Problem, method: type[AbstractModelDescent], max_steps: int) -> dict[str, Any]:
    """What a baseline takes from the same start to the same end, and the values on its way."""
    solver = method(0.0, 0.0, metric=problem.metric, record=max_steps, **problem.stop)
    solution = optx.minimise(value_at, solver, problem.start, problem.objective, max_steps=max_steps, throw=False)
    counts = {name: int(solution.stats[f"num_{name}"]) for name in ("steps", "solves", "gradients")}
    values, halvings = (np.asarray(trace) for trace in (solution.stats["trace"].value, solution.stats["trace"].halvings))
    n = counts["steps"]
    course = {"value": values[: n + 1], "halvings": halvings[:n]}
    return {**counts, **course, "is_successful": bool(solution.result == optx.RESULTS.successful)}


def tell_baselines(config: Config, runs: Mapping[tuple[str, str], dict[str, Any]], session: Session) -> xr.Dataset:
    """Iterations, trials and gradients of the baselines on LogSumExp, beside those of the scheme; the gaps on the largest."""
    names, found = {"exact": SCHEME, "zero": f"{SCHEME}, no Hessian"}, {}
    for n in sorted(config.log_sum_exp):
        problem = log_sum_exp(n)
        found = {names[hessian]: runs[f"LogSumExp {n}", hessian] for hessian in names}
        found = {name: {**run, "gradients": run["solves"] + 1} for name, run in found.items()}
        for name, method in BASELINES.items():
            found[name] = run = session.once(f"LogSumExp {n}, {name}", counts_of, problem, method, config.max_steps)
            state = "" if run["is_successful"] else ", not converged"
            session.note(
                f"C6: LogSumExp {n}, {name}, same metric and start: {run['steps']} iterations, {run['solves']} trials, "
                f"{run['gradients']} gradients{state}"
            )
        found = {name: {**run, "infimum": problem.infimum} for name, run in found.items()}
    return _courses(found).assign_attrs(name=f"LogSumExp {max(config.log_sum_exp)}")


def _courses(runs: Mapping[str, dict[str, Any]]) -> xr.Dataset:
    """Gaps over iterations and over the gradients until there, NaN beyond the end of each."""
    longest = max(run["steps"] for run in runs.values()) + 1

    def padded(values: np.ndarray) -> np.ndarray:
        return np.pad(values.astype(float), (0, longest - values.size), constant_values=np.nan)

    # The first gradient is that of the start; every trial of a method takes as many.
    per_trial = {name: (run["gradients"] - 1) / run["solves"] for name, run in runs.items()}
    columns = {
        "gap": [padded(run["value"] - run["infimum"]) for run in runs.values()],
        "gradients": [padded(1 + per_trial[name] * np.cumsum([0, *(run["halvings"] + 1)])) for name, run in runs.items()],
    }
    data = xr.Dataset({column: (("arm", "step"), np.stack(rows), {"units": "1"}) for column, rows in columns.items()})
    return data.assign_coords(arm=list(runs), step=("step", np.arange(longest), {"units": "iterations"}))


def traced(problem: Problem, hessian: AbstractHessian, max_steps: int) -> dict[str, Any]:
    """One run as arrays that a record keeps; beyond its last step they are cut."""
    solution = solve(problem, hessian, max_steps)
    steps = int(solution.stats["num_steps"])
    trace = {name: np.asarray(getattr(solution.stats["trace"], name)) for name in TRACED}
    kept = {name: trace[name][: steps + 1 if name in ("value", "gradient_norm") else steps] for name in TRACED}
    counts = {name: int(solution.stats[f"num_{name}"]) for name in ("steps", "solves", "failed_solves")}
    return {**kept, **counts, "is_successful": bool(solution.result == optx.RESULTS.successful)}


def run_all(config: Config, session: Session) -> dict[tuple[str, str], dict[str, Any]]:
    """The trace of each Hessian on each problem, and those without a minimum."""
    runs = {}
    for name, problem in five_problems(config, session).items():
        for hessian_name, hessian in problem.hessians.items():
            if (name, hessian_name) in BESIDE and not config.beside:
                continue
            run = session.once(f"{name}, {hessian_name}", traced, problem, hessian, config.max_steps)
            runs[name, hessian_name] = {**run, "infimum": problem.infimum}
    # Its infimum is not known in closed form: the best value of all runs stands for it.
    best = min(float(run["value"].min()) for (name, _), run in runs.items() if name == "logistic regression")
    for key in runs:
        if key[0] == "logistic regression":
            runs[key]["infimum"] = best
    separable = logistic_regression(session, 0.0, intercept=True)
    for hessian_name, hessian in separable.hessians.items():
        if ("separable", hessian_name) in BESIDE and not config.beside:
            continue
        run = session.once(f"separable, {hessian_name}", traced, separable, hessian, config.separable_steps)
        runs["separable", hessian_name] = {**run, "infimum": separable.infimum}
    return runs


def step_measures(runs: Mapping[tuple[str, str], dict[str, Any]], session: Session) -> dict[str, Measure]:
    """What each accepted step guarantees, and what the search costs, at its worst over all runs."""
    slack, length, surplus, solves = {}, {}, {}, {}
    for key, run in runs.items():
        values, norms, radii = run["value"], run["gradient_norm"], run["radius"]
        guaranteed = radii * norms[1:] ** 2 / (8 * norms[:-1])
        slack[key] = float(((values[:-1] - values[1:] - guaranteed) / np.abs(values[:-1])).min())
        length[key] = float((run["step_norm"] / radii).max())
        surplus[key] = float(run["solves"] - 2 * run["steps"] - np.log2(1.0 / min(radii.min(), 1.0)))
        solves[key] = run["solves"] / run["steps"]
    worst = max(length, key=lambda key: length[key])
    session.note(f"longest step over its radius: {length[worst]:.4f}, {worst[0]}, {worst[1]} Hessian")
    semidefinite = max(value for (problem, name), value in length.items() if name != "exact" or _is_convex(problem))
    session.note(f"longest step over its radius where the Hessian is semidefinite: {semidefinite:.9f}")
    return {
        "C4.decrease_slack": Measure.exact(min(slack.values())),
        "C4.step_over_radius": Measure.exact(max(length.values())),
        "C5.surplus_halvings": Measure.exact(max(surplus.values())),
        "C5.solves_per_iteration": Measure.exact(max(solves.values())),
    }


def iteration_measures(config: Config, runs: Mapping[tuple[str, str], dict[str, Any]], session: Session) -> dict[str, Measure]:
    """Iterations of one Hessian over another's."""
    steps = {key: run["steps"] for key, run in runs.items()}
    for key, run in runs.items():
        state = "" if run["is_successful"] else f", not converged, ‖∇f‖ = {run['gradient_norm'][-1]:.1e}"
        session.note(f"{key[0]}, {key[1]}: {run['steps']} iterations, {run['solves']} solves, {run['failed_solves']} failed{state}")
    largest = f"LogSumExp {max(config.log_sum_exp)}"
    return {
        "C1.self_concordant_digits": Measure.exact(_further_digits(runs[largest, "exact"])),
        "C6.gauss_newton_over_exact": Measure.exact(steps[largest, "weighted"] / steps[largest, "exact"]),
        "C6.gradient_over_gauss_newton": Measure.exact(steps[largest, "zero"] / steps[largest, "weighted"]),
        "C7.iterations_over_exact": Measure.exact(steps["linear equations", "Fisher term"] / steps["linear equations", "exact"]),
        "C8.separable_gradient_norm": Measure.exact(float(runs["separable", "Fisher"]["gradient_norm"][-1])),
        "C8.gradient_over_fisher": Measure.exact(steps["logistic regression", "zero"] / steps["logistic regression", "Fisher"]),
    }


def time_fisher_term(config: Config, session: Session) -> Measure:
    """Seconds with the exact Hessian over those with the Fisher term, to the same gap, compiled."""
    problem = linear_equations(config.timed_equations)

    @eqx.filter_jit
    def minimiser(problem: Problem, hessian: AbstractHessian) -> Any:
        return solve(problem, hessian, config.max_steps, record=False).value

    functions = {name: lambda name=name: minimiser(problem, problem.hessians[name]) for name in ("exact", "Fisher term")}
    seconds = session.timed("exact Hessian and Fisher term", functions, repeats=config.repeats)
    for name, values in seconds.items():
        session.note(f"linear equations {config.timed_equations}, {name}: {1e3 * float(np.median(values)):.3g} ms")
    return Measure.paired(seconds["exact"], seconds["Fisher term"], kind="log-ratio")


def as_dataset(runs: Mapping[tuple[str, str], dict[str, Any]], name: str) -> xr.Dataset:
    """The traces of one problem, NaN beyond their ends, thinned where they are long."""
    chosen = {hessian: run for (problem, hessian), run in runs.items() if problem == name}
    longest = max(run["steps"] for run in chosen.values())
    kept = np.unique(np.concatenate([np.arange(min(longest, 500) + 1), np.geomspace(1, longest, 500).astype(int)]))

    def padded(values: np.ndarray) -> np.ndarray:
        return np.pad(values.astype(float), (0, longest + 1 - values.size), constant_values=np.nan)[kept]

    columns = {trace: np.stack([padded(run[trace]) for run in chosen.values()]) for trace in TRACED}
    columns["gap"] = columns["value"] - next(iter(chosen.values()))["infimum"]
    columns["solves"] = np.stack([padded(np.cumsum([0, *(run["halvings"] + 1)])) for run in chosen.values()])
    data = xr.Dataset({column: (("hessian", "step"), values, {"units": "1"}) for column, values in columns.items()})
    return data.assign_coords(hessian=list(chosen), step=("step", kept, {"units": "iterations"}))


def _further_digits(run: dict[str, Any]) -> float:
    gap = run["value"] - run["infimum"]
    first, second = (int(np.argmax(gap <= digits * gap[0])) for digits in DIGITS)
    if gap[-1] > DIGITS[1] * gap[0]:
        second = len(gap)
    return (second - first) / first


def _is_convex(problem: str) -> bool:
    return not problem.startswith(("Rosenbrock", "Chebyshev"))
