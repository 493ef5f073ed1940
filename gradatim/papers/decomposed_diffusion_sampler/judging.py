"""What the data say about the claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session

from .config import Config

Trees = Mapping[str, xr.Dataset]
BOTH = ("coils", "volumes")
"Tasks of the claim on quality."


def judge(config: Config, trees: Trees, session: Session) -> Findings:
    """All measures."""
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    _judge_exact(config, trees, measures, session)

    def put(part: str, needed: tuple[str, ...], make: Callable[[], Measure]) -> None:
        missing = [name for name in needed if name not in trees]
        if missing:
            untested[part] = f"not measured in this run: {', '.join(name.replace('_', ' ') for name in missing)}"
        else:
            measures[part] = make()

    def over_networks(by_set: np.ndarray) -> Measure:
        return Measure.over_seeds(_of_networks(config, by_set))

    def gain(name: str, ours: str, rival: str) -> Measure:
        return over_networks(_by_set(trees[name], ours, rival))

    put("C2.psnr_difference_mri", ("coils",), lambda: gain("coils", "dds", "dps"))
    put("C2.psnr_difference_ct", ("projections",), lambda: gain("projections", "dds", "dps"))
    put("C3.parametrisation_difference", ("predictions",), lambda: Measure.exact(float(trees["predictions"]["difference"].max())))
    put("C3.exploding_gain", ("projections",), lambda: gain("projections", "exploding", "least squares"))
    for part, rival in (
        ("C4.gain_over_no_prior", "least squares"),
        ("C4.gain_over_total_variation", "variation"),
        ("C4.gain_over_null_space_projection", "projection"),
    ):
        put(part, BOTH, lambda rival=rival: over_networks(np.min([_by_set(trees[name], "dds", rival) for name in BOTH], axis=0)))
    put("C4.slice_variation_ratio", ("across",), lambda: _across(config, trees["across"]))
    put("C5.speedup_over_predictor_corrector", ("speed",), lambda: _speedup(trees["speed"]))
    put("C5.time_over_back_propagation", ("speed",), lambda: _seconds(trees["speed"], "dds", "dps"))
    put(
        "C6.loss_at_20_times",
        ("coils", "projections"),
        lambda: over_networks(np.max([_by_set(trees[name], "dds, many", "dds, few") for name in ("coils", "projections")], axis=0)),
    )
    _judge_inner_steps(config, trees, measures, untested)
    _tell(config, trees, session)
    return Findings(measures, xr.DataTree.from_dict(dict(trees)), untested)


def _judge_exact(config: Config, trees: Trees, measures: dict[str, Measure], session: Session) -> None:
    leak, tangent, variance = trees["leak"], trees["tangent"], trees["variance"]
    measures["C1.leak_outside_tangent"] = Measure.exact(float(leak["contained"].max()))
    session.note(
        f"C1: largest share of an update's norm outside the plane {float(leak['contained'].max()):.2g} where it holds the Krylov space, "
        f"{float(leak['tilted'].min()):.2g} at least where it is one at random"
    )
    rows = [
        f"training step {int(level)} of the noise: "
        + ", ".join(f"{update} {_angle(tangent['share'].sel(level=level, update=update)):.0f}°" for update in tangent["update"].values)
        + f" (eigenvalues {float(tangent['eigenvalue'].sel(level=level)[..., 0].mean()):.2f} to "
        f"{float(tangent['eigenvalue'].sel(level=level)[..., -1].mean()):.2f})"
        for level in tangent["level"].values
    ]
    session.note(
        f"C1: mean angle of updates to {config.exact.tangent_dimension} leading directions of the mixture's denoiser, whose span stands "
        "for the tangent space; it need not hold the Krylov space, so that nothing is judged by it; " + "; ".join(rows)
    )
    ratios = variance["ratio"].values
    worst = float(ratios[np.abs(ratios - 1).argmax()])
    measures["C7.noise_variance_ratio"] = Measure.exact(worst, 1.96 * (2 / variance.attrs["samples"]) ** 0.5)
    measures["C7.gaussian_end_point"] = Measure.exact(float(trees["recursion"]["end"]), 1e-6)


def _angle(shares: xr.DataArray) -> float:
    return float(np.degrees(np.arccos(np.sqrt(np.clip(shares.values, 0, 1)))).mean())


def _by_set(tree: xr.Dataset, ours: str, rival: str) -> np.ndarray:
    """Median over images of the difference in dB, set by set."""
    ratio = tree["ratio"]
    return np.median(ratio.sel(arm=ours).values - ratio.sel(arm=rival).values, axis=1)


def _of_networks(config: Config, values: np.ndarray) -> np.ndarray:
    """The mean over the sets of each network."""
    return values.reshape(config.networks, -1).mean(axis=1)


def _across(config: Config, across: xr.Dataset) -> Measure:
    # Geometric means over the volumes of each network.
    ours, rival = (np.exp(_of_networks(config, np.log(across["error"].sel(arm=arm).values))) for arm in ("dds", "dds, slice by slice"))
    return Measure.paired(ours, rival, "log-ratio")


def _seconds(speed: xr.Dataset, ours: str, rival: str) -> Measure:
    return Measure.paired(speed["seconds"].sel(sampler=ours).values, speed["seconds"].sel(sampler=rival).values, "log-ratio")


def _speedup(speed: xr.Dataset) -> Measure:
    whole = speed["seconds"].sel(sampler="pairs").values * speed.attrs["pairs"] / speed.attrs["timed_pairs"]
    return Measure.paired(whole, speed["seconds"].sel(sampler="dds").values, "log-ratio")


def _judge_inner_steps(config: Config, trees: Trees, measures: dict[str, Measure], untested: dict[str, str]) -> None:
    for part, other, sign in (("C6.gain_from_five_inner_steps", 1, 1), ("C6.gain_beyond_five_inner_steps", 10, -1)):
        if "projections" not in trees or other not in config.inner_steps:
            untested[part] = f"{other} inner steps were not taken in this run"
            continue
        gains = sign * _by_set(trees["projections"], "dds", f"dds, {other} inner")
        measures[part] = Measure.over_seeds(_of_networks(config, gains))


def _tell(config: Config, trees: Trees, session: Session) -> None:
    for name in ("one_coil", "coils", "projections", "volumes"):
        if name in trees:
            whole = trees[name]
            # On fine data, and read in another way, a sampler works as much.
            calls = [
                f"{arm} {int(whole['network_calls'].sel(arm=arm))} and {int(whole['products'].sel(arm=arm))}"
                for arm in whole["arm"].values
                if not (arm.endswith(", fine") or arm.startswith("read as"))
            ]
            session.note(f"Calls of the network and products with AᴴA an image, {name.replace('_', ' ')}: " + ", ".join(calls))
            tree = trees[name].median(("set", "image"))
            rows = [
                f"{arm} {float(tree['ratio'].sel(arm=arm)):.2f} dB ({float(tree['similarity'].sel(arm=arm)):.3f})"
                for arm in tree["arm"].values
            ]
            session.note(f"Median ratio (and similarity), {name.replace('_', ' ')}: " + ", ".join(rows))
    if "coils" in trees:
        session.note(
            "Data called fine were made on a grid twice as fine as the images; nothing was tuned to them. With several coils these see "
            "sensitivities that vary inside a pixel"
        )
    if "known_head" in trees:
        session.note(f"Phantom of Shepp and Logan, unlike the training images: {float(trees['known_head']['ratio'].median()):.2f} dB")
    if "speed" in trees:
        speed = trees["speed"]
        median = {str(s): float(speed["seconds"].sel(sampler=s).median()) for s in speed["sampler"].values}
        session.note(
            f"C5: {speed.attrs['images']} images, {speed.attrs['task']}: {config.times} levels of ours {median['dds']:.3g} s, "
            f"{config.many_times} by back-propagation {median['dps']:.3g} s, {speed.attrs['timed_pairs']} pairs of predictor and corrector "
            f"{median['pairs']:.3g} s, from which {speed.attrs['pairs']} are extrapolated; {speed.attrs['quality_pairs']} pairs reach "
            f"{float(speed['pairs_ratio'].median()):.2f} dB"
        )
    session.note(
        f"Intervals are over {config.networks} networks of each kind of image, each with its own first weights, training images, measured "
        "columns and sets of images and noise, whose mean is one value. The spread of samples is no uncertainty"
    )
