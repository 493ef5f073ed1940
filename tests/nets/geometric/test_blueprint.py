import pytest

from gradatim.nets.geometric import Blueprint, FieldType, Stage

PLAIN, MAPS, NUMBERS = FieldType("C4", "trivial", 1), FieldType("C4", "regular", 8), FieldType("C4", "trivial", 8)
LIFT, POOL = Stage(lambda x: x + 1, PLAIN, MAPS), Stage(lambda x: 2 * x, MAPS, NUMBERS)


def test_stages_that_fit_are_applied_in_turn():
    assert Blueprint([LIFT, Stage(lambda x: x * x, MAPS, MAPS)], POOL)(2) == 18


def test_stages_that_do_not_fit_are_refused_by_name():
    with pytest.raises(ValueError, match="stage 2 takes a trivial C4 field, 1 channels, but stage 1 gives a regular C4 field, 8 channels"):
        Blueprint([LIFT, LIFT], POOL)
    other = Stage(lambda x: x, FieldType("D4", "regular", 8), NUMBERS)
    with pytest.raises(ValueError, match="the invariant takes a regular D4 field, 8 channels, but stage 1 gives a regular C4 field"):
        Blueprint([LIFT], other)


def test_an_end_that_is_not_invariant_is_refused():
    with pytest.raises(ValueError, match="the invariant must give a trivial representation, got a regular C4 field, 8 channels"):
        Blueprint([LIFT], Stage(lambda x: x, MAPS, MAPS))
    with pytest.raises(ValueError, match="stages must be at least one, got none"):
        Blueprint([], POOL)
