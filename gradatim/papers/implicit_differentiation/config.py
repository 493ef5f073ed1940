"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Ridge:
    """Ridge regression on the diabetes data, one penalty a coordinate, by gradient descent at 1/L."""

    steps: Annotated[int, Between(100, 10_000)] = 120
    "Steps, along all of which the Jacobians are compared."


@dataclass(frozen=True)
class Machine:
    """The dual of a multiclass support-vector machine, and the derivative of its validation loss in the log of its penalty."""

    samples: Annotated[int, Between(10, 10_000)] = 200
    "Training samples; half as many validate."
    features: Annotated[tuple[int, ...], Between(10, 100_000)] = (50, 200, 1000)
    "Features, from few to many: the sizes of the comparison."
    classes: Annotated[int, Between(2, 5)] = 5
    "Classes."
    log_penalty: Annotated[float, Between(-10.0, 10.0)] = 0.0
    "Where the derivative is taken."
    steps: Annotated[tuple[int, ...], Between(2, 100_000)] = (50, 250, 1000, 2500)
    "Inner steps of projected gradient and mirror descent; the last is timed, all have their memory measured."
    sweeps: Annotated[int, Between(2, 100_000)] = 500
    "Sweeps of block coordinate descent, timed."
    exact_sweeps: Annotated[int, Between(10, 1_000_000)] = 5000
    "Sweeps to the solution at which the conditions are compared."
    builds: Annotated[int, Between(3, 100)] = 5
    "Times that the programs are compiled anew and timed; the intervals are over these."


@dataclass(frozen=True)
class Distillation:
    """Ten images from which a linear classifier of digits is trained."""

    l2: Annotated[float, Between(1e-6, 10.0)] = 0.1
    "Penalty of the classifier."
    inner_steps: Annotated[int, Between(2, 100_000)] = 500
    "Most steps of the classifier's training."
    tolerance: Annotated[float, Between(1e-12, 1.0)] = 1e-3
    "Norm of the gradient at which that training ends."
    outer_steps: Annotated[int, Between(2, 100_000)] = 60
    "Steps of Adam on the images."
    rates: Annotated[tuple[float, ...], Between(1e-6, 10.0)] = (0.03, 0.1, 0.3)
    "Adam's learning rates, the same grid for both derivatives; the best training loss decides."
    seeds: Annotated[int, Between(3, 1000)] = 3
    "First images."
    timed_steps: Annotated[tuple[int, ...], Between(2, 100_000)] = (50, 250, 1000, 2500)
    "Inner steps at which one outer gradient is timed."
    repeats: Annotated[int, Between(3, 100)] = 30
    "Repetitions of each timing."
    builds: Annotated[int, Between(3, 100)] = 10
    "Times that the two programs at the judged number of inner steps are compiled anew; the interval is over these."


@dataclass(frozen=True)
class Dictionary:
    """Sparse codes of tumours' features, hidden among noise."""

    noise_features: Annotated[int, Between(0, 100_000)] = 1000
    "Features that say nothing, beside the thirty that do."
    atoms: Annotated[int, Between(1, 1000)] = 10
    "Atoms of a dictionary."
    splits: Annotated[int, Between(3, 1000)] = 20
    "Random divisions into training (60 %), validation (15 %) and test (25 %)."
    strengths: Annotated[tuple[float, ...], Between(1e-4, 100.0)] = (0.01, 0.03, 0.1, 0.3, 1.0)
    "Strengths of the elastic net of the codes; the validation set chooses."
    inner_steps: Annotated[int, Between(2, 10_000)] = 100
    "Proximal-gradient steps to a code."
    outer_steps: Annotated[int, Between(2, 100_000)] = 100
    "Steps of Adam on a dictionary."
    rate: Annotated[float, Between(1e-6, 1.0)] = 0.02
    "Adam's learning rate."


@dataclass(frozen=True)
class Spheres:
    """Soft discs of two sizes in a periodic box, relaxed by FIRE."""

    particles: Annotated[int, Between(4, 10_000)] = 64
    "Half of them with diameter 1."
    ratio: Annotated[float, Between(0.1, 1.0)] = 0.7
    "Diameter θ of the other half."
    filling: Annotated[float, Between(0.85, 2.0)] = 1.0
    "Area of all discs over that of the box: above 0.84 they touch."
    steps: Annotated[int, Between(10, 1_000_000)] = 2000
    "Steps of FIRE."
    looks: Annotated[int, Between(1, 1000)] = 8
    "Points along them, evenly spaced, at which both sensitivities are taken."
    packings: Annotated[int, Between(3, 1000)] = 9
    "Random first positions."
    difference: Annotated[float, Between(1e-9, 1e-2)] = 1e-6
    "Half the distance of the central differences in θ."


@dataclass(frozen=True)
class Config:
    """Everything that changes the outcome."""

    ridge: Ridge = field(default_factory=Ridge)
    machine: Machine = field(default_factory=Machine)
    distillation: Distillation = field(default_factory=Distillation)
    dictionary: Dictionary = field(default_factory=Dictionary)
    spheres: Spheres = field(default_factory=Spheres)
