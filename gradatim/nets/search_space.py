"""Spaces of architectures: named choices, their combinations, and distributions over each choice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray

Option = int | float | str
Logits = Mapping[str, Any]
"Of each choice by its name, one logit an option (last axis)."
Probabilities = Mapping[str, Any]
"Of each choice by its name, one probability an option (last axis)."
FIRST_LOGITS = 1e-3
"Standard deviation of logits before a search, as in the authors' code."


@dataclass(frozen=True)
class Choice:
    """One thing that a search decides: a name and the options for it.

    **Raises:** `ValueError` for no options, or for two that are equal.
    """

    name: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        if not self.options or len(set(self.options)) != len(self.options):
            raise ValueError(f"options of the choice {self.name!r} must be at least one and differ, got {self.options}")

    def __len__(self) -> int:
        return len(self.options)


@dataclass(frozen=True)
class SearchSpace:
    """All combinations of some choices. An architecture is the position of an option in each choice, in the order of the choices.

    **Raises:** `ValueError` for no choices, or for two of one name.

    >>> space = SearchSpace((Choice("channels", (8, 16, 32)), Choice("kernel", (3, 5))))
    >>> space.n_architectures, space.encode({"channels": 16, "kernel": 5}), space.number((1, 1)), space.positions(3)
    (6, (1, 1), 3, (1, 1))
    """

    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        names = [choice.name for choice in self.choices]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"choices must be at least one, of different names, got {names}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many options each choice has."""
        return tuple(map(len, self.choices))

    @property
    def n_architectures(self) -> int:
        """How many combinations there are."""
        return math.prod(self.sizes)

    def __iter__(self) -> Iterator[dict[str, Option]]:
        """Every architecture as options by name, in the order of their numbers."""
        for options in itertools.product(*(choice.options for choice in self.choices)):
            yield dict(zip((choice.name for choice in self.choices), options, strict=True))

    def encode(self, options: Mapping[str, Option]) -> tuple[int, ...]:
        """The positions of named options.

        **Raises:** `ValueError` for a missing or unknown choice, or for an option that it does not have.
        """
        names = [choice.name for choice in self.choices]
        if set(options) != set(names):
            raise ValueError(f"options must be given for {', '.join(names)}, got {', '.join(options)}")
        for choice in self.choices:
            if options[choice.name] not in choice.options:
                raise ValueError(f"{choice.name} must be one of {choice.options}, got {options[choice.name]!r}")
        return tuple(choice.options.index(options[choice.name]) for choice in self.choices)

    def decode(self, positions: Sequence[int] | Integer[np.ndarray, " choices"]) -> dict[str, Option]:
        """The options at some positions."""
        self._check_positions(positions)
        return {choice.name: choice.options[int(i)] for choice, i in zip(self.choices, positions, strict=True)}

    def number(self, positions: Sequence[int] | Integer[np.ndarray, " choices"]) -> int:
        """The number of an architecture from 0: the last choice counts fastest."""
        self._check_positions(positions)
        number = 0
        for size, i in zip(self.sizes, positions, strict=True):
            number = number * size + int(i)
        return number

    def positions(self, number: int) -> tuple[int, ...]:
        """The architecture of a number."""
        if not 0 <= number < self.n_architectures:
            raise ValueError(f"number must lie in [0, {self.n_architectures}), got {number}")
        positions = []
        for size in reversed(self.sizes):
            number, i = divmod(number, size)
            positions.append(i)
        return tuple(reversed(positions))

    def every(self) -> Int[np.ndarray, "architectures choices"]:
        """The positions of every architecture, in the order of their numbers."""
        return np.array(list(itertools.product(*(range(size) for size in self.sizes))), np.int32)

    def sample(self, key: PRNGKeyArray, n: int) -> Int[Array, "n choices"]:
        """Positions of `n` architectures, each drawn uniformly and independently."""
        uniform = jax.random.uniform(key, (n * len(self.choices),)).reshape(n, -1)
        return jnp.floor(uniform * jnp.array(self.sizes, jnp.float32)[None]).astype(jnp.int32)

    def one_hot(self, positions: Integer[Array, " choices"]) -> dict[str, Float[Array, " options"]]:
        """The distributions that are certain of one architecture; positions may be traced."""
        return {choice.name: jax.nn.one_hot(positions[i], len(choice)) for i, choice in enumerate(self.choices)}

    def logits(self, key: PRNGKeyArray, *, scale: float = FIRST_LOGITS) -> dict[str, Float[Array, " options"]]:
        """Logits to begin with, normal with standard deviation `scale`."""
        ends = np.cumsum(self.sizes)
        flat = scale * jax.random.normal(key, (int(ends[-1]),))
        return {choice.name: flat[end - len(choice) : end] for choice, end in zip(self.choices, ends.tolist(), strict=True)}

    def discretise(self, logits: Logits) -> Int[Array, "*rows choices"]:
        """The positions of the largest logit, or probability, of each choice; at ties of the first."""
        return jnp.stack([jnp.argmax(logits[choice.name], axis=-1) for choice in self.choices], axis=-1).astype(jnp.int32)

    def check(self, probabilities: Probabilities, *, tolerance: float = 1e-4) -> None:
        """Checks distributions before they are used, outside of compiled code.

        **Raises:** `ValueError` for a missing choice, a wrong length, a negative number or a sum that is not 1.
        """
        for choice in self.choices:
            if choice.name not in probabilities:
                raise ValueError(f"probabilities must have an entry {choice.name!r}, got {', '.join(probabilities)}")
            values = np.asarray(probabilities[choice.name])
            if values.shape[-1:] != (len(choice),):
                raise ValueError(f"probabilities of {choice.name!r} must have length {len(choice)}, got shape {values.shape}")
            if not (values >= -tolerance).all() or not np.allclose(values.sum(-1), 1, atol=tolerance):
                raise ValueError(f"probabilities of {choice.name!r} must be at least 0 and sum to 1, got {values.tolist()}")

    def _check_positions(self, positions: Sequence[int] | Integer[np.ndarray, " choices"]) -> None:
        if len(positions) != len(self.choices) or not all(0 <= int(i) < n for i, n in zip(positions, self.sizes, strict=True)):
            raise ValueError(f"positions must be below {self.sizes}, got {tuple(map(int, positions))}")


def entropies(probabilities: Probabilities) -> dict[str, Float[Array, ...]]:
    """The entropy of each choice's distribution over its largest, the logarithm of the number of options: 1 is undecided, 0 decided.

    >>> found = entropies({"kernel": jnp.array([0.5, 0.5]), "width": jnp.array([0.0, 1.0, 0.0])})
    >>> print(" ".join(f"{name} {abs(h):.1f}" for name, h in found.items()))
    kernel 1.0 width 0.0
    """

    def of(p: Array) -> Array:
        positive = jnp.where(p > 0, p, 1.0)
        return -jnp.sum(jnp.where(p > 0, p * jnp.log(positive), 0.0), axis=-1) / max(math.log(p.shape[-1]), 1e-12)

    return {name: of(p) for name, p in probabilities.items()}


def outer_probabilities(*distributions: Float[Array, " _"]) -> Float[Array, " combinations"]:
    """The distribution over combinations of independent choices, in the order of `itertools.product`.

    >>> outer_probabilities(jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])).tolist()
    [0.125, 0.375, 0.125, 0.375]
    """
    combined = distributions[0]
    for one in distributions[1:]:
        combined = (combined[:, None] * one[None]).reshape(-1)
    return combined
