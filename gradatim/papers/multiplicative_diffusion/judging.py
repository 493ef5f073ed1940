"""What the data say about the claims."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session

from .config import Config
from .exact import DATA_STD, TIMES


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """All measures."""
    measures: dict[str, Measure] = {}
    motion, samplers, identity = trees["motion"], trees["samplers"], trees["identity"]

    measures["C1.least_p_value"] = Measure.exact(float(motion["p_value"].min()))
    session.note(f"C1: p-values at t = {', '.join(f'{t:g}: {p:.2f}' for t, p in zip(TIMES, motion['p_value'].values, strict=True))}")

    measures["C2.log_sampler_flips"] = Measure.exact(float(samplers["log_crossings"].sum()))
    measures["C2.log_variance_order"] = _order(trees["recursion"])
    _note_samplers(config, trees, session)

    measures["C3.mirror_difference"] = Measure.exact(float(trees["mirror"]["difference"].max()))

    losses = trees["losses"]
    measures["C4.difference"] = Measure.exact(float((np.abs(losses["difference"]) / losses["error"]).max()))

    sides = abs(identity["left"] - identity["right"])
    measures["C5.identity_error"] = Measure.over_seeds((sides / (1 + abs(identity["left"]))).max("form").values)

    measures["C6.mean_score_error"] = Measure.exact(float(np.abs(identity["mean_score"] + 1).max()))
    measures["C6.scale_invariance_error"] = Measure.exact(float(identity["scale_error"].max()))
    ratios = {f"{c:g}": float(f"{r:.3g}") for c, r in zip(identity["scale"].values, identity["gradient_ratio"].values, strict=True)}
    session.note(f"C6: largest gradient of the scaled data's log-density over that of the data, by scale: {ratios}")

    images = trees["images"]["distance"]
    measures["C7.distance_ratio"] = Measure.paired(images.sel(sampler="log").values, images.sel(sampler="additive").values, "log-ratio")
    _note_generation(config, trees, session)

    ours = trees["regression"]["skewness"].sel(descent="exponentiated").values
    # Of the logarithms of plain descent's weights, of either sign, the skewness is that of the logarithm of a modulus.
    plain = trees["regression"]["weight_skewness"].sel(descent="plain").values
    measures["C8.skewness_ratio"] = Measure.paired(abs(ours), abs(plain), "log-ratio")
    session.note(f"C8: skewness of the log-weights of exponentiated descent {Measure.over_seeds(ours)!r}, of log-normal ones 0")
    return Findings(measures, xr.DataTree.from_dict(dict(trees)))


def _order(recursion: xr.Dataset) -> Measure:
    """The slope of log error over log steps; as its error, how far the slope of the last two counts is from it."""
    x, y = np.log(recursion["count"].values), np.log(recursion["error"].values)
    slope = float(np.polyfit(x, y, 1)[0])
    return Measure.exact(slope, abs(slope - float((y[-1] - y[-2]) / (x[-1] - x[-2]))))


def _note_samplers(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> None:
    samplers = trees["samplers"]
    parts = [
        f"{steps} steps: {row['log_variance'] - DATA_STD**2:.5f} in the logarithm, {row['space_variance'] - DATA_STD**2:.5f} in the space"
        for steps in samplers["steps"].values
        for row in [{name: float(value) for name, value in samplers.sel(steps=steps).data_vars.items()}]
    ]
    session.note("C2: error of the final log-variance of samples, " + "; ".join(parts))


def _note_generation(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> None:
    for name in [name for name in ("spirals", "images") if name in trees]:
        # Samplers that no claim rests on have fewer seeds: all are compared over those.
        common = trees[name].dropna("seed", subset=["distance"])
        data = common.mean("seed")
        ratio = {
            sampler: float(f"{float(data['distance'].sel(sampler=sampler) / data['distance'].sel(sampler='additive')):.3g}")
            for sampler in data["sampler"].values.tolist()
        }
        outside = {sampler: f"{float(data['outside'].sel(sampler=sampler)):.1%}" for sampler in data["sampler"].values.tolist()}
        beyond = {sampler: float(f"{float(data['beyond'].sel(sampler=sampler)):.2g}") for sampler in data["sampler"].values.tolist()}
        session.note(
            f"{name.capitalize()}, {common.sizes['seed']} seeds: sliced distance over that of additive diffusion: {ratio}; entries "
            f"outside the data's range, which are not clipped: {outside}, by up to {beyond}"
        )
    images = trees["images"].dropna("seed", subset=["distance"])
    entropies = {s: float(f"{float(images['class_entropy'].sel(sampler=s).mean()):.3g}") for s in images["sampler"].values.tolist()}
    medians = {s: float(f"{float(images['nearest'].sel(sampler=s).median()):.3g}") for s in images["sampler"].values.tolist()}
    session.note(
        f"Images: entropy of the classes, by the nearest training image, {entropies} nat, of held-out ones "
        f"{float(images['held_out_entropy']):.3g}; median distance to the nearest training image {medians}, of held-out ones "
        f"{float(images['nearest_held_out'].median()):.3g}"
    )
    feature = {s: float(f"{float(images['feature_distance'].sel(sampler=s).mean()):.3g}") for s in images["sampler"].values.tolist()}
    session.note(
        "C7: no Inception network is at hand. Fréchet distance to held-out images of the hidden layer of a classifier trained in this run, "
        f"which is right on {images.attrs['accuracy']:.0%} of them: {feature}, of training images {float(images['feature_floor']):.3g}; it "
        "compares samplers of this run alone"
    )
    session.note(
        "C7: from noised data instead of noise that is fitted to each pixel by itself, the sampler shows what the network and the steps "
        "alone make of it; levels alike, what the paper's weights cost; with noise that comes in slowly and levels alike, what is left "
        "where equal steps end in small ones, as those of additive diffusion do"
    )
