"""What the lines say about the claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session, rank_correlation

ARMS = ("relu", "tanh")
LATE = 5
"The fork, in epochs, with which that at the start is compared."
NOISE = 1e-5
"A barrier that counts as none, nat: what two per cent of relative error mean where there is hardly a barrier."
TOLERANCE = 0.02
"The relative error that goes with it."
STABLE = 0.02
"Instability, share of test images, up to which Frankle et al. (arXiv:1912.05671) call two ends linearly connected."
ROUND_OFF = 1e-8
"Barriers below, nat, have no order: losses near 0.01 are told apart to 1e-9 in single precision."


def judge(trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """Measures of C1 to C4, those of both arms from the arm that speaks against the claim."""
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}

    def worse(part: str, of: Callable[[str], Measure], bad: Literal["high", "low"]) -> None:
        found = {arm: of(arm) for arm in ARMS}
        chosen = (max if bad == "high" else min)(found, key=lambda arm: found[arm].intervals()[0][0])
        measures[part] = found[chosen]
        session.note(f"{part}: " + "; ".join(f"{arm} {measure!r}" for arm, measure in found.items()) + f"; judged on {chosen}")

    forks = trees["relu"].fork.values.tolist()

    def of_forks(arm: str, name: str) -> np.ndarray:
        return trees[arm][name].values[:, : len(forks)]

    worse("C1.barrier_rank", lambda arm: Measure.over_seeds(rank_correlation(forks, rounded_off(of_forks(arm, "barrier")))), "high")
    worse(
        "C1.independent_over_fork_0",
        lambda arm: Measure.paired(
            at_least_noise(trees[arm]["barrier"].values[:, -1]), at_least_noise(of_forks(arm, "barrier")[:, 0]), "log-ratio"
        ),
        "low",
    )
    if LATE in forks:
        late = forks.index(LATE)
        worse(
            "C1.fork_0_over_fork_5",
            lambda arm: Measure.paired(
                at_least_noise(of_forks(arm, "barrier")[:, 0]), at_least_noise(of_forks(arm, "barrier")[:, late]), "log-ratio"
            ),
            "low",
        )
    else:
        untested["C1.fork_0_over_fork_5"] = f"no run forks after {LATE} epochs"
    worse(
        "C1.crest_over_fork_loss",
        lambda arm: Measure.over_seeds((of_forks(arm, "crest") / trees[arm]["fork_loss"].values).max(axis=1)),
        "high",
    )
    worse("C2.distance_rank", lambda arm: Measure.over_seeds(rank_correlation(forks, of_forks(arm, "distance"))), "high")
    worse("C2.angle_rank", lambda arm: Measure.over_seeds(rank_correlation(forks, trees[arm]["angle"].values)), "high")

    smooth = trees["tanh"]
    errors = {arm: integral_errors(trees[arm]["prediction"].sel(estimate="integral").values, trees[arm]["middle"].values) for arm in ARMS}
    measures["C3.integral_error"] = Measure.exact(float(errors["tanh"].max()))
    methods = ("endpoints", "endpoints_with_slopes", "midpoint", "fork")
    ranks = {arm: {m: rank_of(*_of_forks_and_seeds(trees[arm], m)) for m in methods} for arm in ARMS}
    measures["C3.end_point_rank"] = rank_measure(*_of_forks_and_seeds(smooth, "endpoints"))
    session.note(
        f"C3: relative error of the integral, worst of the forks and of independent networks: tanh {errors['tanh'][:, :-1].max():.2g}, "
        f"{errors['tanh'][:, -1].max():.2g}; ReLU, whose kinks it does not see, {errors['relu'][:, :-1].max():.2g}, "
        f"{errors['relu'][:, -1].max():.2g}"
    )
    session.note(f"C3: Spearman correlation of predictions with the barrier over forks and seeds: {_rounded(ranks)}")
    over = {
        m: float((smooth["prediction"].sel(estimate=m).values[:, 0] / smooth["middle"].values[:, 0]).mean()) for m in smooth.estimate.values
    }
    session.note(f"C3: predictions over the measured height at the middle, fork 0, tanh, mean over seeds: {_rounded(over)}")

    shares = {arm: layer_shares(trees[arm], trees[f"{arm}_layers"]) for arm in ARMS}
    worse("C4.layer_over_full", lambda arm: Measure.over_seeds(shares[arm]), "high")
    session.note(
        "C4: seeds in which some layer alone meets a barrier, and the largest share of the full one: "
        + "; ".join(f"{arm} {np.count_nonzero(share)} of {share.size}, {share.max():.2g}" for arm, share in shares.items())
    )
    layers = trees["tanh_layers"]
    measures["C4.layer_integral_error"] = Measure.exact(float(integral_errors(layers["integral"].values, layers["middle"].values).max()))
    for arm in ARMS:
        _describe(arm, trees[arm], trees[f"{arm}_layers"], session)
    return Findings(measures, xr.DataTree.from_dict(dict(trees)), untested)


def rounded_off(barriers: np.ndarray) -> np.ndarray:
    """Barriers, those within round-off as the zeros that they are."""
    return np.where(barriers > ROUND_OFF, barriers, 0.0)


def at_least_noise(barriers: np.ndarray) -> np.ndarray:
    """Barriers for a ratio: what is below the noise counts as the noise, so that a ratio to it is a lower bound."""
    return np.maximum(barriers, NOISE)


def integral_errors(integral: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """|integral - measured| over the measured height at the middle, or over the height of which the noise is the tolerated share."""
    return np.abs(integral - middle) / np.maximum(np.abs(middle), NOISE / TOLERANCE)


def layer_shares(data: xr.Dataset, layers: xr.Dataset) -> np.ndarray:
    """The worst layer's barrier over the whole network's, whichever network holds the rest, the worse of the two cases, for each seed."""
    whole = data["barrier"].sel(pair=layers["case"].values).values
    return (layers["single"].values.max(axis=(2, 3)) / at_least_noise(whole)).max(axis=1)


def rank_measure(predicted: np.ndarray, barrier: np.ndarray) -> Measure:
    """Spearman's correlation over all of `(seed, fork)`, its interval from leaving out one seed after the other.

    The forks of a seed share its networks and are no repetitions.
    """
    left = [rank_of(*(np.delete(rows, i, axis=0) for rows in (predicted, barrier))) for i in range(len(predicted))]
    return Measure.jackknife(rank_of(predicted, barrier), {"seeds": left}, scale="fisher")


def rank_of(predicted: np.ndarray, barrier: np.ndarray) -> float:
    """Spearman's correlation over all seeds and forks."""
    return float(rank_correlation(predicted.ravel(), rounded_off(barrier).reshape(1, -1))[0])


def _of_forks_and_seeds(data: xr.Dataset, method: str) -> tuple[np.ndarray, np.ndarray]:
    forks = slice(data.sizes["fork"])
    return data["prediction"].sel(estimate=method).values[:, forks], data["barrier"].values[:, forks]


def _describe(arm: str, data: xr.Dataset, layers: xr.Dataset, session: Session) -> None:
    """Beside the claims: heights under other conventions, and where a small barrier would only look small."""
    barrier, n_forks = data["barrier"].values, data.sizes["fork"]
    session.note(
        f"{arm}: end loss {data['end_loss'].values[:, :n_forks].mean():.4f}, test accuracy {data['accuracy'].values.mean():.3f}; by fork "
        f"{data.fork.values.tolist()} and between initialisations: barrier {_significant(barrier)}, over the mean of the ends "
        f"{_significant(data['barrier_over_mean'].values)}, over the end loss {_significant(barrier / data['end_loss'].values)}, of test "
        f"images {_significant(_bump(data['test_line'].values))}; distance {_significant(data['distance'].values)}; loss at the fork "
        f"{_significant(data['fork_loss'].values)}; angle at the fork {_significant(data['angle'].values)}, at the start "
        f"{_significant(data['angle_from_start'].values)} degrees"
    )
    instability = instabilities(data["test_error_line"].values)
    session.note(
        f"{arm}: instability, largest error of test images on the line over the mean of its ends, by fork and between initialisations "
        f"{_percent(instability.mean(axis=0))} %; below the {100 * STABLE:.0f} % of linear connectivity in "
        f"{(instability < STABLE).sum(axis=0).tolist()} of {len(instability)} seeds"
    )
    for case in layers["case"].values:
        one = layers.sel(case=case)
        session.note(
            f"{arm}, {case}, layer by layer: barrier (larger of both defaults) {_significant(one['single'].values.max(axis=2))}, measured "
            f"at the middle {_significant(one['middle'].values)}, integral {_significant(one['integral'].values)}; layers from the input "
            f"on together {_significant(one['cumulative'].values.max(axis=2))}"
        )


def instabilities(errors: np.ndarray) -> np.ndarray:
    """The largest error on each line less the mean of its ends."""
    return errors.max(axis=-1) - (errors[..., 0] + errors[..., -1]) / 2


def _percent(shares: np.ndarray) -> list[float]:
    return [round(100 * float(share), 2) for share in shares]


def _bump(lines: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 1, lines.shape[-1])
    return (lines - (1 - t) * lines[..., :1] - t * lines[..., -1:]).max(axis=-1)


def _significant(rows: np.ndarray) -> list[float]:
    """Means over seeds, three digits."""
    return [float(f"{value:.3g}") for value in rows.mean(axis=0)]


def _rounded(values: Mapping[str, object]) -> dict[str, object]:
    return {str(name): _rounded(value) if isinstance(value, Mapping) else round(float(str(value)), 3) for name, value in values.items()}
