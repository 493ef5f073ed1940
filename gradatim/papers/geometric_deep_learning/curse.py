"""How many examples a merely Lipschitz function takes, and how many a symmetry saves (C15). On the host."""

from __future__ import annotations

import jax
import numpy as np
import xarray as xr

from gradatim.lab import Measure, Session, host_generator

from .config import Curse

DIMENSIONS = (2, 4)
"In which the error's slope is compared."
SYMMETRY_DIMENSION = 2
"In which the symmetries of the square act."


def curse(config: Curse, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """Nearest neighbours in two and in four dimensions, and with the symmetries of the square built in."""
    random = host_generator(jax.random.fold_in(session.key, 22))

    def measure() -> dict[str, np.ndarray]:
        errors = np.array([[_errors(config, dim, random) for dim in DIMENSIONS] for _ in range(config.seeds)])
        return {"error": errors, "saved": np.array([_saved(config, random) for _ in range(config.seeds)])}

    found = session.once("nearest neighbours", measure)
    logs = np.log(np.asarray(config.sizes, float))
    slopes = np.polynomial.polynomial.polyfit(logs, np.log(found["error"]).reshape(-1, len(logs)).T, 1)[1].reshape(config.seeds, -1)
    saving = np.exp(np.log(found["saved"]).mean(axis=1))
    session.note(
        f"C15: error over examples falls with powers {slopes[:, 0].mean():.3f} in two and {slopes[:, 1].mean():.3f} in four dimensions; "
        f"the eight symmetries of the square save {8 * saving.mean():.2f} times the examples"
    )
    measures = {
        "C15.exponent_ratio": Measure.paired(-slopes[:, 1], -slopes[:, 0], "log-ratio"),
        "C15.saving_over_group_order": Measure.over_seeds(saving),
    }
    data = xr.Dataset(
        {
            "error": (("seed", "dimension", "examples"), found["error"], {"units": "1", "long_name": "mean absolute error"}),
            "slope": (("seed", "dimension"), slopes, {"units": "1"}),
            "saving": (
                ("seed", "symmetric_examples"),
                found["saved"],
                {"units": "1", "long_name": "examples saved over the order"},
            ),
        },
        {"dimension": list(DIMENSIONS), "examples": list(config.sizes), "symmetric_examples": list(config.saving_sizes)},
    )
    return measures, data


def _nearest_error(examples: np.ndarray, labels: np.ndarray, points: np.ndarray, truth: np.ndarray) -> float:
    from scipy.spatial import KDTree

    nearest = KDTree(examples, boxsize=1.0).query(points)[1]
    return float(np.abs(labels[nearest] - truth).mean())


def distance(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """To the nearest of some places of the unit torus: a Lipschitz function, and no smoother."""
    from scipy.spatial import KDTree

    return KDTree(centres, boxsize=1.0).query(points)[0]


def images_of_square(points: np.ndarray) -> np.ndarray:
    """Each point of the unit torus under the eight symmetries of the square, shape `(8, n, 2)`."""
    x, y = points.T
    turned = [(x, y), (-y, x), (-x, -y), (y, -x), (y, x), (-x, y), (-y, -x), (x, -y)]
    return _wrapped(np.stack([np.stack(pair, axis=1) for pair in turned]))


def _wrapped(points: np.ndarray) -> np.ndarray:
    # A tiny negative number wraps to 1 itself, which the tree refuses.
    wrapped = points % 1.0
    return np.where(wrapped >= 1.0, 0.0, wrapped)


def _errors(config: Curse, dim: int, random: np.random.Generator) -> list[float]:
    centres, points = random.random((config.centres, dim)), random.random((config.test, dim))
    examples = random.random((config.sizes[-1], dim))
    truth, labels = distance(points, centres), distance(examples, centres)
    return [_nearest_error(examples[:n], labels[:n], points, truth) for n in config.sizes]


def _saved(config: Curse, random: np.random.Generator) -> list[float]:
    """Examples without the symmetry for the error that a few have with it, over those few times eight."""
    centres = images_of_square(random.random((config.centres, SYMMETRY_DIMENSION))).reshape(-1, SYMMETRY_DIMENSION)
    points = random.random((config.test, SYMMETRY_DIMENSION))
    truth = distance(points, centres)
    most = 16 * config.saving_sizes[-1]
    examples = random.random((most, SYMMETRY_DIMENSION))
    labels = distance(examples, centres)
    # Half powers of two from as many as with it to sixteen times as many.
    n_points = 1 + 2 * round(np.log2(most / config.saving_sizes[0]))
    sizes = np.round(np.geomspace(config.saving_sizes[0], most, n_points)).astype(int)
    plain = np.log([_nearest_error(examples[:n], labels[:n], points, truth) for n in sizes])
    # A line through all of them: single points of the curve are noisy.
    intercept, slope = np.polynomial.polynomial.polyfit(np.log(sizes), plain, 1)
    saved = []
    for n in config.saving_sizes:
        fresh = random.random((n, SYMMETRY_DIMENSION))
        everywhere = images_of_square(fresh).reshape(-1, SYMMETRY_DIMENSION)
        error = np.log(_nearest_error(everywhere, np.tile(distance(fresh, centres), 8), points, truth))
        saved.append(float(np.exp((error - intercept) / slope)) / (8 * n))
    return saved
