"""Maps in many dimensions, as corrections of the Gaussian map: known ones, and one between the images of two digits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim import datasets
from gradatim.lab import Session, best_by_others, host_generator
from gradatim.transport import SQUARED_EUCLIDEAN, entropic_map, gaussian_map, mean_cost, unexplained_variance

from .config import Digits, Dimensions
from .low_dimensions import unexplained
from .problems import random_convex_map
from .training import Samples, Weights, corrected, described, train

SHOWN = 8
"Digits kept for the figure."
SIDE = 8
"Pixels of their side."


def run_dimensions(config: Dimensions, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Known maps by dimension, beside the entropic, the Gaussian and the constant map; in the last one on a grid of weights."""
    training = config.training
    ours = Weights(gap=config.gap_weight, asymmetry=config.asymmetry_weight)
    grid = [Weights(gap=gap, asymmetry=asymmetry) for gap in config.gap_weights for asymmetry in config.asymmetry_weights]
    if ours not in grid:
        raise ValueError(f"gap_weight and asymmetry_weight must be on the grid of weights, got {ours.gap:g} and {ours.asymmetry:g}")
    names = ("network", "fresh", "plain", "entropic", "gaussian", "constant")
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    shares: list[np.ndarray] = []
    converged: list[np.ndarray] = []
    trees: dict[str, xr.Dataset] = {}
    for dim, dim_key in zip(config.dimensions, jax.random.split(key, len(config.dimensions)), strict=True):
        is_last = dim == config.dimensions[-1]
        key_data, key_train = jax.random.split(dim_key)
        samples, optimal = _known(config, key_data, dim)
        arms = [Weights(), ours._replace(fresh=1.0), *(grid if is_last else [ours])]
        starts = _gaussian_maps(samples, training.pool)
        label = f"known map, {dim} dimensions"
        trained = train(training, samples, arms, session, key_train, label=label, build=corrected, starts=starts, penalised=True)
        errors = unexplained(trained.images, optimal)
        rows["plain"].append(errors[0])
        rows["fresh"].append(errors[1])
        rows["network"].append(errors[arms.index(ours)])
        classical = session.once(f"maps in closed form, {dim} dimensions", lambda s=samples, o=optimal: _classical(config, s, o))
        shares.append(classical["entropic"])
        converged.append(classical["converged"])
        rows["entropic"].append(best_by_others(xr.DataArray(classical["entropic"], dims=("share", "seed")), "share").values)
        rows["gaussian"].append(classical["gaussian"])
        rows["constant"].append(classical["constant"])
        if is_last:
            shape = (len(config.gap_weights), len(config.asymmetry_weights), training.seeds)
            trees["grid"] = xr.Dataset(
                {
                    "unexplained": (("gap_weight", "asymmetry_weight", "seed"), errors[2:].reshape(shape), {"units": "%"}),
                    "gap": (("gap_weight", "asymmetry_weight", "seed"), trained.gap[2:].reshape(shape), {"units": "1"}),
                },
                {"gap_weight": list(config.gap_weights), "asymmetry_weight": list(config.asymmetry_weights)},
            )
    variables = {name: (("dimension", "seed"), np.stack(values), {"units": "%"}) for name, values in rows.items()}
    trees["dimensions"] = xr.Dataset(
        {
            **variables,
            "by_share": (("dimension", "share", "seed"), np.stack(shares), {"units": "%"}),
            "converged": (("dimension", "share", "seed"), np.stack(converged), {"units": "1"}),
        },
        {"dimension": list(config.dimensions), "share": list(config.entropic_shares)},
    )
    return trees


def run_digits(config: Digits, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Images of one digit to those of another, without and with the gap."""
    key_split, key_train = jax.random.split(key)
    training, parts = config.training, {split: datasets.load("digits", split=split) for split in ("train", "test")}
    session.uses(parts["train"].provenance)
    digits = {
        (split, digit): part.images[part.labels == digit].reshape(-1, SIDE**2).astype(np.float64)
        for split, part in parts.items()
        for digit in (config.source, config.target)
    }
    for name, split, needed in (("pool", "train", training.pool), ("held_out", "test", training.held_out)):
        available = min(len(digits[split, digit]) for digit in (config.source, config.target))
        if needed > available:
            raise ValueError(f"digits.training.{name} must be at most {available}, the images of one digit, got {needed}")
    both = np.concatenate([digits["train", config.source], digits["train", config.target]])
    mean = both.mean(axis=0, keepdims=True)
    components = np.linalg.svd(both - mean, full_matrices=False)[2][: config.components]
    scale = ((both - mean) @ components.T).std()
    random = host_generator(key_split)

    def drawn(split: str, digit: int, n: int) -> np.ndarray:
        images = (digits[split, digit] - mean) @ components.T / scale
        return np.stack([images[random.permutation(len(images))[:n]] for _ in range(training.seeds)])

    chosen = [("train", training.pool), ("test", training.held_out)]
    samples = Samples(*(drawn(split, digit, n) for split, n in chosen for digit in (config.source, config.target)))
    arms = [Weights(), Weights(gap=config.gap_weight, asymmetry=config.asymmetry_weight)]
    starts = _gaussian_maps(samples, training.pool)
    trained = train(training, samples, arms, session, key_train, label="digits", build=corrected, starts=starts, penalised=True)
    shown = {"source": samples.held_x[0], "none": trained.images[0, 0], "gap": trained.images[1, 0], "target": samples.held_y[0]}
    pictures = np.stack([part[:SHOWN] * scale @ components + mean for part in shown.values()]).reshape(len(shown), -1, SIDE, SIDE)
    data = xr.Dataset(
        {**described(trained), "picture": (("kind", "image", "y", "x"), pictures, {"units": "1"})},
        {"arm": ["none", "gap"], "kind": list(shown)},
    )
    return {"digits": data}


def _known(config: Dimensions, key: jax.Array, dim: int) -> tuple[Samples, np.ndarray]:
    """Samples, and the images of the held-out points under the map of their seed."""
    random = host_generator(key)
    training = config.training
    maps = [random_convex_map(random, dim) for _ in range(training.seeds)]

    def points(n: int) -> np.ndarray:
        return random.normal(size=(training.seeds, n, dim))

    def image(x: np.ndarray) -> np.ndarray:
        return np.stack([known(row) for known, row in zip(maps, x, strict=True)])

    held = points(training.held_out)
    n = max(config.fresh, training.pool)
    samples = Samples(points(n), image(points(n)), held, image(points(training.held_out)))
    return samples, image(held)


def _gaussian_maps(samples: Samples, pool: int) -> object:
    """Of each seed's pool."""
    x, y = (jnp.asarray(part[:, :pool], jnp.float32) for part in (samples.x, samples.y))
    return jax.jit(jax.vmap(gaussian_map))(x, y)


def _classical(config: Dimensions, samples: Samples, optimal: np.ndarray) -> dict[str, np.ndarray]:
    """Errors of the entropic map at every share and whether its coupling is solved (share, seed), of Gaussian and constant map (seed)."""
    shares, pool = jnp.asarray(config.entropic_shares, jnp.float32), config.training.pool

    @jax.jit
    def of_seed(x: jax.Array, y: jax.Array, held: jax.Array, best: jax.Array) -> tuple[jax.Array, ...]:
        scale = mean_cost(SQUARED_EUCLIDEAN, x, y)

        def entropic(share: jax.Array) -> tuple[jax.Array, jax.Array]:
            found = entropic_map(x, y, epsilon=share * scale)
            return unexplained_variance(jax.lax.map(found, held, batch_size=64), best), found.is_converged

        constant = jnp.broadcast_to(y.mean(axis=0)[None], best.shape)
        gaussian = jax.vmap(gaussian_map(x, y))(held)
        return *jax.lax.map(entropic, shares), unexplained_variance(gaussian, best), unexplained_variance(constant, best)

    rows = [
        of_seed(*(jnp.asarray(part, jnp.float32) for part in parts))
        for parts in zip(samples.x[:, :pool], samples.y[:, :pool], samples.held_x, optimal, strict=True)
    ]
    names = ("entropic", "converged", "gaussian", "constant")
    return {name: np.stack([np.asarray(row[i], np.float64) for row in rows], axis=-1) for i, name in enumerate(names)}
