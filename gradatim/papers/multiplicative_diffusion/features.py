"""Fréchet distances between images as a small classifier sees them, which the run trains itself: no figure to compare with others'."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gradatim.lab import Session

UNITS = 64
"Of the hidden layer, whose values are the features."


class Features(NamedTuple):
    """A hidden layer, and how often its classifier is right."""

    weights: Float[np.ndarray, "dim units"]
    biases: Float[np.ndarray, " units"]
    accuracy: float

    def of(self, images: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n units"]:
        """What the layer says."""
        return np.maximum(images @ self.weights + self.biases, 0)


def fit(session: Session, training: np.ndarray, labels: np.ndarray, held_out: np.ndarray, held_out_labels: np.ndarray) -> Features:
    """One hidden layer, trained on the classes of the training images."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    def run() -> tuple[np.ndarray, np.ndarray, float]:
        with warnings.catch_warnings():
            # Features are asked for, not the last digit of a loss.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = MLPClassifier((UNITS,), max_iter=100, random_state=0).fit(training, labels)
        return found.coefs_[0], found.intercepts_[0], float(found.score(held_out, held_out_labels))

    return Features(*session.once("classifier", run))


def frechet(a: Float[np.ndarray, "n units"], b: Float[np.ndarray, "m units"]) -> float:
    """‖μ - ν‖² + tr(A + B - 2 (A^½ B A^½)^½), between normal laws with the means and covariances of two samples.

    >>> points = np.random.default_rng(0).normal(size=(500, 3))
    >>> print(f"{frechet(points, points + 2):.3f} {frechet(points, 3 * points) / np.var(points, axis=0).sum():.1f}")
    12.000 4.0
    """
    (mean_a, a), (mean_b, b) = ((x.mean(axis=0), np.atleast_2d(np.cov(x.T, bias=True))) for x in (a, b))
    values, vectors = np.linalg.eigh(a)
    half = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    middle = np.sqrt(np.maximum(np.linalg.eigvalsh(half @ b @ half), 0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * middle)
