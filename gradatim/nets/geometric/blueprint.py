"""The blueprint: equivariant layers with pointwise functions and pooling between them, and an invariant at the end (arXiv:2104.13478,
Section 3.5), with their symmetries checked where they meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx


class FieldType(NamedTuple):
    """What a signal is: `regular C4 field, 8 channels`."""

    symmetry: str
    "The group that acts on the domain, as `C4`."
    representation: str
    "How it acts on features, as `trivial` or `regular`."
    channels: int

    def __str__(self) -> str:
        return f"{self.representation} {self.symmetry} field, {self.channels} channels"


class Stage(eqx.Module):
    """A layer, what it takes and what it gives."""

    layer: Callable[[Any], Any]
    takes: FieldType = eqx.field(static=True)
    gives: FieldType = eqx.field(static=True)


class Blueprint(eqx.Module):
    """f = A ∘ s_J ∘ B_J ∘ P_(J-1) ∘ … ∘ P_1 ∘ s_1 ∘ B_1: linear equivariant B, pointwise s, pooling P, and an invariant A.

    A composition respects a symmetry if every stage does and each takes what the one before gives.
    [`equivariance_error`][gradatim.nets.geometric.equivariance_error] measures the former, this class refuses what fails the latter.

    **Arguments:** `stages`: at least one; `invariant`: A, which gives a trivial representation. A pointwise function acts within
    representations that permute, such as trivial and regular ones: put it into the layer of a stage.

    **Raises:** `ValueError`, naming both types, for two stages that do not fit, or an end that is not invariant.

    >>> plain, regular = FieldType("C4", "trivial", 1), FieldType("C4", "regular", 8)
    >>> lift = Stage(lambda x: x, plain, regular)
    >>> Blueprint([lift, lift], lift)
    Traceback (most recent call last):
    ValueError: stage 2 takes a trivial C4 field, 1 channels, but stage 1 gives a regular C4 field, 8 channels
    """

    stages: tuple[Stage, ...]
    invariant: Stage

    def __init__(self, stages: Sequence[Stage], invariant: Stage) -> None:
        if not stages:
            raise ValueError("stages must be at least one, got none")
        for i, (before, after) in enumerate(zip(stages, [*stages[1:], invariant], strict=True), start=1):
            if before.gives != after.takes:
                name = "the invariant" if i == len(stages) else f"stage {i + 1}"
                raise ValueError(f"{name} takes a {after.takes}, but stage {i} gives a {before.gives}")
        if invariant.gives.representation != "trivial":
            raise ValueError(f"the invariant must give a trivial representation, got a {invariant.gives}")
        self.stages, self.invariant = tuple(stages), invariant

    def __call__(self, x: Any) -> Any:
        """The invariant of one signal."""
        for stage in (*self.stages, self.invariant):
            x = stage.layer(x)
        return x
