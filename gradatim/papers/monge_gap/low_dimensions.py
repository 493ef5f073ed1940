"""Maps that can be drawn: a known one in the plane, moons to an S-curve under the distance, patches of the sphere."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Session, host_generator
from gradatim.transport import Cost, Euclidean, Geodesic, unexplained_variance

from .config import Costs, Plane, Training
from .problems import NORTH, PLANE_MAP, SOUTHERN, Points, crossings, moons, patch, s_curve
from .training import DRAWN, Build, Samples, Trained, Weights, described, direct, on_sphere, train

Draw = Callable[[np.random.Generator, int], Points]
EUCLIDEAN, GEODESIC = Euclidean(), Geodesic()


def run_plane(config: Plane, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """The known map with no regulariser, with the gap in two conventions and with the displacement cost, each at all weights."""
    key_data, key_train = jax.random.split(key)
    training, weights = config.training, config.weights
    samples = _drawn(
        training, key_data, lambda random, n: random.normal(size=(n, 2)), lambda random, n: PLANE_MAP(random.normal(size=(n, 2)))
    )
    gaps = [Weights(gap=weight) for weight in weights]
    arms = [Weights(), *gaps, *(Weights(displacement=weight) for weight in weights)]
    names = ["none", *(f"gap {weight:g}" for weight in weights), *(f"displacement {weight:g}" for weight in weights)]
    parts = [(names, train(training, samples, arms, session, key_train, label="known map in the plane"))]
    if config.debiased:
        label = "known map in the plane, debiased gap"
        names = [f"debiased {weight:g}" for weight in weights]
        parts.append((names, train(training, samples, gaps, session, key_train, label=label, convention="debiased")))
    optimal = np.stack([PLANE_MAP(x) for x in samples.held_x])
    target = {
        "target_energy": ("seed", _energy(samples.held_y), {"units": "1"}),
        "optimal": (("point", "axis"), optimal[0, :DRAWN], {"units": "1"}),
        "source": (("point", "axis"), samples.held_x[0, :DRAWN], {"units": "1"}),
        "target": (("point", "axis"), samples.held_y[0, :DRAWN], {"units": "1"}),
    }
    of_arms = [
        xr.Dataset(
            {
                "unexplained": (("arm", "seed"), unexplained(trained.images, optimal), {"units": "%"}),
                "energy": (("arm", "seed"), _energy(trained.images), {"units": "1"}),
                **described(trained),
            },
            {"arm": names},
        )
        for names, trained in parts
    ]
    return {"plane": xr.concat(of_arms, "arm", combine_attrs="override").assign(target)}


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
    points = {
        "source": (("point", "axis"), samples.held_x[0, :DRAWN], {"units": "1"}),
        "target": (("point", "axis"), samples.held_y[0, :DRAWN], {"units": "1"}),
    }
    data = xr.Dataset({**described(trained), **points}, {"arm": ["none", "gap"]})
    return trained, data


def _drawn(config: Training, key: jax.Array, source: Draw, target: Draw) -> Samples:
    random = host_generator(key)
    parts = [np.stack([draw(random, n) for _ in range(config.seeds)]) for n in (config.pool, config.held_out) for draw in (source, target)]
    return Samples(*parts)


def _energy(points: np.ndarray) -> np.ndarray:
    return np.square(points).sum(axis=-1).mean(axis=-1)
