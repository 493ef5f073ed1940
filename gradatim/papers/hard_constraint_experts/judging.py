"""What the data say about the claims."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session, best_by_others

from .config import Config
from .times import CLASSICAL_TIMES, STIFF

STATED_CELLS = 1024


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """All measures."""
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    _judge_errors(config, trees, measures, session)
    if "turbulence" in trees:
        _judge_turbulence(config, trees["turbulence"], measures, session)
    else:
        untested["C2"] = "networks are not trained on turbulence in this run"
    _judge_residuals(config, trees["training"], measures, session)
    _judge_derivatives(trees["derivatives"], measures, session)
    if "solves" in trees:
        _judge_times(trees["solves"], measures, session)
    else:
        untested["C3"] = "solves are not timed in this run"
    _judge_classical(config, trees["classical"], measures, untested, session)
    return Findings(measures, xr.DataTree.from_dict(dict(trees)), untested)


def _judge_errors(config: Config, trees: Mapping[str, xr.Dataset], measures: dict[str, Measure], session: Session) -> None:
    last = trees["training"].isel(step=-1)
    for claim, name in (("C1", "error"), ("C4", "far_error")):
        penalty, single, blocks = (last[name].sel(arm=arm).values for arm in ("penalty", "single", "blocks"))
        measures[f"{claim}.single_over_penalty"] = Measure.paired(single, penalty, "log-ratio")
        measures[f"{claim}.blocks_over_single"] = Measure.paired(blocks, single, "log-ratio")
        if claim == "C1":
            measures["C1.blocks_over_penalty"] = Measure.paired(blocks, penalty, "log-ratio")
        where = "on the span of the training" if claim == "C1" else "beyond it, the equation solved there too"
        session.note(f"{claim}: relative error {where}, every seed, %: {_by_arm(last[name])}")
    scattered, blocks = (last["error"].sel(arm=arm).values for arm in ("scattered", "blocks"))
    beside = Measure.paired(blocks, scattered, "log-ratio")
    session.note(
        f"C1: as many solves with their points anywhere, one for each block, have {_digits(scattered)} %; with points of its own a block "
        f"has {beside.value:.3g} times [{beside.low:.3g}, {beside.high:.3g}] of that error"
    )
    pilots = trees["pilots"]["error"].mean("pilot")
    lightest = float(pilots["weight"].min())
    at_lightest, best = pilots.sel(weight=lightest).min("rate"), pilots.min(("rate", "weight"))
    session.note(
        f"C1: least errors of the short runs, %, in the mean of {config.pilot_seeds} seeds, at weight {lightest:g} of the conditions: "
        f"{_by_arm(at_lightest)}; at each arm's best weight: {_by_arm(best)}. The article's weight is 1, and its penalised network has 86 %"
    )
    session.note(
        f"C1, C4: one training serves both, on t ≤ {500 * (config.trained_times - 1) / (config.times - 1):g} s; one solve has "
        f"{config.points} points, the blocks {config.points // config.blocks} each"
    )
    interpolated = trees["interpolation"]
    measures["C5.error_over_interpolation"] = Measure.paired(
        interpolated["network_between_error"].values, interpolated["between_error"].values, "log-ratio"
    )
    everywhere = Measure.paired(blocks, interpolated["error"].values, "log-ratio")
    session.note(
        f"C5: between the given points, {100 * float(interpolated['between_share'].mean()):.0f} % of all, the relative error of the "
        f"interpolation is {_digits(interpolated['between_error'])} %, the network's {_digits(interpolated['network_between_error'])} %; "
        "over all points, the given ones and those beyond their hull among them, where the nearest value stands in, the interpolation's is "
        f"{_digits(interpolated['error'])} %, the network's {everywhere.value:.3g} times [{everywhere.low:.3g}, {everywhere.high:.3g}] as "
        f"large; without the points of initial and boundary conditions it is {_digits(interpolated['sampled_only_error'])} %. The "
        "interpolation is given true values, which the network never sees"
    )


def _judge_turbulence(config: Config, data: xr.Dataset, measures: dict[str, Measure], session: Session) -> None:
    last, sizes = data.isel(step=-1), config.turbulence
    penalty, single, blocks = (last["fine_error"].sel(arm=arm).values for arm in ("penalty", "single", "blocks"))
    measures["C2.single_over_penalty"] = Measure.paired(single, penalty, "log-ratio")
    measures["C2.blocks_over_single"] = Measure.paired(blocks, single, "log-ratio")
    session.note(
        f"C2: relative error at {sizes.fine_side} × {sizes.fine_side} × {sizes.times} points, %: {_by_arm(last['fine_error'])}; on the "
        f"{sizes.side} × {sizes.side} of the training: {_by_arm(last['error'])}; of the initial state left as it is: "
        f"{data.attrs['standing']:.3g}"
    )


def _judge_residuals(config: Config, training: xr.Dataset, measures: dict[str, Measure], session: Session) -> None:
    last, penalty = training.isel(step=-1), training["residual"].sel(arm="penalty").values
    measures["C6.blocks_over_single_residual"] = Measure.paired(
        last["residual"].sel(arm="blocks").values, last["residual"].sel(arm="single").values, "log-ratio"
    )
    measures["C6.penalty_residual_rise"] = Measure.paired(penalty[:, 1:].max(axis=1), penalty[:, 0], "log-ratio")
    fallen = Measure.paired(penalty[:, -1], penalty[:, 0], "log-ratio")
    session.note(
        f"C6: the penalised network's last residual is {_digits(penalty[:, -1] / penalty[:, 0])} of its first, "
        f"{fallen.value:.3g} [{fallen.low:.3g}, {fallen.high:.3g}] in the mean"
    )
    session.note(
        f"C6: root mean square residual on held-out states, jumps included: {_by_arm(last['residual'])}; of each block by itself: "
        f"{_by_arm(last['inner_residual'])}"
    )
    weighed = last.sel(arm=["single", "blocks", "scattered"])
    session.note(
        f"Hard constraints leave a residual: at sampled points {_by_arm(weighed['sampled_residual'])}, between them "
        f"{_by_arm(weighed['unsampled_residual'])}; steps a solve {_by_arm(weighed['solve_steps'])}, solves of a state that ended at "
        f"the limit of {config.max_steps} {_by_arm(weighed['failures'])}"
    )


def _judge_derivatives(data: xr.Dataset, measures: dict[str, Measure], session: Session) -> None:
    whole = data["differences"].sum("block")
    measures["C7.gradient_error"] = Measure.over_seeds(abs(data["exact"].sum("block") / whole - 1).values)
    others = data["by_rows_of"].values[:, ~np.eye(data.sizes["block"], dtype=bool)]
    measures["C7.cross_block_derivative"] = Measure.over_seeds(others.max(axis=1))
    own = abs(data["differences_error"].sum("block") / whole)
    session.note(
        f"C7: over {data.sizes['draw']} draws of direction and points; relative error of the differences themselves {_digits(own)}"
    )
    if "pseudo_inverse" not in data:
        return
    session.note(
        f"C7: the article's pseudo-inverse formula is off by {_digits(abs(data['pseudo_inverse'].sum('block') / whole - 1))} where the "
        f"residual norms are {_digits(data['residual_norm'].mean('draw'))} in the mean"
    )


def _judge_times(data: xr.Dataset, measures: dict[str, Measure], session: Session) -> None:
    seconds = data["seconds"].values
    (forward_one, forward_many), (both_one, both_many) = seconds
    measures["C3.training_speedup"] = Measure.paired(both_one[-1], both_many[-1], "log-ratio")
    measures["C3.inference_speedup"] = Measure.paired(forward_one[-1], forward_many[-1], "log-ratio")
    speedup = both_one / both_many
    (steps_one, steps_many), (failed_one, failed_many) = data["steps"].mean("repeat").values, data["failures"].mean("repeat").values
    measures["C3.speedup_growth"] = Measure.paired(speedup[-1], speedup[0], "log-ratio")
    session.note(
        f"C3: {data['points'].values.tolist()} points in all: milliseconds forward and backward with one solve "
        f"{_digits(1e3 * np.median(both_one, axis=1))}, with blocks {_digits(1e3 * np.median(both_many, axis=1))}, spread "
        f"{_digits(1e3 * both_one.std(axis=1))} and {_digits(1e3 * both_many.std(axis=1))}; over draws of the points the mean steps of the "
        f"slowest solve are {_digits(steps_one)} and {_digits(steps_many)}, the mean solves that ended at their limit of steps "
        f"{_digits(failed_one)} and {_digits(failed_many)}, which have a row on the "
        "kink of the retardation near u = 0 and whose derivative means little. On a processor with few cores the blocks' solves "
        "take turns, and each goes on until the slowest of them has ended"
    )


def _judge_classical(config: Config, data: xr.Dataset, measures: dict[str, Measure], untested: dict[str, str], session: Session) -> None:
    medians = data["seconds"].median("repeat")
    if config.classical_cells == STATED_CELLS:
        best = best_by_others(data["seconds"].sel(solver=list(STIFF)), "solver", over="repeat")
        measures["C8.best_classical_seconds"] = Measure.over_seeds(best.values)
    else:
        untested["C8"] = f"said of {STATED_CELLS} cells, got {config.classical_cells}"
    times = {str(name): float(f"{float(medians.sel(solver=name)):.3g}") for name in data["solver"].values}
    session.note(
        f"C8: seconds for {config.classical_cells} cells at {CLASSICAL_TIMES} times: {times}, of which the explicit RK45 was followed "
        f"for {config.explicit_share:.2%} of the time; relative errors of the others at the end {_digits(data['error'].values[:-1])}"
    )


def _by_arm(values: xr.DataArray) -> str:
    return "; ".join(f"{arm} {_digits(values.sel(arm=arm))}" for arm in values["arm"].values)


def _digits(values: xr.DataArray | np.ndarray) -> list[float]:
    return [float(f"{value:.3g}") for value in np.asarray(values).ravel()]
