"""How many modes hold a solution, in fixed and in moving coordinates, over the whole time and over a part of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session
from gradatim.sciml import snapshot_width

from .config import Config
from .truth import PERIOD, Truth

SPEEDS = (0.0, 1.0, 10.0, 30.0, 50.0)
TOLERANCES = (1e-1, 1e-2, 1e-3)
WINDOW_SPEED = 30.0


def run_widths(config: Config, truth: Truth, session: Session) -> Findings:
    """Widths of Burgers at all speeds, of a sine and a Gaussian that are carried along, and of what is left on the characteristics."""
    x = PERIOD * np.arange(truth.field.shape[1]) / truth.field.shape[1]
    offsets = {c: (x[:, None] - c * truth.t[None, :]) % PERIOD for c in SPEEDS}
    fixed = {
        "Burgers": {c: truth.burgers(c).T for c in SPEEDS},
        "sine": {c: np.exp(-config.diffusivity * truth.t)[None] * np.sin(offsets[c]) for c in SPEEDS},
        "Gaussian": {c: np.exp(-((offsets[c] - PERIOD / 2) ** 2) / (2 * (PERIOD / 8) ** 2)) for c in SPEEDS},
    }
    curves = {name: np.stack([_width(fields[c]) for c in SPEEDS]) for name, fields in fixed.items()}
    modes = {name: np.stack([_modes(rows, tolerance) for tolerance in TOLERANCES]) for name, rows in curves.items()}

    # On the characteristics: of convection–diffusion at the largest speed, and of Burgers.
    labels = truth.places
    last = SPEEDS[-1]
    W = np.stack([np.interp(labels + last * t, x, row, period=PERIOD) for t, row in zip(truth.t, fixed["sine"][last].T, strict=True)])
    W_burgers = np.stack([np.interp(labels + d, x, row, period=PERIOD) for d, row in zip(truth.displacement, truth.field, strict=True)])
    on_paths = {
        "convection, displacement": np.broadcast_to(last * truth.t[None], (labels.size, truth.t.size)),
        "convection, state": W.T,
        "Burgers, displacement": truth.displacement.T,
        "Burgers, state": W_burgers.T,
    }
    moving = np.stack([_width(rows) for rows in on_paths.values()])
    moving_modes = np.stack([_modes(moving, tolerance) for tolerance in TOLERANCES])

    whole = fixed["Burgers"][WINDOW_SPEED]
    parts = [whole[:, start : start + whole.shape[1] // config.windows + 1] for start in _starts(whole.shape[1], config.windows)]
    in_parts = np.array([_modes(_width(part)[None], TOLERANCES[-1])[0] for part in parts])
    of_whole = modes["Burgers"][-1, SPEEDS.index(WINDOW_SPEED)]

    session.note(
        f"C2: modes for relative errors of {TOLERANCES} at speeds {SPEEDS}: "
        + "; ".join(f"{name} {rows.T.tolist()}" for name, rows in modes.items())
        + f"; on the characteristics {dict(zip(on_paths, moving_modes.T.tolist(), strict=True))}. A sine that is "
        "carried along has two modes at any speed, and defeats the usual network all the same: the number of modes does not explain that"
    )
    session.note(f"C4: modes of each of {config.windows} windows at speed {WINDOW_SPEED:g}: {in_parts.tolist()}, of the whole {of_whole}")
    data = xr.Dataset(
        {
            **{f"width_{name}": (("speed", "n"), rows, {"units": "1"}) for name, rows in curves.items()},
            **{f"modes_{name}": (("tolerance", "speed"), rows, {"units": "modes"}) for name, rows in modes.items()},
            "width_moving": (("what", "m"), moving, {"units": "1"}),
            "modes_moving": (("tolerance", "what"), moving_modes, {"units": "modes"}),
            "modes_window": ("window", in_parts, {"units": "modes"}),
        },
        {"speed": list(SPEEDS), "tolerance": list(TOLERANCES), "what": list(on_paths)},
    )
    measures = {
        "C2.modes_by_speed": Measure.sequence([Measure.exact(float(n)) for n in modes["Burgers"][-1]]),
        "C2.moving_frame_modes": Measure.exact(float(moving_modes[-1, :2].max())),
        "C4.window_modes_ratio": Measure.exact(float(in_parts.max() / of_whole)),
    }
    return Findings(measures, xr.DataTree.from_dict({"widths": data}))


def _starts(n_times: int, n_windows: int) -> list[int]:
    return [i * (n_times - 1) // n_windows for i in range(n_windows)]


@jax.jit
def _width_of(snapshots: jax.Array) -> jax.Array:
    return snapshot_width(snapshots).width


def _width(snapshots: np.ndarray) -> np.ndarray:
    return np.asarray(_width_of(jnp.asarray(snapshots, jnp.float32)), np.float64)


def _modes(widths: np.ndarray, tolerance: float) -> np.ndarray:
    return (widths > tolerance).sum(axis=-1)
