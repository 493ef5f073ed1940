"""What the data say about the claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session

from .config import Config, Search
from .scores import NATS_PER_POINT, nats_per_doubling
from .searches import ABLATION, OURS, PIECES, UNIFORM
from .table import Table

SUFFIX = {"cell": "", "macro": "_macro"}
"Of the parts of a claim, by space."
OF_A_TABLE = ("C3.median_regret", "C3.regret_difference", "C4.area_ratio")
LARGEST = {"cell": "separable 5 × 5 everywhere", "macro": "8 and 16 channels, 5 × 5 everywhere"}
NO_TABLE = "there are tables of networks trained alone for the sizes of the laptop run, not for these"
NOT_SEARCHED = "this space is not among those that are searched"


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """All measures."""
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    measures["C1.mixture_difference"] = Measure.exact(float(trees["mixtures"]["difference"].max()))
    _judge_costs(trees["costs"], measures, session)
    for space, suffix in SUFFIX.items():
        tabled = [f"{name}{suffix}" for name in OF_A_TABLE]
        if space not in trees:
            untested |= dict.fromkeys([*tabled, f"C5.accuracy_difference{suffix}"], NOT_SEARCHED)
            continue
        if "accuracy" in trees[space]:
            _judge_searches(trees[space], space, measures, session)
        else:
            untested |= dict.fromkeys(tabled, NO_TABLE)
        if space == "macro":
            _note_costs(config.search, trees[space], session)
        _judge_inherited(trees[space], space, measures, session)
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


def table_of(data: xr.Dataset) -> Table:
    """Of networks trained alone, from what was found in a space."""
    return Table(data["accuracy"].values, data["cost"].values)


def last_regrets(data: xr.Dataset) -> dict[str, np.ndarray]:
    """Points below the best of the table at the end, by seed: of each search by gradients, and of both in two stages."""
    regrets = table_of(data).regrets
    last = data["incumbent"].isel(row=-1).transpose("arm", "seed").values
    seconds = data["second_incumbent"].isel(evaluation=-1).transpose("stage", "seed").values
    found = {name: regrets[row] for name, row in zip(data["arm"].values.tolist(), last, strict=True) if name != UNIFORM}
    return found | {f"{UNIFORM}, {stage}": regrets[row] for stage, row in zip(data["stage"].values.tolist(), seconds, strict=True)}


class Curve(NamedTuple):
    """What each search has found so far, from each time on."""

    times: np.ndarray
    "Seconds, (seed, time)."
    regrets: np.ndarray
    "Points below the best of the table, (seed, time)."


def regret_curves(data: xr.Dataset) -> dict[str, Curve]:
    """Of the Dirichlet arm and of both two-stage searches, each with seconds of its own.

    Until a search in two stages has an answer, it counts as an architecture drawn at random.
    """
    regrets, rows = table_of(data).regrets, data["row"].values
    seconds = {piece: data["seconds"].sel(piece=piece).values[:, None] for piece in data["piece"].values.tolist()}
    curves = {OURS: Curve(seconds["gradient step"] * rows, regrets[data["incumbent"].sel(arm=OURS).values.T])}
    for stage in data["stage"].values.tolist():
        found = regrets[data["second_incumbent"].sel(stage=stage).values]
        scored = rows[-1] * seconds["uniform step"] + seconds["evaluation"] * np.arange(1, found.shape[1] + 1)
        first = np.zeros((len(found), 1))
        curves[f"{UNIFORM}, {stage}"] = Curve(np.hstack([first, scored]), np.hstack([first + regrets.mean(), found]))
    return curves


def areas(curves: Mapping[str, Curve]) -> dict[str, np.ndarray]:
    """Under each curve of steps, by seed, until the last search of a seed has ended."""
    end = np.max([curve.times[:, -1] for curve in curves.values()], axis=0)
    return {name: (curve.regrets * np.diff(np.column_stack([curve.times, end]))).sum(1) for name, curve in curves.items()}


def _regret_difference(data: xr.Dataset) -> float:
    found = last_regrets(data)
    return float((found[OURS] - found[f"{UNIFORM}, random"]).mean())


def _area_ratio(data: xr.Dataset, stage: str = "random") -> float:
    under = areas(regret_curves(data))
    return float(under[OURS].mean() / under[f"{UNIFORM}, {stage}"].mean())


def over_searches_and_trainings(statistic: Callable[[xr.Dataset], float], data: xr.Dataset, scale: Literal["plain", "log"]) -> Measure:
    """Of what was found in a space, its interval from leaving out searches, and trainings of the table, one by one."""
    searches = [statistic(data.drop_isel(seed=i)) for i in range(data.sizes["seed"])]
    left = {"searches": searches, "trainings of each architecture": _without_trainings(statistic, data)}
    return Measure.jackknife(statistic(data), left, scale=scale)


def median_regret(data: xr.Dataset) -> Measure:
    """Of the searches by gradients.

    Its ends are as far from it as the order statistics of searches and the jackknife over trainings of the table together, in squares.
    """
    over_searches = Measure.median(last_regrets(data)[OURS])
    value, low, high = over_searches.intervals()[0]
    left = _without_trainings(lambda some: float(np.median(last_regrets(some)[OURS])), data)
    _, under, over = Measure.jackknife(value, {"trainings": left}).intervals()[0]
    below, above = math.hypot(value - low, value - under), math.hypot(high - value, over - value)
    method = f"order statistics of {data.sizes['seed']} searches and jackknife over {len(left)} trainings of each architecture"
    return Measure(value, value - below, value + above, method, over_searches.samples)


def _without_trainings(statistic: Callable[[xr.Dataset], float], data: xr.Dataset) -> list[float]:
    return [statistic(data.drop_isel(table_seed=i)) for i in range(data.sizes["table_seed"])]


def _judge_searches(data: xr.Dataset, space: str, measures: dict[str, Measure], session: Session) -> None:
    suffix, table, found = SUFFIX[space], table_of(data), last_regrets(data)
    regrets, ranks = table.regrets, _ranks(table.means)
    measures[f"C3.median_regret{suffix}"] = median_regret(data)
    measures[f"C3.regret_difference{suffix}"] = over_searches_and_trainings(_regret_difference, data, "plain")
    measures[f"C4.area_ratio{suffix}"] = over_searches_and_trainings(_area_ratio, data, "log")
    session.note(
        f"C3, {space} space: points below the best of the table, mean and median over seeds: "
        + "; ".join(f"{name} {values.mean():.2f}, {np.median(values):.2f}" for name, values in found.items())
    )
    largest = int(data["parameters"].values.argmax())
    gradient, uniform, evaluation = data["seconds"].median("seed").sel(piece=list(PIECES)).values.tolist()
    # A network that is trained alone takes a uniform step for each of its own, and is judged by one training.
    n_alone = max(int(gradient / uniform), 1)
    random, n_trainings = np.random.default_rng(0), table.scores.shape[1]
    draws = np.array([random.choice(len(regrets), n_alone, replace=False) for _ in range(2000)])
    seen = table.scores[draws, random.integers(n_trainings, size=(2000, 1))]
    alone = draws[np.arange(2000), seen.argmax(1)]
    unit = "points less its cost" if space == "macro" else "%"
    session.note(
        f"C3, {space} space: of {len(regrets)} architectures, {n_trainings} trainings of each, the best has {table.means.max():.2f} "
        f"{unit}, the mean {table.means.mean():.2f}, the worst {table.means.min():.2f}; trainings of one scatter by "
        f"{np.median(table.accuracies.std(1, ddof=1)):.2f} points (median); "
        f"{LARGEST[space]}, the largest network, is {regrets[largest]:.2f} points below the best (rank {ranks[largest]}); an architecture "
        f"drawn at random {regrets.mean():.2f}, the best of {n_alone} trained alone in the time of a search {regrets[alone].mean():.2f} "
        f"(median rank {np.median(ranks[alone]):.0f}); ranks of what {OURS} found, by seed, "
        f"{', '.join(map(str, sorted(ranks[data['incumbent'].isel(row=-1).sel(arm=OURS).values].tolist())))}"
    )
    last = data["row"].values[-1]
    session.note(
        f"C3, {space} space: at as many gradient steps of the weights, the search by gradients takes "
        f"{last * gradient / (last * uniform + data.sizes['evaluation'] * evaluation):.2f} times the seconds of the one in two stages, for "
        "its gradients by the logits"
    )
    session.note(
        f"C4, {space} space: seconds of a step {gradient:.4f} with gradients by logits, {uniform:.4f} without, of a score "
        f"{evaluation:.4f}; area ratio to evolutionary search {_area_ratio(data, 'evolutionary'):.2f}"
    )


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 1 for the largest."""
    from scipy import stats

    return stats.rankdata(-values, method="ordinal")


def _note_costs(config: Search, data: xr.Dataset, session: Session) -> None:
    """What parameters cost in the score and in the search, and what that does."""
    counts, last = data["parameters"].values, data["incumbent"].isel(row=-1)
    medians = {name: np.median(counts[last.sel(arm=name).values]) for name in (OURS, ABLATION["macro"])}
    note = (
        f"C3, macro space: the score is the accuracy in points less {config.points_per_doubling:g} a doubling of the parameters, of which "
        f"networks have {counts.min():,} to {counts.max():,}, so less {data['cost'].values.max():.2f} for the largest; in the loss of the "
        f"logits a doubling of the expected parameters is {nats_per_doubling(config):.4f} nats, {NATS_PER_POINT:.4f} a point, as from ten "
        f"classes guessed, {np.log(10):.3f} nats at 10 % right, to none at 100 %; median parameters found "
        + ", ".join(f"{name} {median:,.0f}" for name, median in medians.items())
    )
    if "accuracy" in data:
        rank = _ranks(data["accuracy"].values.mean(1))[counts.argmax()]
        note += f"; by accuracy alone the largest network has rank {rank}"
    session.note(note)


def _judge_inherited(data: xr.Dataset, space: str, measures: dict[str, Measure], session: Session) -> None:
    inherited = data["inherited"]
    means = inherited.mean("architecture")
    difference = Measure.paired(means.sel(supernet=OURS).values, means.sel(supernet=UNIFORM).values)
    measures[f"C5.accuracy_difference{SUFFIX[space]}"] = difference
    words = [f"{name} {float(means.sel(supernet=name).mean()):.2f} %" for name in (OURS, UNIFORM)]
    note = f"C5, {space} space: mean accuracy of all networks with inherited weights: {', '.join(words)}"
    last = data["incumbent"].isel(row=-1).sel(arm=OURS).values
    chosen = inherited.sel(supernet=OURS).values[np.arange(len(last)), last]
    note += f"; of the one that its search chose {chosen.mean():.2f} %"
    if "accuracy" in data:
        from scipy import stats

        alone = data["accuracy"].values.mean(1)
        taus = {
            name: float(np.mean([_tau(stats.kendalltau(row, alone)) for row in inherited.sel(supernet=name).values]))
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
