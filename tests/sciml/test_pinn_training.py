import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.sciml import (
    ConvectionDiffusion,
    EulerianPINN,
    LagrangianPINN,
    collocation_grid,
    curriculum,
    evaluate_windows,
    fit_pinn,
    sequence_to_sequence,
)

PERIOD = 2 * math.pi
POINTS = collocation_grid(16, 12, period=PERIOD, horizon=1.0)
X, T = (PERIOD * np.arange(32) / 32).astype(np.float32), np.linspace(0, 1, 9, dtype=np.float32)


@eqx.filter_jit
def evaluated(model, x, t):
    return model.evaluate(x, t)


def carried(speed):
    return ConvectionDiffusion(speed, 0.01, jnp.sin, PERIOD)


def error(field, speed):
    truth = np.exp(-0.01 * T)[:, None] * np.sin(X[None] - speed * T[:, None])
    return float(np.linalg.norm(field - truth) / np.linalg.norm(truth))


@pytest.fixture(scope="module")
def moving():
    model = LagrangianPINN(carried(1.0), width=16, depth_path=1, depth_state=2, key=jax.random.key(0))
    return fit_pinn(model, POINTS, optax.amsgrad(1e-2), n_steps=300)


def test_the_loss_of_moving_coordinates_falls_tenfold_and_the_answer_is_near(moving):
    loss = np.asarray(moving.loss)
    assert loss.shape == (300,) and loss[-1] < loss[0] / 10
    assert error(evaluated(moving.model, X, T), 1.0) < 0.1


def test_lbfgs_goes_on_from_where_another_ended(moving):
    # The default's line search takes seconds to compile.
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=15)
    further = fit_pinn(moving.model, POINTS, optax.lbfgs(2, linesearch=search), n_steps=20)
    assert np.asarray(further.loss)[-1] < 0.7 * np.asarray(moving.loss)[-1]


def test_the_problem_stays_as_it_is(moving):
    assert float(moving.model.problem.speed.constant) == 1.0 and moving.model.problem.initial is jnp.sin


@pytest.fixture(scope="module")
def windows():
    def make(problem, key):
        return EulerianPINN(problem, width=16, depth=2, key=key)

    window = collocation_grid(16, 6, period=PERIOD, horizon=0.5)
    run = eqx.filter_jit(
        lambda speed: sequence_to_sequence(make, carried(speed), window, optax.adam(1e-2), n_windows=2, n_steps=300, key=jax.random.key(0))
    )
    return run(jnp.array(1.0))


def test_windows_take_over_from_each_other(windows):
    loss = np.asarray(windows.loss)
    assert loss.shape == (2, 300) and (loss[:, -1] < loss[:, 0] / 10).all()
    field = eqx.filter_jit(lambda model, x, t: evaluate_windows(model, x, t, length=0.5))(windows.model, X, T)
    assert error(field, 1.0) < 0.2
    # The second begins where the first has come to.
    first, second = (
        jax.tree.map(lambda leaf, i=i: jax.device_put(np.asarray(leaf)[i]) if eqx.is_array(leaf) else leaf, windows.model) for i in range(2)
    )
    handed = np.asarray(second.problem.initial.samples)
    places = (PERIOD * np.arange(63) / 63).astype(np.float32)
    assert np.allclose(handed, np.asarray(evaluated(first, places, np.array([0.5], np.float32)))[0], atol=1e-5)


def test_a_curriculum_ends_at_the_speed_that_is_meant():
    model = EulerianPINN(carried(0.0), width=8, depth=1, key=jax.random.key(0))

    def with_speed(model, speed):
        return eqx.tree_at(lambda m: m.problem, model, ConvectionDiffusion(speed, 0.01, jnp.sin, PERIOD))

    fit = curriculum(model, with_speed, jnp.array([0.5, 1.0]), POINTS, optax.adam(1e-2), n_steps=100)
    assert fit.loss.shape == (2, 100) and float(fit.model.problem.speed.constant) == 1.0
    # Warm: the second stage begins far below the first.
    loss = np.asarray(fit.loss)
    assert loss[1, 0] < loss[0, 0] / 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: fit_pinn(model, POINTS, optax.sgd(0.1), n_steps=0), "n_steps must be at least 1, got 0"),
        (
            lambda model: sequence_to_sequence(
                lambda problem, key: model, model.problem, POINTS, optax.sgd(0.1), n_windows=0, n_steps=1, key=jax.random.key(0)
            ),
            "n_windows must be at least 1, got 0",
        ),
    ],
)
def test_counts_below_one_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(EulerianPINN(carried(1.0), width=2, depth=1, key=jax.random.key(0)))
