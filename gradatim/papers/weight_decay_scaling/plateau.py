"""Three rules over the widths, and the last quarter of a run, by which the weights have settled."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradatim.lab import Session
from gradatim.optim import RateAndDecay, WidthScaling, relaxation_steps

RULES: dict[str, Callable[[int, int], WidthScaling]] = {
    "constant": WidthScaling.constant_decay,
    "root": WidthScaling.square_root_decay,
    "proportional": WidthScaling.independent_decay,
}
NAMES = {"constant": "λ constant", "root": "λ ∝ √width", "proportional": "λ ∝ width"}
Pair = Sequence[float]
"Learning rate and decay."
N_LOOKS = 20
"Parts of a run, of which those in the last quarter end with a look."
SETTLED = 0.75
"Share of a run after which it is looked at."


def matrix_pairs(base_width: int, width: int, rate: float, decay: float) -> dict[str, RateAndDecay]:
    """η and λ of the matrices by every rule."""
    return {name: rule(base_width, width).scale(rate, decay)["matrix"] for name, rule in RULES.items()}


def note_waits(session: Session, pairs: Mapping[str, Pair], names: Mapping[str, str], where: str, steps: int) -> None:
    """A note for every pair of rate and decay whose weights have not settled when a run of `steps` is looked at."""
    for name, pair in pairs.items():
        with warnings.catch_warnings(record=True):  # η λ > 0.1 only makes the wait shorter
            wait = relaxation_steps(*pair)
        if wait > SETTLED * steps:
            session.note(f"{names[name]}, {where}: its steady state takes {wait} steps, not reached when measured")


def late_means(session: Session, step: Any, states: Any, *, steps: int, args: Any, watch: Any, label: str) -> dict[str, np.ndarray]:
    """What is watched, its mean over the last quarter of a run; before, nothing is.

    **Arguments:** `step(states, i, args)`: must know by the states, not by `i`, how many steps are done.
    """
    every = max(steps // N_LOOKS, 1)
    early = int(SETTLED * steps) // every * every
    common: dict[str, Any] = {"args": args, "every": every, "on_nonfinite": "keep"}
    settled = session.loop(step, states, steps=early, label=f"{label}, until it is settled", **common).state
    history = session.loop(step, settled, steps=steps - early, watch=watch, label=label, **common).history
    late = history["step"] > 0
    return {name: values[late].mean(0) for name, values in history.items() if name != "step"}
