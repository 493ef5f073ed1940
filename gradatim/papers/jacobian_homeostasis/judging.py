"""What the runs say about the claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session, choice_by_others

from .config import Config
from .training import ANGLES, SETTLED

ROUND_OFF = 1e-11
"Relative errors below are those of the solves and no longer the nudge's."
AT_REST = 1e-9
"Residual of a free phase in double precision."
LEAST_COSINE = 0.01
"A cosine below counts as this one where it is divided by."

Reading = Callable[[xr.Dataset], np.ndarray]
"Of runs, one number for each seed, NaN where it has none."


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """Measures of all claims but C7.

    Accuracies are compared with every arm at its own best learning rate of the grid; what else two arms with and without the loss differ
    in is read at one rate, the best of the arm without. Angles and scores are of weights alone, and every seed has them; a cosine is of
    gradients at fixed points, and counts where the networks come to rest for all images whose gradients it compares.
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

    def over_seeds(part: str, name: str, reading: Reading) -> None:
        here = np.isfinite(reading(trees[name]))
        if here.sum() >= 3:
            measures[part] = _over_seeds(trees[name], reading)
        else:
            untested[part] = _too_few(here)

    def in_order(part: str, what: str) -> None:
        rows = np.array([_level(f"EP {angle:g}", what)(trees["angles"]) for angle in ANGLES])
        here = np.isfinite(rows.sum(axis=0))
        if here.sum() >= 3:
            measures[part] = Measure.paired_sequence(list(rows[:, here]))
        else:
            untested[part] = _too_few(here)

    in_order("C3.cosine_by_angle", "cosine")
    in_order("C3.accuracy_by_angle", "accuracy")
    straight, turned = (f"RBP {angle:g}" for angle in (ANGLES[0], ANGLES[-1]))
    furthest = f"EP {ANGLES[-1]:g}"
    over_seeds("C3.backpropagation_change", "angles", _difference(turned, straight, "accuracy"))
    points, cosine = _difference(turned, furthest, "accuracy"), _level(furthest, "cosine")
    over_seeds(
        "C3.deficit_at_90", "angles", lambda data: max((points(data) / 5, 0.5 / np.maximum(cosine(data), LEAST_COSINE)), key=np.nanmean)
    )
    session.note(
        f"C3: at 90 degrees {points(trees['angles']).mean():.1f} points below recurrent backpropagation, first-layer cosine "
        f"{np.nanmean(cosine(trees['angles'])):.2f}"
    )

    over_seeds("C5.cosine_gain", "homeostasis", _difference("90, with", "90, without", "cosine", like="90, without"))
    over_seeds("C5.symmetry_score", "homeostasis", _level("90, with", "score", like="90, without"))
    over_seeds("C5.accuracy_gain", "homeostasis", _difference("90, with", "90, without", "accuracy"))
    _describe("C5", trees["homeostasis"], ("90, with", "90, without"), session, like="90, without")

    over_seeds("C6.symmetry_rise", "loop", _difference("with", "without", "score", like="without"))
    over_seeds("C6.symmetry_score", "loop", _level("with", "score", like="without"))
    over_seeds("C6.weight_decay_difference", "loop", _difference("with", "decay", "accuracy", like="without"))
    _describe("C6", trees["loop"], ("with", "without", "decay"), session, like="without")

    over_seeds("C8.angle_without", "homeostasis", _level("0, without", "angle"))
    over_seeds("C8.angle_difference", "homeostasis", _difference("0, with", "0, without", "angle", like="0, without"))
    _describe("C8", trees["homeostasis"], ("0, with", "0, without"), session, like="0, without")

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


def best_rates(data: xr.Dataset, arm: str) -> np.ndarray:
    """The same for each seed by the other seeds: of a rate chosen by the seeds that it is judged on, luck is a part."""
    return data.rate.values[choice_by_others(data["accuracy"].sel(arm=arm).isel(epoch=-1), "rate", maximise=True).values]


def at_rate(data: xr.Dataset, arm: str, rate: np.ndarray, name: str) -> np.ndarray:
    """A reading after the last epoch, for each seed at its rate."""
    seeds = xr.DataArray(np.arange(data.sizes["seed"]), dims="each")
    chosen = data[name].sel(arm=arm).isel(epoch=-1).isel(seed=seeds).sel(rate=xr.DataArray(rate, dims="each"))
    return chosen.transpose("each", ...).values


def at_best(data: xr.Dataset, arm: str, name: str) -> np.ndarray:
    """The same at the rates that are best for the others."""
    return at_rate(data, arm, best_rates(data, arm), name)


def _level(arm: str, name: str, *, like: str | None = None) -> Reading:
    """Of an arm after the last epoch, at its own best rates or at those of another; a cosine of networks that swing on is none."""

    def of_seeds(data: xr.Dataset) -> np.ndarray:
        rate = best_rates(data, like or arm)
        values = _first(at_rate(data, arm, rate, name))
        return np.where(at_rate(data, arm, rate, "compared_residual") <= SETTLED, values, np.nan) if name == "cosine" else values

    return of_seeds


def _difference(ours: str, control: str, name: str, *, like: str | None = None) -> Reading:
    """Of two arms after the last epoch, the first less the second."""
    first, second = (_level(arm, name, like=like) for arm in (ours, control))
    return lambda data: first(data) - second(data)


def _over_seeds(data: xr.Dataset, reading: Reading) -> Measure:
    """The mean of the seeds that have the reading; for its interval rates are chosen again without each of them."""
    here = np.isfinite(reading(data))
    there, others = np.flatnonzero(here), np.flatnonzero(~here)

    def mean(kept: np.ndarray) -> float:
        rows = np.concatenate([there[kept], others])
        return float(np.nanmean(reading(data.isel(seed=rows))[: len(kept)]))

    return Measure.leave_one_out(mean, len(there))


def _too_few(here: np.ndarray) -> str:
    return f"too few seeds whose networks settle for all images whose gradients are compared, got {here.sum()} of {here.size}"


def _first(rows: np.ndarray) -> np.ndarray:
    """Of the first layer, where a reading has several."""
    return rows[:, 0] if rows.ndim == 2 else rows


def _at_one(nudging: xr.Dataset, points: int) -> float:
    return float(nudging["response_error"].sel(points=points).sel(radius=1.0, method="nearest").mean())


def _describe(claim: str, data: xr.Dataset, arms: Sequence[str], session: Session, *, like: str) -> None:
    """Beside the claim: how asymmetric the networks are in themselves, for a score near 1 may come of small weights."""
    chosen = best_rates(data, like)

    def of(arm: str, name: str) -> float:
        return float(_first(at_rate(data, arm, chosen, name)).mean())

    words = [
        f"{arm}: score {of(arm, 'score'):.3f}, norm of the antisymmetric part {of(arm, 'antisymmetric'):.2f}, angle "
        f"{of(arm, 'angle'):.1f}, first-layer cosine {of(arm, 'cosine'):.2f}, accuracy {of(arm, 'accuracy'):.1f} %, images that do not "
        f"settle {of(arm, 'unsettled'):.2g} %"
        for arm in arms
    ]
    rates = " or ".join(f"{rate:g}" for rate in np.unique(chosen))
    session.note(f"{claim}, at the rate {rates}, all {data.sizes['seed']} seeds, settled or not: " + "; ".join(words))


def _tell_rates(name: str, data: xr.Dataset, session: Session) -> None:
    rates = data.rate.values.tolist()
    best = {arm: best_rate(data, arm) for arm in data.arm.values.tolist()}
    edge = [arm for arm, rate in best.items() if rate in (rates[0], rates[-1])]
    session.note(
        f"{name}: best rates of {rates}: " + "; ".join(f"{arm}: {rate:g}" for arm, rate in best.items())
        + (f"; on the edge of the grid: {', '.join(edge)}" if edge else "")
    )  # fmt: skip
    words = []
    for arm in best:
        rate = best_rates(data, arm)
        compared, unsettled = (at_rate(data, arm, rate, what) for what in ("compared_residual", "unsettled"))
        words.append(f"{arm}: {(compared <= SETTLED).sum()} and {(unsettled == 0).sum()} ({100 - unsettled.mean():.1f} % of the images)")
    session.note(
        f"{name}: seeds of {data.sizes['seed']} whose last networks settle for all images whose gradients are compared, and for every test "
        "image, each arm at its best rate: " + "; ".join(words)
    )
