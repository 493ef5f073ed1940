"""C6: joined classes and noisy inputs, for regression with a wide network's kernel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from scipy import linalg

from gradatim.datasets import load
from gradatim.lab import Findings, Measure, Session, host_generator
from gradatim.landscape import wide_kernels

from .config import Labels
from .measuring import exponents, normals

TARGETS = ("10 digits", "5 pairs", "odd or even")
N_TEST = 1000
JITTER = 1e-10
"Of the kernel's mean diagonal: keeps the factorisation from failing on images that repeat."


def run_labels(config: Labels, session: Session, key: PRNGKeyArray) -> Findings:
    """Exponents in samples of ten classes and of the same joined, and at each noise."""
    parts = {split: load(config.data, split=split) for split in ("train", "test")}
    session.uses(parts["train"].provenance)
    keys = jax.random.split(key, config.seeds)
    losses = np.array(
        [
            session.once(f"classes, noise {noise:g}, seed {i}", _losses, config, parts, noise, k)
            for noise in config.noise
            for i, k in enumerate(keys)
        ]
    ).reshape(len(config.noise), config.seeds, len(config.sizes), len(TARGETS))
    window = (min(config.sizes), max(config.sizes))
    exponent = np.array([[exponents(config.sizes, noisy[..., t], window) for noisy in losses] for t in range(len(TARGETS))])
    session.note(
        "C6: exponents "
        + "; ".join(
            f"{target}: {', '.join(f'{e:.3f} at noise {noise:g}' for e, noise in zip(rows.mean(axis=1), config.noise, strict=True))}"
            for target, rows in zip(TARGETS, exponent, strict=True)
        )
        + f"; loss at the most samples, 10 digits: {losses[:, :, -1, 0].mean(axis=1).round(3).tolist()}, where 0.9 is that of no answer"
    )
    data = xr.Dataset(
        {
            "loss": (
                ("noise", "seed", "size", "target"),
                losses,
                {"units": "1", "long_name": "squared distance to centred one-hot labels"},
            ),
            "exponent": (("target", "noise", "seed"), exponent, {"units": "1"}),
        },
        {"noise": list(config.noise), "size": list(config.sizes), "target": list(TARGETS)},
    )
    measures = {
        "C6.joined_classes_change": Measure.paired(exponent[1, 0], exponent[0, 0]),
        "C6.noise_order": Measure.paired_sequence(list(exponent[0])),
    }
    return Findings(measures, xr.DataTree.from_dict({"labels": data}))


def _losses(config: Labels, parts: dict, noise: float, key: PRNGKeyArray) -> np.ndarray:
    """Test losses with axes (size, target): every subset begins the next larger one."""
    key_order, key_noise = jax.random.split(key)
    most = max(config.sizes)
    order = host_generator(key_order).permutation(len(parts["train"]))[:most]
    images = np.concatenate([parts["train"].images[order], parts["test"].images[:N_TEST]]).astype(np.float64)
    labels = np.concatenate([parts["train"].labels[order], parts["test"].labels[:N_TEST]])
    rows = images.reshape(len(images), -1)
    noisy = jnp.asarray(rows + noise * normals(key_noise, *rows.shape))
    kernel = np.asarray(wide_kernels(noisy, noisy[:most], n_hidden=1).ntk)
    digits = np.eye(10)[labels] - 0.1
    # Regression is linear in the targets: joined classes are sums of columns.
    pairs = np.kron(np.eye(5), np.ones((2, 1)))
    parity = np.tile(np.eye(2), (5, 1))
    found = []
    for size in config.sizes:
        gram = kernel[:size, :size] + JITTER * np.trace(kernel[:size, :size]) / size * np.eye(size)
        weights = linalg.solve(gram, digits[:size], assume_a="pos", check_finite=False)
        wrong = kernel[most:, :size] @ weights - digits[most:]
        found.append([np.mean(np.sum((wrong @ joined) ** 2, axis=1)) for joined in (np.eye(10), pairs, parity)])
    return np.array(found)
