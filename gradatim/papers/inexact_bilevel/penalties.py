"""A penalty for each weight of a softmax classifier of digits, learned on validation digits (C5)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool
from scipy import special

from gradatim.datasets import load
from gradatim.implicit import AbstractBilevel, BilevelStep, RidgeLogistic, certified_loss, hoag, maid
from gradatim.lab import Session

from .config import Penalties

CLASSES = 10
SCHEDULES = {"geometric": lambda k: 0.9**k, "quadratic": lambda k: (k + 1.0) ** -2, "cubic": lambda k: (k + 1.0) ** -3}
"εₖ of HOAG, for k = 0, 1, …"
PUBLISHED: dict[str, Any] = {
    "share": 1e-4, "decrease": 1e-8, "step_shrink": 0.9, "step_growth": 10 / 9, "tighten": 0.5, "loosen": 1.05, "max_backtracks": 10,
}  # fmt: skip
"Of the authors' script for these penalties, which runs with the defaults of their loop, not with those of their other experiments."
ADAPTIVE: dict[str, dict[str, Any]] = {"adaptive": {}, "adaptive as published": PUBLISHED}
RULES = (*ADAPTIVE, *SCHEDULES)
ARMS = (*RULES, *(f"{name}, certified" for name in RULES))
"Certified: distances by the strong convexity that is certain, not by the assumed one."
PRECISE = 3e-3
"Accuracy of the gradient from which the first step follows."
ASSUMED_GAP = 1e-3
"L - μ in the authors' code."


class AssumedPenalties(AbstractBilevel):
    """A ridge-logistic problem whose strong convexity is what is certain, or what the authors' code assumes: nearly the smoothness."""

    problem: RidgeLogistic
    is_assumed: Bool[Array, ""]

    def upper(self, x: Any) -> Any:
        """As the problem's."""
        return self.problem.upper(x)

    def lower(self, x: Any, theta: Any) -> Any:
        """As the problem's."""
        return self.problem.lower(x, theta)

    def strong_convexity(self, theta: Any) -> Any:
        """Min e^θ, or L - 1e-3."""
        return jnp.where(self.is_assumed, self.problem.smoothness(theta) - ASSUMED_GAP, self.problem.strong_convexity(theta))

    def smoothness(self, theta: Any) -> Any:
        """As the problem's."""
        return self.problem.smoothness(theta)

    def upper_smoothness(self) -> Any:
        """As the problem's."""
        return self.problem.upper_smoothness()

    def hessian_lipschitz(self, theta: Any) -> Any:
        """As the problem's."""
        return self.problem.hessian_lipschitz(theta)

    def cross_lipschitz(self, theta: Any) -> Any:
        """As the problem's."""
        return self.problem.cross_lipschitz(theta)

    def cross_norm(self, x: Any, theta: Any) -> Any:
        """As the problem's."""
        return self.problem.cross_norm(x, theta)

    def is_upper_convex(self) -> bool:
        """As the problem's."""
        return self.problem.is_upper_convex()


def run_penalties(config: Penalties, session: Session) -> dict[str, xr.Dataset]:
    """Every shuffle by every arm, with equal work, from the same first step."""
    parts = [load("digits", split=split) for split in ("train", "test")]
    session.uses(parts[0].provenance)
    features = np.concatenate([part.images.reshape(len(part), -1) for part in parts]).astype(np.float64)
    labels = np.concatenate([part.labels for part in parts])
    key = np.asarray(jax.random.key_data(session.key)).tolist()
    grid = np.geomspace(config.work / 50, config.work, config.looks)
    rows = []
    for i in range(config.shuffles):
        order = np.random.default_rng([*key, 1, i]).permutation(len(labels))

        def compared(order: Any = order) -> list:
            thirds = [order[j * config.samples : (j + 1) * config.samples] for j in range(3)]
            data = [(features[rows], labels[rows]) for rows in thirds]
            return compare(config, data, grid)

        rows.append(session.once(f"penalties, shuffle {i}", compared))
    names = ("loss", "untouched_loss", "untouched_accuracy", "accuracy", "step_size")
    units = ("nat", "nat", "1", "of the weights", "1")
    curves = {
        name: (("shuffle", "arm", "work"), np.array([[run[name] for run in row] for row in rows]), {"units": unit})
        for name, unit in zip(names, units, strict=True)
    }
    steps = np.array([[run["steps"] for run in row] for row in rows])
    first = np.array([[run["first_loss"] for run in row] for row in rows])[:, 0]
    return {
        "penalties": xr.Dataset(
            {**curves, "steps": (("shuffle", "arm"), steps, {"units": "1"}), "first_loss": ("shuffle", first, {"units": "nat"})},
            {"arm": list(ARMS), "work": grid},
        )
    }


def compare(config: Penalties, data: list[tuple[Any, Any]], grid: np.ndarray) -> list[dict[str, Any]]:
    """All arms on one division of the digits."""
    (X, labels), (X_upper, labels_upper), (X_rest, labels_rest) = data
    base = RidgeLogistic.of(jnp.asarray(X), labels, jnp.asarray(X_upper), labels_upper, classes=CLASSES)
    assumed, certain = (AssumedPenalties(base, jnp.asarray(answer)) for answer in (True, False))
    theta = jnp.full((X.shape[1], CLASSES), config.start)
    x = jnp.zeros_like(theta)
    limits: dict[str, Any] = {"work_limit": config.work, "max_steps": 10**6, "max_lower_gradients": config.work}
    precise = hoag(certain, theta, x, schedule=lambda k: PRECISE, max_steps=1, max_lower_gradients=10**6)
    # HOAG's own first step, 1/Λ₀, at a precise gradient: it has the length √d.
    first_step = theta.size**0.5 / precise.history.gradient_norm[0]
    runs = {}
    for problem, ending in ((assumed, ""), (certain, ", certified")):
        for name, schedule in SCHEDULES.items():
            steps: list[BilevelStep] = []
            found = hoag(problem, theta, x, schedule=schedule, callback=steps.append, **limits)
            runs[name + ending] = (steps, found.history)
        for name, settings in ADAPTIVE.items():
            steps = []
            found = maid(problem, theta, x, accuracy=config.accuracy, step_size=first_step, callback=steps.append, **settings, **limits)
            runs[name + ending] = (steps, found.history)
    return [_looked_at(config, certain, theta, (X_rest, labels_rest), grid, *runs[arm]) for arm in ARMS]


def _looked_at(config: Penalties, problem: Any, theta: Any, rest: Any, grid: np.ndarray, steps: list[BilevelStep], history: Any) -> dict:
    """The true loss at given amounts of work."""
    X, labels = rest

    def at(theta: Any, x: Any) -> tuple[Any, list[float]]:
        # The distance that this gradient certifies: a distance given in advance is out of reach where a penalty has all but vanished.
        distance = config.precision / float(np.exp(np.min(theta)))
        found = certified_loss(problem, theta, x, accuracy=distance, max_lower_gradients=max(config.work, 1000))
        if not found.certified:
            return found.x, [np.nan] * 3
        logits = X @ np.asarray(found.x)
        loss = np.mean(special.logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels])
        return found.x, [found.value, float(loss), float(np.mean(logits.argmax(1) == labels))]

    last = np.searchsorted(history.work, grid, side="right") - 1
    x, first = at(theta, jnp.zeros_like(theta))
    known, looked = {-1: first}, []
    for i in last.tolist():
        if i not in known:
            x, known[i] = at(steps[i].next_theta, x)
        looked.append(known[i])
    losses, untouched, right = np.array(looked).T
    values = {"accuracy": history.accuracy, "step_size": history.step_size}
    traces = {name: np.append(value, np.nan)[last] for name, value in values.items()}
    return {
        "loss": losses,
        "untouched_loss": untouched,
        "untouched_accuracy": right,
        "first_loss": first[0],
        "steps": len(steps),
        **traces,
    }
