"""What the runs say about the claims."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session

from .config import Config
from .training import ANGLES

ROUND_OFF = 1e-11
"Relative errors below are those of the solves and no longer the nudge's."
AT_REST = 1e-9
"Residual of a free phase in double precision."
LEAST_COSINE = 0.01
"A cosine below counts as this one where it is divided by."


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """Measures of all claims but C7.

    Accuracies are compared with every arm at its own best learning rate of the grid; what else two arms with and without the loss differ
    in is read at one rate, the best of the arm without.
    """
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    nudging = trees["nudging"]
    # Of networks that swing on there is no equilibrium to respond, and no claim.
    rests = nudging["residual"] < AT_REST
    inside = config.nudging.share * nudging["convergence"]
    errors = {"C1.nudge_error_slope": (nudging["gradient_error"], 0.0)}
    for points in (1, 2, 4, 6):
        if points in nudging.points.values:
            errors[f"C2.slope_{points}"] = nudging["response_error"].sel(points=points), 45.0
        else:
            untested[f"C2.slope_{points}"] = f"no circle of {points} points among {nudging.points.values.tolist()}"
    for part, (rows, angle) in errors.items():
        seeds = rests.sel(angle=angle).values
        rows, largest = (rows.sel(angle=angle) if "angle" in rows.dims else rows), inside.sel(angle=angle).values[seeds]
        found = slopes(nudging.radius.values, rows.values[seeds], largest)
        if len(found) >= 3 and np.isfinite(found).all():
            measures[part] = Measure.over_seeds(found)
        else:
            untested[part] = (
                f"too few networks at rest with two radii within a quarter of the radius of convergence, got {len(found)} at rest"
            )
    for part, name, angles in (
        ("C1.asymmetry_identity_error", "identity", ANGLES[1:]),
        ("C4.recurrent_difference", "recurrent", ANGLES[:1]),
        ("C4.through_time_difference", "through_time", ANGLES[:1]),
    ):
        largest = nudging[name].where(rests).sel(angle=list(angles)).max()
        if np.isfinite(largest):
            measures[part] = Measure.exact(float(largest))
        else:
            untested[part] = "no network came to rest"
    measures["C5.estimator_error"] = Measure.over_seeds(np.abs(nudging["estimator"].values).max(axis=1))
    far = ", ".join(f"N = {n} {_at_one(nudging, int(n)):.2g}" for n in nudging.points.values)
    radii = ", ".join(f"{angle:g} {float(nudging['convergence'].sel(angle=angle).mean()):.2g}" for angle in ANGLES)
    session.note(
        f"networks whose response is measured: at rest {int(rests.sum())} of {rests.size} (all examples of a network; the others are left "
        f"out); radius of "
        f"convergence by angle {radii}; errors of the response at the radius 1: {far}"
    )

    angles = trees["angles"]
    estimated, true = ([f"{name} {angle:g}" for angle in ANGLES] for name in ("EP", "RBP"))
    measures["C3.cosine_by_angle"] = Measure.paired_sequence([at_best(angles, arm, "cosine")[:, 0] for arm in estimated])
    measures["C3.accuracy_by_angle"] = Measure.paired_sequence([at_best(angles, arm, "accuracy") for arm in estimated])
    flat, wide = at_best(angles, true[0], "accuracy"), at_best(angles, true[-1], "accuracy")
    measures["C3.backpropagation_change"] = Measure.paired(wide, flat)
    points = wide - at_best(angles, estimated[-1], "accuracy")
    cosine = np.maximum(at_best(angles, estimated[-1], "cosine")[:, 0], LEAST_COSINE)
    measures["C3.deficit_at_90"] = Measure.over_seeds(np.maximum(points / 5, 0.5 / cosine))
    session.note(f"C3: at 90 degrees {points.mean():.1f} points below recurrent backpropagation, first-layer cosine {cosine.mean():.2f}")

    chain = trees["homeostasis"]
    rate = best_rate(chain, "90, without")
    with_loss, without = (at_rate(chain, f"90, {word}", rate, "cosine")[:, 0] for word in ("with", "without"))
    measures["C5.cosine_gain"] = Measure.paired(with_loss, without)
    measures["C5.symmetry_score"] = Measure.over_seeds(at_rate(chain, "90, with", rate, "score"))
    measures["C5.accuracy_gain"] = Measure.paired(at_best(chain, "90, with", "accuracy"), at_best(chain, "90, without", "accuracy"))
    _describe("C5", chain, ("90, without", "90, with"), rate, session)

    loop = trees["loop"]
    rate = best_rate(loop, "without")
    measures["C6.symmetry_rise"] = _difference(loop, "with", "without", rate, "score")
    measures["C6.symmetry_score"] = Measure.over_seeds(at_rate(loop, "with", rate, "score"))
    measures["C6.weight_decay_difference"] = _difference(loop, "with", "decay", rate, "accuracy")
    _describe("C6", loop, ("without", "with", "decay"), rate, session)

    rate = best_rate(chain, "0, without")
    measures["C8.angle_without"] = Measure.over_seeds(at_rate(chain, "0, without", rate, "angle"))
    measures["C8.angle_difference"] = _difference(chain, "0, with", "0, without", rate, "angle")
    _describe("C8", chain, ("0, without", "0, with"), rate, session)

    for name in ("angles", "homeostasis", "loop"):
        _tell_rates(name, trees[name], session)
    return Findings(measures, xr.DataTree.from_dict(dict(trees)), untested)


def slopes(radii: np.ndarray, errors: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The power of the radius with which errors fall, for each seed: a line through the logarithms between round-off and its `inside`.

    NaN where fewer than two radii are left.
    """
    found = []
    for row, largest in zip(errors, inside, strict=True):
        kept = (radii <= largest) & (row > ROUND_OFF)
        found.append(np.polyfit(np.log(radii[kept]), np.log(row[kept]), 1)[0] if kept.sum() >= 2 else np.nan)
    return np.array(found)


def best_rate(data: xr.Dataset, arm: str) -> float:
    """The rate of the grid with the highest mean accuracy after the last epoch."""
    means = data["accuracy"].sel(arm=arm).isel(epoch=-1).mean("seed")
    return float(data.rate[int(np.nanargmax(means.values))])


def at_rate(data: xr.Dataset, arm: str, rate: float, name: str) -> np.ndarray:
    """A reading after the last epoch, for each seed."""
    return data[name].sel(arm=arm, rate=rate).isel(epoch=-1).values


def at_best(data: xr.Dataset, arm: str, name: str) -> np.ndarray:
    """The same at the arm's own best rate."""
    return at_rate(data, arm, best_rate(data, arm), name)


def _difference(data: xr.Dataset, ours: str, control: str, rate: float, name: str) -> Measure:
    """Of a reading of two arms after the last epoch, at one rate."""
    return Measure.paired(at_rate(data, ours, rate, name), at_rate(data, control, rate, name))


def _at_one(nudging: xr.Dataset, points: int) -> float:
    return float(nudging["response_error"].sel(points=points).sel(radius=1.0, method="nearest").mean())


def _describe(claim: str, data: xr.Dataset, arms: tuple[str, ...], rate: float, session: Session) -> None:
    """Beside the claim: how asymmetric the networks are in themselves, for a score near 1 may come of small weights."""
    words = [
        f"{arm}: score {at_rate(data, arm, rate, 'score').mean():.3f}, norm of the antisymmetric part "
        f"{at_rate(data, arm, rate, 'antisymmetric').mean():.2f}, first-layer cosine "
        f"{at_rate(data, arm, rate, 'cosine')[:, 0].mean():.2f}, "
        f"accuracy {at_rate(data, arm, rate, 'accuracy').mean():.1f} %"
        for arm in arms
    ]
    session.note(f"{claim}, at the rate {rate:g}: " + "; ".join(words))


def _tell_rates(name: str, data: xr.Dataset, session: Session) -> None:
    rates = data.rate.values.tolist()
    best = {arm: best_rate(data, arm) for arm in data.arm.values.tolist()}
    edge = [arm for arm, rate in best.items() if rate in (rates[0], rates[-1])]
    unsettled = float((data["residual"].isel(epoch=-1) > 1e-2).mean())
    session.note(
        f"{name}: best rates of {rates}: " + ", ".join(f"{arm} {rate:g}" for arm, rate in best.items())
        + (f"; on the edge of the grid: {', '.join(edge)}" if edge else "")
        + (f"; {100 * unsettled:.0f} % of the last networks do not settle for some image" if unsettled else "")
    )  # fmt: skip
