"""What the data say about the claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session
from gradatim.nets import OPERATIONS

from .config import Config
from .searches import ARMS, OURS, UNIFORM
from .table import Table

NO_TABLE = "there is a table of networks trained alone for the sizes of the laptop run, not for these"


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """All measures."""
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    measures["C1.mixture_difference"] = Measure.exact(float(trees["mixtures"]["difference"].max()))
    _judge_costs(trees["costs"], measures, session)
    if "table" in trees:
        _judge_searches(trees, measures, session)
    else:
        untested |= dict.fromkeys(("C3.median_regret", "C3.regret_difference", "C4.area_ratio"), NO_TABLE)
    _judge_inherited(trees, measures, session)
    _judge_language(trees["language"], measures, session)
    return Findings(measures, xr.DataTree.from_dict(dict(trees)), untested)


def _judge_costs(costs: xr.Dataset, measures: dict[str, Measure], session: Session) -> None:
    ratios = costs["parameters"] / costs["largest"]
    # The farthest from one, so that both must be what is said.
    measures["C2.parameter_ratio"] = Measure.exact(float(ratios[int(np.abs(ratios.values - 1).argmax())]))
    memory = costs["memory"].sel(mixing="weights") / costs["memory"].sel(mixing="outputs")
    measures["C2.memory_ratio"] = Measure.exact(float(memory.max()))
    seconds = costs["seconds"].median("repeat")
    session.note(
        "C2: weights mixed over outputs mixed: "
        + "; ".join(
            f"{name} space, temporary memory {float(memory.sel(space=name)):.2f} × of "
            f"{float(costs['memory'].sel(space=name, mixing='outputs')) / 2**20:.3g} MiB, "
            f"seconds of a step {float(seconds.sel(space=name, mixing='weights') / seconds.sel(space=name, mixing='outputs')):.2f} ×"
            for name in costs["space"].values
        )
    )


def regret_curves(trees: Mapping[str, xr.Dataset]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of the Dirichlet arm and of both two-stage searches: seconds, and points below the best at each, (seed, time).

    Until a search in two stages has an answer, it counts as an architecture drawn at random.
    """
    regrets = Table(trees["table"]["accuracy"].values).regrets
    searches, seconds = trees["searches"], trees["seconds"].median("repeat")
    rows = searches["row"].values
    curves = {OURS: (rows * float(seconds["gradient step"]), regrets[searches["incumbent"].sel(arm=OURS).values].T)}
    for stage in searches["stage"].values.tolist():
        found = regrets[searches["second_incumbent"].sel(stage=stage).values]
        trained = rows[-1] * float(seconds["uniform step"])
        times = trained + float(seconds["evaluation"]) * np.arange(1, found.shape[1] + 1)
        before = np.full((len(found), 1), regrets.mean())
        curves[f"{UNIFORM}, {stage}"] = (np.concatenate([[0.0], times]), np.concatenate([before, found], axis=1))
    return curves


def areas(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Under each curve of steps, by seed, until the last of them has ended."""
    end = max(times[-1] for times, _ in curves.values())
    return {name: (values * np.diff(np.append(times, end))[None]).sum(1) for name, (times, values) in curves.items()}


def _judge_searches(trees: Mapping[str, xr.Dataset], measures: dict[str, Measure], session: Session) -> None:
    table, searches = Table(trees["table"]["accuracy"].values), trees["searches"]
    regrets, order = table.regrets, np.argsort(table.regrets)
    last = searches["incumbent"].isel(row=-1)
    found = {name: regrets[last.sel(arm=name).values] for name in ARMS if name != UNIFORM}
    found |= {
        f"{UNIFORM}, {stage}": regrets[searches["second_incumbent"].sel(stage=stage).values[:, -1]]
        for stage in searches["stage"].values.tolist()
    }
    measures["C3.median_regret"] = Measure.median(found[OURS])
    measures["C3.regret_difference"] = Measure.paired(found[OURS], found[f"{UNIFORM}, random"])
    session.note(
        "C3: points below the best of the table, mean and median over seeds: "
        + "; ".join(f"{name} {values.mean():.2f}, {np.median(values):.2f}" for name, values in found.items())
    )
    options = trees["table"]["option"].values
    largest = int(np.flatnonzero((options == OPERATIONS.index("sep5")).all(1))[0])
    curves = regret_curves(trees)
    seconds = trees["seconds"].median("repeat")
    # A network that is trained alone takes a uniform step for each of its own, and is judged by one training.
    ours = curves[OURS][0][-1]
    n_alone = max(int(ours / (searches["row"].values[-1] * float(seconds["uniform step"]))), 1)
    random = np.random.default_rng(0)
    draws = np.array([random.choice(len(regrets), n_alone, replace=False) for _ in range(2000)])
    seen = table.accuracies[draws, random.integers(table.accuracies.shape[1], size=(2000, 1))]
    alone = regrets[draws[np.arange(2000), seen.argmax(1)]]
    session.note(
        f"C3: of {len(regrets)} architectures the best has {table.means.max():.2f} %, the mean {table.means.mean():.2f} %, the worst "
        f"{table.means.min():.2f} %; seeds of one differ by {table.accuracies.std(1).mean():.2f} points; separable 5 × 5 everywhere, the "
        f"largest network, is {regrets[largest]:.2f} points below the best (rank {int(np.flatnonzero(order == largest)[0]) + 1}); an "
        f"architecture drawn at random {regrets.mean():.2f}, the best of {n_alone} trained alone in the time of a search {alone.mean():.2f}"
    )
    two_stages = curves[f"{UNIFORM}, random"][0][-1]
    session.note(
        f"C3: at as many gradient steps of the weights, the search by gradients takes {ours / two_stages:.2f} times the seconds of the one "
        "in two stages, for its gradients by the logits"
    )
    under = areas(curves)
    floor = 1e-3 * max(times[-1] for times, _ in curves.values())
    measures["C4.area_ratio"] = Measure.paired(np.maximum(under[OURS], floor), np.maximum(under[f"{UNIFORM}, random"], floor), "log-ratio")
    session.note(
        f"C4: seconds of a step {float(seconds['gradient step']):.4f} with gradients by logits, {float(seconds['uniform step']):.4f} "
        f"without, of a score {float(seconds['evaluation']):.4f}; area ratio to evolutionary search "
        f"{np.exp(np.log(np.maximum(under[OURS], floor) / np.maximum(under[f'{UNIFORM}, evolutionary'], floor)).mean()):.2f}"
    )


def _judge_inherited(trees: Mapping[str, xr.Dataset], measures: dict[str, Measure], session: Session) -> None:
    inherited = trees["searches"]["inherited"]
    means = inherited.mean("architecture")
    measures["C5.accuracy_difference"] = Measure.paired(means.sel(supernet=OURS).values, means.sel(supernet=UNIFORM).values)
    words = [f"{name} {float(means.sel(supernet=name).mean()):.2f} %" for name in (OURS, UNIFORM)]
    note = f"C5: mean accuracy of all networks with inherited weights: {', '.join(words)}"
    last = trees["searches"]["incumbent"].isel(row=-1).sel(arm=OURS).values
    chosen = inherited.sel(supernet=OURS).values[np.arange(len(last)), last]
    note += f"; of the one that its search chose {chosen.mean():.2f} %"
    if "table" in trees:
        from scipy import stats

        table = Table(trees["table"]["accuracy"].values)
        taus = {
            name: float(np.mean([_tau(stats.kendalltau(row, table.means)) for row in inherited.sel(supernet=name).values]))
            for name in (OURS, UNIFORM)
        }
        note += f"; rank correlation (Kendall) with networks trained alone {', '.join(f'{name} {tau:.2f}' for name, tau in taus.items())}"
    session.note(note)


def _judge_language(language: xr.Dataset, measures: dict[str, Measure], session: Session) -> None:
    loss, sizes = language["loss"], language["parameters"]
    random = [name for name in language["network"].values.tolist() if name.startswith("random")]
    median = loss.sel(network=random).median("network")
    measures["C6.language_model_gain"] = Measure.paired(median.values, loss.sel(network="found").values)
    session.note(
        f"C6: loss on held-out works, nats a character: found {float(loss.sel(network='found').mean()):.4f}, largest "
        f"{float(loss.sel(network='largest').mean()):.4f}, median random {float(median.mean()):.4f}, best random of a seed "
        f"{float(loss.sel(network=random).min('network').mean()):.4f}; parameters found "
        f"{', '.join(f'{int(n):,}' for n in sizes.sel(network='found').values)}, largest {int(sizes.sel(network='largest')[0]):,}"
    )


def _tau(result: Any) -> float:
    return result.statistic
