"""Muon against AdamW on the dense model: tokens to AdamW's loss, over batch sizes; the exact factor; many small runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import xarray as xr

from gradatim.lab import Measure, Session
from gradatim.lab.sweeps import NEVER

from .config import Config, Size
from .training import ARMS, JUDGING, STABILITY, Corpus, beside_muon, looks, matrices, optimizers, sweep, template, tuned

NOT_REACHED = 1.0
"The ratio of a run that does not get to the target: it had as many tokens as AdamW."


def tokens_to(curve: np.ndarray, steps: np.ndarray, target: float) -> float:
    """Where a curve first falls to a target, between two looks by a straight line; inf where it does not.

    >>> tokens_to(np.array([4.0, 3.0, 1.0]), np.array([0, 10, 20]), 2.0)
    15.0
    """
    below = np.flatnonzero(curve <= target)
    if not below.size:
        return np.inf
    i = below[0]
    if i == 0:
        return float(steps[0])
    part = (curve[i - 1] - target) / (curve[i - 1] - curve[i])
    return float(steps[i - 1] + part * (steps[i] - steps[i - 1]))


def compare(config: Config, corpus: Corpus, session: Session) -> tuple[dict[str, xr.Dataset], dict[str, float]]:
    """Validation curves of both optimisers at their best rates, for each batch size at the same number of tokens; and those rates."""
    curves, tuning, last = [], [], []
    rates: dict[str, float] = {}
    exact: Any = None
    sizes = sorted({*config.batch_sizes, config.model.batch_size})
    tokens = config.model.steps * config.model.batch_size
    for batch_size in sizes:
        size = dataclasses.replace(config.model, batch_size=batch_size, steps=max(tokens // batch_size, 10))
        label = f"batch {batch_size}"
        best, grid = tuned(session, corpus, config, size, label)
        known = optimizers(config, template(config, size), size.steps)
        arms = {arm: _at(known[arm], best[arm]) for arm in ARMS}
        if batch_size == config.model.batch_size:
            rates = best
            arms["muon_svd"] = _at(known["muon_svd"], best["muon"])
        judged = sweep(
            session, corpus, config, size, arms, purpose=JUDGING, every=looks(size.steps), rates=(1.0,), n_seeds=config.n_seeds, label=label
        )
        session.note(f"{label}: rates " + ", ".join(f"{arm} {rate:.3g}" for arm, rate in best.items()))
        # Looks are alike in number for all batch sizes, not in step.
        part = judged.data["loss"].isel(rate=0, drop=True).sel(arm=list(ARMS))
        done = part.step.values / size.steps
        part = part.rename(step="look").assign_coords(look=np.arange(len(done)))
        last.append(part.isel(look=-1, drop=True))
        curves.append(xr.Dataset({"loss": part, "progress": ("look", done)}))
        if grid is not None:
            tuning.append(grid["loss"].isel(seed=0, step=-1, drop=True))
        if "muon_svd" in arms:
            exact = judged.data["loss"].isel(rate=0, drop=True).sel(arm=["muon", "muon_svd"])
    batches = xr.DataArray(sizes, dims="batch_size", name="batch_size")
    trees = {"curves": xr.concat(curves, batches, join="outer"), "exact_factor": xr.Dataset({"loss": exact})}
    if tuning:
        trees["tuning"] = xr.Dataset({"loss": xr.concat(tuning, batches)})
    trees["curves"]["last_loss"] = xr.concat(last, batches)
    trees["curves"]["token_ratio"] = (("batch_size", "seed"), [_ratios(part) for part in curves])
    return trees, rates


def _at(arm: Any, rate: float) -> Any:
    return lambda factor: arm(factor * rate)


def _ratios(part: xr.Dataset) -> list[float]:
    ratios = []
    for seed in part.seed.values:
        target = float(part["loss"].sel(arm="adamw", seed=seed).isel(look=-1))
        ratios.append(tokens_to(part["loss"].sel(arm="muon", seed=seed).values, part["progress"].values, target))
    return ratios


def operations(config: Config, size: Size) -> dict[str, float]:
    """Floating-point operations of the matrix products of one step, by optimiser: those of the model, and of Newton–Schulz for Muon.

    Of a model 6 an entry of a matrix and token (the embedding is looked up) and 12 L T d a token for attention over T tokens; of an
    m × n matrix, m ≤ n, 5 steps of 2 (2 m² n + m³).
    """
    model = template(config, size)
    entries = sum(leaf.size for leaf in jax.tree.leaves(model) if leaf.ndim > 1) - model.embedding.weight.size
    tokens = size.batch_size * size.context
    trained = tokens * (6 * entries + 12 * size.n_layers * size.context * size.width)
    sides = [sorted(leaf.shape) for leaf in matrices(model)]
    return {"adamw": float(trained), "muon": float(trained + sum(10 * (2 * m**2 * n + m**3) for m, n in sides))}


def compare_measures(trees: dict[str, xr.Dataset], config: Config, session: Session) -> tuple[dict[str, Measure], dict[str, str]]:
    """C1, C2 and C5."""
    ratio = trees["curves"]["token_ratio"]
    never = ~np.isfinite(ratio.transpose("batch_size", "seed").values)
    if never.any():
        sizes = ratio.batch_size.values[never.any(1)].tolist()
        session.note(
            f"Muon does not reach AdamW's last loss in a run of batch size {', '.join(map(str, sizes))}: counted as {NOT_REACHED:g}"
        )
    ratio = ratio.where(np.isfinite(ratio), NOT_REACHED)
    small, large = min(config.batch_sizes), max(config.batch_sizes)
    last = trees["exact_factor"]["loss"].isel(step=-1)
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    tokens = ratio.sel(batch_size=config.model.batch_size).values
    measures["C1.token_ratio"] = Measure.over_seeds(tokens)
    work = operations(config, config.model)
    more = work["muon"] / work["adamw"]
    session.note(f"Newton–Schulz adds {100 * (more - 1):.0f} % to the operations of a step of batch {config.model.batch_size}")
    measures["C1.compute_ratio"] = Measure.over_seeds(tokens * more)
    ends = {arm: np.exp(trees["curves"]["last_loss"].sel(batch_size=config.model.batch_size, arm=arm).values) for arm in ARMS}
    if np.isfinite(list(ends.values())).all():
        measures["C1.perplexity_ratio"] = Measure.paired(ends["muon"], ends["adamw"], "log-ratio")
    else:
        untested["C1.perplexity_ratio"] = "a run diverged"
    if small < large:
        measures["C2.ratio_change"] = Measure.paired(ratio.sel(batch_size=large).values, ratio.sel(batch_size=small).values)
    else:
        untested["C2.ratio_change"] = "this run has one batch size"
    if np.isfinite(last).all():
        measures["C5.loss_difference"] = Measure.paired(last.sel(arm="muon").values, last.sel(arm="muon_svd").values)
    else:
        untested["C5.loss_difference"] = "a run diverged"
    return measures, untested


def many_runs(config: Config, corpus: Corpus, session: Session) -> tuple[xr.Dataset, Measure]:
    """C6: small runs of many seeds at several rates, and how many of Muon's did not stay finite."""
    size, arms = config.small, beside_muon(config)
    known = optimizers(config, template(config, size), size.steps)
    found = sweep(
        session, corpus, config, size, {arm: known[arm] for arm in arms}, purpose=STABILITY, every=size.steps,
        rates=config.stability_rates, n_seeds=config.stability_seeds, label="many runs",
    )  # fmt: skip
    ended = (found.data["diverged_at"] != NEVER).sum(["rate", "seed"])
    of = len(config.stability_rates) * config.stability_seeds
    session.note(f"of {of} small runs each, not finite: " + ", ".join(f"{arm} {int(ended.sel(arm=arm))}" for arm in arms))
    data = xr.Dataset({"loss": found.final["loss"].drop_vars("step"), "diverged_at": found.data["diverged_at"]})
    return data, Measure.exact(int(ended.sel(arm="muon")))
