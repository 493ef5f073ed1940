"""The peak on images: least squares on ten classes with random ReLU features (C7)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from gradatim.datasets import Dataset, load
from gradatim.lab import Findings, Measure, Session, host_generator
from gradatim.landscape import relu_features
from gradatim.numerics import least_squares

from .config import Digits

CLASSES = 10
FLOW_TIMES = np.geomspace(1.0, 1e8, 25)
"Of early stopping, over that of the largest eigenvalue."


def run_digits(config: Digits, session: Session) -> Findings:
    """C7: where over widths the error on the second half of the test images is largest, for each training set."""
    units = np.array([round(width * config.samples) for width in config.widths])

    # Units that a width has too few of are zeros: one program for all.
    @jax.jit
    def measure(key: Any, train: Any, labels: Any, test: Any, test_labels: Any) -> dict[str, Any]:
        layer = jax.random.normal(key, (units.max() * train.shape[1],)).reshape(units.max(), -1) / train.shape[1] ** 0.5
        features, unseen = relu_features(train, layer), relu_features(test, layer)
        half = len(test) // 2

        def student(width: Any) -> dict[str, Any]:
            is_unit = (jnp.arange(units.max()) < width)[None]
            problem = least_squares(jnp.where(is_unit, features, 0), labels)
            times = jnp.concatenate([FLOW_TIMES / problem.eigenvalues[-1], jnp.full(1, jnp.inf)])
            # Weights of masked units are zero.
            wrong = unseen[None] @ problem.gradient_flow(times).weights - test_labels[None]
            chooses, measured = (jnp.mean(jnp.sum(part**2, axis=2), axis=1) for part in (wrong[:, :half], wrong[:, half:]))
            return {"test": measured[-1], "stopped": measured[jnp.argmin(chooses)]}

        return jax.lax.map(student, jnp.asarray(units))

    rows = []
    for seed in range(config.seeds):
        key = jax.random.fold_in(session.key, seed)
        train, test = _images(config, jax.random.fold_in(key, 1))
        session.uses(train.provenance)
        session.uses(test.provenance)
        rows.append(session.once(f"images, training set {seed}", measure, key, *_arrays(train), *_arrays(test)))
    found = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in ("test", "stopped")}
    ratios = np.asarray(config.widths)
    session.note(
        f"{config.data}, mean squared test error by width: "
        + ", ".join(f"{w:g}: {m:.3g}" for w, m in zip(ratios, found["test"].mean(axis=0), strict=True))
        + "; stopped early: "
        + ", ".join(f"{m:.3g}" for m in found["stopped"].mean(axis=0))
    )
    data = xr.Dataset(
        {name: (("seed", "width"), values, {"units": "1"}) for name, values in found.items()},
        {"width": ("width", ratios, {"units": "units per image"})},
    )
    measures = {"C7.mnist_peak_ratio": Measure.over_seeds(ratios[found["test"].argmax(axis=1)])}
    return Findings(measures, xr.DataTree.from_dict({"digits": data}))


def _images(config: Digits, key: PRNGKeyArray) -> tuple[Dataset, Dataset]:
    """A training set of its own, and the test images in an order of its own: another half of them chooses when to stop."""
    of_training, of_test = host_generator(key).integers(2**63, size=2).tolist()
    train = load(config.data, n=config.samples, seed=of_training, pool=config.pool)
    return train, load(config.data, split="test", n=config.test, seed=of_test, pool=config.pool)


def _arrays(images: Dataset) -> tuple[Any, Any]:
    """Pixels, and classes as columns of mean zero."""
    pixels = jnp.asarray(images.images.reshape(len(images), -1), float)
    return pixels, jnp.asarray(np.eye(CLASSES)[images.labels] - 1 / CLASSES)
