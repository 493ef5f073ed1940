"""What theory says by itself: late growth, best stopping against best ridge, maps over ratio and time, deep linear modes (C2, C3, C6)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session
from gradatim.landscape import deep_linear_time, gradient_flow_errors, infinite_time_errors, optimal_ridge, optimal_stopping_time

SNR = 5.0
RATIOS = np.geomspace(0.25, 4, 33)
SNRS = np.array([1.0, 5.0, 100.0])
MAP_RATIOS, MAP_TIMES = np.geomspace(0.1, 10, 41), np.geomspace(0.1, 1000, 41)
LATE = np.geomspace(1e4, 1e6, 9)
"Times between which growth is measured."
LATE_RATIOS = (0.5, 1.0, 2.0)
STRONG, WEAK = 1.0, 0.2
"Correlations of two modes of inputs of one variance."
DEPTHS = (1, 2, 3, 5)
START = 1e-3
SHARES = np.concatenate([[1e-2 / 2], np.linspace(0.02, 0.98, 49), [0.999]])
"Of a mode's end; the weak mode starts at START/WEAK of it."
ROUND_OFF = 1e-9


@jax.jit
def _stopping(alphas: Any, snrs: Any) -> dict[str, Any]:
    def one(pair: Any) -> dict[str, Any]:
        alpha, snr = pair
        time = optimal_stopping_time(alpha, snr, n_nodes=1024)
        return {
            "time": time,
            "stopped": gradient_flow_errors(time, alpha, snr, n_nodes=1024).test,
            "ridge": optimal_ridge(alpha, snr).test,
            "end": infinite_time_errors(alpha, snr).test,
        }

    pairs = jnp.meshgrid(alphas, snrs, indexing="ij")
    found = jax.lax.map(one, tuple(x.ravel() for x in pairs))
    return jax.tree.map(lambda x: x.reshape(len(alphas), len(snrs)), found)


@partial(jax.jit, static_argnames="n_nodes")
def _errors(alphas: Any, times: Any, snr: Any, *, n_nodes: int = 1024) -> dict[str, Any]:
    errors = jax.lax.map(lambda alpha: gradient_flow_errors(times, alpha, snr, n_nodes=n_nodes), alphas)
    return {"test": errors.test, "train": errors.train, "weight_norm": errors.weight_norm}


def law_errors(ratios: Sequence[float], times: np.ndarray, snr: float) -> dict[str, Any]:
    """Both errors and the norm over ratios and times, in theory."""
    return _errors(jnp.asarray(ratios), jnp.asarray(times), jnp.asarray(snr))


def run_theory(session: Session) -> Findings:
    """C2 late growth, C3, C6 depth."""
    stopping = session.once("best stopping and best ridge", _stopping, jnp.asarray(RATIOS), jnp.asarray(SNRS))
    stopping = {name: np.asarray(values) for name, values in stopping.items()}
    surface = np.asarray(session.once("map", _errors, jnp.asarray(MAP_RATIOS), jnp.asarray(MAP_TIMES), jnp.asarray(SNR))["test"])
    finely = partial(_errors, n_nodes=16384)
    late = np.asarray(session.once("late growth", finely, jnp.asarray(LATE_RATIOS), jnp.asarray(LATE), jnp.asarray(SNR))["test"])
    growth = np.diff(np.log(late), axis=1) / np.diff(np.log(LATE))
    fitted = float(np.polyfit(np.log(LATE), np.log(late[1]), 1)[0])
    session.note(f"theory, late growth exponents at ratios 0.5 and 2: {growth[0, -1]:.1e}, {growth[2, -1]:.1e}")
    equal = int(np.argmin(np.abs(np.log(RATIOS))))
    over = stopping["stopped"] / stopping["ridge"]
    session.note(
        f"theory, early stopping over ridge is largest at ratio {RATIOS[np.unravel_index(over.argmax(), over.shape)[0]]:.3g} and "
        f"SNR {SNRS[np.unravel_index(over.argmax(), over.shape)[1]]:g}; best times rise with the SNR at "
        f"{int((np.diff(stopping['time'], axis=1) > 0).all(axis=1).sum())} of {len(RATIOS)} ratios"
    )
    times_by_depth, delays = _modes(session)
    measures = {
        "C2.growth_exponent": Measure.exact(fitted, float(np.abs(growth[1] - fitted).max())),
        "C3.stopping_times": Measure.sequence([Measure.exact(float(t), ROUND_OFF * float(t)) for t in stopping["time"][equal]]),
        "C3.error_over_ridge": Measure.exact(float(over.max()), ROUND_OFF),
        "C6.weak_mode_delay": Measure.exact(float(delays[DEPTHS.index(3)] / delays[0]), ROUND_OFF),
    }
    unit = {"units": "noise variance"}
    stop = xr.Dataset(
        {
            "time": (("ratio", "snr"), stopping["time"], {"units": "time constants of the flow"}),
            **{name: (("ratio", "snr"), stopping[name], unit) for name in ("stopped", "ridge", "end")},
        },
        {"ratio": ("ratio", RATIOS, {"units": "samples per parameter"}), "snr": ("snr", SNRS, {"units": "1"})},
    )
    whole = xr.Dataset(
        {"test": (("ratio", "time"), surface, unit)},
        {
            "ratio": ("ratio", MAP_RATIOS, {"units": "samples per parameter"}),
            "time": ("time", MAP_TIMES, {"units": "time constants of the flow"}),
        },
    )
    growing = xr.Dataset(
        {"test": (("ratio", "time"), late, unit)},
        {
            "ratio": ("ratio", list(LATE_RATIOS), {"units": "samples per parameter"}),
            "time": ("time", LATE, {"units": "time constants of the flow"}),
        },
    )
    modes = xr.Dataset(
        {"time": (("depth", "mode", "share"), times_by_depth, {"units": "time constants of the flow"})},
        {
            "depth": ("depth", list(DEPTHS), {"units": "layers"}),
            "mode": ["strong", "weak"],
            "share": ("share", SHARES, {"units": "of the end"}),
        },
    )
    return Findings(measures, xr.DataTree.from_dict({"stopping": stop, "map": whole, "late": growing, "modes": modes}))


def _modes(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """Times by depth, mode and share, and how much later the weak mode is half learned; all modes start from one strength."""

    @jax.jit
    def times(depths: Any, correlations: Any, eigenvalues: Any) -> Any:
        def one(depth: Any, s: Any, eigenvalue: Any) -> Any:
            return deep_linear_time(jnp.asarray(SHARES), s, eigenvalue, depth=depth, start=START)

        modes = jax.vmap(one, in_axes=(None, 0, 0))
        return jax.vmap(modes, in_axes=(0, None, None))(depths, correlations, eigenvalues)

    # The third has the weak mode's correlation from the strong one's teacher, through inputs of less variance.
    arguments = (jnp.asarray(DEPTHS, float), jnp.array([STRONG, WEAK, WEAK]), jnp.array([1.0, 1.0, WEAK]))
    found = np.asarray(session.once("deep linear modes", times, *arguments))
    half = int(np.argmin(np.abs(SHARES - 0.5)))
    delays = found[:, 1, half] / found[:, 0, half]
    same_teacher = found[:, 2, half] / found[:, 0, half]
    session.note(
        "deep linear modes, half-time of a weak over a strong one by depth: "
        + ", ".join(f"{depth}: {delay:.3g}" for depth, delay in zip(DEPTHS, delays, strict=True))
        + "; for modes that differ in the inputs' variance and share a teacher: "
        + ", ".join(f"{delay:.3g}" for delay in same_teacher)
    )
    return found[:, :2], delays
