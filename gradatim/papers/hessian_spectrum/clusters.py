"""Widths on the same data, and data of growing number and overlap of clusters."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, PRNGKeyArray, PyTree

from gradatim.lab import Findings, Measure, Session, rank_correlation
from gradatim.landscape import hessian_spectrum
from gradatim.numerics import HessianOperator

from .config import Config
from .spectra import (
    NEAR_ZERO,
    RULES,
    as_numpy,
    dense_spectra,
    labelled,
    lanczos_tops,
    near_zero_share,
    null_models,
    outlier_counts,
    spectral_norm,
)
from .training import Problem, cluster_data, cluster_problem, descend, initialised, mnist_data, network

KEPT = 16
"Seeds, at most, whose spectra are kept."
ROUND_OFF = 1e-9
"Negative eigenvalues smaller than this share of λmax are not counted (float64 leaves about 1e-15)."
FITTED = 1e-3
"Loss at which a network counts as fitted."


def compare_widths(config: Config, session: Session, key: PRNGKeyArray) -> Findings:
    """Networks of growing width on the same data: C1, C2, C4 and C5."""
    c = config.width
    key_data, key_initial, key_probe = jax.random.split(key, 3)
    if c.data == "mnist":
        inputs, labels = mnist_data(session, key_data, config.examples, config.seeds)
        classes = 10
    else:
        classes = 2
        inputs, labels = cluster_data(config, key_data, classes, c.overlap)
    spectra: dict[int, dict[str, dict[str, np.ndarray]]] = {}
    nulls: dict[int, dict[str, np.ndarray]] = {}
    tree: dict[str, xr.Dataset] = {}
    for width in c.widths:
        template, static = network(inputs.shape[2], classes, width)
        problem = Problem(inputs, labels, static, classes)
        initial = initialised(template, jax.random.split(key_initial, config.seeds), std=c.initial_std)
        label = f"width {width}"
        loop = descend(session, problem, initial, steps=c.steps, rate=config.learning_rate, target=c.target, label=label)
        points = {"start": initial, "equal": loop.state.at_target, "end": loop.state.now}
        spectra[width] = {
            when: as_numpy(session.once(f"{label} {when}", dense_spectra, problem, p, config.max_size)) for when, p in points.items()
        }
        nulls[width] = as_numpy(
            session.once(f"{label} null models", null_models, problem, points["equal"], key_probe, config.density_steps)
        )
        # All are judged, in double precision; thousands of eigenvalues of some seeds are kept, in single.
        variables = {
            f"{name}_{when}": (("kept_seed", "index"), values[name][:KEPT].astype(np.float32))
            for when, values in spectra[width].items()
            for name in ("hessian", "gauss_newton", "residual")
        }
        losses = {f"loss_{when}": ("seed", values["loss"]) for when, values in spectra[width].items()}
        history = {"loss": (("step", "seed"), loop.history["loss"])}
        tree[f"/width/{width}"] = labelled({**variables, **losses, **history}, {"step": loop.history["step"]}, unit="loss")
        if width == c.widths[-1]:
            ends = jnp.asarray(spectra[width]["end"]["hessian"][0])
            sizes = (config.density_steps, config.density_probes)
            density = session.once("density", _density, problem, loop.state.now, ends, key_probe, *sizes)
            tree["/density"] = labelled({name: ("eigenvalue", values) for name, values in density.items()}, {}, unit="1/loss")
    start, equal, end = (spectra[c.widths[-1]][when] for when in ("start", "equal", "end"))
    before, wide, after = (values["hessian"] for values in (start, equal, end))
    narrow = spectra[c.widths[0]]["equal"]["hessian"]
    size, n_directions = wide.shape[1], config.examples * (classes - 1)
    session.note(
        f"C1: of {size} eigenvalues the rank of the Gauss-Newton part alone forces {max(0.0, 1 - n_directions / size):.3f} to zero; a "
        f"random symmetric matrix of that size has {2 * NEAR_ZERO * 2 / np.pi:.4f} of them below {NEAR_ZERO:g} of the largest; share near "
        f"zero when the loss first reached {c.target:g}: {near_zero_share(wide).mean():.3f}"
    )
    counts = {w: outlier_counts(spectra[w]["equal"], nulls[w]["edge"], classes) for w in c.widths}
    reached = {w: float(spectra[w]["equal"]["loss"].max()) for w in c.widths}
    means = {w: n.mean(1).tolist() for w, n in counts.items()}
    session.note(f"C2: highest loss at which networks are compared, by width: {reached}; mean counts {RULES}: {means}")
    tenth = RULES.index("above 10 %")
    measures = {
        "C1.near_zero_at_end": Measure.over_seeds(near_zero_share(after)),
        "C1.near_zero_at_start": Measure.over_seeds(near_zero_share(before)),
        "C1.outlier_share": Measure.over_seeds((after > 0.1 * after[:, :1]).mean(axis=1)),
        "C2.near_zero_gain": Measure.paired(near_zero_share(wide), near_zero_share(narrow)),
        "C2.outlier_ratio": Measure.paired(counts[c.widths[-1]][tenth], counts[c.widths[0]][tenth], "log-ratio"),
        "C2.top_ratio": Measure.paired(wide[:, 0], narrow[:, 0], "log-ratio"),
        "C5.negative_count": Measure.over_seeds((after < -ROUND_OFF * after[:, :1]).sum(1)),
        "C5.negative_size": Measure.over_seeds(np.maximum(-after[:, -1], 0) / after[:, 0]),
    }
    fitted = end["loss"] <= FITTED
    if fitted.sum() >= 3:
        measures["C4.residual_norm"] = Measure.over_seeds((spectral_norm(end["residual"]) / spectral_norm(after))[fitted])
        measures["C4.top_of_gauss_newton"] = Measure.over_seeds((end["gauss_newton"][:, 0] / after[:, 0])[fitted])
    rest = {when: float(np.mean(spectral_norm(v["residual"]) / spectral_norm(v["hessian"]))) for when, v in spectra[c.widths[-1]].items()}
    below = {when: float(np.mean(-v["hessian"][:, -1] / v["hessian"][:, 0])) for when, v in spectra[c.widths[-1]].items()}
    floor = -end["gauss_newton"][:, -1] / end["gauss_newton"][:, 0]
    session.note(
        f"C4: {fitted.sum()} of {fitted.size} repetitions end at a loss of at most {FITTED:g}, the highest at {end['loss'].max():.2g}; "
        f"residual norm over the Hessian's at the start, at a loss of {c.target:g}, at the end: {rest}; C5: |λmin|/λmax there: {below}; "
        f"most negative of the Gauss-Newton part over its largest (round-off) {floor.max():.1e}"
    )
    tree["/width"] = labelled(
        {"count": (("width", "rule", "seed"), np.stack(list(counts.values())))}, {"width": list(c.widths), "rule": list(RULES)}, unit=""
    )
    return Findings(measures, xr.DataTree.from_dict(tree))


@eqx.filter_jit
def _density(problem: Problem, params: PyTree, values: Array, key: PRNGKeyArray, steps: int, n_probes: int) -> dict[str, Array]:
    """The density of the first repetition's Hessian by quadrature, and that of all its eigenvalues."""
    params, *batch = jax.tree.map(lambda x: x[0], (params, problem.inputs, problem.labels))
    sigma = values[0] / 100
    grid = jnp.linspace(values[-1] - 5 * sigma, values[0] + 5 * sigma, 801)
    spectrum = hessian_spectrum(HessianOperator(problem.loss, params, tuple(batch)), key=key, steps=steps, n_probes=n_probes)
    estimate = spectrum.density(grid, sigma=sigma)
    offsets = (grid[:, None] - values[None]) / sigma
    exact = jnp.mean(jnp.exp(-(offsets**2) / 2), axis=1) / (sigma * jnp.sqrt(2 * jnp.pi))
    return {"grid": grid, "quadrature": estimate.value, "standard_error": estimate.standard_error, "dense": exact}


def compare_clusters(config: Config, session: Session, key: PRNGKeyArray) -> Findings:
    """One network, growing numbers of clusters: the counts of C3."""
    c = config.cluster
    counts, variables, ratios, above = [], {}, [], []
    for clusters in c.clusters:
        problem, start = cluster_problem(config, key, clusters, 1.0)
        label = f"{clusters} clusters"
        end = descend(session, problem, start, steps=c.steps, rate=config.learning_rate, target=c.target, label=label).state.at_target
        values = as_numpy(session.once(f"{label} spectra", dense_spectra, problem, end, config.max_size))
        nulls = as_numpy(session.once(f"{label} null models", null_models, problem, end, key, config.density_steps))
        counts.append(outlier_counts(values, nulls["edge"], clusters))
        ratios.append(nulls["labels_permuted"] / values["hessian"][:, 0])
        above.append((values["hessian"] > nulls["labels_permuted"][:, None]).sum(1))
        variables[f"top_{clusters}"] = (("seed", "rank"), values["hessian"][:, : 3 * max(c.clusters)])
        variables[f"loss_{clusters}"] = ("seed", values["loss"])
    table = np.stack(counts, axis=1)  # rule, clusters, seed
    ranks = {rule: rank_correlation(c.clusters, table[i].T) for i, rule in enumerate(RULES)}
    means = {rule: round(float(values.mean()), 3) for rule, values in ranks.items()}
    session.note(f"C3: mean Spearman correlation with the number of clusters by rule: {means}")
    session.note(
        "C2, C3: the bulk edge is the largest eigenvalue of the Gauss-Newton part once each parameter's gradients are permuted over the "
        f"examples; mean counts by clusters {dict(zip(c.clusters, table[-1].mean(1).round(2).tolist(), strict=True))}. With the labels "
        f"permuted at the same point instead, λmax(H) is {np.mean(ratios):.1f} times as large, for G does not see labels and the rest of H "
        f"grows with the residual: an edge there leaves {np.mean(above):.2f} outliers"
    )
    per_cluster = table[RULES.index("above 20 %")] / np.asarray(c.clusters)[:, None]
    measures = {
        "C3.count_rank": Measure.over_seeds(ranks["above 20 %"]),
        "C3.count_per_cluster": Measure.over_seeds(np.exp(np.log(per_cluster).mean(axis=0))),
    }
    variables["count"] = (("rule", "clusters", "seed"), table)
    data = labelled(variables, {"rule": list(RULES), "clusters": list(c.clusters)}, unit="loss")
    return Findings(measures, xr.DataTree.from_dict({"/clusters": data}))


def compare_overlaps(config: Config, session: Session, key: PRNGKeyArray) -> Findings:
    """Two clusters that overlap more and more, after equally many steps: the size of outliers in C3."""
    c = config.cluster
    found = []
    for overlap in c.overlaps:
        # One key for all: the same centres and noise, only wider.
        problem, start = cluster_problem(config, key, 2, overlap)
        end = descend(session, problem, start, steps=c.overlap_steps, rate=config.learning_rate, label=f"overlap {overlap:g}").state.now
        label = f"overlap {overlap:g} top"
        found.append(as_numpy(session.once(label, lanczos_tops, problem, end, key, config.density_steps)))
    top = np.stack([values["hessian"][:, 0] for values in found])
    gauss_newton, loss = (np.stack([values[name] for values in found]) for name in ("gauss_newton", "loss"))
    relative = rank_correlation(c.overlaps, (gauss_newton / loss).T)
    session.note(f"C3: mean Spearman correlation of λmax(G) over the loss with the clusters' width: {relative.mean():.3f}")
    axes = ("overlap", "seed")
    variables = {"top": (axes, top), "top_gauss_newton": (axes, gauss_newton), "loss": (axes, loss)}
    measures = {"C3.overlap_rank": Measure.over_seeds(rank_correlation(c.overlaps, top.T))}
    data = labelled(variables, {"overlap": list(c.overlaps)}, unit="loss")
    return Findings(measures, xr.DataTree.from_dict({"/overlap": data}))
