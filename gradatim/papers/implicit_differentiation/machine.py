"""The multiclass support-vector machine in its dual form, and three solvers.

min over rows xᵢ in the simplex of θ/2 ‖W‖² + ⟨x, Y⟩,     W = Xᵀ(Y - x)/θ;     outer loss ½ ‖X' W - Y'‖² on validation samples
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from optax.projections import projection_simplex

from gradatim.implicit import entropic_descent, projected_gradient

Rows = Float[Array, "m k"]
project_rows = jax.vmap(projection_simplex)


class MachineData(NamedTuple):
    """Samples in rows, classes one-hot."""

    X: Float[Array, "m p"]
    Y: Rows
    X_validation: Float[Array, "v p"]
    Y_validation: Float[Array, "v k"]
    largest: Float[Array, ""]
    "The largest eigenvalue of XXᵀ."

    @classmethod
    def split(cls, X: np.ndarray, labels: np.ndarray, *, train: int) -> MachineData:
        """The first `train` samples to train on, the others to validate."""
        Y = np.eye(labels.max() + 1)[labels]
        parts = (X[:train], Y[:train], X[train:], Y[train:], np.linalg.norm(X[:train], ord=2) ** 2)
        return cls(*(jnp.asarray(part) for part in parts))

    @property
    def start(self) -> Rows:
        """The centre of every simplex."""
        return jnp.full_like(self.Y, 1 / self.Y.shape[1])


def weights(x: Rows, theta: Any, data: MachineData) -> Float[Array, "p k"]:
    """W, the machine itself."""
    return data.X.T @ (data.Y - x) / theta


def dual_objective(x: Rows, problem: tuple[Any, MachineData]) -> Float[Array, ""]:
    """The function of x that is minimised; `problem` is (θ, data)."""
    theta, data = problem
    return theta / 2 * jnp.sum(weights(x, theta, data) ** 2) + jnp.sum(x * data.Y)


def outer_loss(x: Rows, theta: Any, data: MachineData) -> Float[Array, ""]:
    """The squared validation loss, which depends on θ through x and by itself."""
    return jnp.sum((data.X_validation @ weights(x, theta, data) - data.Y_validation) ** 2) / 2


def projected_step(x: Rows, problem: tuple[Any, MachineData]) -> Rows:
    """One step of projected gradient descent at 1/L."""
    return projected_gradient(dual_objective, project_rows, stepsize=_rate(problem))(x, problem)


def mirror_step(x: Rows, problem: tuple[Any, MachineData]) -> Rows:
    """One step of mirror descent in the Kullback–Leibler geometry, at 1/L."""
    return entropic_descent(dual_objective, stepsize=_rate(problem))(x, problem)


def _rate(problem: tuple[Any, MachineData]) -> Any:
    theta, data = problem
    return jax.lax.stop_gradient(theta / data.largest)


def sweep(x: Rows, problem: tuple[Any, MachineData], gram: Float[Array, "m m"]) -> Rows:
    """Block coordinate descent: each row in turn by projected gradient at its own 1/L."""
    theta, data = problem
    # The scores XW of all samples, kept up to date: a row then costs a column of the Gram matrix.
    scores = gram @ (data.Y - x) / theta

    def row(scores: Any, entry: Any) -> Any:
        x, y, score_index, column, size = entry
        moved = projection_simplex(x - jax.lax.stop_gradient(theta) / size * (y - scores[score_index]))
        return scores - column[:, None] * ((moved - x) / theta)[None], moved

    return jax.lax.scan(row, scores, (x, data.Y, jnp.arange(len(x)), gram, jnp.diagonal(gram)))[1]


def block_coordinate_descent(x: Rows, theta: Any, data: MachineData, *, n_sweeps: int) -> Rows:
    """`n_sweeps` sweeps over all rows."""
    gram = data.X @ data.X.T
    return jax.lax.scan(lambda x, _: (sweep(x, (theta, data), gram), None), x, length=n_sweeps)[0]


def solvers(steps: int, sweeps: int) -> dict[str, Callable[[Rows, tuple[Any, MachineData]], Rows]]:
    """Each as `solve(init, (theta, data))`."""

    def repeated(step: Callable) -> Callable:
        return lambda init, problem: jax.lax.scan(lambda x, _: (step(x, problem), None), init, length=steps)[0]

    return {
        "mirror descent": repeated(mirror_step),
        "projected gradient": repeated(projected_step),
        "block coordinate descent": lambda init, problem: block_coordinate_descent(init, *problem, n_sweeps=sweeps),
    }
