"""What the four problems say about the claims."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session, choice_by_others


def judge(trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """Measures of C1 to C6."""
    quadratic, well, penalties, denoising = (trees[name] for name in ("quadratic", "well", "penalties", "denoising"))
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}

    def total(name: str) -> float:
        return float(quadratic[name].sum() + well[name].sum())

    measures["C1.violations"] = Measure.exact(total("violations"))
    worst = max(float(data["worst_error_over_bound"].max()) for data in (quadratic, well))
    measures["C1.largest_error_over_bound"] = Measure.exact(worst)
    measures["C1.broken_bounds_denoising"] = Measure.exact(float(denoising["broken_bounds"].sum()))
    measures["C2.violations"] = Measure.exact(total("broken_promises") + float(denoising["broken_promises"].sum()))
    measures["C3.ascent_directions"] = Measure.exact(total("ascents"))

    adaptive = well.isel(arm=slice(0, -2))
    coarse, fine = (well.isel(arm=i) for i in (-2, -1))
    measures["C3.final_gradient_norm"] = Measure.over_seeds(adaptive["final_slope"].max("arm").values)
    measures["C4.gap_spread"] = Measure.over_seeds(spread(quadratic["gap_at_equal_work"].sel(way="adaptive"), "accuracy"))
    gradients = adaptive["gradients_to_target"]
    measures["C4.work_spread"] = Measure.over_seeds(spread(gradients, "arm"))
    slopes = adaptive["final_slope"].max("arm")
    measures["C4.stalled_over_adaptive"] = Measure.paired(coarse["final_slope"].values, slopes.values, "log-ratio")
    both = fine["gradients_to_target"].values, gradients.mean("arm").values
    measures["C4.fixed_work_over_adaptive"] = Measure.paired(*both, "log-ratio")

    # With the strong convexity that is certain: another proves nothing, and the schedules may take it, not the method.
    rivals = best_of(penalties, *schedules_of(penalties))
    measures["C5.loss_over_best_schedule"] = Measure.paired(best_of(penalties, "adaptive, certified"), rivals, "log-ratio")

    unseen = denoising["unseen_psnr"].sel(arm="adaptive").values
    levels: xr.DataArray = xr.apply_ufunc(np.log10, denoising["loss"]) * -10
    learned = levels.sel(arm="adaptive").values
    measures["C6.denoising_gain"] = Measure.paired(unseen, denoising["noisy_psnr"].values)
    measures["C6.loss_to_optimum"] = Measure.paired(-10 * np.log10(denoising["searched_loss"].values), learned)
    measures["C6.experts_gain"] = Measure.paired(denoising["experts_psnr"].values, unseen)
    # By what can be known where it is learned: what the unseen pieces say is what is judged.
    fixed = denoising.isel(arm=slice(1, None))
    chosen = fixed["loss"].fillna(np.inf).argmin("arm")
    measures["C6.gain_over_fixed_accuracy"] = Measure.paired(unseen, fixed["unseen_psnr"].isel(arm=chosen).values)
    _describe(trees, session)
    return Findings(measures, xr.DataTree.from_dict(dict(trees)), untested)


def _describe(trees: Mapping[str, xr.Dataset], session: Session) -> None:
    """What stands beside the claims."""
    quadratic, well, penalties, denoising = (trees[name] for name in ("quadratic", "well", "penalties", "denoising"))
    for way in ("adaptive", "fixed"):
        one = quadratic.sel(way=way).mean("draw")
        session.note(
            f"quadratic, {way}, mean over draws, first accuracies {_short(quadratic.accuracy)}: gap {_short(one['final_gap'])} after "
            f"{_short(one['steps'])} steps and {_short(one['lower_gradients'])} lower gradients"
        )
    steps, gradients, slopes = (_short(well[name].mean("draw")) for name in ("steps", "lower_gradients", "final_slope"))
    session.note(
        f"well conditioned, mean over draws, {', '.join(map(str, well.arm.values))}: steps {steps}, lower gradients {gradients}, final "
        f"gradient {slopes}"
    )
    session.note(
        f"hypergradients of total variation, with what the precise ones may be off by themselves: errors are at most "
        f"{float(denoising['worst_error_over_bound'].max()):.2g} of their bounds and {_short(denoising['median_error_over_bound'], 2)} of "
        "them in the median of the steps of each repeat"
    )
    best = penalties["loss"].fillna(np.inf).argmin("work")
    mean = penalties.mean("shuffle")
    chosen = penalties.isel(work=best).mean("shuffle")
    session.note(
        f"penalties, mean over shuffles, {'; '.join(map(str, penalties.arm.values))}: steps {_short(mean['steps'])}, validation loss at "
        f"the end {_short(mean['loss'][..., -1])} and at best {_short(chosen['loss'])} nat, from {float(mean['first_loss']):.3g}; there, "
        f"on untouched digits, loss {_short(chosen['untouched_loss'])} nat and accuracy {_short(chosen['untouched_accuracy'])}"
    )
    levels = -10 * np.log10(2 * denoising["loss"] / denoising.attrs["pixels"])
    session.note(
        f"total variation on the pieces it was learned from, mean over repeats, {', '.join(map(str, denoising.arm.values))}: "
        f"{_short(levels.mean('repeat'), 4)} dB; exhaustive search "
        f"{float((-10 * np.log10(2 * denoising['searched_loss'] / denoising.attrs['pixels'])).mean()):.2f} dB; field of experts "
        f"{float((-10 * np.log10(2 * denoising['experts_loss'] / denoising.attrs['pixels'])).mean()):.2f} dB"
    )
    session.note(
        f"denoising of unseen pieces, mean over repeats: noisy {float(denoising['noisy_psnr'].mean()):.2f} dB, total variation, arms "
        f"{', '.join(map(str, denoising.arm.values))}: {_short(denoising['unseen_psnr'].mean('repeat'), 4)} dB after "
        f"{_short(denoising['steps'].mean('repeat'))} steps; field of experts {float(denoising['experts_psnr'].mean()):.2f} dB after "
        f"{float(denoising['experts_steps'].mean()):.0f} steps"
    )
    below = int((denoising["experts_loss"] < denoising["loss"].sel(arm="adaptive")).sum())
    session.note(
        f"the field of experts has {denoising.attrs['experts']} fixed filters, cosine products of {denoising.attrs['filter_side']} pixels "
        "a side; a weight and a rounding of each are learned, and one scale for all. On the pieces that were learned from its loss ends "
        f"below the adaptive total variation's in {below} of {denoising.sizes['repeat']} repeats; elsewhere its learning has not come to "
        "its end, or the prior fits no better"
    )
    assumed = Measure.paired(best_of(penalties, "adaptive"), best_of(penalties, *schedules_of(penalties)), "log-ratio")
    session.note(
        "penalties: judged with the certain strong convexity, min e^θ, with which the adaptive arm soon needs more digits than double "
        "precision has; the schedules, which certify nothing, have the better of it and of what the authors' code assumes, L - 1e-3. With "
        f"the assumed one, under which no bound is certain, the adaptive loss is {assumed.value:.2f} "
        f"[{assumed.low:.2f}, {assumed.high:.2f}] times the best schedule's"
    )
    published = [
        Measure.paired(best_of(penalties, f"adaptive as published{ending}"), best_of(penalties, *schedules_of(penalties)), "log-ratio")
        for ending in (", certified", "")
    ]
    session.note(
        "penalties, the adaptive arm with the settings of the authors' script (ρ = 0.9, ν̄ = 1.05, η = 1e-4): its loss is "
        + " and ".join(
            f"{m.value:.2f} [{m.low:.2f}, {m.high:.2f}] times the best schedule's with the {words} strong convexity"
            for m, words in zip(published, ("certain", "assumed"), strict=True)
        )
    )
    learned = levels.isel(arm=slice(1, None))
    names = learned.arm.values[learned.fillna(-np.inf).argmax("arm").values].tolist()
    known = gain_over_known(denoising["unseen_psnr"], learned)
    session.note(
        f"denoising: of least loss where it was learned, by repeats: {', '.join(names)}. Over the fixed accuracy that suits the pieces of "
        f"all other repeats best the adaptive run gains {known.value:.2f} [{known.low:.2f}, {known.high:.2f}] dB on unseen pieces"
    )
    on_training = Measure.paired(*(levels.isel(arm=arms).max("arm").values for arms in (slice(0, 1), slice(1, None))))
    session.note(
        "denoising: the best fixed accuracy is known only once all have been tried, each with the work of an adaptive run; on the pieces "
        f"that were learned from the adaptive run gains {on_training.value:.2f} [{on_training.low:.2f}, {on_training.high:.2f}] dB over it"
    )


def gain_over_known(unseen: xr.DataArray, learned: xr.DataArray) -> Measure:
    """What the adaptive arm gains on unseen pieces over that of the `learned` arms which is best on the pieces of all other repeats."""

    def gain(kept: np.ndarray) -> float:
        rows = unseen.isel(repeat=kept)
        chosen = choice_by_others(learned.isel(repeat=kept), "arm", over="repeat", maximise=True)
        return float((rows.sel(arm="adaptive").values - rows.sel(arm=learned.arm).isel(arm=chosen).values).mean())

    return Measure.leave_one_out(gain, unseen.sizes["repeat"], of="repeats")


def spread(values: xr.DataArray, over: str) -> np.ndarray:
    """Largest minus smallest over mean."""
    return ((values.max(over) - values.min(over)) / values.mean(over)).values


def best_of(penalties: xr.Dataset, *arms: str) -> np.ndarray:
    """The least loss of any of these arms along its run, of each shuffle."""
    return penalties["loss"].sel(arm=list(arms)).min(("work", "arm")).values


def schedules_of(penalties: xr.Dataset) -> list[str]:
    """The arms with accuracies fixed in advance."""
    return [str(arm) for arm in penalties.arm.values if not str(arm).startswith("adaptive")]


def _short(values: xr.DataArray, digits: int = 3) -> str:
    return ", ".join(f"{float(value):.{digits}g}" for value in values.values)
