"""Every Hessian on every problem: the guarantees of each step, the cost of the search, iterations and seconds (claims 4 to 8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import numpy as np
import optimistix as optx
import xarray as xr

from gradatim.lab import Measure, Session
from gradatim.optim import AbstractHessian, AbstractModelDescent, GradientNormalizedNewton, value_at

from .config import Config
from .problems import TIMED, Problem, authors, designs, five_problems, generators, linear_equations, log_sum_exp, logistic_regression
from .rates import BASELINES, SCHEME

Run = dict[str, Any]
Runs = Mapping[tuple[str, str], Run]
"By problem and Hessian."
Designs = Mapping[tuple[str, str], list[Run]]
"The same, of the random problems, one of each design."
TRACED = ("value", "gradient_norm", "radius", "regularization", "step_norm", "halvings")
BESIDE = {("linear equations", "zero"), ("logistic regression", "exact"), ("separable", "exact"), ("separable", "zero")}
"Runs that no part asks for."
JITTER = 1e-8
"Of the scheme: its traces hold γ with it."
DIGITS = (1e-4, 1e-8)
"Relative gaps: four digits, and four more."


def solve(problem: Problem, hessian: AbstractHessian, max_steps: int, *, record: bool = True) -> optx.Solution:
    """The method from the problem's start, its trace kept."""
    settings = {"hessian": hessian, "metric": problem.metric, "jitter": JITTER, "record": max_steps if record else 0}
    solver = GradientNormalizedNewton(0.0, 0.0, **settings, **problem.stop)
    return optx.minimise(value_at, solver, problem.start, problem.objective, max_steps=max_steps, throw=False)


def counts_of(problem: Problem, method: type[AbstractModelDescent], max_steps: int) -> Run:
    """What a baseline takes from the same start to the same end, and the values on its way."""
    solver = method(0.0, 0.0, metric=problem.metric, record=max_steps, **problem.stop)
    solution = optx.minimise(value_at, solver, problem.start, problem.objective, max_steps=max_steps, throw=False)
    counts = {name: int(solution.stats[f"num_{name}"]) for name in ("steps", "solves", "gradients")}
    values, halvings = (np.asarray(trace) for trace in (solution.stats["trace"].value, solution.stats["trace"].halvings))
    n = counts["steps"]
    course = {"value": values[: n + 1], "halvings": halvings[:n]}
    return {**counts, **course, "is_successful": bool(solution.result == optx.RESULTS.successful)}


def tell_baselines(config: Config, runs: Runs, session: Session) -> xr.Dataset:
    """Iterations, trials and gradients of the baselines on the authors' LogSumExp, beside those of the scheme; the gaps on the largest."""
    names, found = {"exact": SCHEME, "zero": f"{SCHEME}, no Hessian"}, {}
    for n in sorted(config.log_sum_exp):
        problem = log_sum_exp(n, authors())
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


def _courses(runs: Mapping[str, Run]) -> xr.Dataset:
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


def traced(problem: Problem, hessian: AbstractHessian, max_steps: int) -> Run:
    """One run as arrays that a record keeps; beyond its last accepted step they are cut."""
    solution = solve(problem, hessian, max_steps)
    trace = {name: np.asarray(getattr(solution.stats["trace"], name)) for name in TRACED}
    # A search that accepts no radius ends the run, and leaves NaN.
    accepted = int(np.isfinite(trace["radius"]).sum())
    kept = {name: trace[name][: accepted + 1 if name in ("value", "gradient_norm") else accepted] for name in TRACED}
    counts = {name: int(solution.stats[f"num_{name}"]) for name in ("steps", "solves", "failed_solves")}
    return {**kept, **counts, "is_successful": bool(solution.result == optx.RESULTS.successful)}


def _with_each_hessian(
    config: Config, problems: Mapping[str, Problem], session: Session, max_steps: int
) -> Iterator[tuple[tuple[str, str], Run]]:
    for name, problem in problems.items():
        for hessian_name, hessian in problem.hessians.items():
            if (name, hessian_name) in BESIDE and not config.beside:
                continue
            run = session.once(f"{name}, {hessian_name}", traced, problem, hessian, max_steps)
            yield (name, hessian_name), {**run, "infimum": problem.infimum}


def run_all(config: Config, session: Session) -> dict[tuple[str, str], Run]:
    """The trace of each Hessian on each problem with the authors' data, and those without a minimum."""
    runs = dict(_with_each_hessian(config, five_problems(config, session), session, config.max_steps))
    # Its infimum is not known in closed form: the best value of all runs stands for it.
    best = min(float(run["value"].min()) for (name, _), run in runs.items() if name == "logistic regression")
    for key in runs:
        if key[0] == "logistic regression":
            runs[key]["infimum"] = best
    separable = {"separable": logistic_regression(session, 0.0, intercept=True)}
    return runs | dict(_with_each_hessian(config, separable, session, config.separable_steps))


def run_designs(config: Config, session: Session) -> dict[tuple[str, str], list[Run]]:
    """The traces of the random problems over the designs of this run."""
    rows = [dict(_with_each_hessian(config, problems, session, config.max_steps)) for problems in designs(config, session)]
    return {key: [row[key] for row in rows] for key in rows[0]}


def step_measures(runs: Runs, drawn: Designs, session: Session) -> dict[str, Measure]:
    """What each accepted step guarantees, and what the search costs.

    What is said of every step or run is judged at its worst over all designs and the authors' data: one exception refutes it. Solves
    an iteration, those of a last search in vain included, are a mean over the designs, of the problem where it is largest.
    """
    slack, length, surplus = {}, {}, {}
    every = [(*key, "", run) for key, run in runs.items()]
    every += [(*key, f", design {number}", run) for key, rows in drawn.items() for number, run in enumerate(rows)]
    for problem, name, design, run in every:
        at = problem, name, design
        values, norms, radii = run["value"], run["gradient_norm"], run["radius"]
        guaranteed = radii * norms[1:] ** 2 / (8 * norms[:-1])
        slack[at] = float(((values[:-1] - values[1:] - guaranteed) / np.abs(values[:-1])).min())
        length[at] = float((run["step_norm"] / radii).max())
        # Where a run ends at a point that is stationary but for rounding, γ falls to the size of the jitter.
        surplus[at] = float((run["halvings"] - 1).sum() - np.log2(1.0 / min(radii.min() - JITTER, 1.0)))
    problem, name, design = worst = max(length, key=lambda at: length[at])
    session.note(f"longest step over its radius: {length[worst]:.4f}, {problem}, {name} Hessian{design}")
    semidefinite = max(value for (problem, name, _), value in length.items() if name != "exact" or _is_convex(problem))
    session.note(f"longest step over its radius where the Hessian is semidefinite: {semidefinite:.9f}")
    once = {key: run["solves"] / run["steps"] for key, run in runs.items()}
    over_designs = {key: Measure.over_seeds([run["solves"] / run["steps"] for run in rows]) for key, rows in drawn.items()}
    solves = {key: Measure.exact(value) for key, value in once.items()} | over_designs
    costliest = max(solves, key=lambda key: solves[key].intervals()[0][0])
    session.note(f"most solves an iteration: {solves[costliest].intervals()[0][0]:.3f}, {costliest[0]}, {costliest[1]} Hessian")
    least, longest, most = (pick(found[*key, ""] for key in runs) for pick, found in ((min, slack), (max, length), (max, surplus)))
    session.note(
        f"C4 and C5 with the authors' data: decrease slack {least:.3g}, step over radius {longest:.4f}, surplus halvings {most:.3f}, "
        f"solves an iteration {max(once.values()):.3f}"
    )
    return {
        "C4.decrease_slack": Measure.exact(min(slack.values())),
        "C4.step_over_radius": Measure.exact(max(length.values())),
        "C5.surplus_halvings": Measure.exact(max(surplus.values())),
        "C5.solves_per_iteration": solves[costliest],
    }


def iteration_measures(config: Config, runs: Runs, drawn: Designs, session: Session) -> dict[str, Measure]:
    """Iterations of one Hessian over another's: of random problems a mean over the designs, beside the authors' in the notes."""
    steps = {key: run["steps"] for key, run in runs.items()}
    over_designs = {key: [run["steps"] for run in rows] for key, rows in drawn.items()}
    for key, run in runs.items():
        state = "" if run["is_successful"] else f", not converged, ‖∇f‖ = {run['gradient_norm'][-1]:.1e}"
        session.note(f"{key[0]}, {key[1]}: {run['steps']} iterations, {run['solves']} solves, {run['failed_solves']} failed{state}")
    for (problem, name), rows in drawn.items():
        counts = over_designs[problem, name]
        missed = sum(not run["is_successful"] for run in rows)
        state = f", {missed} do not arrive" if missed else ""
        session.note(
            f"{problem}, {name}, {len(rows)} designs: {min(counts)} to {max(counts)} iterations, mean {np.mean(counts):.3g}{state}"
        )
    largest = f"LogSumExp {max(config.log_sum_exp)}"
    compared = {
        "C6.gauss_newton_over_exact": ((largest, "weighted"), (largest, "exact")),
        "C6.gradient_over_gauss_newton": ((largest, "zero"), (largest, "weighted")),
        "C7.iterations_over_exact": (("linear equations", "Fisher term"), ("linear equations", "exact")),
    }
    ratios = {part: Measure.paired(over_designs[ours], over_designs[control], "log-ratio") for part, (ours, control) in compared.items()}
    for part, (ours, control) in compared.items():
        session.note(f"{part} with the authors' data: {steps[ours] / steps[control]:.3f}")
    session.note(f"C1.self_concordant_digits with the authors' data: {_further_digits(runs[largest, 'exact']):.3f}")
    return {
        "C1.self_concordant_digits": Measure.over_seeds([_further_digits(run) for run in drawn[largest, "exact"]]),
        **ratios,
        "C8.separable_gradient_norm": Measure.exact(float(runs["separable", "Fisher"]["gradient_norm"][-1])),
        "C8.gradient_over_fisher": Measure.exact(steps["logistic regression", "zero"] / steps["logistic regression", "Fisher"]),
    }


def time_fisher_term(config: Config, session: Session) -> Measure:
    """Seconds with the exact Hessian over those with the Fisher term, to the same gap, compiled: medians of each design."""

    @eqx.filter_jit
    def minimiser(problem: Problem, hessian: AbstractHessian) -> Any:
        return solve(problem, hessian, config.max_steps, record=False).value

    medians: dict[str, list[float]] = {"exact": [], "Fisher term": []}
    for random in (authors(), *generators(session, TIMED, config.designs)):
        problem = linear_equations(config.timed_equations, random)
        functions = {name: lambda p=problem, h=problem.hessians[name]: minimiser(p, h) for name in medians}
        seconds = session.timed("exact Hessian and Fisher term", functions, repeats=config.repeats)
        for name, values in seconds.items():
            medians[name].append(float(np.median(values)))
    for name, (first, *rest) in medians.items():
        session.note(
            f"linear equations {config.timed_equations}, {name}: {1e3 * first:.3g} ms with the authors' data, {1e3 * min(rest):.3g} to "
            f"{1e3 * max(rest):.3g} ms over the designs"
        )
    return Measure.paired(medians["exact"][1:], medians["Fisher term"][1:], kind="log-ratio")


def counts_dataset(runs: Runs, drawn: Designs) -> xr.Dataset:
    """Iterations and solves on each design, and with the authors' data."""
    data = xr.Dataset(coords={"arm": [f"{problem}, {name}" for problem, name in drawn]})
    for count in ("steps", "solves"):
        data[count] = ("arm", "design"), [[float(run[count]) for run in rows] for rows in drawn.values()], {"units": "1"}
        data[f"authors_{count}"] = "arm", [float(runs[key][count]) for key in drawn], {"units": "1"}
    return data


def as_dataset(runs: Runs, name: str) -> xr.Dataset:
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


def _further_digits(run: Run) -> float:
    gap = run["value"] - run["infimum"]
    first, second = (int(np.argmax(gap <= digits * gap[0])) for digits in DIGITS)
    if gap[-1] > DIGITS[1] * gap[0]:
        second = len(gap)
    return (second - first) / first


def _is_convex(problem: str) -> bool:
    return not problem.startswith(("Rosenbrock", "Chebyshev"))
