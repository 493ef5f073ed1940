"""Quadratic layers of known noise: LANTON against one rate for all, where layers differ in noise alone, and in the way to go too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Measure, Session, best_by_others, learning_rate_sweep
from gradatim.optim import lanton, scion

from .config import Testbed

VARIANTS = ("noise alone", "noise and travel")
ALPHA = 1.0
"The threshold with which the claims are judged, chosen beforehand."
FIXED = "fixed rate"
WITHIN = 1.1
"Rates count as good whose loss is at most this times the best."


def ours(alpha: float) -> str:
    """The name of an arm.

    >>> ours(1.0)
    'LANTON, α = 1'
    """
    return f"LANTON, α = {alpha:g}"


def arms(config: Testbed, steps: int, alphas: tuple[float, ...]) -> dict[str, Any]:
    """Optimisers from their base rate, which falls to zero along a cosine."""

    def schedule(rate: Any) -> Any:
        return optax.cosine_decay_schedule(rate, steps)

    made: dict[str, Any] = {FIXED: lambda rate: scion(schedule(rate), "hidden")}
    for alpha in alphas:
        made[ours(alpha)] = lambda rate, alpha=alpha: lanton(schedule(rate), "hidden", alpha=alpha, nuclear="svd")
    return made


def descend(config: Testbed, session: Session) -> dict[str, xr.Dataset]:
    """Loss of every arm, rate and seed in both variants, and the mean dual norm of the gradient over numbers of steps."""
    alphas = tuple(dict.fromkeys((*config.alphas, ALPHA)))
    steps = max(config.lengths)
    found = {variant: _sweep(config, session, variant, arms(config, steps, alphas), steps) for variant in VARIANTS}
    runs = xr.concat([found[variant] for variant in VARIANTS], xr.DataArray(list(VARIANTS), dims="variant", name="variant"))
    means = []
    for length in sorted(config.lengths):
        if length == steps:
            run = found[VARIANTS[0]].sel(arm=[FIXED, ours(ALPHA)])
        else:
            run = _sweep(config, session, VARIANTS[0], arms(config, length, (ALPHA,)), length)
        means.append(run["dual_norm"].mean("step", skipna=False))
    lengths = xr.DataArray(sorted(config.lengths), dims="length", name="length")
    return {"testbed": runs, "lengths": xr.Dataset({"mean_dual_norm": xr.concat(means, lengths)})}


class _Start(eqx.Module):
    """First layers, a module of its own so that all sweeps draw them by one program."""

    travel: Array
    width: int = eqx.field(static=True)

    def __call__(self, key: Any) -> Array:
        return self.travel * jax.random.normal(key, (len(self.travel), self.width, self.width))


@functools.cache
def _order(steps: int) -> Callable[[Any], Array]:
    """Keys of the noise of every step; the same function for all sweeps of equal length."""
    return lambda key: jax.random.split(key, steps)


def _sweep(config: Testbed, session: Session, variant: str, made: dict[str, Any], steps: int) -> xr.Dataset:
    n = config.width
    travel = jnp.asarray(np.asarray(config.travel if variant == VARIANTS[1] else np.ones(len(config.noise)))[:, None, None])
    sizes = jnp.asarray(np.asarray(config.noise)[:, None, None])

    def loss(layers: Any, noise: Any) -> Any:
        return (layers**2).sum() / 2 + (layers * noise).sum()

    def batch(sizes: Any, key: Any) -> Any:
        return sizes * jax.random.normal(key, (len(config.noise), n, n))

    def evaluate(layers: Any, sizes: Any) -> dict[str, Any]:
        # The gradient is W itself, and the layers are square.
        return {"loss": (layers**2).sum() / 2, "dual_norm": jnp.linalg.svd(layers, compute_uv=False).sum()}

    sweep = learning_rate_sweep(
        session, made, init=_Start(travel, n), loss=loss, evaluate=evaluate, data=sizes, batch=batch, rates=config.rates, steps=steps,
        order=_order(steps), n_seeds=config.n_seeds, every=max(steps // 20, 1), label=f"{variant}, {steps} steps,",
    )  # fmt: skip
    return sweep.data


def measures(trees: dict[str, xr.Dataset], session: Session) -> tuple[dict[str, Measure], dict[str, str]]:
    """C2.unequal_travel_loss_ratio, the slopes of C4, and C5.window_gain.

    Rates are the best of the other seeds, for the intervals of C2 and C4 chosen again without each seed.
    """
    final = trees["testbed"]["loss"].isel(step=-1)
    best = best_by_others(final, "rate")
    for variant in VARIANTS:
        session.note(
            f"last loss where layers differ in {variant}, each at its best rate: "
            + ", ".join(f"{arm} {float(best.sel(variant=variant, arm=arm).mean()):.3f}" for arm in best.arm.values)
        )
    edges = {float(final.rate[0]), float(final.rate[-1])}
    at_edge = [f"{arm} ({variant})" for variant in VARIANTS for arm in best.arm.values if float(_rate(final, variant, arm)) in edges]
    if at_edge:
        session.note("best rate at an end of the grid: " + ", ".join(at_edge))
    unequal, means = final.sel(variant=VARIANTS[1]), trees["lengths"]["mean_dual_norm"]
    n_seeds = final.sizes["seed"]

    def ratio(kept: np.ndarray) -> float:
        tuned = best_by_others(unequal.isel(seed=kept), "rate").astype(np.float64)
        return float(np.exp(np.log(tuned.sel(arm=ours(ALPHA)) / tuned.sel(arm=FIXED)).mean()))

    def slope(arm: str, kept: np.ndarray) -> float:
        tuned = best_by_others(means.sel(arm=arm).isel(seed=kept), "rate").transpose("length", "seed")
        return np.polyfit(np.log(tuned.length.values), np.log(tuned.values), 1)[0].mean()

    found = {
        "C2.unequal_travel_loss_ratio": Measure.leave_one_out(ratio, n_seeds, scale="log"),
        "C4.rate_slope": Measure.leave_one_out(lambda kept: slope(ours(ALPHA), kept), n_seeds),
        "C4.slope_over_fixed": Measure.leave_one_out(lambda kept: slope(ours(ALPHA), kept) - slope(FIXED, kept), n_seeds),
    }
    session.note(
        "slope of the mean dual gradient norm: " + ", ".join(f"{arm} {slope(arm, np.arange(n_seeds)):.3f}" for arm in (ours(ALPHA), FIXED))
    )
    gains: dict[str, Measure] = {}
    for variant in VARIANTS:
        widths = {arm: windows(final.sel(variant=variant, arm=arm)) for arm in (ours(ALPHA), FIXED)}
        gains[variant] = Measure.paired(widths[ours(ALPHA)], widths[FIXED])
        session.note(
            f"octaves of rates within 10 % of the best loss ({variant}): " + ", ".join(f"{a} {w.mean():.2f}" for a, w in widths.items())
        )
    return found | {"C5.window_gain": gains[VARIANTS[0]]}, {}


def _rate(final: xr.DataArray, variant: str, arm: str) -> Any:
    one = final.sel(variant=variant, arm=arm).mean("seed")
    return one.rate[int(one.argmin("rate"))]


def windows(loss: xr.DataArray) -> np.ndarray:
    """Octaves of rates, for each seed, at which the logarithm of the loss, straight between two rates, is within 10 % of its best."""
    octaves = np.log2(loss.rate.values)
    logs = np.log(loss.transpose("seed", "rate").values)
    logs = np.where(np.isfinite(logs), logs, np.inf)
    return np.array([_window(octaves, row) for row in logs])


def _window(octaves: np.ndarray, row: np.ndarray) -> float:
    best, limit = int(row.argmin()), row.min() + np.log(WITHIN)

    def reach(direction: int) -> float:
        i = best
        while 0 <= i + direction < len(row):
            if row[i + direction] > limit:
                inside = (limit - row[i]) / (row[i + direction] - row[i])
                return abs(octaves[i] - octaves[best]) + inside * abs(octaves[i + direction] - octaves[i])
            i += direction
        return float(abs(octaves[i] - octaves[best]))

    return reach(-1) + reach(1)
