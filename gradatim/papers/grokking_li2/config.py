"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between, OneOf


@dataclass(frozen=True)
class Lazy:
    """The read-out on fixed features."""

    descent_steps: Annotated[int, Between(10, 1_000_000)] = 50_000
    "Steps of gradient descent that the closed form is held to."
    relative_decays: Annotated[tuple[float, ...], Between(1e-6, 1e6)] = (0.01, 0.1, 1.0, 10.0)
    "Weight decays at which the late gradient is compared with its simple form, over that of the training."
    seeds: Annotated[int, Between(3, 100)] = 3
    "First layers and training sets."


@dataclass(frozen=True)
class Maxima:
    """Ascents of the energy, tables from features, features from one answer."""

    orders: Annotated[tuple[int, ...], Between(3, 200)] = (7, 23)
    "Odd orders of cyclic groups."
    beside: Annotated[tuple[str, ...], OneOf("cyclic, 8", "permutations of 3", "dihedral, 14")] = (
        "cyclic, 8",
        "permutations of 3",
        "dihedral, 14",
    )
    "Groups that stand beside them."
    nodes: Annotated[int, Between(4, 10_000)] = 64
    "Random starts for each group."
    steps: Annotated[int, Between(100, 100_000)] = 2000
    "Steps of an ascent."


@dataclass(frozen=True)
class Decays:
    """Training with weight decay and without."""

    order: Annotated[int, Between(3, 500)] = 41
    "Elements."
    train_fraction: Annotated[float, Between(0.01, 1)] = 0.4
    "Of all pairs."
    width: Annotated[int, Between(2, 100_000)] = 512
    "Hidden nodes."
    few_nodes: Annotated[int, Between(2, 100_000)] = 128
    "Hidden nodes of the narrower first layers whose late gradient stands beside."
    decay: Annotated[float, Between(1e-8, 1)] = 2e-4
    "Weight decay, in the gradient."
    rate: Annotated[float, Between(1e-6, 1)] = 5e-3
    "Adam's learning rate."
    epochs: Annotated[int, Between(1, 100_000)] = 600
    "Steps of gradient descent, each on all training pairs."
    seeds: Annotated[int, Between(3, 100)] = 3
    "First weights and training sets."

    @property
    def n_train(self) -> int:
        """Pairs learned from."""
        return max(1, round(self.train_fraction * self.order**2))


@dataclass(frozen=True)
class Grams:
    """Gram matrices of the features during training, at the order for which the article gives a number."""

    order: Annotated[int, Between(3, 500)] = 71
    "Elements."
    train_fraction: Annotated[float, Between(0.01, 1)] = 0.4
    "Of all pairs."
    width: Annotated[int, Between(2, 100_000)] = 512
    "Hidden nodes."
    few_nodes: Annotated[int, Between(2, 100_000)] = 128
    "Hidden nodes of the networks that stand beside."
    decay: Annotated[float, Between(1e-8, 1)] = 2e-4
    "Weight decay."
    rate: Annotated[float, Between(1e-6, 1)] = 5e-3
    "Adam's learning rate."
    epochs: Annotated[int, Between(1, 100_000)] = 200
    "Steps."
    seeds: Annotated[int, Between(3, 100)] = 3
    "First weights and training sets."


@dataclass(frozen=True)
class Phase:
    """Test accuracy over order and number of pairs."""

    orders: Annotated[tuple[int, ...], Between(3, 500)] = (23, 31, 41)
    "Orders of cyclic groups, ascending."
    sides: Annotated[tuple[int, ...], Between(3, 250)] = (11,)
    "Polygons whose symmetries, not commutative, stand beside."
    constants: Annotated[tuple[float, ...], Between(0.1, 100)] = (2.0, 2.25, 2.5, 2.75, 3.0, 3.5)
    "Fractions of pairs over log M / M, ascending."
    width: Annotated[int, Between(2, 100_000)] = 256
    "Hidden nodes."
    decay: Annotated[float, Between(1e-8, 1)] = 2e-4
    "Weight decay."
    rate: Annotated[float, Between(1e-6, 1)] = 5e-3
    "Adam's learning rate."
    epochs: Annotated[int, Between(1, 100_000)] = 1500
    "Steps."
    seeds: Annotated[int, Between(3, 100)] = 8
    "First weights and training sets."


@dataclass(frozen=True)
class Window:
    """A small learning rate against a large one where data are scarce."""

    order: Annotated[int, Between(3, 500)] = 23
    "Elements."
    constants: Annotated[tuple[float, ...], Between(0.1, 100)] = (2.5, 2.7)
    "Fractions of pairs over log M / M, in the window where either may generalise."
    rates: Annotated[tuple[float, float], Between(1e-6, 1)] = (1e-3, 5e-3)
    "The article's small and large learning rates."
    width: Annotated[int, Between(2, 100_000)] = 256
    "Hidden nodes."
    decay: Annotated[float, Between(1e-8, 1)] = 2e-4
    "Weight decay."
    epochs: Annotated[int, Between(1, 1_000_000)] = 6000
    "Steps."
    seeds: Annotated[int, Between(3, 100)] = 12
    "First weights and training sets."


@dataclass(frozen=True)
class Few:
    """Muon against Adam with few nodes."""

    order: Annotated[int, Between(3, 500)] = 31
    "Elements."
    train_fraction: Annotated[float, Between(0.01, 1)] = 0.4
    "Of all pairs."
    width: Annotated[int, Between(2, 100_000)] = 64
    "Hidden nodes: about two a frequency and half, where eight reproduce one exactly."
    adam_rates: Annotated[tuple[float, ...], Between(1e-6, 10)] = (5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
    "Learning rates of Adam."
    muon_rates: Annotated[tuple[float, ...], Between(1e-6, 10)] = (1e-2, 2e-2, 5e-2, 1e-1, 2e-1)
    "As many of Muon, whose read-out is Adam's at the same rate."
    decay: Annotated[float, Between(1e-8, 1)] = 2e-4
    "Weight decay."
    epochs: Annotated[int, Between(1, 100_000)] = 1000
    "Steps."
    pilots: Annotated[int, Between(2, 100)] = 12
    "First weights and training sets on which the rates are chosen."
    seeds: Annotated[int, Between(3, 100)] = 24
    "Others, which are judged at those rates."
    features: Annotated[int, Between(1, 1000)] = 11
    "Maxima to be collected in the simulation."
    tails: Annotated[tuple[float, ...], Between(0.1, 20)] = (0.5, 1.0, 2.0)
    "Tail indices of its starts."
    trials: Annotated[int, Between(10, 10_000_000)] = 5000
    "Simulated collections."


@dataclass(frozen=True)
class Starts:
    """A read-out that starts at zero."""

    order: Annotated[int, Between(3, 500)] = 41
    "Elements."
    scarce: Annotated[float, Between(0.01, 1)] = 0.4
    "Fraction of pairs."
    ample: Annotated[float, Between(0.01, 1)] = 0.6
    "Fraction of pairs."
    width: Annotated[int, Between(2, 100_000)] = 256
    "Hidden nodes."
    decay: Annotated[float, Between(1e-8, 1)] = 2e-4
    "Weight decay."
    rate: Annotated[float, Between(1e-6, 1)] = 5e-3
    "Adam's learning rate."
    scarce_epochs: Annotated[int, Between(1, 100_000)] = 1000
    "Steps where data are scarce."
    ample_epochs: Annotated[int, Between(1, 100_000)] = 150
    "Steps where they are not."
    seeds: Annotated[int, Between(3, 100)] = 3
    "First weights and training sets."


@dataclass(frozen=True)
class Solved:
    """A read-out that is solved for at every step."""

    orders: Annotated[tuple[int, int], Between(3, 500)] = (23, 41)
    "A small group and a large one."
    train_fraction: Annotated[float, Between(0.01, 1)] = 0.6
    "Of all pairs."
    width: Annotated[int, Between(2, 100_000)] = 256
    "Hidden nodes."
    decay: Annotated[float, Between(1e-8, 1)] = 5e-5
    "Weight decay; the ridge penalty is the one that it pulls the trained read-out to."
    rate: Annotated[float, Between(1e-6, 1)] = 5e-3
    "Adam's learning rate."
    epochs: Annotated[tuple[int, int], Between(1, 100_000)] = (1000, 150)
    "Steps for either group."
    seeds: Annotated[int, Between(3, 100)] = 3
    "First weights and training sets."


@dataclass(frozen=True)
class Config:
    """The three stages in closed form and by ascent, and networks of pairs in training."""

    lazy: Lazy = Lazy()
    "C1, C2."
    maxima: Maxima = Maxima()
    "C3, C4, C5, C7, C9."
    decays: Decays = Decays()
    "C1, C2."
    grams: Grams = Grams()
    "C2."
    phase: Phase = Phase()
    "C6."
    window: Window = Window()
    "C8."
    few: Few = Few()
    "C10."
    starts: Starts = Starts()
    "C11."
    solved: Solved = Solved()
    "C12."
