"""What is known to many digits: a few points on a line, and points so far apart that nothing is in doubt."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Session
from gradatim.transport import CondOT, energy_lower_bound, line_separation_gap, separation_angles, separation_of_gap

from .config import Config
from .paths import DRAWN, NAMES, readings

FAR = 10_000
"Dimensions in which the theorem's bound for two points means something."
SETS = {
    "two points": np.array([-1.0, 1.0]),
    "three points": np.array([-1.0, 0.0, 3.0]),
    "sixteen points": np.linspace(-3, 3, 16) ** 3,
}


def run_lines(config: Config, session: Session) -> dict[str, xr.Dataset]:
    """λ by quadrature, and energies; two points far away; λ = 1."""
    n_nodes = 8 * (config.images.nodes - 1) + 1
    rows: dict[str, list[np.ndarray]] = {}
    angles = separation_angles(n_nodes)
    s = np.append(np.tan(angles[:-1]), 1e16)
    for values in SETS.values():
        gap = line_separation_gap(jnp.asarray((values - values.mean()) / values.std()), jnp.asarray(s))
        found = readings(separation_of_gap(lambda _, gap=gap: gap, n_nodes=n_nodes))
        found |= {"gap": np.asarray(gap), "gaussian_gap": 1 / (1 + s**2)}
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    dims = {"gap": ("angle",), "gaussian_gap": ("angle",), "energy": ("path",), "conditional": ("path",), "a": ("time",), "m": ("time",)}
    data = xr.Dataset(
        {name: (("set", *dims.get(name, ())), np.stack(value), {"units": "1"}) for name, value in rows.items()},
        coords={"set": list(SETS), "path": list(NAMES), "angle": angles, "time": np.linspace(0, 1, DRAWN)},
    )
    two = jnp.asarray(SETS["two points"])
    far = readings(separation_of_gap(lambda s: line_separation_gap(two, FAR**0.5 * s), n_nodes=n_nodes))
    one = readings(separation_of_gap(lambda s: 0 * s, n_nodes=n_nodes))
    limits = xr.Dataset(
        {
            "far_slack": ((), 2 - far["area"] - float(energy_lower_bound(CondOT(), 2, FAR)), {"units": "1"}),
            "far_area": ((), far["area"], {"units": "1"}),
            "a": ("time", one["a"], {"units": "1"}),
            "m": ("time", one["m"], {"units": "1"}),
        },
        coords={"time": np.linspace(0, 1, DRAWN)},
    )
    area = float(data["area"].sel(set="two points"))
    session.note(
        f"Two points ±1: area {area:.5f}, Φ {float(data['arc'][0]):.5f}, b {float(data['least'][0]):.5f}; the straight path's energy "
        f"{2 - area:.5f} is above the trigonometric one's, {np.pi / 2 * (np.pi / 2 - area):.5f}: the straight path is the better of the "
        "two only where the area is below 0.819"
    )
    return {"lines": data, "limits": limits}
