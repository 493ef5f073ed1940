"""What the data say about the claims."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session, best_by_others

from .config import Config

JUDGED = (16, 32)
"Dimensions for which there are criteria."
P_NORM_ARMS = {
    "none": "without the gap",
    "gap": "with it",
    "squared gap": "with that of the squared distance",
    "structured": "with it, a structured map",
}
GRID_DIMENSION = 32
"Of the grid of weights."


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """All measures."""
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    _judge_exact(trees, measures, session)
    _judge_plane(config, trees["plane"], measures, session)
    _judge_costs(trees, measures, session)
    _judge_p_norms(trees["p_norm"], measures, session)
    _judge_dimensions(config, trees, measures, untested, session)
    _tell_digits(trees["digits"], session)
    return Findings(measures, xr.DataTree.from_dict(dict(trees)), untested)


def _judge_exact(trees: Mapping[str, xr.Dataset], measures: dict[str, Measure], session: Session) -> None:
    bounds, linear = trees["bounds"], trees["linear"]
    measures["C1.least_gap"] = Measure.exact(float(bounds["random"].min()))
    measures["C1.gap_of_optimal_maps"] = Measure.exact(float(np.abs(bounds["optimal"]).max()))
    off = abs(linear["gap"] / linear["formula"] - 1)
    measures["C1.linear_map_error"] = Measure.over_seeds(off.max("map").values)
    session.note(
        "C1: exact gap on a sample, mean over samples, and of the law: "
        + "; ".join(
            f"{name} {float(linear['gap'].sel(map=name).mean()):.3f}, {float(linear['formula'].sel(map=name)):.3f}"
            for name in linear["map"].values
        )
    )
    errors = abs(linear["by_size"] - float(linear["formula"].sel(map="turn by 90°")))
    measures["C2.error_by_size"] = Measure.paired_sequence([errors.sel(size=n).values for n in linear["size"].values])
    measures["C3.subset_gap"] = Measure.exact(float(np.abs(bounds["subset"]).max()))
    measures["C4.midpoint_excess"] = Measure.exact(float(trees["convexity"]["excess"].max()))


def _judge_plane(config: Config, plane: xr.Dataset, measures: dict[str, Measure], session: Session) -> None:
    weights = config.plane.weights
    judged = f"gap {_nearest_to_one(weights):g}"
    error, fit = plane["unexplained"], plane["divergence"]
    measures["C5.unexplained_variance"] = Measure.over_seeds(error.sel(arm=judged).values)
    measures["C5.gain"] = Measure.paired(error.sel(arm="none").values, error.sel(arm=judged).values, "log-ratio")
    measures["C5.fit_ratio"] = Measure.paired(fit.sel(arm=judged).values, fit.sel(arm="none").values, "log-ratio")
    by_weight = error.sel(arm=[f"gap {weight:g}" for weight in weights])
    measures["C5.weight_spread"] = _spread(by_weight, "arm")
    rows = [
        f"{name}: {float(error.sel(arm=name).mean()):.3g} %, divergence {float(fit.sel(arm=name).mean()):.3g}, "
        f"mean square of the images {float(plane['energy'].sel(arm=name).mean()):.3g}"
        for name in plane["arm"].values
    ]
    session.note(
        f"C5: unexplained variance and fit on held-out points, means over seeds (the target's mean square is "
        f"{float(plane['target_energy'].mean()):.3g}): " + "; ".join(rows)
    )
    session.note(f"C5: without a regulariser by seed: {', '.join(f'{value:.3g} %' for value in error.sel(arm='none').values)}")


def _judge_costs(trees: Mapping[str, xr.Dataset], measures: dict[str, Measure], session: Session) -> None:
    euclidean, sphere = trees["euclidean"], trees["sphere"]
    share = 100 * euclidean["gap"] / euclidean["displacement"]
    measures["C6.euclidean_gap"] = Measure.over_seeds(share.sel(arm="gap").values)
    measures["C6.sphere_gap_ratio"] = Measure.paired(sphere["gap"].sel(arm="gap").values, sphere["gap"].sel(arm="none").values, "log-ratio")
    session.note(
        f"C6: moons to an S-curve: gap over displacement, percent, {_means(share)}; divergence {_means(euclidean['divergence'])}; of the "
        f"segments of 200 points so many pairs cross: {_means(euclidean['crossings'])}"
    )
    session.note(f"C6: sphere: gap {_means(sphere['gap'])}; divergence {_means(sphere['divergence'])}")


def _judge_p_norms(data: xr.Dataset, measures: dict[str, Measure], session: Session) -> None:
    share = 100 * data["gap"] / data["displacement"]
    # A gap of nothing, as of an optimal map, is known to the round-off of its costs: a ratio of two is then one.
    known_to = data["gap"].clip(min=np.finfo(np.float32).eps * data["displacement"])
    ratio = (known_to.sel(arm="gap") / known_to.sel(arm="none")).max("p").values
    measures["C6.p_norm_gap"] = Measure.over_seeds(share.sel(arm="gap").max("p").values)
    measures["C6.p_norm_gap_ratio"] = Measure.paired(ratio, np.ones_like(ratio), "log-ratio")
    for p in data["p"].values:
        one, known = data.sel(p=p), data["known_gap"].sel(p=p).mean("seed")
        arms = "; ".join(
            f"{words} {float(share.sel(p=p, arm=arm).mean()):.3g} %, {float(one['unexplained'].sel(arm=arm).mean()):.3g} %, "
            f"{float(one['divergence'].sel(arm=arm).mean()):.3g}"
            for arm, words in P_NORM_ARMS.items()
        )
        others = ", ".join(f"{float(known.sel(power=power)):.3g} % for {power:g}" for power in known["power"].values)
        session.note(f"C6: p = {p:g}: exact gap over displacement, unexplained variance and divergence, means over seeds: {arms}")
        session.note(f"C6: p = {p:g}: gap of the known map over its displacement by the power of the cost: {others}")


def _judge_dimensions(
    config: Config, trees: Mapping[str, xr.Dataset], measures: dict[str, Measure], untested: dict[str, str], session: Session
) -> None:
    data = trees["dimensions"]
    dimensions = data["dimension"].values.tolist()
    for dim in JUDGED:
        part = f"C7.entropic_ratio_{dim}"
        if dim in dimensions:
            one = data.sel(dimension=dim)
            measures[part] = _over_entropic(one)
        else:
            untested[part] = f"no map in {dim} dimensions was trained"
    shares = config.dimensions.entropic_shares
    words = {
        "network": "network with the gap",
        "fresh": "with fresh points",
        "plain": "without the gap",
        "entropic": "entropic map",
        "gaussian": "Gaussian",
        "constant": "constant",
    }
    for dim in dimensions:
        one = data.sel(dimension=dim)
        best = shares[int(np.argmin(one["by_share"].mean("seed").values))]
        edge = ", on the edge of its grid" if best in (shares[0], shares[-1]) else ""
        unsolved = int((1 - one["converged"].sel(share=best)).sum())
        edge += f", where {unsolved} of its {one.sizes['seed']} couplings are not solved to the tolerance" if unsolved else ""
        errors = ", ".join(f"{word} {float(one[name].mean()):.3g} %" for name, word in words.items())
        session.note(
            f"C7: unexplained variance in {dim} dimensions: {errors}; the entropic map's best ε is {best:g} of the mean cost{edge}"
        )
    grid = trees["grid"]["unexplained"]
    if dimensions[-1] == GRID_DIMENSION:
        measures["C8.grid_spread"] = _spread(grid.stack(weights=("gap_weight", "asymmetry_weight"), create_index=False), "weights")
        last, means = data.sel(dimension=GRID_DIMENSION), grid.mean("seed")
        session.note(
            f"C8: on the grid from {float(means.min()):.3g} to {float(means.max()):.3g} %, where the Gaussian map that all start from has "
            f"{float(last['gaussian'].mean()):.3g} % and the network without either term {float(last['plain'].mean()):.3g} %"
        )
    else:
        untested["C8.grid_spread"] = f"the grid is for {GRID_DIMENSION} dimensions, got {dimensions[-1]}"


def _over_entropic(errors: xr.Dataset) -> Measure:
    """The network's error over the entropic map's, whose share is the best of the other seeds; chosen again without each seed."""

    def ratio(kept: np.ndarray) -> float:
        those = errors.isel(seed=kept)
        return np.exp(np.log(those["network"].values / best_by_others(those["by_share"], "share").values).mean())

    return Measure.leave_one_out(ratio, errors.sizes["seed"], scale="log")


def _spread(errors: xr.DataArray, weights: str) -> Measure:
    """The largest error over the smallest, at the weights that are worst and best for the other seeds by their geometric mean.

    For the interval weights are chosen again without each seed.
    """
    # As the ratio is judged: one seed that goes astray does not make its weight the worst.
    logs = errors.copy(data=np.log(errors.values))

    def ratio(kept: np.ndarray) -> float:
        worst, best = (best_by_others(logs.isel(seed=kept), weights, maximise=maximise).values for maximise in (True, False))
        return np.exp((worst - best).mean())

    return Measure.leave_one_out(ratio, logs.sizes["seed"], scale="log")


def _tell_digits(digits: xr.Dataset, session: Session) -> None:
    share = 100 * digits["gap"] / digits["displacement"]
    session.note(
        f"Digits, held-out images: divergence to the target {_means(digits['divergence'])}; gap over displacement, percent, {_means(share)}"
    )


def _means(values: xr.DataArray) -> str:
    return f"{float(values.sel(arm='none').mean()):.3g} without and {float(values.sel(arm='gap').mean()):.3g} with the regulariser"


def _nearest_to_one(weights: tuple[float, ...]) -> float:
    return min(weights, key=lambda weight: abs(np.log(weight)) if weight > 0 else np.inf)
