from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.optim import diffgrad, notched_valley, ramp_to_waves, scale_by_diffgrad, two_parabolas

pytestmark = pytest.mark.usefixtures("double")
OBJECTIVES = {"F1": two_parabolas, "F2": ramp_to_waves, "F3": notched_valley}
ONE_START = 1.1 / 201  # a start on the watershed may fall either way
DIGITS = 1e-8  # of the end points, double precision: the ends are chaotic in nothing but the kink of F3


def notebook_f2(x):
    """F2's derivative as the authors' notebook has it: a factor 8 is missing."""
    return jnp.where(x <= -0.9, -40.0, x * jnp.cos(8 * x) + jnp.sin(8 * x) + 3 * x**2)


GRADIENTS = {name: jax.grad(objective) for name, objective in OBJECTIVES.items()} | {"F2 of the notebook": notebook_f2}
OPTIMIZERS = {"adam": optax.adam, "diffgrad": diffgrad, "aliased": diffgrad}


@partial(jax.jit, static_argnames=("arm", "name"))
def descend(arm, name, rate):
    """The path from -1: one program for all rates."""
    return path(OPTIMIZERS[arm](rate, 0.95, 0.999), GRADIENTS[name], jnp.asarray(-1.0), aliased=arm == "aliased")


def path(optimizer, gradient, x, aliased=False):
    def step(carry, _):
        x, state = carry
        g = gradient(x)
        if aliased:
            state = (state[0]._replace(previous=jnp.where(state[0].count == 0, 0.0, g)), *state[1:])
        update, state = optimizer.update(g, state)
        return (x + update, state), x + update

    return jax.lax.scan(step, (x, optimizer.init(x)), None, length=299)[1]


ENDS = {
    ("F1", "adam"): 0.2001149320,
    ("F1", "diffgrad"): -0.3000711663,
    ("F1", "aliased"): -0.3001676316,
    ("F2", "adam"): 0.0000901345,
    ("F2", "diffgrad"): -0.6429626925,
    ("F2", "aliased"): -0.6429090155,
    ("F2 of the notebook", "adam"): 0.0001773213,
    ("F2 of the notebook", "diffgrad"): -0.8121445901,
    ("F2 of the notebook", "aliased"): -0.8490527395,
    ("F3", "adam"): 0.0005101392,
    ("F3", "diffgrad"): 0.0135651244,
    ("F3", "aliased"): 0.0146669898,
}


@pytest.mark.parametrize(("name", "arm"), ENDS)
def test_end_points(name, arm):
    assert abs(np.asarray(descend(arm, name, 0.1))[-1] - ENDS[name, arm]) < DIGITS


@pytest.mark.parametrize(("name", "adam", "ours"), [("F1", 0.33202, -0.06159), ("F2", 0.07472, -0.41884), ("F3", 0.26669, 0.18335)])
def test_how_far_right_they_get(name, adam, ours):
    for arm, farthest in (("adam", adam), ("diffgrad", ours)):
        assert abs(np.asarray(descend(arm, name, 0.1)).max() - farthest) < 5e-6


@pytest.mark.parametrize("rate", [0.075, 0.06, 0.05, 0.03])
@pytest.mark.parametrize("name", ["F1", "F2"])
def test_a_smaller_rate_does_the_same_for_adam(name, rate):
    assert abs(np.asarray(descend("adam", name, rate))[-1] - OBJECTIVES[name].minima[0]) < 1e-3


def test_at_a_small_rate_diffgrad_is_caught_by_the_notch_where_adam_is_not():
    assert abs(np.asarray(descend("diffgrad", "F3", 0.03))[-1] + 0.4989) < 1e-3
    assert abs(np.asarray(descend("adam", "F3", 0.03))[-1]) < 1e-2


@pytest.mark.parametrize(("name", "adam", "ours"), [("F1", 0.687, 0.647), ("F2", 0.373, 0.378)])
def test_starts_that_end_at_the_global_minimum(name, adam, ours):
    starts = jnp.linspace(-1.0, 1.0, 201)
    for direction, share in ((optax.scale_by_adam(0.95, 0.999), adam), (scale_by_diffgrad(0.95, 0.999), ours)):
        optimizer = optax.chain(direction, optax.scale_by_learning_rate(0.1))
        ends = np.asarray(path(optimizer, jax.vmap(GRADIENTS[name]), starts))[-1]
        assert abs((abs(ends - OBJECTIVES[name].minima[0]) < 0.1).mean() - share) < ONE_START


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_minima(objective):
    minima = np.asarray(objective.minima)
    around, grid = minima[:, None] + np.linspace(-1e-4, 1e-4, 21), np.linspace(*objective.interval, 20_001)
    values, nearby, everywhere = map(np.asarray, jax.jit(lambda *points: list(map(objective, points)))(minima, around, grid))
    assert values.argmin() == 0
    assert (nearby >= values[:, None] - 1e-15).all()
    assert everywhere.min() >= values[0] - 1e-9


def test_values():
    np.testing.assert_allclose(two_parabolas(jnp.array(two_parabolas.minima)), [0.0, 0.05], atol=1e-15)
    np.testing.assert_allclose(ramp_to_waves(jnp.array([*ramp_to_waves.minima, -1.0])), [1.198e-4, 0.46532, 0.85, 4.85], rtol=1e-3)
    np.testing.assert_allclose(notched_valley(jnp.array([0.0, -0.45, 0.45, -1.0])), [0.0, 0.3, 0.3, 1.0], rtol=1e-12)


def test_kinks_take_the_left_slope():
    slope = jax.jit(jax.vmap(jax.grad(notched_valley)))(np.array([-0.5, -0.4, 0.0, 0.4, 0.5]))
    np.testing.assert_allclose(slope, [-1.0, 1.0, -7 / 8, 7 / 8, -1.0])
    assert jax.grad(two_parabolas)(0.0) == 0.6 and jax.grad(ramp_to_waves)(-0.9) == -40.0
