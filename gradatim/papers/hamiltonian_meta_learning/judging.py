"""What the comparison says about the claims: means over tasks and systems of each seed, then over seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session, best_by_others

from .comparison import ARMS, OTHERS

CLOSE = 0.6
"Of the random start's error, below which a system counts as ahead."


def judge(trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """All measures, and beside them what the text of a claim leaves out."""
    last = trees["adaptation"]["error"].isel(adapt_step=-1)
    first = trees["adaptation"]["error"].isel(adapt_step=0)
    change = trees["adaptation"]["change"].isel(adapt_step=-1)
    paths, special, variants = trees["paths"], trees["special"], trees["variants"]
    few = trees["few_points"]["error"].isel(points=0)
    used = paths["surplus"].notnull().any(["arm", "seed", "task", "path"])
    surplus = paths["surplus"].sel(system=used)
    damped = special["damped_error"] / special["damped_floor"]
    two = special["two_body_error"].sel(arm="meta")
    mish = _of_seeds(last, "meta")
    measures = {
        "C1.systems_ahead": Measure.over_seeds(systems_ahead(last)),
        "C1.error_over_pooled": _over(last, "pooled"),
        "C1.error_over_random": _over(last, "random"),
        "C1.energy_error_over_random": _worst(paths["energy_error"], "random", session),
        "C2.remaining_error": Measure.over_seeds(remaining(first, last, "meta")),
        "C2.five_point_error_over_pooled": _over(few, "pooled"),
        "C3.rollout_error_over_pooled": _over(paths["state_error"], "pooled"),
        "C3.energy_error_over_pooled": _over(paths["energy_error"], "pooled"),
        "C3.surplus_motion_over_pooled": _over(surplus, "pooled"),
        "C4.change_over_pooled": _over(change, "pooled"),
        "C5.damped_error_over_floor": Measure.over_seeds(_of_seeds(damped, "meta")),
        "C5.two_body_remaining_error": Measure.over_seeds(_geometric(two.isel(adapt_step=-1) / two.isel(adapt_step=0))),
        **{f"C6.error_over_{name}": Measure.paired(mish, _of_seeds(variants["error"], name), "log-ratio") for name in OTHERS},
    }
    session.note(f"field error by system held out, medians before adaptation: {_medians(first)}; after it: {_medians(last)}")
    session.note("after adaptation over the pooled network's, system by system: " + _by_system(last))
    session.note("trajectory error over the pooled network's, system by system: " + _by_system(paths["state_error"]))
    session.note("energy error over the pooled network's, system by system: " + _by_system(paths["energy_error"]))
    session.note(
        f"remaining error of the pooled network {Measure.over_seeds(remaining(first, last, 'pooled'))!r}, of the random start "
        f"{Measure.over_seeds(remaining(first, last, 'random'))!r}; before adaptation the meta-trained network's error is "
        f"{_over(first, 'pooled')!r} of the pooled one's"
    )
    same = trees["adaptation"]["error_at_same_rate"]
    session.note(
        f"with the meta-trained network's rate of adaptation for all: its error over the pooled network's {_over(same, 'pooled')!r}, over "
        f"the random start's {_over(same, 'random')!r}; its last layer's change over the pooled network's "
        f"{_over(trees['adaptation']['change_at_same_rate'], 'pooled')!r} (what is below 1e-6 counts as 1e-6)"
    )
    for points, error in trees["few_points"]["error"].groupby("points"):
        session.note(f"from {points} points: over the pooled network's {_over(error, 'pooled')!r}, random {_over(error, 'random')!r}")
    session.note(
        f"over the random start's: trajectory error {_over(paths['state_error'], 'random')!r}, surplus motion "
        f"{_over(surplus, 'random')!r}, "
        f"change of the last layer {_over(change, 'random')!r}"
    )
    session.note(
        f"damped oscillator: floor {float(special['damped_floor']):.4f}; error over it, pooled {_mean(damped, 'pooled')}, random "
        f"{_mean(damped, 'random')}; two bodies, error before and after: "
        + ", ".join(f"{arm} {_mean(part, arm, 0)} and {_mean(part, arm, -1)}" for arm in ARMS for part in [special["two_body_error"]])
    )
    capped = int((trees["adaptation"]["error"] >= 10).sum())
    session.note(f"errors of the field that were not finite or above 10, and count as 10: {capped} of {trees['adaptation']['error'].size}")
    return Findings(measures, xr.DataTree.from_dict(dict(trees)))


def systems_ahead(error: xr.DataArray) -> np.ndarray:
    """Of each seed, the systems on which the median error is at most the pooled network's, and below 0.6 of the random start's."""
    medians = error.median("task")
    meta, pooled, random = (medians.sel(arm=arm) for arm in ARMS)
    return ((meta <= pooled) & (meta < CLOSE * random)).sum("system").values.astype(float)


def remaining(first: xr.DataArray, last: xr.DataArray, arm: str) -> np.ndarray:
    """Of each seed, the share of the error that adaptation leaves: geometric mean over tasks, median over systems."""
    logs: xr.DataArray = xr.apply_ufunc(np.log, last.sel(arm=arm) / first.sel(arm=arm))
    shares: xr.DataArray = xr.apply_ufunc(np.exp, logs.mean("task"))
    return shares.median("system").values


def _geometric(values: xr.DataArray) -> np.ndarray:
    logs: xr.DataArray = xr.apply_ufunc(np.log, values.clip(min=1e-9))
    return np.exp(logs.mean([dim for dim in values.dims if dim != "seed"]).values)


def _of_seeds(values: xr.DataArray, arm: str) -> np.ndarray:
    """The geometric mean over all but seeds."""
    return _geometric(values.sel(arm=arm))


def _over(values: xr.DataArray, control: str) -> Measure:
    return Measure.paired(_of_seeds(values, "meta"), _of_seeds(values, control), "log-ratio")


def _worst(values: xr.DataArray, control: str, session: Session) -> Measure:
    """Of the system on which the ratio of the other seeds is largest."""
    by_system = {name: _over(values.sel(system=name), control) for name in values.system.values.tolist()}
    session.note(f"energy error over that of the {control} start: " + "; ".join(f"{name} {m!r}" for name, m in by_system.items()))
    ratios = xr.DataArray([measure.samples for measure in by_system.values()], dims=("system", "seed"))
    logs: xr.DataArray = xr.apply_ufunc(np.log, ratios)

    def ratio(kept: np.ndarray) -> float:
        return float(np.exp(best_by_others(logs.isel(seed=kept), "system", maximise=True).values.mean()))

    return Measure.leave_one_out(ratio, logs.sizes["seed"], scale="log")


def _by_system(values: xr.DataArray) -> str:
    return "; ".join(f"{name} {_over(values.sel(system=name), 'pooled')!r}" for name in values.system.values.tolist())


def _medians(error: xr.DataArray) -> str:
    medians = error.median(["seed", "task"])
    return "; ".join(
        f"{name} " + ", ".join(f"{arm} {float(medians.sel(system=name, arm=arm)):.3g}" for arm in ARMS)
        for name in error.system.values.tolist()
    )


def _mean(values: xr.DataArray, arm: str, look: int | None = None) -> str:
    one = values.sel(arm=arm) if look is None else values.sel(arm=arm).isel(adapt_step=look)
    return f"{float(np.exp(np.log(np.maximum(one, 1e-9)).mean())):.3g}"
