"""The data separation of digits and of patches of photographs, in several dimensions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.datasets import load, photographs
from gradatim.lab import Session
from gradatim.transport import DataSeparation, data_separation, normalise, separation_angles, separation_of_data

from .config import Config
from .paths import DRAWN, NAMES, readings, sampled_energies, tables_of

DIGIT_SIDES = (2, 4, 8)
STABLE_SIDE = 8


def digits(config: Config, session: Session, side: int) -> jax.Array:
    """Normalised, single precision."""
    parts = [load("digits", split=split, pool=side) for split in ("train", "test")]
    session.uses(parts[0].provenance)
    images = np.concatenate([part.images for part in parts])[: config.images.digits]
    return normalise(jnp.asarray(images.reshape(len(images), -1), jnp.float32))[0]


def patches(config: Config, session: Session, side: int, n: int) -> jax.Array:
    """Normalised, single precision."""
    pictures = photographs()
    session.uses(pictures.provenance)
    squares = pictures.patches(side, n=n, within=max(config.images.sides))
    return normalise(jnp.asarray(squares.reshape(n, -1), jnp.float32))[0]


def run_images(config: Config, session: Session, key: jax.Array) -> tuple[dict[str, xr.Dataset], DataSeparation]:
    """Every data set's readings, replicate by replicate; energies of the digits by Monte Carlo; and the mean separation of the digits."""
    settings = config.images
    key_sets, key_sampled, key_left, key_stable = jax.random.split(key, 4)
    sets = {f"digits {side} × {side}": digits(config, session, side) for side in DIGIT_SIDES}
    sets |= {f"patches {side} × {side}": patches(config, session, side, settings.patches) for side in settings.sides}
    rows: dict[str, list[np.ndarray]] = {}
    whole = f"digits {DIGIT_SIDES[-1]} × {DIGIT_SIDES[-1]}"
    mean: DataSeparation | None = None
    for i, (name, x) in enumerate(sets.items()):
        keys = jax.random.split(jax.random.fold_in(key_sets, i), settings.replicates)
        roots = session.once(f"separation of {name}", lambda x=x, keys=keys: [_roots(config, x, key) for key in keys])
        angles = jnp.asarray(separation_angles(8 * (settings.nodes - 1) + 1))
        each = [DataSeparation(angles, jnp.asarray(root)) for root in roots]
        found = [readings(separation) for separation in each]
        for quantity in found[0]:
            rows.setdefault(quantity, []).append(np.stack([one[quantity] for one in found]))
        rows.setdefault("root_gamma", []).append(np.stack(roots))
        if name == whole:
            mean = DataSeparation(angles, jnp.sqrt(jnp.mean(jnp.stack([one.root_gamma for one in each]) ** 2, axis=0)))
    assert mean is not None
    dims = {"root_gamma": ("angle",), "energy": ("path",), "conditional": ("path",), "a": ("time",), "m": ("time",)}
    data = xr.Dataset(
        {name: (("set", "replicate", *dims.get(name, ())), np.stack(value), {"units": "1"}) for name, value in rows.items()},
        coords={
            "set": list(sets), "path": list(NAMES), "angle": separation_angles(8 * (settings.nodes - 1) + 1),
            "time": np.linspace(0, 1, DRAWN),
        },
    )  # fmt: skip
    for name, index in (("points", 0), ("dimension", 1)):
        data[name] = ("set", [x.shape[index] for x in sets.values()], {"units": "1"})

    x = sets[whole]
    value, error = session.once(
        "energy of the digits by Monte Carlo",
        lambda: [np.asarray(part) for part in _sampled(mean, x, key_sampled, settings.samples)],
    )
    data["sampled"], data["sampled_error"] = ("path", value, {"units": "1"}), ("path", error, {"units": "1"})
    s = np.tan(separation_angles(settings.nodes)[1:-1])
    n_noise = settings.noise * settings.replicates
    left = session.once(
        "digits, leave one out",
        lambda: np.asarray(data_separation(x, jnp.asarray(s, x.dtype), key=key_left, n_noise=n_noise, exclude_self=True).value),
    )
    views = xr.Dataset(
        {"left_out": ("angle", left, {"units": "1"}), **_stability(config, session, x, s, key_stable)},
        coords={"angle": separation_angles(settings.nodes)[1:-1]},
    )
    return {"images": data, "views": views}, mean


def _roots(config: Config, x: jax.Array, key: jax.Array) -> np.ndarray:
    return np.asarray(separation_of_data(x, key=key, n_noise=config.images.noise, n_nodes=config.images.nodes).root_gamma)


def _sampled(mean: DataSeparation, x: jax.Array, key: jax.Array, n_samples: int) -> tuple[jax.Array, jax.Array]:
    return sampled_energies(tables_of(mean), x.astype(jnp.float64), key, n_samples=n_samples)


def _stability(config: Config, session: Session, x: jax.Array, s: np.ndarray, key: jax.Array) -> dict[str, tuple]:
    """λ of patches with all of the points and noise, and with half of either; of the digits with all and half of the points."""
    settings = config.images
    many = patches(config, session, min(STABLE_SIDE, max(settings.sides)), settings.stable_points)
    # Rows are of one photograph and the other in turn: half of both.
    cases = {"patches": many, "half of the patches": normalise(many[: len(many) // 2])[0], "digits": x}
    cases["half of the digits"] = normalise(x[: len(x) // 2])[0]

    def halves(points: jax.Array) -> list[np.ndarray]:
        """From either half of the noise."""
        ratios, n_noise = jnp.asarray(s, points.dtype), settings.stable_noise // 2
        return [np.asarray(data_separation(points, ratios, key=half, n_noise=n_noise).value) for half in jax.random.split(key)]

    found = {name: session.once(f"stability, {name}", lambda points=points: halves(points)) for name, points in cases.items()}
    curves = {
        "whole": np.mean(found["patches"], axis=0),
        "half_data": np.mean(found["half of the patches"], axis=0),
        "half_noise": found["patches"][0],
        "digits": np.mean(found["digits"], axis=0),
        "digits_half_data": np.mean(found["half of the digits"], axis=0),
    }
    return {name: ("angle", value, {"units": "1"}) for name, value in curves.items()}
