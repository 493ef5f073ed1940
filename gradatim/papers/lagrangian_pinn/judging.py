"""What the networks say about the claims."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session

from .config import Config
from .training import EASY_SPEED, HARD_SPEED


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """Measures of C1 and C3 to C7, but for the widths."""
    fixed, moving, remedies = (trees[name] for name in ("fixed", "moving", "remedies"))
    measures = {
        "C1.error_at_30": Measure.median(best_rate(fixed, HARD_SPEED)),
        "C1.error_at_10": Measure.median(best_rate(fixed, EASY_SPEED)),
        "C3.error_by_speed": Measure.sequence([Measure.median(errors(fixed, "Burgers", c, config.rate)) for c in config.fixed_burgers]),
        "C4.window_error_ratio": Measure.paired(
            remedies["error"].sel(remedy="windows").values, errors(fixed, "convection", HARD_SPEED, config.rate), "log-ratio"
        ),
    }
    by_speed = [errors(moving, "convection", c, config.rate) for c in config.speeds]
    worst, least = (pick(by_speed, key=np.median) for pick in (max, min))
    measures["C5.worst_error"] = Measure.median(worst)
    measures["C5.spread"] = Measure.paired(worst, least, "log-ratio")
    of_burgers = [errors(moving, "Burgers", c, config.rate) for c in config.moving_burgers]
    measures["C5.burgers_error"] = Measure.median(max(of_burgers, key=np.median))
    growth = trees["landscapes"]["eigenvalue"].values[..., 0]
    measures["C6.curvature_growth_ratio"] = Measure.paired(growth[1, 1] / growth[1, 0], growth[0, 1] / growth[0, 0], "log-ratio")
    raised = moving.isel(case=np.flatnonzero(moving["is_raised"].values))
    measures["C7.path_error"] = Measure.median(max(raised["path_error"].values, key=np.median))
    measures["C7.least_jacobian"] = Measure.exact(float(raised["least_jacobian"].min()))
    _describe(config, trees, session)
    return Findings(measures, xr.DataTree.from_dict(dict(trees)))


def errors(data: xr.Dataset, equation: str, speed: float, rate: float) -> np.ndarray:
    """Of every seed of one case, %, whose networks have the mean beside them.

    **Raises:** `ValueError` for a case that was not run.
    """
    chosen = (data["equation"] == equation) & (data["speed"] == speed) & np.isclose(data["rate"], rate) & data["is_raised"]
    if not chosen.any():
        raise ValueError(
            f"{equation} at speed {speed:g} must be among the speeds of the configuration, got {data['speed'].values.tolist()}"
        )
    return data["error"].values[np.flatnonzero(chosen.values)[0]]


def best_rate(data: xr.Dataset, speed: float) -> np.ndarray:
    """The errors of convection at a speed with the rate that serves best."""
    chosen = data["error"].values[((data["equation"] == "convection") & (data["speed"] == speed)).values]
    return chosen[np.median(chosen, axis=1).argmin()]


def _describe(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> None:
    fixed, moving, remedies, landscapes = (trees[name] for name in ("fixed", "moving", "remedies", "landscapes"))
    names = {"fixed": "fixed coordinates", "moving": "moving coordinates", "label": "moving, diffusion by label"}
    for name, data in ((name, trees[key]) for key, name in names.items() if key in trees):
        rows = []
        for i in range(data.sizes["case"]):
            one = data.isel(case=i)
            row = f"{one['equation'].item()} at {one['speed'].item():g}"
            row += f" (rate {one['rate'].item():g})" if not np.isclose(one["rate"].item(), config.rate) else ""
            row += " (mean learnt, too)" if not one["is_raised"].item() else ""
            row += f": error {_digits(one['error'])} %, at t = 1 {_digits(one['last_error'])} %, loss {_digits(one['loss'])}"
            row += f", residual {_digits(one['residual'])} and between the points {_digits(one['dense_residual'])}"
            if "path_error" in data:
                row += f", paths off by {_digits(one['path_error'])} %, least ∂X/∂ξ {_digits(one['least_jacobian'])}, "
                row += f"crossed {_digits(one['crossed'])}, before {_digits(one['crossed_steps'])} of {config.steps} steps"
            rows.append(row)
        session.note(f"{name}, every seed: " + "; ".join(rows))
    session.note(
        "Burgers, C3, C5, C7: the mean of the initial state stands beside the networks of both methods. The equations on the "
        "characteristics are the same for any mean, but a network that must first find one of 10 may end at that constant: its loss is "
        "then 50, a hundred times the mean square of the sine that it has missed. Networks that have to learn the mean are not judged"
    )
    hard, ours = (errors(data, "convection", HARD_SPEED, config.rate) for data in (fixed, moving))
    session.note(
        f"C1, C5: at speed {HARD_SPEED:g} the usual network's error is {np.median(hard):.3g} %, of moving coordinates "
        f"{np.median(ours):.3g} %; {config.times} times are {2 * np.pi / HARD_SPEED * config.times:.1f} to one passage. Its errors there "
        f"and at {EASY_SPEED:g} with the best of the rates {sorted({*fixed['rate'].values.tolist()})} are what is judged; moving "
        "coordinates had one rate"
    )
    for remedy in remedies["remedy"].values:
        session.note(f"C4: {remedy} at speed {HARD_SPEED:g}: error {_digits(remedies['error'].sel(remedy=remedy))} %")
    values = landscapes["eigenvalue"].values
    session.note(
        "C6: two leading eigenvalues, mean over seeds, at speeds "
        + f"{landscapes['speed'].values.tolist()}: "
        + "; ".join(f"{name} {[_digits(row.mean(axis=0)) for row in values[i]]}" for i, name in enumerate(landscapes["frame"].values))
    )


def _digits(values: xr.DataArray | np.ndarray) -> list[float]:
    return [float(f"{value:.3g}") for value in np.asarray(values).ravel()]
