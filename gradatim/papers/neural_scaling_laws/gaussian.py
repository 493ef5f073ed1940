"""C1: the four regimes of regression on normal features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from gradatim.lab import Findings, Measure, Session
from gradatim.landscape import (
    fit_variance_limited,
    loss_of_features,
    loss_of_samples,
    power_law_spectrum,
    random_feature_loss,
    spectral_learning_curve,
)
from gradatim.numerics import local_exponents

from .config import Gaussian
from .measuring import largest_deviation, normals, slope


def run_gaussian(config: Gaussian, session: Session, key: PRNGKeyArray) -> Findings:
    """Losses in samples and in features beside the theory of the spectrum, and excess losses where one of the two is few."""
    keys = jax.random.split(key, 2)
    sizes, long = np.array(config.sizes), np.array(config.long_sizes)
    resolved = session.once("losses where resolution limits", _resolved, config, keys[0])
    excess = session.once("losses where variance limits", _excess, config, keys[1])

    ratios = {name: [Measure.over_seeds(row) for row in (resolved[name] / resolved["theory"]).T] for name in ("samples", "features")}
    farthest = {name: largest_deviation(measures) for name, measures in ratios.items()}
    fits = {name: fit_variance_limited(long, excess[name], excess[f"{name}_limit"]) for name in ("samples", "features")}
    exact = -np.polyfit(np.log(long), np.log(config.few / (long - config.few - 1)), 1)[0]
    local = local_exponents(jnp.asarray(sizes, jnp.float64), jnp.asarray(resolved["theory"]))
    session.note(
        f"C1: loss over the theory at {sizes.tolist()}: "
        + ", ".join(
            f"in {letter} {[f'{m.value:.4f}' for m in ratios[name]]}, farthest at {letter} = {sizes[farthest[name][0]]}"
            for name, letter in (("samples", "D"), ("features", "P"))
        )
        + f"; exponents of the theory between sizes {[f'{-e:.4f}' for e in local]}; "
        f"the exact exponent of n/(N - n - 1) over N = {long.tolist()} at n = {config.few} is {exact:.4f}"
    )
    data = xr.Dataset(
        {
            "samples": (("draw", "size"), resolved["samples"], {"units": "1", "long_name": "2S L(D)"}),
            "features": (("draw", "size"), resolved["features"], {"units": "1", "long_name": "2S L(P)"}),
            "theory": ("size", resolved["theory"], {"units": "1"}),
            "excess_samples": (("long_draw", "long_size"), excess["samples"] - excess["samples_limit"][:, None], {"units": "1"}),
            "excess_features": (("long_draw", "long_size"), excess["features"] - excess["features_limit"][:, None], {"units": "1"}),
            "limit_samples": ("long_draw", excess["samples_limit"], {"units": "1"}),
            "limit_features": ("long_draw", excess["features_limit"], {"units": "1"}),
        },
        {"size": sizes, "long_size": long},
        {"few": config.few, "exponent": config.exponent},
    )
    measures = {
        "C1.variance_data_slope": slope(fits["samples"]),
        "C1.variance_parameter_slope": slope(fits["features"]),
        "C1.resolution_data_deviation": farthest["samples"][1],
        "C1.resolution_parameter_deviation": farthest["features"][1],
    }
    return Findings(measures, xr.DataTree.from_dict({"gaussian": data}))


def _resolved(config: Gaussian, key: PRNGKeyArray) -> dict[str, np.ndarray]:
    spectrum, sizes = power_law_spectrum(config.exponent, config.features), jnp.array(config.sizes)
    Z, W = normals(key, 2, config.draws, max(config.sizes), config.features)
    samples = [loss_of_samples(spectrum, jnp.asarray(rows), sizes).loss for rows in Z * np.sqrt(spectrum)]
    features = [loss_of_features(spectrum, jnp.asarray(rows), sizes).loss for rows in W]
    return {
        "samples": 2 * config.features * np.array(samples),
        "features": 2 * config.features * np.array(features),
        "theory": np.asarray(spectral_learning_curve(spectrum, sizes).loss),
    }


def _excess(config: Gaussian, key: PRNGKeyArray) -> dict[str, np.ndarray]:
    """For every draw the losses at few features and many samples, at few samples and many features, and their limits."""
    spectrum, long = power_law_spectrum(config.exponent, config.few_features), jnp.array(config.long_sizes)
    few, root = jnp.full(len(config.long_sizes), config.few), np.sqrt(spectrum)
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("samples", "features", "samples_limit", "features_limit")}
    for one in jax.random.split(key, config.long_draws):
        many = normals(one, 2, max(config.long_sizes) + config.few, config.few_features)
        (Z, W), (W_long, Z_few) = ((rows[: -config.few], rows[-config.few :]) for rows in many)
        Phi, Pr, Pr_long, Phi_few = (jnp.asarray(rows) for rows in (Z * root, W, W_long, Z_few * root))
        found["samples"].append(np.asarray(random_feature_loss(spectrum, Phi, Pr, long, few).loss))
        found["samples_limit"].append(np.asarray(loss_of_features(spectrum, Pr, few[:1]).loss)[0])
        found["features"].append(np.asarray(random_feature_loss(spectrum, Phi_few, Pr_long, few, long).loss))
        found["features_limit"].append(np.asarray(loss_of_samples(spectrum, Phi_few, few[:1]).loss)[0])
    return {name: np.array(values) for name, values in found.items()}
