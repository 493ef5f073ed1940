"""C4 and C5: random features of images, their spectra, and the exchange of samples and features."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.datasets import load
from gradatim.lab import Findings, Measure, Session, host_generator
from gradatim.landscape import intrinsic_dimension, loss_of_features, loss_of_samples, random_feature_loss, spectral_exponent

from .config import Images
from .measuring import exponents, largest_deviation, normals


def run_images(config: Images, session: Session, key: PRNGKeyArray) -> Findings:
    """Spectra and losses at every resolution, and the exchange at the last."""
    pixels = [_pixels(config, session, side) for side in config.resolutions]
    *keys, key_exchange = jax.random.split(key, config.seeds + 1)
    found = [
        session.once(f"features of images, {side} pixels, seed {i}", _measure, config, x, keys[i])
        for side, x in zip(config.resolutions, pixels, strict=True)
        for i in range(config.seeds)
    ]
    shape = (len(config.resolutions), config.seeds)

    def stacked(name: str) -> np.ndarray:
        return np.array([f[name] for f in found]).reshape(*shape, -1)

    spectrum, samples, features = stacked("spectrum"), stacked("samples"), stacked("features")
    first = min(config.sizes)
    window = (first, config.last)
    exponent = {
        "spectrum": np.array([[spectral_exponent(jnp.asarray(row), window) for row in rows] for rows in spectrum]),
        "samples": np.stack([exponents(config.sizes, rows, window) for rows in samples]),
        "features": np.stack([exponents(config.sizes, rows, window) for rows in features]),
    }
    dimension = [session.once(f"dimension, {side} pixels", _dimension, x) for side, x in zip(config.resolutions, pixels, strict=True)]
    _describe(config, exponent, dimension, {"D": samples, "P": features}, session)
    layers = jax.random.split(key_exchange, config.grid_layers)
    grid = np.array([session.once(f"exchange, layer {i}", _losses_of_both, config, pixels[-1], k) for i, k in enumerate(layers)])
    data = xr.Dataset(
        {
            "spectrum": (("resolution", "seed", "rank"), spectrum, {"units": "1"}),
            "samples": (("resolution", "seed", "size"), samples, {"units": "1", "long_name": "L(D)"}),
            "features": (("resolution", "seed", "size"), features, {"units": "1", "long_name": "L(P)"}),
            **{f"exponent_{name}": (("resolution", "seed"), values, {"units": "1"}) for name, values in exponent.items()},
            "dimension": ("resolution", np.array(dimension), {"units": "1"}),
            "exchange": (("layer", "draw", "D", "P"), grid, {"units": "1", "long_name": "L(D, P)"}),
        },
        {
            "resolution": list(config.resolutions),
            "size": list(config.sizes),
            "rank": 1 + np.arange(spectrum.shape[-1]),
            "D": list(config.grid),
            "P": list(config.grid),
        },
        {"first": first, "last": config.last},
    )
    measures = {
        f"C4.{part}_exponent_difference": _worst_difference(exponent[name], exponent["spectrum"])
        for part, name in (("data", "samples"), ("parameter", "features"))
    }
    measures["C5.swap_deviation"] = _exchange(config, grid, session)
    return Findings(measures, xr.DataTree.from_dict({"images": data}))


def _pixels(config: Images, session: Session, side: int) -> Float[Array, "n pixels"]:
    """All images as rows of unit mean square."""
    parts = [load(config.data, split=split, pool=side) for split in ("train", "test")]
    session.uses(parts[0].provenance)
    rows = np.concatenate([part.images.reshape(len(part), -1) for part in parts]).astype(np.float64)
    return jnp.asarray(rows / np.sqrt(np.mean(rows**2)))


def _dimension(pixels: Array) -> float:
    return intrinsic_dimension(np.unique(np.asarray(pixels), axis=0))


@jax.jit
def _population(pixels: Array, weights: Array) -> tuple[Array, Array]:
    features = jax.nn.relu(pixels @ weights.T / jnp.sqrt(1.0 * pixels.shape[1]))
    return features, features.T @ features / len(features)


def _drawn(config: Images, pixels: Array, key: PRNGKeyArray, n_draws: int, most: int) -> tuple[Array, Iterator[tuple[Array, Array]]]:
    """The covariance of one random layer's features, and draws of `most` samples and of a projection on as many features."""
    key_layer, key_draws = jax.random.split(key)
    features, covariance = _population(pixels, jnp.asarray(normals(key_layer, config.features, pixels.shape[1])))
    on_host = np.asarray(features)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        key_rows, key_projection = jax.random.split(key)
        rows = jnp.asarray(on_host[host_generator(key_rows).permutation(len(on_host))[:most]])
        return rows, jnp.asarray(normals(key_projection, most, config.features))

    return covariance, map(draw, jax.random.split(key_draws, n_draws))


def _measure(config: Images, pixels: Array, key: PRNGKeyArray) -> dict[str, np.ndarray]:
    """Spectrum and mean losses of one random layer."""
    covariance, draws = _drawn(config, pixels, key, config.draws, max(config.sizes))
    sizes = jnp.array(config.sizes)
    losses: dict[str, list[np.ndarray]] = {"samples": [], "features": []}
    for rows, projection in draws:
        losses["samples"].append(np.asarray(loss_of_samples(covariance, rows, sizes).loss))
        losses["features"].append(np.asarray(loss_of_features(covariance, projection, sizes).loss))
    spectrum = np.linalg.eigvalsh(np.asarray(covariance))[::-1]
    # Logarithms, for that is how exponents are fitted.
    means = {name: np.exp(np.log(rows).mean(axis=0)) for name, rows in losses.items()}
    return {"spectrum": np.maximum(spectrum, np.finfo(float).tiny), **means}


def _losses_of_both(config: Images, pixels: Array, key: PRNGKeyArray) -> Float[np.ndarray, "draws D P"]:
    """L(D, P) of every draw with one random layer."""
    covariance, draws = _drawn(config, pixels, key, config.grid_draws, max(config.grid))
    D, P = (jnp.asarray(axis.ravel()) for axis in np.meshgrid(config.grid, config.grid, indexing="ij"))
    losses = [np.asarray(random_feature_loss(covariance, *draw, D, P).loss) for draw in draws]
    return np.array(losses).reshape(-1, len(config.grid), len(config.grid))


def _worst_difference(exponent: np.ndarray, spectrum: np.ndarray) -> Measure:
    return max((Measure.paired(*pair) for pair in zip(exponent, spectrum, strict=True)), key=lambda m: abs(m.intervals()[0][0]))


def _exchange(config: Images, grid: np.ndarray, session: Session) -> Measure:
    """Means over draws of L(D, P) against L(P, D), layer by layer, for every pair that differs."""
    # Draws with one layer share it: the layer is what is repeated.
    means = grid.mean(axis=1)
    pairs = [(i, j) for i in range(len(config.grid)) for j in range(i)]
    ratios = [Measure.paired(means[:, j, i], means[:, i, j], "log-ratio") for i, j in pairs]
    worst, deviation = largest_deviation(ratios)
    named = [f"({config.grid[j]}, {config.grid[i]}) {ratio.value:.3f}" for (i, j), ratio in zip(pairs, ratios, strict=True)]
    medians = np.median(grid.reshape(-1, *grid.shape[2:]), axis=0)
    peaks = medians.diagonal().tolist()
    session.note(
        f"C5: L(D, P) over L(P, D), means of {grid.shape[1]} draws with each of {len(grid)} layers, (D, P): {', '.join(named)}; "
        f"farthest at {named[worst].split(' 0')[0]}; "
        f"median loss at D = P: {[f'{peak:.3g}' for peak in peaks]}, where the mean has no limit"
    )
    return deviation


def _describe(
    config: Images, exponent: dict[str, np.ndarray], dimension: list[float], losses: dict[str, np.ndarray], session: Session
) -> None:
    for i, side in enumerate(config.resolutions):
        wide = {name: exponents(config.sizes, rows[i], (config.sizes[0], config.sizes[-1])).mean() for name, rows in losses.items()}
        session.note(
            f"C4: {side} × {side} pixels, dimension {dimension[i]:.1f}: exponents over {config.sizes[0]} to {config.last} of the spectrum "
            f"{exponent['spectrum'][i].mean():.3f}, in D {exponent['samples'][i].mean():.3f}, in P {exponent['features'][i].mean():.3f}; "
            f"up to {config.sizes[-1]} in D {wide['D']:.3f}, in P {wide['P']:.3f}"
        )
