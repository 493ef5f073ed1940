import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from gradatim.lab import Between, OneOf, validate


@dataclass(frozen=True)
class Inner:
    rate: Annotated[float, Between(0, 1)] = 0.1
    "Learning rate."


@dataclass(frozen=True)
class Config:
    width: Annotated[int, Between(1, 4096)] = 256
    "Units."
    name: Annotated[str, OneOf("adam", "muon")] = "adam"
    "Optimiser."
    rates: Annotated[tuple[float, ...], Between(0)] = (0.1, 1)
    "Grid."
    size: tuple[int, int] = (8, 8)
    "Grid points."
    names: tuple[Annotated[str, OneOf("a", "b")], ...] = ("a",)
    "Arms."
    limit: Annotated[float | None, Between(high=2)] = None
    "Largest norm."
    is_periodic: bool = False
    "Whether the ends meet."
    inner: Inner = Inner()
    "Optimiser."


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"width": 1},
        {"width": 4096},
        {"inner": Inner(1)},
        {"inner": Inner(0.0)},
        {"limit": 2.0},
        {"limit": 1},
        {"is_periodic": True},
        {"rates": (0.0,)},
    ],
)
def test_allowed(change):
    validate(dataclasses.replace(Config(), **change))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"width": 0}, ValueError, "^width must be between 1 and 4096, got 0$"),
        ({"width": 4097}, ValueError, "width must be between 1 and 4096, got 4097"),
        ({"width": 2.0}, TypeError, "width must be of type int, got 2.0"),
        ({"width": True}, TypeError, "width must be of type int, got True"),
        ({"width": "2"}, TypeError, "width must be of type int, got '2'"),
        ({"width": Inner()}, TypeError, "width must be of type int, got Inner"),
        ({"name": "sgd"}, ValueError, "name must be one of adam, muon, got 'sgd'"),
        ({"name": None}, TypeError, "name must be of type str, got None"),
        ({"rates": (0.1, -0.1)}, ValueError, r"rates must be at least 0, got \(0.1, -0.1\)"),
        ({"rates": ()}, ValueError, "rates must not be empty"),
        ({"rates": [0.1]}, TypeError, r"rates must be a tuple, got \[0.1\]"),
        ({"rates": (float("nan"),)}, ValueError, "rates must be finite, got nan"),
        ({"rates": ("0.1",)}, TypeError, "rates must be of type float, got '0.1'"),
        ({"size": (8,)}, ValueError, r"size must have 2 entries, got \(8,\)"),
        ({"size": (8, 1.5)}, TypeError, "size must be of type int, got 1.5"),
        ({"names": ("a", "c")}, ValueError, r"names must be one of a, b, got \('a', 'c'\)"),
        ({"limit": 3.0}, ValueError, "limit must be at most 2, got 3.0"),
        ({"limit": float("inf")}, ValueError, "limit must be finite, got inf"),
        ({"limit": "1"}, TypeError, "limit must be of type float, got '1'"),
        ({"is_periodic": 1}, TypeError, "is_periodic must be of type bool, got 1"),
        ({"inner": Inner(1.5)}, ValueError, r"^inner\.rate must be between 0 and 1, got 1.5$"),
        ({"inner": Inner(float("nan"))}, ValueError, r"inner\.rate must be finite, got nan"),
        ({"inner": Inner(True)}, TypeError, r"inner\.rate must be of type float, got True"),
        ({"limit": True}, TypeError, "limit must be of type float, got True"),
        ({"inner": 0.1}, TypeError, "inner must be of type Inner, got 0.1"),
    ],
)
def test_refused(change: dict[str, Any], error, message):
    with pytest.raises(error, match=message):
        validate(dataclasses.replace(Config(), **change))


def test_a_range_must_not_be_empty():
    with pytest.raises(ValueError, match="low <= high, got 2 and 1"):
        Between(2, 1)


@pytest.mark.parametrize(
    ("rule", "text"),
    [(Between(1), "at least 1"), (Between(high=2), "at most 2"), (Between(1, 2), "between 1 and 2"), (OneOf("a", 1), "one of a, 1")],
)
def test_rule_in_words(rule, text):
    assert str(rule) == text
