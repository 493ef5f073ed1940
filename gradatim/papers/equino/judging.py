"""What the data say about the claims."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session

from .config import Config
from .training import COMPONENTS


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """All measures."""
    main, restricted = trees[f"equilibrium_{config.snapshots[-1]}"], trees[f"equilibrium_{config.restricted}"]
    regression, variational = trees[f"regression_{config.restricted}"], trees["variational"]
    membrane = trees["membrane"]
    measures = {
        "C1.equilibrium_residual": Measure.exact(float(main["residual"].max())),
        "C1.periodicity_jump": Measure.exact(float(main["jump"].max())),
        **{f"C2.stress_{name}_error": Measure.over_seeds(_seeds(main["stress"].sel(component=name))) for name in COMPONENTS},
        "C2.average_stress_error": Measure.over_seeds(_seeds(main["average"])),
        "C2.error_over_variational": worst_ratio(main, variational),
        "C2.displacement_over_variational": ratio(main["displacement"], variational["displacement"]),
        "C3.speedup_per_cell": speedup(trees["speed"]["seconds"]),
        "C4.displacement_error": Measure.over_seeds(_of_arm(membrane["displacement_error"], config)),
        "C4.reaction_error": Measure.over_seeds(_of_arm(membrane["reaction_error"], config)),
        "C4.tangent_error": Measure.over_seeds(_seeds(main["tangent"])),
        "C4.error_over_regression": Measure.paired(_seeds(restricted["tensor"]), _seeds(regression["tensor"]), "log-ratio"),
        "C5.fluctuation_error": Measure.over_seeds(_seeds(main["fluctuation"])),
    }
    untested = {}
    if "simulation" in trees:
        measures["C3.simulation_speedup"] = speedup(trees["simulation"]["seconds"])
    else:
        untested["C3.simulation_speedup"] = "with no operator Newton's method converges for the membrane"
    _tell(config, trees, session)
    return Findings(measures, xr.DataTree.from_dict(dict(trees)), untested)


def speedup(seconds: xr.DataArray) -> Measure:
    """Seconds with cells solved over those with an operator, repetitions paired."""
    return Measure.paired(seconds.sel(way="solved").values, seconds.sel(way="operator").values, "log-ratio")


def worst_ratio(ours: xr.Dataset, theirs: xr.Dataset) -> Measure:
    """Of the component of the stress that compares worst, seeds paired."""
    ratios = [ratio(ours["stress"].sel(component=name), theirs["stress"].sel(component=name)) for name in COMPONENTS]
    return max(ratios, key=lambda measure: measure.intervals()[0][0])


def ratio(ours: xr.DataArray, theirs: xr.DataArray) -> Measure:
    """Of errors, seeds paired, as many as theirs."""
    return Measure.paired(_seeds(ours)[: theirs.sizes["seed"]], _seeds(theirs), "log-ratio")


def _seeds(errors: xr.DataArray) -> np.ndarray:
    """Means over the unseen strains."""
    return errors.mean("test").values


def mean(values: xr.DataArray) -> float:
    """Over everything."""
    return float(values.mean())


def _of_arm(errors: xr.DataArray, config: Config) -> np.ndarray:
    return errors.sel(arm=f"equilibrium {config.restricted}").values


def _tell(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> None:
    main, variational = trees[f"equilibrium_{config.snapshots[-1]}"], trees["variational"]
    modes, baselines = trees["projection"], trees["baselines"]
    session.note(
        f"C1: weak residual of the stress, worst {float(main['residual'].max()):.2g}; of the law's stress from the predicted strain, mean "
        f"{mean(main['law_residual']):.2g}; of the variational operator's stress {mean(variational['residual']):.2g}; "
        f"snapshots were solved to {float(trees['solved']['residual'].max()):.1g}"
    )
    arms = {"modes and consistency": main, "the same with its loss at all points": trees.get("all_points"), "variational": variational}
    for name, data in ((name, data) for name, data in arms.items() if data is not None):
        row = ", ".join(f"{c} {mean(data['stress'].sel(component=c)):.3g} %" for c in COMPONENTS)
        session.note(
            f"C2: {name}: stress {row}, of the whole tensor {mean(data['tensor']):.3g} %, averaged stress "
            f"{mean(data['average']):.3g} %, fluctuation {mean(data['fluctuation']):.3g} %, displacement with the average "
            f"strain's part {mean(data['displacement']):.3g} %; median strain: "
            + ", ".join(f"{c} {mean(data['stress'].sel(component=c).median('test')):.3g} %" for c in COMPONENTS)
            + f"; training took {float(data['seconds']) / data.sizes['seed']:.3g} s a seed, in L-BFGS "
            f"{int(data['failed_searches'].sum())} line searches of {data.sizes['seed'] * data.sizes['lbfgs_step']} found no decrease"
        )
    row = ", ".join(f"{c} {mean(main['adam_stress'].sel(component=c)):.3g} %" for c in COMPONENTS)
    session.note(
        f"C2: after Adam alone: {row}, averaged stress {mean(main['adam_average']):.3g} %. Projection on the modes leaves "
        + ", ".join(f"{c} {mean(modes['stress'].isel(snapshots=-1).sel(component=c)):.2g} %" for c in COMPONENTS)
        + f", of the fluctuation {mean(modes['fluctuation'][-1]):.2g} %; the law's own stress from the predicted strain is off by "
        f"{mean(main['law_tensor']):.3g} %, its average by {mean(main['law_average']):.3g} %"
    )
    session.note(
        f"C2: L-BFGS had {config.lbfgs_steps} steps on {config.points} magic points of {config.elements**2 * 9}, for the variational "
        f"operator {config.variational_lbfgs_steps} on all points, for its energy is an integral over the cell"
    )
    session.note(
        f"C2: averaged stress alone needs no network: cubic interpolation on a grid of {config.grid}³ = {config.grid**3} solved cells is "
        f"off by {mean(baselines['grid_average']):.3g} % (tangent {mean(baselines['grid_tangent']):.3g} %), cubic radial functions "
        f"through the {config.snapshots[-1]} snapshots by {mean(baselines['radial_average']):.3g} %, the tangent at no strain by "
        f"{mean(baselines['linear_average']):.3g} %; the networks by {mean(main['average']):.3g} %, with fields"
    )
    rows = [
        f"{count}: {mean(trees[f'equilibrium_{count}']['tensor']):.3g} and {mean(trees[f'regression_{count}']['tensor']):.3g} % "
        f"(averaged {mean(trees[f'equilibrium_{count}']['average']):.3g} and "
        f"{mean(trees[f'regression_{count}']['average']):.3g} %), modes {mean(modes['tensor'].sel(snapshots=count)):.2g} %"
        for count in config.snapshots
    ]
    ahead = [n for n in config.snapshots if mean(trees[f"regression_{n}"]["tensor"]) < mean(trees[f"equilibrium_{n}"]["tensor"])]
    session.note(
        f"C4: stress by snapshots, consistency and regression: {'; '.join(rows)}. "
        + (f"From {ahead} snapshots regression is ahead" if ahead else "Regression is never ahead")
    )
    _tell_two_scales(config, trees, session)


def _tell_two_scales(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> None:
    main, membrane, seconds = trees[f"equilibrium_{config.snapshots[-1]}"], trees["membrane"], trees["speed"]["seconds"].median("repeat")
    each = {str(way): float(seconds.sel(way=way)) for way in seconds["way"].values}
    training = float(main["seconds"]) / main.sizes["seed"]
    session.note(
        f"C3: averaged stress and tangent of one strain: solved {1e3 * each['solved']:.3g} ms, operator {1e6 * each['operator']:.3g} µs in "
        f"a batch of {config.batch}, interpolated {1e6 * each['interpolated']:.3g} µs; XLA may use a second thread where the solver has "
        f"one. Snapshots and training are not in it: with {config.snapshots[-1]} solutions and {training:.3g} s of training the operator "
        f"breaks even after {config.snapshots[-1] + training / each['solved']:.0f} solutions"
    )
    if "simulation" in trees:
        both, ours = (float(trees["simulation"]["seconds"].sel(way=way).median()) for way in ("solved", "operator"))
        arm, points = f"equilibrium {config.snapshots[-1]}", int(membrane["solves"]) // (int(membrane["truth_steps"]) + 1)
        session.note(
            f"C3: the membrane of {points} cells takes {both:.3g} s with cells solved, {int(membrane['solves'])} times in all, and "
            f"{1e3 * ours:.3g} ms with an operator, in {int(membrane['truth_steps'])} and "
            f"{float(membrane['steps'].sel(arm=arm).median()):g} steps of Newton's method; the same share of a batch of {config.batch} "
            f"would take the operator {1e3 * int(membrane['solves']) * each['operator']:.3g} ms: the rest is the membrane's own finite "
            "elements and calls of few cells"
        )
    rows = []
    for arm in membrane["arm"].values:
        one = membrane.sel(arm=arm)
        rows.append(
            f"{arm} snapshots: displacement {mean(one['displacement_error']):.3g} %, reaction {mean(one['reaction_error']):.3g} %, "
            f"strains up to {float(one['reach'].max()):.2g} of the limit"
        )
    for law in membrane["law"].values:
        one = membrane.sel(law=law)
        rows.append(f"{law}: {float(one['baseline_displacement_error']):.3g} % and {float(one['baseline_reaction_error']):.3g} %")
    session.note(
        f"C4: membrane raised by {float(membrane['height']):.3g} mm, on both scales {int(membrane['solves'])} solved cells: "
        + "; ".join(rows)
    )
    sizes = trees["sizes"]
    by_arm = {str(arm): sizes["operator"].sel(arm=arm).mean("seed") for arm in sizes["arm"].values}
    by_arm |= {"interpolation": sizes["interpolation"], "straight line": sizes["straight_line"]}
    session.note(
        f"C4: averaged stress by the strain's largest component {[float(f'{size:.2g}') for size in sizes['size'].values]}, %: "
        + "; ".join(f"{name} {[float(f'{value:.3g}') for value in row.values]}" for name, row in by_arm.items())
        + f". Of the membrane's strains half lie below {float(abs(membrane['strain']).max('component').median()):.2g}"
    )
    session.note(f"C4: tangents by differentiation are asymmetric by {mean(main['asymmetry']):.2g} %, so that factors allow for it")
