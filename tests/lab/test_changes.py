from dataclasses import dataclass
from typing import Annotated

import pytest

from gradatim.lab import Between, validate
from gradatim.lab.changes import configured, differences


@dataclass(frozen=True)
class Optimizer:
    learning_rate: Annotated[float, Between(0.0, 1.0)] = 0.1
    warmup: int | None = None
    decay: float | None = None


@dataclass(frozen=True)
class Config:
    optimizer: Optimizer = Optimizer()
    widths: Annotated[tuple[int, ...], Between(1, 100)] = (3, 4)
    span: tuple[int, float] = (1, 2.0)
    steps: int = 10


def test_only_what_is_named_changes():
    config = configured(Config(steps=7), {"optimizer.learning_rate": 1, "widths": [5, 6, 7], "span": [2, 3]})
    assert config == Config(Optimizer(1.0), (5, 6, 7), (2, 3.0), 7)
    assert type(config.optimizer.learning_rate) is type(config.span[1]) is float, "JSON does not tell 1 from 1.0"
    validate(config)
    assert configured(Config(), {}) == Config()
    assert configured(Config(), {"optimizer": {"warmup": 3}}) == configured(Config(), {"optimizer.warmup": 3})


def test_differences_are_read_off_by_dotted_name():
    changed = {"optimizer.warmup": 3, "widths": (5,), "steps": 1}
    assert differences(configured(Config(), changed), Config()) == changed
    assert differences(configured(Config(), {"steps": 10}), Config()) == {}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"step": 1}, r"there is no field 'step' \(did you mean 'steps'\?\); fields: optimizer, widths, span, steps"),
        ({"optimizer.lerning_rate": 1}, r"there is no field 'optimizer.lerning_rate' \(did you mean 'optimizer.learning_rate'\?\)"),
        ({"optimizer": 1}, "optimizer holds fields of its own: change these, such as optimizer.learning_rate"),
        ({"steps.more": 1}, "steps holds no fields, got 'steps.more'"),
    ],
)
def test_unknown_fields_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        configured(Config(), changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": "many"},
        {"steps": 1.5},
        {"widths": 3},
        {"span": [1, 2, 3]},
        {"steps": None},
        {"widths": []},
        {"optimizer.learning_rate": True},
    ],
)
def test_values_of_the_wrong_kind_are_left_for_validation(changed):
    with pytest.raises((ValueError, TypeError), match=next(iter(changed))):
        validate(configured(Config(), changed))


def test_a_whole_number_does_for_a_float_that_may_be_missing_and_for_no_whole_number():
    optimizer = configured(Config(), {"optimizer.decay": 1, "optimizer.warmup": 2}).optimizer
    assert (type(optimizer.decay), type(optimizer.warmup)) == (float, int)
    assert configured(Config(Optimizer(decay=1.0)), {"optimizer.decay": None}).optimizer.decay is None
