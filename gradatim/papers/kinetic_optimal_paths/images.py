"""The data separation of digits and of patches of photographs, in several dimensions."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import repeat

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.datasets import Photographs, load, photographs
from gradatim.lab import Session, host_generator
from gradatim.transport import DataSeparation, data_separation, normalise, separation_angles

from .config import Config
from .estimates import estimated, refined_angles
from .paths import DRAWN, NAMES, readings_of_each, sampled_energies, tables_of

DIGIT_SIDES = (2, 4, 8)
STABLE_SIDE = 8


def digits(config: Config, session: Session, side: int) -> Float[Array, "n {side}*{side}"]:
    """Normalised, single precision."""
    parts = [load("digits", split=split, pool=side) for split in ("train", "test")]
    session.uses(parts[0].provenance)
    images = np.concatenate([part.images for part in parts])[: config.images.digits]
    return normalise(jnp.asarray(images.reshape(len(images), -1), jnp.float32))[0]


def patches(pictures: Photographs, key: PRNGKeyArray, *, side: int, n: int, within: int) -> Float[Array, "{n} {side}*{side}"]:
    """Normalised, single precision; the key chooses the places, the same for every side."""
    squares = pictures.patches(side, n=n, seed=int(host_generator(key).integers(2**32)), within=within)
    return normalise(jnp.asarray(squares.reshape(n, -1), jnp.float32))[0]


def data_sets(config: Config, session: Session, pictures: Photographs, key: PRNGKeyArray) -> dict[str, Iterable[jax.Array]]:
    """By name, one for each replicate: always the same digits, but patches from places of its own."""
    settings = config.images
    sets: dict[str, Iterable[jax.Array]] = {
        f"digits {side} × {side}": repeat(digits(config, session, side), settings.replicates) for side in DIGIT_SIDES
    }
    places = jax.random.split(key, settings.replicates)
    for side in settings.sides:
        cut = partial(patches, pictures, side=side, n=settings.patches, within=max(settings.sides))
        sets[f"patches {side} × {side}"] = map(cut, places)
    return sets


def run_images(config: Config, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Every data set's readings, replicate by replicate; energies of the digits by Monte Carlo; and how stable λ is."""
    settings = config.images
    key_places, key_sets, key_sampled, key_left, key_digits, key_stable = jax.random.split(key, 6)
    pictures = photographs()
    session.uses(pictures.provenance)
    sets = data_sets(config, session, pictures, key_places)
    separations: dict[str, DataSeparation] = {}
    for i, (name, each) in enumerate(sets.items()):
        keys = jax.random.split(jax.random.fold_in(key_sets, i), settings.replicates)
        label = f"separation of {name}"
        separations[name] = estimated(session, label, each, keys, n_noise=settings.noise, n_nodes=settings.nodes)
    found = [{**readings_of_each(one), "root_gamma": np.asarray(one.root_gamma)} for one in separations.values()]
    dims = {"root_gamma": ("angle",), "energy": ("path",), "conditional": ("path",), "a": ("time",), "m": ("time",)}
    data = xr.Dataset(
        {
            name: (("set", "replicate", *dims.get(name, ())), np.stack([one[name] for one in found]), {"units": "1"})
            for name in found[0]
        },
        coords={
            "set": list(sets), "path": list(NAMES), "angle": refined_angles(settings.nodes),
            "time": np.linspace(0, 1, DRAWN),
        },
    )  # fmt: skip
    points = [settings.digits] * len(DIGIT_SIDES) + [settings.patches] * len(settings.sides)
    data["points"] = ("set", points, {"units": "1"})
    data["dimension"] = ("set", [side**2 for side in (*DIGIT_SIDES, *settings.sides)], {"units": "1"})

    whole = digits(config, session, DIGIT_SIDES[-1])
    of_whole = separations[f"digits {DIGIT_SIDES[-1]} × {DIGIT_SIDES[-1]}"]
    mean = DataSeparation(of_whole.angles[0], jnp.sqrt(jnp.mean(of_whole.root_gamma**2, axis=0)))
    value, error = session.once(
        "energy of the digits by Monte Carlo",
        lambda: [np.asarray(part) for part in _sampled(mean, whole, key_sampled, settings.samples)],
    )
    data["sampled"], data["sampled_error"] = ("path", value, {"units": "1"}), ("path", error, {"units": "1"})
    s = jnp.asarray(np.tan(separation_angles(settings.nodes)[1:-1]), whole.dtype)
    n_noise = settings.noise * settings.replicates
    left = session.once(
        "digits, leave one out",
        lambda: np.asarray(data_separation(whole, s, key=key_left, n_noise=n_noise, exclude_self=True).value),
    )
    of_digits = session.once("stability, digits", lambda: _stability(config, whole, s, key_digits))
    of_patches = [
        session.once(f"stability, patches, {i}", lambda key=key: _stability_of_patches(config, pictures, s, key))
        for i, key in enumerate(jax.random.split(key_stable, settings.stable_repeats))
    ]
    views = xr.Dataset(
        {
            "left_out": ("angle", left, {"units": "1"}),
            "digits": ("angle", of_digits["whole"], {"units": "1"}),
            "digits_half_data": ("angle", of_digits["half_data"], {"units": "1"}),
        }
        | {name: (("repeat", "angle"), np.stack([one[name] for one in of_patches]), {"units": "1"}) for name in of_digits},
        coords={"angle": separation_angles(settings.nodes)[1:-1]},
    )
    return {"images": data, "views": views}


def _sampled(mean: DataSeparation, x: jax.Array, key: jax.Array, n_samples: int) -> tuple[jax.Array, jax.Array]:
    return sampled_energies(tables_of(mean), x.astype(jnp.float64), key, n_samples=n_samples)


def _stability(
    config: Config, x: Float[Array, "n dim"], s: Float[Array, " angles"], key: PRNGKeyArray
) -> dict[str, Float[np.ndarray, " angles"]]:
    """λ with all of the points and noise, and with half of either."""

    def halves(points: Float[Array, "n_points dim"]) -> list[np.ndarray]:
        """From either half of the noise."""
        n_noise = config.images.stable_noise // 2
        return [np.asarray(data_separation(points, s, key=half, n_noise=n_noise).value) for half in jax.random.split(key)]

    whole, half_data = halves(x), halves(normalise(x[: len(x) // 2])[0])
    return {"whole": np.mean(whole, axis=0), "half_data": np.mean(half_data, axis=0), "half_noise": whole[0]}


def _stability_of_patches(
    config: Config, pictures: Photographs, s: Float[Array, " angles"], key: PRNGKeyArray
) -> dict[str, Float[np.ndarray, " angles"]]:
    settings = config.images
    key_places, key_noise = jax.random.split(key)
    within = max(settings.sides)
    # Rows are of one photograph and the other in turn: half of the points is half of both.
    x = patches(pictures, key_places, side=min(STABLE_SIDE, within), n=settings.stable_points, within=within)
    return _stability(config, x, s, key_noise)
