"""Numbers of trained networks as measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from gradatim.lab import Measure, Session, time_to_target

Criterion = Literal["at least", "at most"]
GENERALISED = 0.9
"Test accuracy that counts as having generalised."


def crossings(constants: Sequence[float], accuracies: Float[np.ndarray, "seeds constants"]) -> Float[np.ndarray, " seeds"]:
    """The constant at which each seed's test accuracy first comes to one half, interpolated; the end of the grid where it lies beyond.

    >>> import numpy as np
    >>> crossings([2.0, 3.0, 4.0], np.array([[0.0, 0.25, 0.75], [0.6, 1.0, 1.0], [0.0, 0.1, 0.2]])).tolist()
    [3.5, 2.0, 4.0]
    """
    c = np.asarray(constants, float)
    found = np.full(len(accuracies), c[-1])
    for seed, row in enumerate(accuracies):
        above = np.flatnonzero(row >= 0.5)
        if len(above):
            i = above[0]
            found[seed] = c[0] if i == 0 else c[i - 1] + (c[i] - c[i - 1]) * (0.5 - row[i - 1]) / (row[i] - row[i - 1])
    return found


def epochs_to_generalise(accuracy: Float[np.ndarray, "steps r"], steps: np.ndarray) -> Float[np.ndarray, " r"]:
    """Of each replica, inf where it does not; a network is generalising from the first look on only if it was trained."""
    return time_to_target(accuracy[1:].T, steps[1:], GENERALISED, maximise=True)


def epoch_ratio(
    session: Session,
    part: str,
    ours: Float[np.ndarray, " seeds"],
    control: Float[np.ndarray, " seeds"],
    *,
    last: int,
    criterion: Criterion,
) -> Measure | str:
    """The geometric mean of paired ratios; a run that has not generalised by the end counts as if it then had.

    **Returns:** the measure, or the reason why there is none: where such a count would speak for the claim.
    """
    session.note(f"{part}: epochs to {100 * GENERALISED:g} % test accuracy, seed by seed: {ours.tolist()} over {control.tolist()}")
    if (np.isinf(ours) & np.isinf(control)).any():
        return f"neither way generalises within {last} epochs from every seed"
    measure = Measure.paired(np.minimum(ours, last), np.minimum(control, last), "log-ratio")
    is_lower_bound, is_upper_bound = np.isinf(ours).any(), np.isinf(control).any()
    value = measure.intervals()[0][0]
    flatters = (is_upper_bound and value >= 1) if criterion == "at least" else (is_lower_bound and value <= 1)
    if flatters:
        return f"some seeds do not generalise within {last} epochs, and counting them as if they then did would speak for the claim"
    if is_lower_bound or is_upper_bound:
        session.note(f"{part}: the ratio is a bound, for some seeds do not generalise within {last} epochs")
    return measure
