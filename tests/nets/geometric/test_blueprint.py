import equinox as eqx
import jax
import numpy as np
import pytest

from gradatim.nets.geometric import (
    Blueprint,
    FieldNorm,
    FieldType,
    GroupConv,
    GroupLift,
    GroupPool,
    Stage,
    act_on_grid,
    blur_pool,
    dihedral,
    equivariance_error,
)

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


def a_network(blur=blur_pool):
    """Lift, normalise and rectify, pool, convolve, and the invariant, over the symmetries of the square."""
    group, keys = dihedral(4), jax.random.split(jax.random.key(0))
    image, few, more, end = (FieldType("D4", kind, n) for kind, n in (("trivial", 1), ("regular", 4), ("regular", 6), ("trivial", 6)))
    lift, norm, conv = GroupLift(1, 4, group=group, key=keys[0]), FieldNorm(4), GroupConv(4, 6, group=group, key=keys[1])
    pool = GroupPool(group, reduce="mean")
    stages = [
        Stage(lambda x: jax.nn.relu(norm(lift(x))), image, few),
        Stage(blur, few, few),
        Stage(lambda x: jax.nn.relu(conv(x)), few, more),
    ]
    return Blueprint(stages, Stage(lambda x: pool(x).mean(axis=(0, 1)), more, end))


def test_a_network_to_the_blueprint_is_invariant_and_a_layer_that_is_not_shows():
    image = np.random.default_rng(0).normal(size=(9, 9, 1)).astype(np.float32)
    on_image = act_on_grid(dihedral(4))
    error, broken = (
        equivariance_error(eqx.filter_jit(a_network(blur)), dihedral(4), image, on_image).worst
        # Two pixels of four, from a corner that is another after a turn.
        for blur in (blur_pool, lambda x: x[:-1:2, :-1:2])
    )
    assert error < 1e-5 and broken > 1e-2
