"""The five problems: with the authors' data, NumPy's legacy generator and seed 3124, and with data drawn from the key of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim import datasets
from gradatim.lab import Session, host_generator
from gradatim.optim import (
    AbstractHessian,
    ChebyshevResidual,
    EmpiricalFisher,
    ExactHessian,
    FisherTerm,
    GaussNewton,
    LinearResidual,
    LogisticRegression,
    LogSumExp,
    ResidualPower,
    RosenbrockResidual,
    WeightedGaussNewton,
    ZeroHessian,
    power_of_norm,
    value_at,
)

from .config import Config

Random = np.random.RandomState | np.random.Generator
SEED = 3124
"The authors'."
DESIGNS, TIMED = 103, 104
"Keys of the designs, and of those that are timed."
GAP = 1e-8
"Of the value, at which the methods stop."
POWER = 4
"Of the residual of linear and of Chebyshev equations."


class Problem(NamedTuple):
    """An objective, where to start, the metric, when to stop, its infimum and the Hessians to try."""

    objective: Callable[[Any], Any]
    start: Float[Array, " n"]
    metric: Float[Array, "n n"] | None
    stop: dict[str, Any]
    infimum: float
    hessians: dict[str, AbstractHessian]


def _residual(y: Array, objective: ResidualPower) -> Array:
    return objective.residual(y)


def _power_of_norm(u: Array, objective: ResidualPower) -> Array:
    return power_of_norm(u, objective.power)


def _scores(y: Array, objective: LogSumExp) -> Array:
    return objective.scores(y)


def _weights(u: Array, objective: LogSumExp) -> Array:
    return objective.weights(u)


def example_losses(y: Array, objective: LogisticRegression) -> Array:
    """The loss of each example."""
    return objective.losses(y)


GAUSS_NEWTON = GaussNewton(_residual, _power_of_norm)
"The two semidefinite terms of the Hessian of a power of a residual."
FISHER_TERM = FisherTerm(_residual, float(POWER))
WEIGHTED = WeightedGaussNewton(_scores, _weights)


def authors() -> np.random.RandomState:
    """Where the authors' data come from: begun anew for each problem."""
    return np.random.RandomState(SEED)


def generators(session: Session, purpose: int, n: int) -> list[np.random.Generator]:
    """One for each of n designs."""
    return [host_generator(key) for key in jax.random.split(jax.random.fold_in(session.key, purpose), n)]


def log_sum_exp(n: int, random: Random) -> Problem:
    """As many exponentials as unknowns, the minimum shifted to the origin, in the metric of the unshifted rows."""
    design, offset = random.uniform(-1, 1, (n, n)), random.uniform(-1, 1, n)
    objective = LogSumExp.centred(jnp.asarray(design.T), jnp.asarray(offset))
    infimum = eqx.filter_jit(value_at)(jnp.zeros(n), objective)
    hessians = {"exact": ExactHessian(), "weighted": WEIGHTED, "zero": ZeroHessian()}
    return Problem(objective, jnp.ones(n), jnp.asarray(design @ design.T), {"value_target": infimum + GAP}, float(infimum), hessians)


def linear_equations(shape: tuple[int, int], random: Random) -> Problem:
    """The fourth power of a linear residual, in the metric AᵀA, made definite."""
    matrix, offset = random.uniform(-1, 1, shape), random.uniform(-1, 1, shape[0])
    objective = ResidualPower(LinearResidual(jnp.asarray(matrix), jnp.asarray(offset)), POWER)
    metric = jnp.asarray(matrix.T @ matrix + 1e-8 * np.eye(shape[1]))
    hessians = {"exact": ExactHessian(), "Fisher term": FISHER_TERM, "zero": ZeroHessian()}
    return Problem(objective, jnp.ones(shape[1]), metric, {"value_target": jnp.asarray(GAP)}, 0.0, hessians)


def nonlinear_equations(residual: Any, power: int, start: np.ndarray) -> Problem:
    """A power of a nonlinear residual, in the Euclidean metric."""
    objective = ResidualPower(residual, power)
    hessians = {"exact": ExactHessian(), "Gauss–Newton": GAUSS_NEWTON}
    return Problem(objective, jnp.asarray(start), None, {"value_target": jnp.asarray(GAP)}, 0.0, hessians)


def logistic_regression(session: Session, penalty: float, *, intercept: bool = False) -> Problem:
    """Breast-cancer data with standardised columns: a plane separates the classes, but none through the means (no intercept)."""
    table = datasets.breast_cancer()
    session.uses(table.provenance)
    features = (table.features - table.features.mean(0)) / table.features.std(0)
    if intercept:
        features = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    objective = LogisticRegression(jnp.asarray(features * (2 * table.labels - 1)[:, None]), jnp.asarray(penalty))
    # The penalty is given as an array even if it is zero, so that both runs have one program.
    hessians = {"exact": ExactHessian(), "Fisher": _PenalisedFisher(), "zero": ZeroHessian()}
    return Problem(objective, jnp.zeros(features.shape[1]), None, {"gradient_tol": jnp.asarray(1e-6)}, 0.0, hessians)


class _PenalisedFisher(AbstractHessian):
    def __call__(self, fn: Any, y: Any, args: Any) -> Any:
        """Fisher's matrix with the penalty that the objective has."""
        return EmpiricalFisher(example_losses, args.penalty)(fn, y, args)


def drawn_problems(config: Config, source: Callable[[], Random]) -> dict[str, Problem]:
    """The problems whose data or start are random, by name: one design."""
    problems = {f"LogSumExp {n}": log_sum_exp(n, source()) for n in config.log_sum_exp}
    problems["linear equations"] = linear_equations(config.equations, source())
    for n in config.chebyshev:
        problems[f"Chebyshev {n}"] = nonlinear_equations(ChebyshevResidual(), POWER, source().uniform(size=n))
    return problems


def five_problems(config: Config, session: Session) -> dict[str, Problem]:
    """Every problem of the paper with the authors' data, by name."""
    problems = drawn_problems(config, authors)
    for power in config.powers:
        problems[f"Rosenbrock, p = {power}"] = nonlinear_equations(RosenbrockResidual(), power, np.array([-2.0, 2.0]))
    problems["logistic regression"] = logistic_regression(session, config.penalty)
    return problems


def designs(config: Config, session: Session) -> Iterator[dict[str, Problem]]:
    """The random problems once more, drawn from the key of the run: of the authors' shapes, so that each has its compiled program."""
    return (drawn_problems(config, lambda random=random: random) for random in generators(session, DESIGNS, config.designs))
