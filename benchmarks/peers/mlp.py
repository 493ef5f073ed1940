"""The network and the data whose Hessian all peers are given: numpy alone, so that any environment can make the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

WIDTHS = {"105k": 288, "994k": 960}
"Units of each of the two hidden layers: 104,842 and 994,570 parameters."
EXAMPLES, FEATURES, CLASSES, STEPS, TOP = 1797, 64, 10, 100, 20


TOP_VALUES = {"105k": (0.75979, 0.69345, 0.64775, 0.57895, 0.51884), "994k": (0.30987, 0.20363, 0.16997, 0.14518, 0.11908)}
"The five largest eigenvalues, on which curvlinops and hessian-eigenthings agree to 5e-5: what everyone must find."
AGREEMENT = 2e-4
"Relative: single precision, and sums in another order."


def data() -> tuple[np.ndarray, np.ndarray]:
    """As many examples, features and classes as scikit-learn's digits: Gaussian clusters of unit scale, float32."""
    random = np.random.default_rng(0)
    labels = np.arange(EXAMPLES) % CLASSES
    centres = random.normal(size=(CLASSES, FEATURES))
    return (centres[labels] + random.normal(size=(EXAMPLES, FEATURES))).astype(np.float32), labels.astype(np.int32)


def trained(width: int, *, steps: int = 100, rate: float = 0.1) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (out, in) and biases of a ReLU network after He's initialisation and `steps` of gradient descent."""
    random = np.random.default_rng(1)
    inputs, labels = data()
    sizes = (FEATURES, width, width, CLASSES)
    layers = [(random.normal(0, np.sqrt(2 / m), (n, m)).astype(np.float32), np.zeros(n, np.float32)) for m, n in pairwise(sizes)]
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    for _ in range(steps):
        activations = [inputs]
        for weight, bias in layers[:-1]:
            activations.append(np.maximum(activations[-1] @ weight.T + bias, 0))
        logits = activations[-1] @ layers[-1][0].T + layers[-1][1]
        shares = np.exp(logits - logits.max(1, keepdims=True))
        slope = (shares / shares.sum(1, keepdims=True) - targets) / np.float32(EXAMPLES)
        for i in reversed(range(3)):
            weight, bias = layers[i]
            layers[i] = (weight - rate * slope.T @ activations[i], bias - rate * slope.sum(0))
            slope = (slope @ weight) * (activations[i] > 0)
    return [(np.asarray(weight, np.float32), np.asarray(bias, np.float32)) for weight, bias in layers]
