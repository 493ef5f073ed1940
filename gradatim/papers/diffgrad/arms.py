"""What is compared: functions of one variable, optimisers, activations; their names and colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from gradatim.lab import plots
from gradatim.optim import diffgrad, notched_valley, ramp_to_waves, two_parabolas

OBJECTIVES = {"f1": two_parabolas, "f2": ramp_to_waves, "f3": notched_valley}
# Each optimiser from its customary rate times a factor; the sweep's grid is one of factors, so that all get the same.
OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "sgdm": lambda factor: optax.sgd(0.01 * factor, momentum=0.9),
    "adagrad": lambda factor: optax.adagrad(0.01 * factor),
    "adadelta": lambda factor: optax.adadelta(1.0 * factor),
    "rmsprop": lambda factor: optax.rmsprop(0.001 * factor, decay=0.99),
    "amsgrad": lambda factor: optax.amsgrad(0.001 * factor),
    "adam": lambda factor: optax.adam(0.001 * factor),
    "adam_half": lambda factor: optax.adam(0.0005 * factor),
    "diffgrad": lambda factor: diffgrad(0.001 * factor),
}
NAMES = {
    "sgdm": "SGD, momentum",
    "adagrad": "AdaGrad",
    "adadelta": "AdaDelta",
    "rmsprop": "RMSProp",
    "amsgrad": "AMSGrad",
    "adam": "Adam",
    "adam_half": "Adam at half the rate",
    "diffgrad": "diffGrad",
}
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "gelu": jax.nn.gelu,
}
COLOURS = {"adam": plots.COLOURS[0], "diffgrad": plots.COLOURS[1], "adam_half": plots.COLOURS[2]}
