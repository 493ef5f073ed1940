"""What changes the outcome of the experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Rates:
    """Worst-case functions on which rates of convergence are fitted."""

    chain: Annotated[int, Between(4, 10_000)] = 200
    "Coordinates of the slack chain."
    chain_steps: Annotated[int, Between(10, 100_000)] = 2000
    "Steps on it, at most."
    repeats: Annotated[int, Between(3, 1000)] = 100
    "Starts of the chain, phases of the waves and of the valley."
    waves_steps: Annotated[int, Between(50, 1_000_000)] = 10_000
    "Steps on the fading waves, the last tenth to all of which the slopes are fitted to."
    degrees: Annotated[tuple[float, ...], Between(0.0, 1.0)] = (0.0, 0.25, 0.5, 0.75, 1.0)
    "Degrees of smoothness and of approximation."
    perturbation: Annotated[float, Between(1e-6, 1e3)] = 0.3
    "C₂ of the inexact Hessian."


@dataclass(frozen=True)
class Config:
    """Everything that changes the outcome."""

    log_sum_exp: Annotated[tuple[int, ...], Between(2, 5000)] = (100, 200)
    "Unknowns, and as many exponentials."
    equations: Annotated[tuple[int, int], Between(1, 10_000)] = (100, 200)
    "Linear equations and their unknowns."
    timed_equations: Annotated[tuple[int, int], Between(1, 10_000)] = (300, 600)
    "The same for the comparison of seconds."
    repeats: Annotated[int, Between(3, 100)] = 5
    "How often each is timed on each design."
    powers: Annotated[tuple[int, ...], Between(2, 8)] = (2, 5)
    "Powers of Rosenbrock's residual."
    chebyshev: Annotated[tuple[int, ...], Between(2, 5000)] = (50, 200)
    "Unknowns of the Chebyshev chain."
    designs: Annotated[int, Between(3, 100)] = 24
    "Draws of every problem that is random, beside the authors'."
    max_steps: Annotated[int, Between(10, 100_000)] = 1000
    "Steps of a method, at most."
    separable_steps: Annotated[int, Between(10, 1_000_000)] = 20_000
    "Steps on separable data without a penalty."
    penalty: Annotated[float, Between(1e-12, 1e3)] = 1e-3
    "Of the logistic regression that has a minimum."
    beside: bool = True
    "Whether Hessians that no part asks for run beside the others."
    n_starts: Annotated[int, Between(3, 100_000)] = 3000
    "Random starts of either system of nonlinear equations."
    chebyshev_starts: Annotated[int, Between(2, 12)] = 7
    "Unknowns of the Chebyshev chain that starts are drawn for; each two more take seven times as many steps."
    nonconvex_steps: Annotated[int, Between(10, 100_000)] = 5000
    "Steps from each of them, at most."
    rates: Rates = field(default_factory=Rates)
