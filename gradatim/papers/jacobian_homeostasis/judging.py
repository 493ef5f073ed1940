"""What the runs say about the claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """Measures of all claims but C7.

    Accuracies are compared with every arm at its own best learning rate of the grid; what else two arms with and without the loss differ
    in is read at one rate, the best of the arm without. All claims are about equilibria: a seed counts where the networks of every arm
    that is compared come to rest.
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

    def on_settled(part: str, data: xr.Dataset, runs: Mapping[str, np.ndarray], measure: Callable[[np.ndarray], Measure]) -> None:
        seeds = settled(data, runs)
        if seeds.sum() >= 3:
            measures[part] = measure(seeds)
        else:
            untested[part] = (
                f"too few seeds whose networks settle for every test image in all arms, got {seeds.sum()} of {seeds.size} ("
                + "; ".join(f"{arm}: {settled(data, {arm: rate}).sum()}" for arm, rate in runs.items())
                + ")"
            )

    angles = trees["angles"]
    estimated, true = ({f"{name} {angle:g}": best_rates(angles, f"{name} {angle:g}") for angle in ANGLES} for name in ("EP", "RBP"))

    def in_order(name: str) -> Callable[[np.ndarray], Measure]:
        return lambda seeds: Measure.paired_sequence([_first(at_rate(angles, arm, rate, name))[seeds] for arm, rate in estimated.items()])

    on_settled("C3.cosine_by_angle", angles, estimated, in_order("cosine"))
    on_settled("C3.accuracy_by_angle", angles, estimated, in_order("accuracy"))
    straight, turned = (f"RBP {angle:g}" for angle in (ANGLES[0], ANGLES[-1]))
    ends = {arm: true[arm] for arm in (straight, turned)}
    flat, wide = (at_rate(angles, arm, rate, "accuracy") for arm, rate in ends.items())
    on_settled("C3.backpropagation_change", angles, ends, lambda seeds: Measure.paired(wide[seeds], flat[seeds]))
    furthest = f"EP {ANGLES[-1]:g}"
    points = wide - at_best(angles, furthest, "accuracy")
    cosine = np.maximum(_first(at_best(angles, furthest, "cosine")), LEAST_COSINE)
    both = {turned: true[turned], furthest: estimated[furthest]}
    either = (points / 5, 0.5 / cosine)
    on_settled("C3.deficit_at_90", angles, both, lambda seeds: Measure.over_seeds(max((row[seeds] for row in either), key=np.mean)))
    session.note(f"C3: at 90 degrees {points.mean():.1f} points below recurrent backpropagation, first-layer cosine {cosine.mean():.2f}")

    chain = trees["homeostasis"]
    rate = best_rates(chain, "90, without")
    both = {"90, with": rate, "90, without": rate}
    on_settled("C5.cosine_gain", chain, both, _difference(chain, both, "cosine"))
    on_settled("C5.symmetry_score", chain, {"90, with": rate}, _level(chain, "90, with", rate, "score"))
    best = {arm: best_rates(chain, arm) for arm in both}
    on_settled("C5.accuracy_gain", chain, best, _difference(chain, best, "accuracy"))
    _describe("C5", chain, both, session)

    loop = trees["loop"]
    rate = best_rates(loop, "without")
    both, decayed = {"with": rate, "without": rate}, {"with": rate, "decay": rate}
    on_settled("C6.symmetry_rise", loop, both, _difference(loop, both, "score"))
    on_settled("C6.symmetry_score", loop, {"with": rate}, _level(loop, "with", rate, "score"))
    on_settled("C6.weight_decay_difference", loop, decayed, _difference(loop, decayed, "accuracy"))
    _describe("C6", loop, {**both, **decayed}, session)

    rate = best_rates(chain, "0, without")
    both = {"0, with": rate, "0, without": rate}
    on_settled("C8.angle_without", chain, {"0, without": rate}, _level(chain, "0, without", rate, "angle"))
    on_settled("C8.angle_difference", chain, both, _difference(chain, both, "angle"))
    _describe("C8", chain, both, session)

    for name in ("angles", "homeostasis", "loop"):
        _tell_rates(name, trees[name], session)
    return Findings(measures, xr.DataTree.from_dict(dict(trees)), untested)


def settled(data: xr.Dataset, runs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether the last networks of a seed settle for every test image, in all arms at these rates, one for each seed."""
    return np.all([at_rate(data, arm, rate, "residual") <= SETTLED for arm, rate in runs.items()], axis=0)


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


def _level(data: xr.Dataset, arm: str, rate: np.ndarray, name: str) -> Callable[[np.ndarray], Measure]:
    """Of a reading after the last epoch, over the seeds that are asked for."""
    return lambda seeds: Measure.over_seeds(_first(at_rate(data, arm, rate, name))[seeds])


def _difference(data: xr.Dataset, runs: Mapping[str, np.ndarray], name: str) -> Callable[[np.ndarray], Measure]:
    """Of a reading of two arms after the last epoch, the first less the second, over the seeds that are asked for."""
    ours, control = (_first(at_rate(data, arm, rate, name)) for arm, rate in runs.items())
    return lambda seeds: Measure.paired(ours[seeds], control[seeds])


def _first(rows: np.ndarray) -> np.ndarray:
    """Of the first layer, where a reading has several."""
    return rows[:, 0] if rows.ndim == 2 else rows


def _at_one(nudging: xr.Dataset, points: int) -> float:
    return float(nudging["response_error"].sel(points=points).sel(radius=1.0, method="nearest").mean())


def _describe(claim: str, data: xr.Dataset, runs: Mapping[str, np.ndarray], session: Session) -> None:
    """Beside the claim: how asymmetric the networks are in themselves, for a score near 1 may come of small weights."""

    def of(arm: str, name: str) -> float:
        return float(_first(at_rate(data, arm, runs[arm], name)).mean())

    words = [
        f"{arm}: settled {settled(data, {arm: runs[arm]}).sum()}, score {of(arm, 'score'):.3f}, norm of the antisymmetric part "
        f"{of(arm, 'antisymmetric'):.2f}, angle {of(arm, 'angle'):.1f}, first-layer cosine {of(arm, 'cosine'):.2f}, "
        f"accuracy {of(arm, 'accuracy'):.1f} %"
        for arm in runs
    ]
    n_seeds = data.sizes["seed"]
    rates = " or ".join(f"{rate:g}" for rate in np.unique(next(iter(runs.values()))))
    session.note(f"{claim}, at the rate {rates}, all {n_seeds} seeds, settled or not: " + "; ".join(words))


def _tell_rates(name: str, data: xr.Dataset, session: Session) -> None:
    rates = data.rate.values.tolist()
    best = {arm: best_rate(data, arm) for arm in data.arm.values.tolist()}
    edge = [arm for arm, rate in best.items() if rate in (rates[0], rates[-1])]
    session.note(
        f"{name}: best rates of {rates}: " + "; ".join(f"{arm}: {rate:g}" for arm, rate in best.items())
        + (f"; on the edge of the grid: {', '.join(edge)}" if edge else "")
    )  # fmt: skip
    words = [
        f"{arm}: {settled(data, {arm: best_rates(data, arm)}).sum()} ({100 - at_best(data, arm, 'unsettled').mean():.1f} % of the images)"
        for arm in best
    ]
    session.note(
        f"{name}: seeds of {data.sizes['seed']} whose last networks settle for every test image, each arm at its best rate: "
        + "; ".join(words) + "; where claims are judged the others are left out"
    )  # fmt: skip
