"""Verdicts from the data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session

from .config import Config
from .fields import SPHERE_FIELDS, WORDS
from .networks import SURFACES

DIMENSION = 2
"Of both surfaces."


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """All measures."""
    measures = _of_normal_data(trees, session) | _of_the_sphere(config, trees, session)
    measures |= _of_parts(config, trees, session)
    untested: dict[str, str] = {}
    if config.learned.starts:
        of_dimensions = _of_dimensions(config, trees, session)
        if not of_dimensions:
            untested["C7"] = "no network knows the score where its flows are read, and the claim is of those that do"
        measures |= of_dimensions
    else:
        untested["C7"] = "no flows of networks at this size"
    measures |= _of_penalty(trees["penalised"], session)
    return Findings(measures, xr.DataTree.from_dict(dict(trees)), untested)


def _of_penalty(penalised: xr.Dataset, session: Session) -> dict[str, Measure]:
    """Of the fields with the penalty and without."""
    statistic = (penalised["statistic"] ** 2).mean("level") ** 0.5
    told = {"share": penalised["share"].mean(["seed", "level"]), "statistic": statistic.mean("seed")}
    told["loss"] = penalised["loss"].isel(row=-1).mean("seed")
    share, weak, loss = (
        f"{float(values.sel(arm='with')):.3g} with the penalty and {float(values.sel(arm='without')):.3g} without"
        for values in told.values()
    )
    session.note(
        f"C9: the weak form is normalised, for the penalty also shrinks the free part: its share of the field is {share} (more than 1 "
        f"where the two parts cancel), the statistic {weak}, the final loss {loss}"
    )
    ratio = Measure.paired(statistic.sel(arm="with").values, statistic.sel(arm="without").values, "log-ratio")
    return {"C9.gauge_statistic_ratio": ratio}


def _of_normal_data(trees: Mapping[str, xr.Dataset], session: Session) -> dict[str, Measure]:
    parts, likelihoods, flows = (trees[name] for name in ("decompositions", "likelihoods", "flows"))
    errors = abs(likelihoods["log_density"] - likelihoods["exact"])
    right = [name for name in errors["case"].values if name.startswith("gauge")]
    turned = [name for name in right if name != "gauge 0"]
    rotations = {name: float(errors.sel(case=name).mean()) for name in errors["case"].values if name.startswith("rotation")}
    session.note(
        "C3: log-likelihoods of normal data are off by "
        + ", ".join(f"{value:.3g} nat on average for {name.split()[1]} Jx" for name, value in rotations.items())
        + ", which has no divergence and is no gauge field; where the flow of a datum comes from depends on the gauge part"
    )
    return {
        "C1.orthogonality_error": Measure.exact(float(parts["inner"].max())),
        "C1.split_error": Measure.exact(float(parts["split"])),
        "C1.gauge_residual": Measure.exact(float(parts["mixture"].max())),
        "C2.covariance_error": Measure.exact(float(flows["covariance_error"].sel(case=right).max())),
        "C3.likelihood_error": Measure.exact(float(errors.sel(case=right).max())),
        "C4.error_of_wrong_gradient": Measure.over_seeds(errors.sel(case="wrong gradient").values),
        "C4.error_of_right_nongradient": Measure.exact(float(errors.sel(case=turned).max())),
        "C5.divergence": Measure.exact(float(parts["divergence"].max())),
        "C5.component_along_score": Measure.exact(float(parts["along"].max())),
    }


def _of_the_sphere(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> dict[str, Measure]:
    samples = trees["samples"]["distance"]
    ratios = {
        (way, field): Measure.paired(samples.sel(way=way, field=field).values, samples.sel(way=way, field="score").values, "log-ratio")
        for way in samples["way"].values
        for field in SPHERE_FIELDS[1:]
        if np.isfinite(samples.sel(way=way, field=field)).all()
    }
    worst = max(ratios, key=lambda name: max(ratios[name].intervals()[0][2], 1 / ratios[name].intervals()[0][1]))
    session.note(
        "C2: sliced distances over those without a gauge part, for flows and reverse diffusions, of which the one furthest from 1 counts; "
        "no diffusion along saddles, whose steps of equal size add more to the radius than the gauge part could: "
        + ", ".join(f"{way} {WORDS[field]} {ratio.value:.3f}" for (way, field), ratio in ratios.items())
        + f"; between two samples of the data {float(trees['samples']['data_distance'].mean()):.4f}, without a gauge part "
        + " and ".join(f"{float(samples.sel(way=way, field='score').mean()):.4f}" for way in samples["way"].values)
    )
    spheres = {dim: trees[f"sphere_{dim}"] for dim in config.exact.dims}
    shares = {
        field: np.mean([float((data["by_slope"].sel(field=field) == DIMENSION).mean()) for data in spheres.values()]) for field in WORDS
    }
    errors = {
        field: max(float(abs(data["singular_values"].sel(field=field) - data["expected"]).max()) for data in spheres.values())
        for field in WORDS
    }
    session.note(
        "C6: what moves no probability does move singular values, by up to "
        + ", ".join(f"{errors[field]:.2g} {WORDS[field]}" for field in SPHERE_FIELDS[1:])
        + "; share of points with two surviving directions: "
        + ", ".join(f"{shares[field]:.3f} {WORDS[field]}" for field in WORDS)
    )
    return {
        "C2.sliced_distance_ratio": ratios[worst],
        "C6.correct_share": Measure.exact(float(shares["score"])),
        "C6.singular_value_error": Measure.exact(errors["score"]),
    }


def _of_dimensions(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> dict[str, Measure]:
    readings = {dim: trees[f"reading_{dim}"] for dim in config.learned.dims}

    def shares(rule: str) -> np.ndarray:
        """Of right points: (kind, data set, seed)."""
        right = [(data[rule].round() == DIMENSION).mean("start").transpose("kind", "surface", "seed").values for data in readings.values()]
        return np.concatenate(right, axis=1)

    free, gradient = shares("by_slope")
    pairs = [(dim, surface) for dim in readings for surface in SURFACES]
    names = [f"{surface} in {dim}" for dim, surface in pairs]
    beside = {rule: shares(rule).mean(axis=2) for rule in ("by_gap", "normal_space", "fokker_planck")}
    local = np.concatenate([(data["local_components"] == DIMENSION).mean(["seed", "start"]).values for data in readings.values()])
    whole = np.concatenate([data["nearest_neighbours"].mean("seed").values for data in readings.values()])
    tied = bool((free == gradient).all())
    session.note(
        "C7: share of points with the right dimension, gradient and free network: "
        + "; ".join(
            f"{name}: slopes {g.mean():.2f} {f.mean():.2f}, gaps {beside['by_gap'][1, i]:.2f} {beside['by_gap'][0, i]:.2f}, scores around "
            f"a datum {beside['normal_space'][1, i]:.2f} {beside['normal_space'][0, i]:.2f}, FLIPD {beside['fokker_planck'][1, i]:.2f} "
            f"{beside['fokker_planck'][0, i]:.2f}; of the data, local components {local[i]:.2f}, nearest neighbours say {whole[i]:.2f}"
            for i, (name, g, f) in enumerate(zip(names, gradient, free, strict=True))
        )
        + ("; the two kinds of network tie" if tied else "")
        + ". How well they fit comes first: mean square error of the score over its own mean square, gradient and free network, "
        + "; ".join(f"{name} {_fits(trees, dim, surface)}" for name, (dim, surface) in zip(names, pairs, strict=True))
        + "; where it is not far below 1 near the data, their flows say nothing of the surface's dimension"
    )
    known = [i for i, (dim, surface) in enumerate(pairs) if score_error(trees, dim, surface) <= 1]
    if len(known) < len(names):
        left_out = ", ".join(name for i, name in enumerate(names) if i not in known)
        session.note(
            f"C7: not judged by what networks make of {left_out}: where flows are read their mean square error is above their mean square"
        )
    if not known:
        return {}
    return {
        "C7.gradient_network_share": Measure.over_seeds(gradient[known].min(axis=0)),
        "C7.gain_over_free_network": Measure.paired(gradient[known].mean(axis=0), free[known].mean(axis=0)),
    }


def score_error(trees: Mapping[str, xr.Dataset], dim: int, surface: str) -> float:
    """Mean square error of the score over its own mean square where flows are read, nearest the data; the worse kind of network."""
    parts = trees[f"parts_{dim}"].sel(surface=surface)
    return float((parts["error"] / parts["field"]).sel(level=parts["level"].min()).mean("seed").max())


def _fits(trees: Mapping[str, xr.Dataset], dim: int, surface: str) -> str:
    parts = trees[f"parts_{dim}"].sel(surface=surface)
    errors = (parts["error"] / parts["field"]).mean("seed")
    return ", ".join(
        f"{float(row.sel(kind='gradient').squeeze()):.2g} {float(row.sel(kind='free').squeeze()):.2g} at 1 - t = {level:g}"
        for level, row in ((float(level), errors.sel(level=level)) for level in errors["level"].values)
    )


def _of_parts(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> dict[str, Measure]:
    # Over (surface and dimension, level, seed, kind).
    together = xr.concat([trees[f"parts_{dim}"] for dim in config.learned.dims], dim="surface")
    sums = together[["field", "remainder", "error", "gradient_error"]].sum(["surface", "level"])
    share = sums["remainder"] / sums["field"]
    split = abs(sums["error"] - sums["gradient_error"] - sums["remainder"]) / sums["error"]
    free = {name: value.sel(kind="free") for name, value in together.data_vars.items()}
    of_error = float((sums["remainder"] / sums["error"]).sel(kind="free").mean())
    session.note(
        "C8: in units of the noise, held-out samples; what random potentials cannot express counts as gauge part, so that its share is an "
        f"upper bound. It is {of_error:.2f} of the free network's error of the score; by level "
        + ", ".join(
            f"{float(row['remainder'].sum() / row['field'].sum()):.2g} of the field at 1 - t = {float(level):g}"
            for level, row in together.sel(kind="free").groupby("level")
        )
        + f". Its Jacobian is antisymmetric to {float(free['asymmetry'].min()):.2g} … {float(free['asymmetry'].max()):.2g} in the "
        f"square, which no gradient's is; the weak form of the gauge condition leaves {float(free['statistic'].mean()):.3g}. The "
        "gradient network's potential is in the basis, and its part is round-off"
    )
    return {
        "C8.gauge_share_free": Measure.over_seeds(share.sel(kind="free").values),
        "C8.gauge_share_gradient": Measure.over_seeds(share.sel(kind="gradient").values),
        "C8.loss_split_error": Measure.over_seeds(split.sel(kind="free").values),
    }
