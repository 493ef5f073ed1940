"""Total variation and a field of experts learned on pieces of photographs, and what they make of others (C1, C2, C6)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.datasets.photographs import LUMINANCE, photographs
from gradatim.implicit import (
    BilevelStep,
    FieldOfExpertsDenoising,
    TotalVariationDenoising,
    certified_loss,
    cosine_filters,
    hypergradient_error_bound,
    inexact_hypergradient,
    maid,
    measured_cross_norm,
    solve_lower,
)
from gradatim.lab import Session
from gradatim.numerics import psnr

from .config import Denoising

START = (-5.0, -5.0)
"log 2w and log ν of total variation."
EXPERTS_START = (-3.0, -3.5)
"Logarithms of weights and of roundings of the experts."
WEIGHTS, ROUNDINGS = (-6.0, 0.0), (-8.0, -2.0)
"What is searched exhaustively."
DECREASE = 0.1
"Of maid, its default."
CHECKED = 1e-8
"Accuracy of the lower solutions by which decreases are checked."
PRECISE = 1e-12
"Of the lower solutions and linear systems by which hypergradients are checked; where the precision has fewer digits, what it has."


class Pieces(NamedTuple):
    """Images to learn from and images to denoise, each clean and noisy."""

    clean: np.ndarray
    noisy: np.ndarray
    unseen: np.ndarray
    unseen_noisy: np.ndarray


def cut(grey: np.ndarray, config: Denoising, random: np.random.Generator) -> Pieces:
    """Pieces that do not overlap, with noise."""
    side = config.side
    rows, columns = grey.shape[1] // side, grey.shape[2] // side
    tiles = grey[:, : rows * side, : columns * side].reshape(len(grey), rows, side, columns, side).swapaxes(2, 3).reshape(-1, side, side)
    clean, unseen = tiles[random.permutation(len(tiles))[: 2 * config.images]].reshape(2, config.images, side, side)
    noise = config.noise * random.standard_normal((2, *clean.shape))
    return Pieces(clean, clean + noise[0], unseen, unseen + noise[1])


def mean_psnr(clean: Any, x: Any) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1, mean over images."""
    return float(np.mean(psnr(jnp.asarray(x), jnp.asarray(clean), data_range=1.0)))


def run_denoising(config: Denoising, session: Session) -> dict[str, xr.Dataset]:
    """All repeats."""
    photos = photographs()
    session.uses(photos.provenance)
    grey = photos.images @ np.asarray(LUMINANCE) / 255
    key = np.asarray(jax.random.key_data(session.key)).tolist()
    rows = []
    cuts = [cut(grey, config, np.random.default_rng([*key, 2, i])) for i in range(config.repeats)]
    for i, pieces in enumerate(cuts):
        found = session.once(f"total variation, {i}", lambda pieces=pieces: learn_total_variation(config, pieces))
        experts = session.once(f"field of experts, {i}", lambda pieces=pieces: learn_experts(config, pieces))
        rows.append({**found, **experts})
    return {"denoising": _denoising_data(config, rows, cuts[-1]), "landscape": _landscape_data(config, rows[-1])}


def learn_total_variation(config: Denoising, pieces: Pieces) -> dict[str, Any]:
    """Adaptive and fixed accuracies with equal work, an exhaustive search, and the decrease of every adaptive step."""
    problem = TotalVariationDenoising(jnp.asarray(pieces.clean), jnp.asarray(pieces.noisy))
    unseen = TotalVariationDenoising(jnp.asarray(pieces.unseen), jnp.asarray(pieces.unseen_noisy))
    theta = jnp.array(START)
    limits: dict[str, Any] = {"work_limit": config.work, "max_steps": 10**6}
    steps: list[BilevelStep] = []
    adaptive = maid(problem, theta, problem.noisy, accuracy=config.accuracy, callback=steps.append, **limits)
    path = np.array([*(s.theta for s in steps), adaptive.theta])
    ends = [adaptive.theta]
    counts = [len(steps)]
    for accuracy in config.fixed:
        run = maid(problem, theta, problem.noisy, accuracy=accuracy, tighten=None, **limits)
        ends.append(run.theta)
        counts.append(len(run.history.loss))
    losses, unseen_psnr, denoised = [], [], []
    x, x_unseen = adaptive.x, unseen.noisy
    for end in ends:
        x, loss = _true(problem, end, x, config.precision)
        x_unseen, _ = _true(unseen, end, x_unseen, config.precision)
        losses.append(loss)
        unseen_psnr.append(mean_psnr(pieces.unseen, x_unseen))
        denoised.append(np.asarray(x_unseen))
    return {
        "noisy_psnr": mean_psnr(pieces.unseen, pieces.unseen_noisy),
        "losses": np.array(losses),
        "unseen_psnr": np.array(unseen_psnr),
        "steps": np.array(counts),
        "total_variation": denoised[0],
        "path": path,
        "path_work": np.concatenate([[0], adaptive.history.work]),
        "path_accuracy": adaptive.history.accuracy,
        "broken_promises": _broken_promises(problem, steps),
        "error_over_bound": errors_over_bounds(problem, steps),
        **_search(config, problem, adaptive.x),
    }


def learn_experts(config: Denoising, pieces: Pieces) -> dict[str, Any]:
    """The field of experts on the same pieces."""
    filters = cosine_filters(config.filter_side)
    problem = FieldOfExpertsDenoising.of(jnp.asarray(pieces.clean), jnp.asarray(pieces.noisy), filters)
    unseen = FieldOfExpertsDenoising.of(jnp.asarray(pieces.unseen), jnp.asarray(pieces.unseen_noisy), filters)
    k = len(filters)
    theta = jnp.concatenate([jnp.full(1 + k, EXPERTS_START[0]), jnp.full(k, EXPERTS_START[1])])
    run = maid(problem, theta, problem.noisy, accuracy=config.accuracy, work_limit=config.experts_work, max_steps=10**6)
    x, _ = _true(unseen, run.theta, unseen.noisy, config.precision)
    _, loss = _true(problem, run.theta, run.x, config.precision)
    return {
        "experts_loss": loss,
        "experts_psnr": mean_psnr(pieces.unseen, x),
        "experts": np.asarray(x),
        "experts_steps": len(run.history.loss),
    }


def _true(problem: Any, theta: Any, x: Any, precision: float) -> tuple[Any, float]:
    found = certified_loss(problem, theta, x, accuracy=precision)
    return found.x, found.value if found.certified else np.nan


def _broken_promises(problem: Any, steps: list[BilevelStep]) -> int:
    """Steps by which the loss, computed precisely, does not fall as it was certified to."""
    if not steps:
        return 0
    x, before = _true(problem, steps[0].theta, steps[0].x, CHECKED)
    broken = 0
    for step in steps:
        x, after = _true(problem, step.next_theta, x, CHECKED)
        promised = DECREASE * step.step_size * step.gradient_norm**2
        # Not as `after > …`: a loss that could not be certified counts as broken.
        broken += not after - before <= -promised + CHECKED * (1 + before)
        before = after
    return broken


def errors_over_bounds(problem: Any, steps: list[BilevelStep]) -> np.ndarray:
    """Of every step the distance of its hypergradient from a precise one, at most, over the bound that it was taken by.

    What the precise one may be off by itself, by its own bound, is added: above 1 is what is not shown to be covered.
    """
    if not steps:
        return np.zeros(0)
    ratios, x = [], steps[0].x
    # Of zeros nothing is known yet: power iterations then start anywhere, and take longer.
    q, vector, iterations = jnp.zeros_like(x), jnp.zeros_like(steps[0].theta), 20
    for step in steps:
        x, q, vector, precise, off = _precise(problem, step.theta, x, q, vector, jnp.asarray(iterations))
        iterations = 5
        ratios.append((float(jnp.linalg.norm(step.gradient - precise)) + float(off)) / step.error_bound)
    return np.array(ratios)


def n_broken(ratios: np.ndarray) -> int:
    """How many errors are not shown to be covered by their bounds."""
    # Not as `> 1`: what is not a number is broken.
    return int(np.sum(~(ratios <= 1)))


@jax.jit
def _precise(problem: Any, theta: Any, x: Any, q: Any, vector: Any, iterations: Any) -> tuple[Any, ...]:
    """A precise lower solution, its adjoint, the top vector of the cross derivative, the hypergradient, and a bound of its error."""
    solved = solve_lower(problem, theta, x, PRECISE)
    found = inexact_hypergradient(problem, theta, solved.x, PRECISE, adjoint=q)
    norm = measured_cross_norm(problem, theta, solved.x, vector, iterations=iterations)
    accuracy = jnp.maximum(solved.distance, solved.finest)
    off = hypergradient_error_bound(problem, theta, solved.x, accuracy=accuracy, tolerance=found.residual, cross_norm=norm.value)
    return solved.x, found.adjoint, norm.vector, found.gradient, off


def _search(config: Denoising, problem: Any, x: Any) -> dict[str, Any]:
    """The training loss on a grid, and on a finer one around its best point."""
    spans, found = (WEIGHTS, ROUNDINGS), {}
    for name in ("coarse", "refined"):
        axes = [np.linspace(*span, n) for span, n in zip(spans, config.coarse_grid, strict=True)]
        losses = np.zeros(config.coarse_grid)
        for i, weight in enumerate(axes[0]):
            # There and back again: neighbours are good starts.
            order = range(len(axes[1]))[:: 1 if i % 2 == 0 else -1]
            for j in order:
                x, losses[i, j] = _true(problem, jnp.array([weight, axes[1][j]]), x, config.precision)
        best = np.unravel_index(np.nanargmin(losses), losses.shape)
        found |= {f"{name}_losses": losses, f"{name}_weights": axes[0], f"{name}_roundings": axes[1]}
        spans = tuple((axis[max(b - 1, 0)], axis[min(b + 1, len(axis) - 1)]) for axis, b in zip(axes, best, strict=True))
    return found


def _denoising_data(config: Denoising, rows: list[dict[str, Any]], pieces: Pieces) -> xr.Dataset:
    arms = ["adaptive", *(f"fixed {accuracy:g}" for accuracy in config.fixed)]

    def of(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows])

    ratios = [row["error_over_bound"] for row in rows]
    best = np.array([min(np.nanmin(row["coarse_losses"]), np.nanmin(row["refined_losses"])) for row in rows])
    images = np.stack([pieces.unseen, pieces.unseen_noisy, rows[-1]["total_variation"], rows[-1]["experts"]])
    loss, level = {"units": "squared grey value"}, {"units": "dB"}
    return xr.Dataset(
        {
            "loss": (("repeat", "arm"), of("losses"), loss),
            "unseen_psnr": (("repeat", "arm"), of("unseen_psnr"), level),
            "steps": (("repeat", "arm"), of("steps"), {"units": "1"}),
            "noisy_psnr": ("repeat", of("noisy_psnr"), level),
            "searched_loss": ("repeat", best, loss),
            "experts_loss": ("repeat", of("experts_loss"), loss),
            "experts_psnr": ("repeat", of("experts_psnr"), level),
            "experts_steps": ("repeat", of("experts_steps"), {"units": "1"}),
            "broken_promises": ("repeat", of("broken_promises"), {"units": "1"}),
            "broken_bounds": ("repeat", [n_broken(one) for one in ratios], {"units": "1"}),
            "worst_error_over_bound": ("repeat", [np.max(one, initial=0) for one in ratios], {"units": "1"}),
            "median_error_over_bound": ("repeat", [np.median(one) if one.size else np.nan for one in ratios], {"units": "1"}),
            "image": (("kind", "piece", "row", "column"), images.astype(np.float32), {"units": "grey value"}),
        },
        {"arm": arms, "kind": ["clean", "noisy", "total variation", "field of experts"]},
        {"pixels": config.side**2, "experts": config.filter_side**2 - 1, "filter_side": config.filter_side},
    )


def _landscape_data(config: Denoising, row: dict[str, Any]) -> xr.Dataset:
    pixels = config.side**2
    return xr.Dataset(
        {
            "psnr": (("weight", "rounding"), -10 * np.log10(2 * row["coarse_losses"] / pixels), {"units": "dB"}),
            "path": (("step", "parameter"), row["path"], {"units": "log of grey value"}),
            "work": ("step", row["path_work"], {"units": "lower gradients"}),
            "accuracy": ("step", np.append(row["path_accuracy"], np.nan), {"units": "grey value"}),
        },
        {"weight": row["coarse_weights"], "rounding": row["coarse_roundings"], "parameter": ["log 2w", "log ν"]},
    )
