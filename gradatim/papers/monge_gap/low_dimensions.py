"""Maps that can be drawn: a known one in the plane, moons to an S-curve under the distance, patches of the sphere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Session
from gradatim.transport import Cost, Euclidean, Geodesic, unexplained_variance

from .config import Costs, Plane, Training
from .problems import NORTH, PLANE_MAP, SOUTHERN, Points, crossings, generator, moons, patch, s_curve
from .training import Build, Samples, Trained, Weights, described, direct, on_sphere, train

Draw = Callable[[np.random.Generator, int], Points]
DRAWN = 200
"Points kept for figures."
EUCLIDEAN, GEODESIC = Euclidean(), Geodesic()


def run_plane(config: Plane, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """The known map with no regulariser, with the gap and with the displacement cost, each at all weights."""
    key_data, key_train = jax.random.split(key)
    samples = _drawn(
        config.training, key_data, lambda random, n: random.normal(size=(n, 2)), lambda random, n: PLANE_MAP(random.normal(size=(n, 2)))
    )
    arms = [Weights()]
    arms += [Weights(gap=weight) for weight in config.weights]
    arms += [Weights(displacement=weight) for weight in config.weights]
    names = ["none", *(f"gap {weight:g}" for weight in config.weights), *(f"displacement {weight:g}" for weight in config.weights)]
    trained = train(config.training, samples, arms, session, key_train, label="known map in the plane")
    optimal = np.stack([PLANE_MAP(x) for x in samples.held_x])
    errors = unexplained(trained.images, optimal)
    data = xr.Dataset(
        {
            "unexplained": (("arm", "seed"), errors, {"units": "%"}),
            "energy": (("arm", "seed"), np.square(trained.images).sum(axis=-1).mean(axis=-1), {"units": "1"}),
            "target_energy": ("seed", np.square(samples.held_y).sum(axis=-1).mean(axis=-1), {"units": "1"}),
            **described(trained),
            **_drawn_points(samples, trained),
            "optimal": (("point", "axis"), optimal[0, :DRAWN], {"units": "1"}),
        },
        {"arm": names, "weight": ("arm", [0.0, *config.weights, *config.weights])},
    )
    return {"plane": data}


def run_costs(config: Costs, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """The distance in the plane and the angle on the sphere, each without and with the gap."""
    keys = jax.random.split(key, 4)
    plane = _drawn(config.euclidean, keys[0], moons, s_curve)
    euclidean = _pair(config.euclidean, plane, config.euclidean_weight, session, keys[1], "moons to an S-curve", EUCLIDEAN, direct)
    crossed = [[crossings(x[:DRAWN], y[:DRAWN]) for x, y in zip(plane.held_x, images, strict=True)] for images in euclidean[0].images]
    sphere = _drawn(config.sphere, keys[2], lambda random, n: patch(random, n, NORTH), lambda random, n: patch(random, n, SOUTHERN))
    spherical = _pair(config.sphere, sphere, config.sphere_weight, session, keys[3], "patches of the sphere", GEODESIC, on_sphere)
    return {
        "euclidean": euclidean[1].assign(crossings=(("arm", "seed"), np.array(crossed), {"units": "1"})),
        "sphere": spherical[1],
    }


def unexplained(images: np.ndarray, optimal: np.ndarray) -> np.ndarray:
    """The unexplained variance of every arm and seed, percent."""
    of_seed = [
        [float(unexplained_variance(jnp.asarray(y), jnp.asarray(best, jnp.float32))) for y, best in zip(arm, optimal, strict=True)]
        for arm in images
    ]
    return np.array(of_seed)


def _pair(
    config: Training, samples: Samples, weight: float, session: Session, key: jax.Array, label: str, cost: Cost, build: Build
) -> tuple[Trained, xr.Dataset]:
    trained = train(config, samples, [Weights(), Weights(gap=weight)], session, key, label=label, build=build, cost=cost)
    data = xr.Dataset({**described(trained), **_drawn_points(samples, trained)}, {"arm": ["none", "gap"]})
    return trained, data


def _drawn(config: Training, key: jax.Array, source: Draw, target: Draw) -> Samples:
    random = generator(key)
    parts = [np.stack([draw(random, n) for _ in range(config.seeds)]) for n in (config.pool, config.held_out) for draw in (source, target)]
    return Samples(*parts)


def _drawn_points(samples: Samples, trained: Trained) -> dict[str, Any]:
    units = {"units": "1"}
    return {
        "source": (("point", "axis"), samples.held_x[0, :DRAWN], units),
        "target": (("point", "axis"), samples.held_y[0, :DRAWN], units),
        "image": (("arm", "point", "axis"), trained.images[:, 0, :DRAWN], units),
    }
