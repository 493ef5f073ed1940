"""What the data say about the claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session

from .config import Config, Search
from .scores import NATS_PER_POINT, nats_per_doubling
from .searches import ABLATION, OURS, UNIFORM
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
    regrets, last = table_of(data).regrets, data["incumbent"].isel(row=-1)
    found = {name: regrets[last.sel(arm=name).values] for name in data["arm"].values.tolist() if name != UNIFORM}
    seconds = data["second_incumbent"].isel(evaluation=-1)
    return found | {f"{UNIFORM}, {stage}": regrets[seconds.sel(stage=stage).values] for stage in data["stage"].values.tolist()}


def regret_curves(data: xr.Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of the Dirichlet arm and of both two-stage searches: seconds, and points below the best at each, (seed, time).

    Until a search in two stages has an answer, it counts as an architecture drawn at random.
    """
    regrets, rows, seconds = table_of(data).regrets, data["row"].values, _median_seconds(data)
    curves = {OURS: (rows * seconds["gradient step"], regrets[data["incumbent"].sel(arm=OURS).values].T)}
    for stage in data["stage"].values.tolist():
        found = regrets[data["second_incumbent"].sel(stage=stage).values]
        trained = rows[-1] * seconds["uniform step"]
        times = trained + seconds["evaluation"] * np.arange(1, found.shape[1] + 1)
        before = np.full((len(found), 1), regrets.mean())
        curves[f"{UNIFORM}, {stage}"] = (np.concatenate([[0.0], times]), np.concatenate([before, found], axis=1))
    return curves


def areas(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Under each curve of steps, by seed, until the last of them has ended."""
    end = max(times[-1] for times, _ in curves.values())
    return {name: (values * np.diff(np.append(times, end))[None]).sum(1) for name, (times, values) in curves.items()}


def _median_seconds(data: xr.Dataset) -> dict[str, float]:
    return dict(zip(data["piece"].values.tolist(), data["seconds"].median("repeat").values.tolist(), strict=True))


def _judge_searches(data: xr.Dataset, space: str, measures: dict[str, Measure], session: Session) -> None:
    suffix, table, found, seconds = SUFFIX[space], table_of(data), last_regrets(data), _median_seconds(data)
    regrets, ranks = table.regrets, _ranks(table.means)
    measures[f"C3.median_regret{suffix}"] = Measure.median(found[OURS])
    measures[f"C3.regret_difference{suffix}"] = Measure.paired(found[OURS], found[f"{UNIFORM}, random"])
    session.note(
        f"C3, {space} space: points below the best of the table, mean and median over seeds: "
        + "; ".join(f"{name} {values.mean():.2f}, {np.median(values):.2f}" for name, values in found.items())
    )
    largest = int(data["parameters"].values.argmax())
    curves = regret_curves(data)
    # A network that is trained alone takes a uniform step for each of its own, and is judged by one training.
    ours = curves[OURS][0][-1]
    n_alone = max(int(ours / (data["row"].values[-1] * seconds["uniform step"])), 1)
    random = np.random.default_rng(0)
    draws = np.array([random.choice(len(regrets), n_alone, replace=False) for _ in range(2000)])
    seen = table.scores[draws, random.integers(table.scores.shape[1], size=(2000, 1))]
    alone = draws[np.arange(2000), seen.argmax(1)]
    unit = "points less its cost" if space == "macro" else "%"
    session.note(
        f"C3, {space} space: of {len(regrets)} architectures the best has {table.means.max():.2f} {unit}, the mean "
        f"{table.means.mean():.2f}, the worst {table.means.min():.2f}; seeds of one differ by {table.accuracies.std(1).mean():.2f} points; "
        f"{LARGEST[space]}, the largest network, is {regrets[largest]:.2f} points below the best (rank {ranks[largest]}); an architecture "
        f"drawn at random {regrets.mean():.2f}, the best of {n_alone} trained alone in the time of a search {regrets[alone].mean():.2f} "
        f"(median rank {np.median(ranks[alone]):.0f}); ranks of what {OURS} found, by seed, "
        f"{', '.join(map(str, sorted(ranks[data['incumbent'].isel(row=-1).sel(arm=OURS).values].tolist())))}"
    )
    two_stages = curves[f"{UNIFORM}, random"][0][-1]
    session.note(
        f"C3, {space} space: at as many gradient steps of the weights, the search by gradients takes {ours / two_stages:.2f} times the "
        "seconds of the one in two stages, for its gradients by the logits"
    )
    under = areas(curves)
    floor = 1e-3 * max(times[-1] for times, _ in curves.values())
    ratio = Measure.paired(np.maximum(under[OURS], floor), np.maximum(under[f"{UNIFORM}, random"], floor), "log-ratio")
    measures[f"C4.area_ratio{suffix}"] = ratio
    session.note(
        f"C4, {space} space: seconds of a step {seconds['gradient step']:.4f} with gradients by logits, {seconds['uniform step']:.4f} "
        f"without, of a score {seconds['evaluation']:.4f}; area ratio to evolutionary search "
        f"{np.exp(np.log(np.maximum(under[OURS], floor) / np.maximum(under[f'{UNIFORM}, evolutionary'], floor)).mean()):.2f}"
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
