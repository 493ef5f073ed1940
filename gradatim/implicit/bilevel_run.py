"""What the outer loops of bilevel descent share: compiled pieces, work counted, a history."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Float, Int, PyTree

from .bilevel_problem import AbstractBilevel
from .conditions import strong_arrays
from .inexact_hypergradient import hypergradient_error_bound, inexact_hypergradient, measured_cross_norm
from .inexact_line_search import loss_bounds
from .lower_level import solve_lower

Status = Literal["converged", "max_steps", "work_limit", "precision", "stalled"]
COLD, WARM = 20, 5
"Power iterations for ‖J‖ at the start, and at each step from then on."


@dataclass
class Work:
    """What was spent, failed trials and norms included."""

    lower_gradients: int = 0
    "Gradients of h in x"
    hessian_products: int = 0
    "Products with H"
    cross_products: int = 0
    "Products with J and Jᵀ"

    @property
    def total(self) -> int:
        """In gradients of h; a product costs two."""
        return self.lower_gradients + 2 * (self.hessian_products + self.cross_products)


class BilevelStep(NamedTuple):
    """One accepted step."""

    theta: PyTree
    "θ, where it starts"
    x: PyTree
    "x̄, with which z was computed"
    gradient: PyTree
    "z"
    next_theta: PyTree
    "θ₊, where it ends"
    loss: float
    "g(x̄)"
    upper_bound: float
    "U₊ of f(θ), infinite where nothing is certified"
    lower_bound: float
    "U₋ of f(θ), likewise"
    gradient_norm: float
    "‖z‖"
    error_bound: float
    "ω ≥ ‖z - ∇f(θ)‖, infinite where nothing is certified"
    accuracy: float
    "ε of x̄"
    tolerance: float
    "δ of q"
    step_size: float
    "α"
    lower_gradients: int
    "Spent until the step was accepted"
    hessian_products: int
    "Likewise"
    cross_products: int
    "Likewise"


class BilevelHistory(NamedTuple):
    """The numbers of every [`BilevelStep`][gradatim.implicit.BilevelStep], in order."""

    loss: Float[np.ndarray, " steps"]
    upper_bound: Float[np.ndarray, " steps"]
    lower_bound: Float[np.ndarray, " steps"]
    gradient_norm: Float[np.ndarray, " steps"]
    error_bound: Float[np.ndarray, " steps"]
    accuracy: Float[np.ndarray, " steps"]
    tolerance: Float[np.ndarray, " steps"]
    step_size: Float[np.ndarray, " steps"]
    lower_gradients: Int[np.ndarray, " steps"]
    hessian_products: Int[np.ndarray, " steps"]
    cross_products: Int[np.ndarray, " steps"]

    @property
    def work(self) -> Int[np.ndarray, " steps"]:
        """In gradients of h; a product costs two."""
        return self.lower_gradients + 2 * (self.hessian_products + self.cross_products)


class BilevelSolution(NamedTuple):
    """Where a bilevel descent ended."""

    theta: PyTree
    x: PyTree
    "The approximate lower solution at theta"
    loss: float
    "g(x)"
    status: Status
    """`converged`: ‖z‖ + ω ≤ stop_at; `max_steps`; `work_limit`; `precision`: an accuracy was needed that the dtype, or the lower
    solver's limit, does not allow; `stalled`: the accuracy is held fixed and certifies no step"""
    history: BilevelHistory
    work: Work


class Point(NamedTuple):
    """θ with its approximate lower solution."""

    theta: PyTree
    x: PyTree
    value: float
    slope: float
    accuracy: float
    certified: bool
    finest: float


class Slope(NamedTuple):
    """An inexact hypergradient with its norm and bound on the host."""

    gradient: PyTree
    norm: float
    bound: float
    certified: bool


@eqx.filter_jit
def _solve(problem: Any, theta: Any, gradient: Any, step_size: Any, x: Any, accuracy: Any, max_gradients: int) -> Any:
    moved = jax.tree.map(lambda a, b: a - step_size * b, theta, gradient)
    found = solve_lower(problem, moved, x, accuracy, max_gradients=max_gradients)
    value, slope = jax.value_and_grad(problem.upper)(found.x)
    constants = problem.strong_convexity(moved), problem.upper_smoothness()
    return moved, found.x, (value, optx.two_norm(slope), found.certified, found.finest, found.gradients, *constants)


@eqx.filter_jit
def _differentiate(problem: Any, theta: Any, x: Any, accuracy: Any, tolerance: Any, adjoint: Any, vector: Any, iterations: Any) -> Any:
    found = inexact_hypergradient(problem, theta, x, tolerance, adjoint=adjoint)
    norm = measured_cross_norm(problem, theta, x, vector, iterations=iterations)
    bound = hypergradient_error_bound(problem, theta, x, accuracy=accuracy, tolerance=tolerance, cross_norm=norm.value)
    host = (optx.two_norm(found.gradient), bound, found.certified, found.products, norm.products)
    return found.gradient, found.adjoint, norm.vector, host


class CertifiedLoss(NamedTuple):
    """What [`certified_loss`][gradatim.implicit.certified_loss] gives."""

    x: PyTree
    "The approximate lower solution"
    value: float
    "g(x)"
    lower_bound: float
    upper_bound: float
    certified: bool
    "Whether the bounds hold: the accuracy was reached"


def certified_loss(
    problem: AbstractBilevel, theta: PyTree, x: PyTree, *, accuracy: float, max_lower_gradients: int = 100_000
) -> CertifiedLoss:
    """f(θ) between two bounds, from a lower solution within `accuracy` of the exact one that starts at `x`.

    Shares its compiled program with [`maid`][gradatim.implicit.maid]; not for jit.

    >>> from gradatim.implicit import Bilevel
    >>> problem = Bilevel(
    ...     lambda x: (x - 1.0) ** 2 / 2, lambda x, theta: (x - theta) ** 2 / 2,
    ...     strong_convexity=1.0, smoothness=1.0, upper_smoothness=1.0, hessian_lipschitz=0.0, cross_lipschitz=0.0,
    ... )
    >>> found = certified_loss(problem, jnp.array(3.0), jnp.array(2.9), accuracy=0.2)
    >>> print(f"{found.lower_bound:.3f} ≤ f ≤ {found.upper_bound:.3f}")
    1.425 ≤ f ≤ 2.205
    """
    machinery = Machinery(problem, theta, x, max_lower_gradients)
    point = machinery.begin(accuracy)
    lower, upper = loss_bounds(point.value, point.slope, accuracy, machinery.upper_smoothness, problem.is_upper_convex())
    return CertifiedLoss(point.x, point.value, float(lower), float(upper), point.certified)


def _check_takes(names: str, what: str, objective: Callable[..., Any], *trees: PyTree) -> None:
    """Refuses trees that an objective cannot read, and an objective that is more than a number."""
    try:
        value = jax.eval_shape(objective, *trees)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        got = " and ".join(str(jax.eval_shape(lambda tree=tree: tree)) for tree in trees)
        raise ValueError(f"{names} must be what the {what} takes, got {got}: {type(error).__name__}: {error}") from error
    if jnp.shape(value) != ():
        raise ValueError(f"the {what} must be one number, got shape {jnp.shape(value)}")


class Machinery:
    """The compiled pieces for one problem, with warm starts and counters."""

    def __init__(self, problem: AbstractBilevel, theta: PyTree, x: PyTree, max_gradients: int) -> None:
        for name, tree in (("theta", theta), ("x", x)):
            leaves = jax.tree.leaves(tree)
            if not leaves or not all(eqx.is_inexact_array(leaf) for leaf in leaves):
                raise TypeError(f"{name} must hold floating-point arrays only, got {jax.tree.map(type, tree)}")
        _check_takes("x", "upper loss", problem.upper, x)
        _check_takes("x and theta", "lower objective", problem.lower, x, theta)
        self.problem, self.max_gradients, self.work = problem, max_gradients, Work()
        # Of one type from the first call on: a weakly typed array would be another program.
        theta, x = strong_arrays((theta, x))
        self.dtype = jnp.result_type(*jax.tree.leaves(x))
        self.still = jax.tree.map(jnp.zeros_like, theta)
        self.adjoint = jax.tree.map(jnp.zeros_like, x)
        self.vector = jnp.zeros(sum(leaf.size for leaf in jax.tree.leaves(theta)), jnp.result_type(*jax.tree.leaves(theta)))
        self._is_warm, self._begin = False, (theta, self.still, 0.0, x)
        self.upper_smoothness = math.nan

    def solve(self, theta: PyTree, gradient: PyTree, step_size: float, x: PyTree, accuracy: float) -> Point:
        """The lower problem at θ - α z, from x."""
        number = self._number
        moved, x, host = _solve(self.problem, theta, gradient, number(step_size), x, number(accuracy), self.max_gradients)
        value, slope, certified, finest, count, mu, smoothness = jax.device_get(host)
        if not mu > 0:
            raise ValueError(f"the problem's strong_convexity must be positive at theta, got {mu}")
        self.upper_smoothness = float(smoothness)
        self.work.lower_gradients += int(count)
        return Point(moved, x, float(value), float(slope), accuracy, bool(certified) and bool(np.isfinite(value)), float(finest))

    def begin(self, accuracy: float) -> Point:
        """The lower problem where the run begins."""
        return self.solve(*self._begin, accuracy)

    def start(self, accuracy: float) -> Point:
        """The first point, from where the run begins.

        **Raises:** `ValueError` for an accuracy that cannot be certified, or a loss that is not finite.
        """
        point = self.begin(accuracy)
        if not (np.isfinite(point.value) and np.isfinite(point.finest)):
            raise ValueError(
                f"the upper loss and the lower gradient must be finite at the start, got a loss of {point.value}"
                + ("" if np.isfinite(point.finest) else " and a gradient that is not")
            )
        if accuracy < point.finest:
            raise ValueError(
                f"accuracy must be at least {point.finest:.1e}, the finest that {self.dtype} can certify here, got {accuracy}; "
                "use double precision, or a larger accuracy"
            )
        return point

    def differentiate(self, point: Point, tolerance: float) -> Slope:
        """The hypergradient at a point, and its bound."""
        number, iterations = self._number, np.asarray(WARM if self._is_warm else COLD)
        self._is_warm = True
        gradient, self.adjoint, self.vector, host = _differentiate(
            self.problem, point.theta, point.x, number(point.accuracy), number(tolerance), self.adjoint, self.vector, iterations
        )
        norm, bound, certified, products, cross = jax.device_get(host)
        self.work.hessian_products += int(products)
        self.work.cross_products += int(cross) + 1
        return Slope(gradient, float(norm), float(bound), bool(certified))

    def _number(self, value: float) -> np.ndarray:
        # An array: a Python number would be compiled in.
        return np.asarray(value, self.dtype)


def history(steps: Sequence[BilevelStep]) -> BilevelHistory:
    """Of steps, one array a quantity."""
    counts = set(Work.__dataclass_fields__)
    return BilevelHistory(
        *(np.asarray([getattr(step, name) for step in steps], int if name in counts else float) for name in BilevelHistory._fields)
    )


Callback = Callable[[BilevelStep], Any]
